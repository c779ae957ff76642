//! Thousands of damaged and hostile files, read one after the other: each ends in text or in a reason, without a panic,
//! within bounds of time and memory. Included by the light crate in tests/fuzz, too, so it must name nothing but the
//! readers and the generator.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use alexandria_ingestd::extract::{ExtractError, Limits, Source, extract_source, supported_formats};

use crate::damage::seeds::{self, Seed};
use crate::damage::{self, damaged_files, damaged_files_with, heavy_files, mutations};

/// Tells the test that it is its own child, and how many files to read.
const FILES: &str = "ALEXANDRIA_DAMAGED_FILES";
/// Where the child notes what it is reading.
const PROGRESS: &str = "ALEXANDRIA_DAMAGED_PROGRESS";
/// Reads only files whose name contains it: for work on one finding.
const ONLY: &str = "ALEXANDRIA_DAMAGED_ONLY";
const SEED: u64 = 0x5eed;
/// CPU time of one file. Most take milliseconds; a busy machine makes the clock on the wall useless, and this one true
/// within a factor.
const CPU_SECONDS: f64 = 20.0;
/// The same where half a gigabyte of markup, all that the limits allow, comes out of a file. A child has five minutes.
const HEAVY_CPU_SECONDS: f64 = 100.0;
/// Growth of the process over one file. The text of a book may have 64 MB, and stands in memory a few times over.
const MEMORY_BYTES: u64 = 768 << 20;

/// CPU seconds of this thread, its own and the kernel's for it: the 14th and 15th field, in hundredths (proc(5)).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    behind_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// A line of /proc/self/status, in bytes.
fn status(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = text.lines().find_map(|own| own.strip_prefix(line)).unwrap_or("0");
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Books that converters made and packages brought, where an earlier test has left them.
fn real_books() -> Vec<Seed> {
    let cache = std::env::var_os("ALEXANDRIA_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/alexandria-ingestd")
    });
    let folders = [
        PathBuf::from("/usr/share/calibre/quick_start"),
        cache.join("books/converted"),
        cache.join("books/fbreader/usr/share/fbreader/help"),
    ];
    let mut books = Vec::new();
    for folder in folders {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_uppercase();
            let format = supported_formats().iter().find(|format| **format == extension);
            // Large ones cost seconds and show no more.
            let small = path.metadata().is_ok_and(|metadata| metadata.len() < 1 << 20);
            if let (Some(format), true) = (format, small) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                books.push(Seed::new(name, format, std::fs::read(&path).unwrap()));
            }
        }
    }
    books
}

/// What became of a file.
struct Reading {
    outcome: &'static str,
    complaint: Option<String>,
    seconds: f64,
    grown: u64,
}

fn read(name: &str, format: &str, bytes: Vec<u8>) -> Reading {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    drop(bytes);
    // From now on the greatest use of memory counts from the present one (proc(5)).
    let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let (before, started) = (status("VmRSS:"), cpu_seconds());
    let result = catch_unwind(AssertUnwindSafe(|| read_file(file, format)));
    let seconds = cpu_seconds() - started;
    let grown = if reset { status("VmHWM:").saturating_sub(before) } else { 0 };
    let (outcome, mut complaint) = match result {
        Ok(Ok(text)) if text.contains("root:x:") => ("text", Some("holds /etc/passwd".to_owned())),
        Ok(Ok(text)) if text.trim().is_empty() => ("text", Some("is read and has no text".to_owned())),
        Ok(Ok(_)) => ("text", None),
        Ok(Err(error)) => {
            let fault = (!error.is_book_fault()).then(|| format!("is not the book's fault: {error}"));
            (kind(&error), fault)
        }
        Err(_) => ("panic", Some("panics".to_owned())),
    };
    if seconds > if name.starts_with("heavy-") { HEAVY_CPU_SECONDS } else { CPU_SECONDS } {
        complaint = Some(format!("takes {seconds:.1} s"));
    } else if grown > MEMORY_BYTES {
        complaint = Some(format!("takes {} MB", grown >> 20));
    }
    Reading { outcome, complaint: complaint.map(|what| format!("{format} {name} {what}")), seconds, grown }
}

fn read_file(file: File, format: &str) -> Result<String, ExtractError> {
    let source = Source::from_file(file, Path::new("damaged"))?;
    let document = extract_source(&source, format, &Limits::default())?;
    let mut text: Vec<&str> = document.title.iter().map(String::as_str).collect();
    text.extend(document.authors.iter().chain(&document.notes).map(String::as_str));
    let of_sections = document.sections.iter().flat_map(|section| [section.title.as_str(), section.text.as_str()]);
    text.extend(of_sections.take(10_000));
    Ok(text.join("\n"))
}

fn kind(error: &ExtractError) -> &'static str {
    match error {
        ExtractError::Corrupt { .. } => "damaged",
        ExtractError::Encrypted { .. } => "encrypted",
        ExtractError::NoText { .. } => "no text",
        ExtractError::UnknownFormat { .. } => "unknown format",
        ExtractError::TooLarge { .. } => "too large",
        _ => "other",
    }
}

/// Reads in a process of its own, so that no test beside it counts as a file's memory. True in that process.
fn is_child(test: &str) -> bool {
    if std::env::var_os(PROGRESS).is_some() {
        return true;
    }
    let module = module_path!().split_once("::").map_or("", |(_, path)| path);
    let dir = tempfile::tempdir().unwrap();
    let progress = dir.path().join("reading");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--nocapture", "--test-threads", "1"])
        .env(PROGRESS, &progress)
        .status()
        .unwrap();
    assert!(child.success(), "{child}; the last file was {}", std::fs::read_to_string(&progress).unwrap_or_default());
    false
}

#[test]
fn slow_damaged_files_end_in_text_or_in_a_reason() {
    if is_child("slow_damaged_files_end_in_text_or_in_a_reason") {
        let wanted = std::env::var(FILES).ok().and_then(|count| count.parse().ok()).unwrap_or(3000);
        let total = read_all(damaged_files_with(SEED, real_books()).take(wanted));
        assert!(std::env::var_os(ONLY).is_some() || total >= wanted.min(2000), "only {total} files");
    }
}

#[test]
fn slow_monstrous_files_end_in_text_or_in_a_reason() {
    if is_child("slow_monstrous_files_end_in_text_or_in_a_reason") {
        read_all(heavy_files());
    }
}

/// Reads the files, prints what became of them and returns their number.
fn read_all(files: impl Iterator<Item = damage::File>) -> usize {
    let progress = PathBuf::from(std::env::var_os(PROGRESS).unwrap());
    let only = std::env::var(ONLY).ok();
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let mut complaints = Vec::new();
    let mut costs: Vec<(f64, u64, String)> = Vec::new();
    let mut unknown = 0;
    for (name, format, bytes) in files {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str()) && only != format) {
            continue;
        }
        if !supported_formats().contains(&format) {
            unknown += 1;
            continue;
        }
        std::fs::write(&progress, format!("{format} {name}")).unwrap();
        let reading = read(&name, format, bytes);
        *counts.entry(format).or_default().entry(reading.outcome).or_default() += 1;
        complaints.extend(reading.complaint);
        costs.push((reading.seconds, reading.grown, format!("{format} {name}")));
    }
    let total: usize = counts.values().flat_map(BTreeMap::values).sum();
    for (format, outcomes) in &counts {
        let sum: usize = outcomes.values().sum();
        let outcomes: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        println!("{format:>9}: {sum:>5} files: {}", outcomes.join(", "));
    }
    println!("{total} files read; {unknown} of formats that are not read");
    costs.sort_by(|one, other| other.0.total_cmp(&one.0));
    for (seconds, _, name) in costs.iter().take(8) {
        println!("{seconds:>7.2} s of CPU: {name}");
    }
    costs.sort_by_key(|(_, grown, _)| std::cmp::Reverse(*grown));
    for (_, grown, name) in costs.iter().take(8) {
        println!("{:>6} MB at most: {name}", grown >> 20);
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    total
}

#[test]
fn the_same_seed_gives_the_same_files() {
    let files = |seed| mutations(seed, seeds::all()).take(300);
    assert!(files(SEED).eq(files(SEED)));
    let changed = files(SEED).zip(files(SEED + 1)).filter(|(one, other)| one.2 != other.2).count();
    assert!(changed > 200, "{changed} of 300 files change with the seed");
    assert_eq!(damaged_files(SEED).next(), damaged_files(SEED + 1).next());
}
