//! The whole state as text, in a fixed order: what tests compare, and what a person reads when something is odd.
//! Also counts everything anew and says where the maintained counters differ.

use std::fmt::Write;

use super::{Queue, QueueError};

const BOOKS: &str = "SELECT source || ' ' || source_id || ' ' || (metadata ->> '$.title') || ' ' || format \
     || iif(missing_since_us IS NULL, '', ' missing since ' || missing_since_us) \
     || iif(excluded_us IS NULL, '', ' excluded') \
     || iif(failed_files = '[]', '', ' failed ' || (SELECT group_concat(value ->> '$.format') FROM json_each(failed_files))) \
     || iif(indexed_at_us IS NULL, ' not indexed', ' indexed ' || indexed_content_hash || ' as ' || indexed_generation \
        || ' by ' || indexed_chunker || '+' || indexed_model || ': ' || sections || ' sections, ' || chunks || ' chunks, ' \
        || points || ' points, ' || tokens || ' tokens, ' || words || ' words') FROM books ORDER BY id";

const JOBS: &str = "SELECT '#' || id || ' ' || kind || ' ' || state || ' ' || title || iif(book IS NULL, ' (book gone)', '') \
     || iif(shadow, ' shadow', '') || iif(by_hand, ' by hand', '') || iif(force, ' force', '') || ' attempts ' || attempts \
     || iif(deaths = 0, '', ' deaths ' || deaths) || iif(next_try_us IS NULL, '', ' next try ' || next_try_us) \
     || iif(again IS NULL, '', ' again ' || again) || iif(outcome IS NULL, '', ' -> ' || outcome) \
     || iif(last_error IS NULL, '', ' [' || ifnull(failure_kind, '?') || ': ' || last_error || ']') FROM jobs ORDER BY id";

/// Nothing but while a reindex goes on.
const SHADOW: &str = "SELECT (SELECT metadata ->> '$.title' FROM books WHERE id = book) || ' ' || content_hash || ' as ' \
     || generation || ' by ' || chunker || '+' || model || ': ' || points || ' points' FROM shadow ORDER BY book";

const COUNTED: &str = "SELECT name, value, CASE name \
     WHEN 'queued' THEN (SELECT count(*) FROM jobs WHERE state = 'queued' AND next_try_us IS NULL AND NOT shadow) \
     WHEN 'waiting' THEN (SELECT count(*) FROM jobs WHERE state = 'queued' AND next_try_us IS NOT NULL AND NOT shadow) \
     WHEN 'running' THEN (SELECT count(*) FROM jobs WHERE state = 'running' AND NOT shadow) \
     WHEN 'parked' THEN (SELECT count(*) FROM jobs WHERE state = 'parked' AND NOT shadow) \
     WHEN 'done' THEN (SELECT count(*) FROM jobs WHERE state = 'done') \
     WHEN 'shadow_queued' THEN (SELECT count(*) FROM jobs WHERE state = 'queued' AND next_try_us IS NULL AND shadow) \
     WHEN 'shadow_waiting' THEN (SELECT count(*) FROM jobs WHERE state = 'queued' AND next_try_us IS NOT NULL AND shadow) \
     WHEN 'shadow_running' THEN (SELECT count(*) FROM jobs WHERE state = 'running' AND shadow) \
     WHEN 'shadow_parked' THEN (SELECT count(*) FROM jobs WHERE state = 'parked' AND shadow) \
     WHEN 'shadow_books' THEN (SELECT count(*) FROM shadow) \
     WHEN 'shadow_points' THEN (SELECT ifnull(sum(points), 0) FROM shadow) \
     WHEN 'shadow_tokens' THEN (SELECT ifnull(sum(tokens), 0) FROM shadow) \
     WHEN 'books' THEN (SELECT count(*) FROM books) \
     WHEN 'missing' THEN (SELECT count(missing_since_us) FROM books) \
     WHEN 'excluded' THEN (SELECT count(excluded_us) FROM books) \
     WHEN 'indexed' THEN (SELECT count(indexed_at_us) FROM books) \
     WHEN 'sections' THEN (SELECT ifnull(sum(sections), 0) FROM books) \
     WHEN 'chunks' THEN (SELECT ifnull(sum(chunks), 0) FROM books) \
     WHEN 'points' THEN (SELECT ifnull(sum(points), 0) FROM books) \
     WHEN 'tokens' THEN (SELECT ifnull(sum(tokens), 0) FROM books) \
     WHEN 'words' THEN (SELECT ifnull(sum(words), 0) FROM books) END FROM counters ORDER BY name";

impl Queue {
    /// The whole state as text. Times of queueing and finishing are left out; other times are as given.
    #[doc(hidden)]
    pub fn dump(&self) -> Result<String, QueueError> {
        let mut text = String::new();
        let mut line = |indent: &str, what: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{indent}{what}");
        };
        for (heading, sql) in [("books", BOOKS), ("jobs", JOBS), ("shadow", SHADOW)] {
            let mut statement = self.connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            if heading != "shadow" {
                line("", heading);
            }
            while let Some(row) = rows.next()? {
                line("  ", &row.get::<_, String>(0)?);
            }
        }
        for wrong in self.check_counters()? {
            line("", &wrong);
        }
        Ok(text)
    }

    /// Where a maintained counter differs from the rows, one line each; empty when all agree.
    #[doc(hidden)]
    pub fn check_counters(&self) -> Result<Vec<String>, QueueError> {
        let mut wrong = Vec::new();
        let mut statement = self.connection.prepare(COUNTED)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (name, kept, counted): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if kept != counted {
                wrong.push(format!("counter {name} says {kept}, the rows {counted}"));
            }
        }
        Ok(wrong)
    }
}
