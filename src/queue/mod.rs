//! The state: which books are known, what the store holds of them, and what is to do. One SQLite file on a local disk,
//! and the only SQL in the project besides the reading of Calibre's catalogue and the shared log's file.
//!
//! It must never forget a job, run one twice at a time, or report a book as done before its points are in the store.
//! Every change is one transaction, on disk when the call returns (WAL, `synchronous=FULL`), so a crash at any point
//! leaves either the state before or the state after.
//!
//! [`Queue`] is one connection; [`QueueHandle`] is the thread that owns it in the service.

mod apply;
mod audit;
mod backup;
mod books;
mod dump;
mod error;
mod forecast;
mod handle;
mod history;
mod jobs;
mod lock;
mod records;
mod reindex;
mod report;
mod retry;
mod rows;
mod schema;
mod shared;
mod views;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::failpoint;

pub use backup::{restore, set_aside};
pub use error::QueueError;
pub use forecast::SizeSlice;
pub use handle::{QueueHandle, QueueStopped};
pub use history::Setup;
pub use lock::StateLock;
pub use records::{
    Applied, BookRecord, ClaimedJob, FallbackRow, IndexedState, JobId, JobKind, JobReport, JobRow, JobState,
    LibraryRecord, Outcome, QueueStats,
};
pub use reindex::{Finished, Lanes, Outdated, Reindex, ReindexCounts};
pub use report::{CatalogueRow, Reader};
pub use retry::{NextStep, RetryRules};
pub use shared::{LogEntry, ManifestBook, ManifestChange, SharedBacklog};

/// The state file's name in the state directory.
pub const FILE_NAME: &str = "state.db";

/// Set in the state from the start of a process to its orderly end.
const RUNNING: &str = "running";

/// How much older than the last thing written the books are that are looked at again after a process that did not end in
/// order: what a machine that lost its power may have lost, and more.
const IN_DOUBT_US: i64 = 600_000_000;

const LAST_WRITTEN: &str = "SELECT max(at) FROM (SELECT max(indexed_at_us) AS at FROM books \
     UNION ALL SELECT max(written_us) FROM shadow)";

/// Finished jobs kept as history.
const HISTORY: i64 = 20_000;

/// One connection to the state.
#[derive(Debug)]
pub struct Queue {
    connection: Connection,
    path: PathBuf,
    rules: RetryRules,
    history: i64,
    /// What embeds in this process, once it is known.
    run: Option<history::Run>,
    /// Set whenever a job may have become claimable, so that nobody has to remember to wake the workers.
    work_added: bool,
    /// The latest time a claim was made at: one that is earlier tells of a clock that jumped back.
    latest_claim_us: i64,
}

impl Queue {
    /// Opens the state file, creating it where it is absent, and brings its schema up to date.
    ///
    /// The caller holds the [`StateLock`]. Nothing is recovered yet: see [`Queue::recover`].
    ///
    /// # Errors
    /// [`QueueError::Newer`], [`QueueError::NotAState`], [`QueueError::Corrupt`], [`QueueError::Open`],
    /// [`QueueError::Io`]: all of them before a byte of the file is changed.
    pub fn open(path: &Path) -> Result<Queue, QueueError> {
        Ok(Self::with(schema::open(path)?, path.to_owned()))
    }

    /// A state that vanishes with the value, for tests.
    pub fn open_in_memory() -> Result<Queue, QueueError> {
        Ok(Self::with(schema::open_in_memory()?, PathBuf::from(":memory:")))
    }

    fn with(connection: Connection, path: PathBuf) -> Queue {
        // As many as the module has statements: none is ever compiled twice.
        connection.set_prepared_statement_cache_capacity(128);
        Queue {
            connection,
            path,
            rules: RetryRules::default(),
            history: HISTORY,
            run: None,
            work_added: true,
            latest_claim_us: 0,
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often and how patiently failing jobs are tried from now on.
    pub fn set_retry_rules(&mut self, rules: RetryRules) {
        self.rules = rules;
    }

    /// How many finished jobs are kept as history from now on.
    pub fn set_history(&mut self, jobs: u32) {
        self.history = i64::from(jobs);
    }

    /// A remembered value (such as what the store's collection is bound to).
    pub fn meta(&self, key: &str) -> Result<Option<String>, QueueError> {
        let mut statement = self.connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Remembers a value; None forgets it.
    pub fn set_meta(&mut self, key: &str, value: Option<&str>) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        match value {
            Some(value) => transaction.execute(
                "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [key, value],
            )?,
            None => transaction.execute("DELETE FROM meta WHERE key = ?1", [key])?,
        };
        commit(transaction)
    }

    /// Whether claiming is stopped by a person's word. Survives a restart.
    pub fn paused(&self) -> Result<bool, QueueError> {
        Ok(self.meta("paused")?.is_some())
    }

    pub fn set_paused(&mut self, paused: bool) -> Result<(), QueueError> {
        self.set_meta("paused", paused.then_some("1"))?;
        self.work_added |= !paused;
        Ok(())
    }

    /// Notes that a process works on the state. Where the one before did not end in order, the books it wrote last are
    /// queued to be compared with the store; returns how many.
    pub fn note_start(&mut self, now_us: i64) -> Result<Option<usize>, QueueError> {
        if self.meta(RUNNING)?.is_none() {
            self.set_meta(RUNNING, Some("1"))?;
            return Ok(None);
        }
        let last: Option<i64> = self.connection.query_row(LAST_WRITTEN, [], |row| row.get(0))?;
        last.map_or(Ok(Some(0)), |last| self.recheck(last.saturating_sub(IN_DOUBT_US), now_us).map(Some))
    }

    /// Notes that the process ends in order: all that it told the store is durable.
    pub fn note_end(&mut self) -> Result<(), QueueError> {
        self.set_meta(RUNNING, None)
    }

    /// Whether jobs may have become claimable since the last call.
    fn take_work_added(&mut self) -> bool {
        std::mem::take(&mut self.work_added)
    }

    /// A transaction that takes the write lock at once, so that it cannot fail half-way for lack of it.
    fn begin(&mut self) -> Result<Transaction<'_>, QueueError> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

/// Ends a transaction: after this its changes are on disk.
fn commit(transaction: Transaction<'_>) -> Result<(), QueueError> {
    failpoint::pass("state: before a commit");
    transaction.commit()?;
    failpoint::pass("state: after a commit");
    Ok(())
}
