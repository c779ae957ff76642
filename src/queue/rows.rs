//! Between rows and values. A value that makes no sense is an error with its name, never a default.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rusqlite::Row;
use rusqlite::types::{Value, ValueRef};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{IndexedState, JobKind, JobState, LibraryRecord, Outcome, QueueError};
use crate::domain::{Book, BookFile, FailureKind, KnownBook, LibraryKind, Source};

/// The columns of [`book`], of a table called `b`.
pub(super) const BOOK: &str = "b.library_uuid, b.book_uuid, b.source, b.source_id, b.metadata, b.format, b.path, \
                               b.data_id, b.size, b.mtime_us, b.added_us, b.others, b.unread";
pub(super) const BOOK_WIDTH: usize = 13;

/// The columns of [`indexed`], of a table called `b`.
pub(super) const INDEXED: &str = "b.indexed_content_hash, b.indexed_metadata_hash, b.indexed_generation, \
                                  b.indexed_chunker, b.indexed_model, b.sections, b.chunks, b.points, b.tokens, b.words, \
                                  b.indexed_text_hash, b.indexed_file, b.indexed_file_metadata";
pub(super) const INDEXED_WIDTH: usize = 13;

/// A book from the columns [`BOOK`] that start at `at`.
pub(super) fn book(row: &Row, at: usize) -> Result<Book, QueueError> {
    let (file, others) = files(row, [at + 5, at + 6, at + 7, at + 8, at + 9, at + 11])?;
    Ok(Book {
        library_uuid: uuid(row, at)?,
        uuid: uuid(row, at + 1)?,
        source: source(row, at + 2)?,
        metadata: json("metadata", row.get_ref(at + 4)?.as_str().map_err(rusqlite::Error::from)?)?,
        file,
        others,
        unread: list(row, at + 12, "unread")?,
        added_us: row.get(at + 10)?,
    })
}

/// The columns of [`known`], of a table called `b`: no metadata, which is most of a row.
pub(super) const KNOWN: &str = "b.book_uuid, b.source, b.source_id, b.metadata_hash, b.format, b.path, b.data_id, \
                                b.size, b.mtime_us, b.others, b.unread, b.added_us, b.missing_since_us, b.failed_files";

/// A book as a look compares it, from the columns [`KNOWN`].
pub(super) fn known(row: &Row) -> Result<KnownBook, QueueError> {
    let (file, others) = files(row, [4, 5, 6, 7, 8, 9])?;
    Ok(KnownBook {
        uuid: uuid(row, 0)?,
        source: source(row, 1)?,
        metadata_digest: digest(row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?)?,
        file,
        others,
        unread: list(row, 10, "unread")?,
        added_us: row.get(11)?,
        missing_since_us: row.get(12)?,
        failed: list(row, 13, "failed files")?,
    })
}

/// From the columns `source, source_id` that start at `at`.
fn source(row: &Row, at: usize) -> Result<Source, QueueError> {
    let source_id = row.get_ref(at + 1)?.as_str().map_err(rusqlite::Error::from)?;
    Ok(match row.get_ref(at)?.as_str().map_err(rusqlite::Error::from)? {
        "calibre" => Source::Calibre(parse("source_id", source_id)?),
        _ => Source::File(source_id.to_owned()),
    })
}

/// From the columns `format, path, data_id, size, mtime_us, others`, wherever they are.
fn files(row: &Row, at: [usize; 6]) -> Result<(BookFile, Vec<BookFile>), QueueError> {
    let [format, file_path, data_id, size, mtime_us, others] = at;
    let file_path = path(row, file_path)?;
    let others = list::<OtherFile>(row, others, "others")?;
    let others = others.into_iter().map(|other| other.beside(&file_path)).collect();
    let file = BookFile {
        format: row.get(format)?,
        path: file_path,
        data_id: row.get(data_id)?,
        size: u64::try_from(row.get::<_, i64>(size)?).map_err(|error| bad("size", "negative", &error))?,
        mtime_us: row.get(mtime_us)?,
    };
    Ok((file, others))
}

/// The bytes of a SHA-256 in hex.
fn digest(text: &str) -> Result<[u8; 32], QueueError> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(QueueError::BadValue(format!("metadata_hash '{text}': not 64 hex digits")));
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|error| bad("metadata_hash", text, &error))?;
        *byte = u8::from_str_radix(pair, 16).map_err(|error| bad("metadata_hash", text, &error))?;
    }
    Ok(bytes)
}

/// One of a book's other files, as the column `others` has it: its name alone, for they all lie beside the first.
#[derive(Serialize, Deserialize)]
struct OtherFile {
    format: String,
    name: String,
    data_id: Option<i64>,
    size: u64,
    mtime_us: i64,
}

impl OtherFile {
    fn beside(self, first: &Path) -> BookFile {
        BookFile {
            format: self.format,
            path: first.with_file_name(self.name),
            data_id: self.data_id,
            size: self.size,
            mtime_us: self.mtime_us,
        }
    }
}

/// The column `others` of a book.
pub(super) fn others_value(book: &Book) -> Result<String, QueueError> {
    let others: Vec<OtherFile> = book
        .others
        .iter()
        // A name that is not UTF-8 is no name of Calibre's; in a folder such a book is passed over.
        .filter_map(|file| Some((file, file.path.file_name()?.to_str()?)))
        .map(|(file, name)| OtherFile {
            format: file.format.clone(),
            name: name.to_owned(),
            data_id: file.data_id,
            size: file.size,
            mtime_us: file.mtime_us,
        })
        .collect();
    to_json("others", &others)
}

/// A column that holds a list in JSON. Most are empty.
pub(super) fn list<T: DeserializeOwned>(row: &Row, at: usize, name: &str) -> Result<Vec<T>, QueueError> {
    match row.get_ref(at)?.as_str().map_err(rusqlite::Error::from)? {
        "[]" => Ok(Vec::new()),
        text => json(name, text),
    }
}

/// What the store holds, from the columns [`INDEXED`] that start at `at`; None where it holds nothing.
pub(super) fn indexed(row: &Row, at: usize) -> Result<Option<IndexedState>, QueueError> {
    let Some(content_hash) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
    let count = |column: usize| -> Result<usize, QueueError> {
        let value = row.get::<_, i64>(at + column)?;
        usize::try_from(value).map_err(|error| bad("count", &value.to_string(), &error))
    };
    Ok(Some(IndexedState {
        content_hash,
        metadata_hash: row.get(at + 1)?,
        generation: row.get(at + 2)?,
        chunker_fingerprint: row.get(at + 3)?,
        model_fingerprint: row.get(at + 4)?,
        sections: count(5)?,
        chunks: count(6)?,
        points: count(7)?,
        tokens: count(8)?,
        words: count(9)?,
        text_hash: row.get(at + 10)?,
        file_signature: row.get(at + 11)?,
        file_metadata: serde_json::from_str(&row.get::<_, String>(at + 12)?)
            .map_err(|error| bad("file metadata", "not JSON", &error))?,
    }))
}

/// A library from the columns `uuid, kind, path, first_seen_us`.
pub(super) fn library(row: &Row) -> Result<LibraryRecord, QueueError> {
    let kind = match row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)? {
        "calibre" => LibraryKind::Calibre,
        "folder" => LibraryKind::Folder,
        _ => LibraryKind::Files,
    };
    Ok(LibraryRecord { uuid: uuid(row, 0)?, kind, path: path(row, 2)?, first_seen_us: row.get(3)? })
}

pub(super) fn library_kind(kind: LibraryKind) -> &'static str {
    match kind {
        LibraryKind::Calibre => "calibre",
        LibraryKind::Folder => "folder",
        LibraryKind::Files => "files",
    }
}

pub(super) fn uuid(row: &Row, at: usize) -> Result<Uuid, QueueError> {
    let text = row.get_ref(at)?.as_str().map_err(rusqlite::Error::from)?;
    Uuid::try_parse(text).map_err(|error| bad("uuid", text, &error))
}

/// Text, or a blob where the path is not UTF-8: no path is ever changed by storing it.
pub(super) fn path_value(path: &Path) -> Value {
    match path.to_str() {
        Some(text) => Value::Text(text.to_owned()),
        None => Value::Blob(path.as_os_str().as_bytes().to_vec()),
    }
}

pub(super) fn path(row: &Row, at: usize) -> Result<PathBuf, QueueError> {
    match row.get_ref(at)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            Ok(PathBuf::from(std::ffi::OsString::from_vec(OsStr::from_bytes(bytes).as_bytes().to_vec())))
        }
        other => Err(QueueError::BadValue(format!("a path of type {:?}", other.data_type()))),
    }
}

pub(super) fn job_kind(text: &str) -> Result<JobKind, QueueError> {
    match text {
        "ingest" => Ok(JobKind::Ingest),
        "remove" => Ok(JobKind::Remove),
        _ => Err(QueueError::BadValue(format!("job kind '{text}'"))),
    }
}

pub(super) fn job_state(text: &str) -> Result<JobState, QueueError> {
    match text {
        "queued" => Ok(JobState::Queued),
        "running" => Ok(JobState::Running),
        "parked" => Ok(JobState::Parked),
        "done" => Ok(JobState::Done),
        _ => Err(QueueError::BadValue(format!("job state '{text}'"))),
    }
}

pub(super) fn outcome(text: &str) -> Result<Outcome, QueueError> {
    [Outcome::Embedded, Outcome::PayloadOnly, Outcome::Adopted, Outcome::Unchanged, Outcome::Removed]
        .into_iter()
        .find(|outcome| outcome.as_str() == text)
        .ok_or_else(|| QueueError::BadValue(format!("outcome '{text}'")))
}

pub(super) fn failure_kind_name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Book => "book",
        FailureKind::Transient => "transient",
        FailureKind::Dependency => "dependency",
        FailureKind::Fatal => "fatal",
    }
}

pub(super) fn failure_kind(text: &str) -> Result<FailureKind, QueueError> {
    [FailureKind::Book, FailureKind::Transient, FailureKind::Dependency, FailureKind::Fatal]
        .into_iter()
        .find(|kind| failure_kind_name(*kind) == text)
        .ok_or_else(|| QueueError::BadValue(format!("failure kind '{text}'")))
}

pub(super) fn json<T: DeserializeOwned>(name: &str, text: &str) -> Result<T, QueueError> {
    serde_json::from_str(text).map_err(|error| bad(name, text, &error))
}

pub(super) fn to_json<T: Serialize>(name: &str, value: &T) -> Result<String, QueueError> {
    serde_json::to_string(value).map_err(|error| bad(name, "", &error))
}

/// Counts and sizes as SQLite has integers. No real one is near the limit.
pub(super) fn integer<T: TryInto<i64>>(value: T) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn parse<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, QueueError>
where
    T::Err: Display,
{
    text.parse().map_err(|error| bad(name, text, &error))
}

fn bad(name: &str, value: &str, error: &dyn Display) -> QueueError {
    let value: String = value.chars().take(80).collect();
    QueueError::BadValue(format!("{name} '{value}': {error}"))
}
