//! The listener for other machines: embeddings, search, status and metrics over TCP, off by default. It has a runtime of
//! its own, so that nothing that happens here delays the control socket. Must never offer a verb that changes something.

mod embed;
mod guard;
mod metrics;
mod openai;
mod openapi;
mod page;
mod texts;
mod views;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use axum::{Router, middleware};

use super::answer::Refusal;
use super::connections::{self, ConnectionLimits};
use super::intake::{Intake, take_in};
use super::server::ControlHandles;
use guard::{Gate, Guard};
use metrics::Metrics;

/// Longest wait for a request's head, and between two requests of one connection.
const HEAD: Duration = Duration::from_secs(10);
/// Bodies of the largest size that there is room for at once.
const BODIES: usize = 16;
/// How long open requests may take to end at shutdown.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Requests in work at once that embed nothing: an overload of the others leaves the eyes open.
const VIEWS: usize = 32;

const ROUTES: &str = "POST /embed, POST /v1/embeddings, GET /v1/models, GET /search?q=TEXT, GET /status, GET /history, \
                      GET /metrics, GET /healthz, GET /readyz, GET /openapi.json; what changes something is done on the \
                      server itself, with alexandriactl";

/// How the listener is to be.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// What requests must carry; None: nothing.
    pub token: Option<String>,
    /// Texts of one request, and bytes of its body.
    pub max_texts: usize,
    pub max_body: usize,
    /// Requests in work at once.
    pub max_requests: usize,
    pub max_connections: usize,
    /// For a client to send its request, and for a request until its answer.
    pub timeout: Duration,
}

/// What is known of the model that embeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// `bge-m3`, and `BAAI/bge-m3`.
    pub id: String,
    pub name: String,
    pub dimension: usize,
    /// Tokens a text may have, special tokens included.
    pub max_tokens: usize,
}

/// What to do with a text over the model's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    Refuse,
    /// Its end is cut off, or its start.
    CutEnd,
    CutStart,
}

/// Texts to be embedded.
#[derive(Debug, Clone)]
pub struct EmbedTask {
    pub texts: Vec<String>,
    pub too_long: TooLong,
    /// Set when nobody waits for the answer any more.
    pub abandoned: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// A unit vector for each text.
    pub vectors: Vec<Vec<f32>>,
    /// Of all texts together, as the model saw them, special tokens included.
    pub tokens: usize,
}

/// Why texts are not embedded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedRefusal {
    #[error("text {index} has {tokens} tokens, the model takes at most {limit}")]
    TooLong { index: usize, tokens: usize, limit: usize },
    /// The service is stopping, or the device has no room now.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Failed(String),
}

/// What the daemon lets the listener use.
#[derive(Clone)]
pub struct HttpHandles {
    pub control: ControlHandles,
    pub model: ModelCard,
    pub embed: Arc<dyn Fn(EmbedTask) -> Result<Embedded, EmbedRefusal> + Send + Sync>,
}

/// What the routes share.
pub(super) struct Shared {
    handles: HttpHandles,
    settings: HttpSettings,
    metrics: Metrics,
    started_us: i64,
}

/// A bound listener that does not answer yet.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    settings: HttpSettings,
}

/// A listener at work. It ends when this is dropped.
pub struct RunningHttp {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// # Errors
    /// An address that cannot be had.
    pub fn bind(settings: HttpSettings) -> io::Result<HttpServer> {
        let listener = TcpListener::bind(settings.listen)?;
        listener.set_nonblocking(true)?;
        Ok(HttpServer { address: listener.local_addr()?, listener, settings })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to answer, on threads of its own.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn start(self, handles: HttpHandles) -> io::Result<RunningHttp> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("http")
            // Each request in work holds one such thread at most.
            .max_blocking_threads(self.settings.max_requests + VIEWS + 2)
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let settings = self.settings;
        let limits = ConnectionLimits {
            connections: settings.max_connections,
            connections_of_one: settings.max_connections.div_ceil(2).max(1),
            head: HEAD.min(settings.timeout),
            write: settings.timeout,
            last_requests: LAST_REQUESTS,
        };
        let router = router(handles, settings);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("http-listener".into()).spawn(move || {
            runtime.block_on(connections::serve(listener, router, limits, async move {
                // A dropped sender is a stop, too.
                let _ = stopped.await;
            }));
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        Ok(RunningHttp { stop: Some(stop), thread: Some(thread) })
    }
}

impl RunningHttp {
    /// No more requests are taken; those in work have a few seconds.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been logged, and is no reason to stop the end.
            let _ = thread.join();
        }
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for RunningHttp {
    fn drop(&mut self) {
        self.stop();
    }
}

fn router(handles: HttpHandles, settings: HttpSettings) -> Router {
    let patience = settings.timeout;
    let intake = Intake::new(settings.max_body, BODIES, patience, render);
    let embedding = Gate::new(settings.max_requests, patience);
    let viewing = Gate::new(VIEWS, patience);
    let guard = Guard::new(settings.token.as_deref());
    let shared = Arc::new(Shared { handles, settings, metrics: Metrics::new(), started_us: crate::clock::now_us() });
    let embeds = Router::new()
        .route("/embed", post(embed::embed))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/search", get(views::search).post(views::search_by_body))
        .layer(middleware::from_fn_with_state(embedding, guard::pass))
        // Outside the gate: a body that comes slowly holds nobody's place.
        .layer(middleware::from_fn_with_state(intake, take_in));
    let views = Router::new()
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/status", get(views::status))
        .route("/history", get(views::history))
        .route("/readyz", get(views::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .layer(middleware::from_fn_with_state(viewing, guard::pass));
    let open = Router::new().route("/healthz", get(views::healthz)).route("/", get(page::page));
    Router::new()
        .merge(embeds)
        .merge(views)
        .merge(open)
        .fallback(|uri: Uri| async move {
            let refusal = Refusal::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()));
            render(&uri, refusal.hint(format!("there are {ROUTES}")))
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let text = format!("{} does not take {method}", uri.path());
            render(&uri, Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text).hint(format!("there are {ROUTES}")))
        })
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(guard, guard::admit))
        .layer(middleware::from_fn_with_state(shared.clone(), metrics::measure))
        .with_state(shared)
}

/// A refusal in the shape that the route's clients know.
pub(super) fn render(uri: &Uri, refusal: Refusal) -> axum::response::Response {
    match uri.path() {
        path if path.starts_with("/v1/") => openai::refusal(refusal, None),
        "/embed" => embed::refusal(refusal, None),
        _ => axum::response::IntoResponse::into_response(refusal),
    }
}
