//! The state's side of a comparison with the store, in pages: a comparison of 100,000 books must neither hold them all
//! nor keep the queue from its work.

use rusqlite::{Row, params};
use uuid::Uuid;

use super::apply::{self, Wish};
use super::{JobKind, Queue, QueueError, books, commit, rows};
use crate::domain::AuditedBook;

const AUDITED: &str = "SELECT b.id, b.library_uuid, b.book_uuid, b.source || ' ' || b.source_id, \
     ifnull(b.metadata ->> '$.title', ''), b.missing_since_us IS NOT NULL, b.excluded_us IS NOT NULL, \
     (SELECT state FROM jobs WHERE book = b.id AND state <> 'done' AND NOT shadow), \
     b.indexed_generation, b.indexed_content_hash, b.points FROM books b";

/// The same of the collection that a reindex builds. A book that the live one does not hold is not asked for there.
const AUDITED_SHADOW: &str = "SELECT b.id, b.library_uuid, b.book_uuid, b.source || ' ' || b.source_id, \
     ifnull(b.metadata ->> '$.title', ''), b.missing_since_us IS NOT NULL, \
     b.excluded_us IS NOT NULL OR b.indexed_at_us IS NULL, \
     (SELECT state FROM jobs WHERE book = b.id AND state <> 'done' AND shadow), \
     s.generation, s.content_hash, s.points FROM books b LEFT JOIN shadow s ON s.book = b.id";

fn audited(shadow: bool) -> &'static str {
    if shadow { AUDITED_SHADOW } else { AUDITED }
}

impl Queue {
    /// Up to `limit` books behind the one with this row number, and the row number to go on from; None at the end.
    pub fn audited_books(
        &self,
        shadow: bool,
        after: i64,
        limit: usize,
    ) -> Result<(Vec<AuditedBook>, Option<i64>), QueueError> {
        let sql = format!("{} WHERE b.id > ?1 ORDER BY b.id LIMIT ?2", audited(shadow));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let found: Vec<(i64, AuditedBook)> =
            statement.query_and_then(params![after, rows::integer(limit)], audited_book)?.collect::<Result<_, _>>()?;
        let next = found.last().filter(|_| found.len() == limit).map(|(id, _)| *id);
        Ok((found.into_iter().map(|(_, book)| book).collect(), next))
    }

    /// One book, as it is now.
    pub fn audited_book(&self, shadow: bool, library: Uuid, book: Uuid) -> Result<Option<AuditedBook>, QueueError> {
        let sql = format!("{} WHERE b.library_uuid = ?1 AND b.book_uuid = ?2", audited(shadow));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let found = statement.query_and_then([library.to_string(), book.to_string()], audited_book)?.next();
        Ok(found.transpose()?.map(|(_, book)| book))
    }

    /// Queues a book so that the store is brought in line with the state; what the store has whole is not embedded again.
    pub fn recheck_book(&mut self, shadow: bool, library: Uuid, book: Uuid, now_us: i64) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        let key =
            books::key_of(&transaction, library, book)?.ok_or_else(|| QueueError::NoSuchBook(book.to_string()))?;
        if shadow {
            apply::want_in(&transaction, key.id, JobKind::Ingest, Wish::default(), true, now_us)?;
        } else {
            apply::want(&transaction, key.id, JobKind::Ingest, Wish::default(), now_us)?;
        }
        commit(transaction)?;
        self.work_added = true;
        Ok(())
    }
}

fn audited_book(row: &Row) -> Result<(i64, AuditedBook), QueueError> {
    let job: Option<String> = row.get(7)?;
    let generation: Option<String> = row.get(8)?;
    let indexed = match generation {
        Some(generation) => {
            let points = row.get::<_, Option<i64>>(10)?.unwrap_or_default();
            Some((generation, row.get(9)?, u64::try_from(points).unwrap_or_default()))
        }
        None => None,
    };
    let parked = job.as_deref() == Some("parked");
    let book = AuditedBook {
        library_uuid: rows::uuid(row, 1)?,
        book_uuid: rows::uuid(row, 2)?,
        book_id: row.get(3)?,
        title: row.get(4)?,
        missing: row.get(5)?,
        excluded: row.get(6)?,
        in_work: job.is_some() && !parked,
        parked,
        indexed,
    };
    Ok((row.get(0)?, book))
}
