//! One chapter's text into spans: units (sentences, or pieces of over-long ones), a greedy cursor over them, and the
//! repair of a tail that came out too small. Pure; similarities are asked for one at a time.

use std::ops::Range;

use super::sentences::sentence_ranges;
use crate::domain::{TextSpan, Token};

/// Chunk sizes in the model's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// A border by meaning needs a chunk of at least this.
    pub min: usize,
    /// No chunk is larger.
    pub max: usize,
}

/// What chunks are built from: a sentence, or a piece of one that is longer than a chunk may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub range: Range<usize>,
    pub tokens: usize,
}

/// The chapter's units, ascending, none over `max` tokens, covering all but whitespace. `tokens` are the text's.
pub fn units(text: &str, language: &str, max: usize, tokens: &[Token]) -> Vec<Unit> {
    // A token belongs to where its last byte is: XLM-R's tokens begin at the space before the word.
    let ends: Vec<usize> = tokens.iter().map(|token| token.range.end.max(1) - 1).collect();
    let count = |range: &Range<usize>| {
        ends.partition_point(|&end| end < range.end) - ends.partition_point(|&end| end < range.start)
    };
    let mut units = Vec::new();
    for sentence in sentence_ranges(text, language) {
        let tokens = count(&sentence);
        if tokens <= max {
            units.push(Unit { range: sentence, tokens });
        } else {
            let first = ends.partition_point(|&end| end < sentence.start);
            split_long_sentence(text, sentence, &ends[first..first + tokens], max, &mut units);
        }
    }
    units
}

/// Cuts a sentence into even pieces of at most `max` tokens, at whitespace where there is some near, else (scripts
/// without spaces) between tokens. `ends` are the last bytes of the sentence's tokens.
fn split_long_sentence(text: &str, sentence: Range<usize>, ends: &[usize], max: usize, units: &mut Vec<Unit>) {
    let mut start = sentence.start;
    let mut first = 0;
    while first < ends.len() {
        let left = ends.len() - first;
        if left <= max {
            units.push(Unit { range: start..sentence.end, tokens: left });
            return;
        }
        let even = left.div_ceil(left.div_ceil(max));
        // Towards the piece's second half only, so that pieces stay of a useful size.
        let cut = (even / 2 + 1..=even)
            .rev()
            .map(|tokens| (tokens, ceil_char_boundary(text, ends[first + tokens - 1] + 1)))
            .find(|&(_, at)| text[at..].starts_with(char::is_whitespace))
            .unwrap_or_else(|| (even, ceil_char_boundary(text, ends[first + even - 1] + 1)));
        let (tokens, at) = cut;
        let piece = start..at;
        let rest = &text[at..sentence.end];
        start = at + (rest.len() - rest.trim_start().len());
        units.push(Unit { range: piece, tokens });
        first += tokens;
        // Several tokens may end inside one character; they went with the piece that holds it.
        while first < ends.len() && ends[first] < start {
            first += 1;
        }
    }
    if start < sentence.end {
        // Characters without tokens at the end: they go with the last piece.
        if let Some(last) = units.last_mut() {
            last.range.end = sentence.end;
        }
    }
}

fn ceil_char_boundary(text: &str, mut at: usize) -> usize {
    while at < text.len() && !text.is_char_boundary(at) {
        at += 1;
    }
    at.min(text.len())
}

/// Walks over a chapter's units and decides where chunks begin.
pub struct Cursor<'a> {
    units: &'a [Unit],
    sizes: Sizes,
    /// First units of the chunks so far.
    starts: Vec<usize>,
    tokens: usize,
    next: usize,
    waits: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(units: &'a [Unit], sizes: Sizes) -> Self {
        let tokens = units.first().map_or(0, |unit| unit.tokens);
        let starts = if units.is_empty() { vec![] } else { vec![0] };
        Self { units, sizes, starts, tokens, next: 1, waits: false }
    }

    /// Goes on until the end, or until a border depends on a similarity that `likeness` does not know yet. It is asked
    /// for the likeness of units `index - 1` and `index`: under 0.5 means a border.
    pub fn run(&mut self, likeness: impl Fn(usize) -> Option<f32>) {
        self.waits = false;
        while self.next < self.units.len() {
            let unit = &self.units[self.next];
            let border = if self.tokens + unit.tokens > self.sizes.max {
                true
            } else if self.tokens >= self.sizes.min {
                match likeness(self.next) {
                    Some(likeness) => likeness < 0.5,
                    None => {
                        self.waits = true;
                        return;
                    }
                }
            } else {
                false
            };
            if border {
                self.starts.push(self.next);
                self.tokens = unit.tokens;
            } else {
                self.tokens += unit.tokens;
            }
            self.next += 1;
        }
    }

    /// The unit whose likeness to the one before it is needed to go on.
    pub fn waits_for(&self) -> Option<usize> {
        self.waits.then_some(self.next)
    }

    /// The chunks, after the last one was brought to a useful size: a tail under the minimum joins the chunk before
    /// it, or, where both are too much for one, the two are divided evenly.
    pub fn into_spans(mut self) -> Vec<TextSpan> {
        if let [.., before, last] = self.starts[..]
            && self.token_sum(last..self.units.len()) < self.sizes.min
        {
            self.starts.pop();
            if self.token_sum(before..self.units.len()) > self.sizes.max {
                self.starts.push(self.even_border(before));
            }
        }
        spans(self.units, &self.starts)
    }

    /// Where to divide the units from `first` on in two chunks within the maximum, as evenly as they allow.
    fn even_border(&self, first: usize) -> usize {
        let total = self.token_sum(first..self.units.len());
        let uneven = |border: usize| {
            let head = self.token_sum(first..border);
            let over = head.max(total - head).saturating_sub(self.sizes.max);
            (over, head.abs_diff(total - head))
        };
        (first + 1..self.units.len()).min_by_key(|&border| uneven(border)).unwrap_or(first + 1)
    }

    fn token_sum(&self, units: Range<usize>) -> usize {
        self.units[units].iter().map(|unit| unit.tokens).sum()
    }
}

/// The chunks that begin at these units, ascending.
pub fn spans(units: &[Unit], starts: &[usize]) -> Vec<TextSpan> {
    let ends = starts.iter().skip(1).copied().chain([units.len()]);
    let span = |(&first, end): (&usize, usize)| {
        let chunk = &units[first..end];
        Some(TextSpan {
            range: chunk.first()?.range.start..chunk.last()?.range.end,
            tokens: chunk.iter().map(|unit| unit.tokens).sum(),
        })
    };
    starts.iter().zip(ends).filter_map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TokenCounter;

    /// Every character is a token: a script without spaces.
    struct Characters;

    impl TokenCounter for Characters {
        fn tokens(&self, text: &str) -> Vec<Token> {
            let characters = text.char_indices().filter(|(_, c)| !c.is_whitespace());
            characters.map(|(at, c)| Token { id: u32::from(c), range: at..at + c.len_utf8() }).collect()
        }
    }

    #[test]
    fn a_sentence_without_spaces_is_cut_between_characters() {
        let text = "日本語".repeat(50);
        let units = units(&text, "ja", 40, &Characters.tokens(&text));
        assert!(units.iter().all(|unit| unit.tokens <= 40 && text[unit.range.clone()].chars().count() == unit.tokens));
        assert_eq!(units.iter().map(|unit| &text[unit.range.clone()]).collect::<String>(), text);
    }

    #[test]
    fn a_small_tail_is_shared_out() {
        let units: Vec<Unit> = (0..9).map(|n| Unit { range: n * 3..n * 3 + 2, tokens: 10 }).collect();
        let mut cursor = Cursor::new(&units, Sizes { min: 20, max: 80 });
        cursor.run(|_| Some(1.0));
        let tokens: Vec<usize> = cursor.into_spans().iter().map(|span| span.tokens).collect();
        assert_eq!(tokens, [40, 50]);
    }
}
