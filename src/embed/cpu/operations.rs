//! The encoder's own element-wise operations, in place and fused, f32 on the CPU.
//!
//! candle's own are single-threaded, unfused, and compute erf at 11 ns an element. Each operation here goes over the
//! rows once, in parallel over blocks of rows, in a loop the compiler vectorises for the CPU it runs on (crate pulp).
//! Tensors must be contiguous f32; anything else is an error, never a silent copy.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail};
use rayon::prelude::*;

/// Rows handed to one task: enough work to be worth a task, little enough to balance.
const ROWS_PER_TASK: usize = 64;

/// `x[r, c] = gelu(x[r, c] + bias[c])`, the exact (erf) form that BERT and XLM-R were trained with.
pub fn bias_gelu(x: &Tensor, bias: &Tensor) -> Result<()> {
    x.inplace_op2(bias, &BiasGelu)
}

/// `x[r, c] += bias[c]` for the first `bias.len()` columns of every row.
pub fn add_bias_to_first_columns(x: &Tensor, bias: &Tensor) -> Result<()> {
    x.inplace_op2(bias, &AddBias)
}

/// `x = layer_norm(x + bias + residual) * gain + shift`; `parameters` is `[3, columns]`: bias, gain, shift.
pub fn bias_residual_layer_norm(x: &Tensor, residual: &Tensor, parameters: &Tensor, eps: f32) -> Result<()> {
    x.inplace_op3(residual, parameters, &BiasResidualLayerNorm { eps })
}

/// Softmax over the last dimension.
pub fn softmax(x: &Tensor) -> Result<()> {
    x.inplace_op1(&Softmax)
}

struct BiasGelu;

impl InplaceOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, bias: &CpuStorage, bias_layout: &Layout) -> Result<()> {
        let bias = slice(bias, bias_layout)?;
        let x = slice_mut(x, x_layout)?;
        for_each_rows(x, bias.len(), |rows| {
            for row in rows.chunks_exact_mut(bias.len()) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value = gelu(*value + bias);
                }
            }
        });
        Ok(())
    }
}

struct AddBias;

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, x_layout: &Layout, bias: &CpuStorage, bias_layout: &Layout) -> Result<()> {
        let columns = last_dimension(x_layout)?;
        let bias = slice(bias, bias_layout)?;
        let x = slice_mut(x, x_layout)?;
        for_each_rows(x, columns, |rows| {
            for row in rows.chunks_exact_mut(columns) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        });
        Ok(())
    }
}

struct BiasResidualLayerNorm {
    eps: f32,
}

impl InplaceOp3 for BiasResidualLayerNorm {
    fn name(&self) -> &'static str {
        "bias-residual-layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<()> {
        let columns = last_dimension(x_layout)?;
        let residual = slice(residual, residual_layout)?;
        let parameters = slice(parameters, parameters_layout)?;
        let x = slice_mut(x, x_layout)?;
        if residual.len() != x.len() || parameters.len() != 3 * columns {
            bail!("layer norm: {} values, {} residuals, {} parameters", x.len(), residual.len(), parameters.len());
        }
        let (bias, gain_shift) = parameters.split_at(columns);
        let (gain, shift) = gain_shift.split_at(columns);
        let eps = self.eps;
        let block = columns * ROWS_PER_TASK;
        x.par_chunks_mut(block).zip(residual.par_chunks(block)).for_each(|(rows, residuals)| {
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (row, residual) in rows.chunks_exact_mut(columns).zip(residuals.chunks_exact(columns)) {
                        layer_norm_row(row, residual, bias, gain, shift, eps);
                    }
                },
            );
        });
        Ok(())
    }
}

struct Softmax;

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let columns = last_dimension(layout)?;
        let x = slice_mut(x, layout)?;
        // Called once a sequence from a parallel loop over sequences, so it does not split its own rows.
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for row in x.chunks_exact_mut(columns) {
                    softmax_row(row);
                }
            },
        );
        Ok(())
    }
}

#[inline(always)]
fn layer_norm_row(row: &mut [f32], residual: &[f32], bias: &[f32], gain: &[f32], shift: &[f32], eps: f32) {
    let mut sums = [0f32; LANES];
    for ((row, residual), bias) in row.chunks_mut(LANES).zip(residual.chunks(LANES)).zip(bias.chunks(LANES)) {
        for (lane, ((value, residual), bias)) in row.iter_mut().zip(residual).zip(bias).enumerate() {
            *value += residual + bias;
            sums[lane] += *value;
        }
    }
    let count = row.len() as f32;
    let mean = sums.iter().sum::<f32>() / count;
    // Two passes: the variance from the differences, not from the squares, which cancel in f32.
    let mut squares = [0f32; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, value) in chunk.iter().enumerate() {
            let difference = value - mean;
            squares[lane] += difference * difference;
        }
    }
    let scale = 1.0 / (squares.iter().sum::<f32>() / count + eps).sqrt();
    for ((value, gain), shift) in row.iter_mut().zip(gain).zip(shift) {
        *value = (*value - mean) * scale * gain + shift;
    }
}

#[inline(always)]
fn softmax_row(row: &mut [f32]) {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, value) in chunk.iter().enumerate() {
            maxima[lane] = if *value > maxima[lane] { *value } else { maxima[lane] };
        }
    }
    let maximum = maxima.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; LANES];
    for chunk in row.chunks_mut(LANES) {
        for (lane, value) in chunk.iter_mut().enumerate() {
            *value = exp(*value - maximum);
            sums[lane] += *value;
        }
    }
    let scale = 1.0 / sums.iter().sum::<f32>();
    for value in row {
        *value *= scale;
    }
}

/// Independent partial sums: the width of an AVX-512 register, so that reductions vectorise without reordering.
const LANES: usize = 16;

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
        p = p * x2 + coefficient;
    }
    let mut q = -1.456_607_2e-5_f32;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_474_e-2] {
        q = q * x2 + coefficient;
    }
    x * p / q
}

/// exp for x <= 0, within 2 ulp: 2^n times a degree-6 polynomial on [-ln2/2, ln2/2] (Cephes' expf).
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a function call.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let n = (x * LOG2_E + ROUND) - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p * r + coefficient;
    }
    let p = p * r * r + r + 1.0;
    f32::from_bits(((n as i32 + 127) << 23) as u32) * p
}

/// Applies `f` to blocks of whole rows, in parallel, compiled for the CPU at hand.
fn for_each_rows(x: &mut [f32], columns: usize, f: impl Fn(&mut [f32]) + Sync) {
    x.par_chunks_mut(columns * ROWS_PER_TASK).for_each(|rows| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || f(rows),
        );
    });
}

fn last_dimension(layout: &Layout) -> Result<usize> {
    match layout.dims().last() {
        Some(&columns) if columns > 0 => Ok(columns),
        _ => bail!("an element-wise operation needs at least one column"),
    }
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage.as_slice::<f32>(), layout.contiguous_offsets()) {
        (Ok(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("an element-wise operation needs a contiguous f32 tensor"),
    }
}

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("an element-wise operation needs a contiguous f32 tensor"),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

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
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn fused_operations_equal_candles_own() -> Result<()> {
        let (rows, columns) = (70, 40);
        let x = Tensor::randn(0f32, 2.0, (rows, columns), &Device::Cpu)?;
        let residual = Tensor::randn(0f32, 2.0, (rows, columns), &Device::Cpu)?;
        let parameters = Tensor::randn(0f32, 1.0, (3, columns), &Device::Cpu)?;
        let (bias, gain, shift) = (parameters.get(0)?, parameters.get(1)?, parameters.get(2)?);

        let mine = x.copy()?;
        bias_gelu(&mine, &bias)?;
        assert_close(&mine, &x.broadcast_add(&bias)?.gelu_erf()?)?;

        let mine = x.copy()?;
        bias_residual_layer_norm(&mine, &residual, &parameters, 1e-12)?;
        let sum = (x.broadcast_add(&bias)? + &residual)?;
        assert_close(&mine, &candle_nn::ops::layer_norm(&sum, &gain, &shift, 1e-12)?)?;

        let mine = x.copy()?;
        softmax(&mine)?;
        assert_close(&mine, &candle_nn::ops::softmax_last_dim(&x)?)?;

        let mine = x.copy()?;
        add_bias_to_first_columns(&mine, &bias.narrow(0, 0, 16)?)?;
        let padded = bias.narrow(0, 0, 16)?.pad_with_zeros(0, 0, columns - 16)?;
        assert_close(&mine, &x.broadcast_add(&padded)?)
    }

    fn assert_close(a: &Tensor, b: &Tensor) -> Result<()> {
        let difference = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
        assert!(difference < 5e-6, "largest difference {difference}");
        Ok(())
    }
}
