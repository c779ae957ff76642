//! What the state keeps of jobs that ended: sums by day that outlive the history, jobs of older versions, and what the
//! shared ingest log lacks.

use std::time::Instant;

use alexandria_ingestd::domain::{Change, Failure};
use alexandria_ingestd::queue::{JobKind, Outcome, Queue, Reader, Setup};
use rusqlite::{Connection, params};

use crate::queue::{LIBRARY, book, changed, indexed, queue_of, report, with_library};
use crate::scale::cpu;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// A noon, wherever the test runs.
const NOON: i64 = 1_790_000_000 * SECOND;

fn setup(model: &str, device: &str) -> Setup {
    Setup { model: model.into(), device: device.into(), version: "1.0".into(), batch_tokens: 2048 }
}

#[test]
fn jobs_of_an_older_version_are_unknown_and_not_zero() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../migrations/0001_initial.sql")).unwrap();
    old.execute_batch(include_str!("../../migrations/0002_other_formats.sql")).unwrap();
    old.pragma_update(None, "application_id", 0x416c_7849).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    for (number, outcome) in [(1, "embedded"), (2, "embedded"), (3, "payload_only")] {
        old.execute(
            "INSERT INTO jobs (book_uuid, source, source_id, title, kind, state, added_us, queued_us, outcome, device, \
             timings, started_us, finished_us) \
             VALUES (?1, 'calibre', ?2, 'Old', 'ingest', 'done', 1, 1, ?3, 'cpu', '{\"embed\":3.0,\"store\":0.5}', ?4, ?5)",
            params![book(number).uuid.to_string(), number, outcome, NOON, NOON + 4 * SECOND],
        )
        .unwrap();
    }
    drop(old);
    let mut queue = with_library(Queue::open(&path).unwrap());
    let found = queue.report(None, 10, &[], NOON).unwrap();
    let [row] = found.models.as_slice() else { panic!("{found:?}") };
    assert_eq!((row.model.clone(), row.version.clone(), row.device.as_str()), (None, None, "cpu"));
    assert_eq!((row.books, row.payload_only, row.seconds, row.embed_seconds), (2, 1, 8.0, 6.0));
    assert_eq!((row.chunks, row.tokens, row.tokens_per_second, row.ms_per_chunk), (None, None, None, None));
    assert_eq!(row.seconds_per_book, Some(4.0));
    let slow = &found.slowest[0];
    assert_eq!((slow.seconds, slow.longest_stage.as_str(), slow.chunks, slow.file_size), (4.0, "embed", None, None));

    // What comes now is known, and stands beside it.
    queue.begin_run(&setup("minilm", "cpu"), 1.5, NOON + DAY).unwrap();
    queue.apply(LIBRARY, &[Change::New(book(9))], NOON + DAY).unwrap();
    let job = queue.claim(NOON + DAY).unwrap().unwrap();
    queue.record_written(job.id, &indexed("h"), NOON + DAY).unwrap();
    queue.complete(job.id, &report(Outcome::Embedded), NOON + DAY + 2 * SECOND).unwrap();
    let found = queue.report(None, 10, &[], NOON + DAY).unwrap();
    let now = &found.models[1];
    assert_eq!((now.model.as_deref(), now.version.as_deref()), (Some("minilm"), Some("1.0")));
    assert_eq!((now.tokens, now.tokens_per_second, now.chunks_per_minute), (Some(5000), Some(2500.0), Some(300.0)));
    assert_eq!((now.loads, now.load_seconds), (1, Some(1.5)));
    assert_eq!(queue.check_counters().unwrap(), Vec::<String>::new());
}

#[test]
fn sums_outlive_the_history() {
    let mut queue = queue_of(1..=30);
    queue.set_history(5);
    let mut now = NOON;
    for (day, model) in ["minilm", "minilm", "bge-m3"].iter().enumerate() {
        now = NOON + day as i64 * DAY;
        queue.begin_run(&setup(model, "cpu"), 1.0, now).unwrap();
        for _ in 0..10 {
            let job = queue.claim(now).unwrap().unwrap();
            now += SECOND;
            queue.record_written(job.id, &indexed("h"), now).unwrap();
            queue.complete(job.id, &report(Outcome::Embedded), now).unwrap();
        }
    }
    let all = queue.report(None, 100, &[], now).unwrap();
    assert_eq!(all.days.iter().map(|day| day.books).collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!(all.slowest.len(), 5, "of those in the history");
    let models: Vec<_> = all.models.iter().map(|row| (row.model.clone().unwrap(), row.books, row.loads)).collect();
    assert_eq!(models, [("minilm".to_owned(), 20, 2), ("bge-m3".to_owned(), 10, 1)]);
    assert_eq!(all.models[0].tokens_per_second, Some(5000.0), "ten books of 5,000 tokens, a second each");
    assert_eq!(all.coverage.all.done, 30);
    let last = queue.report(Some(2), 1, &[], now).unwrap();
    assert_eq!((last.days.len(), last.slowest.len(), last.models.len()), (2, 1, 2), "before and after stay whole");
    assert_eq!(queue.report(Some(1), 1, &[], now + 7 * DAY).unwrap().days, []);
}

#[test]
fn every_book_stands_somewhere() {
    let mut queue = queue_of(1..=6);
    let end = |queue: &mut Queue, outcome: Option<&str>| {
        let job = queue.claim(NOON).unwrap().unwrap();
        match outcome {
            None => {
                queue.record_written(job.id, &indexed("h"), NOON).unwrap();
                queue.complete(job.id, &report(Outcome::Embedded), NOON).unwrap();
            }
            Some(reason) => drop(queue.fail(job.id, &Failure::book(reason), NOON).unwrap()),
        }
        job.book
    };
    let missing = end(&mut queue, None);
    let out = end(&mut queue, None);
    end(&mut queue, Some("page 3 is damaged"));
    end(&mut queue, Some("page 17 is damaged"));
    end(&mut queue, None);
    queue.apply(LIBRARY, &[Change::Missing(missing.uuid)], NOON).unwrap();
    queue.enqueue_by_hand(LIBRARY, out.uuid, JobKind::Remove, false, NOON).unwrap();
    let coverage = queue.report(None, 10, &[], NOON).unwrap().coverage;
    let all = &coverage.all;
    let counts = [all.books, all.done, all.waiting, all.parked, all.excluded, all.missing];
    assert_eq!(counts, [6, 1, 1, 2, 1, 1]);
    assert_eq!((coverage.reasons.len(), coverage.reasons[0].books), (1, 2));
    assert_eq!((coverage.formats.len(), coverage.languages[0].name.as_str()), (1, "unknown"));
}

#[test]
fn the_shared_log_is_noted_in_the_transaction_that_ends_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut queue = with_library(Queue::open(&path).unwrap());
    queue.begin_run(&setup("minilm", "cpu"), 1.0, NOON).unwrap();
    queue.apply(LIBRARY, &(1..=4).map(|number| Change::New(book(number))).collect::<Vec<_>>(), NOON).unwrap();
    let end = |queue: &mut Queue, outcome: Outcome| {
        let job = queue.claim(NOON).unwrap().unwrap();
        queue.record_written(job.id, &indexed("h"), NOON).unwrap();
        queue.complete(job.id, &report(outcome), NOON + 3 * SECOND).unwrap();
        job.book
    };
    end(&mut queue, Outcome::Embedded);
    assert_eq!(queue.shared_backlog(10).unwrap().total, 0, "nobody wants it");
    queue.keep_shared_log(Some("/log|alexandria")).unwrap();
    let backlog = queue.shared_backlog(10).unwrap();
    assert_eq!((backlog.rows.len(), backlog.books.len()), (0, 1), "the book of before has no line yet");
    queue.shared_written(&[], &[backlog.books[0].id]).unwrap();

    let embedded = end(&mut queue, Outcome::Embedded);
    let job = queue.claim(NOON).unwrap().unwrap();
    queue.fail(job.id, &Failure::book("damaged"), NOON + SECOND).unwrap();
    let backlog = queue.shared_backlog(10).unwrap();
    let rows: Vec<_> =
        backlog.rows.iter().map(|(_, row)| (row.title.as_str(), row.chunks, row.success, row.seconds)).collect();
    assert_eq!(rows, [("Book 3", 10, true, 3.0), ("Book 2", 0, false, 1.0)]);
    let row = &backlog.rows[0].1;
    assert_eq!((row.author.as_str(), row.model.as_str(), row.batch_tokens), ("Ana Anić", "minilm", Some(2048)));
    assert_eq!(row.file_size, Some(1000));
    let [line] = backlog.books.as_slice() else { panic!("{:?}", backlog.books) };
    assert_eq!(line.book.as_ref().map(|book| (book.chunks, book.format.as_str())), Some((10, "EPUB")));

    // A change while the file is written is not forgotten with what was written.
    queue.apply(LIBRARY, &[changed(embedded.clone(), false, true, false)], NOON).unwrap();
    end(&mut queue, Outcome::PayloadOnly);
    let rows: Vec<i64> = backlog.rows.iter().map(|(id, _)| *id).collect();
    queue.shared_written(&rows, &[line.id]).unwrap();
    let backlog = queue.shared_backlog(10).unwrap();
    assert_eq!((backlog.rows.len(), backlog.books.len()), (0, 1), "new metadata are no ingestion, but a new line");
    queue.shared_written(&[], &[backlog.books[0].id]).unwrap();

    // A removal takes the line away.
    queue.enqueue_by_hand(LIBRARY, embedded.uuid, JobKind::Remove, false, NOON).unwrap();
    let job = queue.claim(NOON).unwrap().unwrap();
    queue.complete(job.id, &report(Outcome::Removed), NOON).unwrap();
    let backlog = queue.shared_backlog(10).unwrap();
    assert_eq!((backlog.rows.len(), backlog.books[0].book.clone()), (0, None));

    // What the file does not take for too long is given up, oldest first, and counted.
    end(&mut queue, Outcome::Embedded);
    assert_eq!(queue.shared_backlog(10).unwrap().rows.len(), 1);
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE sqlite_sequence SET seq = seq + 20000 WHERE name = 'shared_rows'", [])
        .unwrap();
    queue.apply(LIBRARY, &[Change::New(book(9))], NOON).unwrap();
    end(&mut queue, Outcome::Embedded);
    let backlog = queue.shared_backlog(10).unwrap();
    assert_eq!((backlog.rows.len(), backlog.dropped), (1, 1));
    assert_eq!(backlog.rows[0].1.title, "Book 9");
}

/// Printed, not asserted: what a report costs with 100,000 books, a full history and ten years of days. `--no-capture`
/// shows it.
#[test]
fn a_report_over_a_hundred_thousand_books() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut queue = with_library(Queue::open(&path).unwrap());
    queue.apply(LIBRARY, &(1..=100_000).map(|number| Change::New(book(number))).collect::<Vec<_>>(), NOON).unwrap();
    queue.begin_run(&setup("bge-m3", "cuda"), 3.0, NOON).unwrap();
    let sql = Connection::open(&path).unwrap();
    sql.execute_batch(
        "UPDATE books SET indexed_at_us = 1, indexed_content_hash = 'h', indexed_metadata_hash = 'm', indexed_generation = 'g', \
           indexed_chunker = 'c', indexed_model = 'm', indexed_text_hash = 't', indexed_file = 'EPUB|1|1|1', \
           indexed_file_metadata = '{\"authors\":[]}', sections = 3, chunks = 10, points = 13, tokens = 5000, words = 4000, \
           metadata = json_set(metadata, '$.language', iif(id % 3, 'eng', 'hrv'));
         UPDATE jobs SET state = 'done', outcome = 'embedded', device = 'cuda', timings = '{\"embed\":1.5}', seconds = id % 97, \
           started_us = 1, finished_us = 1790000000000000, setup = 1, chunks = 10, tokens = 5000 WHERE id <= 20000;
         UPDATE jobs SET state = 'parked', last_error = 'page ' || id || ' is damaged', failure_kind = 'book' WHERE id > 99000;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3650)
         INSERT OR IGNORE INTO days (day, setup, books, chunks, tokens, seconds) \
           SELECT date('2016-01-01', i || ' days'), 1, 10, 100, 50000, 60 FROM n;",
    )
    .unwrap();
    drop(sql);
    let reader = Reader::open(&path).unwrap();
    for days in [None, Some(30)] {
        let (started, before) = (Instant::now(), cpu());
        let report = reader.report(days, 10, &[], NOON).unwrap();
        let (wall, cpu) = (started.elapsed().as_secs_f64() * 1e3, (cpu() - before).as_secs_f64() * 1e3);
        println!("report, days {days:?}: {wall:.0} ms, {cpu:.0} ms CPU; {} rows of days", report.days.len());
        assert_eq!(report.coverage.all.books, 100_000);
        assert_eq!(report.coverage.reasons.len(), 1);
    }
    let (started, before) = (Instant::now(), cpu());
    assert_eq!(reader.catalogue().unwrap().len(), 100_000);
    println!(
        "catalogue for a search's conditions: {:.0} ms, {:.0} ms CPU",
        started.elapsed().as_secs_f64() * 1e3,
        (cpu() - before).as_secs_f64() * 1e3
    );
    // The queue's own thread is not kept waiting meanwhile.
    let worst = std::thread::scope(|scope| {
        let reporting = scope.spawn(move || drop(reader.report(None, 10, &[], NOON).unwrap()));
        let mut worst = std::time::Duration::ZERO;
        while !reporting.is_finished() {
            let asked = Instant::now();
            queue.stats().unwrap();
            worst = worst.max(asked.elapsed());
        }
        worst
    });
    println!("slowest of the queue's counters while a report was made: {:.2} ms", worst.as_secs_f64() * 1e3);
}
