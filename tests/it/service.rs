//! The whole line through the running service: libraries made and changed by Calibre's own calibredb, the embedded
//! store, the real socket. The embedder is the fake one; `main_job.rs` has the real models.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::qdrant_server::FakeQdrant;

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
const SHIPS: &str = "Ships cross the ocean under sail. A storm broke the mast. The crew rowed to the harbour.";

#[test]
fn a_book_added_in_calibre_is_found_and_follows_every_change() {
    let library = CalibreLibrary::new();
    let mut daemon = Daemon::new(&library.path());
    daemon.start();

    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let added = Instant::now();
    daemon.until("the book is queued", |daemon| daemon.status()["queue"]["books"] == 1);
    println!("calibredb add to queued: {:.2} s after calibredb ended", added.elapsed().as_secs_f64());
    daemon.until_indexed(1);
    let hits = daemon.search("queen lays eggs");
    assert_eq!(hits[0].0, "The Hive");
    assert!(hits[0].1.contains("Workers bring nectar"), "{hits:?}");
    let points = daemon.points();
    assert_eq!(daemon.outcomes(), ["embedded"]);

    library.set_metadata(id, "tags", "insects,summer");
    daemon.until("the metadata is taken up", |daemon| daemon.outcomes().len() == 2);
    assert_eq!(daemon.outcomes()[0], "payload_only");

    library.set_metadata(id, "title", "Life of the Hive");
    daemon.until("the new title is found", |daemon| daemon.search("queen lays eggs")[0].0 == "Life of the Hive");
    daemon.until_indexed(1);
    assert!(daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count() == 1, "{:?}", daemon.outcomes());
    assert_eq!(daemon.points(), points);

    library.add_format(id, &library.epub("new", "Life of the Hive", "Ana Horvat", SHIPS));
    daemon.until("the new content is found", |daemon| daemon.search("storm broke the mast")[0].1.contains("mast"));
    daemon.until_indexed(1);
    assert!(daemon.search("queen lays eggs").iter().all(|hit| !hit.1.contains("queen")), "the old content is gone");

    library.remove(id);
    daemon.until_indexed(0);
    assert!(daemon.search("storm broke the mast").is_empty());
    let (code, seconds) = daemon.stop();
    println!("stopped in {seconds:.2} s");
    assert_eq!(code, Some(0), "{}", daemon.log());
}

#[test]
fn a_touched_file_and_embedded_metadata_embed_nothing() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);
    // Rewrites the file in place: other bytes, the same text.
    library.set_metadata(id, "comments", "About bees.");
    library.calibredb(&["embed_metadata", &id.to_string()]);
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    daemon.until("the rewritten file is read", |daemon| daemon.outcomes().len() >= 2);
    daemon.until_indexed(1);
    let embedded = daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count();
    assert_eq!(embedded, 1, "{:?}\n{}", daemon.outcomes(), daemon.log());
}

#[test]
fn bad_books_are_parked_with_the_reason_and_the_others_go_on() {
    let library = CalibreLibrary::new();
    let good = library.epub("good", "Good", "A", BEES);
    let bytes = fs::read(&good).unwrap();
    let broken = good.with_file_name("broken.epub");
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    let blank = library.epub("locked", "Locked", "B", SHIPS);
    encrypt(&blank);
    let empty = library.text("Empty", "");
    for file in [&broken, &blank, &empty, &good] {
        library.add(file);
    }
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until("three are parked", |daemon| daemon.status()["queue"]["parked"] == 3);
    daemon.until("the good one is in", |daemon| daemon.status()["queue"]["done_books"].as_u64() >= Some(1));
    let failed = text(&daemon.ctl(&["failed"]).stdout);
    for reason in ["damaged", "empty", "DRM"] {
        assert!(failed.contains(reason), "{reason}: {failed}");
    }
    let jobs = daemon.json(&["failed"]);
    assert!(jobs["jobs"].as_array().unwrap().iter().all(|job| job["attempts"] == 1), "no retries for bad books");
    // A good copy un-parks the book.
    let id = library.calibredb(&["search", "title:broken"]).trim().to_owned();
    library.calibredb(&["add_format", &id, good.to_str().unwrap()]);
    daemon.until("the mended book is in", |daemon| daemon.status()["queue"]["parked"] == 2);
}

/// Says that the chapter is encrypted, as books with DRM do.
pub fn encrypt(book: &Path) {
    const MAKE: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a") as book:
    book.writestr("META-INF/encryption.xml", '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
        'xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:EncryptionMethod '
        'Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/><enc:CipherData><enc:CipherReference '
        'URI="c.xhtml"/></enc:CipherData></enc:EncryptedData></encryption>')
"#;
    assert!(Command::new("python3").arg("-c").arg(MAKE).arg(book).status().unwrap().success());
}

#[test]
fn a_library_that_goes_away_or_is_another_one_removes_nothing() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);

    let away = library.path().with_file_name("away");
    fs::rename(library.path(), &away).unwrap();
    let unavailable = |daemon: &mut Daemon| daemon.status()["library"]["available"] == false;
    daemon.until("a missing library is noticed", unavailable);
    // An unmounted mount point.
    fs::create_dir(library.path()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let status = daemon.status();
    assert_eq!(status["library"]["available"], false);
    assert!(status["library"]["reason"].as_str().unwrap().contains("mount"), "{status}");

    // Another library in its place.
    let other = CalibreLibrary::new();
    other.add(&other.epub("ships", "Ships", "B", SHIPS));
    fs::remove_dir(library.path()).unwrap();
    fs::rename(other.path(), library.path()).unwrap();
    daemon.until("the other library is refused", |daemon| {
        daemon.status()["library"]["reason"].as_str().unwrap_or_default().contains("another library")
    });
    assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
    assert_eq!(daemon.status()["queue"]["books"], 1);

    fs::rename(library.path(), other.path()).unwrap();
    fs::rename(&away, library.path()).unwrap();
    daemon.until("it is back", |daemon| daemon.status()["library"]["available"] == true);
    daemon.until_indexed(1);
    assert_eq!(daemon.outcomes(), ["embedded"]);
}

#[test]
fn a_killed_service_goes_on_where_it_was() {
    let library = CalibreLibrary::new();
    for number in 0..6 {
        let long: String =
            (0..400).map(|n| format!("Sentence {n} of book {number} speaks of topic {}. ", n * number)).collect();
        library.add(&library.epub(&format!("b{number}"), &format!("Book {number}"), "A", &long));
    }
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until("work has begun", |daemon| daemon.status()["queue"]["done_books"].as_u64() >= Some(1));
    daemon.kill();
    daemon.start();
    daemon.until_indexed(6);
    let points = daemon.points();
    let (code, _) = daemon.stop();
    assert_eq!(code, Some(0));
    // The store holds exactly what the state says: a search for everything in one-shot mode finds each point once.
    let output = daemon.run(&["search", "sentence of book topic", "--limit", "10000", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut ids: Vec<&str> =
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["point_id"].as_str().unwrap()).collect();
    let chapters = 6;
    assert_eq!(ids.len() as u64, points - chapters, "children in the store, and points but parents in the state");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len() as u64, points - chapters);
}

#[test]
fn a_store_that_is_down_at_the_start_delays_and_loses_nothing() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut server = FakeQdrant::new(None);
    let mut daemon = Daemon::new(&library.path());
    daemon.set("store.kind", "server");
    daemon.set("store.url", &server.url());
    server.stop();
    daemon.start();
    daemon.until("the store is seen to be down", |daemon| daemon.status()["store"]["healthy"] == false);
    daemon.until("the book is known", |daemon| daemon.status()["queue"]["books"] == 1);
    assert!(text(&daemon.ctl(&["status"]).stdout).contains("127.0.0.1"));
    server.start();
    daemon.until_indexed(1);
    assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
    let jobs = daemon.json(&["queue", "--state", "done"]);
    assert_eq!(jobs["jobs"][0]["attempts"], 1, "waiting spends no attempt");
}

#[test]
fn many_removals_at_once_wait_for_a_person() {
    let library = CalibreLibrary::new();
    let ids: Vec<String> = (0..12)
        .map(|number| {
            library.add(&library.text(&format!("Book {number}"), &format!("{BEES} Number {number}."))).to_string()
        })
        .collect();
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(12);
    library.calibredb(&["remove", "--permanent", &ids[..11].join(",")]);
    daemon.until("the brake holds", |daemon| daemon.status()["removals_waiting"] == 11);
    assert_eq!(daemon.status()["queue"]["done_books"], 12, "nothing went");
    assert!(daemon.log().contains("alexandriactl approve"), "{}", daemon.log());
    assert!(text(&daemon.ctl(&["approve"]).stdout).contains("11 books"));
    daemon.until_indexed(1);
    assert_eq!(daemon.status()["removals_waiting"], 0);
    assert!(daemon.search("number 11")[0].1.contains("Number 11"));
}

#[test]
fn a_store_that_dies_between_two_books_is_waited_for() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut server = FakeQdrant::new(None);
    let mut daemon = Daemon::new(&library.path());
    daemon.set("store.kind", "server");
    daemon.set("store.url", &server.url());
    daemon.start();
    daemon.until_indexed(1);
    server.stop();
    library.add(&library.epub("ships", "The Sea", "B", SHIPS));
    daemon.until("the store is seen to be down", |daemon| daemon.status()["store"]["healthy"] == false);
    server.start();
    daemon.until_indexed(2);
    assert_eq!(daemon.search("storm broke the mast")[0].0, "The Sea");
}

#[test]
fn a_store_that_was_emptied_is_filled_again() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);
    daemon.stop();
    fs::remove_dir_all(daemon.state_dir().join("store")).unwrap();
    daemon.start();
    daemon.until("it is embedded again", |daemon| daemon.outcomes() == ["embedded", "embedded"]);
    assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
}

#[test]
fn one_book_in_two_libraries_is_two_books_in_the_store() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let other = CalibreLibrary::new();
    other.add(&other.epub("bees", "The other Hive", "Ana Horvat", BEES));
    // As Calibre does when it copies a book to another library.
    let uuid: String = rusqlite::Connection::open(library.database())
        .unwrap()
        .query_row("SELECT uuid FROM books", [], |row| row.get(0))
        .unwrap();
    let connection = rusqlite::Connection::open(other.database()).unwrap();
    connection.execute_batch("DROP TRIGGER books_update_trg").unwrap();
    connection.execute("UPDATE books SET uuid = ?1", [&uuid]).unwrap();
    drop(connection);
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);
    assert!(daemon.ctl(&["ingest", other.path().to_str().unwrap()]).status.success());
    daemon.until_indexed(2);
    let titles = |daemon: &Daemon| {
        let mut titles: Vec<String> = daemon.search("queen lays eggs").into_iter().map(|hit| hit.0).collect();
        titles.sort();
        titles
    };
    assert_eq!(titles(&daemon), ["The Hive", "The other Hive"]);
    assert!(daemon.ctl(&["remove", "1"]).status.success());
    daemon.until_indexed(1);
    assert_eq!(titles(&daemon), ["The other Hive"]);
}

#[test]
fn a_copy_of_the_watched_library_and_a_folder_inside_it_are_refused() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);
    let copy = daemon.place.path().join("copy");
    assert!(Command::new("cp").arg("-r").arg(library.path()).arg(&copy).status().unwrap().success());
    let refused = daemon.ctl(&["ingest", copy.to_str().unwrap()]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("copy"), "{}", text(&refused.stderr));
    let inside = library.path().join("Ana Horvat");
    let refused = daemon.ctl(&["ingest", inside.to_str().unwrap()]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("inside"), "{}", text(&refused.stderr));
    daemon.until_indexed(1);
    assert_eq!(daemon.status()["queue"]["books"], 1);
}

#[test]
fn an_unmounted_folder_keeps_its_books_though_a_file_lies_under_the_mount_point() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("books");
    fs::create_dir(&folder).unwrap();
    for number in 0..4 {
        fs::write(folder.join(format!("Book {number}.txt")), format!("{BEES} Number {number}.")).unwrap();
    }
    let mut daemon = Daemon::new(&folder);
    daemon.start();
    daemon.until_indexed(4);
    fs::rename(&folder, place.path().join("away")).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("README.txt"), "Nothing is mounted here.").unwrap();
    daemon.until("the brake holds", |daemon| daemon.status()["removals_waiting"] == 4);
    assert!(daemon.search("number 3").iter().any(|hit| hit.1.contains("Number 3")));
    // A text file's only section bears the book's name, not a working copy's.
    let answer = daemon.json(&["search", "number 3"]);
    assert!(answer["hits"].as_array().unwrap().iter().all(|hit| hit["section"] == hit["title"]), "{answer}");
}

#[test]
fn an_unmounted_library_spends_no_attempts() {
    let library = CalibreLibrary::new();
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    assert!(daemon.ctl(&["pause"]).status.success());
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    daemon.until("the book is known", |daemon| daemon.status()["queue"]["books"] == 1);
    let away = library.path().with_file_name("away");
    fs::rename(library.path(), &away).unwrap();
    assert!(daemon.ctl(&["resume"]).status.success());
    daemon.until("the worker has tried", |daemon| daemon.log().contains("no attempt is spent"));
    fs::rename(&away, library.path()).unwrap();
    daemon.until_indexed(1);
    assert_eq!(daemon.json(&["queue", "--state", "done"])["jobs"][0]["attempts"], 1);
}

#[test]
fn by_hand_verbs_ingest_remove_pause_and_resume() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);
    let id = id.to_string();
    assert!(daemon.ctl(&["remove", &id]).status.success());
    daemon.until_indexed(0);
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    std::thread::sleep(Duration::from_secs(1));
    daemon.until_indexed(0);
    assert!(daemon.ctl(&["pause"]).status.success());
    assert!(daemon.ctl(&["ingest", &id]).status.success());
    assert_eq!(daemon.status()["queue"]["queued"], 1);
    assert!(daemon.ctl(&["resume"]).status.success());
    daemon.until_indexed(1);
    // A file outside the library.
    let file = library.text("Ships", SHIPS);
    assert!(daemon.ctl(&["ingest", file.to_str().unwrap()]).status.success());
    daemon.until_indexed(2);
    assert_eq!(daemon.search("storm broke the mast")[0].0, "Ships");
    // Changed and named again, it is read again.
    fs::write(&file, "Rivers run through the valley to the lake.").unwrap();
    assert!(daemon.ctl(&["ingest", file.to_str().unwrap()]).status.success());
    daemon.until("the new text is found", |daemon| daemon.search("rivers valley lake")[0].1.contains("Rivers"));
    let refused = daemon.ctl(&["ingest", "/nowhere/at/all.epub"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("/nowhere/at/all.epub"));
}

#[test]
fn what_cannot_start_says_why_with_a_fitting_exit_code() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let refuse = |daemon: &Daemon, arguments: &[&str], code: i32, words: &[&str]| {
        let output = daemon.run(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    };

    let mut daemon = Daemon::new(&library.path());
    daemon.set("library.pathh", "/x");
    refuse(&daemon, &["check-config"], 2, &["pathh"]);

    // After the verb it would be another list of settings.
    refuse(&Daemon::new(&library.path()), &["check-config", "--set", "store.collection=x"], 2, &["--set"]);

    let mut daemon = Daemon::new(&library.path());
    daemon.set("embedding.model", "minilm");
    daemon.set("embedding.model_path", "/no/such/model");
    refuse(&daemon, &[], 2, &["/no/such/model", "model_path"]);

    // A second instance on one state.
    let mut daemon = Daemon::new(&library.path());
    daemon.start();
    daemon.until_indexed(1);
    refuse(&daemon, &[], 1, &["another alexandria-ingestd", "alexandriactl"]);
    refuse(&daemon, &["ingest", library.path().to_str().unwrap()], 1, &["alexandriactl"]);
    refuse(&daemon, &["search", "bees"], 1, &["alexandriactl"]);
    daemon.stop();

    // The collection of another model; the service alone has a way on, and only with its own (reindex.rs).
    daemon.set("embedding.model", "fake-2");
    daemon.set("embedding.model_path", crate::support::model_directory("minilm").to_str().unwrap());
    refuse(&daemon, &["ingest", library.path().to_str().unwrap()], 2, &["fake", "store.collection"]);
    let state = daemon.state_dir().join("state.db");
    let aside = state.with_extension("aside");
    fs::rename(&state, &aside).unwrap();
    refuse(&daemon, &[], 2, &["fake", "store.collection"]);
    fs::rename(&aside, &state).unwrap();

    // A state of a newer program, then a damaged one.
    let connection = rusqlite::Connection::open(&state).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    refuse(&daemon, &[], 3, &["newer"]);
    fs::write(&state, "this is not SQLite, whatever its name says, and it is long enough to look at").unwrap();
    refuse(&daemon, &[], 3, &["state.db"]);

    let daemon = Daemon::new(&library.path().join("nowhere"));
    refuse(&daemon, &["ingest", "/no/such/file.epub"], 1, &["/no/such/file.epub"]);
    let odd = library.text("odd", "x").with_extension("xyz");
    fs::write(&odd, "x").unwrap();
    refuse(&daemon, &["ingest", odd.to_str().unwrap()], 1, &["XYZ"]);
}

#[test]
fn a_plain_folder_works_too_and_a_rename_embeds_nothing() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("books");
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(folder.join("deep/Hive.md"), format!("# Bees\n\n{BEES}\n")).unwrap();
    fs::write(folder.join("Ships.html"), format!("<h1>Sea</h1><p>{SHIPS}</p>")).unwrap();
    fs::write(folder.join("cover.jpg"), "not a book").unwrap();
    let mut daemon = Daemon::new(&folder);
    daemon.start();
    daemon.until_indexed(2);
    assert!(daemon.search("queen lays eggs")[0].1.contains("queen"));
    let source_id = |daemon: &Daemon| daemon.json(&["search", "queen lays eggs"])["hits"][0]["source_id"].clone();
    let before = source_id(&daemon);
    fs::rename(folder.join("deep/Hive.md"), folder.join("Bee book.md")).unwrap();
    daemon.until("the rename is seen", |daemon| daemon.outcomes().len() >= 3);
    daemon.until_indexed(2);
    let embedded = daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count();
    assert_eq!(embedded, 2, "{:?}", daemon.outcomes());
    assert_ne!(source_id(&daemon), before, "the payload follows the new path");
    assert_eq!(daemon.stop().0, Some(0));
}
