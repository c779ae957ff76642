//! The service itself: starts the parts in order, says READY, waits for the signal, stops in order.
//!
//! Order of the end: claiming stops, requests in hand end, the batch in hand ends, jobs go back to the queue, the store
//! is made durable, the state is closed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::audit::{self, AuditSchedule};
use super::parts::Mode;
use super::parts::Parts;
use super::status::{status_of, store_status};
use super::{DaemonError, http, oneshot, search};
use crate::config::Config;
use crate::control::protocol::{HistoryResponse, StoreStatus};
use crate::control::server::{ControlHandles, ControlServer};
use crate::domain::{AuditReport, Failure};
use crate::ingest::{JobSummary, LookError, Reconciler, WorkerSettings, Workers};
use crate::library::{LookOutcome, Settings as WatchSettings, Watcher};
use crate::queue::{ClaimedJob, Outcome};
use crate::telemetry::RateMeter;

/// How long the parts have to end after the signal: the batch in hand, and a store's last answer. What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at the store for the status.
const STORE_PROBE: Duration = Duration::from_secs(5);
/// The queue must have been empty this long before the store's index is worked on.
const QUIET_BEFORE_MAINTENANCE: Duration = Duration::from_secs(60);
/// Over which the rates in the status are taken.
const RATE_WINDOW: Duration = Duration::from_secs(120);

/// What the service's threads share beside the parts.
pub(super) struct Service {
    pub config: Config,
    pub parts: Parts,
    pub reconciler: Arc<Reconciler>,
    pub watcher: Watcher,
    pub started: Instant,
    pub store_status: Mutex<StoreStatus>,
    pub tokens: RateMeter,
    pub chunks: RateMeter,
    /// One comparison of library, state and store at a time.
    pub auditing: Mutex<()>,
    /// The last one, without its findings.
    pub last_audit: Mutex<Option<AuditReport>>,
    /// Jobs done since the start.
    finished: AtomicU64,
    /// What came of them.
    pub totals: http::Totals,
    /// Points were written since the store's index was last worked on.
    index_behind: AtomicBool,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<(), DaemonError> {
    notify(&[NotifyState::Status("loading the model")]);
    let socket = config.control_socket()?;
    let parts = Parts::build(&config, Mode::Service)?;
    // Bound before READY, so that a socket in use ends the start instead of surprising a client later.
    let server = ControlServer::open(&socket, &config.control.group)?;
    let socket = server.path().to_owned();
    let http_server = http::bind(&config)?;
    let path = PathBuf::from(&config.library.path);
    let reconciler = Arc::new(Reconciler::new(parts.queue.clone(), parts.reconcile_settings(&config, &path, true)));
    let watcher = start_watcher(&config, &path, &reconciler, &parts)?;
    let service = Arc::new(Service {
        config,
        parts,
        reconciler,
        watcher,
        started: Instant::now(),
        store_status: Mutex::default(),
        tokens: RateMeter::new(RATE_WINDOW),
        chunks: RateMeter::new(RATE_WINDOW),
        auditing: Mutex::default(),
        last_audit: Mutex::default(),
        finished: AtomicU64::new(0),
        totals: http::Totals::default(),
        index_behind: AtomicBool::new(true),
    });
    report_other_chunkers(&service)?;
    let workers = start_workers(&service)?;
    let housekeeper = start_thread("housekeeper", {
        let service = service.clone();
        move || housekeep(&service)
    })?;
    let prober = start_thread("store-probe", {
        let service = service.clone();
        move || probe_store(&service)
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(DaemonError::io("the runtime cannot be started"))?;
    let handles = control_handles(&service);
    let mut http_server = http_server
        .map(|server| server.start(http::handles(&service, handles.clone())))
        .transpose()
        .map_err(DaemonError::io("the HTTP listener cannot be started"))?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::io("signals cannot be received"))?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(DaemonError::io("signals cannot be received"))?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(handles, async move {
            // A dropped sender is a stop, too.
            let _ = stopped.await;
        }));
        tracing::info!("ready; the control socket is {}", socket.display());
        notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let outcome = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(()),
                _ = tokio::signal::ctrl_c() => break Ok(()),
                _ = hang_up.recv() => {
                    tracing::info!("SIGHUP: looking at the library; the configuration is read at the next start");
                    service.watcher.look_now(false);
                }
                _ = tick.tick() => {
                    if workers.met_fatal_failure() {
                        break Err(DaemonError::Failed("a failure that this process cannot get over; see the log above".into()));
                    }
                    if workers.are_done() || !service.watcher.status().running {
                        break Err(DaemonError::Failed("a thread of the service has died; see the log above".into()));
                    }
                    if http_server.as_ref().is_some_and(|server| server.has_ended()) {
                        break Err(DaemonError::Failed("the HTTP listener ended; see the log above".into()));
                    }
                    if serving.is_finished() {
                        break Err(DaemonError::Failed("the control socket's server ended".into()));
                    }
                }
            }
        };
        tracing::info!("stopping");
        notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        service.parts.stopping.store(true, Ordering::Relaxed);
        // The receiver is gone where serving has ended by itself.
        let _ = stop.send(());
        let _ = tokio::time::timeout(PATIENCE, serving).await;
        outcome
    });
    if let Some(server) = &mut http_server {
        server.stop();
    }
    service.parts.embedder.stop();
    service.parts.queue.work_available();
    let deadline = Instant::now() + PATIENCE;
    if !service.watcher.stop(Duration::from_secs(2)) {
        tracing::warn!("the library does not answer; its thread is left behind");
    }
    if !workers.join_until(deadline) {
        tracing::warn!("a book in work did not end in {} s; it goes on at the next start", PATIENCE.as_secs());
        // Its thread ends with the process; the attempt is not the book's fault.
        if let Ok(Err(error)) = service.parts.queue.call(|queue| queue.give_back_running()) {
            tracing::warn!("{error}");
        }
    }
    for thread in [housekeeper, prober] {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    match Arc::try_unwrap(service) {
        Ok(service) => service.parts.close(),
        // A thread that hangs in the mount or the store still holds it: what can be closed from here is.
        Err(service) => {
            if let Err(error) = service.parts.store.checkpoint() {
                tracing::warn!("{error}");
            }
            // Not noted as an orderly end: what hangs may still be told something.
            service.parts.queue.stop();
        }
    }
    tracing::info!("stopped");
    result
}

fn start_watcher(
    config: &Config,
    path: &Path,
    reconciler: &Arc<Reconciler>,
    parts: &Parts,
) -> Result<Watcher, DaemonError> {
    let settings = WatchSettings {
        path: path.to_owned(),
        poll: Duration::from_secs_f64(config.library.poll_seconds),
        full_scan: Duration::from_secs_f64(config.library.full_scan_seconds),
        inotify: config.library.inotify,
        change_notify: config.library.change_notify,
    };
    let grace = Duration::from_secs_f64(config.library.removal_grace_seconds.max(1.0));
    let (reconciler, gate, queue) = (reconciler.clone(), parts.ingestor.gate.clone(), parts.queue.clone());
    Watcher::spawn(settings, move |reason, heartbeat| match reconciler.look(reason.is_full(), heartbeat) {
        Ok(looked) => {
            // It answers: what waits for it goes on at once.
            let library = reconciler.shelf().library.map(|library| library.uuid);
            if library.is_some_and(|library| gate.open(library)) {
                queue.work_available();
            }
            if looked.unsettled { LookOutcome::Again { at_most: grace } } else { LookOutcome::Settled }
        }
        Err(_) => LookOutcome::Failed,
    })
    .map_err(DaemonError::io("the library's thread cannot be started"))
}

fn start_workers(service: &Arc<Service>) -> Result<Workers, DaemonError> {
    let shared = service.clone();
    let on_finished = move |_: &ClaimedJob, result: &Result<JobSummary, Failure>| {
        shared.totals.note(result);
        let Ok(summary) = result else { return };
        shared.finished.fetch_add(1, Ordering::Relaxed);
        if summary.report.outcome != Outcome::Unchanged {
            shared.index_behind.store(true, Ordering::Relaxed);
        }
        if let (Outcome::Embedded, Some(indexed)) = (summary.report.outcome, &summary.indexed) {
            shared.chunks.add(indexed.chunks as u64);
        }
    };
    let settings = WorkerSettings { workers: service.config.ingest.workers, until_idle: false };
    Workers::spawn(&service.parts.ingestor, settings, on_finished)
        .map_err(DaemonError::io("the workers cannot be started"))
}

fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, DaemonError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(DaemonError::io(format!("the {name} thread cannot be started")))
}

/// Books that other settings chunked stay as they are; the operator is told once, with what to do.
fn report_other_chunkers(service: &Service) -> Result<(), DaemonError> {
    let chunker = service.parts.ingestor.chunker_fingerprint();
    let model = service.parts.embedder.info().fingerprint.clone();
    let stale =
        service.parts.queue.call(move |queue| queue.count_stale(&chunker, &model)).map_err(LookError::from)??;
    if stale > 0 {
        tracing::warn!(
            "{stale} books in the index were chunked or embedded with other settings; they stay as they are until their content changes or you ask (alexandriactl ingest --force, with a book's id or the library's path)"
        );
    }
    Ok(())
}

fn control_handles(service: &Arc<Service>) -> ControlHandles {
    let [status, rescan, approve, ingest, searching, verify, backup] = std::array::from_fn(|_| service.clone());
    ControlHandles {
        queue: service.parts.queue.clone(),
        status: Arc::new(move || status_of(&status)),
        rescan: Arc::new(move |full| rescan.watcher.look_now(full)),
        approve: Arc::new(move || {
            let waiting = approve.reconciler.approve_removals();
            approve.watcher.look_now(false);
            waiting
        }),
        ingest_path: Arc::new(move |path, force| {
            oneshot::take_in(&ingest.parts, &ingest.config, Path::new(&path), force).map_err(|error| error.to_string())
        }),
        search: Arc::new(move |request| {
            search::search(&searching.parts.embedder, searching.parts.store.as_ref(), &request)
                .map_err(|error| error.to_string())
        }),
        verify: Arc::new(move |repair| audit::verify(&verify, repair)),
        history: Arc::new(HistoryResponse::default),
        backup: Arc::new(move || {
            let directory = backup.parts.ingestor.settings.scratch_dir.clone();
            let made = backup.parts.queue.call(move |queue| queue.backup(&directory));
            made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }),
    }
}

/// The watchdog's ping, systemd's STATUS line, the token rate.
fn housekeep(service: &Service) {
    let watchdog = sd_notify::watchdog_enabled();
    let every = watchdog.map_or(Duration::from_secs(2), |period| (period / 3).min(Duration::from_secs(2)));
    let mut tokens = 0;
    while !service.parts.stopping.load(Ordering::Relaxed) {
        std::thread::sleep(every);
        let counted = service.parts.embedder.counters().tokens;
        service.tokens.add(counted - tokens);
        tokens = counted;
        // A queue that does not answer gives no ping: a hung service is restarted. A hung mount is not in the way.
        let Ok(Ok(stats)) = service.parts.queue.call(|queue| queue.stats()) else { continue };
        let waiting = stats.queued + stats.waiting + stats.running;
        let mut status = format!("{} books indexed, {waiting} to do, {} parked", stats.done_books, stats.parked);
        let shelf = service.reconciler.shelf();
        if shelf.unavailable.is_some() {
            status.push_str("; the library is not available (alexandriactl status)");
        }
        if shelf.removals_waiting > 0 {
            status.push_str(&format!("; {} removals wait for alexandriactl approve", shelf.removals_waiting));
        }
        notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

/// Looks at the store now and then, and works on its index while nothing else is to do.
fn probe_store(service: &Service) {
    let mut quiet_since = Instant::now();
    let mut counted = None;
    let mut schedule = AuditSchedule::new(service.config.store.verify_hours);
    while !service.parts.stopping.load(Ordering::Relaxed) {
        let store = service.parts.store.as_ref();
        // An exact count goes over all points: only when something may have changed.
        let finished = service.finished.load(Ordering::Relaxed);
        let present = lock(&service.store_status).clone();
        if counted != Some(finished) || !present.healthy || store.health().is_err() {
            let status = store_status(service);
            // A store that was lost may come back without what it held, or without the collection: that is noticed, and
            // mended, though no book may come for days. What else fails here is in the status.
            if !status.healthy || !present.healthy {
                let _ = service.parts.ingestor.ensure_store();
            }
            *lock(&service.store_status) = status;
            counted = Some(finished);
        }
        let until = Instant::now() + STORE_PROBE;
        while Instant::now() < until && !service.parts.stopping.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        let busy = !service.parts.progress.current().is_empty();
        if !busy {
            schedule.run(service);
        }
        if busy {
            quiet_since = Instant::now();
        } else if quiet_since.elapsed() > QUIET_BEFORE_MAINTENANCE
            && service.index_behind.swap(false, Ordering::Relaxed)
            && let Err(error) = store.maintain()
        {
            tracing::warn!(
                "the store's index could not be brought up to date: {error}; it is tried after the next book"
            );
        }
    }
}

/// Outside systemd there is nobody to tell; inside, a lost line is no reason to stop.
fn notify(states: &[NotifyState]) {
    let _ = sd_notify::notify(states);
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The guarded values are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
