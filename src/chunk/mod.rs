//! From a document's sections to chapters (parents) and spans (children).
//!
//! Pure but for the sentence vectors it is handed: the caller embeds. Nothing here may lose a word, cut inside a word
//! that fits, or make a chunk longer than the model takes.

mod chapters;
mod sentences;
mod splitter;

pub use chapters::{Chapter, merge_into_chapters};
pub use sentences::sentence_ranges;

use crate::domain::{ChapterChunks, Section, TokenCounter};
use splitter::{Cursor, Sizes, Unit};

/// Changes when the same settings would give other chunks.
const CHUNKER_VERSION: u32 = 1;

/// Tokens a word has on average over the model families and languages at hand; turns the contract's sizes, which are
/// in words, into the model's tokens.
const TOKENS_PER_WORD: f64 = 4.0 / 3.0;

/// Where chunk borders come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Borders {
    /// The contract's rule: a border where the cosine between neighbouring sentences is under the threshold and the
    /// chunk has its minimum, or where the next sentence would exceed the maximum.
    UniversalSemantic { threshold: f32 },
    /// By size alone.
    Packed,
}

/// How to chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkSettings {
    pub borders: Borders,
    pub min_words: usize,
    pub max_words: usize,
    pub min_chapter_words: usize,
}

impl ChunkSettings {
    /// The strategy's name in the payload.
    pub fn strategy(&self) -> &'static str {
        match self.borders {
            Borders::UniversalSemantic { .. } => "universal-semantic",
            Borders::Packed => "packed",
        }
    }

    /// Changes whenever the chunks of the same text could change.
    pub fn fingerprint(&self) -> String {
        format!(
            "{}-{CHUNKER_VERSION}:{:?}:{}:{}:{}",
            self.strategy(),
            self.borders,
            self.min_words,
            self.max_words,
            self.min_chapter_words
        )
    }

    /// Chunk sizes for a model that takes `content_tokens` tokens. Two are kept back, because a chunk on its own may
    /// tokenise to a token more than inside its chapter. Where the limit is under the contract's maximum, minimum and
    /// maximum shrink in proportion.
    fn sizes(&self, content_tokens: usize) -> Sizes {
        let limit = content_tokens.saturating_sub(2).max(1);
        let max = words_as_tokens(self.max_words).clamp(1, limit);
        let min = (max as f64 * self.min_words as f64 / self.max_words.max(1) as f64).round() as usize;
        Sizes { min, max }
    }
}

/// How many tokens so many words are taken for.
pub fn words_as_tokens(words: usize) -> usize {
    (words as f64 * TOKENS_PER_WORD).round() as usize
}

/// Chunks a book. `embed` gives one unit vector for each sentence it is handed; it is called with sentences of many
/// chapters at a time, and only with those a border may depend on.
pub fn chunk_sections<E>(
    sections: &[Section],
    language: &str,
    settings: &ChunkSettings,
    counter: &dyn TokenCounter,
    content_tokens: usize,
    mut embed: impl FnMut(&[&str]) -> Result<Vec<Vec<f32>>, E>,
) -> Result<Vec<ChapterChunks>, E> {
    let sizes = settings.sizes(content_tokens);
    let chapters = merge_into_chapters(sections, settings.min_chapter_words);
    let units: Vec<Vec<Unit>> =
        chapters.iter().map(|chapter| splitter::units(&chapter.text, language, sizes.max, counter)).collect();
    let mut cursors: Vec<Cursor> = units.iter().map(|units| Cursor::new(units, sizes)).collect();
    match settings.borders {
        Borders::Packed => cursors.iter_mut().for_each(|cursor| cursor.run(|_| Some(1.0))),
        Borders::UniversalSemantic { threshold } => {
            let mut vectors: Vec<Vec<Option<Vec<f32>>>> = units.iter().map(|units| vec![None; units.len()]).collect();
            loop {
                let mut wanted: Vec<(usize, usize)> = Vec::new();
                for (chapter, cursor) in cursors.iter_mut().enumerate() {
                    let known = &vectors[chapter];
                    cursor.run(|index| {
                        let (before, after) = (known[index - 1].as_deref()?, known[index].as_deref()?);
                        Some(if dot(before, after) < threshold { 0.0 } else { 1.0 })
                    });
                    if let Some(index) = cursor.waits_for() {
                        let missing = [index - 1, index].into_iter().filter(|&unit| known[unit].is_none());
                        wanted.extend(missing.map(|unit| (chapter, unit)));
                    }
                }
                if wanted.is_empty() {
                    break;
                }
                let texts: Vec<&str> = wanted
                    .iter()
                    .map(|&(chapter, unit)| &chapters[chapter].text[units[chapter][unit].range.clone()])
                    .collect();
                for ((chapter, unit), vector) in wanted.iter().zip(embed(&texts)?) {
                    vectors[*chapter][*unit] = Some(vector);
                }
            }
        }
    }
    let spans: Vec<_> = cursors.into_iter().map(Cursor::into_spans).collect();
    let chunked = chapters.into_iter().zip(spans);
    Ok(chunked
        .map(|(chapter, children)| ChapterChunks { title: chapter.title, text: chapter.text, children })
        .collect())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::TextSpan;

    /// Words are tokens.
    struct Words;

    impl TokenCounter for Words {
        fn token_ranges(&self, text: &str) -> Vec<std::ops::Range<usize>> {
            text.split_whitespace()
                .map(|word| {
                    let start = word.as_ptr() as usize - text.as_ptr() as usize;
                    start..start + word.len()
                })
                .collect()
        }
    }

    fn settings() -> ChunkSettings {
        ChunkSettings {
            borders: Borders::UniversalSemantic { threshold: 0.55 },
            min_words: 200,
            max_words: 1200,
            min_chapter_words: 30,
        }
    }

    fn section(title: &str, level: usize, text: &str) -> Section {
        Section { title: title.into(), level, text: text.into() }
    }

    /// A vector by the sentence's first letter: sentences with the same one are alike.
    fn by_first_letter(texts: &[&str]) -> Result<Vec<Vec<f32>>, Infallible> {
        Ok(texts
            .iter()
            .map(|text| {
                let mut vector = vec![0.0; 64];
                vector[text.bytes().next().unwrap_or_default() as usize % 64] = 1.0;
                vector
            })
            .collect())
    }

    #[test]
    fn sizes_shrink_in_proportion_to_a_small_model() {
        assert_eq!(settings().sizes(8190), Sizes { min: 267, max: 1600 });
        assert_eq!(settings().sizes(254), Sizes { min: 42, max: 252 });
    }

    #[test]
    fn a_change_of_topic_is_a_border_once_the_minimum_is_reached() {
        let a = "Apples grow on trees in the garden all summer. ".repeat(6);
        let b = "Boats sail on the sea with the wind behind. ".repeat(6);
        let chunks =
            chunk_sections(&[section("T", 0, &format!("{a}{b}"))], "en", &settings(), &Words, 254, by_first_letter)
                .unwrap();
        let texts: Vec<&str> = chunks[0].children.iter().map(|child| chunks[0].child_text(child)).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].ends_with("all summer.") && texts[1].starts_with("Boats"), "{texts:?}");
    }

    proptest! {
        #[test]
        fn every_word_is_in_exactly_one_child_and_no_child_is_too_long(
            words in prop::collection::vec("[a-dA-D]{1,7}[.!?,]?", 1..900),
            breaks in prop::collection::vec(0usize..900, 0..12),
            limit in 8usize..120,
        ) {
            let mut sections = vec![section("", 0, "")];
            for (index, word) in words.iter().enumerate() {
                if breaks.contains(&index) {
                    sections.push(section(word, index % 3, ""));
                }
                let text = &mut sections.last_mut().unwrap().text;
                if !text.is_empty() {
                    text.push_str(if index % 17 == 0 { "\n\n" } else { " " });
                }
                text.push_str(word);
            }
            let chunks = chunk_sections(&sections, "en", &settings(), &Words, limit, by_first_letter).unwrap();
            let mut seen = Vec::new();
            for chapter in &chunks {
                for child in &chapter.children {
                    let text = chapter.child_text(child);
                    prop_assert_eq!(child.tokens, text.split_whitespace().count());
                    prop_assert!(child.tokens <= limit);
                    seen.extend(text.split_whitespace().map(str::to_owned));
                }
            }
            prop_assert_eq!(seen, words);
        }

        #[test]
        fn a_chapter_over_the_minimum_has_no_tiny_chunk(count in 43usize..700) {
            let text = (0..count).map(|n| format!("{} ", ["Aa", "Bb.", "Cc", "Dd", "Ee?"][n * 7 % 5])).collect::<String>();
            let chunks = chunk_sections(&[section("T", 0, text.trim())], "en", &settings(), &Words, 254, by_first_letter).unwrap();
            let children: Vec<&TextSpan> = chunks.iter().flat_map(|chapter| &chapter.children).collect();
            prop_assert!(children.iter().all(|child| child.tokens >= 21), "{:?}", children);
        }
    }
}
