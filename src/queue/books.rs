//! Libraries and books as the state knows them.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::rows::{self, BOOK, BOOK_WIDTH, INDEXED, INDEXED_WIDTH, KNOWN};
use super::{BookRecord, IndexedState, LibraryRecord, Queue, QueueError, commit};
use crate::clock::now_us;
use crate::domain::{Book, FailedFile, KnownBook, LibraryKind};

impl Queue {
    /// Finds or registers a library. A Calibre library is found by its own uuid, wherever it is mounted now; a folder,
    /// which has none, by its path, and gets a random uuid the first time.
    pub fn library_at(
        &mut self,
        kind: LibraryKind,
        path: &Path,
        uuid: Option<Uuid>,
    ) -> Result<LibraryRecord, QueueError> {
        let kind_name = rows::library_kind(kind);
        let path_value = rows::path_value(path);
        let transaction = self.begin()?;
        let found = match uuid {
            Some(uuid) => find_library(&transaction, "uuid = ?1", [uuid.to_string()])?,
            None => find_library(&transaction, "kind = ?1 AND path = ?2", params![kind_name, path_value])?,
        };
        let record = match found {
            Some(mut record) => {
                if record.path != path || record.kind != kind {
                    transaction.execute(
                        "UPDATE libraries SET kind = ?2, path = ?3 WHERE uuid = ?1",
                        params![record.uuid.to_string(), kind_name, path_value],
                    )?;
                    record.path = path.to_owned();
                    record.kind = kind;
                }
                record
            }
            None => {
                let record = LibraryRecord {
                    uuid: uuid.unwrap_or_else(Uuid::new_v4),
                    kind,
                    path: path.to_owned(),
                    first_seen_us: now_us(),
                };
                transaction.execute(
                    "INSERT INTO libraries VALUES (?1, ?2, ?3, ?4)",
                    params![record.uuid.to_string(), kind_name, path_value, record.first_seen_us],
                )?;
                record
            }
        };
        commit(transaction)?;
        Ok(record)
    }

    /// All libraries ever registered, the oldest first.
    pub fn libraries(&self) -> Result<Vec<LibraryRecord>, QueueError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT uuid, kind, path, first_seen_us FROM libraries ORDER BY first_seen_us, uuid")?;
        statement.query_and_then([], rows::library)?.collect()
    }

    /// The library that the service watches: a different one under the same path is refused by the daemon.
    pub fn watched_library(&self) -> Result<Option<Uuid>, QueueError> {
        match self.meta("watched_library")? {
            None => Ok(None),
            Some(text) => Uuid::try_parse(&text)
                .map(Some)
                .map_err(|error| QueueError::BadValue(format!("watched_library '{text}': {error}"))),
        }
    }

    pub fn set_watched_library(&mut self, library: Uuid) -> Result<(), QueueError> {
        self.set_meta("watched_library", Some(&library.to_string()))
    }

    /// All books of a library as a look at the shelf is compared with.
    pub fn known_books(&self, library: Uuid) -> Result<Vec<KnownBook>, QueueError> {
        let sql = format!("SELECT {KNOWN} FROM books b WHERE b.library_uuid = ?1 ORDER BY b.id");
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_and_then([library.to_string()], rows::known)?.collect()
    }

    /// Records a book as it is now, without queueing anything: for files named by hand.
    ///
    /// # Errors
    /// [`QueueError::NoSuchLibrary`] where its library was not registered.
    pub fn upsert_book(&mut self, book: &Book, _now_us: i64) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        require_library(&transaction, book.library_uuid)?;
        upsert(&transaction, book)?;
        commit(transaction)?;
        Ok(())
    }

    /// One book with everything the state knows of it.
    pub fn book(&self, library: Uuid, book: Uuid) -> Result<Option<BookRecord>, QueueError> {
        let found = self.select_records(
            "b.library_uuid = ?1 AND b.book_uuid = ?2",
            params![library.to_string(), book.to_string()],
        )?;
        Ok(found.into_iter().next())
    }

    /// The books a person may mean: a Calibre id, a uuid, or the exact path of the file. Several where libraries share
    /// ids.
    pub fn find_book(&self, text: &str) -> Result<Vec<BookRecord>, QueueError> {
        let text = text.trim();
        if let Ok(uuid) = Uuid::try_parse(text) {
            return self.select_records("b.book_uuid = ?1", params![uuid.to_string()]);
        }
        if text.parse::<i64>().is_ok() {
            let found = self.select_records("b.source_id = ?1 AND b.source = 'calibre'", params![text])?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let found = self.select_records("b.path = ?1 OR b.source_id = ?1", params![text])?;
        // Tables show the first digits of a file's id.
        if found.is_empty() && text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return self.select_records("b.source = 'file' AND b.source_id LIKE ?1 || '%'", params![text]);
        }
        Ok(found)
    }

    /// The book of a scanned library that is read from the file at this path, or would be. Files named by hand are left
    /// out: nobody looks at them again, so what the state knows of them may be old, and they have to be taken in anew.
    pub fn find_shelved(&self, path: &Path) -> Result<Option<BookRecord>, QueueError> {
        const SHELVED: &str = "b.library_uuid NOT IN (SELECT uuid FROM libraries WHERE kind = 'files')";
        let found = self.select_records(&format!("b.path = ?1 AND {SHELVED}"), params![rows::path_value(path)])?;
        if !found.is_empty() {
            return Ok(found.into_iter().next());
        }
        // The file that stands in for the preferred one lies beside it. '0' is the character after '/'.
        let Some(directory) = path.parent().and_then(Path::to_str) else { return Ok(None) };
        let beside = format!("b.path > ?1 || '/' AND b.path < ?1 || '0' AND b.others <> '[]' AND {SHELVED}");
        let is_read_from = |record: &BookRecord| {
            let used = record.indexed.as_ref().map(|indexed| indexed.file_signature.as_str());
            record.book.others.iter().any(|file| file.path == path && used == Some(&file.signature()))
        };
        Ok(self.select_records(&beside, [directory])?.into_iter().find(is_read_from))
    }

    pub(super) fn select_records(
        &self,
        condition: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<BookRecord>, QueueError> {
        let sql = format!(
            "SELECT {BOOK}, {INDEXED}, b.indexed_at_us, b.missing_since_us, b.excluded_us, \
             (SELECT state FROM jobs WHERE book = b.id AND state <> 'done' AND NOT shadow) FROM books b WHERE {condition} ORDER BY b.id"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement
            .query_and_then(params, |row| {
                let after = BOOK_WIDTH + INDEXED_WIDTH;
                let job: Option<String> = row.get(after + 3)?;
                Ok(BookRecord {
                    book: rows::book(row, 0)?,
                    indexed: rows::indexed(row, BOOK_WIDTH)?,
                    indexed_at_us: row.get(after)?,
                    missing_since_us: row.get(after + 1)?,
                    excluded_us: row.get(after + 2)?,
                    job: job.as_deref().map(rows::job_state).transpose()?,
                })
            })?
            .collect()
    }
}

/// What apply and the jobs need of a book's row.
pub(super) struct BookKey {
    pub id: i64,
    pub missing: bool,
    pub excluded: bool,
}

pub(super) fn key_of(connection: &Connection, library: Uuid, book: Uuid) -> Result<Option<BookKey>, QueueError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, missing_since_us IS NOT NULL, excluded_us IS NOT NULL FROM books WHERE library_uuid = ?1 AND book_uuid = ?2",
    )?;
    Ok(statement
        .query_row([library.to_string(), book.to_string()], |row| {
            Ok(BookKey { id: row.get(0)?, missing: row.get(1)?, excluded: row.get(2)? })
        })
        .optional()?)
}

/// Writes what the shelf says; a book that is on the shelf is not missing. Leaves what the store holds alone.
pub(super) fn upsert(connection: &Connection, book: &Book) -> Result<i64, QueueError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO books (library_uuid, book_uuid, source, source_id, metadata, metadata_hash, format, path, data_id, \
         size, mtime_us, added_us, others, unread) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
         ON CONFLICT (library_uuid, book_uuid) DO UPDATE SET source = excluded.source, source_id = excluded.source_id, \
         metadata = excluded.metadata, metadata_hash = excluded.metadata_hash, format = excluded.format, \
         path = excluded.path, data_id = excluded.data_id, size = excluded.size, mtime_us = excluded.mtime_us, \
         added_us = excluded.added_us, others = excluded.others, unread = excluded.unread, missing_since_us = NULL \
         RETURNING id",
    )?;
    let id = statement.query_row(
        params![
            book.library_uuid.to_string(),
            book.uuid.to_string(),
            book.source.name(),
            book.source.id(),
            rows::to_json("metadata", &book.metadata)?,
            book.metadata.hash(),
            book.file.format,
            rows::path_value(&book.file.path),
            book.file.data_id,
            rows::integer(book.file.size),
            book.file.mtime_us,
            book.added_us,
            rows::others_value(book)?,
            rows::to_json("unread", &book.unread)?,
        ],
        |row| row.get(0),
    )?;
    forget_absent(connection, id, book)?;
    Ok(id)
}

/// Files that failed and are not on the shelf any more, or were replaced, are of no further interest.
fn forget_absent(connection: &Connection, id: i64, book: &Book) -> Result<(), QueueError> {
    let mut statement =
        connection.prepare_cached("SELECT failed_files FROM books WHERE id = ?1 AND failed_files <> '[]'")?;
    let found = statement.query_and_then([id], |row| rows::list::<FailedFile>(row, 0, "failed files"))?.next();
    let Some(mut failed) = found.transpose()? else { return Ok(()) };
    failed.retain(|failed| book.files().any(|file| failed.is(file)));
    let failed = rows::to_json("failed files", &failed)?;
    connection.prepare_cached("UPDATE books SET failed_files = ?2 WHERE id = ?1")?.execute(params![id, failed])?;
    Ok(())
}

/// Writes what the store holds of a book; None where it holds nothing any more.
pub(super) fn set_indexed(
    connection: &Connection,
    book: i64,
    indexed: Option<&IndexedState>,
    now_us: i64,
) -> Result<(), QueueError> {
    let mut statement = connection.prepare_cached(
        "UPDATE books SET indexed_at_us = ?2, indexed_content_hash = ?3, indexed_metadata_hash = ?4, \
         indexed_generation = ?5, indexed_chunker = ?6, indexed_model = ?7, sections = ?8, chunks = ?9, points = ?10, \
         tokens = ?11, words = ?12, indexed_text_hash = ?13, indexed_file = ?14, indexed_file_metadata = ?15 \
         WHERE id = ?1",
    )?;
    let file_metadata = indexed.map(|state| serde_json::to_string(&state.file_metadata)).transpose();
    statement.execute(params![
        book,
        indexed.map(|_| now_us),
        indexed.map(|state| &state.content_hash),
        indexed.map(|state| &state.metadata_hash),
        indexed.map(|state| &state.generation),
        indexed.map(|state| &state.chunker_fingerprint),
        indexed.map(|state| &state.model_fingerprint),
        indexed.map(|state| rows::integer(state.sections)),
        indexed.map(|state| rows::integer(state.chunks)),
        indexed.map(|state| rows::integer(state.points)),
        indexed.map(|state| rows::integer(state.tokens)),
        indexed.map(|state| rows::integer(state.words)),
        indexed.map(|state| &state.text_hash),
        indexed.map(|state| &state.file_signature),
        // Strings and lists always serialise.
        file_metadata.unwrap_or_default(),
    ])?;
    Ok(())
}

pub(super) fn require_library(connection: &Connection, library: Uuid) -> Result<LibraryRecord, QueueError> {
    find_library(connection, "uuid = ?1", [library.to_string()])?.ok_or(QueueError::NoSuchLibrary(library))
}

fn find_library(
    connection: &Connection,
    condition: &str,
    params: impl rusqlite::Params,
) -> Result<Option<LibraryRecord>, QueueError> {
    let sql = format!("SELECT uuid, kind, path, first_seen_us FROM libraries WHERE {condition} LIMIT 1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_and_then(params, rows::library)?.next().transpose()
}
