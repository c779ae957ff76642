//! Why a job failed, in the four kinds that decide what happens next.

use serde::{Deserialize, Serialize};

/// The four kinds of failure. The queue's retry rules are the one place that decides what each leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// The book itself: corrupt, encrypted, empty, too large. Parked until the file or the extractor changes.
    Book,
    /// Something that may pass by itself: retried with back-off, counted as an attempt.
    Transient,
    /// Store, embedder or mount is down: given back without spending an attempt.
    Dependency,
    /// The process cannot go on (state file corrupt, device lost).
    Fatal,
}

impl FailureKind {
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Book => "book",
            FailureKind::Transient => "transient",
            FailureKind::Dependency => "dependency",
            FailureKind::Fatal => "fatal",
        }
    }
}

/// A failed job's kind and its reason, written for the person who reads the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{reason}")]
pub struct Failure {
    pub kind: FailureKind,
    pub reason: String,
}

impl Failure {
    pub fn book(reason: impl ToString) -> Self {
        Self { kind: FailureKind::Book, reason: reason.to_string() }
    }

    pub fn transient(reason: impl ToString) -> Self {
        Self { kind: FailureKind::Transient, reason: reason.to_string() }
    }

    pub fn dependency(reason: impl ToString) -> Self {
        Self { kind: FailureKind::Dependency, reason: reason.to_string() }
    }

    pub fn fatal(reason: impl ToString) -> Self {
        Self { kind: FailureKind::Fatal, reason: reason.to_string() }
    }
}
