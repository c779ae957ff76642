//! Sentence borders, by crate `sentencex` (Wikimedia): abbreviations, initials, quotes and the terminators of many
//! scripts; and what it lacks: Khmer's terminators, commas that it takes for terminators, and scripts that mark no end
//! of a sentence. Its segmentation is lossless, so the ranges here leave out nothing but whitespace.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use super::cuts::{Place, places};
use crate::domain::Parting;

/// The segmenter's work grows with the square of what it is given (three million exclamation marks take minutes), so
/// it gets no more at a time. Paragraphs of real books are shorter.
const PIECE_BYTES: usize = 16 << 10;

/// Where a script marks no end of a sentence, one ends at the first end of a clause behind so many letters: 20 words, as
/// an English sentence has.
const CLAUSE_LETTERS: usize = 72;

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
                Some(before)
                    if goes_on(&text[before.clone()], &text[before.end..range.start], &text[range.clone()]) =>
                {
                    before.end = range.end;
                }
                _ => open.replace(range).into_iter().for_each(|sentence| push_parts(text, sentence, &mut ranges)),
            }
        }
        open.into_iter().for_each(|sentence| push_parts(text, sentence, &mut ranges));
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

/// Whether what was found behind `before` and a gap is of the same sentence: no word at all, or behind a comma, or the
/// border cuts a word.
fn goes_on(before: &str, gap: &str, found: &str) -> bool {
    // Commas of Burmese, Javanese and Balinese, which Unicode counts among the terminators, and the Burmese "of".
    before.ends_with(['\u{104a}', '\u{104f}', '\u{a9c8}', '\u{1b5e}'])
        || !found.contains(char::is_alphanumeric)
        || (gap.is_empty() && inside_a_word(before, found))
}

/// Whether a border between `before` and `after`, with no space at it, cuts a word (`deb.Packages`, `(yes!)ok`). Where
/// the next word's script is written without spaces it does not, nor after the terminators of such a script.
fn inside_a_word(before: &str, after: &str) -> bool {
    let next = after.chars().next().map_or(Parting::Spaces, Parting::of);
    let mut last = before.chars().rev();
    match last.next() {
        Some('!' | '?' | '"' | '\'' | ')') if next != Parting::Spaces => false,
        Some('.') if next != Parting::Spaces => !last.next().is_some_and(|c| Parting::of(c) != Parting::Spaces),
        Some(last) => last.is_ascii() || last.is_alphanumeric(),
        None => false,
    }
}

/// The sentence, or its parts by what `sentencex` does not know.
fn push_parts(text: &str, sentence: Range<usize>, ranges: &mut Vec<Range<usize>>) {
    let whole = &text[sentence.clone()];
    let without_ends = whole.chars().filter(|c| is_of_script_without_ends(*c)).count();
    if without_ends < 2 * CLAUSE_LETTERS && !whole.contains(['\u{17d4}', '\u{17d5}']) && !whole.contains("፡፡") {
        ranges.push(sentence);
        return;
    }
    let places = places(whole);
    let (mut start, mut letters, mut left) = (0, 0, without_ends);
    let (mut behind_end, mut before) = (false, None);
    for (at, c) in whole.char_indices() {
        let long = letters >= CLAUSE_LETTERS && left >= CLAUSE_LETTERS / 2;
        // "។ល។" is an "etc."
        let ends = long || (behind_end && !whole[at..].starts_with("ល។"));
        if ends && places[at] == Place::Clause && at > start {
            ranges.push(trimmed(text, sentence.start + start..sentence.start + at));
            (start, letters) = (at, 0);
        }
        let is_end = matches!(c, '\u{17d4}' | '\u{17d5}') || (c == '፡' && before == Some(c));
        behind_end = is_end || (behind_end && !c.is_alphanumeric() && !c.is_whitespace());
        if is_of_script_without_ends(c) {
            (letters, left) = (letters + 1, left - 1);
        }
        before = Some(c);
    }
    ranges.push(trimmed(text, sentence.start + start..sentence.end));
}

fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let start = range.end - text[range.clone()].trim_start().len();
    start..start + text[start..range.end].trim_end().len()
}

/// A letter of Thai, Lao, Tibetan, Tai Le, New Tai Lue, Tai Tham or Tai Viet: spaces and shads part clauses there, and
/// sentences no otherwise.
fn is_of_script_without_ends(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{fff}' | '\u{1950}'..='\u{19df}' | '\u{1a20}'..='\u{1aaf}' | '\u{aa80}'..='\u{aadf}')
        && c.is_alphanumeric()
        && !is_combining_mark(c)
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
        for text in [
            "![CDATA[<".repeat(200_000),
            "!".repeat(1 << 20),
            "x".repeat(1 << 20),
            "。 ".repeat(400_000),
            "ทุกคน ".repeat(40_000),
            "ក។".repeat(100_000),
        ] {
            let found: String = sentences("unknown", &text).concat();
            assert_eq!(found.replace(' ', ""), text.replace(' ', ""), "nothing is lost, and the test ends");
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
    fn scripts_whose_terminators_the_segmenter_lacks() {
        assert_eq!(
            sentences("km", "មនុស្សទាំងអស់ កើតមក។ មនុស្ស មានវិចារណញ្ញាណ ។ល។ «និង។» ចប់៕"),
            ["មនុស្សទាំងអស់ កើតមក។", "មនុស្ស មានវិចារណញ្ញាណ ។ល។", "«និង។»", "ចប់៕"]
        );
        assert_eq!(sentences("hi", "सभी मनुष्यों को है । उन्हें बुद्धि है।").len(), 2);
        assert_eq!(sentences("hy", "Բոլոր մարդիկ ազատ են։ Նրանք ունեն խիղճ։").len(), 2);
        assert_eq!(sentences("am", "ያለው፡ነው።፡የተፈጥሮ፡ነው።").len(), 2);
        assert_eq!(sentences("ti", "ነፃን ማዕሪን እዮም፡፡ ምስትውዓልን ሕልናን፡፡").len(), 2);
        assert_eq!(sentences("my", "လည်းကောင်း၊ နိုင်ငံ၏ တူညီသည်။ ကြသည်။").len(), 2);
        assert_eq!(sentences("pnb", "نیں ۔ ۔ اوہ عقل ۔ ۔").len(), 2);
        assert_eq!(sentences("el", "Τι είναι; Είναι αυτό.").len(), 2);
        assert_eq!(sentences("he", "כל בני האדם. הם חוננו!").len(), 2);
        assert_eq!(sentences("zh", "你好吗?我很好.他说1.5米!真的").len(), 4);
    }

    #[test]
    fn where_no_end_is_marked_a_sentence_is_as_long_as_an_english_one() {
        let thai = "ทุกคนย่อมมีสิทธิและอิสรภาพบรรดาที่กำหนดไว้ในปฏิญญานี้ โดยปราศจากความแตกต่างไม่ว่าชนิดใด ๆ ดังเช่น เชื้อชาติ ผิว ";
        let text = thai.repeat(6);
        let found = sentences("th", &text);
        assert_eq!(found.len(), 6, "{found:?}");
        assert_eq!(found.concat().replace(' ', ""), text.replace(' ', ""));
        assert_eq!(sentences("th", thai).len(), 1);
        let tibetan = "སྐྱེ་བོ་རེ་རེར་གསལ་བསྒྲགས་འདི་ནང་བཀོད་པའི་ཐོབ་ཐང་དང་རང་དབང་སྟེ། མི་རིགས་དང། ཤ་མདོག། ".repeat(8);
        let found = sentences("bo", &tibetan);
        assert!((3..=8).contains(&found.len()) && found.iter().all(|part| part.ends_with('།')), "{found:?}");
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
