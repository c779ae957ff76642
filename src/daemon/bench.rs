//! `bench BOOK`: one book through all stages, into a store that is thrown away; a table by stage.
//!
//! Stages run one after the other here (in the service they overlap), so that each one's CPU time is its own.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use super::DaemonError;
use super::bench_extract::format_of;
use super::parts::{self, Mode};
use crate::chunk::chunk_sections;
use crate::clock::now_us;
use crate::config::Config;
use crate::domain::{Book, BookFile, Metadata, Source, iso_639_1};
use crate::embed::Priority;
use crate::extract::ExtractError;
use crate::ingest::{BookVectors, ModelVectors, book_points, embedded_texts};
use crate::store::{self, CollectionSpec, Filter};

/// One stage of one run.
#[derive(Debug, Clone, Serialize)]
pub struct StageRow {
    pub stage: &'static str,
    pub wall_seconds: f64,
    /// User and system time of the whole process and of the child that read the book.
    pub cpu_seconds: f64,
}

/// What a run measured.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    pub book: String,
    pub model: String,
    pub device: String,
    pub file_bytes: u64,
    pub words: usize,
    /// By an independent count of the file, and how many of them no child has, or more than one.
    pub words_linear: usize,
    pub words_lost: usize,
    pub words_doubled: usize,
    pub words_in_children: usize,
    pub sections: usize,
    pub chapters: usize,
    pub chunks: usize,
    /// Tokens of the children, special tokens left out.
    pub tokens: usize,
    /// Tokens that went through the model for the borders.
    pub border_tokens: u64,
    pub points: usize,
    pub stages: Vec<StageRow>,
    pub load_seconds: f64,
    /// The process' peak resident memory over all stages, and its resident memory with the model just loaded.
    pub peak_bytes: u64,
    pub loaded_bytes: u64,
    pub cpu_ms_per_token: f64,
    pub chunks_per_minute: f64,
}

/// Runs the stages on one file and prints what they took.
pub fn bench(config: &Config, path: &Path, json: bool) -> Result<String, DaemonError> {
    let report = run(config, path)?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| DaemonError::Failed(error.to_string()))?;
        return Ok(text + "\n");
    }
    Ok(table(&report))
}

fn run(config: &Config, path: &Path) -> Result<BenchReport, DaemonError> {
    let scratch = tempfile::tempdir().map_err(DaemonError::io("a temporary directory cannot be made"))?;
    let state_dir = config.state_directory()?;
    let started = Instant::now();
    let embedder = parts::load_embedder(config, &state_dir, &parts::quiet)?.embedder;
    let load_seconds = started.elapsed().as_secs_f64();
    reset_peak_memory();
    let loaded_bytes = memory("VmRSS:");

    let settings = parts::ingest_settings(config, scratch.path().join("scratch"), Mode::OneShot);
    let metadata = std::fs::metadata(path).map_err(DaemonError::io(path.display().to_string()))?;
    let format = format_of(path);
    let mut stages = Vec::new();
    let failed = |error: ExtractError| DaemonError::Failed(error.to_string());

    let document = measure(&mut stages, "extract", || {
        let file = File::open(path).map_err(|source| ExtractError::Io { path: path.to_owned(), source })?;
        // Dropped at once: a child's time counts when it has ended, its start is part of the stage.
        parts::sandbox(config).extract(&file, path, &format, &|| true)
    })
    .map_err(failed)?;
    let tokenizer = embedder.tokenizer().clone();
    let tokens_before = embedder.counters().tokens;
    let chapters = measure(&mut stages, "borders", || {
        chunk_sections(
            &document.sections,
            &iso_639_1(document.language.as_deref()),
            &settings.chunking,
            tokenizer.as_ref(),
            settings.chunk_limit(tokenizer.content_tokens()),
            &mut ModelVectors(&embedder),
        )
    })?;
    let border_tokens = embedder.counters().tokens - tokens_before;
    let title = document.title.clone().unwrap_or_default();
    let embedded = embedded_texts(&chapters, &title, &settings, tokenizer.as_ref());
    let children: Vec<&str> = embedded.iter().map(|(text, _)| text.as_ref()).collect();
    let vectors = measure(&mut stages, "embed", || embedder.embed(&children, Priority::Bulk))?;
    let book = Book {
        uuid: uuid::Uuid::new_v4(),
        library_uuid: uuid::Uuid::new_v4(),
        source: Source::File("bench".into()),
        metadata: Metadata { title: path.display().to_string(), ..Metadata::default() },
        file: BookFile {
            format: format.clone(),
            path: path.to_owned(),
            data_id: None,
            size: metadata.len(),
            mtime_us: 0,
        },
        others: Vec::new(),
        unread: Vec::new(),
        added_us: now_us(),
    };
    let texts = chapters.iter().flat_map(|chapter| chapter.children.iter().map(|child| chapter.child_text(child)));
    let words_in_children = texts.map(|text| text.split_whitespace().count()).sum();
    let chunks = children.len();
    let tokens = chapters.iter().flat_map(|chapter| &chapter.children).map(|child| child.tokens).sum();
    let mut store_config = config.store.clone();
    store_config.kind = "embedded".into();
    let points = measure(&mut stages, "store", || -> Result<usize, DaemonError> {
        let made = book_points(&BookVectors {
            book: &book,
            file: &document.file_metadata(),
            chapters: &chapters,
            child_vectors: vectors,
            embedder: &embedder,
            settings: &settings,
            content_hash: "bench",
            generation: "bench",
        })?;
        let store = store::open(&store_config, scratch.path())?;
        store.ensure_collection(&CollectionSpec {
            name: store_config.collection.clone(),
            dimension: embedder.info().dimension,
            model_id: embedder.info().id.clone(),
        })?;
        made.chunks(256).try_for_each(|batch| store.upsert(batch))?;
        store.checkpoint()?;
        Ok(store.count(&Filter::default())?)
    })?;
    let peak_bytes = memory("VmHWM:");
    let (_, coverage) = parts::sandbox(config).extract_and_measure(path, &format).map_err(failed)?;
    embedder.stop();

    let cpu: f64 = stages.iter().map(|row: &StageRow| row.cpu_seconds).sum();
    let wall: f64 = stages.iter().map(|row: &StageRow| row.wall_seconds).sum();
    Ok(BenchReport {
        book: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        model: embedder.info().name.clone(),
        device: embedder.info().device.clone(),
        file_bytes: metadata.len(),
        words: document.words(),
        words_linear: coverage.words_linear,
        words_lost: coverage.lost,
        words_doubled: coverage.doubled,
        words_in_children,
        sections: document.sections.len(),
        chapters: chapters.len(),
        chunks,
        tokens,
        border_tokens,
        points,
        stages,
        load_seconds,
        peak_bytes,
        loaded_bytes,
        cpu_ms_per_token: cpu * 1000.0 / (tokens as f64).max(1.0),
        chunks_per_minute: chunks as f64 * 60.0 / wall.max(1e-9),
    })
}

fn table(report: &BenchReport) -> String {
    let mut out = String::new();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    // Writing to a String cannot fail.
    let _ =
        writeln!(out, "{} ({:.1} MiB) with {} on {}", report.book, mib(report.file_bytes), report.model, report.device);
    let _ = writeln!(out, "{:<9} {:>9} {:>9} {:>9}", "stage", "wall s", "CPU s", "share");
    let total_cpu: f64 = report.stages.iter().map(|row| row.cpu_seconds).sum();
    let total_wall: f64 = report.stages.iter().map(|row| row.wall_seconds).sum();
    for row in &report.stages {
        let share = 100.0 * row.cpu_seconds / total_cpu.max(1e-9);
        let _ = writeln!(out, "{:<9} {:>9.2} {:>9.2} {:>8.1}%", row.stage, row.wall_seconds, row.cpu_seconds, share);
    }
    let _ = writeln!(out, "{:<9} {:>9.2} {:>9.2}", "total", total_wall, total_cpu);
    let _ = writeln!(
        out,
        "words     {} in the file by an independent count, {} in sections, {} in children; {} lost, {} doubled",
        report.words_linear, report.words, report.words_in_children, report.words_lost, report.words_doubled
    );
    let _ = writeln!(
        out,
        "made      {} sections, {} chapters, {} chunks, {} points, {} tokens (and {} for borders)",
        report.sections, report.chapters, report.chunks, report.points, report.tokens, report.border_tokens
    );
    let _ = writeln!(
        out,
        "rate      {:.3} CPU ms a token, {:.0} chunks/min; the model loaded in {:.1} s",
        report.cpu_ms_per_token, report.chunks_per_minute, report.load_seconds
    );
    let _ = writeln!(
        out,
        "memory    {:.0} MiB resident with the model loaded, {:.0} MiB at the peak: {:.0} MiB besides the model",
        mib(report.loaded_bytes),
        mib(report.peak_bytes),
        mib(report.peak_bytes.saturating_sub(report.loaded_bytes))
    );
    out
}

fn measure<T>(stages: &mut Vec<StageRow>, stage: &'static str, work: impl FnOnce() -> T) -> T {
    let cpu_seconds = || cpu_seconds(UsageWho::RUSAGE_SELF) + cpu_seconds(UsageWho::RUSAGE_CHILDREN);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let result = work();
    stages.push(StageRow { stage, wall_seconds: started.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu });
    result
}

/// User and system time so far, of this process or of its children that have ended.
pub fn cpu_seconds(who: UsageWho) -> f64 {
    let Ok(usage) = getrusage(who) else { return 0.0 };
    [usage.user_time(), usage.system_time()].iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum()
}

/// A line of /proc/self/status, in bytes; 0 where there is none.
pub fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() << 10
}

/// proc(5): writing 5 to clear_refs sets VmHWM to the present VmRSS. Where that is refused the peak includes the load.
pub fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
