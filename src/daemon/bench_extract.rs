//! `bench --extract BOOK...`: extraction alone, in this process and in a child, so that the price of the isolation and
//! the speed of the readers can be told apart.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::resource::UsageWho;
use serde::Serialize;

use super::bench::cpu_seconds;
use super::{DaemonError, parts};
use crate::config::Config;
use crate::extract;

/// What reading one book took, the mean of all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct ExtractRow {
    pub book: String,
    pub file_bytes: u64,
    pub words: usize,
    pub sections: usize,
    /// In this process.
    pub cpu_seconds: f64,
    pub wall_seconds: f64,
    /// In a child that is kept from round to round.
    pub child_wall_seconds: f64,
}

/// All books together.
#[derive(Debug, Clone, Serialize)]
pub struct ExtractBench {
    pub rounds: usize,
    pub words: usize,
    pub words_per_cpu_second: f64,
    /// CPU time of the same books read by a child, both processes and the child's start counted, over that of this
    /// process alone; less 1.
    pub isolation_cpu_overhead: f64,
    /// The same in wall time, without the child's start.
    pub isolation_wall_overhead: f64,
    /// The largest resident memory a child had.
    pub child_peak_bytes: u64,
    pub books: Vec<ExtractRow>,
    pub failed: Vec<String>,
}

/// Reads every book `rounds` times in both ways.
pub fn bench_extract(config: &Config, paths: &[PathBuf], rounds: usize, json: bool) -> Result<String, DaemonError> {
    let report = run(config, paths, rounds.max(1))?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| DaemonError::Failed(error.to_string()))?;
        return Ok(text + "\n");
    }
    Ok(table(&report))
}

fn run(config: &Config, paths: &[PathBuf], rounds: usize) -> Result<ExtractBench, DaemonError> {
    let sandbox = parts::sandbox(config);
    let limits = sandbox.settings().limits.clone();
    let (mut books, mut readable, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let per_round = |total: f64| total / rounds as f64;
    for path in paths {
        let format = format_of(path);
        let first = match extract::extract(path, &format, &limits) {
            Ok(document) => document,
            Err(error) => {
                failed.push(error.to_string());
                continue;
            }
        };
        let metadata = std::fs::metadata(path).map_err(DaemonError::io(path.display().to_string()))?;
        books.push(ExtractRow {
            book: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            file_bytes: metadata.len(),
            words: first.words(),
            sections: first.sections.len(),
            cpu_seconds: 0.0,
            wall_seconds: 0.0,
            child_wall_seconds: 0.0,
        });
        readable.push((path, format));
    }
    let both = || cpu_seconds(UsageWho::RUSAGE_SELF) + cpu_seconds(UsageWho::RUSAGE_CHILDREN);
    let cpu_before = both();
    sandbox.warm_up().map_err(DaemonError::io("books cannot be read in a child process"))?;
    // In turns: a machine that is shared is faster at one moment than at another.
    for _ in 0..rounds {
        for (row, (path, format)) in books.iter_mut().zip(&readable) {
            let (started, cpu) = (Instant::now(), cpu_seconds(UsageWho::RUSAGE_SELF));
            drop(extract::extract(path, format, &limits));
            row.cpu_seconds += per_round(cpu_seconds(UsageWho::RUSAGE_SELF) - cpu);
            row.wall_seconds += per_round(started.elapsed().as_secs_f64());
            let started = Instant::now();
            let file = File::open(path).map_err(DaemonError::io(path.display().to_string()))?;
            if let Err(error) = sandbox.extract(&file, path, format, &|| true) {
                failed.push(error.to_string());
            }
            row.child_wall_seconds += per_round(started.elapsed().as_secs_f64());
        }
    }
    // A child's time counts once it has ended.
    drop(sandbox);
    let in_process: f64 = books.iter().map(|row| row.cpu_seconds).sum();
    let child_cpu = per_round(both() - cpu_before) - in_process;
    let sum = |of: fn(&ExtractRow) -> f64| books.iter().map(of).sum::<f64>();
    let words = books.iter().map(|row| row.words).sum();
    Ok(ExtractBench {
        rounds,
        words,
        words_per_cpu_second: words as f64 / sum(|row| row.cpu_seconds).max(1e-9),
        isolation_cpu_overhead: child_cpu / sum(|row| row.cpu_seconds).max(1e-9) - 1.0,
        isolation_wall_overhead: sum(|row| row.child_wall_seconds) / sum(|row| row.wall_seconds).max(1e-9) - 1.0,
        child_peak_bytes: peak_of_children(),
        books,
        failed,
    })
}

/// By the file's name, as Calibre calls it.
pub fn format_of(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_uppercase()).unwrap_or_default()
}

/// Of the largest child that has ended; getrusage(2) counts in KiB.
fn peak_of_children() -> u64 {
    let usage = nix::sys::resource::getrusage(UsageWho::RUSAGE_CHILDREN);
    usage.map_or(0, |usage| u64::try_from(usage.max_rss()).unwrap_or(0) << 10)
}

fn table(report: &ExtractBench) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{:<44} {:>9} {:>9} {:>9} {:>9}", "book", "words", "CPU ms", "wall ms", "in a child");
    for row in &report.books {
        let _ = writeln!(
            out,
            "{:<44} {:>9} {:>9.2} {:>9.2} {:>9.2}",
            row.book,
            row.words,
            row.cpu_seconds * 1e3,
            row.wall_seconds * 1e3,
            row.child_wall_seconds * 1e3
        );
    }
    for failure in &report.failed {
        let _ = writeln!(out, "failed: {failure}");
    }
    let _ = writeln!(
        out,
        "{} words, {:.2} million words a CPU second; isolation costs {:+.1} % CPU (a child's start in {} rounds of \
         all books included) and {:+.1} % wall time; a child's peak is {} MiB",
        report.words,
        report.words_per_cpu_second / 1e6,
        report.isolation_cpu_overhead * 100.0,
        report.rounds,
        report.isolation_wall_overhead * 100.0,
        report.child_peak_bytes >> 20
    );
    out
}
