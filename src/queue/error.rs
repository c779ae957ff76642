//! Everything that can go wrong with the state, in one enum.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use uuid::Uuid;

use super::JobId;
use crate::domain::FailureKind;

/// Why the state cannot be used, or a request to it makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    #[error(
        "the state file {} has schema {found}, this program knows {known}: it was written by a newer version; \
         install that version, or move the file away to start afresh",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} is not a state file of alexandria-ingestd ({reason}); set another state_dir, or move the file away", path.display())]
    NotAState { path: PathBuf, reason: String },
    #[error(
        "the state file {} is damaged ({reason}); `alexandria-ingestd restore FILE` puts a backup in its place, \
         `alexandria-ingestd rebuild` makes a new one from the library and the store, embedding nothing twice",
        path.display()
    )]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "another alexandria-ingestd (pid {pid}) uses the state directory {}; use alexandriactl to talk to it, or stop it first",
        state_dir.display()
    )]
    Locked { state_dir: PathBuf, pid: String },
    #[error("cannot use {}: {source}; check that the directory exists, is on a local disk and is writable for this user", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the state file {} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("the state database refused: {source}")]
    Sqlite {
        #[from]
        source: rusqlite::Error,
    },
    #[error("the state holds a value that makes no sense: {0}; this is a bug, or the file was edited by hand")]
    BadValue(String),
    #[error("no book '{0}' is known; give a Calibre id, a book's uuid or the exact path of its file")]
    NoSuchBook(String),
    #[error("library {0} is not registered in the state")]
    NoSuchLibrary(Uuid),
    #[error("job {0} is not running: it was finished, given back or recovered before")]
    NotRunning(JobId),
}

impl QueueError {
    /// What the failure means for the one who called: wait, or stop.
    pub fn kind(&self) -> FailureKind {
        match self {
            QueueError::Sqlite { source } | QueueError::Open { source, .. } => match source.sqlite_error_code() {
                // A full disk and a stuck one are waited for; nothing was lost, for every write is a transaction.
                Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::DatabaseBusy) => {
                    FailureKind::Dependency
                }
                _ => FailureKind::Fatal,
            },
            QueueError::Io { .. } => FailureKind::Dependency,
            QueueError::Newer { .. }
            | QueueError::NotAState { .. }
            | QueueError::Corrupt { .. }
            | QueueError::Locked { .. }
            | QueueError::BadValue(_)
            | QueueError::NoSuchBook(_)
            | QueueError::NoSuchLibrary(_)
            | QueueError::NotRunning(_) => FailureKind::Fatal,
        }
    }

    /// True where the caller asked for something that is not there (a client's error, not the state's).
    pub fn is_not_found(&self) -> bool {
        matches!(self, QueueError::NoSuchBook(_) | QueueError::NoSuchLibrary(_))
    }

    /// The same error, of the file that the caller named rather than of a copy of it.
    pub(super) fn about(self, named: &Path) -> Self {
        let named = named.to_owned();
        match self {
            QueueError::Newer { found, known, .. } => QueueError::Newer { path: named, found, known },
            QueueError::NotAState { reason, .. } => QueueError::NotAState { path: named, reason },
            QueueError::Corrupt { reason, .. } => QueueError::Corrupt { path: named, reason },
            QueueError::Open { source, .. } => QueueError::Open { path: named, source },
            other => other,
        }
    }

    /// An error of opening, told apart where the operator must act differently.
    pub(super) fn on_open(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => {
                QueueError::NotAState { path, reason: "it is not an SQLite database".into() }
            }
            Some(ErrorCode::DatabaseCorrupt) => QueueError::Corrupt { path, reason: source.to_string() },
            _ => QueueError::Open { path, source },
        }
    }
}
