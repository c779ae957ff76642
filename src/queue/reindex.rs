//! The state's side of a reindex: a second collection (the shadow) is filled beside the live one and takes its place when
//! it is whole. The shadow has rows of its own, and jobs of its own that are claimed after all others; whatever is wanted
//! of a book while it is filled is wanted of both.
//!
//! Must never change what the state says of the live collection before the switch, and then all of it at once.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::apply::{self, Wish};
use super::rows;
use super::{IndexedState, JobKind, Queue, QueueError, books, commit};

/// The key of `meta` with the [`Reindex`] that goes on, and the one with the collections that are still to be deleted.
const REINDEX: &str = "reindex";
const DROPPED: &str = "dropped";

/// The columns of [`rows::indexed`], of the table `shadow` called `s`.
pub(super) const WRITTEN: &str = "s.content_hash, s.metadata_hash, s.generation, s.chunker, s.model, s.sections, s.chunks, \
                                  s.points, s.tokens, s.words, s.text_hash, s.file, s.file_metadata";

/// A book `b` whose removal is still to be done: where the live collection is another model's, after the switch.
const IS_GOING: &str = "EXISTS (SELECT 1 FROM jobs r WHERE r.book = b.id AND NOT r.shadow AND r.state <> 'done' \
                        AND ifnull(r.again, r.kind) = 'remove')";

/// What a reindex builds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reindex {
    /// The collection that is filled.
    pub collection: String,
    /// The one that it is to replace.
    pub from: String,
    /// What its books are made with; with other settings it does not go on.
    pub chunker_fingerprint: String,
    pub model_fingerprint: String,
    pub model_id: String,
    pub started_us: i64,
    /// A person has said that the collection of before may be deleted where only that makes room for the name.
    pub replace: bool,
    /// A person has said that books may be left behind which cannot be read any more.
    pub skip_failed: bool,
    /// The store is being switched: that has to be ended before anything else is done.
    pub switching: bool,
}

/// Which jobs are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// The live collection's.
    Live,
    /// Those, and the shadow's where there is nothing else to do.
    Both,
    /// The shadow's alone: the live collection is not ours to write.
    Shadow,
}

/// How far a reindex has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReindexCounts {
    /// What the shadow holds.
    pub books: u64,
    pub points: u64,
    pub tokens: u64,
    /// Its open jobs that may be done now or later, and those in work.
    pub queued: u64,
    pub running: u64,
    /// Books that the live collection holds and the shadow does not, or not as they are now, because they failed.
    pub left_behind: u64,
    /// Tokens of the live collection's books that the shadow does not have yet.
    pub tokens_left: u64,
}

/// What a switch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Finished {
    pub books: usize,
    /// Books that are in the index no more, and are tried again when their file changes.
    pub left_behind: usize,
}

/// Indexed books that are not made with the present settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outdated {
    pub books: u64,
    /// Of them, those with another chunker, and with another model; a book may have both.
    pub chunker: u64,
    pub model: u64,
    /// Of their passages, as they were counted then.
    pub tokens: u64,
}

impl Queue {
    /// Which indexed books another chunker or model made.
    pub fn outdated(&self, chunker_fingerprint: &str, model_fingerprint: &str) -> Result<Outdated, QueueError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*), ifnull(sum(indexed_chunker <> ?1), 0), ifnull(sum(indexed_model <> ?2), 0), \
             ifnull(sum(tokens), 0) FROM books \
             WHERE indexed_at_us IS NOT NULL AND (indexed_chunker <> ?1 OR indexed_model <> ?2)",
        )?;
        let count =
            |row: &rusqlite::Row, at| Ok::<_, rusqlite::Error>(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0));
        Ok(statement.query_row([chunker_fingerprint, model_fingerprint], |row| {
            Ok(Outdated {
                books: count(row, 0)?,
                chunker: count(row, 1)?,
                model: count(row, 2)?,
                tokens: count(row, 3)?,
            })
        })?)
    }

    /// Tokens a second of whole books with this model on this device, all stages together, over the latest days; None
    /// where none was embedded so.
    pub fn measured_rate(&self, model_id: &str, device: &str) -> Result<Option<f64>, QueueError> {
        const DAYS: i64 = 30;
        let mut statement = self.connection.prepare_cached(
            "SELECT sum(tokens), sum(seconds) FROM (SELECT d.tokens, d.seconds FROM days d JOIN setups s ON s.id = d.setup \
             WHERE s.model = ?1 AND s.device = ?2 AND d.tokens > 0 AND d.seconds > 0 ORDER BY d.day DESC LIMIT ?3)",
        )?;
        let (tokens, seconds): (Option<f64>, Option<f64>) =
            statement.query_row(params![model_id, device, DAYS], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(tokens.zip(seconds).map(|(tokens, seconds)| tokens / seconds).filter(|rate| *rate > 0.0))
    }

    /// The reindex that goes on.
    pub fn reindex(&self) -> Result<Option<Reindex>, QueueError> {
        self.meta(REINDEX)?.map(|text| rows::json(REINDEX, &text)).transpose()
    }

    /// Begins one: every book that the live collection holds, or is to hold, is queued for the shadow. Returns how many.
    pub fn begin_reindex(&mut self, reindex: &Reindex, now_us: i64) -> Result<usize, QueueError> {
        let transaction = self.begin()?;
        clear(&transaction)?;
        set_meta(&transaction, REINDEX, Some(&rows::to_json(REINDEX, reindex)?))?;
        let books: Vec<i64> = transaction
            .prepare(&format!(
                "SELECT id FROM books b WHERE excluded_us IS NULL AND NOT {IS_GOING} AND (indexed_at_us IS NOT NULL OR EXISTS \
                 (SELECT 1 FROM jobs WHERE book = b.id AND state IN ('queued', 'running'))) ORDER BY id"
            ))?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for book in &books {
            apply::insert_job(&transaction, *book, JobKind::Ingest, Wish::default(), true, now_us)?;
        }
        commit(transaction)?;
        self.work_added = true;
        Ok(books.len())
    }

    /// Changes what is known of the reindex that goes on.
    pub fn set_reindex(&mut self, reindex: &Reindex) -> Result<(), QueueError> {
        let text = rows::to_json(REINDEX, reindex)?;
        self.set_meta(REINDEX, Some(&text))
    }

    /// How far the reindex has come.
    pub fn reindex_counts(&self) -> Result<ReindexCounts, QueueError> {
        let mut counts = ReindexCounts::default();
        let mut statement =
            self.connection.prepare_cached("SELECT name, value FROM counters WHERE name LIKE 'shadow%'")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let value = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            match row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)? {
                "shadow_books" => counts.books = value,
                "shadow_points" => counts.points = value,
                "shadow_tokens" => counts.tokens = value,
                "shadow_queued" | "shadow_waiting" => counts.queued += value,
                "shadow_running" => counts.running = value,
                _ => {}
            }
        }
        // Over the shadow's open jobs, which grow fewer.
        counts.left_behind = self
            .connection
            .prepare_cached(&format!(
                "SELECT count(*) FROM jobs j JOIN books b ON b.id = j.book LEFT JOIN shadow s ON s.book = b.id \
             WHERE j.state = 'parked' AND j.shadow AND b.indexed_at_us IS NOT NULL AND b.excluded_us IS NULL \
             AND NOT {IS_GOING} AND ifnull(s.content_hash <> b.indexed_content_hash, 1)",
            ))?
            .query_row([], |row| row.get::<_, i64>(0))?
            .max(0) as u64;
        counts.tokens_left = self
            .connection
            .prepare_cached(
                "SELECT ifnull(sum(b.tokens), 0) FROM jobs j JOIN books b ON b.id = j.book \
             WHERE j.state IN ('queued', 'running') AND j.shadow AND j.book NOT IN (SELECT book FROM shadow)",
            )?
            .query_row([], |row| row.get::<_, i64>(0))?
            .max(0) as u64;
        Ok(counts)
    }

    /// Whether the shadow has nothing to do any more that could be done: no open job but parked ones, those of books that
    /// are missing on the shelf, and (where the live collection is `open`) those of books that it does not hold itself.
    pub fn reindex_is_idle(&self, open: bool) -> Result<bool, QueueError> {
        // Each over an index of its own.
        const OPEN: &str = "SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND shadow) \
             OR EXISTS (SELECT 1 FROM jobs j JOIN books b ON b.id = j.book WHERE j.shadow = 1 AND j.state = 'queued' \
               AND j.next_try_us IS NULL AND b.missing_since_us IS NULL AND b.excluded_us IS NULL \
               AND (NOT ?1 OR b.indexed_at_us IS NOT NULL)) \
             OR EXISTS (SELECT 1 FROM jobs j JOIN books b ON b.id = j.book WHERE j.shadow AND j.state = 'queued' \
               AND j.next_try_us IS NOT NULL AND b.missing_since_us IS NULL AND b.excluded_us IS NULL \
               AND (NOT ?1 OR b.indexed_at_us IS NOT NULL))";
        let busy: bool = self.connection.prepare_cached(OPEN)?.query_row([open], |row| row.get(0))?;
        Ok(!busy)
    }

    /// Whether no job at all is in work.
    pub fn nothing_runs(&self) -> Result<bool, QueueError> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM jobs WHERE state = 'running')";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Books that the live collection holds and the shadow lacks, whose file is not on the shelf at present.
    pub fn reindex_missing(&self) -> Result<u64, QueueError> {
        let count: i64 = self
            .connection
            .prepare_cached(&format!(
                "SELECT count(*) FROM books b WHERE indexed_at_us IS NOT NULL AND missing_since_us IS NOT NULL \
             AND excluded_us IS NULL AND NOT {IS_GOING} AND id NOT IN (SELECT book FROM shadow)",
            ))?
            .query_row([], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The shadow is the live collection from now on: what the state says of books is what the shadow holds. Books that
    /// it does not hold are parked with the reason where they failed, and queued otherwise. `drop`: the collection of
    /// before, where it is to be deleted.
    pub fn finish_reindex(&mut self, drop: Option<&str>, now_us: i64) -> Result<Finished, QueueError> {
        let transaction = self.begin()?;
        let mut finished = Finished::default();
        let held: Vec<(i64, i64)> = transaction
            .prepare("SELECT book, written_us FROM shadow")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (book, written_us) in &held {
            let indexed = written_of(&transaction, *book)?;
            books::set_indexed(&transaction, *book, indexed.as_ref(), *written_us)?;
        }
        finished.books = held.len();
        let behind = ids(
            &transaction,
            "SELECT id FROM books WHERE indexed_at_us IS NOT NULL AND id NOT IN (SELECT book FROM shadow)",
        )?;
        for book in &behind {
            books::set_indexed(&transaction, *book, None, now_us)?;
        }
        // A failure stays one, and is mended as any other.
        transaction.execute(
            "UPDATE jobs SET shadow = 0 WHERE shadow AND state = 'parked' AND NOT EXISTS \
             (SELECT 1 FROM jobs o WHERE o.book = jobs.book AND NOT o.shadow AND o.state <> 'done')",
            [],
        )?;
        clear(&transaction)?;
        for book in &behind {
            let parked: bool = transaction
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM jobs WHERE book = ?1 AND state = 'parked')")?
                .query_row([book], |row| row.get(0))?;
            let wanted: bool = transaction
                .prepare_cached("SELECT excluded_us IS NULL AND missing_since_us IS NULL FROM books WHERE id = ?1")?
                .query_row([book], |row| row.get(0))?;
            finished.left_behind += usize::from(parked);
            if wanted && !parked {
                apply::want(&transaction, *book, JobKind::Ingest, Wish::default(), now_us)?;
            }
        }
        if let Some(collection) = drop {
            note_dropped(&transaction, collection)?;
        }
        commit(transaction)?;
        self.work_added = true;
        Ok(finished)
    }

    /// Gives the reindex up; its collection is to be deleted. None where none goes on.
    pub fn abort_reindex(&mut self) -> Result<Option<Reindex>, QueueError> {
        let Some(reindex) = self.reindex()? else { return Ok(None) };
        let transaction = self.begin()?;
        clear(&transaction)?;
        note_dropped(&transaction, &reindex.collection)?;
        commit(transaction)?;
        Ok(Some(reindex))
    }

    /// The shadow is empty, whatever was noted: all that it held is queued for it again.
    pub fn forget_shadow(&mut self, now_us: i64) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        let held = ids(&transaction, "SELECT book FROM shadow")?;
        if held.is_empty() {
            return Ok(());
        }
        transaction.execute("DELETE FROM shadow", [])?;
        for book in &held {
            apply::want_in(&transaction, *book, JobKind::Ingest, Wish::default(), true, now_us)?;
        }
        commit(transaction)?;
        self.work_added = true;
        Ok(())
    }

    /// Queues the books that were written into the shadow since then, to be compared with it.
    pub fn recheck_shadow(&mut self, since_us: i64, now_us: i64) -> Result<(), QueueError> {
        let transaction = self.begin()?;
        recheck(&transaction, since_us, now_us)?;
        commit(transaction)?;
        self.work_added = true;
        Ok(())
    }

    /// Collections that are still to be deleted.
    pub fn dropped(&self) -> Result<Vec<String>, QueueError> {
        Ok(self.meta(DROPPED)?.map(|text| rows::json(DROPPED, &text)).transpose()?.unwrap_or_default())
    }

    /// One of them is, or is not to be any more.
    pub fn forget_dropped(&mut self, collection: &str) -> Result<(), QueueError> {
        let mut dropped = self.dropped()?;
        dropped.retain(|name| name != collection);
        let text = rows::to_json(DROPPED, &dropped)?;
        self.set_meta(DROPPED, (!dropped.is_empty()).then_some(&text))
    }
}

/// What a reindex has to do, too, after something was wanted of a book in the live collection. A removal takes the book
/// out of both by itself.
pub(super) fn follow(
    connection: &Connection,
    book: i64,
    kind: JobKind,
    wish: Wish,
    now_us: i64,
) -> Result<(), QueueError> {
    let goes_on: bool = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'reindex')")?
        .query_row([], |row| row.get(0))?;
    match kind {
        JobKind::Ingest if goes_on => {
            let wish = Wish { by_hand: false, force: false, ..wish };
            apply::want_in(connection, book, kind, wish, true, now_us).map(drop)
        }
        JobKind::Ingest | JobKind::Remove => Ok(()),
    }
}

/// The first of the shadow's jobs that may be done now. Where the live collection is written, too, its job for the book
/// goes first: what that embedded need not be embedded again.
pub(super) fn next(connection: &Connection, unreadable: &[Uuid], lanes: Lanes) -> Result<Option<i64>, QueueError> {
    let unreadable: Vec<String> = unreadable.iter().map(Uuid::to_string).collect();
    Ok(connection
        .prepare_cached(
            "SELECT j.id FROM jobs j JOIN books b ON b.id = j.book \
             WHERE j.shadow = 1 AND j.state = 'queued' AND j.next_try_us IS NULL \
             AND b.missing_since_us IS NULL AND b.excluded_us IS NULL \
             AND b.library_uuid NOT IN (SELECT value FROM json_each(?1)) \
             AND (?2 OR b.indexed_at_us IS NOT NULL AND NOT EXISTS \
               (SELECT 1 FROM jobs o WHERE o.book = j.book AND NOT o.shadow AND o.state IN ('queued', 'running'))) \
             ORDER BY j.by_hand DESC, j.added_us DESC, j.id LIMIT 1",
        )?
        .query_row(params![rows::to_json("libraries", &unreadable)?, lanes == Lanes::Shadow], |row| row.get(0))
        .optional()?)
}

/// What the shadow holds of a job's book.
pub(super) fn written(connection: &Connection, job: i64) -> Result<Option<IndexedState>, QueueError> {
    let book: Option<i64> =
        connection.prepare_cached("SELECT book FROM jobs WHERE id = ?1")?.query_row([job], |row| row.get(0))?;
    book.map_or(Ok(None), |book| written_of(connection, book))
}

fn written_of(connection: &Connection, book: i64) -> Result<Option<IndexedState>, QueueError> {
    let sql = format!("SELECT {WRITTEN} FROM shadow s WHERE s.book = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_and_then([book], |row| rows::indexed(row, 0))?.next();
    Ok(found.transpose()?.flatten())
}

/// Writes what the shadow holds of a book.
pub(super) fn set_written(
    connection: &Connection,
    book: i64,
    indexed: &IndexedState,
    now_us: i64,
) -> Result<(), QueueError> {
    connection
        .prepare_cached(
            "INSERT INTO shadow (book, written_us, content_hash, metadata_hash, generation, chunker, model, text_hash, \
             file, file_metadata, sections, chunks, points, tokens, words) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) \
             ON CONFLICT (book) DO UPDATE SET written_us = excluded.written_us, content_hash = excluded.content_hash, \
             metadata_hash = excluded.metadata_hash, generation = excluded.generation, chunker = excluded.chunker, \
             model = excluded.model, text_hash = excluded.text_hash, file = excluded.file, \
             file_metadata = excluded.file_metadata, sections = excluded.sections, chunks = excluded.chunks, \
             points = excluded.points, tokens = excluded.tokens, words = excluded.words",
        )?
        .execute(params![
            book,
            now_us,
            indexed.content_hash,
            indexed.metadata_hash,
            indexed.generation,
            indexed.chunker_fingerprint,
            indexed.model_fingerprint,
            indexed.text_hash,
            indexed.file_signature,
            rows::to_json("file metadata", &indexed.file_metadata)?,
            rows::integer(indexed.sections),
            rows::integer(indexed.chunks),
            rows::integer(indexed.points),
            rows::integer(indexed.tokens),
            rows::integer(indexed.words),
        ])?;
    Ok(())
}

/// A book has left both collections.
pub(super) fn forget_book(connection: &Connection, book: i64) -> Result<(), QueueError> {
    connection.prepare_cached("DELETE FROM shadow WHERE book = ?1")?.execute([book])?;
    connection
        .prepare_cached("DELETE FROM jobs WHERE book = ?1 AND shadow AND state IN ('queued', 'parked')")?
        .execute([book])?;
    Ok(())
}

/// Queues what was written into the shadow since then.
pub(super) fn recheck(connection: &Connection, since_us: i64, now_us: i64) -> Result<(), QueueError> {
    let books: Vec<i64> = connection
        .prepare_cached("SELECT book FROM shadow WHERE written_us >= ?1")?
        .query_map([since_us], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for book in books {
        apply::want_in(connection, book, JobKind::Ingest, Wish::default(), true, now_us)?;
    }
    Ok(())
}

/// No reindex goes on any more; the history of its jobs stays.
fn clear(connection: &Connection) -> Result<(), QueueError> {
    set_meta(connection, REINDEX, None)?;
    connection.execute("DELETE FROM shadow", [])?;
    connection.execute("DELETE FROM jobs WHERE shadow AND state <> 'done'", [])?;
    Ok(())
}

fn note_dropped(connection: &Connection, collection: &str) -> Result<(), QueueError> {
    let before: Option<String> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([DROPPED], |row| row.get(0))
        .optional()?;
    let mut dropped: Vec<String> = before.map(|text| rows::json(DROPPED, &text)).transpose()?.unwrap_or_default();
    if !dropped.iter().any(|name| name == collection) {
        dropped.push(collection.to_owned());
    }
    set_meta(connection, DROPPED, Some(&rows::to_json(DROPPED, &dropped)?))
}

fn set_meta(connection: &Connection, key: &str, value: Option<&str>) -> Result<(), QueueError> {
    match value {
        Some(value) => connection
            .prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
            .execute([key, value])?,
        None => connection.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([key])?,
    };
    Ok(())
}

fn ids(connection: &Connection, sql: &str) -> Result<Vec<i64>, QueueError> {
    Ok(connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}
