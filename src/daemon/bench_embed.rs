//! `bench` without a book: the embedding alone, in one table that can be laid beside an earlier one.
//!
//! The model is loaded once, as by the service, warmed up, and given chunks by a few callers at once. The order matters:
//! memory after the load is read before the first chunk, the device's matmul ceiling is measured after the last one,
//! when the device is as warm as it was in the run.

mod figures;
mod queries;
mod texts;
mod work;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use self::figures::{EmbedBench, Interactive, quantile};
use self::texts::{Lengths, TokenSource};
use self::work::{Amount, Plan, Source};
use super::bench::{memory, reset_peak_memory};
use super::gpu_watch::{GpuFigures, GpuWatch};
use super::{DaemonError, parts};
use crate::config::Config;
use crate::embed::EmbedderHandle;

pub use texts::DEFAULT_TOKENS;

/// The same texts in every run.
const SEED: u64 = 1;
/// Measured time where nothing else is asked for.
const SECONDS: f64 = 10.0;
/// The first batches are slower (caches, clocks, the choice of algorithms): this long they are not counted.
const WARM_UP_SECONDS: f64 = 1.0;
/// Full batches that are timed alone.
const BATCHES: usize = 3;

/// Which texts.
#[derive(Debug, Clone, PartialEq)]
pub enum BenchTexts {
    /// Chunks of so many random tokens, special ones included.
    Fixed(usize),
    /// Random tokens in lengths as in books.
    Mix,
    /// One JSON string a line.
    File(PathBuf),
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedBenchSettings {
    pub texts: BenchTexts,
    pub chunks: Option<u64>,
    pub seconds: Option<f64>,
    /// Also ask queries.
    pub interactive: bool,
    /// Also measure a large matrix product.
    pub ceiling: bool,
}

/// Measures, and gives the table, its JSON, or the table beside that of an earlier run's JSON.
pub fn bench_embed(
    config: &Config,
    settings: &EmbedBenchSettings,
    json: bool,
    before: Option<&Path>,
) -> Result<String, DaemonError> {
    // Before the minutes of work, not after.
    let before = before.map(read_run).transpose()?;
    let run = measure(config, settings)?;
    if json {
        let text = serde_json::to_string_pretty(&run).map_err(|error| DaemonError::Failed(error.to_string()))?;
        return Ok(text + "\n");
    }
    Ok(before.map_or_else(|| figures::table(&run), |before| figures::comparison(&before, &run)))
}

fn read_run(path: &Path) -> Result<EmbedBench, DaemonError> {
    let text = std::fs::read_to_string(path).map_err(DaemonError::io(path.display().to_string()))?;
    serde_json::from_str(&text)
        .map_err(|error| DaemonError::Failed(format!("{} is not the output of bench --json: {error}", path.display())))
}

fn measure(config: &Config, settings: &EmbedBenchSettings) -> Result<EmbedBench, DaemonError> {
    let state_dir = config.state_directory()?;
    let started = Instant::now();
    let embedder = parts::load_embedder(config, &state_dir, &parts::quiet)?.embedder;
    let load_seconds = started.elapsed().as_secs_f64();
    reset_peak_memory();
    let host_loaded_bytes = memory("VmRSS:");
    let loaded = embedder.device();
    let run = run(&embedder, settings, config.ingest.workers.max(2))?;
    let device = embedder.device();
    let host_peak_bytes = memory("VmHWM:");
    let ceiling = settings.ceiling.then(|| embedder.matmul_ceiling()).transpose();

    let Run { done, texts, lengths, gpu, interactive, mut notes, .. } = run;
    let ceiling = ceiling.unwrap_or_else(|error| {
        notes.push(format!("matmul ceiling: {error}"));
        None
    });
    if device.memory.is_none() {
        notes.push(format!("GPU memory: the model is on the {}", device.kind));
    }
    let tokens: u64 = lengths.iter().map(|&length| length as u64).sum();
    let per_second = |count: f64| count / done.seconds;
    let flops = Some(embedder.flops(&lengths)).filter(|flops| *flops > 0.0).map(per_second);
    let info = embedder.info().clone();
    let figures = EmbedBench {
        version: env!("CARGO_PKG_VERSION").into(),
        model: info.id,
        model_name: info.name,
        dimension: info.dimension,
        max_tokens: info.max_tokens,
        fingerprint: info.fingerprint,
        device_kind: device.kind.clone(),
        device: format!("{} ({})", device.kind, device.name),
        precision: device.precision.clone(),
        texts,
        chunks: done.chunks,
        tokens: run.tokens,
        shortest_tokens: lengths.iter().copied().min().unwrap_or_default(),
        mean_tokens: tokens as f64 / lengths.len().max(1) as f64,
        longest_tokens: lengths.iter().copied().max().unwrap_or_default(),
        seconds: done.seconds,
        tokens_per_second: per_second(run.tokens as f64),
        chunks_per_second: per_second(done.chunks as f64),
        chunks_per_minute: per_second(done.chunks as f64) * 60.0,
        ms_per_chunk: done.seconds * 1e3 / done.chunks.max(1) as f64,
        busy_share: per_second(done.busy_seconds),
        model_flops_per_second: flops,
        matmul_ceiling_flops_per_second: ceiling,
        ceiling_share: flops.zip(ceiling).map(|(flops, ceiling)| flops / ceiling),
        gpu_memory_total_bytes: device.memory.map(|memory| memory.total),
        gpu_memory_loaded_bytes: loaded.memory.map(|memory| memory.weights + memory.workspace),
        gpu_memory_peak_bytes: device.memory.map(|memory| memory.peak),
        gpu_utilisation_mean: gpu.utilisation_mean,
        gpu_utilisation_max: gpu.utilisation_max,
        gpu_power_watts: gpu.power_watts,
        gpu_clock_mhz: gpu.clock_mhz,
        host_loaded_bytes,
        host_peak_bytes,
        load_seconds,
        loads: embedder.loads(),
        cpu_seconds: done.cpu_seconds,
        cpu_ms_per_token: done.cpu_seconds * 1e3 / run.tokens.max(1) as f64,
        batch_tokens: embedder.batch_tokens(),
        budget_halvings: device.budget_halvings,
        interactive,
        notes,
    };
    embedder.stop();
    Ok(figures)
}

/// The measured part.
struct Run {
    done: work::Done,
    texts: String,
    lengths: Vec<usize>,
    /// As the embedder counted them, queries left out.
    tokens: u64,
    gpu: GpuFigures,
    interactive: Option<Interactive>,
    notes: Vec<String>,
}

fn run(embedder: &EmbedderHandle, settings: &EmbedBenchSettings, callers: usize) -> Result<Run, DaemonError> {
    let (source, texts) = source(embedder, &settings.texts)?;
    let amount = match (settings.chunks, settings.seconds, &source) {
        (Some(chunks), ..) => Amount::Chunks(chunks),
        (None, Some(seconds), _) => Amount::Seconds(seconds),
        (None, None, Source::Texts(texts)) if !settings.interactive => Amount::Chunks(texts.len() as u64),
        (None, None, _) => Amount::Seconds(SECONDS),
    };
    let (tokens_per_second, mean_tokens) = warm_up(embedder, &source)?;
    let plan = work::plan(amount, callers, tokens_per_second, mean_tokens, embedder.batch_tokens());
    let idle = settings.interactive.then(|| idle_times(embedder, &source, mean_tokens)).transpose()?;

    let mut notes = Vec::new();
    let kind = embedder.device();
    let watch = match kind.kind.as_str() {
        "cuda" => GpuWatch::start(&kind.name),
        kind => Err(format!("the model is on the {kind}")),
    };
    let watch = watch.map_err(|reason| notes.push(format!("GPU utilisation: {reason}"))).ok();
    let tokens = embedder.counters().tokens;
    let (done, answers) = work_and_queries(embedder, &source, amount, plan, settings.interactive)?;
    // Here, when the last query is answered, too.
    let tokens = embedder.counters().tokens - tokens;
    let gpu = watch.map(GpuWatch::finish).unwrap_or_default();

    let lengths = source.lengths(embedder, 0..done.chunks);
    let query_tokens = embedder.tokenizer().encode(queries::QUERY).0.len() as u64;
    let tokens = tokens.saturating_sub(query_tokens * answers.len() as u64);
    let interactive = idle.map(|(idle_ms, batch_ms)| Interactive {
        queries: answers.len(),
        median_ms: quantile(&answers, 0.5),
        p99_ms: quantile(&answers, 0.99),
        worst_ms: quantile(&answers, 1.0),
        idle_ms,
        batch_ms,
    });
    Ok(Run { done, texts, lengths, tokens, gpu, interactive, notes })
}

/// The texts, and what they are in words.
fn source(embedder: &EmbedderHandle, texts: &BenchTexts) -> Result<(Source, String), DaemonError> {
    let (lengths, asked) = match texts {
        BenchTexts::File(path) => {
            let texts = read_texts(path)?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let what = format!("{} texts of {name}", texts.len());
            return Ok((Source::Texts(texts), what));
        }
        BenchTexts::Fixed(tokens) => (Lengths::Fixed(*tokens), format!("chunks of {tokens} random tokens")),
        BenchTexts::Mix => (Lengths::Mix, "random tokens, the mix of lengths".to_owned()),
    };
    let source = TokenSource::new(embedder.tokenizer().as_ref(), lengths, SEED);
    let limit = embedder.info().max_tokens;
    let clipped =
        if source.is_clipped() { format!(", clipped to the model's limit of {limit}") } else { String::new() };
    Ok((Source::Tokens(source), format!("{asked}{clipped}")))
}

fn read_texts(path: &Path) -> Result<Vec<String>, DaemonError> {
    let text = std::fs::read_to_string(path).map_err(DaemonError::io(path.display().to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let texts = lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| {
                DaemonError::Failed(format!("{}, line {}: not a JSON string: {error}", path.display(), index + 1))
            })
        })
        .collect::<Result<Vec<String>, DaemonError>>()?;
    if texts.is_empty() {
        return Err(DaemonError::Failed(format!("{} has no text", path.display())));
    }
    Ok(texts)
}

/// Full batches until the device has had its time. Returns the rate of the last one and the mean length of a chunk.
fn warm_up(embedder: &EmbedderHandle, source: &Source) -> Result<(f64, f64), DaemonError> {
    let first = embedder.counters();
    source.embed(embedder, 0..1)?;
    let tokens = |from: u64| embedder.counters().tokens - from;
    let mut mean_tokens = tokens(first.tokens) as f64;
    let started = Instant::now();
    loop {
        let chunks = ((embedder.batch_tokens() as f64 / mean_tokens) as u64).max(1);
        let (before, batch) = (embedder.counters().tokens, Instant::now());
        source.embed(embedder, 0..chunks)?;
        let rate = tokens(before) as f64 / batch.elapsed().as_secs_f64();
        mean_tokens = tokens(before) as f64 / chunks as f64;
        if started.elapsed().as_secs_f64() >= WARM_UP_SECONDS {
            return Ok((rate, mean_tokens));
        }
    }
}

/// A query and a full batch on the idle model, in milliseconds: medians.
fn idle_times(embedder: &EmbedderHandle, source: &Source, mean_tokens: f64) -> Result<(f64, f64), DaemonError> {
    let (mut queries, mut batches) = (Vec::new(), Vec::new());
    let chunks = ((embedder.batch_tokens() as f64 / mean_tokens) as u64).max(1);
    for _ in 0..BATCHES {
        queries.push(queries::ask(embedder)?);
        let started = Instant::now();
        source.embed(embedder, 0..chunks)?;
        batches.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok((quantile(&queries, 0.5), quantile(&batches, 0.5)))
}

/// The run itself, with queries beside it where they are asked for.
fn work_and_queries(
    embedder: &EmbedderHandle,
    source: &Source,
    amount: Amount,
    plan: Plan,
    interactive: bool,
) -> Result<(work::Done, Vec<f64>), DaemonError> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = interactive.then(|| scope.spawn(|| queries::ask_until(embedder, &ended)));
        let done = work::run(embedder, source, amount, plan, 0);
        ended.store(true, Ordering::Relaxed);
        let answers = match asking.map(std::thread::ScopedJoinHandle::join) {
            None => Vec::new(),
            Some(Ok(answers)) => answers?,
            Some(Err(_)) => return Err(DaemonError::Failed("the thread that asks panicked; this is a bug".into())),
        };
        Ok((done?, answers))
    })
}
