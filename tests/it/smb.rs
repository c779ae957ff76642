//! The running service on a real SMB mount that its server's own programs change, and that hangs, dies and comes back.
//! Nothing is ever removed because of that, everything else goes on, and no hand is needed afterwards.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alexandria_ingestd::clock::now_us;
use serde_json::Value;

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::smb_mount::SmbMount;

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
const SHIPS: &str = "Ships cross the ocean under sail. A storm broke the mast. The crew rowed to the harbour.";
const RIVERS: &str = "Rivers run through the valley to the lake. Herons fish there in the morning.";
/// The default of library.poll_seconds.
const POLL: f64 = 2.0;

/// A library on the server, the mount of it, and the service that looks at the mount.
struct Case {
    // Dropped first: a service that hangs in the mount ends only without it.
    mount: SmbMount,
    daemon: Daemon,
    library: CalibreLibrary,
}

impl Case {
    /// With one book in the index. None where the machine has no means for a mount.
    fn new() -> Option<Self> {
        Self::with(|_| ())
    }

    fn with(settings: impl Fn(&mut Daemon)) -> Option<Self> {
        let library = CalibreLibrary::new();
        let mount = SmbMount::new(&library.path())?;
        library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
        let mut daemon = Daemon::new(&mount.path());
        daemon.set("ingest.retry_seconds", "1");
        settings(&mut daemon);
        daemon.start();
        daemon.until_indexed(1);
        Some(Case { mount, daemon, library })
    }

    fn unavailable(&mut self, why: &[&str]) -> f64 {
        let started = Instant::now();
        self.daemon.until(&format!("the library is not available: {why:?}"), |daemon| {
            let library = daemon.status()["library"].clone();
            let reason = library["reason"].as_str().unwrap_or_default().to_owned();
            library["available"] == false && why.iter().any(|why| reason.contains(why))
        });
        println!("not available: {}", self.daemon.status()["library"]["reason"]);
        started.elapsed().as_secs_f64()
    }

    fn available(&mut self) -> f64 {
        let started = Instant::now();
        self.daemon.until("the library is available again", |daemon| daemon.status()["library"]["available"] == true);
        started.elapsed().as_secs_f64()
    }

    /// The book is still there, in the state and in the store, and nothing was done to it.
    fn nothing_is_removed(&self) {
        let status = self.daemon.status();
        assert_eq!((&status["queue"]["books"], &status["queue"]["missing"]), (&1.into(), &0.into()), "{status}");
        assert_eq!(self.daemon.search("queen lays eggs")[0].0, "The Hive");
        assert_eq!(self.daemon.outcomes(), ["embedded"]);
    }

    /// A book that comes now is taken in: the service is as it was.
    fn goes_on(&mut self) {
        self.library.add(&self.library.epub("ships", "Ships", "B", SHIPS));
        self.daemon.until_indexed(2);
        assert_eq!(self.daemon.search("storm broke the mast")[0].0, "Ships");
        assert!(self.daemon.outcomes().iter().all(|outcome| outcome == "embedded"), "{:?}", self.daemon.outcomes());
    }
}

/// Counts how often the watchdog is fed. Reads all the time, as systemd does: few messages find room in the socket.
fn count_pings(systemd: UnixDatagram) -> Arc<AtomicU64> {
    let fed = Arc::new(AtomicU64::new(0));
    let counted = fed.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(size) = systemd.recv(&mut buffer) {
            counted.fetch_add(u64::from(text(&buffer[..size]).contains("WATCHDOG=1")), Ordering::Relaxed);
        }
    });
    fed
}

fn number(status: &Value, name: &str) -> u64 {
    status["queue"][name].as_u64().unwrap()
}

#[test]
fn what_changes_on_the_server_is_followed_over_smb() {
    let Some(Case { mount: _mount, mut daemon, library }) = Case::new() else { return };
    let status = daemon.status();
    assert_eq!(status["library"]["filesystem"], "fuse", "{status}");
    assert_eq!(status["library"]["kind"], "calibre");
    // It polls, and says why nothing shortens the wait.
    assert_eq!((&status["library"]["poll_seconds"], &status["library"]["hint"]), (&POLL.into(), &Value::Null));
    assert!(status["library"]["no_hint_because"].as_str().unwrap().contains("fuse"), "{status}");
    println!("{}", text(&daemon.ctl(&["status"]).stdout).lines().take(8).collect::<Vec<_>>().join("\n"));

    // Added.
    let id = library.add(&library.epub("ships", "Ships", "Ben Novak", SHIPS));
    let added = Instant::now();
    daemon.until("the book is queued", |daemon| number(&daemon.status(), "books") == 2);
    let seconds = added.elapsed().as_secs_f64();
    println!("calibredb add on the server to queued: {seconds:.2} s after calibredb ended (poll interval {POLL} s)");
    assert!(seconds <= POLL + 2.0, "{seconds:.2} s");
    daemon.until_indexed(2);
    let points = daemon.points();
    assert_eq!(daemon.search("storm broke the mast")[0].0, "Ships");
    let embedded = |daemon: &Daemon| daemon.outcomes().iter().filter(|outcome| *outcome == "embedded").count();
    assert_eq!(embedded(&daemon), 2);

    // Edited.
    let changed = Instant::now();
    library.set_metadata(id, "tags", "sea");
    daemon.until("the edit is taken up", |daemon| daemon.outcomes().len() == 3);
    println!("edit on the server to updated payload: {:.2} s, calibredb included", changed.elapsed().as_secs_f64());
    assert_eq!(daemon.outcomes()[0], "payload_only");

    // Renamed: Calibre makes a new directory.
    library.set_metadata(id, "title", "Ships at Sea");
    daemon.until("the new title is found", |daemon| daemon.search("storm broke the mast")[0].0 == "Ships at Sea");
    daemon.until_indexed(2);
    assert_eq!((embedded(&daemon), daemon.points()), (2, points), "{:?}", daemon.outcomes());

    // Its file replaced.
    library.add_format(id, &library.epub("rivers", "Ships at Sea", "Ben Novak", RIVERS));
    let replaced = Instant::now();
    daemon.until("the new content is found", |daemon| daemon.search("herons fish")[0].1.contains("Herons"));
    println!("a replaced file is found by its new text after {:.2} s", replaced.elapsed().as_secs_f64());
    daemon.until_indexed(2);
    assert_eq!(embedded(&daemon), 3);
    assert!(daemon.search("storm broke the mast").iter().all(|hit| !hit.1.contains("mast")), "the old content is gone");

    // Removed; the grace is a second here.
    library.remove(id);
    let removed = Instant::now();
    daemon.until_indexed(1);
    println!("a removed book left the index after {:.2} s (grace 1 s)", removed.elapsed().as_secs_f64());
    assert!(daemon.search("herons fish").iter().all(|hit| hit.0 == "The Hive"));
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
}

#[test]
fn a_hung_server_holds_up_neither_socket_nor_search_nor_the_end() {
    // What systemd would hear.
    let place = tempfile::tempdir().unwrap();
    let fed = count_pings(UnixDatagram::bind(place.path().join("notify")).unwrap());
    let case = Case::with(|daemon| {
        daemon.set_variable("NOTIFY_SOCKET", place.path().join("notify").to_str().unwrap());
        daemon.set_variable("WATCHDOG_USEC", "3000000");
    });
    let Some(mut case) = case else { return };
    let Case { mount, daemon, library } = &mut case;
    // One book waits in the queue, its file not copied yet.
    assert!(daemon.ctl(&["pause"]).status.success());
    library.add(&library.epub("ships", "Ships", "B", SHIPS));
    daemon.until("the book is queued", |daemon| number(&daemon.status(), "queued") == 1);
    mount.hang_server();
    assert!(daemon.ctl(&["resume"]).status.success());
    let (hung, hung_us) = (Instant::now(), now_us());
    let fed_before = fed.load(Ordering::Relaxed);
    daemon.until("the status tells since when the library does not answer", |daemon| {
        daemon.status()["library"]["reason"].as_str().unwrap_or_default().contains("not answered for")
    });
    println!(
        "told after {:.1} s: {}",
        hung.elapsed().as_secs_f64(),
        daemon.status()["library"]["reason"].as_str().unwrap()
    );
    let mut slowest = 0.0_f64;
    for _ in 0..20 {
        let asked = Instant::now();
        assert!(daemon.ctl(&["status"]).status.success());
        slowest = slowest.max(asked.elapsed().as_secs_f64());
        let asked = Instant::now();
        assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
        slowest = slowest.max(asked.elapsed().as_secs_f64());
    }
    println!("slowest of 20 `alexandriactl status` and 20 searches while the server hangs: {slowest:.3} s");
    assert!(slowest < 1.0, "{slowest:.3} s");
    let status = daemon.status();
    assert_eq!((number(&status, "books"), number(&status, "parked"), number(&status, "missing")), (2, 0, 0));
    let since_us = status["library"]["not_answering_since_us"].as_i64().unwrap();
    assert!((hung_us - 1_000_000..hung_us + 5_000_000).contains(&since_us), "{} us after", since_us - hung_us);
    let (seconds, fed) = (hung.elapsed().as_secs(), fed.load(Ordering::Relaxed) - fed_before);
    println!("systemd's watchdog was fed {fed} times in {seconds} s while the server hung (limit 3 s)");
    assert!(fed >= seconds / 3, "{fed} times in {seconds} s");
    println!("waiting: {}", status["waiting"]);

    // It goes on by itself, and the wait cost the book no attempt.
    mount.wake_server();
    let awake = Instant::now();
    daemon.until_indexed(2);
    println!("the waiting book was in {:.1} s after the server went on", awake.elapsed().as_secs_f64());
    daemon.until("the library is available again", |daemon| daemon.status()["library"]["available"] == true);
    assert_eq!(daemon.json(&["queue", "--state", "done"])["jobs"][0]["attempts"], 1);

    // The end, with another book waiting for its file.
    assert!(daemon.ctl(&["pause"]).status.success());
    library.add(&library.epub("rivers", "Rivers", "C", RIVERS));
    daemon.until("the book is queued", |daemon| number(&daemon.status(), "queued") == 1);
    mount.hang_server();
    assert!(daemon.ctl(&["resume"]).status.success());
    std::thread::sleep(Duration::from_secs(3));
    let asked = Instant::now();
    daemon.signal("TERM");
    daemon.until("the service has stopped", |daemon| daemon.log().contains("stopped"));
    let seconds = asked.elapsed().as_secs_f64();
    println!("SIGTERM to stopped while the server hangs: {seconds:.1} s");
    assert!(seconds < 20.0, "{seconds:.1} s\n{}", daemon.log());
    // Nothing that a successor needs is held by what is left of the process.
    let output = daemon.run(&["search", "queen lays eggs"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // A call that a FUSE program has taken on cannot be given up, not even by SIGKILL (a kernel's cifs mount is better
    // here): what is left of the process goes when the server answers.
    mount.wake_server();
    let (code, _) = daemon.wait(Duration::from_secs(20)).expect("the process is gone when its last call returns");
    assert_eq!(code, Some(0), "{}", daemon.log());
    daemon.start();
    daemon.until_indexed(3);
    assert_eq!(daemon.json(&["queue", "--state", "done"])["jobs"][0]["attempts"], 1, "no attempt was spent");
}

#[test]
fn a_killed_server_that_starts_again_costs_nothing() {
    let Some(mut case) = Case::new() else { return };
    case.mount.kill_server();
    let noticed = case.unavailable(&["does not answer", "not answered for"]);
    case.nothing_is_removed();
    case.mount.start_server();
    let back = case.available();
    println!("server killed: noticed after {noticed:.1} s; started again: available after {back:.1} s");
    case.nothing_is_removed();
    case.goes_on();
}

#[test]
fn a_share_whose_directory_is_moved_away_and_back_costs_nothing() {
    let Some(mut case) = Case::new() else { return };
    let away = case.library.path().with_file_name("away");
    fs::rename(case.library.path(), &away).unwrap();
    let noticed = case.unavailable(&["does not answer", "not answered for", "empty directory", "does not exist"]);
    // Long enough for two looks and the grace.
    std::thread::sleep(Duration::from_secs(5));
    case.nothing_is_removed();
    fs::rename(&away, case.library.path()).unwrap();
    let back = case.available();
    println!("share moved away: noticed after {noticed:.1} s; moved back: available after {back:.1} s");
    case.nothing_is_removed();
    case.goes_on();
}

#[test]
fn a_mount_whose_client_is_killed_and_mounted_again_costs_nothing() {
    let Some(mut case) = Case::new() else { return };
    case.mount.kill_client();
    let noticed = case.unavailable(&["does not answer"]);
    case.nothing_is_removed();
    // Not mounted at all: an empty directory of the local disk.
    crate::mounts::detach(&case.mount.path());
    case.unavailable(&["empty directory"]);
    // Long enough for two looks and the grace.
    std::thread::sleep(Duration::from_secs(5));
    case.nothing_is_removed();
    case.mount.start_client();
    let back = case.available();
    println!("client killed: noticed after {noticed:.1} s; mounted again: available after {back:.1} s");
    case.nothing_is_removed();
    assert_eq!(case.daemon.status()["library"]["filesystem"], "fuse");
    case.goes_on();
}

/// Writes the first half, pauses, and writes the rest, as a copy over a slow line does.
fn write_slowly(path: &Path, bytes: &[u8], pause: Duration) {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    fs::write(path, first).unwrap();
    std::thread::sleep(pause);
    std::io::Write::write_all(&mut fs::File::options().append(true).open(path).unwrap(), rest).unwrap();
}

#[test]
fn a_book_that_arrives_slowly_in_a_folder_is_indexed_whole_and_never_parked() {
    let made = CalibreLibrary::new();
    let book = fs::read(made.epub("slow", "Slow", "A", &[BEES, SHIPS, RIVERS].join(" "))).unwrap();
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("books");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("First.txt"), BEES).unwrap();
    let Some(mount) = SmbMount::new(&folder) else { return };
    let mut daemon = Daemon::new(&mount.path());
    daemon.set("ingest.retry_seconds", "1");
    daemon.start();
    daemon.until_indexed(1);
    let writer = std::thread::spawn(move || write_slowly(&folder.join("Slow.epub"), &book, Duration::from_secs(7)));
    while !writer.is_finished() {
        let status = daemon.status();
        assert_eq!((number(&status, "parked"), number(&status, "done_books")), (0, 1), "{status}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    writer.join().unwrap();
    let whole = Instant::now();
    daemon.until_indexed(2);
    println!("indexed {:.1} s after its last byte was written", whole.elapsed().as_secs_f64());
    assert_eq!(daemon.outcomes(), ["embedded", "embedded"], "once, and whole");
    assert!(daemon.search("herons fish")[0].1.contains("Herons"));
    assert!(!daemon.log().contains("damaged"), "{}", daemon.log());
}

#[test]
fn a_book_of_calibre_that_is_rewritten_slowly_is_indexed_whole_and_never_parked() {
    let Some(Case { mount: _mount, mut daemon, library }) = Case::new() else { return };
    let file = library.path().join("Ana Horvat/The Hive (1)/The Hive - Ana Horvat.epub");
    let book = fs::read(library.epub("new", "The Hive", "Ana Horvat", &[SHIPS, RIVERS].join(" "))).unwrap();
    assert!(file.is_file());
    let writer = std::thread::spawn(move || write_slowly(&file, &book, Duration::from_secs(7)));
    let mut rescanned = 0;
    while !writer.is_finished() {
        // An ordinary look stats no file whose row is as it was.
        assert!(daemon.ctl(&["rescan", "--full"]).status.success());
        rescanned += 1;
        let status = daemon.status();
        assert_eq!((number(&status, "parked"), number(&status, "done_books")), (0, 1), "{status}\n{}", daemon.log());
        assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
        std::thread::sleep(Duration::from_millis(300));
    }
    writer.join().unwrap();
    assert_eq!(daemon.outcomes(), ["embedded"], "after {rescanned} full scans\n{}", daemon.log());
    // Calibre's own row follows, as it does when Calibre replaces a file.
    library.add_format(1, &library.epub("new2", "The Hive", "Ana Horvat", &[SHIPS, RIVERS].join(" ")));
    daemon.until("the new content is found", |daemon| daemon.search("herons fish")[0].1.contains("Herons"));
    daemon.until_indexed(1);
    assert!(!daemon.log().contains("damaged"), "{}", daemon.log());
}
