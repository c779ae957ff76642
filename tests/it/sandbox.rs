//! Books that misbehave, read by real child processes: each costs its own reader and nothing else. The readers that
//! fail on purpose (formats named TEST-...) are in the development build alone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alexandria_ingestd::domain::Document;
use alexandria_ingestd::extract::sandbox::{Sandbox, SandboxSettings};
use alexandria_ingestd::extract::{ExtractError, Limits, extract};

fn settings() -> SandboxSettings {
    SandboxSettings { program: env!("CARGO_BIN_EXE_alexandria-ingestd").into(), ..SandboxSettings::default() }
}

/// Children and descriptors are counted, so tests that share this process take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A small book on disk.
struct Shelf {
    _turn: MutexGuard<'static, ()>,
    _directory: tempfile::TempDir,
    path: PathBuf,
}

fn shelf(text: &str) -> Shelf {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Bienen.txt");
    std::fs::write(&path, text).unwrap();
    Shelf { _turn: turn, _directory: directory, path }
}

fn read(sandbox: &Sandbox, path: &Path, format: &str) -> Result<Document, ExtractError> {
    sandbox.extract(&File::open(path).unwrap(), Path::new("/library/Bienen.txt"), format, &|| true)
}

fn children() -> Vec<String> {
    readers_of(std::process::id())
}

/// The readers that a process has started and that still run.
pub fn readers_of(parent: u32) -> Vec<String> {
    let own = parent.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // proc(5): the name stands in brackets and may hold anything; state and parent follow.
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let parent = rest.split_whitespace().nth(1);
        if parent == Some(own.as_str()) && head.ends_with("(alexandria-read") {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_child_reads_what_this_process_would_have_read() {
    let shelf = shelf("Die Bienen tanzen.\n\nPčele plešu.\n");
    let sandbox = Sandbox::new(settings());
    let here = extract(&shelf.path, "TXT", &Limits::default()).unwrap();
    assert_eq!(read(&sandbox, &shelf.path, "TXT").unwrap(), here);
    let (document, report) = sandbox.extract_and_measure(&shelf.path, "txt").unwrap();
    assert_eq!((document, report.words_linear, report.lost, report.doubled), (here, 5, 0, 0));
    assert_eq!(children().len(), 1, "one child reads one book after the other");
    drop(sandbox);
    assert!(children().is_empty());
}

#[test]
fn an_error_of_a_reader_names_the_book_and_keeps_the_child() {
    let shelf = shelf("no archive");
    let sandbox = Sandbox::new(settings());
    let error = read(&sandbox, &shelf.path, "EPUB").unwrap_err();
    assert!(error.is_book_fault() && error.to_string().starts_with("/library/Bienen.txt is damaged"), "{error}");
    let child = children();
    let error = read(&sandbox, &shelf.path, "CB7").unwrap_err();
    assert!(error.is_book_fault(), "{error}");
    assert_eq!((children(), child.len()), (child, 1));
}

/// What a hostile book might do, and what is said of it.
#[test]
fn whatever_a_reader_does_parks_its_book_and_nothing_else() {
    let shelf = shelf("Ein Satz.");
    let settings = SandboxSettings {
        cpu_seconds: 1,
        memory_bytes: 256 << 20,
        // On a loaded machine a second of CPU time may take many of these.
        stall: Duration::from_secs(12),
        limits: Limits { max_text_bytes: 8 << 20, ..Limits::default() },
        ..settings()
    };
    let sandbox = Sandbox::new(settings);
    read(&sandbox, &shelf.path, "TXT").unwrap();
    let descriptors = open_descriptors();
    for (format, reason) in [
        ("TEST-PANIC", "crashed its reader (panicked at"),
        ("TEST-LOOP", "took more than 1 s of CPU time"),
        ("TEST-HANG", "made no progress for 12 s"),
        ("TEST-MEMORY", "needed more than 256 MiB of memory"),
        ("TEST-STACK", "is nested too deeply (the stack overflowed)"),
        ("TEST-ABORT", "crashed its reader (SIGABRT)"),
        ("TEST-EXIT", "crashed its reader (exit status: 0)"),
        ("TEST-GARBAGE", "the reader's child sent nonsense"),
        ("TEST-FLOOD", "is too large: its text exceeds the limit of 8388608 bytes"),
    ] {
        let error = read(&sandbox, &shelf.path, format).unwrap_err();
        assert!(error.is_book_fault(), "{format}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("/library/Bienen.txt") && text.contains(reason), "{format}: {text}");
        let document = read(&sandbox, &shelf.path, "TXT").unwrap();
        assert_eq!(document.words(), 2, "after {format}");
    }
    assert_eq!(open_descriptors(), descriptors);
    assert_eq!(children().len(), 1);
}

#[test]
fn a_child_reaches_no_file_no_network_and_no_other_process() {
    let shelf = shelf("Ein Satz.");
    let sandbox = Sandbox::new(settings());
    let confinement = sandbox.warm_up().unwrap();
    // Said, not skipped: on a kernel without them the rest of this test would prove nothing.
    assert!(confinement.landlock && confinement.seccomp, "this kernel lacks a part: {confinement:?}");
    let error = read(&sandbox, &shelf.path, "TEST-FILES").unwrap_err().to_string();
    assert!(error.contains("allowed: []"), "{error}");
    assert!(!Path::new("/tmp/alexandria-escape").exists());
}

#[test]
fn a_child_killed_from_outside_is_not_the_books_fault() {
    let shelf = shelf("Ein Satz.");
    let sandbox = Sandbox::new(settings());
    sandbox.warm_up().unwrap();
    let kill = |child: &str| {
        let killed = std::process::Command::new("kill").args(["-KILL", child]).status().unwrap();
        assert!(killed.success());
    };
    // Idle: the next book gets another one.
    kill(&children()[0]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(read(&sandbox, &shelf.path, "TXT").unwrap().words(), 2);
    // At work: the book is tried again later.
    let error = std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&sandbox, &shelf.path, "TEST-HANG").unwrap_err());
        std::thread::sleep(Duration::from_millis(300));
        kill(&children()[0]);
        reading.join().unwrap()
    });
    assert!(!error.is_book_fault() && error.to_string().contains("killed from outside"), "{error}");
}

#[test]
fn a_stop_ends_a_book_in_the_middle() {
    let shelf = shelf("Ein Satz.");
    let sandbox = Sandbox::new(settings());
    sandbox.warm_up().unwrap();
    let stopping = AtomicBool::new(false);
    let started = Instant::now();
    let error = std::thread::scope(|scope| {
        let file = File::open(&shelf.path).unwrap();
        let reading = scope.spawn({
            let (sandbox, stopping) = (&sandbox, &stopping);
            move || sandbox.extract(&file, Path::new("b"), "TEST-HANG", &|| !stopping.load(Ordering::Relaxed))
        });
        std::thread::sleep(Duration::from_millis(200));
        stopping.store(true, Ordering::Relaxed);
        reading.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, ExtractError::Stopped), "{error}");
    // Far from the hour it would have slept, and from the minute after which it counts as stalled.
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(children().is_empty());
}

#[test]
fn a_child_whose_parent_is_gone_ends() {
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_alexandria-ingestd"))
        .arg(alexandria_ingestd::extract::sandbox::CHILD_VERB)
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    drop(ours);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_program_that_is_no_reader_is_a_clear_error() {
    let shelf = shelf("Ein Satz.");
    for program in ["/nonexistent/alexandria-ingestd", "/bin/true"] {
        let sandbox = Sandbox::new(SandboxSettings { program: program.into(), ..settings() });
        let error = read(&sandbox, &shelf.path, "TXT").unwrap_err();
        assert!(matches!(error, ExtractError::Child { .. }) && !error.is_book_fault(), "{error}");
    }
}
