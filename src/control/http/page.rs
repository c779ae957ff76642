//! GET /: the status page, one file with its style and script inside. It holds no data itself: it asks /status, /history
//! and /search, with the token that the person types in. Nothing but its own style and script may run or load.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// What the browser may do for this page: run its one script, use its one style, ask this server.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let [style, script] = [("<style>", "</style>"), ("<script>", "</script>")].map(|(open, close)| {
        let inside =
            PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(inside, _)| inside);
        base64::engine::general_purpose::STANDARD.encode(Sha256::digest(inside))
    });
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The status page, for people.
#[utoipa::path(get, path = "/", operation_id = "page", tag = "service", security(()),
    responses((status = 200, description = "The status page", body = String, content_type = "text/html")))]
pub(super) async fn page() -> Response {
    let mut answer = PAGE.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_and_one_script_and_nothing_from_elsewhere() {
        for tag in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(tag).count(), 1, "{tag}");
        }
        assert_eq!(PAGE.matches("<script").count(), 1);
        for dangerous in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick="]
        {
            assert!(!PAGE.contains(dangerous), "{dangerous}");
        }
        let addresses = PAGE.matches("http").count() - PAGE.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(addresses, PAGE.matches("http.token_file").count(), "an address outside of this server");
        assert!(POLICY.starts_with("default-src 'none'") && !POLICY.contains("unsafe"), "{}", *POLICY);
    }
}
