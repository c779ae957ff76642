//! The one thread that owns the model, and the handle through which everybody else asks it for vectors.
//!
//! Bulk requests (a book's texts) go through in batches by token budget; an interactive request (a query) goes before
//! the next batch. The queue is bounded: a caller with a bulk request waits while others are in line. The thread never
//! tokenises and never touches a file.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::Instant;

use super::encoder::l2_normalised;
use super::{EmbedError, Embedder, ModelInfo, TextTokenizer, TokenIds, batch};

/// Bulk requests in line before callers wait.
const MAX_BULK_REQUESTS: usize = 4;

static LOADS: AtomicUsize = AtomicUsize::new(0);

/// Whether a request may wait for the batches of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A person waits: goes before the next bulk batch.
    Interactive,
    Bulk,
}

type Reply = mpsc::SyncSender<Result<Vec<Vec<f32>>, EmbedError>>;

/// A request in work: batches still to do, and the vectors so far.
struct Request {
    texts: Vec<TokenIds>,
    batches: VecDeque<Vec<usize>>,
    vectors: Vec<Vec<f32>>,
    reply: Reply,
}

#[derive(Default)]
struct Line {
    interactive: VecDeque<Request>,
    bulk: VecDeque<Request>,
    stopped: bool,
}

struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
    tokens: AtomicU64,
    texts: AtomicU64,
    busy_us: AtomicU64,
}

/// Reaches the embedder thread. Cheap to clone; calls block, so none may be made on an async worker thread.
#[derive(Clone)]
pub struct EmbedderHandle {
    shared: Arc<Shared>,
    info: Arc<ModelInfo>,
    tokenizer: Arc<dyn TextTokenizer>,
    batch_tokens: usize,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbedderCounters {
    pub tokens: u64,
    pub texts: u64,
    /// Seconds in which the model computed.
    pub busy_seconds: f64,
}

impl EmbedderHandle {
    /// Warms the model up, then hands it to its thread. `batch_tokens` is the budget of one batch.
    pub fn spawn(mut embedder: Box<dyn Embedder>, batch_tokens: usize) -> Result<Self, EmbedError> {
        LOADS.fetch_add(1, Ordering::Relaxed);
        let info = Arc::new(embedder.info().clone());
        let tokenizer = embedder.tokenizer();
        embedder.embed(&[tokenizer.encode("warm up")])?;
        let shared = Arc::new(Shared {
            line: Mutex::default(),
            changed: Condvar::new(),
            tokens: AtomicU64::new(0),
            texts: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
        });
        let thread_shared = shared.clone();
        std::thread::Builder::new()
            .name("embedder".into())
            .spawn(move || run(&thread_shared, embedder.as_mut()))
            .map_err(|error| EmbedError::Load(format!("the embedder's thread cannot be started: {error}")))?;
        Ok(Self { shared, info, tokenizer, batch_tokens })
    }

    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// How often a model was handed to a thread in this process: once, for ever.
    pub fn loads(&self) -> usize {
        LOADS.load(Ordering::Relaxed)
    }

    pub fn tokenizer(&self) -> &Arc<dyn TextTokenizer> {
        &self.tokenizer
    }

    pub fn counters(&self) -> EmbedderCounters {
        EmbedderCounters {
            tokens: self.shared.tokens.load(Ordering::Relaxed),
            texts: self.shared.texts.load(Ordering::Relaxed),
            busy_seconds: self.shared.busy_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }

    /// One unit vector for each text, in order. A text over the model's limit is embedded in windows, whose vectors
    /// are averaged by their tokens: nothing is cut.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S], priority: Priority) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut pieces = Vec::with_capacity(texts.len());
        let mut owners = Vec::with_capacity(texts.len());
        for (owner, text) in texts.iter().enumerate() {
            for piece in self.within_limit(text.as_ref()) {
                owners.push((owner, piece.0.len()));
                pieces.push(piece);
            }
        }
        let whole = owners.iter().map(|(owner, _)| *owner).eq(0..texts.len());
        let vectors = self.embed_tokens(pieces, priority)?;
        if whole {
            return Ok(vectors);
        }
        let mut sums = vec![vec![0f32; self.info.dimension]; texts.len()];
        for ((owner, tokens), vector) in owners.into_iter().zip(vectors) {
            for (sum, value) in sums[owner].iter_mut().zip(vector) {
                *sum += value * tokens as f32;
            }
        }
        Ok(sums.into_iter().map(l2_normalised).collect())
    }

    /// The text as token ids, in as many windows as the model's limit asks for.
    fn within_limit(&self, text: &str) -> Vec<TokenIds> {
        let ids = self.tokenizer.encode(text);
        if ids.0.len() <= self.info.max_tokens {
            return vec![ids];
        }
        let mut windows = Vec::new();
        self.split_into_windows(text, self.tokenizer.content_tokens().max(1), &mut windows);
        windows
    }

    /// A window's own encoding may have a few tokens more than its share of the whole text's; then it is halved.
    fn split_into_windows(&self, text: &str, window: usize, windows: &mut Vec<TokenIds>) {
        for tokens in self.tokenizer.token_ranges(text).chunks(window) {
            let (start, end) = (tokens[0].start, tokens[tokens.len() - 1].end);
            let part = text.get(start..end).unwrap_or_default();
            let ids = self.tokenizer.encode(part);
            if ids.0.len() > self.info.max_tokens && window > 1 {
                self.split_into_windows(part, window / 2, windows);
            } else {
                windows.push(ids);
            }
        }
    }

    fn embed_tokens(&self, texts: Vec<TokenIds>, priority: Priority) -> Result<Vec<Vec<f32>>, EmbedError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let lengths: Vec<usize> = texts.iter().map(|text| text.0.len()).collect();
        let (reply, answer) = mpsc::sync_channel(1);
        let request = Request {
            batches: batch::by_token_budget(&lengths, self.batch_tokens).into(),
            vectors: vec![Vec::new(); texts.len()],
            texts,
            reply,
        };
        let mut line = self.shared.lock();
        while priority == Priority::Bulk && line.bulk.len() >= MAX_BULK_REQUESTS && !line.stopped {
            line = self.shared.changed.wait(line).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if line.stopped {
            return Err(EmbedError::Stopped);
        }
        match priority {
            Priority::Interactive => line.interactive.push_back(request),
            Priority::Bulk => line.bulk.push_back(request),
        }
        drop(line);
        self.shared.changed.notify_all();
        answer.recv().unwrap_or(Err(EmbedError::Stopped))
    }

    /// Ends the thread after the batch in hand; requests in line get [`EmbedError::Stopped`].
    pub fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A panic while the lock is held leaves the line in order (no update is half done), so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The next request to work on; None when stopped.
    fn next(&self) -> Option<(Request, Priority)> {
        let mut line = self.lock();
        loop {
            if line.stopped {
                return None;
            }
            if let Some(request) = line.interactive.pop_front() {
                return Some((request, Priority::Interactive));
            }
            if let Some(request) = line.bulk.pop_front() {
                return Some((request, Priority::Bulk));
            }
            line = self.changed.wait(line).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

/// However the thread ends, nobody waits for it afterwards: dropping a request answers its caller with `Stopped`.
struct EndGuard<'a>(&'a Shared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.stopped = true;
        line.interactive.clear();
        line.bulk.clear();
        drop(line);
        self.0.changed.notify_all();
    }
}

fn run(shared: &Shared, embedder: &mut dyn Embedder) {
    let _guard = EndGuard(shared);
    while let Some((mut request, priority)) = shared.next() {
        // A batch that panics fails its request; the model itself is not changed by embedding.
        let result = catch_unwind(AssertUnwindSafe(|| embed_one_batch(shared, embedder, &mut request)))
            .unwrap_or_else(|_| Err(EmbedError::Compute("the model's code panicked; this is a bug".into())));
        match result {
            Ok(()) if request.batches.is_empty() => {
                // The caller may have gone away; then nobody needs the answer.
                let _ = request.reply.send(Ok(std::mem::take(&mut request.vectors)));
            }
            Ok(()) => match priority {
                Priority::Interactive => shared.lock().interactive.push_front(request),
                // Back to the front: a book in work is finished before the next one's first batch.
                Priority::Bulk => shared.lock().bulk.push_front(request),
            },
            Err(error) => {
                let _ = request.reply.send(Err(error));
            }
        }
        shared.changed.notify_all();
    }
}

fn embed_one_batch(shared: &Shared, embedder: &mut dyn Embedder, request: &mut Request) -> Result<(), EmbedError> {
    let Some(batch) = request.batches.pop_front() else { return Ok(()) };
    let texts: Vec<TokenIds> =
        batch.iter().map(|&index| std::mem::replace(&mut request.texts[index], TokenIds(vec![]))).collect();
    let tokens: usize = texts.iter().map(|text| text.0.len()).sum();
    let started = Instant::now();
    let vectors = embedder.embed(&texts)?;
    shared.busy_us.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
    shared.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
    shared.texts.fetch_add(texts.len() as u64, Ordering::Relaxed);
    for (index, vector) in batch.into_iter().zip(vectors) {
        request.vectors[index] = vector;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::FakeEmbedder;
    use super::*;

    #[test]
    fn long_texts_are_split_and_no_word_is_dropped() {
        let handle = EmbedderHandle::spawn(Box::new(FakeEmbedder::default()), 100).unwrap();
        let long: String = (0..1000).map(|n| format!("word{n} ")).collect();
        let pieces = handle.within_limit(&long);
        let tokens: usize = pieces.iter().map(|piece| piece.0.len() - 2).sum();
        assert_eq!(tokens, 1000);
        let vectors = handle.embed(&[long.as_str(), "short"], Priority::Bulk).unwrap();
        for vector in &vectors {
            let norm: f32 = vector.iter().map(|x| x * x).sum();
            assert!((norm - 1.0).abs() < 1e-4);
        }
    }

    /// Panics on texts of three tokens.
    struct Fragile(FakeEmbedder);

    impl Embedder for Fragile {
        fn info(&self) -> &ModelInfo {
            self.0.info()
        }

        fn tokenizer(&self) -> Arc<dyn TextTokenizer> {
            self.0.tokenizer()
        }

        fn embed(&mut self, texts: &[TokenIds]) -> Result<Vec<Vec<f32>>, EmbedError> {
            assert!(texts.iter().all(|text| text.0.len() != 3), "a bug in the model's code");
            self.0.embed(texts)
        }
    }

    #[test]
    fn a_panic_fails_its_request_and_no_other() {
        let handle = EmbedderHandle::spawn(Box::new(Fragile(FakeEmbedder::default())), 100).unwrap();
        assert!(matches!(handle.embed(&["one"], Priority::Bulk), Err(EmbedError::Compute(_))));
        assert_eq!(handle.embed(&["two words"], Priority::Interactive).unwrap().len(), 1);
    }

    #[test]
    fn a_stopped_embedder_says_so() {
        let handle = EmbedderHandle::spawn(Box::new(FakeEmbedder::default()), 100).unwrap();
        handle.stop();
        assert!(matches!(handle.embed(&["x"], Priority::Bulk), Err(EmbedError::Stopped)));
    }
}
