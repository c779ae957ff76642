//! Sections to chapters: a section too small to stand alone is merged with its neighbours, never dropped. Pure.

use crate::domain::{Section, SectionStart, word_count};

/// A chapter: what becomes a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    pub title: String,
    /// The sections' texts, a blank line between them.
    pub text: String,
    /// Where each section begins in the text.
    pub sections: Vec<SectionStart>,
}

/// Groups the sections, in order, into chapters of at least `min_words` words (but for a book that has fewer); where a
/// script has no spaces between words, they are estimated.
///
/// A section that is large enough starts a chapter of its own; smaller ones are taken up by the group before them
/// until that is large enough; what is left over at the end joins the last chapter. Every section is in exactly one
/// chapter. Sections without text give their title to nothing and vanish.
pub fn merge_into_chapters(sections: &[Section], min_words: usize) -> Vec<Chapter> {
    let mut groups: Vec<Group> = Vec::new();
    // The entries that the next one may stand under, with their levels.
    let mut above: Vec<(usize, &str)> = Vec::new();
    for section in sections {
        above.retain(|(level, _)| *level < section.level);
        above.push((section.level, section.title.trim()));
        if section.text.trim().is_empty() {
            continue;
        }
        let words = word_count(&section.text);
        let path = above.iter().filter(|(_, title)| !title.is_empty()).map(|(_, title)| (*title).to_owned()).collect();
        let part = Part { section, words, path };
        match groups.last_mut() {
            Some(group) if group.words < min_words => group.push(part),
            _ => groups.push(Group { words, parts: vec![part] }),
        }
    }
    if groups.len() > 1
        && groups.last().is_some_and(|group| group.words < min_words)
        && let (Some(small), Some(last)) = (groups.pop(), groups.last_mut())
    {
        small.parts.into_iter().for_each(|part| last.push(part));
    }
    groups.iter().map(Group::chapter).collect()
}

struct Part<'a> {
    section: &'a Section,
    words: usize,
    path: Vec<String>,
}

struct Group<'a> {
    parts: Vec<Part<'a>>,
    words: usize,
}

impl<'a> Group<'a> {
    fn push(&mut self, part: Part<'a>) {
        self.words += part.words;
        self.parts.push(part);
    }

    /// The title of the largest among the group's shallowest titled sections.
    fn chapter(&self) -> Chapter {
        let titled = || self.parts.iter().filter(|part| !part.section.title.trim().is_empty());
        let shallowest = titled().map(|part| part.section.level).min();
        let mut best: Option<&Part> = None;
        for candidate in titled().filter(|part| Some(part.section.level) == shallowest) {
            if best.is_none_or(|best| candidate.words > best.words) {
                best = Some(candidate);
            }
        }
        let title = best.map(|part| part.section.title.trim().to_owned()).unwrap_or_default();
        let (mut text, mut sections) = (String::new(), Vec::new());
        for part in &self.parts {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            sections.push(SectionStart { at: text.len(), path: part.path.clone() });
            text.push_str(part.section.text.trim());
        }
        Chapter { title, text, sections }
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
        let paths =
            |chapter: &Chapter| chapter.sections.iter().map(|section| section.path.join("/")).collect::<Vec<_>>();
        assert_eq!(paths(&chapters[0]), ["Cover", "One"]);
        assert_eq!(paths(&chapters[1]), ["One/One.A", "Two", "Index"]);
    }

    #[test]
    fn chapters_of_scripts_without_spaces_stand_alone_as_english_ones_do() {
        // 60 words each in English.
        let japanese = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。".repeat(3);
        let thai = "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ".repeat(4);
        for text in [japanese, thai] {
            let section = |title: &str| Section { title: title.into(), level: 0, text: text.clone() };
            let chapters = merge_into_chapters(&[section("1"), section("2"), section("3")], 40);
            assert_eq!(chapters.len(), 3, "{text}");
        }
        let only_a_separator = Section { title: String::new(), level: 0, text: "፡".into() };
        assert_eq!(merge_into_chapters(&[only_a_separator], 40)[0].text, "፡");
    }

    #[test]
    fn a_tiny_book_is_one_chapter() {
        let chapters = merge_into_chapters(&[section("", 0, 0), section("Only", 0, 3)], 384);
        assert_eq!(
            chapters,
            [Chapter {
                title: "Only".into(),
                text: "Only Only Only".into(),
                sections: vec![SectionStart { at: 0, path: vec!["Only".into()] }],
            }]
        );
        assert!(merge_into_chapters(&[], 384).is_empty());
    }
}
