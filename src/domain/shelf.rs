//! What a look at the library found, what the state knows, and the changes between the two.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Book, FailedFile, LibraryKind};

/// A complete, error-free look at one library. An incomplete one is an error, never a smaller snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct ShelfSnapshot {
    pub library_uuid: Uuid,
    pub kind: LibraryKind,
    pub books: Vec<Book>,
    /// Books that are on the shelf but have no file in a readable format, or none at all yet.
    pub passed_over: Vec<PassedOver>,
}

/// A book on the shelf that cannot be ingested as it is. It is present all the same: never a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    pub uuid: Uuid,
    /// As people name it: `calibre 12`; without a number in a plain folder.
    #[serde(default)]
    pub book_id: String,
    pub title: String,
    /// Those it has; none where it has no file at all (yet).
    #[serde(default)]
    pub formats: Vec<String>,
    /// One line for each format where there are several.
    pub reason: String,
}

/// A book as the state has it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownBook {
    pub book: Book,
    /// Since when complete looks do not see it; None while it is seen. Microseconds since the epoch.
    pub missing_since_us: Option<i64>,
    /// Its files that were read and gave no text. Those that are not on the shelf any more say nothing.
    pub failed: Vec<FailedFile>,
}

impl KnownBook {
    /// A book that is seen, and of which no file failed.
    pub fn new(book: Book) -> Self {
        Self { book, missing_since_us: None, failed: Vec::new() }
    }
}

/// One difference between shelf and state.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    New(Book),
    /// At least one of the flags is set.
    Changed {
        book: Book,
        /// The file to read may have new content (the hash decides), or is another one.
        file: bool,
        /// The catalogue's data changed.
        metadata: bool,
        /// The place changed, the date of adding, or which other files there are: no work, but the state must know.
        moved: bool,
    },
    /// Seen again after it was missing.
    Returned(Uuid),
    /// Absent from this look, present in the one before.
    Missing(Uuid),
    /// Absent from at least two complete looks, the grace time apart.
    Gone(Uuid),
}
