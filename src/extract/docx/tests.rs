//! Small DOCX files built by code.

use std::io::Write;
use std::path::PathBuf;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::super::report::Report;
use super::super::{ExtractError, Limits, Source, extract};
use super::parts::{Styles, level_by_name};
use crate::domain::Document;

const STYLES: &str = r#"<w:styles xmlns:w="w"><w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
    <w:style w:type="paragraph" w:styleId="Own"><w:name w:val="Mine"/><w:basedOn w:val="berschrift1"/></w:style>
    <w:style w:type="paragraph" w:styleId="Out"><w:name w:val="X"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
    <w:style w:type="paragraph" w:styleId="Loop"><w:name w:val="L"/><w:basedOn w:val="Loop"/></w:style></w:styles>"#;

fn write(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.docx");
    let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, content) in files {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap();
    (dir, path)
}

fn read(files: &[(&str, &str)]) -> Document {
    let (_dir, path) = write(files);
    let document = extract(&path, "DOCX", &Limits::default()).unwrap();
    let report = Report::measure(&Source::open(&path).unwrap(), "DOCX", &document, &Limits::default()).unwrap();
    assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
    document
}

fn body(content: &str) -> String {
    format!("<w:document xmlns:w='w' xmlns:mc='mc'><w:body>{content}</w:body></w:document>")
}

fn shape(document: &Document) -> Vec<(&str, usize, &str)> {
    document.sections.iter().map(|s| (s.title.as_str(), s.level, s.text.as_str())).collect()
}

fn text(content: &str) -> String {
    let document = read(&[("word/document.xml", &body(content))]);
    document.sections.into_iter().map(|section| section.text).collect()
}

#[test]
fn headings_are_the_sections_and_notes_stand_behind() {
    let headed = |style: &str, text: &str| {
        format!("<w:p><w:pPr><w:pStyle w:val='{style}'/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>")
    };
    let plain = "<w:p><w:r><w:t>se</w:t></w:r><w:r><w:t xml:space='preserve'>e </w:t><w:footnoteReference w:id='2'/></w:r></w:p>";
    let body = body(&format!(
        "{}{plain}{}{}{plain}<w:p><w:pPr><w:outlineLvl w:val='2'/></w:pPr><w:r><w:t>Deep</w:t></w:r></w:p>{}<w:p>\
        <w:pPr><w:pStyle w:val='berschrift1'/><w:outlineLvl w:val='9'/></w:pPr><w:r><w:t>No</w:t></w:r></w:p>",
        headed("berschrift1", "One"),
        headed("Own", "Two"),
        headed("Out", "Part"),
        headed("Loop", "loop"),
    ));
    let notes = "<w:footnotes xmlns:w='w'><w:footnote w:type='separator' w:id='0'><w:p><w:r><w:t>sep</w:t></w:r></w:p></w:footnote>\
        <w:footnote w:id='2'><w:p><w:r><w:t>Note</w:t></w:r></w:p></w:footnote></w:footnotes>";
    let relation = |kind: &str, target: &str| {
        format!("<Relationships><Relationship Id='a' Type='http://x/{kind}' Target='{target}'/></Relationships>")
    };
    let document = read(&[
        ("_rels/.rels", &relation("officeDocument", "/w/document.xml")),
        ("w/_rels/document.xml.rels", &relation("footnotes", "footnotes.xml")),
        ("w/document.xml", &body),
        ("w/footnotes.xml", notes),
        ("w/styles.xml", STYLES),
        (
            "docProps/core.xml",
            "<c xmlns:dc='d'><dc:title>T</dc:title><dc:creator>A; B</dc:creator><dc:language>hr</dc:language></c>",
        ),
    ]);
    assert_eq!((document.title.as_deref(), document.language.as_deref()), (Some("T"), Some("hr")));
    assert_eq!(document.authors, ["A", "B"]);
    assert_eq!(
        shape(&document),
        [
            ("One", 0, "One\n\nsee"),
            ("Two", 0, "Two"),
            ("Part", 1, "Part\n\nsee"),
            ("Deep", 2, "Deep\n\nloop\n\nNo"),
            ("", 0, "Note")
        ]
    );
}

#[test]
fn changes_fields_and_doubles_are_not_text() {
    let content = "<w:p><w:pPr><w:tabs><w:tab w:val='left'/></w:tabs><w:rPr><w:vanish/></w:rPr>\
        <w:pPrChange><w:pPr><w:pStyle w:val='heading 1'/></w:pPr></w:pPrChange></w:pPr>\
        <w:ins><w:r><w:t>in</w:t></w:r></w:ins><w:del><w:r><w:delText>out</w:delText><w:t>out</w:t></w:r></w:del>\
        <w:moveFrom><w:r><w:t>from</w:t></w:r></w:moveFrom><w:r><w:instrText> TOC </w:instrText></w:r>\
        <w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r><w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:tab/><w:t>a</w:t>\
        <w:br/><w:t>b</w:t><w:noBreakHyphen/><w:softHyphen/><w:t>c</w:t><w:sym w:font='S' w:char='F0B7'/></w:r></w:p>\
        <w:p><w:r><mc:AlternateContent><mc:Choice><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Choice>\
        <mc:Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent></w:r></w:p>";
    assert_eq!(text(content), "in a\nb-c\n\nbox");
}

#[test]
fn notes_marks_and_made_tables_of_contents_are_not_text() {
    let run = |properties: &str, text: &str| format!("<w:r><w:rPr>{properties}</w:rPr><w:t>{text}</w:t></w:r>");
    let raised = "<w:vertAlign w:val='superscript'/>";
    let content = format!(
        "<w:sdt><w:sdtPr><w:docPartObj><w:docPartGallery w:val='Table of Contents'/></w:docPartObj></w:sdtPr><w:sdtContent>\
        <w:p><w:r><w:t>One 1</w:t></w:r></w:p></w:sdtContent></w:sdt><w:sdt><w:sdtContent><w:p>{}<w:hyperlink>{}</w:hyperlink>{}\
        {}{}{}{}</w:p></w:sdtContent></w:sdt>",
        run("", "word"),
        run(raised, "[1]"),
        run("", " and area"),
        run(raised, "3"),
        run("", ", 5 km"),
        run(raised, "2"),
        run("", " wide"),
    );
    assert_eq!(text(&content), "word and area 3, 5 km² wide");
}

#[test]
fn tables_keep_their_rows() {
    let cell = |text: &str| format!("<w:tc><w:tcPr/><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>");
    let row = |a: &str, b: &str| format!("<w:tr>{}{}</w:tr>", cell(a), cell(b));
    let content = format!("<w:tbl>{}{}</w:tbl><w:p><w:r><w:t>e</w:t></w:r></w:p>", row("a", "b"), row("c", "d"));
    assert_eq!(text(&content), "a\tb\nc\td\n\ne");
}

#[test]
fn styles_are_known_by_name_and_ancestry() {
    let styles = Styles::read(STYLES);
    let levels = ["berschrift1", "Own", "Out", "Loop", "Heading 3", "Normal"].map(|id| styles.level(id));
    assert_eq!(levels, [Some(1), Some(1), Some(2), None, Some(3), None]);
    assert_eq!(
        (level_by_name("Überschrift 2"), level_by_name("heading 10"), level_by_name("toc 1")),
        (Some(2), None, None)
    );
    // Looked at for every paragraph, so a name of megabytes is not.
    assert_eq!(level_by_name(&format!("{}heading 1", " ".repeat(1000))), None);
}

#[test]
fn encrypted_and_old_documents_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.docx");
    let magic = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
    // The name lies on the border of two reads.
    std::fs::write(&path, [&magic, vec![1; (1 << 15) - 20].as_slice(), &name, &[0; 100]].concat()).unwrap();
    let error = extract(&path, "DOCX", &Limits::default()).unwrap_err();
    assert!(matches!(error, ExtractError::Encrypted { .. }), "{error}");
    std::fs::write(&path, [&magic, vec![1; 100_000].as_slice()].concat()).unwrap();
    let error = extract(&path, "DOCX", &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("old Office file"), "{error}");
    let (_dir, path) = write(&[("x", "y")]);
    assert!(extract(&path, "DOCX", &Limits::default()).unwrap_err().to_string().contains("not a DOCX"));
}
