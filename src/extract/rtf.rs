//! RTF (Rich Text Format Specification 1.9.1): tokens, a stack of groups, and what they mean for the text. Must never
//! take a font's name, a field's code or a picture's bytes for text, or let the stack grow with the file.
//!
//! A parser of our own, because the one crate there is for it (rtf-parser 0.4) demands UTF-8 input, decodes one code
//! page and panics on half a surrogate pair.

mod code_pages;
mod tokens;

use std::collections::HashMap;

use encoding_rs::{Encoding, WINDOWS_1252};

use self::tokens::{Token, Tokens};
use super::flow::{self, Flow};
use super::text::one_line;
use super::{ExtractError, Limits, Source, docx};
use crate::domain::Document;

/// Deeper groups share the state of the one at this depth.
const MAX_GROUPS: usize = 2000;
/// Fonts and styles beyond these are not remembered.
const MAX_TABLE: usize = 10_000;

/// Reads an RTF file.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let bytes = source.read_text(limits)?;
    let Some(start) = bytes[..bytes.len().min(64)].windows(5).position(|part| part == b"{\\rtf") else {
        return Err(ExtractError::corrupt(source.path(), "it is not RTF: it does not begin with {\\rtf"));
    };
    let mut rtf = Rtf::default();
    for token in Tokens::new(&bytes[start..]) {
        rtf.token(token);
    }
    rtf.flush();
    let mut notes = Vec::new();
    if !rtf.groups.is_empty() {
        notes.push("the file ends inside a group: it may be cut off".to_owned());
    }
    let mut page = rtf.text.finish();
    page.headings.retain(|heading| !page.text[heading.range.clone()].trim().is_empty());
    let title = Some(one_line(&rtf.title)).filter(|title| !title.is_empty());
    page.title = title.clone();
    Ok(Document {
        title,
        authors: flow::authors(&one_line(&rtf.author)),
        language: None,
        sections: flow::sections_with_notes(page, vec![rtf.notes.finish()]),
        notes,
    })
}

/// Where a group's text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Destination {
    #[default]
    Text,
    /// Footnotes and endnotes.
    Note,
    Nowhere,
    Fonts,
    Styles,
    Title,
    Author,
}

/// What a group inherits and its end takes back.
#[derive(Debug, Clone, Copy)]
struct State {
    destination: Destination,
    /// `\deleted` or `\v`: struck out by a reviewer, or never shown.
    unseen: bool,
    /// Characters that stand for one `\u` to readers without Unicode.
    fallback: usize,
    /// None: the document's.
    encoding: Option<&'static Encoding>,
    /// The heading level of the paragraph, from 1.
    heading: Option<usize>,
    in_table: bool,
    /// `\super`
    raised: bool,
}

impl Default for State {
    fn default() -> Self {
        let destination = Destination::default();
        Self { destination, unseen: false, fallback: 1, encoding: None, heading: None, in_table: false, raised: false }
    }
}

/// The entry of the font or style table being read.
#[derive(Debug, Default)]
struct Entry {
    number: i32,
    encoding: Option<&'static Encoding>,
    outline: Option<usize>,
    name: String,
}

#[derive(Default)]
struct Rtf {
    state: State,
    groups: Vec<State>,
    /// Open groups beyond the limit.
    too_deep: usize,
    encoding: Option<&'static Encoding>,
    fonts: HashMap<i32, &'static Encoding>,
    default_font: Option<i32>,
    /// Heading levels by the number of the style.
    styles: HashMap<i32, usize>,
    entry: Entry,
    /// `\*` came: a destination not known is to be skipped.
    starred: bool,
    /// Bytes not decoded yet: a character may have several.
    bytes: Vec<u8>,
    /// The first half of a surrogate pair.
    surrogate: Option<u16>,
    /// Fallback characters still to be skipped.
    skip: usize,
    text: Flow,
    notes: Flow,
    in_paragraph: [bool; 2],
    /// Raised text is being written.
    raised: [bool; 2],
    title: String,
    author: String,
}

impl Rtf {
    fn token(&mut self, token: Token) {
        match token {
            Token::Open => {
                self.flush();
                self.starred = false;
                self.skip = 0;
                if self.groups.len() < MAX_GROUPS { self.groups.push(self.state) } else { self.too_deep += 1 }
            }
            Token::Close => {
                self.flush();
                self.starred = false;
                self.skip = 0;
                self.end_group();
            }
            Token::Star => self.starred = true,
            Token::Text(bytes) => {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                self.bytes_of_text(&bytes[skipped..]);
            }
            Token::Byte(byte) => {
                if self.skip > 0 {
                    self.skip -= 1;
                } else {
                    self.bytes_of_text(&[byte]);
                }
            }
            Token::Symbol(symbol) => {
                if self.skip > 0 {
                    self.skip -= 1;
                    return;
                }
                self.symbol(symbol);
            }
            Token::Word(word, number) => {
                // Binary data and the like may stand for a character too.
                if self.skip > 0 && word != b"u" && word != b"uc" {
                    self.skip -= 1;
                    return;
                }
                self.word(word, number);
            }
        }
    }

    fn bytes_of_text(&mut self, bytes: &[u8]) {
        if self.state.destination != Destination::Nowhere && !self.state.unseen {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Decodes what is waiting, before anything that is no text, or that changes the encoding.
    fn flush(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        self.surrogate = None;
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_ascii()
            && let Ok(text) = std::str::from_utf8(&bytes)
        {
            self.write(text);
        } else {
            let font = self.default_font.and_then(|font| self.fonts.get(&font).copied());
            let encoding = self.state.encoding.or(self.encoding).or(font).unwrap_or(WINDOWS_1252);
            self.write(&encoding.decode_without_bom_handling(&bytes).0);
        }
        self.bytes = bytes;
        self.bytes.clear();
    }

    fn write(&mut self, text: &str) {
        let State { destination, unseen, heading, in_table, raised, .. } = self.state;
        if unseen {
            return;
        }
        let (flow, paragraph) = match destination {
            Destination::Nowhere => return,
            Destination::Text => (&mut self.text, 0),
            Destination::Note => (&mut self.notes, 1),
            Destination::Title => return append(&mut self.title, text),
            Destination::Author => return append(&mut self.author, text),
            Destination::Fonts => return,
            Destination::Styles => return append(&mut self.entry.name, text),
        };
        if !self.in_paragraph[paragraph] && !text.trim().is_empty() {
            self.in_paragraph[paragraph] = true;
            match heading {
                Some(level) => flow.heading(level),
                // In a table cells part the text.
                None if in_table => {}
                None => flow.paragraph(),
            }
        }
        if raised != self.raised[paragraph] {
            self.raised[paragraph] = raised;
            if raised { flow.open("sup") } else { flow.close("sup") }
        }
        flow.text(text);
    }

    fn flow(&mut self) -> Option<&mut Flow> {
        match self.state.destination {
            Destination::Text => Some(&mut self.text),
            Destination::Note => Some(&mut self.notes),
            _ => None,
        }
    }

    /// Ends a paragraph; `border` parts it from the next one inside a table.
    fn end_paragraph(&mut self, border: &str) {
        let in_table = self.state.in_table;
        match self.state.destination {
            Destination::Text => self.in_paragraph[0] = false,
            Destination::Note => self.in_paragraph[1] = false,
            _ => return,
        }
        let Some(flow) = self.flow() else { return };
        if in_table || border != "br" {
            flow.end_heading();
            flow.mark(if border == "br" { "line" } else { border });
        } else {
            flow.end_paragraph();
        }
    }

    fn end_group(&mut self) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return;
        }
        let Some(outer) = self.groups.pop() else { return };
        let inner = std::mem::replace(&mut self.state, outer);
        match (inner.destination, outer.destination) {
            // Each entry of a table is a group, or ends with a semicolon.
            (Destination::Styles, _) => self.end_entry(),
            (Destination::Fonts, _) => self.end_font(),
            (Destination::Note, Destination::Text) => {
                self.notes.end_paragraph();
                self.in_paragraph[1] = false;
            }
            _ => {}
        }
    }

    fn end_font(&mut self) {
        if let Some(encoding) = self.entry.encoding.take()
            && self.fonts.len() < MAX_TABLE
        {
            self.fonts.insert(self.entry.number, encoding);
        }
    }

    fn end_entry(&mut self) {
        let entry = std::mem::take(&mut self.entry);
        let by_name = docx::level_by_name(entry.name.trim().trim_end_matches(';'));
        if let Some(level) = by_name.or(entry.outline)
            && self.styles.len() < MAX_TABLE
        {
            self.styles.insert(entry.number, level);
        }
    }

    /// A control symbol.
    fn symbol(&mut self, symbol: u8) {
        match symbol {
            b'\\' | b'{' | b'}' => self.bytes_of_text(&[symbol]),
            b'~' => self.character("\u{a0}"),
            b'_' => self.character("-"),
            // A line's end behind a backslash is a paragraph's.
            b'\n' | b'\r' => self.word(b"par", None),
            b'\t' => self.character(" "),
            // An optional hyphen, and marks of indexes.
            _ => {}
        }
    }

    fn character(&mut self, text: &str) {
        self.flush();
        self.write(text);
    }

    fn unicode(&mut self, number: i32) {
        self.flush();
        let unit = (number & 0xffff) as u16;
        let units = match self.surrogate.take() {
            Some(high) => vec![high, unit],
            None => vec![unit],
        };
        if units.len() == 1 && (0xd800..0xdc00).contains(&unit) {
            self.surrogate = Some(unit);
        } else if number > 0xffff {
            // Against the rules, and seen.
            self.write(char::from_u32(number as u32).unwrap_or('\u{fffd}').encode_utf8(&mut [0; 4]));
        } else {
            self.write(&String::from_utf16_lossy(&units));
        }
        self.skip = self.state.fallback;
    }

    fn word(&mut self, word: &[u8], number: Option<i32>) {
        if word == b"u" {
            return self.unicode(number.unwrap_or(0));
        }
        self.flush();
        let starred = std::mem::take(&mut self.starred);
        if self.destination(word) {
            return;
        }
        if starred {
            self.state.destination = Destination::Nowhere;
            return;
        }
        let on = number != Some(0);
        match word {
            b"uc" => self.state.fallback = number.unwrap_or(1).clamp(0, 100) as usize,
            b"mac" => self.encoding = Some(encoding_rs::MACINTOSH),
            b"ansicpg" => self.encoding = code_pages::by_number(number.unwrap_or(0)).or(self.encoding),
            b"deff" => self.default_font = number,
            b"f" if self.state.destination == Destination::Fonts => {
                self.end_font();
                self.entry.number = number.unwrap_or(0);
            }
            b"f" => self.state.encoding = number.and_then(|font| self.fonts.get(&font).copied()),
            b"fcharset" => self.entry.encoding = code_pages::by_charset(number.unwrap_or(0)),
            b"cpg" => self.entry.encoding = code_pages::by_number(number.unwrap_or(0)),
            b"plain" => (self.state.encoding, self.state.unseen, self.state.raised) = (None, false, false),
            b"super" => self.state.raised = on,
            b"nosupersub" | b"sub" => self.state.raised = false,
            b"deleted" | b"v" => self.state.unseen = on,
            b"s" if self.state.destination == Destination::Styles => self.entry.number = number.unwrap_or(0),
            b"s" => self.state.heading = number.and_then(|style| self.styles.get(&style).copied()),
            b"outlinelevel" => {
                let level = number.and_then(|level| usize::try_from(level).ok()).filter(|level| *level < 9);
                let level = level.map(|level| level + 1);
                if self.state.destination == Destination::Styles {
                    self.entry.outline = level;
                } else {
                    self.state.heading = self.state.heading.or(level);
                }
            }
            b"pard" => (self.state.heading, self.state.in_table) = (None, false),
            b"intbl" => self.state.in_table = on,
            b"par" | b"sect" | b"page" | b"column" => self.end_paragraph("br"),
            b"cell" | b"nestcell" => self.end_paragraph("td"),
            b"row" | b"nestrow" => self.end_paragraph("tr"),
            b"line" | b"lbr" | b"softline" => {
                if let Some(flow) = self.flow() {
                    flow.mark("br");
                }
            }
            _ => {
                if let Some(text) = special(word) {
                    self.write(text);
                }
            }
        }
    }

    /// True where the word begins a destination.
    fn destination(&mut self, word: &[u8]) -> bool {
        let inside = self.state.destination;
        let destination = match word {
            b"fonttbl" => Destination::Fonts,
            b"stylesheet" => Destination::Styles,
            b"title" if self.title.is_empty() => Destination::Title,
            b"author" if self.author.is_empty() => Destination::Author,
            b"info" => Destination::Nowhere,
            b"footnote" if inside == Destination::Text => Destination::Note,
            // A text box inside a drawing, and the twin that a pair has for readers of Unicode.
            b"shptxt" | b"ud" => Destination::Text,
            b"upr" if inside == Destination::Text => Destination::Nowhere,
            _ if NOT_TEXT.contains(&word) => Destination::Nowhere,
            _ => return false,
        };
        self.state.destination = destination;
        if matches!(destination, Destination::Fonts | Destination::Styles) {
            self.entry = Entry::default();
        }
        true
    }
}

fn append(field: &mut String, text: &str) {
    if field.len() + text.len() <= 4000 {
        field.push_str(text);
    }
}

/// Characters that have a control word.
fn special(word: &[u8]) -> Option<&'static str> {
    Some(match word {
        b"tab" | b"emspace" | b"enspace" | b"qmspace" => " ",
        b"emdash" => "\u{2014}",
        b"endash" => "\u{2013}",
        b"lquote" => "\u{2018}",
        b"rquote" => "\u{2019}",
        b"ldblquote" => "\u{201c}",
        b"rdblquote" => "\u{201d}",
        b"bullet" => "\u{2022}",
        b"zwj" => "\u{200d}",
        b"zwnj" => "\u{200c}",
        _ => return None,
    })
}

/// Destinations whose text is not the document's, beyond those that `\*` marks.
const NOT_TEXT: &[&[u8]] = &[
    b"aftncn",
    b"aftnsep",
    b"aftnsepc",
    b"annotation",
    b"atnauthor",
    b"atnid",
    b"atrfend",
    b"atrfstart",
    b"bkmkend",
    b"bkmkstart",
    b"category",
    b"colortbl",
    b"comment",
    b"company",
    b"creatim",
    b"doccomm",
    b"filetbl",
    b"fldinst",
    b"footer",
    b"footerf",
    b"footerl",
    b"footerr",
    b"ftncn",
    b"ftnsep",
    b"ftnsepc",
    b"generator",
    b"header",
    b"headerf",
    b"headerl",
    b"headerr",
    b"keywords",
    b"listtable",
    b"listoverridetable",
    b"listtext",
    b"manager",
    b"nonshppict",
    b"objdata",
    b"objclass",
    b"objname",
    b"operator",
    b"pict",
    b"pntext",
    b"pntxta",
    b"pntxtb",
    b"printim",
    b"private",
    b"revtbl",
    b"revtim",
    b"rxe",
    // The double of a text box, for programs older than Word 97.
    b"shprslt",
    b"subject",
    b"tc",
    b"template",
    b"txe",
    b"xe",
];

#[cfg(test)]
mod tests;
