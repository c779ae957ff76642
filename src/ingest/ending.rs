//! Whether a file that came a short while ago looks as if its writer were still at it. Size and time are not enough over
//! a network: a copy may be given its full size first and its bytes later, and a writer may pause. Pure but for
//! [`unfinished`], which reads the last bytes of an open file.
//!
//! Must never refuse a file for good: an old file is read as it is, whatever its end looks like.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A ZIP's end record may have a comment of up to 65,535 bytes behind its 22 bytes (APPNOTE.TXT, 4.3.16).
const TAIL: u64 = 65_557;
/// Readers look for a PDF's end mark in its last 1,024 bytes (PDF 1.7, annex H, note 18); some writers add more.
const PDF_TAIL: usize = 2048;
/// As much of nothing at the end of a file is a place kept free.
const ZEROS: usize = 4096;

/// What is missing at the end of a file of this format; None where it looks whole. `by_catalogue`: a catalogue says that
/// the file has the size it has, so that only bytes can be missing that were never written.
///
/// # Errors
/// Where the file cannot be read.
pub fn unfinished(file: &File, size: u64, format: &str, by_catalogue: bool) -> io::Result<Option<&'static str>> {
    let start = size.saturating_sub(TAIL);
    let mut tail = vec![0; usize::try_from(size - start).unwrap_or_default()];
    file.read_exact_at(&mut tail, start)?;
    Ok(missing_at_end(&tail, format, by_catalogue))
}

fn missing_at_end(tail: &[u8], format: &str, by_catalogue: bool) -> Option<&'static str> {
    if tail.len() >= ZEROS && tail[tail.len() - ZEROS..].iter().all(|byte| *byte == 0) {
        return Some("it ends in zeros, as a file does whose bytes have not arrived yet");
    }
    if by_catalogue {
        return None;
    }
    let holds = |mark: &[u8], within: usize| {
        let from = tail.len().saturating_sub(within);
        memchr::memmem::find(&tail[from..], mark).is_some()
    };
    match format.to_ascii_uppercase().as_str() {
        "EPUB" | "KEPUB" | "DOCX" | "ODT" | "HTMLZ" | "ZIP" | "FBZ" if !holds(b"PK\x05\x06", tail.len()) => {
            Some("the directory at the end of its archive is missing")
        }
        "PDF" if !holds(b"%%EOF", PDF_TAIL) => Some("its end mark is missing"),
        "RTF" if tail.iter().rev().find(|byte| !byte.is_ascii_whitespace() && **byte != 0) != Some(&b'}') => {
            Some("its last brace is missing")
        }
        "FB2" if !holds(b"</FictionBook", tail.len()) => Some("its last tag is missing"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_end() {
        let whole: [(&str, &[u8]); 6] = [
            ("EPUB", b"PK\x03\x04 things PK\x05\x06\0\0\0\0a comment"),
            ("pdf", b"%PDF-1.7 things\n%%EOF\n"),
            ("RTF", b"{\\rtf1 text}\r\n\0"),
            ("FB2", b"<FictionBook>x</FictionBook>\n"),
            ("TXT", b"no text has an end"),
            ("MOBI", b"BOOKMOBI"),
        ];
        for (format, bytes) in whole {
            assert_eq!(missing_at_end(bytes, format, false), None, "{format}");
            let half = &bytes[..bytes.len() / 2];
            let has_an_end = !matches!(format, "TXT" | "MOBI");
            assert_eq!(missing_at_end(half, format, false).is_some(), has_an_end, "{format}");
            // Calibre says how long it is: a damaged file is damaged, not on its way.
            assert_eq!(missing_at_end(half, format, true), None, "{format}");
        }
    }

    #[test]
    fn a_place_kept_free_is_no_text_in_any_format() {
        let bytes = [b"text".repeat(2000), vec![0; 5000]].concat();
        for by_catalogue in [false, true] {
            assert!(missing_at_end(&bytes, "TXT", by_catalogue).is_some());
        }
        assert_eq!(missing_at_end(&[0; 10], "TXT", false), None);
    }
}
