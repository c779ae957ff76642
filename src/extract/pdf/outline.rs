//! The outline (bookmarks) as entries with a place on a page, and the line each begins at. Must never follow a cycle,
//! or take an entry that leads nowhere for a reason to lose text.

use std::collections::{HashMap, HashSet};

use hayro_font::kurbo::Point;
use hayro_syntax::Pdf;
use hayro_syntax::object::{Array, Dict, Name, Object, ObjectIdentifier, String as PdfString};
use hayro_syntax::page::Page;

use super::content::upright;
use super::metadata;
use super::paragraphs::LineAt;
use super::running::PageLines;
use crate::extract::text::one_line;

/// Entries of one outline.
const MAX_ENTRIES: usize = 20_000;
/// Levels of one outline, and of a tree of names.
const MAX_DEPTH: usize = 32;
/// Nodes of a tree of names.
const MAX_NODES: usize = 100_000;
/// Points above a line where its destination may be set.
const ABOVE: f32 = 3.0;

/// An entry of the outline, and where it leads.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub title: String,
    pub level: usize,
    pub page: usize,
    /// From the page's upper left corner, in points; None for the page's beginning.
    pub place: Option<(f32, f32)>,
}

/// What an outline says.
#[derive(Debug, Default)]
pub struct Outline {
    pub entries: Vec<Entry>,
    /// Entries that lead to no page.
    pub nowhere: usize,
    /// It turned back into itself.
    pub is_cyclic: bool,
}

impl Outline {
    pub fn of(pdf: &Pdf) -> Self {
        let root: Dict<'_> = pdf.xref().get(pdf.xref().root_id()).unwrap_or_default();
        let mut outline = Self::default();
        let Some(first) = root.get::<Dict<'_>>("Outlines").and_then(|top| Item::first(&top)) else { return outline };
        let pages = pdf.pages();
        let numbers: HashMap<ObjectIdentifier, usize> =
            pages.iter().enumerate().filter_map(|(at, page)| Some((page.raw().obj_id()?, at))).collect();
        let targets = Targets { names: named(&root), pages, numbers };
        let mut seen = HashSet::new();
        // What is still to be visited: brothers wait while children go first.
        let mut waiting = vec![(first, 0)];
        while let Some((item, level)) = waiting.pop() {
            if !seen.insert(item.id) || seen.len() > MAX_ENTRIES {
                outline.is_cyclic |= seen.len() <= MAX_ENTRIES;
                continue;
            }
            let dict = item.dict;
            let title = dict.get::<PdfString<'_>>("Title").map(|title| one_line(&metadata::text(&title)));
            match targets.of(&dict) {
                Some((page, place)) => {
                    outline.entries.push(Entry { title: title.unwrap_or_default(), level, page, place });
                }
                None => outline.nowhere += 1,
            }
            waiting.extend(Item::next(&dict).map(|next| (next, level)));
            if level + 1 < MAX_DEPTH {
                waiting.extend(Item::first(&dict).map(|child| (child, level + 1)));
            }
        }
        outline
    }
}

struct Item<'a> {
    id: ObjectIdentifier,
    dict: Dict<'a>,
}

impl<'a> Item<'a> {
    fn first(dict: &Dict<'a>) -> Option<Self> {
        Self::at(dict, "First")
    }

    fn next(dict: &Dict<'a>) -> Option<Self> {
        Self::at(dict, "Next")
    }

    fn at(dict: &Dict<'a>, key: &str) -> Option<Self> {
        Some(Self { id: dict.get_ref(key)?.into(), dict: dict.get(key)? })
    }
}

/// Finds what destinations mean.
struct Targets<'a, 'p> {
    names: HashMap<Vec<u8>, Object<'a>>,
    pages: &'p [Page<'a>],
    numbers: HashMap<ObjectIdentifier, usize>,
}

impl<'a> Targets<'a, '_> {
    fn of(&self, item: &Dict<'a>) -> Option<(usize, Option<(f32, f32)>)> {
        let action = || {
            item.get::<Dict<'_>>("A")
                .filter(|action| action.get::<Name<'_>>("S").is_some_and(|kind| kind.as_str() == "GoTo"))
        };
        let target = item.get::<Object<'_>>("Dest").or_else(|| action()?.get::<Object<'_>>("D"))?;
        self.array(target, 0)
    }

    fn array(&self, target: Object<'a>, depth: usize) -> Option<(usize, Option<(f32, f32)>)> {
        if depth > 4 {
            return None;
        }
        match target {
            Object::Array(target) => self.place(&target),
            Object::Dict(target) => self.array(target.get::<Object<'_>>("D")?, depth + 1),
            Object::String(name) => self.array(self.names.get(name.as_bytes())?.clone(), depth + 1),
            Object::Name(name) => self.array(self.names.get(name.as_ref())?.clone(), depth + 1),
            _ => None,
        }
    }

    fn place(&self, target: &Array<'a>) -> Option<(usize, Option<(f32, f32)>)> {
        let number = match target.raw_iter().next().and_then(|page| page.as_obj_ref()) {
            Some(page) => *self.numbers.get(&page.into())?,
            None => usize::try_from(target.iter::<Object<'_>>().next()?.into_i32()?).ok()?,
        };
        let page = self.pages.get(number)?;
        let parts: Vec<Object<'_>> = target.iter::<Object<'_>>().take(6).collect();
        let part = |at: usize| parts.get(at).cloned().and_then(Object::into_f32).map(f64::from);
        let kind = parts.get(1).cloned().and_then(Object::into_name);
        let at = match kind.as_ref().map(|kind| kind.as_str()) {
            Some("XYZ") => (part(2), part(3)),
            Some("FitH" | "FitBH") => (None, part(2)),
            Some("FitR") => (part(2), part(5)),
            _ => (None, None),
        };
        let (x, Some(y)) = at else { return Some((number, None)) };
        let place = upright(page).0 * Point::new(x.unwrap_or(page.crop_box().x0), y);
        Some((number, Some((place.x as f32, place.y as f32))))
    }
}

/// The named destinations: the older dictionary, and the tree.
fn named<'a>(root: &Dict<'a>) -> HashMap<Vec<u8>, Object<'a>> {
    let mut names = HashMap::new();
    if let Some(dests) = root.get::<Dict<'_>>("Dests") {
        for key in dests.keys().take(MAX_NODES) {
            if let Some(target) = dests.get::<Object<'_>>(&key) {
                names.insert(key.as_ref().to_vec(), target);
            }
        }
    }
    let tree = root.get::<Dict<'_>>("Names").and_then(|names| names.get::<Dict<'_>>("Dests"));
    let mut waiting: Vec<(Dict<'a>, usize)> = tree.into_iter().map(|tree| (tree, 0)).collect();
    let mut nodes = 0;
    let mut seen = HashSet::new();
    while let Some((node, depth)) = waiting.pop() {
        nodes += 1;
        if nodes > MAX_NODES || depth > MAX_DEPTH || !seen.insert((node.data().as_ptr(), node.data().len())) {
            continue;
        }
        if let Some(leaves) = node.get::<Array<'_>>("Names") {
            let mut leaves = leaves.iter::<Object<'_>>();
            while let (Some(name), Some(target)) = (leaves.next(), leaves.next()) {
                if let Object::String(name) = name
                    && names.len() < MAX_NODES
                {
                    names.insert(name.as_bytes().to_vec(), target);
                }
            }
        }
        if let Some(kids) = node.get::<Array<'_>>("Kids") {
            waiting.extend(kids.iter::<Dict<'_>>().take(MAX_NODES).map(|kid| (kid, depth + 1)));
        }
    }
    names
}

/// The line that an entry begins at; past the page's last where it stands below all of them.
pub fn line_of(entry: &Entry, pages: &[PageLines]) -> LineAt {
    let lines = pages.get(entry.page).map(|page| page.lines.as_slice()).unwrap_or_default();
    let at = |line| LineAt { page: entry.page, line };
    let Some((x, y)) = entry.place else { return at(titled(entry, lines, |_| true).unwrap_or(0)) };
    // A destination is set at the top of its line, or somewhat above or below that.
    let is_near = |at: usize| (lines[at].y - lines[at].size - y).abs() < 4.0 * lines[at].size.max(8.0);
    if let Some(found) = titled(entry, lines, is_near) {
        return at(found);
    }
    let below = |at: &usize| !lines[*at].is_turned && lines[*at].y > y + ABOVE;
    let in_column = |at: &usize| lines[*at].right >= x && lines[*at].left <= x + 30.0;
    let first = (0..lines.len()).filter(below).find(in_column).or_else(|| (0..lines.len()).find(below));
    at(first.unwrap_or(lines.len()))
}

/// The line that says the entry's title.
fn titled(entry: &Entry, lines: &[super::lines::Line], is_candidate: impl Fn(usize) -> bool) -> Option<usize> {
    let wanted = letters(&entry.title);
    if wanted.len() < 2 {
        return None;
    }
    let likeness = |at: usize| {
        let text = letters(&lines[at].text);
        // A heading may run over two lines, or carry its number in front, or both.
        let text: &[char] = match text.iter().position(|c| Some(c) == wanted.first()) {
            Some(from) if from <= 10 && !text.starts_with(&wanted[..wanted.len().min(3)]) => &text[from..],
            _ => &text,
        };
        let same = text.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        if same == text.len().min(wanted.len()) && same >= 2 { same } else { 0 }
    };
    let found = (0..lines.len()).filter(|at| is_candidate(*at)).map(|at| (likeness(at), at));
    let best = found.filter(|(same, _)| *same * 3 >= wanted.len()).max_by_key(|(same, at)| (*same, lines.len() - at));
    best.map(|(_, at)| at)
}

fn letters(text: &str) -> Vec<char> {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::super::lines::Line;
    use super::*;

    fn page() -> PageLines {
        let line = |text: &str, y: f32, size: f32| Line {
            text: text.to_owned(),
            y,
            size,
            right: 500.0,
            x1: 500.0,
            ..Line::default()
        };
        let lines = vec![
            line("end of the chapter before", 60.0, 10.0),
            line("2 Second Chapter", 120.0, 18.0),
            line("text", 140.0, 10.0),
            line("Third", 200.0, 18.0),
        ];
        PageLines { lines, height: 800.0 }
    }

    fn at(title: &str, place: Option<(f32, f32)>) -> usize {
        let entry = Entry { title: title.to_owned(), level: 0, page: 0, place };
        line_of(&entry, &[page()]).line
    }

    #[test]
    fn entries_begin_at_their_lines() {
        assert_eq!(at("Second Chapter", Some((0.0, 104.0))), 1);
        assert_eq!(at("Second Chapter", Some((0.0, 123.0))), 1);
        assert_eq!(at("Another name", Some((0.0, 150.0))), 3);
        assert_eq!(at("Third", None), 3);
        assert_eq!(at("Fourth", None), 0);
        assert_eq!(at("Below", Some((0.0, 700.0))), 4);
    }
}
