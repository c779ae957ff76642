//! The shelf against real Calibre libraries: looks, differences, broken libraries, and the watcher.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use alexandria_ingestd::domain::{
    Book, BookFile, Change, FailedFile, KnownBook, LibraryKind, Metadata, ShelfSnapshot, Source,
};
use alexandria_ingestd::ingest::why_unread;
use alexandria_ingestd::library::diff::diff;
use alexandria_ingestd::library::{
    Heartbeat, LibraryError, Look, LookOutcome, LookReason, Settings, SnapshotRequest, Watcher, detect, mount_info,
    signature, take_snapshot,
};
use nix::sys::resource::{UsageWho, getrusage};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::calibre::CalibreLibrary;

const GRACE_US: i64 = 600_000_000;

/// What the state would be after the looks so far.
struct State {
    known: Vec<KnownBook>,
    expected: Option<Uuid>,
    now_us: i64,
    scratch: TempDir,
}

impl State {
    fn new() -> Self {
        State { known: Vec::new(), expected: None, now_us: 0, scratch: tempfile::tempdir().unwrap() }
    }

    fn try_look(&self, path: &Path, full: bool) -> Result<Look, LibraryError> {
        take_snapshot(&SnapshotRequest {
            path,
            kind: LibraryKind::Calibre,
            folder_uuid: None,
            expected: self.expected,
            formats: &["EPUB".to_owned(), "TXT".to_owned()],
            why_unread,
            known: &self.known,
            scratch_dir: self.scratch.path(),
            full,
            heartbeat: &Heartbeat::default(),
        })
    }

    /// One look and its changes, applied.
    fn look(&mut self, path: &Path) -> Vec<Change> {
        let snapshot = self.try_look(path, false).unwrap().snapshot;
        self.expected = Some(snapshot.library_uuid);
        let changes = diff(&self.known, &snapshot, self.now_us, GRACE_US);
        self.apply(&snapshot, &changes);
        changes
    }

    fn apply(&mut self, snapshot: &ShelfSnapshot, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Missing(uuid) => {
                    let known = self.known.iter_mut().find(|known| known.book.uuid == *uuid).unwrap();
                    known.missing_since_us = Some(self.now_us);
                }
                Change::Gone(uuid) => self.known.retain(|known| known.book.uuid != *uuid),
                _ => {}
            }
        }
        for book in &snapshot.books {
            let before = self.known.iter().position(|known| known.book.uuid == book.uuid);
            let failed = before.map(|at| self.known.remove(at).failed).unwrap_or_default();
            self.known.push(KnownBook { failed, ..KnownBook::new(book.clone()) });
        }
        assert_eq!(fs::read_dir(self.scratch.path()).unwrap().count(), 0, "the copy is deleted");
    }
}

/// The one change, which must be of a known book.
fn changed(changes: &[Change]) -> (&Book, bool, bool, bool) {
    match changes {
        [Change::Changed { book, file, metadata, moved }] => (book, *file, *metadata, *moved),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_calibredb_does_to_a_book_is_told_apart() {
    let library = CalibreLibrary::new();
    let path = library.path();
    let mut state = State::new();
    assert_eq!(detect(&path).unwrap(), LibraryKind::Calibre);
    assert_eq!(state.look(&path), []);

    let id = library.add(&library.text("The First Book", "Some text."));
    let added = state.look(&path);
    let [Change::New(book)] = added.as_slice() else { panic!("{added:?}") };
    assert_eq!(book.source, Source::Calibre(id));
    assert_eq!(book.file.format, "TXT");
    assert_eq!(fs::read_to_string(&book.file.path).unwrap(), "Some text.");
    assert_eq!(book.metadata.title, "The First Book");
    assert_eq!((book.metadata.published.as_deref(), book.metadata.series_index), (None, None));
    let age_us = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as i64 - book.added_us;
    assert!((0..600_000_000).contains(&age_us), "{age_us}");
    assert_eq!(state.look(&path), []);

    library.add_format(id, &library.epub("first", "The First Book", "Unknown", "First text."));
    let changes = state.look(&path);
    let (book, file, metadata, _) = changed(&changes);
    assert!(file && !metadata, "a better format");
    assert_eq!(book.file.format, "EPUB");
    assert_eq!(book.file.size, fs::metadata(&book.file.path).unwrap().len());

    library.add_format(id, &library.epub("first", "The First Book", "Unknown", "First text, and rather more of it."));
    let changes = state.look(&path);
    let (_, file, metadata, moved) = changed(&changes);
    assert_eq!((file, metadata, moved), (true, false, false), "a replaced file");

    library.add_format(id, &library.text("other", "Another text"));
    let changes = state.look(&path);
    let (book, file, metadata, moved) = changed(&changes);
    assert_eq!((file, metadata, moved), (false, false, true), "a spare format is noted");
    let spare = &book.others[0];
    assert_eq!((book.others.len(), spare.format.as_str(), spare.size), (1, "TXT", 12));
    assert_eq!(fs::read_to_string(&spare.path).unwrap(), "Another text");
    assert_eq!(state.look(&path), []);

    // The preferred file was read and gave no text: the spare one is in use, and what happens to it counts.
    let epub = book.file.clone();
    state.known[0].failed = vec![FailedFile::new(&epub, "damaged")];
    assert_eq!(state.look(&path), []);
    assert_eq!(diff(&state.known, &state.try_look(&path, true).unwrap().snapshot, 0, 0), [], "in full, too");
    library.add_format(id, &library.text("other", "Yet another text"));
    let changes = state.look(&path);
    assert!(changed(&changes).1, "the file in use was replaced");
    let spare = FailedFile::new(&state.known[0].book.others[0], "empty");
    state.known[0].failed.push(spare);
    library.calibredb(&["remove_format", &id.to_string(), "TXT"]);
    let changes = state.look(&path);
    assert!(!changed(&changes).1, "a file that failed is gone");
    library.add_format(id, &library.text("other", "A fourth text"));
    let changes = state.look(&path);
    assert!(changed(&changes).1, "a parked book has hope again");
    state.known[0].failed.clear();

    library.set_metadata(id, "tags", "zebra,ape");
    let changes = state.look(&path);
    let (book, file, metadata, moved) = changed(&changes);
    assert_eq!((file, metadata, moved), (false, true, false), "a metadata edit");
    assert_eq!(book.metadata.tags, ["ape", "zebra"]);

    library.calibredb(&["add_custom_column", "read", "Read", "bool"]);
    assert_eq!(state.look(&path), [], "a custom column touches every book's row");

    library.set_metadata(id, "title", "Renamed");
    let changes = state.look(&path);
    let (book, file, metadata, moved) = changed(&changes);
    assert_eq!((file, metadata, moved), (false, true, true), "a rename moves the files");
    assert!(book.file.path.exists() && book.file.path.to_string_lossy().contains("Renamed"));

    let second = library.add(&library.text("Second", "More text."));
    assert_eq!(state.look(&path).len(), 1);
    library.remove(id);
    let gone = state.known.iter().find(|known| known.book.source == Source::Calibre(id)).unwrap().book.uuid;
    assert_eq!(state.look(&path), [Change::Missing(gone)]);
    state.now_us += GRACE_US - 1;
    assert_eq!(state.look(&path), []);
    state.now_us += 1;
    assert_eq!(state.look(&path), [Change::Gone(gone)]);
    assert_eq!(state.known.len(), 1);
    assert_eq!(state.known[0].book.source, Source::Calibre(second));
}

#[test]
fn the_catalogue_is_read_as_calibre_shows_it_in_schemas_25_and_27() {
    let library = CalibreLibrary::new();
    let path = library.path();
    let id = library.add(&library.epub("b", "Čovjek & \u{2018}svijet\u{2019}", "Anić", "Text."));
    for (field, value) in [
        ("authors", "Zoë Writer & Adams, Jr. & Anić, Ana"),
        ("series", "The Series"),
        ("series_index", "2.5"),
        ("languages", "hrv,eng"),
        ("publisher", "A Publisher"),
        ("rating", "4"),
        ("identifiers", "isbn:9780306406157,doi:10.1000/1"),
        ("pubdate", "2001-05-06T12:00:00+00:00"),
    ] {
        library.set_metadata(id, field, value);
    }
    let mut state = State::new();
    state.look(&path);
    let metadata = state.known[0].book.metadata.clone();
    assert_eq!(
        metadata,
        Metadata {
            title: "Čovjek & \u{2018}svijet\u{2019}".into(),
            authors: vec!["Zoë Writer".into(), "Adams, Jr.".into(), "Anić, Ana".into()],
            language: Some("hrv".into()),
            tags: vec![],
            series: Some("The Series".into()),
            series_index: Some(2.5),
            publisher: Some("A Publisher".into()),
            published: Some("2001-05-06".into()),
            identifiers: [("isbn", "9780306406157"), ("doi", "10.1000/1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            rating: Some(8),
        }
    );

    let writer = Connection::open(library.database()).unwrap();
    let version: i64 = writer.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    if version < 27 {
        // What Calibre's own upgrade does to the tables read here. The views are remade by Calibre; nothing reads them.
        for table in ["publishers", "series", "tags", "languages", "ratings"] {
            writer.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN link TEXT NOT NULL DEFAULT ''")).unwrap();
        }
        writer
            .execute_batch(
                "DROP VIEW meta; ALTER TABLE books DROP COLUMN flags; ALTER TABLE books DROP COLUMN isbn;
                 ALTER TABLE books DROP COLUMN lccn; PRAGMA application_id = 0x63616c69; PRAGMA user_version = 27;",
            )
            .unwrap();
    }
    drop(writer);
    assert_eq!(state.look(&path), [], "the newer schema says the same");
}

#[test]
fn rows_that_calibre_has_not_finished_and_unread_formats_are_present_but_passed_over() {
    let library = CalibreLibrary::new();
    let path = library.path();
    library.calibredb(&["add", "--empty", "--title", "No File"]);
    let pdf = library.text("fake", "not really").with_extension("pdf");
    fs::write(&pdf, "%PDF-1.4").unwrap();
    let id = library.add(&library.text("Real", "Text."));
    library.calibredb(&["add", "--empty", "--title", "Other Format"]);
    library.add_format(id + 1, &pdf);
    // A removed book that Calibre keeps for two weeks, with all its files.
    let trash = path.join(".caltrash/b/77");
    fs::create_dir_all(&trash).unwrap();
    fs::copy(library.epub("t", "Trash", "T", "Text."), trash.join("Trash - T.epub")).unwrap();

    let state = State::new();
    let snapshot = state.try_look(&path, true).unwrap().snapshot;
    assert_eq!(snapshot.books.iter().map(|book| book.metadata.title.as_str()).collect::<Vec<_>>(), ["Real"]);
    let passed: Vec<_> = snapshot.passed_over.iter().map(|passed| (passed.title.as_str(), &passed.reason)).collect();
    assert_eq!(passed.len(), 2);
    assert!(passed[0].0 == "No File" && passed[0].1.contains("no book file"), "{passed:?}");
    assert!(passed[1].0 == "Other Format" && passed[1].1.contains("PDF"), "{passed:?}");
}

#[test]
fn a_file_that_is_away_or_in_writing_keeps_its_book_as_it_was() {
    let library = CalibreLibrary::new();
    let path = library.path();
    library.add(&library.text("Book", "Some text."));
    let mut state = State::new();
    state.look(&path);
    let file = state.known[0].book.file.clone();

    fs::rename(&file.path, file.path.with_extension("away")).unwrap();
    let look = state.try_look(&path, true).unwrap();
    assert_eq!((look.unsettled, diff(&state.known, &look.snapshot, 0, 0)), (1, vec![]));
    let unknown = State::new().try_look(&path, false).unwrap();
    assert_eq!((unknown.unsettled, unknown.snapshot.books.len(), unknown.snapshot.passed_over.len()), (1, 0, 1));

    // Being replaced: the size is not the catalogue's, and the file is fresh.
    fs::write(&file.path, "Half").unwrap();
    let look = state.try_look(&path, true).unwrap();
    assert_eq!((look.unsettled, diff(&state.known, &look.snapshot, 0, 0)), (1, vec![]));
    // At rest: another program changed it behind Calibre's back. A full look sees it, an ordinary one does not.
    let rest = SystemTime::now() - Duration::from_secs(60);
    File::options().append(true).open(&file.path).unwrap().set_modified(rest).unwrap();
    assert_eq!(state.look(&path), []);
    let look = state.try_look(&path, true).unwrap();
    let changes = diff(&state.known, &look.snapshot, 0, 0);
    let (book, file, metadata, moved) = changed(&changes);
    assert_eq!((book.file.size, file, metadata, moved), (4, true, false, false));
}

#[test]
fn a_broken_or_wrong_library_is_an_error_with_a_way_out() {
    let library = CalibreLibrary::new();
    library.add(&library.text("Book", "Some text."));
    let mut state = State::new();
    state.look(&library.path());
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("library");
    let told = |state: &State| {
        let error = state.try_look(&path, false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        println!("{text}");
        error
    };

    assert!(matches!(told(&state), LibraryError::Missing { .. }));
    assert!(matches!(detect(&path), Err(LibraryError::Missing { .. })));
    fs::create_dir(&path).unwrap();
    assert!(matches!(told(&state), LibraryError::Empty { .. }));
    assert!(matches!(detect(&path), Err(LibraryError::Empty { .. })));
    fs::write(path.join("other.txt"), "x").unwrap();
    assert!(matches!(told(&state), LibraryError::NoDatabase { .. }));
    let database = path.join("metadata.db");
    fs::write(&database, "").unwrap();
    assert!(matches!(told(&state), LibraryError::BadDatabase { .. }));
    fs::write(&database, "this is no database, though it is long enough for a header ".repeat(100)).unwrap();
    assert!(matches!(told(&state), LibraryError::BadDatabase { .. }));
    let mut bytes = fs::read(library.database()).unwrap();
    let middle = bytes.len() / 2;
    fs::write(&database, &bytes[..middle]).unwrap();
    assert!(matches!(told(&state), LibraryError::BadDatabase { .. }), "half copied");
    for at in (4096..bytes.len()).step_by(4096) {
        bytes[at..at + 16].fill(0xA5);
    }
    fs::write(&database, &bytes).unwrap();
    assert!(matches!(told(&state), LibraryError::BadDatabase { .. }), "damaged");
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "a file").unwrap();
    assert!(matches!(told(&state), LibraryError::NotADirectory { .. }));

    let other = CalibreLibrary::new();
    let refused = state.try_look(&other.path(), false).unwrap_err();
    assert!(matches!(refused, LibraryError::WrongLibrary { .. }) && refused.needs_operator(), "{refused}");
    assert!(mount_info(&other.path()).is_ok());
}

/// A library of `count` books made by SQL, without files.
fn big_library(count: i64) -> (CalibreLibrary, Vec<KnownBook>) {
    let library = CalibreLibrary::new();
    let database = Connection::open(library.database()).unwrap();
    let library_uuid: String = database.query_row("SELECT uuid FROM library_id", [], |row| row.get(0)).unwrap();
    let triggers: Vec<String> = database
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    // They call functions that only Calibre has.
    for trigger in triggers {
        database.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
    }
    let statement = "
        BEGIN;
        CREATE TEMP TABLE n AS WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < COUNT) SELECT i FROM c;
        INSERT INTO books(id, title, sort, timestamp, pubdate, series_index, author_sort, path, uuid)
            SELECT i, 'The Title of Book ' || i, 'Title', '2024-01-02 03:04:05.678901+00:00', '2001-02-03 00:00:00+00:00', 1.0,
            'Writer', 'Writer ' || (i % 997) || '/The Title of Book ' || i || ' (' || i || ')',
            printf('00000000-0000-4000-8000-%012x', i) FROM n;
        INSERT INTO data(id, book, format, uncompressed_size, name)
            SELECT i, i, 'EPUB', 1000 + i, 'The Title of Book ' || i || ' - Writer' FROM n;
        INSERT INTO authors(id, name, sort) SELECT i, 'Writer ' || i, 'Writer' FROM n WHERE i <= 997;
        INSERT INTO books_authors_link(book, author) SELECT i, 1 + i % 997 FROM n WHERE COUNT >= 997;
        INSERT INTO tags(id, name) SELECT i, 'tag ' || i FROM n WHERE i <= 50;
        INSERT INTO books_tags_link(book, tag) SELECT i, 1 + i % 50 FROM n;
        INSERT INTO books_tags_link(book, tag) SELECT i, 1 + (i + 7) % 50 FROM n;
        INSERT INTO languages(id, lang_code) VALUES (1, 'eng');
        INSERT INTO books_languages_link(book, lang_code, item_order) SELECT i, 1, 0 FROM n;
        INSERT INTO identifiers(book, type, val) SELECT i, 'isbn', '978' || i FROM n;
        INSERT INTO comments(book, text) SELECT i, printf('%.400c', 'x') FROM n;
        COMMIT;";
    database.execute_batch(&statement.replace("COUNT", &count.to_string())).unwrap();
    let known = (1..=count).map(|id| known_of_big_library(id, &library.path(), &library_uuid)).collect();
    (library, known)
}

fn known_of_big_library(id: i64, path: &Path, library_uuid: &str) -> KnownBook {
    let place = format!("Writer {}/The Title of Book {id} ({id})/The Title of Book {id} - Writer.epub", id % 997);
    let book = Book {
        uuid: Uuid::parse_str(&format!("00000000-0000-4000-8000-{id:012x}")).unwrap(),
        library_uuid: Uuid::parse_str(library_uuid).unwrap(),
        source: Source::Calibre(id),
        metadata: Metadata::default(),
        file: BookFile {
            format: "EPUB".into(),
            path: path.join(place),
            data_id: Some(id),
            size: 1000 + id as u64,
            mtime_us: 1,
        },
        others: Vec::new(),
        unread: Vec::new(),
        added_us: 1,
    };
    KnownBook::new(book)
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    us(usage.user_time()) + us(usage.system_time())
}

#[test]
fn a_large_library_is_read_in_few_queries() {
    for count in [9_000, 100_000] {
        let (library, known) = big_library(count);
        let mut state = State { known, ..State::new() };
        let before = peak_mib();
        let (started, cpu) = (Instant::now(), cpu_us());
        let look = state.try_look(&library.path(), false).unwrap();
        let (took, cpu) = (started.elapsed(), cpu_us() - cpu);
        let peak = peak_mib();
        assert_eq!((look.snapshot.books.len() as i64, look.unsettled), (count, 0));
        let changes = diff(&state.known, &look.snapshot, 0, 0);
        assert_eq!(changes.len() as i64, count, "the made-up metadata differ");
        state.apply(&ShelfSnapshot { books: vec![], ..look.snapshot.clone() }, &[]);
        let full = Instant::now();
        // No file is there: every book stays as it was known.
        let full_look = state.try_look(&library.path(), true).unwrap();
        assert_eq!((full_look.snapshot.books.len() as i64, full_look.unsettled as i64), (count, count));
        println!(
            "{count} books: metadata.db {} KiB, look {took:.1?} ({cpu} us CPU), full look {:.1?}, diff of all {:.1?}, peak {before} -> {} MiB",
            fs::metadata(library.database()).unwrap().len() / 1024,
            full.elapsed(),
            {
                let started = Instant::now();
                diff(&state.known, &look.snapshot, 0, 0);
                started.elapsed()
            },
            peak
        );
    }
}

#[test]
fn a_live_writer_never_gives_a_torn_look() {
    let (library, known) = big_library(500);
    let state = State { known, ..State::new() };
    let path = library.path();
    Connection::open(library.database()).unwrap().execute_batch("UPDATE identifiers SET val = 0").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, database) = (Arc::clone(&stop), library.database());
        thread::spawn(move || {
            let mut connection = Connection::open(database).unwrap();
            // So small that it spills into the file, which takes the EXCLUSIVE lock before the commit.
            connection.execute_batch("PRAGMA cache_size = 5; PRAGMA synchronous = OFF;").unwrap();
            let mut round = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let transaction = connection.transaction().unwrap();
                transaction.execute("UPDATE identifiers SET val = ?1", [round]).unwrap();
                transaction.execute("UPDATE authors SET name = ?1 || ' ' || id", [round]).unwrap();
                transaction.commit().unwrap();
                thread::sleep(Duration::from_millis(round as u64 % 40));
            }
            round
        })
    };
    let (mut looks, mut busy) = (0, 0);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        match state.try_look(&path, false) {
            Ok(look) => {
                let rounds: std::collections::BTreeSet<_> =
                    look.snapshot.books.iter().map(|book| book.metadata.identifiers["isbn"].clone()).collect();
                assert_eq!((look.snapshot.books.len(), rounds.len()), (500, 1), "torn: {rounds:?}");
                looks += 1;
            }
            Err(LibraryError::Busy { .. }) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = writer.join().unwrap();
    println!("{looks} looks, {busy} busy, while {rounds} transactions were written");
    assert!(looks > 0 && rounds > 1);

    // A transaction that stays open: busy, and neither side is disturbed.
    let writer = Connection::open(library.database()).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE; UPDATE identifiers SET val = 'open';").unwrap();
    let refused = state.try_look(&path, false).unwrap_err();
    assert!(matches!(refused, LibraryError::Busy { .. }) && !refused.needs_operator(), "{refused}");
    writer.execute_batch("COMMIT").unwrap();
    let look = state.try_look(&path, false).unwrap();
    assert_eq!(look.snapshot.books[0].metadata.identifiers["isbn"], "open");
}

#[test]
fn a_crashed_writers_journal_is_rolled_back_in_the_copy_only() {
    let (library, known) = big_library(500);
    let state = State { known, ..State::new() };
    let writer = Connection::open(library.database()).unwrap();
    writer.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE identifiers SET val = 'half';").unwrap();
    writer.cache_flush().unwrap();
    // The disk as the crash left it.
    let crashed = tempfile::tempdir().unwrap();
    let database = crashed.path().join("metadata.db");
    let journal = crashed.path().join("metadata.db-journal");
    fs::copy(library.database(), &database).unwrap();
    fs::copy(library.path().join("metadata.db-journal"), &journal).unwrap();
    writer.execute_batch("ROLLBACK").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    for file in [&database, &journal] {
        File::options().append(true).open(file).unwrap().set_modified(long_ago).unwrap();
    }
    let content = |path: &PathBuf| fs::read(path).unwrap();
    let before = (content(&database), content(&journal));
    assert_ne!(before.0, content(&library.database()), "the half transaction is in the file");

    let look = State { known: Vec::new(), ..state }.try_look(crashed.path(), false).unwrap();
    assert_eq!(look.snapshot.passed_over.len(), 500);
    assert_eq!((content(&database), content(&journal)), before, "the library is as it was");
}

fn watch(path: PathBuf, poll: Duration, inotify: bool) -> (Watcher, mpsc::Receiver<(LookReason, Vec<String>)>) {
    let (sender, receiver) = mpsc::channel();
    let mut state = State::new();
    let settings = Settings { path: path.clone(), poll, full_scan: Duration::from_secs(3600), inotify };
    let watcher = Watcher::spawn(settings, move |reason, heartbeat| {
        heartbeat.beat();
        let Ok(kind) = detect(&path) else { return LookOutcome::Failed };
        let request = SnapshotRequest {
            path: &path,
            kind,
            folder_uuid: None,
            expected: None,
            formats: &["TXT".to_owned()],
            why_unread,
            known: &state.known,
            scratch_dir: state.scratch.path(),
            full: reason.is_full(),
            heartbeat,
        };
        let Ok(look) = take_snapshot(&request) else { return LookOutcome::Failed };
        let changes = diff(&state.known, &look.snapshot, 0, GRACE_US);
        state.apply(&look.snapshot, &changes);
        let new = changes.iter().filter_map(|change| match change {
            Change::New(book) => Some(book.metadata.title.clone()),
            _ => None,
        });
        let _ = sender.send((reason, new.collect()));
        match look.unsettled {
            0 => LookOutcome::Settled,
            _ => LookOutcome::Again { at_most: Duration::from_secs(10) },
        }
    });
    (watcher.unwrap(), receiver)
}

/// How long until a look reports the title as new.
fn until_new(looks: &mpsc::Receiver<(LookReason, Vec<String>)>, title: &str) -> Duration {
    let started = Instant::now();
    loop {
        let left = Duration::from_secs(20).saturating_sub(started.elapsed());
        let (reason, new) = looks.recv_timeout(left).unwrap_or_else(|_| panic!("no look reported '{title}'"));
        if new.iter().any(|found| found == title) {
            println!("'{title}' reported after {:.2?} ({reason:?})", started.elapsed());
            return started.elapsed();
        }
    }
}

#[test]
fn a_book_added_by_calibredb_is_reported_within_three_seconds() {
    for inotify in [true, false] {
        let library = CalibreLibrary::new();
        let (watcher, looks) = watch(library.path(), Duration::from_secs(2), inotify);
        assert_eq!(looks.recv_timeout(Duration::from_secs(10)).unwrap().0, LookReason::Start);
        library.add(&library.text("Dropped", "Some text."));
        assert!(until_new(&looks, "Dropped") < Duration::from_secs(3));
        println!("{:?}", watcher.status());
        if !inotify {
            assert!(!watcher.status().events);
        }
        assert!(watcher.stop(Duration::from_secs(2)));
    }
}

#[test]
fn a_library_that_comes_back_is_looked_at_at_once() {
    let library = CalibreLibrary::new();
    library.add(&library.text("Book", "Some text."));
    let away = library.path().with_file_name("away");
    fs::rename(library.path(), &away).unwrap();
    let (watcher, looks) = watch(library.path(), Duration::from_millis(50), true);
    assert!(looks.recv_timeout(Duration::from_secs(1)).is_err(), "nothing is learned without a library");
    fs::rename(&away, library.path()).unwrap();
    assert!(until_new(&looks, "Book") < Duration::from_secs(3));
    watcher.look_now(true);
    assert_eq!(looks.recv_timeout(Duration::from_secs(5)).unwrap().0, LookReason::Asked { full: true });
    assert!(watcher.stop(Duration::from_secs(2)));
}

#[test]
fn a_file_dropped_deep_in_a_plain_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    for inotify in [true, false] {
        let (watcher, looks) = watch(folder.path().to_owned(), Duration::from_millis(500), inotify);
        looks.recv_timeout(Duration::from_secs(10)).unwrap();
        let title = format!("dropped {inotify}");
        fs::write(folder.path().join("a/b").join(format!("{title}.txt")), "text").unwrap();
        until_new(&looks, &title);
        assert!(watcher.stop(Duration::from_secs(2)));
    }
}

#[test]
fn an_idle_watcher_costs_next_to_nothing() {
    let library = CalibreLibrary::new();
    let (watcher, looks) = watch(library.path(), Duration::from_millis(5), true);
    looks.recv_timeout(Duration::from_secs(10)).unwrap();
    let (polls, cpu) = (watcher.status().polls, cpu_us());
    thread::sleep(Duration::from_secs(3));
    let (polls, cpu) = (watcher.status().polls - polls, cpu_us() - cpu);
    let each = cpu as f64 / polls as f64;
    println!("{polls} idle polls: {each:.1} us CPU each, at one in 2 s {:.5} % of a core", each / 20_000.0);
    assert_eq!(watcher.status().looks, 1);
    assert!(signature(&library.path()).unwrap() == signature(&library.path()).unwrap());
    assert!(watcher.stop(Duration::from_secs(2)));
}

#[test]
fn a_watcher_that_hangs_is_reported_and_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (release, hang) = mpsc::channel::<()>();
    let settings = Settings {
        path: folder.path().to_owned(),
        poll: Duration::from_millis(10),
        full_scan: Duration::from_secs(3600),
        inotify: false,
    };
    let watcher = Watcher::spawn(settings, move |_, _| {
        let _ = hang.recv();
        LookOutcome::Failed
    })
    .unwrap();
    thread::sleep(Duration::from_millis(200));
    let status = watcher.status();
    assert!(status.running && status.waiting_since_us.is_some(), "{status:?}");
    let started = Instant::now();
    assert!(!watcher.stop(Duration::from_millis(100)));
    assert!(started.elapsed() < Duration::from_secs(1));
    // The server answers again.
    drop(release);
    assert!(watcher.stop(Duration::from_secs(5)));
    assert_eq!(watcher.status().waiting_since_us, None);
}
