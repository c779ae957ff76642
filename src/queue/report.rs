//! Reading the state for reports and for a search's filters: over every book, which takes a moment, so on a connection of
//! its own. Must never write, nor keep the queue's thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};
use uuid::Uuid;

use super::{Queue, QueueError, history, rows};
use crate::domain::report::{self, Counted, Report, SlowBook, SpeedRow, Standing};
use crate::domain::{FileMetadata, Metadata, PassedOver, iso_639_1};

/// A reading connection beside the queue's.
pub struct Reader {
    connection: Connection,
}

/// An indexed book by what a search can be narrowed to.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogueRow {
    pub book_uuid: Uuid,
    pub source: String,
    pub source_id: String,
    pub metadata: Metadata,
    /// What the file says of itself.
    pub file: FileMetadata,
    /// Of the file that was read.
    pub format: String,
}

impl Reader {
    /// Opens the state for reading only.
    ///
    /// # Errors
    /// [`QueueError::Open`].
    pub fn open(path: &Path) -> Result<Reader, QueueError> {
        let on_open = |source| QueueError::Open { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(on_open)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(on_open)?;
        Ok(Reader { connection })
    }

    /// What was done in the last `days` local days (all there is without them), the `limit` slowest books of that time,
    /// and what is in the store now. `passed_over`: the shelf's books that are not even tried.
    pub fn report(
        &self,
        days: Option<u32>,
        limit: usize,
        passed_over: &[PassedOver],
        now_us: i64,
    ) -> Result<Report, QueueError> {
        report_of(&self.connection, days, limit, passed_over, now_us)
    }

    /// Every book that the store holds.
    pub fn catalogue(&self) -> Result<Vec<CatalogueRow>, QueueError> {
        catalogue_of(&self.connection)
    }
}

impl Queue {
    /// [`Reader::report`], on the queue's own connection.
    pub fn report(
        &self,
        days: Option<u32>,
        limit: usize,
        passed_over: &[PassedOver],
        now_us: i64,
    ) -> Result<Report, QueueError> {
        report_of(&self.connection, days, limit, passed_over, now_us)
    }
}

fn report_of(
    connection: &Connection,
    days: Option<u32>,
    limit: usize,
    passed_over: &[PassedOver],
    now_us: i64,
) -> Result<Report, QueueError> {
    // One moment for all of it.
    let transaction = connection.unchecked_transaction()?;
    const DAY_US: i64 = 86_400_000_000;
    let from_us = days.map_or(i64::MIN, |days| now_us.saturating_sub(i64::from(days.saturating_sub(1)) * DAY_US));
    let first_day = days.map_or_else(String::new, |_| history::day_of(from_us));
    let all = speed(&transaction)?;
    let models = report::by_model(&all);
    let days = all.into_iter().filter(|row| row.first_day >= first_day).map(SpeedRow::with_rates).collect();
    let slowest = slowest(&transaction, &first_day, limit)?;
    let coverage = report::coverage(&counted(&transaction)?, &parked(&transaction)?, passed_over);
    transaction.commit()?;
    Ok(Report { models, days, slowest, coverage })
}

/// Every day's sums, the oldest first; of one day in the order in which its setups came up.
fn speed(connection: &Connection) -> Result<Vec<SpeedRow>, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT d.day, s.model, s.device, s.version, d.books, d.chunks, d.tokens, d.bytes, d.seconds, d.copy, d.extract, \
         d.borders, d.embed, d.store, d.payload_only, d.adopted, d.unchanged, d.removed, d.failed, d.loads, \
         d.load_seconds FROM days d JOIN setups s ON s.id = d.setup ORDER BY d.day, d.setup",
    )?;
    statement
        .query_and_then([], |row| {
            let day: String = row.get(0)?;
            let text = |at: usize| -> rusqlite::Result<Option<String>> {
                Ok(Some(row.get::<_, String>(at)?).filter(|text| !text.is_empty()))
            };
            let loads = count(row, 19)?;
            let load_seconds: f64 = row.get(20)?;
            Ok(SpeedRow {
                first_day: day.clone(),
                last_day: day,
                model: text(1)?,
                device: row.get(2)?,
                version: text(3)?,
                books: count(row, 4)?,
                chunks: maybe_count(row, 5)?,
                tokens: maybe_count(row, 6)?,
                bytes: maybe_count(row, 7)?,
                seconds: row.get(8)?,
                copy_seconds: row.get(9)?,
                extract_seconds: row.get(10)?,
                borders_seconds: row.get(11)?,
                embed_seconds: row.get(12)?,
                store_seconds: row.get(13)?,
                payload_only: count(row, 14)?,
                adopted: count(row, 15)?,
                unchanged: count(row, 16)?,
                removed: count(row, 17)?,
                failed: count(row, 18)?,
                loads,
                load_seconds: (loads > 0).then(|| load_seconds / loads as f64),
                ..SpeedRow::default()
            })
        })?
        .collect()
}

fn slowest(connection: &Connection, first_day: &str, limit: usize) -> Result<Vec<SlowBook>, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT j.source, j.source_id, j.title, ifnull(b.metadata -> '$.authors', '[]'), j.format, j.file_size, j.chunks, \
         j.tokens, j.seconds, ifnull(j.timings, '{}'), s.model, j.device, j.finished_us \
         FROM jobs j LEFT JOIN books b ON b.id = j.book LEFT JOIN setups s ON s.id = j.setup \
         WHERE j.state = 'done' AND j.outcome = 'embedded' AND j.seconds IS NOT NULL AND j.finished_us IS NOT NULL \
         AND date(j.finished_us / 1000000, 'unixepoch', 'localtime') >= ?1 \
         ORDER BY j.seconds DESC, j.id DESC LIMIT ?2",
    )?;
    statement
        .query_and_then(rusqlite::params![first_day, rows::integer(limit)], |row| {
            let authors: Vec<String> = rows::json("authors", &row.get::<_, String>(3)?)?;
            let timings: BTreeMap<String, f64> = rows::json("timings", &row.get::<_, String>(9)?)?;
            let longest = timings.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
            let id: String = row.get(1)?;
            let source: String = row.get(0)?;
            Ok(SlowBook {
                book_id: format!("{source} {}", id.chars().take(8).collect::<String>()),
                title: row.get(2)?,
                author: authors.join(" & "),
                format: row.get(4)?,
                file_size: maybe_count(row, 5)?,
                chunks: maybe_count(row, 6)?,
                tokens: maybe_count(row, 7)?,
                seconds: row.get(8)?,
                longest_stage: longest.0,
                longest_stage_seconds: longest.1,
                model: row.get::<_, Option<String>>(10)?.filter(|model| !model.is_empty()),
                device: row.get::<_, Option<String>>(11)?.unwrap_or_default(),
                finished_us: row.get(12)?,
            })
        })?
        .collect()
}

fn counted(connection: &Connection) -> Result<Vec<Counted>, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT iif(b.indexed_file IS NULL, b.format, substr(b.indexed_file, 1, instr(b.indexed_file, '|') - 1)), \
         ifnull(b.metadata ->> '$.language', b.indexed_file_metadata ->> '$.language'), \
         CASE WHEN b.excluded_us IS NOT NULL THEN 'excluded' WHEN b.missing_since_us IS NOT NULL THEN 'missing' \
           WHEN j.state = 'parked' THEN 'parked' WHEN j.state IS NULL AND b.indexed_at_us IS NOT NULL THEN 'done' \
           ELSE 'waiting' END, count(*), count(b.indexed_at_us) \
         FROM books b LEFT JOIN jobs j ON j.book = b.id AND j.state <> 'done' AND NOT j.shadow GROUP BY 1, 2, 3",
    )?;
    statement
        .query_and_then([], |row| {
            let language: Option<String> = row.get(1)?;
            Ok(Counted {
                format: row.get(0)?,
                language: iso_639_1(language.as_deref()),
                standing: match row.get::<_, String>(2)?.as_str() {
                    "excluded" => Standing::Excluded,
                    "missing" => Standing::Missing,
                    "parked" => Standing::Parked,
                    "done" => Standing::Done,
                    _ => Standing::Waiting,
                },
                books: count(row, 3)?,
                in_store: count(row, 4)?,
            })
        })?
        .collect()
}

fn parked(connection: &Connection) -> Result<Vec<(String, u64, String)>, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT ifnull(j.last_error, ''), count(*), min(j.title) FROM jobs j JOIN books b ON b.id = j.book \
         WHERE j.state = 'parked' AND NOT j.shadow AND b.excluded_us IS NULL AND b.missing_since_us IS NULL GROUP BY 1",
    )?;
    statement.query_and_then([], |row| Ok((row.get(0)?, count(row, 1)?, row.get(2)?)))?.collect()
}

fn catalogue_of(connection: &Connection) -> Result<Vec<CatalogueRow>, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT book_uuid, source, source_id, metadata, ifnull(indexed_file_metadata, '{\"authors\":[]}'), \
         substr(indexed_file, 1, instr(indexed_file, '|') - 1) FROM books WHERE indexed_at_us IS NOT NULL ORDER BY id",
    )?;
    statement
        .query_and_then([], |row| {
            let text = |at: usize| row.get_ref(at)?.as_str().map_err(rusqlite::Error::from);
            Ok(CatalogueRow {
                book_uuid: rows::uuid(row, 0)?,
                source: row.get(1)?,
                source_id: row.get(2)?,
                metadata: rows::json("metadata", text(3)?)?,
                file: rows::json("file metadata", text(4)?)?,
                format: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
            })
        })?
        .collect()
}

fn count(row: &Row, at: usize) -> Result<u64, QueueError> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or_default())
}

fn maybe_count(row: &Row, at: usize) -> Result<Option<u64>, QueueError> {
    Ok(row.get::<_, Option<i64>>(at)?.and_then(|count| u64::try_from(count).ok()))
}
