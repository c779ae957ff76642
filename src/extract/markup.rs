//! XML and HTML as one stream of elements and text. quick-xml reads what is well formed; everything else goes through
//! html5ever's tokenizer. Must never recurse or build a tree: documents may nest 100,000 deep, and HTML's tree rules
//! cost the square of the depth.

mod html_events;
mod xml_events;

use std::borrow::Cow;

/// What a reader of markup is told. Names are local and in lower case.
pub trait Sink {
    fn open(&mut self, name: &str, attributes: &dyn Attributes);
    /// Comes for every element of well-formed XML; in HTML as the file has it.
    fn close(&mut self, name: &str);
    /// Entities are resolved. One run of text may come in several calls.
    fn text(&mut self, text: &str);
}

/// The attributes of the element being opened.
pub trait Attributes {
    /// The value of the attribute with this local name (`type` finds `epub:type`).
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;

    /// False where no attribute's name or value holds `part`: a quick look, before [`Attributes::get`]'s slow ones.
    fn may_mention(&self, _part: &str) -> bool {
        true
    }

    /// False where no attribute can hide the element, without a look at each; never true for an element whose end tag
    /// HTML lets a page leave out, because that would hide the rest of the page.
    fn may_hide(&self) -> bool {
        false
    }
}

/// Feeds `text` to a sink that `make` builds; to a fresh one where the text turns out not to be XML.
pub fn parse<S: Sink>(text: &str, make: impl Fn() -> S) -> S {
    let mut sink = make();
    if xml_events::feed(text, &mut sink).is_ok() {
        return sink;
    }
    html_events::feed(text, make(), Vocabulary::Html)
}

/// The same for XML whose elements are not HTML's: a `title` may hold elements, a `col` has an end tag.
pub fn parse_xml<S: Sink>(text: &str, make: impl Fn() -> S) -> S {
    let mut sink = make();
    if xml_events::feed(text, &mut sink).is_ok() {
        return sink;
    }
    html_events::feed(text, make(), Vocabulary::Xml)
}

/// Whose names a text's elements have, for what is read without XML's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vocabulary {
    Html,
    Xml,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is told.
    #[derive(Default)]
    struct Log(String);

    impl Sink for Log {
        fn open(&mut self, name: &str, attributes: &dyn Attributes) {
            self.0 += &format!("<{name}{}>", attributes.get("id").map(|id| format!(" {id}")).unwrap_or_default());
        }

        fn close(&mut self, name: &str) {
            self.0 += &format!("</{name}>");
        }

        fn text(&mut self, text: &str) {
            self.0 += text;
        }
    }

    fn log(text: &str) -> String {
        parse(text, Log::default).0
    }

    #[test]
    fn both_readers_say_the_same_of_the_same() {
        for text in [
            "<p>a<br/>b &amp; &eacute; &#233; &#151; &unknown;</p>",
            "<div><title/><script/>x<a id='1'/>y<P>z</P></div>",
            "<svg:svg><svg:text xml:id=\"t\">w</svg:text></svg:svg>",
            "<p>a<![CDATA[<b>]]>c</p>",
        ] {
            let mut xml = Log::default();
            xml_events::feed(text, &mut xml).unwrap();
            // html5ever hands over text by the piece, so only the sum can be compared.
            assert_eq!(html_events::feed(text, Log::default(), Vocabulary::Html).0, xml.0);
        }
    }

    #[test]
    fn entities_and_references_are_resolved() {
        assert_eq!(log("<p>&nbsp;&eacute;&#x41;&#151;&nosuch;</p>"), "<p>\u{a0}éA—&nosuch;</p>");
    }

    #[test]
    fn what_is_not_xml_is_read_as_html() {
        assert_eq!(log("<p>a<br>b & c <i id=x>d</p>"), "<p>a<br></br>b & c <i x>d</p>");
        assert_eq!(log("<p>1 < 2"), "<p>1 < 2");
    }

    #[test]
    fn broken_xml_keeps_its_own_elements() {
        let text = "<title><p>a</p></title><style id='x'>b</style><col>c</col><head>d</head>&";
        let expected = "<title><p>a</p></title><style x>b</style><col>c</col><head>d</head>&";
        assert_eq!(parse_xml(text, Log::default).0, expected);
    }

    #[test]
    fn monstrous_tags_cost_little_and_hide_nothing() {
        let attributes: String = (0..200_000).map(|n| format!(" a{n}")).collect();
        assert_eq!(log(&format!("a<br><b id=x{attributes}>b</b>c")), "a<br></br><b x>b</b>c");
        assert_eq!(log(&format!("a<br><!-- <b{attributes} --><i>c")), "a<br></br><i>c");
        let script = format!("<script>1<b{attributes}</SCRIPT>a<br>");
        assert_eq!(log(&script), format!("<script>1<b{attributes}</script>a<br></br>"));
        let unended = format!("a<br>x <b{attributes}");
        assert_eq!(log(&unended), format!("a<br></br>x <b{attributes}"));
        let uri = format!("<br><img src='data:{}'/>x", "A".repeat(100_000));
        assert_eq!(log(&uri), "<br></br><img></img>x");
        let uri = format!("<br><img id=x src='data:{}'/><b id=y>x", "A/=".repeat(100_000));
        assert_eq!(log(&uri), "<br></br><img x></img><b y>x");
    }

    #[test]
    fn disguised_attributes_cost_little_too() {
        let attributes: String = (0..200_000).map(|n| format!(" a{n}")).collect();
        for (disguise, expected) in [
            ("<b x='>'", "<b>"),
            ("<p></b", "<p></b>"),
            ("<!----!><b", "<b>"),
            ("<!--><b", "<b>"),
            ("<i title='/>'></i><b", "<i></i><b>"),
            ("<title:x><b", "<title:x><b>"),
            ("<?x><b", "<b>"),
        ] {
            let read = log(&format!("<br>{disguise}{attributes}>b<i>c"));
            let expected = expected.replace("title:", "");
            assert_eq!(read, format!("<br></br>{expected}b<i>c"), "{disguise}");
        }
        // A few in each of many tags.
        let tag = format!("<b{}>x", &attributes[..8000]);
        assert_eq!(log(&format!("<br>{}", tag.repeat(1000))).matches("<b>x").count(), 1000);
    }
}
