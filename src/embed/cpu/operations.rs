//! The encoder's element-wise operations on the CPU: in place, fused, f32.
//!
//! Each goes over the rows once, in parallel over blocks of rows, in loops that the compiler vectorises for the CPU it
//! runs on (crate pulp: SSE2, AVX2 with FMA, AVX-512, NEON). Nothing is allocated here.

use rayon::prelude::*;

/// Rows handed to one task: enough work to be worth a task, little enough to balance.
const ROWS_PER_TASK: usize = 64;

/// Independent partial sums: the width of an AVX-512 register, so that reductions vectorise without reordering.
const LANES: usize = 16;

/// `x[r, c] = gelu(x[r, c] + bias[c])`, the exact (erf) form that BERT and XLM-R were trained with.
pub fn bias_gelu(x: &mut [f32], bias: &[f32]) {
    x.par_chunks_mut(bias.len() * ROWS_PER_TASK).for_each(|rows| {
        vectorised(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(bias.len()) {
                    for (value, bias) in row.iter_mut().zip(bias) {
                        *value = gelu(*value + bias);
                    }
                }
            },
        );
    });
}

/// `x = layer_norm(x + bias + residual) * gain + shift`. `residual(row)` is the row to add; `norm` is `[3, columns]`:
/// bias, gain, shift.
pub fn bias_residual_layer_norm<'a>(
    x: &mut [f32],
    residual: impl Fn(usize) -> &'a [f32] + Sync,
    norm: &[f32],
    eps: f32,
) {
    let columns = norm.len() / 3;
    let (bias, gain_shift) = norm.split_at(columns);
    let (gain, shift) = gain_shift.split_at(columns);
    x.par_chunks_mut(columns * ROWS_PER_TASK).enumerate().for_each(|(task, rows)| {
        vectorised(
            #[inline(always)]
            || {
                for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
                    layer_norm_row(row, residual(task * ROWS_PER_TASK + index), bias, gain, shift, eps);
                }
            },
        );
    });
}

/// What softmax knows of `N` rows whose scores come block by block.
pub struct RunningSoftmax<const N: usize> {
    maxima: [f32; N],
    sums: [f32; N],
    /// By how much the last block's maxima shrank everything before it.
    pub corrections: [f32; N],
}

impl<const N: usize> RunningSoftmax<N> {
    pub fn new() -> Self {
        Self { maxima: [f32::NEG_INFINITY; N], sums: [0.0; N], corrections: [0.0; N] }
    }

    pub fn inverse_sums(&self) -> [f32; N] {
        self.sums.map(|sum| 1.0 / sum)
    }
}

/// `scores[r, c] = exp(scores[r, c] - maximum of row r so far)`, kept count of in `softmax`.
pub fn exponentiate<const N: usize>(scores: &mut [f32], columns: usize, softmax: &mut RunningSoftmax<N>) {
    let RunningSoftmax { maxima, sums, corrections } = softmax;
    vectorised(
        #[inline(always)]
        || {
            for (row, ((maximum, sum), correction)) in
                scores.chunks_exact_mut(columns).zip(maxima.iter_mut().zip(sums).zip(corrections))
            {
                let raised = row_maximum(row).max(*maximum);
                *correction = exp(*maximum - raised);
                *sum = *sum * *correction + exponentiate_row(row, raised);
                *maximum = raised;
            }
        },
    );
}

/// Multiplies the first `columns` numbers of each row by the row's factor; rows start `stride` numbers apart.
pub fn scale_rows(x: &mut [f32], stride: usize, columns: usize, factors: &[f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (row, factor) in x.chunks_mut(stride).zip(factors) {
                row[..columns].iter_mut().for_each(|value| *value *= factor);
            }
        },
    );
}

/// Runs `f`, which must be `#[inline(always)]`, compiled for the CPU at hand.
#[inline(always)]
fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

#[inline(always)]
fn layer_norm_row(row: &mut [f32], residual: &[f32], bias: &[f32], gain: &[f32], shift: &[f32], eps: f32) {
    let mut sums = [0f32; LANES];
    let mut sum = 0.0;
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    let (residuals, residual_tail) = residual.as_chunks::<LANES>();
    let (biases, bias_tail) = bias.as_chunks::<LANES>();
    for ((chunk, residual), bias) in chunks.iter_mut().zip(residuals).zip(biases) {
        for lane in 0..LANES {
            chunk[lane] += residual[lane] + bias[lane];
            sums[lane] += chunk[lane];
        }
    }
    for ((value, residual), bias) in tail.iter_mut().zip(residual_tail).zip(bias_tail) {
        *value += residual + bias;
        sum += *value;
    }
    let count = row.len() as f32;
    let mean = (sum + sums.iter().sum::<f32>()) / count;
    // Two passes: the variance from the differences, not from the squares, which cancel in f32.
    let mut squares = [0f32; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let difference = chunk[lane] - mean;
            squares[lane] = difference.mul_add(difference, squares[lane]);
        }
    }
    let square = tail.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>();
    let scale = 1.0 / ((square + squares.iter().sum::<f32>()) / count + eps).sqrt();
    for ((value, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
        *value = ((*value - mean) * scale).mul_add(*gain, *shift);
    }
}

#[inline(always)]
fn row_maximum(row: &[f32]) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            // Not `f32::max`, whose care for NaN is two instructions more.
            maxima[lane] = if chunk[lane] > maxima[lane] { chunk[lane] } else { maxima[lane] };
        }
    }
    maxima.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `row = exp(row - maximum)`; returns the sum.
#[inline(always)]
fn exponentiate_row(row: &mut [f32], maximum: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let mut sum = 0.0;
    let (chunks, tail) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - maximum);
            sums[lane] += chunk[lane];
        }
    }
    for value in tail {
        *value = exp(*value - maximum);
        sum += *value;
    }
    sum + sums.iter().sum::<f32>()
}

/// `0.5 x (1 + erf(x / sqrt 2))`.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// erf by the rational approximation that Eigen and XLA use for f32 (`generic_fast_erf`, `ErfImpl32`): an odd
/// polynomial over an even one on [-4, 4], within 5e-7 of erf, and no branch or exponential.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = -2.726_142_3e-10_f32;
    for coefficient in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2] {
        p = p.mul_add(x2, coefficient);
    }
    let mut q = -1.456_607_2e-5_f32;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_474_e-2] {
        q = q.mul_add(x2, coefficient);
    }
    x * p / q
}

/// exp for x <= 0, within 2 ulp: 2^n times a degree-6 polynomial on [-ln2/2, ln2/2] (Cephes' expf).
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the sum's lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let rounded = x.mul_add(LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p.mul_add(r, coefficient);
    }
    let p = (p * r).mul_add(r, r) + 1.0;
    // Times 2^n by adding n to the exponent. A cast of `n` to an integer saturates in Rust, which does not vectorise.
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Tensor};

    use super::*;

    #[test]
    fn gelu_is_within_1e_6_of_the_exact_form() {
        for step in -8000..=8000 {
            let x = step as f32 / 1000.0;
            let exact = 0.5 * f64::from(x) * (1.0 + candle_core::cpu::erf::erf_f64(f64::from(x) / 2f64.sqrt()));
            assert!((f64::from(gelu(x)) - exact).abs() < 2e-6, "gelu({x}) = {} not {exact}", gelu(x));
        }
    }

    #[test]
    fn exp_is_exact_to_1e_6_relative_and_never_nan() {
        for step in 0..=8700 {
            let x = -(step as f32) / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 1e-6 * exact, "exp({x})");
        }
        assert!((0.0..1e-37).contains(&exp(f32::NEG_INFINITY)));
    }

    #[test]
    fn fused_operations_equal_candles_own() -> Result<()> {
        let (rows, columns) = (70, 40);
        let x = Tensor::randn(0f32, 2.0, (rows, columns), &Device::Cpu)?;
        let residual = Tensor::randn(0f32, 2.0, (rows, columns), &Device::Cpu)?;
        let norm = Tensor::randn(0f32, 1.0, (3, columns), &Device::Cpu)?;
        let (bias, gain, shift) = (norm.get(0)?, norm.get(1)?, norm.get(2)?);

        let mut mine = numbers(&x)?;
        bias_gelu(&mut mine, &numbers(&bias)?);
        assert_close(&mine, &x.broadcast_add(&bias)?.gelu_erf()?)?;

        let mut mine = numbers(&x)?;
        let residuals = numbers(&residual)?;
        let row = |row: usize| &residuals[row * columns..(row + 1) * columns];
        bias_residual_layer_norm(&mut mine, row, &numbers(&norm)?, 1e-12);
        let sum = (x.broadcast_add(&bias)? + &residual)?;
        assert_close(&mine, &candle_nn::ops::layer_norm(&sum, &gain, &shift, 1e-12)?)?;

        let mut mine = numbers(&x)?;
        let mut softmax = RunningSoftmax::<100>::new();
        exponentiate(&mut mine, columns, &mut softmax);
        scale_rows(&mut mine, columns, columns, &softmax.inverse_sums()[..rows]);
        assert_close(&mine, &candle_nn::ops::softmax_last_dim(&x)?)
    }

    fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
        tensor.flatten_all()?.to_vec1()
    }

    fn assert_close(a: &[f32], b: &Tensor) -> Result<()> {
        let worst = a.iter().zip(numbers(b)?).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(a.len() == b.elem_count() && worst < 5e-6, "largest difference {worst}");
        Ok(())
    }
}
