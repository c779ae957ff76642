//! What machines do to a service: disks that fail, fill up or turn read-only, permissions that go, catalogues that are
//! half-copied. Each of them real, made by the kernel. Nothing is lost or removed, no attempt is spent, nothing loops,
//! and when the trouble is over the service goes on.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::mounts::{Mount, can_test, ext4_image, find};

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
const SHIPS: &str = "Ships cross the ocean under sail. A storm broke the mast. The crew rowed to the harbour.";
const RIVERS: &str = "Rivers run through the valley to the lake. Herons fish there in the morning.";

/// Two books in the index.
fn indexed(library: &CalibreLibrary, path: &Path) -> Daemon {
    let mut daemon = Daemon::new(path);
    daemon.set("ingest.retry_seconds", "0.5");
    if library.calibredb(&["list"]).lines().count() < 2 {
        library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
        library.add(&library.epub("ships", "Ships", "Ben Novak", SHIPS));
    }
    daemon.start();
    daemon.until_indexed(2);
    daemon
}

fn until_unavailable(daemon: &mut Daemon, why: &str) {
    daemon.until(&format!("the library is not available: {why}"), |daemon| {
        let library = daemon.status()["library"].clone();
        library["available"] == false && library["reason"].as_str().unwrap_or_default().contains(why)
    });
    println!("not available: {}", daemon.status()["library"]["reason"]);
}

/// Nothing was removed, missed or done to the two books.
fn both_are_there(daemon: &Daemon) {
    let status = daemon.status();
    assert_eq!((&status["queue"]["books"], &status["queue"]["missing"]), (&2.into(), &0.into()), "{status}");
    assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
    assert_eq!(daemon.search("storm broke the mast")[0].0, "Ships");
    assert_eq!(daemon.outcomes(), ["embedded", "embedded"], "{}", daemon.log());
}

fn until_available(daemon: &mut Daemon) {
    daemon.until("the library is available again", |daemon| daemon.status()["library"]["available"] == true);
}

/// Lines of the log that come in so many seconds.
fn log_lines(daemon: &Daemon, seconds: u64) -> usize {
    let before = daemon.log().lines().count();
    std::thread::sleep(Duration::from_secs(seconds));
    let log = daemon.log();
    for line in log.lines().skip(before).take(12) {
        println!("  {line}");
    }
    log.lines().count() - before
}

/// CPU time of a process, in seconds (proc(5), 100 ticks a second).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Neither words nor work without end.
fn nothing_loops(daemon: &Daemon, what: &str) {
    let before = cpu_seconds(daemon.pid());
    let lines = log_lines(daemon, 10);
    let cpu = cpu_seconds(daemon.pid()) - before;
    println!("{what}: {lines} lines in the log and {cpu:.2} s CPU in 10 s");
    assert!(lines <= 20 && cpu < 2.0, "{lines} lines, {cpu:.2} s CPU\n{}", daemon.log());
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A disk image whose file system is mounted by a loop device.
struct Disk {
    image: PathBuf,
    bytes: Vec<u8>,
    mount: PathBuf,
    _place: TempDir,
}

impl Disk {
    fn with(contents: &Path) -> Self {
        let place = tempfile::tempdir().unwrap();
        let (image, mount) = (place.path().join("image"), place.path().join("mount"));
        ext4_image(&image, 48, contents);
        Disk { bytes: fs::read(&image).unwrap(), image, mount, _place: place }
    }

    fn mount(&self) -> Mount {
        Mount::new(&["-o", "loop,ro", self.image.to_str().unwrap()], &self.mount)
    }

    /// From here on reading gives EIO, but for what the kernel has in memory.
    fn cut(&self, at: u64) {
        fs::File::options().write(true).open(&self.image).unwrap().set_len(at).unwrap();
    }

    fn mend(&self) {
        fs::File::options().write(true).open(&self.image).unwrap().write_all_at(&self.bytes, 0).unwrap();
    }
}

#[test]
fn a_disk_that_cannot_be_read_removes_nothing() {
    if !can_test(&["mkfs.ext4", "losetup"], &["/dev/loop-control"]) {
        return;
    }
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add(&library.epub("ships", "Ships", "Ben Novak", SHIPS));
    let disk = Disk::with(&library.path());
    let mount = disk.mount();
    let mut daemon = indexed(&library, &disk.mount);

    // Mounted afresh, so that the kernel has nothing in memory; the service sees it only afterwards.
    daemon.signal("STOP");
    mount.unmount();
    let mount = disk.mount();
    disk.cut(1 << 20);
    daemon.signal("CONT");
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    until_unavailable(&mut daemon, "does not answer");
    // Long enough for two looks and the grace.
    std::thread::sleep(Duration::from_secs(4));
    nothing_loops(&daemon, "a library of I/O errors");
    both_are_there(&daemon);
    disk.mend();
    until_available(&mut daemon);
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    std::thread::sleep(Duration::from_secs(1));
    both_are_there(&daemon);
    assert_eq!(daemon.stop().0, Some(0));
    mount.unmount();
}

#[test]
fn one_file_that_the_disk_cannot_read_holds_up_no_other_book() {
    if !can_test(&["mkfs.ext4", "losetup", "filefrag"], &["/dev/loop-control"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("books");
    fs::create_dir(&folder).unwrap();
    let disk = {
        // The large file is written last, by the kernel: it lies behind the others.
        fs::write(folder.join("The Hive.txt"), BEES).unwrap();
        fs::write(folder.join("Ships.txt"), SHIPS).unwrap();
        let mut disk = Disk::with(&folder);
        let mount = Mount::new(&["-o", "loop", disk.image.to_str().unwrap()], &disk.mount);
        fs::write(disk.mount.join("Large.txt"), "The herons stand in the river. ".repeat(300_000)).unwrap();
        mount.unmount();
        disk.bytes = fs::read(&disk.image).unwrap();
        disk
    };
    let mount = disk.mount();
    let starts = ["The Hive.txt", "Ships.txt", "Large.txt"].map(|name| first_byte(&disk.mount.join(name)));
    assert!(starts[2] > starts[0].max(starts[1]), "{starts:?}");
    // Within the large file: its first blocks can be read.
    disk.cut(starts[2] + (4 << 20));

    let mut daemon = Daemon::new(&disk.mount);
    daemon.set("ingest.retry_seconds", "0.5");
    daemon.set("ingest.max_attempts", "3");
    daemon.start();
    daemon.until("the others are in", |daemon| daemon.status()["queue"]["done_books"] == 2);
    daemon.until("the bad one is parked with the reason", |daemon| daemon.status()["queue"]["parked"] == 1);
    let failed = text(&daemon.ctl(&["failed"]).stdout);
    println!("{failed}");
    assert!(failed.contains("Large") && failed.contains("Input/output error"), "{failed}");
    assert_eq!(daemon.status()["library"]["available"], true, "the library itself is there");
    drop(mount);
}

/// Where on its disk a file begins.
fn first_byte(path: &Path) -> u64 {
    let output = Command::new(find("filefrag").unwrap()).args(["-v", "-b1"]).arg(path).output().unwrap();
    let printed = text(&output.stdout);
    // `   0:        0..    4095:    4472832..    4476927:   4096: last,eof`
    let line = printed.lines().find(|line| line.trim_start().starts_with("0:")).expect("a file has an extent");
    line.split(':').nth(2).unwrap().split("..").next().unwrap().trim().parse().unwrap()
}

#[test]
fn a_library_that_the_services_user_may_not_read_removes_nothing() {
    if !can_test(&["setpriv"], &[]) {
        return;
    }
    const NOBODY: u32 = 65534;
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add(&library.epub("ships", "Ships", "Ben Novak", SHIPS));
    set_mode(library.path().parent().unwrap(), 0o755);
    let mut daemon = Daemon::new(&library.path());
    daemon.run_as(NOBODY);
    daemon.start();
    daemon.until_indexed(2);
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}")), "{status}");

    // The catalogue, the whole library, one author's directory.
    set_mode(&library.database(), 0o000);
    assert!(daemon.ctl(&["rescan"]).status.success());
    until_unavailable(&mut daemon, "permissions");
    both_are_there(&daemon);
    set_mode(&library.database(), 0o644);
    until_available(&mut daemon);

    set_mode(&library.path(), 0o000);
    until_unavailable(&mut daemon, "permissions");
    // Long enough for two looks and the grace.
    std::thread::sleep(Duration::from_secs(4));
    both_are_there(&daemon);
    set_mode(&library.path(), 0o755);
    until_available(&mut daemon);

    let closed = library.path().join("Ana Horvat");
    set_mode(&closed, 0o000);
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    std::thread::sleep(Duration::from_secs(3));
    both_are_there(&daemon);
    // A new book that cannot be seen yet, and is found when it can.
    set_mode(&closed, 0o755);
    library.add(&library.epub("wax", "Wax", "Ana Horvat", RIVERS));
    set_mode(&closed, 0o000);
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    std::thread::sleep(Duration::from_secs(3));
    set_mode(&closed, 0o755);
    daemon.until_indexed(3);
    assert_eq!(daemon.search("herons fish")[0].0, "Wax");
    assert_eq!(daemon.outcomes(), ["embedded"; 3], "{}", daemon.log());
}

#[test]
fn a_half_copied_catalogue_removes_nothing() {
    let library = CalibreLibrary::new();
    let mut daemon = indexed(&library, &library.path());
    let whole = fs::read(library.database()).unwrap();
    // Cut inside a page, between two pages, after the header, and just begun.
    for size in [whole.len() / 2 + 100, 4096 * 40, 100, 0] {
        fs::write(library.database(), &whole[..size]).unwrap();
        until_unavailable(&mut daemon, "metadata.db");
        std::thread::sleep(Duration::from_secs(2));
        both_are_there(&daemon);
        fs::write(library.database(), &whole).unwrap();
        until_available(&mut daemon);
        both_are_there(&daemon);
    }
    // Copied slowly, from its beginning, over the old one.
    fs::write(library.database(), &whole[..whole.len() / 3]).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    fs::write(library.database(), &whole).unwrap();
    until_available(&mut daemon);
    both_are_there(&daemon);
    library.add(&library.epub("rivers", "Rivers", "C", RIVERS));
    daemon.until_indexed(3);
}

#[test]
fn a_library_at_another_path_embeds_nothing() {
    let library = CalibreLibrary::new();
    let mut daemon = indexed(&library, &library.path());
    let points = daemon.points();
    assert_eq!(daemon.stop().0, Some(0));
    let place = tempfile::tempdir().unwrap();
    let moved = place.path().join("elsewhere");
    fs::create_dir(&moved).unwrap();
    // Onto another file system where there is one: times are kept, inodes are not.
    let copied = Command::new("cp").arg("-a").arg(library.path().join(".")).arg(&moved).status().unwrap();
    assert!(copied.success());
    fs::remove_dir_all(library.path()).unwrap();
    daemon.set("library.path", moved.to_str().unwrap());
    daemon.start();
    until_available(&mut daemon);
    assert!(daemon.ctl(&["rescan", "--full"]).status.success());
    std::thread::sleep(Duration::from_secs(2));
    daemon.until_indexed(2);
    assert_eq!(daemon.points(), points);
    both_are_there(&daemon);
    // The state knows the new place: a book asked for by hand is read from there.
    assert!(daemon.ctl(&["ingest", "1", "--force"]).status.success());
    daemon.until("it was embedded again", |daemon| daemon.outcomes().len() == 3);
    daemon.until_indexed(2);
}

#[test]
fn a_full_disk_spends_no_attempts_and_is_got_over() {
    if !can_test(&["mount"], &[]) {
        return;
    }
    let library = CalibreLibrary::new();
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add(&library.epub("ships", "Ships", "Ben Novak", SHIPS));
    let mut daemon = Daemon::new(&library.path());
    daemon.set("ingest.retry_seconds", "0.5");
    // Room for the state, but less than the store keeps free.
    let disk = Mount::tmpfs(100, &daemon.state_dir());
    daemon.start();
    daemon.until("the status says what is lacking", |daemon| {
        daemon.status()["store"]["reason"].as_str().unwrap_or_default().contains("are free on its disk")
    });
    println!("store: {}", daemon.status()["store"]["reason"]);
    nothing_loops(&daemon, "a disk too small for the store");
    let status = daemon.status();
    assert_eq!((&status["queue"]["parked"], &status["queue"]["done_books"]), (&0.into(), &0.into()), "{status}");
    disk.remount("size=1g");
    daemon.until_indexed(2);
    let attempts = |daemon: &Daemon| -> Vec<u64> {
        let done = daemon.json(&["queue", "--state", "done"]);
        done["jobs"].as_array().unwrap().iter().map(|job| job["attempts"].as_u64().unwrap()).collect()
    };
    assert_eq!(attempts(&daemon), [1, 1]);
    both_are_there(&daemon);

    // Full to the last byte, while a book comes.
    let used = Command::new("df").args(["--output=used", "-k"]).arg(daemon.state_dir()).output().unwrap();
    let used: u64 = text(&used.stdout).lines().nth(1).unwrap().trim().parse().unwrap();
    disk.remount(&format!("size={used}k"));
    library.add(&library.epub("rivers", "Rivers", "C", RIVERS));
    nothing_loops(&daemon, "a disk without a free byte");
    let asked = Instant::now();
    assert!(daemon.ctl(&["status"]).status.success());
    assert_eq!(daemon.search("queen lays eggs")[0].0, "The Hive");
    println!("status and a search on a full disk: {:.3} s", asked.elapsed().as_secs_f64());
    let status = daemon.status();
    println!("library: {}; store: {}", status["library"]["reason"], status["store"]["reason"]);
    let words = ["disk is full", "No space left", "no storage space"];
    assert!(words.iter().any(|word| daemon.log().contains(word)), "{}", daemon.log());
    disk.remount("size=1g");
    daemon.until_indexed(3);
    assert_eq!(daemon.search("herons fish")[0].0, "Rivers");
    assert_eq!(attempts(&daemon), [1, 1, 1]);
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
    // What is on disk is whole.
    daemon.start();
    daemon.until_indexed(3);
    daemon.stop();
}

#[test]
fn a_read_only_state_directory_ends_the_start_with_a_word() {
    if !can_test(&["mount"], &[]) {
        return;
    }
    let library = CalibreLibrary::new();
    let mut daemon = Daemon::new(&library.path());
    let disk = Mount::tmpfs(1024, &daemon.state_dir());
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    daemon.start();
    daemon.until_indexed(1);
    daemon.stop();
    disk.remount("ro");
    let started = Instant::now();
    let output = daemon.run(&[]);
    let said = text(&output.stderr);
    println!("{said}ended after {:.2} s", started.elapsed().as_secs_f64());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("writable"), "{said}");
    disk.remount("rw");
    daemon.start();
    daemon.until_indexed(1);
    assert_eq!(daemon.outcomes(), ["embedded"]);
    daemon.stop();
}

/// A file system with files open for writing cannot be remounted read-only; the kernel itself does it after an error,
/// and then there is no way back but a repair of the unmounted disk.
#[test]
fn a_state_directory_that_turns_read_only_loses_nothing() {
    if !can_test(&["mkfs.ext4", "losetup", "e2fsck"], &["/dev/loop-control"]) {
        return;
    }
    let library = CalibreLibrary::new();
    let mut daemon = Daemon::new(&library.path());
    let (image, empty) = (daemon.place.path().join("image"), daemon.place.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    ext4_image(&image, 1024, &empty);
    let options = ["-o", "loop,errors=remount-ro", image.to_str().unwrap()];
    let disk = Mount::new(&options, &daemon.state_dir());
    library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    library.add(&library.epub("ships", "Ships", "Ben Novak", SHIPS));
    daemon.start();
    daemon.until_indexed(2);

    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let of_state = |line: &&str| line.split(' ').nth(1) == daemon.state_dir().to_str();
    let device = mounts.lines().find(of_state).unwrap().split(' ').next().unwrap().trim_start_matches("/dev/");
    let trigger = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
    fs::write(&trigger, "a test").unwrap();
    assert!(fs::write(daemon.state_dir().join("probe"), "x").is_err(), "the file system is read-only now");
    library.add(&library.epub("rivers", "Rivers", "C", RIVERS));
    nothing_loops(&daemon, "a state that turned read-only");
    let log = daemon.log();
    assert_eq!(log.matches("scratch cannot be written").count(), 1, "the same trouble is told once\n{log}");
    assert!(log.contains("read-only filesystem"), "{log}");
    both_are_there(&daemon);
    let status = daemon.status();
    println!("library: {}; store: {}", status["library"]["reason"], status["store"]["reason"]);
    let (code, seconds) = daemon.stop();
    println!("stopped with {code:?} after {seconds:.1} s");
    assert!(seconds < 20.0, "{seconds} s\n{}", daemon.log());

    // Repaired as an operator would.
    disk.unmount();
    let repaired = Command::new(find("e2fsck").unwrap()).args(["-f", "-y"]).arg(&image).output().unwrap();
    assert!(repaired.status.code().is_some_and(|code| code <= 2), "{}", text(&repaired.stdout));
    let _disk = Mount::new(&options, &daemon.state_dir());
    daemon.start();
    daemon.until_indexed(3);
    // The end was no orderly one, so state and store are compared, and agree.
    let (embedded, others): (Vec<_>, Vec<_>) = daemon.outcomes().into_iter().partition(|outcome| outcome == "embedded");
    assert!(embedded.len() == 3 && others.iter().all(|outcome| outcome == "unchanged"), "{others:?}");
    assert_eq!(daemon.search("herons fish")[0].0, "Rivers");
    daemon.stop();
}

#[test]
fn a_damaged_state_file_is_refused_with_what_to_do_and_its_backup_works() {
    let library = CalibreLibrary::new();
    let mut daemon = indexed(&library, &library.path());
    assert_eq!(daemon.stop().0, Some(0));
    let state = daemon.state_dir().join("state.db");
    let whole = fs::read(&state).unwrap();
    let page = 4096;
    assert!(whole.len() > 8 * page, "{} bytes", whole.len());
    let mut garbled = whole.clone();
    garbled[2 * page..6 * page].fill(0x5a);
    for (what, bytes) in [("garbled", garbled.as_slice()), ("cut", &whole[..whole.len() / 2])] {
        fs::write(&state, bytes).unwrap();
        let output = daemon.run(&[]);
        let said = text(&output.stderr);
        println!("{what}: {said}");
        assert_eq!(output.status.code(), Some(3), "{what}: {said}");
        for word in ["state.db", "damaged", "backup"] {
            assert!(said.contains(word), "{what}: {word:?} is not in: {said}");
        }
        assert_eq!(fs::read(&state).unwrap(), bytes, "{what}: it is left as it is, for who wants to rescue it");
    }
    fs::write(&state, &whole).unwrap();
    daemon.start();
    daemon.until_indexed(2);
    both_are_there(&daemon);
}

/// Found while the package was tried: it ended with 1, and systemd started it again for ever.
#[test]
fn a_value_that_makes_no_sense_in_the_state_ends_the_service_with_three() {
    let library = CalibreLibrary::new();
    let mut daemon = indexed(&library, &library.path());
    assert_eq!(daemon.stop().0, Some(0));
    let state = rusqlite::Connection::open(daemon.state_dir().join("state.db")).unwrap();
    state.execute("UPDATE books SET metadata = 'no JSON'", []).unwrap();
    let changed = state
        .execute("UPDATE jobs SET state = 'queued', finished_us = NULL WHERE id IN (SELECT max(id) FROM jobs)", []);
    assert_eq!(changed.unwrap(), 1, "one job is to be done again");
    drop(state);
    daemon.spawn();
    let ended = daemon.wait(std::time::Duration::from_secs(60));
    assert_eq!(ended.map(|(code, _)| code), Some(Some(3)), "{}", daemon.log());
    assert!(daemon.log().contains("a value that makes no sense"), "{}", daemon.log());
}
