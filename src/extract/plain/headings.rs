//! Which lines of a text file are headings. Pure. Must never make a table of contents or a page's number the sections,
//! or demand that a text have any.
//!
//! Signs, in the order of trust: the name of a chapter and its number; many blank lines around (Project Gutenberg's and
//! Calibre's way); a line of signs below, or `#` before; and, where a text has none of these, form feeds, capitals and
//! lone numbers in sequence.

use std::ops::Range;

use super::super::text::Heading;
use super::chapter_words::{self, Division};

/// Longer lines are no headings.
const MAX_CHARS: usize = 80;
/// More lines are not looked at.
const MAX_CANDIDATES: usize = 20_000;
/// Sections are longer than this on average, where only capitals tell them.
const BYTES_BETWEEN_CAPITALS: usize = 400;
/// And where only a number or a form feed does.
const BYTES_BETWEEN_NUMBERS: usize = 2000;

/// A short paragraph.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Bytes in the text.
    pub range: Range<usize>,
    pub blank_before: usize,
    pub blank_after: usize,
    pub new_page: bool,
    sign: Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Division(Division),
    /// `#` or underlined; from 1.
    Marked(usize),
    Capitals,
    Number(u32),
    None,
}

/// The short paragraphs of a text, as they are found.
#[derive(Debug, Default)]
pub struct Candidates(Vec<Candidate>);

impl Candidates {
    /// Looks at a paragraph, `range` of `text`, whose `lines` were as many in the file.
    pub fn add(&mut self, text: &str, range: Range<usize>, lines: usize, blank: (usize, usize), new_page: bool) {
        if self.0.len() >= MAX_CANDIDATES || lines > 2 || range.len() > MAX_CHARS * 4 {
            return;
        }
        let paragraph = &text[range.clone()];
        if paragraph.chars().count() > MAX_CHARS || paragraph.is_empty() {
            return;
        }
        let sign = sign(paragraph);
        let first = paragraph.lines().next().unwrap_or_default();
        // A second line is the title or the underline.
        let of_two = matches!(sign, Sign::Marked(_)) || chapter_words::division(first).is_some() && first.len() < 30;
        if lines == 1 || of_two {
            self.0.push(Candidate { range, blank_before: blank.0, blank_after: blank.1, new_page, sign });
        }
    }

    /// The headings among them.
    pub fn headings(self, text: &str) -> Vec<Heading> {
        let all = self.0;
        let pick = |wanted: &dyn Fn(&Candidate) -> bool| -> Vec<Candidate> {
            all.iter().filter(|candidate| wanted(candidate)).cloned().collect()
        };
        let marked = pick(&|candidate| matches!(candidate.sign, Sign::Marked(_)));
        let certain = pick(&|candidate| is_named(candidate, text) || is_spaced(candidate, text));
        let certain = if marked.len() >= 2 && marked.len() > certain.len() { marked } else { certain };
        let mut chosen = without_lists(certain, text);
        if chosen.len() < 2 {
            let sparse = |candidates: &[Candidate], bytes: usize| {
                candidates.len() >= 3 && text.len() / candidates.len() >= bytes
            };
            let paged = pick(&|candidate| candidate.new_page && !ends_sentence(&text[candidate.range.clone()]));
            let capitals = pick(&|candidate| candidate.sign == Sign::Capitals);
            let numbers = in_sequence(&all);
            let weaker =
                [(numbers, BYTES_BETWEEN_NUMBERS), (paged, BYTES_BETWEEN_NUMBERS), (capitals, BYTES_BETWEEN_CAPITALS)];
            let weaker = weaker.into_iter().map(|(found, bytes)| (without_lists(found, text), bytes));
            if let Some((found, _)) = weaker.into_iter().find(|(found, bytes)| sparse(found, *bytes)) {
                chosen = found;
            }
        }
        // One alone names the text behind it and leaves the rest without.
        if chosen.len() > 1 { levels(chosen) } else { Vec::new() }
    }
}

fn sign(paragraph: &str) -> Sign {
    let hashes = paragraph.bytes().take_while(|byte| *byte == b'#').count();
    // A command that the superuser gives begins so, too, but not with a capital.
    if (1..=6).contains(&hashes)
        && !paragraph.contains('\n')
        && let Some(title) = paragraph[hashes..].strip_prefix(' ')
        && !title.starts_with(|c: char| c.is_lowercase() || !c.is_alphanumeric())
    {
        return Sign::Marked(hashes);
    }
    if let Some((title, line)) = paragraph.split_once('\n')
        && let Some(level) = ["=", "-", "~"].iter().position(|sign| line.trim_matches(|c| sign.contains(c)).is_empty())
        && line.len() >= 3
        && line.len() * 10 >= title.chars().count() * 6
    {
        return Sign::Marked(level + 1);
    }
    if let Some(division) = chapter_words::division(paragraph.lines().next().unwrap_or_default()) {
        return Sign::Division(division);
    }
    let word = paragraph.trim_matches(['.', '-', '—', ' ', '[', ']', '*']);
    if let Some(number) = chapter_words::number(word).filter(|_| word.chars().all(|c| !c.is_lowercase())) {
        return Sign::Number(number);
    }
    let letters = paragraph.chars().filter(|c| c.is_alphabetic()).count();
    let large = paragraph.chars().filter(|c| c.is_uppercase()).count();
    if letters >= 3 && large == letters && !paragraph.ends_with([',', ';', ':']) { Sign::Capitals } else { Sign::None }
}

/// A chapter's name, and no sentence that begins with one.
fn is_named(candidate: &Candidate, text: &str) -> bool {
    matches!(candidate.sign, Sign::Division(_)) && !ends_sentence(&text[candidate.range.clone()])
}

/// At least four blank lines before, two behind.
fn is_spaced(candidate: &Candidate, text: &str) -> bool {
    candidate.blank_before >= 4 && candidate.blank_after >= 2 && !ends_sentence(&text[candidate.range.clone()])
}

/// A point behind a few words is a heading's, too.
fn ends_sentence(paragraph: &str) -> bool {
    let words = paragraph.split_whitespace().count();
    paragraph.ends_with([',', ';', '。', '、']) || (paragraph.ends_with(['.', '…', '”', '"', '»']) && words > 5)
}

/// Without the entries of a table of contents: three and more headings that nothing stands between.
fn without_lists(candidates: Vec<Candidate>, text: &str) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::with_capacity(candidates.len());
    let mut run = 0;
    for candidate in candidates {
        let follows = kept.last().is_some_and(|last| text[last.range.end..candidate.range.start].trim().is_empty());
        run = if follows { run + 1 } else { 1 };
        if run >= 3 {
            // The list's last line may be the first chapter's heading.
            let first = kept.len() - if run == 3 { 2 } else { 1 };
            kept.truncate(first);
        }
        kept.push(candidate);
    }
    kept
}

/// Lone numbers that count from one.
fn in_sequence(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut next = 1;
    let mut found = Vec::new();
    for candidate in candidates {
        if candidate.sign == Sign::Number(next) {
            found.push(candidate.clone());
            next += 1;
        }
    }
    found
}

fn levels(candidates: Vec<Candidate>) -> Vec<Heading> {
    let in_parts = candidates.iter().any(|candidate| candidate.sign == Sign::Division(Division::Part));
    let level = |sign: Sign| match sign {
        Sign::Marked(level) => level,
        Sign::Division(Division::Part) => 1,
        _ => 1 + usize::from(in_parts),
    };
    candidates.into_iter().map(|found| Heading { level: level(found.sign), range: found.range }).collect()
}
