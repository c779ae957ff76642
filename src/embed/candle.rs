//! The real embedder: loads a model's weights once and runs the encoder on the CPU in f32.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::encoder::{Encoder, Weights};
use super::model_files::WeightsFile;
use super::tokenizer::HubTokenizer;
use super::{EmbedError, Embedder, ModelFiles, ModelInfo, TextTokenizer, TokenIds, batch};

/// A model in memory, and the threads it computes on.
pub struct CandleEmbedder {
    info: ModelInfo,
    encoder: Encoder,
    files: ModelFiles,
    tokenizer: Arc<HubTokenizer>,
    pool: rayon::ThreadPool,
}

impl CandleEmbedder {
    /// Loads tokenizer and weights. `threads` = 0 takes all cores.
    pub fn load(files: ModelFiles, device: &str, threads: usize) -> Result<Self, EmbedError> {
        match device {
            "auto" | "cpu" => {}
            "cuda" => {
                return Err(EmbedError::Load(
                    "embedding.device is \"cuda\", but this build has no CUDA support; use \"auto\" or \"cpu\"".into(),
                ));
            }
            other => {
                return Err(EmbedError::Load(format!("embedding.device '{other}' is none of auto, cpu, cuda")));
            }
        }
        let fail = |what: &str, error: &dyn std::fmt::Display| {
            EmbedError::Load(format!("{what} {}: {error}", files.weights.path().display()))
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("embed-{index}"))
            .build()
            .map_err(|error| fail("threads for", &error))?;
        let tokenizer = Arc::new(HubTokenizer::load(&files.tokenizer, files.max_tokens)?);
        let weights = load_tensors(&files.weights).and_then(Weights::new).map_err(|e| fail("model weights", &e))?;
        let encoder = Encoder::new(&files.config, files.position_offset, &weights)
            .map_err(|error| fail("model weights", &error))?;
        if encoder.positions() < files.max_tokens {
            let reason = format!("{} positions for a limit of {} tokens", encoder.positions(), files.max_tokens);
            return Err(fail("model weights", &reason));
        }
        let info = ModelInfo {
            id: files.spec.id.clone(),
            name: files.spec.name.clone(),
            dimension: files.config.hidden_size,
            max_tokens: files.max_tokens,
            fingerprint: files.fingerprint.clone(),
            device: format!("cpu f32 ({} threads)", pool.current_num_threads()),
        };
        Ok(Self { info, encoder, files, tokenizer, pool })
    }
}

impl Embedder for CandleEmbedder {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn TextTokenizer> {
        self.tokenizer.clone()
    }

    fn embed(&mut self, texts: &[TokenIds]) -> Result<Vec<Vec<f32>>, EmbedError> {
        if let Some(text) = texts.iter().find(|text| text.0.len() > self.info.max_tokens) {
            return Err(EmbedError::TooLong { tokens: text.0.len(), limit: self.info.max_tokens });
        }
        let lengths: Vec<usize> = texts.iter().map(|text| text.0.len()).collect();
        // One group of texts a thread: groups need nothing of each other, so no core waits inside a layer.
        let groups = batch::balanced_groups(&lengths, self.pool.current_num_threads());
        let (encoder, pooling) = (&self.encoder, self.files.pooling);
        let encoded: Vec<(Vec<usize>, Vec<Vec<f32>>)> = self
            .pool
            .install(|| {
                groups
                    .into_par_iter()
                    .map(|group| {
                        let ids: Vec<&[u32]> = group.iter().map(|&index| texts[index].0.as_slice()).collect();
                        Ok((group, encoder.encode(&ids, pooling)?))
                    })
                    .collect::<candle_core::Result<_>>()
            })
            .map_err(|error| EmbedError::Compute(error.to_string()))?;
        let mut vectors = vec![Vec::new(); texts.len()];
        for (index, vector) in encoded.into_iter().flat_map(|(group, vectors)| group.into_iter().zip(vectors)) {
            vectors[index] = vector;
        }
        Ok(vectors)
    }
}

fn load_tensors(file: &WeightsFile) -> candle_core::Result<HashMap<String, Tensor>> {
    match file {
        WeightsFile::Safetensors(path) => candle_core::safetensors::load(path, &Device::Cpu),
        WeightsFile::Pytorch(path) => Ok(candle_core::pickle::read_all(path)?.into_iter().collect()),
    }
}
