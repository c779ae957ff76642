//! The comparison of library, state and store in the running service: on request, and on a slow schedule, one at a time.
//! The schedule only looks; what it finds is said and shown, and a person has it mended.

use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::service::{Service, lock};
use crate::domain::AuditReport;
use crate::ingest::JobError;
use crate::telemetry::event;

/// How long a library may be silent before a comparison goes on without it.
const SILENCE_US: i64 = 30_000_000;
/// The first scheduled comparison comes this long after the start, or sooner where the schedule is denser.
const FIRST: Duration = Duration::from_secs(3600);

/// Compares everything; `repair` has it mended.
pub(super) fn verify(service: &Service, repair: bool) -> Result<AuditReport, String> {
    let _one = match service.auditing.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return Err("a comparison is going on already; ask again later".into()),
    };
    let (library_answers, library) = look(service);
    let compared = service.parts.ingestor.audit(repair).map_err(|error| match error {
        JobError::Failed(failure) | JobError::LibraryAway(failure) => failure.to_string(),
        JobError::Interrupted => "the service is stopping".into(),
    })?;
    let report = AuditReport { library, library_answers, ..compared };
    *lock(&service.last_audit) = Some(AuditReport { findings: Vec::new(), ..report.clone() });
    if report.agrees() {
        tracing::info!("library, state and store compared: {} books agree", report.books);
    } else if let Some(done) = report.repair {
        tracing::warn!(
            MESSAGE_ID = event::STORE_DISAGREES,
            "library, state and store disagreed: {}; {} books are queued, {} points of no book were deleted",
            report.summary(),
            done.queued,
            done.deleted_points
        );
    } else {
        tracing::error!(
            MESSAGE_ID = event::STORE_DISAGREES,
            "library, state and store disagree: {}; `alexandriactl verify --repair` mends it",
            report.summary()
        );
    }
    Ok(report)
}

/// A full look at the library, on its own thread: whether it was complete, and what it came to.
fn look(service: &Service) -> (bool, String) {
    let before = service.watcher.status().full_looks;
    service.watcher.look_now(true);
    loop {
        let watch = service.watcher.status();
        if watch.full_looks > before {
            break;
        }
        let silent_us = watch.waiting_since_us.map_or(0, |since| crate::clock::now_us() - since);
        if silent_us > SILENCE_US || !watch.running || service.parts.stopping.load(Ordering::Relaxed) {
            return (false, format!("has not answered for {} s; not compared", silent_us / 1_000_000));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let shelf = service.reconciler.shelf();
    match shelf.unavailable {
        Some(reason) => (false, format!("not available, not compared: {reason}")),
        None => (true, format!("{} books, {}", shelf.books, shelf.last_applied)),
    }
}

/// When to compare without being asked.
pub(super) struct AuditSchedule {
    every: Option<Duration>,
    due: Instant,
}

impl AuditSchedule {
    /// `hours` of 0: never.
    pub(super) fn new(hours: f64) -> Self {
        let every = Duration::try_from_secs_f64(hours * 3600.0).ok().filter(|every| !every.is_zero());
        Self { every, due: Instant::now() + every.unwrap_or(FIRST).min(FIRST) }
    }

    /// Compares where that is due. A comparison that fails is made at the next time.
    pub(super) fn run(&mut self, service: &Service) {
        let Some(every) = self.every.filter(|_| Instant::now() >= self.due) else { return };
        self.due = Instant::now() + every;
        if let Err(error) = verify(service, false) {
            tracing::warn!("library, state and store could not be compared: {error}");
        }
    }
}
