//! What both servers answer with: JSON, a refusal that says what to do next, and the way from a request's bytes to a
//! value. Handles may block, so [`blocking`] is the one way to call them; no runtime worker ever waits for one.

use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{ErrorResponse, PROTOCOL, PROTOCOL_HEADER};
use crate::queue::{Queue, QueueError, QueueHandle, QueueStopped};

pub(super) type Answer<T> = Result<Success<T>, Refusal>;

pub(super) struct Success<T>(pub T);

impl<T: Serialize> IntoResponse for Success<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// An answer that is not a success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub body: ErrorResponse,
}

impl Refusal {
    pub fn new(status: StatusCode, error: impl ToString) -> Self {
        Self { status, body: ErrorResponse { error: error.to_string(), hint: None } }
    }

    pub fn hint(mut self, hint: impl ToString) -> Self {
        self.body.hint = Some(hint.to_string());
        self
    }
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        let status = if error.is_not_found() { StatusCode::NOT_FOUND } else { StatusCode::INTERNAL_SERVER_ERROR };
        Refusal::new(status, error)
    }
}

impl From<QueueStopped> for Refusal {
    fn from(stopped: QueueStopped) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, stopped).hint("try again when the service has started again")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &self.body)
    }
}

/// Compact JSON with a line's end, so that `curl` leaves the prompt where it belongs.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, mut text) = match serde_json::to_string(value) {
        Ok(text) => (status, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, r#"{"error":"the answer could not be written as JSON"}"#.into()),
    };
    text.push('\n');
    let headers = [
        (HeaderName::from_static("content-type"), HeaderValue::from_static("application/json")),
        (HeaderName::from_static(PROTOCOL_HEADER), HeaderValue::from(PROTOCOL)),
    ];
    (status, headers, text).into_response()
}

/// A request's JSON body; none at all means the defaults.
pub(super) fn body<T: DeserializeOwned>(bytes: Result<Bytes, BytesRejection>) -> Result<T, Refusal> {
    let bytes = bytes.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the request's body is not what is expected: {error}"))
    })
}

pub(super) fn query<T>(request: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    request
        .map(|Query(request)| request)
        .map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))
}

pub(super) fn on_queue<R: Send + 'static>(
    handle: &QueueHandle,
    request: impl FnOnce(&mut Queue) -> Result<R, QueueError> + Send + 'static,
) -> Result<R, Refusal> {
    Ok(handle.call(request)??)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map(Success),
        Err(_) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request panicked; this is a bug")
            .hint("the log has the details: journalctl -u alexandria-ingestd")),
    }
}
