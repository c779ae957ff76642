//! One job as a straight line through the stages. The only module that knows their order.
//!
//! Invariant (rule 4 of the design): new points are written, made durable and counted before the state says so; points
//! of older generations go after that; the job is done last. Every crash point in between heals by running the job
//! again, because ids are deterministic.

mod audit;
mod border_vectors;
mod ending;
mod fetch;
mod fetcher;
mod formats;
mod gate;
mod inventory;
mod plan;
mod progress;
mod reconcile;
mod reindex;
mod story;
mod worker;
mod writing;

pub use border_vectors::ModelVectors;
pub use fetcher::Fetcher;
pub use formats::why_unread;
pub use gate::{ClosedLibrary, LibraryGate};
pub use plan::{Context, ParentText, Parents, cut_to_tokens, generation, mean_vectors, parents};
pub use progress::{CurrentJob, Progress, Stage};
pub use reconcile::{LookError, Looked, ReconcileSettings, Reconciler, RemovalRules, ShelfState};
pub use reindex::{Completion, Reindexing, left_over, settle, shadow_name};
pub use worker::{FatalFailure, Unfinished, WorkerSettings, Workers};
pub use writing::StoreWatch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use border_vectors::JobVectors;
use fetch::{CopyError, CopyRequest, ScratchCopy};
use fetcher::NoAnswer;
use plan::Need;

use crate::chunk::{ChunkSettings, chunk_sections};
use crate::domain::{
    Book, BookFile, CataloguePayload, ChapterChunks, Document, FailedFile, Failure, FailureKind, FileMetadata,
    LibraryKind, Point, iso_639_1,
};
use crate::embed::{EmbedError, EmbedderHandle, Priority, TextTokenizer};
use crate::extract::ExtractError;
use crate::extract::sandbox::Sandbox;
use crate::queue::{ClaimedJob, IndexedState, JobKind, JobReport, Outcome, QueueError, QueueHandle, QueueStopped};
use crate::store::{CollectionSpec, StoreError, VectorStore};
use crate::telemetry::event;

/// Texts handed to the embedder at once: enough for full batches, few enough to show progress and to stop soon.
const TEXTS_PER_REQUEST: usize = 64;

/// How books are ingested.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    pub chunking: ChunkSettings,
    pub parents: Parents,
    pub context: Context,
    /// Larger files are parked.
    pub max_file_bytes: u64,
    /// Local directory for the copies that are parsed.
    pub scratch_dir: PathBuf,
    /// A file without its end that came less than this time ago is taken for one that is being written.
    pub unfinished: Duration,
    /// How long a book that is embedded waits in memory for a store that does not answer, before its job goes back to
    /// the queue and the embedding is lost.
    pub store_patience: Duration,
}

impl IngestSettings {
    /// Tokens a chunk may have: what the model takes, less the room for its context.
    pub fn chunk_limit(&self, content_tokens: usize) -> usize {
        content_tokens.saturating_sub(self.context.tokens(content_tokens)).max(1)
    }

    /// Of the chunker as configured, of how parents get their vectors, and of what children are embedded with.
    pub fn chunker_fingerprint(&self) -> String {
        let Self { chunking, parents, context, .. } = self;
        format!("{}:{parents:?}:{context:?}", chunking.fingerprint())
    }
}

/// Does jobs. Shared by all workers.
pub struct Ingestor {
    pub queue: QueueHandle,
    pub embedder: EmbedderHandle,
    pub store: Arc<dyn VectorStore>,
    /// What the store's collection must be; made or checked before each write, for it may come late or go.
    pub collection: CollectionSpec,
    pub settings: IngestSettings,
    pub sandbox: Arc<Sandbox>,
    /// Where the mount's calls may hang.
    pub fetcher: Arc<Fetcher>,
    /// The libraries that do not answer.
    pub gate: Arc<LibraryGate>,
    /// Which collections are written: the live one, the one that a reindex builds, both, or none for a moment.
    pub reindexing: Arc<Reindexing>,
    /// Where this one writes into the collection that a reindex builds: the live one, to take points over from.
    pub copies_from: Option<Arc<dyn VectorStore>>,
    /// The collection is given up: the job in hand goes back at its next step.
    pub called_off: AtomicBool,
    /// What is known of the store's health.
    pub store_watch: StoreWatch,
    pub progress: Arc<Progress>,
    /// Set at shutdown: the job in hand is given back at its next step.
    pub stopping: Arc<AtomicBool>,
}

/// Why a job was not done.
#[derive(Debug)]
pub enum JobError {
    Failed(Failure),
    /// The book's library does not answer: the job goes back, and what else has to be read from there waits, too.
    LibraryAway(Failure),
    /// The process is stopping: the job goes back as it was.
    Interrupted,
}

impl From<Failure> for JobError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        Self::Failed(match error {
            StoreError::BadVector { .. } => Failure::book(error),
            // What it refuses now it will refuse again: a few tries, then the book steps aside for the others.
            StoreError::Rejected { .. } => Failure::transient(error),
            _ => Failure::dependency(error),
        })
    }
}

impl From<CopyError> for JobError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::File(failure) => Self::Failed(failure),
            CopyError::Library(reason) => Self::LibraryAway(Failure::dependency(reason)),
            CopyError::Scratch(reason) => Self::Failed(Failure::dependency(reason)),
        }
    }
}

impl From<EmbedError> for JobError {
    fn from(error: EmbedError) -> Self {
        match error {
            // Workers abandon nothing.
            EmbedError::Stopped | EmbedError::Abandoned => Self::Interrupted,
            EmbedError::TooLong { .. } => Self::Failed(Failure::book(error)),
            // The card's other tenants may leave: no fault of the book.
            EmbedError::OutOfMemory(_) => Self::Failed(Failure::dependency(error)),
            EmbedError::DeviceLost(_) => Self::Failed(Failure::fatal(error)),
            EmbedError::Load(_) | EmbedError::Fetch(_) | EmbedError::NoDevice(_) | EmbedError::Compute(_) => {
                Self::Failed(Failure::transient(error))
            }
        }
    }
}

impl From<ExtractError> for JobError {
    fn from(error: ExtractError) -> Self {
        match error {
            ExtractError::Stopped => Self::Interrupted,
            error if error.is_book_fault() => Self::Failed(Failure::book(error)),
            error => Self::Failed(Failure::transient(error)),
        }
    }
}

impl From<QueueStopped> for JobError {
    fn from(_: QueueStopped) -> Self {
        Self::Interrupted
    }
}

impl From<QueueError> for JobError {
    fn from(error: QueueError) -> Self {
        Self::Failed(Failure { kind: error.kind(), reason: error.to_string() })
    }
}

/// What reading a file came to.
enum Read {
    /// Its bytes are what the store holds already.
    SameBytes(IndexedState),
    Text {
        document: Document,
        content_hash: String,
    },
}

/// How far a job has come.
pub enum Ran {
    /// To its end, and the state says so.
    Done(JobSummary),
    /// The store took the new payloads, but they are not synced to disk and the state says nothing yet:
    /// [`Ingestor::finish_written`] does both, for many at once.
    Written(JobSummary),
}

/// What a finished job did, for the log line.
#[derive(Debug, Clone)]
pub struct JobSummary {
    pub report: JobReport,
    pub indexed: Option<IndexedState>,
}

/// A book whose children have their vectors.
pub struct BookVectors<'a> {
    pub book: &'a Book,
    pub file: &'a FileMetadata,
    pub chapters: &'a [ChapterChunks],
    /// One for each child, in order.
    pub child_vectors: Vec<Vec<f32>>,
    pub embedder: &'a EmbedderHandle,
    pub settings: &'a IngestSettings,
    pub content_hash: &'a str,
    pub generation: &'a str,
}

/// A book's points, parents included; embeds where parents are to have a pass of their own.
pub fn book_points(from: &BookVectors) -> Result<Vec<Point>, EmbedError> {
    let tokenizer = from.embedder.tokenizer();
    let parents = plan::parents(from.chapters, from.settings.parents, tokenizer.as_ref(), tokenizer.content_tokens());
    let parent_vectors = match from.settings.parents {
        Parents::Embed => {
            let texts: Vec<&str> = parents.iter().map(|parent| parent.text.as_str()).collect();
            from.embedder.embed(&texts, Priority::Bulk)?
        }
        Parents::Mean => plan::mean_vectors(from.chapters, &from.child_vectors),
        Parents::None => Vec::new(),
    };
    Ok(plan::points(&plan::PointInputs {
        book: from.book,
        file: from.file,
        chapters: from.chapters,
        child_vectors: &from.child_vectors,
        parents,
        parent_vectors,
        model: from.embedder.info(),
        strategy: from.settings.chunking.strategy(),
        chunker_fingerprint: &from.settings.chunker_fingerprint(),
        content_hash: from.content_hash,
        generation: from.generation,
        // Local time without a zone: what the contract's readers expect.
        ingested_at: &chrono::Local::now().format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
    }))
}

/// The children as they are embedded, with the tokens of their own text.
pub fn embedded_texts<'a>(
    chapters: &'a [ChapterChunks],
    book_title: &str,
    settings: &IngestSettings,
    tokenizer: &dyn TextTokenizer,
) -> Vec<(Cow<'a, str>, usize)> {
    let context_tokens = settings.context.tokens(tokenizer.content_tokens());
    let of_chapter = |chapter: &'a ChapterChunks| {
        let text = |child| plan::embedded_text(settings.context, book_title, chapter, child, tokenizer, context_tokens);
        chapter.children.iter().map(move |child| (text(child), child.tokens)).collect::<Vec<_>>()
    };
    chapters.iter().flat_map(of_chapter).collect()
}

/// Seconds by stage of one job.
#[derive(Default)]
struct Timings(BTreeMap<String, f64>);

impl Timings {
    fn measure<T>(&mut self, stage: &str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        *self.0.entry(stage.to_owned()).or_default() += started.elapsed().as_secs_f64();
        result
    }

    fn of(&self, stage: &str) -> f64 {
        self.0.get(stage).copied().unwrap_or_default()
    }
}

impl Ingestor {
    /// Whether a job most likely comes to new payloads alone.
    fn is_cheap(job: &ClaimedJob) -> bool {
        job.kind == JobKind::Ingest && matches!(plan::need(job), Need::Keep { .. })
    }

    /// Runs one claimed job, as a rule up to and including the state's `done`.
    pub fn run(&self, job: &ClaimedJob) -> Result<Ran, JobError> {
        let mut timings = Timings::default();
        let summary = |(outcome, indexed), timings: Timings| {
            let report = JobReport { outcome, timings: timings.0, device: self.embedder.info().device.clone() };
            JobSummary { report, indexed }
        };
        let ended = match job.kind {
            JobKind::Remove => (self.remove(job, &mut timings)?, None),
            JobKind::Ingest => {
                self.ensure_store()?;
                if let Need::Keep { file, indexed } = plan::need(job)
                    && let Some((outcome, indexed)) =
                        self.update_payloads(&formats::reading(job, file), *indexed, &mut timings)?
                {
                    return Ok(Ran::Written(summary((outcome, Some(indexed)), timings)));
                }
                let (outcome, indexed) = match self.take_over(job, &mut timings)? {
                    Some(taken) => taken,
                    None => self.read_and_embed(job, job.force, &mut timings)?,
                };
                (outcome, Some(indexed))
            }
        };
        let summary = summary(ended, timings);
        let (id, done) = (job.id, summary.report.clone());
        self.queue.call(move |queue| queue.complete(id, &done, crate::clock::now_us()))??;
        Ok(Ran::Done(summary))
    }

    /// Reads the book; embeds it only if its text is not what the store holds already (or `force`).
    fn read_and_embed(
        &self,
        job: &ClaimedJob,
        force: bool,
        timings: &mut Timings,
    ) -> Result<(Outcome, IndexedState), JobError> {
        let (file, read) = self.read_book(job, force, timings)?;
        let of_file = &formats::reading(job, file);
        match read {
            Read::SameBytes(indexed) => match self.keep(of_file, indexed, timings)? {
                Some(kept) => Ok(kept),
                // The store lacks points of it.
                None => self.read_and_embed(job, true, timings),
            },
            Read::Text { document, content_hash } => {
                let text_hash = document.text_hash();
                let same = plan::same_text(of_file, &text_hash, &content_hash, document.file_metadata());
                if let Some(indexed) = same.filter(|_| !force)
                    && let Some(kept) = self.keep(of_file, indexed, timings)?
                {
                    return Ok(kept);
                }
                self.embed_and_write(of_file, &document, content_hash, text_hash, timings)
            }
        }
    }

    /// Tries the book's files in the order of preference until one gives text. A file's own fault leads to the next
    /// one; a library or a disk that does not answer ends the job as it would with one file.
    fn read_book<'a>(
        &self,
        job: &'a ClaimedJob,
        force: bool,
        timings: &mut Timings,
    ) -> Result<(&'a BookFile, Read), JobError> {
        let mut failed: Vec<FailedFile> = Vec::new();
        for file in formats::to_try(job) {
            match self.read_file(job, file, force, timings) {
                Ok(read) => {
                    self.record_failed(job, formats::known_to_fail(job, &failed, Some(file)))?;
                    if !failed.is_empty() {
                        tracing::warn!(
                            MESSAGE_ID = event::BOOK_FALLBACK,
                            FORMAT = file.format,
                            "book {} '{}': {}",
                            job.book.source.id(),
                            job.book.metadata.title,
                            formats::instead_of(&failed, file)
                        );
                    }
                    return Ok((file, read));
                }
                Err(JobError::Failed(failure)) if failure.kind == FailureKind::Book => {
                    failed.push(FailedFile::new(file, failure.reason));
                }
                Err(other) => return Err(other),
            }
        }
        let known = formats::known_to_fail(job, &failed, None);
        let reason = formats::reason_of_all(&job.book, &known);
        self.record_failed(job, known)?;
        Err(Failure::book(reason).into())
    }

    fn read_file(
        &self,
        job: &ClaimedJob,
        file: &BookFile,
        force: bool,
        timings: &mut Timings,
    ) -> Result<Read, JobError> {
        self.step(job, Stage::Copy)?;
        let copy = timings.measure("copy", || self.copy(job, file))?;
        if let Some(indexed) = plan::same_bytes(job, file, &copy.content_hash).filter(|_| !force) {
            return Ok(Read::SameBytes(indexed));
        }
        self.step(job, Stage::Extract)?;
        let document = timings.measure("extract", || {
            let copy = copy.reopen().map_err(|source| ExtractError::Io { path: copy.path().to_owned(), source })?;
            self.sandbox.extract(&copy, &file.path, &file.format, &|| self.interrupted().is_ok())
        })?;
        story::read(job, file, &document, timings);
        Ok(Read::Text { document, content_hash: copy.content_hash })
    }

    /// On a thread of its own, which is left behind where the mount hangs.
    fn copy(&self, job: &ClaimedJob, file: &BookFile) -> Result<ScratchCopy, JobError> {
        let uuid = job.book.library_uuid;
        let libraries = self.queue.call(move |queue| queue.libraries())??;
        let library = libraries.into_iter().find(|library| library.uuid == uuid);
        let request = CopyRequest {
            file: file.clone(),
            library: library
                .filter(|library| library.kind != LibraryKind::Files)
                .map(|library| (library.kind, library.path)),
            scratch_dir: self.settings.scratch_dir.clone(),
            max_bytes: self.settings.max_file_bytes,
            unfinished: self.settings.unfinished,
        };
        let go_on = || self.interrupted().is_ok();
        match self.fetcher.run(uuid, &go_on, move |steps| fetch::copy_to_scratch(&request, steps)) {
            Ok(copied) => {
                let copy = copied?;
                if self.gate.open(uuid) {
                    self.queue.work_available();
                }
                Ok(copy)
            }
            Err(NoAnswer::Interrupted) => Err(JobError::Interrupted),
            Err(NoAnswer::Hangs { since_us }) => Err(JobError::LibraryAway(Failure::dependency(format!(
                "{} cannot be read: the mount it is on has not answered for {} s",
                file.path.display(),
                (crate::clock::now_us() - since_us).max(0) / 1_000_000
            )))),
            Err(NoAnswer::Failed) => Err(Failure::transient(format!(
                "{} could not be copied: no thread was to be had, or the copying panicked (see the log)",
                file.path.display()
            ))
            .into()),
        }
    }

    fn embed_and_write(
        &self,
        job: &ClaimedJob,
        document: &Document,
        content_hash: String,
        text_hash: String,
        timings: &mut Timings,
    ) -> Result<(Outcome, IndexedState), JobError> {
        let file = document.file_metadata();
        let chunker_fingerprint = self.settings.chunker_fingerprint();
        let model = self.embedder.info();
        let generation = plan::generation(&content_hash, &chunker_fingerprint, &model.fingerprint);
        let indexed = IndexedState {
            content_hash,
            text_hash,
            file_signature: job.book.file.signature(),
            file_metadata: file.clone(),
            generation,
            chunker_fingerprint,
            model_fingerprint: model.fingerprint.clone(),
            words: document.words(),
            ..IndexedState::default()
        };
        if !job.force
            && let Some(adopted) = self.adopt(job, &indexed)?
            && let Some((_, indexed)) = self.keep(job, adopted, timings)?
        {
            return Ok((Outcome::Adopted, indexed));
        }
        let chapters = self.chunk(job, document, &file, timings)?;
        let title = job.book.metadata.title_with(&file, job.book.source.name());
        let children = embedded_texts(&chapters, title, &self.settings, self.embedder.tokenizer().as_ref());
        let vectors = self.embed(job, &children, timings)?;
        let points = timings.measure("embed", || {
            let from = BookVectors {
                book: &job.book,
                file: &file,
                chapters: &chapters,
                child_vectors: vectors,
                embedder: &self.embedder,
                settings: &self.settings,
                content_hash: &indexed.content_hash,
                generation: &indexed.generation,
            };
            // Parents may have a pass of their own.
            self.progress.asking(job.id, || book_points(&from))
        })?;
        let indexed = IndexedState {
            metadata_hash: CataloguePayload::new(&job.book, &file, &indexed.content_hash).hash(),
            sections: chapters.len(),
            chunks: chapters.iter().map(|chapter| chapter.children.len()).sum(),
            points: points.len(),
            tokens: chapters.iter().flat_map(|chapter| &chapter.children).map(|child| child.tokens).sum(),
            ..indexed
        };
        self.step(job, Stage::Store)?;
        timings.measure("store", || self.write(job, &points, &indexed))?;
        Ok((Outcome::Embedded, indexed))
    }

    fn chunk(
        &self,
        job: &ClaimedJob,
        document: &Document,
        file: &FileMetadata,
        timings: &mut Timings,
    ) -> Result<Vec<ChapterChunks>, JobError> {
        self.step(job, Stage::Chunk)?;
        let language = iso_639_1(job.book.metadata.language.as_deref().or(file.language.as_deref()));
        let tokenizer = self.embedder.tokenizer();
        timings.measure("borders", || {
            chunk_sections(
                &document.sections,
                &language,
                &self.settings.chunking,
                tokenizer.as_ref(),
                self.settings.chunk_limit(tokenizer.content_tokens()),
                &mut JobVectors { ingestor: self, job },
            )
        })
    }

    /// `texts` with their tokens.
    fn embed(
        &self,
        job: &ClaimedJob,
        texts: &[(Cow<str>, usize)],
        timings: &mut Timings,
    ) -> Result<Vec<Vec<f32>>, JobError> {
        self.step(job, Stage::Embed)?;
        // Longest first over the whole book, so that requests hold texts of like lengths and batches fill.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(texts[index].0.len()));
        let mut vectors = vec![Vec::new(); texts.len()];
        let total: usize = texts.iter().map(|(_, tokens)| tokens).sum();
        let (mut done, mut done_tokens) = (0, 0);
        self.progress.expect(job.id, texts.len(), total);
        let mut advance = story::Advance::new();
        timings.measure("embed", || {
            for group in order.chunks(TEXTS_PER_REQUEST) {
                self.interrupted()?;
                let part: Vec<&str> = group.iter().map(|&index| texts[index].0.as_ref()).collect();
                let embedded = self.progress.asking(job.id, || self.embedder.embed(&part, Priority::Bulk))?;
                for (&index, vector) in group.iter().zip(embedded) {
                    vectors[index] = vector;
                }
                let tokens: usize = group.iter().map(|&index| texts[index].1).sum();
                self.progress.advance(job.id, group.len(), tokens);
                (done, done_tokens) = (done + group.len(), done_tokens + tokens);
                advance.tell(job, (done, texts.len()), (done_tokens, total));
            }
            Ok(vectors)
        })
    }

    fn record(&self, job: &ClaimedJob, indexed: &IndexedState) -> Result<(), JobError> {
        let (id, indexed) = (job.id, indexed.clone());
        Ok(self.queue.call(move |queue| queue.record_written(id, &indexed, crate::clock::now_us()))??)
    }

    /// In the state before anything else is done: a job that is interrupted goes on with the file that was found.
    fn record_failed(&self, job: &ClaimedJob, failed: Vec<FailedFile>) -> Result<(), JobError> {
        // The live collection keeps what it has of a file that only the shadow's job found damaged.
        if failed == job.failed || job.shadow {
            return Ok(());
        }
        let id = job.id;
        Ok(self.queue.call(move |queue| queue.record_failed_files(id, &failed))??)
    }

    /// Shows the stage, and gives the job back where the process is stopping.
    fn step(&self, job: &ClaimedJob, stage: Stage) -> Result<(), JobError> {
        self.interrupted()?;
        self.progress.enter(job.id, stage);
        Ok(())
    }

    fn interrupted(&self) -> Result<(), JobError> {
        let ends = self.stopping.load(Ordering::Relaxed) || self.called_off.load(Ordering::Relaxed);
        if ends { Err(JobError::Interrupted) } else { Ok(()) }
    }
}
