//! Anything at all through html5ever's tokenizer. Must never refuse a text.
//!
//! Self-closed forms count as closed, against HTML's rules: what comes here is mostly XHTML with a mistake in it, and
//! a browser that reads `<title/>` or `<script/>` as HTML swallows the rest of the page.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

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

/// The tokenizer compares each attribute of a tag with all others, so a tag has no more than about as many.
const MAX_ATTRIBUTES: usize = 100;
/// Bytes that the tokenizer is given at a time.
const PIECE: usize = 128;

/// Feeds the whole of `text` to `sink` and hands it back.
pub fn feed<S: Sink>(text: &str, sink: S, vocabulary: Vocabulary) -> S {
    let text = escape_unended_tag(text);
    let input = BufferQueue::default();
    let adapter = Adapter { sink: RefCell::new(sink), vocabulary, silent: Cell::new(true) };
    let tokenizer = Tokenizer::new(adapter, TokenizerOpts::default());
    // The tokenizer is silent within a tag, a comment and a declaration alone. What may have begun attributes since it
    // last spoke is counted; after too many it is given only what may end such a thing.
    let mut begun = 0;
    let mut rest = &*text;
    while !rest.is_empty() {
        let monstrous = begun > MAX_ATTRIBUTES;
        let length = match monstrous {
            true => rest.find('>').map_or(rest.len(), |end| end + 1),
            false => rest.floor_char_boundary(PIECE),
        };
        let (piece, behind) = rest.split_at(length);
        input.push_back(if monstrous { ends(piece) } else { StrTendril::from_slice(piece) });
        tokenizer.sink.silent.set(true);
        // The adapter never asks for a script to be run; an encoding's announcement is the one reason to pause.
        while !matches!(tokenizer.feed(&input), TokenizerResult::Done) {}
        if !tokenizer.sink.silent.get() {
            begun = 0;
        }
        if !monstrous {
            begun += piece.bytes().filter(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'=')).count();
        }
        rest = behind;
    }
    tokenizer.end();
    tokenizer.sink.sink.into_inner()
}

/// What of a monstrous tag, comment or declaration may end it or a value in it.
fn ends(piece: &str) -> StrTendril {
    let self_closed = piece.ends_with("/>");
    let ends = piece.chars().filter(|c| matches!(c, '"' | '\'' | '-' | '!'));
    let close = if self_closed { "/>" } else { ">" };
    let mut ends: StrTendril = ends.collect();
    if piece.ends_with('>') {
        ends.push_slice(close);
    }
    ends
}

/// A tag that never ends was a "less than".
fn escape_unended_tag(text: &str) -> Cow<'_, str> {
    let behind_tags = text.rfind('>').map_or(0, |at| at + 1);
    let mut starts = text[behind_tags..].match_indices('<').map(|(at, _)| behind_tags + at);
    match starts.find(|at| text[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric())) {
        Some(start) => Cow::Owned(format!("{}{}", &text[..start], text[start..].replace('<', "&lt;"))),
        None => Cow::Borrowed(text),
    }
}

struct Adapter<S> {
    sink: RefCell<S>,
    vocabulary: Vocabulary,
    /// Nothing came of the last piece.
    silent: Cell<bool>,
}

impl<S: Sink> TokenSink for Adapter<S> {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        // Complaints come in the middle of things.
        if matches!(token, Token::ParseError(_)) {
            return TokenSinkResult::Continue;
        }
        self.silent.set(false);
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
