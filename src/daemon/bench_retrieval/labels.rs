//! What a book's table of contents says about its text: the headings as queries, and each section's place as the answer.
//!
//! Pure. Places are counted in bytes of non-whitespace characters from the book's first one. Every chunker keeps all of
//! those in their order, so a place means the same whatever was merged, cut or put in twice. Must never let a heading
//! stay at the head of the text it is the query for.

use std::collections::HashMap;
use std::ops::Range;

use serde::Serialize;

use crate::domain::Section;

/// A section with less text of its own says too little to be found: some twenty English words.
const MIN_OWN_BYTES: usize = 120;
/// Letters a numbering in front of a heading may have: `4.13.2.`, `Chapter 12`, `Anhang A`, `第3章`.
const NUMBERING_LETTERS: usize = 12;
/// Lines at a section's head that are looked at: a heading may be torn, and stand there twice (`Installation`, then
/// `3. Installation`).
const HEAD_LINES: usize = 4;

/// Headings that name a place in a book and not a matter. Compared by their letters, in lower case.
const GENERIC: &str = "\
    abstract acknowledgements acknowledgments afterword appendix author authors background changelog conclusion \
    contents copyright example examples foreword general glossary history index introduction license licence \
    miscellaneous notes options other overview preface references scope summary tableofcontents terminology tips \
    warning anhang beispiel beispiele danksagung einführung einleitung fazit geschichte hinweise inhaltsverzeichnis \
    übersicht überblick vorwort zusammenfassung aperçu avantpropos exemple exemples généralités préface résumé \
    ejemplo ejemplos introducción resumen visióngeneral esempio esempi introduzione prefazione panoramica exemplo \
    exemplos introdução prefácio visãogeral はじめに 概要 序文 例 简介 概述 前言 簡介 введение обзор примеры 소개";

/// What became of a book's sections on the way to queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub sections: usize,
    /// Whose text began with their heading, which was taken out.
    pub withheld: usize,
    /// Whose text has its heading in its first line all the same.
    pub kept: usize,
    /// With a heading, but left out: too little text.
    pub short: usize,
    /// Left out: the heading names no matter.
    pub generic: usize,
    /// Left out: another section has the same heading under the same parents.
    pub ambiguous: usize,
    pub queries: usize,
}

/// A section's heading as a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The section that answers it.
    pub section: usize,
    /// The heading without its number.
    pub heading: String,
    /// The same with its parents' before it.
    pub path: String,
    /// Nothing stands under it in the table of contents.
    pub leaf: bool,
}

/// A book whose headings were taken out of its text.
#[derive(Debug)]
pub struct LabelledBook {
    /// The file's name.
    pub name: String,
    pub title: String,
    pub language: String,
    /// As extracted, but for the headings.
    pub sections: Vec<Section>,
    /// Each section's own text, up to the next heading of any level.
    pub own: Vec<Range<usize>>,
    /// Each section's ancestors, the top one first.
    pub ancestors: Vec<Vec<usize>>,
    pub queries: Vec<Query>,
    pub counts: Counts,
}

impl LabelledBook {
    pub fn new(name: String, title: String, language: String, mut sections: Vec<Section>) -> Self {
        let mut counts = Counts { sections: sections.len(), ..Counts::default() };
        for section in &mut sections {
            let text = without_heading(&section.title, &section.text);
            counts.withheld += usize::from(text.len() < section.text.trim().len());
            counts.kept += usize::from(first_line_has(&section.title, text));
            section.text = text.to_owned();
        }
        let mut at = 0;
        let own = sections.iter().map(|section| {
            let start = at;
            at += plain_bytes(&section.text);
            start..at
        });
        let own: Vec<Range<usize>> = own.collect();
        let ancestors = ancestors(&sections);
        let mut book = Self { name, title, language, sections, own, ancestors, queries: Vec::new(), counts };
        book.make_queries();
        book
    }

    /// All the book's text.
    pub fn plain_bytes(&self) -> usize {
        self.own.last().map_or(0, |last| last.end)
    }

    fn make_queries(&mut self) {
        let headings: Vec<&str> = self.sections.iter().map(|section| without_number(&section.title)).collect();
        let paths: Vec<String> = (0..headings.len())
            .map(|section| {
                // The book's own title is over everything in many tables of contents, and says nothing of a section.
                let above = self.ancestors[section].iter().map(|&at| headings[at]);
                let above = above.filter(|heading| !heading.is_empty() && letters(heading) != letters(&self.title));
                above.chain([headings[section]]).collect::<Vec<_>>().join(": ")
            })
            .collect();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for path in &paths {
            *seen.entry(letters(path)).or_default() += 1;
        }
        let mut queries = Vec::new();
        for (section, heading) in headings.iter().enumerate() {
            let own_letters = letters(heading);
            if own_letters.is_empty() {
                continue;
            }
            if self.own[section].len() < MIN_OWN_BYTES {
                self.counts.short += 1;
            } else if is_generic(&own_letters) {
                self.counts.generic += 1;
            } else if seen[&letters(&paths[section])] > 1 {
                self.counts.ambiguous += 1;
            } else {
                let next = self.sections.get(section + 1);
                queries.push(Query {
                    section,
                    heading: (*heading).to_owned(),
                    path: paths[section].clone(),
                    leaf: next.is_none_or(|next| next.level <= self.sections[section].level),
                });
            }
        }
        self.counts.queries = queries.len();
        self.queries = queries;
    }
}

fn is_generic(letters: &str) -> bool {
    letters.chars().all(|c| c.is_numeric()) || GENERIC.split_whitespace().any(|generic| generic == letters)
}

/// The sections above each one, the top one first.
fn ancestors(sections: &[Section]) -> Vec<Vec<usize>> {
    let mut open: Vec<usize> = Vec::new();
    let chain = sections.iter().enumerate().map(|(index, section)| {
        while open.last().is_some_and(|&above| sections[above].level >= section.level) {
            open.pop();
        }
        let above = open.clone();
        open.push(index);
        above
    });
    chain.collect()
}

/// Bytes of the characters that are no whitespace.
pub fn plain_bytes(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).map(char::len_utf8).sum()
}

/// What two spellings of a heading have in common: letters and digits, in lower case.
pub fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// A heading without `4.13.2.`, `A.1` or `IV.` before it.
pub fn without_number(title: &str) -> &str {
    let title = title.trim();
    let Some((number, rest)) = title.split_once(char::is_whitespace) else { return title };
    let dotted = number.trim_end_matches(['.', ':', ')']);
    let parts = || dotted.split('.');
    // A bare number, letter or Roman number may be the heading's first word: `64 bit`, `A package`.
    let is_number = number.len() > parts().next().map_or(0, str::len)
        && parts().next().is_some_and(|first| is_digits(first) || is_letter_or_roman(first))
        && parts().skip(1).all(is_digits);
    if is_number && !letters(rest).is_empty() { rest.trim_start() } else { title }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

fn is_letter_or_roman(text: &str) -> bool {
    match text.len() {
        1 => text.chars().all(|c| c.is_ascii_uppercase()),
        2..=5 => text.chars().all(|c| "IVXL".contains(c)),
        _ => false,
    }
}

/// The text without the heading at its head, on lines of its own or as the beginning of its first line.
fn without_heading<'a>(title: &str, text: &'a str) -> &'a str {
    let (whole, wanted) = (letters(title), letters(without_number(title)));
    let mut text = text.trim();
    if wanted.is_empty() {
        return text;
    }
    // A heading may stand there twice.
    for _ in 0..2 {
        let Some(rest) = after_heading(&whole, &wanted, text) else { break };
        text = text[rest..].trim_start();
    }
    text
}

/// Where the text goes on after its heading.
fn after_heading(whole: &str, wanted: &str, text: &str) -> Option<usize> {
    let mut so_far = String::new();
    let mut end = 0;
    for line in text.split_inclusive('\n').filter(|line| !line.is_empty()).take(HEAD_LINES) {
        so_far.push_str(&letters(line));
        end += line.len();
        let numbering = so_far.strip_suffix(wanted);
        if numbering.is_some_and(|before| before.chars().count() <= NUMBERING_LETTERS) {
            return Some(end);
        }
        if so_far.len() > whole.len() + 2 * NUMBERING_LETTERS {
            break;
        }
    }
    let first = text.lines().next().unwrap_or_default();
    [whole, wanted].into_iter().find_map(|heading| end_of_prefix(heading, first))
}

/// The end of `heading` (letters alone) at the beginning of `line`, where the line's next character is no letter.
fn end_of_prefix(heading: &str, line: &str) -> Option<usize> {
    let mut left = heading;
    for (at, c) in line.char_indices() {
        if left.is_empty() {
            let rest = &line[at..];
            return (!c.is_alphanumeric())
                .then(|| at + rest.len() - rest.trim_start_matches(|c: char| !c.is_alphanumeric()).len());
        }
        if c.is_alphanumeric() {
            left = c.to_lowercase().try_fold(left, |left, c| left.strip_prefix(c))?;
        }
    }
    None
}

/// Whether the text's first line is hardly more than the heading.
fn first_line_has(title: &str, text: &str) -> bool {
    let wanted = letters(without_number(title));
    let line = text.lines().next().map(letters).unwrap_or_default();
    !wanted.is_empty() && line.len() <= wanted.len() + 2 * NUMBERING_LETTERS && line.contains(&wanted)
}

/// Whether a passage answers a query for a section: half of it is the section's, or a third of the section is in it.
pub fn is_relevant(passage: &Range<usize>, own: &Range<usize>) -> bool {
    let shared = overlap(passage, own);
    shared > 0 && (shared * 2 >= passage.len() || shared * 3 >= own.len())
}

/// Bytes that two places share.
pub fn overlap(a: &Range<usize>, b: &Range<usize>) -> usize {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, level: usize, text: &str) -> Section {
        Section { title: title.into(), level, text: text.into() }
    }

    #[test]
    fn a_heading_is_taken_off_however_it_is_written() {
        for (title, text) in [
            ("Building packages", "Building packages\n\nBody text."),
            ("4.13.2. Building packages", "4.13.2. Building  packages\n\nBody text."),
            ("Building packages", "Chapter 4. Building\nPackages ¶\nBody text."),
            ("3. Building packages", "Building packages\n\n3. Building packages\n\nBody text."),
            ("Building packages", "Building packages. Body text."),
            ("第3章 構築", "第3章\u{3000}構築\n\nBody text."),
        ] {
            assert_eq!(without_heading(title, text), "Body text.", "{title}: {text}");
        }
        for (title, text) in [
            ("Building packages", "Buildings are packages."),
            ("Building packages", "One must know\nmuch about building packages"),
            ("", "Text without a title."),
        ] {
            assert_eq!(without_heading(title, text), text, "{title}");
        }
        assert_eq!(without_heading("Only", "Only"), "");
    }

    #[test]
    fn numbers_are_told_from_words() {
        for (title, bare) in [
            ("4.13. Important Events", "Important Events"),
            ("3.1 Tools", "Tools"),
            ("A.1. Tools", "Tools"),
            ("IV. Tools", "Tools"),
            ("A package", "A package"),
            ("I am", "I am"),
            ("64 bit", "64 bit"),
            ("2.", "2."),
            ("dpkg 1.17", "dpkg 1.17"),
        ] {
            assert_eq!(without_number(title), bare, "{title}");
        }
    }

    #[test]
    fn headings_become_queries_with_their_parents_or_say_why_not() {
        let body =
            "Every sentence of this body is about one thing, which is the matter that its heading names. ".repeat(2);
        let sections = vec![
            section("1. Policy", 0, &format!("1. Policy\n\n{body}")),
            section("1.1. Introduction", 1, &body),
            section("1.2. Files", 1, &body),
            section("1.2.1. Names", 2, "Names\n\nToo short."),
            section("1.3. Files", 1, &body),
            section("2. Tools", 0, &format!("See also\nTools\n{body}")),
            section("", 0, &body),
        ];
        let book = LabelledBook::new("b.epub".into(), "B".into(), "en".into(), sections);
        let shown: Vec<_> = book.queries.iter().map(|query| (query.section, query.path.as_str(), query.leaf)).collect();
        assert_eq!(shown, [(0, "Policy", false), (5, "Tools", true)]);
        let counts = Counts { sections: 7, withheld: 3, kept: 0, short: 1, generic: 1, ambiguous: 2, queries: 2 };
        assert_eq!(book.counts, counts);
        assert_eq!(book.ancestors[3], [0, 2]);
        // Places follow one another without a hole, headings and whitespace left out.
        let size = plain_bytes(&body);
        assert_eq!(book.own[0], 0..size);
        assert_eq!(book.own[3].len(), "Tooshort.".len());
        assert_eq!(book.plain_bytes(), book.sections.iter().map(|section| plain_bytes(&section.text)).sum::<usize>());
    }

    #[test]
    fn half_of_the_passage_or_a_third_of_the_section_is_relevant() {
        assert!(is_relevant(&(0..100), &(50..1000)), "half of the passage");
        assert!(!is_relevant(&(0..100), &(51..1000)));
        assert!(is_relevant(&(0..1000), &(900..1200)), "a third of the section");
        assert!(!is_relevant(&(0..1000), &(901..1200)));
        assert!(!is_relevant(&(0..100), &(100..100)), "an empty section answers nothing");
        assert_eq!((overlap(&(0..5), &(3..9)), overlap(&(0..3), &(5..9))), (2, 0));
    }
}
