//! The control server: HTTP/JSON on a Unix socket. It answers from the handles the daemon gives it, and does nothing
//! by itself. Handles may block, so each runs on a blocking thread, never on the runtime's workers.

use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use http_body_util::channel::Channel;

use super::answer::{Answer, Refusal, Success, blocking, body, on_queue, query};
use super::connections::{self, ConnectionLimits};
use super::intake::{Intake, take_in};
use super::peer::{Peer, act};
use super::protocol::{
    AuditReport, DoneResponse, FailedResponse, HistoryResponse, JobKind, JobState, JobsResponse, ListRequest, PROTOCOL,
    PROTOCOL_HEADER, PausedResponse, ReindexRequest, Report, ReportRequest, RescanRequest, RetryRequest, RetryResponse,
    SearchRequest, SearchResponse, StatusRequest, StatusSnapshot, TargetRequest, VerifyRequest,
};
pub use super::socket::ControlError;
use super::socket::ControlSocket;
use crate::clock::now_us;
use crate::queue::{QueueError, QueueHandle};

/// Longest request body, in bytes, and how many of them at once.
const BODY_LIMIT: usize = 1 << 20;
const BODIES: usize = 16;
/// For a request's body.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// Most jobs or hits in one answer.
pub(super) const MOST_ROWS: usize = 1000;
/// How long the status waits for the queue's numbers.
const QUEUE_PATIENCE: Duration = Duration::from_millis(30);
/// And how long it does where numbers of a moment ago are of no use.
const FRESH_PATIENCE: Duration = Duration::from_secs(30);
/// How long open requests may take to end at shutdown.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 128,
    connections_of_one: 64,
    head: Duration::from_secs(10),
    write: Duration::from_secs(30),
    last_requests: LAST_REQUESTS,
};

const VERBS: &str = "GET /status, GET /history, GET /queue, GET /failed, GET /search?q=TEXT, GET /report, GET /backup, \
                     POST /retry, POST /rescan, POST /approve, POST /ingest, POST /remove, POST /pause, POST /resume, POST /verify, \
                     POST /reindex";

/// What the daemon lets the server use.
#[derive(Clone)]
pub struct ControlHandles {
    pub queue: QueueHandle,
    /// The snapshot; the server fills in `queue` and `paused` afresh, where the queue answers at once.
    pub status: Arc<dyn Fn() -> StatusSnapshot + Send + Sync>,
    /// Asks for a look at the library; true: a full comparison.
    pub rescan: Arc<dyn Fn(bool) + Send + Sync>,
    /// Lets removals go that were held back for being too many at once; answers with how many.
    pub approve: Arc<dyn Fn() -> usize + Send + Sync>,
    /// Takes in a path that is no known book's; answers with what was done.
    pub ingest_path: Arc<dyn Fn(String, bool) -> Result<String, String> + Send + Sync>,
    pub search: Arc<dyn Fn(SearchRequest) -> Result<SearchResponse, String> + Send + Sync>,
    /// Compares library, state and store; true: repairs what it finds.
    pub verify: Arc<dyn Fn(bool) -> Result<AuditReport, String> + Send + Sync>,
    /// Begins a reindex, changes how it may end, or gives it up; answers with what was done.
    pub reindex: Arc<dyn Fn(ReindexRequest) -> Result<String, String> + Send + Sync>,
    /// What was done, and what is in the store. Goes over the whole state.
    pub report: Arc<dyn Fn(ReportRequest) -> Result<Report, String> + Send + Sync>,
    /// A copy of the state at this moment, open for reading.
    pub backup: Arc<dyn Fn() -> Result<File, String> + Send + Sync>,
    /// What was done, minute by minute.
    pub history: Arc<dyn Fn() -> HistoryResponse + Send + Sync>,
}

/// A socket that does not answer yet.
#[derive(Debug)]
pub struct ControlServer {
    socket: ControlSocket,
}

impl ControlServer {
    /// The socket that systemd hands over, where it does; else one that is bound at `path`, for `group`.
    ///
    /// # Errors
    /// As [`ControlServer::bind`]; a socket from systemd that cannot be used.
    pub fn open(path: &Path, group: &str) -> Result<ControlServer, ControlError> {
        match ControlSocket::from_systemd()? {
            Some(socket) => Ok(ControlServer { socket }),
            None => ControlServer::bind(path, group),
        }
    }

    /// Binds the socket, mode 0660, for `group` where it is not empty. A socket file that nobody answers on is left over
    /// from a crash and replaced.
    ///
    /// # Errors
    /// [`ControlError`]; nothing that is in use, or is no socket, is ever removed.
    pub fn bind(path: &Path, group: &str) -> Result<ControlServer, ControlError> {
        Ok(ControlServer { socket: ControlSocket::bind(path, group)? })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.socket.path
    }

    /// Whether systemd made the socket.
    pub fn is_from_systemd(&self) -> bool {
        self.socket.systemd
    }

    /// Answers until `shutdown` resolves; requests in hand then have a few seconds to end. Removes the socket, unless it
    /// is systemd's.
    ///
    /// # Errors
    /// Where the runtime cannot take the socket.
    pub async fn serve(
        self,
        handles: ControlHandles,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ControlError> {
        let io = |source| ControlError::Io { path: self.socket.path.clone(), source };
        let listener = self.socket.listener.try_clone().map_err(io)?;
        let listener = tokio::net::UnixListener::from_std(listener).map_err(io)?;
        connections::serve(listener, router(handles), LIMITS, shutdown).await;
        self.socket.remove();
        Ok(())
    }
}

/// A client that speaks another protocol is refused before it can change anything.
async fn same_protocol(request: Request, next: Next) -> Response {
    let theirs = request.headers().get(PROTOCOL_HEADER);
    if theirs.is_some_and(|theirs| theirs.as_bytes() != PROTOCOL.to_string().as_bytes()) {
        let version = env!("CARGO_PKG_VERSION");
        let text =
            format!("this service (alexandria-ingestd {version}) speaks protocol {PROTOCOL}, the client another one");
        return Refusal::new(StatusCode::BAD_REQUEST, text)
            .hint("use the alexandriactl of the service's own version")
            .into_response();
    }
    let mut answer = next.run(request).await;
    let server = HeaderValue::from_static(concat!("alexandria-ingestd/", env!("CARGO_PKG_VERSION")));
    answer.headers_mut().insert("server", server);
    answer
}

fn render(_: &Uri, refusal: Refusal) -> Response {
    refusal.into_response()
}

/// The verbs.
fn router(handles: ControlHandles) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/history", get(history))
        .route("/queue", get(queue))
        .route("/failed", get(failed))
        .route("/search", get(search))
        .route("/report", get(report))
        .route("/backup", get(backup))
        .route("/verify", post(verify))
        .route("/reindex", post(reindex))
        .route("/retry", post(retry))
        .route("/rescan", post(rescan))
        .route("/approve", post(approve))
        .route("/ingest", post(ingest))
        .route("/remove", post(remove))
        .route("/pause", post(|state: State<ControlHandles>, peer: Extension<Peer>| set_paused(state, peer, true)))
        .route("/resume", post(|state: State<ControlHandles>, peer: Extension<Peer>| set_paused(state, peer, false)))
        .fallback(|uri: axum::http::Uri| async move {
            Refusal::new(StatusCode::NOT_FOUND, format!("there is no {}", uri.path()))
                .hint(format!("there are {VERBS}"))
        })
        .method_not_allowed_fallback(|method: axum::http::Method, uri: axum::http::Uri| async move {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
                .hint(format!("there are {VERBS}"))
        })
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Intake::new(BODY_LIMIT, BODIES, BODY_PATIENCE, render), take_in))
        .layer(middleware::from_fn(same_protocol))
        .with_state(handles)
}

async fn status(
    State(handles): State<ControlHandles>,
    request: Result<Query<StatusRequest>, QueryRejection>,
) -> Answer<StatusSnapshot> {
    let StatusRequest { fresh } = query(request)?;
    blocking(move || whole_status(&handles, fresh)).await
}

/// The daemon's snapshot with what the queue itself says. A queue that is busy with its disk does not hold it back, unless
/// the caller wants that: then the numbers are of a moment ago.
pub(super) fn whole_status(handles: &ControlHandles, fresh: bool) -> Result<StatusSnapshot, Refusal> {
    let mut snapshot = (handles.status)();
    snapshot.protocol = PROTOCOL;
    let patience = if fresh { FRESH_PATIENCE } else { QUEUE_PATIENCE };
    match handles.queue.call_within(patience, |queue| queue.stats())? {
        Some(stats) => {
            snapshot.queue = stats?;
            snapshot.paused = snapshot.queue.paused;
        }
        None if fresh => {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the queue does not answer")
                .hint("`alexandriactl status` without --fresh shows the numbers of before"));
        }
        None => {}
    }
    Ok(snapshot)
}

async fn history(State(handles): State<ControlHandles>) -> Answer<HistoryResponse> {
    blocking(move || Ok((handles.history)())).await
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
                total: stats.parked + stats.reindex_parked,
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
                None => stats.queued + stats.waiting + stats.running + stats.reindex_queued,
                Some(JobState::Queued) => stats.queued + stats.waiting,
                Some(JobState::Running) => stats.running,
                Some(JobState::Parked) => stats.parked + stats.reindex_parked,
                Some(JobState::Done) => stats.history,
            };
            Ok(JobsResponse { jobs: queue.list(state, limit)?, total })
        })
    })
    .await
}

async fn retry(
    State(handles): State<ControlHandles>,
    Extension(peer): Extension<Peer>,
    request: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let request: RetryRequest = body(request)?;
    let target = request.book.clone().unwrap_or_else(|| "of all failed books".to_owned());
    let work = move || {
        let retried = on_queue(&handles.queue, move |queue| queue.retry(request.book.as_deref()))?;
        Ok(RetryResponse { retried })
    };
    Ok(act(peer, "retry", target, work).await)
}

async fn approve(State(handles): State<ControlHandles>, Extension(peer): Extension<Peer>) -> Response {
    let work = move || {
        let message = match (handles.approve)() {
            0 => "no removals wait".to_owned(),
            1 => "1 book that is gone from the library leaves the index".to_owned(),
            count => format!("{count} books that are gone from the library leave the index"),
        };
        Ok(DoneResponse { message, job: None })
    };
    act(peer, "approve", String::new(), work).await
}

async fn rescan(
    State(handles): State<ControlHandles>,
    Extension(peer): Extension<Peer>,
    request: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let RescanRequest { full } = body(request)?;
    let work = move || {
        (handles.rescan)(full);
        let how = if full { "compared in full" } else { "looked at" };
        Ok(DoneResponse { message: format!("the library is being {how}"), job: None })
    };
    let target = if full { "--full" } else { "" };
    Ok(act(peer, "rescan", target.to_owned(), work).await)
}

async fn ingest(
    State(handles): State<ControlHandles>,
    Extension(peer): Extension<Peer>,
    request: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let request: TargetRequest = body(request)?;
    let target = request.target.clone();
    let path = Path::new(&request.target).is_absolute().then(|| request.target.clone());
    let force = request.force;
    let work = move || match by_hand(&handles.queue, request, JobKind::Ingest) {
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND && path.is_some() => {
            let message = (handles.ingest_path)(path.unwrap_or_default(), force).map_err(|error| {
                Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error).hint(
                    "the service must be able to read it: it has its own user, and its own view of /tmp and /home",
                )
            })?;
            Ok(DoneResponse { message, job: None })
        }
        answer => answer,
    };
    Ok(act(peer, "ingest", target, work).await)
}

async fn remove(
    State(handles): State<ControlHandles>,
    Extension(peer): Extension<Peer>,
    request: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let request: TargetRequest = body(request)?;
    let target = request.target.clone();
    Ok(act(peer, "remove", target, move || by_hand(&handles.queue, request, JobKind::Remove)).await)
}

async fn set_paused(State(handles): State<ControlHandles>, Extension(peer): Extension<Peer>, paused: bool) -> Response {
    let work = move || {
        on_queue(&handles.queue, move |queue| queue.set_paused(paused))?;
        Ok(PausedResponse { paused })
    };
    act(peer, if paused { "pause" } else { "resume" }, String::new(), work).await
}

async fn search(
    State(handles): State<ControlHandles>,
    request: Result<Query<SearchRequest>, QueryRejection>,
) -> Answer<SearchResponse> {
    let request = query(request)?;
    blocking(move || find(&handles, request)).await
}

/// Asks the store; both servers do.
pub(super) fn find(handles: &ControlHandles, mut request: SearchRequest) -> Result<SearchResponse, Refusal> {
    if request.q.trim().is_empty() {
        return Err(
            Refusal::new(StatusCode::BAD_REQUEST, "the query is empty").hint("say what to look for: /search?q=TEXT")
        );
    }
    request.limit = request.limit.clamp(1, MOST_ROWS);
    (handles.search)(request).map_err(|error| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error).hint("`alexandriactl status` says which part is not well")
    })
}

async fn verify(
    State(handles): State<ControlHandles>,
    Extension(peer): Extension<Peer>,
    request: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let VerifyRequest { repair } = body(request)?;
    let work = move || -> Result<AuditReport, Refusal> {
        (handles.verify)(repair).map_err(|error| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
                .hint("`alexandriactl status` says which part is not well")
        })
    };
    if repair {
        return Ok(act(peer, "verify", "--repair".to_owned(), work).await);
    }
    Ok(blocking(work).await.into_response())
}

async fn reindex(
    State(handles): State<ControlHandles>,
    Extension(peer): Extension<Peer>,
    request: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let request: ReindexRequest = body(request)?;
    let flags = [("--abort", request.abort), ("--replace", request.replace), ("--skip-failed", request.skip_failed)];
    let target: Vec<&str> = flags.into_iter().filter_map(|(flag, set)| set.then_some(flag)).collect();
    let target = target.join(" ");
    let work = move || {
        let message = (handles.reindex)(request).map_err(|error| {
            Refusal::new(StatusCode::CONFLICT, error).hint("`alexandriactl status` says how things are")
        })?;
        Ok(DoneResponse { message, job: None })
    };
    Ok(act(peer, "reindex", target, work).await)
}

async fn report(
    State(handles): State<ControlHandles>,
    request: Result<Query<ReportRequest>, QueryRejection>,
) -> Answer<Report> {
    let mut request = query(request)?;
    request.limit = request.limit.map(|limit| limit.min(MOST_ROWS));
    blocking(move || {
        (handles.report)(request).map_err(|error| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error)
                .hint("the log has the details: journalctl -u alexandria-ingestd")
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
