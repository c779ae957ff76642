//! The embedder's thread against embedders that fail, wait and run out of memory.

use std::time::Duration;

use super::super::FakeEmbedder;
use super::*;

fn spawn(embedder: impl Embedder + 'static) -> EmbedderHandle {
    EmbedderHandle::spawn(Box::new(embedder)).unwrap()
}

#[test]
fn long_texts_are_split_and_no_word_is_dropped() {
    let handle = spawn(FakeEmbedder::default());
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

/// Behaves as asked, and notes the batches it was given (tokens of each text).
struct Scripted {
    inner: FakeEmbedder,
    batches: Arc<Mutex<Vec<Vec<usize>>>>,
    budget: usize,
    /// Tokens there is memory for.
    memory: usize,
    halvings: u64,
    /// A text of this many tokens panics.
    panics_at: usize,
    /// Held while a batch is started.
    gate: Arc<Mutex<()>>,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            inner: FakeEmbedder::default(),
            batches: Arc::default(),
            budget: 100,
            memory: usize::MAX,
            halvings: 0,
            panics_at: usize::MAX,
            gate: Arc::default(),
        }
    }
}

impl Embedder for Scripted {
    fn info(&self) -> &ModelInfo {
        self.inner.info()
    }

    fn tokenizer(&self) -> Arc<dyn TextTokenizer> {
        self.inner.tokenizer()
    }

    fn token_vectors(&self) -> Arc<dyn TokenVectors> {
        self.inner.token_vectors()
    }

    fn batch_tokens(&self) -> usize {
        self.budget
    }

    fn start(&mut self, texts: &[TokenIds]) -> Result<(), EmbedError> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.0.len()).collect();
        assert!(!lengths.contains(&self.panics_at), "a bug in the model's code");
        self.batches.lock().unwrap().push(lengths.clone());
        drop(self.gate.lock().unwrap());
        if lengths.iter().sum::<usize>() > self.memory {
            self.budget = (self.budget / 2).max(1);
            self.halvings += 1;
            return Err(EmbedError::OutOfMemory(format!("{lengths:?}")));
        }
        self.inner.start(texts)
    }

    fn finish(&mut self) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.inner.finish()
    }

    fn device(&self) -> DeviceReport {
        DeviceReport { budget_halvings: self.halvings, ..self.inner.device() }
    }

    fn matmul_ceiling(&mut self) -> Result<f64, EmbedError> {
        Ok(1.0)
    }

    fn shape(&self) -> Option<Shape> {
        None
    }
}

fn ids(length: usize) -> TokenIds {
    TokenIds((0..length as u32).collect())
}

#[test]
fn a_panic_fails_its_request_and_no_other() {
    let handle = spawn(Scripted { panics_at: 3, ..Scripted::default() });
    assert!(matches!(handle.embed(&["one"], Priority::Bulk), Err(EmbedError::Compute(_))));
    assert_eq!(handle.embed(&["two words"], Priority::Interactive).unwrap().len(), 1);
}

#[test]
fn a_stopped_embedder_says_so() {
    let handle = spawn(FakeEmbedder::default());
    handle.stop();
    assert!(matches!(handle.embed(&["x"], Priority::Bulk), Err(EmbedError::Stopped)));
    assert!(matches!(handle.matmul_ceiling(), Err(EmbedError::Stopped)));
}

#[test]
fn a_text_over_the_limit_is_refused_before_it_reaches_the_device() {
    let handle = spawn(FakeEmbedder::default());
    let error = handle.embed_ids(vec![ids(3), ids(259)], Priority::Bulk).unwrap_err();
    assert!(matches!(error, EmbedError::TooLong { tokens: 259, limit: 258 }), "{error}");
}

type Answer = Result<Vec<Vec<f32>>, EmbedError>;

/// Several requests at once, in their order, while the first batch is held back.
fn together(
    embedder: Scripted,
    requests: Vec<(Vec<usize>, Priority)>,
) -> (Vec<Vec<usize>>, Vec<Answer>, EmbedderHandle) {
    let (gate, batches) = (embedder.gate.clone(), embedder.batches.clone());
    let handle = spawn(embedder);
    batches.lock().unwrap().clear();
    let held = gate.lock().unwrap();
    let waiting = |handle: &EmbedderHandle| {
        let line = handle.shared.lock();
        line.interactive.len() + line.bulk.len()
    };
    let mut callers = Vec::new();
    let first = handle.clone();
    callers.push(std::thread::spawn(move || first.embed_ids(vec![ids(5)], Priority::Bulk)));
    while batches.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for (index, (lengths, priority)) in requests.into_iter().enumerate() {
        let caller = handle.clone();
        callers.push(std::thread::spawn(move || caller.embed_ids(lengths.into_iter().map(ids).collect(), priority)));
        while waiting(&handle) <= index {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(held);
    let mut results: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    results.remove(0).unwrap();
    let mut batches = batches.lock().unwrap().clone();
    batches.remove(0);
    (batches, results, handle)
}

#[test]
fn texts_of_several_books_share_batches_cut_by_tokens() {
    let requests = vec![(vec![30, 40, 50], Priority::Bulk), (vec![20, 20], Priority::Bulk), (vec![60], Priority::Bulk)];
    let (batches, results, handle) = together(Scripted::default(), requests);
    assert_eq!(batches, [vec![50, 40], vec![30, 20, 20], vec![60]]);
    assert!(results.iter().all(Result::is_ok));
    let counters = handle.counters();
    assert_eq!((counters.texts, counters.tokens, counters.batches), (7, 225, 4));
}

#[test]
fn a_query_goes_before_the_next_batch_of_books() {
    let requests =
        vec![(vec![90, 90], Priority::Bulk), (vec![10], Priority::Interactive), (vec![9], Priority::Interactive)];
    let (batches, _, _) = together(Scripted::default(), requests);
    assert_eq!(batches, [vec![10, 9], vec![90], vec![90]]);
}

#[test]
fn a_failure_in_a_shared_batch_meets_the_request_it_belongs_to() {
    let requests = vec![(vec![7, 8], Priority::Bulk), (vec![13], Priority::Bulk), (vec![9], Priority::Bulk)];
    let (_, results, _) = together(Scripted { panics_at: 13, ..Scripted::default() }, requests);
    assert_eq!(results[0].as_ref().unwrap().len(), 2);
    assert!(matches!(results[1], Err(EmbedError::Compute(_))));
    assert_eq!(results[2].as_ref().unwrap().len(), 1);
}

#[test]
fn out_of_memory_halves_the_budget_and_loses_no_text() {
    let embedder = Scripted { memory: 30, ..Scripted::default() };
    let (batches, results, handle) = together(embedder, vec![(vec![20; 6], Priority::Bulk)]);
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2, 1, 1, 1, 1, 1, 1]);
    assert_eq!(results[0].as_ref().unwrap().len(), 6);
    assert_eq!((handle.batch_tokens(), handle.device().budget_halvings), (25, 2));
}

#[test]
fn a_text_too_large_for_the_memory_fails_alone() {
    let requests = vec![(vec![20, 20], Priority::Bulk), (vec![80], Priority::Bulk), (vec![20], Priority::Bulk)];
    let (_, results, _) = together(Scripted { memory: 30, ..Scripted::default() }, requests);
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(EmbedError::OutOfMemory(_))));
    assert!(results[2].is_ok());
}

#[test]
fn interactive_requests_share_a_batch_so_that_a_large_one_holds_up_nobody() {
    let requests = vec![
        (vec![50; 6], Priority::Interactive),
        (vec![20], Priority::Interactive),
        (vec![10], Priority::Interactive),
    ];
    let (batches, _, _) = together(Scripted::default(), requests);
    assert_eq!(batches, [vec![50, 20, 10], vec![50, 50], vec![50, 50], vec![50]]);
}

#[test]
fn books_get_every_fourth_batch_however_much_is_asked() {
    let requests = vec![(vec![100; 7], Priority::Interactive), (vec![90; 2], Priority::Bulk)];
    let (batches, _, _) = together(Scripted::default(), requests);
    let order: Vec<usize> = batches.into_iter().flatten().collect();
    assert_eq!(order, [100, 100, 100, 90, 100, 100, 100, 90, 100]);
}

#[test]
fn what_nobody_waits_for_any_more_is_left_undone() {
    let embedder = Scripted::default();
    let (gate, batches) = (embedder.gate.clone(), embedder.batches.clone());
    let handle = spawn(embedder);
    batches.lock().unwrap().clear();
    let held = gate.lock().unwrap();
    let first = handle.clone();
    let first = std::thread::spawn(move || first.embed_ids(vec![ids(5)], Priority::Bulk));
    while batches.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let abandoned = Arc::new(AtomicBool::new(false));
    let (caller, flag) = (handle.clone(), abandoned.clone());
    let caller = std::thread::spawn(move || caller.embed_ids_unless(vec![ids(7)], Priority::Interactive, Some(flag)));
    while handle.shared.lock().interactive.is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    abandoned.store(true, Ordering::Relaxed);
    drop(held);
    first.join().unwrap().unwrap();
    assert!(matches!(caller.join().unwrap(), Err(EmbedError::Abandoned)));
    assert_eq!(*batches.lock().unwrap(), [vec![5]]);
    assert!(handle.shared.lock().requests.is_empty());
}
