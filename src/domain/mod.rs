//! Plain values every stage speaks in. Nothing here does IO or knows a stage.

mod audit;
mod book;
mod chunk;
mod document;
mod failed;
mod failure;
mod language;
mod nearness;
mod point;
pub mod report;
mod shelf;
mod words;

pub use audit::{AuditRepair, AuditReport, AuditedBook, Finding, FindingKind, Held, judge};
pub use book::{Book, BookFile, LibraryKind, Metadata, Source, hex};
pub use chunk::{ChapterChunks, SectionStart, TextSpan, Token, TokenCounter};
pub use document::{Document, FileMetadata, Section};
pub use failed::FailedFile;
pub use failure::{Failure, FailureKind};
pub use language::iso_639_1;
pub use nearness::{folded, nearest};
pub use point::{CataloguePayload, ChunkLevel, Payload, Point, StoredPoint};
pub use shelf::{Change, KnownBook, PassedOver, Sighting};
pub use words::{Parting, word_count};

/// The namespace of every UUIDv5 the project makes (a random UUID, fixed for ever: changing it orphans all points).
pub const UUID_NAMESPACE: uuid::Uuid = uuid::uuid!("5b0f5a3e-2f0c-4a53-9f0e-6f9b7a1d3c52");
