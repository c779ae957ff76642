//! Products of f32 matrices with the right-hand one laid out beforehand, once for a model's weights.
//!
//! Crate gemm, which candle uses, reaches as much with large matrices, but lays the weights out anew in each call: with
//! the few rows of a query, and where several threads share one text, that costs more than the product.
//!
//! The scheme is the usual one (Goto and van de Geijn 2008, BLIS) without blocks of the inner dimension: a panel of two
//! registers' width stays in the L1 or L2 cache while blocks of rows pass over it, and a tile of the result stays in
//! registers from its first product to its last. Vectorised by crate pulp for the CPU at hand.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Rows that pass over a panel before the next one: enough to hide how it comes from memory, few enough for the cache
/// that the cores share.
const BLOCK_ROWS: usize = 512;
/// Registers a panel is wide.
const WIDTH: usize = 2;
/// Rows of the largest tile, with 32 registers and with 16.
const TILE_ROWS: usize = 12;
const SMALL_TILE_ROWS: usize = 6;
/// The widest panel there is, in numbers (AVX-512).
const MAX_WIDTH: usize = WIDTH * 16;

/// `$body` for each `$index` below the constant `$count`, at most [`TILE_ROWS`], one after the other without a loop.
macro_rules! unroll {
    ($count:ident, $index:ident => $body:expr) => {
        unroll!(@ $count, $index => $body; 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $count:ident, $index:ident => $body:expr; $($number:literal)*) => {
        $(
            if $number < $count {
                let $index = $number;
                $body;
            }
        )*
    };
}

/// A row-major matrix in a slice; rows start `stride` numbers apart.
#[derive(Clone, Copy)]
pub struct View<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a> View<'a> {
    pub fn new(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        Self { values, rows, columns, stride }
    }

    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..][..self.columns]
    }

    fn narrow(&self, first: usize, rows: usize) -> Self {
        Self { values: &self.values[first * self.stride..], rows, ..*self }
    }
}

/// A right-hand matrix `[depth, columns]`, laid out as `[panels][depth][width]`; the last panel is filled up with zeros.
#[derive(Default)]
pub struct Panels {
    values: Vec<f32>,
    depth: usize,
    columns: usize,
    width: usize,
}

impl Panels {
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Takes over a matrix as it is.
    pub fn fill(&mut self, matrix: View) {
        self.reset(matrix.rows, matrix.columns);
        let Self { values, depth, width, .. } = self;
        for (index, panel) in values.chunks_exact_mut(*depth * *width).enumerate() {
            for (row, target) in panel.chunks_exact_mut(*width).enumerate() {
                let source = &matrix.row(row)[index * *width..];
                let columns = source.len().min(*width);
                target[..columns].copy_from_slice(&source[..columns]);
            }
        }
    }

    /// Takes over a matrix' transpose.
    pub fn fill_transposed(&mut self, matrix: View) {
        self.reset(matrix.columns, matrix.rows);
        let Self { values, depth, width, columns } = self;
        for (index, panel) in values.chunks_exact_mut(*depth * *width).enumerate() {
            for column in 0..(*width).min(*columns - index * *width) {
                let source = matrix.row(index * *width + column);
                for (target, value) in panel[column..].iter_mut().step_by(*width).zip(source) {
                    *target = *value;
                }
            }
        }
    }

    fn reset(&mut self, depth: usize, columns: usize) {
        let width = Arch::new().dispatch(PanelWidth);
        if !columns.is_multiple_of(width) {
            // What an earlier matrix left there is not zero.
            self.values.clear();
        }
        self.values.resize(columns.next_multiple_of(width) * depth, 0.0);
        *self = Self { values: std::mem::take(&mut self.values), depth, columns, width };
    }
}

/// `a b`, its rows one after the other, by up to `threads` threads of rayon's current pool.
pub fn product(a: View, b: &Panels, threads: usize) -> Vec<f32> {
    let mut output = vec![0.0; a.rows * b.columns];
    if a.rows <= BLOCK_ROWS && threads > 1 {
        // Few rows share out the columns: what takes the time is to read the weights, so each is read by one thread.
        let share = (b.columns.div_ceil(b.width)).div_ceil(threads) * b.width;
        let parts: Vec<(usize, usize, Vec<f32>)> = (0..b.columns)
            .into_par_iter()
            .step_by(share)
            .map(|first| {
                let columns = share.min(b.columns - first);
                let mut part = vec![0.0; a.rows * columns];
                multiply_columns(&mut part, columns, false, a, b, first, columns);
                (first, columns, part)
            })
            .collect();
        for (first, columns, part) in parts {
            for (target, row) in output.chunks_exact_mut(b.columns).zip(part.chunks_exact(columns)) {
                target[first..first + columns].copy_from_slice(row);
            }
        }
    } else {
        let tasks = a.rows.div_ceil(BLOCK_ROWS).next_multiple_of(threads);
        let rows = a.rows.div_ceil(tasks.max(1)).next_multiple_of(TILE_ROWS).max(TILE_ROWS);
        output.par_chunks_mut(rows * b.columns).enumerate().for_each(|(task, output)| {
            multiply(output, b.columns, false, a.narrow(task * rows, output.len() / b.columns), b);
        });
    }
    output
}

/// `output = a b`, or `output += a b`, on this thread. `output`'s rows start `stride` numbers apart; what lies between
/// them stays as it is.
pub fn multiply(output: &mut [f32], stride: usize, add: bool, a: View, b: &Panels) {
    multiply_columns(output, stride, add, a, b, 0, b.columns);
}

/// The same for some of `b`'s columns; `first` begins a panel.
fn multiply_columns(output: &mut [f32], stride: usize, add: bool, a: View, b: &Panels, first: usize, columns: usize) {
    assert_eq!(a.columns, b.depth);
    Arch::new().dispatch(Multiply { output, stride, add, a, b, first, columns });
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        WIDTH * size_of::<S::f32s>() / size_of::<f32>()
    }
}

struct Multiply<'a> {
    output: &'a mut [f32],
    stride: usize,
    add: bool,
    a: View<'a>,
    b: &'a Panels,
    first: usize,
    columns: usize,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { output, stride, add, a, b, first, columns } = self;
        let panels = b.values[first * b.depth..].chunks_exact(b.depth * b.width);
        for (panel, column) in panels.zip((0..columns).step_by(b.width)) {
            let columns = b.width.min(columns - column);
            let mut row = 0;
            while row < a.rows {
                let output = &mut output[row * stride + column..];
                let a = a.narrow(row, a.rows - row);
                row += match a.rows {
                    TILE_ROWS.. if S::REGISTER_COUNT >= 32 => {
                        tile::<S, TILE_ROWS>(simd, output, stride, columns, add, a, panel)
                    }
                    SMALL_TILE_ROWS.. => tile::<S, SMALL_TILE_ROWS>(simd, output, stride, columns, add, a, panel),
                    4.. => tile::<S, 4>(simd, output, stride, columns, add, a, panel),
                    2.. => tile::<S, 2>(simd, output, stride, columns, add, a, panel),
                    _ => tile::<S, 1>(simd, output, stride, columns, add, a, panel),
                };
            }
        }
    }
}

/// The first `R` rows of `a` times a panel; returns `R`.
#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    output: &mut [f32],
    stride: usize,
    columns: usize,
    add: bool,
    a: View,
    panel: &[f32],
) -> usize {
    // Unrolled by hand: the sums are to stay in registers whatever the profile's opt-level makes of loops.
    let mut rows = [a.row(0); R];
    unroll!(R, row => rows[row] = a.row(row));
    let mut sums = [[simd.splat_f32s(0.0); WIDTH]; R];
    let factors = &S::as_simd_f32s(panel).0.as_chunks::<WIDTH>().0[..a.columns];
    for (index, factors) in factors.iter().enumerate() {
        unroll!(R, row => {
            let value = simd.splat_f32s(rows[row][index]);
            sums[row][0] = simd.mul_add_e_f32s(value, factors[0], sums[row][0]);
            sums[row][1] = simd.mul_add_e_f32s(value, factors[1], sums[row][1]);
        });
    }
    unroll!(R, row => store(simd, &mut output[row * stride..][..columns], add, sums[row]));
    R
}

/// `output = sums`, or `output += sums`; fewer numbers than the sums are at the right edge.
#[inline(always)]
fn store<S: Simd>(simd: S, output: &mut [f32], add: bool, sums: [S::f32s; WIDTH]) {
    let width = PanelWidth.with_simd(simd);
    if let ([output], []) = S::as_mut_simd_f32s(output).0.as_chunks_mut::<WIDTH>() {
        output[0] = if add { simd.add_f32s(output[0], sums[0]) } else { sums[0] };
        output[1] = if add { simd.add_f32s(output[1], sums[1]) } else { sums[1] };
    } else {
        let mut whole = [0.0; MAX_WIDTH];
        S::as_mut_simd_f32s(&mut whole[..width]).0.copy_from_slice(&sums);
        for (output, sum) in output.iter_mut().zip(whole) {
            *output = if add { *output + sum } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|index| (((index + seed) as f32 * 12.989_8).sin() * 43_758.547).fract()).collect()
    }

    #[test]
    fn equals_the_definition_for_all_sizes_of_tiles_and_panels() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (rows, depth, columns) in
            [(1, 1, 1), (5, 3, 2), (13, 7, 33), (25, 40, 64), (191, 5, 95), (192, 9, 31), (193, 8, 70), (700, 2, 40)]
        {
            let a = numbers(rows * depth, 1);
            let b = numbers(depth * columns, 2);
            let transposed: Vec<f32> =
                (0..columns).flat_map(|column| b[column..].iter().copied().step_by(columns)).collect();
            let expected = |row: usize, column: usize| -> f32 {
                (0..depth).map(|index| a[row * depth + index] * b[index * columns + column]).sum()
            };
            let a = View::new(&a, rows, depth, depth);
            // Filled twice: nothing of the first matrix may remain.
            let mut panels = Panels::default();
            panels.fill(View::new(&[9.0; 48 * 50], 48, 50, 50));
            for way in 0..2 {
                match way {
                    0 => panels.fill(View::new(&b, depth, columns, columns)),
                    _ => panels.fill_transposed(View::new(&transposed, columns, depth, depth)),
                }
                for threads in [1, 3] {
                    let mine = pool.install(|| product(a, &panels, threads));
                    assert_eq!(mine.len(), rows * columns);
                    for (index, value) in mine.iter().enumerate() {
                        let expected = expected(index / columns, index % columns);
                        assert!((value - expected).abs() < 1e-4, "{rows} {depth} {columns} at {index}: {value}");
                    }
                }
                // Into rows wider than the product, on top of what is there.
                let mut wide = vec![1.0; rows * (columns + 3)];
                multiply(&mut wide, columns + 3, true, a, &panels);
                for (index, value) in wide.iter().enumerate() {
                    let (row, column) = (index / (columns + 3), index % (columns + 3));
                    let expected = if column < columns { 1.0 + expected(row, column) } else { 1.0 };
                    assert!((value - expected).abs() < 1e-4, "{rows} {depth} {columns} at {index}: {value}");
                }
            }
        }
    }
}
