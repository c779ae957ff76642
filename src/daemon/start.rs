//! The start of the service: everything is built on a thread of its own, so that a signal is heard at any moment, and
//! systemd is told what the start is at. A start that is called off leaves nothing that the next one has to mend.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::DaemonError;
use super::http;
use super::notify::Notifier;
use super::parts::{Mode, Parts};
use super::service::{Running, assemble, lock};
use crate::config::Config;
use crate::control::server::ControlServer;
use crate::ingest::Reconciler;
use crate::telemetry::event;

/// Between two words to systemd.
const TICK: Duration = Duration::from_secs(1);
/// How much more time systemd is asked for with each of them. (Only a start that is over TimeoutStartSec needs it.)
const MORE_TIME: Duration = Duration::from_secs(60);
/// A step that shows no progress for so long is not granted more time: a download that hangs is to end.
const LONGEST_SILENCE: Duration = Duration::from_secs(600);
/// How long a start that was called off may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the start is at. Told by the thread that builds, read by the one that talks to systemd.
struct Steps {
    text: Mutex<String>,
    told: AtomicU64,
}

/// Builds the service. None where a signal called the start off.
///
/// # Errors
/// Whatever the parts say.
pub(super) async fn start(
    config: Config,
    notifier: &Arc<Notifier>,
    called_off: impl Future<Output = ()>,
) -> Result<Option<Running>, DaemonError> {
    let steps = Arc::new(Steps { text: Mutex::new("starting".to_owned()), told: AtomicU64::new(0) });
    let (sender, mut built) = oneshot::channel();
    let (of_thread, told) = (notifier.clone(), steps.clone());
    std::thread::Builder::new()
        .name("start".into())
        .spawn(move || {
            let report = |text: &str| {
                let mut step = lock(&told.text);
                if *step != text {
                    text.clone_into(&mut step);
                    told.told.fetch_add(1, Ordering::Relaxed);
                }
            };
            // Where nobody waits for it any more, what was built ends with the process.
            let _ = sender.send(build(config, of_thread, &report));
        })
        .map_err(DaemonError::io("the thread that starts the service cannot be started"))?;
    let mut tick = tokio::time::interval(TICK);
    let (mut seen, mut since) = (0, Instant::now());
    let mut called_off = pin!(called_off);
    loop {
        tokio::select! {
            built = &mut built => return built.unwrap_or_else(|_| Err(panicked())).map(Some),
            () = &mut called_off => break,
            _ = tick.tick() => {
                let told = steps.told.load(Ordering::Relaxed);
                if told != seen {
                    (seen, since) = (told, Instant::now());
                }
                let text = lock(&steps.text).clone();
                let more = NotifyState::ExtendTimeoutUsec(MORE_TIME.as_micros() as u32);
                if since.elapsed() < LONGEST_SILENCE {
                    notifier.tell(&[NotifyState::Status(&text), more]);
                } else {
                    notifier.tell(&[NotifyState::Status(&format!("{text}, for {} s", since.elapsed().as_secs()))]);
                }
            }
        }
    }
    let step = lock(&steps.text).clone();
    tracing::info!(MESSAGE_ID = event::SERVICE_STOPPING, "stopping before it was ready ({step})");
    notifier.tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    match tokio::time::timeout(PATIENCE, built).await {
        // It was as good as ready: it ends in order.
        Ok(built) => built.unwrap_or_else(|_| Err(panicked())).map(|mut running| {
            running.called_off = true;
            Some(running)
        }),
        Err(_) => Ok(None),
    }
}

fn panicked() -> DaemonError {
    DaemonError::Failed("the start panicked; see the log above. This is a bug: please report it".into())
}

fn build(config: Config, notifier: Arc<Notifier>, report: &dyn Fn(&str)) -> Result<Running, DaemonError> {
    let socket = config.control_socket()?;
    let parts = Parts::build(&config, Mode::Service, report)?;
    report("opening the control socket");
    // Bound before READY, so that a socket in use ends the start instead of surprising a client later.
    let server = ControlServer::open(&socket, &config.control.group)?;
    let http = http::bind(&config)?;
    let path = PathBuf::from(&config.library.path);
    let reconciler = Arc::new(Reconciler::new(parts.queue.clone(), parts.reconcile_settings(&config, &path, true)));
    assemble(config, parts, reconciler, server, http, notifier)
}
