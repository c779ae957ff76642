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
use super::characters::{self, is_cjk};
use super::{Behind, Gap, TextBuilder};

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
enum Fate {
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
fn is_declared(attributes: &dyn Attributes) -> bool {
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

impl TextBuilder<'_> {
    /// What stands behind a footnote's mark, `rest`, is about to be written.
    pub(super) fn heed_mark(&mut self, rest: &str) {
        let next = rest.chars().next().unwrap_or(' ');
        let before = self.page.text.chars().next_back().unwrap_or(' ');
        let meet = next.is_alphanumeric() && before.is_alphanumeric();
        match (self.behind, self.gap) {
            (Behind::Gone, Gap::Space) if matches!(next, '.' | ',' | ';' | ':' | '!' | '?' | ')' | ']' | '”' | '»') =>
            {
                self.gap = Gap::None;
            }
            (Behind::Gone, Gap::None) if meet && !characters::is_cjk(next) && !characters::is_cjk(before) => {
                self.gap = Gap::Space;
            }
            (Behind::Number, Gap::None) if next.is_alphabetic() => self.gap = Gap::Space,
            _ => {}
        }
        self.behind = Behind::Text;
    }

    /// Begins what may be a footnote's mark.
    pub(super) fn begin_mark(&mut self, outer: &'static str, attributes: &dyn Attributes) {
        let has = |name: &str| attributes.may_mention(name) && attributes.get(name).is_some();
        let leads = outer == "a" && (has("href") || has("filepos"));
        if outer == "a" {
            self.in_link = leads;
        }
        let declared = (leads || outer == "sup") && is_declared(attributes);
        match &mut self.mark {
            Some(mark) if mark.outer != outer => {
                mark.raised |= outer == "sup";
                mark.linked |= leads;
                mark.declared |= declared;
            }
            Some(mark) if outer == "sup" => mark.depth += 1,
            // A link inside a link: the outer one lacks its end tag.
            Some(_) => {
                self.give_up_mark();
                self.begin_mark(outer, attributes);
            }
            None if self.ruby.is_none() && (leads || outer == "sup") => {
                let (raised, linked) = (outer == "sup", leads || self.in_link);
                self.mark = Some(Open { outer, depth: 1, raised, linked, declared });
            }
            None => {}
        }
    }

    pub(super) fn end_mark(&mut self, outer: &'static str) {
        if outer == "a" {
            self.in_link = false;
        }
        let Some(mark) = self.mark.as_mut().filter(|mark| mark.outer == outer) else { return };
        mark.depth -= 1;
        if mark.depth > 0 {
            return;
        }
        let mark = *mark;
        self.mark = None;
        let raw = std::mem::take(&mut self.mark_text);
        let text = raw.trim();
        if text.is_empty() {
            self.write(&raw);
        } else {
            let gap = if raw.starts_with(char::is_whitespace) { self.gap.max(Gap::Space) } else { self.gap };
            let at_start = self.page.text.is_empty() || gap > Gap::Space;
            match fate(mark, text, &self.page.text, gap == Gap::None && !at_start, at_start) {
                Fate::Text => self.write(&raw),
                Fate::Gone => {
                    self.widen(gap);
                    if raw.ends_with(char::is_whitespace) {
                        self.widen(Gap::Space);
                    }
                    self.behind = Behind::Gone;
                }
                Fate::Apart => {
                    self.widen(Gap::Space);
                    self.write(&raw);
                }
                Fate::Leading => {
                    self.write(&raw);
                    self.behind = Behind::Number;
                }
                Fate::Exponent(raised) => self.write(&raised),
            }
        }
        self.mark_text = raw;
        self.mark_text.clear();
    }

    /// The open mark is text after all.
    pub(super) fn give_up_mark(&mut self) {
        if self.mark.take().is_some() {
            let text = std::mem::take(&mut self.mark_text);
            self.write(&text);
        }
    }
}

/// The fate of `text` (trimmed, not empty) between what is written, `before`, and what comes. `glued`: no gap is
/// before it; `at_start`: a line begins with it.
fn fate(open: Open, text: &str, before: &str, glued: bool, at_start: bool) -> Fate {
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
