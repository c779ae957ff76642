//! Texts to vectors: the [`Embedder`] trait, the model's tokenizer, and the one thread that owns the model.

mod batch;
mod candle;
mod encoder;
mod fake;
mod kernels;
mod model_files;
mod thread;
mod tokenizer;

pub use candle::CandleEmbedder;
pub use fake::FakeEmbedder;
pub use model_files::{ModelFiles, ModelSpec};
pub use thread::{EmbedderCounters, EmbedderHandle, Priority};
pub use tokenizer::{TextTokenizer, TokenIds};

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
    /// The computation failed.
    #[error("the embedding failed: {0}")]
    Compute(String),
    /// The thread that owns the model has ended (shutdown).
    #[error("the embedder has stopped")]
    Stopped,
}

/// A loaded model. It is owned by one thread, so it needs no lock.
pub trait Embedder: Send {
    fn info(&self) -> &ModelInfo;

    /// The model's tokenizer, to be used on the caller's thread.
    fn tokenizer(&self) -> Arc<dyn TextTokenizer>;

    /// One L2-normalised vector (`dimension` numbers, f32) for each text, in the texts' order.
    fn embed(&mut self, texts: &[TokenIds]) -> Result<Vec<Vec<f32>>, EmbedError>;
}
