//! The small verbs: `embed`, `extract PATH --report`, `device`.

use std::io::{BufRead, Write};
use std::path::Path;

use super::bench_extract::format_of;
use super::parts::Mode;
use super::{DaemonError, parts};
use crate::chunk::chunk_sections;
use crate::config::Config;
use crate::domain::{Document, iso_639_1};
use crate::embed::{self, EmbedderHandle, FakeEmbedder, Priority};
use crate::ingest::ModelVectors;

/// One JSON string a line in, one JSON vector a line out.
pub fn embed_lines(config: &Config, input: impl BufRead, mut output: impl Write) -> Result<(), DaemonError> {
    let state_dir = parts::prepare_state_dir(config)?;
    let embedder = parts::load_embedder(config, &state_dir, &parts::quiet)?.embedder;
    for (number, line) in input.lines().enumerate() {
        let line = line.map_err(DaemonError::io("standard input"))?;
        if line.trim().is_empty() {
            continue;
        }
        let text: String = serde_json::from_str(&line)
            .map_err(|error| DaemonError::Failed(format!("line {}: not a JSON string: {error}", number + 1)))?;
        let vector = embedder.embed(&[text], Priority::Interactive)?.swap_remove(0);
        let line = serde_json::to_string(&vector).unwrap_or_default();
        writeln!(output, "{line}").map_err(DaemonError::io("standard output"))?;
    }
    embedder.stop();
    Ok(())
}

/// What `extract PATH --report` found in one file.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CoverageReport {
    pub words_linear: usize,
    pub words_sections: usize,
    pub words_children: usize,
    pub sections: usize,
    pub chapters: usize,
    pub children: usize,
    /// Words of the linear text in no section, and the children's words that no section has; 0 is the goal.
    pub lost: usize,
    /// Words in more sections, or more children, than the linear text has them.
    pub doubled: usize,
    pub notes: Vec<String>,
}

/// Extracts and chunks one file, without a model, and compares its words with an independent count.
pub fn extract_report(config: &Config, path: &Path) -> Result<(Document, CoverageReport), DaemonError> {
    let format = format_of(path);
    let settings = parts::ingest_settings(config, Path::new("").to_owned(), Mode::OneShot);
    let read = parts::sandbox(config).extract_and_measure(path, &format);
    let (document, report) = read.map_err(|error| DaemonError::Failed(error.to_string()))?;
    let embedder = EmbedderHandle::spawn(Box::new(FakeEmbedder::default()))?;
    let tokenizer = embedder.tokenizer().clone();
    let chapters = chunk_sections(
        &document.sections,
        &iso_639_1(document.language.as_deref()),
        &settings.chunking,
        tokenizer.as_ref(),
        settings.chunk_limit(tokenizer.content_tokens()),
        &mut ModelVectors(&embedder),
    )?;
    embedder.stop();
    // Children are slices of the chapters: words are compared by their characters, for a script without spaces may be
    // cut inside what whitespace calls a word.
    let characters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    let in_sections: usize = document.sections.iter().map(|section| characters(&section.text)).sum();
    let (mut in_children, mut words_children, mut children) = (0, 0, 0);
    for chapter in &chapters {
        for child in &chapter.children {
            in_children += characters(chapter.child_text(child));
            words_children += chapter.child_text(child).split_whitespace().count();
            children += 1;
        }
    }
    let report = CoverageReport {
        words_linear: report.words_linear,
        words_sections: report.words_sections,
        words_children,
        sections: document.sections.len(),
        chapters: chapters.len(),
        children,
        lost: report.lost + usize::from(in_children < in_sections),
        doubled: report.doubled + usize::from(in_children > in_sections),
        notes: document.notes.clone(),
    };
    Ok((document, report))
}

/// Where the embedding would run, and why.
pub fn device(config: &Config) -> Result<String, DaemonError> {
    let settings = parts::device_settings(config)?;
    let probed = embed::probe(&settings);
    let gpu = match &probed {
        Ok(facts) => format!("{}, {}", facts.name, facts.memory_line()),
        Err(missing) => format!("none: {missing}"),
    };
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let choice = embed::choose(settings.request, &probed)?;
    let chosen = if choice.cuda { "cuda f16" } else { "cpu f32" };
    Ok(format!("GPU     {gpu}\nCPU     {threads} threads\nchosen  {chosen} ({})", choice.reason))
}

/// What the GPU computes, compared with the CPU: the text to print, and whether all is well.
#[cfg(feature = "cuda")]
pub fn check_device(config: &Config, json: bool) -> Result<(String, bool), DaemonError> {
    let state_dir = config.state_directory()?;
    let files = parts::model_files(config, &state_dir, &parts::quiet)?;
    let report = embed::check(&files, &parts::device_settings(config)?)?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| DaemonError::Failed(error.to_string()))?;
        return Ok((text + "\n", report.passed));
    }
    let mut text = format!("{} on {}\n", report.model, report.device);
    for row in &report.rows {
        let verdict = if row.passed { "ok" } else { "FAILED" };
        text += &format!("{verdict:<7} {:<9} {:>12.6} {:<9} {}\n", row.part, row.measured, row.goal, row.what);
    }
    let failed = report.rows.iter().filter(|row| !row.passed).count();
    text += &format!("{} checks, {failed} failed\n", report.rows.len());
    Ok((text, report.passed))
}

/// The same in a build without CUDA.
#[cfg(not(feature = "cuda"))]
pub fn check_device(_config: &Config, _json: bool) -> Result<(String, bool), DaemonError> {
    Err(DaemonError::Failed(format!("there is no GPU to check: {}", embed::NoCuda::NotBuilt)))
}
