//! One encoder for BERT and XLM-RoBERTa, packed: the tokens of all texts of a batch stand in one `[tokens, hidden]`
//! tensor without padding, and only attention knows where one text ends. It says what is computed and in which order;
//! a [`Backend`] computes it, in f32 on the CPU or in f16 on CUDA.
//!
//! What is folded into the weights when they are loaded, because the function stays the same:
//! - the token-type row (always type 0) into the position table;
//! - 1/sqrt(head size) into the query's weight and bias;
//! - the key's bias is dropped: it adds the same number to all scores of a query, and softmax ignores that;
//! - the value's bias goes through the output projection into its bias, because attention weights sum to 1.
//!
//! Position ids are integers from the host: XLM-R counts from `pad_token_id + 1`, BERT from 0.
//! Reference: `transformers` `modeling_bert.py`, `modeling_xlm_roberta.py`; candle-transformers in the parity tests.

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::bert::Config;

use super::EmbedError;
use super::backend::{Backend, PackedBatch, Pooling, Shape};
use super::weights::{WORDS, Weights};

/// A loaded encoder: the weights, resident on the backend's device.
pub struct Encoder<B: Backend> {
    words: B::Matrix,
    /// `[positions, hidden]`, the token-type row added.
    positions: B::Matrix,
    embedding_norm: B::Parameters,
    layers: Vec<Layer<B>>,
    position_offset: u32,
    eps: f32,
}

struct Layer<B: Backend> {
    /// `[3 * hidden, hidden]`: query, key, value.
    qkv: B::Matrix,
    query_bias: B::Parameters,
    output: B::Matrix,
    output_norm: B::Parameters,
    intermediate: B::Matrix,
    intermediate_bias: B::Parameters,
    down: B::Matrix,
    down_norm: B::Parameters,
}

/// Is shown an operation's name and the activations after it.
pub type Observer<'a, B> = &'a mut dyn FnMut(&'static str, &<B as Backend>::Rows) -> Result<(), EmbedError>;

/// The sizes of a model, checked.
pub fn shape(config: &Config) -> Result<Shape, EmbedError> {
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    if heads == 0 || !hidden.is_multiple_of(heads) {
        return Err(EmbedError::Load(format!("{hidden} hidden units do not divide among {heads} heads")));
    }
    Ok(Shape { layers: config.num_hidden_layers, hidden, heads, intermediate: config.intermediate_size })
}

impl<B: Backend> Encoder<B> {
    /// Makes a model's weights resident. `max_tokens` is the longest text there will be.
    pub fn load(
        backend: &B,
        config: &Config,
        position_offset: u32,
        max_tokens: usize,
        weights: &Weights,
    ) -> Result<Self, EmbedError> {
        let shape = shape(config)?;
        let token_type = weights.get_f32("embeddings.token_type_embeddings.weight")?.get(0)?;
        let positions =
            weights.get_f32("embeddings.position_embeddings.weight")?.broadcast_add(&token_type)?.contiguous()?;
        let rows = positions.dims()[0].saturating_sub(position_offset as usize);
        if rows < max_tokens {
            return Err(EmbedError::Load(format!(
                "the weights have {rows} positions for a limit of {max_tokens} tokens"
            )));
        }
        let no_bias = Tensor::zeros(shape.hidden, DType::F32, &Device::Cpu)?;
        Ok(Self {
            words: backend.table(&weights.get(WORDS)?)?,
            positions: backend.table(&positions)?,
            embedding_norm: norm(backend, weights, "embeddings.LayerNorm", &no_bias)?,
            layers: (0..shape.layers)
                .map(|index| Layer::load(backend, weights, &format!("encoder.layer.{index}."), shape.head_size()))
                .collect::<Result<_, _>>()?,
            position_offset,
            eps: config.layer_norm_eps as f32,
        })
    }

    /// One L2-normalised vector of `hidden` numbers for each text; texts are token ids with special tokens.
    pub fn encode(&self, backend: &B, texts: &[&[u32]], pooling: Pooling) -> Result<B::Pooled, EmbedError> {
        self.encode_observed(backend, texts, pooling, &mut |_, _| Ok(()))
    }

    /// The same; `observe` is shown the activations after each operation, with the operation's name.
    pub fn encode_observed(
        &self,
        backend: &B,
        texts: &[&[u32]],
        pooling: Pooling,
        observe: Observer<'_, B>,
    ) -> Result<B::Pooled, EmbedError> {
        if texts.iter().any(|text| text.is_empty()) {
            return Err(EmbedError::Compute("a text without tokens reached the encoder".into()));
        }
        let batch = backend.begin(&PackedBatch::new(texts, self.position_offset))?;
        let mut x = backend.embed_layer_norm(&batch, &self.words, &self.positions, &self.embedding_norm, self.eps)?;
        observe("embed_layer_norm", &x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            if index + 1 == self.layers.len() {
                backend.nearly_done()?;
            }
            x = self.layer(backend, &batch, layer, x, observe)?;
        }
        backend.pool(batch, x, pooling)
    }

    fn layer(
        &self,
        backend: &B,
        batch: &B::Batch,
        layer: &Layer<B>,
        x: B::Rows,
        observe: Observer<'_, B>,
    ) -> Result<B::Rows, EmbedError> {
        let qkv = backend.linear(&x, &layer.qkv)?;
        observe("linear", &qkv)?;
        let context = backend.attention(batch, qkv, &layer.query_bias)?;
        observe("attention", &context)?;
        let mut attended = backend.linear(&context, &layer.output)?;
        drop(context);
        backend.bias_residual_layer_norm(&mut attended, &x, &layer.output_norm, self.eps)?;
        observe("bias_residual_layer_norm", &attended)?;
        drop(x);
        let mut inner = backend.linear(&attended, &layer.intermediate)?;
        backend.bias_gelu(&mut inner, &layer.intermediate_bias)?;
        observe("bias_gelu", &inner)?;
        let mut down = backend.linear(&inner, &layer.down)?;
        drop(inner);
        backend.bias_residual_layer_norm(&mut down, &attended, &layer.down_norm, self.eps)?;
        observe("bias_residual_layer_norm", &down)?;
        Ok(down)
    }
}

impl<B: Backend> Layer<B> {
    fn load(backend: &B, weights: &Weights, prefix: &str, head_size: usize) -> Result<Self, EmbedError> {
        let get = |name: &str| weights.get_f32(&format!("{prefix}{name}"));
        let scale = 1.0 / (head_size as f64).sqrt();
        let query = (get("attention.self.query.weight")? * scale)?;
        let qkv = Tensor::cat(&[query, get("attention.self.key.weight")?, get("attention.self.value.weight")?], 0)?;
        let output = get("attention.output.dense.weight")?;
        let value_bias = get("attention.self.value.bias")?;
        let through_output = output.matmul(&value_bias.unsqueeze(1)?)?.squeeze(1)?;
        let output_bias = (get("attention.output.dense.bias")? + through_output)?;
        let matrix = |name: &str| backend.matrix(&weights.get(&format!("{prefix}{name}"))?);
        let output_norm = format!("{prefix}attention.output.LayerNorm");
        Ok(Self {
            qkv: backend.matrix(&qkv)?,
            query_bias: backend.parameters(&(get("attention.self.query.bias")? * scale)?)?,
            output: backend.matrix(&output)?,
            output_norm: norm(backend, weights, &output_norm, &output_bias)?,
            intermediate: matrix("intermediate.dense.weight")?,
            intermediate_bias: backend.parameters(&get("intermediate.dense.bias")?)?,
            down: matrix("output.dense.weight")?,
            down_norm: norm(backend, weights, &format!("{prefix}output.LayerNorm"), &get("output.dense.bias")?)?,
        })
    }
}

/// The activations after each operation on the host, with the operation's name.
#[cfg(feature = "cuda")]
pub fn trace<B: Backend>(
    encoder: &Encoder<B>,
    backend: &B,
    texts: &[super::TokenIds],
    pooling: Pooling,
) -> Result<Vec<(&'static str, Vec<f32>)>, EmbedError> {
    let ids: Vec<&[u32]> = texts.iter().map(|text| text.0.as_slice()).collect();
    let mut trace = Vec::new();
    encoder.encode_observed(backend, &ids, pooling, &mut |name, rows| {
        trace.push((name, backend.read(rows)?));
        Ok(())
    })?;
    Ok(trace)
}

/// `[3, hidden]`: the bias of the linear layer before, the norm's gain, its shift.
fn norm<B: Backend>(backend: &B, weights: &Weights, name: &str, bias: &Tensor) -> Result<B::Parameters, EmbedError> {
    let gain = weights.get_f32(&format!("{name}.weight"))?;
    let shift = weights.get_f32(&format!("{name}.bias"))?;
    backend.parameters(&Tensor::stack(&[bias, &gain, &shift], 0)?)
}
