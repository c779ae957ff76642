//! Reads Calibre's catalogue from a copy of `metadata.db`: nine queries side by side, all in the order of the books'
//! ids, so that one book at a time is in memory.
//!
//! Columns are named and views avoided: schema 27 dropped columns, and views and triggers need functions that only
//! Calibre has. Must never run on the library's own file (see `snapshot`).

use std::collections::HashSet;
use std::path::Path;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Rows, Statement};
use uuid::Uuid;

use super::LibraryError;
use crate::domain::Metadata;

/// Older schemas lack columns used here (Calibre 0.8, 2011).
const OLDEST_SCHEMA: i64 = 20;

/// One row of `books` with what belongs to it.
#[derive(Debug)]
pub(super) struct CatalogueBook {
    pub id: i64,
    pub uuid: Uuid,
    /// Relative to the library, with `/`; empty while Calibre is still adding the book.
    pub path: String,
    pub added_us: i64,
    pub metadata: Metadata,
    /// In the order of their ids.
    pub formats: Vec<FormatRow>,
}

/// One row of `data`: a file.
#[derive(Debug)]
pub(super) struct FormatRow {
    pub id: i64,
    /// Upper case.
    pub format: String,
    /// Bytes, as Calibre last wrote the file.
    pub size: u64,
    /// File name without its extension.
    pub name: String,
}

/// Refuses what is no catalogue, and says whose it is. `database` is only named in errors.
pub(super) fn identify(connection: &Connection, database: &Path) -> Result<Uuid, LibraryError> {
    let version: i64 =
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| bad(database, &error))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('books', 'data')", [], |row| {
            row.get(0)
        })
        .map_err(|error| bad(database, &error))?;
    if tables != 2 {
        let reason = "it has no tables 'books' and 'data', so Calibre did not make it".to_owned();
        return Err(LibraryError::BadDatabase { path: database.to_owned(), reason });
    }
    if version < OLDEST_SCHEMA {
        return Err(LibraryError::SchemaTooOld { path: database.to_owned(), found: version, oldest: OLDEST_SCHEMA });
    }
    library_uuid(connection, database)
}

/// Reads every book, in the order of Calibre's ids, or fails.
pub(super) fn each_book<E: From<LibraryError>>(
    connection: &Connection,
    database: &Path,
    library_uuid: Uuid,
    mut take: impl FnMut(CatalogueBook) -> Result<(), E>,
) -> Result<(), E> {
    let bad = |error: rusqlite::Error| bad(database, &error);
    let mut statements = Statements::prepare(connection).map_err(bad)?;
    let mut reader = Reader::start(&mut statements, library_uuid).map_err(bad)?;
    while let Some(book) = reader.next_book().map_err(bad)? {
        take(book)?;
    }
    Ok(())
}

fn bad(database: &Path, error: &rusqlite::Error) -> LibraryError {
    LibraryError::BadDatabase { path: database.to_owned(), reason: error.to_string() }
}

fn library_uuid(connection: &Connection, database: &Path) -> Result<Uuid, LibraryError> {
    let found =
        connection
            .query_row("SELECT uuid FROM library_id ORDER BY id LIMIT 1", [], |row| {
                Ok(Uuid::parse_str(&text(row, 0)?).ok())
            })
            .optional()
            .map_err(|error| bad(database, &error))?;
    found.flatten().ok_or_else(|| LibraryError::BadDatabase {
        path: database.to_owned(),
        reason: "it has no library id; opening the library once in Calibre gives it one".to_owned(),
    })
}

/// The queries, compiled. All but the first begin with the id of the book that a row belongs to.
struct Statements<'c> {
    books: Statement<'c>,
    formats: Statement<'c>,
    authors: Statement<'c>,
    languages: Statement<'c>,
    tags: Statement<'c>,
    series: Statement<'c>,
    publishers: Statement<'c>,
    ratings: Statement<'c>,
    identifiers: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        // CROSS JOIN: the links are read first, and each one's name is looked up. `+` has them sorted (what does not fit
        // into SQLite's two MiB goes to a temporary file): following an index into a table whose rows lie in the order
        // of past edits took twice as long. The links to tags are themselves an index in this order.
        let links = |columns: &str, table: &str, name_of: &str, order: &str| {
            connection.prepare(&format!(
                "SELECT link.book, {columns} FROM {table} AS link CROSS JOIN {name_of} ORDER BY {order}"
            ))
        };
        Ok(Self {
            books: connection
                .prepare("SELECT id, uuid, title, timestamp, pubdate, series_index, path FROM books ORDER BY id")?,
            formats: connection
                .prepare("SELECT book, id, format, uncompressed_size, name FROM data ORDER BY +book, id")?,
            authors: links("name", "books_authors_link", "authors ON authors.id = link.author", "+link.book, link.id")?,
            languages: links(
                "languages.lang_code",
                "books_languages_link",
                "languages ON languages.id = link.lang_code",
                "+link.book, link.item_order, link.id",
            )?,
            tags: links("name", "books_tags_link", "tags ON tags.id = link.tag", "link.book")?,
            series: links("name", "books_series_link", "series ON series.id = link.series", "+link.book, link.id")?,
            publishers: links(
                "name",
                "books_publishers_link",
                "publishers ON publishers.id = link.publisher",
                "+link.book, link.id",
            )?,
            ratings: links(
                "ratings.rating",
                "books_ratings_link",
                "ratings ON ratings.id = link.rating",
                "+link.book, link.id",
            )?,
            identifiers: connection.prepare("SELECT book, type, val FROM identifiers ORDER BY +book, id")?,
        })
    }
}

/// All queries at the same book.
struct Reader<'s> {
    library_uuid: Uuid,
    seen: HashSet<Uuid>,
    books: Rows<'s>,
    formats: Beside<'s>,
    authors: Beside<'s>,
    languages: Beside<'s>,
    tags: Beside<'s>,
    series: Beside<'s>,
    publishers: Beside<'s>,
    ratings: Beside<'s>,
    identifiers: Beside<'s>,
}

impl<'s> Reader<'s> {
    fn start(statements: &'s mut Statements, library_uuid: Uuid) -> rusqlite::Result<Self> {
        Ok(Self {
            library_uuid,
            seen: HashSet::new(),
            books: statements.books.query([])?,
            formats: Beside::start(&mut statements.formats)?,
            authors: Beside::start(&mut statements.authors)?,
            languages: Beside::start(&mut statements.languages)?,
            tags: Beside::start(&mut statements.tags)?,
            series: Beside::start(&mut statements.series)?,
            publishers: Beside::start(&mut statements.publishers)?,
            ratings: Beside::start(&mut statements.ratings)?,
            identifiers: Beside::start(&mut statements.identifiers)?,
        })
    }

    fn next_book(&mut self) -> rusqlite::Result<Option<CatalogueBook>> {
        let Some(row) = self.books.next()? else { return Ok(None) };
        let id: i64 = row.get(0)?;
        let of_its_own = Uuid::parse_str(&text(row, 1)?).ok().filter(|uuid| !uuid.is_nil());
        // Calibre never leaves these, other tools do: a book without a UUID of its own gets one from its id.
        let uuid = of_its_own
            .filter(|uuid| self.seen.insert(*uuid))
            .unwrap_or_else(|| Uuid::new_v5(&self.library_uuid, format!("calibre:{id}").as_bytes()));
        let mut metadata =
            Metadata { title: text(row, 2)?, published: published(&text(row, 4)?), ..Metadata::default() };
        let series_index = number(row, 5)?;
        let (added_us, path) = (microseconds(&text(row, 3)?), text(row, 6)?);

        let mut formats = Vec::new();
        self.formats.each(id, |row| {
            let size = u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
            formats.push(FormatRow {
                id: row.get(1)?,
                format: text(row, 2)?.to_uppercase(),
                size,
                name: text(row, 4)?,
            });
            Ok(())
        })?;
        // A name keeps its commas as bars in this table.
        self.authors.each(id, |row| {
            metadata.authors.push(text(row, 1)?.replace('|', ","));
            Ok(())
        })?;
        self.languages.each(id, |row| {
            if metadata.language.is_none() {
                metadata.language = Some(text(row, 1)?);
            }
            Ok(())
        })?;
        self.tags.each(id, |row| {
            metadata.tags.push(text(row, 1)?);
            Ok(())
        })?;
        metadata.tags.sort();
        self.series.each(id, |row| {
            metadata.series = Some(text(row, 1)?);
            // Calibre stores 1.0 for books of no series.
            metadata.series_index = series_index;
            Ok(())
        })?;
        self.publishers.each(id, |row| {
            metadata.publisher = Some(text(row, 1)?);
            Ok(())
        })?;
        self.ratings.each(id, |row| {
            if let Some(stars) = row.get::<_, Option<i64>>(1)? {
                metadata.rating = (stars > 0).then_some(stars);
            }
            Ok(())
        })?;
        self.identifiers.each(id, |row| {
            metadata.identifiers.insert(text(row, 1)?, text(row, 2)?);
            Ok(())
        })?;
        Ok(Some(CatalogueBook { id, uuid, path, added_us, metadata, formats }))
    }
}

/// Rows that belong to books, read beside these.
struct Beside<'s> {
    rows: Rows<'s>,
    /// The book of the row that is next; None at the end.
    book: Option<i64>,
}

impl<'s> Beside<'s> {
    fn start(statement: &'s mut Statement) -> rusqlite::Result<Self> {
        let mut beside = Self { rows: statement.query([])?, book: None };
        beside.advance()?;
        Ok(beside)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.rows.advance()?;
        self.book = self.rows.get().map(|row| row.get(0)).transpose()?;
        Ok(())
    }

    /// The rows of a book. Books must be asked for in the order of their ids; rows that outlived theirs are left out.
    fn each(&mut self, book: i64, mut take: impl FnMut(&Row) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        while let Some(at) = self.book.filter(|at| *at <= book) {
            if let Some(row) = self.rows.get().filter(|_| at == book) {
                take(row)?;
            }
            self.advance()?;
        }
        Ok(())
    }
}

/// SQLite's columns hold what they were given: NULL reads as empty, and bytes that are no UTF-8 are replaced.
fn text(row: &Row, column: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    })
}

fn number(row: &Row, column: usize) -> rusqlite::Result<Option<f64>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Some(number as f64),
        ValueRef::Real(number) if number.is_finite() => Some(number),
        _ => None,
    })
}

/// Microseconds since the epoch of `YYYY-MM-DD HH:MM:SS[.ffffff][+00:00]`; 0 for anything else.
fn microseconds(timestamp: &str) -> i64 {
    let zoned = DateTime::parse_from_str(timestamp, "%Y-%m-%d %H:%M:%S%.f%:z").map(|time| time.timestamp_micros());
    let plain = || {
        NaiveDateTime::parse_from_str(timestamp, "%Y-%m-%d %H:%M:%S%.f").map(|time| time.and_utc().timestamp_micros())
    };
    zoned.or_else(|_| plain()).unwrap_or(0)
}

/// The day of a `pubdate`; None for Calibre's "unknown", which is the year 101.
fn published(pubdate: &str) -> Option<String> {
    let day = pubdate.get(..10)?;
    let date = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    (date.year() > 101).then(|| day.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_with_and_without_a_fraction() {
        assert_eq!(microseconds("1970-01-01 00:00:01.500000+00:00"), 1_500_000);
        assert_eq!(microseconds("1970-01-01 00:00:01+00:00"), 1_000_000);
        assert_eq!(microseconds("1970-01-01 02:00:01+02:00"), 1_000_000);
        assert_eq!(microseconds("1970-01-01 00:00:01"), 1_000_000);
        assert_eq!(microseconds("never"), 0);
    }

    #[test]
    fn an_unknown_day_of_publication_is_none() {
        assert_eq!(published("2001-05-06 22:00:00+00:00").as_deref(), Some("2001-05-06"));
        assert_eq!(published("0101-01-01 00:00:00+00:00"), None);
        assert_eq!(published("0100-12-31 23:00:00+00:00"), None);
        assert_eq!(published(""), None);
        assert_eq!(published("200\u{e9}-01-01 garbage"), None);
    }

    #[test]
    fn another_programs_database_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        let refused = identify(&connection, Path::new("/lib/metadata.db")).unwrap_err();
        assert!(refused.to_string().contains("/lib/metadata.db"), "{refused}");
        connection.execute_batch("CREATE TABLE books(id); CREATE TABLE data(id); PRAGMA user_version = 19;").unwrap();
        let refused = identify(&connection, Path::new("/lib/metadata.db")).unwrap_err();
        assert!(matches!(refused, LibraryError::SchemaTooOld { found: 19, .. }));
    }
}
