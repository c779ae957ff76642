//! Plain text in any encoding. Must never take binary data for text.

use super::text::is_invisible;
use super::{ExtractError, Limits, Source, decode, sections};
use crate::domain::{Document, Section};

/// Reads a text file as one section without a title: the file's name is not the text's, and may be a working copy's.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let bytes = source.read_text(limits)?;
    let raw = decode::plain(&bytes);
    let zeros = raw.bytes().filter(|byte| *byte == 0).count();
    if zeros * 1000 > raw.len() {
        return Err(ExtractError::corrupt(source.path(), "it holds binary data, not text"));
    }
    let text = tidy(&raw);
    let text = sections::nfc(&text).into_owned();
    let sections = if text.is_empty() { vec![] } else { vec![Section { title: String::new(), level: 0, text }] };
    Ok(Document { sections, ..Document::default() })
}

/// Words by one space, lines kept, one blank line for any number of them; a form feed is a blank line.
pub fn tidy(raw: &str) -> String {
    // Old Macs ended lines by a carriage return alone.
    let end = if raw.contains('\n') { '\n' } else { '\r' };
    let mut text = String::with_capacity(raw.len());
    let mut between_lines = "\n";
    for line in raw.split(end) {
        let mut gap = between_lines;
        between_lines = "\n";
        for part in line.split_inclusive('\u{c}') {
            for word in part.split_whitespace() {
                let plain = word.bytes().all(|byte| byte.is_ascii_graphic());
                if !plain && word.chars().all(is_invisible) {
                    continue;
                }
                text.push_str(if text.is_empty() { "" } else { gap });
                gap = " ";
                if plain {
                    text.push_str(word);
                } else {
                    text.extend(word.chars().filter(|c| !is_invisible(*c)));
                }
            }
            if part.ends_with('\u{c}') {
                gap = "\n\n";
            }
        }
        if gap != " " {
            between_lines = "\n\n";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_paragraphs_are_kept() {
        assert_eq!(tidy("\n\n a  b\r\nc\r\n\r\n \r\nd\u{c}e\nf\u{ad}g\n"), "a b\nc\n\nd\n\ne\nfg");
        assert_eq!(tidy("a\rb\r\rc"), "a\nb\n\nc");
        assert_eq!(tidy(" \u{ad} \n"), "");
        assert_eq!(tidy("a\u{c}\nb"), "a\n\nb");
    }

    #[test]
    fn binary_data_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("My book.txt");
        std::fs::write(&path, [b"PK\x03\x04".as_slice(), &[0; 100], b"\xff\xfe\x80"].concat()).unwrap();
        assert!(
            read(&Source::open(&path).unwrap(), &Limits::default()).unwrap_err().to_string().contains("binary data")
        );
        std::fs::write(&path, "Prva rečenica.\n").unwrap();
        let document = read(&Source::open(&path).unwrap(), &Limits::default()).unwrap();
        assert_eq!((document.sections[0].title.as_str(), document.sections[0].text.as_str()), ("", "Prva rečenica."));
    }
}
