//! One chapter's text into spans: units (sentences, or pieces of over-long ones), a greedy cursor over them, and the
//! repair of a tail that came out too small. Pure; similarities are asked for one at a time.

use std::ops::Range;

use super::cuts::{Place, places};
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

/// The chapter's units, ascending, none over `max` tokens, covering all but whitespace. `tokens` are the text's; those of
/// the whitespace before a unit are counted with it (XLM-R has some, before a script it never saw behind a space).
pub fn units(text: &str, language: &str, max: usize, tokens: &[Token]) -> Vec<Unit> {
    // A token belongs to where its last byte is: XLM-R's tokens begin at the space before the word.
    let ends: Vec<usize> = tokens.iter().map(|token| token.range.end.max(1) - 1).collect();
    let mut units = Vec::new();
    let mut first = 0;
    for sentence in sentence_ranges(text, language) {
        let behind = first + ends[first..].partition_point(|&end| end < sentence.end);
        if behind - first <= max {
            units.push(Unit { range: sentence, tokens: behind - first });
        } else {
            split_long_sentence(text, sentence, &ends[first..behind], max, &mut units);
        }
        first = behind;
    }
    units
}

/// Cuts a sentence into even pieces of at most `max` tokens: behind a clause, else at a space, else between words and
/// whatever is next best, but always where a token ends. `ends` are the last bytes of the sentence's tokens and of those
/// of the whitespace before it.
fn split_long_sentence(text: &str, sentence: Range<usize>, ends: &[usize], max: usize, units: &mut Vec<Unit>) {
    let places = places(&text[sentence.clone()]);
    let mut start = sentence.start;
    let mut first = 0;
    while first < ends.len() {
        let left = ends.len() - first;
        if left <= max {
            units.push(Unit { range: start..sentence.end, tokens: left });
            return;
        }
        let even = left.div_ceil(left.div_ceil(max));
        let behind = |tokens: usize| ceil_char_boundary(text, ends[first + tokens - 1] + 1).min(sentence.end);
        // Several tokens may end inside one character: they go with the piece that holds it.
        let tokens_until = |at: usize| ends[first..].partition_point(|&end| end < at);
        // Towards the piece's end only, so that pieces stay of a useful size; and the last of the best places.
        let best = (even / 2 + 1..=even)
            .map(|tokens| (tokens, behind(tokens)))
            .filter(|&(_, at)| at > start && tokens_until(at) <= max)
            .max_by_key(|&(tokens, at)| match places[at - sentence.start] {
                Place::Clause if tokens * 3 < even * 2 => (Place::Space, tokens),
                place => (place, tokens),
            });
        // Where one character has more tokens than there may be, and the space before it.
        let at = best.map(|(_, at)| at).or_else(|| (1..=left).map(behind).find(|&at| at > start));
        let Some(at) = at else { break };
        let tokens = tokens_until(at);
        units.push(Unit { range: start..start + text[start..at].trim_end().len(), tokens });
        let rest = &text[at..sentence.end];
        start = at + (rest.len() - rest.trim_start().len());
        first += tokens;
    }
    if start < sentence.end {
        // Characters without tokens at the end: they go with the last piece.
        match units.last_mut() {
            Some(last) if last.range.start >= sentence.start => last.range.end = sentence.end,
            _ => units.push(Unit { range: start..sentence.end, tokens: 0 }),
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
    use proptest::prelude::*;

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

    /// Every character is a token, spaces too; the ligature is two.
    struct All;

    impl TokenCounter for All {
        fn tokens(&self, text: &str) -> Vec<Token> {
            let of_character = |(at, c): (usize, char)| {
                let token = Token { id: u32::from(c), range: at..at + c.len_utf8() };
                std::iter::repeat_n(token, 1 + usize::from(c == 'ﬀ'))
            };
            text.char_indices().flat_map(of_character).collect()
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_script_cover_the_text_and_are_of_few_tokens(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "ก", "น้ำ", "เมื่อ", " ", "\n\n", "ๆ", "日本", "キャ", "。", "、", "「", "」", "ဗုဒ္ဓ", "။", "ខ្មែរ", "។",
                    "a", "word", ", ", ". ", "ﬀ", "।", "हिन्दी", "།", "👩‍👩‍👧", "\u{301}", "፡", "፡፡",
                ]),
                0..300,
            ),
            max in 2usize..40,
        ) {
            let text = parts.concat();
            let units = units(&text, "unknown", max, &All.tokens(&text));
            let mut end = 0;
            for unit in &units {
                prop_assert!(unit.range.start >= end && unit.range.start < unit.range.end);
                prop_assert!(text[end..unit.range.start].trim().is_empty());
                let piece = &text[unit.range.clone()];
                prop_assert_eq!(piece.trim(), piece);
                prop_assert!(All.tokens(piece).len() <= unit.tokens);
                end = unit.range.end;
            }
            prop_assert!(text[end..].trim().is_empty());
            // A piece holds one character at least, and its tokens and those of the space before it are what they are.
            let most = |unit: &Unit| text[unit.range.clone()].chars().count() == 1 || unit.tokens <= max;
            prop_assert!(units.iter().all(most), "{:?}", units);
        }

        #[test]
        fn where_there_is_room_no_piece_begins_with_a_sign_of_the_letter_before(
            letters in prop::collection::vec(prop::sample::select(vec!["กำ", "น้ำ", "เมื่", "ใช่", "ဓို့", "हि", "ខ្មែ"]), 1..200),
            max in 12usize..40,
        ) {
            let text = letters.concat();
            let starts: Vec<usize> = letters.iter().scan(0, |at, letter| { let start = *at; *at += letter.len(); Some(start) }).collect();
            for unit in units(&text, "unknown", max, &All.tokens(&text)) {
                prop_assert!(starts.contains(&unit.range.start), "{}", &text[unit.range]);
            }
        }
    }

    #[test]
    fn a_long_text_without_any_border_is_cut_in_a_moment() {
        for text in ["ก".repeat(300_000), "日".repeat(300_000), "e\u{301}".repeat(150_000), "🇭🇷".repeat(100_000)]
        {
            let units = units(&text, "unknown", 250, &Characters.tokens(&text));
            assert_eq!(units.iter().map(|unit| unit.range.len()).sum::<usize>(), text.len());
        }
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
