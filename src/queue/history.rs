//! What is kept of a job that ended: how it was done, its share of the day's sums (which outlive the history), and its
//! row for the shared ingest log. All in the transaction that ends the job, so that nothing is counted twice or not at
//! all. Must never fail a job for a sum.

use std::collections::BTreeMap;

use chrono::{Local, TimeZone};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{IndexedState, JobId, Outcome, Queue, QueueError, commit, reindex, rows, shared};
use crate::domain::{BookFile, CataloguePayload, FileMetadata};

/// What embeds, for the reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// The contract's `embedding_model_id`.
    pub model: String,
    pub device: String,
    /// The program's version.
    pub version: String,
    /// The most tokens of one batch.
    pub batch_tokens: usize,
}

/// A [`Setup`] that has its row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    setup: i64,
    batch_tokens: i64,
}

impl Queue {
    /// Notes what embeds from now on, and that its model was loaded in so many seconds.
    pub fn begin_run(&mut self, setup: &Setup, load_seconds: f64, now_us: i64) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        let id = setup_id(&transaction, &setup.model, &setup.device, &setup.version)?;
        add_to_day(&transaction, id, now_us, &Sums { loads: 1, load_seconds, ..Sums::default() })?;
        commit(transaction)?;
        self.run = Some(Run { setup: id, batch_tokens: rows::integer(setup.batch_tokens) });
        Ok(())
    }
}

/// What a job's end adds to its day.
#[derive(Default)]
struct Sums {
    books: i64,
    /// None: nothing is known of chunks, tokens and bytes; the day's stay as they are.
    embedded: Option<[i64; 3]>,
    worked_us: Option<(i64, i64)>,
    stages: [f64; 5],
    payload_only: i64,
    adopted: i64,
    unchanged: i64,
    removed: i64,
    failed: i64,
    loads: i64,
    load_seconds: f64,
}

/// The stages in the order of [`Sums::stages`].
const STAGES: [&str; 5] = ["copy", "extract", "borders", "embed", "store"];

/// A job's row and its book's, as the job ends.
struct Ended {
    source: String,
    source_id: String,
    title: String,
    started_us: Option<i64>,
    /// Attempts during which the process died.
    deaths: u32,
    outcome: Option<Outcome>,
    device: Option<String>,
    timings: BTreeMap<String, f64>,
    book: Option<EndedBook>,
    /// Of the collection that a reindex builds: other tools' log is told of the live one.
    of_shadow: bool,
}

struct EndedBook {
    record: crate::domain::Book,
    indexed: Option<IndexedState>,
}

impl EndedBook {
    /// The file that the text is of, where there is one in the store; else the preferred one.
    fn file(&self, of_text: bool) -> &BookFile {
        let used = self.indexed.as_ref().filter(|_| of_text).map(|indexed| indexed.file_signature.as_str());
        let files = || self.record.files();
        used.and_then(|used| files().find(|file| file.signature() == used)).unwrap_or(&self.record.file)
    }
}

/// A job that was done: after its row says so, and while its book's row still says what the store holds.
pub(super) fn note_done(connection: &Connection, job: JobId, run: Option<Run>, now_us: i64) -> Result<(), QueueError> {
    let ended = ended(connection, job)?;
    let Some(outcome) = ended.outcome else { return Ok(()) };
    let indexed = ended.book.as_ref().and_then(|book| book.indexed.as_ref()).filter(|_| outcome != Outcome::Removed);
    let file = ended.book.as_ref().filter(|_| outcome != Outcome::Removed).map(|book| book.file(true));
    let run = known(connection, run, ended.device.as_deref().unwrap_or_default())?;
    note_job(connection, job, &ended, run, indexed, file, now_us)?;
    let one = |wanted: Outcome| i64::from(outcome == wanted);
    let mut sums = Sums {
        books: one(Outcome::Embedded),
        payload_only: one(Outcome::PayloadOnly),
        adopted: one(Outcome::Adopted),
        unchanged: one(Outcome::Unchanged),
        removed: one(Outcome::Removed),
        ..Sums::default()
    };
    if let (Outcome::Embedded, Some(indexed), Some(file)) = (outcome, indexed, file) {
        sums.embedded = Some([rows::integer(indexed.chunks), rows::integer(indexed.tokens), rows::integer(file.size)]);
        sums.worked_us = ended.started_us.map(|started| (started, now_us));
        sums.stages = STAGES.map(|stage| ended.timings.get(stage).copied().unwrap_or_default());
    }
    add_to_day(connection, run.setup, now_us, &sums)?;
    // A job that a kill cut short after its points were written finds nothing to do the second time.
    let came_in = match outcome {
        Outcome::Embedded | Outcome::Adopted => true,
        Outcome::Unchanged | Outcome::PayloadOnly => ended.deaths > 0,
        Outcome::Removed => false,
    };
    if came_in {
        note_shared(connection, &ended, run, indexed, file, true, now_us)?;
    }
    Ok(())
}

/// A job that failed for good: before its row forgets when the attempt began.
pub(super) fn note_parked(
    connection: &Connection,
    job: JobId,
    run: Option<Run>,
    now_us: i64,
) -> Result<(), QueueError> {
    let ended = ended(connection, job)?;
    let run = known(connection, run, "")?;
    let file = ended.book.as_ref().map(|book| book.file(false));
    note_job(connection, job, &ended, run, None, file, now_us)?;
    add_to_day(connection, run.setup, now_us, &Sums { failed: 1, ..Sums::default() })?;
    note_shared(connection, &ended, run, None, file, false, now_us)
}

/// Without a run (a state that is only mended) the model and the version are not known.
fn known(connection: &Connection, run: Option<Run>, device: &str) -> Result<Run, QueueError> {
    match run {
        Some(run) => Ok(run),
        None => Ok(Run { setup: setup_id(connection, "", device, "")?, batch_tokens: 0 }),
    }
}

fn ended(connection: &Connection, job: JobId) -> Result<Ended, QueueError> {
    let of_shadow: bool = connection
        .prepare_cached("SELECT shadow FROM jobs WHERE id = ?1")?
        .query_row([job.0], |row| row.get(0))
        .optional()?
        .ok_or(QueueError::NotRunning(job))?;
    let (held, of) =
        if of_shadow { (reindex::WRITTEN, "LEFT JOIN shadow s ON s.book = b.id") } else { (rows::INDEXED, "") };
    let sql = format!(
        "SELECT {}, {held}, j.source, j.source_id, j.title, j.started_us, j.outcome, j.device, ifnull(j.timings, '{{}}'), \
         b.id IS NOT NULL, j.deaths FROM jobs j LEFT JOIN books b ON b.id = j.book {of} WHERE j.id = ?1",
        rows::BOOK,
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let read = |row: &Row| -> Result<Ended, QueueError> {
        let after = rows::BOOK_WIDTH + rows::INDEXED_WIDTH;
        let outcome: Option<String> = row.get(after + 4)?;
        let book = if row.get(after + 7)? {
            Some(EndedBook { record: rows::book(row, 0)?, indexed: rows::indexed(row, rows::BOOK_WIDTH)? })
        } else {
            None
        };
        Ok(Ended {
            source: row.get(after)?,
            source_id: row.get(after + 1)?,
            title: row.get(after + 2)?,
            started_us: row.get(after + 3)?,
            deaths: row.get(after + 8)?,
            outcome: outcome.as_deref().map(rows::outcome).transpose()?,
            device: row.get(after + 5)?,
            timings: rows::json("timings", &row.get::<_, String>(after + 6)?)?,
            book,
            of_shadow,
        })
    };
    statement.query_and_then([job.0], read)?.next().unwrap_or(Err(QueueError::NotRunning(job)))
}

fn note_job(
    connection: &Connection,
    job: JobId,
    ended: &Ended,
    run: Run,
    indexed: Option<&IndexedState>,
    file: Option<&BookFile>,
    now_us: i64,
) -> Result<(), QueueError> {
    connection
        .prepare_cached(
            "UPDATE jobs SET setup = ?2, batch_tokens = ?3, chunks = ?4, tokens = ?5, format = ?6, file_size = ?7, \
             seconds = ?8 WHERE id = ?1",
        )?
        .execute(params![
            job.0,
            run.setup,
            (run.batch_tokens > 0).then_some(run.batch_tokens),
            indexed.map(|indexed| rows::integer(indexed.chunks)),
            indexed.map(|indexed| rows::integer(indexed.tokens)),
            file.map(|file| &file.format),
            file.map(|file| rows::integer(file.size)),
            ended.started_us.map(|started| seconds(started, now_us)),
        ])?;
    Ok(())
}

fn note_shared(
    connection: &Connection,
    ended: &Ended,
    run: Run,
    indexed: Option<&IndexedState>,
    file: Option<&BookFile>,
    success: bool,
    now_us: i64,
) -> Result<(), QueueError> {
    if ended.of_shadow || !shared::is_kept(connection)? {
        return Ok(());
    }
    let (model, device): (String, String) = connection
        .prepare_cached("SELECT model, device FROM setups WHERE id = ?1")?
        .query_row([run.setup], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // As the payloads have them: a folder's book has its title and its authors from its file.
    let unknown = FileMetadata::default();
    let catalogue = ended.book.as_ref().map(|book| {
        let of_file = book.indexed.as_ref().map_or(&unknown, |indexed| &indexed.file_metadata);
        CataloguePayload::new(&book.record, of_file, "")
    });
    let stage = |name: &str| ended.timings.get(name).copied().unwrap_or_default();
    let total = ended.started_us.map_or_else(|| ended.timings.values().sum(), |started| seconds(started, now_us));
    let entry = shared::LogEntry {
        at_us: now_us,
        title: catalogue.as_ref().map_or_else(|| ended.title.clone(), |catalogue| catalogue.book_title.clone()),
        author: catalogue.as_ref().map(|catalogue| catalogue.author.clone()).unwrap_or_default(),
        language: catalogue.map(|catalogue| catalogue.language).unwrap_or_default(),
        source: ended.source.clone(),
        source_id: ended.source_id.clone(),
        chunks: indexed.map_or(0, |indexed| indexed.chunks as u64),
        file_size: file.map(|file| file.size),
        seconds: total,
        embed_seconds: stage("embed"),
        chunk_seconds: stage("borders"),
        upload_seconds: stage("store"),
        device: ended.device.clone().filter(|device| !device.is_empty()).unwrap_or(device),
        model,
        batch_tokens: u64::try_from(run.batch_tokens).ok().filter(|tokens| *tokens > 0),
        success,
    };
    shared::add(connection, &entry)
}

fn setup_id(connection: &Connection, model: &str, device: &str, version: &str) -> Result<i64, QueueError> {
    let find = || {
        connection
            .prepare_cached("SELECT id FROM setups WHERE model = ?1 AND device = ?2 AND version = ?3")?
            .query_row([model, device, version], |row| row.get(0))
            .optional()
    };
    if let Some(id) = find()? {
        return Ok(id);
    }
    connection
        .prepare_cached("INSERT INTO setups (model, device, version) VALUES (?1, ?2, ?3)")?
        .execute([model, device, version])?;
    Ok(connection.last_insert_rowid())
}

fn add_to_day(connection: &Connection, setup: i64, now_us: i64, sums: &Sums) -> Result<(), QueueError> {
    let day = day_of(now_us);
    let mut counted = Counted::default();
    if let Some(worked) = sums.worked_us {
        let before = connection
            .prepare_cached("SELECT counted_from_us, counted_until_us FROM days WHERE day = ?1 AND setup = ?2")?
            .query_row(params![day, setup], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        counted = count_work(before.unwrap_or_default(), worked);
    }
    let embedded = sums.embedded;
    connection
        .prepare_cached(
            "INSERT INTO days (day, setup, books, chunks, tokens, bytes, seconds, copy, extract, borders, embed, store, \
             payload_only, adopted, unchanged, removed, failed, loads, load_seconds, counted_from_us, counted_until_us) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21) \
             ON CONFLICT (day, setup) DO UPDATE SET books = books + excluded.books, \
             chunks = iif(excluded.chunks IS NULL, chunks, ifnull(chunks, 0) + excluded.chunks), \
             tokens = iif(excluded.tokens IS NULL, tokens, ifnull(tokens, 0) + excluded.tokens), \
             bytes = iif(excluded.bytes IS NULL, bytes, ifnull(bytes, 0) + excluded.bytes), \
             seconds = seconds + excluded.seconds, copy = copy + excluded.copy, extract = extract + excluded.extract, \
             borders = borders + excluded.borders, embed = embed + excluded.embed, store = store + excluded.store, \
             payload_only = payload_only + excluded.payload_only, adopted = adopted + excluded.adopted, \
             unchanged = unchanged + excluded.unchanged, removed = removed + excluded.removed, \
             failed = failed + excluded.failed, loads = loads + excluded.loads, \
             load_seconds = load_seconds + excluded.load_seconds, \
             counted_from_us = iif(excluded.counted_until_us = 0, counted_from_us, excluded.counted_from_us), \
             counted_until_us = iif(excluded.counted_until_us = 0, counted_until_us, excluded.counted_until_us)",
        )?
        .execute(params![
            day,
            setup,
            sums.books,
            embedded.map(|[chunks, _, _]| chunks),
            embedded.map(|[_, tokens, _]| tokens),
            embedded.map(|[_, _, bytes]| bytes),
            counted.added_us as f64 / 1e6,
            sums.stages[0],
            sums.stages[1],
            sums.stages[2],
            sums.stages[3],
            sums.stages[4],
            sums.payload_only,
            sums.adopted,
            sums.unchanged,
            sums.removed,
            sums.failed,
            sums.loads,
            sums.load_seconds,
            counted.from_us,
            counted.until_us,
        ])?;
    Ok(())
}

/// A stretch of time that is counted, and what the last job added to it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    from_us: i64,
    until_us: i64,
    added_us: i64,
}

/// Adds a job that ended just now to the time in which anything was in work: what it shares with the jobs before it is
/// counted once. Exact where each stretch touches the last one, which is what workers that are never idle make.
fn count_work((from_us, until_us): (i64, i64), (started_us, ended_us): (i64, i64)) -> Counted {
    let started_us = started_us.min(ended_us);
    // By a clock that was set back, what came before is of no use.
    if started_us > until_us || ended_us < until_us {
        return Counted { from_us: started_us, until_us: ended_us, added_us: ended_us - started_us };
    }
    let before = (from_us - started_us).max(0);
    Counted { from_us: from_us.min(started_us), until_us: ended_us, added_us: ended_us - until_us + before }
}

fn seconds(from_us: i64, to_us: i64) -> f64 {
    to_us.saturating_sub(from_us).max(0) as f64 / 1e6
}

/// The local day of a time: `2026-11-29`.
pub(super) fn day_of(at_us: i64) -> String {
    let at = Local.timestamp_micros(at_us).earliest().unwrap_or_else(Local::now);
    at.format("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_overlaps_is_counted_once() {
        // Two workers: a long book, and three short ones meanwhile.
        let mut counted = Counted::default();
        let mut total = 0;
        for job in [(100, 110), (110, 125), (100, 150), (125, 160), (200, 210)] {
            counted = count_work((counted.from_us, counted.until_us), job);
            total += counted.added_us;
        }
        assert_eq!(total, 60 + 10);
        let back = count_work((200, 210), (50, 60));
        assert_eq!(back, Counted { from_us: 50, until_us: 60, added_us: 10 }, "the clock was set back");
    }

    proptest! {
        /// Two workers that are never idle: the sum is the wall time from the first start to the last end.
        #[test]
        fn busy_workers_are_counted_as_the_wall_clock(lengths in proptest::collection::vec(1..50_i64, 1..40)) {
            let (mut free, mut jobs) = ([1000_i64, 1000], Vec::new());
            for length in lengths {
                let worker = usize::from(free[1] < free[0]);
                jobs.push((free[worker], free[worker] + length));
                free[worker] += length;
            }
            jobs.sort_by_key(|job| job.1);
            let (mut counted, mut total) = (Counted::default(), 0);
            for job in &jobs {
                counted = count_work((counted.from_us, counted.until_us), *job);
                total += counted.added_us;
            }
            prop_assert_eq!(total, jobs.last().unwrap().1 - 1000);
        }
    }
}
