//! Sections to chapters: a section too small to stand alone is merged with its neighbours, never dropped. Pure.

use crate::domain::Section;

/// A chapter: what becomes a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    pub title: String,
    /// The sections' texts, a blank line between them.
    pub text: String,
    /// Where each section begins in the text, in bytes.
    pub section_starts: Vec<usize>,
}

/// Groups the sections, in order, into chapters of at least `min_words` words (but for a book that has fewer).
///
/// A section that is large enough starts a chapter of its own; smaller ones are taken up by the group before them
/// until that is large enough; what is left over at the end joins the last chapter. Every section is in exactly one
/// chapter. Sections without text give their title to nothing and vanish.
pub fn merge_into_chapters(sections: &[Section], min_words: usize) -> Vec<Chapter> {
    let mut groups: Vec<Group> = Vec::new();
    for section in sections {
        let words = section.text.split_whitespace().count();
        if words == 0 {
            continue;
        }
        match groups.last_mut() {
            Some(group) if group.words < min_words => group.push(section, words),
            _ => groups.push(Group::new(section, words)),
        }
    }
    if groups.len() > 1
        && groups.last().is_some_and(|group| group.words < min_words)
        && let (Some(small), Some(last)) = (groups.pop(), groups.last_mut())
    {
        small.sections.into_iter().for_each(|(section, words)| last.push(section, words));
    }
    groups.iter().map(Group::chapter).collect()
}

struct Group<'a> {
    sections: Vec<(&'a Section, usize)>,
    words: usize,
}

impl<'a> Group<'a> {
    fn new(section: &'a Section, words: usize) -> Self {
        Self { sections: vec![(section, words)], words }
    }

    fn push(&mut self, section: &'a Section, words: usize) {
        self.sections.push((section, words));
        self.words += words;
    }

    /// The title of the largest among the group's shallowest titled sections.
    fn chapter(&self) -> Chapter {
        let titled = || self.sections.iter().filter(|(section, _)| !section.title.trim().is_empty());
        let shallowest = titled().map(|(section, _)| section.level).min();
        let mut best: Option<&(&Section, usize)> = None;
        for candidate in titled().filter(|(section, _)| Some(section.level) == shallowest) {
            if best.is_none_or(|best| candidate.1 > best.1) {
                best = Some(candidate);
            }
        }
        let title = best.map(|(section, _)| section.title.trim().to_owned()).unwrap_or_default();
        let (mut text, mut section_starts) = (String::new(), Vec::new());
        for (section, _) in &self.sections {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            section_starts.push(text.len());
            text.push_str(section.text.trim());
        }
        Chapter { title, text, section_starts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(title: &str, level: usize, words: usize) -> Section {
        Section { title: title.into(), level, text: format!("{title} ").repeat(words).trim().to_owned() }
    }

    #[test]
    fn small_sections_are_merged_and_none_is_dropped() {
        let sections = [
            section("Cover", 0, 3),
            section("One", 0, 50),
            section("One.A", 1, 4),
            section("Two", 0, 60),
            section("Index", 0, 2),
        ];
        let chapters = merge_into_chapters(&sections, 40);
        let titles: Vec<&str> = chapters.iter().map(|chapter| chapter.title.as_str()).collect();
        assert_eq!(titles, ["One", "Two"]);
        let words: usize = chapters.iter().map(|chapter| chapter.text.split_whitespace().count()).sum();
        assert_eq!(words, 119);
    }

    #[test]
    fn a_tiny_book_is_one_chapter() {
        let chapters = merge_into_chapters(&[section("", 0, 0), section("Only", 0, 3)], 384);
        assert_eq!(
            chapters,
            [Chapter { title: "Only".into(), text: "Only Only Only".into(), section_starts: vec![0] }]
        );
        assert!(merge_into_chapters(&[], 384).is_empty());
    }
}
