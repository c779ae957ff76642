//! The journal: the table of fields and events against the code, the catalogue against the table, and a real journald that
//! is asked for one book's story.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use alexandria_ingestd::telemetry::{EVENTS, FIELDS, event};
use serde_json::Value;

use crate::calibre::CalibreLibrary;
use crate::daemon::{Daemon, text};
use crate::mounts::{can_test, find};

const BEES: &str = "Bees live in a hive. The queen lays eggs all summer. Workers bring nectar and pollen home.";
const JOURNALD: [&str; 2] = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let code =
                source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            found.push((path, code));
        }
    }
}

/// The text between a bracket and the one that closes it; strings are no code.
fn bracketed(code: &str) -> &str {
    let (mut depth, mut in_string, mut escaped) = (1, false, false);
    for (at, c) in code.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '(' | '[' | '{' if !in_string => depth += 1,
            ')' | ']' | '}' if !in_string => {
                depth -= 1;
                if depth == 0 {
                    return &code[..at];
                }
            }
            _ => {}
        }
    }
    panic!("a macro without an end: {}", &code[..code.len().min(80)]);
}

/// A macro's arguments.
fn arguments(code: &str) -> Vec<&str> {
    let (mut found, mut depth, mut in_string, mut escaped, mut start) = (Vec::new(), 0, false, false, 0);
    for (at, c) in code.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '(' | '[' | '{' if !in_string => depth += 1,
            ')' | ']' | '}' if !in_string => depth -= 1,
            ',' if !in_string && depth == 0 => {
                found.push(code[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(code[start..].trim());
    found
}

/// The fields that the code's events and spans carry, and where.
fn used_fields() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    let mut macros = 0;
    for (path, code) in files {
        for name in ["trace!(", "debug!(", "info!(", "warn!(", "error!(", "error_span!(", "told!("] {
            for (at, _) in code.match_indices(name) {
                let before = &code[..at];
                if !before.ends_with("tracing::") && name != "told!(" || before.ends_with("macro_rules! ") {
                    continue;
                }
                macros += 1;
                let all = arguments(bracketed(&code[at + name.len()..]));
                // A span begins with its name, `told!` with how loud it is; then come fields, until the message with its own
                // arguments.
                let skipped = usize::from(matches!(name, "error_span!(" | "told!("));
                for argument in all.into_iter().skip(skipped).take_while(|argument| !argument.starts_with('"')) {
                    match argument.split_once('=') {
                        Some((field, _)) => {
                            found.entry(field.trim().to_owned()).or_insert_with(|| path.clone());
                        }
                        // The body of `told!` itself.
                        None if argument.starts_with('$') || argument.is_empty() => {}
                        None => panic!("{}: a field without a name: {argument}", path.display()),
                    }
                }
            }
        }
    }
    assert!(macros > 50, "{macros} events found");
    found
}

#[test]
fn every_field_of_an_event_is_in_the_table_and_every_one_in_the_table_is_used() {
    let used = used_fields();
    let documented: BTreeSet<&str> = FIELDS.iter().map(|field| field.name).collect();
    for (field, path) in &used {
        assert!(documented.contains(field.as_str()), "{field}, in {}, is not in telemetry::FIELDS", path.display());
    }
    for field in documented {
        assert!(used.contains_key(field), "{field} is in telemetry::FIELDS, but no event carries it");
    }
}

#[test]
fn every_event_of_the_table_is_logged() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    for event in EVENTS {
        let name = format!("event::{}", event.name);
        let used = files.iter().any(|(path, code)| !path.ends_with("telemetry/event.rs") && code.contains(&name));
        assert!(used, "{name} is never logged");
    }
}

#[test]
fn the_catalogue_is_the_one_of_the_table() {
    let path = root().join("packaging/alexandria-ingestd.catalog");
    let catalogue = event::catalogue();
    if std::env::var_os("UPDATE_CATALOGUE").is_some() {
        fs::write(&path, &catalogue).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == catalogue, "{} is old: run this test with UPDATE_CATALOGUE=1", path.display());
    // And systemd's own compiler takes it.
    if find("journalctl").is_none() {
        eprintln!("SKIPPED: there is no journalctl to compile the catalogue with");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("usr/lib/systemd/catalog");
    fs::create_dir_all(&directory).unwrap();
    fs::create_dir_all(place.path().join("var/lib/systemd/catalog")).unwrap();
    fs::copy(&path, directory.join("alexandria-ingestd.catalog")).unwrap();
    let journalctl = |verb: &str| {
        let at = format!("--root={}", place.path().display());
        let output = Command::new("journalctl").args([&at, verb]).output().unwrap();
        assert!(output.status.success(), "{verb}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    journalctl("--update-catalog");
    let listed = journalctl("--list-catalog");
    for event in EVENTS {
        assert!(listed.contains(event.id), "{} is missing: {listed}", event.name);
    }
}

/// A journald of its own for the service, in a mount namespace of its own.
struct Journal {
    daemon: Daemon,
    pid_file: PathBuf,
}

const START_JOURNALD: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /etc/systemd
mount -t tmpfs tmpfs /etc/systemd
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' > /etc/systemd/journald.conf
mkdir -p /run/systemd/journal /run/log/journal
journald=$1 pid_file=$2
shift 2
"$journald" > /run/journald.log 2>&1 &
echo $! > "$pid_file"
n=0
while [ ! -S /run/systemd/journal/socket ]; do
    n=$((n + 1)); [ $n -lt 500 ] || { cat /run/journald.log; exit 1; }
    sleep 0.01
done
exec "$@"
"#;

impl Journal {
    /// None where the machine has no means for one, which is said.
    fn with(mut daemon: Daemon) -> Option<Self> {
        if !can_test(&["unshare", "nsenter", "journalctl"], &[]) {
            return None;
        }
        let Some(journald) = JOURNALD.into_iter().find(|path| Path::new(path).is_file()) else {
            eprintln!("SKIPPED: there is no systemd-journald on this machine");
            return None;
        };
        let pid_file = daemon.place.path().join("journald.pid");
        let log = daemon.place.path().join("log");
        fs::write(&log, "").unwrap();
        // systemd names the stream that it gave the service as standard error.
        let file = fs::metadata(&log).unwrap();
        daemon.set_variable("JOURNAL_STREAM", &format!("{}:{}", file.dev(), file.ino()));
        let pid_path = pid_file.to_str().unwrap().to_owned();
        daemon.wrap(&["unshare", "--mount", "sh", "-c", START_JOURNALD, "sh", journald, &pid_path]);
        Some(Journal { daemon, pid_file })
    }

    fn journalctl(&self, arguments: &[&str]) -> Output {
        let pid = self.daemon.pid().to_string();
        let journal = ["-t", &pid, "-m", "journalctl", "-D", "/run/log/journal", "--no-pager"];
        Command::new("nsenter").args(journal).args(arguments).output().unwrap()
    }

    fn entries(&self, matches: &[&str]) -> Vec<Value> {
        // What journald has in its hands is written first.
        self.journalctl(&["--sync"]);
        let output = self.journalctl(&[&["-o", "json", "--all"], matches].concat());
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(&self.pid_file) {
            // It ends with its namespace's last process otherwise; nobody waits for it.
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn field<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or_default()
}

#[test]
fn journalctl_tells_one_books_story_by_its_number() {
    let library = CalibreLibrary::new();
    let id = library.add(&library.epub("bees", "The Hive", "Ana Horvat", BEES));
    let blank = library.add(&library.text("Empty", ""));
    let Some(mut journal) = Journal::with(Daemon::new(&library.path())) else { return };
    let started = Instant::now();
    journal.daemon.start();
    journal.daemon.until("the good one is in and the bad one parked", |daemon| {
        let queue = &daemon.status()["queue"];
        queue["done_books"] == 1 && queue["parked"] == 1
    });
    library.set_metadata(id, "tags", "insects");
    journal.daemon.until("the metadata are written", |daemon| daemon.outcomes().len() == 2);
    library.remove(id);
    journal.daemon.until_indexed(0);

    let number = id.to_string();
    let story = journal.entries(&[&format!("BOOK_ID={number}")]);
    println!("a story of {} entries, {:.1} s after the start:", story.len(), started.elapsed().as_secs_f64());
    for entry in &story {
        println!("  {}", field(entry, "MESSAGE"));
    }
    let ids: Vec<&str> = story.iter().map(|entry| field(entry, "MESSAGE_ID")).collect();
    use event::{BOOK_FOUND, BOOK_GONE, BOOK_INDEXED, BOOK_MISSING, BOOK_READ, BOOK_REMOVED, BOOK_UPDATED};
    let told = [BOOK_FOUND, BOOK_READ, BOOK_INDEXED, BOOK_FOUND, BOOK_UPDATED, BOOK_MISSING, BOOK_GONE, BOOK_REMOVED];
    assert_eq!(ids, told, "{story:#?}");
    for entry in &story {
        assert_eq!((field(entry, "BOOK_TITLE"), field(entry, "BOOK_SOURCE")), ("The Hive", "calibre"), "{entry}");
        assert_eq!(field(entry, "SYSLOG_IDENTIFIER"), "alexandria-ingestd");
        assert_eq!(field(entry, "PRIORITY"), "6", "{entry}");
    }
    let indexed = &story[2];
    for name in ["JOB", "CHUNKS", "TOKENS", "SECONDS", "CHUNKS_PER_MIN", "EMBED_SECONDS"] {
        assert!(field(indexed, name).parse::<f64>().is_ok_and(|value| value >= 0.0), "{name}: {indexed}");
    }
    assert_eq!((field(indexed, "FORMAT"), field(indexed, "OUTCOME")), ("EPUB", "embedded"));

    let parked = journal.entries(&[&format!("MESSAGE_ID={}", event::BOOK_PARKED)]);
    assert_eq!(parked.len(), 1, "{parked:#?}");
    assert_eq!(field(&parked[0], "BOOK_ID"), blank.to_string());
    assert_eq!((field(&parked[0], "FAILURE"), field(&parked[0], "PRIORITY")), ("book", "4"));
    assert!(field(&parked[0], "REASON").contains("empty"), "{}", parked[0]);

    let ready = journal.entries(&[&format!("MESSAGE_ID={}", event::SERVICE_READY)]);
    assert_eq!(ready.len(), 1);
    // Whatever is in the journal is in the table.
    let documented: BTreeSet<&str> = FIELDS.iter().map(|field| field.name).collect();
    let of_others =
        ["MESSAGE", "PRIORITY", "TARGET", "CODE_FILE", "CODE_LINE", "CODE_FUNC", "SYSLOG_IDENTIFIER", "TID"];
    for entry in journal.entries(&[]).iter().filter(|entry| field(entry, "SYSLOG_IDENTIFIER") == "alexandria-ingestd") {
        for name in entry.as_object().unwrap().keys() {
            let known = documented.contains(name.as_str())
                || name.starts_with('_')
                || name.starts_with("SPAN_")
                || of_others.contains(&name.as_str());
            assert!(known, "{name} is not in the table: {entry}");
        }
    }
}
