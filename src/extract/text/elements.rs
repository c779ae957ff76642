//! What an element means for the text around it, and which elements are not shown. Must never hide a heading or a note:
//! those are hidden to be shown elsewhere.

use super::super::markup::Attributes;
use super::{Gap, RubyPart};

pub enum Kind {
    Inline,
    Hidden(&'static str),
    Gap(Gap),
    /// Two of them end a paragraph.
    Break,
    Link,
    Raised,
    Table,
    Row,
    Cell,
    Math,
    Preformatted,
    List,
    Heading(usize),
    Ruby,
    RubyPart(RubyPart),
}

pub fn kind(name: &str) -> Kind {
    match name {
        "a" => Kind::Link,
        "sup" => Kind::Raised,
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
        // A drawing's description, not what it shows.
        "desc" => Kind::Hidden("desc"),
        "metadata" => Kind::Hidden("metadata"),
        "p" | "div" | "section" | "article" | "aside" | "nav" | "header" | "footer" | "main" | "figure"
        | "figcaption" | "blockquote" | "caption" | "hr" | "body" | "html" | "address" | "center" | "form"
        | "fieldset" | "legend" | "details" | "summary" | "dialog" | "hgroup" | "search" | "bodymatter"
        | "frontmatter" | "rearmatter" | "level" | "level1" | "level2" | "level3" | "level4" | "level5" | "level6"
        | "doctitle" | "docauthor" | "svg" | "object" | "video" | "audio" | "pagebreak" => Kind::Gap(Gap::Block),
        "br" => Kind::Break,
        "table" => Kind::Table,
        "tr" | "mtr" | "thead" | "tbody" | "tfoot" => Kind::Row,
        // `text` is a drawing's: each has a place of its own.
        "li" | "dt" | "dd" | "option" | "optgroup" | "select" | "textarea" | "line" | "lic" | "text" => {
            Kind::Gap(Gap::Line)
        }
        "td" | "th" | "mtd" => Kind::Cell,
        "math" => Kind::Math,
        // A formula's signs: a fraction's two numbers are not one number.
        "button" | "mi" | "mn" | "mo" | "ms" | "mtext" => Kind::Gap(Gap::Space),
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

/// True where an attribute hides the element (`hidden`, `style="display:none"`), notes and headings apart: readers
/// open the former in a window, tables of contents lead to the latter.
pub fn is_hidden(name: &str, attributes: &dyn Attributes) -> bool {
    let hidden = attributes.get("hidden").is_some_and(|value| !value.eq_ignore_ascii_case("until-found"))
        || attributes.get("style").is_some_and(|style| {
            let style: String = style.chars().filter(|c| !c.is_whitespace()).collect();
            style.to_ascii_lowercase().contains("display:none")
        });
    let says_note = |attribute: &str| attributes.get(attribute).is_some_and(|value| value.contains("note"));
    let exempt = matches!(kind(name), Kind::Heading(_)) || matches!(name, "aside" | "body" | "html");
    hidden && !exempt && !says_note("type") && !says_note("role")
}
