//! What the service has done and does: rates, history, totals and the latest failures, for the status, the metrics and the
//! reckoning of the remaining time. In memory, bounded, and cheap: must never wait for anything but its own lock.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::control::protocol::{HistoryResponse, HistoryRow, RecentError, Totals};
use crate::domain::Book;
use crate::embed::EmbedderCounters;
use crate::ingest::{CurrentJob, JobSummary, Unfinished};
use crate::queue::{ClaimedJob, JobRow, NextStep, Outcome};
use crate::telemetry::RateMeter;

/// Over which the rates in the status are taken.
const RATE_WINDOW: Duration = Duration::from_secs(60);
/// A row of the history, in microseconds.
const STEP_US: i64 = 60_000_000;
/// A day of them.
const ROWS: usize = 24 * 60;
/// Steps of a minute's work each, from which the rate of the estimate is taken.
const STEPS: usize = 60;
const STEP_SECONDS: f64 = 60.0;
/// A shorter step at the end says nothing yet.
const SHORTEST_STEP: f64 = 5.0;
/// Failures that are remembered.
const ERRORS: usize = 20;

/// What was counted by a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Counted {
    /// Tokens that the model computed.
    pub tokens: u64,
    /// Chunks of books, and their tokens.
    pub chunks: u64,
    pub chunk_tokens: u64,
    /// Seconds in which the model computed.
    pub model_seconds: f64,
}

/// About a minute with work.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Step {
    chunk_tokens: f64,
    seconds: f64,
    model_seconds: f64,
}

#[derive(Debug, Default)]
struct State {
    counted: Counted,
    totals: Totals,
    history: VecDeque<HistoryRow>,
    /// The last one still grows.
    steps: VecDeque<Step>,
    errors: VecDeque<RecentError>,
}

/// Shared by all threads of the service.
#[derive(Debug)]
pub(super) struct Meters {
    tokens: RateMeter,
    chunks: RateMeter,
    state: Mutex<State>,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self { tokens: RateMeter::new(RATE_WINDOW), chunks: RateMeter::new(RATE_WINDOW), state: Mutex::default() }
    }

    /// Takes the counters as they are now. `busy`: how much of the time since the last sample there was work.
    pub(super) fn sample(&self, now_us: i64, counted: Counted, busy: Duration) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.counted, counted);
        let tokens = counted.tokens.saturating_sub(before.tokens);
        let chunks = counted.chunks.saturating_sub(before.chunks);
        let chunk_tokens = counted.chunk_tokens.saturating_sub(before.chunk_tokens);
        let row = state.row(now_us);
        row.tokens += tokens;
        row.chunks += chunks;
        if chunk_tokens > 0 || !busy.is_zero() {
            if state.steps.back().is_none_or(|step| step.seconds >= STEP_SECONDS) {
                state.steps.push_back(Step::default());
            }
            if let Some(step) = state.steps.back_mut() {
                step.chunk_tokens += chunk_tokens as f64;
                step.seconds += busy.as_secs_f64();
                step.model_seconds += (counted.model_seconds - before.model_seconds).max(0.0);
            }
            state.totals.working_seconds += busy.as_secs_f64();
            while state.steps.len() > STEPS {
                state.steps.pop_front();
            }
        }
        drop(state);
        self.tokens.add(tokens);
        self.chunks.add(chunks);
    }

    /// A job came to an end.
    pub(super) fn finished(&self, job: &ClaimedJob, result: &Result<JobSummary, Unfinished>, now_us: i64) {
        let mut state = self.lock();
        match result {
            Ok(summary) => {
                let report = &summary.report;
                *state.totals.outcomes.entry(report.outcome.as_str().to_owned()).or_default() += 1;
                for (stage, seconds) in &report.timings {
                    *state.totals.stage_seconds.entry(stage.clone()).or_default() += seconds;
                }
                if report.outcome == Outcome::Embedded {
                    state.row(now_us).books += 1;
                }
                // What came through is no trouble any more.
                let book = book_id(&job.book);
                state.errors.retain(|error| error.book_id != book);
            }
            Err(Unfinished { failure, next }) => {
                let next = next.map_or("waits", next_step);
                *state.totals.failures.entry(failure.kind.as_str().to_owned()).or_default() += 1;
                *state.totals.next_steps.entry(next.to_owned()).or_default() += 1;
                state.row(now_us).failures += 1;
                state.note(RecentError {
                    at_us: now_us,
                    book_id: book_id(&job.book),
                    title: job.book.metadata.title.clone(),
                    reason: failure.reason.clone(),
                    next: next.into(),
                });
            }
        }
    }

    /// The state's parked jobs, the latest first: what failed before this process began.
    pub(super) fn remember(&self, parked: Vec<JobRow>) {
        let mut state = self.lock();
        for job in parked.into_iter().rev() {
            state.note(RecentError {
                at_us: job.finished_us.unwrap_or(job.queued_us),
                book_id: format!("{} {}", job.source, job.source_id),
                title: job.title,
                reason: job.last_error.unwrap_or_default(),
                next: "parked".into(),
            });
        }
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens.per_second()
    }

    pub(super) fn chunks_per_minute(&self) -> f64 {
        self.chunks.per_second() * 60.0
    }

    /// The newest first.
    pub(super) fn recent_errors(&self, most: usize) -> Vec<RecentError> {
        self.lock().errors.iter().take(most).cloned().collect()
    }

    pub(super) fn totals(&self, embedder: EmbedderCounters, embedded: (u64, u64)) -> Totals {
        Totals {
            chunks: embedded.0,
            chunk_tokens: embedded.1,
            tokens: embedder.tokens,
            texts: embedder.texts,
            batches: embedder.batches,
            busy_seconds: embedder.busy_seconds,
            ..self.lock().totals.clone()
        }
    }

    pub(super) fn history(&self) -> HistoryResponse {
        HistoryResponse {
            step_seconds: STEP_US as u64 / 1_000_000,
            rows: self.lock().history.iter().copied().collect(),
        }
    }

    /// (tokens of chunks, seconds with work) of the last hour of work, a minute each.
    pub(super) fn steps(&self) -> Vec<(f64, f64)> {
        let state = self.lock();
        let long = state.steps.iter().filter(|step| step.seconds >= SHORTEST_STEP);
        long.map(|step| (step.chunk_tokens, step.seconds)).collect()
    }

    /// The share of the last hour of work in which the model computed; None where there was none to speak of.
    pub(super) fn model_share(&self) -> Option<f64> {
        let state = self.lock();
        let seconds: f64 = state.steps.iter().map(|step| step.seconds).sum();
        let model_seconds: f64 = state.steps.iter().map(|step| step.model_seconds).sum();
        // A batch counts as a whole when it ends.
        (seconds >= SHORTEST_STEP).then(|| (model_seconds / seconds).min(1.0))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every update is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The row of this moment; minutes in which nothing was sampled are rows of zeros.
    fn row(&mut self, now_us: i64) -> &mut HistoryRow {
        let at_us = now_us.div_euclid(STEP_US) * STEP_US;
        // By a clock that was set, forwards by much or backwards, the rows before mean nothing.
        let fits = |last: &HistoryRow| (0..=ROWS as i64).contains(&((at_us - last.at_us) / STEP_US));
        if !self.history.back().is_some_and(fits) {
            self.history.clear();
            self.history.push_back(HistoryRow { at_us, ..HistoryRow::default() });
        }
        while let Some(last) = self.history.back().copied().filter(|last| last.at_us < at_us) {
            self.history.push_back(HistoryRow { at_us: last.at_us + STEP_US, ..HistoryRow::default() });
        }
        while self.history.len() > ROWS {
            self.history.pop_front();
        }
        let last = self.history.len() - 1;
        &mut self.history[last]
    }

    fn note(&mut self, error: RecentError) {
        // A book that fails again and again has one place.
        self.errors.retain(|other| other.book_id != error.book_id);
        self.errors.push_front(error);
        self.errors.truncate(ERRORS);
    }
}

pub(super) fn next_step(next: NextStep) -> &'static str {
    match next {
        NextStep::Parked => "parked",
        NextStep::RetryAt(_) => "retry",
        NextStep::GivenBack => "waits",
    }
}

fn book_id(book: &Book) -> String {
    format!("{} {}", book.source.name(), book.source.id())
}

/// Whether one of the jobs goes on by the service's own work: what waits for the store or the library says nothing of
/// how fast that is.
pub(super) fn is_busy(current: &[CurrentJob]) -> bool {
    current.iter().any(|job| job.waits_for.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn counted(tokens: u64, chunks: u64) -> Counted {
        Counted { tokens, chunks, chunk_tokens: tokens / 2, model_seconds: tokens as f64 / 2500.0 }
    }

    #[test]
    fn the_history_has_a_row_a_minute_and_no_more_than_a_day() {
        let meters = Meters::new();
        let second = Duration::from_secs(1);
        meters.sample(10 * MINUTE + 5, counted(100, 1), second);
        meters.sample(10 * MINUTE + 7, counted(300, 2), second);
        meters.sample(13 * MINUTE, counted(1000, 9), second);
        let history = meters.history();
        assert_eq!(history.step_seconds, 60);
        let rows: Vec<(i64, u64, u64)> =
            history.rows.iter().map(|row| (row.at_us / MINUTE, row.tokens, row.chunks)).collect();
        assert_eq!(rows, [(10, 300, 2), (11, 0, 0), (12, 0, 0), (13, 700, 7)]);
        meters.sample((13 + 1439) * MINUTE, counted(1001, 9), second);
        assert_eq!((meters.history().rows.len(), meters.history().rows[0].tokens), (ROWS, 700));
        meters.sample(MINUTE, counted(1002, 9), second);
        assert_eq!(meters.history().rows.len(), 1, "the clock was set back");
        meters.sample(900_000 * MINUTE, counted(1003, 9), second);
        assert_eq!(meters.history().rows.len(), 1, "or forward, by years");
    }

    #[test]
    fn steps_are_of_work_and_idle_time_is_none() {
        let meters = Meters::new();
        for second in 0..150 {
            meters.sample(second * 1_000_000, counted(2000 * (second as u64 + 1), 0), Duration::from_secs(1));
        }
        for second in 150..1000 {
            meters.sample(second * 1_000_000, counted(2000 * 150, 0), Duration::ZERO);
        }
        assert_eq!(meters.steps(), [(60_000.0, 60.0), (60_000.0, 60.0), (30_000.0, 30.0)]);
        assert!((meters.model_share().unwrap() - 0.8).abs() < 1e-9, "2,000 of 2,500 tokens a second");
        assert_eq!(Meters::new().model_share(), None);
    }

    #[test]
    fn a_book_that_fails_again_has_one_place_among_the_errors() {
        let mut state = State::default();
        let error = |book: usize, reason: &str| RecentError {
            book_id: format!("calibre {book}"),
            reason: reason.into(),
            ..RecentError::default()
        };
        (0..30).for_each(|book| state.note(error(book, "first")));
        state.note(error(15, "second"));
        assert_eq!((state.errors.len(), state.errors[0].reason.as_str()), (ERRORS, "second"));
        assert_eq!(state.errors.iter().filter(|error| error.book_id == "calibre 15").count(), 1);
    }
}
