//! Headings of a document without an outline, by their size. Pure. Must never guess: where the sizes do not tell
//! clearly, there are none.

use super::outline::Entry;
use super::running::PageLines;

/// A heading is so many times as large as the text.
const LARGER: f32 = 1.2;
/// Characters of a heading.
const MAX_CHARS: usize = 120;
/// Share of the text that may be headings.
const MAX_SHARE: usize = 20;
/// Levels told apart.
const MAX_LEVELS: usize = 3;

struct Heading {
    entry: Entry,
    size: i32,
    line: usize,
}

/// Entries for the lines that are larger than the text, if they are few and regular.
pub fn entries(pages: &[PageLines], body: f32) -> Vec<Entry> {
    let mut found: Vec<Heading> = Vec::new();
    let (mut all, mut large) = (0, 0);
    for (page, content) in pages.iter().enumerate() {
        for (at, line) in content.lines.iter().enumerate() {
            all += line.text.len();
            if line.size < LARGER * body || line.is_turned {
                continue;
            }
            large += line.text.len();
            let size = (line.size * 2.0).round() as i32;
            // A heading of several lines.
            if let Some(last) = found.last_mut()
                && last.size == size
                && last.entry.page == page
                && last.line + 1 == at
            {
                last.line = at;
                last.entry.title.push(' ');
                last.entry.title.push_str(&line.text);
                continue;
            }
            let entry = Entry { title: line.text.clone(), level: 0, page, place: Some((line.x0, line.y - line.size)) };
            found.push(Heading { entry, size, line: at });
        }
    }
    let is_title = |heading: &Heading| {
        let title = &heading.entry.title;
        title.chars().count() <= MAX_CHARS && title.chars().filter(|c| c.is_alphabetic()).count() >= 2
    };
    found.retain(is_title);
    if found.len() < 2 || large * MAX_SHARE > all {
        return Vec::new();
    }
    // A size that occurs once is the title's.
    let mut sizes: Vec<i32> = found.iter().map(|heading| heading.size).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let mut levels: Vec<i32> =
        sizes.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).map(|same| same[0]).collect();
    levels.truncate(MAX_LEVELS);
    let level = |size: i32| levels.iter().position(|known| *known == size);
    found.into_iter().filter_map(|heading| Some(Entry { level: level(heading.size)?, ..heading.entry })).collect()
}

/// The size of most of the text.
pub fn body_size(pages: &[PageLines]) -> f32 {
    let mut sizes: Vec<(i32, usize)> = Vec::new();
    for line in pages.iter().flat_map(|page| &page.lines) {
        let size = (line.size * 4.0).round() as i32;
        match sizes.binary_search_by_key(&size, |(known, _)| *known) {
            Ok(at) => sizes[at].1 += line.text.len(),
            Err(at) => sizes.insert(at, (size, line.text.len())),
        }
    }
    sizes.iter().max_by_key(|(_, length)| *length).map_or(10.0, |(size, _)| *size as f32 / 4.0)
}
