//! Markdown: pulldown-cmark makes HTML of it, the rest goes the way of an HTML file. A metadata block at the top is not text.

use pulldown_cmark::{Options, Parser};

use super::{ExtractError, Limits, Source, decode, html, sections};
use crate::domain::Document;

/// Reads a Markdown file; its first heading, where it is of the first level, is the title.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let bytes = source.read_text(limits)?;
    let page = html::parse(&to_html(&decode::plain(&bytes), source, limits)?);
    let heading = page.headings.first().filter(|heading| heading.level == 1);
    let title = heading.map(|heading| super::text::one_line(&page.text[heading.range.clone()]));
    let title = title.filter(|title| !title.is_empty());
    Ok(Document { title, sections: sections::split(&[page], Vec::new()), ..Document::default() })
}

/// A text is parsed in pieces of about this size, cut before a paragraph: the parser's tree takes up to seventy times
/// the text. What a piece refers to in another one is not found; books are smaller than one piece.
const PIECE: usize = 4 << 20;

/// The first piece of a text, and the rest.
fn cut(text: &str) -> (&str, &str) {
    let window = &text[..text.floor_char_boundary(PIECE)];
    if window.len() == text.len() {
        return (text, "");
    }
    let end = window.rfind("\n\n").or_else(|| window.rfind('\n')).map_or(window.len(), |at| at + 1);
    text.split_at(end)
}

/// The text as HTML, of at most four times the bytes that a text may have: a quote mark of two bytes becomes
/// twenty-seven.
pub fn to_html(text: &str, source: &Source, limits: &Limits) -> Result<String, ExtractError> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_HEADING_ATTRIBUTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let mut html = String::with_capacity(text.len() * 5 / 4);
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, behind) = cut(rest);
        pulldown_cmark::html::push_html(&mut html, Parser::new_ext(piece, options));
        super::progress::tick();
        let limit = limits.max_text_bytes.saturating_mul(4);
        if html.len() as u64 > limit {
            let what = "it as HTML".to_owned();
            return Err(ExtractError::TooLarge { path: source.path().to_owned(), what, limit });
        }
        rest = behind;
    }
    Ok(html)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_texts_are_read_in_pieces() {
        let text = "word *em*\n\n".repeat(PIECE / 11 * 2 + 100);
        let (first, rest) = cut(&text);
        assert!(first.len() <= PIECE && first.ends_with("em*\n") && rest.starts_with("\nword"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.md");
        std::fs::write(&path, &text).unwrap();
        let document = read(&Source::open(&path).unwrap(), &Limits::default()).unwrap();
        assert_eq!(document.words(), 2 * (PIECE / 11 * 2 + 100));
        assert_eq!(cut(&"š".repeat(PIECE)).0.len(), PIECE);
    }

    #[test]
    fn quotes_in_quotes_do_not_grow_beyond_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.md");
        std::fs::write(&path, "> ".repeat(100_000) + "x").unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!(read(&source, &Limits::default()).unwrap().words(), 1);
        let limits = Limits { max_text_bytes: 300_000, ..Limits::default() };
        assert!(matches!(read(&source, &limits), Err(ExtractError::TooLarge { limit: 1_200_000, .. })));
    }

    #[test]
    fn headings_are_the_sections() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.md");
        let text = "---\ntitle: no\n---\n# Book\n\nintro *em*ph & <br>x\n\n## Part\n\n| a | b |\n|---|---|\n| c | d |\n\n- one\n- two\n\n```\nco de\n  x\n```\n";
        std::fs::write(&path, text).unwrap();
        let document = read(&Source::open(&path).unwrap(), &Limits::default()).unwrap();
        assert_eq!(document.title.as_deref(), Some("Book"));
        let shape: Vec<_> = document.sections.iter().map(|s| (s.title.as_str(), s.text.as_str())).collect();
        assert_eq!(
            shape,
            [("Book", "Book\n\nintro emph &\nx"), ("Part", "Part\n\na\tb\nc\td\n\none\ntwo\n\nco de\nx")]
        );
    }
}
