//! `bench --retrieval BOOK...`: how well passages cut in different ways are found, on books that say themselves what is
//! where: a heading is the question, the text under it the answer, and the heading is taken out of the text.
//!
//! Must never let one method see what another one does not: the same text, the same questions, the same rule for what
//! is relevant (`labels`), the same exact search.

mod bootstrap;
mod cut;
mod labels;
mod methods;
mod metrics;
mod passages;
mod questions;
mod report;
mod search;
mod vectors;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::resource::UsageWho;
use rayon::prelude::*;

use self::labels::LabelledBook;
use self::methods::{Base, Chapters, Method, Size, chosen, methods};
use self::metrics::{MEASURES, Scores};
use self::passages::{Collection, Maker};
use self::questions::{ACROSS, Form, Group, Question, family_and_language, groups, untranslated_share};
use self::report::{BookRow, GroupScores, LanguageRow, MethodRow, RetrievalReport, judge, tables};
use self::search::{Judged, ask};
use self::vectors::Vectors;
use super::DaemonError;
use super::bench::cpu_seconds;
use super::bench_extract::format_of;
use super::parts::{self, Mode};

use crate::config::Config;
use crate::domain::iso_639_1;
use crate::extract::sandbox::Sandbox;

/// A translation with more of its original's text than this is not searched: it would be measured twice.
const MAX_UNTRANSLATED: f64 = 0.5;

/// What `bench --retrieval` is asked for.
#[derive(Debug, Clone, Default)]
pub struct RetrievalSettings {
    /// Searched, and asked about.
    pub books: Vec<PathBuf>,
    /// Only asked: translations of searched English books.
    pub asking: Vec<PathBuf>,
    /// Names of methods, `NAME` or `NAME:KEY=VALUE:...`; all where there are none.
    pub methods: Vec<String>,
    /// Where vectors are kept from run to run.
    pub cache: Option<PathBuf>,
}

/// Cuts, embeds and asks; prints tables, or figures for a machine.
pub fn bench_retrieval(config: &Config, settings: &RetrievalSettings, json: bool) -> Result<String, DaemonError> {
    let report = run(config, settings)?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|error| DaemonError::Failed(error.to_string()))?;
        return Ok(text + "\n");
    }
    Ok(tables(&report))
}

/// A method's figures as they come in: once for each way to judge it.
struct Judging {
    name: String,
    base: Base,
    judged: Judged,
    languages: Vec<LanguageRow>,
    /// By the index of the group of questions.
    scores: BTreeMap<usize, Vec<Scores>>,
}

fn run(config: &Config, settings: &RetrievalSettings) -> Result<RetrievalReport, DaemonError> {
    let (started, cpu) = (Instant::now(), cpu_seconds(UsageWho::RUSAGE_SELF));
    let sizes = parts::ingest_settings(config, PathBuf::new(), Mode::OneShot).chunking;
    let chosen = chosen(&sizes, &settings.methods).map_err(DaemonError::Failed)?;
    let (books, searched, notes) = read_books(&parts::sandbox(config), settings)?;
    let asked = groups(&books, &searched);
    if asked.is_empty() {
        let reason = "none of the books has headings with text of their own: nothing can be asked";
        return Err(DaemonError::Failed(reason.to_owned()));
    }
    let embedder = parts::load_embedder(config, &config.state_directory()?, &parts::quiet)?.embedder;
    let mut vectors = Vectors::new(&embedder, settings.cache.as_deref())?;
    let mut asked_vectors = Vec::new();
    for group in &asked {
        let texts: Vec<&str> = group.questions.iter().map(|question| question.text.as_str()).collect();
        asked_vectors.push(vectors.embed(&texts)?.0);
    }
    let mut languages: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &book in &searched {
        languages.entry(&books[book].language).or_default().push(book);
    }
    let tokenizer = embedder.tokenizer().clone();
    let mut maker = Maker {
        books: &books,
        tokenizer: tokenizer.as_ref(),
        vectors: &mut vectors,
        min_chapter_words: sizes.min_chapter_words,
    };
    let mut means: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    let all = methods(&sizes);
    for method in all.iter().filter(|of| chosen.iter().any(|other| other.size.is_like(&of.name))) {
        for (language, books) in &languages {
            means.insert((&method.name, language), maker.mean_tokens(&method.cut, books, None)?);
        }
    }
    let mut rows: Vec<Judging> = Vec::new();
    for method in &chosen {
        let mut judgings = Judging::of(method);
        for (language, indices) in &languages {
            let mean = match method.size {
                Size::Own => None,
                Size::Like(other) => means.get(&(other, *language)).copied(),
            };
            let collection = maker.make(method, indices, mean)?;
            let here = || asked.iter().zip(&asked_vectors).enumerate().filter(|(_, (group, _))| group.to == *language);
            for judging in &mut judgings {
                judging.languages.push(language_row(language, &collection));
                for (index, (group, vectors)) in here() {
                    let ask = |(question, vector): (&Question, &Vec<f32>)| {
                        ask(question, vector, &collection, &books, judging.judged)
                    };
                    let scores = group.questions.par_iter().zip(vectors).map(ask).collect();
                    judging.scores.insert(index, scores);
                }
            }
        }
        rows.extend(judgings);
    }
    embedder.stop();
    let counters = embedder.counters();
    Ok(RetrievalReport {
        model: embedder.info().id.clone(),
        fingerprint: embedder.info().fingerprint.clone(),
        device: embedder.info().device.clone(),
        max_tokens: embedder.info().max_tokens,
        measures: MEASURES,
        books: book_rows(&books, &searched),
        notes,
        methods: judged_rows(rows, &asked),
        embedded_tokens: counters.tokens,
        wall_seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds(UsageWho::RUSAGE_SELF) - cpu,
    })
}

impl Judging {
    /// Where chapters are in the list, in a second row they answer for the sections that they overlap.
    fn of(method: &Method) -> Vec<Self> {
        let new = |name: String, judged| Self {
            name,
            base: method.base,
            judged,
            languages: Vec::new(),
            scores: BTreeMap::new(),
        };
        let mut judgings = vec![new(method.name.clone(), Judged::Passages)];
        if method.chapters != Chapters::Absent {
            judgings.push(new(format!("{}, judged too", method.name), Judged::All));
        }
        judgings
    }
}

/// The books with their labels, the indices of those that are searched, and what was left out.
type ReadBooks = (Vec<LabelledBook>, Vec<usize>, Vec<String>);

fn read_books(sandbox: &Sandbox, settings: &RetrievalSettings) -> Result<ReadBooks, DaemonError> {
    let mut books = Vec::new();
    for path in settings.books.iter().chain(&settings.asking) {
        books.push(read_book(sandbox, path)?);
    }
    let mut searched: Vec<usize> = (0..settings.books.len()).collect();
    let mut notes = Vec::new();
    searched.retain(|&book| {
        let share = books
            .iter()
            .filter(|original| original.language == ACROSS && books[book].language != ACROSS)
            .find_map(|original| untranslated_share(&books[book], original));
        let mostly_original = share.filter(|&share| share > MAX_UNTRANSLATED);
        notes.extend(mostly_original.map(|share| {
            format!("{} is not searched: {:.0} % of its text is still in English", books[book].name, share * 100.0)
        }));
        mostly_original.is_none()
    });
    Ok((books, searched, notes))
}

fn read_book(sandbox: &Sandbox, path: &Path) -> Result<LabelledBook, DaemonError> {
    let file = File::open(path).map_err(DaemonError::io(path.display().to_string()))?;
    let document = sandbox
        .extract(&file, path, &format_of(path), &|| true)
        .map_err(|error| DaemonError::Failed(error.to_string()))?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (family, language) = family_and_language(&name);
    let language = language.unwrap_or_else(|| iso_639_1(document.language.as_deref()));
    let title = document.title.unwrap_or_else(|| family.to_owned());
    Ok(LabelledBook::new(name, title, language, document.sections))
}

fn language_row(language: &str, collection: &Collection) -> LanguageRow {
    let lengths = collection.lengths();
    let tokens: usize = lengths.iter().sum();
    LanguageRow {
        language: language.to_owned(),
        passages: lengths.len(),
        tokens,
        mean_tokens: tokens as f64 / lengths.len().max(1) as f64,
        median_tokens: lengths.get(lengths.len() / 2).copied().unwrap_or_default(),
        border_cpu_seconds: collection.border_seconds,
        embed_cpu_seconds: collection.embed_seconds,
        cut_contexts: collection.cut_contexts,
    }
}

fn book_rows(books: &[LabelledBook], searched: &[usize]) -> Vec<BookRow> {
    let row = |(index, book): (usize, &LabelledBook)| BookRow {
        book: book.name.clone(),
        language: book.language.clone(),
        searched: searched.contains(&index),
        counts: book.counts,
    };
    books.iter().enumerate().map(row).collect()
}

/// The groups of questions as they are shown: all within one language and all across languages first, then one by one.
fn shown_groups(asked: &[Group]) -> Vec<(String, Form, Vec<usize>)> {
    let mut shown = Vec::new();
    for form in Form::ALL {
        for (name, across) in [("within a language", false), ("across languages", true)] {
            let of_form =
                |index: &usize| asked[*index].form == form && (asked[*index].from != asked[*index].to) == across;
            let together: Vec<usize> = (0..asked.len()).filter(of_form).collect();
            if together.len() > 1 {
                shown.push((name.to_owned(), form, together));
            }
        }
    }
    let single = |(index, group): (usize, &Group)| (format!("{}-{}", group.from, group.to), group.form, vec![index]);
    shown.extend(asked.iter().enumerate().map(single));
    shown
}

/// Estimates and comparisons, for all groups.
fn judged_rows(rows: Vec<Judging>, asked: &[Group]) -> Vec<MethodRow> {
    let methods: Vec<(String, Base)> = rows.iter().map(|row| (row.name.clone(), row.base)).collect();
    let mut results: Vec<Vec<_>> = rows.iter().map(|_| Vec::new()).collect();
    for (name, form, indices) in shown_groups(asked) {
        let of_row = |row: &Judging| indices.iter().flat_map(|index| row.scores[index].iter().copied()).collect();
        let group = GroupScores { group: name, form: form.name(), scores: rows.iter().map(of_row).collect() };
        for (results, row) in results.iter_mut().zip(judge(&group, &methods)) {
            results.push(row);
        }
    }
    let with_results = rows.into_iter().zip(results).map(|(row, results)| {
        let borders: f64 = row.languages.iter().map(|row| row.border_cpu_seconds).sum();
        let embedding: f64 = row.languages.iter().map(|row| row.embed_cpu_seconds).sum();
        MethodRow { name: row.name, languages: row.languages, border_share: borders / embedding.max(1e-9), results }
    });
    with_results.collect()
}
