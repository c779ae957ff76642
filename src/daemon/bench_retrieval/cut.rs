//! The benchmark's own ways to cut a chapter, for comparison: windows of a fixed size, and paragraphs packed to a size.
//! Pure. Must never leave out a character that is no whitespace, or make a piece longer than the model takes.

use std::ops::Range;

use crate::domain::{TextSpan, TokenCounter};

/// Where a chapter's tokens are.
pub struct Tokens<'a> {
    text: &'a str,
    /// The tokens' last bytes: a token belongs to where it ends (XLM-R's begin at the space before the word).
    ends: Vec<usize>,
}

impl<'a> Tokens<'a> {
    pub fn of(text: &'a str, counter: &dyn TokenCounter) -> Self {
        let ends = counter.tokens_in_pieces(text).into_iter().map(|token| token.range.end.max(1) - 1).collect();
        Self { text, ends }
    }

    pub fn count(&self, range: &Range<usize>) -> usize {
        self.before(range.end) - self.before(range.start)
    }

    /// Tokens that end before a byte.
    fn before(&self, byte: usize) -> usize {
        self.ends.partition_point(|&end| end < byte)
    }

    /// Windows of `size` tokens, each beginning `1 - overlap` of that behind the one before it, all of one length but for
    /// what word borders ask. A border falls between words where there are any nearby.
    pub fn windows(&self, size: usize, overlap: f64) -> Vec<TextSpan> {
        let (all, size) = (self.ends.len(), size.max(1));
        let shared = (size as f64 * overlap) as usize;
        let stride = (size - shared).max(1);
        let count = all.saturating_sub(shared).div_ceil(stride).max(1);
        // Evenly, so that no remainder is left at the end.
        let at = |window: usize| (all.saturating_sub(shared) as f64 * window as f64 / count as f64).round() as usize;
        let borders = |window: usize| {
            let (start, end) = (at(window), if window + 1 == count { all } else { at(window + 1) + shared });
            self.word_border(start, size)..self.word_border(end, size)
        };
        (0..count).filter_map(|window| self.span(borders(window))).collect()
    }

    /// The byte before a token, or before the word it is in where that began in the last quarter of a window.
    fn word_border(&self, token: usize, size: usize) -> usize {
        if token == 0 {
            return 0;
        }
        if token >= self.ends.len() {
            return self.text.len();
        }
        let border = |token: usize| {
            let byte = (self.ends[token - 1] + 1).min(self.text.len());
            (byte..=self.text.len()).find(|&at| self.text.is_char_boundary(at)).unwrap_or(self.text.len())
        };
        let nearest = token.saturating_sub(size / 4).max(1);
        (nearest..=token)
            .rev()
            .map(border)
            .find(|&at| self.text[at..].starts_with(char::is_whitespace))
            .unwrap_or_else(|| border(token))
    }

    /// Paragraphs one after the other as long as they are together no more than `size` tokens; a longer one in even
    /// windows.
    pub fn paragraphs(&self, size: usize) -> Vec<TextSpan> {
        let mut spans: Vec<TextSpan> = Vec::new();
        let mut start = 0;
        let mut fits = false;
        for paragraph in self.text.split("\n\n") {
            let range = start..start + paragraph.len();
            start = range.end + 2;
            let Some(span) = self.span(range.clone()) else { continue };
            match spans.last_mut() {
                Some(last) if fits && last.tokens + span.tokens <= size => {
                    last.range.end = span.range.end;
                    last.tokens += span.tokens;
                }
                _ if span.tokens <= size => spans.push(span),
                _ => {
                    let part = Tokens {
                        text: &self.text[..span.range.end],
                        ends: self.ends[..self.before(span.range.end)].to_vec(),
                    };
                    spans.extend(part.windows_from(&span.range, size));
                }
            }
            fits = spans.last().is_some_and(|last| last.tokens < size);
        }
        spans
    }

    /// Even windows of one part of the text.
    fn windows_from(&self, range: &Range<usize>, size: usize) -> Vec<TextSpan> {
        let first = self.before(range.start);
        let ends = self.ends[first..].iter().map(|end| end - range.start).collect();
        let part = Tokens { text: &self.text[range.clone()], ends };
        let mut windows = part.windows(size, 0.0);
        for window in &mut windows {
            window.range = window.range.start + range.start..window.range.end + range.start;
        }
        windows
    }

    /// The text in a range, trimmed; None where there is none.
    fn span(&self, range: Range<usize>) -> Option<TextSpan> {
        let text = &self.text[range.clone()];
        let start = range.start + (text.len() - text.trim_start().len());
        let range = start..start + text.trim().len();
        (!range.is_empty()).then(|| TextSpan { tokens: self.count(&range), range })
    }
}

/// The size from `low` to `high` for which `mean` comes nearest to `wanted`; `mean` grows with the size.
pub fn fit_size<E>(
    low: usize,
    high: usize,
    wanted: f64,
    mut mean: impl FnMut(usize) -> Result<f64, E>,
) -> Result<usize, E> {
    let (mut low, mut high) = (low, high.max(low));
    let mut best: Option<(f64, usize)> = None;
    while low <= high {
        let middle = low.midpoint(high);
        let found = mean(middle)?;
        let off = (found - wanted).abs();
        if best.is_none_or(|(least, _)| off < least) {
            best = Some((off, middle));
        }
        if found < wanted {
            low = middle + 1;
        } else if middle == low {
            break;
        } else {
            high = middle - 1;
        }
    }
    Ok(best.map_or(low, |(_, size)| size))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::Token;

    /// Every character that is no whitespace is a token.
    struct Characters;

    impl TokenCounter for Characters {
        fn tokens(&self, text: &str) -> Vec<Token> {
            let plain = text.char_indices().filter(|(_, c)| !c.is_whitespace());
            plain.map(|(at, c)| Token { id: 0, range: at..at + c.len_utf8() }).collect()
        }
    }

    fn texts<'a>(text: &'a str, spans: &[TextSpan]) -> Vec<&'a str> {
        spans.iter().map(|span| &text[span.range.clone()]).collect()
    }

    #[test]
    fn windows_are_even_and_end_between_words() {
        let text = "ab cd ef gh ij kl mn op qr";
        let tokens = Tokens::of(text, &Characters);
        assert_eq!(texts(text, &tokens.windows(8, 0.0)), ["ab cd ef", "gh ij kl", "mn op qr"]);
        // Each shares two tokens with the one before it.
        assert_eq!(texts(text, &tokens.windows(8, 0.25)), ["ab cd ef", "ef gh ij kl", "kl mn op qr"]);
        assert_eq!(texts(text, &tokens.windows(100, 0.2)), [text]);
        assert!(Tokens::of(" \n", &Characters).windows(5, 0.0).is_empty());
    }

    #[test]
    fn paragraphs_are_packed_and_long_ones_cut() {
        let text = "aaaa\n\nbb bb\n\ncccc\n\ndddd dddd dddd dddd\n\nee";
        let tokens = Tokens::of(text, &Characters);
        assert_eq!(texts(text, &tokens.paragraphs(8)), ["aaaa\n\nbb bb", "cccc", "dddd dddd", "dddd dddd", "ee"]);
    }

    #[test]
    fn the_size_for_a_mean_is_found() {
        let fit = |wanted| fit_size::<Infallible>(1, 100, wanted, |size| Ok((size / 10 * 10) as f64)).unwrap();
        assert!((20..30).contains(&fit(21.0)) && (10..20).contains(&fit(12.0)), "{} {}", fit(21.0), fit(12.0));
        assert!(fit(-5.0) < 10 && fit(1e9) == 100, "{} {}", fit(-5.0), fit(1e9));
    }

    proptest! {
        #[test]
        fn nothing_is_left_out_and_nothing_is_too_long(
            text in "([a-zé日]{1,9}( |\n\n|)){1,80}", size in 1usize..40, overlap in 0.0f64..0.5,
        ) {
            let tokens = Tokens::of(&text, &Characters);
            let plain = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            for spans in [tokens.windows(size, 0.0), tokens.paragraphs(size)] {
                prop_assert_eq!(texts(&text, &spans).into_iter().map(plain).collect::<String>(), plain(&text));
                // A border moved to a word's start gives its tokens to the next window.
                prop_assert!(spans.iter().all(|span| span.tokens <= size + size / 4 && span.tokens > 0), "{:?}", spans);
            }
            let mut reached = 0;
            for span in tokens.windows(size, overlap) {
                prop_assert!(text[reached.min(span.range.start)..span.range.start].trim().is_empty());
                reached = span.range.end;
            }
            prop_assert!(text[reached..].trim().is_empty());
        }
    }
}
