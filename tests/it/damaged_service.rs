//! Damaged and hostile books by the thousand, through the running service: it goes on, leaves no child and no descriptor
//! behind, does not grow, and the good books among them are read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::damage::damaged_files;
use crate::sandbox::readers_of;

/// How many files, where not as many as every run of the tests can afford: ten thousand take a quarter of an hour.
const FILES: &str = "ALEXANDRIA_DAMAGED_FILES";
/// One good book after so many bad ones.
const GOOD: usize = 50;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Private memory in KiB (proc(5)).
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Writes the next files of the corpus, and a good book after every fifty. The count of good ones.
fn add(library: &Path, files: &mut impl Iterator<Item = (String, &'static str, Vec<u8>)>, from: usize, to: usize) {
    for (number, (_, format, bytes)) in (from..to).zip(files) {
        std::fs::write(library.join(format!("{number:05}.{}", format.to_lowercase())), bytes).unwrap();
        if number % GOOD == 0 {
            let text = format!("Good book {number}: the bees of hive {number} dance at noon.");
            std::fs::write(library.join(format!("good-{number:05}.txt")), text).unwrap();
        }
    }
}

#[test]
fn slow_the_service_outlives_thousands_of_damaged_books() {
    let wanted = std::env::var(FILES).ok().and_then(|count| count.parse().ok()).unwrap_or(400);
    let library = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::new(library.path());
    daemon.set("extract.max_text_mib", "4");
    daemon.set("extract.cpu_seconds", "20");
    daemon.set("library.poll_seconds", "0.5");
    // They lie there as they are: none of them is on its way.
    daemon.set("ingest.unfinished_seconds", "0");
    let mut files = damaged_files(0xdaea).filter(|(_, _, bytes)| !bytes.is_empty());
    std::fs::write(library.path().join("good-first.txt"), "The first good book.").unwrap();
    daemon.start();
    let pid = daemon.pid();
    daemon.until_indexed(1);
    let started = Instant::now();
    let before = (descriptors(pid), memory(pid));
    println!("before: {} descriptors, {} MiB private memory", before.0, before.1 >> 10);
    let mut at = 0;
    let mut last = before;
    while at < wanted {
        let next = (at + 500).min(wanted);
        add(library.path(), &mut files, at, next);
        let good = 1 + next.div_ceil(GOOD) as u64;
        let batch = Instant::now();
        loop {
            let queue = daemon.status()["queue"].clone();
            let count = |name: &str| queue[name].as_u64().unwrap();
            // Unchanged in number, and nothing to do: all are read or parked.
            let settled = count("done_books") + count("parked");
            if settled >= next as u64 + good && count("queued") + count("running") + count("waiting") == 0 {
                break;
            }
            assert!(batch.elapsed() < Duration::from_secs(1500), "the queue does not empty: {queue}\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        last = (descriptors(pid), memory(pid));
        println!(
            "{next} files after {:.0} s: {} descriptors, {} MiB private memory, {} readers",
            started.elapsed().as_secs_f64(),
            last.0,
            last.1 >> 10,
            readers_of(pid).len()
        );
        at = next;
    }
    assert_eq!(daemon.pid(), pid);
    assert!(readers_of(pid).len() <= 2, "one reader a worker");
    assert!(last.0 <= before.0 + 8, "descriptors went from {} to {}", before.0, last.0);
    let (_, seconds) = daemon.stop();
    assert!(readers_of(pid).is_empty());
    println!("stopped in {seconds:.1} s");
    // By the log, because it has every book with its reason.
    let log = daemon.log();
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for (what, mark) in [
        ("indexed", " indexed: "),
        ("damaged", " is damaged: "),
        ("encrypted", " is encrypted "),
        ("no text", " holds no text"),
        ("too large", " is too large: "),
        ("too costly", "; a repaired or converted copy may do"),
        ("crashed", " crashed its reader "),
        ("killed", " could not be read now: "),
    ] {
        outcomes.insert(what, log.lines().filter(|line| line.contains(mark)).count());
    }
    println!("{outcomes:?}");
    assert_eq!((outcomes["crashed"], outcomes["killed"]), (0, 0), "{}", crashes(&log));
    assert!(!log.contains("ERROR"), "{}", log.lines().filter(|line| line.contains("ERROR")).collect::<String>());
}

fn crashes(log: &str) -> String {
    let bad = |line: &&str| line.contains("crashed its reader") || line.contains("could not be read now");
    log.lines().filter(bad).take(20).collect::<Vec<_>>().join("\n")
}
