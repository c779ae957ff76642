//! The ingest log and manifest that the user's other tools read: one SQLite file, often on the library's share, kept up to
//! date from the state on a thread of its own.
//!
//! ```text
//! a job ends ──> the state (same transaction): what the file lacks ──> this thread ──> the file
//! ```
//!
//! A share that hangs, is full, read-only or locked must never hold up a job: all that a job does is to leave a note in
//! the state, and the notes wait there. This is the one place in the program that writes into a library, and it writes
//! nothing but this file.

mod file;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use file::{Batch, FileError, Place, Written, write};

use crate::clock::now_us;
use crate::queue::{QueueHandle, SharedBacklog};
use crate::telemetry::event;

/// Where the file is in a library.
pub const DEFAULT_PLACE: &str = ".qdrant/alexandria.db";

/// Notes written in one transaction: short enough to let others in between.
const AT_ONCE: usize = 1000;
/// Between two looks at the state for notes, where nobody says that there are some.
const LONGEST_IDLE: Duration = Duration::from_secs(30);
/// After the first note this much is waited for more of them: books end in bursts.
const GATHER: Duration = Duration::from_millis(500);
/// Between two looks at whether the library was looked at.
const NOT_YET: Duration = Duration::from_millis(200);
/// Between two tries after a failure: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A call into the file that takes longer is one that hangs, for a person.
const SLOW_US: i64 = 10_000_000;

/// What the log is kept for.
#[derive(Clone)]
pub struct LogSettings {
    pub place: Place,
    pub collection: String,
    pub hostname: String,
    /// Whether the file may be touched now. Not yet: its library was not looked at so far. An error: it is not there, or
    /// is another one.
    pub ready: Arc<dyn Fn() -> Result<bool, String> + Send + Sync>,
}

impl LogSettings {
    /// The file of this configuration; in the library where none is named.
    pub fn place(path: &str, library: &Path) -> Place {
        if path.is_empty() {
            Place { path: library.join(DEFAULT_PLACE), in_library: Some(library.to_owned()) }
        } else {
            Place { path: PathBuf::from(path), in_library: None }
        }
    }
}

/// How the log is, for the status.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogStatus {
    pub path: PathBuf,
    /// Rows and lines that the file does not have yet, as of the last look.
    pub behind: u64,
    /// Rows that were given up because too many waited.
    pub dropped: u64,
    /// When the file last took something, microseconds since the epoch.
    pub written_us: Option<i64>,
    /// Why it does not take anything.
    pub trouble: Option<String>,
    /// Since when.
    pub trouble_since_us: Option<i64>,
}

/// The running thread.
#[derive(Clone)]
pub struct IngestLog {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Notes were made.
    asked: bool,
    /// End once all notes are written, or at once.
    ending: Option<Ending>,
    ended: bool,
    /// Since when a call into the file goes on.
    busy_since_us: Option<i64>,
    status: LogStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    WhenWritten,
    Now,
}

impl IngestLog {
    /// Starts the thread. From now on the state notes what the file lacks; where this file is new to it, all of it.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(queue: QueueHandle, settings: LogSettings) -> std::io::Result<IngestLog> {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() });
        shared.lock().status.path = settings.place.path.clone();
        let log = IngestLog { shared: Arc::clone(&shared) };
        std::thread::Builder::new().name("ingest-log".into()).spawn(move || {
            let ended = EndGuard(shared);
            Writer { queue, settings, shared: Arc::clone(&ended.0), kept: false, in_doubt: true, counted: false }.run();
        })?;
        Ok(log)
    }

    /// There may be something to write.
    pub fn wake(&self) {
        self.shared.lock().asked = true;
        self.shared.wake.notify_all();
    }

    pub fn status(&self) -> LogStatus {
        let state = self.shared.lock();
        let mut status = state.status.clone();
        let hangs_since_us = state.busy_since_us.filter(|since| now_us() - since > SLOW_US);
        if let (Some(since_us), None) = (hangs_since_us, &status.trouble) {
            status.trouble = Some(format!("the file system of {} has not answered", status.path.display()));
            status.trouble_since_us = Some(since_us);
        }
        status
    }

    /// Ends the thread, waiting for at most `patience`; false where it hangs in the file system, and is left behind. What
    /// is not written yet is written after the next start.
    pub fn stop(&self, patience: Duration) -> bool {
        self.end(Ending::Now, patience)
    }

    /// As [`IngestLog::stop`], but what is noted is written first, if it can be.
    pub fn finish(&self, patience: Duration) -> bool {
        self.end(Ending::WhenWritten, patience)
    }

    fn end(&self, how: Ending, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.lock();
        state.ending = Some(how);
        state.asked = true;
        self.shared.wake.notify_all();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every value in it is whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.wake.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Marks the end of the thread, also where it panics.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.wake.notify_all();
    }
}

struct Writer {
    queue: QueueHandle,
    settings: LogSettings,
    shared: Arc<Shared>,
    /// The state notes what the file lacks.
    kept: bool,
    /// What was given to the file last may be in it, though it is still noted: the process or a write was cut short.
    in_doubt: bool,
    /// The file was seen to have as many lines as the state has books, since the start or the last trouble.
    counted: bool,
}

/// What one step came to.
enum Step {
    /// Nothing is noted any more.
    Rest,
    /// More is to be written.
    Again,
    /// The library was not looked at so far.
    NotYet,
    /// The queue has ended.
    Over,
    Failed(String),
}

impl Writer {
    fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let step = self.step();
            let wait = match step {
                Step::Over => return,
                Step::Again => {
                    pause = FIRST_PAUSE;
                    Duration::ZERO
                }
                Step::Rest => {
                    pause = FIRST_PAUSE;
                    LONGEST_IDLE
                }
                Step::NotYet => NOT_YET,
                Step::Failed(reason) => {
                    self.trouble(reason);
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            let failed = self.shared.lock().status.trouble.is_some();
            if self.sleep(wait, failed) {
                return;
            }
        }
    }

    /// Sleeps until something is to be done; true when the thread is to end.
    fn sleep(&self, limit: Duration, failed: bool) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            let asked = state.asked;
            match state.ending {
                Some(Ending::Now) => return true,
                // Once more for what was noted last; then it is written, or not to be written.
                Some(Ending::WhenWritten) if asked => {
                    state.asked = false;
                    return false;
                }
                Some(Ending::WhenWritten) if !limit.is_zero() => return true,
                _ => {}
            }
            // While the file takes nothing, a new note is no reason to try sooner.
            if state.asked && !failed {
                state.asked = false;
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        let until = Instant::now() + GATHER;
        while state.ending.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.wait(state, left);
        }
        state.ending == Some(Ending::Now)
    }

    fn step(&mut self) -> Step {
        if !self.kept {
            let key = format!("{}|{}", self.settings.place.path.display(), self.settings.collection);
            match self.queue.call(move |queue| queue.keep_shared_log(Some(&key))) {
                Ok(Ok(())) => self.kept = true,
                Ok(Err(error)) => return Step::Failed(error.to_string()),
                Err(_) => return Step::Over,
            }
        }
        let backlog = match self.queue.call(|queue| queue.shared_backlog(AT_ONCE)) {
            Ok(Ok(backlog)) => backlog,
            Ok(Err(error)) => return Step::Failed(error.to_string()),
            Err(_) => return Step::Over,
        };
        {
            let status = &mut self.shared.lock().status;
            status.behind = backlog.total;
            status.dropped = backlog.dropped;
        }
        // At the start an empty write finds out whether the file is there at all, and whole.
        if backlog.total == 0 && self.counted {
            return Step::Rest;
        }
        match (self.settings.ready)() {
            Ok(true) => {}
            Ok(false) => return Step::NotYet,
            Err(reason) => return Step::Failed(reason),
        }
        let batch = Batch {
            collection: &self.settings.collection,
            hostname: &self.settings.hostname,
            rows: &backlog.rows,
            books: &backlog.books,
            in_doubt: self.in_doubt,
        };
        self.shared.lock().busy_since_us = Some(now_us());
        let written = file::write(&self.settings.place, &batch);
        self.shared.lock().busy_since_us = None;
        match written {
            Ok(written) => self.settle(&backlog, written),
            Err(error) => {
                self.in_doubt = true;
                self.counted = false;
                Step::Failed(error.to_string())
            }
        }
    }

    /// The file has it: the state forgets it.
    fn settle(&mut self, backlog: &SharedBacklog, written: Written) -> Step {
        for refused in &written.refused {
            tracing::warn!(
                MESSAGE_ID = event::INGEST_LOG_TROUBLE,
                "the ingest log {} does not take {refused}",
                self.settings.place.path.display()
            );
        }
        let rows: Vec<i64> = backlog.rows.iter().map(|(id, _)| *id).collect();
        let books: Vec<i64> = backlog.books.iter().map(|change| change.id).collect();
        let settled = (rows.len() + books.len()) as u64;
        let noted = self.queue.call(move |queue| {
            queue.shared_written(&rows, &books)?;
            queue.stats()
        });
        let stats = match noted {
            Ok(Ok(stats)) => stats,
            Ok(Err(error)) => {
                self.in_doubt = true;
                return Step::Failed(error.to_string());
            }
            Err(_) => return Step::Over,
        };
        self.in_doubt = false;
        let left = backlog.total.saturating_sub(settled);
        self.recovered(left);
        if left > 0 {
            return Step::Again;
        }
        if !std::mem::replace(&mut self.counted, true) && written.lines < stats.done_books {
            tracing::info!(
                "the ingest log {} has {} lines for {} books: they are written anew",
                self.settings.place.path.display(),
                written.lines,
                stats.done_books
            );
            return match self.queue.call(|queue| queue.rewrite_manifest()) {
                Ok(Ok(())) => Step::Again,
                Ok(Err(error)) => Step::Failed(error.to_string()),
                Err(_) => Step::Over,
            };
        }
        Step::Rest
    }

    fn trouble(&self, reason: String) {
        let mut state = self.shared.lock();
        let status = &mut state.status;
        if status.trouble.is_none() {
            status.trouble_since_us = Some(now_us());
            tracing::warn!(
                MESSAGE_ID = event::INGEST_LOG_TROUBLE,
                "the ingest log is behind: {reason}; books go on, and it is caught up when the file can be written"
            );
        }
        status.trouble = Some(reason);
    }

    fn recovered(&self, left: u64) {
        let mut state = self.shared.lock();
        let status = &mut state.status;
        status.behind = left;
        status.written_us = Some(now_us());
        status.trouble_since_us = None;
        if status.trouble.take().is_some() {
            tracing::info!("the ingest log {} is written again", status.path.display());
        }
    }
}
