//! Taking in what a look at the shelf found, and what people ask for: which change means which work.
//! Must never take a single absence for a removal.

use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::books::{self, BookKey};
use super::{Applied, JobId, JobKind, JobState, Queue, QueueError, commit};
use super::{reindex, rows};
use crate::clock::now_us;
use crate::domain::{Change, LibraryKind};
use crate::telemetry::event;

/// What a request for work carries besides its kind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wish {
    pub by_hand: bool,
    pub force: bool,
    /// The content may be new: what failed before may succeed now.
    pub fresh: bool,
}

impl Queue {
    /// Records the changes and queues the work they mean, all of it in one transaction.
    ///
    /// New books, files and metadata mean an ingest job, `Gone` a remove job; `Missing`, `Returned` and a new path are
    /// only noted. A change of the file un-parks a book. A book taken out by hand is kept up to date in the state and
    /// nothing more. `Gone` counts only for a book that is marked missing (which an earlier look did): otherwise it is
    /// taken as `Missing`.
    pub fn apply(&mut self, library: Uuid, changes: &[Change], now_us: i64) -> Result<Applied, QueueError> {
        books::require_library(&self.connection, library)?;
        if changes.is_empty() {
            return Ok(Applied::default());
        }
        let transaction = self.begin()?;
        let mut applied = Applied::default();
        for change in changes {
            apply_one(&transaction, library, change, now_us, &mut applied)?;
        }
        commit(transaction)?;
        self.work_added |= !applied.is_empty();
        Ok(applied)
    }

    /// Puts a book at the front of the queue, un-parks it and forgets its attempts and which of its files failed. Removing a book that is on the
    /// shelf keeps it out until it is ingested by hand; `force` embeds even what is unchanged.
    ///
    /// Returns the book's open job. Where it is running, it runs once more afterwards.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBook`].
    pub fn enqueue_by_hand(
        &mut self,
        library: Uuid,
        book: Uuid,
        kind: JobKind,
        force: bool,
        now_us: i64,
    ) -> Result<JobId, QueueError> {
        let transaction = self.begin()?;
        let key =
            books::key_of(&transaction, library, book)?.ok_or_else(|| QueueError::NoSuchBook(book.to_string()))?;
        // Nobody looks at single files again, so nothing has to be kept out: the book is simply forgotten.
        let on_a_shelf = books::require_library(&transaction, library)?.kind != LibraryKind::Files;
        let excluded = (kind == JobKind::Remove && on_a_shelf).then_some(now_us);
        transaction.execute(
            "UPDATE books SET excluded_us = ?2, failed_files = '[]' WHERE id = ?1",
            params![key.id, excluded],
        )?;
        let job = want(&transaction, key.id, kind, Wish { by_hand: true, force, fresh: true }, now_us)?;
        commit(transaction)?;
        self.work_added = true;
        Ok(job)
    }

    /// The store is empty, whatever was noted: nothing is indexed any more, and every book that should be is queued.
    /// Returns how many were thought to be indexed.
    pub fn forget_indexed(&mut self, now_us: i64) -> Result<usize, QueueError> {
        let transaction = self.begin()?;
        let indexed: Vec<(i64, bool)> = transaction
            .prepare_cached(
                "SELECT id, excluded_us IS NULL AND missing_since_us IS NULL FROM books WHERE indexed_at_us IS NOT NULL",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        if indexed.is_empty() {
            return Ok(0);
        }
        for (book, wanted) in &indexed {
            books::set_indexed(&transaction, *book, None, now_us)?;
            if *wanted {
                want(&transaction, *book, JobKind::Ingest, Wish::default(), now_us)?;
            }
        }
        commit(transaction)?;
        self.work_added = true;
        tracing::warn!(
            MESSAGE_ID = event::STORE_EMPTY,
            BOOKS = indexed.len(),
            "the store's collection is empty, but the state knew {} books in it: they are ingested again",
            indexed.len()
        );
        Ok(indexed.len())
    }

    /// Queues the books that were written since `since_us`, so that each is compared with the store: a store that was
    /// lost, or a process that was, may have lost what it said last. What is there is not embedded again. Returns how
    /// many books that are.
    pub fn recheck(&mut self, since_us: i64, now_us: i64) -> Result<usize, QueueError> {
        let transaction = self.begin()?;
        let books: Vec<i64> = transaction
            .prepare_cached(
                "SELECT id FROM books b WHERE indexed_at_us >= ?1 AND excluded_us IS NULL AND missing_since_us IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE book = b.id AND state <> 'done' AND NOT shadow)",
            )?
            .query_map([since_us], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for book in &books {
            want(&transaction, *book, JobKind::Ingest, Wish::default(), now_us)?;
        }
        reindex::recheck(&transaction, since_us, now_us)?;
        commit(transaction)?;
        self.work_added |= !books.is_empty();
        Ok(books.len())
    }

    /// Notes the version of the code that reads books; where it differs from the one before, files that gave no text are
    /// tried again. Returns how many books that are.
    pub fn set_extractor_version(&mut self, version: &str) -> Result<usize, QueueError> {
        if self.meta("extractor_version")?.as_deref() == Some(version) {
            return Ok(0);
        }
        let queued = self.try_again("AND failure_kind = 'book'", None)?;
        self.set_meta("extractor_version", Some(version))?;
        Ok(queued)
    }

    /// Un-parks one book (as [`Queue::find_book`] understands it) or all, and queues those that are read in another
    /// format because the preferred one failed. Returns how many jobs are queued again.
    ///
    /// # Errors
    /// [`QueueError::NoSuchBook`] where the text names none.
    pub fn retry(&mut self, book: Option<&str>) -> Result<usize, QueueError> {
        let Some(text) = book else { return self.try_again("", None) };
        let found = self.find_book(text)?;
        if found.is_empty() {
            return Err(QueueError::NoSuchBook(text.to_owned()));
        }
        let mut queued = 0;
        for record in found {
            let book = &record.book;
            if let Some(key) = books::key_of(&self.connection, book.library_uuid, book.uuid)? {
                queued += self.try_again("", Some(key.id))?;
            }
        }
        Ok(queued)
    }

    /// Un-parks jobs, forgets which files failed, and queues the books for which such a file was passed by. Of one book
    /// or of all.
    fn try_again(&mut self, condition: &str, book: Option<i64>) -> Result<usize, QueueError> {
        let transaction = self.begin()?;
        let passed_by: Vec<i64> = transaction
            .prepare(
                "SELECT id FROM books b WHERE failed_files <> '[]' AND id = ifnull(?1, id) AND indexed_at_us IS NOT NULL \
                 AND excluded_us IS NULL AND missing_since_us IS NULL \
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE book = b.id AND state <> 'done' AND NOT shadow)",
            )?
            .query_map([book], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let sql = format!(
            "UPDATE jobs SET state = 'queued', attempts = 0, deaths = 0, next_try_us = NULL, finished_us = NULL \
             WHERE state = 'parked' AND book = ifnull(?1, book) {condition}"
        );
        let unparked = transaction.execute(&sql, [book])?;
        transaction.execute(
            "UPDATE books SET failed_files = '[]' WHERE failed_files <> '[]' AND id = ifnull(?1, id)",
            [book],
        )?;
        for id in &passed_by {
            want(&transaction, *id, JobKind::Ingest, Wish { fresh: true, ..Wish::default() }, now_us())?;
        }
        commit(transaction)?;
        let queued = unparked + passed_by.len();
        self.work_added |= queued > 0;
        Ok(queued)
    }
}

fn apply_one(
    connection: &Connection,
    library: Uuid,
    change: &Change,
    now_us: i64,
    applied: &mut Applied,
) -> Result<(), QueueError> {
    match change {
        Change::New(book) | Change::Changed { book, .. } => {
            if book.library_uuid != library {
                return Err(QueueError::BadValue(format!("book {} of another library than {library}", book.uuid)));
            }
            let before = books::key_of(connection, library, book.uuid)?;
            let (file, metadata) = match change {
                Change::Changed { file, metadata, .. } if before.is_some() => (*file, *metadata),
                // Whatever the look compared with: a book the state does not have is new.
                _ => (true, true),
            };
            let id = books::upsert(connection, book)?;
            match &before {
                None => applied.new += 1,
                Some(_) if file => applied.changed += 1,
                Some(_) if metadata => applied.metadata += 1,
                Some(_) => applied.moved += 1,
            }
            let excluded = before.as_ref().is_some_and(|key| key.excluded);
            if (file || metadata) && !excluded {
                want(connection, id, JobKind::Ingest, Wish { fresh: file, ..Wish::default() }, now_us)?;
            } else if before.is_some_and(|key| key.missing) {
                call_off_removal(connection, id, now_us)?;
            }
        }
        Change::Returned(book) => {
            if let Some(key) = books::key_of(connection, library, *book)? {
                connection.execute("UPDATE books SET missing_since_us = NULL WHERE id = ?1", [key.id])?;
                call_off_removal(connection, key.id, now_us)?;
                // A reindex may have left it behind meanwhile.
                let left_out: bool = connection
                    .prepare_cached("SELECT indexed_at_us IS NULL AND excluded_us IS NULL FROM books WHERE id = ?1")?
                    .query_row([key.id], |row| row.get(0))?;
                if left_out {
                    want(connection, key.id, JobKind::Ingest, Wish::default(), now_us)?;
                }
                applied.returned += 1;
            }
        }
        Change::Missing(book) => {
            if let Some(key) = books::key_of(connection, library, *book)? {
                mark_missing(connection, &key, now_us, applied)?;
            }
        }
        Change::Gone(book) => match books::key_of(connection, library, *book)? {
            // Every look says so until the removal is done; once is enough.
            Some(key) if key.missing && removal_is_open(connection, key.id)? => {}
            Some(key) if key.missing => {
                // Gone from the shelf, there is nothing left to be kept out: the removal takes the row too.
                connection.execute("UPDATE books SET excluded_us = NULL WHERE id = ?1", [key.id])?;
                want(connection, key.id, JobKind::Remove, Wish { fresh: true, ..Wish::default() }, now_us)?;
                applied.gone += 1;
            }
            Some(key) => mark_missing(connection, &key, now_us, applied)?,
            None => {}
        },
    }
    Ok(())
}

fn mark_missing(connection: &Connection, key: &BookKey, now_us: i64, applied: &mut Applied) -> Result<(), QueueError> {
    // One that is marked in the future, by a clock that jumped back since, is missing from now on.
    let marked = connection.execute(
        "UPDATE books SET missing_since_us = ?2 WHERE id = ?1 AND ifnull(missing_since_us > ?2, 1)",
        params![key.id, now_us],
    )?;
    applied.missing += if key.missing { 0 } else { marked };
    Ok(())
}

/// The book is back: an open removal that the shelf asked for becomes an ingest job, which finds what is left to do.
fn call_off_removal(connection: &Connection, book: i64, now_us: i64) -> Result<(), QueueError> {
    let excluded: bool = connection
        .prepare_cached("SELECT excluded_us IS NOT NULL FROM books WHERE id = ?1")?
        .query_row([book], |row| row.get(0))?;
    if !excluded && removal_is_open(connection, book)? {
        want(connection, book, JobKind::Ingest, Wish { fresh: true, ..Wish::default() }, now_us)?;
    }
    Ok(())
}

/// Whether the last word on the book is that its points go, and that is not done yet.
fn removal_is_open(connection: &Connection, book: i64) -> Result<bool, QueueError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM jobs WHERE book = ?1 AND state <> 'done' AND NOT shadow \
               AND ifnull(again, kind) = 'remove')";
    Ok(connection.prepare_cached(sql)?.query_row([book], |row| row.get(0))?)
}

/// Sees to it that the work is done after now, in both collections where there are two.
pub(super) fn want(
    connection: &Connection,
    book: i64,
    kind: JobKind,
    wish: Wish,
    now_us: i64,
) -> Result<JobId, QueueError> {
    let job = want_in(connection, book, kind, wish, false, now_us)?;
    reindex::follow(connection, book, kind, wish, now_us)?;
    Ok(job)
}

/// By a new job, the open one, or once more after the running one; of the live collection, or of its shadow.
pub(super) fn want_in(
    connection: &Connection,
    book: i64,
    kind: JobKind,
    wish: Wish,
    shadow: bool,
    now_us: i64,
) -> Result<JobId, QueueError> {
    let open = connection
        .prepare_cached("SELECT id, state, kind FROM jobs WHERE book = ?1 AND state <> 'done' AND shadow = ?2")?
        .query_row(params![book, shadow], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    let Some((id, state, kind_before)) = open else {
        return insert_job(connection, book, kind, wish, shadow, now_us);
    };
    match rows::job_state(&state)? {
        JobState::Running => {
            connection
                .prepare_cached(
                    "UPDATE jobs SET again = ?2, again_by_hand = max(again_by_hand, ?3), again_force = max(again_force, ?4) \
                     WHERE id = ?1",
                )?
                .execute(params![id, kind.as_str(), wish.by_hand, wish.force])?;
        }
        state => {
            let afresh = wish.fresh || wish.by_hand || kind_before != kind.as_str();
            // A book parked for its content stays parked when only its metadata changed: it would fail the same way.
            if state == JobState::Queued || afresh {
                connection
                    .prepare_cached(
                        "UPDATE jobs SET state = 'queued', kind = ?2, by_hand = max(by_hand, ?3), force = max(force, ?4), \
                         attempts = iif(?5, 0, attempts), deaths = iif(?5, 0, deaths), \
                         next_try_us = iif(?5, NULL, next_try_us), finished_us = NULL, \
                         added_us = (SELECT added_us FROM books WHERE id = jobs.book) WHERE id = ?1",
                    )?
                    .execute(params![id, kind.as_str(), wish.by_hand, wish.force, afresh])?;
            }
        }
    }
    Ok(JobId(id))
}

pub(super) fn insert_job(
    connection: &Connection,
    book: i64,
    kind: JobKind,
    wish: Wish,
    shadow: bool,
    now_us: i64,
) -> Result<JobId, QueueError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO jobs (book, book_uuid, source, source_id, title, kind, state, by_hand, force, added_us, queued_us, \
         shadow) \
         SELECT id, book_uuid, source, source_id, ifnull(metadata ->> '$.title', ''), ?2, 'queued', ?3, ?4, added_us, ?5, \
         ?6 \
         FROM books WHERE id = ?1 RETURNING id",
    )?;
    let values = params![book, kind.as_str(), wish.by_hand, wish.force, now_us, shadow];
    Ok(JobId(statement.query_row(values, |row| row.get(0))?))
}
