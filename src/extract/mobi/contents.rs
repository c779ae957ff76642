//! A book's table of contents: the NCX, else the page of links that the guide names. Must never invent an entry.

use std::borrow::Cow;

use super::super::markup::{self, Attributes, Sink};
use super::header::Header;
use super::index::Index;
use super::kf8::Book;

/// How much of a page is read for its links.
pub const PAGE_BYTES: usize = 1 << 20;
/// A navigation page is little but links.
const MIN_LINKS: usize = 3;
const WORDS_BESIDE: usize = 10;

/// An entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    pub title: String,
    /// 0 for a top entry.
    pub level: usize,
    /// In the book's markup; KF8's counts the pages as built.
    pub position: usize,
}

/// The NCX's entries, and how many of them lead nowhere.
pub fn ncx(index: &Index, header: &Header, book: &Book) -> (Vec<Line>, usize) {
    let mut lines = Vec::new();
    let mut nowhere = 0;
    for entry in &index.entries {
        let title = entry.value(3, 0).and_then(|offset| index.string(offset)).and_then(|label| header.line(label));
        match (title, position(entry, book)) {
            (Some(title), Some(position)) => {
                lines.push(Line { title, level: entry.value(4, 0).unwrap_or(0) as usize, position });
            }
            (_, None) => nowhere += 1,
            _ => {}
        }
    }
    (lines, nowhere)
}

/// Where KF8's guide says that the table of contents is.
pub fn guided_page(index: &Index, book: &Book) -> Option<usize> {
    let toc = index.entries.iter().find(|entry| entry.name.eq_ignore_ascii_case(b"toc"))?;
    position(toc, book)
}

/// KF8: a place in a fragment. Before: bytes from the start.
fn position(entry: &super::index::Entry, book: &Book) -> Option<usize> {
    match (entry.value(6, 0), entry.value(6, 1)) {
        (Some(fragment), Some(offset)) => book.position(fragment, offset),
        _ => entry.value(1, 0).map(|position| position as usize),
    }
}

/// Where the guide of a book before KF8 says that the table of contents is.
pub fn guided_position(markup: &str) -> Option<usize> {
    markup::parse(markup, Guide::default).toc
}

#[derive(Default)]
struct Guide {
    toc: Option<usize>,
}

impl Sink for Guide {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if name == "reference" && attributes.get("type").is_some_and(|kind| kind.eq_ignore_ascii_case("toc")) {
            self.toc = self.toc.or_else(|| filepos(attributes));
        }
    }

    fn close(&mut self, _name: &str) {}

    fn text(&mut self, _text: &str) {}
}

fn filepos(attributes: &dyn Attributes) -> Option<usize> {
    let value: Cow<'_, str> = attributes.get("filepos")?;
    value.trim().parse().ok()
}

/// The links of a page and the words beside them.
#[derive(Debug, Default)]
pub struct Links {
    pub lines: Vec<Line>,
    open: Option<Line>,
    links: usize,
    words_in_links: usize,
    words_beside: usize,
}

impl Links {
    /// Of a page's markup.
    pub fn of(page: &str) -> Self {
        let end = page.floor_char_boundary(PAGE_BYTES);
        markup::parse(&page[..end], Links::default)
    }

    /// True of a page that is there for its links alone.
    pub fn is_navigation(&self) -> bool {
        self.links >= MIN_LINKS && self.words_beside <= WORDS_BESIDE.max(self.words_in_links / 10)
    }
}

impl Sink for Links {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if name != "a" {
            return;
        }
        let position = filepos(attributes);
        if position.is_some() || attributes.get("href").is_some() {
            self.open = Some(Line { position: position.unwrap_or(usize::MAX), ..Line::default() });
        }
    }

    fn close(&mut self, name: &str) {
        if name == "a"
            && let Some(line) = self.open.take()
        {
            self.links += 1;
            self.words_in_links += line.title.split_whitespace().count();
            if line.position != usize::MAX && !line.title.trim().is_empty() {
                self.lines.push(line);
            }
        }
    }

    fn text(&mut self, text: &str) {
        match &mut self.open {
            Some(line) => line.title.push_str(text),
            None => self.words_beside += text.split_whitespace().count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_a_page_of_links() {
        let markup =
            "<html><head><guide><reference title=\"T\" type=\"toc\" filepos=0000000123 /></guide></head><body>x";
        assert_eq!(guided_position(markup), Some(123));
        let page =
            "<h2>Contents</h2><p><a filepos=10>One <b>1</b></a><p><a filepos=20>Two</a><p><a filepos=x href=y>z</a>";
        let links = Links::of(page);
        let lines: Vec<_> = links.lines.iter().map(|line| (line.title.as_str(), line.position)).collect();
        assert_eq!(lines, [("One 1", 10), ("Two", 20)]);
        assert!(links.is_navigation());
        assert!(!Links::of(&format!("{page}{}", " word".repeat(11))).is_navigation());
        assert!(!Links::of("<a href=x>y</a>").is_navigation());
    }
}
