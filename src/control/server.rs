//! The control server: HTTP/JSON on a Unix socket. It answers from the handles the daemon gives it, and does nothing
//! by itself. Handles may block, so each runs on a blocking thread, never on the runtime's workers.

use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::channel::Channel;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{
    AuditReport, DoneResponse, ErrorResponse, FailedResponse, JobKind, JobState, JobsResponse, ListRequest, PROTOCOL,
    PROTOCOL_HEADER, PausedResponse, RescanRequest, RetryRequest, RetryResponse, SearchHit, SearchRequest,
    SearchResponse, StatusSnapshot, TargetRequest, VerifyRequest,
};
use crate::clock::now_us;
use crate::queue::{Queue, QueueError, QueueHandle, QueueStopped};

/// Longest request body, in bytes.
const BODY_LIMIT: usize = 1 << 20;
/// Most jobs or hits in one answer.
const MOST_ROWS: usize = 1000;
/// How long open requests may take to end at shutdown.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Linux keeps a socket's path in 108 bytes with a zero at the end.
const LONGEST_PATH: usize = 107;

const VERBS: &str = "GET /status, GET /queue, GET /failed, GET /search?q=TEXT, GET /backup, POST /retry, POST /rescan, POST /approve, \
                     POST /ingest, POST /remove, POST /pause, POST /resume, POST /verify";

/// What the daemon lets the server use.
#[derive(Clone)]
pub struct ControlHandles {
    pub queue: QueueHandle,
    /// The snapshot; the server fills in `queue` and `paused`.
    pub status: Arc<dyn Fn() -> StatusSnapshot + Send + Sync>,
    /// Asks for a look at the library; true: a full comparison.
    pub rescan: Arc<dyn Fn(bool) + Send + Sync>,
    /// Lets removals go that were held back for being too many at once; answers with how many.
    pub approve: Arc<dyn Fn() -> usize + Send + Sync>,
    /// Takes in a path that is no known book's; answers with what was done.
    pub ingest_path: Arc<dyn Fn(String, bool) -> Result<String, String> + Send + Sync>,
    pub search: Arc<dyn Fn(SearchRequest) -> Result<Vec<SearchHit>, String> + Send + Sync>,
    /// Compares library, state and store; true: repairs what it finds.
    pub verify: Arc<dyn Fn(bool) -> Result<AuditReport, String> + Send + Sync>,
    /// A copy of the state at this moment, open for reading.
    pub backup: Arc<dyn Fn() -> Result<File, String> + Send + Sync>,
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "the control socket {} is in use: another service answers on it; stop that one, or set another control.socket",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("{} is in the way of the control socket and is no socket; move it away, or set another control.socket", path.display())]
    NotASocket { path: PathBuf },
    #[error(
        "the control socket's path {} has {} bytes, Linux allows {LONGEST_PATH}; set a shorter control.socket",
        path.display(),
        path.as_os_str().len()
    )]
    PathTooLong { path: PathBuf },
    #[error("the control socket {}: {source}; check the directory and its permissions", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// A bound socket that does not answer yet.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlServer {
    /// Binds the socket, mode 0660. A socket file that nobody answers on is left over from a crash and replaced.
    ///
    /// # Errors
    /// [`ControlError`]; nothing that is in use, or is no socket, is ever removed.
    pub fn bind(path: &Path) -> Result<ControlServer, ControlError> {
        let owned = || path.to_owned();
        let io = |source| ControlError::Io { path: owned(), source };
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(ControlError::PathTooLong { path: owned() });
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotASocket { path: owned() }),
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(ControlError::InUse { path: owned() }),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(io)?;
                }
                Err(error) => return Err(io(error)),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(io)?;
                }
            }
            Err(error) => return Err(io(error)),
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        Ok(ControlServer { listener, path: owned() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until `shutdown` resolves; requests in hand then have a few seconds to end. Removes the socket.
    ///
    /// # Errors
    /// Where the runtime cannot take the socket.
    pub async fn serve(
        self,
        handles: ControlHandles,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ControlError> {
        let io = |source| ControlError::Io { path: self.path.clone(), source };
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone().map_err(io)?).map_err(io)?;
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let graceful = async move {
            shutdown.await;
            // The receiver may be gone already where serving ended by itself.
            let _ = stopping.send(());
        };
        let serving = axum::serve(listener, router(handles)).with_graceful_shutdown(graceful);
        let too_long = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(LAST_REQUESTS).await,
                Err(_) => std::future::pending().await,
            }
        };
        let served = tokio::select! {
            served = serving => served.map_err(io),
            () = too_long => Ok(()),
        };
        // Another service cannot have taken the path: it would have found this one answering.
        let _ = std::fs::remove_file(&self.path);
        served
    }
}

/// The verbs. Public so that the daemon can offer some of them elsewhere later.
fn router(handles: ControlHandles) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/queue", get(queue))
        .route("/failed", get(failed))
        .route("/search", get(search))
        .route("/backup", get(backup))
        .route("/verify", post(verify))
        .route("/retry", post(retry))
        .route("/rescan", post(rescan))
        .route("/approve", post(approve))
        .route("/ingest", post(ingest))
        .route("/remove", post(remove))
        .route("/pause", post(|state: State<ControlHandles>| set_paused(state, true)))
        .route("/resume", post(|state: State<ControlHandles>| set_paused(state, false)))
        .fallback(|uri: axum::http::Uri| async move {
            Refusal::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
                .hint(format!("there are {VERBS}"))
        })
        .method_not_allowed_fallback(|method: axum::http::Method, uri: axum::http::Uri| async move {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
                .hint(format!("there are {VERBS}"))
        })
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(handles)
}

async fn status(State(handles): State<ControlHandles>) -> Answer<StatusSnapshot> {
    blocking(move || {
        let mut snapshot = (handles.status)();
        let stats = on_queue(&handles.queue, |queue| queue.stats())?;
        snapshot.queue = stats;
        snapshot.paused = stats.paused;
        Ok(snapshot)
    })
    .await
}

async fn queue(
    State(handles): State<ControlHandles>,
    request: Result<Query<ListRequest>, QueryRejection>,
) -> Answer<JobsResponse> {
    let request = query(request)?;
    list(handles, request.state, request.limit).await
}

async fn failed(
    State(handles): State<ControlHandles>,
    request: Result<Query<ListRequest>, QueryRejection>,
) -> Answer<FailedResponse> {
    let limit = most(query(request)?.limit);
    blocking(move || {
        let mut unreadable = (handles.status)().library.passed_over;
        // A book without any file is no trouble: some catalogues list books on paper.
        unreadable.retain(|book| !book.formats.is_empty());
        let unreadable_total = unreadable.len() as u64;
        unreadable.truncate(limit);
        on_queue(&handles.queue, move |queue| {
            let stats = queue.stats()?;
            Ok(FailedResponse {
                jobs: queue.parked(limit)?,
                total: stats.parked,
                unreadable,
                unreadable_total,
                fallbacks: queue.fallbacks(limit)?,
                fallbacks_total: stats.fallbacks,
            })
        })
    })
    .await
}

/// How many rows a list may have.
fn most(limit: Option<usize>) -> usize {
    limit.unwrap_or(50).min(MOST_ROWS)
}

async fn list(handles: ControlHandles, state: Option<JobState>, limit: Option<usize>) -> Answer<JobsResponse> {
    let limit = most(limit);
    blocking(move || {
        on_queue(&handles.queue, move |queue| {
            let stats = queue.stats()?;
            let total = match state {
                None => stats.queued + stats.waiting + stats.running,
                Some(JobState::Queued) => stats.queued + stats.waiting,
                Some(JobState::Running) => stats.running,
                Some(JobState::Parked) => stats.parked,
                Some(JobState::Done) => stats.history,
            };
            Ok(JobsResponse { jobs: queue.list(state, limit)?, total })
        })
    })
    .await
}

async fn retry(State(handles): State<ControlHandles>, request: Result<Bytes, BytesRejection>) -> Answer<RetryResponse> {
    let request: RetryRequest = body(request)?;
    blocking(move || {
        let retried = on_queue(&handles.queue, move |queue| queue.retry(request.book.as_deref()))?;
        Ok(RetryResponse { retried })
    })
    .await
}

async fn approve(State(handles): State<ControlHandles>) -> Answer<DoneResponse> {
    blocking(move || {
        let message = match (handles.approve)() {
            0 => "no removals wait".to_owned(),
            1 => "1 book that is gone from the library leaves the index".to_owned(),
            count => format!("{count} books that are gone from the library leave the index"),
        };
        Ok(DoneResponse { message, job: None })
    })
    .await
}

async fn rescan(State(handles): State<ControlHandles>, request: Result<Bytes, BytesRejection>) -> Answer<DoneResponse> {
    let RescanRequest { full } = body(request)?;
    blocking(move || {
        (handles.rescan)(full);
        let how = if full { "compared in full" } else { "looked at" };
        Ok(DoneResponse { message: format!("the library is being {how}"), job: None })
    })
    .await
}

async fn ingest(State(handles): State<ControlHandles>, request: Result<Bytes, BytesRejection>) -> Answer<DoneResponse> {
    let request: TargetRequest = body(request)?;
    let path = Path::new(&request.target).is_absolute().then(|| request.target.clone());
    let force = request.force;
    blocking(move || match by_hand(&handles.queue, request, JobKind::Ingest) {
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND && path.is_some() => {
            let message = (handles.ingest_path)(path.unwrap_or_default(), force).map_err(|error| {
                Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error).hint(
                    "the service must be able to read it: it has its own user, and its own view of /tmp and /home",
                )
            })?;
            Ok(DoneResponse { message, job: None })
        }
        answer => answer,
    })
    .await
}

async fn remove(State(handles): State<ControlHandles>, request: Result<Bytes, BytesRejection>) -> Answer<DoneResponse> {
    let request: TargetRequest = body(request)?;
    blocking(move || by_hand(&handles.queue, request, JobKind::Remove)).await
}

async fn set_paused(State(handles): State<ControlHandles>, paused: bool) -> Answer<PausedResponse> {
    blocking(move || {
        on_queue(&handles.queue, move |queue| queue.set_paused(paused))?;
        Ok(PausedResponse { paused })
    })
    .await
}

async fn search(
    State(handles): State<ControlHandles>,
    request: Result<Query<SearchRequest>, QueryRejection>,
) -> Answer<SearchResponse> {
    let mut request = query(request)?;
    if request.q.trim().is_empty() {
        return Err(
            Refusal::new(StatusCode::BAD_REQUEST, "the query is empty").hint("say what to look for: /search?q=TEXT")
        );
    }
    request.limit = request.limit.clamp(1, MOST_ROWS);
    blocking(move || {
        let query = request.q.clone();
        let hits = (handles.search)(request).map_err(|error| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
                .hint("`alexandriactl status` says which part is not well")
        })?;
        Ok(SearchResponse { query, hits })
    })
    .await
}

async fn verify(State(handles): State<ControlHandles>, request: Result<Bytes, BytesRejection>) -> Answer<AuditReport> {
    let VerifyRequest { repair } = body(request)?;
    blocking(move || {
        (handles.verify)(repair).map_err(|error| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
                .hint("`alexandriactl status` says which part is not well")
        })
    })
    .await
}

/// The state as a file, in pieces: neither side ever holds it whole.
async fn backup(State(handles): State<ControlHandles>) -> Result<Response, Refusal> {
    const PIECE: usize = 64 << 10;
    let made = blocking(move || {
        let refuse = |error: String| {
            Refusal::new(StatusCode::INSUFFICIENT_STORAGE, error)
                .hint("the copy is made beside the state first, and needs as much room there as the state has")
        };
        let file = (handles.backup)().map_err(refuse)?;
        let size = file.metadata().map_err(|error| refuse(error.to_string()))?.len();
        Ok((file, size))
    });
    let Success((mut file, size)) = made.await?;
    let (mut sender, channel) = Channel::<Bytes, std::io::Error>::new(4);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = vec![0; PIECE];
            let sent = match file.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    runtime.block_on(sender.send_data(piece.into()))
                }
                Err(error) => {
                    sender.abort(error);
                    return;
                }
            };
            if sent.is_err() {
                // The client has gone away.
                return;
            }
        }
    });
    let headers = [
        (HeaderName::from_static("content-type"), HeaderValue::from_static("application/vnd.sqlite3")),
        (HeaderName::from_static("content-length"), HeaderValue::from(size)),
        (HeaderName::from_static(PROTOCOL_HEADER), HeaderValue::from(PROTOCOL)),
    ];
    Ok((headers, Body::new(channel)).into_response())
}

/// Puts one book at the front of the queue. A number that several libraries have means the watched one's book.
fn by_hand(handle: &QueueHandle, request: TargetRequest, kind: JobKind) -> Result<DoneResponse, Refusal> {
    let target = request.target.clone();
    let found = on_queue(handle, move |queue| {
        let mut found = match (kind, Path::new(&request.target)) {
            (JobKind::Ingest, path) if path.is_absolute() => queue.find_shelved(path)?.into_iter().collect(),
            _ => queue.find_book(&request.target)?,
        };
        if found.len() > 1
            && let Some(watched) = queue.watched_library()?
            && found.iter().any(|record| record.book.library_uuid == watched)
        {
            found.retain(|record| record.book.library_uuid == watched);
        }
        let [record] = found.as_slice() else { return Ok(Err(found)) };
        let book = &record.book;
        let job = queue.enqueue_by_hand(book.library_uuid, book.uuid, kind, request.force, now_us())?;
        Ok(Ok((job, book.metadata.title.clone())))
    })?;
    match found {
        Ok((job, title)) => {
            let message = match kind {
                JobKind::Ingest => format!("'{title}' is at the front of the queue"),
                JobKind::Remove => {
                    format!("'{title}' will be taken out of the store, and stays out until it is ingested by hand")
                }
            };
            Ok(DoneResponse { message, job: Some(job) })
        }
        Err(several) if several.is_empty() => Err(QueueError::NoSuchBook(target).into()),
        Err(several) => {
            let uuids: Vec<_> = several.iter().map(|record| record.book.uuid.to_string()).collect();
            Err(Refusal::new(StatusCode::CONFLICT, format!("'{target}' names {} books", several.len()))
                .hint(format!("give one of their uuids: {}", uuids.join(", "))))
        }
    }
}

type Answer<T> = Result<Success<T>, Refusal>;

struct Success<T>(T);

impl<T: Serialize> IntoResponse for Success<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// An answer that is not a success.
struct Refusal {
    status: StatusCode,
    body: ErrorResponse,
}

impl Refusal {
    fn new(status: StatusCode, error: impl ToString) -> Self {
        Self { status, body: ErrorResponse { error: error.to_string(), hint: None } }
    }

    fn hint(mut self, hint: impl ToString) -> Self {
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
fn json(status: StatusCode, value: &impl Serialize) -> Response {
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
fn body<T: DeserializeOwned>(bytes: Result<Bytes, BytesRejection>) -> Result<T, Refusal> {
    let bytes = bytes.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
    serde_json::from_slice(text).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the request's body is not what is expected: {error}"))
    })
}

fn query<T>(request: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    request
        .map(|Query(request)| request)
        .map_err(|rejection| Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text()))
}

fn on_queue<R: Send + 'static>(
    handle: &QueueHandle,
    request: impl FnOnce(&mut Queue) -> Result<R, QueueError> + Send + 'static,
) -> Result<R, Refusal> {
    Ok(handle.call(request)??)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map(Success),
        Err(_) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request panicked; this is a bug")
            .hint("the log has the details: journalctl -u alexandria-ingestd")),
    }
}
