//! A question in words to passages: narrows it, embeds it and asks the store.

use std::path::Path;

use super::search_filter::{self, Narrowed};
use super::{DaemonError, parts};
use crate::config::Config;
use crate::control::protocol::{SearchHit, SearchRequest, SearchResponse};
use crate::embed::{EmbedderHandle, Priority};
use crate::queue::{self, CatalogueRow, Reader};
use crate::store::{self, CollectionSpec, Hit, StoreError, VectorStore};

/// Passages nearest to the question, best first. `state`: the file that knows the books, where there is one.
pub fn search(
    embedder: &EmbedderHandle,
    store: &dyn VectorStore,
    state: Option<&Path>,
    request: &SearchRequest,
) -> Result<SearchResponse, DaemonError> {
    if request.q.trim().is_empty() {
        return Err(DaemonError::Failed("the question is empty".into()));
    }
    let state = state.filter(|path| path.exists());
    let books = match state.filter(|_| search_filter::needs_catalogue(request)) {
        Some(path) => Some(catalogue(path)?),
        None => None,
    };
    let narrowed = match search_filter::narrow(request, books.as_deref()) {
        Ok(narrowed) => narrowed,
        // What was asked for cannot be meant: nobody's failure.
        Err(reason) => Narrowed { notes: vec![reason], nothing: true, ..Narrowed::default() },
    };
    let mut response = SearchResponse { query: request.q.clone(), hits: Vec::new(), notes: narrowed.notes.clone() };
    if narrowed.nothing {
        return Ok(response);
    }
    let vector = embedder.embed(&[request.q.as_str()], Priority::Interactive)?.swap_remove(0);
    let hits = store.search(&vector, &narrowed.filter, request.limit).map_err(|error| explained(error, &narrowed))?;
    if let (true, Some(language), Some(state)) = (hits.is_empty(), &request.language, state) {
        let books = match books {
            Some(books) => books,
            None => catalogue(state)?,
        };
        response.notes.extend(search_filter::no_such_language(language, &books));
    }
    let best = hits.first().map(|hit| hit.score);
    response.hits = hits.into_iter().map(to_hit).collect();
    if let Some(least) = request.min_similarity {
        response.hits.retain(|hit| hit.score >= least);
        if let Some(best) = best.filter(|_| response.hits.is_empty()) {
            response.notes.push(format!("the nearest passage has similarity {best:.3}, under {least}"));
        }
    }
    Ok(response)
}

/// On a connection of its own: it goes over all books.
fn catalogue(state: &Path) -> Result<Vec<CatalogueRow>, DaemonError> {
    Ok(Reader::open(state)?.catalogue()?)
}

/// A server may have limits of its own on conditions (strict mode).
fn explained(error: StoreError, narrowed: &Narrowed) -> DaemonError {
    let conditions = narrowed.filter.any.iter().map(|(_, values)| values.len()).max().unwrap_or_default();
    match error {
        StoreError::Rejected { location, reason } if conditions > 1 => StoreError::Rejected {
            location,
            reason: format!("{reason}; the conditions fit up to {conditions} values, fewer may be taken"),
        }
        .into(),
        error => error.into(),
    }
}

/// The same without a running service: loads the model and opens the store for one question.
pub fn search_once(config: &Config, request: &SearchRequest) -> Result<SearchResponse, DaemonError> {
    let state_dir = parts::prepare_state_dir(config)?;
    let store = store::open(&parts::store_settings(config)?, &state_dir)?;
    let embedder = parts::load_embedder(config, &state_dir, &parts::quiet)?.embedder;
    store.ensure_collection(&CollectionSpec {
        name: config.store.collection.clone(),
        dimension: embedder.info().dimension,
        model_id: embedder.info().id.clone(),
    })?;
    let state = state_dir.join(queue::FILE_NAME);
    let response = search(&embedder, store.as_ref(), Some(&state), request);
    embedder.stop();
    response
}

/// Fields that a point of another program lacks come out empty.
fn to_hit(hit: Hit) -> SearchHit {
    let text = |name: &str| match hit.payload.get(name) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    let maybe = |name: &str| hit.payload.get(name).and_then(serde_json::Value::as_u64).map(|number| number as usize);
    let number = |name: &str| maybe(name).unwrap_or_default();
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
        level: text("chunk_level"),
        section_count: maybe("section_count").filter(|count| *count > 0),
        // A chapter says how many passages it has; a passage, how many there are beside it.
        passage_count: maybe("sibling_count").or_else(|| maybe("child_count")),
        format: text("book_format"),
        series: text("series"),
        series_index: hit.payload.get("series_index").and_then(serde_json::Value::as_f64),
        publisher: text("publisher"),
        tags: match hit.payload.get("tags") {
            Some(serde_json::Value::Array(tags)) => {
                tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        },
    }
}
