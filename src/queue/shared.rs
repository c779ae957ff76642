//! What the shared ingest log does not have yet: rows of jobs that ended, and books whose line in the manifest may be out
//! of date. Kept here until its file has them, so that a share that is away loses nothing. Must never grow without a
//! bound, or hold a job up.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{BookRecord, Queue, QueueError, commit, rows};
use crate::domain::{Book, CataloguePayload};

/// Set in the state while the shared log is kept: its file and the collection, so that a change of either is seen.
const KEPT: &str = "shared_log";
/// How many rows were dropped because the file did not take them.
const DROPPED: &str = "shared_log_dropped";
/// Rows that wait at most.
const MOST_ROWS: i64 = 20_000;

/// A job that ended, as the shared log has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it ended, microseconds since the epoch.
    pub at_us: i64,
    pub title: String,
    pub author: String,
    pub language: String,
    pub source: String,
    pub source_id: String,
    /// Children; 0 of a job that failed.
    pub chunks: u64,
    /// Bytes; None where the book is not known any more.
    pub file_size: Option<u64>,
    pub seconds: f64,
    pub embed_seconds: f64,
    pub chunk_seconds: f64,
    pub upload_seconds: f64,
    pub device: String,
    pub model: String,
    pub batch_tokens: Option<u64>,
    pub success: bool,
}

/// A book's line in the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestBook {
    pub title: String,
    pub author: String,
    pub language: String,
    pub path: std::path::PathBuf,
    pub format: String,
    /// Children.
    pub chunks: usize,
    /// Bytes.
    pub size: u64,
    pub indexed_at_us: i64,
}

/// A book whose line may be out of date.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestChange {
    pub id: i64,
    pub source: String,
    pub source_id: String,
    /// None where the store does not hold the book any more.
    pub book: Option<ManifestBook>,
}

/// What the shared log's file does not have yet, or a part of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SharedBacklog {
    pub rows: Vec<(i64, LogEntry)>,
    pub books: Vec<ManifestChange>,
    /// Rows and books in all, those above included.
    pub total: u64,
    /// Rows that were dropped for good, since the log is kept.
    pub dropped: u64,
}

impl Queue {
    /// Keeps the shared log from now on for this file and collection (`key` names both), or does not. Where that is news,
    /// every book's line is to be written.
    pub fn keep_shared_log(&mut self, key: Option<&str>) -> Result<(), QueueError> {
        if self.meta(KEPT)?.as_deref() == key {
            return Ok(());
        }
        self.set_meta(KEPT, key)?;
        if key.is_some() { self.rewrite_manifest() } else { Ok(()) }
    }

    /// Has every indexed book's line compared with what the shared manifest has.
    pub fn rewrite_manifest(&mut self) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        transaction.execute(
            "INSERT OR IGNORE INTO shared_books (source, source_id) \
             SELECT source, source_id FROM books WHERE indexed_at_us IS NOT NULL",
            [],
        )?;
        commit(transaction)
    }

    /// The oldest `most` rows, and as many books, that the shared log lacks.
    pub fn shared_backlog(&self, most: usize) -> Result<SharedBacklog, QueueError> {
        let mut statement = self.connection.prepare_cached("SELECT id, entry FROM shared_rows ORDER BY id LIMIT ?1")?;
        let rows = statement
            .query_and_then([rows::integer(most)], |row| {
                Ok::<_, QueueError>((row.get(0)?, rows::json("shared row", &row.get::<_, String>(1)?)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut statement =
            self.connection.prepare_cached("SELECT id, source, source_id FROM shared_books ORDER BY id LIMIT ?1")?;
        let marked: Vec<(i64, String, String)> = statement
            .query_map([rows::integer(most)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let mut books = Vec::with_capacity(marked.len());
        for (id, source, source_id) in marked {
            // Two libraries may use one number; the contract's manifest cannot tell them apart.
            let found = self.select_records(
                "b.source_id = ?2 AND b.source = ?1 AND b.indexed_at_us IS NOT NULL",
                params![source, source_id],
            )?;
            let book = found.first().and_then(ManifestBook::of);
            books.push(ManifestChange { id, source, source_id, book });
        }
        let total: i64 = self.connection.query_row(
            "SELECT (SELECT count(*) FROM shared_rows) + (SELECT count(*) FROM shared_books)",
            [],
            |row| row.get(0),
        )?;
        let dropped = self.meta(DROPPED)?.and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(SharedBacklog { rows, books, total: u64::try_from(total).unwrap_or_default(), dropped })
    }

    /// The file has these rows and lines. What changed meanwhile stays to be written.
    pub fn shared_written(&mut self, rows: &[i64], books: &[i64]) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        for (table, ids) in [("shared_rows", rows), ("shared_books", books)] {
            let ids = rows::to_json("ids", &ids)?;
            transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?1))"))?
                .execute([ids])?;
        }
        commit(transaction)
    }
}

impl ManifestBook {
    /// None where the store does not hold it.
    fn of(record: &BookRecord) -> Option<Self> {
        let indexed = record.indexed.as_ref()?;
        let used = record.book.files().find(|file| file.signature() == indexed.file_signature);
        let file = used.unwrap_or(&record.book.file).clone();
        // The file that was read may be gone from the shelf meanwhile; its format is known all the same.
        let format = indexed.format().to_owned();
        let book = Book { file: file.clone(), ..record.book.clone() };
        let catalogue = CataloguePayload::new(&book, &indexed.file_metadata, &indexed.content_hash);
        Some(Self {
            title: catalogue.book_title,
            author: catalogue.author,
            language: catalogue.language,
            path: file.path,
            format: if format.is_empty() { file.format } else { format },
            chunks: indexed.chunks,
            size: file.size,
            indexed_at_us: record.indexed_at_us.unwrap_or_default(),
        })
    }
}

pub(super) fn is_kept(connection: &Connection) -> Result<bool, QueueError> {
    let mut statement = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM meta WHERE key = ?1)")?;
    Ok(statement.query_row([KEPT], |row| row.get(0))?)
}

/// Notes a row; the oldest go where there are too many, and are counted.
pub(super) fn add(connection: &Connection, entry: &LogEntry) -> Result<(), QueueError> {
    let entry = rows::to_json("shared row", entry)?;
    connection.prepare_cached("INSERT INTO shared_rows (entry) VALUES (?1)")?.execute([entry])?;
    let newest = connection.last_insert_rowid();
    let dropped = connection.prepare_cached("DELETE FROM shared_rows WHERE id <= ?1")?.execute([newest - MOST_ROWS])?;
    if dropped > 0 {
        connection
            .prepare_cached(
                "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value",
            )?
            .execute(params![DROPPED, dropped.to_string()])?;
    }
    Ok(())
}
