//! A book as the shelf shows it: identity, metadata, the file preferred for ingestion and those that stand in for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{FileMetadata, iso_639_1};

/// What kind of shelf a library is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LibraryKind {
    /// A Calibre library: `metadata.db` is the truth.
    Calibre,
    /// A plain folder of book files.
    Folder,
    /// Single files named by hand; never scanned, so nothing is ever found missing in it.
    Files,
}

/// Where a book comes from: the contract's `source` and `source_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Calibre's book id (`books.id`, never reused).
    Calibre(i64),
    /// The first 16 hex digits of the SHA-256 of the path relative to the library.
    File(String),
}

impl Source {
    /// The contract's `source`: `calibre` or `file`.
    pub fn name(&self) -> &'static str {
        match self {
            Source::Calibre(_) => "calibre",
            Source::File(_) => "file",
        }
    }

    /// The contract's `source_id`, always a string.
    pub fn id(&self) -> String {
        match self {
            Source::Calibre(id) => id.to_string(),
            Source::File(hash) => hash.clone(),
        }
    }

    /// The source of a file in a plain folder, from its path relative to the folder.
    pub fn from_relative_path(path: &str) -> Source {
        Source::File(hex(&Sha256::digest(path.as_bytes()))[..16].to_owned())
    }
}

/// What a catalogue says about a book. A change here updates payloads and embeds nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub title: String,
    /// In the catalogue's order.
    pub authors: Vec<String>,
    /// As the catalogue has it (Calibre: ISO 639-3); None where it has none.
    pub language: Option<String>,
    pub tags: Vec<String>,
    pub series: Option<String>,
    pub series_index: Option<f64>,
    pub publisher: Option<String>,
    /// `YYYY-MM-DD`; None where unknown (Calibre's year 101).
    pub published: Option<String>,
    pub identifiers: BTreeMap<String, String>,
    /// Calibre's 0..=10 (two a star).
    pub rating: Option<i64>,
}

impl Metadata {
    /// A hash of everything in here: equal ones mean equal payloads.
    pub fn digest(&self) -> [u8; 32] {
        // Struct fields and BTreeMap keys serialise in a fixed order, so equal values give equal text.
        Sha256::digest(serde_json::to_vec(self).unwrap_or_default()).into()
    }

    /// [`Metadata::digest`] as hex.
    pub fn hash(&self) -> String {
        hex(&self.digest())
    }

    /// The contract's `author`.
    pub fn author_line(&self) -> String {
        author_line(&self.authors)
    }

    /// The authors, from the file that was read where the catalogue has none.
    pub fn authors_with<'a>(&'a self, file: &'a FileMetadata) -> &'a [String] {
        if self.authors.is_empty() { &file.authors } else { &self.authors }
    }

    /// The same as one line.
    pub fn author_line_with(&self, file: &FileMetadata) -> String {
        author_line(self.authors_with(file))
    }

    /// The title. `source`: [`Source::name`]; a plain folder's catalogue knows only the file's name, so there the file's
    /// own title wins.
    pub fn title_with<'a>(&'a self, file: &'a FileMetadata, source: &str) -> &'a str {
        match file.title.as_deref().map(str::trim) {
            Some(title) if source != Source::Calibre(0).name() && !title.is_empty() => title,
            _ => &self.title,
        }
    }

    /// The contract's `language`, from the file that was read where the catalogue has none.
    pub fn language_with(&self, file: &FileMetadata) -> String {
        iso_639_1(self.language.as_deref().or(file.language.as_deref()))
    }
}

/// A file that ingestion can read, if it is sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookFile {
    /// Upper case, as Calibre writes it: `EPUB`.
    pub format: String,
    /// Absolute.
    pub path: PathBuf,
    /// Calibre's `data.id`: a replaced file gets a new one. None in a plain folder.
    pub data_id: Option<i64>,
    /// Bytes.
    pub size: u64,
    /// Microseconds since the epoch (SMB keeps 100 ns; a coarser grain compares equal across mounts).
    pub mtime_us: i64,
}

impl BookFile {
    /// What is compared to find out whether the bytes may have changed, as one text for the state.
    pub fn signature(&self) -> String {
        let data_id = self.data_id.map_or_else(String::new, |id| id.to_string());
        format!("{}|{data_id}|{}|{}", self.format, self.size, self.mtime_us)
    }

    /// Whether nothing suggests that the bytes changed. Equal here never proves equal content: the hash decides.
    ///
    /// A time without a fraction (sshfs, some servers) equals any time in its second: mounting the library another way
    /// must not look like 9,000 new files.
    pub fn looks_unchanged(&self, other: &BookFile) -> bool {
        self.looks_unchanged_since(&other.format, other.data_id, other.size, other.mtime_us)
    }

    pub(super) fn looks_unchanged_since(&self, format: &str, data_id: Option<i64>, size: u64, mtime_us: i64) -> bool {
        const SECOND_US: i64 = 1_000_000;
        let coarse = self.mtime_us % SECOND_US == 0 || mtime_us % SECOND_US == 0;
        let same_second = self.mtime_us.div_euclid(SECOND_US) == mtime_us.div_euclid(SECOND_US);
        self.format == format
            && self.data_id == data_id
            && self.size == size
            && (self.mtime_us == mtime_us || (coarse && same_second))
    }
}

/// One book of a library.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Book {
    /// Calibre's `books.uuid`; in a plain folder a UUIDv5 of library and relative path at first sight.
    pub uuid: Uuid,
    pub library_uuid: Uuid,
    pub source: Source,
    pub metadata: Metadata,
    /// The first of its readable files in the configured order of formats.
    pub file: BookFile,
    /// The rest of them, in that order: tried where `file` gives no text. All lie in its directory.
    pub others: Vec<BookFile>,
    /// Formats it has besides that are not read, for the person who asks why the book is not.
    pub unread: Vec<String>,
    /// When the book came to the library, microseconds since the epoch: newest are ingested first.
    pub added_us: i64,
}

/// Authors joined by ` & `, `Unknown` where there are none (as Calibre shows it).
pub(super) fn author_line(authors: &[String]) -> String {
    if authors.is_empty() { "Unknown".to_owned() } else { authors.join(" & ") }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_hash_follows_every_field() {
        let base = Metadata { title: "A".into(), authors: vec!["X".into()], ..Metadata::default() };
        let mut other = base.clone();
        assert_eq!(base.hash(), other.hash());
        other.tags.push("t".into());
        assert_ne!(base.hash(), other.hash());
    }

    #[test]
    fn authors_are_joined_as_calibre_shows_them() {
        let two = Metadata { authors: vec!["Ana Anić".into(), "B. B.".into()], ..Metadata::default() };
        assert_eq!(two.author_line(), "Ana Anić & B. B.");
        assert_eq!(Metadata::default().author_line(), "Unknown");
    }
}
