//! What the workers are doing right now, for the status and the progress bar. Never blocks a stage for longer than a
//! copy of a few lines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::{self, Need};
use crate::queue::{ClaimedJob, JobId, JobKind};

/// A job's stages, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Copy,
    Extract,
    Chunk,
    Embed,
    Store,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Copy => "copy",
            Stage::Extract => "extract",
            Stage::Chunk => "chunk",
            Stage::Embed => "embed",
            Stage::Store => "store",
        }
    }
}

/// One job in work.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentJob {
    pub book_uuid: Uuid,
    /// As people name it: `calibre 12`.
    pub book_id: String,
    pub title: String,
    pub stage: Stage,
    /// Chunks embedded, of how many; 0 of 0 before the embedding.
    pub done: usize,
    pub total: usize,
    /// Tokens of those chunks.
    pub done_tokens: usize,
    pub total_tokens: usize,
    /// Format and size of the file whose tokens nobody knows yet; None where they are known, or nothing is embedded.
    pub unread: Option<(String, u64)>,
    /// When it last took a step.
    pub went_on: Instant,
    /// It waits for vectors: whether that goes on is the embedder's matter.
    pub asks_embedder: bool,
    /// Microseconds since the epoch.
    pub started_us: i64,
    /// What it waits for, where it does.
    pub waits_for: Option<String>,
}

/// Shared by workers and watchers.
#[derive(Default)]
pub struct Progress {
    jobs: Mutex<BTreeMap<i64, CurrentJob>>,
    /// Of all books since the start, as they are embedded.
    chunks: AtomicU64,
    tokens: AtomicU64,
}

impl Progress {
    pub fn start(&self, job: &ClaimedJob, now_us: i64) {
        let embeds = job.kind == JobKind::Ingest && !matches!(plan::need(job), Need::Keep { .. });
        let current = CurrentJob {
            book_uuid: job.book.uuid,
            book_id: format!("{} {}", job.book.source.name(), job.book.source.id()),
            title: job.book.metadata.title.clone(),
            stage: Stage::Copy,
            done: 0,
            total: 0,
            done_tokens: 0,
            total_tokens: 0,
            unread: embeds.then(|| (job.book.file.format.clone(), job.book.file.size)),
            went_on: Instant::now(),
            asks_embedder: false,
            started_us: now_us,
            waits_for: None,
        };
        self.lock().insert(job.id.0, current);
    }

    pub fn enter(&self, job: JobId, stage: Stage) {
        self.change(job, |current| {
            current.stage = stage;
            if stage == Stage::Store {
                // Whatever it was: nothing is left to embed.
                current.unread = None;
            }
        });
    }

    /// The job asks the embedder, for as long as `work` takes.
    pub fn asking<T>(&self, job: JobId, work: impl FnOnce() -> T) -> T {
        self.change(job, |current| current.asks_embedder = true);
        let result = work();
        self.change(job, |current| current.asks_embedder = false);
        result
    }

    /// The book is cut: what there is to embed is known.
    pub fn expect(&self, job: JobId, chunks: usize, tokens: usize) {
        self.change(job, |current| {
            (current.done, current.total, current.done_tokens, current.total_tokens) = (0, chunks, 0, tokens);
            current.unread = None;
        });
    }

    /// So many more are embedded.
    pub fn advance(&self, job: JobId, chunks: usize, tokens: usize) {
        self.chunks.fetch_add(chunks as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.change(job, |current| {
            current.done += chunks;
            current.done_tokens += tokens;
        });
    }

    /// Chunks and their tokens that were embedded since the start, by all jobs.
    pub fn embedded(&self) -> (u64, u64) {
        (self.chunks.load(Ordering::Relaxed), self.tokens.load(Ordering::Relaxed))
    }

    fn change(&self, job: JobId, change: impl FnOnce(&mut CurrentJob)) {
        if let Some(current) = self.lock().get_mut(&job.0) {
            current.went_on = Instant::now();
            change(current);
        }
    }

    /// Notes what the job waits for, or that it goes on. True where it waited before.
    pub fn waits_for(&self, job: JobId, reason: Option<String>) -> bool {
        let mut jobs = self.lock();
        jobs.get_mut(&job.0).is_some_and(|current| std::mem::replace(&mut current.waits_for, reason).is_some())
    }

    pub fn finish(&self, job: JobId) {
        self.lock().remove(&job.0);
    }

    /// The jobs in work, oldest first.
    pub fn current(&self) -> Vec<CurrentJob> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, CurrentJob>> {
        // Entries are whole at every moment.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
