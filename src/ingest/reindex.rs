//! A reindex: a second collection (the shadow) is filled beside the live one, and takes its place when it holds all that
//! the live one does. Which of the two are written at a moment, how the shadow's jobs save work, and the switch.
//!
//! Must never switch to a collection that was not counted, nor while a job is in work, nor leave behind a book that the
//! live collection has unless a person said so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::progress::Stage;
use super::{Ingestor, JobError, JobSummary, StoreWatch, Timings, plan};
use crate::clock::now_us;
use crate::domain::Failure;
use crate::queue::{ClaimedJob, Finished, IndexedState, Lanes, Outcome, Reindex};
use crate::store::{CollectionSpec, Filter, Resolved, StoreError, VectorStore};

/// Between two looks at whether the jobs in work have ended.
const TICK: Duration = Duration::from_millis(20);
/// Hex digits that tell collections of one name apart.
const DIGITS: usize = 12;

/// Which collections are written.
#[derive(Default)]
pub struct Reindexing {
    /// True while nothing may be claimed. Read by whoever claims, for as long as that takes.
    held: RwLock<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shadow: Option<Arc<Ingestor>>,
    closed: Option<String>,
    interrupted: Option<String>,
}

impl Reindexing {
    fn state(&self) -> MutexGuard<'_, State> {
        // The fields are replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What fills the shadow, while a reindex goes on.
    pub fn shadow(&self) -> Option<Arc<Ingestor>> {
        self.state().shadow.clone()
    }

    pub fn set_shadow(&self, shadow: Option<Arc<Ingestor>>) {
        self.state().shadow = shadow;
    }

    /// Why nothing is written to the live collection, nor searched in it: it holds another model's vectors.
    pub fn closed(&self) -> Option<String> {
        self.state().closed.clone()
    }

    pub fn close(&self, reason: Option<String>) {
        self.state().closed = reason;
    }

    /// Why not even the live collection's name may be used: a switch was interrupted, and has to be ended first.
    pub fn interrupted(&self) -> Option<String> {
        self.state().interrupted.clone()
    }

    pub fn set_interrupted(&self, reason: Option<String>) {
        self.state().interrupted = reason;
    }

    /// Hands what may be claimed to `claim`; None where that is nothing. No switch begins before it returns.
    pub(super) fn while_claiming<T>(&self, claim: impl FnOnce(Option<Lanes>) -> T) -> T {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let lanes = {
            let state = self.state();
            match (&state.interrupted, &state.closed, &state.shadow) {
                (Some(_), ..) | (None, Some(_), None) => None,
                (None, Some(_), Some(_)) => Some(Lanes::Shadow),
                (None, None, Some(_)) => Some(Lanes::Both),
                (None, None, None) => Some(Lanes::Live),
            }
        };
        claim(lanes.filter(|_| !*held))
    }

    fn hold(&self) -> Held<'_> {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = true;
        Held(self)
    }
}

/// Nothing is claimed while this lives.
struct Held<'a>(&'a Reindexing);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// How a try to end a reindex came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// There is work for it left.
    Busy,
    /// All is done that can be; a person has to say how it goes on.
    Waits(String),
    Switched(Finished),
}

/// The name of the collection that a reindex of `name` fills: tells the settings, and is never `taken`.
pub fn shadow_name(name: &str, chunker_fingerprint: &str, model_fingerprint: &str, taken: &str) -> String {
    let settings = format!("collection\n{chunker_fingerprint}\n{model_fingerprint}");
    let hash = uuid::Uuid::new_v5(&crate::domain::UUID_NAMESPACE, settings.as_bytes()).simple().to_string();
    let shadow = format!("{name}-{}", &hash[..DIGITS]);
    if shadow == taken { format!("{shadow}-2") } else { shadow }
}

/// Whether a collection has a name that [`shadow_name`] gives: nobody else's.
fn is_ours(collection: &str, name: &str) -> bool {
    collection.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|rest| {
        let digits = rest.strip_suffix("-2").unwrap_or(rest);
        digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Ends in the store what a kill, or a person at the store, left of a switch. True where `name` stands for the reindex's
/// collection now, so that the state has to follow.
///
/// # Errors
/// Where the store does not answer.
pub fn settle(reindex: &Reindex, store: &dyn VectorStore, name: &str) -> Result<bool, StoreError> {
    if store.resolve(name)?.target(name).as_ref() == Some(&reindex.collection) {
        return Ok(true);
    }
    if reindex.switching {
        store.switch(name, &reindex.collection)?;
    }
    Ok(reindex.switching)
}

/// The collection of before where it is to be deleted after a switch: one that this service made for a reindex, or whose
/// name a pointer of the embedded store hides.
pub fn left_over(reindex: &Reindex, store: &dyn VectorStore, name: &str) -> Option<String> {
    // Not where a person has the service use the new one by its own name.
    let hidden = name != reindex.collection && (store.is_private() || is_ours(&reindex.from, name));
    (hidden && reindex.from != reindex.collection && !reindex.from.is_empty()).then(|| reindex.from.clone())
}

impl Ingestor {
    /// Whether this one writes into the collection that a reindex builds.
    pub fn is_shadow(&self) -> bool {
        self.copies_from.is_some()
    }

    /// What fills `collection` beside this one's.
    ///
    /// # Errors
    /// Where the store cannot be used for it.
    pub fn shadow_in(&self, collection: &str) -> Result<Ingestor, StoreError> {
        Ok(Ingestor {
            queue: self.queue.clone(),
            embedder: self.embedder.clone(),
            store: self.store.beside(collection)?,
            collection: CollectionSpec { name: collection.to_owned(), ..self.collection.clone() },
            settings: self.settings.clone(),
            sandbox: self.sandbox.clone(),
            fetcher: self.fetcher.clone(),
            gate: self.gate.clone(),
            reindexing: Arc::default(),
            copies_from: Some(self.store.clone()),
            called_off: AtomicBool::new(false),
            store_watch: StoreWatch::default(),
            progress: self.progress.clone(),
            stopping: self.stopping.clone(),
        })
    }

    /// Refuses to make or check the collection where that would be wrong: its name stands for nothing in the middle of a
    /// switch.
    pub(super) fn may_be_ensured(&self) -> Result<(), JobError> {
        match self.reindexing.interrupted() {
            Some(reason) => Err(Failure::dependency(reason).into()),
            None => Ok(()),
        }
    }

    /// [`Ingestor::finish_written`], by whoever writes the jobs' collection; all of them are of one.
    pub(super) fn finish_written_in_their_collection(
        &self,
        written: &[(ClaimedJob, JobSummary)],
    ) -> Result<(), JobError> {
        match written.first() {
            Some((job, _)) if job.shadow => {
                self.reindexing.shadow().ok_or(JobError::Interrupted)?.finish_written(written)
            }
            _ => self.finish_written(written),
        }
    }

    /// Copies the book's points from the live collection where they are made with the present settings: nothing is read
    /// or embedded. None where they are not, or not whole.
    pub(super) fn take_over(
        &self,
        job: &ClaimedJob,
        timings: &mut Timings,
    ) -> Result<Option<(Outcome, IndexedState)>, JobError> {
        let Some(live) = &self.copies_from else { return Ok(None) };
        let (chunker, model) = (self.settings.chunker_fingerprint(), &self.embedder.info().fingerprint);
        let Some(indexed) = plan::same_settings(job, &chunker, model) else { return Ok(None) };
        self.step(job, Stage::Store)?;
        let library = job.book.library_uuid.to_string();
        let written = timings.measure("store", || {
            let mut ids = live.points_of_book(job.book.uuid)?;
            ids.retain(|point| point.library_uuid == library && point.generation == indexed.generation);
            let mut points = live.fetch(&ids.iter().map(|point| point.id).collect::<Vec<_>>())?;
            if points.len() != indexed.points {
                return Ok(false);
            }
            for point in &mut points {
                // Points of an older version do not have them.
                point.payload.chunker_fingerprint.clone_from(&indexed.chunker_fingerprint);
                point.payload.model_fingerprint.clone_from(&indexed.model_fingerprint);
            }
            self.write(job, &points, indexed)?;
            Ok::<_, JobError>(true)
        })?;
        if !written {
            return Ok(None);
        }
        let kept = self.keep(job, indexed.clone(), timings)?;
        Ok(kept.map(|(_, indexed)| (Outcome::Adopted, indexed)))
    }

    /// Ends the reindex where that can be: everything is in the shadow, and was counted there. `verified` remembers that
    /// between calls.
    ///
    /// # Errors
    /// Where state or store do not answer, or the process stops.
    pub fn try_to_complete(&self, verified: &AtomicBool) -> Result<Completion, JobError> {
        let Some(shadow) = self.reindexing.shadow() else { return Ok(Completion::Busy) };
        let Some(mut reindex) = self.queue.call(|queue| queue.reindex())?? else { return Ok(Completion::Busy) };
        let name = &self.collection.name;
        if !self.is_whole()? {
            return Ok(Completion::Busy);
        }
        if let Some(reason) = self.left_behind(&reindex)? {
            return Ok(Completion::Waits(reason));
        }
        if !verified.load(Ordering::Relaxed) {
            let report = shadow.audit(true)?;
            if report.foreign_points > 0 {
                return Ok(Completion::Waits(format!(
                    "somebody else writes into the new collection '{}': {} points there are none of this service's",
                    reindex.collection, report.foreign_points
                )));
            }
            if !report.agrees() {
                let reason = format!("the collection '{}' is not whole yet: {}", reindex.collection, report.summary());
                return Err(Failure::transient(reason).into());
            }
            // So that the first searches after the switch are no slower than those before.
            shadow.store.maintain()?;
            verified.store(true, Ordering::Relaxed);
        }
        let found = self.store.resolve(name)?;
        if found == Resolved::Collection && !reindex.replace {
            return Ok(Completion::Waits(format!(
                "the new collection '{}' is complete and kept up to date. '{name}' is a collection itself, so it cannot be \
                 switched without a moment in which there is nothing under that name: `alexandriactl reindex --replace` \
                 deletes it and has the name stand for the new one; later reindexes then switch at once. To lose not even \
                 that moment, set store.collection (and the readers') to '{}', and restart",
                reindex.collection, reindex.collection
            )));
        }
        if let Some(reason) = self.others_points(&reindex)? {
            return Ok(Completion::Waits(reason));
        }
        let _held = self.reindexing.hold();
        while !self.queue.call(|queue| queue.nothing_runs())?? {
            self.interrupted()?;
            std::thread::sleep(TICK);
        }
        let counts = self.queue.call(|queue| queue.reindex_counts())??;
        if !self.is_whole()? || self.left_behind(&reindex)?.is_some() {
            return Ok(Completion::Busy);
        }
        if shadow.store.count(&Filter::default())? as u64 != counts.points {
            verified.store(false, Ordering::Relaxed);
            return Ok(Completion::Busy);
        }
        if let Some(reason) = self.others_points(&reindex)? {
            return Ok(Completion::Waits(reason));
        }
        reindex.switching = true;
        // A state from a backup may name another one.
        reindex.from = found.target(name).unwrap_or_default();
        let switching = reindex.clone();
        // From here until the state follows, nobody may use the name: what it stands for and the state's rows may differ.
        let unfinished = format!("the switch to the collection '{}' is being made", reindex.collection);
        self.reindexing.set_interrupted(Some(unfinished));
        self.queue.call(move |queue| queue.set_reindex(&switching))??;
        if let Err(error) = self.store.switch(name, &reindex.collection) {
            let reason = format!("the switch to the collection '{}' is not done yet: {error}", reindex.collection);
            if self.store.resolve(name).is_ok_and(|found| found.target(name).as_ref() == Some(&reindex.from)) {
                // Nothing has happened.
                reindex.switching = false;
                self.queue.call(move |queue| queue.set_reindex(&reindex))??;
                self.reindexing.set_interrupted(None);
                return Ok(Completion::Waits(reason));
            }
            self.reindexing.set_interrupted(Some(reason));
            return Err(error.into());
        }
        Ok(Completion::Switched(self.follow_the_switch(&reindex)?))
    }

    /// After the store's switch: the state says so, and this one writes the new collection.
    ///
    /// # Errors
    /// Where the state does not answer.
    pub fn follow_the_switch(&self, reindex: &Reindex) -> Result<Finished, JobError> {
        let left_over = left_over(reindex, self.store.as_ref(), &self.collection.name);
        let finished = self.queue.call(move |queue| queue.finish_reindex(left_over.as_deref(), now_us()))??;
        self.reindexing.set_shadow(None);
        self.reindexing.close(None);
        self.reindexing.set_interrupted(None);
        self.store_watch.check_again();
        // Where that fails, the workers do it before the next job.
        let _ = self.ensure_store();
        self.queue.work_available();
        Ok(finished)
    }

    /// What the live collection holds beside this service's points, which the new one will not have: another library's,
    /// or another program's. How many.
    ///
    /// # Errors
    /// Where state or store do not answer.
    pub fn foreign_points(&self) -> Result<u64, JobError> {
        if self.store.is_private() {
            return Ok(0);
        }
        let held = self.store.count(&Filter::default())? as u64;
        let own = self.queue.call(|queue| queue.stats())??.points;
        Ok(held.saturating_sub(own))
    }

    /// Why a person has to agree that those are lost.
    fn others_points(&self, reindex: &Reindex) -> Result<Option<String>, JobError> {
        let foreign = if reindex.replace { 0 } else { self.foreign_points()? };
        Ok((foreign > 0).then(|| {
            format!(
                "the new collection '{}' is complete, but {foreign} points of '{}' are none of this service's, and are not \
                 in it. Copy them, or let them go with `alexandriactl reindex --replace`",
                reindex.collection, self.collection.name
            )
        }))
    }

    /// Whether the shadow has nothing to do.
    fn is_whole(&self) -> Result<bool, JobError> {
        let open = self.reindexing.closed().is_none();
        Ok(self.queue.call(move |queue| queue.reindex_is_idle(open))??)
    }

    /// What the switch would lose, where nobody said that it may.
    fn left_behind(&self, reindex: &Reindex) -> Result<Option<String>, JobError> {
        let (counts, missing) = self
            .queue
            .call(|queue| Ok::<_, crate::queue::QueueError>((queue.reindex_counts()?, queue.reindex_missing()?)))??;
        if reindex.skip_failed || counts.left_behind + missing == 0 {
            return Ok(None);
        }
        let mut parts = Vec::new();
        if counts.left_behind > 0 {
            parts.push(format!("{} books cannot be read any more (alexandriactl failed)", counts.left_behind));
        }
        if missing > 0 {
            parts.push(format!("{missing} books are missing in the library at present"));
        }
        Ok(Some(format!(
            "{}; the live collection still has them, so it stays. Mend them and run `alexandriactl retry --all`, or have \
             them left out of the index: `alexandriactl reindex --skip-failed`",
            parts.join(", ")
        )))
    }

    /// Gives the reindex up in this process: the shadow's jobs in work go back.
    ///
    /// # Errors
    /// Where one of them does not end within `patience`.
    pub fn call_off(&self, patience: Duration) -> Result<(), JobError> {
        let Some(shadow) = self.reindexing.shadow() else { return Ok(()) };
        shadow.called_off.store(true, Ordering::Relaxed);
        self.reindexing.set_shadow(None);
        let started = std::time::Instant::now();
        while self.queue.call(|queue| queue.reindex_counts())??.running > 0 {
            self.interrupted()?;
            if started.elapsed() > patience {
                shadow.called_off.store(false, Ordering::Relaxed);
                self.reindexing.set_shadow(Some(shadow));
                return Err(Failure::transient("a book is still being read for the new collection; ask again").into());
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_has_a_name_of_its_own() {
        let shadow = shadow_name("books", "chunker", "model", "books");
        assert!(is_ours(&shadow, "books") && shadow.starts_with("books-"), "{shadow}");
        assert_eq!(shadow, shadow_name("books", "chunker", "model", "books"));
        assert_ne!(shadow, shadow_name("books", "chunker", "another model", "books"));
        let second = shadow_name("books", "chunker", "model", &shadow);
        assert!(is_ours(&second, "books") && second != shadow);
        for other in ["books", "books-", "books-2", "books-german", "books-0123456789ag", "other-0123456789ab"] {
            assert!(!is_ours(other, "books"), "{other}");
        }
    }

    #[test]
    fn what_may_be_claimed_follows_what_may_be_written() {
        let reindexing = Reindexing::default();
        let lanes = || reindexing.while_claiming(|lanes| lanes);
        assert_eq!(lanes(), Some(Lanes::Live));
        reindexing.close(Some("another model".into()));
        assert_eq!(lanes(), None);
        reindexing.close(None);
        {
            let _held = reindexing.hold();
            assert_eq!(lanes(), None);
        }
        assert_eq!(lanes(), Some(Lanes::Live));
        reindexing.set_interrupted(Some("in the middle".into()));
        assert_eq!(lanes(), None);
    }
}
