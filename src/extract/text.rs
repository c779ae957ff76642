//! Markup to text, by events: blocks apart by a blank line, lines by a line break, a row's cells by a tab, words by one
//! space. Must never tear a word apart at an inline tag, glue two blocks together, or keep state that grows with the
//! depth of nesting.

pub mod characters;
mod elements;
mod marks;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use self::elements::Kind;
use super::markup::{Attributes, Sink};

/// Of a page; a book has some thousands.
const MAX_HEADINGS: usize = 100_000;
/// Longer headings are no headings.
const HEADING_BYTES: usize = 1000;

/// What a page of markup says.
#[derive(Debug, Default)]
pub struct PageText {
    /// Not yet in Unicode NFC: the splitter sees to it, because it would move the offsets below.
    pub text: String,
    /// Where in the text the wanted ids stand, in bytes.
    pub anchors: HashMap<String, usize>,
    pub headings: Vec<Heading>,
    /// The page's own title, from its head.
    pub title: Option<String>,
    pub author: Option<String>,
    pub language: Option<String>,
}

/// One of `h1` to `h6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// 1 to 6.
    pub level: usize,
    /// Bytes in the page's text; may begin with the break before it.
    pub range: Range<usize>,
}

/// What stands between two words. Greater ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    /// Between the cells of a row.
    Cell,
    Line,
    Block,
}

/// The state of a ruby annotation: its readings are kept until the base is whole.
#[derive(Debug, Default)]
struct Ruby {
    part: RubyPart,
    reading: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum RubyPart {
    #[default]
    Base,
    Reading,
    /// Brackets for readers without ruby; the builder sets its own.
    Bracket,
}

/// An element that is not text, until its end tag.
#[derive(Debug)]
struct Hidden {
    name: Cow<'static, str>,
    /// Open elements of the same name.
    depth: usize,
}

/// What the text behind a footnote's mark has to heed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Text,
    /// The mark is gone, and with it the space before a full stop.
    Gone,
    /// A number: a letter does not follow at once.
    Number,
}

/// Builds a page's text from the events of its markup.
#[derive(Debug)]
pub struct TextBuilder<'a> {
    wanted: &'a HashSet<String>,
    page: PageText,
    gap: Gap,
    hidden: Option<Hidden>,
    in_title: bool,
    ruby: Option<Ruby>,
    heading: Option<(usize, usize)>,
    preformatted: usize,
    lists: usize,
    /// The gap is a line break's.
    broke: bool,
    /// Where the open row began.
    row: usize,
    /// Where the open cell began.
    cell: Option<usize>,
    /// The last link opened leads somewhere, and has not ended.
    in_link: bool,
    mark: Option<marks::Open>,
    /// The open mark's text; empty without one.
    mark_text: String,
    behind: Behind,
}

impl<'a> TextBuilder<'a> {
    /// A builder that notes the places of the ids in `wanted`.
    pub fn new(wanted: &'a HashSet<String>) -> Self {
        Self {
            wanted,
            page: PageText::default(),
            gap: Gap::None,
            hidden: None,
            in_title: false,
            ruby: None,
            heading: None,
            preformatted: 0,
            lists: 0,
            broke: false,
            row: 0,
            cell: None,
            in_link: false,
            mark: None,
            mark_text: String::new(),
            behind: Behind::Text,
        }
    }

    /// The text so far.
    pub fn written(&self) -> &str {
        &self.page.text
    }

    pub fn finish(mut self) -> PageText {
        self.give_up_mark();
        self.end_ruby();
        self.end_heading();
        for line in [&mut self.page.title, &mut self.page.author, &mut self.page.language] {
            *line = line.take().map(|text| one_line(&text)).filter(|text| !text.is_empty());
        }
        self.page
    }

    fn widen(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn write(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &text[at..];
            // Most text is ASCII, or at least runs of visible characters: those are copied as a whole.
            let ascii = ascii_run(&bytes[at..]);
            let run = if ascii > 0 {
                ascii
            } else if bytes[at].is_ascii() {
                0
            } else {
                rest.find(characters::ends_run).unwrap_or(rest.len())
            };
            if run > 0 {
                if self.behind != Behind::Text {
                    self.heed_mark(rest);
                }
                self.write_gap();
                self.page.text.push_str(&rest[..run]);
                at += run;
                continue;
            }
            let Some(c) = rest.chars().next() else { break };
            if c.is_whitespace() {
                let line_ends = self.preformatted > 0 && c == '\n';
                self.widen(match (line_ends, self.gap) {
                    (false, _) => Gap::Space,
                    (true, Gap::None | Gap::Space | Gap::Cell) => Gap::Line,
                    (true, _) => Gap::Block,
                });
                if self.behind == Behind::Number {
                    self.behind = Behind::Text;
                }
            } else {
                let before = self.page.text.chars().next_back().filter(|_| self.gap == Gap::None);
                let meaning = characters::meaning(c, before, rest[c.len_utf8()..].chars().next());
                if !meaning.is_empty() {
                    self.write_gap();
                    self.page.text.push_str(meaning);
                }
            }
            at += c.len_utf8();
        }
    }

    fn write_gap(&mut self) {
        if !self.page.text.is_empty() {
            self.page.text.push_str(match self.gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Cell => "\t",
                Gap::Line => "\n",
                Gap::Block => "\n\n",
            });
        }
        self.gap = Gap::None;
        self.broke = false;
    }

    /// Puts the readings after the base they belong to: 漢字(かんじ).
    fn end_ruby(&mut self) {
        if let Some(ruby) = self.ruby.take() {
            let reading = ruby.reading.trim();
            if !reading.is_empty() {
                self.write(&format!("({reading})"));
            }
        }
    }

    fn end_heading(&mut self) {
        let heading = self.heading.take();
        // One without text is no heading, and costs as much memory as one with text.
        if let Some((level, start)) = heading.filter(|(_, start)| !self.page.text[*start..].trim().is_empty())
            && self.page.headings.len() < MAX_HEADINGS
        {
            self.page.headings.push(Heading { level, range: start..self.page.text.len() });
        }
    }

    /// Opens or closes a block.
    fn block(&mut self, gap: Gap) {
        if self.ruby.is_some() {
            self.end_ruby();
        }
        // A cell's first paragraph begins where the cell does.
        if self.cell != Some(self.page.text.len()) {
            self.widen(gap);
        }
    }

    /// Begins or ends a row.
    fn row(&mut self) {
        self.cell = None;
        self.block(Gap::Line);
        self.row = self.page.text.len();
    }

    fn begin_cell(&mut self) {
        self.cell = None;
        // What the cell before ended with parts the cells no more than its end does.
        if self.page.text.len() > self.row {
            self.block(Gap::Space);
            self.gap = Gap::Cell;
        } else {
            self.block(Gap::Space);
        }
        self.cell = Some(self.page.text.len());
    }

    fn end_cell(&mut self) {
        if self.cell.take().is_some_and(|start| start < self.page.text.len()) {
            self.block(Gap::Space);
            self.gap = Gap::Cell;
        }
    }

    fn note_anchor(&mut self, name: &str, attributes: &dyn Attributes) {
        let end = self.page.text.len();
        // A heading's anchor stands inside it as often as before it. One that never ends holds the page.
        let heading = self.heading.map(|(_, start)| start).filter(|start| end - start < HEADING_BYTES);
        let at = heading.unwrap_or(end);
        let named = if name == "a" { attributes.get("name") } else { None };
        for id in [attributes.get("id"), named].into_iter().flatten() {
            if self.wanted.contains(&*id) && !self.page.anchors.contains_key(&*id) {
                self.page.anchors.insert(id.into_owned(), at);
            }
        }
    }

    /// What a head tells of the page.
    fn note_head(&mut self, name: &str, attributes: &dyn Attributes) {
        match name {
            "html" | "body" if self.page.language.is_none() => {
                self.page.language = attributes.get("lang").map(|value| value.into_owned());
            }
            "title" if self.page.title.is_none() && self.page.text.is_empty() => {
                self.page.title = Some(String::new());
                self.in_title = true;
            }
            "meta" if attributes.get("name").is_some_and(|value| value.eq_ignore_ascii_case("author")) => {
                self.page.author = attributes.get("content").map(|value| value.into_owned());
            }
            _ => {}
        }
    }
}

impl Sink for TextBuilder<'_> {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if !self.wanted.is_empty() {
            self.note_anchor(name, attributes);
        }
        if matches!(name, "html" | "body" | "title" | "meta") {
            self.note_head(name, attributes);
        }
        if let Some(hidden) = &mut self.hidden {
            hidden.depth += usize::from(hidden.name == name);
            return;
        }
        if attributes.may_hide() && elements::is_hidden(name, attributes) {
            self.hidden = Some(Hidden { name: Cow::Owned(name.to_owned()), depth: 1 });
            return;
        }
        let kind = elements::kind(name);
        if self.mark.is_some() && !matches!(kind, Kind::Inline | Kind::Link | Kind::Raised) {
            self.give_up_mark();
        }
        match kind {
            Kind::Inline => {}
            Kind::Link => self.begin_mark("a", attributes),
            Kind::Raised => self.begin_mark("sup", attributes),
            Kind::Hidden(name) => self.hidden = Some(Hidden { name: Cow::Borrowed(name), depth: 1 }),
            Kind::Gap(gap) => self.block(gap),
            Kind::Break => {
                let again = self.broke && self.gap == Gap::Line;
                self.block(if again { Gap::Block } else { Gap::Line });
                self.broke = true;
            }
            Kind::Table => self.block(Gap::Block),
            Kind::Row => self.row(),
            Kind::Cell => self.begin_cell(),
            Kind::Math => {
                let block = attributes.get("display").is_some_and(|value| value.eq_ignore_ascii_case("block"));
                self.block(if block { Gap::Block } else { Gap::Space });
            }
            Kind::Preformatted => {
                self.block(Gap::Block);
                self.preformatted += 1;
            }
            Kind::List => {
                self.block(if self.lists == 0 { Gap::Block } else { Gap::Line });
                self.lists += 1;
            }
            Kind::Heading(level) => {
                self.block(Gap::Block);
                self.end_heading();
                self.heading = Some((level, self.page.text.len()));
            }
            Kind::Ruby => {
                if self.ruby.is_none() {
                    self.ruby = Some(Ruby::default());
                }
            }
            Kind::RubyPart(part) => {
                if let Some(ruby) = &mut self.ruby {
                    ruby.part = part;
                }
            }
        }
    }

    fn close(&mut self, name: &str) {
        if let Some(hidden) = &mut self.hidden {
            if hidden.name == name {
                hidden.depth -= 1;
                if hidden.depth == 0 {
                    self.hidden = None;
                }
            }
            self.in_title &= name != "title";
            return;
        }
        let kind = elements::kind(name);
        if self.mark.is_some() && !matches!(kind, Kind::Inline | Kind::Link | Kind::Raised) {
            self.give_up_mark();
        }
        match kind {
            Kind::Inline | Kind::Hidden(_) => {}
            Kind::Link => self.end_mark("a"),
            Kind::Raised => self.end_mark("sup"),
            Kind::Gap(gap) => self.block(gap),
            Kind::Break => self.block(Gap::Line),
            Kind::Table => {
                self.cell = None;
                self.block(Gap::Block);
            }
            Kind::Row => self.row(),
            Kind::Cell => self.end_cell(),
            Kind::Math => self.block(Gap::Space),
            Kind::Preformatted => {
                self.block(Gap::Block);
                self.preformatted = self.preformatted.saturating_sub(1);
            }
            Kind::List => {
                self.lists = self.lists.saturating_sub(1);
                self.block(if self.lists == 0 { Gap::Block } else { Gap::Line });
            }
            Kind::Heading(_) => {
                self.block(Gap::Block);
                self.end_heading();
            }
            Kind::Ruby => self.end_ruby(),
            Kind::RubyPart(_) => {
                if let Some(ruby) = &mut self.ruby {
                    ruby.part = RubyPart::Base;
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        if self.hidden.is_some() {
            if self.in_title
                && let Some(title) = &mut self.page.title
            {
                title.push_str(text);
            }
            return;
        }
        match &mut self.ruby {
            Some(Ruby { part: RubyPart::Reading, reading }) => reading.push_str(text),
            Some(Ruby { part: RubyPart::Bracket, .. }) => {}
            _ if self.mark.is_some() => {
                self.mark_text.push_str(text);
                if self.mark_text.len() > marks::MARK_BYTES {
                    self.give_up_mark();
                }
            }
            _ => self.write(text),
        }
    }
}

/// The length of the visible ASCII characters in front, with single spaces between them. Most of a text's bytes pass
/// here, so eight are looked at at once.
fn ascii_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let mut end = 0;
    // The last one was a space, or there is none before.
    let mut spaced = true;
    while let Some(block) = bytes[end..].first_chunk() {
        let block = u64::from_le_bytes(*block);
        // Below a space, DEL, or beyond ASCII.
        let other = (block.wrapping_sub(ONES * 0x20) | block.wrapping_add(ONES) | block) & HIGH;
        let no_space = block ^ (ONES * 0x20);
        let spaces = no_space.wrapping_sub(ONES) & !no_space & HIGH;
        if other != 0 || spaces & (spaces << 8) != 0 || (spaced && spaces & 0x80 != 0) {
            break;
        }
        spaced = spaces >> 63 != 0;
        end += 8;
    }
    loop {
        match bytes.get(end) {
            Some(byte) if byte.is_ascii_graphic() => spaced = false,
            Some(b' ') if !spaced => spaced = true,
            _ => return end - usize::from(spaced && end > 0),
        }
        end += 1;
    }
}

/// A title as one line of visible characters.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        characters::push(&mut line, word);
    }
    line
}

#[cfg(test)]
mod tests;
