//! Compares state and store, book by book and in both directions, and repairs on demand. Holds a few dozen bytes a book,
//! whatever the number of points. What looks wrong is looked at a second time, alone: books change while others are
//! counted.
//!
//! Must never delete a point of a library that the state does not know, nor of a book that is still on a shelf.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use uuid::Uuid;

use super::{Ingestor, JobError};
use crate::clock::now_us;
use crate::domain::{AuditRepair, AuditReport, AuditedBook, Finding, FindingKind, Held, StoredPoint, judge};

/// Points and books of one page.
const PAGE: usize = 1000;
/// Findings that are listed; all are counted and repaired.
const LISTED: usize = 200;

/// A book in one library.
type Key = (Uuid, Uuid);

/// The points of the store, counted by book. Texts are kept as hashes.
#[derive(Default)]
struct Tally {
    books: HashMap<Key, Vec<Held<u64>>>,
    points: u64,
    foreign: u64,
}

impl Tally {
    fn add(&mut self, point: &StoredPoint, libraries: &HashSet<Uuid>) {
        self.points += 1;
        match key_of(point).filter(|(library, _)| libraries.contains(library)) {
            Some(key) => {
                count(self.books.entry(key).or_default(), short(&point.generation), short(&point.content_hash))
            }
            None => self.foreign += 1,
        }
    }
}

fn key_of(point: &StoredPoint) -> Option<Key> {
    Some((Uuid::try_parse(&point.library_uuid).ok()?, Uuid::try_parse(&point.book_uuid).ok()?))
}

fn count(held: &mut Vec<Held<u64>>, generation: u64, content_hash: u64) {
    match held.iter_mut().find(|held| (held.generation, held.content_hash) == (generation, content_hash)) {
        Some(held) => held.points += 1,
        None => held.push(Held { generation, content_hash, points: 1 }),
    }
}

fn short(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn same(short_text: &u64, text: &str) -> bool {
    *short_text == short(text)
}

impl Ingestor {
    /// Compares all books; with `repair`, queues what is missing and deletes what is nobody's. The library's side is the
    /// caller's: a look that was made before.
    ///
    /// # Errors
    /// Where state or store do not answer, or the process stops.
    pub fn audit(&self, repair: bool) -> Result<AuditReport, JobError> {
        let (started, started_us) = (Instant::now(), now_us());
        self.ensure_store()?;
        let libraries: HashSet<Uuid> =
            self.queue.call(|queue| queue.libraries())??.into_iter().map(|library| library.uuid).collect();
        let mut tally = self.tally(&libraries)?;
        let mut suspects: Vec<Key> = Vec::new();
        let mut report = AuditReport {
            started_us,
            points: tally.points,
            foreign_points: tally.foreign,
            counts: FindingKind::ALL.map(|kind| (kind, 0)).to_vec(),
            repair: repair.then(AuditRepair::default),
            ..AuditReport::default()
        };
        let (shadow, mut after) = (self.is_shadow(), Some(0));
        while let Some(from) = after {
            self.interrupted()?;
            let (books, next) = self.queue.call(move |queue| queue.audited_books(shadow, from, PAGE))??;
            for book in &books {
                let key = (book.library_uuid, book.book_uuid);
                let held = tally.books.remove(&key).unwrap_or_default();
                report.books += 1;
                report.in_work += u64::from(book.in_work);
                if judge(book, &held, same).is_some() {
                    suspects.push(key);
                }
            }
            after = next;
        }
        // What is left belongs to no book of the state.
        suspects.extend(tally.books.keys());
        for key in suspects {
            self.interrupted()?;
            self.look_closer(key, &mut report)?;
        }
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn tally(&self, libraries: &HashSet<Uuid>) -> Result<Tally, JobError> {
        let mut tally = Tally::default();
        let mut from = None;
        loop {
            self.interrupted()?;
            let page = self.store.scroll(from, PAGE)?;
            page.points.iter().for_each(|point| tally.add(point, libraries));
            if page.next.is_none() {
                return Ok(tally);
            }
            from = page.next;
        }
    }

    fn look_closer(&self, (library, book): Key, report: &mut AuditReport) -> Result<(), JobError> {
        let shadow = self.is_shadow();
        let known = self.queue.call(move |queue| queue.audited_book(shadow, library, book))??;
        let mut points = self.store.points_of_book(book)?;
        points.retain(|point| key_of(point) == Some((library, book)));
        let mut held = Vec::new();
        points.iter().for_each(|point| count(&mut held, short(&point.generation), short(&point.content_hash)));
        let of_state = known.clone().unwrap_or_else(|| AuditedBook {
            library_uuid: library,
            book_uuid: book,
            book_id: String::new(),
            title: String::new(),
            missing: true,
            excluded: true,
            in_work: false,
            parked: false,
            indexed: None,
        });
        let Some((kind, detail)) = judge(&of_state, &held, same) else { return Ok(()) };
        if let Some((_, count)) = report.counts.iter_mut().find(|(counted, _)| *counted == kind) {
            *count += 1;
        }
        if report.findings.len() < LISTED {
            let (book_id, title) = (of_state.book_id.clone(), of_state.title.clone());
            report.findings.push(Finding { kind, library_uuid: library, book_uuid: book, book_id, title, detail });
        }
        let Some(repair) = &mut report.repair else { return Ok(()) };
        let on_a_shelf = known.as_ref().is_some_and(|known| !known.excluded && !known.missing);
        if kind != FindingKind::Orphan || on_a_shelf {
            self.queue.call(move |queue| queue.recheck_book(shadow, library, book, now_us()))??;
            repair.queued += 1;
        } else {
            let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
            self.store.delete(&ids)?;
            self.store.checkpoint()?;
            repair.deleted_points += ids.len() as u64;
        }
        Ok(())
    }
}
