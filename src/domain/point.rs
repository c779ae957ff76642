//! What is written into the collection: ids, vectors and payloads as the query side's contract has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Parent (chapter) or child (chunk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    pub book_format: String,
    pub content_hash: String,
    pub generation: String,

    #[serde(flatten)]
    pub catalogue: CataloguePayload,
}

/// The part of a payload that comes from the catalogue: what a metadata-only change rewrites, all of it, on all points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CataloguePayload {
    pub book_title: String,
    pub author: String,
    pub language: String,
    pub source: String,
    pub source_id: String,
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

/// A point as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// UUIDv5: deterministic, so a repeated write is harmless.
    pub id: Uuid,
    /// Unit norm, finite, of the collection's dimension.
    pub vector: Vec<f32>,
    pub payload: Payload,
}

/// A point's id and generation: what is needed to tell a book's current points from stale ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookPoints {
    pub id: Uuid,
    pub generation: String,
}
