//! The state's side of a reindex: rows and jobs of the second collection, what is claimed when, the switch.

use alexandria_ingestd::domain::{Change, Failure};
use alexandria_ingestd::queue::{
    ClaimedJob, IndexedState, JobKind, JobState, Lanes, Outcome, Outdated, Queue, Reindex, ReindexCounts,
};

use crate::queue::{LIBRARY, book, changed, indexed, queue_of, report};

fn reindex() -> Reindex {
    Reindex {
        collection: "books-new".into(),
        from: "books".into(),
        chunker_fingerprint: "c2".into(),
        model_fingerprint: "m1".into(),
        ..Reindex::default()
    }
}

fn anew(content: &str) -> IndexedState {
    IndexedState {
        generation: format!("new-{content}"),
        chunker_fingerprint: "c2".into(),
        points: 20,
        ..indexed(content)
    }
}

fn claim(queue: &mut Queue, lanes: Lanes) -> Option<ClaimedJob> {
    queue.claim_except(0, &[], lanes).unwrap()
}

fn end(queue: &mut Queue, job: &ClaimedJob, indexed: &IndexedState) {
    queue.record_written(job.id, indexed, 1).unwrap();
    queue.complete(job.id, &report(Outcome::Embedded), 2).unwrap();
}

/// So many books are in the live collection, and a reindex has begun.
fn begun(books: i64) -> Queue {
    let mut queue = queue_of(1..=books);
    while let Some(job) = claim(&mut queue, Lanes::Live) {
        end(&mut queue, &job, &indexed("h"));
    }
    assert_eq!(queue.begin_reindex(&reindex(), 0).unwrap(), usize::try_from(books).unwrap());
    queue
}

fn sound(queue: &Queue) {
    assert_eq!(queue.check_counters().unwrap(), Vec::<String>::new());
}

#[test]
fn ordinary_work_goes_first_and_no_book_is_in_work_twice() {
    let mut queue = begun(3);
    assert_eq!(claim(&mut queue, Lanes::Live), None, "a run that fills no shadow leaves its jobs alone");
    let first = claim(&mut queue, Lanes::Both).unwrap();
    assert!(
        first.shadow && first.indexed.is_none() && first.live == Some(indexed("h")) && first.book.uuid == book(3).uuid
    );
    // It changes while the shadow's job runs, and so does another one.
    queue.apply(LIBRARY, &[changed(book(3), true, false, false), changed(book(1), true, false, false)], 3).unwrap();
    let second = claim(&mut queue, Lanes::Both).unwrap();
    assert!(!second.shadow && second.book.uuid == book(1).uuid, "that of book 3 waits for the shadow's job");
    let third = claim(&mut queue, Lanes::Both).unwrap();
    assert!(third.shadow && third.book.uuid == book(2).uuid, "the shadow's job of book 1 waits for the live one's");
    assert_eq!(claim(&mut queue, Lanes::Both), None);
    end(&mut queue, &first, &anew("h"));
    let fourth = claim(&mut queue, Lanes::Both).unwrap();
    assert!(!fourth.shadow && fourth.book.uuid == book(3).uuid);
    assert_eq!(fourth.indexed, Some(indexed("h")), "the live collection's own");
    end(&mut queue, &fourth, &indexed("h2"));
    let again = claim(&mut queue, Lanes::Both).unwrap();
    assert!(again.shadow && again.indexed == Some(anew("h")) && again.live == Some(indexed("h2")));
    assert!(!queue.reindex_is_idle(true).unwrap());
    sound(&queue);
}

#[test]
fn the_switch_changes_all_books_at_once() {
    let mut queue = begun(4);
    while let Some(job) = claim(&mut queue, Lanes::Both) {
        if job.book.uuid == book(2).uuid {
            queue.fail(job.id, &Failure::book("damaged"), 3).unwrap();
        } else {
            end(&mut queue, &job, &anew("h"));
        }
    }
    assert!(queue.reindex_is_idle(true).unwrap());
    let counts = queue.reindex_counts().unwrap();
    let expected = ReindexCounts { books: 3, points: 60, tokens: 15_000, left_behind: 1, ..ReindexCounts::default() };
    assert_eq!(counts, expected);
    let stats = queue.stats().unwrap();
    assert_eq!(
        (stats.done_books, stats.points, stats.parked, stats.reindex_parked),
        (4, 52, 0, 1),
        "nothing has changed yet"
    );
    assert_eq!(queue.outdated("c2", "m1").unwrap(), Outdated { books: 4, chunker: 4, model: 0, tokens: 20_000 });
    sound(&queue);

    let finished = queue.finish_reindex(Some("books"), 9).unwrap();
    assert_eq!((finished.books, finished.left_behind), (3, 1));
    let stats = queue.stats().unwrap();
    assert_eq!((stats.done_books, stats.points, stats.parked, stats.reindex_parked), (3, 60, 1, 0));
    assert_eq!(queue.book(LIBRARY, book(1).uuid).unwrap().unwrap().indexed, Some(anew("h")));
    assert_eq!(queue.book(LIBRARY, book(2).uuid).unwrap().unwrap().job, Some(JobState::Parked));
    assert_eq!((queue.reindex().unwrap(), queue.dropped().unwrap()), (None, vec!["books".to_owned()]));
    queue.forget_dropped("books").unwrap();
    assert_eq!(queue.dropped().unwrap(), Vec::<String>::new());
    // A new file brings the one back that was left behind.
    queue.apply(LIBRARY, &[changed(book(2), true, false, false)], 10).unwrap();
    assert_eq!(claim(&mut queue, Lanes::Live).unwrap().book.uuid, book(2).uuid);
    sound(&queue);
}

#[test]
fn a_reindex_that_is_given_up_leaves_the_live_rows_as_they_were() {
    let mut queue = begun(3);
    let before = queue.dump().unwrap();
    let job = claim(&mut queue, Lanes::Both).unwrap();
    end(&mut queue, &job, &anew("h"));
    let job = claim(&mut queue, Lanes::Both).unwrap();
    queue.fail(job.id, &Failure::book("damaged"), 3).unwrap();
    assert_eq!(queue.abort_reindex().unwrap(), Some(reindex()));
    assert_eq!(queue.dropped().unwrap(), ["books-new"]);
    let of_books = |dump: &str| dump.split("jobs\n").next().unwrap().to_owned();
    assert_eq!(of_books(&queue.dump().unwrap()), of_books(&before));
    assert_eq!(claim(&mut queue, Lanes::Both), None);
    assert_eq!(queue.abort_reindex().unwrap(), None);
    sound(&queue);
}

#[test]
fn books_that_come_and_go_do_so_in_both() {
    let mut queue = begun(2);
    while let Some(job) = claim(&mut queue, Lanes::Both) {
        end(&mut queue, &job, &anew("h"));
    }
    // One comes: the live collection first.
    queue.apply(LIBRARY, &[Change::New(book(3))], 3).unwrap();
    let job = claim(&mut queue, Lanes::Both).unwrap();
    assert!(!job.shadow && claim(&mut queue, Lanes::Both).is_none());
    end(&mut queue, &job, &indexed("h"));
    let job = claim(&mut queue, Lanes::Both).unwrap();
    assert!(job.shadow && job.book.uuid == book(3).uuid);
    end(&mut queue, &job, &anew("h"));
    // One goes: a single job for both.
    for change in [Change::Missing(book(1).uuid), Change::Gone(book(1).uuid)] {
        queue.apply(LIBRARY, &[change], 4).unwrap();
    }
    let job = claim(&mut queue, Lanes::Both).unwrap();
    assert_eq!((job.kind, job.shadow), (JobKind::Remove, false));
    queue.complete(job.id, &report(Outcome::Removed), 5).unwrap();
    assert_eq!(queue.reindex_counts().unwrap().books, 2);
    assert!(queue.reindex_is_idle(true).unwrap() && claim(&mut queue, Lanes::Both).is_none());
    sound(&queue);
}

#[test]
fn where_the_live_collection_is_closed_only_the_shadow_is_filled() {
    let mut queue = begun(3);
    queue.apply(LIBRARY, &[Change::New(book(4)), changed(book(3), true, false, false)], 3).unwrap();
    for change in [Change::Missing(book(1).uuid), Change::Gone(book(1).uuid)] {
        queue.apply(LIBRARY, &[change], 4).unwrap();
    }
    let mut done = Vec::new();
    while let Some(job) = claim(&mut queue, Lanes::Shadow) {
        assert!(job.shadow);
        done.push(job.book.uuid);
        end(&mut queue, &job, &anew("h"));
    }
    assert_eq!(done, [4, 3, 2].map(|number| book(number).uuid), "book 1 is going");
    assert!(queue.reindex_is_idle(false).unwrap());
    assert_eq!((queue.reindex_counts().unwrap().left_behind, queue.reindex_missing().unwrap()), (0, 0));
    queue.finish_reindex(None, 9).unwrap();
    // What had to wait is done now, most of it without any work.
    let kinds: Vec<_> =
        std::iter::from_fn(|| claim(&mut queue, Lanes::Live)).map(|job| (job.book.uuid, job.kind)).collect();
    let ingest = |number| (book(number).uuid, JobKind::Ingest);
    assert_eq!(kinds, [ingest(4), ingest(3), (book(1).uuid, JobKind::Remove)]);
    sound(&queue);
}

#[test]
fn a_death_costs_a_shadow_job_an_attempt_and_no_more() {
    let mut queue = begun(1);
    let job = claim(&mut queue, Lanes::Both).unwrap();
    queue.record_written(job.id, &anew("h"), 1).unwrap();
    assert_eq!(queue.recover(5).unwrap(), 1);
    let job = claim(&mut queue, Lanes::Both)
        .unwrap_or_else(|| queue.claim_except(1 << 40, &[], Lanes::Both).unwrap().unwrap());
    assert_eq!((job.shadow, job.attempts, job.indexed.as_ref()), (true, 2, Some(&anew("h"))));
    end(&mut queue, &job, &anew("h"));
    // What was written last is looked at again after a process that did not end in order.
    queue.recheck(1, 6).unwrap();
    assert!(!queue.reindex_is_idle(true).unwrap());
    // And all of it where the new collection is found empty.
    queue.forget_shadow(7).unwrap();
    assert_eq!(queue.reindex_counts().unwrap().books, 0);
    sound(&queue);
}
