//! Chunks in many scripts: the Declaration of Human Rights in some five hundred languages, and Japanese and Chinese
//! books, by the tokenizer of bge-m3. What is a sentence, and what a word, is judged here by rules of this file's own.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;

use alexandria_ingestd::chunk::{BorderVectors, Borders, ChunkSettings, chunk_sections, sentence_ranges};
use alexandria_ingestd::domain::{ChapterChunks, Document, TokenCounter, iso_639_1, word_count};
use alexandria_ingestd::embed::HubTokenizer;
use alexandria_ingestd::extract::{Limits, extract};
use unicode_normalization::char::is_combining_mark;

use crate::books::{debian_books, declaration, declarations};
use crate::support::model_directory;

/// Tokens a text of bge-m3 may have without the special ones; and so few that even these short texts have many chunks.
const BGE_M3: usize = 8190;
const SMALL: usize = 126;

fn tokenizer() -> HubTokenizer {
    HubTokenizer::load(&model_directory("me5-small-xlmr").join("tokenizer.json"), BGE_M3 + 2).unwrap()
}

fn settings() -> ChunkSettings {
    ChunkSettings {
        borders: Borders::Packed,
        min_words: 200,
        target_words: 400,
        max_words: 1200,
        min_chapter_words: 384,
    }
}

fn read(path: &Path) -> Document {
    let format = path.extension().unwrap().to_string_lossy().to_uppercase();
    extract(path, &format, &Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Packed chunks need no vectors.
struct NoVectors;

impl BorderVectors for NoVectors {
    type Error = Infallible;

    fn of_sentences(&mut self, _: &[&str]) -> Result<Vec<Vec<f32>>, Infallible> {
        unreachable!("packed chunks")
    }

    fn of_tokens(&mut self, _: &[u32]) -> Result<Vec<Vec<f32>>, Infallible> {
        unreachable!("packed chunks")
    }
}

fn chunk(document: &Document, tokenizer: &HubTokenizer, content_tokens: usize) -> Vec<ChapterChunks> {
    let language = iso_639_1(document.language.as_deref());
    chunk_sections(&document.sections, &language, &settings(), tokenizer, content_tokens, &mut NoVectors).unwrap()
}

fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// How a text was cut.
#[derive(Debug, Default)]
struct Cuts {
    words: usize,
    chapters: usize,
    /// Blocks of the text: headings are not in it, so these are paragraphs.
    paragraphs: usize,
    /// Tokens of each sentence and each child.
    sentences: Vec<usize>,
    children: Vec<usize>,
    /// Borders between children in one chapter, and how many of them part a sentence, a word of a script with spaces,
    /// and what is written as one.
    borders: usize,
    in_sentence: usize,
    in_word: usize,
    in_letter: usize,
    /// Tokens of the child that has most, counted on its own.
    longest_alone: usize,
    lost: bool,
}

fn cuts(document: &Document, tokenizer: &HubTokenizer, content_tokens: usize) -> Cuts {
    let language = iso_639_1(document.language.as_deref());
    let chapters = chunk(document, tokenizer, content_tokens);
    let mut cuts = Cuts { chapters: chapters.len(), ..Cuts::default() };
    let mut kept = String::new();
    for chapter in &chapters {
        let text = &chapter.text;
        cuts.words += word_count(text);
        cuts.paragraphs += text.split("\n\n").filter(|block| !block.trim().is_empty()).count();
        let sentences = sentence_ranges(text, &language);
        let count = |text: &str| tokenizer.token_ranges(text).len();
        cuts.sentences.extend(sentences.iter().map(|range| count(&text[range.clone()])));
        let starts: BTreeSet<usize> = sentences.iter().map(|range| range.start).collect();
        for child in &chapter.children {
            kept.push_str(&visible(chapter.child_text(child)));
            cuts.children.push(child.tokens);
            cuts.longest_alone = cuts.longest_alone.max(count(chapter.child_text(child)));
        }
        for pair in chapter.children.windows(2) {
            cuts.borders += 1;
            let at = pair[1].range.start;
            cuts.in_sentence += usize::from(!starts.contains(&at));
            if pair[0].range.end == at {
                let (before, after) = (text[..at].chars().next_back().unwrap(), text[at..].chars().next().unwrap());
                cuts.in_letter += usize::from(is_one_letter(before, after));
                let letters = before.is_alphanumeric() && after.is_alphanumeric();
                cuts.in_word += usize::from(letters && has_spaces(text));
            }
        }
    }
    let sections: String = document.sections.iter().map(|section| visible(&section.text)).collect();
    cuts.lost = kept != sections;
    cuts
}

/// Whether the text's words are parted by spaces: a run between two of them is no phrase.
fn has_spaces(text: &str) -> bool {
    let words = text.split_whitespace().count();
    visible(text).chars().filter(|c| c.is_alphabetic() && !is_combining_mark(*c)).count() < 10 * words
}

/// Signs of their own to Unicode's grapheme clusters too: Thai and Lao vowels before and behind a consonant.
fn is_one_letter(before: char, after: char) -> bool {
    is_combining_mark(after)
        || matches!(before, 'เ' | 'แ' | 'โ' | 'ใ' | 'ไ' | 'ເ' | 'ແ' | 'ໂ' | 'ໃ' | 'ໄ')
        || matches!(
            after,
            'ะ' | 'า'
                | 'ำ'
                | 'ๆ'
                | 'ະ'
                | 'າ'
                | 'ຳ'
                | 'ຽ'
                | 'ー'
                | '、'
                | '。'
                | '」'
                | 'っ'
                | 'ょ'
                | '་'
                | '།'
        )
}

fn median(values: &[usize]) -> usize {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn mean(values: &[usize]) -> usize {
    values.iter().sum::<usize>() / values.len().max(1)
}

fn row(name: &str, whole: &Cuts, small: &Cuts) -> String {
    let longest = |values: &[usize]| values.iter().copied().max().unwrap_or_default();
    format!(
        "{name:<18} {:>5} {:>6} {:>4} {:>4} {:>4}/{:>4} {:>3}  {:>3} {:>5}  {:>3} {:>4}/{:>3} {:>4} {:>4} {:>4} {:>4} {}",
        whole.words,
        whole.children.iter().sum::<usize>(),
        whole.paragraphs,
        whole.sentences.len(),
        median(&whole.sentences),
        longest(&whole.sentences),
        whole.chapters,
        whole.children.len(),
        mean(&whole.children),
        small.children.len(),
        mean(&small.children),
        small.children.iter().min().unwrap(),
        small.longest_alone,
        small.in_sentence,
        small.in_word,
        small.in_letter,
        if whole.lost || small.lost { "LOST" } else { "" },
    )
}

const HEADINGS: &str =
    "language           words tokens  par sent  med/long  ch | kid  mean| kid mean/min long cutS cutW cutL";

fn document(language: &str) -> Document {
    read(&declaration(language))
}

/// Where XLM-R's vocabulary has a script's words, and so the longest sentence has no more of the whole.
const LANGUAGES: [&str; 20] = [
    "amh",
    "arb",
    "bod",
    "cmn_hans",
    "cmn_hant",
    "ell_monotonic",
    "heb",
    "hin",
    "hye",
    "jpn",
    "kat",
    "khm",
    "kor",
    "lao",
    "mya",
    "pnb",
    "rus",
    "tha",
    "tir",
    "urd",
];

#[test]
fn other_scripts_are_chunked_as_english_is() {
    let tokenizer = tokenizer();
    let of = |language: &str, content_tokens| cuts(&document(language), &tokenizer, content_tokens);
    let (english, english_small) = (of("eng", BGE_M3), of("eng", SMALL));
    println!("{HEADINGS}\n{}", row("eng", &english, &english_small));
    let longest =
        |cuts: &Cuts| *cuts.sentences.iter().max().unwrap() as f64 / cuts.sentences.iter().sum::<usize>() as f64;
    let mut complaints = Vec::new();
    for language in LANGUAGES {
        let (whole, small) = (of(language, BGE_M3), of(language, SMALL));
        println!("{}", row(language, &whole, &small));
        let mut complain = |is_so: bool, what: &str| {
            if is_so {
                complaints.push(format!("{language}: {what}"));
            }
        };
        complain(whole.lost || small.lost, "text is lost or doubled");
        complain(small.in_word + small.in_letter > 0, "a word or a letter is cut");
        complain(small.longest_alone > SMALL || whole.longest_alone > BGE_M3, "a chunk exceeds the model's limit");
        // The English has 1.1 sentences a paragraph.
        let of_paragraph = whole.sentences.len() as f64 / whole.paragraphs as f64;
        complain(!(1.05..=1.4).contains(&of_paragraph), "sentences are not where a reader has them");
        complain(longest(&whole) > 2.0 * longest(&english), "a sentence is twice as long as the longest in English");
        complain(small.in_sentence * 5 > small.borders, "sentences are cut");
        complain(
            whole.chapters + 2 < english.chapters || whole.chapters > english.chapters + 1,
            "chapters are merged otherwise",
        );
        let size = mean(&small.children) as f64 / mean(&english_small.children) as f64;
        complain(!(0.8..=1.2).contains(&size), "chunks are of another size");
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_japanese_book_has_the_chapters_and_chunks_of_the_english_one() {
    let tokenizer = tokenizer();
    let of = |language: &str| {
        let book = debian_books("live-manual-epub", &format!(".{language}.epub")).remove(0);
        cuts(&read(&book), &tokenizer, SMALL)
    };
    let (english, japanese) = (of("en"), of("ja"));
    println!("{HEADINGS}\n{}\n{}", row("en", &english, &english), row("ja", &japanese, &japanese));
    assert!(!japanese.lost);
    assert_eq!(japanese.in_letter, 0);
    assert!(japanese.chapters.abs_diff(english.chapters) * 5 < english.chapters);
    assert!(japanese.sentences.len().abs_diff(english.sentences.len()) * 10 < english.sentences.len());
    assert!(mean(&japanese.children).abs_diff(mean(&english.children)) * 10 < mean(&english.children));
}

#[test]
#[ignore = "prints a table of 532 languages and of books, and asserts that nothing is lost: some minutes"]
fn slow_table_of_languages() {
    let tokenizer = tokenizer();
    println!("{HEADINGS}");
    let mut lost = Vec::new();
    let books = [("debian-history", ".ja.epub"), ("debmake-doc", ".epub"), ("live-manual-epub", ".epub")];
    let books = books.iter().flat_map(|(package, suffix)| debian_books(package, suffix));
    for path in declarations().into_iter().chain(books) {
        let document = read(&path);
        let (whole, small) = (cuts(&document, &tokenizer, BGE_M3), cuts(&document, &tokenizer, SMALL));
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if whole.children.is_empty() {
            println!("{name:<18} empty");
            continue;
        }
        println!("{}", row(&name, &whole, &small));
        if whole.lost || small.lost {
            lost.push(name);
        }
    }
    assert!(lost.is_empty(), "text is lost or doubled: {lost:?}");
}
