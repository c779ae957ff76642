//! Reads Calibre's catalogue from a copy of `metadata.db`: nine whole-table queries, joined in memory.
//!
//! Columns are named and views avoided: schema 27 dropped columns, and views and triggers need functions that only
//! Calibre has. Must never run on the library's own file (see `snapshot`).

use std::collections::{HashMap, HashSet};
use std::path::Path;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::LibraryError;
use crate::domain::Metadata;

/// Older schemas lack columns used here (Calibre 0.8, 2011).
const OLDEST_SCHEMA: i64 = 20;

/// The whole catalogue, in the order of Calibre's ids.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub library_uuid: Uuid,
    pub books: Vec<CatalogueBook>,
}

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

/// Reads everything, or fails. `database` is only named in errors.
pub(super) fn read(connection: &Connection, database: &Path) -> Result<Catalogue, LibraryError> {
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
    let library_uuid = library_uuid(connection, database)?;
    let books = read_books(connection, library_uuid).map_err(|error| bad(database, &error))?;
    Ok(Catalogue { library_uuid, books })
}

fn bad(database: &Path, error: &rusqlite::Error) -> LibraryError {
    LibraryError::BadDatabase { path: database.to_owned(), reason: error.to_string() }
}

fn library_uuid(connection: &Connection, database: &Path) -> Result<Uuid, LibraryError> {
    let mut found = None;
    each(connection, "SELECT uuid FROM library_id ORDER BY id LIMIT 1", |row| {
        found = Uuid::parse_str(&text(row, 0)?).ok();
        Ok(())
    })
    .map_err(|error| bad(database, &error))?;
    found.ok_or_else(|| LibraryError::BadDatabase {
        path: database.to_owned(),
        reason: "it has no library id; opening the library once in Calibre gives it one".to_owned(),
    })
}

fn read_books(connection: &Connection, library_uuid: Uuid) -> rusqlite::Result<Vec<CatalogueBook>> {
    let mut books: Vec<CatalogueBook> = Vec::new();
    let mut seen = HashSet::new();
    let sql = "SELECT id, uuid, title, timestamp, pubdate, series_index, path FROM books ORDER BY id";
    each(connection, sql, |row| {
        let id: i64 = row.get(0)?;
        let mut uuid = Uuid::parse_str(&text(row, 1)?).ok().filter(|uuid| !uuid.is_nil());
        // Calibre never leaves these, other tools do: a book without a UUID of its own gets one from its id.
        if uuid.is_none_or(|uuid| !seen.insert(uuid)) {
            uuid = Some(Uuid::new_v5(&library_uuid, format!("calibre:{id}").as_bytes()));
        }
        let Some(uuid) = uuid else { return Ok(()) };
        let metadata = Metadata {
            title: text(row, 2)?,
            published: published(&text(row, 4)?),
            series_index: number(row, 5)?,
            ..Metadata::default()
        };
        let (added_us, path) = (microseconds(&text(row, 3)?), text(row, 6)?);
        books.push(CatalogueBook { id, uuid, path, added_us, metadata, formats: Vec::new() });
        Ok(())
    })?;
    let mut shelf = Shelf { at: books.iter().enumerate().map(|(at, book)| (book.id, at)).collect(), books };

    each(connection, "SELECT id, book, format, uncompressed_size, name FROM data ORDER BY id", |row| {
        if let Some(book) = shelf.book(row.get(1)?) {
            let size = u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
            let row = FormatRow { id: row.get(0)?, format: text(row, 2)?.to_uppercase(), size, name: text(row, 4)? };
            push_exactly(&mut book.formats, row);
        }
        Ok(())
    })?;

    // A name keeps its commas as bars in this table.
    let authors = names(connection, "SELECT id, name FROM authors")?;
    each_link(
        connection,
        "SELECT book, author FROM books_authors_link ORDER BY id",
        &authors,
        &mut shelf,
        |book, name| {
            push_exactly(&mut book.metadata.authors, name.replace('|', ","));
        },
    )?;
    let languages = names(connection, "SELECT id, lang_code FROM languages")?;
    let sql = "SELECT book, lang_code FROM books_languages_link ORDER BY item_order, id";
    each_link(connection, sql, &languages, &mut shelf, |book, code| {
        book.metadata.language.get_or_insert_with(|| code.to_owned());
    })?;
    let tags = names(connection, "SELECT id, name FROM tags")?;
    each_link(connection, "SELECT book, tag FROM books_tags_link", &tags, &mut shelf, |book, tag| {
        push_exactly(&mut book.metadata.tags, tag.to_owned());
    })?;
    let series = names(connection, "SELECT id, name FROM series")?;
    each_link(connection, "SELECT book, series FROM books_series_link", &series, &mut shelf, |book, name| {
        book.metadata.series = Some(name.to_owned());
    })?;
    let publishers = names(connection, "SELECT id, name FROM publishers")?;
    each_link(
        connection,
        "SELECT book, publisher FROM books_publishers_link",
        &publishers,
        &mut shelf,
        |book, name| {
            book.metadata.publisher = Some(name.to_owned());
        },
    )?;
    let sql =
        "SELECT link.book, ratings.rating FROM books_ratings_link AS link JOIN ratings ON ratings.id = link.rating";
    each(connection, sql, |row| {
        if let (Some(book), Some(stars)) = (shelf.book(row.get(0)?), row.get::<_, Option<i64>>(1)?) {
            book.metadata.rating = (stars > 0).then_some(stars);
        }
        Ok(())
    })?;
    each(connection, "SELECT book, type, val FROM identifiers", |row| {
        if let Some(book) = shelf.book(row.get(0)?) {
            book.metadata.identifiers.insert(text(row, 1)?, text(row, 2)?);
        }
        Ok(())
    })?;

    for book in &mut shelf.books {
        book.metadata.tags.sort();
        if book.metadata.series.is_none() {
            // Calibre stores 1.0 for books of no series.
            book.metadata.series_index = None;
        }
    }
    Ok(shelf.books)
}

struct Shelf {
    books: Vec<CatalogueBook>,
    at: HashMap<i64, usize>,
}

impl Shelf {
    /// None for a row that outlived its book.
    fn book(&mut self, id: i64) -> Option<&mut CatalogueBook> {
        self.at.get(&id).map(|at| &mut self.books[*at])
    }
}

/// Most books have one author and one format; room for three more would be a third of a large snapshot's memory.
fn push_exactly<T>(list: &mut Vec<T>, item: T) {
    list.reserve_exact(1);
    list.push(item);
}

fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn names(connection: &Connection, sql: &str) -> rusqlite::Result<HashMap<i64, String>> {
    let mut names = HashMap::new();
    each(connection, sql, |row| {
        names.insert(row.get(0)?, text(row, 1)?);
        Ok(())
    })?;
    Ok(names)
}

fn each_link(
    connection: &Connection,
    sql: &str,
    names: &HashMap<i64, String>,
    shelf: &mut Shelf,
    mut take: impl FnMut(&mut CatalogueBook, &str),
) -> rusqlite::Result<()> {
    each(connection, sql, |row| {
        if let (Some(book), Some(name)) = (shelf.book(row.get(0)?), names.get(&row.get(1)?)) {
            take(book, name);
        }
        Ok(())
    })
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
        let refused = read(&connection, Path::new("/lib/metadata.db")).unwrap_err();
        assert!(refused.to_string().contains("/lib/metadata.db"), "{refused}");
        connection.execute_batch("CREATE TABLE books(id); CREATE TABLE data(id); PRAGMA user_version = 19;").unwrap();
        let refused = read(&connection, Path::new("/lib/metadata.db")).unwrap_err();
        assert!(matches!(refused, LibraryError::SchemaTooOld { found: 19, .. }));
    }
}
