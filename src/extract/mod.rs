//! A book's file as a [`Document`]: one file a format, one line in `FORMATS` each.
//!
//! Must never lose or double a word of the linear text, load a file of unbounded size, or trust a declared size.
//! Not text, in every format: scripts, styles, templates, `noscript` and frames, image descriptions, elements that an
//! attribute hides, footnotes' marks in the text they refer from (the notes themselves stay), and tables of contents that
//! a program made: an EPUB's navigation page, Word's and ODT's own. Text that an e-reader shows only on request
//! (`linear="no"`) is left out, with a note.

mod container;
mod decode;
mod docx;
mod epub;
mod fb2;
mod flow;
mod html;
mod markdown;
mod markup;
mod mobi;
mod odt;
mod ole;
mod pdf;
mod plain;
mod progress;
pub mod report;
mod rtf;
pub mod sandbox;
mod sections;
mod source;
mod text;
pub mod unreadable;
mod zipped_html;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::source::Source;
use crate::domain::Document;

/// Changes when extraction would give other text for the same bytes.
pub const EXTRACTOR_VERSION: u32 = 3;

type Reader = fn(&Source, &Limits) -> Result<Document, ExtractError>;

/// Calibre's name of a format and what reads it.
const FORMATS: &[(&str, Reader)] = &[
    ("EPUB", epub::read),
    ("KEPUB", epub::read),
    ("AZW3", mobi::read),
    ("AZW", mobi::read),
    ("MOBI", mobi::read),
    ("PRC", mobi::read),
    ("TXT", plain::read),
    ("TEXT", plain::read),
    ("MD", markdown::read),
    ("MARKDOWN", markdown::read),
    ("HTML", html::read),
    ("XHTML", html::read),
    ("HTM", html::read),
    ("DOCX", docx::read),
    ("ODT", odt::read),
    ("FB2", fb2::read),
    ("FBZ", fb2::read),
    ("HTMLZ", zipped_html::read),
    ("ZIP", zipped_html::read),
    ("RTF", rtf::read),
    ("PDF", pdf::read),
];

static NAMES: [&str; FORMATS.len()] = {
    let mut names = [""; FORMATS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = FORMATS[at].0;
        at += 1;
    }
    names
};

/// How much one book may cost. All in bytes, all checked while reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of text: of a text file as it is on disk, of any book as extracted.
    pub max_text_bytes: u64,
    /// Of one entry of an archive, decompressed.
    pub max_entry_bytes: u64,
    /// Of all entries read from one archive, decompressed.
    pub max_total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_text_bytes: 64 << 20, max_entry_bytes: 64 << 20, max_total_bytes: 512 << 20 }
    }
}

/// Why a file gave no text. Written for the person who reads the log.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error("{} is damaged: {reason}; replace it with a good copy", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} is encrypted ({scheme}); only a copy without DRM can be read", path.display())]
    Encrypted { path: PathBuf, scheme: String },
    #[error("{} holds no text (only images, or nothing at all)", path.display())]
    NoText { path: PathBuf },
    #[error("{}: the format {format} cannot be read; readable are {}", path.display(), NAMES.join(", "))]
    UnknownFormat { path: PathBuf, format: String },
    #[error("{} is too large: {what} exceeds the limit of {limit} bytes", path.display())]
    TooLarge { path: PathBuf, what: String, limit: u64 },
    #[error("{} {what}; a repaired or converted copy may do", path.display())]
    Costly { path: PathBuf, what: String },
    #[error("{} crashed its reader ({how}); this is a bug: please report it", path.display())]
    Crashed { path: PathBuf, how: String },
    #[error("{} cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The reader's process could not be started, or was killed by someone else.
    #[error("{} could not be read now: {source}", path.display())]
    Child { path: PathBuf, source: io::Error },
    /// Someone asked for the end meanwhile.
    #[error("the program is stopping")]
    Stopped,
}

impl ExtractError {
    /// True where only another file helps; false where the disk or the mount is at fault and waiting may help.
    pub fn is_book_fault(&self) -> bool {
        !matches!(self, ExtractError::Io { .. } | ExtractError::Child { .. } | ExtractError::Stopped)
    }

    pub(crate) fn corrupt(path: &Path, reason: impl ToString) -> Self {
        ExtractError::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }

    /// Tells the disk's errors (the system's, with a number) from a decoder's complaints about the bytes.
    pub(crate) fn from_io(path: &Path, source: io::Error) -> Self {
        if source.raw_os_error().is_some() {
            ExtractError::Io { path: path.to_owned(), source }
        } else {
            Self::corrupt(path, source)
        }
    }
}

/// The formats [`extract`] reads, in upper case.
pub fn supported_formats() -> &'static [&'static str] {
    &NAMES
}

/// Reads the text of the book at `path` in this process. `format` is Calibre's name for it, in any case (`EPUB`).
///
/// # Errors
/// See [`ExtractError`]: all but `Io` mean that this file will never do.
pub fn extract(path: &Path, format: &str, limits: &Limits) -> Result<Document, ExtractError> {
    let read = reader(path, format)?;
    finish(read(&Source::open(path)?, limits)?, path, limits)
}

/// The same, of an open file.
pub fn extract_source(source: &Source, format: &str, limits: &Limits) -> Result<Document, ExtractError> {
    let read = reader(source.path(), format)?;
    finish(read(source, limits)?, source.path(), limits)
}

fn reader(path: &Path, format: &str) -> Result<Reader, ExtractError> {
    let found = FORMATS.iter().find(|(name, _)| name.eq_ignore_ascii_case(format));
    let unknown = || ExtractError::UnknownFormat { path: path.to_owned(), format: format.to_owned() };
    found.map(|(_, read)| *read).ok_or_else(unknown)
}

/// Characters of a title, an author, a language or a note.
const LINE_CHARS: usize = 1000;
/// Authors, and notes.
const MAX_LINES: usize = 100;

/// Cuts what a document says of itself to what a person reads: it goes into every point of the book.
fn shorten(document: &mut Document) {
    let cut = |line: &mut String| {
        if let Some((end, _)) = line.char_indices().nth(LINE_CHARS) {
            line.truncate(end);
        }
    };
    document.authors.truncate(MAX_LINES);
    if document.notes.len() > MAX_LINES {
        let more = document.notes.len() - MAX_LINES;
        document.notes.truncate(MAX_LINES);
        document.notes.push(format!("and {more} more such notes"));
    }
    let lines = document.title.iter_mut().chain(&mut document.language);
    lines.chain(&mut document.authors).chain(&mut document.notes).for_each(cut);
}

fn finish(mut document: Document, path: &Path, limits: &Limits) -> Result<Document, ExtractError> {
    shorten(&mut document);
    if document.sections.is_empty() {
        return Err(ExtractError::NoText { path: path.to_owned() });
    }
    check_text_size(path, limits, document.sections.iter().map(|section| section.text.len() as u64).sum())?;
    Ok(document)
}

fn check_text_size(path: &Path, limits: &Limits, bytes: u64) -> Result<(), ExtractError> {
    progress::tick();
    if bytes <= limits.max_text_bytes {
        return Ok(());
    }
    Err(ExtractError::TooLarge { path: path.to_owned(), what: "its text".to_owned(), limit: limits.max_text_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_format_is_named() {
        let error = extract(Path::new("/b/x.cbz"), "CBZ", &Limits::default()).unwrap_err();
        assert!(error.is_book_fault());
        assert_eq!(
            error.to_string(),
            format!("/b/x.cbz: the format CBZ cannot be read; readable are {}", supported_formats().join(", "))
        );
    }

    #[test]
    fn an_absent_or_empty_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("e");
        std::fs::write(&empty, b"").unwrap();
        for format in supported_formats() {
            let error = extract(&dir.path().join("none"), format, &Limits::default()).unwrap_err();
            assert!(matches!(error, ExtractError::Io { .. }) && !error.is_book_fault(), "{format}: {error}");
            let error = extract(&empty, format, &Limits::default()).unwrap_err();
            assert!(error.to_string().contains("the file is empty"), "{format}: {error}");
        }
    }

    #[test]
    fn what_a_document_says_of_itself_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.html");
        std::fs::write(&path, format!("<title>{}</title><p>x", "š".repeat(1 << 20))).unwrap();
        let document = extract(&path, "HTML", &Limits::default()).unwrap();
        assert_eq!(document.title.unwrap().chars().count(), LINE_CHARS);
        let mut document = Document { notes: vec![String::new(); 300], ..Document::default() };
        shorten(&mut document);
        assert_eq!((document.notes.len(), document.notes[100].as_str()), (101, "and 200 more such notes"));
    }

    #[test]
    fn blank_files_hold_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let blank = dir.path().join("b");
        std::fs::write(&blank, b" \n<!-- -->\n").unwrap();
        assert!(matches!(extract(&blank, "HTML", &Limits::default()), Err(ExtractError::NoText { .. })));
        std::fs::write(&blank, b" \n\n").unwrap();
        assert!(matches!(extract(&blank, "TXT", &Limits::default()), Err(ExtractError::NoText { .. })));
    }
}
