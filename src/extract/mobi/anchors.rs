//! Positions made anchors: a Mobipocket book's links count bytes of the markup, the text builder knows ids. Must never
//! change what a page says.

use std::collections::BTreeSet;

/// What parts the pages of a book before KF8.
pub const PAGE_BREAK: &[u8] = b"<mbp:pagebreak";

/// A tag or an entity that is longer is none.
const WINDOW: usize = 4096;
const ENTITY: usize = 12;

/// The id that stands at `position` of the book's markup. Nothing that a book would use itself.
pub fn id(position: usize) -> String {
    format!("alexandria-position-{position}")
}

/// Puts an anchor at every place of `markup`; its id is of the position, which is the place and `start`.
pub fn insert(markup: &[u8], start: usize, places: &BTreeSet<usize>) -> Vec<u8> {
    let mut out = Vec::with_capacity(markup.len() + places.len() * 48);
    let mut copied = 0;
    for &place in places {
        let at = behind_break(markup, outside(markup, place.min(markup.len()))).max(copied);
        out.extend_from_slice(&markup[copied..at]);
        out.extend_from_slice(format!("<a id=\"{}\"/>", id(start + place)).as_bytes());
        copied = at;
    }
    out.extend_from_slice(&markup[copied..]);
    out
}

/// A link to a page break means the page behind it.
fn behind_break(markup: &[u8], at: usize) -> usize {
    let rest = &markup[at..(at + WINDOW).min(markup.len())];
    let is_break = rest.get(..PAGE_BREAK.len()).is_some_and(|tag| tag.eq_ignore_ascii_case(PAGE_BREAK));
    at + rest.iter().position(|byte| *byte == b'>').filter(|_| is_break).map_or(0, |end| end + 1)
}

/// The place itself, or before the tag, the entity or the character that it falls into.
fn outside(markup: &[u8], place: usize) -> usize {
    let last = |window: usize, wanted: fn(&u8) -> bool| {
        let from = place.saturating_sub(window);
        markup[from..place].iter().rposition(wanted).map(|at| from + at)
    };
    if let Some(at) = last(WINDOW, |byte| matches!(byte, b'<' | b'>')).filter(|at| markup[*at] == b'<') {
        return at;
    }
    if let Some(at) = last(ENTITY, |byte| matches!(byte, b'&' | b';' | b' ' | b'>')).filter(|at| markup[*at] == b'&') {
        return at;
    }
    // Inside a character of UTF-8.
    (place.saturating_sub(3)..=place)
        .rev()
        .find(|at| markup.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80))
        .unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_stand_outside_tags_entities_and_characters() {
        let markup = "<p>až&amp;b</p><p>c".as_bytes();
        let marked = |place: usize| {
            let out = String::from_utf8(insert(markup, 100, &BTreeSet::from([place]))).unwrap();
            out.replace(&format!("<a id=\"{}\"/>", id(100 + place)), "|")
        };
        assert_eq!(marked(0), "|<p>až&amp;b</p><p>c");
        assert_eq!(marked(1), "|<p>až&amp;b</p><p>c");
        assert_eq!(marked(3), "<p>|až&amp;b</p><p>c");
        assert_eq!(marked(5), "<p>a|ž&amp;b</p><p>c");
        assert_eq!(marked(8), "<p>až|&amp;b</p><p>c");
        assert_eq!(marked(16), "<p>až&amp;b</p>|<p>c");
        assert_eq!(marked(99), "<p>až&amp;b</p><p>c|");
    }

    #[test]
    fn a_place_at_a_page_break_is_behind_it() {
        let out = insert(b"a<mbp:pagebreak/>b", 0, &BTreeSet::from([1]));
        assert_eq!(out, format!("a<mbp:pagebreak/><a id=\"{}\"/>b", id(1)).into_bytes());
    }

    #[test]
    fn places_in_one_tag_stand_together() {
        let out = insert(b"<p>a", 0, &BTreeSet::from([1, 2]));
        assert_eq!(out, format!("<a id=\"{}\"/><a id=\"{}\"/><p>a", id(1), id(2)).into_bytes());
    }
}
