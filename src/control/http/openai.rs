//! The part of OpenAI's API that its own clients need for embeddings: POST /v1/embeddings, GET /v1/models; its error
//! shape. What would silently give another result than asked for (another model, fewer dimensions) is refused.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::guard::Place;
use super::texts::{self, NotEmbedded, Texts, check_dimensions};
use super::{EmbedRefusal, Embedded, Shared, TooLong};
use crate::control::answer::{Refusal, json};

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbeddingsRequest {
    #[schema(inline)]
    input: Texts,
    /// The loaded model's id or name; another one is refused.
    model: Option<String>,
    encoding_format: Option<Encoding>,
    /// Must be what the model has.
    dimensions: Option<i64>,
    /// Taken and not used.
    #[allow(dead_code)]
    user: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    #[default]
    Float,
    /// Of little-endian 32-bit floats.
    Base64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct EmbeddingsResponse {
    /// `list`
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Embedding {
    /// `embedding`
    object: &'static str,
    index: usize,
    #[schema(inline)]
    embedding: Vector,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize, ToSchema)]
pub(super) struct Usage {
    /// As the model counts, special tokens included.
    prompt_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Models {
    /// `list`
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Model {
    id: String,
    /// `model`
    object: &'static str,
    /// Seconds since the epoch: when the service started.
    created: i64,
    owned_by: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct OpenAiError {
    error: OpenAiErrorBody,
}

#[derive(Serialize, ToSchema)]
pub(super) struct OpenAiErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: String,
    param: Option<String>,
    code: Option<String>,
}

/// Vectors for texts, as OpenAI's API has it.
#[utoipa::path(post, path = "/v1/embeddings", operation_id = "openai_embeddings", tag = "embeddings",
    request_body = EmbeddingsRequest,
    responses(
        (status = 200, description = "The vectors", body = EmbeddingsResponse),
        (status = 400, description = "A request that cannot be done: no JSON, no text, a text over the model's limit, token ids, other dimensions", body = OpenAiError),
        (status = 404, description = "Another model", body = OpenAiError),
        (status = 413, description = "Too large a body", body = OpenAiError),
        (status = 500, description = "The model failed", body = OpenAiError),
        super::openapi::CommonOpenAi,
    ))]
pub(super) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    Extension(place): Extension<Place>,
    body: Bytes,
) -> Response {
    let bad = |message: String, param: Option<&'static str>| {
        refusal(Refusal::new(StatusCode::BAD_REQUEST, message), param.map(|param| (param, None)))
    };
    let request: EmbeddingsRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return bad(format!("the body is not what is expected: {error}"), None),
    };
    drop(body);
    let card = &shared.handles.model;
    if let Some(wanted) = &request.model
        && !is_named(&shared, wanted)
    {
        return no_such_model(&shared, wanted);
    }
    if let Err(message) = check_dimensions(request.dimensions, card.dimension) {
        return bad(message, Some("dimensions"));
    }
    if request.input.list.is_empty() || request.input.list.iter().any(String::is_empty) {
        return bad("'input' holds no text, or an empty one".to_owned(), Some("input"));
    }
    let model = request.model.unwrap_or_else(|| card.id.clone());
    let encoding = request.encoding_format.unwrap_or_default();
    let answer = move |embedded: Embedded| {
        let usage = Usage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens };
        let vectors = embedded.vectors.into_iter().enumerate();
        let data = vectors
            .map(|(index, vector)| Embedding { object: "embedding", index, embedding: encoded(vector, encoding) })
            .collect();
        json(StatusCode::OK, &EmbeddingsResponse { object: "list", data, model, usage })
    };
    match texts::embed(&shared, place, request.input.list, TooLong::Refuse, answer).await {
        Ok(answer) => answer,
        Err(NotEmbedded::Refused(EmbedRefusal::TooLong { index, tokens, limit })) => {
            let message = format!(
                "this model's maximum context length is {limit} tokens, input {index} has {tokens}; split it, so that \
                 nothing of it is lost"
            );
            refusal(Refusal::new(StatusCode::BAD_REQUEST, message), Some(("input", Some("context_length_exceeded"))))
        }
        Err(error @ NotEmbedded::TooMany { .. }) => bad(error.message(), Some("input")),
        Err(error) => refusal(error.refusal(), None),
    }
}

fn encoded(vector: Vec<f32>, encoding: Encoding) -> Vector {
    match encoding {
        Encoding::Float => Vector::Float(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
            Vector::Base64(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
    }
}

fn is_named(shared: &Shared, name: &str) -> bool {
    let card = &shared.handles.model;
    name.eq_ignore_ascii_case(&card.id) || name.eq_ignore_ascii_case(&card.name)
}

fn no_such_model(shared: &Shared, wanted: &str) -> Response {
    let card = &shared.handles.model;
    let message = format!("there is no model '{wanted}' here: the loaded one is '{}' ({})", card.id, card.name);
    refusal(Refusal::new(StatusCode::NOT_FOUND, message), Some(("model", Some("model_not_found"))))
}

fn the_model(shared: &Shared) -> Model {
    let card = &shared.handles.model;
    let owned_by = card.name.split_once('/').map_or("local", |(owner, _)| owner).to_owned();
    Model { id: card.id.clone(), object: "model", created: shared.started_us / 1_000_000, owned_by }
}

/// The loaded model.
#[utoipa::path(get, path = "/v1/models", operation_id = "openai_models", tag = "embeddings",
    responses((status = 200, description = "A list of one", body = Models), super::openapi::CommonOpenAi))]
pub(super) async fn models(State(shared): State<Arc<Shared>>) -> Response {
    json(StatusCode::OK, &Models { object: "list", data: vec![the_model(&shared)] })
}

/// The loaded model, asked for by its name.
#[utoipa::path(get, path = "/v1/models/{id}", operation_id = "openai_model", tag = "embeddings",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 404, description = "Another model", body = OpenAiError),
        super::openapi::CommonOpenAi,
    ))]
pub(super) async fn model(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    if !is_named(&shared, &id) {
        return no_such_model(&shared, &id);
    }
    json(StatusCode::OK, &the_model(&shared))
}

/// A refusal in OpenAI's shape, with the parameter it is about and a code where its clients know one.
pub(super) fn refusal(refusal: Refusal, about: Option<(&str, Option<&str>)>) -> Response {
    let kind = match refusal.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = match refusal.status.as_u16() {
        401 => Some("invalid_api_key"),
        429 => Some("rate_limit_exceeded"),
        _ => about.and_then(|(_, code)| code),
    };
    let message = match refusal.body.hint {
        Some(hint) => format!("{}; {hint}", refusal.body.error),
        None => refusal.body.error,
    };
    let error = OpenAiErrorBody {
        message,
        kind: kind.to_owned(),
        param: about.map(|(param, _)| param.to_owned()),
        code: code.map(str::to_owned),
    };
    (refusal.status, Json(OpenAiError { error })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_of_little_endian_floats() {
        let Vector::Base64(text) = encoded(vec![1.0, -2.5], Encoding::Base64) else { panic!("not encoded") };
        assert_eq!(text, "AACAPwAAIMA=");
        assert!(matches!(encoded(vec![1.0], Encoding::Float), Vector::Float(_)));
    }
}
