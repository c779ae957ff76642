//! The embedder on the CPU: f32, small groups of texts side by side, on threads of its own and no others.

mod attention;
mod backend;
mod operations;
mod product;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use self::backend::CpuBackend;
use self::product::{Panels, View, product};
use super::device::DeviceReport;
use super::encoder::{self, Encoder};
use super::tokenizer::HubTokenizer;
use super::weights::Weights;
use super::{EmbedError, Embedder, ModelFiles, ModelInfo, Shape, TextTokenizer, TokenIds, TokenVectors, batch};

/// Tokens a thread gets of a batch. More makes it no faster (tests/RESULTS.md) and lets a query wait longer.
const BATCH_TOKENS: usize = 512;
/// Texts of about so many tokens together go through the model as one: then what a layer hands to the next is still in
/// the core's cache.
const GROUP_TOKENS: usize = 256;

/// Rows and columns of the product that stands for what the CPU can do.
const CEILING_SIZE: usize = 1024;

/// A model in memory, and the threads it computes on.
pub struct CpuEmbedder {
    info: ModelInfo,
    shape: Shape,
    encoder: Encoder<CpuBackend>,
    files: ModelFiles,
    tokenizer: Arc<HubTokenizer>,
    token_vectors: Arc<dyn TokenVectors>,
    pool: rayon::ThreadPool,
    batch_tokens: usize,
    finished: VecDeque<Vec<Vec<f32>>>,
}

impl CpuEmbedder {
    /// Loads tokenizer and weights. `threads` = 0 takes all cores, `batch_tokens` = 0 the default.
    pub fn load(files: ModelFiles, threads: usize, batch_tokens: usize) -> Result<Self, EmbedError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("embed-{index}"))
            .build()
            .map_err(|error| EmbedError::Load(format!("the embedder's threads cannot be started: {error}")))?;
        let tokenizer = Arc::new(HubTokenizer::load(&files.tokenizer, files.max_tokens)?);
        let shape = encoder::shape(&files.config)?;
        let weights = Weights::open(&files.weights)?;
        let encoder = Encoder::load(
            &CpuBackend::new(shape, 1),
            &files.config,
            files.position_offset,
            files.max_tokens,
            &weights,
        )?;
        let token_vectors = weights.token_vectors();
        let info = files.model_info(format!("cpu f32 ({} threads)", pool.current_num_threads()));
        let batch_tokens = if batch_tokens == 0 { BATCH_TOKENS * pool.current_num_threads() } else { batch_tokens };
        Ok(Self {
            info,
            shape,
            encoder,
            files,
            tokenizer,
            token_vectors,
            pool,
            batch_tokens,
            finished: VecDeque::new(),
        })
    }
}

#[cfg(feature = "cuda")]
impl CpuEmbedder {
    /// The activations after each operation, with the operation's name.
    pub fn trace(&self, texts: &[TokenIds]) -> Result<Vec<(&'static str, Vec<f32>)>, EmbedError> {
        let backend = CpuBackend::new(self.shape, self.pool.current_num_threads());
        self.pool.install(|| encoder::trace(&self.encoder, &backend, texts, self.files.pooling))
    }
}

impl Embedder for CpuEmbedder {
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
        let lengths: Vec<usize> = texts.iter().map(|text| text.0.len()).collect();
        // Groups need nothing of each other, so no core waits inside a layer, unless there are fewer than threads.
        let threads = self.pool.current_num_threads();
        let parts = lengths.iter().sum::<usize>().div_ceil(GROUP_TOKENS).next_multiple_of(threads);
        let groups = batch::balanced_groups(&lengths, parts);
        let backend = CpuBackend::new(self.shape, threads / groups.len().clamp(1, threads));
        let (encoder, backend, pooling) = (&self.encoder, &backend, self.files.pooling);
        let encoded: Vec<(Vec<usize>, Vec<Vec<f32>>)> = self.pool.install(|| {
            groups
                .into_par_iter()
                .map(|group| {
                    let ids: Vec<&[u32]> = group.iter().map(|&index| texts[index].0.as_slice()).collect();
                    Ok((group, encoder.encode(backend, &ids, pooling)?))
                })
                .collect::<Result<_, EmbedError>>()
        })?;
        let mut vectors = vec![Vec::new(); texts.len()];
        for (index, vector) in encoded.into_iter().flat_map(|(group, vectors)| group.into_iter().zip(vectors)) {
            vectors[index] = vector;
        }
        self.finished.push_back(vectors);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.finished.pop_front().ok_or_else(|| EmbedError::Compute("no batch was started".into()))
    }

    fn device(&self) -> DeviceReport {
        DeviceReport::cpu(self.pool.current_num_threads())
    }

    fn matmul_ceiling(&mut self) -> Result<f64, EmbedError> {
        let threads = self.pool.current_num_threads();
        let values = vec![1.0; CEILING_SIZE * CEILING_SIZE];
        let x = View::new(&values, CEILING_SIZE, CEILING_SIZE, CEILING_SIZE);
        let mut panels = Panels::default();
        panels.fill(x);
        // One product a thread at a time, as the groups of a batch are.
        let all = || (0..8 * threads).into_par_iter().for_each(|_| drop(product(x, &panels, 1)));
        self.pool.install(all);
        let started = Instant::now();
        self.pool.install(all);
        let operations = 2.0 * (CEILING_SIZE as f64).powi(3) * 8.0 * threads as f64;
        Ok(operations / started.elapsed().as_secs_f64())
    }

    fn shape(&self) -> Option<Shape> {
        Some(self.shape)
    }
}
