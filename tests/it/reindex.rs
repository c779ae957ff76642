//! Books that other settings made: found at the start and told with their cost; made anew by a reindex beside the live
//! index, on the embedded store and on a server, with books that come, change and go meanwhile, fail, or whose model is
//! another one; given up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::domain::{Payload, Point};
use alexandria_ingestd::store::server::{ServerConfig, ServerStore};
use alexandria_ingestd::store::{CollectionSpec, EMBEDDED_DIR, Filter, VectorStore};
use serde_json::Value;
use uuid::Uuid;

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::qdrant_server::FakeQdrant;
use crate::store::point_of;

/// Three sentences of one subject, often enough for several chunks under the smaller limit.
fn about(subject: &str) -> String {
    (0..12).map(|n| format!("The {subject} of year {n} is told of in this sentence. ")).collect()
}

fn folder(subjects: &[&str]) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for subject in subjects {
        fs::write(place.path().join(format!("{subject}.txt")), about(subject)).unwrap();
    }
    place
}

fn daemon(folder: &Path) -> Daemon {
    let mut daemon = Daemon::new(folder);
    daemon.set("library.poll_seconds", "0.1");
    daemon.set("chunking.min_words", "10");
    daemon.set("chunking.target_words", "20");
    daemon.set("chunking.max_words", "100");
    daemon
}

/// As an operator who has read about chunks.
fn change_settings(daemon: &mut Daemon) {
    daemon.set("chunking.max_words", "40");
}

fn collections(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.state_dir().join(EMBEDDED_DIR)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// A search finds something at every moment until then.
fn until_done_without_a_gap(daemon: &mut Daemon, question: &str) {
    daemon.until("the reindex is done", |daemon| {
        assert!(!daemon.search(question).is_empty(), "{}", daemon.log());
        let status = daemon.status();
        status["reindex"].is_null() && status["outdated"].is_null()
    });
}

fn until_done(daemon: &mut Daemon) {
    daemon.until("the reindex is done", |daemon| {
        let status = daemon.status();
        status["reindex"].is_null() && status["outdated"].is_null()
    });
}

fn asked(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.ctl(&[&["reindex"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.ctl(&[&["reindex"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr)
}

fn verified(daemon: &Daemon) {
    let output = daemon.ctl(&["verify"]);
    assert!(output.status.success(), "{}", text(&output.stdout));
}

/// The settings that the index's passages were made with, as their payloads say.
fn settings_of_points(daemon: &Daemon) -> BTreeSet<(String, String)> {
    let database = rusqlite::Connection::open(daemon.state_dir().join("state.db")).unwrap();
    let mut statement =
        database.prepare("SELECT indexed_chunker, indexed_model FROM books WHERE indexed_at_us IS NOT NULL").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn other_settings_are_told_with_their_cost_and_embed_nothing_by_themselves() {
    let folder = folder(&["Bees", "Ships", "Rivers"]);
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(3);
    assert!(daemon.status()["outdated"].is_null());
    assert!(refused(&daemon, &[]).contains("nothing to reindex"));
    daemon.stop();

    change_settings(&mut daemon);
    daemon.start();
    let outdated = daemon.status()["outdated"].clone();
    assert_eq!(
        (&outdated["books"], &outdated["chunker_books"], &outdated["model_books"]),
        (&3.into(), &3.into(), &0.into())
    );
    let (tokens, rate) = (outdated["tokens"].as_f64().unwrap(), outdated["tokens_per_second"].as_f64().unwrap());
    assert_eq!(tokens as u64, daemon.status()["queue"]["tokens"].as_u64().unwrap());
    assert!((outdated["seconds"].as_f64().unwrap() - tokens / rate).abs() < 1e-6);
    let shown = text(&daemon.ctl(&["status"]).stdout);
    for part in ["3 books", "another chunker", "tokens/s", "alexandriactl reindex"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(daemon.log().contains("alexandriactl reindex"), "{}", daemon.log());
    // A new book is made with the new settings, the others stay.
    fs::write(folder.path().join("Stars.txt"), about("Stars")).unwrap();
    daemon.until_indexed(4);
    assert_eq!(daemon.outcomes(), ["embedded"; 4]);
    daemon.until("the new one is not outdated", |daemon| daemon.status()["outdated"]["books"] == 3);
    assert_eq!(settings_of_points(&daemon).len(), 2);
}

#[test]
fn a_reindex_replaces_the_embedded_index_and_follows_what_happens_meanwhile() {
    let folder = folder(&["Bees", "Ships", "Rivers", "Clouds"]);
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(4);
    daemon.stop();
    change_settings(&mut daemon);
    daemon.start();
    fs::write(folder.path().join("Stars.txt"), about("Stars")).unwrap();
    daemon.until_indexed(5);
    let embedded = |daemon: &Daemon| daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count();
    assert_eq!(embedded(&daemon), 5);

    daemon.ctl(&["pause"]);
    let said = asked(&daemon, &[]);
    assert!(said.contains("5 books go into the new collection") && said.contains("4 are made anew"), "{said}");
    let status = daemon.status();
    assert_eq!((&status["reindex"]["queued"], &status["reindex"]["from"]), (&5.into(), &"alexandria".into()));
    assert_eq!(status["queue"]["queued"], 0, "the live index has nothing to do");
    assert!(text(&daemon.ctl(&["queue"]).stdout).contains("reindex"));
    assert!(asked(&daemon, &[]).contains("goes on"));
    // Meanwhile: one comes, one changes, one goes, one is taken out by hand.
    fs::write(folder.path().join("Winds.txt"), about("Winds")).unwrap();
    fs::write(folder.path().join("Ships.txt"), about("Sails")).unwrap();
    fs::remove_file(folder.path().join("Rivers.txt")).unwrap();
    daemon.until("all of it is seen", |daemon| {
        let queue = daemon.status()["queue"].clone();
        queue["books"] == 6 && queue["queued"] == 3
    });
    let hit = daemon.json(&["search", "Clouds"])["hits"][0].clone();
    assert!(daemon.ctl(&["remove", hit["book_uuid"].as_str().unwrap()]).status.success());
    // It dies without a word, and goes on after the next start.
    daemon.kill();
    daemon.start();
    assert!(!daemon.status()["reindex"].is_null());
    daemon.ctl(&["resume"]);
    until_done_without_a_gap(&mut daemon, "Bees");
    daemon.until_indexed(4);
    daemon.until("the collection of before is deleted", |daemon| collections(daemon).len() == 1);
    assert!(collections(&daemon)[0].starts_with("alexandria-"), "{:?}", collections(&daemon));
    verified(&daemon);
    assert_eq!(settings_of_points(&daemon).len(), 1);
    let titles: BTreeSet<String> = daemon.search("The Sails of year 3").into_iter().map(|hit| hit.0).collect();
    assert!(titles.contains("Ships") && !titles.contains("Rivers") && !titles.contains("Clouds"), "{titles:?}");
    assert!(daemon.search("Clouds").iter().all(|hit| hit.0 != "Clouds"));
    // Two in the live index (Winds, Ships), one in the new one (Bees); Stars, Winds and Ships were taken over.
    assert_eq!(embedded(&daemon), 5 + 3, "{:?}", daemon.outcomes());
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
    // The next start finds it by itself, and the next book goes there.
    daemon.start();
    fs::write(folder.path().join("Moons.txt"), about("Moons")).unwrap();
    daemon.until_indexed(5);
    assert_eq!(embedded(&daemon), 9);
    assert_eq!(collections(&daemon).len(), 1);
    verified(&daemon);
}

#[test]
fn a_reindex_that_is_given_up_leaves_nothing_behind() {
    let folder = folder(&["Bees", "Ships"]);
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(2);
    assert!(refused(&daemon, &["--abort"]).contains("no reindex"));
    let before = daemon.json(&["search", "Bees of year 3"])["hits"].clone();
    daemon.stop();
    change_settings(&mut daemon);
    daemon.start();
    daemon.ctl(&["pause"]);
    asked(&daemon, &[]);
    assert_eq!(collections(&daemon).len(), 2);
    // With yet other settings it does not go on, and says so.
    daemon.stop();
    daemon.set("chunking.max_words", "30");
    daemon.start();
    let waits = daemon.status()["reindex"]["waits_for"].as_str().unwrap().to_owned();
    assert!(waits.contains("other settings") && waits.contains("--abort"), "{waits}");
    assert!(asked(&daemon, &["--abort"]).contains("given up"));
    assert!(daemon.status()["reindex"].is_null());
    assert_eq!(collections(&daemon), ["alexandria"]);
    daemon.ctl(&["resume"]);
    daemon.until_indexed(2);
    assert_eq!(daemon.json(&["search", "Bees of year 3"])["hits"], before);
    assert_eq!(daemon.status()["outdated"]["books"], 2);
    verified(&daemon);
}

/// The EPUB of a book, as Calibre lays out its library.
fn file_of(library: &CalibreLibrary, id: i64) -> PathBuf {
    let folders = fs::read_dir(library.path()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let books = folders.flat_map(|author| fs::read_dir(author).unwrap().map(|entry| entry.unwrap().path()));
    let book = books.into_iter().find(|book| book.to_string_lossy().ends_with(&format!("({id})"))).unwrap();
    let mut files = fs::read_dir(book).unwrap().map(|entry| entry.unwrap().path());
    files.find(|file| file.extension().is_some_and(|extension| extension == "epub")).unwrap()
}

#[test]
fn a_book_that_cannot_be_read_any_more_stays_until_a_person_lets_it_go() {
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", &about("Bees")));
    let lost = library.add(&library.epub("ships", "The Ships", "B. Babić", &about("Ships")));
    let mut daemon = daemon(&library.path());
    daemon.start();
    daemon.until_indexed(2);
    daemon.stop();
    // The disk loses it: size and time are as they were.
    let file = file_of(&library, lost);
    let (length, time) = (fs::metadata(&file).unwrap().len(), fs::metadata(&file).unwrap().modified().unwrap());
    fs::write(&file, vec![b'x'; length as usize]).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();

    change_settings(&mut daemon);
    daemon.start();
    asked(&daemon, &[]);
    daemon.until("it waits for a person", |daemon| !daemon.status()["reindex"]["waits_for"].is_null());
    let status = daemon.status();
    assert_eq!((&status["reindex"]["books"], &status["reindex"]["left_behind"]), (&1.into(), &1.into()), "{status}");
    let waits = status["reindex"]["waits_for"].as_str().unwrap();
    assert!(waits.contains("1 books cannot be read") && waits.contains("--skip-failed"), "{waits}");
    assert!(text(&daemon.ctl(&["failed"]).stdout).contains("The Ships"));
    // The live index still has both, and follows the catalogue.
    assert_eq!(daemon.search("The Ships of year 3")[0].0, "The Ships");
    asked(&daemon, &["--skip-failed"]);
    daemon.until("the reindex is done", |daemon| daemon.status()["reindex"].is_null());
    let queue = daemon.status()["queue"].clone();
    assert_eq!((&queue["done_books"], &queue["parked"]), (&1.into(), &1.into()), "{queue}");
    assert!(daemon.search("The Ships of year 3").iter().all(|hit| hit.0 == "The Hive"));
    verified(&daemon);
    // A good copy brings it back.
    library.add_format(lost, &library.epub("again", "The Ships", "B. Babić", &about("Ships")));
    daemon.until_indexed(2);
    verified(&daemon);
}

/// A daemon with three outdated books on a server.
fn on_server(server: &FakeQdrant, folder: &Path) -> Daemon {
    let mut daemon = daemon(folder);
    daemon.set("store.kind", "server");
    daemon.set("store.url", &server.url());
    daemon.start();
    daemon.until_indexed(3);
    daemon.stop();
    change_settings(&mut daemon);
    daemon.start();
    daemon
}

#[test]
fn on_a_server_an_alias_is_moved_and_a_collection_is_replaced_only_when_asked() {
    let server = FakeQdrant::new(None);
    let folder = folder(&["Bees", "Ships", "Rivers"]);
    let mut daemon = on_server(&server, folder.path());
    let said = asked(&daemon, &[]);
    assert!(said.contains("--replace"), "{said}");
    daemon.until("it waits for a person", |daemon| !daemon.status()["reindex"]["waits_for"].is_null());
    let waits = daemon.status()["reindex"]["waits_for"].as_str().unwrap().to_owned();
    let first = daemon.status()["reindex"]["collection"].as_str().unwrap().to_owned();
    for part in ["complete", "--replace", &first, "store.collection"] {
        assert!(waits.contains(part), "{part}: {waits}");
    }
    assert_eq!(server.collections(), ["alexandria", &first]);
    // Both are kept up to date meanwhile.
    fs::write(folder.path().join("Stars.txt"), about("Stars")).unwrap();
    daemon.until_indexed(4);
    daemon.until("the new collection has it, too", |daemon| daemon.status()["reindex"]["books"] == 4);
    asked(&daemon, &["--replace"]);
    until_done(&mut daemon);
    assert_eq!((server.collections(), server.alias("alexandria")), (vec![first.clone()], Some(first.clone())));
    verified(&daemon);
    assert_eq!(daemon.status()["queue"]["done_books"], 4);
    let embedded = daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count();
    assert_eq!(embedded, 7, "{:?}", daemon.outcomes());

    // The second time the name is an alias: nobody has to be asked, and readers miss nothing.
    daemon.stop();
    daemon.set("chunking.max_words", "30");
    daemon.start();
    let said = asked(&daemon, &[]);
    assert!(said.contains("takes the live one's place"), "{said}");
    until_done_without_a_gap(&mut daemon, "Bees");
    let second = server.alias("alexandria").unwrap();
    assert_ne!(second, first);
    daemon.until("the collection of before is deleted", |_| server.collections() == [second.clone()]);
    verified(&daemon);
}

#[test]
fn what_a_person_switches_at_the_server_is_followed() {
    let server = FakeQdrant::new(None);
    let folder = folder(&["Bees", "Ships", "Rivers"]);
    let mut daemon = on_server(&server, folder.path());
    asked(&daemon, &[]);
    daemon.until("it is complete", |daemon| !daemon.status()["reindex"]["waits_for"].is_null());
    let collection = daemon.status()["reindex"]["collection"].as_str().unwrap().to_owned();
    daemon.stop();
    // As the message says: the other name, and a restart.
    daemon.set("store.collection", &collection);
    daemon.start();
    until_done(&mut daemon);
    daemon.until_indexed(3);
    assert_eq!(server.collections(), ["alexandria", &collection], "the old one is the operator's");
    verified(&daemon);
    assert!(daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count() == 6, "{:?}", daemon.outcomes());
}

#[test]
fn a_server_that_refuses_the_switch_loses_nothing() {
    use crate::qdrant_server::Fault;
    let server = FakeQdrant::new(None);
    let folder = folder(&["Bees", "Ships", "Rivers"]);
    let mut daemon = on_server(&server, folder.path());
    asked(&daemon, &["--replace"]);
    until_done(&mut daemon);
    daemon.stop();
    let first = server.alias("alexandria").unwrap();
    daemon.set("chunking.max_words", "30");
    daemon.start();
    // The key may not make aliases, for a while.
    for _ in 0..3 {
        server.inject("change_aliases", Fault::Refuse(tonic::Code::PermissionDenied, "not yours"));
    }
    asked(&daemon, &[]);
    daemon.until("the refusal is told", |daemon| {
        daemon.status()["reindex"]["waits_for"].as_str().is_some_and(|reason| reason.contains("not yours"))
    });
    assert!(!daemon.search("Bees").is_empty(), "the live index goes on");
    until_done(&mut daemon);
    assert_ne!(server.alias("alexandria").unwrap(), first);
    verified(&daemon);
}

#[test]
fn slow_another_model_writes_a_collection_of_its_own_and_the_live_one_stays_for_its_readers() {
    let folder = folder(&["Bees", "Ships", "Rivers"]);
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(3);
    let points = daemon.points();
    daemon.stop();
    daemon.set("embedding.model", "minilm");
    daemon.set("embedding.model_path", crate::support::model_directory("minilm").to_str().unwrap());
    // A one-shot run has nobody to tell how it goes on.
    let output = daemon.run(&["ingest", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    daemon.start();
    let status = daemon.status();
    assert_eq!((&status["outdated"]["model_books"], &status["outdated"]["seconds"]), (&3.into(), &Value::Null));
    let waiting = status["waiting"].to_string();
    assert!(waiting.contains("'fake'") && waiting.contains("alexandriactl reindex"), "{waiting}");
    let output = daemon.ctl(&["search", "Bees"]);
    assert!(text(&output.stderr).contains("cannot search"), "{}", text(&output.stderr));
    // What changes waits, and nothing is written.
    fs::write(folder.path().join("Stars.txt"), about("Stars")).unwrap();
    fs::remove_file(folder.path().join("Rivers.txt")).unwrap();
    daemon.until("the changes are seen", |daemon| daemon.status()["queue"]["queued"] == 2);
    assert_eq!(daemon.points(), points);
    asked(&daemon, &[]);
    daemon.until("the reindex is done", |daemon| daemon.status()["reindex"].is_null());
    daemon.until_indexed(3);
    assert!(daemon.status()["outdated"].is_null());
    let titles: BTreeSet<String> = daemon.search("The Stars of year 3").into_iter().map(|hit| hit.0).collect();
    assert!(titles.contains("Stars") && !titles.contains("Rivers"), "{titles:?}");
    verified(&daemon);
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
    daemon.start();
    daemon.until_indexed(3);
    daemon.until("the collection of before is deleted", |daemon| collections(daemon).len() == 1);
}

#[test]
fn slow_another_model_on_a_server_leaves_its_readers_the_old_collection_until_the_switch() {
    let server = FakeQdrant::new(None);
    let folder = folder(&["Bees", "Ships"]);
    let mut daemon = daemon(folder.path());
    daemon.set("store.kind", "server");
    daemon.set("store.url", &server.url());
    daemon.start();
    daemon.until_indexed(2);
    daemon.stop();
    let writes = server.calls("upsert");
    daemon.set("embedding.model", "minilm");
    daemon.set("embedding.model_path", crate::support::model_directory("minilm").to_str().unwrap());
    daemon.start();
    fs::write(folder.path().join("Stars.txt"), about("Stars")).unwrap();
    daemon.until("the new book waits", |daemon| daemon.status()["queue"]["queued"] == 1);
    assert_eq!((server.calls("upsert"), server.collections()), (writes, vec!["alexandria".to_owned()]));
    asked(&daemon, &[]);
    daemon.until("it is complete", |daemon| {
        daemon.status()["reindex"]["waits_for"].as_str().is_some_and(|reason| reason.contains("--replace"))
    });
    let collection = daemon.status()["reindex"]["collection"].as_str().unwrap().to_owned();
    assert_eq!(daemon.status()["reindex"]["books"], 3);
    // It dies, and starts with two collections of two models.
    daemon.kill();
    daemon.start();
    assert!(daemon.status()["waiting"].to_string().contains("'fake'"));
    asked(&daemon, &["--replace"]);
    daemon.until("the reindex is done", |daemon| daemon.status()["reindex"].is_null());
    daemon.until_indexed(3);
    assert_eq!((server.collections(), server.alias("alexandria")), (vec![collection.clone()], Some(collection)));
    assert!(!daemon.search("The Stars of year 3").is_empty());
    verified(&daemon);
}

#[test]
fn points_of_others_in_a_collection_are_not_lost_unasked() {
    let server = FakeQdrant::new(None);
    let folder = folder(&["Bees", "Ships", "Rivers"]);
    let mut daemon = on_server(&server, folder.path());
    asked(&daemon, &["--replace"]);
    until_done(&mut daemon);
    daemon.stop();
    // The name is an alias now, so nothing else would hold the switch up.
    let config =
        ServerConfig { url: server.url(), collection: "alexandria".into(), ..(&StoreConfig::default()).into() };
    let store = ServerStore::connect(&config).unwrap();
    let spec = CollectionSpec { name: "alexandria".into(), dimension: 64, model_id: "fake".into() };
    store.ensure_collection(&spec).unwrap();
    let point = point_of(Uuid::from_u128(9), "another's", 0, 64);
    let payload = Payload { embedding_model_id: "fake".into(), ..point.payload };
    store.upsert(&[Point { payload, ..point }]).unwrap();
    daemon.set("chunking.max_words", "30");
    daemon.start();
    assert!(asked(&daemon, &[]).contains("1 points"));
    daemon.until("it waits for a person", |daemon| {
        daemon.status()["reindex"]["waits_for"].as_str().is_some_and(|reason| reason.contains("1 points"))
    });
    assert_eq!(store.count(&Filter::default()).unwrap() as u64, daemon.points() + 1);
    asked(&daemon, &["--replace"]);
    until_done(&mut daemon);
    assert_eq!(store.count(&Filter::default()).unwrap() as u64, daemon.points());
    verified(&daemon);
}
