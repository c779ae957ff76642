//! The one thread that owns the model, and the handle through which everybody else asks it for vectors.
//!
//! Texts of several bulk requests (a request is a book's texts) go through the device together, in batches cut by
//! tokens. An interactive request (a query) goes before the next batch, and the next batch is chosen only when the one
//! in work is nearly done: so a query waits for one batch at most, and the device never waits for the host. Interactive
//! requests share a batch by tokens, so a large one does not hold up the others; and where bulk requests wait, too, every
//! fourth batch is theirs. The line is bounded: a caller with a bulk request waits while others are in line. The thread
//! never tokenises and never touches a file, and no failure of a batch ends it.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use super::backend::{Shape, l2_normalised};
use super::{DeviceReport, EmbedError, Embedder, ModelInfo, TextTokenizer, TokenIds, TokenVectors, batch};
use crate::failpoint;

/// Bulk requests in line before callers wait.
const MAX_BULK_REQUESTS: usize = 4;

/// Budgets of tokens that interactive requests take in a row before a bulk batch that waits: whatever is asked of the
/// service, a quarter of the device is the library's.
const INTERACTIVE_BUDGETS: usize = 3;

static LOADS: AtomicUsize = AtomicUsize::new(0);

/// Whether a request may wait for the batches of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A person waits: goes before the next bulk batch.
    Interactive,
    Bulk,
}

type Reply = mpsc::SyncSender<Result<Vec<Vec<f32>>, EmbedError>>;

/// A request in work.
struct Request {
    priority: Priority,
    texts: Vec<TokenIds>,
    /// The texts that are still to do, the next one first, and their lengths.
    todo: VecDeque<usize>,
    /// Texts whose vectors are not here yet.
    missing: usize,
    vectors: Vec<Vec<f32>>,
    /// After a failure in a batch with others it goes through in batches of its own, so that the fault is found.
    alone: bool,
    /// Set by a caller who does not want the answer any more.
    abandoned: Option<Arc<AtomicBool>>,
    reply: Reply,
}

/// Texts of one or several requests that go through the device together.
struct Batch {
    /// The request and the index of the text in it, for each text.
    owners: Vec<(u64, usize)>,
    texts: Vec<TokenIds>,
}

#[derive(Default)]
struct Line {
    requests: HashMap<u64, Request>,
    next_id: u64,
    /// Requests with texts to do, the oldest first.
    interactive: VecDeque<u64>,
    bulk: VecDeque<u64>,
    /// Tokens of interactive batches since the last bulk batch.
    interactive_tokens: usize,
    /// Questions for the device itself, answered between two batches.
    ceilings: VecDeque<mpsc::SyncSender<Result<f64, EmbedError>>>,
    stopped: bool,
    /// When a batch last came to an end, or the first request came into an empty line.
    went_on: Option<Instant>,
}

struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
    /// As the thread last saw it.
    device: Mutex<(DeviceReport, usize)>,
    tokens: AtomicU64,
    texts: AtomicU64,
    batches: AtomicU64,
    busy_us: AtomicU64,
}

/// Reaches the embedder thread. Cheap to clone; calls block, so none may be made on an async worker thread.
#[derive(Clone)]
pub struct EmbedderHandle {
    shared: Arc<Shared>,
    info: Arc<ModelInfo>,
    tokenizer: Arc<dyn TextTokenizer>,
    token_vectors: Arc<dyn TokenVectors>,
    shape: Option<Shape>,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbedderCounters {
    pub tokens: u64,
    pub texts: u64,
    pub batches: u64,
    /// Seconds in which the model computed.
    pub busy_seconds: f64,
}

impl EmbedderHandle {
    /// Warms the model up, then hands it to its thread.
    pub fn spawn(mut embedder: Box<dyn Embedder>) -> Result<Self, EmbedError> {
        LOADS.fetch_add(1, Ordering::Relaxed);
        let info = Arc::new(embedder.info().clone());
        let tokenizer = embedder.tokenizer();
        let token_vectors = embedder.token_vectors();
        embedder.embed(&[tokenizer.encode("warm up")])?;
        let shared = Arc::new(Shared {
            line: Mutex::default(),
            changed: Condvar::new(),
            device: Mutex::new((embedder.device(), embedder.batch_tokens())),
            tokens: AtomicU64::new(0),
            texts: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
        });
        let shape = embedder.shape();
        let thread_shared = shared.clone();
        std::thread::Builder::new()
            .name("embedder".into())
            .spawn(move || {
                let _guard = EndGuard(&thread_shared);
                Worker {
                    shared: &thread_shared,
                    embedder: embedder.as_mut(),
                    unfinished: VecDeque::new(),
                    busy_since: None,
                }
                .run();
            })
            .map_err(|error| EmbedError::Load(format!("the embedder's thread cannot be started: {error}")))?;
        Ok(Self { shared, info, tokenizer, token_vectors, shape })
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

    /// The model's embeddings of its vocabulary: read on the caller's thread, not computed by the embedder's.
    pub fn token_vectors(&self) -> &Arc<dyn TokenVectors> {
        &self.token_vectors
    }

    pub fn counters(&self) -> EmbedderCounters {
        EmbedderCounters {
            tokens: self.shared.tokens.load(Ordering::Relaxed),
            texts: self.shared.texts.load(Ordering::Relaxed),
            batches: self.shared.batches.load(Ordering::Relaxed),
            busy_seconds: self.shared.busy_us.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }

    /// How long no batch has come to an end though there is work; None without work.
    pub fn waits_for_batch(&self) -> Option<Duration> {
        let line = self.shared.lock();
        line.went_on.filter(|_| !line.requests.is_empty()).map(|since| since.elapsed())
    }

    /// The device as it was after the last batch.
    pub fn device(&self) -> DeviceReport {
        self.shared.device().0.clone()
    }

    /// Tokens a batch has at most, as of now.
    pub fn batch_tokens(&self) -> usize {
        self.shared.device().1
    }

    /// The model's floating-point operations for texts of these lengths.
    pub fn flops(&self, lengths: &[usize]) -> f64 {
        self.shape.map_or(0.0, |shape| lengths.iter().map(|&length| shape.flops(length)).sum())
    }

    /// Measures what the device reaches in a large matrix product, in operations a second.
    pub fn matmul_ceiling(&self) -> Result<f64, EmbedError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let mut line = self.shared.lock();
        if line.stopped {
            return Err(EmbedError::Stopped);
        }
        line.ceilings.push_back(reply);
        drop(line);
        self.shared.changed.notify_all();
        answer.recv().unwrap_or(Err(EmbedError::Stopped))
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
        let vectors = self.embed_ids(pieces, priority)?;
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

    /// One unit vector for each text, given as token ids with special tokens, in order.
    ///
    /// # Errors
    /// [`EmbedError::TooLong`] for a text over the model's limit; whatever the device reports.
    pub fn embed_ids(&self, texts: Vec<TokenIds>, priority: Priority) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed_ids_unless(texts, priority, None)
    }

    /// The same for a caller who may lose interest: once the flag is set, what is not on the device yet is left undone.
    ///
    /// # Errors
    /// As [`EmbedderHandle::embed_ids`]; [`EmbedError::Abandoned`].
    pub fn embed_ids_unless(
        &self,
        texts: Vec<TokenIds>,
        priority: Priority,
        abandoned: Option<Arc<AtomicBool>>,
    ) -> Result<Vec<Vec<f32>>, EmbedError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let lengths: Vec<usize> = texts.iter().map(|text| text.0.len()).collect();
        let limit = self.info.max_tokens;
        if let Some(&tokens) = lengths.iter().find(|&&tokens| tokens > limit) {
            return Err(EmbedError::TooLong { tokens, limit });
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let request = Request {
            priority,
            todo: batch::longest_first(&lengths).into(),
            missing: texts.len(),
            vectors: vec![Vec::new(); texts.len()],
            texts,
            alone: false,
            abandoned,
            reply,
        };
        let mut line = self.shared.lock();
        while priority == Priority::Bulk && line.bulk.len() >= MAX_BULK_REQUESTS && !line.stopped {
            line = self.shared.changed.wait(line).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if line.stopped {
            return Err(EmbedError::Stopped);
        }
        line.add(request);
        drop(line);
        self.shared.changed.notify_all();
        answer.recv().unwrap_or(Err(EmbedError::Stopped))
    }

    /// Ends the thread after the batches in hand; requests in line get [`EmbedError::Stopped`].
    pub fn stop(&self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

impl Line {
    fn add(&mut self, request: Request) {
        let id = self.next_id;
        self.next_id += 1;
        self.in_line(request.priority).push_back(id);
        if self.requests.is_empty() {
            self.went_on = Some(Instant::now());
        }
        self.requests.insert(id, request);
    }

    fn in_line(&mut self, priority: Priority) -> &mut VecDeque<u64> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Bulk => &mut self.bulk,
        }
    }

    /// The next batch: interactive requests share it by tokens; bulk requests go in the order they came, where there is
    /// nothing interactive or it is their turn.
    fn take_batch(&mut self, budget: usize) -> Option<Batch> {
        self.drop_abandoned();
        let turn = self.interactive_tokens >= budget.saturating_mul(INTERACTIVE_BUDGETS) && !self.bulk.is_empty();
        let priority = if self.interactive.is_empty() || turn { Priority::Bulk } else { Priority::Interactive };
        let mut ids: Vec<u64> = self.in_line(priority).iter().copied().collect();
        let alone = |id: &u64| self.requests.get(id).is_some_and(|request| request.alone);
        if ids.first().is_some_and(alone) {
            ids.truncate(1);
        } else {
            ids.retain(|id| !alone(id));
        }
        let lengths: Vec<Vec<usize>> = ids.iter().map(|id| self.lengths_to_do(*id, budget)).collect();
        let lines: Vec<&[usize]> = lengths.iter().map(Vec::as_slice).collect();
        let mut batch = Batch { owners: Vec::new(), texts: Vec::new() };
        let taken = match priority {
            Priority::Interactive => batch::share_token_budget(&lines, budget),
            Priority::Bulk => batch::take_by_token_budget(&lines, budget),
        };
        for (id, taken) in ids.into_iter().zip(taken) {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            for index in request.todo.drain(..taken.min(request.todo.len())) {
                batch.owners.push((id, index));
                batch.texts.push(request.texts[index].clone());
            }
            let done = request.todo.is_empty();
            if done || (taken > 0 && priority == Priority::Interactive) {
                let line = self.in_line(priority);
                line.retain(|other| *other != id);
                if !done {
                    // Behind those that have had nothing yet.
                    line.push_back(id);
                }
            }
        }
        self.interactive_tokens = match priority {
            Priority::Interactive => self.interactive_tokens.saturating_add(batch.tokens()),
            Priority::Bulk => 0,
        };
        (!batch.owners.is_empty()).then_some(batch)
    }

    /// Leaves undone what nobody waits for.
    fn drop_abandoned(&mut self) {
        let gone = |request: &Request| request.abandoned.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed));
        let in_line = self.interactive.iter().chain(&self.bulk);
        let ids: Vec<u64> = in_line.filter(|id| self.requests.get(id).is_some_and(gone)).copied().collect();
        for id in ids {
            let Some(request) = self.requests.remove(&id) else { continue };
            self.in_line(request.priority).retain(|other| *other != id);
            let _ = request.reply.send(Err(EmbedError::Abandoned));
        }
    }

    /// Lengths of a request's next texts, as many as a budget can hold and one more.
    fn lengths_to_do(&self, id: u64, budget: usize) -> Vec<usize> {
        let Some(request) = self.requests.get(&id) else { return Vec::new() };
        let mut tokens = 0;
        let within = |length: &usize| {
            let before = tokens;
            tokens += length;
            before <= budget
        };
        request.todo.iter().map(|&index| request.texts[index].0.len()).take_while(within).collect()
    }

    /// Puts a batch's texts back to the front of their requests.
    fn put_back(&mut self, batch: Batch, alone: bool) {
        for &(id, index) in batch.owners.iter().rev() {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            request.alone |= alone;
            let priority = request.priority;
            request.todo.push_front(index);
            let line = self.in_line(priority);
            if !line.contains(&id) {
                line.push_front(id);
            }
        }
    }

    fn fail(&mut self, batch: &Batch, error: EmbedError) {
        let mut error = Some(error);
        for (id, _) in &batch.owners {
            let Some(request) = self.requests.remove(id) else { continue };
            self.in_line(request.priority).retain(|other| other != id);
            let error = error.take().unwrap_or_else(|| EmbedError::Compute("another text of the batch failed".into()));
            // The caller may have gone away; then nobody needs the answer.
            let _ = request.reply.send(Err(error));
        }
    }

    fn deliver(&mut self, batch: Batch, vectors: Vec<Vec<f32>>) {
        for ((id, index), vector) in batch.owners.into_iter().zip(vectors) {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            request.vectors[index] = vector;
            request.missing -= 1;
            if request.missing == 0
                && let Some(request) = self.requests.remove(&id)
            {
                let _ = request.reply.send(Ok(request.vectors));
            }
        }
    }
}

impl Batch {
    fn tokens(&self) -> usize {
        self.texts.iter().map(|text| text.0.len()).sum()
    }

    fn requests(&self) -> usize {
        let mut ids: Vec<u64> = self.owners.iter().map(|(id, _)| *id).collect();
        ids.dedup();
        ids.len()
    }
}

impl Shared {
    /// A panic while the lock is held leaves the line in order (no update is half done), so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn device(&self) -> MutexGuard<'_, (DeviceReport, usize)> {
        self.device.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// However the thread ends, nobody waits for it afterwards: dropping a request answers its caller with `Stopped`.
struct EndGuard<'a>(&'a Shared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.stopped = true;
        line.requests.clear();
        line.ceilings.clear();
        drop(line);
        self.0.changed.notify_all();
    }
}

/// What the thread works with.
struct Worker<'a> {
    shared: &'a Shared,
    embedder: &'a mut dyn Embedder,
    /// Started and not finished, the oldest first: at most two.
    unfinished: VecDeque<Batch>,
    /// Since when the device has had work, or since that time was last counted.
    busy_since: Option<Instant>,
}

/// What to do next.
enum Next {
    Start(Batch),
    /// Nothing is in line: wait for what the device has.
    Finish,
    Measure(mpsc::SyncSender<Result<f64, EmbedError>>),
    Stop,
}

impl Worker<'_> {
    fn run(&mut self) {
        loop {
            match self.next() {
                Next::Start(batch) => self.start(batch),
                Next::Finish => self.finish(),
                Next::Measure(reply) => {
                    let _ = reply.send(guarded(|| self.embedder.matmul_ceiling()));
                }
                Next::Stop => break,
            }
            // The batch before is done by now or soon; its callers get their vectors while the device works.
            while self.unfinished.len() > 1 {
                self.finish();
            }
            if !self.unfinished.is_empty()
                && let Err(error) = guarded(|| self.embedder.wait_until_nearly_done())
            {
                tracing::debug!("the embedder does not say when it is nearly done: {error}");
            }
        }
        while !self.unfinished.is_empty() {
            self.finish();
        }
    }

    /// Waits for work where the device has none.
    fn next(&self) -> Next {
        let budget = self.embedder.batch_tokens();
        let mut line = self.shared.lock();
        loop {
            if line.stopped {
                return Next::Stop;
            }
            if let Some(reply) = line.ceilings.pop_front() {
                if self.unfinished.is_empty() {
                    return Next::Measure(reply);
                }
                line.ceilings.push_front(reply);
                return Next::Finish;
            }
            if let Some(batch) = line.take_batch(budget) {
                return Next::Start(batch);
            }
            if !self.unfinished.is_empty() {
                return Next::Finish;
            }
            line = self.shared.changed.wait(line).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn start(&mut self, batch: Batch) {
        self.busy_since.get_or_insert_with(Instant::now);
        failpoint::hang("embedder");
        match guarded(|| self.embedder.start(&batch.texts)) {
            Ok(()) => self.unfinished.push_back(batch),
            Err(error) => self.failed(batch, error),
        }
        // Callers that wait for room in the line.
        self.shared.changed.notify_all();
    }

    fn finish(&mut self) {
        let Some(batch) = self.unfinished.pop_front() else { return };
        let result = guarded(|| self.embedder.finish());
        self.count_busy_time();
        *self.shared.device() = (self.embedder.device(), self.embedder.batch_tokens());
        match result {
            Ok(vectors) => {
                self.shared.tokens.fetch_add(batch.tokens() as u64, Ordering::Relaxed);
                self.shared.texts.fetch_add(batch.texts.len() as u64, Ordering::Relaxed);
                self.shared.batches.fetch_add(1, Ordering::Relaxed);
                let mut line = self.shared.lock();
                line.went_on = Some(Instant::now());
                line.deliver(batch, vectors);
            }
            Err(error) => self.failed(batch, error),
        }
    }

    fn count_busy_time(&mut self) {
        if let Some(since) = self.busy_since {
            self.shared.busy_us.fetch_add(since.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
        self.busy_since = (!self.unfinished.is_empty()).then(Instant::now);
    }

    /// A batch of several requests is taken apart, so that a fault meets the request it belongs to; one that ran out of
    /// memory is tried again in what the embedder has made a smaller budget. What fails alone fails.
    fn failed(&mut self, batch: Batch, error: EmbedError) {
        if self.unfinished.is_empty() {
            self.busy_since = None;
        }
        let mut line = self.shared.lock();
        line.went_on = Some(Instant::now());
        match error {
            EmbedError::OutOfMemory(_) if batch.texts.len() > 1 => line.put_back(batch, false),
            EmbedError::Compute(_) if batch.requests() > 1 => line.put_back(batch, true),
            error => line.fail(&batch, error),
        }
    }
}

/// A batch that panics fails; the model itself is not changed by embedding.
fn guarded<T>(work: impl FnOnce() -> Result<T, EmbedError>) -> Result<T, EmbedError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(EmbedError::Compute("the model's code panicked; this is a bug".into())))
}

#[cfg(test)]
mod tests;
