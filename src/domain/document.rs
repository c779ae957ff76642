//! A book's text as extraction hands it over.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::book::hex;
use super::words::word_count;

/// The text of one book, in reading order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// As the file says; the catalogue's title wins.
    pub title: Option<String>,
    /// As the file says; the catalogue's authors win.
    pub authors: Vec<String>,
    /// As the file says (BCP 47); the catalogue's language wins.
    pub language: Option<String>,
    pub sections: Vec<Section>,
    /// What was odd but did not stop the extraction, for the log: one line each.
    pub notes: Vec<String>,
}

/// One entry of the table of contents and the text up to the next one.
///
/// Invariant: every word of the book's linear text is in exactly one section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The entry's label; empty for text that no entry names.
    pub title: String,
    /// Depth in the table of contents, 0 for a top entry.
    pub level: usize,
    /// Unicode NFC. Blocks are separated by `\n\n`, line breaks and a table's rows inside a block by `\n`, the cells of a
    /// row by `\t`, words by one space. No characters that show nothing, but for those a script is written with.
    pub text: String,
}

/// What a file says about itself. Kept in the state, so that a metadata-only change can fill in what the catalogue
/// lacks without opening the file again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMetadata {
    pub title: Option<String>,
    pub authors: Vec<String>,
    pub language: Option<String>,
}

impl Document {
    /// What the file says about itself.
    pub fn file_metadata(&self) -> FileMetadata {
        FileMetadata { title: self.title.clone(), authors: self.authors.clone(), language: self.language.clone() }
    }

    /// A hash of the text with its sections, as hex: equal hashes mean equal chunks and vectors, whatever the file's
    /// bytes (Calibre's "embed metadata" rewrites files and leaves their text alone).
    pub fn text_hash(&self) -> String {
        let mut hasher = Sha256::new();
        for section in &self.sections {
            // Lengths first, so that no two different lists of sections hash the same bytes.
            for part in [&section.title, &section.text] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
            hasher.update((section.level as u64).to_le_bytes());
        }
        hex(&hasher.finalize())
    }

    /// Words in all sections; an estimate in scripts without spaces between them.
    pub fn words(&self) -> usize {
        self.sections.iter().map(|section| word_count(&section.text)).sum()
    }
}
