//! PDF: real books against poppler's `pdftotext`, chapters from outlines, running lines gone, and no damage that does
//! harm. What malice can write by hand is tested beside the reader.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use alexandria_ingestd::domain::Document;
use alexandria_ingestd::extract::report::{self, Report};
use alexandria_ingestd::extract::{Limits, Source, extract};
use unicode_normalization::UnicodeNormalization;

use crate::books::{debian_book, debian_books};
use crate::damage::{Seeded, damage};
use crate::kindle::converted;

fn read(path: &Path) -> Document {
    extract(path, "PDF", &Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// What poppler reads, in its reading order.
fn pdftotext(path: &Path) -> String {
    let output = Command::new("pdftotext").arg(path).arg("-").output();
    let output = output.expect("pdftotext must be installed: apt-get install --no-install-recommends poppler-utils");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Words as stretches of letters and figures; in writing without spaces, letters.
fn words(text: &str) -> Vec<String> {
    let is_cjk = |c: char| ('\u{3040}'..='\u{30ff}').contains(&c) || ('\u{3400}'..='\u{9fff}').contains(&c);
    let mut words = Vec::new();
    for word in text.nfkc().filter(|c| *c != '\u{ad}').collect::<String>().split(|c: char| !c.is_alphanumeric()) {
        if word.contains(is_cjk) {
            words.extend(word.chars().map(String::from));
        } else if !word.is_empty() {
            words.push(word.to_lowercase());
        }
    }
    words
}

/// The share of `wanted` that is in `got`, each as often.
fn recall<T: std::hash::Hash + Eq>(wanted: impl Iterator<Item = T>, got: impl Iterator<Item = T>) -> f64 {
    let mut counts: HashMap<T, usize> = HashMap::new();
    got.for_each(|item| *counts.entry(item).or_default() += 1);
    let (mut all, mut found) = (0, 0);
    for item in wanted {
        all += 1;
        if let Some(count) = counts.get_mut(&item).filter(|count| **count > 0) {
            *count -= 1;
            found += 1;
        }
    }
    found as f64 / all as f64
}

fn real_pdfs() -> Vec<PathBuf> {
    let packages =
        ["debian-history", "debmake-doc", "developers-reference", "debian-paketmanagement-buch", "debian-reference-de"];
    packages.iter().flat_map(|package| debian_books(package, ".pdf")).collect()
}

#[test]
fn words_of_real_pdfs_are_those_that_poppler_reads() {
    let books = real_pdfs();
    assert!(books.len() >= 18, "only {} books", books.len());
    let mut complaints = Vec::new();
    for path in books {
        let document = read(&path);
        let source = Source::open(&path).unwrap();
        let wanted = words(&pdftotext(&path));
        let text: Vec<&str> = document.sections.iter().map(|section| section.text.as_str()).collect();
        let running = report::running_lines(&source, &Limits::default()).unwrap();
        let got = words(&text.join("\n"));
        let all = [&got[..], &words(&running.join("\n"))[..]].concat();
        let before = recall(wanted.iter(), all.iter());
        let after = recall(wanted.iter(), got.iter());
        let order = recall(wanted.windows(2), got.windows(2));
        let letters = Report::measure(&source, "PDF", &document, &Limits::default()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        println!(
            "{:>7} words {:.2} % with running lines, {:.2} % without, {:.2} % of pairs; {} letters, {} lost, {} doubled; \
             {:>4} running lines, {:>4} sections  {name} {:?}",
            wanted.len(),
            before * 100.0,
            after * 100.0,
            order * 100.0,
            letters.words_linear,
            letters.lost,
            letters.doubled,
            letters.running_lines,
            document.sections.len(),
            document.notes,
        );
        let lost = letters.lost + letters.doubled;
        if before < 0.995 || after < 0.97 || order < 0.93 || lost * 10_000 > letters.words_linear {
            complaints.push(format!("{name}: {before:.4} {after:.4} {order:.4} {letters:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn chapters_begin_at_their_headings() {
    for (package, end, least) in
        [("developers-reference", "developers-reference.pdf", 250), ("debian-history", "project-history.en.pdf", 30)]
    {
        let document = read(&debian_book(package, end));
        assert!(document.sections.len() >= least, "{end}: {} sections", document.sections.len());
        let letters = |text: &str| -> String {
            text.chars().filter(|c| c.is_alphabetic()).flat_map(char::to_lowercase).take(12).collect()
        };
        let named: Vec<_> = document.sections.iter().filter(|section| !section.title.is_empty()).collect();
        let begin = named.iter().filter(|section| {
            let head: String = section.text.chars().take(120).collect();
            head.chars()
                .filter(|c| c.is_alphabetic())
                .flat_map(char::to_lowercase)
                .collect::<String>()
                .contains(&letters(&section.title))
        });
        let begin = begin.count();
        assert!(begin * 100 >= named.len() * 97, "{end}: {begin} of {} sections begin with their title", named.len());
    }
}

#[test]
fn running_lines_are_gone_and_sentences_run_over_pages() {
    let document = read(&debian_book("developers-reference", "developers-reference.pdf"));
    let text: String = document.sections.iter().map(|section| section.text.as_str()).collect::<Vec<_>>().join("\n\n");
    assert!(text.matches("Developer’s Reference, Release 12").count() <= 1);
    // Over two lines; over two pages; parted at a line's end.
    assert!(text.contains("it is very important that member are in accord with the essential ideas behind Debian."));
    assert!(text.contains("\n\nGenerally you should deal with bug reports on your packages as described"));
    let german = read(&debian_book("debian-paketmanagement-buch", ".pdf"));
    let parted = german.sections.iter().flat_map(|section| section.text.split_whitespace());
    let parted = parted.filter(|word| word.len() > 3 && word.ends_with('-')).count();
    assert!(parted * 500 < german.words(), "{parted} words end with a hyphen");
    assert_eq!(document.title.as_deref(), Some("Debian Developer's Reference"));
    assert_eq!(document.authors, ["Developer's Reference Team"]);
}

#[test]
fn a_converted_epub_reads_like_its_pdf() {
    for (package, end) in
        [("developers-reference", "developers-reference.epub"), ("debian-history", "project-history.ja.epub")]
    {
        let epub = debian_book(package, end);
        let original = extract(&epub, "EPUB", &Limits::default()).unwrap();
        let document = read(&converted(&epub, "pdf", &[]));
        let all = |document: &Document| {
            words(&document.sections.iter().map(|section| section.text.as_str()).collect::<Vec<_>>().join("\n"))
        };
        let (wanted, got) = (all(&original), all(&document));
        let (share, order) = (recall(wanted.iter(), got.iter()), recall(wanted.windows(2), got.windows(2)));
        let titles: Vec<&str> = document.sections.iter().map(|section| section.title.as_str()).collect();
        let unknown = original.sections.iter().filter(|section| !titles.contains(&section.title.as_str())).count();
        println!("{end}: {share:.4} {order:.4}, {unknown} of {} titles missing", original.sections.len());
        assert!(share > 0.99 && order > 0.98, "{end}: {share} {order}");
        assert!(unknown * 10 <= original.sections.len(), "{end}: {unknown} of {} titles", original.sections.len());
    }
}

#[test]
fn damaged_pdfs_end_in_text_or_in_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.pdf");
    let mut random = Seeded(0x5eed);
    let (mut read, mut slowest) = (0, Duration::ZERO);
    for name in ["project-history.en.pdf", "project-history.ja.pdf"] {
        let whole = fs::read(debian_book("debian-history", name)).unwrap();
        let places: Vec<usize> = (0..whole.len() - 8)
            .filter(|at| {
                [b" obj".as_slice(), b"stream", b"/Length", b"/Kids"].iter().any(|tag| whole[*at..].starts_with(tag))
            })
            .collect();
        for round in 0..150 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                if round % 3 == 0 {
                    damage(&mut bytes, &mut random);
                    continue;
                }
                // Beside what the parser goes by, and the tables at the end.
                let at = if round % 3 == 1 {
                    places[random.below(places.len())]
                } else {
                    whole.len() - 1 - random.below(3000)
                };
                let at = (at + random.below(40)).min(bytes.len() - 1);
                bytes[at] = if random.below(2) == 0 { b'0' + random.below(10) as u8 } else { random.below(256) as u8 };
            }
            fs::write(&path, bytes).unwrap();
            let started = Instant::now();
            match extract(&path, "PDF", &Limits::default()) {
                Ok(document) => {
                    read += 1;
                    assert!(document.words() > 0);
                }
                Err(error) => assert!(error.is_book_fault(), "{name} {round}: {error}"),
            }
            slowest = slowest.max(started.elapsed());
        }
    }
    println!("{read} of 300 read, the slowest took {slowest:?}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert!(read > 200, "{read} of 300 read");
}
