//! ODT: OpenDocument text (ISO/IEC 26300, OASIS ODF 1.3, part 3). Must never take tracked deletions, comments or the
//! descriptions of pictures for text, or leave notes between the words they explain: those stand behind the text.

use super::container::Container;
use super::flow::{self, Fields, Flow, Hidden};
use super::markup::{self, Attributes, Sink};
use super::{ExtractError, Limits, Source, decode, ole};
use crate::domain::Document;

/// Reads an ODT file.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    ole::refuse(source)?;
    let mut container = Container::open(source, limits)?;
    refuse_encrypted(&mut container)?;
    let content = container.find("content.xml");
    let content =
        content.ok_or_else(|| ExtractError::corrupt(source.path(), "it is not an ODT: it has no content.xml"))?;
    let mut notes = Vec::new();
    let mut about = Fields::default();
    if let Some(entry) = container.find("meta.xml") {
        match container.read(entry) {
            Ok(bytes) => about = Fields::read(&decode::markup(&bytes)),
            Err(error) => notes.push(format!("the metadata is left out: {error}")),
        }
    }
    let body = markup::parse_xml(&decode::markup(&container.read(content)?), Body::default);
    if !body.seen {
        return Err(ExtractError::corrupt(source.path(), "it is not an ODT: content.xml has no body"));
    }
    let (mut page, note_page) = (body.text.finish(), body.notes.finish());
    page.headings.retain(|heading| !page.text[heading.range.clone()].trim().is_empty());
    page.title = about.first("title");
    // `dc:creator` is whoever saved the file last.
    let author = about.first("initial-creator").or_else(|| about.first("creator"));
    Ok(Document {
        title: about.first("title"),
        authors: author.map(|field| flow::authors(&field)).unwrap_or_default(),
        language: about.first("language"),
        sections: flow::sections_with_notes(page, vec![note_page]),
        notes,
    })
}

/// A password encrypts the files one by one and names them in the manifest (part 2, clause 4.8).
fn refuse_encrypted(container: &mut Container) -> Result<(), ExtractError> {
    #[derive(Default)]
    struct Encrypted(bool);

    impl Sink for Encrypted {
        fn open(&mut self, name: &str, _attributes: &dyn Attributes) {
            self.0 |= name == "encryption-data";
        }

        fn close(&mut self, _name: &str) {}

        fn text(&mut self, _text: &str) {}
    }

    let Some(entry) = container.find("META-INF/manifest.xml") else { return Ok(()) };
    let bytes = container.read(entry)?;
    if markup::parse_xml(&decode::markup(&bytes), Encrypted::default).0 {
        let scheme = "an OpenDocument password".to_owned();
        return Err(ExtractError::Encrypted { path: container.path().to_owned(), scheme });
    }
    Ok(())
}

/// Elements that are not text: deletions, comments, a picture's description, formulas' source, controls, a note's
/// mark, what a merged cell covers, and the table of contents that the program made of the headings.
const NOT_TEXT: &[&str] = &[
    "tracked-changes",
    "annotation",
    "desc",
    "forms",
    "script",
    "event-listeners",
    "note-citation",
    "covered-table-cell",
    "table-of-content",
];

#[derive(Default)]
struct Body {
    /// There is a body.
    seen: bool,
    in_body: bool,
    hidden: Hidden,
    text: Flow,
    notes: Flow,
    /// Open note bodies: their text goes elsewhere.
    in_notes: usize,
    /// The last border was a paragraph's, not a frame's: a `title` is the field, not the picture's.
    in_paragraph: bool,
}

impl Body {
    fn flow(&mut self) -> &mut Flow {
        if self.in_notes > 0 { &mut self.notes } else { &mut self.text }
    }
}

impl Sink for Body {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if name == "body" {
            (self.seen, self.in_body) = (true, true);
        }
        if !self.in_body || self.hidden.open(name, NOT_TEXT) {
            return;
        }
        match name {
            "title" if !self.in_paragraph => self.hidden.begin("title"),
            "p" | "h" => {
                self.in_paragraph = true;
                let level = attributes.get("outline-level").and_then(|level| level.trim().parse().ok());
                let flow = self.flow();
                flow.paragraph();
                if name == "h" {
                    flow.heading(level.unwrap_or(1));
                }
            }
            "frame" | "text-box" | "custom-shape" | "g" => self.in_paragraph = false,
            "note-body" => self.in_notes += 1,
            "s" | "tab" => self.flow().text(" "),
            "line-break" => self.flow().mark("br"),
            "list" => self.flow().open("ul"),
            "list-item" | "list-header" => self.flow().compact("li"),
            "table" => self.flow().open("table"),
            "table-row" => self.flow().open("tr"),
            "table-cell" => self.flow().compact("td"),
            "ruby" => self.flow().open("ruby"),
            "ruby-text" => self.flow().open("rt"),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        if !self.in_body || self.hidden.close(name) {
            return;
        }
        match name {
            "body" => self.in_body = false,
            "p" | "h" => {
                self.in_paragraph = false;
                self.flow().end_paragraph();
            }
            "frame" | "custom-shape" | "g" => self.in_paragraph = true,
            "note-body" => {
                self.notes.end_paragraph();
                self.in_notes = self.in_notes.saturating_sub(1);
                self.in_paragraph = true;
            }
            "list" => self.flow().close("ul"),
            "list-item" | "list-header" => self.flow().end_compact("li"),
            "table" => self.flow().close("table"),
            "table-row" => self.flow().close("tr"),
            "table-cell" => self.flow().end_compact("td"),
            "ruby" => self.flow().close("ruby"),
            "ruby-text" => self.flow().close("rt"),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.in_body && !self.hidden.is_on() {
            self.flow().text(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::extract;
    use super::super::report::Report;
    use super::*;

    fn read(body: &str, extra: &[(&str, &str)]) -> Result<Document, ExtractError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.odt");
        let content = format!(
            "<office:document-content xmlns:office='o' xmlns:text='t' xmlns:table='a' xmlns:draw='d' xmlns:svg='s'>\
            <office:font-face-decls>no</office:font-face-decls><office:body><office:text>{body}</office:text></office:body>\
            </office:document-content>"
        );
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, content) in [("content.xml", content.as_str())].iter().chain(extra) {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let document = extract(&path, "ODT", &Limits::default())?;
        let report = Report::measure(&Source::open(&path).unwrap(), "ODT", &document, &Limits::default()).unwrap();
        assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
        Ok(document)
    }

    fn shape(document: &Document) -> Vec<(&str, usize, &str)> {
        document.sections.iter().map(|s| (s.title.as_str(), s.level, s.text.as_str())).collect()
    }

    #[test]
    fn headings_lists_tables_and_notes_are_read() {
        let body = "<text:tracked-changes><text:deletion><text:p>gone</text:p></text:deletion></text:tracked-changes>\
            <text:h text:outline-level='1'>One</text:h><text:p>a<text:s text:c='3'/>b<text:tab/>c<text:line-break/>d\
            <text:span>e</text:span><text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>Note</text:p>\
            </text:note-body></text:note> f <text:title>Field</text:title></text:p><text:h text:outline-level='2'>Two</text:h>\
            <text:list><text:list-item><text:p>x</text:p><text:list><text:list-item><text:p>y</text:p></text:list-item>\
            </text:list></text:list-item></text:list><table:table><table:table-row><table:table-cell><text:p>1</text:p>\
            </table:table-cell><table:table-cell><text:p>2</text:p></table:table-cell></table:table-row></table:table>\
            <text:p><draw:frame><draw:text-box><text:p>box</text:p></draw:text-box><svg:title>no</svg:title><svg:desc>no\
            </svg:desc></draw:frame> after</text:p><text:p><office:annotation><text:p>no</text:p></office:annotation>z</text:p><text:table-of-content><text:index-body><text:p>One 1</text:p></text:index-body></text:table-of-content>";
        let meta = "<m xmlns:meta='m' xmlns:dc='d'><dc:title>T</dc:title><meta:initial-creator>A</meta:initial-creator>\
            <dc:creator>Editor</dc:creator><dc:language>hr-HR</dc:language></m>";
        let document = read(body, &[("meta.xml", meta)]).unwrap();
        assert_eq!((document.title.as_deref(), document.language.as_deref()), (Some("T"), Some("hr-HR")));
        assert_eq!(document.authors, ["A"]);
        assert_eq!(
            shape(&document),
            [
                ("One", 0, "One\n\na b c\nde f Field"),
                ("Two", 1, "Two\n\nx\ny\n\n1\t2\n\nbox\n\nafter\n\nz"),
                ("", 0, "Note"),
            ]
        );
    }

    #[test]
    fn encrypted_and_foreign_archives_are_refused() {
        let manifest = "<m:manifest xmlns:m='m'><m:file-entry><m:encryption-data/></m:file-entry></m:manifest>";
        let error = read("x", &[("META-INF/manifest.xml", manifest)]).unwrap_err();
        assert!(matches!(error, ExtractError::Encrypted { .. }), "{error}");
    }
}
