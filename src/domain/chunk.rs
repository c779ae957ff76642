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

/// Where an entry of the table of contents begins in a chapter's text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionStart {
    /// In bytes.
    pub at: usize,
    /// The titles of the entries it stands under, from the top, and its own; entries without a title are left out.
    pub path: Vec<String>,
}

/// A chapter (the parent) and its children.
///
/// Invariant: the children's ranges ascend, do not overlap, and leave out nothing but whitespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChapterChunks {
    pub title: String,
    pub text: String,
    /// Ascending.
    pub sections: Vec<SectionStart>,
    pub children: Vec<TextSpan>,
}

impl ChapterChunks {
    /// The text of one child.
    pub fn child_text(&self, child: &TextSpan) -> &str {
        &self.text[child.range.clone()]
    }

    /// The titles that all of the child's text stands under, from the top.
    pub fn path_of(&self, child: &TextSpan) -> &[String] {
        let first = self.sections.partition_point(|section| section.at <= child.range.start).saturating_sub(1);
        let touched = self.sections[first.min(self.sections.len())..].iter();
        let paths = touched.take_while(|section| section.at < child.range.end).map(|section| section.path.as_slice());
        paths.reduce(|a, b| &a[..a.iter().zip(b).take_while(|(a, b)| a == b).count()]).unwrap_or_default()
    }
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// In the model's vocabulary.
    pub id: u32,
    /// Byte range in the text.
    pub range: Range<usize>,
}

/// Which tokens a text has and where: what the chunker needs to know of a model's tokenizer.
pub trait TokenCounter {
    /// The tokens of `text`, their ranges ascending, without special tokens. Ranges may be empty or overlap where one
    /// character gives several tokens.
    fn tokens(&self, text: &str) -> Vec<Token>;

    /// The byte range of every token of `text`.
    fn token_ranges(&self, text: &str) -> Vec<Range<usize>> {
        self.tokens(text).into_iter().map(|token| token.range).collect()
    }

    /// The tokens of a text of any length, piece by piece: a tokenizer needs a hundred bytes of memory for each byte it
    /// is handed at once. Pieces end at a blank line, else at whitespace.
    fn tokens_in_pieces(&self, text: &str) -> Vec<Token> {
        const PIECE_BYTES: usize = 64 << 10;
        let mut found = Vec::new();
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
            let tokens = self.tokens(&text[start..end]);
            found.extend(tokens.into_iter().map(|Token { id, range }| {
                let range = range.start + start..range.end + start;
                Token { id, range }
            }));
            start = end;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words;

    impl TokenCounter for Words {
        fn tokens(&self, text: &str) -> Vec<Token> {
            assert!(text.len() <= 65 << 10, "a piece of {} bytes", text.len());
            words(text)
        }
    }

    fn words(text: &str) -> Vec<Token> {
        text.split_whitespace()
            .map(|word| {
                let start = word.as_ptr() as usize - text.as_ptr() as usize;
                Token { id: word.len() as u32, range: start..start + word.len() }
            })
            .collect()
    }

    #[test]
    fn a_path_is_what_all_sections_of_a_child_stand_under() {
        let section = |at, path: &[&str]| SectionStart { at, path: path.iter().map(|&title| title.into()).collect() };
        let chapter = ChapterChunks {
            sections: vec![section(0, &["A"]), section(10, &["A", "B"]), section(20, &["A", "C"]), section(30, &["D"])],
            ..ChapterChunks::default()
        };
        let path = |range: Range<usize>| chapter.path_of(&TextSpan { range, tokens: 1 }).join("/");
        assert_eq!([path(10..20), path(12..21), path(0..10), path(25..35)], ["A/B", "A", "A", ""]);
        assert!(ChapterChunks::default().path_of(&TextSpan { range: 0..3, tokens: 1 }).is_empty());
    }

    #[test]
    fn pieces_give_the_same_tokens() {
        let text: String = (0..60_000).map(|n| format!("riječ{n}{}", if n % 50 == 0 { "\n\n" } else { " " })).collect();
        assert_eq!(Words.tokens_in_pieces(&text), words(&text));
        assert!(Words.tokens_in_pieces("").is_empty());
        // Without any whitespace the border falls between characters.
        let long = "日".repeat(50_000);
        let tokens = Words.tokens_in_pieces(&long);
        assert_eq!((tokens[0].range.start, tokens[tokens.len() - 1].range.end), (0, long.len()));
    }
}
