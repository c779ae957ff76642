//! Random sequences of everything that happens to a service, against a simple model of what must come of it: the index
//! holds every book of the shelf that can be read and is not kept out by hand, as it is now; what many removals at once
//! take away stays until a person says so.
//!
//! Ten sequences, with `ALEXANDRIA_TEST_FULL=1` two hundred. Seeds that once failed come first, for ever.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::agreement::{Compared, Expectation, Wanted, differences, oracle, shown};
use crate::damage::Seeded;
use crate::qdrant_server::FakeQdrant;
use crate::service_process::ServiceProcess;
use crate::shelf::Shelf;
use crate::shelf_changes::ShelfChanges;
use crate::support::{full_run, quick_directory, seed};

/// Seeds of sequences that found something. An even one has the embedded store, an odd one a server.
const FAILED_ONCE: [u64; 0] = [];

/// As the service is told: more removals than this at once wait for a person.
const REMOVAL_LIMIT: usize = 2;

struct World {
    /// Holds everything else's files.
    place: tempfile::TempDir,
    random: Seeded,
    shelf: Shelf,
    changes: ShelfChanges,
    service: ServiceProcess,
    server: Option<FakeQdrant>,
    store_is_down: bool,
    paused: bool,
    /// Kept out by hand.
    excluded: BTreeSet<Uuid>,
    /// What was found when it last came to rest.
    settled: Expectation,
    /// Books that left the shelf since then.
    removals: usize,
    told: Vec<String>,
    compared: Compared,
    times_settled: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let place = quick_directory();
        let mut shelf = Shelf::new(&place.path().join("library"), seed);
        let mut changes = ShelfChanges::new(seed);
        let mut service = ServiceProcess::new(place.path(), shelf.path());
        service.set("library.removal_limit", &REMOVAL_LIMIT.to_string());
        let server = (seed % 2 == 1).then(|| FakeQdrant::new(None));
        if let Some(server) = &server {
            service.use_server(&server.url(), "books");
        }
        let told = (0..6).map(|_| changes.add(&mut shelf)).collect();
        let settled = Expectation { library_uuid: shelf.library_uuid, books: Default::default() };
        World {
            place,
            random: Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            shelf,
            changes,
            service,
            server,
            store_is_down: false,
            paused: false,
            excluded: BTreeSet::new(),
            settled,
            removals: 0,
            told,
            compared: Compared::default(),
            times_settled: 0,
        }
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(what.into());
    }

    fn away(&self) -> PathBuf {
        self.place.path().join("away")
    }

    fn is_mounted(&self) -> bool {
        self.shelf.path() == self.service.library()
    }

    fn live(&mut self, steps: usize) {
        self.settle();
        for _ in 0..steps {
            self.step();
            self.keeps_what_it_has();
            std::thread::sleep(Duration::from_millis(self.random.below(250) as u64));
        }
        self.settle();
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0..=11 => {
                let before = self.shelf.ids().len();
                let what = self.changes.change(&mut self.shelf, self.removals < REMOVAL_LIMIT);
                self.removals += usize::from(self.shelf.ids().len() < before);
                self.tell(what);
            }
            12 | 13 => self.turn_mount(),
            14 | 15 => self.turn_store(),
            16 | 17 if self.service.is_running() => {
                self.service.kill();
                self.tell("killed");
            }
            18 => self.turn_pause(),
            19 => self.remove_by_hand(),
            20 => self.ingest_by_hand(),
            21 => self.many_removals(),
            22 => self.settle(),
            _ => self.start(),
        }
    }

    fn start(&mut self) {
        if !self.service.is_running() {
            self.service.spawn(None);
            self.tell("started");
        }
    }

    /// The library goes, and an empty directory is left; or it comes back.
    fn turn_mount(&mut self) {
        let (mount, away) = (self.service.library().to_owned(), self.away());
        if self.is_mounted() {
            self.shelf.move_to(&away);
            fs::create_dir(mount).unwrap();
            self.tell("unmounted");
        } else {
            fs::remove_dir(&mount).unwrap();
            self.shelf.move_to(&mount);
            self.tell("mounted");
        }
    }

    fn turn_store(&mut self) {
        let Some(server) = &mut self.server else { return };
        if self.store_is_down {
            server.start();
        } else {
            server.stop();
        }
        self.store_is_down = !self.store_is_down;
        self.tell(if self.store_is_down { "store down" } else { "store up" });
    }

    /// A service that starts now has to answer first: its word is part of the model.
    fn ask(&mut self, path: &str, body: &Value) -> bool {
        self.service.until_ready().expect("nobody kills it");
        let answered = self.service.try_post(path, body).expect("nobody kills it").is_some();
        self.tell(format!("{path} {body}: {}", if answered { "done" } else { "refused" }));
        answered
    }

    fn turn_pause(&mut self) {
        if self.service.is_running() {
            let path = if self.paused { "/resume" } else { "/pause" };
            self.paused ^= self.ask(path, &Value::Null);
        }
    }

    /// A book that the service has, and that is on the shelf still.
    fn some_book(&mut self, is_it: impl Fn(&Wanted) -> bool) -> Option<Uuid> {
        let on_shelf: BTreeSet<Uuid> = self.shelf.books().map(|book| book.uuid).collect();
        let books = self.settled.books.iter();
        let fit: Vec<Uuid> =
            books.filter(|(uuid, wanted)| on_shelf.contains(*uuid) && is_it(wanted)).map(|(uuid, _)| *uuid).collect();
        fit.get(self.random.below(fit.len())).copied()
    }

    fn remove_by_hand(&mut self) {
        let book = self.some_book(|wanted| matches!(wanted, Wanted::Indexed { .. }));
        if let (true, Some(book)) = (self.service.is_running(), book)
            && self.ask("/remove", &json!({ "target": book.to_string() }))
        {
            self.excluded.insert(book);
        }
    }

    fn ingest_by_hand(&mut self) {
        let book = self.some_book(|wanted| *wanted != Wanted::Unreadable);
        if let (true, Some(book)) = (self.service.is_running(), book)
            && self.ask("/ingest", &json!({ "target": book.to_string() }))
        {
            self.excluded.remove(&book);
        }
    }

    /// More books go at once than may: they stay in the index until a person lets them go, or they come back.
    fn many_removals(&mut self) {
        self.settle();
        let indexed = |uuid: &Uuid| matches!(self.settled.books.get(uuid), Some(Wanted::Indexed { .. }));
        let going: Vec<i64> = self.shelf.books().filter(|book| indexed(&book.uuid)).map(|book| book.id).collect();
        let count = REMOVAL_LIMIT + 1 + self.random.below(2);
        if going.len() < count + 1 {
            return;
        }
        // All of them in one look: while the library is away, as when an older copy of it is put back.
        self.turn_mount();
        let backup = self.shelf.copied_to(&self.place.path().join("backup"));
        let mut wanted = self.expectation();
        for id in &going[..count] {
            let uuid = self.shelf.book(*id).uuid;
            if let Some(Wanted::Indexed { on_shelf, .. }) = wanted.books.get_mut(&uuid) {
                *on_shelf = false;
            }
            self.shelf.remove(*id);
        }
        self.tell(format!("books {:?} are removed at once", &going[..count]));
        self.turn_mount();
        self.settle_as(&wanted, count);
        self.start();
        if self.random.below(2) == 0 {
            self.service.settle(false).expect("nobody kills it");
            assert!(self.ask("/approve", &Value::Null));
        } else {
            self.turn_mount();
            fs::remove_dir_all(self.shelf.path()).unwrap();
            self.shelf = backup.clone();
            let mount = self.service.library().to_owned();
            fs::remove_dir(&mount).unwrap();
            self.shelf.move_to(&mount);
            self.tell("an older copy of the library is put back");
        }
        self.settle();
        let _ = fs::remove_dir_all(self.place.path().join("backup"));
    }

    fn expectation(&self) -> Expectation {
        Expectation::of(&self.shelf, &self.excluded)
    }

    /// Whatever else goes on, what is on the shelf and was indexed stays so.
    fn keeps_what_it_has(&mut self) {
        let Some(status) = Some(&self.service).filter(|service| service.is_running()).and_then(ServiceProcess::status)
        else {
            return;
        };
        let on_shelf: BTreeSet<Uuid> = self.shelf.books().map(|book| book.uuid).collect();
        let kept = self.settled.books.iter().filter(|(uuid, wanted)| {
            matches!(wanted, Wanted::Indexed { .. }) && on_shelf.contains(*uuid) && !self.excluded.contains(*uuid)
        });
        let kept = kept.count() as u64;
        assert!(status.queue.done_books >= kept, "{} books are indexed of {kept}", status.queue.done_books);
    }

    fn settle(&mut self) {
        let wanted = self.expectation();
        self.settle_as(&wanted, 0);
    }

    /// Everything works again; comes to rest; everything is compared.
    fn settle_as(&mut self, wanted: &Expectation, removals_waiting: usize) {
        if !self.is_mounted() {
            self.turn_mount();
        }
        if self.store_is_down {
            self.turn_store();
        }
        self.start();
        if self.paused {
            self.turn_pause();
        }
        let full = self.random.below(3) == 0;
        let status = self.service.settle(full).expect("nobody kills it");
        assert_eq!(status.removals_waiting, removals_waiting, "removals that wait for a person");
        if self.random.below(2) == 0 {
            self.service.stop().expect("nobody kills it");
        } else {
            self.service.kill();
        }
        let fresh = oracle(&self.service, self.place.path());
        let (wrong, compared) = differences(&self.service, wanted, &fresh);
        self.compared.add(compared);
        self.times_settled += 1;
        self.tell("comes to rest");
        assert!(wrong.is_empty(), "{}", shown(&wrong));
        self.settled = wanted.clone();
        self.removals = 0;
    }
}

#[test]
fn slow_whatever_happens_library_state_and_store_agree_in_the_end() {
    let sequences = if full_run() { 200 } else { 10 };
    let first = seed(1000);
    let seeds: Vec<u64> = FAILED_ONCE.into_iter().chain(first..first + sequences).collect();
    println!(
        "seeds {first} to {} (ALEXANDRIA_TEST_SEED), {} that failed once",
        first + sequences - 1,
        FAILED_ONCE.len()
    );
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let done = Mutex::new((Compared::default(), 0, 0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut world = World::new(*seed);
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live(25))) {
                        println!(
                            "seed {seed} failed after:\n{}\nlog:\n{}",
                            world.told.join("\n"),
                            world.service.log_tail()
                        );
                        resume_unwind(panic);
                    }
                    let mut done = done.lock().unwrap();
                    done.0.add(world.compared);
                    done.1 += world.told.len() - world.times_settled;
                    done.2 += world.times_settled;
                }
            });
        }
    });
    let (compared, events, settled) = done.into_inner().unwrap();
    println!(
        "{} sequences, {events} events, came to rest {settled} times: {} books and {} points compared, {} books with a \
         fresh index's ids and {} with those of an earlier file of the same text; 0 differences; {:.1} s",
        seeds.len(),
        compared.books,
        compared.points,
        compared.same_ids,
        compared.other_ids,
        started.elapsed().as_secs_f64()
    );
}
