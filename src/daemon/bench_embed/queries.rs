//! What a person waits for an answer while books go through: a query at a fixed pace, whether the one before has been
//! answered or not, as people do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use crate::embed::{EmbedError, EmbedderHandle, Priority};

/// Between two queries.
const PACE: Duration = Duration::from_millis(100);

/// A question of usual length.
pub const QUERY: &str = "how did the monks of the early middle ages keep bees through the winter?";

/// The answer time of one query, in milliseconds.
pub fn ask(embedder: &EmbedderHandle) -> Result<f64, EmbedError> {
    let started = Instant::now();
    embedder.embed(&[QUERY], Priority::Interactive)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

/// Asks until `done`, and returns the answer times of all queries, from the moment each was due.
pub fn ask_until(embedder: &EmbedderHandle, done: &AtomicBool) -> Result<Vec<f64>, EmbedError> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let mut threads: Vec<ScopedJoinHandle<'_, Result<f64, EmbedError>>> = Vec::new();
        let mut due = PACE;
        loop {
            // Short sleeps, so that the end of the run is not waited for by another query.
            while started.elapsed() < due {
                if done.load(Ordering::Relaxed) {
                    return threads.into_iter().map(joined).collect();
                }
                std::thread::sleep((due.saturating_sub(started.elapsed())).min(Duration::from_millis(5)));
            }
            threads.push(scope.spawn(move || {
                let late = started.elapsed().saturating_sub(due).as_secs_f64() * 1e3;
                ask(embedder).map(|milliseconds| milliseconds + late)
            }));
            due += PACE;
        }
    })
}

fn joined(thread: ScopedJoinHandle<'_, Result<f64, EmbedError>>) -> Result<f64, EmbedError> {
    thread.join().unwrap_or_else(|_| Err(EmbedError::Compute("a query's thread panicked; this is a bug".into())))
}
