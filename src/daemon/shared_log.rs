//! The shared ingest log as the configuration wants it: started, or known not to be kept.

use std::path::Path;
use std::sync::Arc;

use super::DaemonError;
use super::parts::Parts;
use crate::config::Config;
use crate::control::protocol::IngestLogStatus;
use crate::ingest::{LookError, Reconciler};
use crate::ingest_log::{IngestLog, LogSettings};

/// Starts the log's thread where it is configured. `reconciler`: what watches the library that the file may lie in.
pub(super) fn start(
    config: &Config,
    parts: &Parts,
    reconciler: Option<&Arc<Reconciler>>,
) -> Result<Option<IngestLog>, DaemonError> {
    if !config.ingest_log.enabled {
        // What was noted before stays, for the day it is kept again.
        parts.queue.call(|queue| queue.keep_shared_log(None)).map_err(LookError::from)??;
        return Ok(None);
    }
    let library = Path::new(&config.library.path);
    let place = LogSettings::place(&config.ingest_log.path, library);
    let watched = reconciler.filter(|_| place.path.starts_with(library)).cloned();
    let settings = LogSettings {
        place,
        collection: config.store.collection.clone(),
        hostname: hostname(),
        // Never into an empty mount point, or another library that is mounted there.
        ready: Arc::new(move || match &watched {
            None => Ok(true),
            Some(reconciler) => match reconciler.shelf() {
                shelf if shelf.unavailable.is_some() => Err(shelf.unavailable.unwrap_or_default()),
                shelf => Ok(shelf.last_look_us.is_some()),
            },
        }),
    };
    tracing::info!("the ingest log is {}", settings.place.path.display());
    let log = IngestLog::start(parts.queue.clone(), settings)
        .map_err(DaemonError::io("the ingest log's thread cannot be started"))?;
    Ok(Some(log))
}

/// As the status shows it.
pub(super) fn status(log: Option<&IngestLog>) -> Option<IngestLogStatus> {
    let status = log?.status();
    Some(IngestLogStatus {
        path: status.path.display().to_string(),
        behind: status.behind,
        dropped: status.dropped,
        written_us: status.written_us,
        trouble: status.trouble,
        trouble_since_us: status.trouble_since_us,
    })
}

/// The machine's name, as Python's `socket.gethostname()` has it.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
