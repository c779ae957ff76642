//! The HTTP listener of the real service, used by other people's programs: OpenAI's client, the OpenAPI validator,
//! schemathesis, promtool, Chromium. `tests/run.sh` installs them and says in ALEXANDRIA_TEST_HTTP which are there.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::daemon::{Daemon, text};

const TOKEN: &str = "a-token-that-nobody-guesses";

/// Where the programs are, beside those on PATH.
fn tools() -> PathBuf {
    PathBuf::from(std::env::var_os("ALEXANDRIA_TEST_CACHE").unwrap_or_default()).join("http")
}

/// Whether `tests/run.sh` has found these programs; says that it has not.
fn there_is(what: &str) -> bool {
    let there = std::env::var("ALEXANDRIA_TEST_HTTP").unwrap_or_default().split(' ').any(|one| one == what);
    if !there {
        eprintln!("SKIPPED: {what} is not installed (bash tests/run.sh installs it)");
    }
    there
}

/// The service with three books, one of them with a title that no page should believe, and its address.
fn service() -> (Daemon, String, tempfile::TempDir) {
    let library = tempfile::tempdir().unwrap();
    let passage = "The queen lays eggs all summer while workers bring nectar and pollen to the hive. ";
    fs::write(library.path().join("Bees <img src=x onerror=hacked=1>.txt"), passage.repeat(40)).unwrap();
    fs::write(library.path().join("Ships.txt"), "Ships cross the ocean under sail. ".repeat(60)).unwrap();
    fs::write(library.path().join("Rivers.txt"), "Rivers run through the valley to the lake. ".repeat(60)).unwrap();
    fs::write(library.path().join("Broken.epub"), "no zip at all").unwrap();
    let mut daemon = Daemon::new(library.path());
    let file = daemon.place.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    // A damaged file that came just now would be waited for.
    daemon.set("ingest.unfinished_seconds", "0");
    daemon.set("http.listen", "127.0.0.1:0");
    daemon.set("http.token_file", file.to_str().unwrap());
    daemon.start();
    daemon.until_indexed(3);
    let log = daemon.log();
    let address = log.split_once("listening on http://").unwrap().1.split(' ').next().unwrap().to_owned();
    (daemon, address, library)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

#[test]
fn openais_client_and_the_openapi_validator_take_it_as_it_is() {
    if !there_is("clients") {
        return;
    }
    let (_daemon, address, _library) = service();
    let mut command = Command::new(tools().join("python/bin/python"));
    command.arg(script("http_clients.py")).args([&format!("http://{address}"), TOKEN, "fake", "64"]);
    print!("{}", run(&mut command));
}

#[test]
fn slow_schemathesis_finds_no_answer_that_the_document_does_not_describe() {
    if !there_is("clients") {
        return;
    }
    let (daemon, address, _library) = service();
    let mut command = Command::new(tools().join("python/bin/schemathesis"));
    command.current_dir(daemon.place.path()).arg("run").arg(format!("http://{address}/openapi.json"));
    command.args(["-H", &format!("Authorization: Bearer {TOKEN}"), "--max-examples", "60", "--seed", "1"]);
    // What a schema cannot say: which model is loaded, how many dimensions it has, that a question must not be blank.
    // And /, which is open, is described as needing no token, so that ignoring one is right.
    command.args(["--suppress-health-check", "all", "--exclude-checks", "positive_data_acceptance"]);
    let said = run(&mut command);
    assert!(said.contains("Tested: 12"), "{said}");
}

#[test]
fn promtool_has_nothing_to_say_of_the_metrics() {
    if !there_is("promtool") {
        return;
    }
    let (_daemon, address, _library) = service();
    let metrics = get(&address, "/metrics");
    let mut promtool = Command::new(tools().join("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
}

/// Without any of those programs: what the service counts, and that the dashboard asks for nothing else.
#[test]
fn the_metrics_count_what_was_done_and_the_dashboard_asks_for_nothing_else() {
    let (_daemon, address, _library) = service();
    get(&address, "/search?q=queen");
    let metrics = get(&address, "/metrics");
    for line in [
        "alexandria_model_loads_total 1",
        "alexandria_jobs_done_total{outcome=\"embedded\"} 3",
        "alexandria_job_failures_total{kind=\"book\"} 1",
        "alexandria_jobs{state=\"parked\"} 1",
        "alexandria_indexed_books 3",
        "alexandria_store_up 1",
        "alexandria_library_up 1",
        "alexandria_http_requests_total{code=\"200\",method=\"GET\",route=\"/search\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let known: Vec<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // Those of a GPU and of an estimate are there where there is one; the unit tests make them.
    let elsewhere = ["alexandria_gpu_", "alexandria_model_memory_", "alexandria_remaining_"];
    let dashboard = fs::read_to_string(script("../packaging/grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for name in words.filter(|word| word.starts_with("alexandria_")) {
                let base = name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count");
                let there = known.contains(&name) || known.contains(&base);
                assert!(there || elsewhere.iter().any(|start| name.starts_with(start)), "{name} in {query}");
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked} names are asked for");
}

#[test]
fn slow_the_status_page_works_by_clicking() {
    if !there_is("browser") {
        return;
    }
    let (daemon, address, _library) = service();
    let pictures = std::env::var_os("ALEXANDRIA_TEST_PICTURES")
        .map_or_else(|| daemon.place.path().join("pictures"), PathBuf::from);
    let mut command = Command::new("python3");
    command.arg(script("http_page.py")).args([&format!("http://{address}"), TOKEN]).arg(&pictures);
    command.args(["the queen lays eggs", "Bees <img src=x onerror=hacked=1>"]);
    print!("{}", run(&mut command));
    for picture in ["light.png", "dark.png", "phone.png"] {
        assert!(fs::metadata(pictures.join(picture)).unwrap().len() > 20_000, "{picture} is all but empty");
    }
}
