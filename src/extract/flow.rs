//! Paragraphs, headings, tables and lists of formats that are not HTML, written with the text builder. Must never hold
//! text itself, or keep state that grows with the depth of nesting.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use super::markup::{Attributes, Sink};
use super::sections::{self, Start};
use super::text::{PageText, TextBuilder};
use crate::domain::{Section, word_count};

static NO_IDS: LazyLock<HashSet<String>> = LazyLock::new(HashSet::new);

/// An element without attributes.
struct Bare;

impl Attributes for Bare {
    fn get(&self, _name: &str) -> Option<Cow<'_, str>> {
        None
    }
}

/// A link that leads somewhere.
struct Link;

impl Attributes for Link {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        (name == "href").then_some(Cow::Borrowed("#"))
    }
}

/// A page of text being written.
#[derive(Debug)]
pub struct Flow {
    builder: TextBuilder<'static>,
    /// Open table cells and list items.
    compact: usize,
    /// Nothing stands in the current cell or item yet.
    fresh: bool,
    /// The open heading.
    heading: Option<&'static str>,
}

impl Default for Flow {
    fn default() -> Self {
        Self { builder: TextBuilder::new(&NO_IDS), compact: 0, fresh: false, heading: None }
    }
}

impl Flow {
    pub fn finish(self) -> PageText {
        self.builder.finish()
    }

    pub fn text(&mut self, text: &str) {
        self.builder.text(text);
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.builder.written().len()
    }

    /// The words written since the text was `start` bytes long.
    pub fn words_since(&self, start: usize) -> usize {
        self.builder.written().get(start..).map_or(0, word_count)
    }

    /// Opens an HTML element that has no method of its own here.
    pub fn open(&mut self, name: &str) {
        self.builder.open(name, &Bare);
    }

    /// Opens an element whose attributes are HTML's too.
    pub fn open_with(&mut self, name: &str, attributes: &dyn Attributes) {
        self.builder.open(name, attributes);
    }

    /// Opens a link; `a` closes it.
    pub fn link(&mut self) {
        self.builder.open("a", &Link);
    }

    pub fn close(&mut self, name: &str) {
        self.builder.close(name);
    }

    /// An element that is a border and nothing else: `br`, `td`.
    pub fn mark(&mut self, name: &str) {
        self.open(name);
        self.close(name);
    }

    /// Begins a paragraph. In cells and items, where formats demand a paragraph, it is a line.
    pub fn paragraph(&mut self) {
        if self.compact == 0 {
            self.open("p");
        } else if !std::mem::take(&mut self.fresh) {
            self.mark("line");
        }
    }

    pub fn end_paragraph(&mut self) {
        self.end_heading();
        if self.compact == 0 {
            self.close("p");
        }
    }

    /// Makes the paragraph just begun a heading; `level` counts from 1.
    pub fn heading(&mut self, level: usize) {
        self.end_heading();
        let name = ["h1", "h2", "h3", "h4", "h5", "h6"][level.clamp(1, 6) - 1];
        self.open(name);
        self.heading = Some(name);
    }

    pub fn end_heading(&mut self) {
        if let Some(name) = self.heading.take() {
            self.close(name);
        }
    }

    /// Begins a cell (`td`) or an item (`li`).
    pub fn compact(&mut self, name: &str) {
        self.open(name);
        self.compact += 1;
        self.fresh = true;
    }

    pub fn end_compact(&mut self, name: &str) {
        self.end_heading();
        self.close(name);
        self.compact = self.compact.saturating_sub(1);
        self.fresh = false;
    }
}

/// The sections of a document and of the notes that stand behind it: headings begin the former, the latter are one
/// section that nothing names.
pub fn sections_with_notes(document: PageText, notes: Vec<PageText>) -> Vec<Section> {
    let mut starts = sections::starts_at_headings(std::slice::from_ref(&document), sections::HEADING_LEVELS);
    let mut pages = vec![document];
    for page in notes {
        if !page.text.trim().is_empty() {
            starts.push(Start { page: pages.len(), offset: 0, level: 0, title: String::new() });
            pages.push(page);
        }
    }
    sections::split(&pages, starts)
}

/// An element that is not text, with all in it, until its end tag.
#[derive(Debug, Default)]
pub struct Hidden(Option<(&'static str, usize)>);

impl Hidden {
    /// True where the element being opened is not text; `names` are those that begin what is not.
    pub fn open(&mut self, name: &str, names: &'static [&'static str]) -> bool {
        match &mut self.0 {
            Some((hidden, depth)) => *depth += usize::from(*hidden == name),
            None => self.0 = names.iter().find(|hidden| **hidden == name).map(|hidden| (*hidden, 1)),
        }
        self.0.is_some()
    }

    /// Begins what is not text with the element just opened.
    pub fn begin(&mut self, name: &'static str) {
        if self.0.is_none() {
            self.0 = Some((name, 1));
        }
    }

    /// True where the element being closed is not text.
    pub fn close(&mut self, name: &str) -> bool {
        let Some((hidden, depth)) = &mut self.0 else { return false };
        if *hidden == name {
            *depth -= 1;
            if *depth == 0 {
                self.0 = None;
            }
        }
        true
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Forgets an element that never ended.
    pub fn reset(&mut self) {
        self.0 = None;
    }
}

/// The text of the named elements of a small file of metadata, in its order.
#[derive(Debug, Default)]
pub struct Fields {
    values: Vec<(String, String)>,
    open: bool,
}

/// Longer values are no metadata.
const FIELD_BYTES: usize = 4000;

impl Fields {
    /// Elements without elements in them, as `(name, text)`, the names in lower case.
    pub fn read(text: &str) -> Self {
        super::markup::parse_xml(text, Self::default)
    }

    /// The first of that name which is not empty.
    pub fn first(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    /// All of that name which are not empty.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.values.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| super::text::one_line(value)).filter(|value| !value.is_empty()).collect()
    }
}

impl Sink for Fields {
    fn open(&mut self, name: &str, _attributes: &dyn Attributes) {
        // Bounded: nobody asks for more than a handful.
        self.open = self.values.len() < 200;
        if self.open {
            self.values.push((name.to_owned(), String::new()));
        }
    }

    fn close(&mut self, _name: &str) {
        self.open = false;
    }

    fn text(&mut self, text: &str) {
        if self.open
            && let Some((_, value)) = self.values.last_mut()
            && value.len() + text.len() <= FIELD_BYTES
        {
            value.push_str(text);
        }
    }
}

/// Several authors in one field, as office programs and Calibre write them.
pub fn authors(field: &str) -> Vec<String> {
    let names = field.split(';').flat_map(|names| names.split(" & "));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_items_hold_lines() {
        let mut flow = Flow::default();
        flow.open("table");
        for row in [["a", "b"], ["c", "d"]] {
            flow.open("tr");
            for cell in row {
                flow.compact("td");
                for part in [cell, "x"] {
                    flow.paragraph();
                    flow.text(part);
                    flow.end_paragraph();
                }
                flow.end_compact("td");
            }
            flow.close("tr");
        }
        flow.close("table");
        flow.paragraph();
        flow.text("e");
        flow.end_paragraph();
        assert_eq!(flow.finish().text, "a\nx\tb\nx\nc\nx\td\nx\n\ne");
    }

    #[test]
    fn fields_and_authors_are_read() {
        let fields =
            Fields::read("<a><dc:title>T\n t</dc:title><x/><dc:creator/><dc:creator>A; B & C</dc:creator></a>");
        assert_eq!(fields.first("title").as_deref(), Some("T t"));
        assert_eq!(authors(&fields.first("creator").unwrap()), ["A", "B", "C"]);
    }
}
