//! The remaining time of the running service: gathers what [`crate::telemetry::estimate`] reckons with, on a thread of its
//! own. Sums over the state come in slices, so that nobody waits for them; what comes and goes in between is counted along.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::service::{Service, lock};
use crate::control::protocol::Estimate;
use crate::control::tables::{number, seconds};
use crate::domain::BookFile;
use crate::ingest::CurrentJob;
use crate::queue::{Queue, QueueError, QueueHandle, SizeSlice};
use crate::telemetry::estimate::{self, ByFormat, Sums};

/// Rows of the state that are summed in one request.
const SLICE: usize = 2000;
/// Between two sums over the queue; more, where they take more than a hundredth of the time.
const EVERY: Duration = Duration::from_secs(10);
const SHARE: u32 = 100;
/// Between two estimates.
const TICK: Duration = Duration::from_secs(2);

/// What is known, and what it came to last.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// Books in the index.
    known: Mutex<ByFormat>,
    estimate: Mutex<Option<Estimate>>,
}

impl Forecast {
    /// A book was embedded.
    pub(super) fn learn(&self, file: &BookFile, format: &str, tokens: usize) {
        // The size of a file that stood in for the preferred one is not at hand.
        if file.format == format {
            lock(&self.known).entry(format.to_owned()).or_default().add(file.size, tokens as u64);
        }
    }

    pub(super) fn estimate(&self) -> Option<Estimate> {
        lock(&self.estimate).clone()
    }
}

/// Until the service stops.
pub(super) fn run(service: &Service) {
    let stopping = || service.parts.stopping.load(Ordering::Relaxed);
    let queue = &service.parts.queue;
    let forecast = &service.forecast;
    match gather(queue, &stopping, Queue::sizes_indexed) {
        Some(indexed) => {
            let mut known = lock(&forecast.known);
            for (format, sums) in indexed {
                known.entry(format).or_default().plus(&sums);
            }
        }
        None => return,
    }
    let mut queued = ByFormat::new();
    let (mut next, mut seen) = (Instant::now(), None);
    while !stopping() {
        let now = *lock(&service.stats);
        let jobs = (now.queued, now.waiting, now.running);
        if Instant::now() >= next && seen != Some(jobs) {
            let started = Instant::now();
            let Some(sums) = gather(queue, &stopping, Queue::sizes_to_embed) else { return };
            queued = sums;
            seen = Some(jobs);
            next = Instant::now() + EVERY.max(started.elapsed() * SHARE);
        }
        let current = service.parts.progress.current();
        let known = lock(&forecast.known).clone();
        *lock(&forecast.estimate) = reckon(&queued, &current, &known, &service.meters.steps());
        let until = Instant::now() + TICK;
        while Instant::now() < until && !stopping() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// The sum of all slices; None where the service is stopping.
fn gather(
    queue: &QueueHandle,
    stopping: &dyn Fn() -> bool,
    slice: fn(&Queue, i64, usize) -> Result<SizeSlice, QueueError>,
) -> Option<ByFormat> {
    let (mut sums, mut from) = (ByFormat::new(), 0);
    loop {
        if stopping() {
            return None;
        }
        let next = match queue.call(move |queue| slice(queue, from, SLICE)).ok()? {
            Ok(part) => {
                for (format, part) in part.formats {
                    sums.entry(format).or_default().plus(&part);
                }
                part.next
            }
            Err(error) => {
                tracing::debug!("the remaining time is not reckoned: {error}");
                None
            }
        };
        match next {
            Some(next) => from = next,
            None => return Some(sums),
        }
    }
}

/// None where nothing is left, or nothing is known of the rate.
fn reckon(queued: &ByFormat, current: &[CurrentJob], known: &ByFormat, steps: &[(f64, f64)]) -> Option<Estimate> {
    let mut unread = queued.clone();
    let mut counted = 0.0;
    let mut in_work = 0;
    for job in current {
        let left = job.total_tokens.saturating_sub(job.done_tokens);
        counted += left as f64;
        if let Some((format, bytes)) = &job.unread {
            unread.entry(format.clone()).or_default().add(*bytes, 0);
        } else if left > 0 {
            in_work += 1;
        }
    }
    let books = |by_format: &ByFormat| by_format.values().map(|sums: &Sums| sums.books).sum::<f64>();
    let left = estimate::tokens_left(counted, &unread, known);
    let rate = estimate::rate(steps).filter(|_| left.mean >= 1.0)?;
    let (tokens, time) = estimate::estimate(left, rate);
    let measured: f64 = steps.iter().map(|step| step.1).sum();
    Some(Estimate {
        books: books(&unread) as u64 + in_work,
        tokens: tokens.value.round() as u64,
        tokens_low: tokens.low.round() as u64,
        tokens_high: tokens.high.round() as u64,
        seconds: time.value,
        seconds_low: time.low,
        seconds_high: time.high,
        basis: format!(
            "{} indexed books, {} tokens/s of passages over {}",
            number(books(known) as u64),
            number(rate.mean.round() as u64),
            seconds(measured)
        ),
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ingest::Stage;

    fn job(unread: Option<(String, u64)>, done_tokens: usize, total_tokens: usize) -> CurrentJob {
        CurrentJob {
            book_uuid: Uuid::nil(),
            book_id: "calibre 1".into(),
            title: "T".into(),
            stage: Stage::Embed,
            done: 0,
            total: 0,
            done_tokens,
            total_tokens,
            unread,
            went_on: Instant::now(),
            asks_embedder: false,
            started_us: 0,
            waits_for: None,
        }
    }

    #[test]
    fn what_is_counted_is_sure_and_what_is_unread_is_not() {
        let none = ByFormat::new();
        let steps = [(6000.0, 60.0); 10];
        assert_eq!(reckon(&none, &[], &none, &steps), None, "nothing is left");
        let counted = [job(None, 1000, 7000)];
        assert_eq!(reckon(&none, &counted, &none, &[]), None, "nothing is known of the rate");
        let sure = reckon(&none, &counted, &none, &steps).unwrap();
        assert_eq!((sure.books, sure.tokens_low, sure.tokens, sure.tokens_high), (1, 6000, 6000, 6000));
        assert_eq!(sure.seconds, 60.0);
        assert!(sure.seconds_low < 60.0 && sure.seconds_high > 60.0, "the rate is never sure: {sure:?}");
        assert_eq!(sure.basis, "0 indexed books, 100 tokens/s of passages over 10 min 0 s");
        let unsure = reckon(&none, &[job(Some(("TXT".into(), 24_000)), 0, 0)], &none, &steps).unwrap();
        assert_eq!((unsure.books, unsure.tokens), (1, 6000));
        assert!(unsure.tokens_low < 3000 && unsure.tokens_high > 9000, "{unsure:?}");
    }
}
