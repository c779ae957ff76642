//! A reindex, killed at points at which something is written, from its begin to the switch and the deletion of the
//! collection of before. After each death the service is started again, must end it, and library, state and store are
//! compared point by point with a fresh index. Of every kind of point the first and the last is taken, and a seeded part
//! of the others; with `ALEXANDRIA_TEST_FULL=1` all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::agreement::{Expectation, Points, differences, oracle, shown};
use crate::damage::Seeded;
use crate::qdrant_server::{FakeQdrant, SavedCollections};
use crate::service_process::{Died, ServiceProcess};
use crate::shelf::{Shelf, Story};
use crate::support::{full_run, quick_directory, seed};

/// One of so many of the other points is taken.
const SHARE: usize = 20;

struct Bench {
    place: tempfile::TempDir,
    service: ServiceProcess,
    shelf: Shelf,
    server: Option<(FakeQdrant, SavedCollections)>,
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

impl Bench {
    /// An index that other settings made. `twice`: it is a reindex's already, so that its name is an alias.
    fn new(server: Option<FakeQdrant>, twice: bool) -> Bench {
        let place = quick_directory();
        let library = place.path().join("library");
        let mut shelf = Shelf::new(&library, 7);
        for (number, words) in [(1, 900), (2, 300), (3, 120)] {
            let story = Story::Text { number, chapters: 1 + words / 400, words };
            shelf.add(&format!("Book {number}"), "Ana Anić", &[("EPUB", story)]);
        }
        let mut service = ServiceProcess::new(place.path(), &library);
        if let Some(server) = &server {
            service.use_server(&server.url(), "books");
        }
        service.spawn(None);
        service.settle(false).unwrap();
        service.stop().unwrap();
        let mut bench = Bench { place, service, shelf, server: None };
        if twice {
            bench.service.set("chunking.max_words", "20");
            bench.service.spawn(None);
            bench.reindex().unwrap();
        }
        copy(&bench.service.state_dir(), &bench.place.path().join("before"));
        bench.service.set("chunking.max_words", "18");
        bench.server = server.map(|server| {
            let saved = server.save();
            (server, saved)
        });
        bench
    }

    fn points_file(&self) -> PathBuf {
        self.place.path().join("points")
    }

    /// Begins a reindex and sees it to its end. It may be repeated from its beginning.
    fn reindex(&mut self) -> Result<(), Died> {
        self.service.until_ready()?;
        // Refused where it was ended before: there is nothing left to make anew.
        self.service.try_post("/reindex", &json!({ "replace": true }))?;
        self.service.until("the reindex is done", |status| status.reindex.is_none() && status.outdated.is_none())?;
        self.service.settle(false)?;
        self.service.stop()
    }

    /// With a death at the `kill`-th point; the names of the points that were passed, and whether it died.
    fn run(&mut self, kill: usize) -> (Vec<String>, bool) {
        let state = self.service.state_dir();
        std::fs::remove_dir_all(&state).unwrap();
        copy(&self.place.path().join("before"), &state);
        if let Some((server, saved)) = &self.server {
            server.restore(saved);
        }
        self.service.forget_log();
        let _ = std::fs::remove_file(self.points_file());
        self.service.spawn(Some(&format!("kill={kill},log={}", self.points_file().display())));
        let died = self.reindex().is_err();
        let passed = std::fs::read_to_string(self.points_file()).unwrap_or_default();
        if died {
            self.service.spawn(None);
            self.reindex().expect("nobody kills it");
        }
        (passed.lines().map(str::to_owned).collect(), died)
    }

    fn compare(&self, oracle: &Points, context: &str) {
        let (wrong, compared) = differences(&self.service, &Expectation::of(&self.shelf, &BTreeSet::new()), oracle);
        assert!(wrong.is_empty(), "{context}: {}\nlog\n{}", shown(&wrong), self.service.log_tail());
        assert_eq!((compared.books, compared.same_ids), (3, 3), "{context}");
    }
}

/// The numbers of the points to be killed at, from 1.
fn chosen(passed: &[String]) -> Vec<usize> {
    let mut of_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, name) in passed.iter().enumerate() {
        of_name.entry(name).or_default().push(at + 1);
    }
    let mut random = Seeded(seed(29));
    let mut chosen: BTreeSet<usize> = of_name.values().flat_map(|at| [at[0], at[at.len() - 1]]).collect();
    chosen.extend((1..=passed.len()).filter(|_| full_run() || random.below(SHARE) == 0));
    chosen.into_iter().collect()
}

fn kill_everywhere(server: Option<FakeQdrant>, twice: bool) {
    let mut bench = Bench::new(server, twice);
    let oracle = oracle(&bench.service, bench.place.path());
    let (passed, died) = bench.run(usize::MAX);
    assert!(!died);
    bench.compare(&oracle, "undisturbed");
    let names: BTreeSet<&str> = passed.iter().map(String::as_str).collect();
    for name in ["store: after the name stands for another collection", "store: after a collection is deleted"] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    let chosen = chosen(&passed);
    let mut deaths = 0;
    for kill in &chosen {
        let (passed, died) = bench.run(*kill);
        deaths += usize::from(died);
        bench.compare(&oracle, &format!("killed at point {kill}, {:?}", passed.last()));
    }
    println!("{} points, {} runs, {deaths} deaths", passed.len(), chosen.len());
    assert!(deaths > chosen.len() / 2, "{deaths} deaths in {} runs", chosen.len());
}

#[test]
fn a_reindex_of_the_embedded_store_survives_any_death() {
    kill_everywhere(None, false);
}

#[test]
fn a_collection_of_a_server_that_is_replaced_survives_any_death() {
    kill_everywhere(Some(FakeQdrant::new(None)), false);
}

#[test]
fn an_alias_of_a_server_that_is_moved_survives_any_death() {
    kill_everywhere(Some(FakeQdrant::new(None)), true);
}
