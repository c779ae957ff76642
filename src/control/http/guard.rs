//! Who may ask, how many at once, and how long: the token, the host's name, the gate. Must never say how near a wrong
//! token was.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::render;
use crate::control::answer::Refusal;
use crate::control::intake::waste;

/// What is answered to everybody: whether the process lives, and the page, which holds no data.
const OPEN: [&str; 2] = ["/healthz", "/"];

/// What takes a body.
const TAKES_BODIES: [&str; 3] = ["/embed", "/v1/embeddings", "/search"];

/// Ends of names that no stranger can own, so that no page of theirs can be made to point here.
const OWN_NAMES: [&str; 7] = [".localhost", ".local", ".lan", ".home", ".home.arpa", ".internal", ".intranet"];

/// Bytes of a refused request's body that are read, so that its sender comes to read the refusal.
const MOST_WASTED: usize = 8 << 20;

/// Checks requests before anything is read of their bodies.
#[derive(Clone)]
pub(super) struct Guard {
    /// Of the token: hashes have one length, so that comparing them takes one time.
    token: Option<[u8; 32]>,
    hostname: Arc<str>,
}

impl Guard {
    pub fn new(token: Option<&str>) -> Self {
        // Where the kernel does not say, addresses and plain names are left.
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self { token: token.map(|token| Sha256::digest(token).into()), hostname: hostname.trim().to_lowercase().into() }
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        match &self.token {
            // Without a token, a page of anybody's could read the books through the browser of somebody in this
            // network, by letting its own name point to this machine (DNS rebinding).
            None => {
                let host = header(header::HOST).unwrap_or_default();
                if !is_own_name(host, &self.hostname) {
                    return Err(Refusal::new(StatusCode::FORBIDDEN, format!("this service is not known as '{host}'"))
                        .hint("ask it by its address, or configure a token (http.token_file): then any name will do"));
                }
            }
            Some(token) if !OPEN.contains(&request.uri().path()) => {
                let given = header(header::AUTHORIZATION).and_then(bearer);
                let given: [u8; 32] = Sha256::digest(given.unwrap_or_default()).into();
                if !bool::from(given.ct_eq(token)) {
                    return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the token is missing or wrong")
                        .hint("send the header 'Authorization: Bearer TOKEN', with the token of http.token_file"));
                }
            }
            Some(_) => {}
        }
        let is_json = || header(header::CONTENT_TYPE).is_some_and(is_json);
        // A browser sends another site's form as it is, but asks first before it sends that site's JSON.
        if request.method() == Method::POST && TAKES_BODIES.contains(&request.uri().path()) && !is_json() {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be JSON")
                .hint("send the header 'Content-Type: application/json'"));
        }
        Ok(())
    }
}

/// The token of `Bearer TOKEN`; the scheme's name in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Whether a `Host` header names this machine in a way that a stranger's domain cannot.
fn is_own_name(host: &str, hostname: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_lowercase();
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || name == hostname
        || OWN_NAMES.iter().any(|end| name.ends_with(end))
}

/// Middleware: hands on what may ask, and adds what every answer must carry.
pub(super) async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut answer = match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            waste(request.into_body(), MOST_WASTED).await;
            let mut answer = render(&uri, refusal);
            if answer.status() == StatusCode::UNAUTHORIZED {
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // A body may follow that nobody will read.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        }
    };
    let headers = answer.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

/// Lets so many requests in at once, each for so long.
#[derive(Clone)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Gate {
    pub fn new(places: usize, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), patience }
    }
}

/// A place in the gate. Work that outlives its request's future holds it on.
#[derive(Clone)]
pub(super) struct Place(#[allow(dead_code, reason = "held, not read")] Arc<tokio::sync::OwnedSemaphorePermit>);

/// Middleware: one more is told to come back, at once; one that takes too long is given up.
pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let refuse = |status, text: String, hint: &str| {
        let mut answer = render(&uri, Refusal::new(status, text).hint(hint));
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    };
    let Ok(place) = gate.places.clone().try_acquire_owned() else {
        let text = "too many requests are in work".to_owned();
        return refuse(StatusCode::TOO_MANY_REQUESTS, text, "try again in a moment (http.max_requests is the limit)");
    };
    request.extensions_mut().insert(Place(Arc::new(place)));
    match tokio::time::timeout(gate.patience, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let text = format!("the request was not done within {} s and is given up", gate.patience.as_secs_f64());
            refuse(StatusCode::SERVICE_UNAVAILABLE, text, "send less in one request, or raise http.timeout_seconds")
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn the_token_opens_and_nothing_like_it_does() {
        let guard = Guard::new(Some("correct horse"));
        let status = |path, authorization: &str| {
            guard.check(&request(path, &[("authorization", authorization)])).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!(status("/status", "Bearer correct horse"), Ok(()));
        assert_eq!(status("/status", "bearer  correct horse "), Ok(()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "correct horse",
            "Basic correct horse",
            "Bearer correct hors",
            "Bearer correct horse2",
        ] {
            assert_eq!(status("/status", wrong), Err(401), "{wrong:?}");
            assert_eq!(status("/metrics", wrong), Err(401), "{wrong:?}");
            assert_eq!(status("/healthz", wrong), Ok(()));
            assert_eq!(status("/", wrong), Ok(()));
            assert_eq!(status("//healthz", wrong), Err(401));
        }
        assert!(guard.check(&request("/status", &[])).is_err());
    }

    #[test]
    fn without_a_token_only_own_names_are_answered() {
        for own in [
            "",
            "127.0.0.1:8765",
            "[::1]:8765",
            "[fe80::1]",
            "localhost:1",
            "gpu",
            "gpu.lan:8765",
            "GPU.Home.Arpa.",
            "books.example.org:80",
        ] {
            assert!(is_own_name(own, "books.example.org"), "{own}");
        }
        for strange in
            ["evil.com", "evil.com:8765", "books.example.com", "127.0.0.1.evil.com", "localhost.evil.com", "[evil.com]"]
        {
            assert!(!is_own_name(strange, "books.example.org"), "{strange}");
        }
        let guard = Guard::new(None);
        assert_eq!(guard.check(&request("/status", &[("host", "evil.com")])).unwrap_err().status, 403);
        assert!(
            Guard::new(Some("x"))
                .check(&request("/status", &[("host", "evil.com"), ("authorization", "Bearer x")]))
                .is_ok()
        );
    }

    #[test]
    fn a_form_of_another_site_is_not_taken() {
        for (kind, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("application/jsonp", false),
        ] {
            let mut post = request("/embed", &[("content-type", kind)]);
            *post.method_mut() = Method::POST;
            assert_eq!(Guard::new(None).check(&post).is_ok(), taken, "{kind}");
        }
    }
}
