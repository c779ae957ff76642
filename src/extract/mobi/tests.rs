//! Whole books, made by hand: what no converter writes.

use std::path::PathBuf;

use tempfile::TempDir;

use super::super::extract;
use super::*;

/// A database of records.
fn palm(kind: &[u8; 8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 78];
    bytes[60..68].copy_from_slice(kind);
    bytes[76..78].copy_from_slice(&(records.len() as u16).to_be_bytes());
    let mut at = 78 + records.len() * 8;
    for record in records {
        bytes.extend_from_slice(&(at as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        at += record.len();
    }
    records.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

/// Record 0 of a book in UTF-8, uncompressed, with one EXTH record.
fn header(text_records: u16, ncx: u32, exth: (u32, &[u8])) -> Vec<u8> {
    let mut bytes = vec![0; 16 + 232];
    bytes[1] = 1;
    bytes[8..10].copy_from_slice(&text_records.to_be_bytes());
    bytes[16..20].copy_from_slice(b"MOBI");
    bytes[20..24].copy_from_slice(&232u32.to_be_bytes());
    bytes[28..32].copy_from_slice(&65001u32.to_be_bytes());
    bytes[36..40].copy_from_slice(&6u32.to_be_bytes());
    bytes[0x5c..0x60].copy_from_slice(&(0x1au32 | 1 << 10).to_be_bytes());
    bytes[0x80..0x84].copy_from_slice(&0x40u32.to_be_bytes());
    bytes[0xf4..0xf8].copy_from_slice(&ncx.to_be_bytes());
    bytes.extend_from_slice(b"EXTH\0\0\0\0\0\0\0\x01");
    bytes.extend_from_slice(&exth.0.to_be_bytes());
    bytes.extend_from_slice(&(exth.1.len() as u32 + 8).to_be_bytes());
    bytes.extend_from_slice(exth.1);
    bytes
}

fn write(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("A book.mobi");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read_bytes(bytes: &[u8]) -> Result<Document, ExtractError> {
    let (_dir, path) = write(bytes);
    extract(&path, "MOBI", &Limits::default())
}

fn shape(document: &Document) -> Vec<(&str, &str)> {
    document.sections.iter().map(|section| (section.title.as_str(), section.text.as_str())).collect()
}

const FRONT: &str = "<html><head><guide><reference type=\"toc\" filepos=<toc> /></guide></head><body><p>Cover";
const CONTENTS: &str = "<mbp:pagebreak/><h2>Contents</h2><p><a filepos=<1>>Jedan</a><p><a filepos=<2>>Dva</a>\
    <p><a filepos=<3>>Tri</a>";
const TEXT: &str = "<mbp:pagebreak/><p>jedan &amp; šuma<mbp:pagebreak/><p>dva</p><p>tri</p>";

/// A book without an NCX: its guide leads to a page of links.
fn guided(parts: [&str; 3]) -> Document {
    let digits =
        |text: &str| ["<toc>", "<1>", "<2>", "<3>"].iter().fold(text.to_owned(), |t, n| t.replace(n, "0123456789"));
    let sized = digits(&parts.concat());
    let at = |tag: &str| format!("{:010}", sized.find(tag).unwrap());
    let markup = parts
        .concat()
        .replace("<toc>", &at("<mbp:pagebreak/><h2>"))
        .replace("<1>", &at("<p>jedan"))
        .replace("<2>", &at("<mbp:pagebreak/><p>dva"))
        .replace("<3>", &at("<p>tri"));
    let (one, two) = markup.as_bytes().split_at(150);
    let records = [header(2, u32::MAX, (100, "Šime Đ. &amp; Co".as_bytes())), one.to_vec(), two.to_vec()];
    read_bytes(&palm(b"BOOKMOBI", &records)).unwrap()
}

#[test]
fn the_guides_links_stand_for_a_missing_ncx() {
    let chapters = [("Jedan", "jedan & šuma"), ("Dva", "dva"), ("Tri", "tri")];
    let document = guided([FRONT, CONTENTS, TEXT]);
    assert_eq!(shape(&document)[2..], chapters);
    assert_eq!(shape(&document)[1], ("Contents", "Contents\n\nJedan\n\nDva\n\nTri"));
    assert_eq!((document.language.as_deref(), &document.authors[..]), (Some("hr"), &["Šime Đ. & Co".to_owned()][..]));
    // At the end it is the converter's.
    let document = guided([FRONT, TEXT, CONTENTS]);
    assert_eq!(shape(&document)[1..], chapters);
    assert!(document.notes.iter().any(|note| note.contains("left out")), "{:?}", document.notes);
}

#[test]
fn the_ncx_names_the_sections() {
    let markup = b"<html><body><p>a<p>b<p>c</body></html>".to_vec();
    let entries: [&[u8]; 2] = [&[1, b'0', 0b111, 0x80 | 12, 0x80, 0x80], &[1, b'1', 0b111, 0x80 | 20, 0x84, 0x81]];
    let records = [
        header(1, 2, (503, b"Title")),
        markup,
        index::tests::description(1, 1),
        index::tests::record(&entries),
        b"\x83One\x83Two".to_vec(),
    ];
    let document = read_bytes(&palm(b"BOOKMOBI", &records)).unwrap();
    assert_eq!(document.title.as_deref(), Some("Title"));
    assert_eq!(shape(&document), [("One", "a\n\nb"), ("Two", "c")]);
    assert_eq!(document.sections[1].level, 1);
}

#[test]
fn what_cannot_be_read_is_named() {
    let book = palm(b"BOOKMOBI", &[header(1, u32::MAX, (100, b"A")), b"<p>text".to_vec()]);
    let at = 78 + 2 * 8;
    let with = |place: usize, value: &[u8]| {
        let mut bytes = book.clone();
        bytes[at + place..at + place + value.len()].copy_from_slice(value);
        read_bytes(&bytes).unwrap_err()
    };
    assert!(matches!(with(12, &[0, 2]), ExtractError::Encrypted { .. }));
    assert!(with(0, &[0, 3]).to_string().contains("unknown way"));
    assert!(with(8, &[0, 9]).to_string().contains("outside the file"));
    assert!(read_bytes(&book[..60]).unwrap_err().to_string().contains("breaks off"));
    assert!(read_bytes(&book[..90]).unwrap_err().to_string().contains("breaks off"));
    assert!(read_bytes(&[b'x'; 200]).unwrap_err().to_string().contains("not a Mobipocket book"));
    assert!(matches!(read_bytes(b"TPZ0"), Err(ExtractError::UnknownFormat { .. })));
    assert!(matches!(read_bytes(b"\xeaDRMION\xee"), Err(ExtractError::Encrypted { .. })));
    let replica = palm(b"BOOKMOBI", &[header(1, u32::MAX, (100, b"A")), b"%MOP".to_vec()]);
    assert!(matches!(read_bytes(&replica), Err(ExtractError::UnknownFormat { .. })));
}

#[test]
fn without_a_table_of_contents_headings_come_before_page_breaks() {
    let markup = "<h2>One</h2><p>a<mbp:pagebreak/><p>b<mbp:pagebreak/><h2>Two</h2><p>c<mbp:pagebreak/>d";
    let book = |markup: &str| {
        read_bytes(&palm(b"BOOKMOBI", &[header(1, u32::MAX, (100, b"A")), markup.as_bytes().to_vec()])).unwrap()
    };
    assert_eq!(shape(&book(markup)), [("One", "One\n\na\n\nb"), ("Two", "Two\n\nc\n\nd")]);
    assert_eq!(shape(&book(&markup.replace("h2", "b"))).len(), 4);
}

#[test]
fn old_palmdoc_texts_are_read() {
    let header = [&[0u8, 1, 0, 0, 0, 0, 0, 9, 0, 1][..], &[0; 6]].concat();
    let text = b"One  line\r\ntwo\r\n\r\nthree".to_vec();
    let document = read_bytes(&palm(b"TEXtREAd", &[header.clone(), text])).unwrap();
    assert_eq!(shape(&document), [("", "One line\ntwo\n\nthree")]);
    let html = read_bytes(&palm(b"TEXtREAd", &[header, b"<html><h1>T</h1><p>\xe9t\xe9".to_vec()])).unwrap();
    assert_eq!(shape(&html), [("T", "T\n\nété")]);
}

#[test]
fn limits_hold() {
    let record = [0x80, 15].repeat(2000);
    let mut bytes = header(50, u32::MAX, (100, b"A"));
    bytes[1] = 2;
    let mut records = vec![bytes];
    (0..50).for_each(|_| records.push([b"<p>a".as_slice(), &record].concat()));
    let (_dir, path) = write(&palm(b"BOOKMOBI", &records));
    let limits = Limits { max_entry_bytes: 100_000, ..Limits::default() };
    assert!(matches!(extract(&path, "MOBI", &limits), Err(ExtractError::TooLarge { .. })));
    let limits = Limits { max_total_bytes: 50_000, ..Limits::default() };
    assert!(matches!(extract(&path, "MOBI", &limits), Err(ExtractError::TooLarge { .. })));
    assert_eq!(extract(&path, "MOBI", &Limits::default()).unwrap().words(), 50);
}
