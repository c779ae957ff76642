-- What reports are made of: how each finished job was done, sums that outlive the history, and what the shared ingest log
-- does not have yet. Jobs from before have NULL: it is not known.

-- What embedded: few rows, for a model, a device or a program's version seldom changes.
CREATE TABLE setups (
    id      INTEGER PRIMARY KEY,
    model   TEXT NOT NULL,                  -- the contract's embedding_model_id; empty where it is not known
    device  TEXT NOT NULL,
    version TEXT NOT NULL,                  -- the program's; empty where it is not known
    UNIQUE (model, device, version)
) STRICT;

ALTER TABLE jobs ADD COLUMN setup INTEGER REFERENCES setups (id);
ALTER TABLE jobs ADD COLUMN chunks INTEGER;         -- of the book; NULL for a removal and a failure
ALTER TABLE jobs ADD COLUMN tokens INTEGER;
ALTER TABLE jobs ADD COLUMN format TEXT;            -- of the file that was read
ALTER TABLE jobs ADD COLUMN file_size INTEGER;      -- bytes
ALTER TABLE jobs ADD COLUMN batch_tokens INTEGER;   -- the most tokens of one batch at that time
ALTER TABLE jobs ADD COLUMN seconds REAL;           -- in work: of the last attempt

UPDATE jobs SET seconds = (finished_us - started_us) / 1e6 WHERE state = 'done' AND started_us IS NOT NULL;

-- Sums by local day and setup. Never pruned: a few rows a day.
CREATE TABLE days (
    day          TEXT NOT NULL,             -- 2026-11-29
    setup        INTEGER NOT NULL REFERENCES setups (id),
    -- Books that were embedded; chunks, tokens and bytes of them, NULL where not known.
    books        INTEGER NOT NULL DEFAULT 0,
    chunks       INTEGER,
    tokens       INTEGER,
    bytes        INTEGER,
    -- Wall time in which at least one of them was in work; the stages' own seconds overlap where several were.
    seconds      REAL NOT NULL DEFAULT 0,
    copy         REAL NOT NULL DEFAULT 0,
    extract      REAL NOT NULL DEFAULT 0,
    borders      REAL NOT NULL DEFAULT 0,
    embed        REAL NOT NULL DEFAULT 0,
    store        REAL NOT NULL DEFAULT 0,
    -- Other endings.
    payload_only INTEGER NOT NULL DEFAULT 0,
    adopted      INTEGER NOT NULL DEFAULT 0,
    unchanged    INTEGER NOT NULL DEFAULT 0,
    removed      INTEGER NOT NULL DEFAULT 0,
    failed       INTEGER NOT NULL DEFAULT 0,
    -- Of the model, and the seconds they took.
    loads        INTEGER NOT NULL DEFAULT 0,
    load_seconds REAL NOT NULL DEFAULT 0,
    -- The last stretch of time that is in `seconds` already.
    counted_from_us  INTEGER NOT NULL DEFAULT 0,
    counted_until_us INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, setup)
) STRICT, WITHOUT ROWID;

INSERT INTO setups (model, device, version)
SELECT DISTINCT '', ifnull(device, ''), '' FROM jobs WHERE state = 'done';

UPDATE jobs SET setup = (SELECT id FROM setups WHERE model = '' AND version = '' AND device = ifnull(jobs.device, ''))
WHERE state = 'done';

INSERT INTO days (day, setup, books, seconds, copy, extract, borders, embed, store,
                  payload_only, adopted, unchanged, removed, counted_from_us, counted_until_us)
SELECT date(finished_us / 1000000, 'unixepoch', 'localtime'), setup,
    sum(outcome = 'embedded'),
    total(iif(outcome = 'embedded', seconds, 0)),
    total(iif(outcome = 'embedded', timings ->> '$.copy', 0)),
    total(iif(outcome = 'embedded', timings ->> '$.extract', 0)),
    total(iif(outcome = 'embedded', timings ->> '$.borders', 0)),
    total(iif(outcome = 'embedded', timings ->> '$.embed', 0)),
    total(iif(outcome = 'embedded', timings ->> '$.store', 0)),
    sum(outcome = 'payload_only'), sum(outcome = 'adopted'), sum(outcome = 'unchanged'), sum(outcome = 'removed'),
    max(finished_us), max(finished_us)
FROM jobs WHERE state = 'done' AND outcome IS NOT NULL AND finished_us IS NOT NULL GROUP BY 1, 2;

-- Rows of the shared ingest log that its file does not have yet, the oldest first; bounded.
CREATE TABLE shared_rows (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    entry TEXT NOT NULL                     -- JSON
) STRICT;

-- Books whose row in the shared manifest may be out of date. A change gives a book a new, higher id.
CREATE TABLE shared_books (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    source    TEXT NOT NULL,
    source_id TEXT NOT NULL,
    UNIQUE (source, source_id)
) STRICT;

-- Noted only where the shared log is kept. Not INSERT OR REPLACE: an upsert's own policy would overrule it.
CREATE TRIGGER shared_books_update AFTER UPDATE OF indexed_at_us, source_id ON books
WHEN EXISTS (SELECT 1 FROM meta WHERE key = 'shared_log')
    AND (OLD.indexed_at_us IS NOT NULL OR NEW.indexed_at_us IS NOT NULL) BEGIN
    DELETE FROM shared_books WHERE source = OLD.source AND source_id = OLD.source_id;
    DELETE FROM shared_books WHERE source = NEW.source AND source_id = NEW.source_id;
    INSERT INTO shared_books (source, source_id)
    SELECT OLD.source, OLD.source_id UNION SELECT NEW.source, NEW.source_id;
END;
CREATE TRIGGER shared_books_delete AFTER DELETE ON books
WHEN OLD.indexed_at_us IS NOT NULL AND EXISTS (SELECT 1 FROM meta WHERE key = 'shared_log') BEGIN
    DELETE FROM shared_books WHERE source = OLD.source AND source_id = OLD.source_id;
    INSERT INTO shared_books (source, source_id) VALUES (OLD.source, OLD.source_id);
END;
