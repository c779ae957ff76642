//! Small RTF files: what word processors write, and what hostile ones try.

use super::super::{ExtractError, Limits, extract};
use crate::domain::Document;

fn read(rtf: &[u8]) -> Result<Document, ExtractError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.rtf");
    std::fs::write(&path, rtf).unwrap();
    extract(&path, "RTF", &Limits::default())
}

fn shape(document: &Document) -> Vec<(&str, usize, &str)> {
    document.sections.iter().map(|s| (s.title.as_str(), s.level, s.text.as_str())).collect()
}

fn text(body: &str) -> String {
    let document = read(format!("{{\\rtf1\\ansi\\ansicpg1252 {body}}}").as_bytes()).unwrap();
    document.sections.into_iter().map(|section| section.text).collect()
}

#[test]
fn headings_follow_styles_and_outlines() {
    let rtf = "{\\rtf1\\ansi{\\fonttbl{\\f0 Times;}}{\\stylesheet{\\s0 Normal;}{\\s1\\outlinelevel4 heading 1;}{\\*\\cs10 c;}\
        {\\s7\\outlinelevel1 Mine;}}{\\info{\\title T \\'fe}{\\author A; B}{\\doccomm no}}\
        \\pard\\s1 One\\par\\pard\\s0 a\\par b\\line c\\par{\\pard\\s7 Two\\par}\\pard d\\tab e\\par\\pard\\outlinelevel0 Three\\par}";
    let document = read(rtf.as_bytes()).unwrap();
    assert_eq!((document.title.as_deref(), document.authors.len()), (Some("T þ"), 2));
    assert_eq!(shape(&document), [("One", 0, "One\n\na\n\nb\nc"), ("Two", 1, "Two\n\nd e"), ("Three", 0, "Three")]);
}

#[test]
fn characters_come_in_every_way() {
    assert_eq!(text("\\'e9\\u353?uma\\uc2\\u382\\'9eabc{\\uc0\\u263}x \\{\\}\\\\"), "éšumažbcćx {}\\");
    assert_eq!(text("a\\~b\\-c\\_d\\emdash e\\u-10179?\\u-8704?"), "a bc-d—e😀");
    assert_eq!(text("\\u-10179?x \\u-8704?y"), "x \u{fffd}y");
    let fonts = "{\\fonttbl{\\f0\\fcharset0 A;}{\\f1\\fnil\\fcharset238 B;}{\\f2\\fcharset128 C;}}";
    assert_eq!(text(&format!("{fonts}{{\\f1\\'9auma}}\\'9a {{\\f2 \\'83A\\'8a\\'bf}}")), "šumaš ア漢");
    let cyrillic = [b"{\\rtf1\\ansi\\ansicpg1251 \xcc\\'e8\xf0}".as_slice()].concat();
    assert_eq!(read(&cyrillic).unwrap().sections[0].text, "Мир");
}

#[test]
fn what_is_not_text_is_left_out() {
    let body = "{\\header no}{\\field{\\*\\fldinst HYPERLINK no}{\\fldrslt link}}{\\*\\unknown no}{\\pict 00ff}\
        {\\*\\bkmkstart no}{\\deleted gone}{\\v no} x{\\xe{\\v no}}{\\listtext 1.\\tab}{\\pict\\bin4 }}}}00}y\
        {\\upr{no}{\\*\\ud{z}}}";
    assert_eq!(text(body), "link xyz");
    let shape = "a{\\shp{\\*\\shpinst{\\sp{\\sn n}{\\sv v}}{\\shptxt box\\par}}{\\shprslt box}}b";
    assert_eq!(text(shape), "abox\n\nb");
}

#[test]
fn braces_as_calibre_writes_them_and_raised_marks_are_read() {
    assert_eq!(text("$\\\\'7bHOME\\\\'7d/x \\\\'7e"), "${HOME}/x \\'7e");
    assert_eq!(text("$\\'5c'7bHOME\\'5c'7d/x \\'5c'7e"), "${HOME}/x \\'7e");
    let raised = "word{\\super [1]} and area{\\super 3}, 5 km\\super 2\\nosupersub  wide";
    assert_eq!(text(raised), "word [1] and area 3, 5 km² wide");
}

#[test]
fn tables_and_notes_are_read() {
    let row = |a: &str, b: &str| format!("\\trowd\\cellx1\\cellx2\\pard\\intbl {a}\\cell {b}\\cell\\row ");
    assert_eq!(text(&format!("x\\par {}{}\\pard y\\par", row("a", "b"), row("c", "d"))), "x\n\na\tb\nc\td\n\ny");
    let noted = "{\\rtf1 a{\\super\\chftn}{\\footnote\\pard note one\\par}b\\par{\\*\\footnote two}c}";
    assert_eq!(shape(&read(noted.as_bytes()).unwrap()), [("", 0, "ab\n\nc"), ("", 0, "note one\n\ntwo")]);
}

#[test]
fn depth_costs_little_and_cut_files_are_noted() {
    let deep = format!("{{\\rtf1 a{}b{}c}}", "{\\b ".repeat(500_000), "}".repeat(500_000));
    assert_eq!(read(deep.as_bytes()).unwrap().sections[0].text, "abc");
    let cut = read(b"{\\rtf1 a{\\b b").unwrap();
    assert_eq!((cut.sections[0].text.as_str(), cut.notes.len()), ("ab", 1));
    assert!(matches!(read(b"{\\rtf1 }"), Err(ExtractError::NoText { .. })));
    assert!(read(b"plain").unwrap_err().to_string().contains("not RTF"));
}
