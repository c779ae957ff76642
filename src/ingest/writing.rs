//! A job's dealings with the store: what it holds of a book, what is written, what goes, and the wait for a store that
//! does not answer. The order of the steps is rule 4 of the design.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::progress::Stage;
use super::{Ingestor, JobError, JobSummary, Parents, Timings, inventory, plan, story};
use crate::clock::now_us;
use crate::domain::{CataloguePayload, Failure, FailureKind, Point, StoredPoint};
use crate::queue::{ClaimedJob, IndexedState, Outcome};
use crate::store::{Ensured, StoreError};
use crate::telemetry::event;

/// Points of one write.
const POINTS_PER_WRITE: usize = 256;
/// Between two tries to write a book that waits in memory: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How much older than the moment when a store was found lost the acknowledged writes are that may be gone with it. A
/// server syncs its disk every 5 s; an embedded store is synced before the state says anything.
const LOST_WITH_A_STORE_US: i64 = 60_000_000;

/// What is known of the store's health, by all who use it.
#[derive(Debug, Default)]
pub struct StoreWatch {
    /// The collection was verified, and nothing has failed since.
    ensured: AtomicBool,
    /// When the store was found not to answer, microseconds since the epoch; 0 while it does.
    lost_at_us: AtomicI64,
}

impl StoreWatch {
    /// Something failed: the collection is verified again before the next job.
    pub fn failed(&self, error: &StoreError) {
        self.ensured.store(false, Ordering::Relaxed);
        if error.is_unavailable() {
            // The first one counts.
            if self.lost_at_us.compare_exchange(0, now_us(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                tracing::warn!(
                    MESSAGE_ID = event::STORE_AWAY,
                    REASON = %error,
                    "{error}; books wait for the store, and go on by themselves"
                );
            }
        }
    }

    /// The collection is another one now.
    pub(super) fn check_again(&self) {
        self.ensured.store(false, Ordering::Relaxed);
    }

    fn is_ensured(&self) -> bool {
        self.ensured.load(Ordering::Relaxed)
    }

    /// Answers with the time from which on books must be looked at again, where the store was lost meanwhile.
    fn ensured(&self) -> Option<i64> {
        self.ensured.store(true, Ordering::Relaxed);
        let lost_at_us = self.lost_at_us.swap(0, Ordering::Relaxed);
        (lost_at_us != 0).then_some(lost_at_us - LOST_WITH_A_STORE_US)
    }
}

impl Ingestor {
    /// Before the hours of embedding, not after: a store that is down, full or another model's gives the job back. A
    /// collection that had to be made anew holds nothing of what the state says it does; one that was lost for a while
    /// may lack what it acknowledged last.
    pub fn ensure_store(&self) -> Result<(), JobError> {
        let waits = |error: StoreError| {
            self.store_watch.failed(&error);
            JobError::Failed(Failure::dependency(error))
        };
        if !self.store_watch.is_ensured() {
            self.may_be_ensured()?;
            let shadow = self.is_shadow();
            if self.store.ensure_collection(&self.collection).map_err(waits)? == Ensured::Empty {
                self.queue.call(move |queue| match shadow {
                    true => queue.forget_shadow(now_us()),
                    false => queue.forget_indexed(now_us()).map(drop),
                })??;
            }
            if let Some(since_us) = self.store_watch.ensured() {
                if shadow {
                    self.queue.call(move |queue| queue.recheck_shadow(since_us, now_us()))??;
                    return self.store.health().map_err(waits);
                }
                let books = self.queue.call(move |queue| queue.recheck(since_us, now_us()))??;
                tracing::info!(
                    MESSAGE_ID = event::STORE_BACK,
                    BOOKS = books,
                    "the store answers again; {books} books of the last minutes are compared with it"
                );
            }
        }
        self.store.health().map_err(waits)
    }

    /// A failure of the store, noted.
    fn on_store<T>(&self, result: Result<T, StoreError>) -> Result<T, JobError> {
        result.map_err(|error| {
            self.store_watch.failed(&error);
            JobError::from(error)
        })
    }

    /// The book's points in the store; those of the same book in another library are not its own.
    fn held(&self, job: &ClaimedJob) -> Result<Vec<StoredPoint>, JobError> {
        let library = job.book.library_uuid.to_string();
        let mut held = self.on_store(self.store.points_of_book(job.book.uuid))?;
        held.retain(|point| point.library_uuid == library);
        Ok(held)
    }

    fn delete(&self, ids: &[Uuid]) -> Result<(), JobError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.on_store(self.store.delete(ids))?;
        self.on_store(self.store.checkpoint())
    }

    /// The store's points stay; payloads are rewritten where the catalogue's data changed, made durable, and recorded.
    /// None where the store does not hold what the state says: the book has to be embedded again.
    pub(super) fn keep(
        &self,
        job: &ClaimedJob,
        indexed: IndexedState,
        timings: &mut Timings,
    ) -> Result<Option<(Outcome, IndexedState)>, JobError> {
        let Some((outcome, indexed)) = self.update_payloads(job, indexed, timings)? else { return Ok(None) };
        if outcome == Outcome::PayloadOnly {
            timings.measure("store", || self.on_store(self.store.checkpoint()))?;
        }
        self.record(job, &indexed)?;
        Ok(Some((outcome, indexed)))
    }

    /// As [`Ingestor::keep`], but neither durable nor recorded.
    pub(super) fn update_payloads(
        &self,
        job: &ClaimedJob,
        mut indexed: IndexedState,
        timings: &mut Timings,
    ) -> Result<Option<(Outcome, IndexedState)>, JobError> {
        self.step(job, Stage::Store)?;
        let catalogue = CataloguePayload::new(&job.book, &indexed.file_metadata, &indexed.content_hash);
        let metadata_hash = catalogue.hash();
        timings.measure("store", || {
            let Some(held) = self.settle(job, &indexed)? else { return Ok(None) };
            if indexed.metadata_hash == metadata_hash {
                return Ok(Some((Outcome::Unchanged, indexed)));
            }
            if !indexed.metadata_hash.is_empty() {
                // The edit may be taken back while only a part of the points has it.
                self.record(job, &IndexedState { metadata_hash: String::new(), ..indexed.clone() })?;
            }
            let ids: Vec<_> = held.iter().map(|point| point.id).collect();
            let named_after_book = indexed.sections == 1 && held.iter().any(|point| point.named_after_book);
            let section_name = named_after_book.then_some(catalogue.book_title.as_str());
            self.on_store(self.store.set_catalogue(&ids, &catalogue, section_name))?;
            indexed.metadata_hash = metadata_hash;
            Ok(Some((Outcome::PayloadOnly, indexed)))
        })
    }

    /// Ends jobs that only wrote payloads: the store syncs once for all of them, and only then the state says so, in one
    /// transaction. A kill before that has them done again, which changes nothing.
    pub fn finish_written(&self, written: &[(ClaimedJob, JobSummary)]) -> Result<(), JobError> {
        if written.iter().any(|(_, summary)| summary.report.outcome == Outcome::PayloadOnly) {
            self.on_store(self.store.checkpoint())?;
        }
        let ended: Vec<_> = written
            .iter()
            .filter_map(|(job, summary)| Some((job.id, summary.indexed.clone()?, summary.report.clone())))
            .collect();
        Ok(self.queue.call(move |queue| queue.complete_written(&ended, now_us()))??)
    }

    /// Deletes what a crash left of other generations. The book's points; None where some are missing.
    fn settle(&self, job: &ClaimedJob, indexed: &IndexedState) -> Result<Option<Vec<StoredPoint>>, JobError> {
        let (current, stale): (Vec<_>, Vec<_>) =
            self.held(job)?.into_iter().partition(|point| point.generation == indexed.generation);
        if current.len() != indexed.points {
            tracing::warn!(
                POINTS = current.len(),
                "the store holds {} of the book's {} points; it is embedded again",
                current.len(),
                indexed.points
            );
            return Ok(None);
        }
        self.delete(&stale.into_iter().map(|point| point.id).collect::<Vec<_>>())?;
        Ok(Some(current))
    }

    /// What the state would say of the book if it had written the generation that `read` names and the store holds whole:
    /// the state was lost, or the process died between the store's word and the state's. Its payloads may be old, so the
    /// hash of the metadata is left empty. None where anything is missing.
    pub(super) fn adopt(&self, job: &ClaimedJob, read: &IndexedState) -> Result<Option<IndexedState>, JobError> {
        let held = self.held(job)?;
        let current = held.iter().filter(|point| point.generation == read.generation);
        let whole = inventory::whole_book(current, self.settings.parents != Parents::None);
        Ok(whole.map(|whole| IndexedState {
            metadata_hash: String::new(),
            sections: whole.sections,
            chunks: whole.chunks,
            points: whole.points,
            tokens: whole.tokens,
            ..read.clone()
        }))
    }

    /// Rule 4, step by step.
    pub(super) fn write(&self, job: &ClaimedJob, points: &[Point], indexed: &IndexedState) -> Result<(), JobError> {
        self.hold_until_written(job, points)?;
        self.record(job, indexed)?;
        self.delete(&plan::stale(&self.held(job)?, points))?;
        self.expect_points(job, points.len())?;
        story::written(job, points.len());
        Ok(())
    }

    /// Writes the points and makes them durable. While the store does not answer they are held in memory, for hours of
    /// work are in them; the worker that holds them takes no other book, which bounds what is read ahead.
    fn hold_until_written(&self, job: &ClaimedJob, points: &[Point]) -> Result<(), JobError> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.write_all(points) {
                Err(JobError::Failed(failure)) if failure.kind == FailureKind::Dependency => failure,
                written => {
                    if self.progress.waits_for(job.id, None) && written.is_ok() {
                        tracing::info!(
                            SECONDS = started.elapsed().as_secs_f64(),
                            "book {} '{}' is written, after a wait of {} s for the store",
                            job.book.source.id(),
                            job.book.metadata.title,
                            started.elapsed().as_secs()
                        );
                    }
                    return written;
                }
            };
            if started.elapsed() + pause > self.settings.store_patience {
                return Err(failure.into());
            }
            if !self.progress.waits_for(job.id, Some(failure.reason.clone())) {
                tracing::warn!(
                    MESSAGE_ID = event::BOOK_WAITS,
                    FAILURE = failure.kind.as_str(),
                    REASON = failure.reason,
                    POINTS = points.len(),
                    "book {} '{}': {failure}; its {} points are held in memory until the store takes them",
                    job.book.source.id(),
                    job.book.metadata.title,
                    points.len()
                );
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                self.interrupted()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            // It may come back without its collection. A failure shows again in the write.
            let _ = self.ensure_store();
        }
    }

    fn write_all(&self, points: &[Point]) -> Result<(), JobError> {
        for batch in points.chunks(POINTS_PER_WRITE) {
            self.interrupted()?;
            match self.store.upsert(batch) {
                // Is it this book that is refused, or everything (a key that was changed)?
                Err(error @ StoreError::Rejected { .. }) => {
                    self.store_watch.failed(&error);
                    self.ensure_store()?;
                    return Err(error.into());
                }
                written => self.on_store(written)?,
            }
        }
        self.on_store(self.store.checkpoint())
    }

    pub(super) fn remove(&self, job: &ClaimedJob, timings: &mut Timings) -> Result<Outcome, JobError> {
        self.step(job, Stage::Store)?;
        timings.measure("store", || {
            // First, so that the book cannot come back with the switch.
            if let Some(shadow) = self.reindexing.shadow() {
                shadow.remove_points(job)?;
            }
            self.remove_points(job)
        })?;
        Ok(Outcome::Removed)
    }

    fn remove_points(&self, job: &ClaimedJob) -> Result<(), JobError> {
        self.ensure_store()?;
        self.delete(&self.held(job)?.into_iter().map(|point| point.id).collect::<Vec<_>>())?;
        self.expect_points(job, 0)
    }

    fn expect_points(&self, job: &ClaimedJob, expected: usize) -> Result<(), JobError> {
        let held = self.held(job)?.len();
        if held == expected {
            return Ok(());
        }
        Err(Failure::transient(format!("the store holds {held} points of the book instead of {expected}")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_was_lost_is_checked_from_before_it_was_missed() {
        let watch = StoreWatch::default();
        assert_eq!((watch.is_ensured(), watch.ensured()), (false, None));
        let before = now_us();
        let lost = StoreError::Unavailable { location: "x".into(), reason: "down".into() };
        watch.failed(&lost);
        watch.failed(&lost);
        assert!(!watch.is_ensured());
        let since = watch.ensured().unwrap();
        assert!((before - LOST_WITH_A_STORE_US..=now_us() - LOST_WITH_A_STORE_US).contains(&since));
        assert_eq!(watch.ensured(), None, "once");
        watch.failed(&StoreError::Rejected { location: "x".into(), reason: "no".into() });
        assert_eq!((watch.is_ensured(), watch.ensured()), (false, None), "a refusal loses nothing");
    }
}
