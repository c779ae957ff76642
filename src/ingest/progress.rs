//! What the workers are doing right now, for the status and the progress bar. Never blocks a stage for longer than a
//! copy of a few lines.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::queue::{ClaimedJob, JobId};

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
    pub book_id: String,
    pub title: String,
    pub stage: Stage,
    /// Chunks embedded, of how many; 0 of 0 before the embedding.
    pub done: usize,
    pub total: usize,
    /// Microseconds since the epoch.
    pub started_us: i64,
    /// What it waits for, where it does.
    pub waits_for: Option<String>,
}

/// Shared by workers and watchers.
#[derive(Default)]
pub struct Progress {
    jobs: Mutex<BTreeMap<i64, CurrentJob>>,
}

impl Progress {
    pub fn start(&self, job: &ClaimedJob, now_us: i64) {
        let current = CurrentJob {
            book_uuid: job.book.uuid,
            book_id: job.book.source.id(),
            title: job.book.metadata.title.clone(),
            stage: Stage::Copy,
            done: 0,
            total: 0,
            started_us: now_us,
            waits_for: None,
        };
        self.lock().insert(job.id.0, current);
    }

    pub fn enter(&self, job: JobId, stage: Stage) {
        if let Some(current) = self.lock().get_mut(&job.0) {
            current.stage = stage;
        }
    }

    pub fn advance(&self, job: JobId, done: usize, total: usize) {
        if let Some(current) = self.lock().get_mut(&job.0) {
            (current.done, current.total) = (done, total);
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
