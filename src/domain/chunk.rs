//! Chapters and the spans of their text that become points.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A part of a chapter's text that is embedded as one child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextSpan {
    /// Byte range in [`ChapterChunks::text`], on character borders, trimmed of whitespace.
    pub range: Range<usize>,
    /// Tokens of the text in the range, special tokens not counted.
    pub tokens: usize,
}

/// A chapter (the parent) and its children.
///
/// Invariant: the children's ranges ascend, do not overlap, and leave out nothing but whitespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChapterChunks {
    pub title: String,
    pub text: String,
    pub children: Vec<TextSpan>,
}

impl ChapterChunks {
    /// The text of one child.
    pub fn child_text(&self, child: &TextSpan) -> &str {
        &self.text[child.range.clone()]
    }
}

/// Where the tokens of a text are: what the chunker needs to know of a model's tokenizer.
pub trait TokenCounter {
    /// The byte range of every token of `text`, ascending, without special tokens. Ranges may be empty or overlap
    /// where one character gives several tokens.
    fn token_ranges(&self, text: &str) -> Vec<Range<usize>>;

    /// The same for a text of any length, piece by piece: a tokenizer needs a hundred bytes of memory for each byte it
    /// is handed at once. Pieces end at a blank line, else at whitespace.
    fn token_ranges_in_pieces(&self, text: &str) -> Vec<Range<usize>> {
        const PIECE_BYTES: usize = 64 << 10;
        let mut ranges = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let mut end = (start + PIECE_BYTES).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            if end < text.len() {
                let piece = &text[start..end];
                let border = piece.rfind("\n\n").or_else(|| piece.rfind(char::is_whitespace)).filter(|&at| at > 0);
                end = border.map_or(end, |at| start + at);
            }
            let tokens = self.token_ranges(&text[start..end]);
            ranges.extend(tokens.into_iter().map(|token| token.start + start..token.end + start));
            start = end;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;

    impl TokenCounter for Words {
        fn token_ranges(&self, text: &str) -> Vec<Range<usize>> {
            assert!(text.len() <= 65 << 10, "a piece of {} bytes", text.len());
            words(text)
        }
    }

    fn words(text: &str) -> Vec<Range<usize>> {
        text.split_whitespace()
            .map(|word| {
                let start = word.as_ptr() as usize - text.as_ptr() as usize;
                start..start + word.len()
            })
            .collect()
    }

    #[test]
    fn pieces_give_the_same_tokens() {
        let text: String = (0..60_000).map(|n| format!("riječ{n}{}", if n % 50 == 0 { "\n\n" } else { " " })).collect();
        assert_eq!(Words.token_ranges_in_pieces(&text), words(&text));
        assert!(Words.token_ranges_in_pieces("").is_empty());
        // Without any whitespace the border falls between characters.
        let long = "日".repeat(50_000);
        let ranges = Words.token_ranges_in_pieces(&long);
        assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end), (0, long.len()));
    }
}
