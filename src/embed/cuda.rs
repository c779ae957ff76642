//! The embedder on an NVIDIA GPU: f16, resident, within a memory budget.
//!
//! Weights and workspace are allocated once and kept. The token budget of a batch is measured when the model is warmed
//! up: the smallest that is nearly as fast as a larger one, within the memory there is. Memory that runs out halves it;
//! memory that other programs give back lets it grow again.

mod backend;
mod gpu;
mod slots;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::backend::{CudaBackend, CudaPooled};
pub use self::gpu::{Ballast, probe};
use super::device::{CudaFacts, DeviceMemory, DeviceReport};
use super::encoder::{self, Encoder};
use super::load::DeviceSettings;
use super::tokenizer::HubTokenizer;
use super::weights::Weights;
use super::{EmbedError, Embedder, ModelFiles, ModelInfo, Shape, TextTokenizer, TokenIds, TokenVectors};
use crate::telemetry::event;

/// Left to the other programs on the card, in bytes, where no budget is set.
const LEFT_FREE: u64 = 1 << 30;

/// The token budgets that are tried at warm-up.
const BUDGETS: [usize; 5] = [2048, 4096, 8192, 16384, 32768];

/// A larger budget must be so much faster to be worth its memory and the longer wait of a query.
const WORTH: f64 = 1.03;

/// How long after memory ran out the budget is tried to grow again.
const GROW_AFTER: Duration = Duration::from_secs(60);

/// Sides of the product that stands for what the card can do, and how often it is made.
const CEILING: (usize, usize) = (8192, 20);

/// A model on the card.
pub struct CudaEmbedder {
    info: ModelInfo,
    files: ModelFiles,
    tokenizer: Arc<HubTokenizer>,
    token_vectors: Arc<dyn TokenVectors>,
    encoder: Encoder<CudaBackend>,
    /// After the encoder, whose weights must go before the context.
    backend: CudaBackend,
    name: String,
    /// Tokens that the memory budget has room for; `usize::MAX` where none is set and the card alone is the limit.
    allowed_tokens: usize,
    batch_tokens: usize,
    /// What `batch_tokens` would be with memory enough.
    wanted_tokens: usize,
    halvings: u64,
    shrunk: Option<Instant>,
    peak: u64,
    unfinished: VecDeque<CudaPooled>,
}

impl CudaEmbedder {
    /// Loads tokenizer and weights, and finds the token budget.
    pub fn load(files: ModelFiles, settings: &DeviceSettings, facts: &CudaFacts) -> Result<Self, EmbedError> {
        // A vocabulary of 250,000 pieces takes about as long to read as the weights.
        let (tokenizer, on_card) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| HubTokenizer::load(&files.tokenizer, files.max_tokens));
            let on_card = load_weights(&files);
            (tokenizer.join(), on_card)
        });
        let tokenizer = tokenizer
            .unwrap_or_else(|_| Err(EmbedError::Load("the tokenizer's code panicked; this is a bug".into())))
            .map(Arc::new)?;
        let (backend, encoder, token_vectors) = on_card?;
        let mut embedder = Self {
            info: files.model_info(format!("cuda f16 ({})", facts.name)),
            files,
            tokenizer,
            token_vectors,
            encoder,
            backend,
            name: facts.name.clone(),
            allowed_tokens: usize::MAX,
            batch_tokens: 0,
            wanted_tokens: 0,
            halvings: 0,
            shrunk: None,
            peak: 0,
            unfinished: VecDeque::new(),
        };
        embedder.warm_up(settings)?;
        Ok(embedder)
    }

    /// The activations after each operation, with the operation's name.
    pub fn trace(&mut self, texts: &[TokenIds]) -> Result<Vec<(&'static str, Vec<f32>)>, EmbedError> {
        self.backend.gpu.bind()?;
        self.make_room(texts)?;
        encoder::trace(&self.encoder, &self.backend, texts, self.files.pooling)
    }

    /// Bytes of workspace that each token takes.
    pub fn bytes_per_token(&self) -> usize {
        self.backend.bytes_per_token()
    }

    /// Gives the workspace back; the next batch allocates what it needs.
    pub fn release_workspace(&self) -> Result<(), EmbedError> {
        self.backend.resize(0)
    }

    /// Finds the token budget, allocates its workspace, and says so.
    fn warm_up(&mut self, settings: &DeviceSettings) -> Result<(), EmbedError> {
        let (free, _) = self.backend.gpu.memory()?;
        let taken = self.backend.weight_bytes() + self.backend.workspace_bytes();
        let tokens_in = |bytes: u64| (bytes / self.backend.bytes_per_token() as u64) as usize;
        let mut room_tokens = tokens_in(free.saturating_sub(LEFT_FREE.min(free / 2)));
        if settings.memory > 0 {
            self.allowed_tokens = tokens_in(settings.memory.saturating_sub(taken));
            room_tokens = self.allowed_tokens.min(tokens_in(free));
            if self.allowed_tokens == 0 {
                return Err(EmbedError::Load(format!(
                    "embedding.memory_mb is {}, and {} takes {:.0} MiB of GPU memory before any text: raise it, or set \
                     it to 0 for what is free",
                    settings.memory >> 20,
                    self.files.spec.name,
                    mib(taken)
                )));
            }
        }
        let candidates: Vec<usize> = match settings.batch_tokens {
            0 => BUDGETS.to_vec(),
            tokens => vec![tokens],
        };
        let mut fitting: Vec<usize> = candidates.iter().copied().filter(|&tokens| tokens <= room_tokens).collect();
        self.wanted_tokens = candidates.iter().copied().max().unwrap_or(1);
        self.allocate(fitting.iter().copied().max().unwrap_or(room_tokens))?;
        // Others may have taken memory since it was looked at.
        fitting.retain(|&tokens| tokens <= self.batch_tokens);
        if settings.batch_tokens == 0 && fitting.len() > 1 {
            let rates = self.measure(&fitting)?;
            self.wanted_tokens = smallest_nearly_fastest(&rates);
            self.allocate(self.wanted_tokens)?;
            let rates: Vec<String> = rates.iter().map(|(tokens, rate)| format!("{tokens}: {rate:.0}")).collect();
            tracing::info!("tokens/s by the tokens of a batch: {}", rates.join(", "));
        }
        tracing::info!(
            "batches of {} tokens; {:.0} MiB of GPU memory for the model, {:.0} MiB for the work on it",
            self.batch_tokens,
            mib(self.backend.weight_bytes()),
            mib(self.backend.workspace_bytes())
        );
        Ok(())
    }

    /// A workspace for batches of so many tokens, and for the longest text if there is room for it; in half of it, and
    /// so on, where that much cannot be had.
    fn allocate(&mut self, tokens: usize) -> Result<(), EmbedError> {
        let mut tokens = tokens.max(1);
        loop {
            let longest = tokens.max(self.info.max_tokens.min(self.allowed_tokens));
            let result = self.backend.resize(longest).or_else(|error| match error {
                EmbedError::OutOfMemory(_) if longest > tokens => self.backend.resize(tokens),
                error => Err(error),
            });
            match result {
                Ok(()) => break,
                Err(EmbedError::OutOfMemory(_)) if tokens > 1 => tokens /= 2,
                Err(error) => return Err(error),
            }
        }
        self.batch_tokens = tokens;
        self.note_peak();
        Ok(())
    }

    /// Tokens a second with batches of these sizes, until a larger one is no longer worth it.
    fn measure(&mut self, budgets: &[usize]) -> Result<Vec<(usize, f64)>, EmbedError> {
        let mut rates: Vec<(usize, f64)> = Vec::new();
        for &tokens in budgets {
            let length = tokens.min(self.info.max_tokens).min(512);
            let text = TokenIds((0..length as u32).map(|id| id % self.files.config.vocab_size as u32).collect());
            let texts = vec![text; tokens / length];
            // The first pass loads cuBLAS' kernels for these sizes.
            self.embed(&texts)?;
            let started = Instant::now();
            self.embed(&texts)?;
            let rate = (texts.len() * length) as f64 / started.elapsed().as_secs_f64();
            let worth = rates.last().is_none_or(|&(_, before)| rate > before * WORTH);
            rates.push((tokens, rate));
            if !worth {
                break;
            }
        }
        Ok(rates)
    }

    /// Where memory ran out a while ago and is there again.
    fn grow_if_possible(&mut self) {
        let Some(shrunk) = self.shrunk else { return };
        if !self.unfinished.is_empty() || shrunk.elapsed() < GROW_AFTER {
            return;
        }
        self.shrunk = Some(Instant::now());
        let needed = self.wanted_tokens.saturating_sub(self.backend.capacity()) * self.backend.bytes_per_token();
        if self.backend.gpu.memory().is_ok_and(|(free, _)| free > needed as u64 + LEFT_FREE) {
            match self.allocate(self.wanted_tokens) {
                Ok(()) => tracing::info!("there is GPU memory again: batches of {} tokens", self.batch_tokens),
                Err(error) => tracing::warn!("batches stay smaller: {error}"),
            }
            if self.batch_tokens == self.wanted_tokens {
                self.shrunk = None;
            }
        }
    }

    /// Half of the budget from now on, or less, in a workspace of that size. A text that went alone says nothing about
    /// the budget: it gets the workspace back that it could not enlarge.
    fn after_out_of_memory(&mut self, error: &EmbedError, texts: usize) {
        let before = self.batch_tokens;
        let result = self.allocate(if texts > 1 { (before / 2).max(1) } else { before });
        if texts > 1 || self.batch_tokens < before {
            self.halvings += 1;
            self.shrunk = Some(Instant::now());
        }
        tracing::warn!(
            MESSAGE_ID = event::GPU_MEMORY_SHORT,
            BATCH_TOKENS = self.batch_tokens,
            "{error}: batches of {} tokens (before: {before})",
            self.batch_tokens
        );
        if let Err(error) = result {
            self.batch_tokens = 1;
            tracing::warn!("there is no GPU memory at all now: {error}");
        }
    }

    /// For one text that is longer than there was room for: it goes alone, so nothing is in work that would need the old
    /// workspace but the batch before it, which `resize` waits for.
    fn make_room(&mut self, texts: &[TokenIds]) -> Result<(), EmbedError> {
        let tokens: usize = texts.iter().map(|text| text.0.len()).sum();
        if tokens <= self.backend.capacity() {
            return Ok(());
        }
        if tokens > self.allowed_tokens {
            return Err(EmbedError::OutOfMemory(format!(
                "embedding.memory_mb has room for {} tokens at a time, a text has {tokens}",
                self.allowed_tokens
            )));
        }
        self.backend.resize(tokens)?;
        self.note_peak();
        Ok(())
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.backend.weight_bytes() + self.backend.workspace_bytes());
    }

    fn try_start(&mut self, texts: &[TokenIds]) -> Result<CudaPooled, EmbedError> {
        self.backend.gpu.bind()?;
        self.make_room(texts)?;
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.0.as_slice()).collect();
        self.encoder.encode(&self.backend, &ids, self.files.pooling)
    }
}

impl Embedder for CudaEmbedder {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn TextTokenizer> {
        self.tokenizer.clone()
    }

    fn token_vectors(&self) -> Arc<dyn TokenVectors> {
        self.token_vectors.clone()
    }

    fn batch_tokens(&self) -> usize {
        self.batch_tokens
    }

    fn start(&mut self, texts: &[TokenIds]) -> Result<(), EmbedError> {
        let limit = self.info.max_tokens;
        if let Some(text) = texts.iter().find(|text| text.0.len() > limit) {
            return Err(EmbedError::TooLong { tokens: text.0.len(), limit });
        }
        // The kernels look the ids up unchecked.
        let vocabulary = self.files.config.vocab_size as u32;
        if let Some(id) = texts.iter().flat_map(|text| &text.0).find(|id| **id >= vocabulary) {
            return Err(EmbedError::Compute(format!("token id {id} is not in a vocabulary of {vocabulary}")));
        }
        self.grow_if_possible();
        match self.try_start(texts) {
            Ok(pooled) => {
                self.unfinished.push_back(pooled);
                Ok(())
            }
            Err(error) => {
                // What was issued of this batch still reads host memory that the next one will write.
                self.backend.gpu.synchronize()?;
                if matches!(error, EmbedError::OutOfMemory(_)) {
                    self.after_out_of_memory(&error, texts.len());
                }
                Err(error)
            }
        }
    }

    fn wait_until_nearly_done(&mut self) -> Result<(), EmbedError> {
        self.backend.wait_until_nearly_done()
    }

    fn finish(&mut self) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.backend.gpu.bind()?;
        let pooled = self.unfinished.pop_front().ok_or_else(|| EmbedError::Compute("no batch was started".into()))?;
        self.backend.vectors(pooled)
    }

    fn device(&self) -> DeviceReport {
        let memory = self.backend.gpu.memory().ok().map(|(free, total)| DeviceMemory {
            total,
            free,
            weights: self.backend.weight_bytes(),
            workspace: self.backend.workspace_bytes(),
            peak: self.peak,
        });
        DeviceReport {
            kind: "cuda".into(),
            name: self.name.clone(),
            precision: "f16".into(),
            memory,
            budget_halvings: self.halvings,
        }
    }

    fn matmul_ceiling(&mut self) -> Result<f64, EmbedError> {
        self.backend.gpu.bind()?;
        self.backend.measure_matmul(CEILING.0, CEILING.1)
    }

    fn shape(&self) -> Option<Shape> {
        encoder::shape(&self.files.config).ok()
    }
}

/// What a model's weights become.
type Loaded = (CudaBackend, Encoder<CudaBackend>, Arc<dyn TokenVectors>);

fn load_weights(files: &ModelFiles) -> Result<Loaded, EmbedError> {
    let backend = CudaBackend::open(encoder::shape(&files.config)?)?;
    let weights = Weights::open(&files.weights)?;
    let encoder = Encoder::load(&backend, &files.config, files.position_offset, files.max_tokens, &weights)
        .map_err(|error| no_room_for_weights(error, files, &backend))?;
    backend.loaded()?;
    Ok((backend, encoder, weights.token_vectors()))
}

/// The smallest budget that is within [`WORTH`] of the fastest. `rates` are in ascending order of the budgets.
fn smallest_nearly_fastest(rates: &[(usize, f64)]) -> usize {
    let fastest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    rates.iter().find(|(_, rate)| rate * WORTH >= fastest).map_or(1, |(tokens, _)| *tokens)
}

fn no_room_for_weights(error: EmbedError, files: &ModelFiles, backend: &CudaBackend) -> EmbedError {
    match error {
        EmbedError::OutOfMemory(_) => {
            let free = backend.gpu.memory().map_or(0, |(free, _)| free);
            EmbedError::OutOfMemory(format!(
                "the weights of {} do not fit: {:.0} MiB of them are loaded and {:.0} MiB are free; end other programs \
                 on the card (nvidia-smi shows them) or set embedding.device to \"cpu\"",
                files.spec.name,
                mib(backend.weight_bytes()),
                mib(free)
            ))
        }
        error => error,
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_the_smallest_that_is_nearly_the_fastest() {
        assert_eq!(smallest_nearly_fastest(&[(2048, 100.0), (4096, 150.0), (8192, 153.0)]), 4096);
        assert_eq!(smallest_nearly_fastest(&[(2048, 100.0), (4096, 150.0), (8192, 170.0)]), 8192);
        assert_eq!(smallest_nearly_fastest(&[(2048, 100.0), (4096, 90.0)]), 2048);
        assert_eq!(smallest_nearly_fastest(&[]), 1);
    }
}
