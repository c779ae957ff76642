//! Reading the queue for people: numbers and lists. Must never cost more with a longer history.

use std::collections::BTreeMap;

use rusqlite::{Row, params};

use super::rows;
use super::{FallbackRow, JobId, JobRow, JobState, Queue, QueueError, QueueStats};

const JOB: &str = "j.id, j.kind, j.state, j.book_uuid, j.source, j.source_id, \
     ifnull(b.metadata ->> '$.title', j.title), ifnull(b.metadata -> '$.authors', '[]'), \
     ifnull(iif(b.failed_files <> '[]' AND b.indexed_file IS NOT NULL, \
        substr(b.indexed_file, 1, instr(b.indexed_file, '|') - 1), b.format), ''), b.path, \
     j.by_hand, j.force, j.attempts, j.next_try_us, j.failure_kind, j.last_error, j.outcome, j.device, j.timings, \
     j.queued_us, j.started_us, j.finished_us, j.shadow";

/// Books with a file that failed and text in the store all the same. One that is parked kept the text of before.
const FALLBACKS: &str = "books b WHERE b.failed_files <> '[]' AND b.indexed_at_us IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM jobs WHERE book = b.id AND state = 'parked' AND NOT shadow)";

impl Queue {
    /// The state in numbers, from maintained counters.
    pub fn stats(&self) -> Result<QueueStats, QueueError> {
        let mut stats =
            QueueStats { next_try_us: self.next_try_us()?, paused: self.paused()?, ..QueueStats::default() };
        let mut statement = self.connection.prepare_cached("SELECT name, value FROM counters")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let value = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            match row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)? {
                "queued" => stats.queued = value,
                "waiting" => stats.waiting = value,
                "running" => stats.running = value,
                "parked" => stats.parked = value,
                "shadow_queued" | "shadow_waiting" | "shadow_running" => stats.reindex_queued += value,
                "shadow_parked" => stats.reindex_parked = value,
                "done" => stats.history = value,
                "books" => stats.books = value,
                "missing" => stats.missing = value,
                "excluded" => stats.excluded = value,
                "indexed" => stats.done_books = value,
                "sections" => stats.sections = value,
                "chunks" => stats.chunks = value,
                "points" => stats.points = value,
                "tokens" => stats.tokens = value,
                "words" => stats.words = value,
                _ => {}
            }
        }
        // Not kept but counted, over an index of the few books that have a file that failed.
        let sql = format!("SELECT count(*) FROM {FALLBACKS}");
        stats.fallbacks =
            self.connection.prepare_cached(&sql)?.query_row([], |row| row.get::<_, i64>(0))?.max(0) as u64;
        Ok(stats)
    }

    /// Up to `limit` books that are read in another format than the preferred one, because that gave no text.
    pub fn fallbacks(&self, limit: usize) -> Result<Vec<FallbackRow>, QueueError> {
        let sql = format!(
            "SELECT b.book_uuid, b.source, b.source_id, b.metadata ->> '$.title', b.metadata -> '$.authors', \
             substr(b.indexed_file, 1, instr(b.indexed_file, '|') - 1), b.failed_files \
             FROM {FALLBACKS} ORDER BY b.indexed_at_us DESC, b.id LIMIT ?1"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement
            .query_and_then([rows::integer(limit)], |row| {
                let authors: Vec<String> = rows::json("authors", &row.get::<_, String>(4)?)?;
                Ok(FallbackRow {
                    book_uuid: rows::uuid(row, 0)?,
                    source: row.get(1)?,
                    source_id: row.get(2)?,
                    title: row.get(3)?,
                    author: authors.join(" & "),
                    format: row.get(5)?,
                    failed: rows::list(row, 6, "failed files")?,
                })
            })?
            .collect()
    }

    /// When the first of the waiting jobs may be tried again; None where none waits.
    pub fn next_try_us(&self) -> Result<Option<i64>, QueueError> {
        let sql = "SELECT min(next_try_us) FROM jobs WHERE state = 'queued' AND next_try_us IS NOT NULL";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Up to `limit` jobs. Without a state: the running ones, then the queued ones in the order in which they will run.
    /// Parked and done ones come latest first.
    pub fn list(&self, state: Option<JobState>, limit: usize) -> Result<Vec<JobRow>, QueueError> {
        let states: &[JobState] = match &state {
            Some(state) => std::slice::from_ref(state),
            None => &[JobState::Running, JobState::Queued],
        };
        let mut jobs = Vec::new();
        for state in states {
            for (condition, order) in match state {
                JobState::Running => vec![("j.state = 'running'", "j.started_us, j.id")],
                JobState::Queued => vec![
                    ("j.state = 'queued' AND j.next_try_us IS NULL", "j.shadow, j.by_hand DESC, j.added_us DESC, j.id"),
                    ("j.state = 'queued' AND j.next_try_us IS NOT NULL", "j.next_try_us, j.id"),
                ],
                JobState::Parked => vec![("j.state = 'parked'", "j.finished_us DESC, j.id DESC")],
                JobState::Done => vec![("j.state = 'done'", "j.finished_us DESC, j.id DESC")],
            } {
                let left = limit.saturating_sub(jobs.len());
                let sql = format!(
                    "SELECT {JOB} FROM jobs j LEFT JOIN books b ON b.id = j.book WHERE {condition} ORDER BY {order} LIMIT ?1"
                );
                let mut statement = self.connection.prepare_cached(&sql)?;
                for row in statement.query_and_then(params![rows::integer(left)], job_row)? {
                    jobs.push(row?);
                }
            }
        }
        Ok(jobs)
    }

    /// Up to `limit` parked jobs with their reasons, the latest first.
    pub fn parked(&self, limit: usize) -> Result<Vec<JobRow>, QueueError> {
        self.list(Some(JobState::Parked), limit)
    }

    /// One job; None where the history does not have it any more.
    pub fn job(&self, job: JobId) -> Result<Option<JobRow>, QueueError> {
        let sql = format!("SELECT {JOB} FROM jobs j LEFT JOIN books b ON b.id = j.book WHERE j.id = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_and_then([job.0], job_row)?.next().transpose()
    }
}

fn job_row(row: &Row) -> Result<JobRow, QueueError> {
    let authors: Vec<String> = rows::json("authors", &row.get::<_, String>(7)?)?;
    let path = match row.get_ref(9)? {
        rusqlite::types::ValueRef::Null => String::new(),
        _ => rows::path(row, 9)?.to_string_lossy().into_owned(),
    };
    let timings = match row.get::<_, Option<String>>(18)? {
        Some(text) => rows::json("timings", &text)?,
        None => BTreeMap::new(),
    };
    let failure_kind: Option<String> = row.get(14)?;
    let outcome: Option<String> = row.get(16)?;
    Ok(JobRow {
        id: JobId(row.get(0)?),
        kind: rows::job_kind(&row.get::<_, String>(1)?)?,
        state: rows::job_state(&row.get::<_, String>(2)?)?,
        book_uuid: rows::uuid(row, 3)?,
        source: row.get(4)?,
        source_id: row.get(5)?,
        title: row.get(6)?,
        author: authors.join(" & "),
        format: row.get(8)?,
        path,
        by_hand: row.get(10)?,
        force: row.get(11)?,
        attempts: row.get(12)?,
        next_try_us: row.get(13)?,
        failure_kind: failure_kind.as_deref().map(rows::failure_kind).transpose()?,
        last_error: row.get(15)?,
        outcome: outcome.as_deref().map(rows::outcome).transpose()?,
        device: row.get(17)?,
        timings,
        queued_us: row.get(19)?,
        started_us: row.get(20)?,
        finished_us: row.get(21)?,
        reindex: row.get(22)?,
    })
}
