//! What a CUDA device computes, checked against the CPU in f32: each operation, whole texts of many lengths, inputs at
//! the edges, and what happens when the card's memory is full. One table, for `device --check`.
//!
//! It loads the model several times and fills the card, so it never runs in the service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cpu::CpuEmbedder;
use super::cuda::{Ballast, CudaEmbedder};
use super::{CudaFacts, DeviceSettings, EmbedError, Embedder, EmbedderHandle, ModelFiles, Priority, TokenIds};

/// Lengths of the texts that are compared, in tokens; those over the model's limit are left out.
const LENGTHS: [usize; 11] = [1, 2, 17, 64, 65, 511, 512, 2047, 2048, 4096, 8192];

/// Lengths of the texts whose every operation is compared: around the attention's tiles of 64.
const TRACED: [usize; 6] = [1, 2, 17, 64, 65, 130];

/// The largest difference in the first layer, as a share of the largest number: f16 rounds by up to 1/2048, and a
/// handful of roundings follow each other.
const MAX_FIRST_LAYER_ERROR: f64 = 0.005;
/// The same in all layers, whose roundings add up; the vectors say whether they matter.
const MAX_ERROR: f64 = 0.1;
const MIN_COSINE: f64 = 0.999;
/// Of a text's vector alone and in a batch with others.
const MAX_BATCH_DIFFERENCE: f64 = 1e-3;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    pub part: String,
    pub what: String,
    pub measured: f64,
    /// `>= 0.999` or the like.
    pub goal: String,
    pub passed: bool,
}

/// All that was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    pub model: String,
    pub device: String,
    pub rows: Vec<CheckRow>,
    pub passed: bool,
}

#[derive(Default)]
struct Rows(Vec<CheckRow>);

impl Rows {
    fn at_most(&mut self, part: &str, what: impl Into<String>, measured: f64, goal: f64) {
        self.row(part, what, measured, format!("<= {goal}"), measured <= goal);
    }

    fn at_least(&mut self, part: &str, what: impl Into<String>, measured: f64, goal: f64) {
        self.row(part, what, measured, format!(">= {goal}"), measured >= goal);
    }

    fn row(&mut self, part: &str, what: impl Into<String>, measured: f64, goal: String, passed: bool) {
        self.0.push(CheckRow { part: part.into(), what: what.into(), measured, goal, passed });
    }
}

/// Runs every check of a model on the GPU.
///
/// # Errors
/// There is no GPU, or something failed that has nothing to do with a comparison. A comparison that fails is a row.
pub fn check(files: &ModelFiles, settings: &DeviceSettings) -> Result<CheckReport, EmbedError> {
    let facts = super::probe(settings).map_err(|missing| EmbedError::NoDevice(missing.to_string()))?;
    let mut rows = Rows::default();
    let mut cpu = CpuEmbedder::load(files.clone(), settings.threads, settings.batch_tokens)?;
    let mut gpu = CudaEmbedder::load(files.clone(), settings, &facts)?;
    let device = gpu.info().device.clone();
    operations(&mut rows, files, &cpu, &mut gpu)?;
    texts(&mut rows, files, &mut cpu, &mut gpu)?;
    edges(&mut rows, files, &mut gpu)?;
    drop(gpu);
    full_card(&mut rows, files, settings, &facts)?;
    let passed = rows.0.iter().all(|row| row.passed);
    Ok(CheckReport { model: files.spec.name.clone(), device, rows: rows.0, passed })
}

/// Every operation of the encoder on both devices; the worst of each kind, in the first layer and in all.
fn operations(
    rows: &mut Rows,
    files: &ModelFiles,
    cpu: &CpuEmbedder,
    gpu: &mut CudaEmbedder,
) -> Result<(), EmbedError> {
    let texts: Vec<TokenIds> = TRACED.iter().filter(|&&l| l <= files.max_tokens).map(|&l| text(files, l)).collect();
    let (expected, found) = (cpu.trace(&texts)?, gpu.trace(&texts)?);
    let mut first: BTreeMap<&str, f64> = BTreeMap::new();
    let mut all = 0f64;
    // The embeddings and the five operations of the first layer that are observed.
    const FIRST_LAYER: usize = 6;
    for (index, ((name, expected), (_, found))) in expected.iter().zip(&found).enumerate() {
        let error = relative_error(expected, found);
        all = nan_or_larger(all, error);
        if index < FIRST_LAYER {
            let worst = first.entry(name).or_default();
            *worst = nan_or_larger(*worst, error);
        }
    }
    for (name, error) in first {
        rows.at_most("kernels", format!("{name}: largest difference, first layer"), error, MAX_FIRST_LAYER_ERROR);
    }
    rows.at_most("kernels", format!("{} operations: largest difference", expected.len()), all, MAX_ERROR);
    Ok(())
}

/// Texts of many lengths, alone and in one batch.
fn texts(rows: &mut Rows, files: &ModelFiles, cpu: &mut CpuEmbedder, gpu: &mut CudaEmbedder) -> Result<(), EmbedError> {
    let lengths: Vec<usize> = LENGTHS.into_iter().filter(|&length| length <= files.max_tokens).collect();
    let texts: Vec<TokenIds> = lengths.iter().map(|&length| text(files, length)).collect();
    let mut alone = Vec::new();
    for text in &texts {
        let text = std::slice::from_ref(text);
        let expected = cpu.embed(text)?.swap_remove(0);
        let found = gpu.embed(text)?.swap_remove(0);
        rows.at_least(
            "numerics",
            format!("cosine with f32 at {} tokens", text[0].0.len()),
            cosine(&expected, &found),
            MIN_COSINE,
        );
        alone.push(found);
    }
    let together = gpu.embed(&texts)?;
    let worst = alone.iter().zip(&together).map(|(a, b)| largest_difference(a, b)).fold(0.0, nan_or_larger);
    rows.at_most(
        "numerics",
        format!("{} texts in one batch: largest difference from alone", texts.len()),
        worst,
        MAX_BATCH_DIFFERENCE,
    );
    Ok(())
}

/// Inputs at the edges: one token over and over, the first and the last of the vocabulary.
fn edges(rows: &mut Rows, files: &ModelFiles, gpu: &mut CudaEmbedder) -> Result<(), EmbedError> {
    let length = files.max_tokens.min(512);
    let last = files.config.vocab_size as u32 - 1;
    let texts: Vec<TokenIds> = [0, 1, 2, 3, last].iter().map(|&id| TokenIds(vec![id; length])).collect();
    let norms = gpu.embed(&texts)?;
    let norm = |vector: &Vec<f32>| vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    // A NaN makes the comparison false and so the row fail.
    let off = norms.iter().map(|vector| (norm(vector) - 1.0).abs()).fold(0.0, nan_or_larger);
    rows.at_most("numerics", "one token repeated: |norm - 1|", off, 1e-3);
    Ok(())
}

/// Another program takes the card's memory: batches become smaller, a text too large for what is left fails alone, and
/// when the memory is back so is everything else.
fn full_card(
    rows: &mut Rows,
    files: &ModelFiles,
    settings: &DeviceSettings,
    facts: &CudaFacts,
) -> Result<(), EmbedError> {
    let longest = files.max_tokens;
    let large = DeviceSettings { batch_tokens: 4 * longest, ..settings.clone() };
    let mut embedder = CudaEmbedder::load(files.clone(), &large, facts)?;
    // cuBLAS' kernels are loaded into the card's memory when they are first needed: not what is drilled here.
    embedder.embed(&[text(files, longest), text(files, longest / 8)])?;
    embedder.release_workspace()?;
    let ballast = Ballast::new((longest / 2 * embedder.bytes_per_token()) as u64)?;
    let handle = EmbedderHandle::spawn(Box::new(embedder))?;
    let texts: Vec<TokenIds> = (0..20).map(|_| text(files, longest / 8)).collect();
    let count = handle.embed_ids(texts, Priority::Bulk)?.len();
    rows.at_least("memory", "a full card: 20 texts embedded", count as f64, 20.0);
    let halvings = handle.device().budget_halvings;
    rows.at_least("memory", "a full card: times that batches became smaller", halvings as f64, 1.0);
    let refused = handle.embed_ids(vec![text(files, longest)], Priority::Bulk);
    let refused = matches!(refused, Err(EmbedError::OutOfMemory(_)));
    rows.row("memory", "a full card: the longest text is refused", f64::from(refused), "= 1".into(), refused);
    let count = handle.embed_ids(vec![text(files, longest / 16)], Priority::Interactive)?.len();
    rows.at_least("memory", "after that: a query is answered", count as f64, 1.0);
    drop(ballast);
    let count = handle.embed_ids(vec![text(files, longest)], Priority::Bulk)?.len();
    rows.at_least("memory", "memory is back: the longest text embedded", count as f64, 1.0);
    handle.stop();
    Ok(())
}

/// Token ids of a text of so many tokens, the same ones each time.
fn text(files: &ModelFiles, length: usize) -> TokenIds {
    let vocabulary = files.config.vocab_size as u64;
    let mut state = length as u64 + 1;
    let id = |_| {
        // Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary) as u32
    };
    TokenIds((0..length).map(id).collect())
}

/// The largest difference as a share of the largest number that is expected.
fn relative_error(expected: &[f32], found: &[f32]) -> f64 {
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    largest_difference(expected, found) / f64::from(largest).max(1e-12)
}

/// Keeps a NaN once there is one, as `f64::max` does not: it must fail the comparison that follows.
fn nan_or_larger(worst: f64, next: f64) -> f64 {
    if worst.is_nan() || next <= worst { worst } else { next }
}

/// NaN where a number of either is not one.
fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let differences = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    differences.fold(0.0, nan_or_larger)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
