//! Where the vectors live: one trait, three stores (embedded Qdrant, a Qdrant server, a map for unit tests).
//!
//! The trait is synchronous: its callers are blocking threads. It has no change by filter, because the embedded
//! engine logs such operations unresolved and replays them differently after a kill: a caller asks for ids first.

pub mod edge;
pub mod memory;
pub mod server;
mod verify;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::StoreConfig;
use crate::domain::{CataloguePayload, Point, StoredPoint};

/// Payload fields with a keyword index: what the query side and this service filter on.
pub const KEYWORD_INDEXES: [&str; 8] =
    ["chunk_level", "book_title", "author", "source", "source_id", "parent_id", "language", "book_uuid"];

/// What a collection must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionSpec {
    pub name: String,
    pub dimension: usize,
    /// The contract's `embedding_model_id`: one collection holds one model's vectors.
    pub model_id: String,
}

/// What went wrong, told apart where callers act differently.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Down, unreachable, timed out, overloaded: wait until it is healthy.
    #[error("the store does not answer ({location}): {reason}")]
    Unavailable { location: String, reason: String },
    /// The collection is gone: create it again and reconcile.
    #[error("collection '{collection}' does not exist in the store at {location}")]
    CollectionMissing { location: String, collection: String },
    /// The collection holds something else: never write to it.
    #[error(
        "collection '{collection}' holds {found}, but the configured model needs {wanted}; set another store.collection, or the model it was filled with"
    )]
    WrongCollection { collection: String, found: String, wanted: String },
    /// Another process holds the embedded store.
    #[error("the embedded store {location} is in use by another process; stop it, or use alexandriactl to talk to it")]
    InUse { location: String },
    /// Refused for what we sent or who we are: an operator must act.
    #[error("the store at {location} refused the request: {reason}")]
    Rejected { location: String, reason: String },
    /// A vector that must not be written (not finite, wrong length, not unit norm).
    #[error("point {id}: {reason}")]
    BadVector { id: Uuid, reason: String },
}

impl StoreError {
    /// True when waiting may help.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. } | StoreError::CollectionMissing { .. })
    }
}

/// Conditions on keyword fields, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// (field, value) pairs on fields of [`KEYWORD_INDEXES`].
    pub must: Vec<(String, String)>,
    /// Fields that must have one of the values.
    #[serde(default)]
    pub any: Vec<(String, Vec<String>)>,
}

impl Filter {
    pub fn field(name: &str, value: impl Into<String>) -> Self {
        Self::default().and(name, value)
    }

    #[must_use]
    pub fn and(mut self, name: &str, value: impl Into<String>) -> Self {
        self.must.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn and_any(mut self, name: &str, values: Vec<String>) -> Self {
        self.any.push((name.to_owned(), values));
        self
    }
}

/// One search result, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    pub id: Uuid,
    /// Cosine similarity.
    pub score: f32,
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// What [`VectorStore::ensure_collection`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// It was there, with points.
    Present,
    /// It holds nothing, whatever the state says: it was made just now, or by a process that died before it could tell
    /// the state, or was emptied.
    Empty,
}

/// One page of a scroll.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScrollPage {
    pub points: Vec<StoredPoint>,
    /// Where the next page starts; None at the end.
    pub next: Option<Uuid>,
}

/// What a collection's name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    Nothing,
    /// A collection of that very name, which has to be deleted before the name can stand for another one.
    Collection,
    /// The collection of this name; that can be changed at any time.
    Alias(String),
}

impl Resolved {
    /// The name of the collection itself.
    pub fn target(self, name: &str) -> Option<String> {
        match self {
            Resolved::Nothing => None,
            Resolved::Collection => Some(name.to_owned()),
            Resolved::Alias(target) => Some(target),
        }
    }
}

/// A store of one collection. Every call may block; none may be made on an async worker thread.
pub trait VectorStore: Send + Sync {
    /// What and where it is, for status and messages: `embedded /var/lib/...`, `server http://...`.
    fn location(&self) -> String;

    /// Creates the collection and its indexes when absent; verifies dimension, distance, unnamed vector and the model
    /// of one sampled point when present. Never alters what exists (missing payload indexes are added).
    fn ensure_collection(&self, spec: &CollectionSpec) -> Result<Ensured, StoreError>;

    /// Writes points, acknowledged. Repeating it is harmless. Vectors are checked first ([`check_vector`]).
    fn upsert(&self, points: &[Point]) -> Result<(), StoreError>;

    /// The ids, libraries and generations of all points with this payload `book_uuid`, in no particular order.
    fn points_of_book(&self, book: Uuid) -> Result<Vec<StoredPoint>, StoreError>;

    /// Deletes points by id; absent ids are no error.
    fn delete(&self, ids: &[Uuid]) -> Result<(), StoreError>;

    /// Overwrites the catalogue fields of the given points, leaving vectors and other fields as they are.
    /// `section_name` is given where the chapter bears the book's title for want of one of its own.
    fn set_catalogue(
        &self,
        ids: &[Uuid],
        catalogue: &CataloguePayload,
        section_name: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Exact number of points that match.
    fn count(&self, filter: &Filter) -> Result<usize, StoreError>;

    /// The `limit` nearest points by cosine.
    fn search(&self, vector: &[f32], filter: &Filter, limit: usize) -> Result<Vec<Hit>, StoreError>;

    /// One page of all points in id order, starting at `from`.
    fn scroll(&self, from: Option<Uuid>, limit: usize) -> Result<ScrollPage, StoreError>;

    /// The points with their vectors, in no particular order; those that are not there, or that no version of this
    /// service wrote, are left out.
    fn fetch(&self, ids: &[Uuid]) -> Result<Vec<Point>, StoreError>;

    /// The same store, to be used for another collection.
    fn beside(&self, collection: &str) -> Result<Arc<dyn VectorStore>, StoreError>;

    /// Whether nobody else can reach its collections.
    fn is_private(&self) -> bool {
        true
    }

    /// What a collection's name stands for.
    fn resolve(&self, name: &str) -> Result<Resolved, StoreError>;

    /// Has a name stand for a collection from now on, in one step: whoever uses the name sees the one before or the new
    /// one, whole. Where a collection itself bears the name ([`Resolved::Collection`]) it is deleted first, so that there
    /// is nothing under the name for a moment; the caller must want that. Repeating it is harmless.
    fn switch(&self, name: &str, collection: &str) -> Result<(), StoreError>;

    /// Deletes a collection with all that is in it; one that is not there is no error.
    fn drop_collection(&self, collection: &str) -> Result<(), StoreError>;

    /// Makes everything acknowledged so far durable (a flush where the store is embedded).
    fn checkpoint(&self) -> Result<(), StoreError>;

    /// Background work worth doing while nothing is queued (index building). May take minutes.
    fn maintain(&self) -> Result<(), StoreError>;

    /// Whether the store answers.
    fn health(&self) -> Result<(), StoreError>;
}

/// Where the embedded store lives in the state directory.
pub const EMBEDDED_DIR: &str = "store";

/// Opens the configured store. A server that is down is no error: [`VectorStore::health`] tells.
pub fn open(config: &StoreConfig, state_dir: &Path) -> Result<Arc<dyn VectorStore>, StoreError> {
    Ok(match config.kind.as_str() {
        "embedded" => Arc::new(edge::EdgeStore::open(&state_dir.join(EMBEDDED_DIR))?),
        "server" => Arc::new(server::ServerStore::connect(&server::ServerConfig::from(config))?),
        "memory" => Arc::new(memory::MemoryStore::default()),
        other => {
            return Err(StoreError::Rejected {
                location: "(configuration)".into(),
                reason: format!("store.kind is '{other}'; use embedded, server or memory"),
            });
        }
    })
}

/// Refuses a vector that would poison a search: not finite, of another length, or not of unit norm (within 1e-3).
pub fn check_vector(id: Uuid, vector: &[f32], dimension: usize) -> Result<(), StoreError> {
    let bad = |reason: String| Err(StoreError::BadVector { id, reason });
    if vector.len() != dimension {
        return bad(format!("the vector has {} numbers, the collection {dimension}", vector.len()));
    }
    if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
        return bad(format!("the vector's number {at} is {}", vector[at]));
    }
    let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if (norm - 1.0).abs() > 1e-3 {
        return bad(format!("the vector's norm is {norm}, not 1"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_vectors_are_refused() {
        let id = Uuid::nil();
        assert!(check_vector(id, &[0.6, 0.8], 2).is_ok());
        assert!(check_vector(id, &[0.6, 0.8], 3).is_err());
        assert!(check_vector(id, &[0.6, f32::NAN], 2).is_err());
        assert!(check_vector(id, &[0.6, 0.9], 2).is_err());
        assert!(check_vector(id, &[0.0, 0.0], 2).is_err());
    }
}
