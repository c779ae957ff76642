-- A book's further files, and those that gave no text: the preferred format may fail, and another one stand in.

ALTER TABLE books ADD COLUMN others TEXT NOT NULL DEFAULT '[]';        -- JSON: its other readable files, in order
ALTER TABLE books ADD COLUMN unread TEXT NOT NULL DEFAULT '[]';        -- JSON: names of formats that are not read
ALTER TABLE books ADD COLUMN failed_files TEXT NOT NULL DEFAULT '[]';  -- JSON: files that were read and gave no text

-- Few books have such files; they are counted for each status.
CREATE INDEX books_with_failed_files ON books (id) WHERE failed_files <> '[]';

-- What is parked for its content gets its next format tried as soon as a look at the library finds one.
UPDATE books SET failed_files = (
    SELECT json_array(json_object('format', books.format, 'data_id', books.data_id, 'size', books.size,
                                  'mtime_us', books.mtime_us, 'reason', ifnull(jobs.last_error, '')))
    FROM jobs WHERE jobs.book = books.id AND jobs.state = 'parked' AND jobs.failure_kind = 'book'
) WHERE id IN (
    SELECT book FROM jobs WHERE state = 'parked' AND failure_kind = 'book' AND kind = 'ingest' AND book IS NOT NULL
);
