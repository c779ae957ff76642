//! The house rules that a compiler does not check: who may import whom, and that every file says what it is for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import of the crate, beside itself.
const MAY_IMPORT: [(&str, &[&str]); 17] = [
    ("clock", &[]),
    ("failpoint", &[]),
    ("domain", &[]),
    ("config", &["domain"]),
    // The names of events and their fields, and plain reckoning: any stage may use them.
    ("telemetry", &[]),
    ("library", &["clock", "domain"]),
    ("queue", &["clock", "domain", "failpoint", "telemetry"]),
    ("extract", &["domain"]),
    ("chunk", &["domain"]),
    ("embed", &["domain", "failpoint", "telemetry"]),
    ("store", &["config", "domain", "failpoint"]),
    ("ingest", &["chunk", "clock", "domain", "embed", "extract", "library", "queue", "store", "telemetry"]),
    ("ingest_log", &["clock", "queue", "telemetry"]),
    ("control", &["clock", "domain", "queue", "telemetry"]),
    (
        "daemon",
        &[
            "chunk",
            "clock",
            "config",
            "control",
            "domain",
            "embed",
            "extract",
            "ingest",
            "ingest_log",
            "library",
            "queue",
            "store",
            "telemetry",
        ],
    ),
    // The tables of what the journal is told.
    ("manual", &["telemetry"]),
    // The binaries; the client's sees the control protocol alone, and its own manual.
    ("bin", &["config", "control", "daemon", "domain", "manual", "telemetry"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The crate's modules that a file's code names, comments left out.
fn imports(source: &str) -> Vec<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for prefix in ["crate::", "use alexandria_ingestd::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let group = &group[..group.find("};").unwrap_or(group.len())];
                found.extend(group.split(',').map(|item| item.trim().split("::").next().unwrap().to_owned()));
            } else {
                found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    found
}

#[test]
fn imports_follow_the_architecture() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let source = root().join("src");
    let mut checked = 0;
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let may = allowed.get(module).unwrap_or_else(|| panic!("{module} is not in the list of modules"));
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            let is_module = allowed.contains_key(import.as_str());
            assert!(
                !is_module || import == module || may.contains(&import.as_str()),
                "{} must not import {import}",
                relative.display()
            );
        }
        checked += 1;
    }
    assert!(checked > 40, "{checked} files checked");
    let client = fs::read_to_string(source.join("bin/alexandriactl.rs")).unwrap();
    let beyond: Vec<String> = imports(&client)
        .into_iter()
        .filter(|module| !matches!(module.as_str(), "control" | "domain" | "manual"))
        .collect();
    assert!(beyond.is_empty(), "alexandriactl imports {beyond:?}");
}

#[test]
fn only_the_queue_the_calibre_reader_and_the_shared_log_speak_sql() {
    for file in rust_files(&root().join("src")) {
        let relative = file.strip_prefix(root().join("src")).unwrap().to_string_lossy().into_owned();
        let speaks = fs::read_to_string(&file).unwrap().contains("rusqlite");
        let may = ["queue/", "library/", "ingest_log/"].iter().any(|module| relative.starts_with(module));
        assert!(!speaks || may, "{relative}");
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_small() {
    for directory in ["src", "tests"] {
        for file in rust_files(&root().join(directory)) {
            let source = fs::read_to_string(&file).unwrap();
            assert!(source.starts_with("//!"), "{} does not open with //!", file.display());
            let lines = source.lines().count();
            assert!(lines < 800, "{} has {lines} lines", file.display());
        }
    }
}

#[test]
fn the_visible_top_level_is_the_agreed_one() {
    const AGREED: [&str; 8] =
        ["Cargo.toml", "Cargo.lock", "README.md", "migrations", "packaging", "src", "systemd", "tests"];
    let tracked = std::process::Command::new("git").arg("-C").arg(root()).arg("ls-files").output().unwrap();
    assert!(tracked.status.success());
    for path in String::from_utf8(tracked.stdout).unwrap().lines() {
        let top = path.split('/').next().unwrap();
        assert!(top.starts_with('.') || AGREED.contains(&top), "{top} is not among {AGREED:?}");
    }
}

#[test]
fn the_example_configuration_has_every_key_with_its_default() {
    use alexandria_ingestd::config::Config;
    let text = fs::read_to_string(root().join("packaging/config.toml")).unwrap();
    // Keys stand there commented out with their defaults: `#key = value`.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let config: Config = toml::from_str(&uncommented).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config, Config::default());
    let keys = |value: &toml::Value| -> Vec<String> {
        let mut keys = Vec::new();
        for (section, value) in value.as_table().unwrap() {
            match value.as_table() {
                Some(table) => keys.extend(table.keys().map(|key| format!("{section}.{key}"))),
                None => keys.push(section.clone()),
            }
        }
        keys.sort();
        keys
    };
    let written: toml::Value = toml::from_str(&uncommented).unwrap();
    let all = toml::Value::try_from(Config::default()).unwrap();
    assert_eq!(keys(&written), keys(&all));
}
