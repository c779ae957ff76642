//! Anything at all through html5ever's tokenizer. Must never refuse a text.
//!
//! Self-closed forms count as closed, against HTML's rules: what comes here is mostly XHTML with a mistake in it, and
//! a browser that reads `<title/>` or `<script/>` as HTML swallows the rest of the page.

use std::borrow::Cow;
use std::cell::RefCell;

use html5ever::TokenizerResult;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, EndTag, StartTag, Tag, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};

use super::{Attributes, Sink, Vocabulary};

/// Elements that never have an end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

/// Elements that may end without an end tag.
const END_TAG_OPTIONAL: &[&str] = &[
    "body", "caption", "colgroup", "dd", "dt", "html", "li", "optgroup", "option", "p", "rp", "rt", "tbody", "td",
    "tfoot", "th", "thead", "tr",
];

/// Longer tags lose their attributes.
const TAG_BYTES: usize = 8 << 10;

/// Feeds the whole of `text` to `sink` and hands it back.
pub fn feed<S: Sink>(text: &str, sink: S, vocabulary: Vocabulary) -> S {
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(&shorten_tags(text, vocabulary)));
    let tokenizer = Tokenizer::new(Adapter { sink: RefCell::new(sink), vocabulary }, TokenizerOpts::default());
    // The adapter never asks for a script to be run; an encoding's announcement is the one reason to pause.
    while !matches!(tokenizer.feed(&input), TokenizerResult::Done) {}
    tokenizer.end();
    tokenizer.sink.sink.into_inner()
}

/// Drops the attributes of monstrous tags, because the tokenizer compares each attribute of a tag with all others.
/// Real ones hold an image as a data URI, nothing that is needed here. A tag that never ends was a "less than".
fn shorten_tags(text: &str, vocabulary: Vocabulary) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == b'<') {
        let start = at + found;
        at = start + 1;
        if bytes[at..].starts_with(b"!--") {
            at = position_of(bytes, at, b"-->").unwrap_or(bytes.len());
            continue;
        }
        let name_end =
            bytes[at..].iter().position(|byte| !byte.is_ascii_alphanumeric()).map_or(bytes.len(), |n| at + n);
        if name_end == at {
            continue;
        }
        let Some(end) = bytes[at..].iter().position(|byte| *byte == b'>').map(|end| at + end) else {
            out.push_str(&text[copied..start]);
            out.push_str(&text[start..].replace('<', "&lt;"));
            return Cow::Owned(out);
        };
        let name = &text[at..name_end];
        let self_closed = bytes[end - 1] == b'/';
        if end - at > TAG_BYTES {
            out.push_str(&text[copied..name_end]);
            out.push(' ');
            copied = end - usize::from(self_closed);
        }
        at = end + 1;
        if vocabulary == Vocabulary::Html && raw_kind(&name.to_ascii_lowercase()).is_some() && !self_closed {
            at = position_of(bytes, at, format!("</{name}").as_bytes()).unwrap_or(bytes.len());
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Where `what` (ASCII, any case) begins at or behind `from`.
fn position_of(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes[from..].windows(what.len()).position(|part| part.eq_ignore_ascii_case(what)).map(|at| from + at)
}

struct Adapter<S> {
    sink: RefCell<S>,
    vocabulary: Vocabulary,
}

impl<S: Sink> TokenSink for Adapter<S> {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut sink = self.sink.borrow_mut();
        let html = self.vocabulary == Vocabulary::Html;
        match token {
            Token::CharacterTokens(text) => sink.text(&text),
            Token::TagToken(tag) => {
                let name = tag.name.rsplit(':').next().unwrap_or_default();
                // A head without its end tag would hide the whole page; what must not show in it hides itself.
                if html && name == "head" {
                    return TokenSinkResult::Continue;
                }
                match tag.kind {
                    StartTag => {
                        sink.open(name, &HtmlAttributes(&tag));
                        if tag.self_closing || (html && VOID.contains(&name)) {
                            sink.close(name);
                        } else if html && let Some(kind) = raw_kind(&tag.name) {
                            return TokenSinkResult::RawData(kind);
                        }
                    }
                    EndTag => sink.close(name),
                }
            }
            _ => {}
        }
        TokenSinkResult::Continue
    }

    fn adjusted_current_node_present_but_not_in_html_namespace(&self) -> bool {
        // CDATA sections are text, as the XHTML this mostly is means them.
        true
    }
}

/// Elements whose content is not markup, by the whole name: the tokenizer would not find the end of a `dc:title`.
fn raw_kind(name: &str) -> Option<RawKind> {
    match name {
        "title" | "textarea" => Some(RawKind::Rcdata),
        "script" => Some(RawKind::ScriptData),
        "style" | "xmp" | "iframe" | "noembed" | "noframes" | "noscript" => Some(RawKind::Rawtext),
        _ => None,
    }
}

struct HtmlAttributes<'a>(&'a Tag);

impl Attributes for HtmlAttributes<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let is_it = |full: &str| full.rsplit(':').next().is_some_and(|local| local.eq_ignore_ascii_case(name));
        let attribute = self.0.attrs.iter().find(|attribute| is_it(&attribute.name.local))?;
        Some(Cow::Borrowed(&attribute.value))
    }

    fn may_hide(&self) -> bool {
        !END_TAG_OPTIONAL.contains(&&*self.0.name)
            && self.0.attrs.iter().any(|attribute| matches!(&*attribute.name.local, "hidden" | "style"))
    }
}
