//! State and store that disagree, a state that is lost: found, mended, rebuilt, with the running service and its verbs.

use std::fs;
use std::path::Path;

use alexandria_ingestd::domain::{Payload, Point};
use alexandria_ingestd::store::edge::EdgeStore;
use alexandria_ingestd::store::{CollectionSpec, EMBEDDED_DIR, Filter, VectorStore};
use serde_json::Value;
use uuid::Uuid;

use crate::daemon::{Daemon, text};
use crate::store::{point_of, unit_vector};

/// A folder of four small books.
fn folder() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for (name, about) in
        [("Bees", "hive honey"), ("Ships", "mast harbour"), ("Rivers", "valley lake"), ("Stars", "sky")]
    {
        fs::write(place.path().join(format!("{name}.txt")), format!("A book about {about} and nothing else.")).unwrap();
    }
    place
}

fn daemon(folder: &Path) -> Daemon {
    let mut daemon = Daemon::new(folder);
    daemon.set("library.poll_seconds", "0.1");
    daemon
}

/// The stopped daemon's store.
fn store(daemon: &Daemon) -> EdgeStore {
    let store = EdgeStore::open(&daemon.state_dir().join(EMBEDDED_DIR)).unwrap();
    let spec = CollectionSpec { name: "alexandria".into(), dimension: 64, model_id: "fake".into() };
    store.ensure_collection(&spec).unwrap();
    store
}

/// A foreign hand's point in the store.
fn point(library: &str, book: Uuid, generation: &str) -> Point {
    let point = point_of(book, generation, 1, 64);
    let payload = Payload {
        library_uuid: library.to_owned(),
        generation: generation.to_owned(),
        embedding_model_id: "fake".into(),
        ..point.payload
    };
    Point { vector: unit_vector(7, 64), payload, ..point }
}

fn counts(report: &Value) -> Vec<(String, u64)> {
    let counts = report["counts"].as_array().unwrap().iter();
    let pair = |count: &Value| (count[0].as_str().unwrap().to_owned(), count[1].as_u64().unwrap());
    counts.map(pair).filter(|(_, count)| *count > 0).collect()
}

fn verify(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = daemon.ctl(&[&["verify", "--json"], arguments].concat());
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{}", text(&output.stderr))))
}

#[test]
fn verify_finds_what_disagrees_and_mends_it() {
    let folder = folder();
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(4);
    let (code, report) = verify(&daemon, &[]);
    assert_eq!((code, counts(&report)), (Some(0), vec![]), "{report}");
    assert_eq!(report["books"], 4);
    assert!(text(&daemon.ctl(&["verify"]).stdout).contains("agree"));
    let library = daemon.status()["library"]["uuid"].as_str().unwrap().to_owned();
    daemon.stop();

    let damaged = store(&daemon);
    let page = damaged.scroll(None, 100).unwrap().points;
    let of_title = |title: &str| {
        let found = damaged.search(&unit_vector(1, 64), &Filter::field("book_title", title), 10).unwrap();
        found.into_iter().map(|hit| hit.id).collect::<Vec<_>>()
    };
    // One book lacks a point, one has points of before, one has none, one of nobody's stands beside them.
    damaged.delete(&of_title("Bees")[..1]).unwrap();
    damaged.delete(&of_title("Stars")).unwrap();
    let ships = page.iter().find(|point| of_title("Ships").contains(&point.id)).unwrap();
    let foreign = Uuid::from_u128(99);
    damaged
        .upsert(&[
            point(&library, Uuid::parse_str(&ships.book_uuid).unwrap(), "of before"),
            point(&library, Uuid::from_u128(5), "nobody's"),
            point("", foreign, "another program's"),
        ])
        .unwrap();
    damaged.checkpoint().unwrap();
    drop(damaged);

    daemon.start();
    let expected = [("missing", 2), ("stale", 1), ("orphan", 1)].map(|(kind, count)| (kind.to_owned(), count));
    let (code, report) = verify(&daemon, &[]);
    assert_eq!((code, counts(&report).as_slice()), (Some(1), expected.as_slice()), "{report}");
    assert_eq!(report["foreign_points"], 1);
    let shown = text(&daemon.ctl(&["verify"]).stdout);
    assert!(shown.contains("verify --repair") && shown.contains("Ships"), "{shown}");
    let (code, report) = verify(&daemon, &["--repair"]);
    assert_eq!((code, &report["repair"]["queued"]), (Some(0), &3.into()), "{report}");
    assert_eq!(report["repair"]["deleted_points"], 1);
    daemon.until_indexed(4);
    let (code, report) = verify(&daemon, &[]);
    assert_eq!((code, counts(&report)), (Some(0), vec![]), "{report}");
    assert!(text(&daemon.ctl(&["status"]).stdout).contains("agree"));
    assert_eq!(daemon.search("harbour mast")[0].0, "Ships");
    daemon.stop();
    let held = store(&daemon).points_of_book(foreign).unwrap();
    assert_eq!(held.len(), 1, "what is another program's is not touched");
}

#[test]
fn a_schedule_compares_without_being_asked() {
    let folder = folder();
    let mut daemon = daemon(folder.path());
    daemon.set("store.verify_hours", "0.0003");
    daemon.start();
    daemon.until_indexed(4);
    daemon.until("it was compared", |daemon| daemon.status()["last_audit"]["books"] == 4);
    assert!(daemon.log().contains("4 books agree"), "{}", daemon.log());
}

#[test]
fn a_backup_that_is_put_back_costs_no_embedding() {
    let folder = folder();
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(4);
    let backup = daemon.place.path().join("state-backup.db");
    let backup_path = backup.to_str().unwrap();
    let output = daemon.ctl(&["backup", backup_path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let refused = daemon.ctl(&["backup", backup_path]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("already"), "{}", text(&refused.stderr));
    // Afterwards one book is added, one changed, one removed.
    fs::write(folder.path().join("Snow.txt"), "A book about snow and ice.").unwrap();
    fs::write(folder.path().join("Ships.txt"), "A book about ferries and nothing else.").unwrap();
    fs::remove_file(folder.path().join("Rivers.txt")).unwrap();
    daemon.until("the library of now is indexed", |daemon| {
        daemon.status()["queue"]["done_books"] == 4
            && daemon.search("ferries").iter().any(|hit| hit.1.contains("ferries"))
            && daemon.search("snow ice").iter().any(|hit| hit.0 == "Snow")
            && daemon.search("valley lake").iter().all(|hit| hit.0 != "Rivers")
    });
    let refused = daemon.run(&["restore", backup_path]);
    assert!(text(&refused.stderr).contains("another alexandria-ingestd"), "{}", text(&refused.stderr));
    daemon.stop();
    let junk = daemon.place.path().join("junk.db");
    fs::write(&junk, "no state at all, but long enough to be looked at").unwrap();
    let refused = daemon.run(&["restore", junk.to_str().unwrap()]);
    assert!(refused.status.code() == Some(3) && text(&refused.stderr).contains("junk.db"), "{}", text(&refused.stderr));
    let done = daemon.run(&["restore", backup_path]);
    assert!(done.status.success() && text(&done.stdout).contains("replaced-1"), "{}", text(&done.stderr));
    daemon.start();
    let count = |daemon: &Daemon, what: &str| daemon.outcomes().iter().filter(|outcome| *outcome == what).count();
    daemon.until("the state has caught up", |daemon| {
        count(daemon, "adopted") == 2 && daemon.search("valley lake").iter().all(|hit| hit.0 != "Rivers")
    });
    daemon.until_indexed(4);
    assert_eq!(verify(&daemon, &[]).0, Some(0));
    assert_eq!(count(&daemon, "embedded"), 4, "those of before the backup: {:?}", daemon.outcomes());
}

#[test]
fn a_lost_state_is_rebuilt_without_embedding() {
    let folder = folder();
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(4);
    daemon.stop();
    let refused = daemon.run(&["rebuild"]);
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("sound"), "{}", text(&refused.stderr));
    let state = daemon.state_dir().join("state.db");
    fs::write(&state, "this is not SQLite, whatever its name says, and it is long enough to look at").unwrap();
    let refused = daemon.run(&[]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
    let rebuilt = daemon.run(&["rebuild"]);
    let said = text(&rebuilt.stdout);
    assert!(rebuilt.status.success(), "{said}{}", text(&rebuilt.stderr));
    assert!(said.contains("0 books embedded") && said.contains("4 books were in the store already"), "{said}");
    assert!(daemon.state_dir().join("state.db.replaced-1").exists());
    daemon.start();
    daemon.until_indexed(4);
    assert_eq!(verify(&daemon, &[]).0, Some(0));
    daemon.stop();
    // A point is missing: that book alone is embedded again.
    let damaged = store(&daemon);
    let one = damaged.scroll(None, 100).unwrap().points.remove(0);
    damaged.delete(&[one.id]).unwrap();
    drop(damaged);
    fs::remove_file(&state).unwrap();
    let rebuilt = text(&daemon.run(&["rebuild"]).stdout);
    assert!(rebuilt.contains("1 books embedded") && rebuilt.contains("3 books were"), "{rebuilt}");
}

#[test]
fn after_a_kill_the_last_books_are_compared_with_the_store() {
    let folder = folder();
    let mut daemon = daemon(folder.path());
    daemon.start();
    daemon.until_indexed(4);
    daemon.kill();
    // As a machine that lost its power may lose what was not on its disk.
    let damaged = store(&daemon);
    let one = damaged.scroll(None, 100).unwrap().points.remove(0);
    damaged.delete(&[one.id]).unwrap();
    damaged.checkpoint().unwrap();
    drop(damaged);
    daemon.start();
    daemon.until("all were compared", |daemon| daemon.outcomes().len() == 8);
    daemon.until_indexed(4);
    assert!(daemon.log().contains("did not end in order"), "{}", daemon.log());
    assert_eq!(daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count(), 5);
    assert_eq!(verify(&daemon, &[]).0, Some(0));
    daemon.stop();
    daemon.start();
    assert_eq!(daemon.log().matches("did not end in order").count(), 1, "an orderly end is no reason");
}
