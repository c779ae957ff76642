//! A store in a map: for unit tests, and for running the daemon without an engine. It answers as the real ones do,
//! and must never be taken for one: it forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::verify::{self, Found, Sample};
use super::{CollectionSpec, Ensured, Filter, Hit, Resolved, ScrollPage, StoreError, VectorStore, check_vector};
use crate::domain::{CataloguePayload, Point, StoredPoint};

const LOCATION: &str = "memory";

#[derive(Debug, Default)]
pub struct MemoryStore {
    collection: Mutex<Option<Collection>>,
}

#[derive(Debug)]
struct Collection {
    name: String,
    dimension: usize,
    points: BTreeMap<Uuid, Stored>,
}

#[derive(Debug)]
struct Stored {
    vector: Vec<f32>,
    payload: Map<String, Value>,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Option<Collection>> {
        self.collection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Collection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.lock().as_mut() {
            Some(collection) => f(collection),
            None => Err(StoreError::CollectionMissing { location: LOCATION.into(), collection: "(none yet)".into() }),
        }
    }
}

impl VectorStore for MemoryStore {
    fn location(&self) -> String {
        LOCATION.into()
    }

    fn ensure_collection(&self, spec: &CollectionSpec) -> Result<Ensured, StoreError> {
        verify::check_name(&spec.name, LOCATION)?;
        let mut slot = self.lock();
        // Another name is another collection; this store keeps one.
        if let Some(existing) = slot.as_ref().filter(|existing| existing.name == spec.name) {
            let sample = match existing.points.values().next() {
                None => Sample::Empty,
                Some(first) => Sample::of_payload(Some(&first.payload)),
            };
            return verify::verify(spec, &Found { dimension: Some(existing.dimension), cosine: true, sample });
        }
        *slot = Some(Collection { name: spec.name.clone(), dimension: spec.dimension, points: BTreeMap::new() });
        Ok(Ensured::Empty)
    }

    fn upsert(&self, points: &[Point]) -> Result<(), StoreError> {
        self.with(|collection| {
            for point in points {
                check_vector(point.id, &point.vector, collection.dimension)?;
            }
            for point in points {
                let stored = Stored { vector: point.vector.clone(), payload: verify::payload_map(point, LOCATION)? };
                collection.points.insert(point.id, stored);
            }
            Ok(())
        })
    }

    fn points_of_book(&self, book: Uuid) -> Result<Vec<StoredPoint>, StoreError> {
        let filter = Filter::field("book_uuid", book.to_string());
        self.with(|collection| {
            Ok(collection
                .points
                .iter()
                .filter(|(_, stored)| verify::matches(&filter, &stored.payload))
                .map(|(id, stored)| stored_point(*id, stored))
                .collect())
        })
    }

    fn delete(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        self.with(|collection| {
            for id in ids {
                collection.points.remove(id);
            }
            Ok(())
        })
    }

    fn set_catalogue(
        &self,
        ids: &[Uuid],
        catalogue: &CataloguePayload,
        section_name: Option<&str>,
    ) -> Result<(), StoreError> {
        let update = verify::catalogue_map(catalogue, section_name, LOCATION)?;
        self.with(|collection| {
            for id in ids {
                let Some(stored) = collection.points.get_mut(id) else { continue };
                for (key, value) in &update {
                    // As Qdrant merges: null removes the key.
                    match value {
                        Value::Null => stored.payload.remove(key),
                        value => stored.payload.insert(key.clone(), value.clone()),
                    };
                }
            }
            Ok(())
        })
    }

    fn count(&self, filter: &Filter) -> Result<usize, StoreError> {
        self.with(|collection| {
            Ok(collection.points.values().filter(|stored| verify::matches(filter, &stored.payload)).count())
        })
    }

    fn search(&self, vector: &[f32], filter: &Filter, limit: usize) -> Result<Vec<Hit>, StoreError> {
        self.with(|collection| {
            check_vector(Uuid::nil(), vector, collection.dimension)?;
            let mut scored: Vec<(f32, Uuid, &Stored)> = collection
                .points
                .iter()
                .filter(|(_, stored)| verify::matches(filter, &stored.payload))
                .map(|(id, stored)| (dot(vector, &stored.vector), *id, stored))
                .collect();
            scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            scored.truncate(limit);
            Ok(scored
                .into_iter()
                .map(|(score, id, stored)| Hit { id, score, payload: stored.payload.clone() })
                .collect())
        })
    }

    fn scroll(&self, from: Option<Uuid>, limit: usize) -> Result<ScrollPage, StoreError> {
        self.with(|collection| {
            let start = from.map_or(Bound::Unbounded, Bound::Included);
            let mut rest = collection.points.range((start, Bound::Unbounded));
            let points = rest.by_ref().take(limit.max(1)).map(|(id, stored)| stored_point(*id, stored)).collect();
            Ok(ScrollPage { points, next: rest.next().map(|(id, _)| *id) })
        })
    }

    fn fetch(&self, ids: &[Uuid]) -> Result<Vec<Point>, StoreError> {
        self.with(|collection| {
            let stored = ids.iter().filter_map(|id| Some((*id, collection.points.get(id)?)));
            Ok(stored
                .filter_map(|(id, stored)| verify::point(id, stored.vector.clone(), stored.payload.clone()))
                .collect())
        })
    }

    fn beside(&self, _collection: &str) -> Result<Arc<dyn VectorStore>, StoreError> {
        Err(one_collection())
    }

    fn resolve(&self, name: &str) -> Result<Resolved, StoreError> {
        let known = self.lock().as_ref().is_some_and(|collection| collection.name == name);
        Ok(if known { Resolved::Collection } else { Resolved::Nothing })
    }

    fn switch(&self, _name: &str, _collection: &str) -> Result<(), StoreError> {
        Err(one_collection())
    }

    fn drop_collection(&self, _collection: &str) -> Result<(), StoreError> {
        Err(one_collection())
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn maintain(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn one_collection() -> StoreError {
    StoreError::Rejected { location: LOCATION.into(), reason: "the store in memory has one collection".into() }
}

fn stored_point(id: Uuid, stored: &Stored) -> StoredPoint {
    verify::stored_point(id, Some(&stored.payload))
}

/// Cosine: both sides have unit norm.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
