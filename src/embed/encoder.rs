//! One encoder for BERT and XLM-RoBERTa on candle tensors, packed: the tokens of all texts of a batch stand in one
//! `[tokens, hidden]` tensor without padding, and only attention knows where one text ends.
//!
//! What is folded into the weights when they are loaded, because the function stays the same:
//! - the token-type row (always type 0) into the position table;
//! - 1/sqrt(head size) into the query's weight and bias;
//! - the key's bias is dropped: it adds the same number to all scores of a query, and softmax ignores that;
//! - the value's bias goes through the output projection into its bias, because attention weights sum to 1.
//!
//! Position ids are integers from the host: XLM-R counts from `pad_token_id + 1`, BERT from 0.
//! Reference: `transformers` `modeling_bert.py`, `modeling_xlm_roberta.py`; candle-transformers in the parity tests.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_transformers::models::bert::Config;

use super::kernels;

/// Score matrices of one attention step stay under this many numbers: long texts go in blocks of queries.
const MAX_SCORES: usize = 4 << 20;

/// A loaded encoder. Weights are f32.
pub struct Encoder {
    word_embeddings: Tensor,
    /// `[positions, hidden]`, the token-type row added.
    position_embeddings: Tensor,
    embedding_norm: NormParameters,
    layers: Vec<Layer>,
    heads: usize,
    hidden: usize,
    position_offset: u32,
    eps: f32,
    device: Device,
}

struct Layer {
    /// `[3 * hidden, hidden]`: query, key, value.
    qkv: Tensor,
    query_bias: Tensor,
    output: Tensor,
    output_norm: NormParameters,
    intermediate: Tensor,
    intermediate_bias: Tensor,
    down: Tensor,
    down_norm: NormParameters,
}

/// `[3, hidden]`: the bias of the linear layer before, the norm's gain, its shift.
struct NormParameters(Tensor);

/// How token vectors become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's vector.
    Cls,
    /// The mean over all tokens, special tokens included.
    Mean,
}

/// Named tensors of a model, whatever prefix its files give the names.
pub struct Weights {
    tensors: HashMap<String, Tensor>,
    prefix: String,
}

impl Weights {
    /// Finds the prefix under which the encoder's tensors stand (`""`, `bert.`, `roberta.`, ...).
    pub fn new(tensors: HashMap<String, Tensor>) -> Result<Self> {
        const WORDS: &str = "embeddings.word_embeddings.weight";
        let Some(prefix) = tensors.keys().find_map(|name| name.strip_suffix(WORDS).map(str::to_owned)) else {
            bail!("the weights have no tensor named '{WORDS}'");
        };
        Ok(Self { tensors, prefix })
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        match self.tensors.get(&format!("{}{name}", self.prefix)) {
            Some(tensor) => tensor.to_dtype(DType::F32)?.contiguous(),
            None => bail!("the weights have no tensor named '{}{name}'", self.prefix),
        }
    }
}

impl Encoder {
    /// Builds the encoder from a model's weights.
    pub fn new(config: &Config, position_offset: u32, weights: &Weights) -> Result<Self> {
        let hidden = config.hidden_size;
        if config.num_attention_heads == 0 || !hidden.is_multiple_of(config.num_attention_heads) {
            bail!("{hidden} hidden units do not divide among {} heads", config.num_attention_heads);
        }
        let token_type = weights.get("embeddings.token_type_embeddings.weight")?.get(0)?;
        let position_embeddings =
            weights.get("embeddings.position_embeddings.weight")?.broadcast_add(&token_type)?.contiguous()?;
        let no_bias = Tensor::zeros(hidden, DType::F32, &Device::Cpu)?;
        let layers = (0..config.num_hidden_layers)
            .map(|index| Layer::new(weights, &format!("encoder.layer.{index}."), hidden / config.num_attention_heads))
            .collect::<Result<_>>()?;
        Ok(Self {
            word_embeddings: weights.get("embeddings.word_embeddings.weight")?,
            position_embeddings,
            embedding_norm: NormParameters::new(weights, "embeddings.LayerNorm", &no_bias)?,
            layers,
            heads: config.num_attention_heads,
            hidden,
            position_offset,
            eps: config.layer_norm_eps as f32,
            device: Device::Cpu,
        })
    }

    /// Tokens a text may have by the position table's size.
    pub fn positions(&self) -> usize {
        self.position_embeddings.dims()[0].saturating_sub(self.position_offset as usize)
    }

    /// One L2-normalised vector of `hidden` numbers for each text; texts are token ids with special tokens.
    pub fn encode(&self, texts: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        if lengths.contains(&0) {
            bail!("a text without tokens reached the encoder");
        }
        let hidden_states = self.forward(texts, &lengths)?;
        let mut vectors = Vec::with_capacity(texts.len());
        let mut start = 0;
        for &length in &lengths {
            let tokens = hidden_states.narrow(0, start, length)?;
            let pooled = match pooling {
                Pooling::Cls => tokens.get(0)?,
                Pooling::Mean => tokens.mean(0)?,
            };
            vectors.push(l2_normalised(pooled.to_vec1::<f32>()?));
            start += length;
        }
        Ok(vectors)
    }

    /// The last layer's hidden states, `[tokens of all texts, hidden]`.
    fn forward(&self, texts: &[&[u32]], lengths: &[usize]) -> Result<Tensor> {
        let ids: Vec<u32> = texts.iter().flat_map(|text| text.iter().copied()).collect();
        let positions: Vec<u32> =
            lengths.iter().flat_map(|&length| (0..length as u32).map(|index| index + self.position_offset)).collect();
        let tokens = ids.len();
        let mut x = self.word_embeddings.index_select(&Tensor::from_vec(ids, tokens, &self.device)?, 0)?;
        let position_rows =
            self.position_embeddings.index_select(&Tensor::from_vec(positions, tokens, &self.device)?, 0)?;
        kernels::bias_residual_layer_norm(&x, &position_rows, &self.embedding_norm.0, self.eps)?;
        for layer in &self.layers {
            x = self.layer_forward(layer, &x, lengths)?;
        }
        Ok(x)
    }

    fn layer_forward(&self, layer: &Layer, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let qkv = x.matmul(&layer.qkv.t()?)?;
        kernels::add_bias_to_first_columns(&qkv, &layer.query_bias)?;
        let context = self.attention(&qkv, lengths)?;
        let attended = context.matmul(&layer.output.t()?)?;
        kernels::bias_residual_layer_norm(&attended, x, &layer.output_norm.0, self.eps)?;
        let inner = attended.matmul(&layer.intermediate.t()?)?;
        kernels::bias_gelu(&inner, &layer.intermediate_bias)?;
        let down = inner.matmul(&layer.down.t()?)?;
        kernels::bias_residual_layer_norm(&down, &attended, &layer.down_norm.0, self.eps)?;
        Ok(down)
    }

    /// `[tokens, 3 * hidden]` -> `[tokens, hidden]`, each text attending to itself alone.
    fn attention(&self, qkv: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let mut contexts = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for &length in lengths {
            contexts.push(self.attention_of_text(&qkv.narrow(0, start, length)?)?);
            start += length;
        }
        if contexts.len() == 1 { contexts.swap_remove(0).contiguous() } else { Tensor::cat(&contexts, 0) }
    }

    fn attention_of_text(&self, qkv: &Tensor) -> Result<Tensor> {
        let length = qkv.dims()[0];
        let head_size = self.hidden / self.heads;
        // [length, hidden] -> [heads, length, head size], as a view.
        let heads = |part: usize| -> Result<Tensor> {
            qkv.narrow(1, part * self.hidden, self.hidden)?.reshape((length, self.heads, head_size))?.transpose(0, 1)
        };
        let (query, key, value) = (heads(0)?, heads(1)?.contiguous()?.t()?, heads(2)?.contiguous()?);
        let block = (MAX_SCORES / (self.heads * length)).clamp(1, length);
        let mut parts = Vec::with_capacity(length.div_ceil(block));
        for first in (0..length).step_by(block) {
            let queries = query.narrow(1, first, block.min(length - first))?.contiguous()?;
            let scores = queries.matmul(&key)?;
            kernels::softmax(&scores)?;
            parts.push(scores.matmul(&value)?);
        }
        let context = if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(&parts, 1)? };
        context.transpose(0, 1)?.reshape((length, self.hidden))
    }
}

impl Layer {
    fn new(weights: &Weights, prefix: &str, head_size: usize) -> Result<Self> {
        let get = |name: &str| weights.get(&format!("{prefix}{name}"));
        let scale = 1.0 / (head_size as f64).sqrt();
        let query = (get("attention.self.query.weight")? * scale)?;
        let qkv = Tensor::cat(&[query, get("attention.self.key.weight")?, get("attention.self.value.weight")?], 0)?;
        let output = get("attention.output.dense.weight")?;
        let value_bias = get("attention.self.value.bias")?;
        let through_output = output.matmul(&value_bias.unsqueeze(1)?)?.squeeze(1)?;
        let output_bias = (get("attention.output.dense.bias")? + through_output)?;
        Ok(Self {
            qkv,
            query_bias: (get("attention.self.query.bias")? * scale)?,
            output,
            output_norm: NormParameters::new(weights, &format!("{prefix}attention.output.LayerNorm"), &output_bias)?,
            intermediate: get("intermediate.dense.weight")?,
            intermediate_bias: get("intermediate.dense.bias")?,
            down: get("output.dense.weight")?,
            down_norm: NormParameters::new(weights, &format!("{prefix}output.LayerNorm"), &get("output.dense.bias")?)?,
        })
    }
}

impl NormParameters {
    fn new(weights: &Weights, norm: &str, bias: &Tensor) -> Result<Self> {
        let gain = weights.get(&format!("{norm}.weight"))?;
        let shift = weights.get(&format!("{norm}.bias"))?;
        Ok(Self(Tensor::stack(&[bias, &gain, &shift], 0)?))
    }
}

/// The vector scaled to unit norm, summed in f64; a zero vector stays as it is (the store refuses it).
pub fn l2_normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    vector
}
