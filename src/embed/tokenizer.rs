//! A model's tokenizer: texts to token ids, and where the tokens are. Used on the callers' threads.

use std::ops::Range;
use std::path::Path;

use tokenizers::Tokenizer;

use super::EmbedError;
use crate::domain::TokenCounter;

/// A text as the model takes it: token ids with special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIds(pub Vec<u32>);

/// What a tokenizer does for the rest of the project.
pub trait TextTokenizer: TokenCounter + Send + Sync {
    /// The whole text as token ids with special tokens; never truncated.
    fn encode(&self, text: &str) -> TokenIds;

    /// Tokens a text may have, special tokens included.
    fn max_tokens(&self) -> usize;

    /// Special tokens that `encode` adds to a text.
    fn special_tokens(&self) -> usize;

    /// The vocabulary without special tokens.
    fn ordinary_ids(&self) -> Vec<u32>;

    /// Tokens a text may have without the special ones: what chunks are sized by.
    fn content_tokens(&self) -> usize {
        self.max_tokens().saturating_sub(self.special_tokens())
    }
}

/// A tokenizer from a model's `tokenizer.json`.
pub struct HubTokenizer {
    tokenizer: Tokenizer,
    max_tokens: usize,
    special_tokens: usize,
}

impl HubTokenizer {
    /// Loads `tokenizer.json`. Truncation and padding that the file asks for are switched off: nothing is cut silently.
    pub fn load(path: &Path, max_tokens: usize) -> Result<Self, EmbedError> {
        let fail = |reason: String| EmbedError::Load(format!("tokenizer {}: {reason}", path.display()));
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| fail(error.to_string()))?;
        tokenizer.with_truncation(None).map_err(|error| fail(error.to_string()))?;
        tokenizer.with_padding(None);
        let special_tokens = tokenizer.encode_fast("", true).map_err(|error| fail(error.to_string()))?.get_ids().len();
        Ok(Self { tokenizer, max_tokens, special_tokens })
    }
}

impl TextTokenizer for HubTokenizer {
    fn encode(&self, text: &str) -> TokenIds {
        match self.tokenizer.encode_fast(text, true) {
            Ok(encoding) => TokenIds(encoding.get_ids().to_vec()),
            // The tokenizers of these model families have an unknown token and fail on no text; if one did, the text
            // would reach the encoder empty, which reports it.
            Err(_) => TokenIds(Vec::new()),
        }
    }

    fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    fn special_tokens(&self) -> usize {
        self.special_tokens
    }

    fn ordinary_ids(&self) -> Vec<u32> {
        let special = self.tokenizer.get_added_tokens_decoder();
        let mut ids: Vec<u32> =
            self.tokenizer.get_vocab(false).into_values().filter(|id| !special.contains_key(id)).collect();
        ids.sort_unstable();
        ids
    }
}

impl TokenCounter for HubTokenizer {
    fn token_ranges(&self, text: &str) -> Vec<Range<usize>> {
        match self.tokenizer.encode(text, false) {
            Ok(encoding) => encoding.get_offsets().iter().map(|&(start, end)| start..end).collect(),
            Err(_) => Vec::new(),
        }
    }
}
