//! Extraction of real books: every word of the linear text in exactly one section, by two counts that share nothing
//! with it.

use std::collections::HashMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use alexandria_ingestd::domain::Document;
use alexandria_ingestd::extract::report::{Report, WordCounts};
use alexandria_ingestd::extract::{Limits, Source, extract};

use crate::books::{EPUB_PACKAGES, debian_book, debian_books};
use crate::damage::{Seeded, damage};

fn epub(path: &Path) -> Document {
    extract(path, "EPUB", &Limits::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The words of a book's linear text, by Python's standard library.
fn python_words(path: &Path) -> WordCounts {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/spine_words.py");
    let output = Command::new("python3").arg(script).arg(path).output().expect("python3 counts the words");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    WordCounts(serde_json::from_slice::<HashMap<String, usize>>(&output.stdout).unwrap())
}

fn all_books() -> Vec<PathBuf> {
    EPUB_PACKAGES.iter().flat_map(|package| debian_books(package, ".epub")).collect()
}

#[test]
fn every_word_of_real_books_is_in_exactly_one_section() {
    let books = all_books();
    assert!(books.len() >= 33, "only {} books", books.len());
    let mut complaints = Vec::new();
    for path in books {
        let document = epub(&path);
        let mut sections = WordCounts::default();
        document.sections.iter().for_each(|section| sections.add(&section.text));
        let by_python = python_words(&path).compare(&sections);
        let by_report = Report::measure(&Source::open(&path).unwrap(), "EPUB", &document, &Limits::default()).unwrap();
        println!(
            "{:>7} words {:>4} sections {:>2} notes  {}",
            by_python.words_linear,
            document.sections.len(),
            document.notes.len(),
            path.file_name().unwrap().to_string_lossy()
        );
        for (counted_by, report) in [("python", by_python), ("report", by_report)] {
            assert!(report.words_linear > 500, "{counted_by}: {}", path.display());
            if report.lost + report.doubled > 0 {
                complaints.push(format!("{counted_by} {}: {report:?}", path.display()));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn sections_follow_the_table_of_contents() {
    let document = epub(&debian_book("calibre", "eng.epub"));
    let titles: Vec<String> =
        document.sections.iter().map(|section| format!("{}{}", "  ".repeat(section.level), section.title)).collect();
    insta::assert_snapshot!(titles.join("\n"));
}

#[test]
fn books_say_what_they_are() {
    let document = epub(&debian_book("developers-reference", "developers-reference.epub"));
    assert_eq!(document.language.as_deref(), Some("en"));
    assert_eq!(document.title.as_deref(), Some("developers-reference"));
    assert_eq!(document.authors, ["Developer's Reference Team"]);
    // The table of contents has 267 entries; many are anchors inside the eleven files.
    assert!(document.sections.len() > 200, "{} sections", document.sections.len());
    assert!(document.sections.iter().all(|section| !section.title.is_empty()));
}

#[test]
fn books_that_break_rules_read_whole() {
    // The spine names 47 files by 190 hrefs with fragments, and an image in the manifest is not there.
    let document = epub(&debian_book("live-manual-epub", "live-manual.en.epub"));
    assert_eq!(document.sections.len(), 190);
    // The file says English, the text is German; one page is outside the linear text.
    let document = epub(&debian_book("debmake-doc", "debmake-doc.de.epub"));
    assert_eq!(document.language.as_deref(), Some("en"));
    assert_eq!(document.notes.len(), 1, "{:?}", document.notes);
}

#[test]
fn other_formats_keep_every_word_too() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = epub(&debian_book("debian-history", "project-history.ja.epub"))
        .sections
        .iter()
        .map(|section| format!("# {}\n\n{}\n\n", section.title, section.text))
        .collect();
    for format in ["TXT", "MD"] {
        let path = dir.path().join(format);
        std::fs::write(&path, &text).unwrap();
        let document = extract(&path, format, &Limits::default()).unwrap();
        let report = Report::measure(&Source::open(&path).unwrap(), format, &document, &Limits::default()).unwrap();
        assert_eq!((report.lost, report.doubled), (0, 0), "{format}: {report:?}");
        assert!(report.words_linear > 3_000, "{format}: {}", report.words_linear);
    }
}

#[test]
fn damaged_books_end_in_text_or_in_a_reason() {
    let whole = std::fs::read(debian_book("calibre", "eng.epub")).unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(&whole)).unwrap();
    let mut files = Vec::new();
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        files.push((file.name().unwrap().into_owned(), bytes));
    }
    let texts: Vec<usize> = (0..files.len())
        .filter(|at| ["html", "opf", "ncx", "container.xml"].iter().any(|end| files[*at].0.ends_with(end)))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.epub");
    let mut random = Seeded(0x5eed);
    let mut read = 0;
    for round in 0..400 {
        if round % 4 == 0 {
            // The archive itself.
            let mut bytes = whole.clone();
            damage(&mut bytes, &mut random);
            std::fs::write(&path, bytes).unwrap();
        } else {
            // A file inside it, the archive whole.
            let damaged = texts[random.below(texts.len())];
            let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
            for (at, (name, bytes)) in files.iter().enumerate() {
                let mut bytes = bytes.clone();
                if at == damaged {
                    (0..=random.below(3)).for_each(|_| damage(&mut bytes, &mut random));
                }
                zip.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(&bytes).unwrap();
            }
            zip.finish().unwrap();
        }
        match extract(&path, "EPUB", &Limits::default()) {
            Ok(document) => {
                read += 1;
                assert!(document.words() > 0);
            }
            Err(error) => assert!(error.is_book_fault(), "round {round}: {error}"),
        }
    }
    // Most damage inside the archive leaves text to read.
    assert!(read > 200, "{read} of 400 read");
}
