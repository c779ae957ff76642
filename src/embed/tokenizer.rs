//! A model's tokenizer: texts to token ids, and where the tokens are. Used on the callers' threads.

use std::path::Path;

use tokenizers::Tokenizer;

use super::EmbedError;
use crate::domain::{Token, TokenCounter};

/// A text as the model takes it: token ids with special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIds(pub Vec<u32>);

impl TokenIds {
    /// Cuts the text's end off, so that `limit` tokens are left. Of the special tokens one stands before the text, the
    /// others after it, as in all models of these families.
    pub fn cut_end(&mut self, limit: usize, special_tokens: usize) {
        let after = special_tokens.saturating_sub(1);
        if let Some(over) = self.0.len().checked_sub(limit.max(special_tokens)) {
            let end = self.0.len() - after;
            self.0.drain(end - over..end);
        }
    }

    /// Cuts the text's start off, so that `limit` tokens are left.
    pub fn cut_start(&mut self, limit: usize, special_tokens: usize) {
        let before = special_tokens.min(1);
        if let Some(over) = self.0.len().checked_sub(limit.max(special_tokens)) {
            self.0.drain(before..before + over);
        }
    }
}

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
    fn tokens(&self, text: &str) -> Vec<Token> {
        match self.tokenizer.encode(text, false) {
            Ok(encoding) => {
                let ids = encoding.get_ids().iter().zip(encoding.get_offsets());
                ids.map(|(&id, &(start, end))| Token { id, range: start..end }).collect()
            }
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_leaves_the_special_tokens() {
        let cut = |limit, start: bool| {
            let mut ids = TokenIds(vec![0, 10, 11, 12, 13, 2]);
            if start {
                ids.cut_start(limit, 2)
            } else {
                ids.cut_end(limit, 2)
            }
            ids.0
        };
        assert_eq!(cut(4, false), [0, 10, 11, 2]);
        assert_eq!(cut(4, true), [0, 12, 13, 2]);
        assert_eq!(cut(6, false), [0, 10, 11, 12, 13, 2]);
        assert_eq!(cut(0, false), [0, 2]);
    }
}
