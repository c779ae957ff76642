//! The CPU backend: candle tensors in f32. It keeps nothing between two batches, so several threads can share it.

use candle_core::{DType, Device, Tensor};

use super::operations;
use crate::embed::EmbedError;
use crate::embed::backend::{Backend, PackedBatch, Pooling, Shape, l2_normalised};

/// Score matrices of one attention step stay under this many numbers: long texts go in blocks of queries.
const MAX_SCORES: usize = 4 << 20;

/// See the file's head.
pub struct CpuBackend {
    shape: Shape,
}

/// Token ids and positions as tensors, `[tokens]`, and where the texts are.
pub struct CpuBatch {
    ids: Tensor,
    positions: Tensor,
    /// First token and length of each text.
    ranges: Vec<(usize, usize)>,
}

impl CpuBackend {
    pub fn new(shape: Shape) -> Self {
        Self { shape }
    }

    fn attention_of_text(&self, qkv: &Tensor) -> candle_core::Result<Tensor> {
        let length = qkv.dims()[0];
        let Shape { hidden, heads, .. } = self.shape;
        // [length, hidden] -> [heads, length, head size], as a view.
        let part = |part: usize| -> candle_core::Result<Tensor> {
            qkv.narrow(1, part * hidden, hidden)?.reshape((length, heads, self.shape.head_size()))?.transpose(0, 1)
        };
        let (query, key, value) = (part(0)?, part(1)?.contiguous()?.t()?, part(2)?.contiguous()?);
        let block = (MAX_SCORES / (heads * length)).clamp(1, length);
        let mut parts = Vec::with_capacity(length.div_ceil(block));
        for first in (0..length).step_by(block) {
            let queries = query.narrow(1, first, block.min(length - first))?.contiguous()?;
            let scores = queries.matmul(&key)?;
            operations::softmax(&scores)?;
            parts.push(scores.matmul(&value)?);
        }
        let context = if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(&parts, 1)? };
        context.transpose(0, 1)?.reshape((length, hidden))
    }
}

impl Backend for CpuBackend {
    type Matrix = Tensor;
    type Parameters = Tensor;
    type Rows = Tensor;
    type Batch = CpuBatch;
    type Pooled = Vec<Vec<f32>>;

    fn matrix(&self, host: &Tensor) -> Result<Tensor, EmbedError> {
        Ok(host.to_dtype(DType::F32)?.contiguous()?)
    }

    fn parameters(&self, host: &Tensor) -> Result<Tensor, EmbedError> {
        Ok(host.contiguous()?)
    }

    fn begin(&self, batch: &PackedBatch) -> Result<CpuBatch, EmbedError> {
        let tensor = |values: &[u32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        Ok(CpuBatch {
            ids: tensor(&batch.ids)?,
            positions: tensor(&batch.positions)?,
            ranges: batch.ranges().collect(),
        })
    }

    fn embed_layer_norm(
        &self,
        batch: &CpuBatch,
        words: &Tensor,
        positions: &Tensor,
        norm: &Tensor,
        eps: f32,
    ) -> Result<Tensor, EmbedError> {
        let x = words.index_select(&batch.ids, 0)?;
        operations::bias_residual_layer_norm(&x, &positions.index_select(&batch.positions, 0)?, norm, eps)?;
        Ok(x)
    }

    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor, EmbedError> {
        Ok(x.matmul(&weight.t()?)?)
    }

    fn attention(&self, batch: &CpuBatch, qkv: Tensor, query_bias: &Tensor) -> Result<Tensor, EmbedError> {
        operations::add_bias_to_first_columns(&qkv, query_bias)?;
        let mut contexts = Vec::with_capacity(batch.ranges.len());
        for &(start, length) in &batch.ranges {
            contexts.push(self.attention_of_text(&qkv.narrow(0, start, length)?)?);
        }
        Ok(if contexts.len() == 1 { contexts.swap_remove(0).contiguous()? } else { Tensor::cat(&contexts, 0)? })
    }

    fn bias_residual_layer_norm(
        &self,
        x: &mut Tensor,
        residual: &Tensor,
        norm: &Tensor,
        eps: f32,
    ) -> Result<(), EmbedError> {
        Ok(operations::bias_residual_layer_norm(x, residual, norm, eps)?)
    }

    fn bias_gelu(&self, x: &mut Tensor, bias: &Tensor) -> Result<(), EmbedError> {
        Ok(operations::bias_gelu(x, bias)?)
    }

    fn pool(&self, batch: CpuBatch, x: Tensor, pooling: Pooling) -> Result<Vec<Vec<f32>>, EmbedError> {
        let pooled = |&(start, length): &(usize, usize)| -> candle_core::Result<Vec<f32>> {
            let tokens = x.narrow(0, start, length)?;
            let vector = match pooling {
                Pooling::Cls => tokens.get(0)?,
                Pooling::Mean => tokens.mean(0)?,
            };
            Ok(l2_normalised(vector.to_vec1::<f32>()?))
        };
        Ok(batch.ranges.iter().map(pooled).collect::<candle_core::Result<_>>()?)
    }

    #[cfg(feature = "cuda")]
    fn read(&self, x: &Tensor) -> Result<Vec<f32>, EmbedError> {
        Ok(x.flatten_all()?.to_vec1()?)
    }

    fn nearly_done(&self) -> Result<(), EmbedError> {
        Ok(())
    }
}
