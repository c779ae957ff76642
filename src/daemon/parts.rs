//! The parts that the service and the one-shot verbs are built from, made from the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::{DaemonError, first_fetch, formats, reindex, reload};
use crate::chunk::{Borders, ChunkSettings, Likeness, Weights};
use crate::clock::now_us;
use crate::config::{Config, StoreConfig};
use crate::embed::{
    self, DeviceRequest, DeviceSettings, Embedder, EmbedderHandle, FakeEmbedder, ModelFiles, ModelSpec,
};
use crate::extract::sandbox::{Sandbox, SandboxSettings};
use crate::extract::{self, Limits};
use crate::ingest::{
    Context, Fetcher, IngestSettings, Ingestor, Parents, Progress, ReconcileSettings, Reindexing, StoreWatch,
};
use crate::queue::{self, Queue, QueueHandle, Setup, StateLock};
use crate::store::{self, CollectionSpec, Ensured, StoreError, VectorStore};
use crate::telemetry::event;

/// Told what a long step is at, for whoever waits for it.
pub type Report<'a> = &'a dyn Fn(&str);

/// For callers that nobody watches.
pub fn quiet(_step: &str) {}

/// What the parts are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Runs for months: what may pass is waited for.
    Service,
    /// A person waits for the end: what does not answer is said.
    OneShot,
}

/// How long a one-shot run holds an embedded book for a store that does not answer.
const ONE_SHOT_PATIENCE: Duration = Duration::from_secs(30);

/// Everything a job needs.
pub struct Parts {
    /// In the order of preference.
    pub formats: Vec<String>,
    pub queue: QueueHandle,
    pub embedder: EmbedderHandle,
    pub store: Arc<dyn VectorStore>,
    pub ingestor: Arc<Ingestor>,
    pub progress: Arc<Progress>,
    pub stopping: Arc<AtomicBool>,
    /// Held as long as the parts are: one process a state directory.
    _lock: StateLock,
}

impl Parts {
    /// Locks the state directory, opens the state, loads and warms the model, opens the store.
    pub fn build(config: &Config, mode: Mode, report: Report) -> Result<Self, DaemonError> {
        report("opening the state");
        let formats = formats::in_order(config)?;
        let state_dir = prepare_state_dir(config)?;
        let lock = StateLock::acquire(&state_dir)?;
        let mut queue = Queue::open(&state_dir.join(queue::FILE_NAME))?;
        queue.set_retry_rules(reload::retry_rules(config));
        let recovered = queue.recover(now_us())?;
        if recovered > 0 {
            tracing::info!("{recovered} jobs were in work when the process ended last; they go on");
        }
        let unparked = queue.set_extractor_version(&extract::EXTRACTOR_VERSION.to_string())?;
        if unparked > 0 {
            tracing::info!("{unparked} parked books are tried again: this version reads more");
        }
        let scratch_dir = state_dir.join("scratch");
        clear_directory(&scratch_dir)?;
        let sandbox = sandbox(config);
        warm_up(&sandbox)?;
        let loaded = match mode {
            Mode::Service => first_fetch::load_embedder(config, &state_dir, report)?,
            Mode::OneShot => load_embedder(config, &state_dir, report)?,
        };
        let embedder = loaded.embedder;
        let setup = Setup {
            model: embedder.info().id.clone(),
            device: embedder.info().device.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            batch_tokens: embedder.batch_tokens(),
        };
        queue.begin_run(&setup, loaded.seconds, now_us())?;
        report("opening the store");
        let store = store::open(&store_settings(config)?, &state_dir)?;
        let spec = CollectionSpec {
            name: config.store.collection.clone(),
            dimension: embedder.info().dimension,
            model_id: embedder.info().id.clone(),
        };
        let reindexing = Arc::new(Reindexing::default());
        let goes_on = reindex::resume(&mut queue, store.as_ref(), &spec, &reindexing)?;
        let ensured = match reindexing.interrupted() {
            None => store.ensure_collection(&spec),
            // There may be nothing under the name for now, and nothing must be made there.
            Some(reason) if mode == Mode::OneShot => return Err(DaemonError::Failed(reason)),
            Some(_) => Ok(Ensured::Present),
        };
        if ensured.is_ok() {
            reindex::is_ours(&mut queue, &spec.name)?;
        }
        match ensured {
            Ok(Ensured::Present) => {}
            Ok(Ensured::Empty) => {
                queue.forget_indexed(now_us())?;
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(MESSAGE_ID = event::STORE_AWAY, REASON = %error, "{error}; books wait until it answers");
            }
            Err(error @ StoreError::WrongCollection { .. })
                if mode == Mode::Service && reindex::is_of_our_old_model(&queue, &spec.name, embedder.info())? =>
            {
                reindex::close(&reindexing, &error);
            }
            // A key, or a permission, that is mended at the server needs no restart here.
            Err(error @ StoreError::Rejected { .. }) if mode == Mode::Service => {
                tracing::error!(MESSAGE_ID = event::STORE_AWAY, REASON = %error, "{error}; books wait until that is mended");
            }
            Err(error) => return Err(error.into()),
        }
        // Not before: until here nothing is told to the store, and a start that is called off leaves nothing to check.
        if let Some(books) = queue.note_start(now_us())? {
            tracing::warn!(
                MESSAGE_ID = event::UNCLEAN_START,
                BOOKS = books,
                "the process before did not end in order; {books} books that were written last are compared with the store"
            );
        }
        let queue = QueueHandle::spawn(queue).map_err(DaemonError::io("the queue's thread cannot be started"))?;
        let progress = Arc::new(Progress::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let ingestor = Arc::new(Ingestor {
            queue: queue.clone(),
            embedder: embedder.clone(),
            store: store.clone(),
            collection: spec,
            settings: ingest_settings(config, scratch_dir, mode),
            sandbox: Arc::new(sandbox),
            fetcher: Arc::new(Fetcher::new(Duration::from_secs_f64(config.library.stall_seconds))),
            gate: Arc::default(),
            reindexing,
            copies_from: None,
            called_off: AtomicBool::new(false),
            store_watch: StoreWatch::default(),
            progress: progress.clone(),
            stopping: stopping.clone(),
        });
        if let (Some(goes_on), Mode::Service) = (goes_on, mode) {
            reindex::go_on(&ingestor, &goes_on);
        }
        Ok(Self { formats, queue, embedder, store, ingestor, progress, stopping, _lock: lock })
    }

    /// How the configured library is looked at.
    pub fn reconcile_settings(&self, config: &Config, path: &Path, watched: bool) -> ReconcileSettings {
        ReconcileSettings {
            path: path.to_owned(),
            formats: self.formats.clone(),
            scratch_dir: self.ingestor.settings.scratch_dir.clone(),
            removal: reload::removal_rules(config),
            watched,
        }
    }

    /// Makes what is written durable and ends the threads. Workers must have ended, or be past caring.
    pub fn close(self) {
        self.embedder.stop();
        match self.store.checkpoint() {
            Ok(()) => {
                if let Ok(Err(error)) = self.queue.call(Queue::note_end) {
                    tracing::warn!("{error}");
                }
            }
            Err(error) => tracing::warn!("{error}"),
        }
        self.queue.stop();
    }
}

/// How the store is to be opened, with its key from wherever that is kept.
pub fn store_settings(config: &Config) -> Result<StoreConfig, DaemonError> {
    let key = config.store_api_key()?;
    if let Some(warning) = key.warning {
        tracing::warn!("{warning}");
    }
    Ok(StoreConfig { api_key: key.text, ..config.store.clone() })
}

/// The state directory, made where it is absent.
pub fn prepare_state_dir(config: &Config) -> Result<PathBuf, DaemonError> {
    let state_dir = config.state_directory()?;
    std::fs::create_dir_all(&state_dir)
        .map_err(DaemonError::io(format!("the state directory {} cannot be made", state_dir.display())))?;
    Ok(state_dir)
}

/// Where the embedding is to run, by the configuration.
pub fn device_settings(config: &Config) -> Result<DeviceSettings, DaemonError> {
    let settings = &config.embedding;
    Ok(DeviceSettings {
        request: DeviceRequest::from_name(&settings.device)?,
        threads: settings.threads,
        batch_tokens: settings.batch_tokens,
        memory: settings.memory_mb << 20,
        cuda_libraries: PathBuf::from(&settings.cuda_libraries),
    })
}

/// The configured model's files, fetched where no folder is named.
pub fn model_files(config: &Config, state_dir: &Path, report: Report) -> Result<ModelFiles, DaemonError> {
    let settings = &config.embedding;
    let spec = ModelSpec::from_name(&settings.model);
    if !spec.is_known_to_readers() {
        tracing::warn!(
            "embedding.model '{}' is none of bge-m3, bge-large, minilm: the Python tools cannot query its collection",
            spec.id
        );
    }
    Ok(if settings.model_path.is_empty() {
        let name = spec.id.clone();
        ModelFiles::fetch(spec, &state_dir.join("models"), &|file, done, total| {
            let percent = (done * 100).checked_div(total).unwrap_or_default();
            report(&format!("fetching the model {name}: {file}, {percent} % of {:.1} GB", total as f64 / 1e9));
        })?
    } else {
        ModelFiles::open(spec, Path::new(&settings.model_path))?
    })
}

/// A model that is ready to embed.
pub struct LoadedEmbedder {
    pub embedder: EmbedderHandle,
    /// How long loading and warming up took, without fetching its files.
    pub seconds: f64,
}

/// Loads the configured model and hands it to its thread. The one place that loads a model.
pub fn load_embedder(config: &Config, state_dir: &Path, report: Report) -> Result<LoadedEmbedder, DaemonError> {
    let settings = &config.embedding;
    let mut started = Instant::now();
    let embedder: Box<dyn Embedder> = if settings.model == "fake" && settings.model_path.is_empty() {
        tracing::warn!("embedding.model is \"fake\": vectors mean nothing; for tests only");
        Box::new(FakeEmbedder::default())
    } else {
        let files = model_files(config, state_dir, report)?;
        started = Instant::now();
        let size = std::fs::metadata(files.weights.path()).map_or(0, |metadata| metadata.len());
        report(&format!("loading the model {} ({:.1} GB)", files.spec.id, size as f64 / 1e9));
        embed::load(files, &device_settings(config)?)?
    };
    let embedder = EmbedderHandle::spawn(embedder)?;
    let seconds = started.elapsed().as_secs_f64();
    let info = embedder.info();
    tracing::info!(
        MESSAGE_ID = event::MODEL_LOADED,
        MODEL = info.id,
        DEVICE = info.device,
        SECONDS = seconds,
        "model {} loaded on {} in {seconds:.1} s: {} dimensions, up to {} tokens",
        info.name,
        info.device,
        info.dimension,
        info.max_tokens
    );
    Ok(LoadedEmbedder { embedder, seconds })
}

/// How the configuration wants books ingested.
pub fn ingest_settings(config: &Config, scratch_dir: PathBuf, mode: Mode) -> IngestSettings {
    let chunking = &config.chunking;
    IngestSettings {
        chunking: ChunkSettings {
            // Checked by the configuration: one of these.
            borders: match chunking.strategy.as_str() {
                "structure" => Borders::Cheapest { likeness: Likeness::None, weights: Weights::default() },
                "lexical" => Borders::Cheapest { likeness: Likeness::Lexical, weights: Weights::default() },
                "packed" => Borders::Packed,
                _ => Borders::UniversalSemantic { threshold: chunking.threshold as f32 },
            },
            min_words: chunking.min_words,
            target_words: chunking.target_words,
            max_words: chunking.max_words,
            min_chapter_words: chunking.min_chapter_words,
        },
        parents: match chunking.parents.as_str() {
            "embed" => Parents::Embed,
            "none" => Parents::None,
            _ => Parents::Mean,
        },
        context: match chunking.context.as_str() {
            "path" => Context::Path,
            _ => Context::None,
        },
        max_file_bytes: config.ingest.max_file_mib << 20,
        scratch_dir,
        // Who names a file has it whole, or wants to know that it is not.
        unfinished: match mode {
            Mode::Service => Duration::from_secs_f64(config.ingest.unfinished_seconds),
            Mode::OneShot => Duration::ZERO,
        },
        store_patience: match mode {
            Mode::Service => Duration::MAX,
            Mode::OneShot => ONE_SHOT_PATIENCE,
        },
    }
}

/// Where books are read, as the configuration limits it.
pub fn sandbox(config: &Config) -> Sandbox {
    let extract = &config.extract;
    let defaults = SandboxSettings::default();
    let max_text_bytes = extract.max_text_mib << 20;
    Sandbox::new(SandboxSettings {
        limits: Limits {
            max_text_bytes,
            max_entry_bytes: max_text_bytes,
            max_total_bytes: extract.max_unpacked_mib << 20,
        },
        memory_bytes: extract.memory_mib << 20,
        cpu_seconds: extract.cpu_seconds,
        stall: Duration::from_secs(extract.stall_seconds),
        ..defaults
    })
}

/// Starts the first reader, so that a machine that cannot confine one says so at the start and not at the first book.
fn warm_up(sandbox: &Sandbox) -> Result<(), DaemonError> {
    let confinement = sandbox.warm_up().map_err(DaemonError::io("books cannot be read in a child process"))?;
    let settings = sandbox.settings();
    let cost = format!("at most {} MiB and {} CPU seconds a book", settings.memory_bytes >> 20, settings.cpu_seconds);
    match (confinement.landlock, confinement.seccomp) {
        (true, true) => tracing::debug!("books are read in child processes without files and network; {cost}"),
        (landlock, seccomp) => {
            let mut missing = Vec::new();
            missing.extend((!landlock).then_some("Landlock"));
            missing.extend((!seccomp).then_some("seccomp"));
            tracing::warn!(
                "{} cannot be had here (an old kernel, or a container that forbids it): the child processes that read \
                 books are confined less; {cost}",
                missing.join(" and ")
            );
        }
    }
    Ok(())
}

/// Leftovers of a process that was killed are of no use to anybody.
fn clear_directory(directory: &Path) -> Result<(), DaemonError> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::create_dir_all(directory),
    }
    .map_err(DaemonError::io(format!("the working directory {} cannot be cleared", directory.display())))
}
