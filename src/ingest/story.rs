//! What the log is told of a book, from its coming to its going, so that `journalctl BOOK_ID=42` tells its whole story.
//! A span gives every event of a book its fields, also those that other modules log meanwhile.
//!
//! Must never tell more of one look than a person reads, nor say anything that the state does not say too.

use std::time::{Duration, Instant};

use tracing::Span;

use super::{JobSummary, Timings};
use crate::clock::now_us;
use crate::domain::{Book, BookFile, Change, Document, Failure};
use crate::queue::{ClaimedJob, JobKind, NextStep, Outcome};
use crate::telemetry::event;

/// So many books of one look are told at the ordinary level; the sum is told anyway, and journald drops what comes too
/// fast (10,000 lines in 30 s).
pub(super) const TOLD_OF_A_LOOK: usize = 100;

/// Between two lines of progress of one book.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// The fields of a book. At the level of errors, so that no filter takes the fields from an event that passes it.
pub(super) fn of_book(book: &Book) -> Span {
    tracing::error_span!(
        "book",
        BOOK_ID = book.source.id(),
        BOOK_SOURCE = book.source.name(),
        BOOK_UUID = %book.uuid,
        BOOK_TITLE = book.metadata.title,
        LIBRARY_UUID = %book.library_uuid,
    )
}

/// The fields of a job and its book.
pub(super) fn of_job(job: &ClaimedJob) -> Span {
    let book = &job.book;
    tracing::error_span!(
        "job",
        BOOK_ID = book.source.id(),
        BOOK_SOURCE = book.source.name(),
        BOOK_UUID = %book.uuid,
        BOOK_TITLE = book.metadata.title,
        LIBRARY_UUID = %book.library_uuid,
        JOB = job.id.0,
        ATTEMPT = job.attempts,
    )
}

/// `book 42 'Title'`, as every line about a book begins.
fn named(book: &Book) -> String {
    format!("book {} '{}'", book.source.id(), book.metadata.title)
}

/// An event at the ordinary level, or for debugging only.
macro_rules! told {
    ($aloud:expr, $($event:tt)*) => {
        if $aloud { tracing::info!($($event)*) } else { tracing::debug!($($event)*) }
    };
}

/// What a look found of one book, and its place in the queue.
pub(super) struct News {
    book: Book,
    what: &'static str,
}

/// What is to be told of changes once the state has them; books that only went are told by [`absent`].
pub(super) fn news(changes: &[Change]) -> Vec<News> {
    let news = changes.iter().filter_map(|change| match change {
        Change::New(book) => Some((book, "is new in the library, and queued")),
        Change::Changed { book, file: true, .. } => Some((book, "has another file in the library, and is queued")),
        Change::Changed { book, metadata: true, .. } => Some((book, "has new metadata in the library")),
        _ => None,
    });
    news.map(|(book, what)| News { book: book.clone(), what }).collect()
}

/// Tells of a look's news; `told` counts what was told of that look.
pub(super) fn found(news: &[News], told: &mut usize) {
    for News { book, what } in news {
        *told += 1;
        let _fields = of_book(book).entered();
        told!(
            *told <= TOLD_OF_A_LOOK,
            MESSAGE_ID = event::BOOK_FOUND,
            FORMAT = book.file.format,
            BYTES = book.file.size,
            "{} {what} ({}, {:.1} MB)",
            named(book),
            book.file.format,
            book.file.size as f64 / 1e6
        );
    }
}

/// A book that a complete look did not find, for the first time or after its whole grace.
pub(super) fn absent(book: &Book, gone: bool) {
    let _fields = of_book(book).entered();
    if gone {
        tracing::info!(
            MESSAGE_ID = event::BOOK_GONE,
            "{} is gone from the library; its removal is queued",
            named(book)
        );
    } else {
        tracing::info!(
            MESSAGE_ID = event::BOOK_MISSING,
            "{} is missing in the library; it stays in the index until its grace is over",
            named(book)
        );
    }
}

/// A worker has taken the job.
pub(super) fn started(job: &ClaimedJob) {
    let work = if job.kind == JobKind::Remove { "removal" } else { "work" };
    tracing::debug!("{}: {work} begins (job {}, try {})", named(&job.book), job.id, job.attempts);
}

/// The text is out of the file.
pub(super) fn read(job: &ClaimedJob, file: &BookFile, document: &Document, timings: &Timings) {
    let (copy, extract) = (timings.of("copy"), timings.of("extract"));
    let words = document.words();
    tracing::info!(
        MESSAGE_ID = event::BOOK_READ,
        FORMAT = file.format,
        BYTES = file.size,
        SECTIONS = document.sections.len(),
        WORDS = words,
        COPY_SECONDS = copy,
        EXTRACT_SECONDS = extract,
        "{} read from its {}: {} sections, {words} words in {:.1} s",
        named(&job.book),
        file.format,
        document.sections.len(),
        copy + extract
    );
}

/// Progress of a long book, now and then.
pub(super) struct Advance {
    told: Instant,
}

impl Advance {
    pub(super) fn new() -> Self {
        Self { told: Instant::now() }
    }

    /// `chunks` and `tokens`: done, and of how many.
    pub(super) fn tell(&mut self, job: &ClaimedJob, chunks: (usize, usize), tokens: (usize, usize)) {
        if self.told.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.told = Instant::now();
        tracing::debug!(
            STAGE = "embed",
            CHUNKS_DONE = chunks.0,
            CHUNKS = chunks.1,
            TOKENS_DONE = tokens.0,
            TOKENS = tokens.1,
            "{}: {} of {} chunks embedded",
            named(&job.book),
            chunks.0,
            chunks.1
        );
    }
}

/// The points are in the store, and counted there.
pub(super) fn written(job: &ClaimedJob, points: usize) {
    tracing::debug!(STAGE = "store", POINTS = points, "{}: {points} points written", named(&job.book));
}

/// The process is stopping.
pub(super) fn given_back(job: &ClaimedJob) {
    let _fields = of_job(job).entered();
    tracing::info!("stopping: {} goes back to the queue", named(&job.book));
}

/// `aloud`: as a warning; what was said before is for debugging only.
pub(super) fn failed(job: &ClaimedJob, failure: &Failure, next: NextStep, aloud: bool) {
    let _fields = of_job(job).entered();
    let id = job.book.source.id();
    let (event, what_next, wait) = match next {
        NextStep::Parked => (
            event::BOOK_PARKED,
            format!("parked; `alexandriactl failed` lists it, `alexandriactl retry {id}` tries it again"),
            None,
        ),
        NextStep::RetryAt(at) => {
            let seconds = (at - now_us()).max(0) / 1_000_000;
            (event::BOOK_RETRY, format!("tried again in {seconds} s"), Some(seconds))
        }
        NextStep::GivenBack => (event::BOOK_WAITS, "it waits, no attempt is spent".to_owned(), None),
    };
    // One line a format; a log line is one.
    let reason = failure.reason.replace('\n', "; ");
    let kind = failure.kind.as_str();
    if aloud {
        tracing::warn!(
            MESSAGE_ID = event,
            FAILURE = kind,
            REASON = reason,
            RETRY_SECONDS = wait,
            "{}: {reason} ({what_next})",
            named(&job.book)
        );
    } else {
        tracing::debug!(FAILURE = kind, "{}: {reason} ({what_next})", named(&job.book));
    }
}

/// The line that ends a book's job.
pub(super) fn finished(job: &ClaimedJob, summary: &JobSummary) {
    let _fields = of_job(job).entered();
    let report = &summary.report;
    let outcome = report.outcome.as_str();
    let seconds: f64 = report.timings.values().sum();
    const STAGES: [&str; 5] = ["copy", "extract", "borders", "embed", "store"];
    let stages: Vec<String> = STAGES
        .iter()
        .filter_map(|stage| report.timings.get(*stage).map(|seconds| format!("{stage} {seconds:.1}")))
        .collect();
    let stage = |name: &str| report.timings.get(name).copied().unwrap_or_default();
    let book = named(&job.book);
    match (&summary.indexed, report.outcome, job.kind) {
        (Some(indexed), Outcome::Embedded, _) => {
            let preferred = &job.book.file.format;
            let from = match indexed.format() {
                used if used == preferred => String::new(),
                used => format!(" from {used} instead of {preferred}"),
            };
            let chunks_per_minute = indexed.chunks as f64 * 60.0 / seconds.max(1e-3);
            tracing::info!(
                MESSAGE_ID = event::BOOK_INDEXED,
                OUTCOME = outcome,
                FORMAT = indexed.format(),
                SECTIONS = indexed.sections,
                CHUNKS = indexed.chunks,
                POINTS = indexed.points,
                TOKENS = indexed.tokens,
                WORDS = indexed.words,
                SECONDS = seconds,
                COPY_SECONDS = stage("copy"),
                EXTRACT_SECONDS = stage("extract"),
                BORDERS_SECONDS = stage("borders"),
                EMBED_SECONDS = stage("embed"),
                STORE_SECONDS = stage("store"),
                CHUNKS_PER_MIN = chunks_per_minute,
                DEVICE = report.device,
                "{book} indexed{from}: {} sections, {} chunks, {} tokens in {seconds:.1} s ({}), {chunks_per_minute:.0} chunks/min on {}",
                indexed.sections,
                indexed.chunks,
                indexed.tokens,
                stages.join(", "),
                report.device
            );
        }
        (Some(indexed), Outcome::Adopted, _) => tracing::info!(
            MESSAGE_ID = event::BOOK_UPDATED,
            OUTCOME = outcome,
            CHUNKS = indexed.chunks,
            SECONDS = seconds,
            "{book}: the store has its {} chunks already; nothing embedded, {seconds:.1} s",
            indexed.chunks
        ),
        (_, Outcome::PayloadOnly, _) => tracing::info!(
            MESSAGE_ID = event::BOOK_UPDATED,
            OUTCOME = outcome,
            SECONDS = seconds,
            "{book}: payloads updated in {seconds:.1} s, nothing embedded"
        ),
        (_, _, JobKind::Remove) => {
            tracing::info!(MESSAGE_ID = event::BOOK_REMOVED, OUTCOME = outcome, SECONDS = seconds, "{book} removed");
        }
        _ => tracing::debug!(OUTCOME = outcome, "{book} is unchanged"),
    }
}
