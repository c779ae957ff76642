//! The service itself: starts the parts in order, says READY, waits for the signal, stops in order.
//!
//! Order of the end: claiming stops, requests in hand end, the batch in hand ends, jobs go back to the queue, the store
//! is made durable, the state is closed. Whatever hangs, all of it takes less than 20 s.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::audit::{self, AuditSchedule};
use super::forecast::{self, Forecast};
use super::gpu_watch::GpuMonitor;
use super::housekeeping::housekeep;
use super::meters::Meters;
use super::notify::Notifier;
use super::parts::Parts;
use super::reindex::{self, ReindexView};
use super::reload::Reloader;
use super::start::start;
use super::status::{status_of, store_status};
use super::{DaemonError, http, oneshot, report, search, shared_log};
use crate::config::{Config, ConfigSource};
use crate::control::http::{HttpServer, RunningHttp};
use crate::control::protocol::StoreStatus;
use crate::control::server::{ControlHandles, ControlServer};
use crate::domain::AuditReport;
use crate::ingest::{FatalFailure, JobSummary, LookError, Reconciler, Unfinished, WorkerSettings, Workers};
use crate::ingest_log::IngestLog;
use crate::library::{LookOutcome, Settings as WatchSettings, Watcher};
use crate::queue::{ClaimedJob, Outcome, QueueStats};
use crate::telemetry::event;

/// How long the parts have to end after the signal: the batch in hand, and a store's last answer. What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(12);
/// And how long what is written may take to be made durable after that.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a queue that hangs is asked to take jobs back.
const QUEUE_PATIENCE: Duration = Duration::from_secs(1);
/// How long READY is tried to be said.
const READY_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the store for the status.
const STORE_PROBE: Duration = Duration::from_secs(5);
/// The queue must have been empty this long before the store's index is worked on.
const QUIET_BEFORE_MAINTENANCE: Duration = Duration::from_secs(60);
/// Failures of before the start that the status shows.
const OLD_ERRORS: usize = 5;

/// What the service's threads share beside the parts.
pub(super) struct Service {
    pub config: Config,
    pub parts: Parts,
    pub reconciler: Arc<Reconciler>,
    pub watcher: Watcher,
    pub notifier: Arc<Notifier>,
    /// Where it is kept.
    pub ingest_log: Option<IngestLog>,
    pub started: Instant,
    pub store_status: Mutex<StoreStatus>,
    pub meters: Meters,
    pub forecast: Forecast,
    pub reindex: ReindexView,
    pub gpu: GpuMonitor,
    /// The queue's numbers as they were a moment ago.
    pub stats: Mutex<QueueStats>,
    /// What does not go on, a line each.
    pub stuck: Mutex<Vec<String>>,
    /// One comparison of library, state and store at a time.
    pub auditing: Mutex<()>,
    /// The last one, without its findings.
    pub last_audit: Mutex<Option<AuditReport>>,
    /// Jobs done since the start.
    pub finished: AtomicU64,
    /// Points were written since the store's index was last worked on.
    index_behind: AtomicBool,
}

/// A service whose threads run; nobody is served yet.
pub(super) struct Running {
    service: Arc<Service>,
    server: ControlServer,
    http: Option<HttpServer>,
    workers: Workers,
    threads: Vec<JoinHandle<()>>,
    /// A signal came before it was ready.
    pub called_off: bool,
}

/// Heard from the first moment on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Until the process is to end.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

/// Runs until SIGTERM or SIGINT. `source`: where `config` comes from, to be read again on SIGHUP.
pub fn run(config: Config, source: ConfigSource) -> Result<(), DaemonError> {
    let reloader = Arc::new(Mutex::new(Reloader::new(source, config.clone())));
    let notifier = Arc::new(Notifier::from_environment());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(DaemonError::io("the runtime cannot be started"))?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new().map_err(DaemonError::io("signals cannot be received"))?;
        let Some(running) = start(config, &notifier, signals.end()).await? else { return Ok(None) };
        let Running { service, server, http, workers, threads, called_off } = running;
        let result =
            if called_off { Ok(()) } else { serve(&service, server, http, &workers, &mut signals, reloader).await };
        Ok::<_, DaemonError>(Some((service, workers, threads, result)))
    });
    let result = match ended {
        Ok(Some((service, workers, threads, result))) => {
            finish(service, workers, threads);
            result
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    runtime.shutdown_timeout(Duration::from_millis(500));
    tracing::info!("stopped");
    result
}

/// Starts the threads around the parts. On the thread that starts the service.
pub(super) fn assemble(
    config: Config,
    parts: Parts,
    reconciler: Arc<Reconciler>,
    server: ControlServer,
    http: Option<HttpServer>,
    notifier: Arc<Notifier>,
) -> Result<Running, DaemonError> {
    let path = PathBuf::from(&config.library.path);
    let watcher = start_watcher(&config, &path, &reconciler, &parts)?;
    let ingest_log = shared_log::start(&config, &parts, Some(&reconciler))?;
    let device = parts.embedder.device();
    let gpu = match device.kind.as_str() {
        "cuda" => GpuMonitor::start(&device.name, &parts.stopping),
        _ => GpuMonitor::off(),
    };
    let (stats, parked) = parts
        .queue
        .call(|queue| Ok::<_, crate::queue::QueueError>((queue.stats()?, queue.parked(OLD_ERRORS)?)))
        .map_err(LookError::from)??;
    let meters = Meters::new();
    meters.remember(parked);
    let service = Arc::new(Service {
        config,
        parts,
        reconciler,
        watcher,
        notifier,
        ingest_log,
        started: Instant::now(),
        store_status: Mutex::default(),
        meters,
        forecast: Forecast::default(),
        reindex: ReindexView::default(),
        gpu,
        stats: Mutex::new(stats),
        stuck: Mutex::default(),
        auditing: Mutex::default(),
        last_audit: Mutex::default(),
        finished: AtomicU64::new(0),
        index_behind: AtomicBool::new(true),
    });
    service.reindex.begin(&service)?;
    let workers = start_workers(&service)?;
    let [of_housekeeper, of_prober, of_forecast, of_reindex] = std::array::from_fn(|_| service.clone());
    let threads = vec![
        start_thread("housekeeper", move || housekeep(&of_housekeeper))?,
        start_thread("store-probe", move || probe_store(&of_prober))?,
        start_thread("forecast", move || forecast::run(&of_forecast))?,
        start_thread("reindex", move || reindex::run(&of_reindex))?,
    ];
    Ok(Running { service, server, http, workers, threads, called_off: false })
}

/// Serves until a signal comes or something dies; then nothing new is begun.
async fn serve(
    service: &Arc<Service>,
    server: ControlServer,
    http: Option<HttpServer>,
    workers: &Workers,
    signals: &mut Signals,
    reloader: Arc<Mutex<Reloader>>,
) -> Result<(), DaemonError> {
    let socket = server.path().to_owned();
    let handles = control_handles(service);
    let http = http
        .map(|server| server.start(http::handles(service, handles.clone())))
        .transpose()
        .map_err(DaemonError::io("the HTTP listener cannot be started"))?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(handles, async move {
        // A dropped sender is a stop, too.
        let _ = stopped.await;
    }));
    tracing::info!(MESSAGE_ID = event::SERVICE_READY, "ready; the control socket is {}", socket.display());
    if !service.notifier.insist(&[NotifyState::Ready, NotifyState::Status("ready")], READY_PATIENCE) {
        tracing::warn!("systemd could not be told that the service is ready: its socket takes nothing");
    }
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let outcome = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hang_up.recv() => {
                reload_configuration(service, &reloader).await;
                service.watcher.look_now(false);
            }
            _ = tick.tick() => {
                match workers.take_fatal_failure() {
                    None => {}
                    Some(FatalFailure::State(error)) => break Err(DaemonError::State(error)),
                    Some(FatalFailure::Other) => {
                        break Err(DaemonError::Failed("a failure that this process cannot get over; see the log above".into()));
                    }
                }
                if workers.are_done() || !service.watcher.status().running {
                    break Err(DaemonError::Failed("a thread of the service has died; see the log above".into()));
                }
                if http.as_ref().is_some_and(RunningHttp::has_ended) {
                    break Err(DaemonError::Failed("the HTTP listener ended; see the log above".into()));
                }
                if serving.is_finished() {
                    break Err(DaemonError::Failed("the control socket's server ended".into()));
                }
            }
        }
    };
    tracing::info!(MESSAGE_ID = event::SERVICE_STOPPING, "stopping");
    service.notifier.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    service.parts.stopping.store(true, Ordering::Relaxed);
    // The receiver is gone where serving has ended by itself.
    let _ = stop.send(());
    // It may wait for requests that wait for something that hangs.
    let stopping = http.map(|mut http| tokio::task::spawn_blocking(move || http.stop()));
    let until = tokio::time::Instant::now() + PATIENCE / 2;
    let _ = tokio::time::timeout_at(until, serving).await;
    if let Some(stopping) = stopping {
        let _ = tokio::time::timeout_at(until, stopping).await;
    }
    outcome
}

/// Ends the threads, gives back what is in work, and makes durable what is written. What hangs is left behind.
fn finish(service: Arc<Service>, workers: Workers, threads: Vec<JoinHandle<()>>) {
    let deadline = Instant::now() + PATIENCE / 2;
    service.parts.stopping.store(true, Ordering::Relaxed);
    service.parts.embedder.stop();
    service.parts.queue.work_available();
    if let Some(log) = &service.ingest_log
        && !log.stop(Duration::from_secs(1))
    {
        tracing::warn!("the ingest log's file does not answer; it is caught up after the next start");
    }
    if !service.watcher.stop(Duration::from_secs(2)) {
        tracing::warn!("the library does not answer; its thread is left behind");
    }
    if !workers.join_until(deadline) {
        tracing::warn!("a book in work did not end in time; it goes on at the next start");
        // Its thread ends with the process; the attempt is not the book's fault.
        match service.parts.queue.call_within(QUEUE_PATIENCE, |queue| queue.give_back_running()) {
            Ok(Some(Err(error))) => tracing::warn!("{error}"),
            Ok(None) => tracing::warn!("the queue does not answer; what was in work is found at the next start"),
            Ok(Some(Ok(_))) | Err(_) => {}
        }
    }
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let closing = std::thread::Builder::new().name("close".into()).spawn(move || match Arc::try_unwrap(service) {
        Ok(service) => service.parts.close(),
        // A thread that hangs in the mount or the store still holds it: what can be closed from here is.
        Err(service) => {
            if let Err(error) = service.parts.store.checkpoint() {
                tracing::warn!("{error}");
            }
            // Not noted as an orderly end: what hangs may still be told something.
            service.parts.queue.stop();
        }
    });
    let until = Instant::now() + LAST_PATIENCE;
    while closing.as_ref().is_ok_and(|closing| !closing.is_finished()) {
        if Instant::now() >= until {
            tracing::warn!(
                "the store or the state does not answer; what was written last is looked at at the next start"
            );
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
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
    let (reconciler, gate, queue) = (reconciler.clone(), parts.ingestor.gate.clone(), parts.queue.clone());
    Watcher::spawn(settings, move |reason, heartbeat| match reconciler.look(reason.is_full(), heartbeat) {
        Ok(looked) => {
            // It answers: what waits for it goes on at once.
            let library = reconciler.shelf().library.map(|library| library.uuid);
            if library.is_some_and(|library| gate.open(library)) {
                queue.work_available();
            }
            let grace = u64::try_from(reconciler.removal_rules().grace_us).unwrap_or_default();
            let at_most = Duration::from_micros(grace.max(1_000_000));
            if looked.unsettled { LookOutcome::Again { at_most } } else { LookOutcome::Settled }
        }
        Err(_) => LookOutcome::Failed,
    })
    .map_err(DaemonError::io("the library's thread cannot be started"))
}

fn start_workers(service: &Arc<Service>) -> Result<Workers, DaemonError> {
    let shared = service.clone();
    let on_finished = move |job: &ClaimedJob, result: &Result<JobSummary, Unfinished>| {
        shared.meters.finished(job, result, crate::clock::now_us());
        if let Some(log) = &shared.ingest_log {
            log.wake();
        }
        let Ok(summary) = result else { return };
        shared.finished.fetch_add(1, Ordering::Relaxed);
        if summary.report.outcome != Outcome::Unchanged {
            shared.index_behind.store(true, Ordering::Relaxed);
        }
        if let (Outcome::Embedded, Some(indexed)) = (summary.report.outcome, &summary.indexed) {
            shared.forecast.learn(&job.book.file, indexed.format(), indexed.tokens);
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

/// On SIGHUP; systemd is told when it begins and when it is done (`systemctl reload` waits for neither with this type of
/// service, but its status shows them).
async fn reload_configuration(service: &Arc<Service>, reloader: &Arc<Mutex<Reloader>>) {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now());
    service.notifier.tell(&states);
    let (reloaded, reloader) = (service.clone(), reloader.clone());
    let reloaded = tokio::task::spawn_blocking(move || lock(&reloader).reload(&reloaded)).await;
    let status = reloaded.unwrap_or_else(|_| "the configuration was not reloaded: a bug, see the log".to_owned());
    let said = [NotifyState::Ready, NotifyState::Status(&status)];
    if !service.notifier.insist(&said, READY_PATIENCE) {
        tracing::warn!("systemd could not be told that the configuration was reloaded: its socket takes nothing");
    }
}

fn control_handles(service: &Arc<Service>) -> ControlHandles {
    let [status, history, rescan, approve, ingest, searching, verify, backup, reporting, reindexing] =
        std::array::from_fn(|_| service.clone());
    ControlHandles {
        queue: service.parts.queue.clone(),
        status: Arc::new(move || status_of(&status)),
        history: Arc::new(move || history.meters.history()),
        rescan: Arc::new(move |full| rescan.watcher.look_now(full)),
        approve: Arc::new(move || {
            let waiting = approve.reconciler.approve_removals();
            approve.watcher.look_now(false);
            waiting
        }),
        ingest_path: Arc::new(move |path, force| {
            oneshot::take_in(&ingest.parts, &ingest.config, Path::new(&path), force).map_err(|error| error.to_string())
        }),
        reindex: Arc::new(move |request| reindex::ask(&reindexing, &request)),
        search: Arc::new(move |request| {
            if let Some(reason) = searching.parts.ingestor.reindexing.closed() {
                return Err(reason);
            }
            let state =
                searching.parts.queue.call(|queue| queue.path().to_owned()).map_err(|error| error.to_string())?;
            search::search(&searching.parts.embedder, searching.parts.store.as_ref(), Some(&state), &request)
                .map_err(|error| error.to_string())
        }),
        verify: Arc::new(move |repair| audit::verify(&verify, repair)),
        report: Arc::new(move |request| report::report(&reporting, &request)),
        backup: Arc::new(move || {
            let directory = backup.parts.ingestor.settings.scratch_dir.clone();
            let made = backup.parts.queue.call(move |queue| queue.backup(&directory));
            made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        }),
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

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The guarded values are whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
