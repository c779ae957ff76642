//! Hands chunks to the embedder as the service's workers do: a few callers at once, each with the chunks of one book,
//! so that the next request stands in line while one is in work. Every vector is looked at: a fast wrong answer is an
//! error, not a figure.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::UsageWho;

use super::texts::TokenSource;
use crate::daemon::DaemonError;
use crate::daemon::bench::cpu_seconds;
use crate::embed::{EmbedError, EmbedderHandle, Priority};

/// What goes through.
pub enum Source {
    Tokens(TokenSource),
    /// Taken in turn, again from the first one after the last.
    Texts(Vec<String>),
}

impl Source {
    /// Embeds the chunks with these numbers.
    pub fn embed(&self, embedder: &EmbedderHandle, indices: Range<u64>) -> Result<Vec<Vec<f32>>, EmbedError> {
        match self {
            Self::Tokens(source) => embedder.embed_ids(source.chunks(indices), Priority::Bulk),
            Self::Texts(texts) => {
                let texts: Vec<&str> =
                    indices.map(|index| texts[(index % texts.len() as u64) as usize].as_str()).collect();
                embedder.embed(&texts, Priority::Bulk)
            }
        }
    }

    /// Tokens of these chunks, special ones included. A text over the limit counts as the windows it is embedded in,
    /// to within a few tokens.
    pub fn lengths(&self, embedder: &EmbedderHandle, indices: Range<u64>) -> Vec<usize> {
        match self {
            Self::Tokens(source) => indices.map(|index| source.tokens(index)).collect(),
            Self::Texts(texts) => {
                let tokenizer = embedder.tokenizer();
                let (limit, content) = (tokenizer.max_tokens(), tokenizer.content_tokens().max(1));
                let once: Vec<Vec<usize>> = texts
                    .iter()
                    .take((indices.end - indices.start) as usize)
                    .map(|text| match tokenizer.encode(text).0.len() {
                        tokens if tokens <= limit => vec![tokens],
                        tokens => windows(tokens, limit, content),
                    })
                    .collect();
                indices.flat_map(|index| once[(index % texts.len() as u64) as usize].clone()).collect()
            }
        }
    }
}

/// Lengths of the windows of a text over the limit, each with special tokens of its own.
fn windows(tokens: usize, limit: usize, content: usize) -> Vec<usize> {
    let special = limit - content;
    let inside = tokens - special;
    let rest = inside % content;
    let mut lengths = vec![limit; inside / content];
    lengths.extend((rest > 0).then_some(rest + special));
    lengths
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Chunks(u64),
    /// No request begins after this time; those begun are finished.
    Seconds(f64),
}

/// How much one call hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub callers: usize,
    pub chunks_per_request: u64,
}

/// Requests of about a tenth of the run, so that the last ones end together, but of whole batches.
pub fn plan(amount: Amount, callers: usize, tokens_per_second: f64, mean_tokens: f64, batch_tokens: usize) -> Plan {
    /// Of one request: some hundred long chunks, as a book has.
    const MOST_TOKENS: f64 = 1e6;
    let per_batch = ((batch_tokens as f64 / mean_tokens) as u64).max(1);
    let seconds = match amount {
        Amount::Seconds(seconds) => seconds,
        Amount::Chunks(chunks) => chunks as f64 * mean_tokens / tokens_per_second,
    };
    let tokens = (seconds / 10.0 * tokens_per_second).min(MOST_TOKENS);
    let mut batches = (tokens / (per_batch as f64 * mean_tokens)).round().max(1.0) as u64;
    if let Amount::Chunks(chunks) = amount {
        // No caller without work while another one has two batches.
        batches = batches.min(chunks.div_ceil(per_batch * callers as u64)).max(1);
    }
    Plan { callers, chunks_per_request: batches * per_batch }
}

/// What went through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Done {
    pub chunks: u64,
    pub seconds: f64,
    /// In which the model computed.
    pub busy_seconds: f64,
    /// User and system time of the whole process.
    pub cpu_seconds: f64,
}

/// Runs to the end of `amount`. Chunks are numbered from `first`.
pub fn run(
    embedder: &EmbedderHandle,
    source: &Source,
    amount: Amount,
    plan: Plan,
    first: u64,
) -> Result<Done, DaemonError> {
    let (last, deadline) = match amount {
        Amount::Chunks(chunks) => (first + chunks, None),
        Amount::Seconds(seconds) => (u64::MAX, Some(Duration::from_secs_f64(seconds))),
    };
    let (counters, cpu) = (embedder.counters(), cpu_seconds(UsageWho::RUSAGE_SELF));
    let started = Instant::now();
    let (next, failed, failure) = (AtomicU64::new(first), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..plan.callers {
            scope.spawn(|| {
                loop {
                    // The first request is made whatever the time.
                    let is_late = deadline.is_some_and(|deadline| started.elapsed() >= deadline);
                    let has_begun = next.load(Ordering::Relaxed) > first;
                    if failed.load(Ordering::Relaxed) || (is_late && has_begun) {
                        return;
                    }
                    let from = next.fetch_add(plan.chunks_per_request, Ordering::Relaxed);
                    let to = (from.saturating_add(plan.chunks_per_request)).min(last);
                    if from >= to {
                        return;
                    }
                    let result = source.embed(embedder, from..to).map_err(DaemonError::from).and_then(|vectors| {
                        check(&vectors, (to - from) as usize, embedder.info().dimension).map_err(DaemonError::Failed)
                    });
                    if let Err(error) = result {
                        failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
                        failed.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let done = Done {
        chunks: next.into_inner().min(last) - first,
        seconds: started.elapsed().as_secs_f64(),
        busy_seconds: embedder.counters().busy_seconds - counters.busy_seconds,
        cpu_seconds: cpu_seconds(UsageWho::RUSAGE_SELF) - cpu,
    };
    failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(done), Err)
}

/// As many vectors as chunks, of the right size, all numbers finite, of unit length.
fn check(vectors: &[Vec<f32>], chunks: usize, dimension: usize) -> Result<(), String> {
    if vectors.len() != chunks {
        return Err(format!("{} vectors came back for {chunks} chunks", vectors.len()));
    }
    for (index, vector) in vectors.iter().enumerate() {
        let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        // A NaN fails the comparison, too.
        let is_unit = (norm - 1.0).abs() < 1e-2;
        if vector.len() != dimension || !is_unit {
            return Err(format!(
                "vector {index} of a request has {} numbers and the length {norm}, not {dimension} and 1",
                vector.len()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::texts::Lengths;
    use super::*;
    use crate::embed::FakeEmbedder;

    fn fake() -> (EmbedderHandle, Source) {
        let embedder = EmbedderHandle::spawn(Box::new(FakeEmbedder::default())).unwrap();
        let source = TokenSource::new(embedder.tokenizer().as_ref(), Lengths::Fixed(50), 1);
        (embedder, Source::Tokens(source))
    }

    #[test]
    fn exactly_the_chunks_that_were_asked_for_go_through() {
        let (embedder, source) = fake();
        let texts = Source::Texts(vec!["one".into(), "two words".into(), "three words here".into()]);
        for (source, chunks, tokens) in [(&source, 101, 101 * 50), (&texts, 7, 2 * (3 + 4 + 5) + 3)] {
            let before = embedder.counters();
            let plan = Plan { callers: 3, chunks_per_request: 8 };
            let done = run(&embedder, source, Amount::Chunks(chunks), plan, 0).unwrap();
            let after = embedder.counters();
            assert_eq!((done.chunks, after.texts - before.texts), (chunks, chunks));
            assert_eq!(after.tokens - before.tokens, tokens);
            assert_eq!(source.lengths(&embedder, 0..chunks).iter().sum::<usize>() as u64, tokens);
        }
    }

    #[test]
    fn a_run_by_time_counts_what_it_began() {
        let (embedder, source) = fake();
        let before = embedder.counters().texts;
        let plan = Plan { callers: 2, chunks_per_request: 8 };
        // No time at all: the first request is made all the same, and nothing is divided by zero later.
        let done = run(&embedder, &source, Amount::Seconds(0.0), plan, 16).unwrap();
        assert!(done.chunks >= 8 && done.seconds > 0.0);
        assert_eq!(embedder.counters().texts - before, done.chunks);
    }

    #[test]
    fn a_failure_ends_the_run() {
        let (embedder, source) = fake();
        embedder.stop();
        let plan = Plan { callers: 2, chunks_per_request: 8 };
        assert!(run(&embedder, &source, Amount::Seconds(60.0), plan, 0).is_err());
    }

    #[test]
    fn a_wrong_vector_is_no_figure() {
        assert_eq!(check(&[vec![0.6, 0.8]], 1, 2), Ok(()));
        assert!(check(&[vec![0.6, 0.8]], 2, 2).is_err());
        for wrong in [vec![1.0], vec![f32::NAN, 1.0], vec![0.0, 0.0], vec![0.6, 0.9]] {
            assert!(check(std::slice::from_ref(&wrong), 1, 2).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn requests_are_whole_batches_and_small_beside_the_run() {
        // A GPU: 24,000 tokens a second, 43,200 a batch: a tenth of ten seconds is less than a batch.
        let gpu = plan(Amount::Seconds(10.0), 2, 24_000.0, 450.0, 43_200);
        assert_eq!(gpu, Plan { callers: 2, chunks_per_request: 96 });
        // A fast one: a tenth of the run, 1,388 chunks, is 14 batches.
        assert_eq!(plan(Amount::Seconds(10.0), 2, 600_000.0, 450.0, 43_200).chunks_per_request, 14 * 96);
        // 48 chunks on a CPU, 8 a batch: three batches to each caller.
        assert_eq!(plan(Amount::Chunks(48), 2, 1e9, 256.0, 2048).chunks_per_request, 8);
        // A chunk longer than a batch still goes.
        assert_eq!(plan(Amount::Chunks(1), 2, 200.0, 4096.0, 2048).chunks_per_request, 1);
    }

    #[test]
    fn windows_of_a_long_text_hold_all_its_tokens() {
        assert_eq!(windows(600, 256, 254), vec![256, 256, 92]);
        assert_eq!(windows(510, 256, 254), vec![256, 256]);
    }
}
