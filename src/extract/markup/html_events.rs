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

use super::{Attributes, Sink};

/// Elements that never have an end tag.
const VOID: &[&str] =
    &["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"];

/// Feeds the whole of `text` to `sink` and hands it back.
pub fn feed<S: Sink>(text: &str, sink: S) -> S {
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(text));
    let tokenizer = Tokenizer::new(Adapter(RefCell::new(sink)), TokenizerOpts::default());
    // The adapter never asks for a script to be run; an encoding's announcement is the one reason to pause.
    while !matches!(tokenizer.feed(&input), TokenizerResult::Done) {}
    tokenizer.end();
    tokenizer.sink.0.into_inner()
}

struct Adapter<S>(RefCell<S>);

impl<S: Sink> TokenSink for Adapter<S> {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut sink = self.0.borrow_mut();
        match token {
            Token::CharacterTokens(text) => sink.text(&text),
            Token::TagToken(tag) => {
                let name = tag.name.rsplit(':').next().unwrap_or_default();
                // A head without its end tag would hide the whole page; what must not show in it hides itself.
                if name == "head" {
                    return TokenSinkResult::Continue;
                }
                match tag.kind {
                    StartTag => {
                        sink.open(name, &HtmlAttributes(&tag));
                        if tag.self_closing || VOID.contains(&name) {
                            sink.close(name);
                        } else if let Some(kind) = raw_kind(&tag.name) {
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
}
