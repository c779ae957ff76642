//! The configuration as an operator meets it: `check-config`, and SIGHUP.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, text};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bees.txt"), "Bees live in a hive.").unwrap();
    folder
}

#[test]
fn check_config_says_what_it_comes_to_and_from_where() {
    let library = folder();
    let mut daemon = Daemon::new(library.path());
    let file = daemon.place.path().join("config.toml");
    fs::write(&file, "[http]\nlisten = \"0.0.0.0:8765\"\n\n[ingest]\nworkers = 3\n").unwrap();
    daemon.set_config(&file);
    daemon.set_variable("QDRANT_COLLECTION", "books");
    let output = daemon.run(&["check-config"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["configuration is valid", "line 5 of", "variable QDRANT_COLLECTION", "--set", "no token is asked for"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let output = daemon.run(&["check-config", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["valid"], true);
    let rows = report["values"].as_array().unwrap();
    let row = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap();
    assert_eq!(row("store.collection")["origin"], "variable QDRANT_COLLECTION");
    assert_eq!((&row("log.level")["origin"], &row("log.level")["reloads"]), (&"default".into(), &true.into()));
    assert!(rows.len() > 50 && report["warnings"].as_array().unwrap().len() >= 2, "{report}");

    fs::write(&file, "[library]\npol_seconds = 3\n[ingest]\nworker = 3\n").unwrap();
    let output = daemon.run(&["check-config"]);
    let refused = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    for part in ["line 2", "did you mean library.poll_seconds?", "line 4", "did you mean ingest.workers?"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let output = daemon.run(&["check-config", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["valid"]), (Some(2), &false.into()));
}

#[test]
fn sighup_takes_what_it_can_and_says_what_it_cannot() {
    let library = folder();
    let mut daemon = Daemon::new(library.path());
    let file = daemon.place.path().join("config.toml");
    fs::write(&file, "").unwrap();
    daemon.set_config(&file);
    let socket = daemon.place.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    daemon.set_variable("NOTIFY_SOCKET", socket.to_str().unwrap());
    daemon.start();
    daemon.until_indexed(1);
    assert_eq!(daemon.status()["library"]["poll_seconds"], 2.0);

    fs::write(
        &file,
        "[library]\npoll_seconds = 0.5\nremoval_limit = 99\n[log]\nlevel = \"debug\"\n[ingest]\nworkers = 5\n\
         [store]\ncollection = \"other\"\n",
    )
    .unwrap();
    daemon.signal("HUP");
    let mut said = Vec::new();
    let mut bytes = [0; 4096];
    // Of what was said before, and of the STATUS lines in between, nothing.
    while !said.iter().any(|line: &String| line.contains("configuration reloaded")) {
        let read = systemd.recv(&mut bytes).expect("systemd is told of the reload");
        said.push(String::from_utf8_lossy(&bytes[..read]).into_owned());
    }
    let at =
        |word: &str| said.iter().position(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {said:?}"));
    assert!(said[at("RELOADING=1")].contains("MONOTONIC_USEC="), "{said:?}");
    let reloaded = &said[at("configuration reloaded")];
    assert!(reloaded.contains("READY=1") && reloaded.contains("3 changed; 2 need a restart"), "{reloaded}");
    assert!(at("RELOADING=1") < at("configuration reloaded"));
    daemon.until("the new interval counts", |daemon| daemon.status()["library"]["poll_seconds"] == 0.5);
    let log = daemon.log();
    for line in [
        "library.poll_seconds is 0.5 now, and was 2.0",
        "library.removal_limit is 99 now, and was 10",
        "log.level is \"debug\" now, and was \"info\"",
        "ingest.workers stays 2 until a restart",
        "store.collection stays \"alexandria\" until a restart",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(daemon.status()["store"]["collection"], "alexandria");

    // What cannot be taken changes nothing, and is an error that names it.
    fs::write(&file, "[library]\npoll_seconds = 9\npoll_secs = 1\n").unwrap();
    daemon.signal("HUP");
    daemon.until("the refusal is logged", |daemon| daemon.log().contains("the configuration is not taken"));
    let log = daemon.log();
    assert!(log.contains("ERROR") && log.contains("did you mean library.poll_seconds?"), "{log}");
    assert_eq!(daemon.status()["library"]["poll_seconds"], 0.5);

    // A file of before: what had changed is taken back.
    fs::write(&file, "").unwrap();
    daemon.signal("HUP");
    daemon.until("the old interval counts", |daemon| daemon.status()["library"]["poll_seconds"] == 2.0);
    assert_eq!(daemon.stop().0, Some(0), "{}", daemon.log());
}
