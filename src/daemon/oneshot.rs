//! What runs without a service: `ingest PATH...` looks at the paths, works the queue off, shows a bar, ends; `restore`
//! and `rebuild` mend a lost or damaged state.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::parts::{self, Mode, Parts};
use super::{DaemonError, shared_log};
use crate::clock::now_us;
use crate::config::Config;
use crate::domain::LibraryKind;
use crate::ingest::{LookError, Looked, Reconciler, WorkerSettings, Workers, why_unread};
use crate::library::{self, Heartbeat, LibraryError};
use crate::queue::{self, JobKind, Outcome, Queue, QueueError, StateLock};

/// How long the end of the work in hand is waited for after Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the ingest log may take to be caught up at the end.
const LOG_PATIENCE: Duration = Duration::from_secs(30);

/// What one-shot ingestion did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestSummary {
    pub embedded: usize,
    pub payload_only: usize,
    /// Found whole in the store, of which the state knew nothing.
    pub adopted: usize,
    pub unchanged: usize,
    pub failed: Vec<String>,
    /// From the start of the first job to the end of the last, and how long the model computed in it.
    pub worked: Duration,
    pub model_at_work: Duration,
    pub interrupted: bool,
    /// Jobs that are still to be done: given back, or waiting for their next try.
    pub remaining: u64,
}

/// Ingests files, folders and libraries, and whatever else the queue holds.
pub fn ingest_paths(config: &Config, paths: &[PathBuf], bar: &ProgressBar) -> Result<IngestSummary, DaemonError> {
    let parts = Parts::build(config, Mode::OneShot, &parts::quiet)?;
    let ingest_log = shared_log::start(config, &parts, None)?;
    let mut refused = Vec::new();
    for path in paths {
        match take_in(&parts, config, path, false) {
            Ok(message) => tracing::info!("{message}"),
            Err(error) => refused.push(error.to_string()),
        }
    }
    if parts.queue.call(|queue| queue.paused()).map_err(LookError::from)?? {
        tracing::info!("the queue was paused; it goes on");
        parts.queue.call(|queue| queue.set_paused(false)).map_err(LookError::from)??;
    }
    let stats = parts.queue.call(|queue| queue.stats()).map_err(LookError::from)??;
    let total = stats.queued + stats.waiting;
    show_bar(bar, total);
    let summary = Arc::new(Mutex::new(IngestSummary { failed: refused, ..IngestSummary::default() }));
    let finished = Arc::new(AtomicUsize::new(0));
    let (of_worker, counter) = (summary.clone(), finished.clone());
    let (started, embedder) = (Instant::now(), parts.embedder.clone());
    let busy_before = embedder.counters().busy_seconds;
    let workers = Workers::spawn(
        &parts.ingestor,
        WorkerSettings { workers: config.ingest.workers, until_idle: true },
        move |job, result| {
            let mut summary = of_worker.lock().unwrap_or_else(PoisonError::into_inner);
            summary.worked = started.elapsed();
            summary.model_at_work = Duration::from_secs_f64((embedder.counters().busy_seconds - busy_before).max(0.0));
            match result {
                Ok(done) => match done.report.outcome {
                    Outcome::Embedded => summary.embedded += 1,
                    Outcome::PayloadOnly => summary.payload_only += 1,
                    Outcome::Adopted => summary.adopted += 1,
                    Outcome::Unchanged | Outcome::Removed => summary.unchanged += 1,
                },
                Err(failure) => summary.failed.push(format!("{}: {failure}", job.book.metadata.title)),
            }
            if result.is_ok() {
                // It failed before and was tried again.
                let earlier = format!("{}: ", job.book.metadata.title);
                summary.failed.retain(|failed| !failed.starts_with(&earlier));
            }
            counter.fetch_add(1, Ordering::Relaxed);
        },
    )
    .map_err(DaemonError::io("the workers cannot be started"))?;
    let interrupted = watch(&parts, &workers, bar, &finished)?;
    bar.finish_and_clear();
    if interrupted {
        parts.embedder.stop();
        workers.join_until(Instant::now() + PATIENCE);
    }
    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
    summary.interrupted = interrupted;
    let left = parts.queue.call(|queue| queue.stats()).map_err(LookError::from)??;
    summary.remaining = left.queued + left.waiting + left.running;
    if let Some(log) = ingest_log
        && (!log.finish(LOG_PATIENCE) || log.status().trouble.is_some())
    {
        tracing::warn!("the ingest log does not have all of it yet; it is caught up at the next run");
    }
    parts.close();
    Ok(summary)
}

/// Puts a backup in the place of the state. The next start compares what was written last with the store, and takes over
/// what the store got since.
pub fn restore(config: &Config, backup: &Path) -> Result<String, DaemonError> {
    let state_dir = parts::prepare_state_dir(config)?;
    let _lock = StateLock::acquire(&state_dir)?;
    let kept = queue::restore(&state_dir, backup)?;
    let kept = kept.map(|kept| format!("; the one of before is kept as {}", kept.display())).unwrap_or_default();
    Ok(format!("{} is the state of {} now{kept}", backup.display(), state_dir.display()))
}

/// Makes a new state from the configured library and what the store holds; a book that the store has whole is not
/// embedded again. A state that is sound is only replaced where `force` says so.
pub fn rebuild(config: &Config, force: bool, bar: &ProgressBar) -> Result<IngestSummary, DaemonError> {
    let library = PathBuf::from(&config.library.path);
    // Before anything is moved away: without the library there is nothing to make a state from.
    library::detect(&library).map_err(LookError::from)?;
    let state_dir = parts::prepare_state_dir(config)?;
    {
        let _lock = StateLock::acquire(&state_dir)?;
        let state = state_dir.join(queue::FILE_NAME);
        if !force && state.exists() {
            match Queue::open(&state) {
                Ok(_) => {
                    return Err(DaemonError::Failed(format!(
                        "the state file {} is sound, so there is nothing to rebuild; `alexandriactl verify` compares it \
                         with the store, --force makes a new one all the same (what was taken out by hand comes back)",
                        state.display()
                    )));
                }
                Err(error @ QueueError::Newer { .. }) => return Err(error.into()),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        if let Some(kept) = queue::set_aside(&state_dir)? {
            tracing::info!("the state of before is kept as {}", kept.display());
        }
    }
    ingest_paths(config, &[library], bar)
}

/// Records what is at a path; says what was found. `force` has all of it embedded again, changed or not.
pub(super) fn take_in(parts: &Parts, config: &Config, path: &Path, force: bool) -> Result<String, DaemonError> {
    let path = std::path::absolute(path).map_err(DaemonError::io(path.display().to_string()))?;
    let metadata = std::fs::metadata(&path).map_err(DaemonError::io(format!("{} cannot be read", path.display())))?;
    let around = path.ancestors().skip(1).find(|ancestor| ancestor.join("metadata.db").is_file());
    if metadata.is_file() {
        return take_in_file(parts, config, &path, around, force);
    }
    if let Some(library) = around {
        return Err(DaemonError::Failed(format!(
            "{} lies inside the Calibre library {}; name the library, or a book's file in it",
            path.display(),
            library.display()
        )));
    }
    let reconciler = Reconciler::new(parts.queue.clone(), parts.reconcile_settings(config, &path, false));
    let looked = look_until_settled(&reconciler)?;
    let shelf = reconciler.shelf();
    let mut message = format!("{}: {} books, {}", path.display(), shelf.books, looked.applied);
    if !shelf.passed_over.is_empty() {
        message.push_str(&format!("; {} cannot be read as they are", shelf.passed_over.len()));
        for book in &shelf.passed_over {
            tracing::warn!(BOOK_TITLE = book.title, "'{}' is passed over: {}", book.title, book.reason);
        }
    }
    if let (true, Some(library)) = (force, shelf.library) {
        parts
            .queue
            .call(move |queue| {
                queue.known_books(library.uuid)?.iter().try_for_each(|known| {
                    queue.enqueue_by_hand(library.uuid, known.uuid, JobKind::Ingest, true, now_us()).map(drop)
                })
            })
            .map_err(LookError::from)??;
        message.push_str("; all are embedded again");
    }
    Ok(message)
}

/// Nobody looks here again, so files that were written a moment ago are waited for.
fn look_until_settled(reconciler: &Reconciler) -> Result<Looked, DaemonError> {
    const LOOKS: usize = 4;
    let mut total = Looked::default();
    for look in 1..=LOOKS {
        let looked = reconciler.look(true, &Heartbeat::default())?;
        total = Looked { applied: total.applied.plus(&looked.applied), unsettled: looked.unsettled };
        if !looked.unsettled || look == LOOKS {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(total)
}

/// `around` is the Calibre library that the file lies in.
fn take_in_file(
    parts: &Parts,
    config: &Config,
    path: &Path,
    around: Option<&Path>,
    force: bool,
) -> Result<String, DaemonError> {
    if let Some(library) = around {
        // Its book must be known before it can be found by its path.
        Reconciler::new(parts.queue.clone(), parts.reconcile_settings(config, library, false))
            .look(false, &Heartbeat::default())?;
    }
    let wanted = path.to_owned();
    let shelved = parts
        .queue
        .call(move |queue| -> Result<_, QueueError> {
            let Some(record) = queue.find_shelved(&wanted)? else { return Ok(None) };
            let book = record.book;
            queue.enqueue_by_hand(book.library_uuid, book.uuid, JobKind::Ingest, force, now_us())?;
            Ok(Some(book.metadata.title))
        })
        .map_err(LookError::from)??;
    if let Some(title) = shelved {
        // A library's own book: taken in as a loose file it would stand in the index twice.
        return Ok(format!("{}: '{title}' is queued", path.display()));
    }
    if let Some(library) = around {
        return Err(DaemonError::Failed(format!(
            "{} lies inside the Calibre library {}, but is not the file its book is read from (library.formats)",
            path.display(),
            library.display()
        )));
    }
    let library = parts
        .queue
        // One library of the kind holds all files named by hand, wherever they are.
        .call(|queue| queue.library_at(LibraryKind::Files, Path::new(""), None))
        .map_err(LookError::from)??;
    let book = library::single_file(path, library.uuid, &parts.formats).map_err(|error| match error {
        LibraryError::UnknownFormat { path, format } if let Some(why) = why_unread(&format) => {
            DaemonError::Failed(format!("{} is not read: {why}", path.display()))
        }
        error => LookError::from(error).into(),
    })?;
    let title = book.metadata.title.clone();
    parts
        .queue
        .call(move |queue| {
            queue.upsert_book(&book, now_us())?;
            queue.enqueue_by_hand(library.uuid, book.uuid, JobKind::Ingest, force, now_us())
        })
        .map_err(LookError::from)??;
    Ok(format!("{}: '{title}' is queued", path.display()))
}

fn show_bar(bar: &ProgressBar, total: u64) {
    bar.set_length(total);
    let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:30} {pos}/{len} books  {wide_msg}");
    // The template is fixed and parses; without it the bar has its plain form.
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
}

/// Until the workers end or Ctrl-C; true for the latter.
fn watch(parts: &Parts, workers: &Workers, bar: &ProgressBar, finished: &AtomicUsize) -> Result<bool, DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::io("the runtime cannot be started"))?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(DaemonError::io("signals cannot be received"))?;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while !workers.are_done() {
            tokio::select! {
                _ = tick.tick() => {
                    bar.set_position(finished.load(Ordering::Relaxed) as u64);
                    let current: Vec<String> = parts
                        .progress
                        .current()
                        .iter()
                        .map(|job| match job.total {
                            0 => format!("{} ({})", job.title, job.stage.as_str()),
                            total => format!("{} ({}/{total} chunks)", job.title, job.done),
                        })
                        .collect();
                    bar.set_message(current.join(" · "));
                }
                _ = tokio::signal::ctrl_c() => { parts.stopping.store(true, Ordering::Relaxed); return Ok(true); }
                _ = terminate.recv() => { parts.stopping.store(true, Ordering::Relaxed); return Ok(true); }
            }
        }
        Ok(false)
    })
}
