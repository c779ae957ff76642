//! A wall clock that is set back: nothing waits for as long as it jumped. (What a look does: `library::diff` and
//! `ingest::reconcile`.)

use std::path::{Path, PathBuf};
use std::time::Duration;

use alexandria_ingestd::domain::{Book, BookFile, Change, Failure, LibraryKind, Metadata, Source};
use alexandria_ingestd::queue::{NextStep, Queue, RetryRules};
use uuid::Uuid;

const LIBRARY: Uuid = Uuid::from_u128(0xA1);
const BOOK: Uuid = Uuid::from_u128(1);
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;

/// A queue with one book's job, waiting since `now_us` for its first retry, 30 s later.
fn waiting(queue: Queue, now_us: i64) -> Queue {
    let mut queue = queue;
    queue.library_at(LibraryKind::Calibre, Path::new("/library"), Some(LIBRARY)).unwrap();
    queue.set_retry_rules(rules());
    let book = Book {
        uuid: BOOK,
        library_uuid: LIBRARY,
        source: Source::Calibre(1),
        metadata: Metadata::default(),
        file: BookFile {
            format: "EPUB".into(),
            path: PathBuf::from("/library/a.epub"),
            data_id: Some(1),
            size: 1,
            mtime_us: 1,
        },
        others: Vec::new(),
        unread: Vec::new(),
        added_us: 0,
    };
    queue.apply(LIBRARY, &[Change::New(book)], now_us).unwrap();
    let job = queue.claim(now_us).unwrap().unwrap();
    let step = queue.fail(job.id, &Failure::transient("the share hung"), now_us).unwrap();
    assert_eq!(step, NextStep::RetryAt(now_us + 30 * SECOND));
    queue
}

fn rules() -> RetryRules {
    RetryRules { max_attempts: 4, first_wait: Duration::from_secs(30), longest_wait: Duration::from_secs(3600) }
}

#[test]
fn a_retry_is_not_an_hour_late_when_the_clock_goes_back_by_one() {
    let mut queue = waiting(Queue::open_in_memory().unwrap(), 2 * HOUR);
    assert!(queue.claim(2 * HOUR + SECOND).unwrap().is_none());
    // Set back by an hour.
    let set_back = HOUR + 2 * SECOND;
    assert!(queue.claim(set_back).unwrap().is_none());
    assert!(queue.claim(set_back + 29 * SECOND).unwrap().is_none(), "its wait is no shorter either");
    let job = queue.claim(set_back + 30 * SECOND).unwrap().expect("due after one whole wait");
    assert_eq!(job.attempts, 2);
}

#[test]
fn a_retry_is_not_an_hour_late_when_the_clock_went_back_while_the_service_was_down() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("state.db");
    drop(waiting(Queue::open(&path).unwrap(), 2 * HOUR));
    let mut queue = Queue::open(&path).unwrap();
    queue.set_retry_rules(rules());
    assert_eq!(queue.recover(HOUR).unwrap(), 0);
    assert!(queue.claim(HOUR + 29 * SECOND).unwrap().is_none());
    assert!(queue.claim(HOUR + 30 * SECOND).unwrap().is_some());
}

#[test]
fn a_wait_that_is_honest_is_left_alone() {
    let mut queue = waiting(Queue::open_in_memory().unwrap(), HOUR);
    queue.recover(HOUR + 10 * SECOND).unwrap();
    assert_eq!(queue.next_try_us().unwrap(), Some(HOUR + 30 * SECOND));
    // A clock that is slewed a little.
    queue.claim(HOUR + 10 * SECOND).unwrap();
    queue.claim(HOUR + 9 * SECOND).unwrap();
    assert_eq!(queue.next_try_us().unwrap(), Some(HOUR + 30 * SECOND));
}

#[test]
fn a_book_found_missing_in_the_future_is_missing_from_now_on() {
    let mut queue = waiting(Queue::open_in_memory().unwrap(), HOUR);
    let missing_since = |queue: &Queue| queue.known_books(LIBRARY).unwrap()[0].missing_since_us;
    queue.apply(LIBRARY, &[Change::Missing(BOOK)], 2 * HOUR).unwrap();
    queue.apply(LIBRARY, &[Change::Missing(BOOK)], 3 * HOUR).unwrap();
    assert_eq!(missing_since(&queue), Some(2 * HOUR), "the first look that misses it counts");
    queue.apply(LIBRARY, &[Change::Missing(BOOK)], HOUR).unwrap();
    assert_eq!(missing_since(&queue), Some(HOUR));
}
