//! A single page of HTML or XHTML; headings are the sections.

use std::collections::HashSet;

use super::text::{PageText, TextBuilder};
use super::{ExtractError, Limits, Source, decode, markup, sections};
use crate::domain::Document;

/// Reads an HTML file.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let bytes = source.read_text(limits)?;
    let mut page = parse(&decode::markup(&bytes));
    Ok(Document {
        title: page.title.clone(),
        authors: page.author.take().into_iter().collect(),
        language: page.language.take(),
        sections: sections::split(&[page], Vec::new()),
        notes: Vec::new(),
    })
}

/// The text of a page that no table of contents points into.
pub fn parse(html: &str) -> PageText {
    let none = HashSet::new();
    markup::parse(html, || TextBuilder::new(&none)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_the_sections() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.html");
        let html = "<html lang=de><head><title>Titel</title><meta name=author content='A. B.'><meta charset=iso-8859-1>\
            <body><h1>Eins</h1><p>a<h2>Zwei</h2><p>b \u{e4}<h4>c</h4><p>d";
        let bytes: Vec<u8> = html.chars().map(|c| c as u8).collect();
        std::fs::write(&path, bytes).unwrap();
        let document = read(&Source::open(&path).unwrap(), &Limits::default()).unwrap();
        assert_eq!(document.title.as_deref(), Some("Titel"));
        assert_eq!((document.authors, document.language), (vec!["A. B.".to_owned()], Some("de".to_owned())));
        let shape: Vec<_> = document.sections.iter().map(|s| (s.title.as_str(), s.level, s.text.as_str())).collect();
        assert_eq!(shape, [("Eins", 0, "Eins\n\na"), ("Zwei", 1, "Zwei\n\nb ä\n\nc\n\nd")]);
    }
}
