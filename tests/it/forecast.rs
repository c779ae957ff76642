//! What the state says of the work that is left: which files have to be embedded, and how large they are; cheap with a
//! hundred thousand jobs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use alexandria_ingestd::domain::{Book, BookFile, Change, LibraryKind, Metadata, Source};
use alexandria_ingestd::queue::{
    IndexedState, JobKind, JobReport, Outcome, Queue, QueueError, QueueHandle, QueueStopped, SizeSlice,
};
use alexandria_ingestd::telemetry::estimate::{ByFormat, Sums};
use uuid::Uuid;

const LIBRARY: Uuid = Uuid::from_u128(0xA1);

fn book(number: u64, format: &str, size: u64) -> Book {
    Book {
        uuid: Uuid::from_u128(u128::from(number)),
        library_uuid: LIBRARY,
        source: Source::Calibre(number as i64),
        metadata: Metadata { title: format!("Book {number}"), ..Metadata::default() },
        file: BookFile {
            format: format.into(),
            path: PathBuf::from(format!("/library/Book {number}.{format}")),
            data_id: Some(number as i64),
            size,
            mtime_us: 5,
        },
        others: Vec::new(),
        unread: Vec::new(),
        added_us: number as i64,
    }
}

fn with_library(mut queue: Queue) -> Queue {
    queue.library_at(LibraryKind::Calibre, Path::new("/library"), Some(LIBRARY)).unwrap();
    queue
}

fn all(slice: impl Fn(i64) -> Result<SizeSlice, QueueError>) -> ByFormat {
    let (mut sums, mut from) = (ByFormat::new(), Some(0));
    while let Some(at) = from {
        let part = slice(at).unwrap();
        for (format, part) in part.formats {
            sums.entry(format).or_default().plus(&part);
        }
        from = part.next;
    }
    sums
}

fn sums(books: &[(u64, u64)]) -> Sums {
    let mut sums = Sums::default();
    books.iter().for_each(|(bytes, tokens)| sums.add(*bytes, *tokens));
    sums
}

#[test]
fn only_what_has_to_be_embedded_is_counted() {
    let mut queue = with_library(Queue::open_in_memory().unwrap());
    let books: Vec<Book> =
        (1..=9).map(|number| book(number, if number % 3 == 0 { "PDF" } else { "EPUB" }, 100 * number)).collect();
    let changes: Vec<_> = books.iter().cloned().map(Change::New).collect();
    queue.apply(LIBRARY, &changes, 0).unwrap();
    for limit in [1, 2, 9, 100] {
        let queued = all(|from| queue.sizes_to_embed(from, limit));
        assert_eq!(queued["PDF"], sums(&[(300, 0), (600, 0), (900, 0)]), "slices of {limit}");
        assert_eq!(queued["EPUB"].books, 6.0);
        assert_eq!(all(|from| queue.sizes_indexed(from, limit)), ByFormat::new());
    }
    // The newest is embedded: it is 900 bytes of PDF.
    let job = queue.claim(1).unwrap().unwrap();
    assert_eq!(all(|from| queue.sizes_to_embed(from, 4))["PDF"].books, 2.0, "what runs is known by its worker");
    let indexed = IndexedState { tokens: 77, file_signature: job.book.file.signature(), ..IndexedState::default() };
    queue.record_written(job.id, &indexed, 1).unwrap();
    let report = JobReport { outcome: Outcome::Embedded, timings: Default::default(), device: String::new() };
    queue.complete(job.id, &report, 1).unwrap();
    assert_eq!(all(|from| queue.sizes_indexed(from, 4)), ByFormat::from([("PDF".to_owned(), sums(&[(900, 77)]))]));
    // New metadata are no text; a person's word, a new file and a removal are what they are.
    let mut renamed = job.book.clone();
    renamed.metadata.title = "Renamed".into();
    let change = |book: &Book, file| Change::Changed { book: book.clone(), file, metadata: !file, moved: false };
    queue.apply(LIBRARY, &[change(&renamed, false)], 2).unwrap();
    assert_eq!(all(|from| queue.sizes_to_embed(from, 4))["PDF"].books, 2.0);
    queue.enqueue_by_hand(LIBRARY, job.book.uuid, JobKind::Ingest, true, 3).unwrap();
    assert_eq!(all(|from| queue.sizes_to_embed(from, 4))["PDF"].books, 3.0);
    queue.enqueue_by_hand(LIBRARY, job.book.uuid, JobKind::Remove, false, 3).unwrap();
    assert_eq!(all(|from| queue.sizes_to_embed(from, 4))["PDF"].books, 2.0);
    renamed.file.size = 1000;
    let mut replaced = book(1, "EPUB", 5000);
    replaced.file.mtime_us = 6;
    queue.apply(LIBRARY, &[change(&replaced, true)], 4).unwrap();
    assert_eq!(all(|from| queue.sizes_to_embed(from, 4))["EPUB"].bytes, 5000.0 + 200.0 + 400.0 + 500.0 + 700.0 + 800.0);
}

#[test]
fn the_sum_over_a_hundred_thousand_jobs_holds_nobody_up() {
    let place = tempfile::tempdir().unwrap();
    let mut queue = with_library(Queue::open(&place.path().join("state.db")).unwrap());
    for thousand in 0..100 {
        let number = |n: u64| thousand * 1000 + n;
        let changes: Vec<_> = (1..=1000)
            .map(|n| Change::New(book(number(n), ["EPUB", "PDF", "TXT"][n as usize % 3], 1000 + n)))
            .collect();
        queue.apply(LIBRARY, &changes, 0).unwrap();
    }
    let queue = QueueHandle::spawn(queue).unwrap();
    let mut longest = Duration::ZERO;
    let started = Instant::now();
    let (mut from, mut books) = (Some(0), 0.0);
    while let Some(at) = from {
        let asked = Instant::now();
        let slice = queue.call(move |queue| queue.sizes_to_embed(at, 2000)).unwrap().unwrap();
        longest = longest.max(asked.elapsed());
        books += slice.formats.values().map(|sums| sums.books).sum::<f64>();
        from = slice.next;
    }
    println!("sizes of 100,000 queued jobs: {:.1?} in all, the longest slice {longest:.1?}", started.elapsed());
    assert_eq!(books, 100_000.0);
    queue.stop();
}

#[test]
fn a_queue_that_is_busy_is_not_waited_for_longer_than_wanted() {
    let queue = QueueHandle::spawn(with_library(Queue::open_in_memory().unwrap())).unwrap();
    let (free, wait) = std::sync::mpsc::channel::<()>();
    let blocked = queue.begin(move |_| wait.recv().is_ok()).unwrap().unwrap();
    let started = Instant::now();
    assert_eq!(queue.call_within(Duration::from_millis(50), |_| 1), Ok(None));
    // A line that is full is no place to wait in, either.
    let waiting: Vec<_> = (0..200).map_while(|_| queue.begin(|_| ()).unwrap()).collect();
    assert!(waiting.len() < 200, "the line is bounded");
    assert_eq!(queue.call_within(Duration::from_secs(60), |_| 1), Ok(None));
    assert!(started.elapsed() < Duration::from_secs(30));
    free.send(()).unwrap();
    assert!(blocked.recv().unwrap());
    // The line is still full of what was asked meanwhile.
    waiting.into_iter().for_each(|answer| answer.recv().unwrap());
    assert_eq!(queue.call_within(Duration::from_secs(30), |_| 1), Ok(Some(1)));
    queue.stop();
    assert_eq!(queue.call_within(Duration::from_secs(1), |_| 1), Err(QueueStopped));
}
