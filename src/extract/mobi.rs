//! Mobipocket and Kindle books: MOBI, PRC, AZW (HTML in one piece) and AZW3 (KF8). Must never read the older half of a
//! file that holds both, take a position on trust, or use a byte of the text twice.
//!
//! Our own reader, because the crate `mobi` (0.8) knows neither KF8 nor tables of contents, cuts PalmDOC's overlapping
//! copies short, recurses through HUFF/CDIC's dictionaries, prints to the standard output and rests on the abandoned
//! `encoding`. Format: <https://wiki.mobileread.com/wiki/MOBI>, and KindleUnpack and Calibre where it says nothing.

mod anchors;
mod contents;
mod header;
mod huffcdic;
mod index;
mod kf8;
mod palm;
mod palmdoc;
mod rawtext;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use self::anchors::PAGE_BREAK;
use self::contents::{Line, Links};
use self::header::Header;
use self::index::Index;
use self::kf8::Book;
use self::palm::{Kind, Palm};
use super::sections::{self, Start};
use super::text::{PageText, TextBuilder};
use super::{ExtractError, Limits, Source, decode, markup, plain};
use crate::domain::Document;

/// Pages that a book before KF8 is cut into; what is behind stays in the last.
const MAX_PAGES: usize = 20_000;
/// Where a text's first tags or a guide must stand.
const HEAD_BYTES: usize = 16 << 10;

/// What stops a decoder.
#[derive(Debug)]
enum Fault {
    Damaged(&'static str),
    TooLarge,
    Failed(ExtractError),
}

impl From<ExtractError> for Fault {
    fn from(error: ExtractError) -> Self {
        Fault::Failed(error)
    }
}

impl Fault {
    fn of(self, palm: &Palm) -> ExtractError {
        match self {
            Fault::Damaged(reason) => ExtractError::corrupt(palm.path(), reason),
            Fault::TooLarge => ExtractError::TooLarge {
                path: palm.path().to_owned(),
                what: "its unpacked markup".to_owned(),
                limit: palm.limits().max_entry_bytes,
            },
            Fault::Failed(error) => error,
        }
    }
}

/// Reads a book of any of the formats; its name does not tell which one it is in.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let (mut reading, raw) = match open(source, limits)? {
        Opened::Book(reading, raw) => (*reading, raw),
        Opened::PlainText(raw) => return Ok(plain_text(&raw)),
    };
    let (book, raw) = reading.put_together(raw)?;
    let (lines, toc_page) = reading.table_of_contents(&book)?;
    let pages = reading.pages(book, &raw, &lines, toc_page)?;
    let mut starts = reading.starts(&pages, lines);
    // Before KF8 a page is what stands between two breaks: less than a file.
    if starts.is_empty() && !reading.is_kf8() {
        starts = sections::starts_at_headings_alone(&pages);
    }
    let Reading { header: Header { title, authors, language, .. }, notes, .. } = reading;
    Ok(Document { title, authors, language, sections: sections::split(&pages, starts), notes })
}

/// Hands the markup of every page to `visit`, as it was before any anchor, without the page that is left out: what the
/// report's independent count runs on.
pub fn visit_pages(source: &Source, limits: &Limits, visit: &mut dyn FnMut(&str)) -> Result<(), ExtractError> {
    let (mut reading, raw) = match open(source, limits)? {
        Opened::Book(reading, raw) => (*reading, raw),
        Opened::PlainText(raw) => {
            visit(&decode::plain(&raw).replace('&', "&amp;").replace('<', "&lt;"));
            return Ok(());
        }
    };
    let (book, drawings) = reading.put_together(raw.clone())?;
    let (_, toc_page) = reading.table_of_contents(&book)?;
    reading.pages(book, &drawings, &[], toc_page)?;
    let left_out = reading.left_out;
    let (book, drawings) = reading.put_together(raw)?;
    let mut number = 0;
    reading.pieces(book, &drawings, &HashMap::new(), |_, piece| {
        if left_out != Some(number) {
            visit(piece);
        }
        number += 1;
        Ok(())
    })
}

/// What is in a file.
enum Opened {
    Book(Box<Reading>, Vec<u8>),
    PlainText(Vec<u8>),
}

fn open(source: &Source, limits: &Limits) -> Result<Opened, ExtractError> {
    let mut palm = Palm::open(source, limits)?;
    let mut notes = Vec::new();
    let (base, header) = choose_book(&mut palm, &mut notes)?;
    let raw = rawtext::read(&mut palm, base, &header).map_err(|fault| fault.of(&palm))?;
    if raw.starts_with(b"%MOP") {
        let format = "Print Replica (AZW4)".to_owned();
        return Err(ExtractError::UnknownFormat { path: source.path().to_owned(), format });
    }
    if raw.len() < header.text_bytes as usize {
        notes.push(format!("the text has {} of the {} bytes that its header tells of", raw.len(), header.text_bytes));
    }
    if palm.kind() == Kind::PalmDoc && !is_markup(&raw) {
        return Ok(Opened::PlainText(raw));
    }
    Ok(Opened::Book(Box::new(Reading { palm, base, header, notes, flows: Vec::new(), left_out: None }), raw))
}

/// The header to read by, and its record: of the KF8 half where there are two.
fn choose_book(palm: &mut Palm, notes: &mut Vec<String>) -> Result<(usize, Header), ExtractError> {
    let first = header_at(palm, 0)?;
    let Some(at) = first.kf8.map(|at| at as usize) else { return Ok((0, first)) };
    if palm.record(at.saturating_sub(1)).is_ok_and(|record| record == b"BOUNDARY") {
        let second = header_at(palm, at)?;
        if second.version == 8 {
            return Ok((at, second));
        }
    }
    notes.push("the file's second half, in KF8, is not where its header says".to_owned());
    Ok((0, first))
}

fn header_at(palm: &mut Palm, at: usize) -> Result<Header, ExtractError> {
    let record = palm.record(at)?;
    let header = Header::parse(&record, palm.kind())
        .ok_or_else(|| ExtractError::corrupt(palm.path(), format!("its header (record {at}) breaks off")))?;
    if header.encryption != 0 {
        let scheme = format!("Mobipocket's or Amazon's DRM, type {}", header.encryption);
        return Err(ExtractError::Encrypted { path: palm.path().to_owned(), scheme });
    }
    Ok(header)
}

fn is_markup(raw: &[u8]) -> bool {
    let head = raw[..raw.len().min(HEAD_BYTES)].to_ascii_lowercase();
    [b"<html".as_slice(), b"<body", b"<p>", b"<br"].iter().any(|tag| head.windows(tag.len()).any(|part| part == *tag))
}

/// A PalmDOC text without markup: a text file in all but name.
fn plain_text(raw: &[u8]) -> Document {
    Document { sections: plain::sections(&decode::plain(raw)), ..Document::default() }
}

/// A book on its way to text.
struct Reading {
    palm: Palm,
    /// The record of the header; its numbers of records count from there.
    base: usize,
    header: Header,
    notes: Vec<String>,
    /// KF8's pages, styles and drawings in the raw text.
    flows: Vec<Range<usize>>,
    /// The page, by number, that is a converter's table of contents.
    left_out: Option<usize>,
}

impl Reading {
    fn is_kf8(&self) -> bool {
        self.header.version == 8
    }

    /// A table; None, with a note, where there is none that can be read.
    fn index(&mut self, at: Option<u32>, what: &str) -> Result<Option<Index>, ExtractError> {
        let Some(at) = at else { return Ok(None) };
        let (palm, base) = (&mut self.palm, self.base);
        let index = Index::read(at, |at| Ok(palm.record(base.saturating_add(at as usize))?));
        index.map_or_else(|fault| self.go_without(fault, what).map(|()| None), |index| Ok(Some(index)))
    }

    /// Notes what is left out; the disk's errors are no fault of the book.
    fn go_without(&mut self, fault: Fault, what: &str) -> Result<(), ExtractError> {
        let error = fault.of(&self.palm);
        if !error.is_book_fault() {
            return Err(error);
        }
        self.notes.push(match error {
            ExtractError::Corrupt { reason, .. } => format!("{what} cannot be read: {reason}"),
            error => format!("{what} cannot be read: {error}"),
        });
        Ok(())
    }

    /// The pages as the markup has them, and the raw text where drawings may stand in it.
    fn put_together(&mut self, mut raw: Vec<u8>) -> Result<(Book, Vec<u8>), ExtractError> {
        if !self.is_kf8() {
            // A sign of Mobipocket's own tools for the end.
            if raw.ends_with(b">#") {
                raw.pop();
            }
            return Ok((Book::unbuilt(raw), Vec::new()));
        }
        if let Some(at) = self.header.flows {
            match self.palm.record(self.base.saturating_add(at as usize)) {
                Ok(fdst) => self.flows = kf8::flows(&fdst, &raw).unwrap_or_default(),
                Err(error) => self.go_without(Fault::Failed(error), "the table of flows")?,
            }
            if self.flows.is_empty() {
                self.notes.push("the table of flows does not fit; styles may stand at the end of the text".to_owned());
            }
        }
        let text = self.flows.first().map_or(raw.as_slice(), |pages| &raw[pages.clone()]);
        let skeletons = self.index(self.header.skeletons, "the table of skeletons")?.unwrap_or_default();
        let fragments = self.index(self.header.fragments, "the table of fragments")?.unwrap_or_default();
        let book = Book::build(text, &skeletons, &fragments).or_else(|fault| {
            self.go_without(fault, "the order of the pages")?;
            Ok::<_, ExtractError>(Book::unbuilt(text.to_vec()))
        })?;
        Ok((book, if self.flows.len() > 1 { raw } else { Vec::new() }))
    }

    /// The entries, and where the page of the table of contents is.
    fn table_of_contents(&mut self, book: &Book) -> Result<(Vec<Line>, Option<usize>), ExtractError> {
        let (mut lines, mut nowhere) = (Vec::new(), 0);
        if let Some(index) = self.index(self.header.ncx, "the table of contents")? {
            (lines, nowhere) = contents::ncx(&index, &self.header, book);
        }
        let toc_page = if self.is_kf8() {
            self.index(self.header.guide, "the guide")?.and_then(|index| contents::guided_page(&index, book))
        } else {
            let raw = &book.parts[0].markup;
            let guide = raw[..raw.len().min(HEAD_BYTES)].to_vec();
            let toc = contents::guided_position(&self.header.decode(guide));
            if let Some(toc) = toc.filter(|toc| lines.is_empty() && *toc < raw.len()) {
                let page = page_at(raw, toc);
                let page = self.header.decode(page[..page.len().min(contents::PAGE_BYTES)].to_vec());
                lines = Links::of(&page).lines;
            }
            toc
        };
        if nowhere > 0 {
            self.notes.push(format!("{nowhere} entries of the table of contents lead out of the text"));
        }
        if lines.is_empty() {
            self.notes.push("no table of contents leads into the text; headings and pages are the sections".to_owned());
        }
        Ok((lines, toc_page))
    }

    /// The text of every page, with an anchor at every entry's place.
    fn pages(
        &mut self,
        book: Book,
        raw: &[u8],
        lines: &[Line],
        toc_page: Option<usize>,
    ) -> Result<Vec<PageText>, ExtractError> {
        let mut places: HashMap<usize, BTreeSet<usize>> = HashMap::new();
        let mut wanted = HashSet::new();
        for position in lines.iter().map(|line| line.position).chain(toc_page) {
            if let Some((part, place)) = book.find(position) {
                places.entry(part).or_default().insert(place);
                wanted.insert(anchors::id(position));
            }
        }
        let toc_page = toc_page.map(anchors::id);
        let mut navigation = None;
        let (mut pages, mut bytes_of_text) = (Vec::new(), 0);
        self.pieces(book, raw, &places, |palm, piece| {
            let page = markup::parse(piece, || TextBuilder::new(&wanted)).finish();
            bytes_of_text += page.text.len() as u64;
            super::check_text_size(palm.path(), palm.limits(), bytes_of_text)?;
            let is_toc = toc_page.as_ref().is_some_and(|id| page.anchors.contains_key(id));
            if is_toc && Links::of(piece).is_navigation() {
                navigation = Some(pages.len());
            }
            pages.push(page);
            Ok(())
        })?;
        // A converter's own table of contents is at the end. One elsewhere is the publisher's, a page like any other.
        let is_last = |at: usize| {
            let has_text = |pages: &[PageText]| pages.iter().any(|page| !page.text.is_empty());
            has_text(&pages[..at]) && !has_text(&pages[at + 1..])
        };
        if let Some(at) = navigation.filter(|at| is_last(*at)) {
            self.notes.push("left out: the table of contents at the end, a page of links only".to_owned());
            pages[at] = PageText::default();
            self.left_out = Some(at);
        }
        Ok(pages)
    }

    /// The markup of every page, with its anchors.
    fn pieces(
        &mut self,
        book: Book,
        raw: &[u8],
        places: &HashMap<usize, BTreeSet<usize>>,
        mut visit: impl FnMut(&Palm, &str) -> Result<(), ExtractError>,
    ) -> Result<(), ExtractError> {
        let mut drawn = HashSet::new();
        for (number, part) in book.parts.into_iter().enumerate() {
            let mut bytes = match places.get(&number) {
                Some(places) => anchors::insert(&part.markup, part.start, places),
                None => part.markup,
            };
            bytes = kf8::inline_drawings(bytes, raw, &self.flows, &mut drawn);
            bytes.retain(|byte| *byte != 0);
            let text = self.header.decode(bytes);
            for piece in if self.is_kf8() { vec![text.as_str()] } else { split_at_breaks(&text) } {
                visit(&self.palm, piece)?;
            }
        }
        Ok(())
    }

    fn starts(&mut self, pages: &[PageText], lines: Vec<Line>) -> Vec<Start> {
        let mut found: HashMap<&str, (usize, usize)> = HashMap::new();
        for (number, page) in pages.iter().enumerate() {
            for (id, offset) in &page.anchors {
                found.entry(id).or_insert((number, *offset));
            }
        }
        // An entry that points at the break between two pages means the second.
        let mut next_with_text = vec![pages.len(); pages.len() + 1];
        for at in (0..pages.len()).rev() {
            next_with_text[at] = if pages[at].text.is_empty() { next_with_text[at + 1] } else { at };
        }
        let entries = lines.len();
        let mut starts = Vec::with_capacity(entries);
        for Line { title, level, position } in lines {
            let Some(&(mut page, mut offset)) = found.get(anchors::id(position).as_str()) else { continue };
            if !self.is_kf8() && pages[page].text[offset..].trim().is_empty() {
                (page, offset) = (next_with_text[page + 1], 0);
            }
            starts.push(Start { page, offset, level, title });
        }
        if starts.len() < entries {
            let lost = entries - starts.len();
            self.notes.push(format!("{lost} entries of the table of contents lead to no place in the text"));
        }
        starts
    }
}

/// The markup of a book before KF8, cut before its page breaks.
fn split_at_breaks(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == b'<') {
        at += found;
        if bytes.get(at..at + PAGE_BREAK.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(PAGE_BREAK)) {
            if pieces.len() + 1 == MAX_PAGES {
                break;
            }
            pieces.push(&text[start..at]);
            start = at;
        }
        at += 1;
    }
    pieces.push(&text[start..]);
    pieces
}

/// The markup from `at` to the next page break.
fn page_at(raw: &[u8], at: usize) -> &[u8] {
    let rest = &raw[at..];
    // The position may be the break's own.
    let end = rest.windows(PAGE_BREAK.len()).skip(1).position(|part| part.eq_ignore_ascii_case(PAGE_BREAK));
    &rest[..end.map_or(rest.len(), |end| end + 1)]
}

#[cfg(test)]
mod tests;
