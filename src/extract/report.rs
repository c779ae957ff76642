//! Coverage, measured: the words of a book's linear text by a second, independent count, against those of its sections.
//! Must never share code with what it checks beyond opening the archive: the spine is read by the crate `epub`, the
//! pages by html5ever's tree, the other formats by a cutter of tags (`strip`). A PDF is counted in letters (`letters`).

mod letters;
mod strip;
mod words;

use scraper::{Html, Node};

pub use self::words::WordCounts;
use super::container::Container;
use super::zipped_html::{self, Kind};
use super::{ExtractError, Limits, Source, decode, epub, fb2, markdown, mobi, pdf};
use crate::domain::Document;

/// How many missing or doubled words are named.
const EXAMPLES: usize = 20;

/// What became of a book's words.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Words of the linear text, counted independently.
    pub words_linear: usize,
    /// Words of the sections.
    pub words_sections: usize,
    /// Words of the linear text that the sections lack.
    pub lost: usize,
    /// Words of the sections beyond those of the linear text.
    pub doubled: usize,
    /// Some of the lost.
    pub missing_examples: Vec<String>,
    /// Some of the doubled.
    pub doubled_examples: Vec<String>,
    /// Lines left out because they are a page's header, footer or number (PDF); they count as neither lost nor kept.
    pub running_lines: usize,
    /// Some of those lines.
    pub running_examples: Vec<String>,
}

impl Report {
    /// Compares `document` with an independent count of the file it came from.
    pub fn measure(source: &Source, format: &str, document: &Document, limits: &Limits) -> Result<Self, ExtractError> {
        if format.eq_ignore_ascii_case("PDF") {
            return letters::measure(source, document, limits);
        }
        let linear = WordCounts::of_linear_text(source, format, limits)?;
        let mut sections = WordCounts::default();
        let lines = ["TXT", "TEXT"].iter().any(|known| format.eq_ignore_ascii_case(known));
        for section in &document.sections {
            if lines { sections.add(&strip::spaced(&section.text)) } else { sections.add(&section.text) }
        }
        Ok(linear.compare(&sections))
    }
}

/// The headers, footers and page numbers that are left out of a PDF's text.
pub fn running_lines(source: &Source, limits: &Limits) -> Result<Vec<String>, ExtractError> {
    pdf::read_with_removed(source, limits).map(|(_, lines)| lines)
}

impl WordCounts {
    /// The words of a file's linear text.
    pub fn of_linear_text(source: &Source, format: &str, limits: &Limits) -> Result<Self, ExtractError> {
        let mut counts = Self::default();
        match format.to_ascii_uppercase().as_str() {
            "EPUB" | "KEPUB" => {
                epub::visit_spine(source, limits, &mut |page| counts.add_html(&decode::markup(page)))?;
            }
            "AZW3" | "AZW" | "MOBI" | "PRC" => {
                mobi::visit_pages(source, limits, &mut |page| counts.add_html(page))?;
            }
            "HTML" | "XHTML" | "HTM" => {
                counts.add_html(&decode::markup(&source.read_text(limits)?));
            }
            "MD" | "MARKDOWN" => {
                counts.add_html(&markdown::to_html(&decode::plain(&source.read_text(limits)?), source, limits)?);
            }
            "TXT" | "TEXT" => counts.add(&strip::lines(&decode::plain(&source.read_text(limits)?))),
            "FB2" | "FBZ" => counts.add(&strip::xml(&decode::markup(&fb2::bytes_of(source, limits)?), &strip::FB2)),
            "DOCX" => {
                let parts = ["/document.xml", "/footnotes.xml", "/endnotes.xml"];
                counts.add_entries(source, limits, &parts, |text| strip::xml(text, &strip::DOCX))?;
            }
            "ODT" => counts.add_entries(source, limits, &["content.xml"], |text| strip::xml(text, &strip::ODT))?,
            "RTF" => counts.add(&strip::rtf(&source.read_text(limits)?)),
            "HTMLZ" | "ZIP" => match zipped_html::kind(&mut Container::open(source, limits)?)? {
                Kind::Epub => return Self::of_linear_text(source, "EPUB", limits),
                Kind::Fb2 => return Self::of_linear_text(source, "FB2", limits),
                Kind::Pages(_) => {
                    let ends = [".html", ".htm", ".xhtml", ".xhtm"];
                    counts.add_entries(source, limits, &ends, |page| {
                        visible_text(&Html::parse_document(&open_self_closed(page)))
                    })?;
                }
            },
            _ => {
                return Err(ExtractError::UnknownFormat { path: source.path().to_owned(), format: format.to_owned() });
            }
        }
        Ok(counts)
    }

    /// Counts what `text_of` finds in the entries whose names end so, hidden files left out.
    fn add_entries(
        &mut self,
        source: &Source,
        limits: &Limits,
        ends: &[&str],
        text_of: fn(&str) -> String,
    ) -> Result<(), ExtractError> {
        let mut container = Container::open(source, limits)?;
        let wanted =
            |name: &str| ends.iter().any(|end| name.to_ascii_lowercase().ends_with(end)) && !name.contains("/.");
        let entries: Vec<usize> = container.names().filter(|(name, _)| wanted(name)).map(|(_, entry)| entry).collect();
        for entry in entries {
            self.add(&text_of(&decode::markup(&container.read(entry)?)));
        }
        Ok(())
    }

    fn add_html(&mut self, html: &str) {
        self.add(&visible_text(&Html::parse_document(&open_self_closed(html))));
    }
}

/// The text nodes of a page, with a space wherever an element stands that is not part of a line.
fn visible_text(page: &Html) -> String {
    let mut text = String::new();
    let mut hidden = 0usize;
    let mut readings: Vec<String> = Vec::new();
    let mut brackets = 0usize;
    let mut in_reading = 0usize;
    // Where the open links and raised elements began.
    let mut marks: Vec<usize> = Vec::new();
    // A walk without recursion, and without a stack: every node knows its parent and its next sibling.
    let mut at = Some((page.tree.root(), true));
    while let Some((node, opens)) = at {
        at = match (opens, node.first_child(), node.next_sibling()) {
            (true, Some(child), _) => Some((child, true)),
            (true, None, _) => Some((node, false)),
            (false, _, Some(sibling)) => Some((sibling, true)),
            (false, _, None) => node.parent().map(|parent| (parent, false)),
        };
        match node.value() {
            Node::Element(element) => {
                let name = element.name().rsplit(':').next().unwrap_or_default();
                let step = |count: usize| if opens { count + 1 } else { count.saturating_sub(1) };
                if NOT_TEXT.contains(&name) || is_hidden(name, element) {
                    hidden = step(hidden);
                } else if BREAKS.contains(&name) && hidden == 0 {
                    text.push(' ');
                }
                match name {
                    "a" | "sup" if opens => marks.push(text.len()),
                    "a" | "sup" => {
                        if let Some(from) = marks.pop().filter(|_| hidden == 0) {
                            words::bracket_mark(&mut text, from);
                        }
                    }
                    "rp" => brackets = step(brackets),
                    "rt" | "rtc" => in_reading = step(in_reading),
                    "ruby" if opens => readings.push(String::new()),
                    "ruby" => {
                        let reading = readings.pop().unwrap_or_default();
                        if !reading.trim().is_empty() {
                            text.push_str(&format!("({})", reading.trim()));
                        }
                    }
                    _ => {}
                }
            }
            Node::Text(part) if opens && hidden == 0 && brackets == 0 => match readings.last_mut() {
                Some(reading) if in_reading > 0 => reading.push_str(part),
                _ => {
                    words::continue_behind_mark(&mut text, part);
                    text.push_str(part);
                }
            },
            _ => {}
        }
    }
    text
}

/// By its own attributes; notes and headings are shown elsewhere.
fn is_hidden(name: &str, element: &scraper::node::Element) -> bool {
    let says = |name: &str, what: &str| {
        element.attr(name).is_some_and(|value| value.to_ascii_lowercase().replace(' ', "").contains(what))
    };
    let hidden = element.attr("hidden").is_some_and(|value| value != "until-found") || says("style", "display:none");
    let heading = name.len() == 2 && name.starts_with('h') && name != "hr";
    hidden
        && !heading
        && !["aside", "body", "html"].contains(&name)
        && !["type", "epub:type", "role"].iter().any(|kind| says(kind, "note"))
}

const NOT_TEXT: &[&str] = &[
    "desc",
    "metadata",
    "head",
    "title",
    "script",
    "style",
    "template",
    "noscript",
    "iframe",
    "noembed",
    "noframes",
    "annotation",
    "annotation-xml",
];

/// Elements that part words.
const BREAKS: &[&str] = &[
    "address",
    "article",
    "aside",
    "audio",
    "blockquote",
    "body",
    "br",
    "button",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hgroup",
    "hr",
    "html",
    "legend",
    "li",
    "listing",
    "main",
    "math",
    "menu",
    "nav",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "plaintext",
    "pre",
    "search",
    "section",
    "select",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "tr",
    "ul",
    "video",
    "xmp",
    "text",
    "mtr",
    "mtd",
    "mi",
    "mn",
    "mo",
    "ms",
    "mtext",
    "bodymatter",
    "frontmatter",
    "rearmatter",
    "level",
    "level1",
    "level2",
    "level3",
    "level4",
    "level5",
    "level6",
    "doctitle",
    "docauthor",
    "line",
    "lic",
    "list",
];

/// XHTML may close at once what HTML reads to an end tag: `<title/>` would swallow the page.
fn open_self_closed(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name: &str = &rest[1..];
        let name = &name[..name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len())];
        let swallows =
            ["title", "script", "style", "textarea", "iframe", "noscript", "xmp", "template", "noframes", "noembed"];
        let end = rest.find('>').map_or(rest.len(), |end| end + 1);
        let tag = &rest[..end];
        if tag.ends_with("/>") && swallows.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            out.push_str(&tag[..tag.len() - 2]);
            out.push_str("></");
            out.push_str(name);
            out.push('>');
            rest = &rest[end..];
        } else {
            out.push('<');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(html: &str) -> WordCounts {
        let mut counts = WordCounts::default();
        counts.add_html(html);
        counts
    }

    fn expected(text: &str) -> WordCounts {
        let mut counts = WordCounts::default();
        counts.add(text);
        counts
    }

    #[test]
    fn text_nodes_are_counted() {
        let html = "<html><head><title/><script/></head><body><p><b>w</b>ord<br/>a<ruby>b<rt>c</rt></ruby></p>d<table><tr><td>e</td></tr></table></body></html>";
        assert_eq!(words(html), expected("word ab(c) d e"));
    }
}
