//! The service killed at random moments while its library changes, a few hundred times in one long life of a state.
//! After every ten kills or so it must come to rest, and library, state and store are compared point by point.
//!
//! 60 kills with the embedded store and 20 with a server; with `ALEXANDRIA_TEST_FULL=1` five times as many.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::agreement::{Compared, Expectation, differences, oracle, shown};
use crate::damage::Seeded;
use crate::qdrant_server::FakeQdrant;
use crate::service_process::ServiceProcess;
use crate::shelf::Shelf;
use crate::shelf_changes::ShelfChanges;
use crate::support::{full_run, quick_directory, seed};

/// Fewer than what waits for a person's word.
const REMOVALS_AT_MOST: usize = 8;

fn killed_at_random(kills: usize, server: Option<&FakeQdrant>) {
    let kills = if full_run() { kills * 5 } else { kills };
    let seed = seed(20261125);
    println!("seed {seed} (ALEXANDRIA_TEST_SEED), {kills} kills");
    let started = Instant::now();
    let place = quick_directory();
    let mut shelf = Shelf::new(&place.path().join("library"), seed);
    let mut changes = ShelfChanges::new(seed);
    let mut random = Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let pause = |random: &mut Seeded, most: usize| {
        std::thread::sleep(Duration::from_millis(random.below(most) as u64));
    };
    let mut service = ServiceProcess::new(place.path(), shelf.path());
    if let Some(server) = server {
        service.use_server(&server.url(), "books");
    }
    let mut told: Vec<String> = (0..5).map(|_| changes.add(&mut shelf)).collect();
    let mut killed = 0;
    let mut settled = 0;
    let mut compared = Compared::default();
    while killed < kills {
        let mut removals = 0;
        for _ in 0..(8 + random.below(5)).min(kills - killed) {
            service.spawn(None);
            // A third of them while it starts, a third at any time, a third when it has something to do.
            let moment = random.below(3);
            if moment > 0 {
                service.until_ready().expect("nobody kills it");
            }
            for _ in 0..random.below(4) {
                pause(&mut random, if moment == 2 { 20 } else { 200 });
                let before = shelf.ids().len();
                told.push(changes.change(&mut shelf, removals < REMOVALS_AT_MOST));
                removals += usize::from(shelf.ids().len() < before);
            }
            if moment < 2 {
                pause(&mut random, 400);
            } else if service.is_busy_within(Duration::from_millis(300)) {
                pause(&mut random, 40);
            }
            service.kill();
            killed += 1;
            told.push(format!("kill {killed}"));
        }
        service.spawn(None);
        service.settle(false).expect("nobody kills it");
        if random.below(2) == 0 {
            service.stop().expect("nobody kills it");
        } else {
            service.kill();
        }
        settled += 1;
        told.push("comes to rest".to_owned());
        let fresh = oracle(&service, place.path());
        let (wrong, of_this) = differences(&service, &Expectation::of(&shelf, &BTreeSet::new()), &fresh);
        compared.add(of_this);
        assert!(
            wrong.is_empty(),
            "seed {seed}, after {killed} kills, {}\nwhat happened:\n{}\nlog:\n{}",
            shown(&wrong),
            told.join("\n"),
            service.log_tail()
        );
    }
    let in_work = service.log().lines().filter(|line| line.contains("were in work when the process ended")).count();
    println!(
        "{killed} kills, {in_work} of them with a book in work, {} changes; compared {settled} times: {} books, {} points, {} books with \
         a fresh index's ids and {} with those of an earlier file of the same text; 0 differences; {:.1} s",
        told.len() - killed - settled,
        compared.books,
        compared.points,
        compared.same_ids,
        compared.other_ids,
        started.elapsed().as_secs_f64()
    );
}

#[test]
fn slow_kills_at_random_moments_lose_and_double_nothing() {
    killed_at_random(60, None);
}

#[test]
fn slow_kills_at_random_moments_beside_a_server_lose_and_double_nothing() {
    killed_at_random(20, Some(&FakeQdrant::new(None)));
}
