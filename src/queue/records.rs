//! The values that go into and come out of the queue. Plain data; no SQL.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{Book, FailedFile, FailureKind, FileMetadata, LibraryKind};

/// A job's number; never reused while its history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub i64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is to do with a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Bring the store up to date: embed, update payloads, or find that nothing is to do.
    Ingest,
    /// Take the book's points out of the store.
    Remove,
}

impl JobKind {
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Ingest => "ingest",
            JobKind::Remove => "remove",
        }
    }
}

/// Where a job is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// To be done; with a time of the next try, not before it.
    Queued,
    Running,
    /// Failed for good: waits for a changed file, another extractor, or a person.
    Parked,
    /// History.
    Done,
}

impl JobState {
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Parked => "parked",
            JobState::Done => "done",
        }
    }
}

/// What a finished job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// New content: text embedded and written.
    Embedded,
    /// New metadata: payloads written, nothing embedded.
    PayloadOnly,
    /// The state did not know of it, but the store had it whole: taken over, nothing embedded.
    Adopted,
    /// The store had it already.
    Unchanged,
    /// The book's points are gone.
    Removed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Embedded => "embedded",
            Outcome::PayloadOnly => "payload_only",
            Outcome::Adopted => "adopted",
            Outcome::Unchanged => "unchanged",
            Outcome::Removed => "removed",
        }
    }
}

/// A library that the state knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryRecord {
    pub uuid: Uuid,
    pub kind: LibraryKind,
    /// Where it was last seen.
    pub path: PathBuf,
    pub first_seen_us: i64,
}

/// What the store holds of a book.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexedState {
    pub content_hash: String,
    /// Of the text with its sections: files that differ in bytes alone need no new vectors.
    pub text_hash: String,
    pub metadata_hash: String,
    /// [`crate::domain::BookFile::signature`] of the file that was read.
    pub file_signature: String,
    /// What the file says about itself, for payload updates without opening it.
    pub file_metadata: FileMetadata,
    pub generation: String,
    pub chunker_fingerprint: String,
    pub model_fingerprint: String,
    pub sections: usize,
    pub chunks: usize,
    pub points: usize,
    pub tokens: usize,
    pub words: usize,
}

impl IndexedState {
    /// The format of the file that was read.
    pub fn format(&self) -> &str {
        self.file_signature.split('|').next().unwrap_or_default()
    }
}

/// A book with everything the state knows of it.
#[derive(Debug, Clone, PartialEq)]
pub struct BookRecord {
    pub book: Book,
    pub missing_since_us: Option<i64>,
    /// Since when it is kept out of the store by a person's word.
    pub excluded_us: Option<i64>,
    pub indexed: Option<IndexedState>,
    pub indexed_at_us: Option<i64>,
    /// The open job's state, where there is one.
    pub job: Option<JobState>,
}

/// A job in a worker's hands.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedJob {
    pub id: JobId,
    pub kind: JobKind,
    pub book: Book,
    /// This attempt included: it is already counted and on disk.
    pub attempts: u32,
    /// Embed even if nothing changed.
    pub force: bool,
    /// What the job's collection holds of the book, as far as the state knows.
    pub indexed: Option<IndexedState>,
    /// The collection is the one that a reindex builds, beside the live one.
    pub shadow: bool,
    /// What the live collection holds of the book, where the job's is another one.
    pub live: Option<IndexedState>,
    /// The book's files that gave no text when they were read.
    pub failed: Vec<FailedFile>,
}

/// What a worker says of a job it has done.
#[derive(Debug, Clone, PartialEq)]
pub struct JobReport {
    pub outcome: Outcome,
    /// Seconds by stage.
    pub timings: BTreeMap<String, f64>,
    /// Where the embedding ran, e.g. `cpu`.
    pub device: String,
}

/// What a set of changes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Applied {
    pub new: usize,
    /// Books whose file may have new content.
    pub changed: usize,
    /// Books of which only the metadata changed.
    pub metadata: usize,
    /// Books of which only the place changed, or which other formats they have.
    pub moved: usize,
    pub missing: usize,
    pub returned: usize,
    pub gone: usize,
}

impl Applied {
    /// The sum of two.
    #[must_use]
    pub fn plus(&self, other: &Applied) -> Applied {
        Applied {
            new: self.new + other.new,
            changed: self.changed + other.changed,
            metadata: self.metadata + other.metadata,
            moved: self.moved + other.moved,
            missing: self.missing + other.missing,
            returned: self.returned + other.returned,
            gone: self.gone + other.gone,
        }
    }

    /// True where nothing was noted.
    pub fn is_empty(&self) -> bool {
        *self == Applied::default()
    }
}

/// `3 new, 1 changed`: what is not zero.
impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (self.new, "new"),
            (self.changed, "changed"),
            (self.metadata, "with new metadata"),
            (self.moved, "moved or with other spare formats"),
            (self.missing, "missing"),
            (self.returned, "back"),
            (self.gone, "gone"),
        ];
        let parts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        f.write_str(&if parts.is_empty() { "nothing new".to_owned() } else { parts.join(", ") })
    }
}

/// The state in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QueueStats {
    /// Jobs that may be claimed now.
    pub queued: u64,
    /// Jobs that wait for their next try.
    pub waiting: u64,
    pub running: u64,
    pub parked: u64,
    /// Books that are to go into the collection that a reindex builds, and those that failed there; not counted above.
    #[serde(default)]
    pub reindex_queued: u64,
    #[serde(default)]
    pub reindex_parked: u64,
    /// Finished jobs in the history.
    pub history: u64,
    /// Known books, missing and excluded ones included.
    pub books: u64,
    pub missing: u64,
    /// Books kept out of the store by a person's word.
    pub excluded: u64,
    /// Books that the store holds.
    pub done_books: u64,
    /// Those of them that are read in another format than the preferred one, because that gives no text.
    #[serde(default)]
    pub fallbacks: u64,
    pub sections: u64,
    pub chunks: u64,
    pub points: u64,
    pub tokens: u64,
    pub words: u64,
    /// The earliest next try of the waiting jobs.
    pub next_try_us: Option<i64>,
    pub paused: bool,
}

/// A book that is read in another format than the preferred one, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackRow {
    pub book_uuid: Uuid,
    /// `calibre` or `file`.
    pub source: String,
    pub source_id: String,
    pub title: String,
    pub author: String,
    /// The format that the store's text is of.
    pub format: String,
    /// Those that gave no text, and why.
    pub failed: Vec<FailedFile>,
}

/// One job for people to read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    pub id: JobId,
    pub kind: JobKind,
    pub state: JobState,
    pub book_uuid: Uuid,
    /// `calibre` or `file`.
    pub source: String,
    /// Calibre's book id, or the path's hash.
    pub source_id: String,
    pub title: String,
    pub author: String,
    /// The one that the store's text is of where another stands in for the preferred one. Empty where the book is not
    /// known any more.
    pub format: String,
    pub path: String,
    pub by_hand: bool,
    pub force: bool,
    /// The book goes into the collection that a reindex builds.
    #[serde(default)]
    pub reindex: bool,
    pub attempts: u32,
    pub next_try_us: Option<i64>,
    pub failure_kind: Option<FailureKind>,
    pub last_error: Option<String>,
    pub outcome: Option<Outcome>,
    pub device: Option<String>,
    /// Seconds by stage.
    pub timings: BTreeMap<String, f64>,
    pub queued_us: i64,
    pub started_us: Option<i64>,
    pub finished_us: Option<i64>,
}
