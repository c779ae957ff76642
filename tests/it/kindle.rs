//! MOBI, PRC, AZW and AZW3, made by Calibre's converter from real EPUBs: every word of the EPUB's linear text in exactly
//! one section, chapters from the table of contents, and no damage that does harm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use alexandria_ingestd::domain::Document;
use alexandria_ingestd::extract::report::{Report, WordCounts};
use alexandria_ingestd::extract::{ExtractError, Limits, extract};

use crate::books::{debian_book, debian_books};

/// Kinds of file: the name's end, the format, and what the converter is told.
const KINDS: [(&str, &str, &[&str]); 4] = [
    ("old.mobi", "MOBI", &["--mobi-file-type", "old"]),
    ("both.mobi", "MOBI", &["--mobi-file-type", "both"]),
    ("new.mobi", "AZW", &["--mobi-file-type", "new"]),
    ("azw3", "AZW3", &[]),
];

/// The EPUB, converted once and kept beside the other test books.
fn converted(epub: &Path, end: &str, options: &[&str]) -> PathBuf {
    let cache = match std::env::var_os("ALEXANDRIA_TEST_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/alexandria-ingestd"),
    }
    .join("books/converted");
    let name = format!("{}.{end}", epub.file_stem().unwrap().to_string_lossy());
    let done = cache.join(&name);
    if done.is_file() {
        return done;
    }
    fs::create_dir_all(&cache).unwrap();
    // Tests are processes of their own, in parallel: each works in its own folder, and the first to finish wins.
    let work = tempfile::Builder::new().prefix(".convert-").tempdir_in(&cache).unwrap();
    fs::set_permissions(work.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let made = work.path().join(&name);
    let output = Command::new("ebook-convert")
        .arg(epub)
        .arg(&made)
        .args(options)
        .env("QT_QPA_PLATFORM", "offscreen")
        .env("QTWEBENGINE_DISABLE_SANDBOX", "1")
        .env("XDG_RUNTIME_DIR", work.path())
        .env("CALIBRE_CONFIG_DIRECTORY", work.path())
        .output()
        .expect("ebook-convert must be installed: apt-get install --no-install-recommends calibre");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&made, &done).unwrap();
    done
}

fn read(path: &Path, format: &str) -> Document {
    extract(path, format, &Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn words_of(document: &Document) -> WordCounts {
    let mut counts = WordCounts::default();
    document.sections.iter().for_each(|section| counts.add(&section.text));
    counts
}

/// What a converted book lost and doubled of its EPUB, and its document.
fn compare(epub: &Path, book: &Path, format: &str) -> (Report, Document) {
    let linear = WordCounts::of_linear_text(epub, "EPUB", &Limits::default()).unwrap();
    let document = read(book, format);
    let report = linear.compare(&words_of(&document));
    println!(
        "{:>7} words {:>4} sections {:>4} lost {:>4} doubled  {} {:?}",
        report.words_linear,
        document.sections.len(),
        report.lost,
        report.doubled,
        book.file_name().unwrap().to_string_lossy(),
        document.notes
    );
    if report.lost + report.doubled > 0 {
        println!("    lost {:?}\n    doubled {:?}", report.missing_examples, report.doubled_examples);
    }
    (report, document)
}

fn books() -> Vec<PathBuf> {
    let mut books = vec![
        debian_book("calibre", "eng.epub"),
        debian_book("developers-reference", "developers-reference.epub"),
        debian_book("debian-policy", "policy.epub"),
    ];
    books.extend(["ja", "ko", "ru"].map(|code| debian_book("debian-history", &format!("project-history.{code}.epub"))));
    books.extend(debian_books("live-manual-epub", ".epub"));
    books
}

#[test]
fn every_word_of_converted_books_is_in_exactly_one_section() {
    let mut complaints = Vec::new();
    for epub in books() {
        for (end, format, options) in KINDS {
            let book = converted(&epub, end, options);
            let (report, _) = compare(&epub, &book, format);
            if report.lost + report.doubled > 0 {
                complaints.push(format!("{}: {report:?}", book.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
