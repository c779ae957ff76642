//! Well-formed XML through quick-xml. Must never go on after an error: half a page would be lost silently.

use std::borrow::Cow;
use std::cell::Cell;

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_html5_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

use super::{Attributes, Sink};

/// The text is not well-formed XML.
#[derive(Debug)]
pub struct NotXml;

/// Feeds the whole of `text` to `sink`, or fails somewhere on the way.
pub fn feed<S: Sink>(text: &str, sink: &mut S) -> Result<(), NotXml> {
    let mut reader = Reader::from_str(text);
    let mut depth = 0usize;
    // A look at every element would cost more than this one.
    let page_may_hide = text.contains("hidden") || text.contains("display");
    loop {
        match reader.read_event().map_err(|_| NotXml)? {
            Event::Start(start) => {
                depth += 1;
                open(&start, sink, page_may_hide)?;
            }
            Event::Empty(start) => {
                open(&start, sink, page_may_hide)?;
                sink.close(&lower(start.local_name().into_inner()));
            }
            Event::End(end) => {
                depth = depth.checked_sub(1).ok_or(NotXml)?;
                sink.close(&lower(end.local_name().into_inner()));
            }
            Event::Text(text) => sink.text(&text),
            Event::CData(text) => sink.text(&text),
            Event::GeneralRef(reference) => resolve(&reference, sink)?,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof => return if depth == 0 { Ok(()) } else { Err(NotXml) },
        }
    }
}

fn open<S: Sink>(start: &BytesStart, sink: &mut S, page_may_hide: bool) -> Result<(), NotXml> {
    let attributes = XmlAttributes { start, malformed: Cell::new(false), page_may_hide };
    sink.open(&lower(start.local_name().into_inner()), &attributes);
    if attributes.malformed.get() { Err(NotXml) } else { Ok(()) }
}

fn resolve<S: Sink>(reference: &BytesRef, sink: &mut S) -> Result<(), NotXml> {
    match reference.resolve_char_ref().map_err(|_| NotXml)? {
        // As HTML has it: books made on old Windows mean the dashes and quotes of code page 1252.
        Some(c @ '\u{80}'..='\u{9f}') => {
            sink.text(&encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[c as u32 as u8]).0);
        }
        Some(c) => sink.text(c.encode_utf8(&mut [0; 4])),
        None => match resolve_html5_entity(reference) {
            Some(text) => sink.text(text),
            None => {
                sink.text("&");
                sink.text(reference);
                sink.text(";");
            }
        },
    }
    Ok(())
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

struct XmlAttributes<'a> {
    start: &'a BytesStart<'a>,
    malformed: Cell<bool>,
    /// Words that hide an element occur in the page.
    page_may_hide: bool,
}

impl Attributes for XmlAttributes<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut attributes = self.start.attributes();
        // The check for doubles costs the square of their number.
        for attribute in attributes.with_checks(false) {
            let Ok(attribute) = attribute else {
                self.malformed.set(true);
                return None;
            };
            if attribute.key.local_name().into_inner().eq_ignore_ascii_case(name) {
                return match attribute.normalized_value_with(XmlVersion::Implicit1_0, 1, resolve_html5_entity) {
                    Ok(value) => Some(Cow::Owned(value.into_owned())),
                    Err(_) => {
                        self.malformed.set(true);
                        None
                    }
                };
            }
        }
        None
    }

    fn may_mention(&self, part: &str) -> bool {
        self.start.attributes_raw().contains(part)
    }

    fn may_hide(&self) -> bool {
        self.page_may_hide && (self.may_mention("hidden") || self.may_mention("none"))
    }
}
