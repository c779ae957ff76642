//! What is written into the collection: ids, vectors and payloads as the query side's contract has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::book::{author_line, hex};
use super::{Book, FileMetadata};

/// Parent (chapter) or child (chunk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChunkLevel {
    Parent,
    Child,
}

impl ChunkLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            ChunkLevel::Parent => "parent",
            ChunkLevel::Child => "child",
        }
    }
}

/// One point's payload. Field names and types are the contract's; fields of the other level are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    pub text: String,
    pub section_name: String,
    pub chunk_level: ChunkLevel,
    pub token_count: usize,
    /// Local time, ISO 8601 with microseconds, no zone.
    pub ingested_at: String,
    pub strategy: String,
    pub embedding_model_id: String,
    pub embedding_model_name: String,
    pub embedding_dimension: usize,
    pub ingest_version: String,
    /// Of the chapter, 0-based.
    pub section_index: usize,
    /// Chapters of the book: with the counts below it tells whether all of a book's points are there. 0 where an older
    /// version wrote the point.
    #[serde(default)]
    pub section_count: usize,

    /// Parent only: the whole chapter where `text` is a cut of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_count: Option<usize>,

    /// Child only: the parent's point id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Child only: 0-based in the chapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_index: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sibling_count: Option<usize>,
    /// Child only: where the chunk starts and ends in the chapter's text, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub char_start: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub char_end: Option<usize>,

    pub book_uuid: String,
    pub library_uuid: String,
    pub generation: String,
    /// What cut the text and what embedded it, version and settings included. Empty where an older version wrote the
    /// point.
    #[serde(default)]
    pub chunker_fingerprint: String,
    #[serde(default)]
    pub model_fingerprint: String,

    #[serde(flatten)]
    pub catalogue: CataloguePayload,
}

/// The part of a payload that may change while text and vectors stay: what comes from the catalogue, and which of the
/// book's files the text is of. Rewritten as one, on all points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CataloguePayload {
    pub book_title: String,
    pub author: String,
    pub language: String,
    pub source: String,
    pub source_id: String,
    /// Of the file that was read, and the SHA-256 of its bytes: files of the same text have the same points.
    pub book_format: String,
    pub content_hash: String,
    pub authors: Vec<String>,
    pub tags: Vec<String>,
    // Written as null rather than left out: a payload update merges, so a left-out key would keep its old value.
    pub series: Option<String>,
    pub series_index: Option<f64>,
    pub publisher: Option<String>,
    pub published: Option<String>,
    pub identifiers: BTreeMap<String, String>,
    pub rating: Option<i64>,
}

impl CataloguePayload {
    /// A hash of everything in here, as hex: equal hashes mean that the points' payloads are as they should be.
    pub fn hash(&self) -> String {
        // Struct fields and BTreeMap keys serialise in a fixed order, so equal values give equal text.
        hex(&Sha256::digest(serde_json::to_vec(self).unwrap_or_default()))
    }

    /// The catalogue's data of a book whose `file` is the one that was read, completed by what that says where the
    /// catalogue has nothing.
    pub fn new(book: &Book, file: &FileMetadata, content_hash: &str) -> Self {
        let metadata = &book.metadata;
        let authors = metadata.authors_with(file);
        Self {
            book_title: metadata.title_with(file, book.source.name()).to_owned(),
            author: author_line(authors),
            language: metadata.language_with(file),
            source: book.source.name().to_owned(),
            source_id: book.source.id(),
            book_format: book.file.format.clone(),
            content_hash: content_hash.to_owned(),
            authors: authors.to_vec(),
            tags: metadata.tags.clone(),
            series: metadata.series.clone(),
            series_index: metadata.series_index,
            publisher: metadata.publisher.clone(),
            published: metadata.published.clone(),
            identifiers: metadata.identifiers.clone(),
            rating: metadata.rating,
        }
    }
}

/// A point as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// UUIDv5: deterministic, so a repeated write is harmless.
    pub id: Uuid,
    /// Unit norm, finite, of the collection's dimension.
    pub vector: Vec<f32>,
    pub payload: Payload,
}

/// A point as the store holds it, without text and vector: what is needed to tell a book's current points from stale
/// ones, from those of the same book in another library (Calibre keeps a book's uuid when it is copied), and a whole
/// book from a part of one. Texts are empty where the point is none of this service's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredPoint {
    pub id: Uuid,
    pub book_uuid: String,
    pub library_uuid: String,
    pub generation: String,
    pub content_hash: String,
    pub is_child: bool,
    /// The chapter's index, and how many the book has; 0 where that is not known.
    pub section: usize,
    pub section_count: usize,
    /// Children of the chapter.
    pub children: usize,
    pub tokens: usize,
    /// The chapter bears the book's title, for want of one of its own.
    pub named_after_book: bool,
}
