//! What systemd sees of the service, by a socket that stands for it: READY, STATUS, the watchdog; and that SIGTERM ends the
//! service in time whatever it is at.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::{Daemon, text};

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
/// The service's own promise, in seconds.
const END: f64 = 20.0;

/// What systemd was told so far, and when.
#[derive(Clone)]
struct Manager {
    told: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Manager {
    /// Reads all the time, as systemd does.
    fn of(daemon: &mut Daemon) -> Self {
        let path = daemon.place.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        daemon.set_variable("NOTIFY_SOCKET", path.to_str().unwrap());
        let manager = Manager { told: Arc::default() };
        let told = manager.told.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(size) = socket.recv(&mut buffer) {
                let now = Instant::now();
                told.lock().unwrap().extend(text(&buffer[..size]).lines().map(|line| (now, line.to_owned())));
            }
        });
        manager
    }

    fn lines(&self) -> Vec<String> {
        self.told.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }

    fn position(&self, line: &str) -> Option<usize> {
        self.lines().iter().position(|told| told.starts_with(line))
    }

    /// How often the watchdog was fed since then.
    fn fed_since(&self, since: Instant) -> usize {
        self.told.lock().unwrap().iter().filter(|(at, line)| *at >= since && line == "WATCHDOG=1").count()
    }

    fn wait_for(&self, daemon: &mut Daemon, line: &str) {
        daemon.until(&format!("systemd is told {line}"), |_| self.position(line).is_some());
    }
}

/// A folder of books, each long enough for several batches.
fn folder(books: usize) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for book in 0..books {
        add(place.path(), &format!("Book {book}"));
    }
    place
}

fn add(folder: &Path, title: &str) {
    let sentences: Vec<String> = (0..200).map(|n| format!("{BEES} Sentence {n} of {title}.")).collect();
    fs::write(folder.join(format!("{title}.txt")), sentences.join(" ")).unwrap();
}

fn ends_in_time(daemon: &mut Daemon, what: &str) {
    let (code, seconds) = daemon.stop();
    println!("{what}: SIGTERM ends the service in {seconds:.2} s");
    assert_eq!(code, Some(0), "{what}\n{}", daemon.log());
    assert!(seconds < END, "{what}: {seconds} s\n{}", daemon.log());
}

#[test]
fn systemd_is_told_what_the_start_is_at_then_ready_then_progress() {
    let folder = folder(3);
    let mut daemon = Daemon::new(folder.path());
    let manager = Manager::of(&mut daemon);
    daemon.set_variable("WATCHDOG_USEC", "1000000");
    daemon.start();
    daemon.until_indexed(3);
    manager.wait_for(&mut daemon, "STATUS=idle · 3 of 3 books");
    daemon.until("the watchdog is fed", |_| manager.position("WATCHDOG=1").is_some());
    let lines = manager.lines();
    let ready = manager.position("READY=1").unwrap();
    assert!(lines[..ready].iter().any(|line| line.starts_with("STATUS=")), "{lines:?}");
    assert!(lines[..ready].iter().any(|line| line.starts_with("EXTEND_TIMEOUT_USEC=")), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "READY=1").count(), 1);
    ends_in_time(&mut daemon, "idle");
    assert!(manager.position("STOPPING=1") > Some(ready));
}

/// Starts the service, lets a thread of it hang, and sees that the watchdog is not fed any more and why.
fn hangs(part: &str, says: &str) {
    let folder = folder(1);
    let mut daemon = Daemon::new(folder.path());
    let manager = Manager::of(&mut daemon);
    let flag = daemon.place.path().join("hang");
    daemon.set_variable("WATCHDOG_USEC", "1000000");
    daemon.set_variable("ALEXANDRIA_FAILPOINTS", &format!("hang={part}@{}", flag.display()));
    daemon.set("embedding.stall_seconds", "1");
    daemon.start();
    daemon.until_indexed(1);
    daemon.until("the watchdog is fed", |_| manager.fed_since(Instant::now() - Duration::from_millis(500)) > 0);

    fs::write(&flag, "").unwrap();
    add(folder.path(), "Another");
    daemon.until("the log names what is stuck", |daemon| daemon.log().contains(&format!("the {part} is stuck")));
    let named = Instant::now();
    let line = daemon.log().lines().find(|line| line.contains("is stuck")).unwrap().to_owned();
    println!("{line}");
    assert!(line.contains("ERROR") && line.contains(says), "{line}");
    // The status answers all the same, and says it.
    let status = text(&daemon.ctl(&["status"]).stdout);
    assert!(status.contains("STUCK"), "{status}");
    // Three times what systemd would wait.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(manager.fed_since(named), 0, "{:?}", manager.lines());
    assert!(manager.lines().iter().any(|line| line.starts_with("STATUS=") && line.contains("STUCK")));
    assert_eq!(daemon.log().matches("is stuck").count(), 1, "said once\n{}", daemon.log());
    // Whoever ends it first: it can be ended.
    ends_in_time(&mut daemon, &format!("with a stuck {part}"));
}

#[test]
fn a_stuck_embedder_starves_the_watchdog_and_is_named() {
    hangs("embedder", "no batch has come to an end");
}

#[test]
fn a_stuck_queue_starves_the_watchdog_and_is_named() {
    hangs("queue", "the state has not answered");
}

#[test]
fn a_stall_that_passes_is_said_to_be_over_and_the_watchdog_is_fed_again() {
    let folder = folder(1);
    let mut daemon = Daemon::new(folder.path());
    let manager = Manager::of(&mut daemon);
    let flag = daemon.place.path().join("hang");
    daemon.set_variable("WATCHDOG_USEC", "1000000");
    daemon.set_variable("ALEXANDRIA_FAILPOINTS", &format!("hang=embedder@{}", flag.display()));
    daemon.set("embedding.stall_seconds", "0.5");
    daemon.start();
    daemon.until_indexed(1);
    fs::write(&flag, "").unwrap();
    add(folder.path(), "Another");
    daemon.until("it is stuck", |daemon| daemon.log().contains("the embedder is stuck"));
    fs::remove_file(&flag).unwrap();
    daemon.until_indexed(2);
    daemon.until("that is said", |daemon| daemon.log().contains("the embedder goes on"));
    let over = Instant::now();
    daemon.until("the watchdog is fed again", |_| manager.fed_since(over) > 0);
}

/// A hub that answers, and then sends a file for ever, a kilobyte at a time.
fn slow_hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let size = stream.read(&mut request).unwrap_or(0);
                let request = text(&request[..size]).to_lowercase();
                let head = "x-repo-commit: 0123456789\r\netag: \"abc\"\r\n";
                if request.contains("range: bytes=0-0") {
                    let _ = write!(
                        stream,
                        "HTTP/1.1 206 Partial Content\r\n{head}content-range: bytes 0-0/1000000000\r\ncontent-length: 1\r\n\r\n{{"
                    );
                    return;
                }
                let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}content-length: 1000000000\r\n\r\n");
                while stream.write_all(&[b' '; 1024]).is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
    address
}

#[test]
fn sigterm_is_heard_while_the_model_is_fetched_and_systemd_is_told_of_the_fetching() {
    let folder = folder(1);
    let mut daemon = Daemon::new(folder.path());
    let manager = Manager::of(&mut daemon);
    daemon.set("embedding.model", "minilm");
    daemon.set("embedding.device", "cpu");
    daemon.set_variable("HF_ENDPOINT", &slow_hub());
    daemon.spawn();
    manager.wait_for(&mut daemon, "STATUS=fetching the model minilm: config.json, 0 % of 1.0 GB");
    println!("{:?}", manager.lines());
    ends_in_time(&mut daemon, "while the model is fetched");
    let lines = manager.lines();
    assert!(lines.iter().any(|line| line == "STOPPING=1"), "{lines:?}");
    assert!(!lines.iter().any(|line| line == "READY=1"), "{lines:?}");
    // It left nothing that looks like a crash.
    daemon.set("embedding.model", "fake");
    daemon.start();
    assert!(!daemon.log().contains("did not end in order"), "{}", daemon.log());
}

/// A server that takes connections and never says a word.
fn mute_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let streams: Vec<_> = listener.incoming().collect();
        drop(streams);
    });
    address
}

#[test]
fn sigterm_is_heard_while_the_store_hangs_at_the_start_and_later() {
    let folder = folder(1);
    let mut daemon = Daemon::new(folder.path());
    let manager = Manager::of(&mut daemon);
    daemon.set("store.kind", "server");
    daemon.set("store.url", &mute_server());
    daemon.spawn();
    manager.wait_for(&mut daemon, "STATUS=opening the store");
    ends_in_time(&mut daemon, "while the store hangs at the start");

    daemon.set("store.timeout_seconds", "2");
    daemon.start();
    daemon.until("a book waits for the store", |daemon| {
        daemon.status()["store"]["healthy"] == false && daemon.log().contains("books wait")
    });
    daemon.set("store.timeout_seconds", "60");
    ends_in_time(&mut daemon, "while the store hangs");
}

#[test]
fn sigterm_is_heard_while_clients_hang() {
    let folder = folder(1);
    let mut daemon = Daemon::new(folder.path());
    daemon.start();
    daemon.until_indexed(1);
    let _clients: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut client = UnixStream::connect(daemon.socket()).unwrap();
            client.write_all(b"POST /retry HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
            client
        })
        .collect();
    ends_in_time(&mut daemon, "while twenty clients do not end their requests");
}

#[test]
fn sigterm_is_heard_at_once_and_again_and_again() {
    let folder = folder(5);
    let mut daemon = Daemon::new(folder.path());
    // Before, during and shortly after the start.
    for milliseconds in [0, 5, 20, 50, 100, 200, 400, 800] {
        daemon.spawn();
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.signal("TERM");
        let (code, seconds) = daemon.wait(Duration::from_secs(60)).expect("it ends");
        // Until the handler stands the default ends it, which systemd takes for clean, too.
        assert!(
            matches!(code, Some(0) | None) && seconds < END,
            "{milliseconds} ms: {code:?} {seconds}\n{}",
            daemon.log()
        );
    }
    daemon.start();
    daemon.until_indexed(5);
    ends_in_time(&mut daemon, "after all that");
}

#[test]
fn a_manager_that_does_not_read_holds_nothing() {
    let folder = folder(2);
    let mut daemon = Daemon::new(folder.path());
    let path = daemon.place.path().join("notify");
    let _unread = UnixDatagram::bind(&path).unwrap();
    daemon.set_variable("NOTIFY_SOCKET", path.to_str().unwrap());
    // A line every 10 ms: the socket is full soon.
    daemon.set_variable("WATCHDOG_USEC", "40000");
    daemon.start();
    daemon.until_indexed(2);
    add(folder.path(), "Another");
    daemon.until_indexed(3);
    ends_in_time(&mut daemon, "with a manager that does not read");
}
