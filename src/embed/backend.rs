//! What the encoder asks of a device: [`Backend`], and the batch as the host prepares it.
//!
//! A backend never decides what is computed, only how and where. Activations are `[tokens, columns]`, row-major, packed:
//! the tokens of all texts of a batch one after the other, without padding.

use candle_core::Tensor;

use super::EmbedError;

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The mean over all tokens, special tokens included.
    Mean,
}

/// The sizes a backend needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    /// Columns of the feed-forward network's inner layer.
    pub intermediate: usize,
}

impl Shape {
    /// Floating-point operations of one text: 2 for each weight of the linear layers and each token, and
    /// `4 * hidden * length` a token and layer in attention (scores and weighted sum). Embeddings, norms, activations
    /// and pooling are left out, as is usual for a "model FLOPs" count.
    pub fn flops(&self, length: usize) -> f64 {
        let (hidden, intermediate, length) = (self.hidden as f64, self.intermediate as f64, length as f64);
        let linear = 2.0 * (4.0 * hidden * hidden + 2.0 * hidden * intermediate);
        self.layers as f64 * length * (linear + 4.0 * hidden * length)
    }

    pub fn head_size(&self) -> usize {
        self.hidden / self.heads
    }
}

/// The texts of a batch, packed, with everything a device needs to know of them. Made on the host, in integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBatch {
    /// `[tokens]`.
    pub ids: Vec<u32>,
    /// `[tokens]`: rows of the position table.
    pub positions: Vec<u32>,
    /// `[texts + 1]`: where each text begins, and the number of tokens at the end.
    pub starts: Vec<u32>,
}

impl PackedBatch {
    /// Packs texts (token ids with special tokens). `position_offset` is the first token's row in the position table.
    pub fn new(texts: &[&[u32]], position_offset: u32) -> Self {
        let ids: Vec<u32> = texts.iter().flat_map(|text| text.iter().copied()).collect();
        let positions = texts.iter().flat_map(|text| (0..text.len() as u32).map(|index| index + position_offset));
        let mut starts = Vec::with_capacity(texts.len() + 1);
        starts.push(0);
        let mut end = 0;
        for text in texts {
            end += text.len() as u32;
            starts.push(end);
        }
        Self { positions: positions.collect(), ids, starts }
    }

    #[cfg(any(feature = "cuda", test))]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    #[cfg(any(feature = "cuda", test))]
    pub fn texts(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// First token and length of each text.
    pub fn ranges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.starts.windows(2).map(|pair| (pair[0] as usize, (pair[1] - pair[0]) as usize))
    }
}

/// A device that runs the encoder's operations.
pub trait Backend {
    /// A resident matrix in the backend's own precision.
    type Matrix;
    /// Resident f32 parameters: biases, a norm's gain and shift.
    type Parameters;
    /// Activations, `[tokens, columns]`.
    type Rows;
    /// A batch the device has been given.
    type Batch;
    /// Pooled vectors that may still be on their way.
    type Pooled;

    /// Makes a matrix resident; `host` may have any floating-point type.
    fn matrix(&self, host: &Tensor) -> Result<Self::Matrix, EmbedError>;
    /// Makes a matrix resident whose rows are looked up (words, positions) instead of multiplied.
    fn table(&self, host: &Tensor) -> Result<Self::Matrix, EmbedError> {
        self.matrix(host)
    }
    /// Makes parameters resident; `host` is f32.
    fn parameters(&self, host: &Tensor) -> Result<Self::Parameters, EmbedError>;
    /// Hands the batch over.
    fn begin(&self, batch: &PackedBatch) -> Result<Self::Batch, EmbedError>;

    /// `layer_norm(words[id] + positions[position] + bias) * gain + shift`; `norm` is `[3, hidden]`: bias, gain, shift.
    fn embed_layer_norm(
        &self,
        batch: &Self::Batch,
        words: &Self::Matrix,
        positions: &Self::Matrix,
        norm: &Self::Parameters,
        eps: f32,
    ) -> Result<Self::Rows, EmbedError>;
    /// `x weight^T`: `[tokens, in]` and `[out, in]` to `[tokens, out]`.
    fn linear(&self, x: &Self::Rows, weight: &Self::Matrix) -> Result<Self::Rows, EmbedError>;
    /// `[tokens, 3 * hidden]` (query, key, value) to `[tokens, hidden]`, each text attending to itself alone.
    /// `query_bias` (`[hidden]`) is added to the query; 1/sqrt(head size) is in the weights already.
    fn attention(
        &self,
        batch: &Self::Batch,
        qkv: Self::Rows,
        query_bias: &Self::Parameters,
    ) -> Result<Self::Rows, EmbedError>;
    /// `x = layer_norm(x + bias + residual) * gain + shift`; `norm` is `[3, hidden]`: bias, gain, shift.
    fn bias_residual_layer_norm(
        &self,
        x: &mut Self::Rows,
        residual: &Self::Rows,
        norm: &Self::Parameters,
        eps: f32,
    ) -> Result<(), EmbedError>;
    /// `x = gelu(x + bias)`, the exact (erf) form.
    fn bias_gelu(&self, x: &mut Self::Rows, bias: &Self::Parameters) -> Result<(), EmbedError>;
    /// One L2-normalised vector a text.
    fn pool(&self, batch: Self::Batch, x: Self::Rows, pooling: Pooling) -> Result<Self::Pooled, EmbedError>;
    /// Activations as f32 on the host, for checks: waits for everything handed over before.
    #[cfg(feature = "cuda")]
    fn read(&self, x: &Self::Rows) -> Result<Vec<f32>, EmbedError>;
    /// The encoder is about to hand over the last layer: what is handed over next will not wait long.
    fn nearly_done(&self) -> Result<(), EmbedError>;
}

/// The vector scaled to unit norm, summed in f64; a zero vector stays as it is (the store refuses it).
pub fn l2_normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_packed_without_padding() {
        let batch = PackedBatch::new(&[&[5, 6, 7], &[8]], 2);
        assert_eq!(batch.ids, [5, 6, 7, 8]);
        assert_eq!(batch.positions, [2, 3, 4, 2]);
        assert_eq!(batch.starts, [0, 3, 4]);
        assert_eq!(batch.ranges().collect::<Vec<_>>(), [(0, 3), (3, 1)]);
        assert_eq!((batch.tokens(), batch.texts()), (4, 2));
    }

    #[test]
    fn bge_m3_needs_654_mflop_a_token_at_512() {
        let shape = Shape { layers: 24, hidden: 1024, heads: 16, intermediate: 4096 };
        assert_eq!((shape.flops(512) / 512.0 / 1e6).round(), 654.0);
    }
}
