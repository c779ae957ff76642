//! What the file says about itself: Info, XMP, Lang; and PDF's own text strings. Must never fail: all of it is optional.

use hayro_syntax::Pdf;
use hayro_syntax::object::{Dict, Stream, String as PdfString};

use super::super::flow;
use super::super::text::one_line;
use super::file;

/// Larger metadata is none.
const XMP_BYTES: u64 = 1 << 20;

/// Title, authors and language.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub title: Option<String>,
    pub authors: Vec<String>,
    pub language: Option<String>,
}

impl Metadata {
    /// XMP where it says something, else Info.
    pub fn of(pdf: &Pdf) -> Self {
        let root: Dict<'_> = pdf.xref().get(pdf.xref().root_id()).unwrap_or_default();
        let xmp = root.get::<Stream<'_>>("Metadata").map(|stream| Xmp::read(&stream)).unwrap_or_default();
        let info = pdf.metadata();
        let line = |bytes: &[u8]| Some(one_line(&text(bytes))).filter(|line| !line.is_empty());
        let known = |text: &String| !matches!(text.to_lowercase().as_str(), "untitled" | "unknown" | "none" | "");
        let authors = |line: String| flow::authors(&line);
        let language = root.get::<PdfString<'_>>("Lang").and_then(|lang| line(&lang));
        Self {
            title: xmp.title.filter(known).or_else(|| info.title.as_deref().and_then(line).filter(known)),
            authors: match xmp.authors.is_empty() {
                false => xmp.authors,
                true => info.author.as_deref().and_then(line).filter(known).map(authors).unwrap_or_default(),
            },
            language: language.or(xmp.language).filter(|lang| lang != "x-default" && lang != "x-unknown"),
        }
    }
}

#[derive(Debug, Default)]
struct Xmp {
    title: Option<String>,
    authors: Vec<String>,
    language: Option<String>,
}

impl Xmp {
    fn read(stream: &Stream<'_>) -> Self {
        let (bytes, _) = file::content(stream, XMP_BYTES);
        let xml = super::super::decode::markup(&bytes);
        let part = |name: &str| -> Vec<String> {
            let start = xml.find(&format!("<dc:{name}"));
            let end = xml.find(&format!("</dc:{name}>"));
            let (Some(start), Some(end)) = (start, end) else { return Vec::new() };
            let fields = flow::Fields::read(xml.get(start..end).unwrap_or_default());
            fields.all("rdf:li")
        };
        Self {
            title: part("title").into_iter().next(),
            authors: part("creator").iter().flat_map(|names| flow::authors(names)).collect(),
            language: part("language").into_iter().next(),
        }
    }
}

/// A text string: UTF-16 or UTF-8 by its mark, else PDFDocEncoding.
pub fn text(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    let text = match bytes {
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => bytes.iter().map(|byte| doc_encoding(*byte)).collect(),
    };
    without_language(&text)
}

/// An escape sequence may name the language of what follows (ISO 32000-1, 7.9.2.2).
fn without_language(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut out = parts.next().unwrap_or_default().to_owned();
    // Pairs of escapes enclose a language code.
    for (number, part) in parts.enumerate() {
        if number % 2 == 1 {
            out.push_str(part);
        }
    }
    out
}

/// ISO 32000-1, annex D.2; Latin-1 but for these.
fn doc_encoding(byte: u8) -> char {
    const LOW: [char; 8] = ['˘', 'ˇ', 'ˆ', '˙', '˝', '˛', '˚', '˜'];
    const HIGH: [char; 33] = [
        '•', '†', '‡', '…', '—', '–', 'ƒ', '⁄', '‹', '›', '−', '‰', '„', '“', '”', '‘', '’', '‚', '™', 'ﬁ', 'ﬂ', 'Ł',
        'Œ', 'Š', 'Ÿ', 'Ž', 'ı', 'ł', 'œ', 'š', 'ž', ' ', '€',
    ];
    match byte {
        0x18..=0x1f if byte != 0x1b => LOW[usize::from(byte - 0x18)],
        0x80..=0xa0 => HIGH[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_in_all_three_encodings() {
        assert_eq!(text(b"Caf\xe9 \x84 \xa0"), "Café — €");
        assert_eq!(text(b"\xfe\xff\0\x1b\0e\0n\0\x1b\x01\x0d\0a"), "ča");
        assert_eq!(text(b"\xef\xbb\xbf\xc4\x8d"), "č");
        assert_eq!(text(b"\xfe\xff\0a\0"), "a");
    }
}
