//! A deterministic embedder without a model, for unit tests and for running the whole daemon in tests
//! (`embedding.model = "fake"`). Texts that share words get similar vectors. It is never chosen by itself.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::backend::l2_normalised;
use super::{DeviceReport, EmbedError, Embedder, ModelInfo, Shape, TextTokenizer, TokenIds, TokenVectors};
use crate::domain::{Token, TokenCounter};

const DIMENSION: usize = 64;
const MAX_TOKENS: usize = 258;
const BATCH_TOKENS: usize = 4096;

/// See the file's head.
pub struct FakeEmbedder {
    info: ModelInfo,
    finished: VecDeque<Vec<Vec<f32>>>,
}

impl Default for FakeEmbedder {
    fn default() -> Self {
        let info = ModelInfo {
            id: "fake".into(),
            name: "fake".into(),
            dimension: DIMENSION,
            max_tokens: MAX_TOKENS,
            fingerprint: "fake-1".into(),
            device: "none (fake embedder)".into(),
        };
        Self { info, finished: VecDeque::new() }
    }
}

impl Embedder for FakeEmbedder {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> Arc<dyn TextTokenizer> {
        Arc::new(WordTokenizer)
    }

    fn token_vectors(&self) -> Arc<dyn TokenVectors> {
        Arc::new(Votes)
    }

    fn batch_tokens(&self) -> usize {
        BATCH_TOKENS
    }

    fn start(&mut self, texts: &[TokenIds]) -> Result<(), EmbedError> {
        self.finished.push_back(texts.iter().map(|text| bag_of_words(&text.0)).collect());
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.finished.pop_front().ok_or_else(|| EmbedError::Compute("no batch was started".into()))
    }

    fn device(&self) -> DeviceReport {
        DeviceReport::cpu(0)
    }

    fn matmul_ceiling(&mut self) -> Result<f64, EmbedError> {
        Err(EmbedError::Compute("the fake embedder multiplies nothing".into()))
    }

    fn shape(&self) -> Option<Shape> {
        None
    }
}

/// Each token votes for eight numbers of the vector; the sum is normalised.
fn bag_of_words(ids: &[u32]) -> Vec<f32> {
    let mut vector = vec![0f32; DIMENSION];
    for &id in ids {
        let mut bits = hash(id);
        for _ in 0..8 {
            vector[(bits & 63) as usize] += if bits & 64 == 0 { 1.0 } else { -1.0 };
            bits >>= 7;
        }
    }
    // Votes may cancel to zero, which no store takes.
    vector[0] += 1e-3;
    l2_normalised(vector)
}

/// Each token's own votes.
struct Votes;

impl TokenVectors for Votes {
    fn of_tokens(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(ids.iter().map(|&id| bag_of_words(&[id])).collect())
    }
}

/// Splits on whitespace; ids are hashes of the lower-cased words; two special tokens as in the real models.
struct WordTokenizer;

impl TextTokenizer for WordTokenizer {
    fn encode(&self, text: &str) -> TokenIds {
        let words = text.split_whitespace().map(word_id);
        TokenIds(std::iter::once(0).chain(words).chain(std::iter::once(1)).collect())
    }

    fn max_tokens(&self) -> usize {
        MAX_TOKENS
    }

    fn special_tokens(&self) -> usize {
        2
    }

    fn ordinary_ids(&self) -> Vec<u32> {
        (2..1000).collect()
    }
}

impl TokenCounter for WordTokenizer {
    fn tokens(&self, text: &str) -> Vec<Token> {
        text.split_whitespace()
            .map(|word| {
                let start = word.as_ptr() as usize - text.as_ptr() as usize;
                Token { id: word_id(word), range: start..start + word.len() }
            })
            .collect()
    }
}

/// Over 1: 0 and 1 are the special tokens.
fn word_id(word: &str) -> u32 {
    let letters: String = word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    hash(letters) as u32 | 2
}

fn hash(value: impl Hash) -> u64 {
    // DefaultHasher::new() has fixed keys: the same in every process of one build.
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
