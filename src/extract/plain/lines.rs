//! Lines and whether they were wrapped at a width. Pure. Must never join lines that somebody ended on purpose: verse,
//! lists, addresses.

use std::collections::HashMap;

use super::super::text::characters::is_cjk;

/// Columns of a text that was wrapped; narrower ones are verse or tables, wider ones were not wrapped.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=100;
/// Fewer ends of lines inside paragraphs prove nothing.
const MIN_BREAKS: usize = 12;
/// Words cut at a line's end that are looked up elsewhere in the text.
const MAX_CUT_WORDS: usize = 100_000;

/// A line without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Without the space around it.
    pub text: &'a str,
    /// Columns before the text.
    pub indent: usize,
    /// A form feed stands before it.
    pub new_page: bool,
}

impl Line<'_> {
    pub fn is_blank(&self) -> bool {
        self.text.is_empty()
    }

    /// Columns, the indent among them.
    fn width(&self) -> usize {
        self.indent + self.text.chars().map(columns).sum::<usize>()
    }

    /// Columns of the first word.
    fn first_word(&self) -> usize {
        match self.text.chars().next() {
            Some(c) if is_cjk(c) => 2,
            _ => self.text.split_whitespace().next().unwrap_or_default().chars().map(columns).sum(),
        }
    }

    /// True where the line is an item of a list: a bullet, or a number.
    fn is_item(&self) -> bool {
        let Some(first) = self.text.split_whitespace().next().filter(|first| first.len() < self.text.len()) else {
            return false;
        };
        let number = first.trim_end_matches(['.', ')']);
        matches!(first, "-" | "*" | "•" | "+" | "–" | "—" | "o")
            || (number.len() < first.len()
                && number.len() <= 3
                && number.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }
}

fn columns(c: char) -> usize {
    if is_cjk(c) || ('\u{ac00}'..='\u{d7a3}').contains(&c) { 2 } else { 1 }
}

/// The lines of a text; a form feed ends one.
pub fn lines(raw: &str) -> impl Iterator<Item = Line<'_>> {
    // Old Macs ended lines by a carriage return alone.
    let end = if raw.contains('\n') { '\n' } else { '\r' };
    raw.split(end).flat_map(|line| {
        line.split('\u{c}').enumerate().map(|(at, part)| {
            let text = part.trim();
            let before = &part[..part.len() - part.trim_start().len()];
            let indent = before.chars().map(|c| if c == '\t' { 8 } else { 1 }).sum();
            Line { text, indent, new_page: at > 0 }
        })
    })
}

/// How a text was wrapped.
#[derive(Debug, Default)]
pub struct Wrapping {
    /// Columns.
    width: usize,
    /// How often the words that a line's end cut occur whole, and with a hyphen.
    cut_words: HashMap<String, usize>,
}

impl Wrapping {
    /// None where the lines are not wrapped: what ends a line was meant.
    pub fn of(raw: &str) -> Option<Self> {
        let mut counts = vec![0usize; WIDTHS.end() + 2];
        let mut lines_of_text = 0;
        for line in lines(raw).filter(|line| !line.is_blank()) {
            counts[line.width().min(WIDTHS.end() + 1)] += 1;
            lines_of_text += 1;
        }
        // Some lines are longer: addresses, tables.
        let mut below = 0;
        let width = counts.iter().position(|count| {
            below += count;
            below * 100 >= lines_of_text * 97
        })?;
        if !WIDTHS.contains(&width) {
            return None;
        }
        let mut wrapping = Self { width, cut_words: HashMap::new() };
        let (mut breaks, mut forced) = (0usize, 0usize);
        for (line, next) in pairs(raw) {
            breaks += 1;
            if wrapping.is_forced(&line, &next) {
                forced += 1;
                wrapping.note_cut_word(&line, &next);
            }
        }
        if breaks < MIN_BREAKS || forced * 100 < breaks * 65 {
            return None;
        }
        if !wrapping.cut_words.is_empty() {
            for word in raw.split(|c: char| !c.is_alphanumeric() && c != '-') {
                if let Some(count) = wrapping.cut_words.get_mut(word.to_lowercase().as_str()) {
                    *count += 1;
                }
            }
        }
        Some(wrapping)
    }

    /// True where the next line's first word had no room. Programs that even lines out leave a little more.
    fn is_forced(&self, line: &Line, next: &Line) -> bool {
        let slack = if self.width >= 60 { 3 } else { 0 };
        line.width() + 1 + next.first_word() + slack > self.width
    }

    fn note_cut_word(&mut self, line: &Line, next: &Line) {
        if let Some((whole, hyphenated)) = cut_word(line.text, next.text)
            && self.cut_words.len() < MAX_CUT_WORDS
        {
            self.cut_words.insert(whole, 0);
            self.cut_words.insert(hyphenated, 0);
        }
    }

    /// What stands between a line and the next one of the same paragraph, and how many bytes of the line's end go.
    pub fn joint(&self, line: &Line, next: &Line) -> (&'static str, usize) {
        if next.is_item() || next.indent > line.indent + 1 && !line.is_item() || !self.is_forced(line, next) {
            return ("\n", 0);
        }
        let (last, first) = (line.text.chars().next_back().unwrap_or(' '), next.text.chars().next().unwrap_or(' '));
        if is_cjk(last) && is_cjk(first) {
            return ("", 0);
        }
        if last != '-' || line.text.ends_with(" -") {
            return (" ", 0);
        }
        let count = |word: &String| self.cut_words.get(word).copied().unwrap_or(0);
        match cut_word(line.text, next.text) {
            Some((whole, hyphenated)) if count(&whole) > count(&hyphenated) => ("", 1),
            _ => ("", 0),
        }
    }
}

/// The word that a hyphen and a line's end cut, without the hyphen and with it, in lower case.
fn cut_word(line: &str, next: &str) -> Option<(String, String)> {
    let head = line.strip_suffix('-')?;
    let head = &head[head
        .rfind(|c: char| !c.is_alphabetic())
        .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8))..];
    let tail = &next[..next.find(|c: char| !c.is_alphabetic()).unwrap_or(next.len())];
    let cut = !head.is_empty() && tail.chars().next().is_some_and(char::is_lowercase);
    cut.then(|| (format!("{head}{tail}").to_lowercase(), format!("{head}-{tail}").to_lowercase()))
}

/// Lines that follow each other without a blank one between them.
fn pairs(raw: &str) -> impl Iterator<Item = (Line<'_>, Line<'_>)> {
    let mut last: Option<Line> = None;
    lines(raw).filter_map(move |line| {
        let before = last.replace(line);
        before.filter(|before| !before.is_blank() && !line.is_blank() && !line.new_page).map(|before| (before, line))
    })
}
