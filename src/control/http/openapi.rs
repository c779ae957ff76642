//! GET /openapi.json: the listener's routes for programs that make clients, from the annotations on handlers and
//! protocol types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response as Documented, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::embed::EmbedError;
use super::openai::OpenAiError;
use crate::control::protocol::ErrorResponse;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "alexandria-ingestd",
        description = "Embeddings by the model that this service holds, search in the library that it indexes, its status. \
                       Nothing here changes anything.",
        license(name = "GPL-3.0-or-later", identifier = "GPL-3.0-or-later")
    ),
    paths(
        super::embed::embed,
        super::openai::embeddings,
        super::openai::models,
        super::openai::model,
        super::views::search,
        super::views::search_by_body,
        super::views::status,
        super::views::history,
        super::views::healthz,
        super::views::readyz,
        super::metrics::metrics,
        super::page::page,
    ),
    components(schemas(EmbedError, OpenAiError, ErrorResponse)),
    modifiers(&Bearer),
    security((), ("bearer" = [])),
    tags(
        (name = "embeddings", description = "Texts to vectors"),
        (name = "library", description = "What is in the books"),
        (name = "service", description = "How the service is")
    )
)]
struct Document;

/// The token, where one is configured.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of http.token_file, where one is configured."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// What every route may answer, with errors in this shape.
fn common(schema: &str, statuses: &[(&str, &str)]) -> BTreeMap<String, RefOr<Documented>> {
    let answer = |description: &str| {
        let content = Content::new(Some(Ref::from_schema_name(schema)));
        RefOr::T(ResponseBuilder::new().description(description).content("application/json", content).build())
    };
    statuses.iter().map(|(status, description)| ((*status).to_owned(), answer(description))).collect()
}

const UNAUTHORIZED: (&str, &str) = ("401", "The token is missing or wrong");
const FORBIDDEN: (&str, &str) = ("403", "Asked by a name that is not this machine's, where no token is configured");
const TIMEOUT: (&str, &str) = ("408", "The body did not arrive in time");
const MEDIA: (&str, &str) = ("415", "The body is not said to be JSON");
const OVERLOADED: (&str, &str) = ("429", "Too many requests are in work");
const UNAVAILABLE: (&str, &str) = ("503", "Not now: stopping, no room, or not done in time");

/// Of POST /embed.
pub(super) struct Common;

impl IntoResponses for Common {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        common("EmbedError", &[UNAUTHORIZED, FORBIDDEN, TIMEOUT, MEDIA, OVERLOADED, UNAVAILABLE])
    }
}

/// Of what is OpenAI's.
pub(super) struct CommonOpenAi;

impl IntoResponses for CommonOpenAi {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        common("OpenAiError", &[UNAUTHORIZED, FORBIDDEN, TIMEOUT, MEDIA, OVERLOADED, UNAVAILABLE])
    }
}

/// Of all others.
pub(super) struct CommonPlain;

impl IntoResponses for CommonPlain {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        common("ErrorResponse", &[UNAUTHORIZED, FORBIDDEN, TIMEOUT, MEDIA, OVERLOADED, UNAVAILABLE])
    }
}

/// Of /readyz, which says 503 in its own way.
pub(super) struct CommonNo503;

impl IntoResponses for CommonNo503 {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        common("ErrorResponse", &[UNAUTHORIZED, FORBIDDEN, OVERLOADED])
    }
}

/// The document as it is sent. It is made from constants, so it is made once.
static TEXT: LazyLock<String> = LazyLock::new(|| match Document::openapi().to_pretty_json() {
    Ok(text) => text,
    Err(error) => format!("{{\"error\": \"{error}\"}}"),
});

pub(super) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], TEXT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_no_control_verb_is() {
        let document: serde_json::Value = serde_json::from_str(&TEXT).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let paths: Vec<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = vec![
            "/",
            "/embed",
            "/healthz",
            "/history",
            "/metrics",
            "/readyz",
            "/search",
            "/status",
            "/v1/embeddings",
            "/v1/models",
            "/v1/models/{id}",
        ];
        expected.sort_unstable();
        let mut found = paths.clone();
        found.sort_unstable();
        assert_eq!(found, expected);
        assert!(document["components"]["schemas"]["StatusSnapshot"].is_object());
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    }
}
