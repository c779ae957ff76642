//! What the reckoning of the remaining time needs: sizes of the files that are still to be embedded, and what files of
//! their kind came to. In slices, so that no caller of the queue waits for a sum over a hundred thousand jobs.
//! Must never change anything.

use super::{Queue, QueueError, rows};
use crate::telemetry::estimate::{ByFormat, Sums};

/// A slice. `next`: where the following one begins; None where this was the last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SizeSlice {
    pub formats: ByFormat,
    pub next: Option<i64>,
}

impl Queue {
    /// Queued jobs whose book has to be embedded, as far as the state can tell without reading it: it is not in the
    /// index, its file looks changed, or a person wants it done anew. `from` is 0, or the `next` of the slice before.
    ///
    /// # Errors
    /// Those of the state file.
    pub fn sizes_to_embed(&self, from: i64, limit: usize) -> Result<SizeSlice, QueueError> {
        self.size_slice(
            "SELECT j.id, b.format, b.size, 0, j.state = 'queued' AND NOT j.shadow AND j.kind = 'ingest' AND (j.force OR \
             ifnull(b.indexed_file <> b.format || '|' || ifnull(b.data_id, '') || '|' || b.size || '|' || b.mtime_us, 1) \
             AND b.failed_files = '[]') \
             FROM jobs j LEFT JOIN books b ON b.id = j.book WHERE j.id >= ?1 ORDER BY j.id LIMIT ?2",
            from,
            limit,
        )
    }

    /// Books in the index: sizes of the files they were read from, and tokens of their chunks.
    ///
    /// # Errors
    /// Those of the state file.
    pub fn sizes_indexed(&self, from: i64, limit: usize) -> Result<SizeSlice, QueueError> {
        self.size_slice(
            "SELECT b.id, substr(b.indexed_file, 1, instr(b.indexed_file, '|') - 1), b.size, ifnull(b.tokens, 0), \
             ifnull(b.indexed_file = b.format || '|' || ifnull(b.data_id, '') || '|' || b.size || '|' || b.mtime_us, 0) \
             FROM books b WHERE b.id >= ?1 ORDER BY b.id LIMIT ?2",
            from,
            limit,
        )
    }

    fn size_slice(&self, sql: &str, from: i64, limit: usize) -> Result<SizeSlice, QueueError> {
        let mut slice = SizeSlice::default();
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut found = statement.query(rusqlite::params![from, rows::integer(limit)])?;
        let mut seen = 0;
        while let Some(row) = found.next()? {
            seen += 1;
            if seen == limit {
                slice.next = Some(row.get::<_, i64>(0)? + 1);
            }
            if !row.get::<_, Option<bool>>(4)?.unwrap_or(false) {
                continue;
            }
            let format = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            let number = |column: usize| Ok::<_, QueueError>(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0));
            if !slice.formats.contains_key(format) {
                slice.formats.insert(format.to_owned(), Sums::default());
            }
            if let Some(sums) = slice.formats.get_mut(format) {
                sums.add(number(2)?, number(3)?);
            }
        }
        Ok(slice)
    }
}
