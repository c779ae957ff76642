//! Texts to vectors: the [`Embedder`] trait, the model's tokenizer, and the one thread that owns the model.

mod backend;
mod batch;
#[cfg(feature = "cuda")]
mod check;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod encoder;
mod fake;
mod load;
mod model_files;
mod thread;
mod token_table;
mod tokenizer;
mod weights;

pub use backend::Shape;
#[cfg(feature = "cuda")]
pub use check::{CheckReport, CheckRow, check};
pub use cpu::CpuEmbedder;
pub use device::{Choice, CudaFacts, DeviceMemory, DeviceReport, DeviceRequest, NoCuda, choose};
pub use fake::FakeEmbedder;
pub use load::{DeviceSettings, load, probe};
pub use model_files::{ModelFiles, ModelSpec};
pub use thread::{EmbedderCounters, EmbedderHandle, Priority};
pub use tokenizer::{HubTokenizer, TextTokenizer, TokenIds};

use std::sync::Arc;

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ModelInfo {
    /// The contract's `embedding_model_id`, e.g. `bge-m3`.
    pub id: String,
    /// The contract's `embedding_model_name`, e.g. `BAAI/bge-m3`.
    pub name: String,
    pub dimension: usize,
    /// Tokens a text may have, special tokens included.
    pub max_tokens: usize,
    /// Changes when the vectors would: a hash of the weights' and tokenizer's files and of the pooling.
    pub fingerprint: String,
    /// `cpu f32 (2 threads)` or the like.
    pub device: String,
}

/// Why texts could not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The model cannot be loaded: an operator must act.
    #[error("{0}")]
    Load(String),
    /// The model cannot be fetched: the hub may be reached later.
    #[error("{0}")]
    Fetch(String),
    /// A text over the model's limit reached the encoder: texts are split before, never cut here.
    #[error("a text of {tokens} tokens is over the model's limit of {limit}")]
    TooLong { tokens: usize, limit: usize },
    /// There is no device as asked for: it may come (a driver that is loaded late), so a restart may help.
    #[error("{0}")]
    NoDevice(String),
    /// The device has no room for it now: other programs may leave the card.
    #[error("out of memory on the GPU: {0}")]
    OutOfMemory(String),
    /// The device failed in a way that this process cannot recover from.
    #[error("the GPU is lost to this process: {0}")]
    DeviceLost(String),
    /// The computation failed.
    #[error("the embedding failed: {0}")]
    Compute(String),
    /// The caller said that it does not want the answer any more.
    #[error("nobody waits for the embedding any more")]
    Abandoned,
    /// The thread that owns the model has ended (shutdown).
    #[error("the embedder has stopped")]
    Stopped,
}

impl From<candle_core::Error> for EmbedError {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(error.to_string())
    }
}

/// A model's embeddings of its vocabulary, before any layer.
pub trait TokenVectors: Send + Sync {
    /// One vector for each token id, in order, all of one length; not normalised.
    fn of_tokens(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

/// A loaded model on its device. It is owned by one thread, so it needs no lock.
pub trait Embedder: Send {
    fn info(&self) -> &ModelInfo;

    /// The model's tokenizer, to be used on the caller's thread.
    fn tokenizer(&self) -> Arc<dyn TextTokenizer>;

    /// The model's embeddings of its vocabulary, to be used on the caller's thread.
    fn token_vectors(&self) -> Arc<dyn TokenVectors>;

    /// Tokens a batch should have at most; a longer text goes alone. Each [`EmbedError::OutOfMemory`] of `start` halves
    /// it, down to one.
    fn batch_tokens(&self) -> usize;

    /// Hands a batch to the device. Where the device works by itself this returns at once; at most two batches may be
    /// unfinished. After an error the batch is not started.
    fn start(&mut self, texts: &[TokenIds]) -> Result<(), EmbedError>;

    /// Waits until the batch started last is nearly done, so that the device will not idle if the next one comes now.
    fn wait_until_nearly_done(&mut self) -> Result<(), EmbedError> {
        Ok(())
    }

    /// The oldest unfinished batch: one L2-normalised vector (`dimension` numbers, f32) for each text, in the texts'
    /// order.
    fn finish(&mut self) -> Result<Vec<Vec<f32>>, EmbedError>;

    fn device(&self) -> DeviceReport;

    /// What the device reaches in a large matrix product of the encoder's precision, in operations a second.
    fn matmul_ceiling(&mut self) -> Result<f64, EmbedError>;

    /// The model's sizes; None where nothing is computed.
    fn shape(&self) -> Option<Shape>;

    /// One batch from start to end.
    fn embed(&mut self, texts: &[TokenIds]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.start(texts)?;
        self.finish()
    }
}
