//! Cuts the text of a book's pages at the places its table of contents names. Pure. Must never lose or double a word,
//! whatever the entries: out of order, doubled, inside words, past the end, or none at all.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::text::{Heading, PageText, one_line};
use crate::domain::Section;

/// Text of up to this many words before a page's first entry belongs to that entry: a number, a motto, a heading that
/// the entry's anchor stands behind.
const LEAD_WORDS: usize = 40;
/// And up to this many bytes, for languages that write no spaces.
const LEAD_BYTES: usize = 600;
/// Headings down to this level stand for entries where there are none.
pub const HEADING_LEVELS: usize = 3;
/// Sections of a book, nearly: entries and headings beyond these begin none, because each section costs memory of its
/// own, and hostile ones hold a letter each.
const MAX_STARTS: usize = 100_000;
/// Characters of a title.
const TITLE_CHARS: usize = 300;

/// Where a section begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Index of the page.
    pub page: usize,
    /// Byte offset in the page's text; moved to the start of the word it falls into.
    pub offset: usize,
    /// Depth in the table of contents, 0 for a top entry.
    pub level: usize,
    pub title: String,
}

/// The sections of a book. Without any `starts`, the pages' headings and borders stand for them.
pub fn split(pages: &[PageText], starts: Vec<Start>) -> Vec<Section> {
    let mut starts = if starts.is_empty() { starts_at_headings(pages, HEADING_LEVELS) } else { starts };
    starts.truncate(MAX_STARTS);
    let mut cuts = cuts_by_page(pages, starts);
    let mut sections: Vec<Section> = Vec::new();
    for (page, cuts) in pages.iter().zip(&mut cuts) {
        if let Some(first) = cuts.first_mut()
            && few_words(&page.text[..first.offset])
        {
            first.offset = 0;
        }
        let lead = &page.text[..cuts.first().map_or(page.text.len(), |first| first.offset)];
        place_unnamed(page, lead, &mut sections);
        for at in 0..cuts.len() {
            let end = cuts.get(at + 1).map_or(page.text.len(), |next| next.offset);
            let cut = &mut cuts[at];
            sections.push(Section {
                title: std::mem::take(&mut cut.title),
                level: cut.level,
                text: page.text[cut.offset..end].trim().to_owned(),
            });
        }
    }
    sections.retain(|section| !section.text.is_empty());
    for section in &mut sections {
        section.title = nfc(&one_line(&section.title)).chars().take(TITLE_CHARS).collect();
        if let Cow::Owned(text) = nfc(&section.text) {
            section.text = text;
        }
    }
    sections
}

/// Text that no entry names: a section of its own where a heading begins it, else the end of the section before it.
fn place_unnamed(page: &PageText, text: &str, sections: &mut Vec<Section>) {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return;
    }
    let heading = page
        .headings
        .iter()
        .find(|heading| heading.level <= HEADING_LEVELS && !page.text[heading.range.clone()].trim().is_empty())
        .filter(|heading| heading.range.end <= text.len() && few_words(&text[..heading.range.start]));
    match (heading, sections.last_mut()) {
        (None, Some(last)) => {
            last.text.push_str("\n\n");
            last.text.push_str(trimmed);
        }
        (heading, last) => {
            let level = last.map_or(0, |last| last.level);
            let title = heading.map(|heading| page.text[heading.range.clone()].to_owned()).unwrap_or_default();
            sections.push(Section { title, level, text: trimmed.to_owned() });
        }
    }
}

/// The cuts of every page in order, on word borders, at most one a place.
fn cuts_by_page(pages: &[PageText], starts: Vec<Start>) -> Vec<Vec<Start>> {
    let mut cuts: Vec<Vec<Start>> = pages.iter().map(|_| Vec::new()).collect();
    for start in starts {
        if let Some(cuts) = cuts.get_mut(start.page) {
            cuts.push(start);
        }
    }
    for (page, cuts) in pages.iter().zip(&mut cuts) {
        let text = page.text.as_str();
        // Stable: entries at one place stay in the order of the table of contents.
        cuts.sort_by_key(|cut| cut.offset);
        let mut scanned = 0;
        let mut border = 0;
        for cut in cuts.iter_mut() {
            let at = text.floor_char_boundary(cut.offset);
            border = word_start(text, at, scanned).unwrap_or(border);
            scanned = at;
            cut.offset = border;
        }
        cuts.dedup_by(|later, kept| {
            let same_place = text[kept.offset..later.offset].trim().is_empty();
            // The finer entry says more about what follows: "Chapter 1", not "Part I".
            if same_place && later.level > kept.level {
                kept.level = later.level;
                kept.title = std::mem::take(&mut later.title);
            }
            same_place
        });
        if let Some(first) = cuts.first_mut()
            && text[..first.offset].trim().is_empty()
        {
            first.offset = 0;
        }
    }
    cuts
}

/// The start of the word that `at` falls into, `at` itself on a border; None where the word began before `scanned`,
/// so that a text without spaces is looked at once, however many anchors it has.
fn word_start(text: &str, at: usize, scanned: usize) -> Option<usize> {
    if text[at..].chars().next().is_none_or(char::is_whitespace) {
        return Some(at);
    }
    match text[scanned..at].char_indices().rev().find(|(_, c)| c.is_whitespace()) {
        Some((space, c)) => Some(scanned + space + c.len_utf8()),
        None if scanned == 0 => Some(0),
        None => None,
    }
}

/// The headings as entries, `levels` of them counted from the topmost that occurs; a page without any is one entry.
pub fn starts_at_headings(pages: &[PageText], levels: usize) -> Vec<Start> {
    starts_at(pages, levels, true)
}

/// The headings as entries, whatever the pages' borders; those where there are fewer than two headings.
pub fn starts_at_headings_alone(pages: &[PageText]) -> Vec<Start> {
    let starts = starts_at(pages, HEADING_LEVELS, false);
    if starts.len() > 1 { starts } else { starts_at_headings(pages, HEADING_LEVELS) }
}

fn starts_at(pages: &[PageText], levels: usize, borders: bool) -> Vec<Start> {
    let mut starts = Vec::new();
    let title = |page: &PageText, heading: &Heading| page.text[heading.range.clone()].trim().to_owned();
    let titled = pages.iter().flat_map(|page| page.headings.iter().filter(|heading| !title(page, heading).is_empty()));
    // Many books begin with the second level or the fourth.
    let top = titled.map(|heading| heading.level).min().unwrap_or(1);
    for (index, page) in pages.iter().enumerate() {
        let before = starts.len();
        if before >= MAX_STARTS {
            break;
        }
        for heading in page.headings.iter().filter(|heading| (top..top + levels).contains(&heading.level)) {
            let title = title(page, heading);
            if !title.is_empty() {
                let (offset, level) = (heading.range.start, heading.level - top);
                starts.push(Start { page: index, offset, level, title });
            }
        }
        if borders && starts.len() == before {
            starts.push(Start { page: index, offset: 0, level: 0, title: page.title.clone().unwrap_or_default() });
        }
    }
    starts
}

fn few_words(text: &str) -> bool {
    let text = text.trim();
    text.len() <= LEAD_BYTES && text.split_whitespace().nth(LEAD_WORDS).is_none()
}

/// Unicode NFC, borrowed where the text is in it already.
pub fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || unicode_normalization::is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(text: &str) -> PageText {
        PageText { text: text.to_owned(), ..PageText::default() }
    }

    fn start(page: usize, offset: usize, level: usize, title: &str) -> Start {
        Start { page, offset, level, title: title.to_owned() }
    }

    fn shape(sections: &[Section]) -> Vec<(&str, &str)> {
        sections.iter().map(|section| (section.title.as_str(), section.text.as_str())).collect()
    }

    fn words(count: usize) -> String {
        vec!["w"; count].join(" ")
    }

    #[test]
    fn entries_split_pages_in_reading_order() {
        let pages = [page("a b c"), page("d e")];
        let starts = vec![start(1, 0, 0, "D"), start(0, 0, 0, "A"), start(0, 4, 1, "C"), start(9, 0, 0, "nowhere")];
        assert_eq!(shape(&split(&pages, starts)), [("A", "a b"), ("C", "c"), ("D", "d e")]);
    }

    #[test]
    fn a_place_inside_a_word_moves_to_its_start() {
        let starts = vec![start(0, 0, 0, "A"), start(0, 6, 0, "B"), start(0, 7, 0, "B2"), start(0, 99, 0, "end")];
        assert_eq!(shape(&split(&[page("ab žena cd")], starts)), [("A", "ab"), ("B", "žena cd")]);
    }

    #[test]
    fn entries_at_one_place_are_one_section_named_by_the_finest() {
        let starts = vec![start(0, 0, 0, "Part"), start(0, 2, 1, "Chapter"), start(0, 2, 1, "Again")];
        assert_eq!(shape(&split(&[page("\n\na b")], starts)), [("Chapter", "a b")]);
    }

    #[test]
    fn a_short_lead_goes_to_the_entry_after_it_a_long_one_before_it() {
        let pages = |lead: &str| [page("x"), page(&format!("{lead} y"))];
        let starts = |at| vec![start(0, 0, 0, "X"), start(1, at, 0, "Y")];
        assert_eq!(shape(&split(&pages("l"), starts(2))), [("X", "x"), ("Y", "l y")]);
        let lead = words(41);
        let sections = split(&pages(&lead), starts(lead.len() + 1));
        assert_eq!(shape(&sections), [("X", format!("x\n\n{lead}").as_str()), ("Y", "y")]);
    }

    #[test]
    fn unnamed_pages_follow_their_headings() {
        let mut headed = page("Head\n\ntext");
        headed.headings.push(Heading { level: 2, range: 0..4 });
        let pages = [page("cover"), page("a"), page("b"), headed];
        let sections = split(&pages, vec![start(1, 0, 0, "A")]);
        assert_eq!(shape(&sections), [("", "cover"), ("A", "a\n\nb"), ("Head", "Head\n\ntext")]);
    }

    #[test]
    fn without_entries_headings_and_pages_are_the_sections() {
        let mut headed = page("One\n\na\n\nTwo\n\nb");
        headed.headings = vec![Heading { level: 1, range: 0..3 }, Heading { level: 2, range: 6..11 }];
        let mut titled = page("c");
        titled.title = Some("Page".to_owned());
        let sections = split(&[headed, titled], vec![]);
        assert_eq!(shape(&sections), [("One", "One\n\na"), ("Two", "Two\n\nb"), ("Page", "c")]);
    }

    #[test]
    fn the_topmost_headings_are_the_sections_whatever_their_level() {
        let mut one = page("One\n\na\n\nTwo\n\nb");
        one.headings = vec![Heading { level: 4, range: 0..3 }, Heading { level: 5, range: 6..11 }];
        let pages = [page("cover"), one, page("c")];
        let sections = split(&pages, vec![]);
        assert_eq!(shape(&sections), [("", "cover"), ("One", "One\n\na"), ("Two", "Two\n\nb"), ("", "c")]);
        assert_eq!((sections[1].level, sections[2].level), (0, 1));
        let sections = split(&pages, starts_at_headings_alone(&pages));
        assert_eq!(shape(&sections), [("", "cover"), ("One", "One\n\na"), ("Two", "Two\n\nb\n\nc")]);
        assert_eq!(starts_at_headings_alone(&pages[2..]).len(), 1);
    }

    #[test]
    fn text_is_composed() {
        assert_eq!(split(&[page("s\u{30c}uma")], vec![])[0].text, "šuma");
    }

    #[test]
    fn headings_beyond_all_measure_begin_no_sections() {
        let mut one = page(&"a ".repeat(MAX_STARTS + 9));
        one.headings = (0..MAX_STARTS + 9).map(|at| Heading { level: 1, range: at * 2..at * 2 + 1 }).collect();
        let sections = split(&[one, page("b")], vec![]);
        let last = &sections[MAX_STARTS - 1];
        assert_eq!((sections.len(), last.text.split_whitespace().count()), (MAX_STARTS, 11));
    }

    #[test]
    fn many_places_in_one_long_word_cost_little() {
        let text = "字".repeat(500_000);
        let starts = (0..100_000).map(|at| start(0, at * 15, 0, "x")).collect();
        assert_eq!(split(&[page(&text)], starts).len(), 1);
    }

    proptest! {
        #[test]
        fn no_entries_lose_or_double_a_word(
            texts in prop::collection::vec("[a-cž字 \n\u{301}]{0,60}", 1..5),
            places in prop::collection::vec((0usize..6, 0usize..200, 0usize..3), 0..12),
            headings in prop::collection::vec((0usize..5, 1usize..5, 0usize..60, 0usize..20), 0..6),
        ) {
            let mut pages: Vec<PageText> = texts.iter().map(|text| page(text)).collect();
            for (at, level, from, length) in headings {
                if let Some(page) = pages.get_mut(at) {
                    let from = page.text.floor_char_boundary(from);
                    let to = page.text.floor_char_boundary(from + length).max(from);
                    page.headings.push(Heading { level, range: from..to });
                }
            }
            let starts = places.into_iter().map(|(page, offset, level)| start(page, offset, level, "t")).collect();
            let sections = split(&pages, starts);
            let joined: Vec<String> = sections.iter().flat_map(|s| s.text.split_whitespace()).map(String::from).collect();
            let expected: Vec<String> = texts.iter().flat_map(|t| t.split_whitespace()).map(|w| nfc(w).into_owned()).collect();
            prop_assert_eq!(joined, expected);
        }
    }
}
