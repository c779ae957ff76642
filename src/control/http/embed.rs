//! POST /embed in two dialects: `texts` as in this project's guide, `inputs` as text-embeddings-inference (TEI) has it,
//! with its error shape and status codes. A text over the model's limit is never cut without having been asked for.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::Place;
use super::texts::{self, NotEmbedded, Texts, check_dimensions};
use super::{EmbedRefusal, Shared, TooLong};
use crate::control::answer::{Refusal, json};

/// Either `texts`, answered with `{"embeddings": [...]}`, or `inputs` as text-embeddings-inference takes it, answered
/// with the bare list of vectors.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbedRequest {
    #[schema(example = json!(["how to adopt a package"]))]
    texts: Option<Vec<String>>,
    #[schema(inline)]
    inputs: Option<Texts>,
    /// With `inputs`: vectors of length 1, which they always are here.
    normalize: Option<bool>,
    /// With `inputs`: cut a text that is over the model's limit, instead of refusing it.
    truncate: Option<bool>,
    /// With `truncate`: the end that is cut off, `Right` or `Left`.
    truncation_direction: Option<Direction>,
    /// With `inputs`: must be null, since these models know no prompts.
    prompt_name: Option<String>,
    /// Must be what the model has.
    dimensions: Option<i64>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub(super) enum Direction {
    #[serde(alias = "right")]
    Right,
    #[serde(alias = "left")]
    Left,
}

/// One vector of length 1 for each text, in the texts' order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct EmbedResponse {
    embeddings: Vec<Vec<f32>>,
}

/// The answer to `texts` or to `inputs`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described, never made")]
pub(super) enum EmbedAnswer {
    Texts(EmbedResponse),
    Inputs(Vec<Vec<f32>>),
}

/// Why there are no vectors.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct EmbedError {
    error: String,
    /// `validation`, `tokenizer`, `empty`, `overloaded`, `unhealthy`, `backend`, or `unauthorized`.
    error_type: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Vectors for texts.
#[utoipa::path(post, path = "/embed", operation_id = "embed", tag = "embeddings",
    request_body(content = EmbedRequest, description = "`texts`, or `inputs`"),
    responses(
        (status = 200, description = "The vectors", body = EmbedAnswer),
        (status = 400, description = "No JSON, a body that ended early, or no text", body = EmbedError),
        (status = 413, description = "Too much in one request; with `inputs` also a text over the model's limit", body = EmbedError),
        (status = 422, description = "JSON that is not what is expected; with `texts` also a text over the model's limit", body = EmbedError),
        (status = 424, description = "The model failed on these `inputs`", body = EmbedError),
        (status = 500, description = "The model failed on these `texts`", body = EmbedError),
        super::openapi::Common,
    ))]
pub(super) async fn embed(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
    body: Bytes,
) -> Response {
    let request: EmbedRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            // Not JSON at all, or JSON of another shape.
            let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
            return refusal(Refusal::new(status, format!("the body is not what is expected: {error}")), None);
        }
    };
    drop(body);
    if let Err(message) = check_dimensions(request.dimensions, shared.handles.model.dimension) {
        return refusal(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message), None);
    }
    match (request.texts, request.inputs) {
        (Some(texts), None) => {
            let answer =
                |embedded: super::Embedded| json(StatusCode::OK, &EmbedResponse { embeddings: embedded.vectors });
            match texts::embed(&shared, place, texts, TooLong::Refuse, answer).await {
                Ok(answer) => answer,
                Err(error) => refusal(error.refusal(), None),
            }
        }
        (None, Some(inputs)) => {
            if request.normalize == Some(false) {
                let text = "vectors of length 1 are all there is: normalize must be true";
                return refusal(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text), None);
            }
            if let Some(name) = request.prompt_name {
                let text = format!("this model has no prompt '{name}': prompt_name must be null");
                return refusal(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text), None);
            }
            if inputs.list.is_empty() || inputs.list.iter().any(String::is_empty) {
                return refusal(Refusal::new(StatusCode::BAD_REQUEST, "`inputs` cannot be empty"), Some("empty"));
            }
            let too_long = match (request.truncate, request.truncation_direction) {
                (Some(true), Some(Direction::Left)) => TooLong::CutStart,
                (Some(true), _) => TooLong::CutEnd,
                _ => TooLong::Refuse,
            };
            let answer = |embedded: super::Embedded| json(StatusCode::OK, &embedded.vectors);
            match texts::embed(&shared, place, inputs.list, too_long, answer).await {
                Ok(answer) => answer,
                Err(error) => in_teis_words(&error),
            }
        }
        (Some(_), Some(_)) => {
            refusal(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "give `texts` or `inputs`, not both"), None)
        }
        (None, None) => {
            let text = "there is neither `texts` (a list) nor `inputs` (a text or a list)";
            refusal(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, text), None)
        }
    }
}

/// TEI's statuses: 413 for what it validates, 424 for what the model does not do.
fn in_teis_words(error: &NotEmbedded) -> Response {
    let plain = error.refusal();
    let hint = plain.body.hint.clone();
    let (status, kind, message) = match error {
        NotEmbedded::TooMany { given, most } => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "validation",
            format!("batch size {given} > maximum allowed batch size {most}"),
        ),
        NotEmbedded::Refused(EmbedRefusal::TooLong { index, tokens, limit }) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "validation",
            format!("`inputs` must have at most {limit} tokens. Given: {tokens} (input {index})"),
        ),
        NotEmbedded::Refused(EmbedRefusal::Unavailable(message)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", message.clone())
        }
        _ => (StatusCode::FAILED_DEPENDENCY, "backend", error.message()),
    };
    let refused = Refusal::new(status, message);
    refusal(
        match hint {
            Some(hint) => refused.hint(hint),
            None => refused,
        },
        Some(kind),
    )
}

/// A refusal with the kind that TEI's clients look for, which is guessed from the status where it is not given.
pub(super) fn refusal(refusal: Refusal, kind: Option<&str>) -> Response {
    let kind = kind.unwrap_or(match refusal.status.as_u16() {
        401 | 403 => "unauthorized",
        429 => "overloaded",
        408 | 503 => "unhealthy",
        500.. => "backend",
        _ => "validation",
    });
    let body = EmbedError { error: refusal.body.error, error_type: kind.to_owned(), hint: refusal.body.hint };
    (refusal.status, Json(body)).into_response()
}
