//! What a fuzz target does with its bytes: a book of one format is made of them and read. Formats that are archives take
//! the parts of the archive, one after the other, so that no input dies at a checksum. Included by the main crate's
//! tests, too, which replay what the fuzzer has found. Must never need the fuzzer.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use alexandria_ingestd::extract::{Limits, Source, extract_source, supported_formats};

use crate::damage::archives::{self, Files};
use crate::damage::kindle;
use crate::damage::seeds::{self, Content};

/// What parts an input.
const BETWEEN_PARTS: &[u8] = b"\n====\n";
/// Small, so that an input that reaches for them is soon through.
const LIMITS: Limits = Limits { max_text_bytes: 1 << 20, max_entry_bytes: 1 << 20, max_total_bytes: 4 << 20 };

/// How an input becomes a file.
enum Shape {
    /// As it is; read as each of these.
    Whole(&'static [&'static str]),
    /// The parts with these names, in an archive; those that are missing are a small whole book's.
    Parts(&'static str, &'static [&'static str]),
    /// The records of a Palm database, or one as it is.
    Records,
}

const TARGETS: &[(&str, Shape)] = &[
    ("archive", Shape::Whole(&["EPUB", "DOCX", "ODT", "HTMLZ", "FBZ"])),
    (
        "epub",
        Shape::Parts(
            "EPUB",
            &[
                "META-INF/container.xml",
                "OEBPS/content.opf",
                "OEBPS/toc.ncx",
                "OEBPS/nav.xhtml",
                "OEBPS/a.xhtml",
                "OEBPS/b c.xhtml",
                "META-INF/encryption.xml",
            ],
        ),
    ),
    (
        "docx",
        Shape::Parts(
            "DOCX",
            &[
                "word/document.xml",
                "word/styles.xml",
                "word/footnotes.xml",
                "word/_rels/document.xml.rels",
                "_rels/.rels",
                "docProps/core.xml",
            ],
        ),
    ),
    ("odt", Shape::Parts("ODT", &["content.xml", "meta.xml", "META-INF/manifest.xml"])),
    ("zipped_html", Shape::Parts("ZIP", &["x/index.html", "x/p9.htm", "x/z.html", "x/c.opf", "x/b.fb2"])),
    ("fb2", Shape::Whole(&["FB2"])),
    ("markup", Shape::Whole(&["HTML"])),
    ("mobi", Shape::Records),
    ("pdf", Shape::Whole(&["PDF"])),
    ("rtf", Shape::Whole(&["RTF"])),
    ("text", Shape::Whole(&["TXT", "MD"])),
];

/// The targets' names.
pub fn targets() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().map(|(name, _)| *name)
}

fn shape(target: &str) -> &'static Shape {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    &found.unwrap_or_else(|| panic!("{target} is no target")).1
}

fn parts(data: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut at = 0;
    while at < data.len() {
        if data[at..].starts_with(BETWEEN_PARTS) {
            parts.push(Vec::new());
            at += BETWEEN_PARTS.len();
        } else {
            parts.last_mut().expect("one part is there").push(data[at]);
            at += 1;
        }
    }
    parts
}

/// Reads `data` as the target does.
///
/// # Panics
/// Where a reader panics, or says something that cannot be.
pub fn run(target: &str, data: &[u8]) {
    match shape(target) {
        Shape::Whole(formats) => formats.iter().for_each(|format| read(format, data)),
        Shape::Records if data.get(60..68).is_some_and(|kind| kind.eq_ignore_ascii_case(b"BOOKMOBI")) => {
            read("MOBI", data);
        }
        Shape::Records => read("MOBI", &kindle::palm(b"BOOKMOBI", &parts(data))),
        Shape::Parts(format, names) => {
            let mut files: Files = seeds::archive(format);
            for (name, part) in names.iter().zip(parts(data)) {
                match files.iter_mut().find(|(own, _)| own == name) {
                    Some((_, bytes)) if !part.is_empty() => *bytes = part,
                    None if !part.is_empty() => files.push(((*name).to_owned(), part)),
                    _ => {}
                }
            }
            read(format, &archives::zip(&files));
        }
    }
}

fn read(format: &str, bytes: &[u8]) {
    thread_local! {
        // One file for all inputs, because making one costs more than most of them.
        static FILE: File = tempfile::tempfile().expect("a temporary file");
    }
    if !supported_formats().contains(&format) || bytes.is_empty() {
        return;
    }
    let file = FILE.with(|file| {
        let mut file = file.try_clone().expect("a descriptor");
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).expect("a temporary file");
        file.write_all(bytes).expect("a temporary file");
        file
    });
    let source = Source::from_file(file, Path::new("fuzzed")).expect("a temporary file");
    match extract_source(&source, format, &LIMITS) {
        Ok(document) => {
            let text: usize = document.sections.iter().map(|section| section.text.len()).sum();
            assert!(text > 0 && text as u64 <= LIMITS.max_text_bytes, "{format}: {text} bytes of text");
        }
        Err(error) => assert!(error.is_book_fault(), "{format}: {error}"),
    }
}

/// Small whole inputs of a target, to begin with.
pub fn examples(target: &str) -> Vec<Vec<u8>> {
    let all = seeds::all();
    match shape(target) {
        Shape::Whole(formats) => {
            all.iter().filter(|seed| formats.contains(&seed.format)).map(seeds::Seed::bytes).collect()
        }
        Shape::Records => {
            let books = all.iter().filter(|seed| ["MOBI", "AZW", "AZW3", "PRC"].contains(&seed.format));
            let books: Vec<Vec<u8>> = books.map(seeds::Seed::bytes).collect();
            let records = books.iter().map(|book| kindle::records(book).join(BETWEEN_PARTS)).collect();
            [books, records].concat()
        }
        Shape::Parts(format, names) => {
            let seed = all.iter().find(|seed| seed.format == *format).map(|seed| &seed.content);
            let Some(Content::Archive(files)) = seed else { return Vec::new() };
            let part = |name: &&str| files.iter().find(|(own, _)| own == name).map(|(_, bytes)| bytes.clone());
            let parts: Vec<Vec<u8>> = names.iter().map(|name| part(name).unwrap_or_default()).collect();
            let single = (0..parts.len()).map(|at| {
                let mut one = vec![Vec::new(); at];
                one.push(parts[at].clone());
                one.join(BETWEEN_PARTS)
            });
            single.chain([parts.join(BETWEEN_PARTS)]).collect()
        }
    }
}

/// Writes a target's examples into the folder that `ALEXANDRIA_FUZZ_SEEDS` names: the fuzzer reads it afterwards.
pub fn write_examples(target: &str) {
    let Some(folder) = std::env::var_os("ALEXANDRIA_FUZZ_SEEDS") else { return };
    for (at, bytes) in examples(target).iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("example-{at}")), bytes).expect("the folder can be written");
    }
}
