//! How alike the text is before and after each sentence border, from the model's table of token embeddings alone: no
//! pass of the model. Pure; the rows are asked for once a book. Must never hold more of a row than it computes with.
//!
//! A text's vector is the sum of its tokens' rows, each weighted by a / (a + p), where p is the token's share of the
//! book's tokens; the direction that all sentences have in common is taken out (Arora, Liang and Ma, "A Simple but
//! Tough-to-Beat Baseline for Sentence Embeddings", ICLR 2017). A border is judged by the text of some length on either
//! side of it, not by two sentences (Hearst, "TextTiling", Computational Linguistics 23(1), 1997).

use std::collections::HashMap;

use super::splitter::Unit;
use crate::domain::Token;

/// The weighting's constant a: the paper's.
const RARITY: f64 = 1e-3;

/// Numbers of a row that are computed with, every n-th where the model has more: a table's columns are
/// interchangeable, and a large book's rows would take 100 MB.
const MAX_COLUMNS: usize = 384;

/// Whole rows that are held at a time.
const ROWS_AT_ONCE: usize = 1024;

/// Sentences from which the common direction is computed, evenly out of the book.
const SAMPLED_UNITS: usize = 2048;

/// Rounds of the power iteration. The common direction is far longer than the next.
const ROUNDS: usize = 8;

/// A chapter's tokens and what it is chunked from.
pub struct Tokenised<'a> {
    pub tokens: &'a [Token],
    pub units: &'a [Unit],
}

impl Tokenised<'_> {
    /// The tokens of the unit; one belongs to where its last byte is.
    fn of_unit(&self, unit: &Unit) -> &[Token] {
        let before = |at: usize| self.tokens.partition_point(|token| token.range.end.max(1) - 1 < at);
        &self.tokens[before(unit.range.start)..before(unit.range.end)]
    }
}

/// The book's tokens with their weighted vectors.
pub struct Lexicon {
    places: HashMap<u32, usize>,
    rows: Vec<f32>,
    columns: usize,
}

impl Lexicon {
    /// `fetch` gives one row for each id, all of one length.
    pub fn new<E>(
        chapters: &[Tokenised],
        mut fetch: impl FnMut(&[u32]) -> Result<Vec<Vec<f32>>, E>,
    ) -> Result<Self, E> {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for token in chapters.iter().flat_map(|chapter| chapter.tokens) {
            *counts.entry(token.id).or_default() += 1;
        }
        let total: usize = counts.values().sum();
        let mut ids: Vec<u32> = counts.keys().copied().collect();
        ids.sort_unstable();
        let (mut rows, mut columns) = (Vec::new(), 0);
        for some in ids.chunks(ROWS_AT_ONCE) {
            for (id, row) in some.iter().zip(fetch(some)?) {
                let share = counts[id] as f64 / total as f64;
                let weight = (RARITY / (RARITY + share)) as f32;
                let stride = row.len().div_ceil(MAX_COLUMNS).max(1);
                rows.extend(row.iter().step_by(stride).map(|value| value * weight));
                columns = row.len().div_ceil(stride);
            }
        }
        let places = ids.into_iter().enumerate().map(|(place, id)| (id, place)).collect();
        let mut lexicon = Self { places, rows, columns };
        lexicon.remove_common_direction(chapters);
        Ok(lexicon)
    }

    /// Takes the first principal direction (not centred, as in the paper) of the sentences' vectors out of every row;
    /// it is then in no sum of rows.
    fn remove_common_direction(&mut self, chapters: &[Tokenised]) {
        let total: usize = chapters.iter().map(|chapter| chapter.units.len()).sum();
        let units = chapters.iter().flat_map(|chapter| chapter.units.iter().map(move |unit| chapter.of_unit(unit)));
        let samples: Vec<Vec<f32>> =
            units.step_by(total.div_ceil(SAMPLED_UNITS).max(1)).map(|tokens| normalised(self.sum(tokens))).collect();
        let mut direction = vec![0f32; self.columns];
        samples.iter().for_each(|sample| add(&mut direction, sample, 1.0));
        for _ in 0..ROUNDS {
            direction = normalised(direction);
            let mut next = vec![0f32; self.columns];
            samples.iter().for_each(|sample| add(&mut next, sample, dot(sample, &direction)));
            direction = next;
        }
        let direction = normalised(direction);
        for row in self.rows.chunks_exact_mut(self.columns.max(1)) {
            let along = dot(row, &direction);
            add(row, &direction, -along);
        }
    }

    fn sum(&self, tokens: &[Token]) -> Vec<f32> {
        let mut sum = vec![0f32; self.columns];
        for token in tokens {
            if let Some(place) = self.places.get(&token.id) {
                add(&mut sum, &self.rows[place * self.columns..(place + 1) * self.columns], 1.0);
            }
        }
        sum
    }

    /// For each unit the cosine between about `reach` tokens before it and about as many from it on; 1 for the first.
    pub fn likenesses(&self, chapter: &Tokenised, reach: usize) -> Vec<f32> {
        let sums: Vec<Vec<f32>> = chapter.units.iter().map(|unit| self.sum(chapter.of_unit(unit))).collect();
        let block = |units: &mut dyn Iterator<Item = usize>| {
            let (mut sum, mut tokens) = (vec![0f32; self.columns], 0);
            for unit in units {
                add(&mut sum, &sums[unit], 1.0);
                tokens += chapter.units[unit].tokens;
                if tokens >= reach {
                    break;
                }
            }
            normalised(sum)
        };
        (0..sums.len())
            .map(|border| match border {
                0 => 1.0,
                _ => dot(&block(&mut (0..border).rev()), &block(&mut (border..sums.len()))),
            })
            .collect()
    }
}

/// Summed in eight lanes, which the compiler keeps in one register.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (heads_a, tail_a) = a.as_chunks::<8>();
    let (heads_b, tail_b) = b.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for (a, b) in heads_a.iter().zip(heads_b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + tail_a.iter().zip(tail_b).map(|(a, b)| a * b).sum::<f32>()
}

fn add(to: &mut [f32], values: &[f32], factor: f32) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value * factor);
}

/// A zero vector stays as it is: like nothing.
fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = dot(&vector, &vector).sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
    vector
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Tokens of one byte each; units of four.
    fn chapter(ids: &[u32]) -> (Vec<Token>, Vec<Unit>) {
        let tokens = ids.iter().enumerate().map(|(at, &id)| Token { id, range: at..at + 1 }).collect();
        let units = (0..ids.len() / 4).map(|unit| Unit { range: unit * 4..unit * 4 + 4, tokens: 4 }).collect();
        (tokens, units)
    }

    #[test]
    fn the_border_between_two_topics_is_the_least_alike() {
        // Token 0 is everywhere, as function words are; 1 to 3 and 4 to 6 are two topics.
        let (tokens, units) = chapter(&[
            0, 1, 2, 3, 0, 2, 3, 1, 0, 3, 1, 2, 0, 1, 3, 2, //
            0, 4, 5, 6, 0, 5, 6, 4, 0, 6, 4, 5, 0, 4, 6, 5,
        ]);
        let chapter = Tokenised { tokens: &tokens, units: &units };
        let fetch = |ids: &[u32]| {
            let row = |id: u32| (0..16).map(|n| ((id * 31 + n * 17 + id * n) % 23) as f32 - 11.0).collect();
            Ok::<Vec<Vec<f32>>, Infallible>(ids.iter().map(|&id| row(id)).collect())
        };
        let lexicon = Lexicon::new(&[Tokenised { tokens: &tokens, units: &units }], fetch).unwrap();
        let likenesses = lexicon.likenesses(&chapter, 8);
        assert_eq!(likenesses[0], 1.0);
        let least = (1..likenesses.len()).min_by(|&a, &b| likenesses[a].total_cmp(&likenesses[b]));
        assert_eq!(least, Some(4), "{likenesses:?}");
    }

    #[test]
    fn an_empty_book_and_one_of_one_word_have_likenesses() {
        for ids in [vec![], vec![7, 7, 7, 7], vec![7; 8]] {
            let (tokens, units) = chapter(&ids);
            let chapter = Tokenised { tokens: &tokens, units: &units };
            let fetch = |ids: &[u32]| Ok::<_, Infallible>(vec![vec![1.0, 2.0, 3.0]; ids.len()]);
            let lexicon = Lexicon::new(&[Tokenised { tokens: &tokens, units: &units }], fetch).unwrap();
            let likenesses = lexicon.likenesses(&chapter, 4);
            assert_eq!(likenesses.len(), units.len());
            assert!(likenesses.iter().all(|likeness| likeness.is_finite()));
        }
    }
}
