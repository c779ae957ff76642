//! Attention on the CPU: blocks of queries against blocks of keys, head by head, with a running softmax, so that scores
//! stay in a core's own cache and memory does not grow with the text ("online softmax", Milakov and Gimelshein 2018;
//! FlashAttention). Each text attends to itself alone; there is no mask, because there is no padding.

use std::cell::RefCell;

use rayon::prelude::*;

use super::operations::{self, RunningSoftmax};
use super::product::{Panels, View, multiply};
use crate::embed::backend::Shape;

/// Scores of one step are at most `QUERIES * KEYS` numbers: 512 KiB.
const QUERIES: usize = 256;
const KEYS: usize = 512;
/// Fewer queries than this are not split among threads: each block lays out the keys anew.
const MIN_QUERIES: usize = 32;

thread_local! {
    /// Each thread's own; taken only where nothing is handed to other threads.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    keys: Panels,
    values: Panels,
    scores: Vec<f32>,
}

/// Queries `first .. first + queries` of the text at `start .. start + length`.
struct Block {
    start: usize,
    length: usize,
    first: usize,
    queries: usize,
}

/// `[tokens, 3 * hidden]` (query, key, value) to `[tokens, hidden]`. `ranges` are the texts' first tokens and lengths, in
/// order and without gaps. `threads`: how many this batch has for itself.
pub fn attention(qkv: &[f32], query_bias: &[f32], shape: Shape, ranges: &[(usize, usize)], threads: usize) -> Vec<f32> {
    let hidden = shape.hidden;
    let mut context = vec![0.0; qkv.len() / 3];
    let mut rest = context.as_mut_slice();
    let mut tasks = Vec::new();
    for &(start, length) in ranges {
        let share = length.div_ceil(threads).clamp(MIN_QUERIES, QUERIES);
        // Blocks of like size: 300 queries are 150 and 150, not 256 and 44.
        let queries = length.div_ceil(length.div_ceil(share));
        for first in (0..length).step_by(queries) {
            let block = Block { start, length, first, queries: queries.min(length - first) };
            let (output, others) = rest.split_at_mut(block.queries * hidden);
            rest = others;
            tasks.push((block, output));
        }
    }
    tasks.into_par_iter().for_each(|(block, output)| {
        SCRATCH.with_borrow_mut(|scratch| attend(qkv, query_bias, shape, &block, output, scratch));
    });
    context
}

/// Attention of one block of queries, all heads; `output` is `[queries, hidden]`.
fn attend(qkv: &[f32], query_bias: &[f32], shape: Shape, block: &Block, output: &mut [f32], scratch: &mut Scratch) {
    let (hidden, size) = (shape.hidden, shape.head_size());
    let stride = 3 * hidden;
    let Scratch { queries, keys, values, scores } = scratch;
    queries.resize(QUERIES * size, 0.0);
    scores.resize(QUERIES * KEYS, 0.0);
    for column in (0..hidden).step_by(size) {
        let part = |token: usize, tokens: usize, part: usize| {
            View::new(&qkv[(block.start + token) * stride + part * hidden + column..], tokens, size, stride)
        };
        let biased = part(block.first, block.queries, 0);
        for (row, query) in queries.chunks_exact_mut(size).enumerate().take(block.queries) {
            for ((query, value), bias) in query.iter_mut().zip(biased.row(row)).zip(&query_bias[column..]) {
                *query = value + bias;
            }
        }
        let context = &mut output[column..];
        let mut softmax = RunningSoftmax::<QUERIES>::new();
        for first in (0..block.length).step_by(KEYS) {
            let count = KEYS.min(block.length - first);
            keys.fill_transposed(part(first, count, 1));
            values.fill(part(first, count, 2));
            let scores = &mut scores[..block.queries * count];
            multiply(scores, count, false, View::new(queries, block.queries, size, size), keys);
            operations::exponentiate(scores, count, &mut softmax);
            if first > 0 {
                operations::scale_rows(context, hidden, size, &softmax.corrections[..block.queries]);
            }
            multiply(context, hidden, first > 0, View::new(scores, block.queries, count, count), values);
        }
        operations::scale_rows(context, hidden, size, &softmax.inverse_sums()[..block.queries]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// softmax(q k^T) v for each text and head, as the definition has it, in f64.
    fn naive(qkv: &[f32], query_bias: &[f32], shape: Shape, ranges: &[(usize, usize)]) -> Vec<f32> {
        let (hidden, size) = (shape.hidden, shape.head_size());
        let at = |token: usize, part: usize, column: usize| f64::from(qkv[token * 3 * hidden + part * hidden + column]);
        let mut context = vec![0.0; qkv.len() / 3];
        for &(start, length) in ranges {
            for (query, head) in
                (start..start + length).flat_map(|query| (0..shape.heads).map(move |head| (query, head)))
            {
                let columns = head * size..(head + 1) * size;
                let score = |key: usize| {
                    let product = |column| (at(query, 0, column) + f64::from(query_bias[column])) * at(key, 1, column);
                    columns.clone().map(product).sum::<f64>()
                };
                let scores: Vec<f64> = (start..start + length).map(score).collect();
                let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for column in columns {
                    let values = weights.iter().enumerate().map(|(key, weight)| weight * at(start + key, 2, column));
                    context[query * hidden + column] = (values.sum::<f64>() / sum) as f32;
                }
            }
        }
        context
    }

    #[test]
    fn equals_the_definition_across_blocks_of_queries_and_keys() {
        let shape = Shape { layers: 1, hidden: 24, heads: 3, intermediate: 48 };
        let lengths = [1, 2, 17, 300, KEYS, KEYS + 1, 2 * KEYS + 77];
        let ranges: Vec<(usize, usize)> =
            lengths.iter().scan(0, |end, &length| Some((std::mem::replace(end, *end + length), length))).collect();
        let tokens: usize = lengths.iter().sum();
        // Scores up to about 100: later blocks of keys must raise the maximum over and over.
        let number = |index: usize| ((index as f32 * 12.989_8).sin() * 43_758.547).fract() * 8.0;
        let qkv: Vec<f32> = (0..tokens * 3 * shape.hidden).map(number).collect();
        let query_bias: Vec<f32> = (0..shape.hidden).map(|index| number(index + 1)).collect();
        let expected = naive(&qkv, &query_bias, shape, &ranges);
        for threads in [1, 5] {
            let mine = attention(&qkv, &query_bias, shape, &ranges, threads);
            let worst = mine.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            // NaN must not pass, hence no `>`.
            assert!(mine.iter().all(|value| value.is_finite()) && worst < 1e-3, "largest difference {worst}");
        }
    }
}
