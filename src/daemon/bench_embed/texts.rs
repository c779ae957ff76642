//! The texts that are measured: how long they are, and of which tokens; the same in every run on every machine. Pure:
//! reads no file and no clock.

use std::ops::Range;

use crate::daemon::random::split_mix_64;
use crate::embed::{TextTokenizer, TokenIds};

/// Tokens of a chunk where nothing else is asked for, special tokens included: published figures of other engines are
/// for about this length.
pub const DEFAULT_TOKENS: usize = 450;

/// The mix as points of its quantile function (share of the chunks, tokens), straight between them. Chunks of 200 to
/// 1,200 words are some 280 to 1,700 tokens; short chapters and the remainders of long ones are shorter. The mean is
/// about 431 tokens.
const MIX: [(f64, f64); 8] = [
    (0.0, 20.0),
    (0.10, 80.0),
    (0.30, 260.0),
    (0.50, 340.0),
    (0.75, 520.0),
    (0.90, 860.0),
    (0.98, 1400.0),
    (1.0, 1700.0),
];

/// Separates the streams of random numbers of two chunks.
const CHUNK_STEP: u64 = 0xd134_2543_de82_ef95;

/// How long the chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// All alike.
    Fixed(usize),
    /// As in books: see [`MIX`].
    Mix,
}

impl Lengths {
    /// Tokens of the chunk with this number, special tokens included, before the model's limit is looked at.
    ///
    /// The mix takes its quantiles in the golden ratio's low-discrepancy order: the first N chunks have the same
    /// distribution for every N, so that a long run and a short one measure the same work.
    pub fn of(self, index: u64) -> usize {
        match self {
            Self::Fixed(tokens) => tokens,
            Self::Mix => {
                const GOLDEN: f64 = 0.618_033_988_749_894_9;
                quantile_of_mix(((index as f64 + 0.5) * GOLDEN).fract())
            }
        }
    }

    /// The longest chunk there may be.
    pub fn longest(self) -> usize {
        match self {
            Self::Fixed(tokens) => tokens,
            Self::Mix => MIX[MIX.len() - 1].1 as usize,
        }
    }
}

fn quantile_of_mix(share: f64) -> usize {
    let after = MIX.iter().position(|&(at, _)| at > share).unwrap_or(MIX.len() - 1).max(1);
    let ((from, low), (to, high)) = (MIX[after - 1], MIX[after]);
    (low + (high - low) * (share - from) / (to - from)).round() as usize
}

/// Makes chunks of random ordinary tokens: speed does not depend on which ones they are.
pub struct TokenSource {
    /// Ids a chunk may have inside; never empty.
    ordinary: Vec<u32>,
    before: Vec<u32>,
    after: Vec<u32>,
    lengths: Lengths,
    limit: usize,
    seed: u64,
}

impl TokenSource {
    /// Takes the vocabulary and the special tokens around a text from the tokenizer.
    pub fn new(tokenizer: &dyn TextTokenizer, lengths: Lengths, seed: u64) -> Self {
        let mut ordinary = tokenizer.ordinary_ids();
        if ordinary.is_empty() {
            ordinary.push(0);
        }
        let mut before = tokenizer.encode("").0;
        let after = before.split_off(before.len().div_ceil(2));
        Self { ordinary, before, after, lengths, limit: tokenizer.max_tokens(), seed }
    }

    /// Tokens of the chunk with this number, special ones included, within the model's limit.
    pub fn tokens(&self, index: u64) -> usize {
        self.lengths.of(index).clamp(self.before.len() + self.after.len() + 1, self.limit)
    }

    /// Whether the model takes less than was asked for.
    pub fn is_clipped(&self) -> bool {
        self.lengths.longest() > self.limit
    }

    pub fn chunk(&self, index: u64) -> TokenIds {
        let inside = self.tokens(index).saturating_sub(self.before.len() + self.after.len());
        let mut state = self.seed.wrapping_add(index.wrapping_mul(CHUNK_STEP));
        let random =
            (0..inside).map(|_| self.ordinary[(split_mix_64(&mut state) % self.ordinary.len() as u64) as usize]);
        TokenIds(self.before.iter().copied().chain(random).chain(self.after.iter().copied()).collect())
    }

    pub fn chunks(&self, indices: Range<u64>) -> Vec<TokenIds> {
        indices.map(|index| self.chunk(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::{Embedder, FakeEmbedder};

    #[test]
    fn the_mix_is_what_its_documentation_says() {
        assert_eq!(quantile_of_mix(0.0), 20);
        assert_eq!(quantile_of_mix(0.5), 340);
        assert_eq!(quantile_of_mix(1.0), 1700);
        // Between two points, on the line: half of the way from 340 to 520.
        assert_eq!(quantile_of_mix(0.625), 430);
        let all: Vec<usize> = (0..10_000).map(|index| Lengths::Mix.of(index)).collect();
        assert!(all.iter().all(|tokens| (20..=1700).contains(tokens)));
        let mean = all.iter().sum::<usize>() as f64 / all.len() as f64;
        assert!((mean - 431.4).abs() < 1.0, "mean {mean}");
    }

    #[test]
    fn a_short_run_has_the_mix_of_a_long_one() {
        let mean = |count: u64| (0..count).map(|index| Lengths::Mix.of(index)).sum::<usize>() as f64 / count as f64;
        for count in [50, 200, 1000] {
            assert!((mean(count) / mean(100_000) - 1.0).abs() < 0.05, "{count}: {}", mean(count));
        }
    }

    #[test]
    fn chunks_have_their_length_their_special_tokens_and_are_the_same_in_every_run() {
        let embedder = FakeEmbedder::default();
        let tokenizer = embedder.tokenizer();
        let source = TokenSource::new(tokenizer.as_ref(), Lengths::Fixed(100), 1);
        let chunk = source.chunk(7).0;
        assert_eq!((chunk.len(), chunk[0], chunk[99]), (100, 0, 1));
        assert!(chunk[1..99].iter().all(|id| source.ordinary.contains(id)));
        assert!(!source.is_clipped());
        assert_eq!(source.chunks(5..9)[2].0, chunk);
        assert_ne!(source.chunk(8).0, chunk);
        assert_ne!(TokenSource::new(tokenizer.as_ref(), Lengths::Fixed(100), 2).chunk(7).0, chunk);
    }

    #[test]
    fn lengths_are_clipped_to_the_models_limit_and_that_is_known() {
        let tokenizer = FakeEmbedder::default().tokenizer();
        let limit = tokenizer.max_tokens();
        let fixed = TokenSource::new(tokenizer.as_ref(), Lengths::Fixed(450), 1);
        assert_eq!((fixed.chunk(0).0.len(), fixed.is_clipped()), (limit, true));
        let mix = TokenSource::new(tokenizer.as_ref(), Lengths::Mix, 1);
        assert!(mix.is_clipped() && mix.chunks(0..200).iter().all(|chunk| chunk.0.len() <= limit));
        // One token is the least a text may have beside the special ones.
        assert_eq!(TokenSource::new(tokenizer.as_ref(), Lengths::Fixed(0), 1).chunk(0).0.len(), 3);
    }
}
