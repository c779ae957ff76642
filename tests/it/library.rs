//! The shelf against real Calibre libraries: looks, differences, broken libraries, and the watcher.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use alexandria_ingestd::domain::{
    Book, Change, FailedFile, KnownBook, LibraryKind, Metadata, PassedOver, Sighting, Source,
};
use alexandria_ingestd::ingest::why_unread;
use alexandria_ingestd::library::diff::Comparison;
use alexandria_ingestd::library::{
    Heartbeat, Hint, LibraryError, Look, LookOutcome, LookReason, LookRequest, Settings, Shelf, Watcher, detect,
    mount_info, signature,
};
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::big::{big_library, known_of_big_library};
use crate::calibre::CalibreLibrary;
use crate::scale::cpu;

const GRACE_US: i64 = 600_000_000;

/// What the state would be after the looks so far.
struct State {
    known: Vec<KnownBook>,
    expected: Option<Uuid>,
    now_us: i64,
    scratch: TempDir,
}

/// One complete look, all of it.
#[derive(Debug)]
struct Looked {
    look: Look,
    library_uuid: Uuid,
    books: Vec<Book>,
    passed_over: Vec<PassedOver>,
}

impl State {
    fn new() -> Self {
        State { known: Vec::new(), expected: None, now_us: 0, scratch: tempfile::tempdir().unwrap() }
    }

    fn try_look(&self, path: &Path, full: bool) -> Result<Looked, LibraryError> {
        let formats = ["EPUB".to_owned(), "TXT".to_owned()];
        let heartbeat = Heartbeat::default();
        let shelf = Shelf::open(LookRequest {
            path,
            kind: LibraryKind::Calibre,
            folder_uuid: None,
            expected: self.expected,
            formats: &formats,
            why_unread,
            scratch_dir: self.scratch.path(),
            full,
            heartbeat: &heartbeat,
        })?;
        let library_uuid = shelf.library_uuid();
        let (mut books, mut passed_over) = (Vec::new(), Vec::new());
        let look = shelf.look(&self.known, |sightings| {
            for sighting in sightings {
                match sighting {
                    Sighting::Book(book) => books.push(book),
                    Sighting::PassedOver(book) => passed_over.push(book),
                    Sighting::AsKnown(_) => panic!("Calibre's catalogue has every book's metadata"),
                }
            }
            Ok::<_, LibraryError>(())
        })?;
        assert_eq!((books.len(), passed_over.len()), (look.books, look.passed_over));
        Ok(Looked { look, library_uuid, books, passed_over })
    }

    /// What a look means for this state.
    fn compare(&self, looked: &Looked) -> Vec<Change> {
        let mut comparison = Comparison::with(&self.known);
        let mut changes = Vec::new();
        looked.books.iter().for_each(|book| comparison.seen(book.clone(), &mut changes));
        looked.passed_over.iter().for_each(|book| comparison.seen_as_known(book.uuid, &mut changes));
        changes.extend(comparison.absent(self.now_us, GRACE_US));
        changes
    }

    /// One look and its changes, applied.
    fn look(&mut self, path: &Path) -> Vec<Change> {
        let looked = self.try_look(path, false).unwrap();
        self.expected = Some(looked.library_uuid);
        let changes = self.compare(&looked);
        self.apply(&changes);
        changes
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::New(book) => self.known.push(KnownBook::new(book)),
                Change::Changed { book, .. } => {
                    let known = self.book(book.uuid);
                    *known = KnownBook { failed: std::mem::take(&mut known.failed), ..KnownBook::new(book) };
                }
                Change::Missing(uuid) => {
                    let now_us = self.now_us;
                    self.book(*uuid).missing_since_us = Some(now_us);
                }
                Change::Returned(uuid) => self.book(*uuid).missing_since_us = None,
                Change::Gone(uuid) => self.known.retain(|known| known.uuid != *uuid),
            }
        }
        assert_eq!(fs::read_dir(self.scratch.path()).unwrap().count(), 0, "the copy is deleted");
    }

    fn book(&mut self, uuid: Uuid) -> &mut KnownBook {
        self.known.iter_mut().find(|known| known.uuid == uuid).unwrap()
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
    assert_eq!(state.compare(&state.try_look(&path, true).unwrap()), [], "in full, too");
    library.add_format(id, &library.text("other", "Yet another text"));
    let changes = state.look(&path);
    assert!(changed(&changes).1, "the file in use was replaced");
    let spare = FailedFile::new(&state.known[0].others[0], "empty");
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
    let gone = state.known.iter().find(|known| known.source == Source::Calibre(id)).unwrap().uuid;
    assert_eq!(state.look(&path), [Change::Missing(gone)]);
    state.now_us += GRACE_US - 1;
    assert_eq!(state.look(&path), []);
    state.now_us += 1;
    assert_eq!(state.look(&path), [Change::Gone(gone)]);
    assert_eq!(state.known.len(), 1);
    assert_eq!(state.known[0].source, Source::Calibre(second));
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
    let added = state.look(&path);
    let [Change::New(book)] = added.as_slice() else { panic!("{added:?}") };
    assert_eq!(
        book.metadata,
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
fn a_file_removed_and_added_again_is_seen_though_its_row_has_the_same_number() {
    let library = CalibreLibrary::new();
    let mut state = State::new();
    let id = library.add(&library.text("Book", "Some text."));
    state.look(&library.path());
    let before = state.known[0].file.clone();
    library.calibredb(&["remove_format", &id.to_string(), "TXT"]);
    assert_eq!(state.look(&library.path()), [], "a book without a file is no removal");
    library.add_format(id, &library.text("other", "A text of another length."));
    let changes = state.look(&library.path());
    let (book, file, ..) = changed(&changes);
    assert_eq!(book.file.data_id, before.data_id, "what this is about");
    assert!(file && book.file.size != before.size, "{book:?}");
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
    let looked = state.try_look(&path, true).unwrap();
    assert_eq!(looked.books.iter().map(|book| book.metadata.title.as_str()).collect::<Vec<_>>(), ["Real"]);
    let passed: Vec<_> = looked.passed_over.iter().map(|passed| (passed.title.as_str(), &passed.reason)).collect();
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
    let file = state.known[0].file.clone();

    fs::rename(&file.path, file.path.with_extension("away")).unwrap();
    let looked = state.try_look(&path, true).unwrap();
    assert_eq!((looked.look.unsettled, state.compare(&looked)), (1, vec![]));
    let unknown = State::new().try_look(&path, false).unwrap();
    assert_eq!(unknown.look, Look { books: 0, passed_over: 1, unsettled: 1 });

    // Being replaced: the size is not the catalogue's, and the file is fresh.
    fs::write(&file.path, "Half").unwrap();
    let looked = state.try_look(&path, true).unwrap();
    assert_eq!((looked.look.unsettled, state.compare(&looked)), (1, vec![]));
    // At rest: another program changed it behind Calibre's back. A full look sees it, an ordinary one does not.
    let rest = SystemTime::now() - Duration::from_secs(60);
    File::options().append(true).open(&file.path).unwrap().set_modified(rest).unwrap();
    assert_eq!(state.look(&path), []);
    let changes = state.compare(&state.try_look(&path, true).unwrap());
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

#[test]
fn a_live_writer_never_gives_a_torn_look() {
    let library = big_library(500);
    let state = State { known: known_of_big_library(&library, 500), ..State::new() };
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
                    look.books.iter().map(|book| book.metadata.identifiers["isbn"].clone()).collect();
                assert_eq!((look.books.len(), rounds.len()), (500, 1), "torn: {rounds:?}");
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
    assert_eq!(look.books[0].metadata.identifiers["isbn"], "open");
}

#[test]
fn a_crashed_writers_journal_is_rolled_back_in_the_copy_only() {
    let library = big_library(500);
    let state = State { known: known_of_big_library(&library, 500), ..State::new() };
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
    assert_eq!(look.passed_over.len(), 500);
    assert_eq!((content(&database), content(&journal)), before, "the library is as it was");
}

fn watch(path: PathBuf, poll: Duration, inotify: bool) -> (Watcher, mpsc::Receiver<(LookReason, Vec<String>)>) {
    let (sender, receiver) = mpsc::channel();
    let mut state = State::new();
    let settings =
        Settings { path: path.clone(), poll, full_scan: Duration::from_secs(3600), inotify, change_notify: true };
    let watcher = Watcher::spawn(settings, move |reason, heartbeat| {
        heartbeat.beat();
        let Ok(kind) = detect(&path) else { return LookOutcome::Failed };
        let request = LookRequest {
            path: &path,
            kind,
            folder_uuid: None,
            expected: None,
            formats: &["TXT".to_owned()],
            why_unread,
            scratch_dir: state.scratch.path(),
            full: reason.is_full(),
            heartbeat,
        };
        let mut comparison = Comparison::with(&state.known);
        let mut changes = Vec::new();
        let looked = Shelf::open(request).and_then(|shelf| {
            shelf.look(&state.known, |sightings| {
                for sighting in sightings {
                    match sighting {
                        Sighting::Book(book) => comparison.seen(book, &mut changes),
                        Sighting::AsKnown(uuid) | Sighting::PassedOver(PassedOver { uuid, .. }) => {
                            comparison.seen_as_known(uuid, &mut changes);
                        }
                    }
                }
                Ok::<_, LibraryError>(())
            })
        });
        let Ok(look) = looked else { return LookOutcome::Failed };
        changes.extend(comparison.absent(0, GRACE_US));
        state.apply(&changes);
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
        let status = watcher.status();
        println!("{status:?}");
        assert_eq!((status.hint, status.poll), (inotify.then_some(Hint::Inotify), Duration::from_secs(2)));
        assert_eq!(status.no_hint_because.is_some(), !inotify);
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
    let (polls, before) = (watcher.status().polls, cpu());
    thread::sleep(Duration::from_secs(3));
    let (polls, cpu) = (watcher.status().polls - polls, cpu() - before);
    let each = cpu.as_secs_f64() * 1e6 / polls as f64;
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
        change_notify: true,
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
