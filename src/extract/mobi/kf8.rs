//! KF8 (AZW3): the pages of a book put together from skeletons and the fragments that go into them. Must never use a
//! byte of the text twice, or leave one out.
//!
//! The text is one flow: skeleton, its fragments, the next skeleton, its fragments. A fragment says where it goes in
//! the page as built so far. Format: KindleUnpack's and Calibre's reading of it.

use std::collections::HashSet;

use super::Fault;
use super::index::Index;
use super::palm::be32;

/// Bytes that may be moved to make room for fragments: they go near the end of their page, so real books move little.
const MAX_MOVED: usize = 1 << 30;
/// Flows of a text; real books have a few dozen.
const MAX_FLOWS: usize = 100_000;
/// How far a place inside a tag is looked for the tag's end.
const TAG_WINDOW: usize = 4096;

/// A page's markup and its place among the book's.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub markup: Vec<u8>,
    /// Positions in the book count all pages as built.
    pub start: usize,
}

/// Where a fragment goes.
#[derive(Debug, Clone, Copy)]
struct Fragment {
    place: usize,
    length: usize,
}

/// The pages, and the fragments' places that links count from.
#[derive(Debug, Default)]
pub struct Book {
    pub parts: Vec<Part>,
    fragments: Vec<Fragment>,
}

impl Book {
    /// Puts the pages together. Tables that do not fit the text are an error: the text in the flow's own order is the
    /// next best then.
    pub fn build(text: &[u8], skeletons: &Index, fragments: &Index) -> Result<Self, Fault> {
        const MISFIT: Fault = Fault::Damaged("the tables of skeletons and fragments do not fit the text");
        let fragments: Option<Vec<Fragment>> = fragments
            .entries
            .iter()
            .map(|entry| {
                let place = std::str::from_utf8(&entry.name).ok()?.trim_matches('\0').parse().ok()?;
                Some(Fragment { place, length: entry.value(6, 1)? as usize })
            })
            .collect();
        let fragments = fragments.ok_or(MISFIT)?;
        let mut parts = Vec::new();
        let (mut at, mut next, mut moved) = (0usize, 0usize, 0usize);
        for skeleton in &skeletons.entries {
            let field = |tag, number| skeleton.value(tag, number).map(|value| value as usize).ok_or(MISFIT);
            let (count, start, length) = (field(1, 0)?, field(6, 0)?, field(6, 1)?);
            if start != at {
                return Err(MISFIT);
            }
            at += length;
            let mut markup = text.get(start..at).ok_or(MISFIT)?.to_vec();
            let own = next.checked_add(count).and_then(|end| fragments.get(next..end)).ok_or(MISFIT)?;
            for fragment in own {
                let piece = text.get(at..at + fragment.length).ok_or(MISFIT)?;
                let place = fragment.place.checked_sub(start).filter(|place| *place <= markup.len()).ok_or(MISFIT)?;
                let place = out_of_tag(&markup, place);
                moved += markup.len() - place;
                if moved > MAX_MOVED {
                    return Err(Fault::TooLarge);
                }
                markup.splice(place..place, piece.iter().copied());
                at += fragment.length;
            }
            next += count;
            parts.push(Part { markup, start });
        }
        if at < text.len() {
            parts.push(Part { markup: text[at..].to_vec(), start: at });
        }
        Ok(Self { parts, fragments })
    }

    /// The text as the flow has it.
    pub fn unbuilt(text: Vec<u8>) -> Self {
        Self { parts: vec![Part { markup: text, start: 0 }], fragments: Vec::new() }
    }

    /// The position in the book of a place in a fragment.
    pub fn position(&self, fragment: u32, offset: u32) -> Option<usize> {
        self.fragments.get(fragment as usize)?.place.checked_add(offset as usize)
    }

    /// The page that holds a position, and the place in it.
    pub fn find(&self, position: usize) -> Option<(usize, usize)> {
        let part = self.parts.partition_point(|part| part.start <= position).checked_sub(1)?;
        let place = position - self.parts[part].start;
        (place <= self.parts[part].markup.len()).then_some((part, place))
    }
}

/// Some books' tables point into a tag; the fragment then goes behind it.
fn out_of_tag(markup: &[u8], place: usize) -> usize {
    let before = markup[place.saturating_sub(TAG_WINDOW)..place].iter().rev().find(|byte| matches!(byte, b'<' | b'>'));
    let rest = &markup[place..(place + TAG_WINDOW).min(markup.len())];
    let after = rest.iter().position(|byte| matches!(byte, b'<' | b'>'));
    match (before, after) {
        (Some(b'<'), Some(at)) if rest[at] == b'>' => place + at + 1,
        _ => place,
    }
}

/// The flows of the text by the FDST record; the first is the pages, the others are styles and drawings.
pub fn flows(fdst: &[u8], text: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    if !fdst.starts_with(b"FDST") {
        return None;
    }
    let (at, count) = (be32(fdst, 4)? as usize, be32(fdst, 8)? as usize);
    if count > MAX_FLOWS {
        return None;
    }
    let mut flows = Vec::new();
    let mut expected = 0;
    for number in 0..count {
        let place = at.checked_add(number.checked_mul(8)?)?;
        let range = be32(fdst, place)? as usize..be32(fdst, place.checked_add(4)?)? as usize;
        if range.start != expected || range.start > range.end || range.end > text.len() {
            return None;
        }
        expected = range.end;
        flows.push(range);
    }
    Some(flows).filter(|flows| !flows.is_empty())
}

/// Puts the drawings (SVG) that a page shows into it, for the text in them. Each once in the book.
pub fn inline_drawings(
    markup: Vec<u8>,
    raw: &[u8],
    flows: &[std::ops::Range<usize>],
    used: &mut HashSet<usize>,
) -> Vec<u8> {
    const LINK: &[u8] = b"kindle:flow:";
    let mut out = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = markup[at..].windows(LINK.len()).position(|part| part == LINK) {
        at += found + LINK.len();
        let rest = &markup[at..(at + TAG_WINDOW).min(markup.len())];
        let digits = rest.iter().position(|byte| !byte.is_ascii_alphanumeric()).unwrap_or(0);
        let number = std::str::from_utf8(&rest[..digits]).ok().and_then(|text| usize::from_str_radix(text, 32).ok());
        let is_drawing = rest[digits..].starts_with(b"?mime=image/svg");
        let Some(number) = number.filter(|number| is_drawing && *number > 0) else { continue };
        let Some(drawing) = flows.get(number).filter(|_| used.insert(number)).map(|flow| &raw[flow.clone()]) else {
            continue;
        };
        let window = &drawing[..drawing.len().min(TAG_WINDOW)];
        let svg = window.windows(4).position(|part| part.eq_ignore_ascii_case(b"<svg"));
        let end = rest.iter().position(|byte| *byte == b'>').map(|end| at + end + 1);
        if let (Some(svg), Some(end)) = (svg, end) {
            out.extend_from_slice(&markup[copied..end]);
            out.extend_from_slice(&drawing[svg..]);
            copied = end;
        }
    }
    if copied == 0 {
        return markup;
    }
    out.extend_from_slice(&markup[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Big-endian numbers of seven bits a byte.
    fn number(value: usize) -> Vec<u8> {
        vec![(value >> 14 & 0x7f) as u8, (value >> 7 & 0x7f) as u8, (value & 0x7f) as u8 | 0x80]
    }

    /// Rows of a name, a count (tag 1) and a pair (tag 6).
    fn table(rows: &[(&str, usize, usize, usize)]) -> Index {
        let entries: Vec<Vec<u8>> = rows
            .iter()
            .map(|(name, count, start, length)| {
                let head = [&[name.len() as u8], name.as_bytes(), &[0b01001]].concat();
                [head, number(*count), number(*start), number(*length)].concat()
            })
            .collect();
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let records = [super::super::index::tests::description(1, 0), super::super::index::tests::record(&entries)];
        Index::read(0, |at| Ok(records[at as usize].clone())).unwrap()
    }

    #[test]
    fn fragments_go_into_their_skeletons() {
        let text = b"<b></b>onetwo<i></i>three+";
        let skeletons = table(&[("SKEL0", 2, 0, 7), ("SKEL1", 1, 13, 7)]);
        let fragments = table(&[("3", 0, 0, 3), ("6", 0, 0, 3), ("16", 0, 0, 5)]);
        let book = Book::build(text, &skeletons, &fragments).unwrap();
        let parts: Vec<&[u8]> = book.parts.iter().map(|part| part.markup.as_slice()).collect();
        assert_eq!(parts, [b"<b>onetwo</b>".as_slice(), b"<i>three</i>", b"+"]);
        assert_eq!(book.find(book.position(1, 0).unwrap()), Some((0, 6)));
        assert_eq!(book.find(book.position(2, 1).unwrap()), Some((1, 4)));
        assert_eq!((book.position(3, 0), book.find(99)), (None, None));
    }

    #[test]
    fn a_place_inside_a_tag_moves_behind_it() {
        let book = Book::build(b"<b></b>x", &table(&[("S", 1, 0, 7)]), &table(&[("2", 0, 0, 1)])).unwrap();
        assert_eq!(book.parts[0].markup, b"<b>x</b>");
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let fragments = table(&[("3", 0, 0, 3)]);
        for (count, start, length) in [(1, 1, 7), (2, 0, 7), (1, 0, 9), (1, 0, 2)] {
            assert!(Book::build(b"<b></b>one", &table(&[("S", count, start, length)]), &fragments).is_err());
        }
        assert!(Book::build(b"<b></b>one", &table(&[("S", 1, 0, 7)]), &table(&[("x", 0, 0, 3)])).is_err());
    }

    #[test]
    fn drawings_come_in_once() {
        let raw = b"<p/><?xml?><svg>T</svg>p{}";
        let fdst = [b"FDST".as_slice(), &[0, 0, 0, 12, 0, 0, 0, 3]].concat();
        let places = [0u32, 4, 4, 23, 23, 26].map(u32::to_be_bytes).concat();
        let flows = flows(&[fdst, places].concat(), raw).unwrap();
        let markup = b"<link href='kindle:flow:0002?mime=text/css'/>a<img src='kindle:flow:0001?mime=image/svg+xml'/>b\
                       <img src='kindle:flow:0001?mime=image/svg+xml'/>";
        let out = inline_drawings(markup.to_vec(), raw, &flows, &mut HashSet::new());
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("svg+xml'/><svg>T</svg>b<img") && out.matches("<svg>").count() == 1, "{out}");
    }

    #[test]
    fn flows_must_follow_one_another() {
        let fdst = |places: &[u32]| {
            let count = (places.len() as u32 / 2).to_be_bytes();
            [b"FDST\0\0\0\x0c".as_slice(), &count, &places.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>()]
                .concat()
        };
        assert_eq!(flows(&fdst(&[0, 2, 2, 5]), b"12345"), Some(vec![0..2, 2..5]));
        for wrong in [&[0, 2, 1, 5][..], &[0, 2, 2, 6], &[1, 2], &[2, 0], &[]] {
            assert_eq!(flows(&fdst(wrong), b"12345"), None);
        }
        assert_eq!(flows(b"FDST\0\0\0\x0c\xff\xff\xff\xff", b""), None);
    }
}
