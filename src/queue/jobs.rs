//! A job's life: claimed, written, done, failed, given back, recovered.
//! Must never let a job leave the running state twice, or lose a change that came while it ran.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::history::{self, Run};
use super::reindex::{self, Lanes};
use super::retry::{self, NextStep};
use super::rows::{self, BOOK, BOOK_WIDTH, INDEXED, INDEXED_WIDTH};
use super::{ClaimedJob, IndexedState, JobId, JobKind, JobReport, Outcome, Queue, QueueError, apply, books, commit};
use crate::domain::{FailedFile, Failure};

/// Most history rows deleted at the end of one job, so that no completion pays for a large backlog.
const PRUNED_AT_ONCE: i64 = 100;

/// A change that came while a job ran.
struct Again {
    kind: JobKind,
    by_hand: bool,
    force: bool,
}

/// What leaving the running state needs to know.
struct Running {
    book: i64,
    /// The job is of the collection that a reindex builds.
    shadow: bool,
    attempts: u32,
    deaths: u32,
    again: Option<Again>,
}

impl Queue {
    /// Takes the next job: those asked for by hand first, then the newest books. The attempt is counted and on disk
    /// when this returns. None where nothing is due or claiming is paused.
    pub fn claim(&mut self, now_us: i64) -> Result<Option<ClaimedJob>, QueueError> {
        self.claim_except(now_us, &[], Lanes::Live)
    }

    /// [`Queue::claim`], without the jobs for which a file of one of these libraries would have to be read. Jobs of a
    /// reindex come after all others. No book is in work twice.
    pub fn claim_except(
        &mut self,
        now_us: i64,
        unreadable: &[Uuid],
        lanes: Lanes,
    ) -> Result<Option<ClaimedJob>, QueueError> {
        if self.paused()? {
            return Ok(None);
        }
        if now_us < self.latest_claim_us {
            self.shorten_waits(now_us)?;
        }
        self.latest_claim_us = now_us;
        let transaction = self.begin()?;
        transaction
            .prepare_cached(
                "UPDATE jobs SET next_try_us = NULL WHERE state = 'queued' AND next_try_us IS NOT NULL AND next_try_us <= ?1",
            )?
            .execute([now_us])?;
        let mut next = match lanes {
            Lanes::Shadow => None,
            Lanes::Live | Lanes::Both => next_ordinary(&transaction, unreadable)?,
        };
        if next.is_none() && lanes != Lanes::Live {
            next = reindex::next(&transaction, unreadable, lanes)?;
        }
        let Some(id) = next else {
            // Not a point to be killed at: an idle service comes by here again and again.
            transaction.commit()?;
            return Ok(None);
        };
        transaction
            .prepare_cached(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, started_us = ?2, finished_us = NULL WHERE id = ?1",
            )?
            .execute(params![id, now_us])?;
        let sql = format!(
            "SELECT {BOOK}, {INDEXED}, j.kind, j.attempts, j.force, b.failed_files, j.shadow FROM jobs j JOIN books b ON b.id = j.book WHERE j.id = ?1"
        );
        let claimed = transaction
            .prepare_cached(&sql)?
            .query_and_then([id], |row| {
                let after = BOOK_WIDTH + INDEXED_WIDTH;
                let (live, shadow) = (rows::indexed(row, BOOK_WIDTH)?, row.get(after + 4)?);
                let (indexed, live) = if shadow { (reindex::written(&transaction, id)?, live) } else { (live, None) };
                Ok::<_, QueueError>(ClaimedJob {
                    id: JobId(id),
                    kind: rows::job_kind(&row.get::<_, String>(after)?)?,
                    book: rows::book(row, 0)?,
                    attempts: row.get(after + 1)?,
                    force: row.get(after + 2)?,
                    indexed,
                    shadow,
                    live,
                    failed: rows::list(row, after + 3, "failed files")?,
                })
            })?
            .next()
            .transpose()?
            .ok_or_else(|| QueueError::BadValue(format!("job {id} has no book")))?;
        commit(transaction)?;
        Ok(Some(claimed))
    }

    /// Records what the store now holds of the job's book: called after the new points are acknowledged and before the
    /// old ones are deleted, and after a payload update.
    ///
    /// # Errors
    /// [`QueueError::NotRunning`].
    pub fn record_written(&mut self, job: JobId, indexed: &IndexedState, now_us: i64) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        let running = running(&transaction, job)?;
        running.set_written(&transaction, indexed, now_us)?;
        commit(transaction)?;
        Ok(())
    }

    /// Records which of the book's files gave no text, all of them: before the job goes on with another one, or fails.
    ///
    /// # Errors
    /// [`QueueError::NotRunning`].
    pub fn record_failed_files(&mut self, job: JobId, failed: &[FailedFile]) -> Result<(), QueueError> {
        let failed = rows::to_json("failed files", &failed)?;
        let transaction = self.begin()?;
        let running = running(&transaction, job)?;
        transaction
            .prepare_cached("UPDATE books SET failed_files = ?2 WHERE id = ?1")?
            .execute(params![running.book, failed])?;
        commit(transaction)?;
        Ok(())
    }

    /// Ends a job that was done. A removed book is forgotten, unless it came back meanwhile or is kept out by hand. A
    /// change that came while the job ran is queued.
    ///
    /// # Errors
    /// [`QueueError::NotRunning`].
    pub fn complete(&mut self, job: JobId, report: &JobReport, now_us: i64) -> Result<(), QueueError> {
        let (history, run) = (self.history, self.run);
        let transaction = self.begin()?;
        let again = end(&transaction, job, report, run, now_us)?;
        prune(&transaction, history)?;
        commit(transaction)?;
        self.work_added |= again;
        Ok(())
    }

    /// Ends jobs that changed nothing but what the store has of their books, as [`Queue::record_written`] and
    /// [`Queue::complete`] would one by one, all of them in one transaction.
    ///
    /// # Errors
    /// [`QueueError::NotRunning`], where one of them is not; then none is ended.
    pub fn complete_written(
        &mut self,
        jobs: &[(JobId, IndexedState, JobReport)],
        now_us: i64,
    ) -> Result<(), QueueError> {
        let (history, run) = (self.history, self.run);
        let transaction = self.begin()?;
        let mut again = false;
        for (job, indexed, report) in jobs {
            let running = running(&transaction, *job)?;
            running.set_written(&transaction, indexed, now_us)?;
            again |= end(&transaction, *job, report, run, now_us)?;
        }
        prune(&transaction, history)?;
        commit(transaction)?;
        self.work_added |= again;
        Ok(())
    }

    /// Ends a job that failed, as the retry rules say. Where the book changed meanwhile the failure is out of date: the
    /// job is queued afresh.
    ///
    /// # Errors
    /// [`QueueError::NotRunning`].
    pub fn fail(&mut self, job: JobId, failure: &Failure, now_us: i64) -> Result<NextStep, QueueError> {
        let (rules, run) = (self.rules, self.run);
        let transaction = self.begin()?;
        let running = running(&transaction, job)?;
        transaction
            .prepare_cached("UPDATE jobs SET failure_kind = ?2, last_error = ?3 WHERE id = ?1")?
            .execute(params![job.0, rows::failure_kind_name(failure.kind), failure.reason])?;
        let step = retry::decide(failure.kind, running.attempts, &rules, now_us);
        let step = leave(&transaction, job, &running, step, run, now_us)?;
        commit(transaction)?;
        self.work_added |= step != NextStep::Parked;
        Ok(step)
    }

    /// Puts a job back as if it had not been claimed: at shutdown.
    ///
    /// # Errors
    /// [`QueueError::NotRunning`].
    pub fn give_back(&mut self, job: JobId) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        let running = running(&transaction, job)?;
        leave(&transaction, job, &running, NextStep::GivenBack, None, 0)?;
        commit(transaction)?;
        self.work_added = true;
        Ok(())
    }

    /// At the end of the process: what is still in work goes back, no attempt spent. Returns how many jobs.
    pub fn give_back_running(&mut self) -> Result<usize, QueueError> {
        let jobs = self.running_jobs()?;
        for job in &jobs {
            self.give_back(*job)?;
        }
        Ok(jobs.len())
    }

    fn running_jobs(&self) -> Result<Vec<JobId>, QueueError> {
        let mut statement =
            self.connection.prepare_cached("SELECT id FROM jobs WHERE state = 'running' ORDER BY started_us, id")?;
        let jobs = statement.query_map([], |row| Ok(JobId(row.get(0)?)))?.collect::<Result<_, _>>()?;
        Ok(jobs)
    }

    /// At start: what was running when the process died is queued again, its attempt counted; parked where that was one
    /// attempt too many. Returns how many jobs were found.
    pub fn recover(&mut self, now_us: i64) -> Result<usize, QueueError> {
        let (rules, run) = (self.rules, self.run);
        let left = self.running_jobs()?;
        let transaction = self.begin()?;
        for job in left.iter().copied() {
            let running = running(&transaction, job)?;
            let deaths = running.deaths + 1;
            let times = if deaths == 1 { "once".to_owned() } else { format!("{deaths} times") };
            let reason = format!("the process died {times} while working on it");
            transaction
                .prepare_cached(
                    "UPDATE jobs SET deaths = ?2, failure_kind = 'transient', last_error = ?3 WHERE id = ?1",
                )?
                .execute(params![job.0, deaths, reason])?;
            let step = retry::decide_after_death(running.attempts, &rules, now_us);
            leave(&transaction, job, &running, step, run, now_us)?;
        }
        commit(transaction)?;
        self.work_added |= !left.is_empty();
        // The clock may have been set back while nobody looked.
        self.shorten_waits(now_us)?;
        Ok(left.len())
    }

    /// Lets no job wait longer from now on than the rules have it wait after that many attempts: what is due later was
    /// reckoned by a clock that was set back since.
    fn shorten_waits(&mut self, now_us: i64) -> Result<(), QueueError> {
        let rules = self.rules;
        let waiting: Vec<u32> = {
            let mut statement = self.connection.prepare_cached(
                "SELECT DISTINCT attempts FROM jobs WHERE state = 'queued' AND next_try_us IS NOT NULL AND next_try_us > ?1",
            )?;
            statement.query_map([now_us], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        if waiting.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        for attempts in waiting {
            let latest_us = retry::latest_try_us(attempts, &rules, now_us);
            transaction
                .prepare_cached(
                    "UPDATE jobs SET next_try_us = ?2 \
                     WHERE state = 'queued' AND next_try_us IS NOT NULL AND next_try_us > ?2 AND attempts = ?1",
                )?
                .execute(params![attempts, latest_us])?;
        }
        commit(transaction)
    }
}

impl Running {
    /// What the job's collection holds of its book now.
    fn set_written(&self, connection: &Connection, indexed: &IndexedState, now_us: i64) -> Result<(), QueueError> {
        if self.shadow {
            reindex::set_written(connection, self.book, indexed, now_us)
        } else {
            books::set_indexed(connection, self.book, Some(indexed), now_us)
        }
    }
}

/// The first of the live collection's jobs that may be done now.
fn next_ordinary(connection: &Connection, unreadable: &[Uuid]) -> Result<Option<i64>, QueueError> {
    // By the shadow's job for the same book, which ends before long.
    const NOT_IN_WORK: &str =
        "NOT EXISTS (SELECT 1 FROM jobs o WHERE o.book = j.book AND o.shadow AND o.state = 'running')";
    if unreadable.is_empty() {
        let sql = format!(
            "SELECT j.id FROM jobs j WHERE j.shadow = 0 AND j.state = 'queued' AND j.next_try_us IS NULL \
             AND {NOT_IN_WORK} ORDER BY j.by_hand DESC, j.added_us DESC, j.id LIMIT 1"
        );
        return Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?);
    }
    // The file is read where it is not the one that was read (BookFile::signature). A file that stands in for
    // a failed one looks so, too; it waits, which costs nothing.
    let unreadable: Vec<String> = unreadable.iter().map(Uuid::to_string).collect();
    let sql = format!(
        "SELECT j.id FROM jobs j JOIN books b ON b.id = j.book \
         WHERE j.shadow = 0 AND j.state = 'queued' AND j.next_try_us IS NULL AND (j.kind = 'remove' \
           OR b.library_uuid NOT IN (SELECT value FROM json_each(?1)) \
           OR (NOT j.force AND b.indexed_file = \
               b.format || '|' || ifnull(b.data_id, '') || '|' || b.size || '|' || b.mtime_us)) \
         AND {NOT_IN_WORK} ORDER BY j.by_hand DESC, j.added_us DESC, j.id LIMIT 1"
    );
    let libraries = rows::to_json("libraries", &unreadable)?;
    Ok(connection.prepare_cached(&sql)?.query_row([libraries], |row| row.get(0)).optional()?)
}

/// True where a change that came while the job ran is queued now.
fn end(
    connection: &Connection,
    job: JobId,
    report: &JobReport,
    run: Option<Run>,
    now_us: i64,
) -> Result<bool, QueueError> {
    let timings = rows::to_json("timings", &report.timings)?;
    let running = running(connection, job)?;
    connection
        .prepare_cached(
            "UPDATE jobs SET state = 'done', outcome = ?2, device = ?3, timings = ?4, finished_us = ?5, \
             next_try_us = NULL, again = NULL, again_by_hand = 0, again_force = 0, last_error = NULL, \
             failure_kind = NULL, \
             title = ifnull((SELECT metadata ->> '$.title' FROM books WHERE id = jobs.book), title) WHERE id = ?1",
        )?
        .execute(params![job.0, report.outcome.as_str(), report.device, timings, now_us])?;
    history::note_done(connection, job, run, now_us)?;
    if report.outcome == Outcome::Removed {
        books::set_indexed(connection, running.book, None, now_us)?;
        reindex::forget_book(connection, running.book)?;
        if running.again.is_none() {
            connection
                .prepare_cached("DELETE FROM books WHERE id = ?1 AND excluded_us IS NULL")?
                .execute([running.book])?;
        }
    }
    let again = running.again.is_some();
    if let Some(Again { kind, by_hand, force }) = running.again {
        let wish = apply::Wish { by_hand, force, fresh: true };
        apply::insert_job(connection, running.book, kind, wish, running.shadow, now_us)?;
    }
    Ok(again)
}

fn running(connection: &Connection, job: JobId) -> Result<Running, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT book, attempts, deaths, again, again_by_hand, again_force, shadow FROM jobs \
         WHERE id = ?1 AND state = 'running'",
    )?;
    statement
        .query_and_then([job.0], |row| {
            let again = row.get::<_, Option<String>>(3)?;
            let again = again.map(|kind| {
                Ok::<_, QueueError>(Again { kind: rows::job_kind(&kind)?, by_hand: row.get(4)?, force: row.get(5)? })
            });
            Ok(Running {
                book: row.get(0)?,
                shadow: row.get(6)?,
                attempts: row.get(1)?,
                deaths: row.get(2)?,
                again: again.transpose()?,
            })
        })?
        .next()
        .unwrap_or(Err(QueueError::NotRunning(job)))
}

/// Takes a job out of the running state without ending it. Returns what really happened: a change that came meanwhile
/// overrules the step.
fn leave(
    connection: &Connection,
    job: JobId,
    running: &Running,
    step: NextStep,
    run: Option<Run>,
    now_us: i64,
) -> Result<NextStep, QueueError> {
    let (state, attempts, next_try_us, finished_us, step) = match (&running.again, step) {
        (Some(_), NextStep::GivenBack) => ("queued", 0, None, None, NextStep::GivenBack),
        (Some(_), _) => ("queued", 0, None, None, NextStep::RetryAt(now_us)),
        (None, NextStep::GivenBack) => ("queued", running.attempts.saturating_sub(1), None, None, step),
        (None, NextStep::RetryAt(at)) => ("queued", running.attempts, (at > now_us).then_some(at), None, step),
        (None, NextStep::Parked) => ("parked", running.attempts, None, Some(now_us), step),
    };
    if state == "parked" {
        history::note_parked(connection, job, run, now_us)?;
    }
    let again = running.again.as_ref();
    connection
        .prepare_cached(
            "UPDATE jobs SET state = ?2, attempts = ?3, next_try_us = ?4, finished_us = ?5, started_us = NULL, \
             kind = ifnull(again, kind), by_hand = max(by_hand, again_by_hand), force = max(force, again_force), \
             deaths = iif(?6, 0, deaths), again = NULL, again_by_hand = 0, again_force = 0, \
             added_us = (SELECT added_us FROM books WHERE id = jobs.book) WHERE id = ?1",
        )?
        .execute(params![job.0, state, attempts, next_try_us, finished_us, again.is_some()])?;
    Ok(step)
}

/// Forgets the oldest finished jobs beyond what is kept.
fn prune(connection: &Connection, keep: i64) -> Result<(), QueueError> {
    let done: i64 =
        connection.prepare_cached("SELECT value FROM counters WHERE name = 'done'")?.query_row([], |row| row.get(0))?;
    if done > keep {
        connection
            .prepare_cached(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'done' ORDER BY finished_us, id LIMIT ?1)",
            )?
            .execute([(done - keep).min(PRUNED_AT_ONCE)])?;
    }
    Ok(())
}
