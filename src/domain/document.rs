//! A book's text as extraction hands it over.

use serde::{Deserialize, Serialize};

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
    /// Unicode NFC. Blocks are separated by `\n\n`, line breaks inside a block by `\n`, words by one space.
    pub text: String,
}

impl Document {
    /// Whitespace-separated words in all sections.
    pub fn words(&self) -> usize {
        self.sections.iter().map(|section| section.text.split_whitespace().count()).sum()
    }
}
