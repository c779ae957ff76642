//! What was done, how fast, and what is in the store: the values of a report, and the sums that make them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PassedOver;

/// A report over the last days. The figures' names are those of `alexandria-ingestd bench`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// What embedded, the oldest first: before and after. All that is known, whatever `days` was asked for.
    pub models: Vec<SpeedRow>,
    /// By local day, the oldest first.
    pub days: Vec<SpeedRow>,
    /// The books that took longest, of those in the kept history.
    pub slowest: Vec<SlowBook>,
    pub coverage: Coverage,
}

/// What was done on one day, or with one model on one device by one version. `None`: it was not noted at that time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeedRow {
    /// Local days: 2026-11-29.
    pub first_day: String,
    pub last_day: String,
    pub model: Option<String>,
    pub device: String,
    pub version: Option<String>,
    /// Books that were embedded; chunks, tokens and file sizes are theirs.
    pub books: u64,
    pub chunks: Option<u64>,
    pub tokens: Option<u64>,
    pub bytes: Option<u64>,
    /// Wall time in which at least one of them was in work, from the claim to the end.
    pub seconds: f64,
    pub tokens_per_second: Option<f64>,
    pub chunks_per_second: Option<f64>,
    pub chunks_per_minute: Option<f64>,
    /// `seconds` divided by the chunks.
    pub ms_per_chunk: Option<f64>,
    pub seconds_per_book: Option<f64>,
    /// Of the stages; where several books are in work at once they overlap.
    pub copy_seconds: f64,
    pub extract_seconds: f64,
    pub borders_seconds: f64,
    pub embed_seconds: f64,
    pub store_seconds: f64,
    /// Jobs that ended without embedding.
    pub payload_only: u64,
    pub adopted: u64,
    pub unchanged: u64,
    pub removed: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// How often the model was loaded, and how long that took, each time.
    pub loads: u64,
    pub load_seconds: Option<f64>,
}

impl SpeedRow {
    /// Fills in what follows from the sums.
    #[must_use]
    pub fn with_rates(mut self) -> Self {
        let per = |amount: Option<u64>, by: f64| amount.filter(|_| by > 0.0).map(|amount| amount as f64 / by);
        self.tokens_per_second = per(self.tokens, self.seconds);
        self.chunks_per_second = per(self.chunks, self.seconds);
        self.chunks_per_minute = self.chunks_per_second.map(|rate| rate * 60.0);
        let chunks = self.chunks.filter(|chunks| *chunks > 0);
        self.ms_per_chunk = chunks.map(|chunks| self.seconds * 1e3 / chunks as f64);
        self.seconds_per_book = (self.books > 0 && self.seconds > 0.0).then(|| self.seconds / self.books as f64);
        self
    }

    /// The sum of a later row and this one.
    fn plus(self, later: &SpeedRow) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        let loaded = self.load_seconds.unwrap_or_default() * self.loads as f64
            + later.load_seconds.unwrap_or_default() * later.loads as f64;
        let loads = self.loads + later.loads;
        Self {
            last_day: later.last_day.clone(),
            books: self.books + later.books,
            chunks: sum(self.chunks, later.chunks),
            tokens: sum(self.tokens, later.tokens),
            bytes: sum(self.bytes, later.bytes),
            seconds: self.seconds + later.seconds,
            copy_seconds: self.copy_seconds + later.copy_seconds,
            extract_seconds: self.extract_seconds + later.extract_seconds,
            borders_seconds: self.borders_seconds + later.borders_seconds,
            embed_seconds: self.embed_seconds + later.embed_seconds,
            store_seconds: self.store_seconds + later.store_seconds,
            payload_only: self.payload_only + later.payload_only,
            adopted: self.adopted + later.adopted,
            unchanged: self.unchanged + later.unchanged,
            removed: self.removed + later.removed,
            failed: self.failed + later.failed,
            loads,
            load_seconds: (loads > 0).then(|| loaded / loads as f64),
            ..self
        }
    }
}

/// Sums days up by what embedded, the oldest first.
pub fn by_model(days: &[SpeedRow]) -> Vec<SpeedRow> {
    let mut rows: Vec<SpeedRow> = Vec::new();
    for day in days {
        let same =
            |row: &&mut SpeedRow| (&row.model, &row.device, &row.version) == (&day.model, &day.device, &day.version);
        match rows.iter_mut().find(same) {
            Some(row) => *row = std::mem::take(row).plus(day),
            None => rows.push(day.clone()),
        }
    }
    rows.into_iter().map(SpeedRow::with_rates).collect()
}

/// A book that was embedded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SlowBook {
    /// As people name it: `calibre 12`.
    pub book_id: String,
    pub title: String,
    pub author: String,
    pub format: Option<String>,
    /// Bytes.
    pub file_size: Option<u64>,
    pub chunks: Option<u64>,
    pub tokens: Option<u64>,
    /// In work.
    pub seconds: f64,
    /// `copy`, `extract`, `borders`, `embed` or `store`.
    pub longest_stage: String,
    pub longest_stage_seconds: f64,
    pub model: Option<String>,
    pub device: String,
    /// Microseconds since the epoch.
    pub finished_us: i64,
}

/// What is in the store of what is on the shelf, as of now. Each book counts once: as taken out by hand, missing,
/// failed, waiting, or done.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Coverage {
    pub all: CoverageRow,
    /// Books whose text can be found, those included that wait for an update or failed at one.
    pub in_store: u64,
    /// Books without any file: some catalogues list books on paper.
    pub without_file: u64,
    /// Why books failed or cannot be read, the most frequent first.
    pub reasons: Vec<ReasonRow>,
    /// The most frequent first.
    pub formats: Vec<CoverageRow>,
    pub languages: Vec<CoverageRow>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CoverageRow {
    /// A format, a language's code, or `all`.
    pub name: String,
    pub books: u64,
    pub done: u64,
    pub waiting: u64,
    /// Failed for good.
    pub parked: u64,
    /// No format of theirs can be read.
    pub unreadable: u64,
    /// Taken out by hand.
    pub excluded: u64,
    /// Not on the shelf any more.
    pub missing: u64,
}

impl CoverageRow {
    fn add(&mut self, standing: Standing, books: u64) {
        self.books += books;
        *match standing {
            Standing::Done => &mut self.done,
            Standing::Waiting => &mut self.waiting,
            Standing::Parked => &mut self.parked,
            Standing::Unreadable => &mut self.unreadable,
            Standing::Excluded => &mut self.excluded,
            Standing::Missing => &mut self.missing,
        } += books;
    }
}

/// Where a book stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Done,
    Waiting,
    Parked,
    Unreadable,
    Excluded,
    Missing,
}

/// One reason of many books.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonRow {
    /// `parked` or `unreadable`.
    pub standing: String,
    /// Without what differs from book to book: names, paths and numbers are left out.
    pub reason: String,
    pub books: u64,
    /// One of them.
    pub example: String,
}

/// Books that stand alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    pub format: String,
    /// ISO 639-1 where there is one, or `unknown`.
    pub language: String,
    pub standing: Standing,
    pub books: u64,
    pub in_store: u64,
}

/// Puts the coverage together. `parked`: reason, how many books, one of their titles.
pub fn coverage(counted: &[Counted], parked: &[(String, u64, String)], passed_over: &[PassedOver]) -> Coverage {
    let mut coverage =
        Coverage { all: CoverageRow { name: "all".into(), ..CoverageRow::default() }, ..Coverage::default() };
    let (mut formats, mut languages) = (BTreeMap::new(), BTreeMap::new());
    let mut reasons: BTreeMap<(&str, String), ReasonRow> = BTreeMap::new();
    let mut add = |format: &str, language: Option<&str>, standing, books| {
        row(&mut formats, format).add(standing, books);
        if let Some(language) = language {
            row(&mut languages, language).add(standing, books);
        }
        coverage.all.add(standing, books);
    };
    let mut because = |standing: &'static str, text: &str, books, example: &str| {
        let reason = without_particulars(text);
        let found = reasons.entry((standing, reason.clone())).or_insert_with(|| ReasonRow {
            standing: standing.to_owned(),
            reason,
            books: 0,
            example: example.to_owned(),
        });
        found.books += books;
    };
    for group in counted {
        add(&group.format, Some(&group.language), group.standing, group.books);
        coverage.in_store += group.in_store;
    }
    for (reason, books, example) in parked {
        because("parked", reason, *books, example);
    }
    for book in passed_over {
        let Some(format) = book.formats.first() else {
            coverage.without_file += 1;
            continue;
        };
        // Its language is in the catalogue alone.
        add(&format.to_uppercase(), None, Standing::Unreadable, 1);
        because("unreadable", &book.reason, 1, &book.title);
    }
    coverage.formats = most_first(formats);
    coverage.languages = most_first(languages);
    coverage.reasons = reasons.into_values().collect();
    coverage.reasons.sort_by(|a, b| b.books.cmp(&a.books).then_with(|| a.reason.cmp(&b.reason)));
    coverage
}

fn row<'a>(rows: &'a mut BTreeMap<String, CoverageRow>, name: &str) -> &'a mut CoverageRow {
    rows.entry(name.to_owned()).or_insert_with(|| CoverageRow { name: name.to_owned(), ..CoverageRow::default() })
}

fn most_first(rows: BTreeMap<String, CoverageRow>) -> Vec<CoverageRow> {
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by(|a, b| b.books.cmp(&a.books).then_with(|| a.name.cmp(&b.name)));
    rows
}

/// A reason as it is for many books: what is quoted, paths and numbers become `…`.
pub fn without_particulars(reason: &str) -> String {
    /// What may stand behind a word without being of it.
    const ENDS: [char; 5] = [',', '.', ';', ':', ')'];
    let all: Vec<&str> = reason.split_whitespace().collect();
    let ends_as = |word: &str, mark: char| word.trim_end_matches(ENDS).ends_with(mark);
    // A path may have blanks in it: up to the name of its file.
    let has_extension = |word: &str| {
        let bare = word.trim_end_matches(ENDS);
        bare.rsplit_once('.').is_some_and(|(name, extension)| {
            !name.is_empty()
                && (2..=5).contains(&extension.len())
                && extension.bytes().all(|b| b.is_ascii_alphanumeric())
        })
    };
    let mut words: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(word) = all.get(at) {
        let bare = word.trim_start_matches('(');
        let quote = bare.chars().next().filter(|first| matches!(first, '\'' | '"' | '`'));
        let mut last = at;
        let particular = if let Some(mark) = quote {
            let closes_itself = bare.trim_end_matches(ENDS).chars().count() > 1 && ends_as(bare, mark);
            if !closes_itself {
                last = (at + 1..all.len()).find(|next| ends_as(all[*next], mark)).unwrap_or(at);
            }
            true
        } else if bare.trim_end_matches(ENDS).contains('/') {
            if !has_extension(bare) {
                last = (at + 1..all.len().min(at + 20)).find(|next| has_extension(all[*next])).unwrap_or(at);
            }
            true
        } else {
            bare.bytes().any(|byte| byte.is_ascii_digit())
        };
        if particular {
            let end = &all[last][all[last].trim_end_matches(ENDS).len()..];
            words.push(format!("…{end}"));
        } else {
            words.push((*word).to_owned());
        }
        at = last + 1;
    }
    words.dedup_by(|a, b| a == "…" && b == "…");
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn reasons_differ_by_what_is_wrong_and_not_by_the_book() {
        let a = "the EPUB is encrypted (DRM): META-INF/encryption.xml lists OEBPS/c1.xhtml";
        let b = "the EPUB is encrypted (DRM): META-INF/encryption.xml lists text/part0004.html";
        assert_eq!(without_particulars(a), without_particulars(b));
        assert_eq!(without_particulars(a), "the EPUB is encrypted (DRM): … lists …");
        assert_eq!(without_particulars("it has 512 MiB, over the limit of 12"), "it has … MiB, over the limit of …");
        assert_eq!(without_particulars("no chapter 'One more time' in it"), "no chapter … in it");
        assert_eq!(without_particulars("EPUB: bad\nTXT: empty"), "EPUB: bad TXT: empty");
        let path = "/books/Ana Anić/A (3)/A - Ana Anić.epub is damaged: not a whole ZIP archive; see 'a b' and 'c'.";
        assert_eq!(without_particulars(path), "… is damaged: not a whole ZIP archive; see … and ….");
        assert_eq!(without_particulars(""), "");
    }

    fn day(name: &str, model: Option<&str>, books: u64, chunks: Option<u64>, seconds: f64) -> SpeedRow {
        SpeedRow {
            first_day: name.into(),
            last_day: name.into(),
            model: model.map(str::to_owned),
            device: "cpu".into(),
            books,
            chunks,
            tokens: chunks.map(|chunks| chunks * 100),
            seconds,
            loads: 1,
            load_seconds: Some(seconds / 10.0),
            ..SpeedRow::default()
        }
    }

    #[test]
    fn days_are_summed_by_model_and_what_is_not_known_stays_so() {
        let days = [
            day("2026-11-01", None, 2, None, 100.0),
            day("2026-11-02", Some("minilm"), 1, Some(10), 5.0),
            day("2026-11-03", Some("minilm"), 1, Some(30), 15.0),
        ];
        let rows = by_model(&days);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].tokens_per_second, rows[0].chunks, rows[0].books), (None, None, 2));
        assert_eq!(rows[0].seconds_per_book, Some(50.0), "that much is known");
        let minilm = &rows[1];
        assert_eq!((minilm.first_day.as_str(), minilm.last_day.as_str()), ("2026-11-02", "2026-11-03"));
        assert_eq!((minilm.tokens_per_second, minilm.chunks_per_minute), (Some(200.0), Some(120.0)));
        assert_eq!((minilm.ms_per_chunk, minilm.loads, minilm.load_seconds), (Some(500.0), 2, Some(1.0)));
        let idle = day("2026-11-04", Some("minilm"), 0, None, 0.0).with_rates();
        assert_eq!((idle.tokens_per_second, idle.ms_per_chunk, idle.seconds_per_book), (None, None, None));
    }

    #[test]
    fn every_book_is_counted_once_and_every_reason_with_its_books() {
        let counted = |format: &str, language: &str, standing, books, in_store| Counted {
            format: format.into(),
            language: language.into(),
            standing,
            books,
            in_store,
        };
        let passed = |formats: &[&str], reason: &str| PassedOver {
            uuid: Uuid::nil(),
            book_id: String::new(),
            title: "A comic".into(),
            formats: formats.iter().map(|format| format.to_string()).collect(),
            reason: reason.into(),
        };
        let found = coverage(
            &[
                counted("EPUB", "en", Standing::Done, 7, 7),
                counted("EPUB", "hr", Standing::Waiting, 2, 1),
                counted("PDF", "en", Standing::Parked, 3, 0),
                counted("PDF", "hr", Standing::Excluded, 1, 0),
                counted("TXT", "hr", Standing::Missing, 1, 1),
            ],
            &[("page 12 is damaged".into(), 1, "A".into()), ("page 7 is damaged".into(), 2, "B".into())],
            &[passed(&["CBZ"], "a comic"), passed(&["CBZ"], "a comic"), passed(&[], "nothing")],
        );
        assert_eq!(found.all.books, 16);
        assert_eq!((found.all.done, found.all.waiting, found.all.parked), (7, 2, 3));
        assert_eq!((found.all.excluded, found.all.missing, found.all.unreadable), (1, 1, 2));
        assert_eq!((found.in_store, found.without_file), (9, 1));
        let names = |rows: &[CoverageRow]| rows.iter().map(|row| (row.name.clone(), row.books)).collect::<Vec<_>>();
        let expected = [("EPUB", 9), ("PDF", 4), ("CBZ", 2), ("TXT", 1)].map(|(name, books)| (name.to_owned(), books));
        assert_eq!(names(&found.formats), expected);
        assert_eq!(names(&found.languages), [("en".to_owned(), 10), ("hr".to_owned(), 4)]);
        let reasons: Vec<_> = found.reasons.iter().map(|row| (row.reason.as_str(), row.books)).collect();
        assert_eq!(reasons, [("page … is damaged", 3), ("a comic", 2)]);
    }
}
