//! DOCX: WordprocessingML (ISO/IEC 29500-1, clause 17; relationships: 29500-2, clause 9). Must never take deleted or
//! hidden text, field codes or a drawing's fallback for text, or leave notes between the words they explain.
//!
//! Footnotes and endnotes stand behind the text, in a section of their own each: their marks are no text, and a note in
//! the middle would tear its sentence.

mod parts;

pub use self::parts::level_by_name;

use self::parts::{Parts, Styles};
use super::container::Container;
use super::flow::{self, Fields, Flow, Hidden};
use super::markup::{self, Attributes, Sink};
use super::text::PageText;
use super::{ExtractError, Limits, Source, decode, ole};
use crate::domain::Document;

/// Reads a DOCX file.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    ole::refuse(source)?;
    let mut container = Container::open(source, limits)?;
    let parts = Parts::find(&mut container)?;
    let styles = match parts.styles {
        Some(entry) => Styles::read(&decode::markup(&container.read(entry)?)),
        None => Styles::default(),
    };
    let mut notes = Vec::new();
    let mut about = Fields::default();
    if let Some(entry) = parts.core {
        match container.read(entry) {
            Ok(bytes) => about = Fields::read(&decode::markup(&bytes)),
            Err(error) => notes.push(format!("the metadata is left out: {error}")),
        }
    }
    let mut page = page(&container.read(parts.document)?, &styles);
    page.title = about.first("title");
    let mut bytes_of_text = page.text.len() as u64;
    let mut note_pages = Vec::new();
    for entry in parts.notes {
        let page = self::page(&container.read(entry)?, &styles);
        bytes_of_text += page.text.len() as u64;
        super::check_text_size(source.path(), limits, bytes_of_text)?;
        note_pages.push(page);
    }
    Ok(Document {
        title: about.first("title"),
        authors: about.first("creator").map(|field| flow::authors(&field)).unwrap_or_default(),
        language: about.first("language"),
        sections: flow::sections_with_notes(page, note_pages),
        notes,
    })
}

fn page(bytes: &[u8], styles: &Styles) -> PageText {
    let mut page = markup::parse_xml(&decode::markup(bytes), || Body::new(styles)).flow.finish();
    // A heading without words is a layout's, not the author's.
    page.headings.retain(|heading| !page.text[heading.range.clone()].trim().is_empty());
    page
}

/// Elements that are not text: deletions, the place a text was moved away from, what older programs show instead of a
/// drawing, properties as they were before a change, and Word's notes that hold the separating line.
const NOT_TEXT: &[&str] = &["del", "movefrom", "fallback", "pprchange", "rprchange", "sectprchange", "tblprchange"];

struct Body<'a> {
    styles: &'a Styles,
    flow: Flow,
    hidden: Hidden,
    in_text: bool,
    in_paragraph_properties: bool,
    in_run_properties: bool,
    vanished: bool,
    /// The content control just opened is the table of contents that Word made of the headings.
    in_contents: bool,
    /// In a run that stands above the line.
    raised: bool,
    style: Option<String>,
    /// The paragraph's own outline level, as in the file.
    outline: Option<usize>,
}

impl<'a> Body<'a> {
    fn new(styles: &'a Styles) -> Self {
        Self {
            styles,
            flow: Flow::default(),
            hidden: Hidden::default(),
            in_text: false,
            in_paragraph_properties: false,
            in_run_properties: false,
            vanished: false,
            in_contents: false,
            raised: false,
            style: None,
            outline: None,
        }
    }

    fn end_raised(&mut self) {
        if std::mem::take(&mut self.raised) {
            self.flow.close("sup");
        }
    }

    fn end_properties(&mut self) {
        self.in_paragraph_properties = false;
        let by_style = self.style.take().and_then(|style| self.styles.level(&style));
        let level = match self.outline.take() {
            Some(level @ 0..=8) => Some(by_style.unwrap_or(level + 1)),
            Some(_) => None,
            None => by_style,
        };
        if let Some(level) = level {
            self.flow.heading(level);
        }
    }
}

impl Sink for Body<'_> {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if self.hidden.open(name, NOT_TEXT) {
            return;
        }
        let value = || attributes.get("val");
        match name {
            "p" => {
                self.vanished = false;
                self.end_raised();
                self.flow.paragraph();
            }
            "ppr" => self.in_paragraph_properties = true,
            "pstyle" if self.in_paragraph_properties => self.style = value().map(|style| style.into_owned()),
            "outlinelvl" if self.in_paragraph_properties => {
                self.outline = value().and_then(|level| level.trim().parse().ok());
            }
            "r" => self.vanished = false,
            "sdt" => self.in_contents = false,
            "docpartgallery" => self.in_contents = value().is_some_and(|value| value == "Table of Contents"),
            "sdtcontent" if self.in_contents => self.hidden.begin("sdtcontent"),
            "hyperlink" => self.flow.link(),
            "vertalign" if self.in_run_properties && !self.in_paragraph_properties && !self.raised => {
                self.raised = value().is_some_and(|value| value == "superscript");
                if self.raised {
                    self.flow.open("sup");
                }
            }
            "rpr" => self.in_run_properties = true,
            "vanish" if self.in_run_properties && !self.in_paragraph_properties => {
                self.vanished = value().is_none_or(|value| parts::is_on(&value));
            }
            "t" => self.in_text = true,
            "tab" | "ptab" if !self.in_paragraph_properties => self.flow.text(" "),
            "br" | "cr" => self.flow.mark("br"),
            "nobreakhyphen" if !self.vanished => self.flow.text("-"),
            "sym" if !self.vanished => {
                let code = attributes.get("char").and_then(|code| u32::from_str_radix(&code, 16).ok());
                // The private use area holds the pictures of symbol fonts.
                let symbol = code.filter(|code| !(0xe000..=0xf8ff).contains(code)).and_then(char::from_u32);
                if let Some(symbol) = symbol {
                    self.flow.text(symbol.encode_utf8(&mut [0; 4]));
                }
            }
            "tbl" => self.flow.open("table"),
            "tr" => self.flow.open("tr"),
            "tc" => self.flow.compact("td"),
            "ruby" | "rt" => self.flow.open(name),
            "rubybase" => self.flow.open("rb"),
            // A separator's note has a type, the reader's have none.
            "footnote" | "endnote" if attributes.get("type").is_some_and(|kind| kind != "normal") => {
                self.hidden.begin(if name == "footnote" { "footnote" } else { "endnote" });
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        if self.hidden.close(name) {
            return;
        }
        match name {
            "p" => {
                if self.in_paragraph_properties {
                    self.end_properties();
                }
                self.flow.end_paragraph();
            }
            "ppr" => self.end_properties(),
            "rpr" => self.in_run_properties = false,
            "r" => self.end_raised(),
            "hyperlink" => self.flow.close("a"),
            "t" => self.in_text = false,
            "tbl" => self.flow.close("table"),
            "tr" => self.flow.close("tr"),
            "tc" => self.flow.end_compact("td"),
            "ruby" | "rt" => self.flow.close(name),
            "rubybase" => self.flow.close("rb"),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.in_text && !self.vanished && !self.hidden.is_on() {
            self.flow.text(text);
        }
    }
}

#[cfg(test)]
mod tests;
