//! FictionBook 2 (<http://www.fictionbook.org/index.php/Eng:XML_Schema_Fictionbook_2.1>), bare or in a ZIP archive
//! (FB2.ZIP, FBZ). Must never take the description, the style sheet or an image's bytes for text, or demand XML
//! without mistakes: many of these files have some.
//!
//! A section's `title` begins a section here, at the depth of its nesting. Bodies with a name (notes, comments) stand
//! behind the text, one section each, whatever the order in the file.

use std::io::Read;
use std::path::Path;

use super::container::Container;
use super::flow::{Flow, Hidden};
use super::markup::{self, Attributes, Sink};
use super::sections::{self, Start};
use super::text::{Heading, PageText, one_line};
use super::{ExtractError, Limits, Source, decode};
use crate::domain::Document;

/// Deeper titles are as deep as this.
const MAX_LEVEL: usize = 6;
/// Bold paragraphs of up to this many words stand for the title that a section lacks (Calibre writes them so).
const BOLD_TITLE_WORDS: usize = 14;

/// Reads an FB2 file.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    parse(source.path(), &bytes_of(source, limits)?)
}

/// The XML of a book, out of its archive where it is in one.
pub fn bytes_of(source: &Source, limits: &Limits) -> Result<Vec<u8>, ExtractError> {
    let mut magic = [0; 4];
    let read = source.reader().read(&mut magic).map_err(|error| ExtractError::from_io(source.path(), error))?;
    if !magic[..read].starts_with(b"PK") {
        return source.read_text(limits);
    }
    let mut container = Container::open(source, limits)?;
    let entry = container.find_by_suffix(".fb2").or_else(|| container.find_by_suffix(".xml"));
    let entry = entry.ok_or_else(|| ExtractError::corrupt(source.path(), "the archive holds no FB2 file"))?;
    container.read(entry)
}

/// The document that FB2's XML is.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Document, ExtractError> {
    let mut book = markup::parse_xml(&decode::markup(bytes), Fb2::default);
    book.finish();
    if !book.is_fb2 {
        return Err(ExtractError::corrupt(path, "it is not FictionBook 2: it has no such element"));
    }
    let (title, language) = (one_line(&book.title), one_line(&book.language));
    let authors = book.authors.iter().map(|author| one_line(author)).filter(|author| !author.is_empty()).collect();
    Ok(Document {
        title: Some(title).filter(|title| !title.is_empty()),
        authors,
        language: Some(language).filter(|language| !language.is_empty()),
        sections: sections::split(&book.pages, book.starts),
        notes: Vec::new(),
    })
}

/// Which field of the description is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Title,
    Author,
    Nickname,
    Language,
}

#[derive(Default)]
struct Fb2 {
    is_fb2: bool,
    title: String,
    authors: Vec<String>,
    nickname: String,
    language: String,
    /// Inside `title-info`: the only part of the description that speaks of this text.
    in_title_info: bool,
    in_author: bool,
    field: Option<Field>,
    hidden: Hidden,
    flow: Option<Flow>,
    notes_body: bool,
    /// The bodies so far, notes last when all is read.
    pages: Vec<PageText>,
    starts: Vec<Start>,
    notes: Vec<PageText>,
    /// Open sections and poems.
    sections: usize,
    /// In a title, so its paragraphs are lines.
    titles: usize,
    bold: Bold,
    strong: usize,
    bold_titles: Vec<Heading>,
}

/// Whether the first paragraph of a section is bold from end to end.
#[derive(Default)]
enum Bold {
    #[default]
    No,
    /// A section has begun.
    Waiting,
    /// The paragraph that began here is bold so far.
    InParagraph(usize),
}

impl Fb2 {
    fn begin_body(&mut self, name: Option<&str>) {
        self.end_body();
        self.hidden.reset();
        self.field = None;
        self.in_title_info = false;
        self.notes_body = name.is_some_and(|name| !name.trim().is_empty());
        self.sections = 0;
        self.titles = 0;
        self.bold = Bold::No;
        self.strong = 0;
        self.flow = Some(Flow::default());
    }

    fn end_body(&mut self) {
        let Some(flow) = self.flow.take() else { return };
        let mut page = flow.finish();
        page.headings.append(&mut self.bold_titles);
        page.headings.sort_by_key(|heading| heading.range.start);
        if self.notes_body { self.notes.push(page) } else { self.pages.push(page) }
    }

    /// To be called when all is read: puts the notes behind the text, and notes the places where sections begin.
    fn finish(&mut self) {
        self.end_body();
        for page in &mut self.pages {
            page.headings.retain(|heading| !page.text[heading.range.clone()].trim().is_empty());
            // The body's own title is the book's: it leads into the first section where there is one.
            if page.headings.len() > 1 && page.headings.first().is_some_and(|heading| heading.level == 1) {
                page.headings.remove(0);
            }
            // Sections count from 2, so that the body can be above them.
            for heading in &mut page.headings {
                heading.level = heading.level.saturating_sub(1).max(1);
            }
        }
        self.starts = sections::starts_at_headings(&self.pages, MAX_LEVEL);
        for page in std::mem::take(&mut self.notes) {
            let title = page.headings.first().filter(|heading| heading.level == 1);
            let title = title.map(|heading| page.text[heading.range.clone()].to_owned()).unwrap_or_default();
            self.starts.push(Start { page: self.pages.len(), offset: 0, level: 0, title });
            self.pages.push(page);
        }
    }

    fn open_in_body(flow: &mut Flow, name: &str, attributes: &dyn Attributes, sections: usize, titles: &mut usize) {
        match name {
            "a" | "sup" => flow.open_with(name, attributes),
            "title" => {
                *titles += 1;
                if *titles == 1 {
                    flow.heading((sections + 1).min(MAX_LEVEL));
                }
            }
            // A title of two lines is still one title.
            "p" | "empty-line" if *titles > 0 => flow.mark("line"),
            "v" => flow.open("line"),
            "td" | "th" | "tr" | "table" | "p" => flow.open(name),
            "section" | "subtitle" | "epigraph" | "poem" | "stanza" | "cite" | "annotation" | "text-author"
            | "date" | "empty-line" => flow.open("div"),
            _ => {}
        }
    }

    fn close_in_body(flow: &mut Flow, name: &str, titles: &mut usize) {
        match name {
            "a" | "sup" => flow.close(name),
            "title" => {
                *titles = titles.saturating_sub(1);
                if *titles == 0 {
                    flow.end_heading();
                }
            }
            "p" | "empty-line" if *titles > 0 => flow.mark("line"),
            "v" => flow.close("line"),
            "td" | "th" | "tr" | "table" | "p" => flow.close(name),
            "section" | "subtitle" | "epigraph" | "poem" | "stanza" | "cite" | "annotation" | "text-author"
            | "date" | "empty-line" => flow.close("div"),
            _ => {}
        }
    }
}

impl Sink for Fb2 {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        match name {
            "fictionbook" => self.is_fb2 = true,
            "body" if self.is_fb2 => return self.begin_body(attributes.get("name").as_deref()),
            _ => {}
        }
        if self.hidden.open(name, &["binary", "stylesheet"]) {
            return;
        }
        let Some(flow) = &mut self.flow else {
            match name {
                "title-info" => self.in_title_info = true,
                "author" if self.in_title_info && self.authors.len() < 100 => {
                    self.in_author = true;
                    self.authors.push(String::new());
                    self.nickname.clear();
                }
                "book-title" if self.in_title_info => self.field = Some(Field::Title),
                "lang" if self.in_title_info => self.field = Some(Field::Language),
                "first-name" | "middle-name" | "last-name" if self.in_author => self.field = Some(Field::Author),
                "nickname" if self.in_author => self.field = Some(Field::Nickname),
                _ => {}
            }
            return;
        };
        match name {
            "section" | "poem" => {
                self.sections += 1;
                self.bold = if name == "section" { Bold::Waiting } else { Bold::No };
            }
            "p" if matches!(self.bold, Bold::Waiting) && self.titles == 0 => {
                self.bold = Bold::InParagraph(flow.len());
            }
            "strong" => self.strong += 1,
            "title" | "v" | "td" | "th" | "subtitle" | "text-author" => self.bold = Bold::No,
            _ => {}
        }
        Self::open_in_body(flow, name, attributes, self.sections, &mut self.titles);
    }

    fn close(&mut self, name: &str) {
        if self.hidden.close(name) {
            return;
        }
        if name == "body" {
            return self.end_body();
        }
        let Some(flow) = &mut self.flow else {
            match name {
                "title-info" => self.in_title_info = false,
                "author" if self.in_author => {
                    self.in_author = false;
                    if let Some(author) = self.authors.last_mut().filter(|author| author.trim().is_empty()) {
                        author.push_str(&self.nickname);
                    }
                }
                "first-name" | "middle-name" if self.in_author => {
                    if let Some(author) = self.authors.last_mut() {
                        author.push(' ');
                    }
                }
                _ => {}
            }
            self.field = None;
            return;
        };
        match (name, &self.bold) {
            ("section" | "poem", _) => self.sections = self.sections.saturating_sub(1),
            ("strong", _) => self.strong = self.strong.saturating_sub(1),
            ("p", Bold::InParagraph(start)) => {
                let (start, end) = (*start, flow.len());
                self.bold = if start == end { Bold::Waiting } else { Bold::No };
                if start < end && flow.words_since(start) <= BOLD_TITLE_WORDS {
                    let level = (self.sections + 1).min(MAX_LEVEL);
                    self.bold_titles.push(Heading { level, range: start..end });
                }
            }
            _ => {}
        }
        Self::close_in_body(flow, name, &mut self.titles);
    }

    fn text(&mut self, text: &str) {
        if self.hidden.is_on() {
            return;
        }
        if let Some(flow) = &mut self.flow {
            if matches!(self.bold, Bold::InParagraph(_)) && self.strong == 0 && !text.trim().is_empty() {
                self.bold = Bold::No;
            }
            return flow.text(text);
        }
        let field = match self.field {
            Some(Field::Title) => &mut self.title,
            Some(Field::Author) => match self.authors.last_mut() {
                Some(author) => author,
                None => return,
            },
            Some(Field::Nickname) => &mut self.nickname,
            Some(Field::Language) => &mut self.language,
            None => return,
        };
        field.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::super::extract;
    use super::super::report::Report;
    use super::*;

    const BOOK: &str = r##"<?xml version="1.0" encoding="windows-1251"?>
        <FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0" xmlns:l="http://www.w3.org/1999/xlink">
        <stylesheet type="text/css">p { x }</stylesheet>
        <description><title-info><author><first-name>Лев</first-name><last-name>Толстой</last-name></author>
        <author><nickname>Ник</nickname></author><book-title>Война
        и мир</book-title><annotation><p>no</p></annotation><lang>ru</lang></title-info>
        <src-title-info><book-title>other</book-title></src-title-info>
        <document-info><author><nickname>maker</nickname></author></document-info></description>
        <body name="notes"><title><p>Примечания</p></title><section id="n1"><title><p>1</p></title><p>note</p></section></body>
        <body><title><p>Лев</p><p>Война</p></title>
        <section><title><p>Часть</p><empty-line/><p>первая</p></title>
        <section><title><p>I</p></title><p>а<emphasis>б</emphasis> <style name="x">в</style><a l:href="#n1">[1]</a></p>
        <poem><title><p>Стих</p></title><stanza><v>one</v><v>two</v></stanza></poem><p>three</p></section>
        <section><p><image l:href="#i"/></p><p><strong>Bold</strong> <strong>title</strong></p><p>four</p>
        <table><tr><th>a</th><td>b</td></tr><tr><td>c</td><td>d</td></tr></table></section></section></body>
        <binary id="i" content-type="image/png">AAAA</binary></FictionBook>"##;

    fn book(bytes: &[u8], format: &str) -> Document {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        std::fs::write(&path, bytes).unwrap();
        let document = extract(&path, format, &Limits::default()).unwrap();
        let report = Report::measure(&Source::open(&path).unwrap(), format, &document, &Limits::default()).unwrap();
        assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
        document
    }

    fn shape(document: &Document) -> Vec<(&str, usize, &str)> {
        document.sections.iter().map(|s| (s.title.as_str(), s.level, s.text.as_str())).collect()
    }

    #[test]
    fn a_bold_paragraph_is_no_heading_in_a_script_without_spaces_either() {
        let title = |bold: &str| {
            let section = format!("<section><p><strong>{bold}</strong></p><p>x</p></section>");
            let markup = format!("<FictionBook><body>{section}</body></FictionBook>");
            book(markup.as_bytes(), "FB2").sections[0].title.clone()
        };
        assert_eq!(title("第一章 旅のはじまり"), "第一章 旅のはじまり");
        assert_eq!(title(&"すべての人間は、生まれながらにして自由であり、".repeat(3)), "");
    }

    #[test]
    fn sections_nest_and_notes_stand_behind() {
        let bytes = encoding_rs::WINDOWS_1251.encode(BOOK).0.into_owned();
        let document = book(&bytes, "FB2");
        assert_eq!(document.title.as_deref(), Some("Война и мир"));
        assert_eq!(document.authors, ["Лев Толстой", "Ник"]);
        assert_eq!(document.language.as_deref(), Some("ru"));
        assert_eq!(
            shape(&document),
            [
                ("Часть первая", 0, "Лев\nВойна\n\nЧасть\nпервая"),
                ("I", 1, "I\n\nаб в [1]"),
                ("Стих", 2, "Стих\n\none\ntwo\n\nthree"),
                ("Bold title", 1, "Bold title\n\nfour\n\na\tb\nc\td"),
                ("Примечания", 0, "Примечания\n\n1\n\nnote"),
            ]
        );
    }

    #[test]
    fn archives_are_opened_and_mistakes_forgiven() {
        let utf8 = BOOK.replace("windows-1251", "utf-8").replace("<p>three</p>", "<p>three & <col></p>");
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file("x/b.FB2", zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, utf8.as_bytes()).unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        for format in ["FB2", "FBZ", "ZIP"] {
            let document = book(&bytes, format);
            assert_eq!((document.sections.len(), document.sections[2].text.ends_with("three &")), (5, true));
        }
    }

    #[test]
    fn a_body_without_sections_is_named_by_its_title() {
        let xml = "<FictionBook><body><title><p>T</p></title><p>a</p><empty-line/><subtitle>s</subtitle>b</body></FictionBook>";
        assert_eq!(shape(&book(xml.as_bytes(), "FB2")), [("T", 0, "T\n\na\n\ns\n\nb")]);
    }

    #[test]
    fn notes_marks_are_not_text_and_stanzas_keep_their_lines() {
        let xml = "<FictionBook><body><section><p>word<a l:href='#n' type='note'>[1]</a>, mc<sup>2</sup> <a l:href='#n' \
            type='note'>2</a>.</p><poem><stanza><v>one</v><v>two</v></stanza><stanza><v>three</v></stanza></poem>\
            <cite><p>c</p><text-author>d</text-author></cite></section></body></FictionBook>";
        let expected = "word, mc².\n\none\ntwo\n\nthree\n\nc\n\nd";
        assert_eq!(shape(&book(xml.as_bytes(), "FB2")), [("", 0, expected)]);
    }

    #[test]
    fn what_is_not_fb2_is_damaged() {
        let error = parse(Path::new("x.fb2"), b"<html><body>a</body></html>").unwrap_err();
        assert!(error.to_string().contains("not FictionBook"), "{error}");
    }
}
