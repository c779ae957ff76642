//! From a document's sections to chapters (parents) and spans (children).
//!
//! Pure but for the vectors it is handed: the caller embeds. Nothing here may lose a word, cut inside a word that fits,
//! or make a chunk longer than the model takes.

mod chapters;
mod cuts;
mod lexical;
mod segment;
mod sentences;
mod splitter;

pub use chapters::{Chapter, merge_into_chapters};
pub use sentences::sentence_ranges;

use crate::domain::{ChapterChunks, Section, TextSpan, Token, TokenCounter};
use lexical::{Lexicon, Tokenised, dot};
use segment::{Aim, Gap};
use splitter::{Cursor, Sizes, Unit};

/// Changes when the same settings would give other chunks.
const CHUNKER_VERSION: u32 = 2;

/// Tokens a word has on average over the model families and languages at hand; turns the contract's sizes, which are
/// in words, into the model's tokens.
const TOKENS_PER_WORD: f64 = 4.0 / 3.0;

/// Where chunk borders come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Borders {
    /// The contract's rule: a border where the cosine between neighbouring sentences is under the threshold and the
    /// chunk has its minimum, or where the next sentence would exceed the maximum. Every sentence goes through the
    /// model.
    UniversalSemantic { threshold: f32 },
    /// By size alone.
    Packed,
    /// The cheapest division of each chapter by what its borders and sizes cost.
    Cheapest { likeness: Likeness, weights: Weights },
}

/// By what the texts before and after a border are likened, for [`Borders::Cheapest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// By nothing: headings, paragraphs and sizes decide.
    None,
    /// By the model's token embeddings, without a pass of the model.
    Lexical,
    /// By sentence vectors from the model: what [`Likeness::Lexical`] is measured against.
    Model,
}

/// What borders and sizes cost, for [`Borders::Cheapest`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// The target is at most this share of the greatest size: without room above it no border could be chosen.
    pub fullness: f64,
    /// What a chunk of e times the target, or an e-th of it, costs.
    pub size: f64,
    /// What a border costs at a section's start, at a paragraph's, and between sentences.
    pub section: f64,
    pub paragraph: f64,
    pub sentence: f64,
    /// What the border costs in addition that is the most alike of the book, counted from the quantile, where it costs
    /// nothing; those below it are welcome.
    pub likeness: f64,
    pub quantile: f64,
    /// Tokens before and after a border that are likened.
    pub reach: usize,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            fullness: 0.6,
            size: 1.0,
            section: -0.5,
            paragraph: 0.0,
            sentence: 0.5,
            likeness: 1.0,
            quantile: 0.5,
            reach: 80,
        }
    }
}

/// Vectors that borders may depend on; each kind is asked for only where the strategy needs it.
pub trait BorderVectors {
    type Error;

    /// One unit vector for each sentence: a pass of the model.
    fn of_sentences(&mut self, sentences: &[&str]) -> Result<Vec<Vec<f32>>, Self::Error>;

    /// The model's embedding of each token of its vocabulary, all of one length.
    fn of_tokens(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, Self::Error>;
}

/// How to chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkSettings {
    pub borders: Borders,
    pub min_words: usize,
    /// What most chunks are near to, for [`Borders::Cheapest`].
    pub target_words: usize,
    pub max_words: usize,
    pub min_chapter_words: usize,
}

impl ChunkSettings {
    /// The strategy's name in the payload.
    pub fn strategy(&self) -> &'static str {
        match self.borders {
            Borders::UniversalSemantic { .. } => "universal-semantic",
            Borders::Packed => "packed",
            Borders::Cheapest { likeness: Likeness::None, .. } => "structure",
            Borders::Cheapest { likeness: Likeness::Lexical, .. } => "lexical",
            Borders::Cheapest { likeness: Likeness::Model, .. } => "semantic",
        }
    }

    /// Changes whenever the chunks of the same text could change.
    pub fn fingerprint(&self) -> String {
        format!(
            "{}-{CHUNKER_VERSION}:{:?}:{}:{}:{}:{}",
            self.strategy(),
            self.borders,
            self.min_words,
            self.target_words,
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

    /// The target does not shrink in proportion: chunks of 130 to 190 tokens are found best whatever the model takes
    /// (tests/RESULTS.md).
    fn aim(&self, sizes: Sizes, fullness: f64) -> Aim {
        let Sizes { min, max } = sizes;
        let fullest = (max as f64 * fullness).round() as usize;
        Aim { min, target: words_as_tokens(self.target_words).min(fullest).max(min), max }
    }
}

/// How many tokens so many words are taken for.
pub fn words_as_tokens(words: usize) -> usize {
    (words as f64 * TOKENS_PER_WORD).round() as usize
}

/// Chunks a book. The vectors are asked for sentences of many chapters at a time, and only for those a border may
/// depend on.
pub fn chunk_sections<V: BorderVectors>(
    sections: &[Section],
    language: &str,
    settings: &ChunkSettings,
    counter: &dyn TokenCounter,
    content_tokens: usize,
    vectors: &mut V,
) -> Result<Vec<ChapterChunks>, V::Error> {
    let sizes = settings.sizes(content_tokens);
    let chapters = merge_into_chapters(sections, settings.min_chapter_words);
    let lexical = matches!(settings.borders, Borders::Cheapest { likeness: Likeness::Lexical, .. });
    let (mut units, mut tokens): (Vec<Vec<Unit>>, Vec<Vec<Token>>) = (Vec::new(), Vec::new());
    for chapter in &chapters {
        let of_chapter = counter.tokens_in_pieces(&chapter.text);
        units.push(splitter::units(&chapter.text, language, sizes.max, &of_chapter));
        // A large book's tokens take ten times the memory of its text.
        if lexical {
            tokens.push(of_chapter);
        }
    }
    let spans: Vec<Vec<TextSpan>> = match settings.borders {
        Borders::Packed => units
            .iter()
            .map(|units| {
                let mut cursor = Cursor::new(units, sizes);
                cursor.run(|_| Some(1.0));
                cursor.into_spans()
            })
            .collect(),
        Borders::UniversalSemantic { threshold } => {
            greedy_by_sentences(&chapters, &units, sizes, threshold, |sentences| vectors.of_sentences(sentences))?
        }
        Borders::Cheapest { likeness, weights } => {
            let likenesses = match likeness {
                Likeness::None => None,
                Likeness::Lexical => {
                    let chapters = tokens.iter().zip(&units);
                    let book: Vec<Tokenised> = chapters.map(|(tokens, units)| Tokenised { tokens, units }).collect();
                    let lexicon = Lexicon::new(&book, |ids| vectors.of_tokens(ids))?;
                    Some(book.iter().map(|chapter| lexicon.likenesses(chapter, weights.reach)).collect())
                }
                Likeness::Model => {
                    Some(likenesses_of_sentences(&chapters, &units, |sentences| vectors.of_sentences(sentences))?)
                }
            };
            cheapest(&chapters, &units, settings.aim(sizes, weights.fullness), &weights, likenesses.as_deref())
        }
    };
    let chunked = chapters.into_iter().zip(spans).map(|(chapter, children)| {
        let Chapter { title, text, sections } = chapter;
        ChapterChunks { title, text, sections, children }
    });
    Ok(chunked.collect())
}

/// Each chapter's cheapest division; `likenesses` has one for each unit of each chapter, where there are any.
fn cheapest(
    chapters: &[Chapter],
    units: &[Vec<Unit>],
    aim: Aim,
    weights: &Weights,
    likenesses: Option<&[Vec<f32>]>,
) -> Vec<Vec<TextSpan>> {
    let ranks = likenesses.map(ranks_of_book);
    let divide = |(index, chapter): (usize, &Chapter)| {
        let units = &units[index];
        let cost = |(unit, gap): (usize, Gap)| {
            let by_structure = match gap {
                Gap::Section => weights.section,
                Gap::Paragraph => weights.paragraph,
                Gap::Sentence => weights.sentence,
            };
            let rank = ranks.as_ref().map(|ranks| ranks[index][unit]);
            by_structure + rank.map_or(0.0, |rank| weights.likeness * (rank - weights.quantile))
        };
        let gaps = segment::gaps(&chapter.text, units, &chapter.sections);
        let costs: Vec<f64> = gaps.into_iter().enumerate().map(cost).collect();
        let tokens: Vec<usize> = units.iter().map(|unit| unit.tokens).collect();
        splitter::spans(units, &segment::cheapest_starts(&tokens, &costs, aim, weights.size))
    };
    chapters.iter().enumerate().map(divide).collect()
}

/// The ranks of all chapters' borders together; the first unit of a chapter has none to compare.
fn ranks_of_book(likenesses: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let all: Vec<f32> = likenesses.iter().flat_map(|chapter| chapter.iter().skip(1)).copied().collect();
    let mut ranks = segment::ranks(&all).into_iter();
    let of_chapter = |chapter: &Vec<f32>| {
        let mut of_chapter = vec![0.0; chapter.len().min(1)];
        of_chapter.extend(ranks.by_ref().take(chapter.len().saturating_sub(1)));
        of_chapter
    };
    likenesses.iter().map(of_chapter).collect()
}

/// The cosines of neighbouring sentences' vectors.
fn likenesses_of_sentences<E>(
    chapters: &[Chapter],
    units: &[Vec<Unit>],
    mut embed: impl FnMut(&[&str]) -> Result<Vec<Vec<f32>>, E>,
) -> Result<Vec<Vec<f32>>, E> {
    let mut likenesses = Vec::new();
    for (chapter, units) in chapters.iter().zip(units) {
        let texts: Vec<&str> = units.iter().map(|unit| &chapter.text[unit.range.clone()]).collect();
        let vectors = embed(&texts)?;
        let first = (!units.is_empty()).then_some(1.0);
        likenesses.push(first.into_iter().chain(vectors.windows(2).map(|pair| dot(&pair[0], &pair[1]))).collect());
    }
    Ok(likenesses)
}

/// The contract's rule. Only sentences on which a border depends are embedded.
fn greedy_by_sentences<E>(
    chapters: &[Chapter],
    units: &[Vec<Unit>],
    sizes: Sizes,
    threshold: f32,
    mut embed: impl FnMut(&[&str]) -> Result<Vec<Vec<f32>>, E>,
) -> Result<Vec<Vec<TextSpan>>, E> {
    let mut cursors: Vec<Cursor> = units.iter().map(|units| Cursor::new(units, sizes)).collect();
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
            return Ok(cursors.into_iter().map(Cursor::into_spans).collect());
        }
        let texts: Vec<&str> =
            wanted.iter().map(|&(chapter, unit)| &chapters[chapter].text[units[chapter][unit].range.clone()]).collect();
        for ((chapter, unit), vector) in wanted.iter().zip(embed(&texts)?) {
            vectors[*chapter][*unit] = Some(vector);
        }
    }
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
        fn tokens(&self, text: &str) -> Vec<Token> {
            text.split_whitespace()
                .map(|word| {
                    let start = word.as_ptr() as usize - text.as_ptr() as usize;
                    Token { id: u32::from(word.as_bytes()[0] % 64), range: start..start + word.len() }
                })
                .collect()
        }
    }

    fn settings() -> ChunkSettings {
        ChunkSettings {
            borders: Borders::UniversalSemantic { threshold: 0.55 },
            min_words: 200,
            target_words: 260,
            max_words: 1200,
            min_chapter_words: 30,
        }
    }

    fn section(title: &str, level: usize, text: &str) -> Section {
        Section { title: title.into(), level, text: text.into() }
    }

    /// A vector by the first letter: sentences, or words, with the same one are alike.
    struct ByFirstLetter;

    impl BorderVectors for ByFirstLetter {
        type Error = Infallible;

        fn of_sentences(&mut self, sentences: &[&str]) -> Result<Vec<Vec<f32>>, Infallible> {
            let ids: Vec<u32> =
                sentences.iter().map(|text| u32::from(text.bytes().next().unwrap_or_default() % 64)).collect();
            self.of_tokens(&ids)
        }

        fn of_tokens(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, Infallible> {
            let vector = |id: u32| (0..64).map(|n| if n == id { 1.0 } else { 0.0 }).collect();
            Ok(ids.iter().map(|&id| vector(id)).collect())
        }
    }

    fn all_borders() -> [Borders; 5] {
        let cheapest = |likeness| Borders::Cheapest { likeness, weights: Weights::default() };
        [
            Borders::UniversalSemantic { threshold: 0.55 },
            Borders::Packed,
            cheapest(Likeness::None),
            cheapest(Likeness::Lexical),
            cheapest(Likeness::Model),
        ]
    }

    fn chunk(sections: &[Section], settings: &ChunkSettings, limit: usize) -> Vec<ChapterChunks> {
        chunk_sections(sections, "en", settings, &Words, limit, &mut ByFirstLetter).unwrap()
    }

    #[test]
    fn sizes_shrink_in_proportion_to_a_small_model() {
        assert_eq!(settings().sizes(8190), Sizes { min: 267, max: 1600 });
        assert_eq!(settings().sizes(254), Sizes { min: 42, max: 252 });
        let aim = |limit| settings().aim(settings().sizes(limit), 0.6).target;
        assert_eq!([aim(8190), aim(510), aim(254)], [347, 305, 151]);
    }

    #[test]
    fn a_change_of_topic_is_a_border_once_the_minimum_is_reached() {
        let a = "Apples grow on trees in the garden all summer. ".repeat(16);
        let b = "Boats sail on the sea with the wind behind. ".repeat(16);
        // In a book of two sentences the direction that all have in common is what parts them: see `lexical`.
        let by_sentences = |borders: &Borders| {
            matches!(borders, Borders::UniversalSemantic { .. } | Borders::Cheapest { likeness: Likeness::Model, .. })
        };
        for borders in all_borders().into_iter().filter(by_sentences) {
            let settings = ChunkSettings { borders, ..settings() };
            let chunks = chunk(&[section("T", 0, &format!("{a}{b}"))], &settings, 254);
            let texts: Vec<&str> = chunks[0].children.iter().map(|child| chunks[0].child_text(child)).collect();
            assert_eq!(texts.len(), 2, "{borders:?}");
            assert!(texts[0].ends_with("all summer.") && texts[1].starts_with("Boats"), "{borders:?} {texts:?}");
        }
    }

    proptest! {
        #[test]
        fn every_word_is_in_exactly_one_child_and_no_child_is_too_long(
            words in prop::collection::vec("[a-dA-D]{1,7}[.!?,]?", 1..900),
            breaks in prop::collection::vec(0usize..900, 0..12),
            limit in 8usize..120,
            borders in prop::sample::select(all_borders().to_vec()),
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
            let chunks = chunk(&sections, &ChunkSettings { borders, ..settings() }, limit);
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
        fn a_chapter_over_the_minimum_has_no_tiny_chunk(
            count in 43usize..700,
            borders in prop::sample::select(all_borders().to_vec()),
        ) {
            let text = (0..count).map(|n| format!("{} ", ["Aa", "Bb.", "Cc", "Dd", "Ee?"][n * 7 % 5])).collect::<String>();
            let chunks = chunk(&[section("T", 0, text.trim())], &ChunkSettings { borders, ..settings() }, 254);
            let children: Vec<&TextSpan> = chunks.iter().flat_map(|chapter| &chapter.children).collect();
            prop_assert!(children.iter().all(|child| child.tokens >= 21), "{:?}", children);
        }
    }
}
