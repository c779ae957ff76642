//! Which of a chapter's possible borders to take: those that together cost least. Pure; every chapter is divided as a
//! whole, so a good border is not missed because a chunk happened to be full just before it.

use super::splitter::Unit;
use crate::domain::SectionStart;

/// What stands between two units of a chapter's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    /// The end of a sentence, or of a piece of one that is longer than a chunk.
    Sentence,
    Paragraph,
    /// An entry of the table of contents begins.
    Section,
}

/// Sizes of chunks in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aim {
    /// Smaller ones are made only where a chapter has no more.
    pub min: usize,
    /// What most are near to.
    pub target: usize,
    /// No chunk is larger, but for a unit that is.
    pub max: usize,
}

/// What a chunk under the minimum costs: more than any border gains.
const TOO_SMALL: f64 = 8.0;

/// The first units of the chunks that cost least together. `tokens` are the units'; `border_costs[i]` is what a border
/// before unit i costs, negative where it is welcome; `size_weight` is what a chunk of e times the target, or an e-th
/// of it, costs.
///
/// Dynamic programming over the ends of chunks: the work is the number of units times those that a chunk can hold.
pub fn cheapest_starts(tokens: &[usize], border_costs: &[f64], aim: Aim, size_weight: f64) -> Vec<usize> {
    let size_cost = |size: usize| {
        let off = (size.max(1) as f64 / aim.target.max(1) as f64).ln();
        let missing = aim.min.saturating_sub(size) as f64 / aim.min.max(1) as f64;
        size_weight * off * off + if missing > 0.0 { TOO_SMALL * (1.0 + missing) } else { 0.0 }
    };
    // The least cost of the units before `end`, and where their last chunk starts.
    let mut best: Vec<(f64, usize)> = vec![(0.0, 0)];
    for end in 1..=tokens.len() {
        let mut size = 0;
        let mut least = (f64::INFINITY, end - 1);
        for start in (0..end).rev() {
            size += tokens[start];
            if size > aim.max && start + 1 < end {
                break;
            }
            let border = if start == 0 { 0.0 } else { border_costs[start] };
            let cost = best[start].0 + border + size_cost(size);
            if cost < least.0 {
                least = (cost, start);
            }
        }
        best.push(least);
    }
    let mut starts = Vec::new();
    let mut end = tokens.len();
    while end > 0 {
        end = best[end].1;
        starts.push(end);
    }
    starts.reverse();
    starts
}

/// Each value's rank among all, from 0 for the least to 1 for the greatest: a threshold on it is a quantile. Equal
/// values share one.
pub fn ranks(values: &[f32]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = |value: f32| sorted.partition_point(|other| other.total_cmp(&value).is_lt());
    let up_to = |value: f32| sorted.partition_point(|other| other.total_cmp(&value).is_le());
    values.iter().map(|&value| (below(value) + up_to(value)) as f64 / (2 * values.len()) as f64).collect()
}

/// What stands before each unit.
pub fn gaps(text: &str, units: &[Unit], sections: &[SectionStart]) -> Vec<Gap> {
    let gap = |index: usize| {
        let Some(before) = index.checked_sub(1).map(|before| &units[before].range) else { return Gap::Section };
        let start = units[index].range.start;
        let next_section = sections.partition_point(|section| section.at < before.end);
        if sections.get(next_section).is_some_and(|section| section.at <= start) {
            Gap::Section
        } else if text[before.end..start].contains("\n\n") {
            Gap::Paragraph
        } else {
            Gap::Sentence
        }
    };
    (0..units.len()).map(gap).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AIM: Aim = Aim { min: 20, target: 40, max: 60 };

    #[test]
    fn a_welcome_border_is_taken_and_a_dear_one_is_not() {
        let tokens = [10; 8];
        let mut costs = [1.0; 8];
        costs[3] = -1.0;
        assert_eq!(cheapest_starts(&tokens, &costs, AIM, 1.0), [0, 3]);
        costs[3] = 1.0;
        assert_eq!(cheapest_starts(&tokens, &costs, AIM, 1.0), [0, 4], "the middle, where all are alike");
        assert_eq!(cheapest_starts(&[], &[], AIM, 1.0), [0usize; 0]);
        assert_eq!(cheapest_starts(&[500], &[0.0], AIM, 1.0), [0]);
    }

    #[test]
    fn gaps_know_sections_and_paragraphs() {
        let text = "One. Two.\n\nThree.\n\nFour.";
        let unit = |word: &str| {
            let start = text.find(word).unwrap();
            Unit { range: start..start + word.len(), tokens: 1 }
        };
        let units = [unit("One."), unit("Two."), unit("Three."), unit("Four.")];
        let section = |at| SectionStart { at, path: Vec::new() };
        let found = gaps(text, &units, &[section(0), section(text.find("Four").unwrap())]);
        assert_eq!(found, [Gap::Section, Gap::Sentence, Gap::Paragraph, Gap::Section]);
    }

    #[test]
    fn ranks_are_quantiles() {
        assert_eq!(ranks(&[0.5, -1.0, 0.9, 0.1]), [0.625, 0.125, 0.875, 0.375]);
        assert_eq!(ranks(&[2.0, 1.0, 2.0]), [4.0 / 6.0, 1.0 / 6.0, 4.0 / 6.0]);
    }

    proptest! {
        #[test]
        fn the_chunks_are_whole_units_in_order_and_none_is_too_large(
            units in prop::collection::vec((1usize..=60, -1.0f64..1.0), 1..200),
        ) {
            let (tokens, costs): (Vec<usize>, Vec<f64>) = units.into_iter().unzip();
            let starts = cheapest_starts(&tokens, &costs, AIM, 0.5);
            prop_assert_eq!(starts[0], 0);
            prop_assert!(starts.is_sorted_by(|a, b| a < b));
            let ends = starts.iter().skip(1).copied().chain([tokens.len()]);
            for (start, end) in starts.iter().copied().zip(ends) {
                let size: usize = tokens[start..end].iter().sum();
                prop_assert!(size <= AIM.max);
            }
        }
    }
}
