//! Plain text in any encoding. Must never take binary data for text, or lose a line that it cannot make sense of.
//!
//! Lines that a program wrapped are joined to paragraphs; lines that somebody ended stay. Headings, where there are any
//! to be seen, are the sections.

mod chapter_words;
mod headings;
mod lines;

use self::headings::Candidates;
use self::lines::{Line, Wrapping};
use super::sections::{self, Start};
use super::text::{PageText, characters};
use super::{ExtractError, Limits, Source, decode};
use crate::domain::{Document, Section};

/// Reads a text file. It has no title: the file's name is not the text's, and may be a working copy's.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let bytes = source.read_text(limits)?;
    let raw = decode::plain(&bytes);
    let zeros = raw.bytes().filter(|byte| *byte == 0).count();
    if zeros * 1000 > raw.len() {
        return Err(ExtractError::corrupt(source.path(), "it holds binary data, not text"));
    }
    Ok(Document { sections: sections(&raw), ..Document::default() })
}

/// The sections of a plain text; one without a title where no headings are to be seen.
pub fn sections(raw: &str) -> Vec<Section> {
    let page = page(raw);
    let mut starts: Vec<Start> = Vec::new();
    for heading in &page.headings {
        let title = page.text[heading.range.clone()].lines();
        let title: Vec<&str> = title.filter(|line| line.chars().any(char::is_alphanumeric)).collect();
        let title = title.join(" ").trim_start_matches('#').trim().to_owned();
        starts.push(Start { page: 0, offset: heading.range.start, level: heading.level - 1, title });
    }
    if starts.is_empty() {
        starts.push(Start { page: 0, offset: 0, level: 0, title: String::new() });
    }
    sections::split(&[page], starts)
}

/// Words by one space, lines and paragraphs as they are meant, and the headings.
fn page(raw: &str) -> PageText {
    let wrapping = Wrapping::of(raw);
    let mut writer = Writer::default();
    let mut last: Option<Line> = None;
    for line in lines::lines(raw) {
        if line.text.chars().all(characters::is_special) {
            writer.blank += usize::from(!writer.text.is_empty());
            writer.new_page |= line.new_page;
            continue;
        }
        let before = last.replace(line).filter(|_| writer.blank == 0 && !line.new_page);
        match before {
            None => writer.begin_paragraph(line.new_page),
            // A soft hyphen at a line's end is always a cut.
            Some(before) if before.text.ends_with('\u{ad}') => {}
            Some(before) => writer.join(match &wrapping {
                Some(wrapping) => wrapping.joint(&before, &line),
                None => ("\n", 0),
            }),
        }
        writer.line(line.text);
    }
    writer.end_paragraph();
    let headings = writer.candidates.headings(&writer.text);
    PageText { text: writer.text, headings, ..PageText::default() }
}

#[derive(Default)]
struct Writer {
    text: String,
    candidates: Candidates,
    /// Where the open paragraph began, how many lines it had in the file, and how many blank ones stood before it.
    start: usize,
    lines: usize,
    blank_before: usize,
    on_new_page: bool,
    /// Blank lines since the last one with text.
    blank: usize,
    /// A form feed stood among them.
    new_page: bool,
}

impl Writer {
    fn begin_paragraph(&mut self, new_page: bool) {
        self.end_paragraph();
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        (self.start, self.lines, self.blank_before) = (self.text.len(), 0, self.blank);
        self.on_new_page = new_page || self.new_page;
        (self.blank, self.new_page) = (0, false);
    }

    fn end_paragraph(&mut self) {
        if self.lines > 0 {
            let blank = (self.blank_before, self.blank);
            self.candidates.add(&self.text, self.start..self.text.len(), self.lines, blank, self.on_new_page);
        }
        self.lines = 0;
    }

    fn join(&mut self, (joint, cut): (&str, usize)) {
        self.text.truncate(self.text.len() - cut);
        self.text.push_str(joint);
    }

    fn line(&mut self, line: &str) {
        self.lines += 1;
        let mut gap = "";
        for word in line.split_whitespace() {
            let plain = word.bytes().all(|byte| byte.is_ascii_graphic());
            if !plain && word.chars().all(characters::is_special) {
                continue;
            }
            self.text.push_str(gap);
            gap = " ";
            if plain {
                self.text.push_str(word);
            } else {
                characters::push(&mut self.text, word);
            }
        }
    }
}

#[cfg(test)]
mod tests;
