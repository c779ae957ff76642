//! Models of any shape with random weights from a seed, in the hub's layout. Numerics and loading do not depend on what
//! a model has learnt, and no package registry has a large one.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::json;

use crate::support::model_directory;

/// What a model looks like. Its tokenizer is all-MiniLM-L6-v2's.
#[derive(Debug, Clone, Copy)]
pub struct ModelShape {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub intermediate: usize,
    /// Tokens a text may have.
    pub max_tokens: usize,
    /// XLM-RoBERTa counts positions from 2, BERT from 0.
    pub xlm_roberta: bool,
    /// CLS pooling instead of the mean.
    pub cls: bool,
}

/// all-MiniLM-L6-v2's.
const VOCABULARY: usize = 30522;

/// Writes the model into a folder that exists.
pub fn write(shape: &ModelShape, folder: &Path) {
    let offset = if shape.xlm_roberta { 2 } else { 0 };
    let config = json!({
        "model_type": if shape.xlm_roberta { "xlm-roberta" } else { "bert" },
        "vocab_size": VOCABULARY,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "max_position_embeddings": shape.max_tokens + offset,
        "type_vocab_size": 1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-5,
        "pad_token_id": if shape.xlm_roberta { 1 } else { 0 },
        "position_embedding_type": "absolute",
        "attention_probs_dropout_prob": 0.0,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::copy(model_directory("minilm").join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    let pooling = json!({ "pooling_mode_cls_token": shape.cls, "pooling_mode_mean_tokens": !shape.cls });
    fs::write(folder.join("1_Pooling/config.json"), pooling.to_string()).unwrap();
    candle_core::safetensors::save(&tensors(shape, shape.max_tokens + offset), folder.join("model.safetensors"))
        .unwrap();
}

/// Matrices have a deviation of 0.05, so that attention is not flat; biases, gains and shifts are far from 0 and 1, so
/// that one that is forgotten shows.
fn tensors(shape: &ModelShape, positions: usize) -> HashMap<String, Tensor> {
    let (hidden, intermediate) = (shape.hidden, shape.intermediate);
    let mut random = Random(1);
    let mut tensors = HashMap::new();
    let mut add = |name: &str, dimensions: &[usize], mean: f32, deviation: f32| {
        let values: Vec<f32> = (0..dimensions.iter().product()).map(|_| mean + deviation * random.normal()).collect();
        tensors.insert(name.to_owned(), Tensor::from_vec(values, dimensions, &Device::Cpu).unwrap());
    };
    add("embeddings.word_embeddings.weight", &[VOCABULARY, hidden], 0.0, 0.05);
    add("embeddings.position_embeddings.weight", &[positions, hidden], 0.0, 0.05);
    add("embeddings.token_type_embeddings.weight", &[1, hidden], 0.0, 0.05);
    add("embeddings.LayerNorm.weight", &[hidden], 1.0, 0.1);
    add("embeddings.LayerNorm.bias", &[hidden], 0.0, 0.1);
    for layer in 0..shape.layers {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let linears = [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", intermediate, hidden),
            ("output.dense", hidden, intermediate),
        ];
        for (part, out, into) in linears {
            add(&name(&format!("{part}.weight")), &[out, into], 0.0, 0.05);
            add(&name(&format!("{part}.bias")), &[out], 0.0, 0.1);
        }
        for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
            add(&name(&format!("{part}.weight")), &[hidden], 1.0, 0.1);
            add(&name(&format!("{part}.bias")), &[hidden], 0.0, 0.1);
        }
    }
    tensors
}

/// Knuth's MMIX generator; normal numbers as the sum of twelve uniform ones.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }
}
