//! Footnote marks: what is one, and what becomes of it. Pure. Must never take a word for a mark, or glue one to a word.
//!
//! | in the markup | becomes | because |
//! | --- | --- | --- |
//! | a reference that says what it is (`epub:type="noteref"`, `role="doc-noteref"`, a class of that name, FB2's `type="note"`), behind text | nothing | the sentence reads through, as in DOCX, ODT and RTF |
//! | a raised link right behind a word, `word<sup><a href="#n">1</a></sup>` | nothing | nothing else is written so |
//! | a raised number without a link behind a word or a full stop | set apart by a space | it may be a note's, or a verse's |
//! | a raised number behind a digit, a bracket or up to three letters: mc², 10⁶, km² | raised digits | an exponent |
//! | a raised number before a word, at the start of a line | set apart by a space | a verse or the note's own number |
//! | a plain link of digits right behind a word | set apart by a space | |
//! | anything else, `10<sup>th</sup>`, `H<sub>2</sub>O` | left as it is | |

use super::super::markup::Attributes;
use super::characters::is_cjk;

/// Longer text in a raised or linked element is text.
pub const MARK_BYTES: usize = 16;

/// An open element that may turn out to be a mark.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// The outer element's name: `a` or `sup`.
    pub outer: &'static str,
    /// Open elements of that name.
    pub depth: usize,
    pub raised: bool,
    pub linked: bool,
    pub declared: bool,
}

/// What becomes of a mark.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is text.
    Text,
    Gone,
    /// A space stands before it.
    Apart,
    /// It is text; a space stands before a letter behind it.
    Leading,
    Exponent(String),
}

/// True where a link says that it leads to a note.
pub fn is_declared(attributes: &dyn Attributes) -> bool {
    if !attributes.may_mention("note") && !attributes.may_mention("fn") {
        return false;
    }
    let types = attributes.get("type");
    let has = |value: &str, words: &[&str]| {
        value.split_ascii_whitespace().any(|word| words.iter().any(|known| word.eq_ignore_ascii_case(known)))
    };
    types.is_some_and(|types| has(&types, &["noteref", "note"]))
        || attributes.get("role").is_some_and(|role| has(&role, &["doc-noteref"]))
        || attributes.get("class").is_some_and(|class| has(&class, CLASSES))
}

/// Of Sphinx and docutils, DocBook, Pandoc, InDesign, and of many publishers.
const CLASSES: &[&str] = &[
    "footnote-reference",
    "footnote-ref",
    "footnote",
    "footnoteref",
    "footnote_ref",
    "endnote-ref",
    "noteref",
    "note-ref",
    "fnref",
    "fn-ref",
];

/// The fate of `text` (trimmed, not empty) between what is written, `before`, and what comes. `glued`: no gap is
/// before it; `at_start`: a line begins with it.
pub fn fate(open: Open, text: &str, before: &str, glued: bool, at_start: bool) -> Fate {
    let number = is_number(text);
    let letter = text.len() == 1 && text.as_bytes()[0].is_ascii_lowercase();
    if !(number || is_sign(text) || (letter && (open.raised || open.declared))) {
        return Fate::Text;
    }
    if open.declared && !at_start || open.raised && open.linked && glued {
        return Fate::Gone;
    }
    if !number {
        return Fate::Text;
    }
    let last = before.chars().next_back();
    match (open.raised, glued, last) {
        // Nobody raises brackets but around a note's number.
        (true, true, Some(_)) if !text.bytes().all(|byte| byte.is_ascii_digit()) => Fate::Apart,
        (true, true, Some(last)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            if last.is_ascii_digit() || matches!(last, ')' | ']' | '°') || ends_with_short_word(before) {
                Fate::Exponent(raise(text))
            } else if last.is_alphabetic() || ends_sentence(last) {
                Fate::Apart
            } else {
                Fate::Text
            }
        }
        (true, false, _) => Fate::Leading,
        (true, true, None) => Fate::Leading,
        (false, true, Some(last)) if open.linked && (last.is_alphabetic() || ends_sentence(last)) => {
            // A number may go on behind its point, and an index behind its comma: 1.<a>2</a>, 12,<a>13</a>
            let mut behind = before.chars().rev();
            let in_number =
                matches!(behind.next(), Some('.' | ',')) && behind.next().is_some_and(|c| c.is_ascii_digit());
            if in_number { Fate::Text } else { Fate::Apart }
        }
        _ => Fate::Text,
    }
}

/// 1, 12, [3], (4), 5) and 6,7.
fn is_number(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'[' | b']' | b'(' | b')' | b',' | b' '))
}

/// *, **, †, [*], ‡
fn is_sign(text: &str) -> bool {
    text.chars().any(|c| matches!(c, '*' | '†' | '‡' | '§' | '¶'))
        && text.chars().all(|c| matches!(c, '*' | '†' | '‡' | '§' | '¶' | '[' | ']' | '(' | ')'))
}

fn ends_sentence(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | ',' | ';' | ':' | '…' | '"' | '”' | '’' | '“' | '»' | '«' | '。' | '」' | '、')
}

/// Up to three letters: a unit or a variable. In scripts without spaces a word has no beginning to be seen.
fn ends_with_short_word(before: &str) -> bool {
    let letters = before.chars().rev().take(4).take_while(|c| c.is_alphabetic());
    let (count, cjk) = letters.fold((0, false), |(count, cjk), c| (count + 1, cjk || is_cjk(c)));
    (1..=3).contains(&count) && !cjk
}

fn raise(digits: &str) -> String {
    digits.bytes().filter_map(|byte| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(usize::from(byte.wrapping_sub(b'0')))).collect()
}
