//! What the three stores decide alike: whether a collection is ours to write to, which names a collection may have,
//! and how points are cut into batches. Pure; must never talk to a store.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{CollectionSpec, Ensured, Filter, StoreError};
use crate::domain::{CataloguePayload, ChunkLevel, Point, StoredPoint};

/// Points of one request at most.
pub(super) const BATCH_POINTS: usize = 256;
/// Bytes of one request at most, estimated: well under gRPC's usual limits, chapters carry their whole text.
pub(super) const BATCH_BYTES: usize = 8 << 20;
/// Ids of one payload update: larger ones replay differently after a kill when some ids were deleted later.
pub(super) const PAYLOAD_IDS: usize = 32;
/// Ids of one deletion or look-up.
pub(super) const ID_BATCH: usize = 512;
/// Points of one page where all are read.
pub(super) const PAGE: usize = 1000;

/// What an existing collection was seen to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Of the unnamed vector; None where there is only a named one.
    pub dimension: Option<usize>,
    pub cosine: bool,
    pub sample: Sample,
}

/// What one sampled point says about the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sample {
    Empty,
    /// A point without `embedding_model_id`.
    Unmarked,
    Model(String),
}

impl Sample {
    pub(super) fn of_payload(payload: Option<&Map<String, Value>>) -> Sample {
        match payload.and_then(|map| map.get("embedding_model_id")).and_then(Value::as_str) {
            Some(model) => Sample::Model(model.to_owned()),
            None => Sample::Unmarked,
        }
    }
}

/// Refuses a collection that holds anything but vectors of `spec`'s model.
pub(super) fn verify(spec: &CollectionSpec, found: &Found) -> Result<Ensured, StoreError> {
    let right_vectors = found.dimension == Some(spec.dimension) && found.cosine;
    let right_model = match &found.sample {
        Sample::Empty => true,
        Sample::Unmarked => false,
        Sample::Model(model) => *model == spec.model_id,
    };
    if right_vectors && right_model {
        return Ok(if found.sample == Sample::Empty { Ensured::Empty } else { Ensured::Present });
    }
    let vectors = match found.dimension {
        None => "only named vectors".to_owned(),
        Some(dimension) if found.cosine => format!("vectors of {dimension} numbers"),
        Some(dimension) => format!("vectors of {dimension} numbers compared by another distance than cosine"),
    };
    let model = match &found.sample {
        Sample::Empty => " (it is empty)".to_owned(),
        Sample::Unmarked => " of an unknown model (its points carry no embedding_model_id)".to_owned(),
        Sample::Model(model) => format!(" of model '{model}'"),
    };
    Err(StoreError::WrongCollection {
        collection: spec.name.clone(),
        found: vectors + &model,
        wanted: format!("vectors of {} numbers of model '{}', compared by cosine", spec.dimension, spec.model_id),
    })
}

/// Refuses names that are no directory name, or that a Qdrant server refuses.
pub(super) fn check_name(name: &str, location: &str) -> Result<(), StoreError> {
    let bad = name.is_empty()
        || name.len() > 200
        || name.starts_with('.')
        || name.chars().any(|c| c.is_control() || r#"/\<>:"|?*"#.contains(c));
    if !bad {
        return Ok(());
    }
    Err(StoreError::Rejected {
        location: location.to_owned(),
        reason: format!(
            "{name:?} cannot name a collection; set store.collection to a name of 1 to 200 characters that does not \
             start with a dot and has none of / \\ < > : \" | ? *"
        ),
    })
}

/// A point's payload as the store keeps it.
pub(super) fn payload_map(point: &Point, location: &str) -> Result<Map<String, Value>, StoreError> {
    object(serde_json::to_value(&point.payload), || format!("point {}", point.id), location)
}

/// A point as this service wrote it; None where another program did.
pub(super) fn point(id: Uuid, vector: Vec<f32>, payload: Map<String, Value>) -> Option<Point> {
    let payload = serde_json::from_value(Value::Object(payload)).ok()?;
    Some(Point { id, vector, payload })
}

/// What a change of the catalogue rewrites in a point's payload.
pub(super) fn catalogue_map(
    catalogue: &CataloguePayload,
    section_name: Option<&str>,
    location: &str,
) -> Result<Map<String, Value>, StoreError> {
    let mut map = object(serde_json::to_value(catalogue), || "the catalogue".to_owned(), location)?;
    map.extend(section_name.map(|name| ("section_name".to_owned(), name.into())));
    Ok(map)
}

/// Any struct's JSON as the object it must be.
fn object(
    json: serde_json::Result<Value>,
    what: impl FnOnce() -> String,
    location: &str,
) -> Result<Map<String, Value>, StoreError> {
    let reason = match json {
        Ok(Value::Object(map)) => return Ok(map),
        Ok(_) => "is not an object".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(StoreError::Rejected { location: location.to_owned(), reason: format!("the payload of {}: {reason}", what()) })
}

/// Cuts points into requests of at most `max_points` points and about `max_bytes` bytes, in order, none empty.
pub(super) fn batches(points: &[Point], max_points: usize, max_bytes: usize) -> Vec<&[Point]> {
    let mut out = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, point) in points.iter().enumerate() {
        let size = estimated_bytes(point);
        if at > start && (at - start >= max_points || bytes + size > max_bytes) {
            out.push(&points[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < points.len() {
        out.push(&points[start..]);
    }
    out
}

/// Vector, texts, and a kilobyte for the rest.
fn estimated_bytes(point: &Point) -> usize {
    let payload = &point.payload;
    point.vector.len() * 4 + payload.text.len() + payload.full_text.as_ref().map_or(0, String::len) + 1024
}

/// Whether a payload matches, as Qdrant matches keywords: a list matches by any of its elements.
pub(super) fn matches(filter: &Filter, payload: &Map<String, Value>) -> bool {
    let has = |field: &String, wanted: &String| match payload.get(field) {
        Some(Value::String(value)) => value == wanted,
        Some(Value::Array(values)) => values.iter().any(|value| value.as_str() == Some(wanted)),
        _ => false,
    };
    filter.must.iter().all(|(field, wanted)| has(field, wanted))
        && filter.any.iter().all(|(field, values)| values.iter().any(|wanted| has(field, wanted)))
}

/// The payload fields of [`stored_point`].
pub(super) const STORED_POINT_FIELDS: [&str; 12] = [
    "book_uuid",
    "library_uuid",
    "generation",
    "content_hash",
    "chunk_level",
    "section_index",
    "section_count",
    "child_count",
    "sibling_count",
    "token_count",
    "section_name",
    "book_title",
];

/// A point as the state compares it; fields are empty where a foreign point has none.
pub(super) fn stored_point(id: Uuid, payload: Option<&Map<String, Value>>) -> StoredPoint {
    let field = |name: &str| payload.and_then(|map| map.get(name));
    let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |name: &str| {
        let number = field(name).and_then(Value::as_u64).unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    };
    let is_child = text("chunk_level") == ChunkLevel::Child.as_str();
    StoredPoint {
        id,
        book_uuid: text("book_uuid"),
        library_uuid: text("library_uuid"),
        generation: text("generation"),
        content_hash: text("content_hash"),
        is_child,
        section: number("section_index"),
        section_count: number("section_count"),
        children: number(if is_child { "sibling_count" } else { "child_count" }),
        tokens: number("token_count"),
        named_after_book: field("section_name").is_some_and(|name| Some(name) == field("book_title")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> CollectionSpec {
        CollectionSpec { name: "books".into(), dimension: 384, model_id: "minilm".into() }
    }

    #[test]
    fn only_the_same_model_is_accepted() {
        let good = Found { dimension: Some(384), cosine: true, sample: Sample::Model("minilm".into()) };
        assert_eq!(verify(&spec(), &good).unwrap(), Ensured::Present);
        let empty = Found { sample: Sample::Empty, ..good.clone() };
        assert_eq!(verify(&spec(), &empty).unwrap(), Ensured::Empty);
        for bad in [
            Found { dimension: Some(1024), ..good.clone() },
            Found { dimension: None, ..good.clone() },
            Found { cosine: false, ..good.clone() },
            Found { sample: Sample::Unmarked, ..good.clone() },
            Found { sample: Sample::Model("bge-m3".into()), ..good.clone() },
        ] {
            assert!(matches!(verify(&spec(), &bad), Err(StoreError::WrongCollection { .. })), "{bad:?}");
        }
    }

    #[test]
    fn the_refusal_names_both_sides() {
        let found = Found { dimension: Some(1024), cosine: true, sample: Sample::Model("bge-m3".into()) };
        let text = verify(&spec(), &found).unwrap_err().to_string();
        for part in ["books", "1024", "bge-m3", "384", "minilm"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for good in ["alexandria", "my books", "Bücher-2"] {
            assert!(check_name(good, "x").is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "../up", "a\0b", "a:b"] {
            assert!(check_name(bad, "x").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lists_match_by_any_element() {
        let payload = serde_json::json!({"author": ["a", "b"], "source": "calibre", "n": 1});
        let Value::Object(payload) = payload else { unreachable!() };
        assert!(matches(&Filter::field("author", "b").and("source", "calibre"), &payload));
        assert!(!matches(&Filter::field("author", "c"), &payload));
        assert!(!matches(&Filter::field("n", "1"), &payload));
        assert!(matches(&Filter::default(), &payload));
    }
}
