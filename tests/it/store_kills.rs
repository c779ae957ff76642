//! The embedded store under kill -9: writers in a process of their own, killed while they write and while the index is
//! built; whatever they were told was done must be there.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use alexandria_ingestd::domain::Point;
use alexandria_ingestd::store::edge::EdgeStore;
use alexandria_ingestd::store::{CollectionSpec, Filter, VectorStore};
use uuid::Uuid;

use crate::store::{catalogue, expected, numbered_book, of_book, point_of, points_of, scroll_all, spec};

const CHILD_DIR: &str = "ALEXANDRIA_TEST_STORE_CHILD_DIR";
const CHILD_FROM: &str = "ALEXANDRIA_TEST_STORE_CHILD_FROM";
const BOOK_POINTS: usize = 70;

/// Runs in a process of its own and is killed: books are written, retitled and halved, each step told once it is
/// acknowledged.
#[test]
#[ignore = "a part of killed_writers_lose_nothing_acknowledged, which runs it as its own process"]
fn child_that_writes() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let from: usize = std::env::var(CHILD_FROM).unwrap().parse().unwrap();
    let store = EdgeStore::open(Path::new(&dir)).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    let mut out = std::io::stdout();
    let mut tell = |line: String| {
        out.write_all(format!("\nACK {line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                store.maintain().unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for number in from.. {
            let points = points_of(numbered_book(number), "one", BOOK_POINTS);
            let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
            store.upsert(&points).unwrap();
            tell(format!("written {number}"));
            store.set_catalogue(&ids, &catalogue("retitled"), None).unwrap();
            tell(format!("retitled {number}"));
            store.delete(&ids[..BOOK_POINTS / 2]).unwrap();
            tell(format!("halved {number}"));
            if number % 7 == 0 {
                store.checkpoint().unwrap();
            }
        }
    });
}

#[test]
fn killed_writers_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut done: Vec<usize> = Vec::new(); // steps acknowledged of each book
    for (round, until) in [3usize, 40, 9, 160, 24, 75].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store_kills::child_that_writes", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_FROM, done.len().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = 0;
        let mut take = |line: String| {
            let Some(rest) = line.strip_prefix("ACK ") else { return };
            let (step, number) = rest.split_once(' ').unwrap();
            let number: usize = number.parse().unwrap();
            let steps = ["written", "retitled", "halved"].iter().position(|known| *known == step).unwrap() + 1;
            done.resize(done.len().max(number + 1), 0);
            done[number] = steps;
            told += 1;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < until {
            let line = lines.next().expect("the child ended by itself").unwrap();
            seen += usize::from(line.starts_with("ACK "));
            take(line);
        }
        // Somewhere in a later step rather than always right after an acknowledgement.
        std::thread::sleep(Duration::from_micros(round as u64 * 3_300));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was told between the last look and the kill; a torn last line is none.
        lines.map_while(Result::ok).filter(|line| line.split(' ').count() == 3).for_each(take);
        assert!(told >= until);

        let store = EdgeStore::open(dir.path()).unwrap();
        store.ensure_collection(&spec("books")).unwrap();
        for (number, steps) in done.iter().enumerate() {
            let book = numbered_book(number);
            let ids: HashSet<Uuid> = store.points_of_book(book).unwrap().into_iter().map(|point| point.id).collect();
            let all = points_of(book, "one", BOOK_POINTS);
            let retitled = store.count(&of_book(book).and("book_title", "retitled")).unwrap();
            assert_eq!(store.count(&of_book(book)).unwrap(), ids.len());
            let context = format!("round {round}, book {number} after {steps} steps: {} points", ids.len());
            // A step that was not acknowledged may be there in part; the ones before it must be there whole.
            match steps {
                0 => {}
                1 => assert_eq!(ids.len(), BOOK_POINTS, "{context}"),
                2 => {
                    assert!(all[BOOK_POINTS / 2..].iter().all(|point| ids.contains(&point.id)), "{context}");
                    assert_eq!(retitled, ids.len(), "{context}");
                }
                _ => {
                    let half: HashSet<Uuid> = all[BOOK_POINTS / 2..].iter().map(|point| point.id).collect();
                    assert_eq!(ids, half, "{context}");
                    assert_eq!(retitled, ids.len(), "{context}");
                }
            }
            for point in all.iter().filter(|point| ids.contains(&point.id)).take(2) {
                let hit = store.search(&point.vector, &of_book(book), 1).unwrap().remove(0);
                assert_eq!((hit.id, (hit.score * 1000.0).round()), (point.id, 1000.0), "{context}");
            }
        }
    }
    println!("6 kills, {} books, {} acknowledged steps, none lost", done.len(), done.iter().sum::<usize>());
}

const OPTIMISED_POINTS: usize = 8_000;
const OPTIMISED_DIMENSION: usize = 512;

fn optimised_points() -> impl Iterator<Item = Point> {
    (0..OPTIMISED_POINTS).map(|n| point_of(numbered_book(n / 100), "one", n % 100, OPTIMISED_DIMENSION))
}

#[test]
#[ignore = "a part of a_kill_while_the_index_is_built_loses_nothing, which runs it as its own process"]
fn child_that_optimises() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = EdgeStore::open(Path::new(&dir)).unwrap();
    store.ensure_collection(&CollectionSpec { dimension: OPTIMISED_DIMENSION, ..spec("books") }).unwrap();
    store.upsert(&optimised_points().collect::<Vec<_>>()).unwrap();
    store.maintain().unwrap();
    panic!("the index was built before the kill");
}

#[test]
fn a_kill_while_the_index_is_built_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().join("books/temp_segments");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store_kills::child_that_optimises", "--ignored", "--test-threads=1"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // It is there as soon as the rebuilding starts; what is in it must have grown before the kill means something.
    while std::fs::read_dir(&temp).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(temp.exists());

    let store = EdgeStore::open(dir.path()).unwrap();
    store.ensure_collection(&CollectionSpec { dimension: OPTIMISED_DIMENSION, ..spec("books") }).unwrap();
    assert!(!temp.exists());
    assert_eq!(scroll_all(&store, 1000), expected(&optimised_points().collect::<Vec<_>>()));
    let wanted = point_of(numbered_book(3), "one", 42, OPTIMISED_DIMENSION);
    assert_eq!(store.search(&wanted.vector, &Filter::default(), 1).unwrap()[0].id, wanted.id);
}
