//! Every question against every passage of its collection, exactly. Pure.

use super::labels::{LabelledBook, is_relevant};
use super::metrics::{DEPTH, Result, Scores, scores};
use super::passages::Collection;
use super::questions::Question;

/// Who counts as an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Passages alone; chapters take places in the list and answer nothing.
    Passages,
    /// Chapters, too, by the same rule.
    All,
}

/// The measures of one question whose vector is `vector`.
pub fn ask(
    question: &Question,
    vector: &[f32],
    collection: &Collection,
    books: &[LabelledBook],
    judged: Judged,
) -> Scores {
    let own = &books[question.book].own[question.section];
    let mut ranked: Vec<(f32, usize)> =
        collection.vectors.iter().enumerate().map(|(index, passage)| (dot(passage, vector), index)).collect();
    // The best first; of equals the first in the books.
    let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if ranked.len() > DEPTH {
        ranked.select_nth_unstable_by(DEPTH - 1, order);
        ranked.truncate(DEPTH);
    }
    ranked.sort_unstable_by(order);
    let answers = |index: usize| {
        let passage = &collection.passages[index];
        passage.book == question.book && (judged == Judged::All || !passage.chapter) && is_relevant(&passage.place, own)
    };
    let relevant = (0..collection.passages.len()).filter(|&index| answers(index)).count();
    let results: Vec<Result> = ranked
        .into_iter()
        .map(|(_, index)| {
            let passage = &collection.passages[index];
            Result {
                place: (passage.book == question.book).then(|| passage.place.clone()),
                tokens: passage.tokens,
                relevant: answers(index),
            }
        })
        .collect();
    scores(&results, relevant, own)
}

/// Eight sums side by side, so that the compiler can use the vector unit; always in the same order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::bench_retrieval::metrics::MEASURES;
    use crate::daemon::bench_retrieval::passages::Passage;
    use crate::domain::Section;

    #[test]
    fn a_chapter_in_the_list_takes_a_place_and_answers_only_where_it_is_judged() {
        let section = |text: &str| Section { title: text.to_uppercase(), level: 0, text: text.repeat(100) };
        let books = [LabelledBook::new("b".into(), "b".into(), "en".into(), vec![section("one"), section("two")])];
        let passage = |place, chapter| Passage { book: 0, place, tokens: 50, chapter };
        let collection = Collection {
            passages: vec![passage(0..300, false), passage(300..600, false), passage(0..600, true)],
            vectors: vec![vec![0.6, 0.8], vec![0.8, 0.6], vec![1.0, 0.0]],
            ..Collection::default()
        };
        let question = Question { text: String::new(), book: 0, section: 1 };
        let mrr = |judged| ask(&question, &[1.0, 0.0], &collection, &books, judged)[3];
        assert_eq!(MEASURES[3], "MRR@10");
        assert_eq!((mrr(Judged::Passages), mrr(Judged::All)), (0.5, 1.0));
    }

    #[test]
    fn products_are_whole() {
        let numbers: Vec<f32> = (0..19).map(|n| n as f32).collect();
        assert_eq!(dot(&numbers, &numbers), (0..19).map(|n| (n * n) as f32).sum::<f32>());
    }
}
