//! What a look at the library found, what the state knows, and the changes between the two.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Book, LibraryKind};

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
    pub title: String,
    pub reason: String,
}

/// A book as the state has it.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownBook {
    pub book: Book,
    /// Since when complete looks do not see it; None while it is seen. Microseconds since the epoch.
    pub missing_since_us: Option<i64>,
}

/// One difference between shelf and state.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    New(Book),
    /// At least one of the flags is set.
    Changed {
        book: Book,
        /// The file may have new content (the hash decides), or another format was chosen.
        file: bool,
        /// The catalogue's data changed.
        metadata: bool,
        /// The place changed (or the date of adding): no work, but the state must know the new path.
        moved: bool,
    },
    /// Seen again after it was missing.
    Returned(Uuid),
    /// Absent from this look, present in the one before.
    Missing(Uuid),
    /// Absent from at least two complete looks, the grace time apart.
    Gone(Uuid),
}
