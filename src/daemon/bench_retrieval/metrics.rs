//! What one query's list of results is worth. Pure: it knows nothing of how the list came about.

use std::ops::Range;

use super::labels::overlap;

/// What is measured of a list, in the order of [`Scores`].
pub const MEASURES: [&str; 6] = ["recall@1", "recall@5", "recall@10", "MRR@10", "nDCG@10", "text@1000"];
/// The place of nDCG@10 in [`MEASURES`]: what methods are compared by.
pub const NDCG: usize = 4;
/// The place of text@1000.
pub const TEXT: usize = 5;
/// Tokens that a reader takes from the top of a list for `text@1000`.
pub const READ_TOKENS: usize = 1000;
/// Results that any measure may look at.
pub const DEPTH: usize = 100;

/// One query's measures.
pub type Scores = [f64; MEASURES.len()];

/// A result: where it is in the book that was asked for (None: in another one), and how long it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Result {
    pub place: Option<Range<usize>>,
    pub tokens: usize,
    pub relevant: bool,
}

/// Measures a list, best result first. `relevant` of all passages there are answer the query; `own` is the section
/// that was asked for.
pub fn scores(results: &[Result], relevant: usize, own: &Range<usize>) -> Scores {
    let hits: Vec<bool> = results.iter().map(|result| result.relevant).collect();
    [
        recall(&hits, relevant, 1),
        recall(&hits, relevant, 5),
        recall(&hits, relevant, 10),
        reciprocal_rank(&hits, 10),
        ndcg(&hits, relevant, 10),
        text_read(results, own, READ_TOKENS),
    ]
}

/// The share of the relevant passages among the first `k`.
fn recall(hits: &[bool], relevant: usize, k: usize) -> f64 {
    let found = hits.iter().take(k).filter(|hit| **hit).count();
    found as f64 / relevant.max(1) as f64
}

/// One over the rank of the first relevant passage; 0 where none is among the first `k`.
fn reciprocal_rank(hits: &[bool], k: usize) -> f64 {
    hits.iter().take(k).position(|hit| *hit).map_or(0.0, |at| 1.0 / (at + 1) as f64)
}

/// Normalised discounted cumulative gain with gains of 0 and 1; the ideal list has the relevant passages first.
fn ndcg(hits: &[bool], relevant: usize, k: usize) -> f64 {
    let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    let gain: f64 = hits.iter().take(k).enumerate().filter(|(_, hit)| **hit).map(|(rank, _)| discount(rank)).sum();
    let ideal: f64 = (0..relevant.min(k)).map(discount).sum();
    if ideal > 0.0 { gain / ideal } else { 0.0 }
}

/// The share of the section that someone has seen who reads so many tokens from the top. The same whatever size the
/// passages have; what stands in several is counted once.
fn text_read(results: &[Result], own: &Range<usize>, tokens: usize) -> f64 {
    let mut left = tokens;
    let mut seen: Vec<Range<usize>> = Vec::new();
    for result in results {
        if left == 0 {
            break;
        }
        if let Some(place) = &result.place {
            let share = (left as f64 / result.tokens.max(1) as f64).min(1.0);
            let end = place.start + (place.len() as f64 * share) as usize;
            if overlap(&(place.start..end), own) > 0 {
                seen.push(place.start.max(own.start)..end.min(own.end));
            }
        }
        left = left.saturating_sub(result.tokens);
    }
    seen.sort_by_key(|range| range.start);
    let (mut covered, mut reached) = (0, own.start);
    for range in seen {
        covered += range.end.saturating_sub(range.start.max(reached));
        reached = reached.max(range.end);
    }
    covered as f64 / own.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn measures_are_as_reckoned_by_hand() {
        let hits = [false, true, false, true, false, false, false, false, false, false, true];
        // Three relevant, at ranks 2, 4 and (too late) 11.
        assert_eq!(recall(&hits, 3, 1), 0.0);
        assert!(close(recall(&hits, 3, 5), 2.0 / 3.0) && close(recall(&hits, 3, 10), 2.0 / 3.0));
        assert_eq!(reciprocal_rank(&hits, 10), 0.5);
        assert_eq!(reciprocal_rank(&hits, 1), 0.0);
        // (1/log2 3 + 1/log2 5) / (1/log2 2 + 1/log2 3 + 1/log2 4) = (0.63093 + 0.43068) / (1 + 0.63093 + 0.5)
        assert!((ndcg(&hits, 3, 10) - 1.061_606_3 / 2.130_929_8).abs() < 1e-6);
        assert_eq!(ndcg(&[true, true], 2, 10), 1.0);
        // Twelve relevant: ten first ones are ideal.
        assert!(close(ndcg(&[true; 10], 12, 10), 1.0));
        assert_eq!((ndcg(&[], 3, 10), ndcg(&[false], 0, 10)), (0.0, 0.0));
    }

    #[test]
    fn the_text_read_is_counted_once_and_cut_at_the_budget() {
        let result = |place: Option<Range<usize>>, tokens| Result { place, tokens, relevant: false };
        let own = 100..200;
        let list =
            [result(Some(90..150), 10), result(None, 40), result(Some(120..160), 10), result(Some(160..200), 80)];
        // 50 + 10 bytes after 60 tokens; then half of the last one's 40 bytes for the 40 tokens that are left.
        assert!(close(text_read(&list, &own, 60), 0.6), "{}", text_read(&list, &own, 60));
        assert!(close(text_read(&list, &own, 100), 0.8));
        assert!(close(text_read(&list, &own, 1000), 1.0));
        assert_eq!(text_read(&list, &own, 0), 0.0);
        // Of a passage of 60 bytes and 10 tokens, 2 tokens are the first 12 bytes: 2 of them in the section.
        assert!(close(text_read(&list, &own, 2), 0.02));
    }

    #[test]
    fn every_measure_has_its_name() {
        let hit = Result { place: Some(0..10), tokens: 5, relevant: true };
        assert_eq!(
            scores(&[hit], 2, &(0..20)).map(|value| (value * 1000.0).round()),
            [500., 500., 500., 1000., 613., 500.]
        );
        assert_eq!((MEASURES[NDCG], MEASURES[TEXT]), ("nDCG@10", "text@1000"));
    }
}
