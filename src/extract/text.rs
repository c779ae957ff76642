//! Markup to text, by events: blocks apart by a blank line, lines by a line break, words by one space. Must never tear
//! a word apart at an inline tag, glue two blocks together, or keep state that grows with the depth of nesting.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::markup::{Attributes, Sink};

/// Longer headings are no headings.
const HEADING_BYTES: usize = 1000;

/// What a page of markup says.
#[derive(Debug, Default)]
pub struct PageText {
    /// Not yet in Unicode NFC: the splitter sees to it, because it would move the offsets below.
    pub text: String,
    /// Where in the text the wanted ids stand, in bytes.
    pub anchors: HashMap<String, usize>,
    pub headings: Vec<Heading>,
    /// The page's own title, from its head.
    pub title: Option<String>,
    pub author: Option<String>,
    pub language: Option<String>,
}

/// One of `h1` to `h6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// 1 to 6.
    pub level: usize,
    /// Bytes in the page's text; may begin with the break before it.
    pub range: Range<usize>,
}

/// What stands between two words. Greater ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Space,
    Line,
    Block,
}

/// The state of a ruby annotation: its readings are kept until the base is whole.
#[derive(Debug, Default)]
struct Ruby {
    part: RubyPart,
    reading: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum RubyPart {
    #[default]
    Base,
    Reading,
    /// Brackets for readers without ruby; the builder sets its own.
    Bracket,
}

/// An element that is not text, until its end tag.
#[derive(Debug)]
struct Hidden {
    name: &'static str,
    /// Open elements of the same name.
    depth: usize,
}

/// Builds a page's text from the events of its markup.
#[derive(Debug)]
pub struct TextBuilder<'a> {
    wanted: &'a HashSet<String>,
    page: PageText,
    gap: Gap,
    hidden: Option<Hidden>,
    in_title: bool,
    ruby: Option<Ruby>,
    heading: Option<(usize, usize)>,
    preformatted: usize,
    lists: usize,
}

impl<'a> TextBuilder<'a> {
    /// A builder that notes the places of the ids in `wanted`.
    pub fn new(wanted: &'a HashSet<String>) -> Self {
        Self {
            wanted,
            page: PageText::default(),
            gap: Gap::None,
            hidden: None,
            in_title: false,
            ruby: None,
            heading: None,
            preformatted: 0,
            lists: 0,
        }
    }

    /// The text so far.
    pub fn written(&self) -> &str {
        &self.page.text
    }

    pub fn finish(mut self) -> PageText {
        self.end_ruby();
        self.end_heading();
        for line in [&mut self.page.title, &mut self.page.author, &mut self.page.language] {
            *line = line.take().map(|text| one_line(&text)).filter(|text| !text.is_empty());
        }
        self.page
    }

    fn widen(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn write(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = &text[at..];
            // Most text is ASCII, or at least runs of visible characters: those are copied as a whole.
            let ascii = bytes[at..].iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(rest.len());
            let run = if ascii > 0 {
                ascii
            } else if bytes[at].is_ascii() {
                0
            } else {
                rest.find(|c: char| c.is_ascii() || c.is_whitespace() || is_invisible(c)).unwrap_or(rest.len())
            };
            if run > 0 {
                self.write_gap();
                self.page.text.push_str(&rest[..run]);
                at += run;
                continue;
            }
            let Some(c) = rest.chars().next() else { break };
            if c.is_whitespace() {
                let line_ends = self.preformatted > 0 && c == '\n';
                self.widen(match (line_ends, self.gap) {
                    (false, _) => Gap::Space,
                    (true, Gap::None | Gap::Space) => Gap::Line,
                    (true, _) => Gap::Block,
                });
            }
            at += c.len_utf8();
        }
    }

    fn write_gap(&mut self) {
        if !self.page.text.is_empty() {
            self.page.text.push_str(match self.gap {
                Gap::None => "",
                Gap::Space => " ",
                Gap::Line => "\n",
                Gap::Block => "\n\n",
            });
        }
        self.gap = Gap::None;
    }

    /// Puts the readings after the base they belong to: 漢字(かんじ).
    fn end_ruby(&mut self) {
        if let Some(ruby) = self.ruby.take() {
            let reading = ruby.reading.trim();
            if !reading.is_empty() {
                self.write(&format!("({reading})"));
            }
        }
    }

    fn end_heading(&mut self) {
        if let Some((level, start)) = self.heading.take() {
            self.page.headings.push(Heading { level, range: start..self.page.text.len() });
        }
    }

    /// Opens or closes a block.
    fn block(&mut self, gap: Gap) {
        if self.ruby.is_some() {
            self.end_ruby();
        }
        self.widen(gap);
    }

    fn note_anchor(&mut self, name: &str, attributes: &dyn Attributes) {
        let end = self.page.text.len();
        // A heading's anchor stands inside it as often as before it. One that never ends holds the page.
        let heading = self.heading.map(|(_, start)| start).filter(|start| end - start < HEADING_BYTES);
        let at = heading.unwrap_or(end);
        let named = if name == "a" { attributes.get("name") } else { None };
        for id in [attributes.get("id"), named].into_iter().flatten() {
            if self.wanted.contains(&*id) && !self.page.anchors.contains_key(&*id) {
                self.page.anchors.insert(id.into_owned(), at);
            }
        }
    }

    /// What a head tells of the page.
    fn note_head(&mut self, name: &str, attributes: &dyn Attributes) {
        match name {
            "html" => self.page.language = attributes.get("lang").map(|value| value.into_owned()),
            "title" if self.page.title.is_none() && self.page.text.is_empty() => {
                self.page.title = Some(String::new());
                self.in_title = true;
            }
            "meta" if attributes.get("name").is_some_and(|value| value.eq_ignore_ascii_case("author")) => {
                self.page.author = attributes.get("content").map(|value| value.into_owned());
            }
            _ => {}
        }
    }
}

impl Sink for TextBuilder<'_> {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if !self.wanted.is_empty() {
            self.note_anchor(name, attributes);
        }
        if matches!(name, "html" | "title" | "meta") {
            self.note_head(name, attributes);
        }
        if let Some(hidden) = &mut self.hidden {
            hidden.depth += usize::from(hidden.name == name);
            return;
        }
        match kind(name) {
            Kind::Inline => {}
            Kind::Hidden(name) => self.hidden = Some(Hidden { name, depth: 1 }),
            Kind::Gap(gap) => self.block(gap),
            Kind::Preformatted => {
                self.block(Gap::Block);
                self.preformatted += 1;
            }
            Kind::List => {
                self.block(if self.lists == 0 { Gap::Block } else { Gap::Line });
                self.lists += 1;
            }
            Kind::Heading(level) => {
                self.block(Gap::Block);
                self.end_heading();
                self.heading = Some((level, self.page.text.len()));
            }
            Kind::Ruby => {
                if self.ruby.is_none() {
                    self.ruby = Some(Ruby::default());
                }
            }
            Kind::RubyPart(part) => {
                if let Some(ruby) = &mut self.ruby {
                    ruby.part = part;
                }
            }
        }
    }

    fn close(&mut self, name: &str) {
        if let Some(hidden) = &mut self.hidden {
            if hidden.name == name {
                hidden.depth -= 1;
                if hidden.depth == 0 {
                    self.hidden = None;
                }
            }
            self.in_title &= name != "title";
            return;
        }
        match kind(name) {
            Kind::Inline | Kind::Hidden(_) => {}
            Kind::Gap(gap) => self.block(gap),
            Kind::Preformatted => {
                self.block(Gap::Block);
                self.preformatted = self.preformatted.saturating_sub(1);
            }
            Kind::List => {
                self.lists = self.lists.saturating_sub(1);
                self.block(if self.lists == 0 { Gap::Block } else { Gap::Line });
            }
            Kind::Heading(_) => {
                self.block(Gap::Block);
                self.end_heading();
            }
            Kind::Ruby => self.end_ruby(),
            Kind::RubyPart(_) => {
                if let Some(ruby) = &mut self.ruby {
                    ruby.part = RubyPart::Base;
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        if self.hidden.is_some() {
            if self.in_title
                && let Some(title) = &mut self.page.title
            {
                title.push_str(text);
            }
            return;
        }
        match &mut self.ruby {
            Some(Ruby { part: RubyPart::Reading, reading }) => reading.push_str(text),
            Some(Ruby { part: RubyPart::Bracket, .. }) => {}
            _ => self.write(text),
        }
    }
}

/// What an element means for the text around it.
enum Kind {
    Inline,
    Hidden(&'static str),
    Gap(Gap),
    Preformatted,
    List,
    Heading(usize),
    Ruby,
    RubyPart(RubyPart),
}

fn kind(name: &str) -> Kind {
    match name {
        "head" => Kind::Hidden("head"),
        "title" => Kind::Hidden("title"),
        "script" => Kind::Hidden("script"),
        "style" => Kind::Hidden("style"),
        "template" => Kind::Hidden("template"),
        "noscript" => Kind::Hidden("noscript"),
        "iframe" => Kind::Hidden("iframe"),
        "noembed" => Kind::Hidden("noembed"),
        "noframes" => Kind::Hidden("noframes"),
        // MathML's machine-readable double of what it shows.
        "annotation" => Kind::Hidden("annotation"),
        "annotation-xml" => Kind::Hidden("annotation-xml"),
        "p" | "div" | "section" | "article" | "aside" | "nav" | "header" | "footer" | "main" | "figure"
        | "figcaption" | "blockquote" | "table" | "caption" | "hr" | "body" | "html" | "address" | "center"
        | "form" | "fieldset" | "legend" | "details" | "summary" | "dialog" | "hgroup" | "search" | "bodymatter"
        | "frontmatter" | "rearmatter" | "level" | "level1" | "level2" | "level3" | "level4" | "level5" | "level6"
        | "doctitle" | "docauthor" | "svg" | "math" | "object" | "video" | "audio" | "pagebreak" => {
            Kind::Gap(Gap::Block)
        }
        "thead" | "tbody" | "tfoot" | "br" | "li" | "dt" | "dd" | "tr" | "option" | "optgroup" | "select"
        | "textarea" | "line" | "lic" => Kind::Gap(Gap::Line),
        "td" | "th" | "button" => Kind::Gap(Gap::Space),
        "pre" | "listing" | "xmp" | "plaintext" => Kind::Preformatted,
        "ul" | "ol" | "dl" | "menu" | "dir" | "list" => Kind::List,
        "h1" => Kind::Heading(1),
        "h2" => Kind::Heading(2),
        "h3" => Kind::Heading(3),
        "h4" => Kind::Heading(4),
        "h5" => Kind::Heading(5),
        "h6" => Kind::Heading(6),
        "ruby" => Kind::Ruby,
        "rt" | "rtc" => Kind::RubyPart(RubyPart::Reading),
        "rp" => Kind::RubyPart(RubyPart::Bracket),
        "rb" => Kind::RubyPart(RubyPart::Base),
        _ => Kind::Inline,
    }
}

/// Soft hyphens, zero-width no-break spaces and control characters: they show nothing and split words for a tokenizer.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{feff}' | '\u{2060}') || (c.is_control() && !c.is_whitespace())
}

/// A title as one line of visible characters.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !is_invisible(*c)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::markup;
    use super::*;

    fn page(html: &str) -> PageText {
        page_with(html, &[])
    }

    fn page_with(html: &str, wanted: &[&str]) -> PageText {
        let wanted = wanted.iter().map(|id| (*id).to_owned()).collect();
        markup::parse(html, || TextBuilder::new(&wanted)).finish()
    }

    fn text(html: &str) -> String {
        page(html).text
    }

    #[test]
    fn inline_tags_do_not_tear_words_and_blocks_do_not_glue() {
        assert_eq!(
            text("<p><b>w</b>ord <i> a</i>\n b</p><p>c</p>d<div>e<div>f</div></div>"),
            "word a b\n\nc\n\nd\n\ne\n\nf"
        );
        assert_eq!(text("<p>one<br/>two<br/><br/>three</p>"), "one\ntwo\nthree");
        assert_eq!(text("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"), "a\nb\nc");
        assert_eq!(text("<table><tr><td>a</td><td>b</td></tr><tr><th>c</th><th>d</th></tr></table>"), "a b\nc d");
        assert_eq!(text("<dl><dt>a</dt><dd>b</dd></dl>"), "a\nb");
    }

    #[test]
    fn preformatted_text_keeps_its_lines() {
        assert_eq!(text("<p>a</p><pre>\n  x  y\n z\n\n\nw</pre>b\nc"), "a\n\nx y\nz\n\nw\n\nb c");
    }

    #[test]
    fn what_is_not_shown_is_not_text() {
        let html = "<html lang=\"hr\"><head><title>T \n t</title><style>s</style><meta name='author' content='A'/></head>\
                    <body>a<script>b</script><template>c<template>d</template>e</template><noscript><p>f</p></noscript>\
                    <img alt='g'/><svg><title>h</title><text>i</text></svg></body></html>";
        for html in [html.to_owned(), html.replace("<body>", "<body><br>")] {
            let page = page(&html);
            assert_eq!(page.text, "a\n\ni");
            assert_eq!(page.title.as_deref(), Some("T t"));
            assert_eq!(page.author.as_deref(), Some("A"));
            assert_eq!(page.language.as_deref(), Some("hr"));
        }
    }

    #[test]
    fn invisible_characters_go_and_spaces_become_plain() {
        assert_eq!(text("<p>so\u{ad}ft&nbsp;a\u{feff}b\u{2060}c&shy;d\u{3000}e \u{ad} f</p>"), "soft abcd e f");
    }

    #[test]
    fn self_closed_elements_hide_nothing() {
        assert_eq!(
            text("<html><head><title/><script src='x'/></head><body><a id='y'/>a<p/>b<br></body></html>"),
            "a\n\nb"
        );
        assert_eq!(text("<html><head><title/></head><body><style/><p>a</p></body></html>"), "a");
    }

    #[test]
    fn an_unclosed_head_hides_nothing() {
        assert_eq!(text("<head><title>t</title><p>a<p>b"), "a\n\nb");
    }

    #[test]
    fn ruby_readings_follow_their_base() {
        assert_eq!(
            text("<p>は<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</rt></ruby>を</p>"),
            "は漢字(かんじ)を"
        );
        assert_eq!(text("<p><ruby>漢<rp>(<rt>かん<rp>)</ruby>を<br>x"), "漢(かん)を\nx");
    }

    #[test]
    fn anchors_stand_at_their_elements() {
        let html =
            "<p>one</p><p id='a'>two <a name='b'></a>three</p><h2>Head <span id='c'>x</span></h2><p>y</p><i id='d'/>";
        let page = page_with(html, &["a", "b", "c", "d", "zz"]);
        let rest = |id: &str| page.text[page.anchors[id]..].trim_start();
        assert!(rest("a").starts_with("two") && rest("b").starts_with("three") && rest("c").starts_with("Head x"));
        assert_eq!((rest("d"), page.anchors.len()), ("", 4));
        assert_eq!(page.headings.len(), 1);
        assert_eq!(page.text[page.headings[0].range.clone()].trim(), "Head x");
    }

    #[test]
    fn depth_costs_nothing() {
        let depth = 100_000;
        let xml = format!("{}x{}", "<div>".repeat(depth), "</div>".repeat(depth));
        assert_eq!(text(&xml), "x");
        assert_eq!(text(&format!("{}x<br>y", "<div><b>".repeat(depth))), "x\ny");
    }
}
