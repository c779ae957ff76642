//! Small PDFs written by hand: what a page shows, and what malice can put into a file.

use std::io::Write;
use std::time::{Duration, Instant};

use super::super::report::Report;
use super::super::{ExtractError, Limits, Source, extract};
use crate::domain::Document;

const PAGE: &str = "/Type /Page /Parent 2 0 R /MediaBox [0 0 400 600] /Resources << /Font << /F 5 0 R >> /XObject << /X 6 0 R >> /Properties << /Off 6 0 R >> >>";

/// A PDF of one page with this content; `more` are further objects, from number 6 on, and `root` further entries.
fn one_page(content: &str, root: &str, more: &[&str]) -> Vec<u8> {
    let content = format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len());
    let page = format!("<< {PAGE} /Contents 4 0 R >>");
    let catalog = format!("<< /Type /Catalog /Pages 2 0 R {root} >>");
    let mut objects = vec![catalog.as_str(), "<< /Type /Pages /Kids [3 0 R] /Count 1 >>", &page, &content, FONT];
    objects.extend(more);
    file(&objects, "")
}

const FONT: &str = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>";

fn file(objects: &[&str], trailer: &str) -> Vec<u8> {
    let mut bytes = b"%PDF-1.7\n".to_vec();
    let mut places = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        places.push(bytes.len());
        writeln!(bytes, "{} 0 obj\n{object}\nendobj", at + 1).unwrap();
    }
    let table = bytes.len();
    write!(bytes, "xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).unwrap();
    places.iter().for_each(|place| writeln!(bytes, "{place:010} 00000 n ").unwrap());
    write!(bytes, "trailer << /Size {} /Root 1 0 R {trailer} >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1)
        .unwrap();
    bytes
}

/// Lines, each on its own baseline, 14 points apart.
fn lines(texts: &[&str]) -> String {
    let shown: String = texts.iter().map(|text| format!("({text}) Tj T* ")).collect();
    format!("BT /F 10 Tf 14 TL 50 550 Td {shown} ET")
}

fn read_with(bytes: &[u8], limits: &Limits) -> Result<Document, ExtractError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.pdf");
    std::fs::write(&path, bytes).unwrap();
    let started = Instant::now();
    let result = extract(&path, "PDF", limits);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let document = result?;
    let report = Report::measure(&Source::open(&path)?, "PDF", &document, limits)?;
    assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
    Ok(document)
}

fn read(bytes: &[u8]) -> Document {
    read_with(bytes, &Limits::default()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    read(bytes).sections.iter().map(|section| section.text.as_str()).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn a_page_is_read() {
    let shown = "BT /F 10 Tf 1 0 0 1 50 500 Tm [(W) 80 (ord) -400 (two)] TJ 0 -12 Td (three \\256) Tj ET";
    assert_eq!(text(&one_page(shown, "", &[])), "Word two three ®");
}

#[test]
fn metadata_is_read() {
    let mut bytes = one_page(&lines(&["text"]), "/Lang (de-DE)", &["<< /Title (A \\(title\\)) /Author (One; Two) >>"]);
    let at = bytes.windows(7).rposition(|part| part == b"trailer").unwrap();
    bytes.splice(at + 10..at + 10, b" /Info 6 0 R".iter().copied());
    let document = read(&bytes);
    assert_eq!(document.title.as_deref(), Some("A (title)"));
    assert_eq!(
        (document.authors, document.language.as_deref()),
        (vec!["One".to_owned(), "Two".to_owned()], Some("de-DE"))
    );
}

#[test]
fn invisible_and_turned_text_is_text_and_hidden_layers_are_not() {
    let shown = "BT 3 Tr /F 10 Tf 50 500 Td (scanned words) Tj ET BT 0 1 -1 0 390 50 Tm (aside) Tj ET \
                 /OC /Off BDC BT /F 10 Tf 50 400 Td (hidden) Tj ET EMC";
    let layers = "/OCProperties << /OCGs [6 0 R] /D << /OFF [6 0 R] >> >>";
    let bytes = one_page(shown, layers, &["<< /Type /OCG /Name (x) >>"]);
    assert_eq!(text(&bytes), "scanned words\n\naside");
}

#[test]
fn what_a_stretch_stands_for_is_its_text() {
    let shown = "BT /F 10 Tf 50 500 Td (a ) Tj /Span << /ActualText (fi) >> BDC (@@) Tj EMC (ne) Tj ET";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.pdf");
    std::fs::write(&path, one_page(shown, "", &[])).unwrap();
    assert_eq!(extract(&path, "PDF", &Limits::default()).unwrap().sections[0].text, "a fine");
}

#[test]
fn chapters_on_one_page_part_at_their_lines() {
    let outline = [
        "<< /First 7 0 R /Last 9 0 R >>",
        "<< /Title (One) /Dest [3 0 R /XYZ 0 560 null] /Next 8 0 R /First 10 0 R >>",
        "<< /Title (Two) /A << /S /GoTo /D (two) >> /Next 9 0 R >>",
        "<< /Title (Nowhere) /Dest [99 0 R /Fit] >>",
        "<< /Title (Inner) /Dest /inner >>",
    ];
    let names = "/Outlines 6 0 R /Names << /Dests << /Names [(two) << /D [3 0 R /XYZ 0 505 null] >>] >> >> \
                 /Dests << /inner [3 0 R /FitH 533] >>";
    let content = lines(&["One", "text of one", "Inner", "its text", "Two", "text of two"]);
    let document = read(&one_page(&content, names, &outline));
    let shape: Vec<_> = document.sections.iter().map(|s| (s.title.as_str(), s.level, s.text.as_str())).collect();
    assert_eq!(
        shape,
        [("One", 0, "One\ntext of one"), ("Inner", 1, "Inner\nits text"), ("Two", 0, "Two\ntext of two")]
    );
    assert!(document.notes.iter().any(|note| note.contains("lead to no page")), "{:?}", document.notes);
}

#[test]
fn cycles_end() {
    let outline = [
        "<< /First 7 0 R >>",
        "<< /Title (One) /Dest [3 0 R /Fit] /Next 8 0 R /First 7 0 R >>",
        "<< /Title (Two) /Dest [3 0 R /Fit] /Next 7 0 R /First 6 0 R >>",
    ];
    let document = read(&one_page(&lines(&["words"]), "/Outlines 6 0 R", &outline));
    assert_eq!(document.sections.len(), 1);
    // A form that shows itself, twice.
    let form = format!(
        "<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Length 22 /Resources << {} >> >>\nstream\n/X Do /X Do /X Do /X Do\nendstream",
        "/XObject << /X 6 0 R >>"
    );
    assert_eq!(text(&one_page(&format!("{} /X Do", lines(&["words"])), "", &[&form])), "words");
    // A tree of pages in itself.
    let content = lines(&["words"]);
    let content = format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len());
    let page = format!("<< {PAGE} /Contents 4 0 R >>");
    let pages = "<< /Type /Pages /Kids [2 0 R 3 0 R 2 0 R 3 0 R] /Count 1000000 >>";
    let bytes = file(&["<< /Type /Catalog /Pages 2 0 R >>", pages, &page, &content, FONT], "");
    let document = read(&bytes);
    assert_eq!(document.sections[0].text, "words");
    assert!(document.notes.iter().any(|note| note.contains("1 of its 1000000 pages")), "{:?}", document.notes);
}

#[test]
fn bombs_do_not_unfold() {
    let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let spaces = vec![b' '; 1 << 20];
    (0..200).for_each(|_| deflated.write_all(&spaces).unwrap());
    let deflated = deflated.finish().unwrap();
    for kind in ["", "/Type /ObjStm /N 1 /First 10"] {
        let mut stream = format!("<< {kind} /Filter /FlateDecode /Length {} >>\nstream\n", deflated.len()).into_bytes();
        stream.extend(&deflated);
        stream.extend(b"\nendstream");
        let whole = one_page(&lines(&["words"]), "", &["<<>>"]);
        // Behind the content that is good; byte for byte, as it is not text.
        let at = whole.windows(7).position(|part| part == b"6 0 obj").unwrap();
        let mut bytes = whole[..at].to_vec();
        bytes.extend(b"6 0 obj\n");
        bytes.extend(&stream);
        bytes.extend(b"\nendobj\n");
        bytes.extend(&whole[at..]);
        let with = replace(&bytes, b"/Contents 4 0 R", b"/Contents [4 0 R 6 0 R]");
        match read_with(&with, &Limits::default()) {
            Ok(document) => assert_eq!(document.sections[0].text, "words"),
            Err(error) => assert!(matches!(error, ExtractError::TooLarge { .. }), "{error}"),
        }
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn what_has_no_text_or_no_end_is_named() {
    let drawn = one_page("0 0 100 100 re f", "", &[]);
    assert!(matches!(read_with(&drawn, &Limits::default()), Err(ExtractError::NoText { .. })));
    let error = read_with(b"%PDF-1.4\nnothing\n%%EOF", &Limits::default()).unwrap_err();
    assert!(matches!(error, ExtractError::Corrupt { .. }), "{error}");
    // A file that breaks off after its content is rebuilt.
    let whole = one_page(&lines(&["words"]), "", &[]);
    let at = whole.windows(4).position(|part| part == b"xref").unwrap();
    assert_eq!(text(&whole[..at]), "words");
    let small = Limits { max_total_bytes: 100, ..Limits::default() };
    assert!(matches!(read_with(&whole, &small), Err(ExtractError::TooLarge { .. })));
}

#[test]
fn a_password_is_asked_for_by_name() {
    let key = "00".repeat(32);
    let encryption = format!("<< /Filter /Standard /V 2 /R 3 /Length 128 /P -4 /O <{key}> /U <{key}> >>");
    let bytes = one_page(&lines(&["words"]), "", &[&encryption]);
    let bytes = replace(&bytes, b"/Size 7", b"/Size 7 /Encrypt 6 0 R /ID [<00> <00>]");
    let error = read_with(&bytes, &Limits::default()).unwrap_err();
    assert!(matches!(error, ExtractError::Encrypted { .. }), "{error}");
}
