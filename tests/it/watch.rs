//! `alexandriactl watch` as people and programs use it, on the real service; and the numbers of the status while it works.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::{Daemon, text};
use crate::mounts::find;

const PATIENCE: Duration = Duration::from_secs(30);

/// A watcher whose lines are read as they come.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Watcher {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alexandriactl"));
        command.arg("--socket").arg(daemon.socket()).arg("watch").args(arguments);
        Self::of(command, b'\n')
    }

    /// `end`: of what counts as a line.
    fn of(mut command: Command, end: u8) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut pieces = output.split(end).map_while(Result::ok).map(|piece| text(&piece));
        std::thread::spawn(move || pieces.try_for_each(|line| sender.send(line)));
        Watcher { child, lines, seen: Vec::new() }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what}: {:#?}", self.seen));
            self.seen.push(line.clone());
            if holds(&line) {
                return line;
            }
            assert!(started.elapsed() < PATIENCE, "{what}: {:#?}", self.seen);
        }
    }

    /// Ctrl-C; the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let status = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap().code()
    }
}

fn library() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    add(place.path(), "First");
    place
}

fn add(folder: &Path, title: &str) {
    let text: Vec<String> =
        (0..300).map(|n| format!("Sentence {n} of the book {title} speaks of topic {}.", n % 7)).collect();
    fs::write(folder.join(format!("{title}.txt")), text.join(" ")).unwrap();
}

#[test]
fn without_a_terminal_every_change_is_a_line_and_the_service_may_come_and_go() {
    let library = library();
    let mut daemon = Daemon::new(library.path());
    daemon.start();
    daemon.until_indexed(1);
    let mut watcher = Watcher::start(&daemon, &[]);
    watcher.until("the present state", |line| line.starts_with("1 of 1 books · 0 to do"));
    add(library.path(), "Second");
    watcher.until("the new book", |line| line.starts_with("2 of 2 books"));
    daemon.stop();
    watcher.until("the service is away", |line| line.contains("does not answer"));
    daemon.start();
    watcher.until("it is back", |line| line.contains("answers again"));
    watcher.until("the state again", |line| line.starts_with("2 of 2 books"));
    let repeated = watcher.seen.windows(2).any(|lines| lines[0] == lines[1]);
    assert!(!repeated, "only changes: {:#?}", watcher.seen);
    assert_eq!(watcher.interrupt(), Some(0));

    let mut json = Watcher::start(&daemon, &["--json"]);
    for _ in 0..2 {
        let line = json.until("a line of JSON", |_| true);
        let status: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["queue"]["done_books"], 2);
    }
    assert_eq!(json.interrupt(), Some(0));
    daemon.stop();
    let refused = daemon.ctl(&["watch"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("systemctl start alexandria-ingestd"), "{}", text(&refused.stderr));
}

#[test]
fn on_a_terminal_it_draws_in_place_and_ctrl_c_ends_it_well() {
    if find("script").is_none() {
        eprintln!("SKIPPED: there is no script(1) to make a terminal with");
        return;
    }
    let library = library();
    let mut daemon = Daemon::new(library.path());
    daemon.start();
    daemon.until_indexed(1);
    let mut command = Command::new("script");
    let program = format!("exec {} --socket {} watch", env!("CARGO_BIN_EXE_alexandriactl"), daemon.socket().display());
    command.args(["--quiet", "--return", "--command", &program, "/dev/null"]).env("TERM", "xterm");
    // Each drawing goes back to the start of the line.
    let mut watcher = Watcher::of(command, b'\r');
    watcher.until("the counts", |line| line.contains("1 of 1 books"));
    watcher.until("the rates", |line| line.contains("tokens/s"));
    // The one that is asked for, in script's terminal.
    let script = watcher.child.id();
    let pid = fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap().trim().to_owned();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success(), "{pid}");
    assert_eq!(watcher.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_status_counts_what_was_done_and_reckons_what_is_left() {
    let library = library();
    let mut daemon = Daemon::new(library.path());
    fs::write(library.path().join("Blank.txt"), "").unwrap();
    daemon.start();
    daemon.until("one is in and one is parked", |daemon| {
        let status = daemon.status();
        status["totals"]["outcomes"]["embedded"] == 1 && status["totals"]["next_steps"]["parked"] == 1
    });
    let status = daemon.status();
    let totals = &status["totals"];
    assert_eq!((&totals["outcomes"]["embedded"], &totals["failures"]["book"]), (&1.into(), &1.into()), "{totals}");
    assert_eq!(totals["next_steps"]["parked"], 1);
    assert!(totals["chunk_tokens"].as_u64() >= Some(2000), "{totals}");
    assert!(totals["tokens"].as_u64() > totals["chunk_tokens"].as_u64(), "borders are sought, too: {totals}");
    assert!(totals["stage_seconds"]["embed"].as_f64() > Some(0.0), "{totals}");
    let error = &status["recent_errors"][0];
    assert_eq!((&error["title"], &error["next"]), (&"Blank".into(), &"parked".into()), "{status}");
    let tokens = |daemon: &Daemon| -> u64 {
        let history = daemon.get("/history");
        assert_eq!(history["step_seconds"], 60);
        history["rows"].as_array().unwrap().iter().map(|row| row["tokens"].as_u64().unwrap()).sum()
    };
    let expected = totals["tokens"].as_u64().unwrap();
    daemon.until("the history has all tokens", |daemon| tokens(daemon) >= expected);
    let rows = daemon.get("/history")["rows"].clone();
    let sum = |name: &str| rows.as_array().unwrap().iter().map(|row| row[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("books"), sum("failures")), (1, 1), "{rows}");

    // What failed before the start is remembered by the state.
    daemon.stop();
    daemon.start();
    assert_eq!(daemon.status()["recent_errors"][0]["title"], "Blank");
    assert_eq!(daemon.status()["totals"]["outcomes"], serde_json::json!({}));
}

#[test]
fn the_estimate_counts_tokens_and_falls_to_nothing() {
    let library = library();
    let mut daemon = Daemon::new(library.path());
    // Small chunks have the fake embedder, which is faster than any real one, work for a while.
    daemon.set("chunking.target_words", "16");
    daemon.set("chunking.max_words", "24");
    daemon.set("chunking.min_words", "4");
    // An estimate comes after five seconds of work: this is several times as much on a fast machine.
    daemon.set("ingest.workers", "1");
    for book in 0..100 {
        let text: Vec<String> =
            (0..4000).map(|n| format!("Sentence {n} of the book {book} speaks of topic {}.", n % 7)).collect();
        fs::write(library.path().join(format!("Long {book}.txt")), text.join(" ")).unwrap();
    }
    daemon.start();
    daemon.until("there is an estimate", |daemon| {
        let status = daemon.status();
        assert!(status["queue"]["done_books"] != 101, "all is done and nothing was reckoned: {status}");
        status["estimate"]["tokens"].as_u64() > Some(0)
    });
    let status = daemon.status();
    let estimate = &status["estimate"];
    println!("{}\n{}", status["estimate"], text(&daemon.ctl(&["status"]).stdout));
    let at = |name: &str| estimate[name].as_f64().unwrap();
    assert!(at("tokens_low") <= at("tokens") && at("tokens") <= at("tokens_high"), "{estimate}");
    assert!(at("seconds_low") <= at("seconds") && at("seconds") <= at("seconds_high"), "{estimate}");
    assert!(at("books") >= 1.0 && at("books") <= 101.0, "{estimate}");
    daemon.until_indexed(101);
    daemon.until("nothing is left", |daemon| daemon.status()["estimate"].is_null());
}
