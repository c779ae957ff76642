//! The shared ingest log and manifest, read by Python's sqlite3 as the user's dashboard reads it: what it says, and what
//! becomes of it where the file is locked, read-only, full or does not answer, and where the service is killed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::mounts::{self, Mount, can_test};

/// Every row of a table as an object, with Python's own types.
fn python(file: &Path, table: &str) -> Vec<Value> {
    const READ: &str = r#"
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute(f"SELECT * FROM {sys.argv[2]} ORDER BY id")]))
"#;
    let output = Command::new("python3").arg("-c").arg(READ).arg(file).arg(table).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A plain folder with so many small books, and the log in it.
struct Folder {
    place: TempDir,
}

impl Folder {
    fn new(books: usize) -> Self {
        let folder = Folder { place: tempfile::tempdir().unwrap() };
        fs::create_dir(folder.path()).unwrap();
        (0..books).for_each(|number| folder.put(number, ""));
        folder
    }

    fn path(&self) -> PathBuf {
        self.place.path().join("books")
    }

    fn log(&self) -> PathBuf {
        self.path().join(".qdrant/alexandria.db")
    }

    /// A file that has come to rest.
    fn put(&self, number: usize, more: &str) {
        let file = self.path().join(format!("book{number}.txt"));
        fs::write(&file, format!("Bees of hive {number} bring nectar home in the evening. {more}")).unwrap();
        let past = std::time::SystemTime::now() - Duration::from_secs(60 + number as u64);
        fs::File::options().write(true).open(&file).unwrap().set_modified(past).unwrap();
    }

    fn daemon(&self) -> Daemon {
        let mut daemon = Daemon::new(&self.path());
        daemon.set("ingest_log.enabled", "true");
        daemon
    }
}

fn until_caught_up(daemon: &mut Daemon) {
    daemon.until("the ingest log is caught up", |daemon| {
        let log = &daemon.status()["ingest_log"];
        log["behind"] == 0 && log["trouble"].is_null() && !log["written_us"].is_null()
    });
}

fn titles(rows: &[Value]) -> Vec<String> {
    let mut titles: Vec<String> = rows.iter().map(|row| row["book_title"].as_str().unwrap().to_owned()).collect();
    titles.sort();
    titles
}

#[test]
fn the_dashboard_sees_what_the_daemon_does() {
    let folder = Folder::new(3);
    fs::write(folder.path().join("broken.epub"), "no archive").unwrap();
    let mut daemon = folder.daemon();
    daemon.set("ingest.unfinished_seconds", "0");
    daemon.start();
    daemon.until_indexed(3);
    daemon.until("the broken one is parked", |daemon| daemon.status()["queue"]["parked"] == 1);
    daemon.until("four rows", |_| folder.log().exists() && python(&folder.log(), "ingest_log").len() == 4);
    until_caught_up(&mut daemon);

    let books = python(&folder.log(), "books");
    assert_eq!(titles(&books), ["book0", "book1", "book2"]);
    for book in &books {
        assert_eq!((book["collection"].as_str(), book["source"].as_str()), (Some("alexandria"), Some("file")));
        assert_eq!((book["file_type"].as_str(), book["chunks_count"].as_i64()), (Some("TXT"), Some(1)), "{book}");
        assert!(book["file_size_mb"].is_f64() && book["source_id"].is_string(), "{book}");
        let name = format!("{}.txt", book["book_title"].as_str().unwrap());
        assert_eq!(book["file_name"], name);
        assert_eq!(book["file_path"], folder.path().join(&name).to_str().unwrap());
        let at = book["ingested_at"].as_str().unwrap();
        assert!(at.len() == 26 && at.as_bytes()[10] == b'T', "as the points have it: {at}");
    }
    let log = python(&folder.log(), "ingest_log");
    let failed: Vec<&Value> = log.iter().filter(|row| row["success"] == 0).collect();
    assert_eq!((log.len(), failed.len()), (4, 1));
    assert_eq!((failed[0]["book_title"].as_str(), failed[0]["chunks"].as_i64()), (Some("broken"), Some(0)));
    let done = log.iter().find(|row| row["success"] == 1).unwrap();
    assert_eq!((done["model_id"].as_str(), done["chunks"].as_i64()), (Some("fake"), Some(1)), "{done}");
    assert!(done["duration_total"].as_f64().unwrap() >= done["duration_embed"].as_f64().unwrap(), "{done}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(done["hostname"], host.trim());

    // Our own file is no event and no book: the folder is at rest.
    let looked = daemon.status()["library"]["last_look_us"].clone();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.status()["library"]["last_look_us"], looked);
    assert_eq!(daemon.status()["queue"]["books"], 4);

    // A new text, and a book that goes.
    folder.put(1, &"And they sleep all winter long. ".repeat(2000));
    daemon.until("its line follows", |_| {
        python(&folder.log(), "books").iter().any(|book| book["chunks_count"].as_i64() > Some(1))
    });
    assert_eq!(python(&folder.log(), "books").len(), 3);
    fs::remove_file(folder.path().join("book2.txt")).unwrap();
    daemon.until("its line goes", |_| titles(&python(&folder.log(), "books")) == ["book0", "book1"]);
    assert_eq!(python(&folder.log(), "ingest_log").len(), 5, "a removal is no ingestion");
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
    // Nothing but the file itself is left beside it.
    let left: Vec<_> =
        fs::read_dir(folder.log().parent().unwrap()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["alexandria.db"]);
}

#[test]
fn a_calibre_library_is_not_disturbed_and_metadata_follow() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", "Bees live in a hive all summer."));
    let log = library.path().join(".qdrant/alexandria.db");
    let mut daemon = Daemon::new(&library.path());
    daemon.set("ingest_log.enabled", "true");
    daemon.start();
    daemon.until_indexed(1);
    daemon.until("its line", |_| log.exists() && python(&log, "books").len() == 1);
    let book = python(&log, "books").remove(0);
    assert_eq!((book["author"].as_str(), book["file_type"].as_str()), (Some("Ana Horvat"), Some("EPUB")));
    assert_eq!((book["source_id"].as_str(), book["language"].as_str()), (Some(id.to_string().as_str()), Some("en")));
    library.set_metadata(id, "title", "Life of the Hive");
    daemon.until("the new title", |_| python(&log, "books")[0]["book_title"] == "Life of the Hive");
    assert_eq!(python(&log, "ingest_log").len(), 1, "nothing was ingested again");
    // calibredb's own check of the library finds nothing wrong.
    assert!(library.calibredb(&["list"]).contains("Life of the Hive"));
    let path = python(&log, "books")[0]["file_path"].as_str().unwrap().to_owned();
    assert!(path.contains("Life of the Hive") && Path::new(&path).is_file(), "{path}");
}

/// Python with the file's lock, until it is dropped.
struct Locked(Child);

impl Locked {
    fn new(file: &Path) -> Self {
        const LOCK: &str = r#"
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("INSERT INTO ingest_log (timestamp, book_title, success) VALUES ('now', 'Python', 1)")
connection.execute("COMMIT")
"#;
        let mut child = Command::new("python3")
            .arg("-c")
            .arg(LOCK)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Locked(child)
    }

    fn release(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn another_writer_is_waited_for_and_holds_up_no_book() {
    let folder = Folder::new(2);
    let mut daemon = folder.daemon();
    daemon.start();
    daemon.until_indexed(2);
    until_caught_up(&mut daemon);
    daemon.until("two lines", |_| python(&folder.log(), "books").len() == 2);

    let locked = Locked::new(&folder.log());
    folder.put(2, "");
    daemon.until_indexed(3);
    daemon.until("the status says so", |daemon| {
        daemon.status()["ingest_log"]["trouble"].as_str().is_some_and(|trouble| trouble.contains("locked"))
    });
    let waiting = daemon.status()["waiting"].to_string();
    assert!(waiting.contains("ingest log is 2 rows and lines behind"), "{waiting}");
    assert!(text(&daemon.ctl(&["status"]).stdout).contains("ingest log"));
    // A restart in between loses nothing.
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
    daemon.start();
    locked.release();
    until_caught_up(&mut daemon);
    assert_eq!(titles(&python(&folder.log(), "books")), ["book0", "book1", "book2"]);
    assert_eq!(titles(&python(&folder.log(), "ingest_log")), ["Python", "book0", "book1", "book2"]);
}

#[test]
fn a_kill_at_any_moment_loses_and_doubles_nothing() {
    const BOOKS: usize = 40;
    let folder = Folder::new(BOOKS);
    let mut daemon = folder.daemon();
    // A book that several kills met is not to wait for minutes, nor to be parked.
    daemon.set("ingest.retry_seconds", "0.05");
    daemon.set("ingest.max_attempts", "100");
    for round in 0..8 {
        daemon.start();
        std::thread::sleep(Duration::from_millis(150 + 170 * round));
        daemon.kill();
    }
    daemon.start();
    daemon.until_indexed(BOOKS as u64);
    until_caught_up(&mut daemon);
    daemon.until("all lines", |_| python(&folder.log(), "books").len() == BOOKS);
    let log = python(&folder.log(), "ingest_log");
    let mut keys: Vec<String> = log.iter().map(|row| format!("{} {}", row["timestamp"], row["book_title"])).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), log.len(), "no row twice");
    println!("{} rows for {BOOKS} books and 8 kills", log.len());
    let mut done = titles(&log.into_iter().filter(|row| row["success"] == 1).collect::<Vec<_>>());
    done.dedup();
    assert_eq!(done.len(), BOOKS, "each came in once at least, whenever its job was cut short");
}

#[test]
fn a_file_that_was_lost_is_made_again_at_the_next_start() {
    let folder = Folder::new(3);
    let mut daemon = folder.daemon();
    daemon.start();
    daemon.until_indexed(3);
    until_caught_up(&mut daemon);
    daemon.until("three lines", |_| python(&folder.log(), "books").len() == 3);
    daemon.stop();
    fs::remove_dir_all(folder.path().join(".qdrant")).unwrap();
    daemon.start();
    daemon.until("the manifest is whole again", |_| folder.log().exists() && python(&folder.log(), "books").len() == 3);
}

#[test]
fn a_run_without_a_service_writes_it_too() {
    let folder = Folder::new(2);
    let daemon = folder.daemon();
    let output = daemon.run(&["ingest", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((python(&folder.log(), "books").len(), python(&folder.log(), "ingest_log").len()), (2, 2));
}

#[test]
fn a_read_only_and_a_full_share_are_caught_up_later() {
    if !can_test(&[], &[]) {
        return;
    }
    let folder = Folder::new(1);
    let share = folder.place.path().join("share");
    let mount = Mount::tmpfs(1, &share);
    let log = share.join("log.db");
    let mut daemon = folder.daemon();
    daemon.set("ingest_log.path", log.to_str().unwrap());
    daemon.start();
    daemon.until_indexed(1);
    daemon.until("a line", |_| log.exists() && python(&log, "books").len() == 1);

    let troubled = |daemon: &mut Daemon, word: &str| {
        daemon.until(&format!("the status says '{word}'"), |daemon| {
            daemon.status()["ingest_log"]["trouble"].as_str().is_some_and(|trouble| trouble.contains(word))
        });
    };
    mount.remount("ro");
    folder.put(1, "");
    daemon.until_indexed(2);
    troubled(&mut daemon, "readonly");
    mount.remount("rw");
    until_caught_up(&mut daemon);
    assert_eq!(python(&log, "books").len(), 2);

    let filler = share.join("filler");
    // Writes as much as there is room for, and fails then.
    let _ = fs::write(&filler, vec![1; 2 << 20]);
    // More than what is left in the file's last page.
    (2..40).for_each(|number| folder.put(number, ""));
    daemon.until_indexed(40);
    troubled(&mut daemon, "full");
    fs::remove_file(&filler).unwrap();
    until_caught_up(&mut daemon);
    daemon.until("all lines", |_| python(&log, "books").len() == 40);
    assert_eq!(python(&log, "ingest_log").len(), 40);
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
    mount.unmount();
}

#[test]
fn a_share_that_hangs_holds_up_no_book() {
    if !can_test(&["mkfs.ext4", "fsfreeze"], &["/dev/loop-control"]) {
        return;
    }
    let folder = Folder::new(1);
    let (image, empty) = (folder.place.path().join("image"), folder.place.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    mounts::ext4_image(&image, 16, &empty);
    let share = folder.place.path().join("share");
    let _mount = Mount::new(&["-o", "loop", image.to_str().unwrap()], &share);
    let log = share.join("log.db");
    let mut daemon = folder.daemon();
    daemon.set("ingest_log.path", log.to_str().unwrap());
    daemon.start();
    daemon.until_indexed(1);
    daemon.until("a line", |_| log.exists() && python(&log, "books").len() == 1);
    let freeze = |how: &str| assert!(Command::new("fsfreeze").arg(how).arg(&share).status().unwrap().success());
    struct Thaw<'a>(&'a dyn Fn(&str), bool);
    impl Drop for Thaw<'_> {
        fn drop(&mut self) {
            // A frozen file system could not be unmounted.
            if self.1 {
                (self.0)("--unfreeze");
            }
        }
    }
    freeze("--freeze");
    let mut thaw = Thaw(&freeze, true);
    folder.put(1, "");
    daemon.until_indexed(2);
    daemon.until("the status says so", |daemon| {
        daemon.status()["ingest_log"]["trouble"].as_str().is_some_and(|trouble| trouble.contains("not answered"))
    });
    assert!(!daemon.search("bees").is_empty());
    thaw.1 = false;
    freeze("--unfreeze");
    until_caught_up(&mut daemon);
    assert_eq!(python(&log, "books").len(), 2);
}
