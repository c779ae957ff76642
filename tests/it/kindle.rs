//! MOBI, PRC, AZW and AZW3, made by Calibre's converter from real EPUBs: every word of the EPUB's linear text in exactly
//! one section, chapters from the table of contents, and no damage that does harm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use alexandria_ingestd::domain::Document;
use alexandria_ingestd::extract::report::{Report, WordCounts};
use alexandria_ingestd::extract::{ExtractError, Limits, Source, extract};

use crate::books::debian_book;
use crate::damage::{Seeded, damage};

/// Kinds of file: the name's end, the format, and what the converter is told.
const KINDS: [(&str, &str, &[&str]); 4] = [
    ("old.mobi", "MOBI", &["--mobi-file-type", "old"]),
    ("both.mobi", "MOBI", &["--mobi-file-type", "both"]),
    ("new.mobi", "AZW", &["--mobi-file-type", "new"]),
    ("azw3", "AZW3", &[]),
];

/// The EPUB, converted once and kept beside the other test books.
pub fn converted(epub: &Path, end: &str, options: &[&str]) -> PathBuf {
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

/// All words in reading order, as their letters alone: footnote marks are dropped where they are declared, and
/// converters drop the declarations.
fn words(document: &Document) -> Vec<String> {
    let words = document.sections.iter().flat_map(|section| section.text.split_whitespace());
    let letters = words.map(|word| word.chars().filter(|c| c.is_alphabetic()).collect::<String>());
    letters.filter(|word| !word.is_empty()).collect()
}

fn titles(document: &Document) -> Vec<&str> {
    document.sections.iter().map(|section| section.title.as_str()).collect()
}

/// Checks a converted book against its EPUB: the same words by an independent count, in the same order, and chapters
/// of the same names. Returns the complaints.
fn check(epub: &Path, book: &Path, format: &str) -> Vec<String> {
    let name = book.file_name().unwrap().to_string_lossy();
    let (document, original) = (read(book, format), read(epub, "EPUB"));
    let mut counts = WordCounts::default();
    document.sections.iter().for_each(|section| counts.add(&section.text));
    let report =
        WordCounts::of_linear_text(&Source::open(epub).unwrap(), "EPUB", &Limits::default()).unwrap().compare(&counts);
    let unknown = titles(&original).iter().filter(|title| !titles(&document).contains(title)).count();
    println!(
        "{:>7} words, {} lost, {} doubled, {:>4} sections, {} of {} titles not there  {name} {:?}",
        report.words_linear,
        report.lost,
        report.doubled,
        document.sections.len(),
        unknown,
        original.sections.len(),
        document.notes
    );
    let mut complaints = Vec::new();
    let own = Report::measure(&Source::open(book).unwrap(), format, &document, &Limits::default()).unwrap();
    for report in [report, own] {
        if report.lost + report.doubled > 0 {
            complaints.push(format!("{name}: {report:?}"));
        }
    }
    if let Some(at) = words(&original).iter().zip(&words(&document)).position(|(one, other)| one != other) {
        let around = |document| {
            words(document)[at.saturating_sub(5)..].iter().take(12).map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        complaints.push(format!("{name}: the order is another: '{}', not '{}'", around(&document), around(&original)));
    }
    if unknown * 20 > original.sections.len() {
        complaints.push(format!("{name}: {unknown} titles of {} are not there", original.sections.len()));
    }
    complaints
}

fn check_kind(end: &str) {
    let (_, format, options) = KINDS.iter().find(|(own, ..)| *own == end).unwrap();
    let mut books = vec![
        debian_book("calibre", "eng.epub"),
        debian_book("developers-reference", "developers-reference.epub"),
        debian_book("debian-policy", "policy.epub"),
    ];
    books.extend(["ja", "ko", "ru"].map(|code| debian_book("debian-history", &format!("project-history.{code}.epub"))));
    books.extend(["de", "ja"].map(|code| debian_book("live-manual-epub", &format!("live-manual.{code}.epub"))));
    let complaints: Vec<String> =
        books.iter().flat_map(|epub| check(epub, &converted(epub, end, options), format)).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_word_of_a_mobi_is_in_exactly_one_section() {
    check_kind("old.mobi");
}

#[test]
fn every_word_of_a_mobi_with_kf8_is_in_exactly_one_section() {
    check_kind("both.mobi");
}

#[test]
fn every_word_of_an_azw_in_kf8_is_in_exactly_one_section() {
    check_kind("new.mobi");
}

#[test]
fn every_word_of_an_azw3_is_in_exactly_one_section() {
    check_kind("azw3");
}

#[test]
fn a_published_mobi_reads_like_its_epub() {
    let book = |end: &str| debian_book("debian-paketmanagement-buch", end);
    let complaints = check(&book(".epub"), &book(".mobi"), "MOBI");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn books_say_what_they_are() {
    let epub = debian_book("developers-reference", "developers-reference.epub");
    let original = read(&epub, "EPUB");
    for (end, format, options) in KINDS {
        let document = read(&converted(&epub, end, options), format);
        assert_eq!(document.title, original.title, "{end}");
        assert_eq!(document.authors.join(" & "), original.authors.join(" & "), "{end}");
        assert_eq!(document.language, original.language, "{end}");
    }
}

#[test]
fn encrypted_books_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locked.mobi");
    for (end, format, options) in KINDS {
        let mut bytes = fs::read(converted(&debian_book("calibre", "eng.epub"), end, options)).unwrap();
        let record = u32::from_be_bytes(bytes[78..82].try_into().unwrap()) as usize;
        bytes[record + 13] = 2;
        fs::write(&path, bytes).unwrap();
        let error = extract(&path, format, &Limits::default()).unwrap_err();
        assert!(matches!(error, ExtractError::Encrypted { .. }) && error.is_book_fault(), "{end}: {error}");
    }
}

/// A number that offsets, counts and lengths are rarely tried with.
fn nasty(random: &mut Seeded) -> [u8; 4] {
    let any = random.0 as u32;
    [0, 1, 0x7fff_ffff, 0xffff_fffe, u32::MAX, 0x0001_0000, any, any & 0xffff][random.below(8)].to_be_bytes()
}

#[test]
fn damaged_books_end_in_text_or_in_a_reason() {
    let epub = debian_book("calibre", "eng.epub");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.azw3");
    let mut random = Seeded(0x5eed);
    let (mut read, mut slowest) = (0, Duration::ZERO);
    for (end, format, options) in KINDS {
        let whole = fs::read(converted(&epub, end, options)).unwrap();
        let tables: Vec<usize> = (0..whole.len() - 4)
            .filter(|at| [b"INDX", b"FDST", b"TAGX", b"IDXT"].iter().any(|tag| whole[*at..].starts_with(*tag)))
            .collect();
        let header = u32::from_be_bytes(whole[78..82].try_into().unwrap()) as usize;
        for round in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                // Anywhere; in the table of records; in the header; in the other tables.
                let at = match round % 4 {
                    0 => {
                        damage(&mut bytes, &mut random);
                        continue;
                    }
                    1 => 60 + random.below(header - 60),
                    2 => header + random.below(400),
                    _ => tables[random.below(tables.len())] + random.below(260),
                };
                let at = at.min(bytes.len() - 4);
                match random.below(3) {
                    0 => bytes[at..at + 4].copy_from_slice(&nasty(&mut random)),
                    1 => bytes[at & !3..][..4].copy_from_slice(&nasty(&mut random)),
                    _ => bytes[at] = random.below(256) as u8,
                }
            }
            fs::write(&path, bytes).unwrap();
            let started = Instant::now();
            match extract(&path, format, &Limits::default()) {
                Ok(document) => {
                    read += 1;
                    assert!(document.words() > 0);
                }
                Err(error) => assert!(error.is_book_fault(), "{end} {round}: {error}"),
            }
            slowest = slowest.max(started.elapsed());
        }
    }
    println!("{read} of 600 read, the slowest took {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(read > 150, "{read} of 600 read");
}
