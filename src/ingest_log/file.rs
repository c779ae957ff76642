//! The shared log's file: two tables that other programs know by heart, often on a network share. Opened for one short
//! transaction at a time, so that nothing of it is held while nothing is written. Must never change a table that it finds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{Local, TimeZone};
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params_from_iter};

use crate::queue::{LogEntry, ManifestBook, ManifestChange};

/// The contract's, created where absent. Types as Python's sqlite3 reads them naturally.
const TABLES: &str = "\
CREATE TABLE IF NOT EXISTS books (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    collection    TEXT NOT NULL,
    book_title    TEXT NOT NULL,
    author        TEXT,
    language      TEXT,
    source        TEXT,
    source_id     TEXT,
    file_path     TEXT,
    file_name     TEXT,
    file_type     TEXT,
    chunks_count  INTEGER,
    file_size_mb  REAL,
    ingested_at   TEXT
);
CREATE TABLE IF NOT EXISTS ingest_log (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    timestamp      TEXT NOT NULL,
    hostname       TEXT,
    book_title     TEXT,
    author         TEXT,
    language       TEXT,
    source         TEXT,
    source_id      TEXT,
    collection     TEXT,
    chunks         INTEGER,
    file_size_mb   REAL,
    duration_total REAL,
    duration_embed REAL,
    duration_chunk REAL,
    duration_upload REAL,
    chunks_per_sec REAL,
    device         TEXT,
    model_id       TEXT,
    batch_size     INTEGER,
    success        INTEGER
);";
/// Of tables made here only: without it each book's line is looked for in all of them.
const INDEX: &str = "CREATE INDEX IF NOT EXISTS books_by_source ON books (collection, source, source_id)";

/// How long another program's lock is waited for at a time.
const BUSY: Duration = Duration::from_secs(2);
/// From so many lines on, all of the table is read at once.
const MANY: usize = 50;

/// Why the file did not take what it was given.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{0}")]
    NotThere(String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} is locked by another program", path.display())]
    Busy { path: PathBuf },
    #[error("{} has no table {table} with the columns {missing}: it is another program's file", path.display())]
    OtherTables { path: PathBuf, table: &'static str, missing: String },
    #[error("{}: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

/// Where the file is, and how its directory may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    /// The library, where the file lies in a directory of it that is made at need. Any other directory must be there.
    pub in_library: Option<PathBuf>,
}

/// What is written.
pub struct Batch<'a> {
    pub collection: &'a str,
    pub hostname: &'a str,
    pub rows: &'a [(i64, LogEntry)],
    pub books: &'a [ManifestChange],
    /// Some of the rows may be in the file already: a try before was cut short.
    pub in_doubt: bool,
}

/// What became of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines of this collection that the manifest has now.
    pub lines: u64,
    /// What the file's own rules refused, one sentence each; the rest was taken.
    pub refused: Vec<String>,
}

/// Writes in one transaction, all or nothing.
pub fn write(place: &Place, batch: &Batch) -> Result<Written, FileError> {
    let mut connection = open(place)?;
    let on_sql = |source| sqlite(&place.path, source);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(on_sql)?;
    create_tables(&transaction).map_err(on_sql)?;
    let mut written = Written::default();
    let books = Table::of(&transaction, &place.path, "books", &["collection", "book_title", "source", "source_id"])?;
    let log = Table::of(&transaction, &place.path, "ingest_log", &["timestamp", "book_title", "success"])?;
    write_books(&transaction, &books, batch, &mut written.refused).map_err(on_sql)?;
    write_rows(&transaction, &log, batch, &mut written.refused).map_err(on_sql)?;
    let lines: i64 = transaction
        .query_row("SELECT count(*) FROM books WHERE collection = ?1", [batch.collection], |row| row.get(0))
        .map_err(on_sql)?;
    written.lines = u64::try_from(lines).unwrap_or_default();
    transaction.commit().map_err(on_sql)?;
    Ok(written)
}

fn open(place: &Place) -> Result<Connection, FileError> {
    let path = &place.path;
    if let (Some(library), Some(directory)) = (&place.in_library, path.parent())
        && !directory.is_dir()
    {
        // An unmounted library's mount point is an empty directory: nothing is made there.
        let there = std::fs::read_dir(library).is_ok_and(|mut entries| entries.next().is_some());
        if !there {
            return Err(FileError::NotThere(format!("the library {} is not there", library.display())));
        }
        std::fs::create_dir(directory).map_err(|source| FileError::Io { path: directory.to_owned(), source })?;
    }
    let on_sql = |source| sqlite(path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(on_sql)?;
    connection.busy_timeout(BUSY).map_err(on_sql)?;
    // The write-ahead log needs shared memory, which no network share has. A file that is in it is brought back.
    connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(on_sql)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(on_sql)?;
    Ok(connection)
}

fn sqlite(path: &Path, source: rusqlite::Error) -> FileError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => FileError::Busy { path: path.to_owned() },
        _ => FileError::Sqlite { path: path.to_owned(), source },
    }
}

fn create_tables(transaction: &Transaction) -> rusqlite::Result<()> {
    let is_there = |name: &str| {
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)";
        transaction.query_row(sql, [name], |row| row.get::<_, bool>(0))
    };
    let made = !is_there("books")?;
    transaction.execute_batch(TABLES)?;
    if made { transaction.execute_batch(INDEX) } else { Ok(()) }
}

/// A table as it is found: with more columns than are known here, or fewer.
struct Table {
    name: &'static str,
    columns: Vec<String>,
}

impl Table {
    fn of(connection: &Connection, path: &Path, name: &'static str, needed: &[&str]) -> Result<Self, FileError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
            statement.query_map([name], |row| row.get(0))?.collect()
        };
        let columns = read().map_err(|source| sqlite(path, source))?;
        let missing: Vec<&str> =
            needed.iter().copied().filter(|name| !columns.iter().any(|column| column == name)).collect();
        if missing.is_empty() {
            return Ok(Self { name, columns });
        }
        Err(FileError::OtherTables { path: path.to_owned(), table: name, missing: missing.join(", ") })
    }

    /// Those of the values that the table has a column for.
    fn known(&self, values: Vec<(&'static str, Value)>) -> Vec<(&'static str, Value)> {
        values.into_iter().filter(|(name, _)| self.columns.iter().any(|column| column == name)).collect()
    }

    fn insert(&self, connection: &Connection, values: Vec<(&'static str, Value)>) -> rusqlite::Result<()> {
        let values = self.known(values);
        let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        let marks = vec!["?"; names.len()].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES ({marks})", self.name, names.join(", "));
        connection.prepare_cached(&sql)?.execute(params_from_iter(values.into_iter().map(|(_, value)| value)))?;
        Ok(())
    }

    fn update(&self, connection: &Connection, id: i64, values: Vec<(&'static str, Value)>) -> rusqlite::Result<()> {
        let values = self.known(values);
        let names: Vec<String> = values.iter().map(|(name, _)| format!("{name} = ?")).collect();
        let sql = format!("UPDATE {} SET {} WHERE rowid = ?", self.name, names.join(", "));
        let values = values.into_iter().map(|(_, value)| value).chain([Value::Integer(id)]);
        connection.prepare_cached(&sql)?.execute(params_from_iter(values))?;
        Ok(())
    }
}

type Key = (String, String);

/// The rows that a book has, by the book; several where another program wrote it twice.
fn present(
    connection: &Connection,
    collection: &str,
    changes: &[ManifestChange],
) -> rusqlite::Result<HashMap<Key, Vec<i64>>> {
    let mut found: HashMap<Key, Vec<i64>> = HashMap::new();
    if changes.len() < MANY {
        let sql = "SELECT rowid FROM books WHERE collection = ?1 AND source = ?2 AND CAST(source_id AS TEXT) = ?3";
        // CAST would keep an index from being used; our own file has text there.
        let exact = "SELECT rowid FROM books WHERE collection = ?1 AND source = ?2 AND source_id = ?3";
        for change in changes {
            let ids = |sql: &str| -> rusqlite::Result<Vec<i64>> {
                let mut statement = connection.prepare_cached(sql)?;
                statement.query_map([collection, &change.source, &change.source_id], |row| row.get(0))?.collect()
            };
            let mut ids_of = ids(exact)?;
            if ids_of.is_empty() && !has_index(connection)? {
                ids_of = ids(sql)?;
            }
            found.insert((change.source.clone(), change.source_id.clone()), ids_of);
        }
        return Ok(found);
    }
    let mut statement = connection.prepare_cached(
        "SELECT rowid, ifnull(source, ''), CAST(ifnull(source_id, '') AS TEXT) FROM books WHERE collection = ?1",
    )?;
    let mut rows = statement.query([collection])?;
    while let Some(row) = rows.next()? {
        found.entry((row.get(1)?, row.get(2)?)).or_default().push(row.get(0)?);
    }
    Ok(found)
}

fn has_index(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = 'books_by_source')";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn write_books(
    transaction: &Transaction,
    table: &Table,
    batch: &Batch,
    refused: &mut Vec<String>,
) -> rusqlite::Result<()> {
    if batch.books.is_empty() {
        return Ok(());
    }
    let present = present(transaction, batch.collection, batch.books)?;
    for change in batch.books {
        let ids = present.get(&(change.source.clone(), change.source_id.clone())).map_or(&[][..], Vec::as_slice);
        let done = match (&change.book, ids) {
            (None, ids) => ids.iter().try_for_each(|id| {
                transaction.prepare_cached("DELETE FROM books WHERE rowid = ?1")?.execute([id]).map(drop)
            }),
            (Some(book), []) => table.insert(transaction, book_values(batch.collection, change, book)),
            // The latest one is the book's; earlier doubles are not ours to judge.
            (Some(book), [.., id]) => table.update(transaction, *id, book_values(batch.collection, change, book)),
        };
        if let Err(error) = done {
            let what = change.book.as_ref().map(|book| book.title.clone()).unwrap_or_default();
            refuse(error, &format!("{} {} '{what}'", change.source, change.source_id), refused)?;
        }
    }
    Ok(())
}

fn write_rows(
    transaction: &Transaction,
    table: &Table,
    batch: &Batch,
    refused: &mut Vec<String>,
) -> rusqlite::Result<()> {
    for (_, entry) in batch.rows {
        let values = row_values(batch, entry);
        if batch.in_doubt {
            let sql = "SELECT EXISTS (SELECT 1 FROM ingest_log WHERE timestamp = ?1 AND book_title = ?2)";
            let there: bool = transaction
                .prepare_cached(sql)?
                .query_row([&timestamp(entry.at_us), &entry.title], |row| row.get(0))?;
            if there {
                continue;
            }
        }
        if let Err(error) = table.insert(transaction, values) {
            refuse(error, &format!("the row of '{}'", entry.title), refused)?;
        }
    }
    Ok(())
}

/// A rule of the file's own (a unique column, one that must be filled) is no reason to hold up all others. Anything else
/// ends the transaction.
fn refuse(error: rusqlite::Error, what: &str, refused: &mut Vec<String>) -> rusqlite::Result<()> {
    if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
        return Err(error);
    }
    refused.push(format!("{what}: {error}"));
    Ok(())
}

fn book_values(collection: &str, change: &ManifestChange, book: &ManifestBook) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let name = book.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    vec![
        ("collection", text(collection)),
        ("book_title", text(&book.title)),
        ("author", text(&book.author)),
        ("language", text(&book.language)),
        ("source", text(&change.source)),
        ("source_id", text(&change.source_id)),
        ("file_path", Value::Text(book.path.to_string_lossy().into_owned())),
        ("file_name", Value::Text(name)),
        ("file_type", Value::Text(book.format.to_uppercase())),
        ("chunks_count", Value::Integer(i64::try_from(book.chunks).unwrap_or(i64::MAX))),
        ("file_size_mb", Value::Real(megabytes(book.size))),
        ("ingested_at", Value::Text(timestamp(book.indexed_at_us))),
    ]
}

fn row_values(batch: &Batch, entry: &LogEntry) -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let integer = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let seconds = |seconds: f64| Value::Real((seconds * 1e3).round() / 1e3);
    let rate = if entry.seconds > 0.0 { entry.chunks as f64 / entry.seconds } else { 0.0 };
    vec![
        ("timestamp", Value::Text(timestamp(entry.at_us))),
        ("hostname", text(batch.hostname)),
        ("book_title", text(&entry.title)),
        ("author", text(&entry.author)),
        ("language", text(&entry.language)),
        ("source", text(&entry.source)),
        ("source_id", text(&entry.source_id)),
        ("collection", text(batch.collection)),
        ("chunks", integer(entry.chunks)),
        ("file_size_mb", entry.file_size.map_or(Value::Null, |size| Value::Real(megabytes(size)))),
        ("duration_total", seconds(entry.seconds)),
        ("duration_embed", seconds(entry.embed_seconds)),
        ("duration_chunk", seconds(entry.chunk_seconds)),
        ("duration_upload", seconds(entry.upload_seconds)),
        ("chunks_per_sec", Value::Real((rate * 100.0).round() / 100.0)),
        ("device", text(&entry.device)),
        ("model_id", text(&entry.model)),
        ("batch_size", entry.batch_tokens.map_or(Value::Null, integer)),
        ("success", Value::Integer(i64::from(entry.success))),
    ]
}

/// Rounded to two places, as the manifest has sizes.
fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 100.0).round() / 100.0
}

/// Local time without a zone, as in the points.
fn timestamp(at_us: i64) -> String {
    let at = Local.timestamp_micros(at_us).earliest().unwrap_or_else(Local::now);
    at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: i64, success: bool) -> LogEntry {
        LogEntry {
            at_us: 1_800_000_000_000_000 + number,
            title: format!("Book {number}"),
            author: "Ana Anić & B. B.".into(),
            language: "hr".into(),
            source: "calibre".into(),
            source_id: number.to_string(),
            chunks: 10,
            file_size: Some(1_572_864),
            seconds: 4.0,
            embed_seconds: 2.5,
            chunk_seconds: 1.0,
            upload_seconds: 0.25,
            device: "cpu f32".into(),
            model: "minilm".into(),
            batch_tokens: Some(2048),
            success,
        }
    }

    fn change(number: i64, book: Option<usize>) -> ManifestChange {
        let book = book.map(|chunks| ManifestBook {
            title: format!("Book {number}"),
            author: "Ana Anić".into(),
            language: "hr".into(),
            path: format!("/library/{number}/book.epub").into(),
            format: "EPUB".into(),
            chunks,
            size: 1_572_864,
            indexed_at_us: 1_800_000_000_000_000,
        });
        ManifestChange { id: number, source: "calibre".into(), source_id: number.to_string(), book }
    }

    fn batch<'a>(rows: &'a [(i64, LogEntry)], books: &'a [ManifestChange]) -> Batch<'a> {
        Batch { collection: "alexandria", hostname: "gpu", rows, books, in_doubt: false }
    }

    fn place(directory: &Path) -> Place {
        Place { path: directory.join("alexandria.db"), in_library: None }
    }

    fn count(place: &Place, sql: &str) -> i64 {
        Connection::open(&place.path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_book_has_one_line_that_follows_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        for books in [vec![change(1, Some(10)), change(2, Some(5))], vec![change(1, Some(12))]] {
            write(&place, &batch(&[], &books)).unwrap();
        }
        assert_eq!(count(&place, "SELECT count(*) FROM books"), 2);
        assert_eq!(count(&place, "SELECT chunks_count FROM books WHERE source_id = '1'"), 12);
        let written = write(&place, &batch(&[], &[change(1, None)])).unwrap();
        assert_eq!((written.lines, count(&place, "SELECT count(*) FROM books")), (1, 1));
        // Many at once take another way.
        let many: Vec<_> = (1..=200).map(|number| change(number, Some(1))).collect();
        assert_eq!(write(&place, &batch(&[], &many)).unwrap().lines, 200);
        assert_eq!(write(&place, &batch(&[], &many)).unwrap().lines, 200);
        let other = Batch { collection: "other", ..batch(&[], &many[..1]) };
        assert_eq!(write(&place, &other).unwrap().lines, 1);
        assert_eq!(count(&place, "SELECT count(*) FROM books"), 201);
    }

    #[test]
    fn a_row_that_may_be_there_already_is_not_written_twice() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        let rows = [(1, entry(1, true)), (2, entry(2, false))];
        write(&place, &batch(&rows[..1], &[])).unwrap();
        write(&place, &Batch { in_doubt: true, ..batch(&rows, &[]) }).unwrap();
        assert_eq!(count(&place, "SELECT count(*) FROM ingest_log"), 2);
        assert_eq!(count(&place, "SELECT sum(success) FROM ingest_log"), 1);
    }

    #[test]
    fn a_file_of_the_python_side_is_used_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        let python = Connection::open(&place.path).unwrap();
        python
            .execute_batch(
                "CREATE TABLE books (id INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT, book_title TEXT, author TEXT, \
                 source TEXT, source_id INTEGER, chunks_count INTEGER, notes TEXT DEFAULT 'none', \
                 UNIQUE (collection, book_title)); \
                 CREATE TABLE ingest_log (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT, book_title TEXT, \
                 success INTEGER, error TEXT); \
                 INSERT INTO books (collection, book_title, source, source_id, chunks_count) \
                 VALUES ('alexandria', 'Book 1', 'calibre', 1, 3), ('alexandria', 'Book 3', 'calibre', 99, 3)",
            )
            .unwrap();
        let before: String =
            python.query_row("SELECT group_concat(sql) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        let books = [change(1, Some(7)), change(2, Some(8)), change(3, Some(9))];
        let written = write(&place, &batch(&[(1, entry(1, true))], &books)).unwrap();
        assert_eq!(written.lines, 3);
        assert_eq!(written.refused.len(), 1, "the file says that a title is there once: {:?}", written.refused);
        assert_eq!(count(&place, "SELECT chunks_count FROM books WHERE book_title = 'Book 1'"), 7);
        assert_eq!(count(&place, "SELECT count(*) FROM books WHERE notes = 'none'"), 3);
        assert_eq!(count(&place, "SELECT count(*) FROM ingest_log"), 1);
        let after: String =
            python.query_row("SELECT group_concat(sql) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(before, after);
        drop(python);
        std::fs::remove_file(&place.path).unwrap();
        Connection::open(&place.path).unwrap().execute_batch("CREATE TABLE books (id, name)").unwrap();
        let error = write(&place, &batch(&[], &books)).unwrap_err();
        assert!(matches!(error, FileError::OtherTables { .. }), "{error}");
    }

    #[test]
    fn nothing_is_made_under_a_mount_point_without_its_mount() {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("library");
        let place = Place { path: library.join(".qdrant/alexandria.db"), in_library: Some(library.clone()) };
        assert!(matches!(write(&place, &batch(&[], &[])), Err(FileError::NotThere(_))));
        std::fs::create_dir(&library).unwrap();
        assert!(matches!(write(&place, &batch(&[], &[])), Err(FileError::NotThere(_))));
        assert!(!library.join(".qdrant").exists());
        std::fs::write(library.join("metadata.db"), "x").unwrap();
        write(&place, &batch(&[], &[])).unwrap();
        assert!(place.path.is_file());
        // A directory elsewhere is never made.
        let elsewhere = Place { path: directory.path().join("no/log.db"), in_library: None };
        assert!(write(&elsewhere, &batch(&[], &[])).is_err());
        assert!(!directory.path().join("no").exists());
    }

    #[test]
    fn a_write_ahead_log_is_brought_back_and_a_lock_is_busy() {
        let directory = tempfile::tempdir().unwrap();
        let place = place(directory.path());
        let other = Connection::open(&place.path).unwrap();
        let mode: String = other.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        other.execute_batch("CREATE TABLE x (y)").unwrap();
        drop(other);
        write(&place, &batch(&[(1, entry(1, true))], &[])).unwrap();
        let other = Connection::open(&place.path).unwrap();
        let mode: String = other.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "delete");
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(matches!(write(&place, &batch(&[], &[])), Err(FileError::Busy { .. })));
        other.execute_batch("ROLLBACK").unwrap();
        write(&place, &batch(&[], &[])).unwrap();
    }
}
