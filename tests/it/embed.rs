//! The real small models against reference vectors of sentence-transformers 6.2 (torch, CPU, f32), and against
//! candle-transformers' own models.

use std::path::{Path, PathBuf};

use alexandria_ingestd::embed::{CpuEmbedder, Embedder, EmbedderHandle, ModelFiles, ModelSpec, Priority, TokenIds};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::xlm_roberta::{Config, XLMRobertaModel};

use crate::random_model::{self, ModelShape};
use crate::support::{full_run, model_directory};

#[derive(serde::Deserialize)]
struct Reference {
    text: String,
    input_ids: Vec<u32>,
    vector: Vec<f32>,
}

fn load(name: &str) -> CpuEmbedder {
    let files = ModelFiles::open(ModelSpec::from_name(name), &model_directory(name)).unwrap();
    CpuEmbedder::load(files, 0, 0).unwrap()
}

fn references(file: &str) -> Vec<Reference> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Token ids equal (up to the reference's own truncation) and cosine >= 0.99999, alone and in one mixed batch.
fn assert_parity(name: &str, file: &str) {
    let mut embedder = load(name);
    let tokenizer = embedder.tokenizer();
    let references = references(file);
    assert!(references.len() >= 8);
    let mut batch = Vec::new();
    for reference in &references {
        let ids = tokenizer.encode(&reference.text).0;
        if ids.len() == reference.input_ids.len() {
            assert_eq!(ids, reference.input_ids, "{}", reference.text);
        } else {
            // The reference was cut at the limit: equal but for the last (special) token.
            let cut = reference.input_ids.len() - 1;
            assert_eq!(cut + 1, embedder.info().max_tokens);
            assert_eq!(ids[..cut], reference.input_ids[..cut], "{}", reference.text);
        }
        batch.push(TokenIds(reference.input_ids.clone()));
    }
    let together = embedder.embed(&batch).unwrap();
    let mut worst = 1f64;
    for (index, reference) in references.iter().enumerate() {
        let alone = embedder.embed(&batch[index..=index]).unwrap();
        for vector in [&alone[0], &together[index]] {
            worst = worst.min(cosine(vector, &reference.vector));
        }
    }
    println!("{name}: worst cosine against the reference {worst:.8} over {} texts", references.len());
    assert!(worst >= 0.99999, "worst cosine {worst}");
}

#[test]
fn slow_minilm_equals_sentence_transformers() {
    assert_parity("minilm", "minilm-256.jsonl");
}

#[test]
fn slow_xlm_roberta_equals_sentence_transformers() {
    assert_parity("me5-small-xlmr", "me5-small-xlmr.jsonl");
}

/// candle-transformers' XLM-RoBERTa in f32 with a model's weights: one text at a time, no padding.
struct CandleReference(XLMRobertaModel);

impl CandleReference {
    fn load(directory: &Path) -> Self {
        let config: Config = serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
        let tensors = candle_core::safetensors::load(directory.join("model.safetensors"), &Device::Cpu).unwrap();
        Self(XLMRobertaModel::new(&config, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap())
    }

    /// The last hidden states, `[tokens, hidden]`.
    fn hidden_states(&self, ids: &[u32]) -> Tensor {
        let input = Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let (mask, types) = (input.ones_like().unwrap(), input.zeros_like().unwrap());
        self.0.forward(&input, &mask, &types, None, None, None).unwrap().squeeze(0).unwrap()
    }
}

#[test]
fn slow_the_packed_encoder_equals_candle_transformers() {
    let reference = CandleReference::load(&model_directory("me5-small-xlmr"));
    let mut embedder = load("me5-small-xlmr");
    let tokenizer = embedder.tokenizer();
    let limit = embedder.info().max_tokens;
    for length in [1usize, 2, 3, 17, 200, limit - 1, limit] {
        let text = "Riječ i word und Wort ".repeat(length);
        let mut ids = tokenizer.encode(&text).0;
        ids.truncate(length);
        let packed = embedder.embed(&[TokenIds(ids.clone())]).unwrap().remove(0);
        let mean = reference.hidden_states(&ids).mean(0).unwrap().to_vec1::<f32>().unwrap();
        let agreement = cosine(&packed, &mean);
        println!("length {length}: cosine {agreement:.8}");
        assert!(agreement >= 0.99999, "length {length}: {agreement}");
    }
}

/// bge-m3's own shape, random weights, its longest texts: two of its 24 layers and 2,048 of its 8,192 tokens where the
/// whole suite is run, all of both with `ALEXANDRIA_TEST_FULL=1` (which takes minutes and 16 GB, for candle's matrix of
/// scores). The vocabulary is a smaller one: its size changes nothing of what is computed.
#[test]
fn slow_texts_of_all_lengths_equal_candle_transformers_with_the_shape_of_bge_m3() {
    let (layers, limit) = if full_run() { (24, 8192) } else { (2, 2048) };
    let shape = ModelShape {
        layers,
        hidden: 1024,
        heads: 16,
        intermediate: 4096,
        max_tokens: 8192,
        xlm_roberta: true,
        cls: true,
    };
    let place = tempfile::tempdir().unwrap();
    random_model::write(&shape, place.path());
    let files = ModelFiles::open(ModelSpec::from_name("random"), place.path()).unwrap();
    let mut embedder = CpuEmbedder::load(files, 0, 0).unwrap();
    let lengths = [1usize, 2, 17, 511, 512, 2047, 2048, 4096, 8192];
    let texts: Vec<TokenIds> = lengths
        .into_iter()
        .filter(|&length| length <= limit)
        // Token 1 would be padding.
        .map(|length| TokenIds((0..length as u32).map(|index| 5 + index * 7919 % 30000).collect()))
        .collect();
    let together = embedder.embed(&texts).unwrap();
    let reference = CandleReference::load(place.path());
    for (text, in_batch) in texts.iter().zip(&together) {
        let alone = embedder.embed(std::slice::from_ref(text)).unwrap().remove(0);
        let expected = reference.hidden_states(&text.0).get(0).unwrap().to_vec1::<f32>().unwrap();
        let agreement = cosine(&alone, &expected);
        let difference = alone.iter().zip(in_batch).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{} tokens: cosine {agreement:.8}, alone and in a batch {difference:.1e} apart", text.0.len());
        assert!(agreement >= 0.99999, "{} tokens: {agreement}", text.0.len());
        assert!(difference <= 1e-3, "{} tokens: {difference}", text.0.len());
    }
}

#[test]
fn slow_a_text_over_the_limit_is_split_not_cut() {
    let handle = EmbedderHandle::spawn(Box::new(load("minilm"))).unwrap();
    let head = "The parser reads a grammar and builds a tree of nodes. ".repeat(40);
    let with_tail = format!("{head} {}", "Whales sing in the ocean at night. ".repeat(40));
    let vectors = handle.embed(&[head.as_str(), with_tail.as_str(), "whales singing"], Priority::Bulk).unwrap();
    assert!(cosine(&vectors[1], &vectors[2]) > cosine(&vectors[0], &vectors[2]) + 0.1, "the tail counts");
}
