-- The reindex: what a second collection beside the live one holds, and the jobs that fill it. While one goes on, the key
-- 'reindex' of meta says where to and with which settings; 'dropped' lists collections that are still to be deleted.

-- What the second collection holds of a book; the columns are those of books, which they replace at the switch.
CREATE TABLE shadow (
    book          INTEGER PRIMARY KEY REFERENCES books (id) ON DELETE CASCADE,
    written_us    INTEGER NOT NULL,
    content_hash  TEXT NOT NULL,
    metadata_hash TEXT NOT NULL,
    generation    TEXT NOT NULL,
    chunker       TEXT NOT NULL,
    model         TEXT NOT NULL,
    text_hash     TEXT NOT NULL,
    file          TEXT NOT NULL,
    file_metadata TEXT NOT NULL,
    sections      INTEGER NOT NULL,
    chunks        INTEGER NOT NULL,
    points        INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    words         INTEGER NOT NULL
) STRICT;

-- 1: the job is the second collection's, and writes nothing else. A book may have one open job of each.
ALTER TABLE jobs ADD COLUMN shadow INTEGER NOT NULL DEFAULT 0 CHECK (shadow IN (0, 1));

DROP INDEX jobs_open;
CREATE UNIQUE INDEX jobs_open ON jobs (book, shadow) WHERE state <> 'done';
DROP INDEX jobs_to_claim;
CREATE INDEX jobs_to_claim ON jobs (shadow, by_hand DESC, added_us DESC, id)
    WHERE state = 'queued' AND next_try_us IS NULL;

-- What other settings made is counted now and then: from this index alone.
CREATE INDEX books_by_settings ON books (indexed_chunker, indexed_model, tokens) WHERE indexed_at_us IS NOT NULL;

-- Open jobs of the second collection are counted by themselves.
INSERT INTO counters VALUES
    ('shadow_queued', 0), ('shadow_waiting', 0), ('shadow_running', 0), ('shadow_parked', 0),
    ('shadow_books', 0), ('shadow_points', 0), ('shadow_tokens', 0);

DROP TRIGGER jobs_count_insert;
CREATE TRIGGER jobs_count_insert AFTER INSERT ON jobs BEGIN
    UPDATE counters SET value = value + 1
    WHERE name = iif(NEW.shadow AND NEW.state <> 'done', 'shadow_', '')
        || iif(NEW.state = 'queued' AND NEW.next_try_us IS NOT NULL, 'waiting', NEW.state);
END;
DROP TRIGGER jobs_count_delete;
CREATE TRIGGER jobs_count_delete AFTER DELETE ON jobs BEGIN
    UPDATE counters SET value = value - 1
    WHERE name = iif(OLD.shadow AND OLD.state <> 'done', 'shadow_', '')
        || iif(OLD.state = 'queued' AND OLD.next_try_us IS NOT NULL, 'waiting', OLD.state);
END;
DROP TRIGGER jobs_count_update;
CREATE TRIGGER jobs_count_update AFTER UPDATE OF state, next_try_us, shadow ON jobs BEGIN
    UPDATE counters SET value = value - 1
    WHERE name = iif(OLD.shadow AND OLD.state <> 'done', 'shadow_', '')
        || iif(OLD.state = 'queued' AND OLD.next_try_us IS NOT NULL, 'waiting', OLD.state);
    UPDATE counters SET value = value + 1
    WHERE name = iif(NEW.shadow AND NEW.state <> 'done', 'shadow_', '')
        || iif(NEW.state = 'queued' AND NEW.next_try_us IS NOT NULL, 'waiting', NEW.state);
END;

CREATE TRIGGER shadow_count_insert AFTER INSERT ON shadow BEGIN
    UPDATE counters SET value = value + CASE name
        WHEN 'shadow_books' THEN 1 WHEN 'shadow_points' THEN NEW.points ELSE NEW.tokens END
    WHERE name IN ('shadow_books', 'shadow_points', 'shadow_tokens');
END;
CREATE TRIGGER shadow_count_delete AFTER DELETE ON shadow BEGIN
    UPDATE counters SET value = value - CASE name
        WHEN 'shadow_books' THEN 1 WHEN 'shadow_points' THEN OLD.points ELSE OLD.tokens END
    WHERE name IN ('shadow_books', 'shadow_points', 'shadow_tokens');
END;
CREATE TRIGGER shadow_count_update AFTER UPDATE OF points, tokens ON shadow BEGIN
    UPDATE counters SET value = value + CASE name
        WHEN 'shadow_points' THEN NEW.points - OLD.points ELSE NEW.tokens - OLD.tokens END
    WHERE name IN ('shadow_points', 'shadow_tokens');
END;
