//! What can be looked at: search, status, history, and whether the service lives and can answer. From the same handles
//! as the control socket.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shared;
use super::guard::Place;
use crate::control::answer::{Answer, Refusal, blocking, body, json, query};
use crate::control::protocol::{ErrorResponse, HistoryResponse, SearchRequest, SearchResponse, StatusSnapshot};
use crate::control::server::{find, whole_status};

/// Passages nearest to a question.
#[utoipa::path(get, path = "/search", operation_id = "search", tag = "library", params(SearchRequest),
    responses(
        (status = 200, description = "The passages, best first", body = SearchResponse),
        (status = 400, description = "A request that cannot be done", body = ErrorResponse),
        super::openapi::CommonPlain,
    ))]
pub(super) async fn search(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
    request: Result<Query<SearchRequest>, QueryRejection>,
) -> Answer<SearchResponse> {
    look_for(shared, place, query(request)?).await
}

/// The same for a question that is too long for an address.
#[utoipa::path(post, path = "/search", operation_id = "search_by_body", tag = "library",
    request_body = SearchRequest,
    responses(
        (status = 200, description = "The passages, best first", body = SearchResponse),
        (status = 400, description = "A request that cannot be done", body = ErrorResponse),
        (status = 413, description = "Too large a body", body = ErrorResponse),
        super::openapi::CommonPlain,
    ))]
pub(super) async fn search_by_body(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
    request: Result<Bytes, BytesRejection>,
) -> Answer<SearchResponse> {
    look_for(shared, place, body(request)?).await
}

async fn look_for(shared: Arc<Shared>, place: Place, request: SearchRequest) -> Answer<SearchResponse> {
    blocking(move || {
        let found = find(&shared.handles.control, request);
        drop(place);
        found
    })
    .await
}

/// What everything is doing.
#[utoipa::path(get, path = "/status", operation_id = "status", tag = "service",
    responses((status = 200, description = "The status", body = StatusSnapshot), super::openapi::CommonPlain))]
pub(super) async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
) -> Answer<StatusSnapshot> {
    blocking(move || {
        let mut status = whole_status(&shared.handles.control, false)?;
        status.store.location = without_user(&status.store.location);
        drop(place);
        Ok(status)
    })
    .await
}

/// An address without the name and password that may stand in it: `http://me:secret@host` -> `http://host`.
fn without_user(location: &str) -> String {
    let Some((scheme, rest)) = location.split_once("://") else { return location.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => location.to_owned(),
    }
}

/// What was done since the start, step by step.
#[utoipa::path(get, path = "/history", operation_id = "history", tag = "service",
    responses((status = 200, description = "The steps, the oldest first", body = HistoryResponse), super::openapi::CommonPlain))]
pub(super) async fn history(State(shared): State<Arc<Shared>>) -> Answer<HistoryResponse> {
    blocking(move || Ok((shared.handles.control.history)())).await
}

/// The process answers; nothing else is asked.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "service", security(()),
    responses((status = 200, description = "The process answers", body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether embeddings and searches can be answered.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Readiness {
    /// Model, state and store are all there. A library that is away is no reason to ask another server.
    ready: bool,
    /// `ok`, or what is wrong.
    model: String,
    state: String,
    store: String,
    library: String,
}

/// Whether embeddings and searches can be answered: the model is loaded, the state answers, the store is healthy. The
/// library may be away: what is indexed can be searched.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "service",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready, and why; or the service is stopping", body = Readiness),
        super::openapi::CommonNo503,
    ))]
pub(super) async fn readyz(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
) -> Result<Response, Refusal> {
    let looked = blocking(move || {
        let status = whole_status(&shared.handles.control, false);
        drop(place);
        Ok(status)
    });
    let readiness = match looked.await?.0 {
        Ok(status) => readiness(&status),
        Err(refusal) => Readiness {
            ready: false,
            model: "ok".into(),
            state: refusal.body.error,
            store: "not asked".into(),
            library: "not asked".into(),
        },
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(json(status, &readiness).into_response())
}

fn readiness(status: &StatusSnapshot) -> Readiness {
    let said = |fine: bool, reason: &Option<String>, otherwise: &str| {
        if fine { "ok".to_owned() } else { reason.clone().unwrap_or_else(|| otherwise.to_owned()) }
    };
    let (library, store) = (&status.library, &status.store);
    let loaded = status.model.loads > 0;
    Readiness {
        ready: loaded && store.healthy,
        model: said(loaded, &None, "not loaded"),
        state: "ok".into(),
        store: said(store.healthy, &store.reason, "not asked yet"),
        library: said(library.available, &library.reason, "not looked at yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown_with_an_address() {
        assert_eq!(without_user("http://me:se@cret@qdrant:6334/x@y"), "http://qdrant:6334/x@y");
        for plain in ["http://qdrant:6334", "embedded /var/lib/a@b/store", "server http://qdrant:6334/a@b"] {
            assert_eq!(without_user(plain), plain);
        }
        assert_eq!(without_user("server http://me:secret@qdrant"), "server http://qdrant");
    }

    #[test]
    fn a_library_that_is_away_leaves_the_service_ready_and_a_store_does_not() {
        let mut status = StatusSnapshot::default();
        status.model.loads = 1;
        status.store.healthy = true;
        status.library.reason = Some("/mnt/calibre is not mounted".into());
        let ready = readiness(&status);
        assert!(ready.ready);
        assert_eq!((ready.store.as_str(), ready.library.as_str()), ("ok", "/mnt/calibre is not mounted"));
        status.store.healthy = false;
        status.store.reason = Some("connection refused".into());
        let not_ready = readiness(&status);
        assert!(!not_ready.ready);
        assert_eq!(not_ready.store, "connection refused");
    }
}
