-- The first schema: what the libraries hold, what is in the store, and what is to do.
-- Times are microseconds since the epoch. Uuids are text, lower case with hyphens, so that a person can read the file.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE libraries (
    uuid          TEXT PRIMARY KEY,
    kind          TEXT NOT NULL CHECK (kind IN ('calibre', 'folder', 'files')),
    path          ANY NOT NULL,             -- text; a blob where the path is not UTF-8
    first_seen_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE books (
    id               INTEGER PRIMARY KEY,
    library_uuid     TEXT NOT NULL REFERENCES libraries (uuid),
    book_uuid        TEXT NOT NULL,
    source           TEXT NOT NULL CHECK (source IN ('calibre', 'file')),
    source_id        TEXT NOT NULL,
    metadata         TEXT NOT NULL,         -- JSON
    metadata_hash    TEXT NOT NULL,
    -- The file chosen for ingestion.
    format           TEXT NOT NULL,
    path             ANY NOT NULL,          -- text; a blob where the path is not UTF-8
    data_id          INTEGER,
    size             INTEGER NOT NULL,
    mtime_us         INTEGER NOT NULL,
    added_us         INTEGER NOT NULL,
    missing_since_us INTEGER,
    excluded_us      INTEGER,               -- taken out by hand: known, but no work until asked for by hand
    -- What the store holds of it; all NULL while it holds nothing.
    indexed_at_us            INTEGER,
    indexed_content_hash     TEXT,
    indexed_metadata_hash    TEXT,
    indexed_generation       TEXT,
    indexed_chunker          TEXT,
    indexed_model            TEXT,
    indexed_text_hash        TEXT,
    indexed_file             TEXT,          -- format, data.id, size and mtime of the file that was read
    indexed_file_metadata    TEXT,          -- JSON: what the file says about itself
    sections                 INTEGER,
    chunks                   INTEGER,
    points                   INTEGER,
    tokens                   INTEGER,
    words                    INTEGER,
    UNIQUE (library_uuid, book_uuid)
) STRICT;

CREATE INDEX books_by_uuid ON books (book_uuid);
CREATE INDEX books_by_source ON books (source_id);
CREATE INDEX books_by_path ON books (path);

CREATE TABLE jobs (
    id            INTEGER PRIMARY KEY,
    book          INTEGER REFERENCES books (id) ON DELETE SET NULL,
    -- Kept here too, so that the history of a removed book can be read.
    book_uuid     TEXT NOT NULL,
    source        TEXT NOT NULL,
    source_id     TEXT NOT NULL,
    title         TEXT NOT NULL,
    kind          TEXT NOT NULL CHECK (kind IN ('ingest', 'remove')),
    state         TEXT NOT NULL CHECK (state IN ('queued', 'running', 'parked', 'done')),
    by_hand       INTEGER NOT NULL DEFAULT 0 CHECK (by_hand IN (0, 1)),
    force         INTEGER NOT NULL DEFAULT 0 CHECK (force IN (0, 1)),
    added_us      INTEGER NOT NULL,         -- the book's: newest first
    attempts      INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    deaths        INTEGER NOT NULL DEFAULT 0,   -- attempts during which the process died
    next_try_us   INTEGER,
    -- A change that came while the job ran: it is queued once more afterwards.
    again         TEXT CHECK (again IN ('ingest', 'remove')),
    again_by_hand INTEGER NOT NULL DEFAULT 0,
    again_force   INTEGER NOT NULL DEFAULT 0,
    failure_kind  TEXT,
    last_error    TEXT,
    outcome       TEXT,
    device        TEXT,
    timings       TEXT,                     -- JSON: seconds by stage
    queued_us     INTEGER NOT NULL,
    started_us    INTEGER,
    finished_us   INTEGER
) STRICT;

-- A parked job is open too: un-parking it can then never make a second one.
CREATE UNIQUE INDEX jobs_open ON jobs (book) WHERE state <> 'done';
CREATE INDEX jobs_of_book ON jobs (book);
CREATE INDEX jobs_to_claim ON jobs (by_hand DESC, added_us DESC, id) WHERE state = 'queued' AND next_try_us IS NULL;
CREATE INDEX jobs_waiting ON jobs (next_try_us) WHERE state = 'queued' AND next_try_us IS NOT NULL;
CREATE INDEX jobs_running ON jobs (started_us) WHERE state = 'running';
CREATE INDEX jobs_parked ON jobs (finished_us) WHERE state = 'parked';
CREATE INDEX jobs_done ON jobs (finished_us) WHERE state = 'done';

-- Counters kept by triggers: the status costs the same at ten jobs and at a million.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters VALUES
    ('queued', 0), ('waiting', 0), ('running', 0), ('parked', 0), ('done', 0),
    ('books', 0), ('missing', 0), ('excluded', 0), ('indexed', 0),
    ('sections', 0), ('chunks', 0), ('points', 0), ('tokens', 0), ('words', 0);

CREATE TRIGGER jobs_count_insert AFTER INSERT ON jobs BEGIN
    UPDATE counters SET value = value + 1
    WHERE name = iif(NEW.state = 'queued' AND NEW.next_try_us IS NOT NULL, 'waiting', NEW.state);
END;
CREATE TRIGGER jobs_count_delete AFTER DELETE ON jobs BEGIN
    UPDATE counters SET value = value - 1
    WHERE name = iif(OLD.state = 'queued' AND OLD.next_try_us IS NOT NULL, 'waiting', OLD.state);
END;
CREATE TRIGGER jobs_count_update AFTER UPDATE OF state, next_try_us ON jobs BEGIN
    UPDATE counters SET value = value - 1
    WHERE name = iif(OLD.state = 'queued' AND OLD.next_try_us IS NOT NULL, 'waiting', OLD.state);
    UPDATE counters SET value = value + 1
    WHERE name = iif(NEW.state = 'queued' AND NEW.next_try_us IS NOT NULL, 'waiting', NEW.state);
END;

CREATE TRIGGER books_count_insert AFTER INSERT ON books BEGIN
    UPDATE counters SET value = value + 1 WHERE name = 'books';
END;
CREATE TRIGGER books_count_delete AFTER DELETE ON books BEGIN
    UPDATE counters SET value = value - CASE name
        WHEN 'books' THEN 1
        WHEN 'missing' THEN OLD.missing_since_us IS NOT NULL
        WHEN 'excluded' THEN OLD.excluded_us IS NOT NULL
        WHEN 'indexed' THEN OLD.indexed_at_us IS NOT NULL
        WHEN 'sections' THEN ifnull(OLD.sections, 0)
        WHEN 'chunks' THEN ifnull(OLD.chunks, 0)
        WHEN 'points' THEN ifnull(OLD.points, 0)
        WHEN 'tokens' THEN ifnull(OLD.tokens, 0)
        WHEN 'words' THEN ifnull(OLD.words, 0)
        ELSE 0 END
    WHERE name IN ('books', 'missing', 'excluded', 'indexed', 'sections', 'chunks', 'points', 'tokens', 'words');
END;
-- Rows are inserted bare, so an update is the only way these columns come to be set.
CREATE TRIGGER books_count_update
AFTER UPDATE OF missing_since_us, excluded_us, indexed_at_us, sections, chunks, points, tokens, words ON books BEGIN
    UPDATE counters SET value = value + CASE name
        WHEN 'missing' THEN (NEW.missing_since_us IS NOT NULL) - (OLD.missing_since_us IS NOT NULL)
        WHEN 'excluded' THEN (NEW.excluded_us IS NOT NULL) - (OLD.excluded_us IS NOT NULL)
        WHEN 'indexed' THEN (NEW.indexed_at_us IS NOT NULL) - (OLD.indexed_at_us IS NOT NULL)
        WHEN 'sections' THEN ifnull(NEW.sections, 0) - ifnull(OLD.sections, 0)
        WHEN 'chunks' THEN ifnull(NEW.chunks, 0) - ifnull(OLD.chunks, 0)
        WHEN 'points' THEN ifnull(NEW.points, 0) - ifnull(OLD.points, 0)
        WHEN 'tokens' THEN ifnull(NEW.tokens, 0) - ifnull(OLD.tokens, 0)
        WHEN 'words' THEN ifnull(NEW.words, 0) - ifnull(OLD.words, 0)
        ELSE 0 END
    WHERE name IN ('missing', 'excluded', 'indexed', 'sections', 'chunks', 'points', 'tokens', 'words');
END;
