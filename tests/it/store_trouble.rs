//! The store fails, and the service waits for it: a real gRPC server on a real socket that refuses, answers by half, loses
//! its collection, gets another one. Recovery needs no hand, and no attempt is spent.

use std::fs;
use std::path::Path;

use alexandria_ingestd::store::server::{ServerConfig, ServerStore};
use alexandria_ingestd::store::{CollectionSpec, Filter, VectorStore};
use tonic::Code;

use crate::daemon::{Daemon, text};
use crate::qdrant_server::{FakeQdrant, Fault};

fn folder(books: usize) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for number in 0..books {
        let about = format!("A book about topic{number} and nothing else.");
        fs::write(place.path().join(format!("Book {number}.txt")), about).unwrap();
    }
    place
}

fn daemon(folder: &Path, server: &FakeQdrant) -> Daemon {
    let mut daemon = Daemon::new(folder);
    daemon.set("library.poll_seconds", "0.1");
    daemon.set("store.kind", "server");
    daemon.set("store.url", &server.url());
    daemon.set("store.timeout_seconds", "2");
    daemon
}

fn connect(server: &FakeQdrant) -> ServerStore {
    let config = alexandria_ingestd::config::StoreConfig { url: server.url(), ..Default::default() };
    ServerStore::connect(&ServerConfig::from(&config)).unwrap()
}

fn spec(dimension: usize) -> CollectionSpec {
    CollectionSpec { name: "alexandria".into(), dimension, model_id: "fake".into() }
}

#[test]
fn an_embedded_book_is_held_until_the_store_takes_it() {
    let (folder, mut server) = (folder(1), FakeQdrant::new(None));
    let mut daemon = daemon(folder.path(), &server);
    // It dies in the middle of the write, and is away for a while.
    server.inject("upsert", Fault::HalfDone(Code::Unavailable));
    for _ in 0..6 {
        server.inject("upsert", Fault::Refuse(Code::Unavailable, "overloaded"));
    }
    daemon.start();
    daemon.until("the book is held", |daemon| {
        let current = daemon.status()["current"].to_string();
        current.contains("overloaded") && daemon.status()["waiting"].to_string().contains("held in memory")
    });
    assert!(text(&daemon.ctl(&["status"]).stdout).contains("held in memory"));
    server.stop();
    std::thread::sleep(std::time::Duration::from_secs(1));
    server.start();
    daemon.until_indexed(1);
    let jobs = daemon.json(&["queue", "--state", "done"]);
    assert_eq!((&jobs["jobs"][0]["attempts"], &jobs["jobs"][0]["outcome"]), (&1.into(), &"embedded".into()), "{jobs}");
    assert_eq!(daemon.log().matches("are held in memory").count(), 1, "said once: {}", daemon.log());
    assert_eq!(daemon.search("topic0")[0].0, "Book 0");
}

#[test]
fn a_store_that_hangs_holds_up_neither_the_control_socket_nor_the_end() {
    let (folder, server) = (folder(3), FakeQdrant::new(None));
    let mut daemon = daemon(folder.path(), &server);
    daemon.start();
    daemon.until_indexed(3);
    daemon.set("store.timeout_seconds", "60");
    daemon.stop();
    for _ in 0..20 {
        server.inject("*", Fault::Delay(std::time::Duration::from_secs(120)));
    }
    fs::write(folder.path().join("Late.txt"), "A late book.").unwrap();
    // The start itself asks the store; it must not wait for ever, either.
    daemon.set("store.timeout_seconds", "1");
    daemon.start();
    let asked = std::time::Instant::now();
    assert!(daemon.ctl(&["status"]).status.success());
    println!("status in {:.3} s while the store hangs", asked.elapsed().as_secs_f64());
    assert!(asked.elapsed().as_secs_f64() < 2.0);
    let (code, seconds) = daemon.stop();
    println!("stopped in {seconds:.2} s while the store hangs");
    assert!(code == Some(0) && seconds < 20.0, "{code:?} {seconds}\n{}", daemon.log());
}

#[test]
fn a_wrong_key_is_said_and_waited_for() {
    let (folder, server) = (folder(2), FakeQdrant::new(Some("right")));
    let mut daemon = daemon(folder.path(), &server);
    daemon.set("store.api_key", "wrong");
    daemon.start();
    daemon.until("the books are known", |daemon| daemon.status()["queue"]["books"] == 2);
    daemon.until("the key is named", |daemon| {
        daemon.status()["store"]["reason"].as_str().unwrap_or_default().contains("api_key")
    });
    assert!(text(&daemon.ctl(&["status"]).stdout).contains("books wait for the store"));
    server.set_key(Some("wrong"));
    daemon.until_indexed(2);
    let jobs = daemon.json(&["queue", "--state", "done"]);
    assert!(jobs["jobs"].as_array().unwrap().iter().all(|job| job["attempts"] == 1), "{jobs}");
}

#[test]
fn the_key_is_read_from_a_file_or_a_credential() {
    let (folder, server) = (folder(1), FakeQdrant::new(Some("right")));
    for credential in [false, true] {
        let mut daemon = daemon(folder.path(), &server);
        let file = daemon.place.path().join("qdrant-api-key");
        std::fs::write(&file, "right\n").unwrap();
        if credential {
            let directory = daemon.place.path().to_str().unwrap().to_owned();
            daemon.set_variable("CREDENTIALS_DIRECTORY", &directory);
        } else {
            daemon.set("store.api_key_file", file.to_str().unwrap());
        }
        daemon.start();
        daemon.until_indexed(1);
        std::fs::write(&file, "\n").unwrap();
        daemon.stop();
        let refused = daemon.run(&[]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("is empty"), "{}", text(&refused.stderr));
    }
}

#[test]
fn a_collection_deleted_behind_the_back_is_filled_again_though_no_book_comes() {
    let (folder, server) = (folder(3), FakeQdrant::new(None));
    let mut daemon = daemon(folder.path(), &server);
    daemon.start();
    daemon.until_indexed(3);
    server.drop_collection("alexandria");
    daemon.until("all are embedded again", |daemon| {
        daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count() == 6
    });
    daemon.until_indexed(3);
    assert_eq!(daemon.search("topic2")[0].0, "Book 2");
}

#[test]
fn a_collection_of_another_dimension_is_never_written_to() {
    let (folder, server) = (folder(1), FakeQdrant::new(None));
    let mut daemon = daemon(folder.path(), &server);
    daemon.start();
    daemon.until_indexed(1);
    server.drop_collection("alexandria");
    let other = connect(&server);
    other.ensure_collection(&spec(10)).unwrap();
    fs::write(folder.path().join("Late.txt"), "A late book.").unwrap();
    daemon.until("it is said", |daemon| daemon.log().contains("vectors of 10 numbers"));
    assert_eq!(other.count(&Filter::default()).unwrap(), 0);
    // The stranger goes, and everything comes back by itself.
    server.drop_collection("alexandria");
    daemon.until_indexed(2);
    let attempts: Vec<_> = daemon.json(&["queue", "--state", "done"])["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["attempts"].clone())
        .collect();
    assert!(attempts.iter().all(|attempts| *attempts == 1), "{attempts:?}");
}

#[test]
fn after_an_outage_of_the_store_the_last_books_are_compared_with_it() {
    let (folder, mut server) = (folder(3), FakeQdrant::new(None));
    let mut daemon = daemon(folder.path(), &server);
    daemon.start();
    daemon.until_indexed(3);
    // The server's machine loses its power, and with it what it acknowledged last.
    let store = connect(&server);
    store.ensure_collection(&spec(64)).unwrap();
    let lost = store.scroll(None, 10).unwrap().points.remove(0);
    store.delete(&[lost.id]).unwrap();
    server.stop();
    daemon.until("it is missed", |daemon| daemon.status()["store"]["healthy"] == false);
    server.start();
    daemon.until("the books of the last minutes were compared", |daemon| daemon.outcomes().len() == 6);
    assert_eq!(daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count(), 4);
    assert!(daemon.ctl(&["verify"]).status.success());
}
