//! A question in words to passages: embeds it and asks the store.

use super::{DaemonError, parts};
use crate::config::Config;
use crate::control::protocol::{SearchHit, SearchRequest};
use crate::embed::{EmbedderHandle, Priority};
use crate::store::{self, CollectionSpec, Filter, Hit, VectorStore};

/// Passages (children) nearest to the question, best first.
pub fn search(
    embedder: &EmbedderHandle,
    store: &dyn VectorStore,
    request: &SearchRequest,
) -> Result<Vec<SearchHit>, DaemonError> {
    if request.q.trim().is_empty() {
        return Err(DaemonError::Failed("the question is empty".into()));
    }
    let vector = embedder.embed(&[request.q.as_str()], Priority::Interactive)?.swap_remove(0);
    let mut filter = Filter::field("chunk_level", "child");
    for (field, value) in [("language", &request.language), ("author", &request.author)] {
        if let Some(value) = value {
            filter = filter.and(field, value.clone());
        }
    }
    Ok(store.search(&vector, &filter, request.limit)?.into_iter().map(to_hit).collect())
}

/// The same without a running service: loads the model and opens the store for one question.
pub fn search_once(config: &Config, request: &SearchRequest) -> Result<Vec<SearchHit>, DaemonError> {
    let state_dir = parts::prepare_state_dir(config)?;
    let store = store::open(&parts::store_settings(config)?, &state_dir)?;
    let embedder = parts::load_embedder(config, &state_dir, &parts::quiet)?;
    store.ensure_collection(&CollectionSpec {
        name: config.store.collection.clone(),
        dimension: embedder.info().dimension,
        model_id: embedder.info().id.clone(),
    })?;
    let hits = search(&embedder, store.as_ref(), request);
    embedder.stop();
    hits
}

/// Fields that a point of another program lacks come out empty.
fn to_hit(hit: Hit) -> SearchHit {
    let text = |name: &str| match hit.payload.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let number = |name: &str| hit.payload.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default() as usize;
    SearchHit {
        score: hit.score,
        title: text("book_title"),
        author: text("author"),
        section: text("section_name"),
        text: text("text"),
        language: text("language"),
        source: text("source"),
        source_id: text("source_id"),
        book_uuid: text("book_uuid"),
        point_id: hit.id.to_string(),
        section_index: number("section_index"),
        sequence_index: number("sequence_index"),
    }
}
