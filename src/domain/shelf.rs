//! What a look at the library finds, what the state knows, and the changes between the two.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failed::first_sound;
use super::{Book, BookFile, FailedFile, Source};

/// What a look finds of one book. A look that is complete and free of errors has one for every book on the shelf.
#[derive(Debug, Clone, PartialEq)]
// Nearly all are books, so nothing is saved by boxing them.
#[allow(clippy::large_enum_variant)]
pub enum Sighting {
    Book(Book),
    /// It is there, but cannot be seen whole at this moment: it stays what the state has.
    AsKnown(Uuid),
    /// It has no file in a readable format, or none at all yet.
    PassedOver(PassedOver),
}

/// A book on the shelf that cannot be ingested as it is. It is present all the same: never a removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PassedOver {
    #[schema(value_type = String, format = "uuid")]
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

/// A book as the state has it: no more than what a look is compared with, because a large library's are all in memory
/// at once.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownBook {
    pub uuid: Uuid,
    pub source: Source,
    /// [`super::Metadata::digest`].
    pub metadata_digest: [u8; 32],
    /// As in [`Book`].
    pub file: BookFile,
    pub others: Vec<BookFile>,
    pub unread: Vec<String>,
    pub added_us: i64,
    /// Since when complete looks do not see it; None while it is seen. Microseconds since the epoch.
    pub missing_since_us: Option<i64>,
    /// Its files that were read and gave no text. Those that are not on the shelf any more say nothing.
    pub failed: Vec<FailedFile>,
}

impl KnownBook {
    /// A book that is seen, and of which no file failed.
    pub fn new(book: &Book) -> Self {
        Self {
            uuid: book.uuid,
            source: book.source.clone(),
            metadata_digest: book.metadata.digest(),
            file: book.file.clone(),
            others: book.others.clone(),
            unread: book.unread.clone(),
            added_us: book.added_us,
            missing_since_us: None,
            failed: Vec::new(),
        }
    }

    /// As [`Book::files`].
    pub fn files(&self) -> impl Iterator<Item = &BookFile> {
        std::iter::once(&self.file).chain(&self.others)
    }

    /// As [`Book::file_to_read`], with what is known of its files.
    pub fn file_to_read(&self) -> Option<&BookFile> {
        first_sound(self.files(), &self.failed)
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
