//! The status snapshot: what everything is doing, put together from memory alone, so that it answers at once, whatever
//! hangs. Must never call into the library or the store ([`store_status`], which the prober's thread calls, excepted).

use super::service::{Service, lock};
use super::shared_log;
use crate::control::protocol::{
    ChangeHint, CurrentJob, LibraryStatus, ModelMemory, ModelStatus, PROTOCOL, StatusSnapshot, StoreStatus,
};
use crate::library::Hint;
use crate::store::Filter;

/// A call into the library that takes longer is one that hangs, for a person.
const SLOW_US: i64 = 10_000_000;
/// Failures that are shown.
const RECENT_ERRORS: usize = 10;

/// From memory alone: answers at once, whatever hangs.
pub(super) fn status_of(service: &Service) -> StatusSnapshot {
    let shelf = service.reconciler.shelf();
    let watch = service.watcher.status();
    let now_us = crate::clock::now_us();
    let not_answering_since_us = watch.waiting_since_us.filter(|since_us| now_us - since_us > SLOW_US);
    let reason = match not_answering_since_us {
        Some(since_us) => Some(format!("the library has not answered for {} s", (now_us - since_us) / 1_000_000)),
        None => shelf.unavailable.clone(),
    };
    let info = service.parts.embedder.info();
    let device = service.parts.embedder.device();
    // One lock at a time: a guard inside the expression below would be held to its end.
    let store = lock(&service.store_status).clone();
    let last_audit = lock(&service.last_audit).clone();
    let stats = *lock(&service.stats);
    let waiting = waiting(service, &store, now_us);
    let library = shelf.library.as_ref();
    StatusSnapshot {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_seconds: service.started.elapsed().as_secs(),
        library: LibraryStatus {
            path: service.config.library.path.clone(),
            kind: library.map(|library| library.kind),
            uuid: library.map(|library| library.uuid),
            filesystem: watch.mount.map(|mount| mount.fs_name).unwrap_or_default(),
            poll_seconds: watch.poll.as_secs_f64(),
            hint: watch.hint.map(|hint| match hint {
                Hint::Inotify => ChangeHint::Inotify,
                Hint::Cifs => ChangeHint::Cifs,
            }),
            no_hint_because: watch.no_hint_because,
            available: reason.is_none() && shelf.last_look_us.is_some(),
            reason,
            not_answering_since_us,
            last_look_us: shelf.last_look_us,
            books: shelf.books,
            passed_over: shelf.passed_over,
        },
        current: service
            .parts
            .progress
            .current()
            .into_iter()
            .map(|job| CurrentJob {
                book_uuid: job.book_uuid,
                book_id: job.book_id,
                title: job.title,
                stage: job.stage.as_str().into(),
                done_chunks: job.done,
                total_chunks: job.total,
                done_tokens: job.done_tokens,
                total_tokens: job.total_tokens,
                since_us: job.started_us,
                waits_for: job.waits_for,
            })
            .collect(),
        model: ModelStatus {
            id: info.id.clone(),
            name: info.name.clone(),
            dimension: info.dimension,
            device: info.device.clone(),
            loads: service.parts.embedder.loads(),
            fingerprint: info.fingerprint.clone(),
            batch_tokens: service.parts.embedder.batch_tokens(),
            budget_halvings: device.budget_halvings,
            memory: device.memory.map(|memory| ModelMemory {
                total: memory.total,
                free: memory.free,
                weights: memory.weights,
                workspace: memory.workspace,
                peak: memory.peak,
            }),
        },
        store,
        tokens_per_second: service.meters.tokens_per_second(),
        chunks_per_minute: service.meters.chunks_per_minute(),
        model_share: service.meters.model_share(),
        queue: stats,
        paused: stats.paused,
        removals_waiting: shelf.removals_waiting,
        waiting,
        last_audit,
        gpu: service.gpu.status(),
        estimate: service.forecast.estimate(),
        recent_errors: service.meters.recent_errors(RECENT_ERRORS),
        totals: service.meters.totals(service.parts.embedder.counters(), service.parts.progress.embedded()),
        stuck: lock(&service.stuck).clone(),
        ingest_log: shared_log::status(service.ingest_log.as_ref()),
        outdated: service.reindex.outdated(),
        reindex: service.reindex.status(),
    }
}

/// What waits for what, a line each.
fn waiting(service: &Service, store: &StoreStatus, now_us: i64) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(service.parts.ingestor.reindexing.interrupted());
    lines.extend(service.parts.ingestor.reindexing.closed());
    for closed in service.parts.ingestor.gate.closed() {
        let seconds = (now_us - closed.since_us).max(0) / 1_000_000;
        lines.push(format!("books that have to be read wait for their library, for {seconds} s: {}", closed.reason));
    }
    if let Some(reason) = store.reason.as_ref().filter(|_| !store.healthy) {
        lines.push(format!("books wait for the store: {reason}"));
    }
    if let Some((reason, behind)) = service.ingest_log.as_ref().and_then(|log| {
        let status = log.status();
        Some((status.trouble?, status.behind))
    }) {
        lines.push(format!("the ingest log is {behind} rows and lines behind: {reason}"));
    }
    for job in service.parts.progress.current() {
        if let Some(reason) = job.waits_for {
            lines.push(format!("'{}' is embedded and held in memory: {reason}", job.title));
        }
    }
    lines
}

/// Asks the store, and notes its failure for those who write. May block.
pub(super) fn store_status(service: &Service) -> StoreStatus {
    let store = service.parts.store.as_ref();
    let closed = service.parts.ingestor.reindexing.closed().is_some();
    let counted =
        store.health().and_then(|()| if closed { Ok(None) } else { store.count(&Filter::default()).map(Some) });
    if let Err(error) = &counted {
        service.parts.ingestor.store_watch.failed(error);
    }
    StoreStatus {
        location: store.location(),
        collection: service.config.store.collection.clone(),
        points: counted.as_ref().ok().copied().flatten().map(|points| points as u64),
        healthy: counted.is_ok(),
        reason: counted.err().map(|error| error.to_string()),
    }
}
