//! The reindex in the running service: what other settings made is found at the start and told with what it would cost to
//! make it anew; a person begins a reindex, or gives it up; a thread ends it when it is whole. What is written where, and
//! the switch itself, are the ingestor's.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::DaemonError;
use super::service::{Service, lock};
use crate::clock::now_us;
use crate::control::protocol::{OutdatedStatus, ReindexRequest, ReindexStatus};
use crate::control::tables::{self, number};
use crate::embed::ModelInfo;
use crate::ingest::{Completion, Ingestor, JobError, LookError, Reindexing, left_over, settle, shadow_name};
use crate::queue::{Finished, Queue, QueueError, Reindex};
use crate::store::{CollectionSpec, StoreError, VectorStore};
use crate::telemetry::event;

/// Between two looks at whether a reindex can end.
const TICK: Duration = Duration::from_millis(500);
/// Taking the numbers for the status goes over all open jobs: it may take this part of the time.
const SHARE: u32 = 100;
/// Between two tries at what failed, or waits for a person.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a book in work may take to notice that the reindex is given up.
const CALL_OFF: Duration = Duration::from_secs(120);
/// The key of the state's `meta` with the name of the collection it is about.
const COLLECTION: &str = "collection";

/// What is known of it, for the status.
#[derive(Default)]
pub(super) struct ReindexView {
    outdated: Mutex<Option<OutdatedStatus>>,
    status: Mutex<Option<ReindexStatus>>,
    waits_for: Mutex<Option<String>>,
    /// The shadow was compared with the state point by point.
    verified: AtomicBool,
    /// One thing at a time: a person's word, or the thread's next step.
    at_work: Mutex<()>,
    /// Jobs done when the numbers were taken, and when they may be taken again.
    seen: Mutex<Option<(u64, Instant)>>,
}

impl ReindexView {
    pub(super) fn outdated(&self) -> Option<OutdatedStatus> {
        lock(&self.outdated).clone()
    }

    pub(super) fn status(&self) -> Option<ReindexStatus> {
        lock(&self.status).clone()
    }

    /// At the start: the operator is told once what other settings made, and what it would cost to make it anew.
    ///
    /// # Errors
    /// Where the state does not answer.
    pub(super) fn begin(&self, service: &Service) -> Result<(), DaemonError> {
        refresh(service).map_err(LookError::from)??;
        let Some(outdated) = self.outdated().filter(|_| self.status().is_none()) else { return Ok(()) };
        tracing::warn!(
            MESSAGE_ID = event::SETTINGS_CHANGED,
            BOOKS = outdated.books,
            TOKENS = outdated.tokens,
            SECONDS = outdated.seconds,
            "{}. They stay as they are until their content changes or you ask: `alexandriactl reindex` makes all of them \
             anew beside the live index, `alexandriactl ingest --force BOOK` one",
            tables::outdated(&outdated)
        );
        Ok(())
    }
}

/// What ends a step of the thread early.
type Step<T> = Result<T, JobError>;

/// At the start, before the collection is touched: ends what a kill left of a switch. The reindex that goes on, if any.
///
/// # Errors
/// Where the state does not answer.
pub(super) fn resume(
    queue: &mut Queue,
    store: &dyn VectorStore,
    spec: &CollectionSpec,
    reindexing: &Reindexing,
) -> Result<Option<Reindex>, DaemonError> {
    let Some(reindex) = queue.reindex()? else { return Ok(None) };
    match settle(&reindex, store, &spec.name) {
        Ok(true) => {
            let finished = queue.finish_reindex(left_over(&reindex, store, &spec.name).as_deref(), now_us())?;
            tell_done(&reindex, finished);
            Ok(None)
        }
        Err(error) if reindex.switching => {
            reindexing.set_interrupted(Some(unfinished(&reindex, &error)));
            Ok(Some(reindex))
        }
        // A server that is down is waited for elsewhere.
        Ok(false) | Err(_) => Ok(Some(reindex)),
    }
}

fn unfinished(reindex: &Reindex, error: &dyn std::fmt::Display) -> String {
    format!("the switch to the collection '{}' has to be ended first: {error}", reindex.collection)
}

/// Whether what the collection holds was put there by this service, with another model: then there is a way on.
///
/// # Errors
/// Where the state does not answer.
pub(super) fn is_of_our_old_model(queue: &Queue, collection: &str, model: &ModelInfo) -> Result<bool, DaemonError> {
    // States of before do not say which collection they are about.
    let same = queue.meta(COLLECTION)?.is_none_or(|known| known == collection);
    Ok(same && queue.outdated("", &model.fingerprint)?.model > 0)
}

/// The state is about this collection.
///
/// # Errors
/// Where the state cannot be written.
pub(super) fn is_ours(queue: &mut Queue, collection: &str) -> Result<(), DaemonError> {
    if queue.meta(COLLECTION)?.as_deref() != Some(collection) {
        queue.set_meta(COLLECTION, Some(collection))?;
    }
    Ok(())
}

/// Nothing is written to the live collection, nor searched in it.
pub(super) fn close(reindexing: &Reindexing, error: &StoreError) {
    let reason = format!(
        "{error}. Nothing is written to it, and this service cannot search in it; its readers find what is there. \
         `alexandriactl reindex` builds a new one beside it and switches when that is whole"
    );
    tracing::warn!("{reason}");
    reindexing.close(Some(reason));
}

/// Goes on with a reindex that was begun before the start, where the settings are still those.
pub(super) fn go_on(ingestor: &Ingestor, reindex: &Reindex) {
    if !is_of(reindex, ingestor) {
        tracing::warn!(
            COLLECTION = reindex.collection,
            "the reindex into the collection '{}' was begun with other settings and does not go on: `alexandriactl \
             reindex` begins anew with the present ones, `alexandriactl reindex --abort` gives it up",
            reindex.collection
        );
        return;
    }
    match ingestor.shadow_in(&reindex.collection) {
        Ok(shadow) => ingestor.reindexing.set_shadow(Some(shadow.into())),
        Err(error) => tracing::error!("the reindex does not go on: {error}"),
    }
}

/// Whether a reindex builds what the present settings make.
fn is_of(reindex: &Reindex, ingestor: &Ingestor) -> bool {
    reindex.chunker_fingerprint == ingestor.settings.chunker_fingerprint()
        && reindex.model_fingerprint == ingestor.embedder.info().fingerprint
}

/// A person's word on the control socket; answers with what was done.
pub(super) fn ask(service: &Service, request: &ReindexRequest) -> Result<String, String> {
    let done = if request.abort { abort(service) } else { begin(service, request) };
    // The status shows it at once.
    let _ = refresh(service);
    done.map_err(|error| match error {
        JobError::Failed(failure) | JobError::LibraryAway(failure) => failure.reason,
        JobError::Interrupted => "the service is stopping".to_owned(),
    })
}

fn refused(reason: impl std::fmt::Display) -> JobError {
    crate::domain::Failure::transient(reason).into()
}

fn begin(service: &Service, request: &ReindexRequest) -> Step<String> {
    let (view, ingestor) = (&service.reindex, &service.parts.ingestor);
    let _one = lock(&view.at_work);
    let queue = &service.parts.queue;
    if let Some(reason) = ingestor.reindexing.interrupted() {
        return Err(refused(reason));
    }
    match queue.call(|queue| queue.reindex())?? {
        Some(reindex) if is_of(&reindex, ingestor) => {
            let changed = Reindex {
                replace: reindex.replace || request.replace,
                skip_failed: reindex.skip_failed || request.skip_failed,
                ..reindex
            };
            let (collection, told) = (changed.collection.clone(), changed.clone());
            queue.call(move |queue| queue.set_reindex(&told))??;
            *lock(&view.waits_for) = None;
            let how = match (changed.replace, changed.skip_failed) {
                (false, false) => "",
                (true, false) => "; the collection of before may be deleted",
                (false, true) => "; books that cannot be read may be left out",
                (true, true) => "; the collection of before may be deleted, and books that cannot be read left out",
            };
            return Ok(format!("the reindex into '{collection}' goes on{how} (alexandriactl status)"));
        }
        Some(_) => give_up(service)?,
        None => {}
    }
    let info = ingestor.embedder.info();
    let (chunker, model) = (ingestor.settings.chunker_fingerprint(), info.fingerprint.clone());
    let (of_chunker, of_model) = (chunker.clone(), model.clone());
    let outdated = queue.call(move |queue| queue.outdated(&of_chunker, &of_model))??;
    if outdated.books == 0 && ingestor.reindexing.closed().is_none() {
        return Err(refused("all books in the index are made with the present settings: there is nothing to reindex"));
    }
    let name = &service.config.store.collection;
    let store = &service.parts.store;
    let found = store.resolve(name)?;
    let is_switched_at_once = !matches!(found, crate::store::Resolved::Collection);
    let from = found.target(name).ok_or_else(|| refused(format!("there is no collection '{name}' yet")))?;
    let collection = shadow_name(name, &chunker, &model, &from);
    let shadow = ingestor.shadow_in(&collection)?;
    let reindex = Reindex {
        collection: collection.clone(),
        from,
        chunker_fingerprint: chunker,
        model_fingerprint: model,
        model_id: info.id.clone(),
        started_us: now_us(),
        replace: request.replace,
        skip_failed: request.skip_failed,
        switching: false,
    };
    let of_state = reindex.clone();
    // The state first: a collection that it does not know would never be deleted.
    let books = queue.call(move |queue| queue.begin_reindex(&of_state, now_us()))??;
    if let Err(error) = shadow.store.ensure_collection(&shadow.collection) {
        queue.call(|queue| queue.abort_reindex())??;
        return Err(error.into());
    }
    view.verified.store(false, Ordering::Relaxed);
    *lock(&view.waits_for) = None;
    ingestor.reindexing.set_shadow(Some(shadow.into()));
    queue.work_available();
    tracing::info!(
        MESSAGE_ID = event::REINDEX_BEGUN,
        COLLECTION = collection,
        BOOKS = books,
        "the reindex has begun: {books} books go into the collection '{collection}', {} of them are made anew",
        outdated.books
    );
    let end = if is_switched_at_once || reindex.replace {
        "it takes the live one's place when it is whole".to_owned()
    } else {
        format!(
            "'{name}' is a collection on the server and no alias, so at the end it stays until you say `alexandriactl reindex \
             --replace`"
        )
    };
    let foreign = match ingestor.foreign_points().unwrap_or_default() {
        0 => String::new(),
        points => format!(
            "; {points} points of '{name}' are none of this service's, and will not be in it: the switch needs `alexandriactl \
             reindex --replace`"
        ),
    };
    let cost = view.outdated().map_or(String::new(), |outdated| format!(" ({})", tables::outdated(&outdated)));
    Ok(format!(
        "{} books go into the new collection '{collection}', {} are made anew{cost}; {end}{foreign}",
        number(books),
        number(outdated.books)
    ))
}

fn abort(service: &Service) -> Step<String> {
    let ingestor = &service.parts.ingestor;
    if let Some(reason) = ingestor.reindexing.interrupted() {
        return Err(refused(reason));
    }
    // Not behind the lock: a comparison that goes on ends by this.
    ingestor.call_off(CALL_OFF)?;
    let _one = lock(&service.reindex.at_work);
    let Some(reindex) = service.parts.queue.call(|queue| queue.reindex())?? else {
        return Err(refused("no reindex goes on"));
    };
    give_up(service)?;
    Ok(format!("the reindex is given up; the collection '{}' is deleted, '{}' stays", reindex.collection, reindex.from))
}

fn give_up(service: &Service) -> Step<()> {
    service.parts.ingestor.call_off(CALL_OFF)?;
    service.parts.queue.call(|queue| queue.abort_reindex())??;
    *lock(&service.reindex.waits_for) = None;
    delete_dropped(service)
}

/// Until the service stops: ends a reindex that is whole, and keeps the status's numbers.
pub(super) fn run(service: &Service) {
    let stopping = || service.parts.stopping.load(Ordering::Relaxed);
    let mut told = String::new();
    let mut next = Instant::now();
    let waits = || lock(&service.reindex.waits_for).is_some();
    let mut waited = false;
    while !stopping() {
        // At once where a person has said how it goes on.
        if Instant::now() >= next || waited && !waits() {
            next = Instant::now() + TICK;
            let one = lock(&service.reindex.at_work);
            match step(service) {
                Ok(()) => told.clear(),
                Err(JobError::Failed(failure) | JobError::LibraryAway(failure)) => {
                    if told != failure.reason {
                        tracing::warn!("the reindex waits: {failure}");
                        told.clone_from(&failure.reason);
                    }
                    *lock(&service.reindex.waits_for) = Some(failure.reason);
                }
                Err(JobError::Interrupted) => {}
            }
            drop(one);
            waited = waits();
            if waited {
                next = Instant::now() + PATIENCE;
            }
            let _ = refresh_sometimes(service);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn step(service: &Service) -> Step<()> {
    let (view, ingestor) = (&service.reindex, &service.parts.ingestor);
    let name = &service.config.store.collection;
    let Some(reindex) = service.parts.queue.call(|queue| queue.reindex())?? else {
        delete_dropped(service)?;
        *lock(&view.waits_for) = None;
        return Ok(());
    };
    if let Some(reason) = ingestor.reindexing.interrupted() {
        match settle(&reindex, service.parts.store.as_ref(), name) {
            Ok(true) => tell_done(&reindex, ingestor.follow_the_switch(&reindex)?),
            Ok(false) => ingestor.reindexing.set_interrupted(None),
            Err(error) => {
                tracing::debug!("{reason}");
                ingestor.reindexing.set_interrupted(Some(unfinished(&reindex, &error)));
            }
        }
        return Ok(());
    }
    match ingestor.try_to_complete(&view.verified)? {
        Completion::Busy => *lock(&view.waits_for) = None,
        Completion::Switched(finished) => {
            *lock(&view.waits_for) = None;
            tell_done(&reindex, finished);
            let deleted = delete_dropped(service);
            refresh(service)??;
            deleted?;
        }
        Completion::Waits(reason) => {
            // A person may have switched it at the server.
            if settle(&reindex, service.parts.store.as_ref(), name)? {
                tell_done(&reindex, ingestor.follow_the_switch(&reindex)?);
                return Ok(());
            }
            let mut waits_for = lock(&view.waits_for);
            if waits_for.as_ref() != Some(&reason) {
                tracing::warn!(
                    MESSAGE_ID = event::REINDEX_WAITS,
                    COLLECTION = reindex.collection,
                    REASON = reason,
                    "the reindex waits: {reason}"
                );
                *waits_for = Some(reason);
            }
        }
    }
    Ok(())
}

fn tell_done(reindex: &Reindex, finished: Finished) {
    let behind = match finished.left_behind {
        0 => String::new(),
        books => format!("; {books} books could not be read any more and have left the index (alexandriactl failed)"),
    };
    tracing::info!(
        MESSAGE_ID = event::REINDEX_DONE,
        COLLECTION = reindex.collection,
        BOOKS = finished.books,
        "the reindex is done: the live collection is '{}' now, with {} books{behind}",
        reindex.collection,
        finished.books
    );
}

/// Deletes the collections that a switch or a person's word left over.
fn delete_dropped(service: &Service) -> Step<()> {
    let (queue, store, name) = (&service.parts.queue, &service.parts.store, &service.config.store.collection);
    for collection in queue.call(|queue| queue.dropped())?? {
        let in_use = store.resolve(name)?.target(name).as_ref() == Some(&collection)
            || queue.call(|queue| queue.reindex())??.is_some_and(|reindex| reindex.collection == collection);
        if !in_use {
            store.drop_collection(&collection)?;
            tracing::info!(COLLECTION = collection, "the collection '{collection}' is deleted");
        }
        queue.call(move |queue| queue.forget_dropped(&collection))??;
    }
    Ok(())
}

/// Takes the numbers anew where something was done, not too often.
fn refresh_sometimes(service: &Service) -> Result<(), QueueError> {
    let done = service.finished.load(Ordering::Relaxed);
    let seen = *lock(&service.reindex.seen);
    let is_new = seen.is_none_or(|(at, next)| at != done && Instant::now() >= next);
    let waits = lock(&service.reindex.waits_for).clone();
    let is_told = lock(&service.reindex.status).as_ref().is_none_or(|status| status.waits_for == waits);
    if is_new || !is_told {
        // A queue that has ended is the workers' to tell.
        return refresh(service).unwrap_or(Ok(()));
    }
    Ok(())
}

/// What other settings made, the cost of a reindex, and how far it is, as they are now.
fn refresh(service: &Service) -> Result<Result<(), QueueError>, crate::queue::QueueStopped> {
    let (view, started) = (&service.reindex, Instant::now());
    let done = service.finished.load(Ordering::Relaxed);
    let info = service.parts.embedder.info();
    let chunker = service.parts.ingestor.settings.chunker_fingerprint();
    let (model, id, device) = (info.fingerprint.clone(), info.id.clone(), info.device.clone());
    let known = service.parts.queue.call(move |queue| {
        let reindex = queue.reindex()?;
        let counts = if reindex.is_some() { Some(queue.reindex_counts()?) } else { None };
        Ok::<_, QueueError>((queue.outdated(&chunker, &model)?, queue.measured_rate(&id, &device)?, reindex, counts))
    })?;
    let (outdated, rate, reindex, counts) = match known {
        Ok(known) => known,
        Err(error) => return Ok(Err(error)),
    };
    *lock(&view.outdated) = (outdated.books > 0).then(|| OutdatedStatus {
        books: outdated.books,
        chunker_books: outdated.chunker,
        model_books: outdated.model,
        tokens: outdated.tokens,
        tokens_per_second: rate,
        seconds: rate.map(|rate| outdated.tokens as f64 / rate),
    });
    let goes_on = service.parts.ingestor.reindexing.shadow().is_some();
    let waits_for = lock(&view.waits_for).clone();
    *lock(&view.status) = reindex.zip(counts).map(|(reindex, counts)| ReindexStatus {
        collection: reindex.collection,
        from: reindex.from,
        started_us: reindex.started_us,
        books: counts.books,
        points: counts.points,
        tokens: counts.tokens,
        queued: counts.queued + counts.running,
        left_behind: counts.left_behind,
        tokens_left: counts.tokens_left,
        seconds_left: rate.map(|rate| counts.tokens_left as f64 / rate),
        waits_for: if goes_on {
            waits_for
        } else {
            Some(
                "begun with other settings: `alexandriactl reindex` begins anew with the present ones, `alexandriactl reindex \
                 --abort` gives it up"
                    .to_owned(),
            )
        },
    });
    *lock(&view.seen) = Some((done, Instant::now() + TICK.max(started.elapsed() * SHARE)));
    Ok(Ok(()))
}
