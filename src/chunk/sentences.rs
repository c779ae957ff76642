//! Sentence borders, by crate `sentencex` (Wikimedia): abbreviations, initials, quotes and the terminators of many
//! scripts. Its segmentation is lossless, so the ranges here leave out nothing but whitespace.

use std::ops::Range;

/// The segmenter's work grows with the square of what it is given (three million exclamation marks take minutes), so
/// it gets no more at a time. Paragraphs of real books are shorter.
const PIECE_BYTES: usize = 16 << 10;

/// The byte ranges of the sentences of `text`, ascending, trimmed, never empty. `language` is ISO 639-1, or `unknown`.
pub fn sentence_ranges(text: &str, language: &str) -> Vec<Range<usize>> {
    // A paragraph always ends a sentence.
    let mut ranges = Vec::new();
    let mut start = 0;
    for paragraph in text.split("\n\n") {
        let mut at = start;
        let mut open: Option<Range<usize>> = None;
        for sentence in sentences_of_paragraph(paragraph, language) {
            let lead = sentence.len() - sentence.trim_start().len();
            let length = sentence.trim().len();
            let range = at + lead..at + lead + length;
            at += sentence.len();
            if length == 0 {
                continue;
            }
            match &mut open {
                Some(before) if before.end == range.start && inside_a_word(&text[..range.start]) => {
                    before.end = range.end;
                }
                _ => ranges.extend(open.replace(range)),
            }
        }
        ranges.extend(open);
        start += paragraph.len() + 2;
    }
    ranges
}

/// The sentences of one paragraph; together they are the whole of it.
fn sentences_of_paragraph<'a>(paragraph: &'a str, language: &str) -> Vec<&'a str> {
    if paragraph.len() <= PIECE_BYTES {
        return sentencex::segment(language, paragraph);
    }
    let mut sentences = Vec::new();
    let mut rest = paragraph;
    while !rest.is_empty() {
        let piece = first_piece(rest);
        let mut found = sentencex::segment(language, piece);
        // The last one may go on behind the piece: it begins the next one.
        if piece.len() < rest.len() && found.len() > 1 {
            found.pop();
        }
        if found.iter().all(|sentence| sentence.is_empty()) {
            found = vec![piece];
        }
        rest = &rest[found.iter().map(|sentence| sentence.len()).sum()..];
        sentences.extend(found);
    }
    sentences
}

/// As much as the segmenter gets at a time, up to a space where there is one.
fn first_piece(text: &str) -> &str {
    let piece = &text[..text.floor_char_boundary(PIECE_BYTES)];
    if piece.len() == text.len() {
        return text;
    }
    piece.rfind(char::is_whitespace).filter(|end| *end > 0).map_or(piece, |end| &piece[..end])
}

/// Whether a border right after `before`, with no space at it, cuts a word (`deb.Packages`, `(yes!)ok`). After the
/// terminators of scripts that are written without spaces it does not.
fn inside_a_word(before: &str) -> bool {
    before.chars().next_back().is_some_and(|last| last.is_ascii() || last.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_never_ends_inside_a_word() {
        for text in ["See deb.Packages!Next:here. And more?Yes.", "One.Two.Three.Four", "a)b)c) d"] {
            let words: Vec<&str> =
                sentences("en", text).iter().flat_map(|sentence| sentence.split_whitespace()).collect();
            assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
        }
    }

    #[test]
    fn long_paragraphs_are_segmented_in_pieces_and_read_the_same() {
        let short = "Der erste Satz steht hier. Und, z. B. von Dr. Horvat, der zweite! ";
        let long = short.repeat(PIECE_BYTES * 3 / short.len());
        let expected: Vec<&str> = sentences("de", short).repeat(PIECE_BYTES * 3 / short.len());
        assert_eq!(sentences("de", long.trim_end()), expected);
        for text in ["![CDATA[<".repeat(200_000), "!".repeat(1 << 20), "x".repeat(1 << 20), "。 ".repeat(400_000)] {
            let found: String = sentences("unknown", &text).concat();
            assert_eq!(found, text.replace(' ', ""), "nothing is lost, and the test ends");
        }
    }

    fn sentences<'a>(language: &str, text: &'a str) -> Vec<&'a str> {
        sentence_ranges(text, language).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn abbreviations_and_initials_do_not_end_a_sentence() {
        assert_eq!(
            sentences("en", "Mr. Smith read No. 5, e.g. the book by J. R. R. Tolkien. He liked it."),
            ["Mr. Smith read No. 5, e.g. the book by J. R. R. Tolkien.", "He liked it."]
        );
    }

    #[test]
    fn quotes_and_other_scripts_end_one() {
        assert_eq!(sentences("en", "\"Go home.\" He went.").len(), 2);
        assert_eq!(sentences("ja", "私は学生です。彼は先生です！本当？").len(), 3);
        assert_eq!(sentences("zh", "我是学生。他是老师。").len(), 2);
        assert_eq!(sentences("ar", "هل أنت طالب؟ نعم.").len(), 2);
        assert_eq!(sentences("hr", "Dr. Horvat živi u Zagrebu. Radi u bolnici.").len(), 2);
        assert_eq!(sentences("de", "Das ist z. B. ein Satz. Hier ist noch einer.").len(), 2);
    }

    #[test]
    fn a_paragraph_ends_a_sentence_and_ranges_cover_the_text() {
        let text = "A heading\n\nFirst one. Second one\nover two lines.\n\n  Last";
        let ranges = sentence_ranges(text, "unknown");
        let words: Vec<&str> = ranges.iter().flat_map(|range| text[range.clone()].split_whitespace()).collect();
        assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(&text[ranges[0].clone()], "A heading");
    }
}
