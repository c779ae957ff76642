//! One workload, killed at every point at which something is written: at the 1st, the 2nd, ... until a run passes
//! through unharmed. After each death the service is started again, must come to rest, and library, state and store
//! are compared point by point; in a second round it is killed once more while it recovers.
//!
//! By default every point that is the first of its name in its stage is taken, and a seeded third of the others; with
//! `ALEXANDRIA_TEST_FULL=1` all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use alexandria_ingestd::queue::FILE_NAME;
use alexandria_ingestd::store::EMBEDDED_DIR;
use serde_json::json;
use uuid::Uuid;

use crate::agreement::{Compared, Expectation, Points, differences, oracle, shown};
use crate::damage::Seeded;
use crate::qdrant_server::{FakeQdrant, SavedCollections};
use crate::service_process::{Died, ServiceProcess};
use crate::shelf::{Shelf, Story};
use crate::support::{full_run, quick_directory, seed};

/// Which of the two stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    Server,
}

/// A part of the workload that starts from a state at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A new library with an empty state.
    First,
    /// A book is replaced, one edited, one renamed, one removed, one rewritten with the same text, one gets a better
    /// format, one loses its preferred format to damage, one is new.
    Changes,
    /// A book is taken out by hand, and taken in again.
    ByHand,
    /// Somebody deleted the store's collection while the service was down.
    StoreLost,
}

const STAGES: [Stage; 4] = [Stage::First, Stage::Changes, Stage::ByHand, Stage::StoreLost];

fn story(number: u64, words: usize) -> Story {
    Story::Text { number, chapters: 1 + words / 400, words }
}

/// The two states of the library, beside one another. Returns the book that is taken out by hand, too.
fn make_shelves(place: &Path) -> (Shelf, Shelf, Uuid) {
    let mut first = Shelf::new(&place.join("shelf-1"), 7);
    // More points than one write takes.
    let large = first.add("Large", "Ana Anić", &[("EPUB", story(1, 5000))]);
    let replaced = first.add("Replaced", "B. Babić", &[("EPUB", story(2, 900))]);
    let edited = first.add("Edited", "Ana Anić", &[("EPUB", story(3, 500)), ("TXT", story(4, 60))]);
    let renamed = first.add("Renamed", "C. Cvek", &[("TXT", story(5, 300))]);
    let removed = first.add("Removed", "C. Cvek", &[("TXT", story(6, 700))]);
    let damaged = first.add("Damaged", "D. Dujić", &[("EPUB", story(7, 200)), ("TXT", story(8, 250))]);
    let rewritten = first.add("Rewritten", "E. Erceg", &[("EPUB", story(9, 120))]);
    let bettered = first.add("Bettered", "E. Erceg", &[("TXT", story(10, 120))]);
    first.add("Hopeless", "F. Franić", &[("EPUB", Story::Damaged { number: 11 })]);

    let mut second = first.copied_to(&place.join("shelf-2"));
    second.add_format(replaced, "EPUB", story(12, 1000));
    second.set_tags(edited, &["winter", "ape"]);
    second.set_series(large, Some(("Long ones", 2.0)));
    second.rename(renamed, "Renamed and moved");
    second.remove(removed);
    second.add_format(damaged, "EPUB", Story::Damaged { number: 13 });
    second.embed_metadata(rewritten);
    second.add_format(bettered, "EPUB", story(14, 200));
    second.add("New", "G. Grgić", &[("EPUB", story(15, 400))]);
    let by_hand = second.book(edited).uuid;
    (first, second, by_hand)
}

/// A place of its own for one thread of runs.
struct Bench {
    place: tempfile::TempDir,
    service: ServiceProcess,
    shelves: (Shelf, Shelf),
    by_hand: Uuid,
    server: Option<FakeQdrant>,
    /// What the server held at the start of each stage.
    saved: Vec<SavedCollections>,
    second_is_shown: bool,
}

impl Bench {
    /// Runs the workload once, and keeps what each stage starts from.
    fn new(kind: Kind) -> Bench {
        let place = quick_directory();
        let (first, second, by_hand) = make_shelves(place.path());
        let library = place.path().join("library");
        let mut service = ServiceProcess::new(place.path(), &library);
        let server = (kind == Kind::Server).then(|| FakeQdrant::new(None));
        if let Some(server) = &server {
            service.use_server(&server.url(), "books");
        }
        let mut bench = Bench {
            place,
            service,
            shelves: (first, second),
            by_hand,
            server,
            saved: Vec::new(),
            second_is_shown: false,
        };
        bench.shelves.0.move_to(&library);
        for stage in STAGES {
            bench.keep(stage);
            bench.show_library_of(stage);
            bench.service.spawn(None);
            bench.work(stage).expect("nobody kills it");
            bench.service.stop().expect("nobody kills it");
        }
        bench
    }

    fn kept_state(&self, stage: Stage) -> PathBuf {
        self.place.path().join(format!("state before {stage:?}"))
    }

    fn keep(&mut self, stage: Stage) {
        let state = self.service.state_dir();
        std::fs::create_dir_all(&state).unwrap();
        match &self.server {
            _ if stage != Stage::StoreLost => {}
            None => std::fs::remove_dir_all(state.join(EMBEDDED_DIR)).unwrap(),
            Some(server) => server.drop_collection(&self.service.store().collection),
        }
        if stage == Stage::StoreLost {
            // Books of many days: what was written just before a death is looked at again anyway.
            let database = rusqlite::Connection::open(state.join(FILE_NAME)).unwrap();
            database.execute("UPDATE books SET indexed_at_us = indexed_at_us - id * 86400000000", []).unwrap();
        }
        copy(&state, &self.kept_state(stage));
        self.saved.extend(self.server.as_ref().map(FakeQdrant::save));
    }

    fn restore(&mut self, stage: Stage) {
        let state = self.service.state_dir();
        std::fs::remove_dir_all(&state).unwrap();
        copy(&self.kept_state(stage), &state);
        if let Some(server) = &self.server {
            server.restore(&self.saved[stage as usize]);
        }
        self.service.forget_log();
        self.show_library_of(stage);
    }

    /// The library's path stays; what lies there changes.
    fn show_library_of(&mut self, stage: Stage) {
        let second = stage != Stage::First;
        if second == self.second_is_shown {
            return;
        }
        let (shown, next) = match second {
            true => (&mut self.shelves.0, &mut self.shelves.1),
            false => (&mut self.shelves.1, &mut self.shelves.0),
        };
        let library = shown.path().to_owned();
        let aside = library.with_file_name(if second { "shelf-1" } else { "shelf-2" });
        shown.move_to(&aside);
        next.move_to(&library);
        self.second_is_shown = second;
    }

    /// The stage's steps; each may be repeated from its beginning.
    fn step(&mut self, stage: Stage, step: usize) -> Result<(), Died> {
        let target = json!({ "target": self.by_hand.to_string() });
        match (stage, step) {
            (Stage::ByHand, 1) => drop(self.service.post("/remove", &target)?),
            (Stage::ByHand, 3) => drop(self.service.post("/ingest", &target)?),
            _ => drop(self.service.settle(false)?),
        }
        Ok(())
    }

    fn steps(stage: Stage) -> usize {
        if stage == Stage::ByHand { 5 } else { 1 }
    }

    fn work(&mut self, stage: Stage) -> Result<(), Died> {
        (0..Self::steps(stage)).try_for_each(|step| self.step(stage, step))
    }

    /// Runs a stage with a death ordered at the `kill`-th point, and at the `again`-th of the start after that.
    fn run(&mut self, stage: Stage, kill: usize, again: Option<usize>) -> Run {
        self.restore(stage);
        let log = self.place.path().join("points");
        let _ = std::fs::remove_file(&log);
        let mut orders = vec![kill];
        orders.extend(again);
        let mut orders = orders.into_iter();
        let mut deaths = 0;
        let mut spawn = |service: &mut ServiceProcess| {
            let order = orders.next();
            let failpoints = order.map(|kill| format!("kill={kill},log={}", log.display()));
            service.spawn(failpoints.as_deref());
            order.is_some()
        };
        let mut armed = spawn(&mut self.service);
        let (mut step, end) = (0, Self::steps(stage));
        loop {
            let done = match step {
                _ if step < end => self.step(stage, step),
                // Every second run that died ends as a service that is killed at rest, the others as they should.
                _ if deaths > 0 && kill.is_multiple_of(2) => {
                    self.service.kill();
                    Ok(())
                }
                _ => self.service.stop(),
            };
            match done {
                Ok(()) if step == end => break,
                Ok(()) => step += 1,
                Err(Died) => {
                    assert!(armed, "it died without an order:\n{}", self.service.log_tail());
                    deaths += 1;
                    armed = spawn(&mut self.service);
                    // After a death on the way out it must come to rest once more.
                    step = step.min(end - 1);
                }
            }
        }
        let passed = std::fs::read_to_string(&log).unwrap_or_default();
        Run { deaths, points: passed.lines().map(str::to_owned).collect() }
    }

    fn compare(&self, stage: Stage, oracles: &[Points; 2]) -> (Vec<String>, Compared) {
        let (shelf, oracle) = match stage {
            Stage::First => (&self.shelves.0, &oracles[0]),
            _ => (&self.shelves.1, &oracles[1]),
        };
        differences(&self.service, &Expectation::of(shelf, &BTreeSet::new()), oracle)
    }
}

/// What came of one run.
struct Run {
    deaths: usize,
    /// The names of the points that were passed, in order, over both starts.
    points: Vec<String>,
}

/// Sparse files stay sparse.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[derive(Default)]
struct Tally {
    runs: usize,
    deaths: usize,
    second_deaths: usize,
    compared: Compared,
    wrong: Vec<String>,
    killed_at: BTreeMap<String, usize>,
}

impl Tally {
    fn times_killed_at(&self, name: &str) -> usize {
        self.killed_at.get(name).copied().unwrap_or(0)
    }
}

/// One of the four parts of the matrix.
struct Part<'a> {
    stage: Stage,
    /// What each state of the library gives from nothing.
    oracles: &'a [Points; 2],
    tally: Mutex<Tally>,
}

impl Part<'_> {
    /// One run, compared; whether it died.
    fn kill_at(&self, bench: &mut Bench, kill: usize, again: Option<usize>) -> bool {
        let run = bench.run(self.stage, kill, again);
        let (wrong, compared) = bench.compare(self.stage, self.oracles);
        let mut tally = self.tally.lock().unwrap();
        tally.runs += 1;
        tally.compared.add(compared);
        let context = format!("{:?}, killed at point {kill}, then at {again:?}", self.stage);
        if !wrong.is_empty() && tally.wrong.len() < 100 {
            println!("{context}: {}\nlog\n{}", shown(&wrong), bench.service.log_tail());
        }
        tally.wrong.extend(wrong.into_iter().map(|line| format!("{context}: {line}")));
        if run.deaths > 0 {
            tally.deaths += 1;
            tally.second_deaths += run.deaths - 1;
        }
        if let (1, None, Some(name)) = (run.deaths, again, run.points.last()) {
            *tally.killed_at.entry(name.clone()).or_default() += 1;
        }
        run.deaths > 0
    }

    /// Runs with a death at the chosen points, on all benches at once, until one comes through unharmed; its number.
    fn kill_at_all(&self, benches: &mut [Bench], chosen: &[bool], again_share: usize, seed: u64) -> usize {
        let length = chosen.len();
        // How many points a run passes differs a little from run to run: those behind the end are tried, too.
        let chosen = |number: usize| chosen.get(number - 1).copied().unwrap_or(true);
        let next = AtomicUsize::new(1);
        let came_through = AtomicUsize::new(usize::MAX);
        std::thread::scope(|scope| {
            for bench in benches.iter_mut() {
                let (chosen, next, came_through) = (&chosen, &next, &came_through);
                scope.spawn(move || {
                    loop {
                        let kill = next.fetch_add(1, Ordering::Relaxed);
                        if kill > came_through.load(Ordering::Relaxed) {
                            return;
                        }
                        if !chosen(kill) {
                            continue;
                        }
                        if !self.kill_at(bench, kill, None) {
                            came_through.fetch_min(kill, Ordering::Relaxed);
                            continue;
                        }
                        let mut random = Seeded((seed + kill as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                        if random.below(again_share) == 0 {
                            // Once more in the recovery, soon or late.
                            self.kill_at(bench, kill, Some(1 + random.below(length)));
                        }
                    }
                });
            }
        });
        came_through.into_inner()
    }
}

fn matrix(kind: Kind, share: usize) {
    let started = Instant::now();
    let seed = seed(1);
    let mut benches = [Bench::new(kind), Bench::new(kind)];
    let oracles = {
        let bench = &mut benches[0];
        let place = quick_directory();
        [Stage::First, Stage::Changes].map(|stage| {
            bench.show_library_of(stage);
            oracle(&bench.service, place.path())
        })
    };
    println!("{kind:?}: prepared in {:.1} s; seed {seed} (ALEXANDRIA_TEST_SEED)", started.elapsed().as_secs_f64());
    let mut all = (0, 0, 0);
    for stage in STAGES {
        let tally = part_of_matrix(kind, stage, &mut benches, &oracles, share, seed);
        all = (all.0 + tally.runs, all.1 + tally.deaths, all.2 + tally.second_deaths);
    }
    println!(
        "{kind:?}, all stages: {} runs, {} killed, {} of them once more in the recovery, 0 differences; {:.1} s",
        all.0,
        all.1,
        all.2,
        started.elapsed().as_secs_f64()
    );
}

fn part_of_matrix(
    kind: Kind,
    stage: Stage,
    benches: &mut [Bench; 2],
    oracles: &[Points; 2],
    share: usize,
    seed: u64,
) -> Tally {
    let started = Instant::now();
    let full = full_run();
    let unharmed = benches[0].run(stage, usize::MAX, None);
    let (wrong, _) = benches[0].compare(stage, oracles);
    assert!(wrong.is_empty(), "without any death: {}", shown(&wrong));
    assert_eq!(unharmed.deaths, 0);
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut random = Seeded(seed.wrapping_mul(31) + stage as u64 + 1);
    let mut chosen = Vec::new();
    for name in &unharmed.points {
        let count = names.entry(name.as_str()).or_default();
        *count += 1;
        chosen.push(full || *count == 1 || random.below(share) == 0);
    }
    let part = Part { stage, oracles, tally: Mutex::default() };
    let came_through = part.kill_at_all(benches, &chosen, if full { 1 } else { 3 }, seed);
    // Threads take turns as they like, so a number does not always name the same point: what was missed is tried again.
    for name in names.keys() {
        let numbers = (1..=chosen.len()).filter(|number| unharmed.points[number - 1] == *name);
        for kill in numbers.cycle().take(10) {
            if part.tally.lock().unwrap().times_killed_at(name) > 0 {
                break;
            }
            part.kill_at(&mut benches[0], kill, None);
        }
    }
    let tally = part.tally.into_inner().unwrap();
    println!(
        "{kind:?}, stage {stage:?}: {} failpoints of {} names passed ({}); {} runs, {} killed, {} of them once more in \
         the recovery, the first unharmed one at {came_through}; {} books and {} points compared, {} books with a fresh \
         index's ids, {} with those of an earlier file of the same text; {} differences; {:.1} s",
        chosen.len(),
        names.len(),
        if full { "killed at each" } else { "killed at the first of each name and a seeded share of the others" },
        tally.runs,
        tally.deaths,
        tally.second_deaths,
        tally.compared.books,
        tally.compared.points,
        tally.compared.same_ids,
        tally.compared.other_ids,
        tally.wrong.len(),
        started.elapsed().as_secs_f64()
    );
    for (name, passed) in &names {
        println!("  {passed:4} passed, {:4} killed at: {name}", tally.times_killed_at(name));
    }
    assert!(tally.wrong.is_empty(), "{}", shown(&tally.wrong));
    assert!(tally.deaths > 10, "{} deaths", tally.deaths);
    tally
}

#[test]
fn slow_a_kill_at_any_point_of_the_workload_loses_and_doubles_nothing() {
    matrix(Kind::Embedded, 3);
}

#[test]
fn slow_a_kill_at_any_point_beside_a_server_loses_and_doubles_nothing() {
    matrix(Kind::Server, 6);
}
