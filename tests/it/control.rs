//! The control socket with real parts: the server on a real queue, asked by the real alexandriactl and by raw HTTP.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use alexandria_ingestd::control::protocol::{
    AuditRepair, AuditReport, ChangeHint, CurrentJob, Estimate, FailedResponse, FallbackRow, Finding, FindingKind,
    GpuStatus, HistoryResponse, JobsResponse, LibraryStatus, ModelMemory, ModelStatus, RecentError, Report, SearchHit,
    SearchResponse, StatusSnapshot, StoreStatus,
};
use alexandria_ingestd::control::server::{ControlError, ControlHandles, ControlServer};
use alexandria_ingestd::control::tables::{self, View};
use alexandria_ingestd::domain::{
    Book, BookFile, Change, FailedFile, Failure, LibraryKind, Metadata, PassedOver, Source,
};
use alexandria_ingestd::queue::{Queue, QueueHandle};
use serde_json::{Value, json};
use uuid::Uuid;

const LIBRARY: Uuid = Uuid::from_u128(0xA1);
const NOW: i64 = 1_800_000_000_000_000;
const VIEW: View = View { width: 100, now_us: NOW };

fn book(number: i64, title: &str) -> Book {
    Book {
        uuid: Uuid::from_u128(number as u128),
        library_uuid: LIBRARY,
        source: Source::Calibre(number),
        metadata: Metadata { title: title.into(), authors: vec!["Ana Anić".into()], ..Metadata::default() },
        file: BookFile {
            format: "EPUB".into(),
            path: PathBuf::from(format!("/library/{title}.epub")),
            data_id: Some(number),
            size: 1000,
            mtime_us: 5,
        },
        others: Vec::new(),
        unread: Vec::new(),
        added_us: NOW - number,
    }
}

/// Four books: one running, one parked, two queued.
fn filled_queue() -> Queue {
    let mut queue = Queue::open_in_memory().unwrap();
    queue.library_at(LibraryKind::Calibre, Path::new("/library"), Some(LIBRARY)).unwrap();
    let titles =
        ["Running", "Encrypted", "Na Drini ćuprija", "A book whose title is long enough that it needs two lines"];
    let changes: Vec<_> = titles.iter().zip(1..).map(|(title, number)| Change::New(book(number, title))).collect();
    queue.apply(LIBRARY, &changes, NOW - 9_000_000).unwrap();
    queue.claim(NOW - 5_000_000).unwrap().unwrap();
    let bad = queue.claim(NOW - 4_000_000).unwrap().unwrap();
    queue
        .fail(
            bad.id,
            &Failure::book("the EPUB is encrypted (DRM): META-INF/encryption.xml lists OEBPS/c1.xhtml"),
            NOW - 3_000_000,
        )
        .unwrap();
    queue
}

/// A service of handles, running in this process until it is dropped.
struct Service {
    socket: PathBuf,
    queue: QueueHandle,
    asked: Arc<Mutex<Vec<String>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), ControlError>>>,
    _dir: tempfile::TempDir,
}

impl Service {
    fn start() -> Service {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/control.sock");
        let server = ControlServer::bind(&socket, "").unwrap();
        let queue = QueueHandle::spawn(filled_queue()).unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let note = |what: String| {
            let asked = Arc::clone(&asked);
            move |detail: String| asked.lock().unwrap().push(format!("{what} {detail}"))
        };
        let (rescanned, ingested, searched) = (note("rescan".into()), note("ingest".into()), note("search".into()));
        let handles = ControlHandles {
            queue: queue.clone(),
            status: Arc::new(|| StatusSnapshot { version: "0.1.0".into(), pid: 42, ..StatusSnapshot::default() }),
            history: Arc::new(|| HistoryResponse { step_seconds: 60, ..HistoryResponse::default() }),
            rescan: Arc::new(move |full| rescanned(full.to_string())),
            verify: Arc::new(|_repair| Ok(AuditReport::default())),
            backup: Arc::new(|| Err("no room".into())),
            report: Arc::new(|_request| Ok(Report::default())),
            reindex: Arc::new(|request| match request.abort {
                true => Err("no reindex goes on".into()),
                false => Ok("3 books go into the new collection 'x'".into()),
            }),
            approve: Arc::new(|| 3),
            ingest_path: Arc::new(move |path, _force| {
                if path.ends_with(".pdf") {
                    return Err(format!("{path}: PDF is not a format this service reads"));
                }
                ingested(path);
                Ok("1 file queued".into())
            }),
            search: Arc::new(move |request| {
                if request.q == "panic" {
                    panic!("a bug in a handle");
                }
                if request.q == "down" {
                    return Err("the store does not answer".into());
                }
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                searched(format!(
                    "{}, {}, {}, {}, {}, {}, {}",
                    request.q,
                    request.limit,
                    text(&request.language),
                    text(&request.author),
                    text(&request.tag),
                    request.level.map_or("none", |level| level.as_str()),
                    request.min_similarity.unwrap_or_default()
                ));
                let found =
                    SearchHit { title: "Found".into(), text: "a passage".into(), score: 0.5, ..SearchHit::default() };
                Ok(SearchResponse { query: request.q, hits: vec![found], ..SearchResponse::default() })
            }),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(
                server.serve(handles, async {
                    let _ = stopped.await;
                }),
            )
        });
        Service { socket, queue, asked, stop: Some(stop), thread: Some(thread), _dir: dir }
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        ctl(&self.socket, arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ctl(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// One HTTP request as any client may send it; the status and the body.
    fn raw(&self, request: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
        self.queue.stop();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn ctl(socket: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alexandriactl")).arg("--socket").arg(socket).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[test]
fn every_verb_does_what_it_says() {
    let service = Service::start();

    let status = service.json(&["status", "--fresh"]);
    assert_eq!(status["pid"], 42);
    assert_eq!(status["queue"]["parked"], 1, "the server asks the queue itself");
    assert_eq!(service.json(&["queue"])["jobs"][0]["state"], "running");
    assert_eq!(service.json(&["queue", "--state", "parked"])["total"], 1);
    assert_eq!(service.json(&["queue", "--limit", "1"])["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(service.json(&["failed"])["jobs"][0]["title"], "Encrypted");

    assert_eq!(service.json(&["retry", "2"])["retried"], 1);
    assert_eq!(service.json(&["retry", "--all"])["retried"], 0);

    assert_eq!(service.json(&["pause"]), json!({"paused": true}));
    assert_eq!(service.json(&["status", "--fresh"])["paused"], true);
    assert_eq!(service.json(&["resume"]), json!({"paused": false}));

    service.json(&["ingest", "4"]);
    assert_eq!(service.json(&["queue", "--state", "queued"])["jobs"][0]["source_id"], "4", "the front of the queue");
    service.json(&["ingest", "/somewhere/new.epub"]);
    assert!(text(&service.ctl(&["remove", "3"]).stdout).contains("Na Drini ćuprija"));

    service.json(&["rescan"]);
    service.json(&["rescan", "--full"]);
    assert_eq!(service.json(&["approve"])["message"], "3 books that are gone from the library leave the index");
    let found = service.json(&[
        "search",
        "wizards",
        "&",
        "č",
        "--limit",
        "3",
        "--author",
        "Ana Anić",
        "--language",
        "hr",
        "--tag",
        "fiction",
        "--level",
        "chapter",
        "--min-similarity",
        "0.5",
    ]);
    assert_eq!((found["query"].as_str(), found["hits"][0]["title"].as_str()), (Some("wizards & č"), Some("Found")));
    assert_eq!(
        *service.asked.lock().unwrap(),
        [
            "ingest /somewhere/new.epub",
            "rescan false",
            "rescan true",
            "search wizards & č, 3, hr, Ana Anić, fiction, parent, 0.5",
        ]
    );
}

#[test]
fn a_path_is_sent_as_the_service_must_see_it() {
    let service = Service::start();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("novel.txt"), "text").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_alexandriactl"))
        .current_dir(dir.path())
        .arg("--socket")
        .arg(&service.socket)
        .args(["ingest", "novel.txt"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected = format!("ingest {}", dir.path().canonicalize().unwrap().join("novel.txt").display());
    assert_eq!(*service.asked.lock().unwrap(), [expected]);
}

#[test]
fn exit_codes_and_messages_tell_what_to_do() {
    let service = Service::start();
    for (arguments, code, says) in [
        (vec!["status"], 0, "alexandria-ingestd 0.1.0"),
        (vec!["failed"], 0, "encrypted (DRM)"),
        (vec!["retry", "77"], 1, "no book '77' is known"),
        (vec!["ingest", "77"], 1, "no book '77' is known"),
        (vec!["remove", "/absent.epub"], 1, "no book '/absent.epub' is known"),
        (vec!["ingest", "/x.pdf"], 1, "PDF is not a format"),
        (vec!["search", "down"], 1, "the store does not answer"),
        (vec!["search", " "], 1, "the query is empty"),
        (vec!["search", "panic"], 1, "this is a bug"),
        (vec!["status"], 0, "alexandria-ingestd 0.1.0"),
        (vec![], 2, "Usage"),
        (vec!["frobnicate"], 2, "unrecognized subcommand"),
        (vec!["retry"], 2, "required"),
        (vec!["retry", "2", "--all"], 2, "cannot be used with"),
        (vec!["queue", "--limit", "many"], 2, "invalid value"),
        (vec!["--help"], 0, "Exit codes"),
    ] {
        let output = service.ctl(&arguments);
        let all = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
        assert!(all.contains(says), "{arguments:?}: {all}");
        let wrong_stream = if code == 0 { &output.stderr } else { &output.stdout };
        assert!(wrong_stream.is_empty(), "{arguments:?}: {}", text(wrong_stream));
    }
    for verb in [
        "status", "watch", "queue", "failed", "retry", "rescan", "approve", "ingest", "remove", "pause", "resume",
        "search", "report",
    ] {
        assert!(text(&service.ctl(&[verb, "--help"]).stdout).contains("Example"), "{verb} has no example");
    }
}

#[test]
fn a_service_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let absent = ctl(&socket, &["status"]);
    // Left over by a crash: bound, and nobody listens.
    drop(UnixListener::bind(&socket).unwrap());
    let stale = ctl(&socket, &["status"]);
    for output in [absent, stale] {
        assert_eq!(output.status.code(), Some(1));
        let says = text(&output.stderr);
        assert!(says.contains(&*socket.to_string_lossy()), "{says}");
        assert!(says.contains("systemctl status alexandria-ingestd"), "{says}");
    }
}

#[test]
fn something_else_on_the_socket_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let other = std::thread::spawn(move || {
        for protocol in ["", "alexandria-protocol: 99\r\nserver: alexandria-ingestd/9.9.9\r\n"] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\n{protocol}content-length: 2\r\n\r\n{{}}").unwrap();
        }
    });
    let says = text(&ctl(&socket, &["status"]).stderr);
    assert!(says.contains("does not speak this service's language"), "{says}");
    let says = text(&ctl(&socket, &["status"]).stderr);
    assert!(says.contains("(alexandria-ingestd 9.9.9) speaks protocol 99"), "{says}");
    assert!(says.contains("systemctl restart"), "{says}");
    other.join().unwrap();
}

#[test]
fn bad_requests_get_json_with_a_fitting_status() {
    let service = Service::start();
    let large = "x".repeat((1 << 20) + 1);
    for (request, status, says) in [
        (get("/nothing"), 404, "there is no /nothing"),
        (get("/pause"), 405, "does not take GET"),
        (post("/status", ""), 405, "does not take POST"),
        (post("/ingest", "{"), 400, "not what is expected"),
        (post("/ingest", "{}"), 400, "missing field `target`"),
        (post("/rescan", r#"{"ful": true}"#), 400, "unknown field `ful`"),
        (post("/rescan", r#"{"full": 1}"#), 400, "invalid type"),
        (post("/retry", &large), 413, "limit"),
        (get("/search"), 400, "missing field `q`"),
        (get("/queue?limit=-1"), 400, "limit"),
        (get("/queue?state=lost"), 400, "unknown variant"),
    ] {
        let (got, body) = service.raw(&request);
        let error = body["error"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{error}");
        assert!(error.contains(says), "{error}");
    }
    let (_, body) = service.raw(&get("/nothing"));
    assert!(body["hint"].as_str().unwrap().contains("POST /rescan"), "the verbs are listed");
    // No body is a request with the defaults, so that `curl -X POST` is enough.
    assert_eq!(service.raw(&post("/rescan", "")).0, 200);
}

#[test]
fn a_number_of_two_libraries_asks_which() {
    let service = Service::start();
    let other = Uuid::from_u128(0xB2);
    service
        .queue
        .call(move |queue| {
            queue.library_at(LibraryKind::Calibre, Path::new("/other"), Some(other)).unwrap();
            let mut twin = book(3, "Twin");
            twin.uuid = Uuid::from_u128(333);
            twin.library_uuid = other;
            queue.apply(other, &[Change::New(twin)], NOW).unwrap();
        })
        .unwrap();
    let (status, body) = service.raw(&post("/ingest", r#"{"target": "3"}"#));
    assert_eq!(status, 409);
    assert!(body["hint"].as_str().unwrap().contains(&Uuid::from_u128(333).to_string()), "{body}");
    service.queue.call(|queue| queue.set_watched_library(LIBRARY).unwrap()).unwrap();
    let (status, body) = service.raw(&post("/ingest", r#"{"target": "3"}"#));
    assert_eq!(status, 200, "the watched library's book is meant: {body}");
}

#[test]
fn the_socket_is_never_taken_from_another() {
    let mut service = Service::start();
    let mode = std::fs::metadata(&service.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let error = ControlServer::bind(&service.socket, "").unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert!(service.ctl(&["status"]).status.success(), "the first is left alone");
    service.stop();
    assert!(!service.socket.exists(), "removed at the end");

    drop(UnixListener::bind(&service.socket).unwrap());
    drop(ControlServer::bind(&service.socket, "").expect("a stale socket is replaced"));

    let file = service.socket.with_file_name("precious");
    std::fs::write(&file, "text").unwrap();
    assert!(matches!(ControlServer::bind(&file, ""), Err(ControlError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
    let long = service.socket.with_file_name("x".repeat(120));
    assert!(matches!(ControlServer::bind(&long, ""), Err(ControlError::PathTooLong { .. })));
}

#[test]
fn a_stopped_queue_is_said_and_shutdown_does_not_hang() {
    let mut service = Service::start();
    service.queue.stop();
    let output = service.ctl(&["queue"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the queue's thread does not answer"), "{}", text(&output.stderr));
    // A client that holds its connection open and says nothing.
    let _idle = UnixStream::connect(&service.socket).unwrap();
    let started = std::time::Instant::now();
    service.stop();
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

fn passed_over(title: &str, reason: &str) -> PassedOver {
    PassedOver {
        uuid: LIBRARY,
        book_id: "calibre 12".into(),
        title: title.into(),
        formats: vec!["CBZ".into()],
        reason: reason.into(),
    }
}

fn full_status() -> StatusSnapshot {
    let queue = filled_queue();
    StatusSnapshot {
        version: "0.1.0".into(),
        pid: 4711,
        uptime_seconds: 7384,
        library: LibraryStatus {
            path: "/mnt/calibre".into(),
            kind: Some(LibraryKind::Calibre),
            uuid: Some(LIBRARY),
            filesystem: "cifs".into(),
            poll_seconds: 2.0,
            hint: Some(ChangeHint::Cifs),
            no_hint_because: None,
            available: true,
            reason: None,
            not_answering_since_us: None,
            last_look_us: Some(NOW - 2_000_000),
            books: 12_345,
            passed_over: vec![passed_over("Scan", "CBZ: a comic: its pages are images without text")],
        },
        queue: queue.stats().unwrap(),
        current: vec![CurrentJob {
            book_uuid: Uuid::from_u128(1),
            book_id: "calibre 1".into(),
            title: "Running".into(),
            stage: "embed".into(),
            done_chunks: 123,
            total_chunks: 456,
            done_tokens: 41_000,
            total_tokens: 100_000,
            since_us: NOW - 75_000_000,
            ..CurrentJob::default()
        }],
        model: ModelStatus {
            id: "bge-m3".into(),
            name: "BAAI/bge-m3".into(),
            dimension: 1024,
            device: "cuda:0".into(),
            loads: 1,
            fingerprint: "f".into(),
            batch_tokens: 8192,
            budget_halvings: 0,
            memory: Some(ModelMemory {
                total: 12 << 30,
                free: 9 << 30,
                weights: 1100 << 20,
                workspace: 135 << 20,
                peak: 1300 << 20,
            }),
        },
        store: StoreStatus {
            location: "embedded /var/lib/alexandria-ingestd/store".into(),
            collection: "alexandria".into(),
            points: Some(1_234_567),
            healthy: true,
            reason: None,
        },
        tokens_per_second: 12_345.6,
        chunks_per_minute: 1480.2,
        model_share: Some(0.963),
        gpu: Some(GpuStatus {
            name: "NVIDIA GeForce RTX 3060".into(),
            utilisation_percent: Some(97),
            memory_used: 3 << 30,
            memory_total: 12 << 30,
            power_watts: Some(161.3),
            temperature_celsius: Some(65),
        }),
        estimate: Some(Estimate {
            books: 3,
            tokens: 359_000,
            tokens_low: 200_000,
            tokens_high: 500_000,
            seconds: 1740.0,
            seconds_low: 1000.0,
            seconds_high: 2600.0,
            basis: "512 indexed books, 206 tokens/s of passages over 20 min 0 s".into(),
        }),
        recent_errors: vec![RecentError {
            at_us: NOW - 200_000_000,
            book_id: "calibre 2".into(),
            title: "Encrypted".into(),
            reason: "the EPUB is encrypted (DRM): META-INF/encryption.xml lists OEBPS/c1.xhtml".into(),
            next: "parked".into(),
        }],
        ..StatusSnapshot::default()
    }
}

#[test]
fn status_reads_well() {
    let view = View { width: 80, ..VIEW };
    let mut status = full_status();
    let screen = tables::status(&status, view);
    assert!(screen.lines().count() <= 23 && screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    insta::assert_snapshot!("status", screen);
    assert_eq!(tables::summary(&status), "0 of 4 books · 3 to do · 1 parked · embed 'Running' 40 %");
    insta::assert_debug_snapshot!("watch", tables::frame(&status, view));
    status.library.hint = Some(ChangeHint::Inotify);
    assert!(tables::status(&status, view).contains("changes  inotify\n"));
    status.library.hint = None;
    status.library.no_hint_because = Some("nfs reports no changes made elsewhere".into());
    status.paused = true;
    status.removals_waiting = 900;
    status.library.available = false;
    status.library.reason = Some("/mnt/calibre is not mounted".into());
    status.store.healthy = false;
    status.store.points = None;
    status.store.reason = Some("connection refused".into());
    status.waiting = vec!["books wait for the store: connection refused".into()];
    status.stuck = vec!["the embedder is stuck: no batch has come to an end for 700 s".into()];
    status.last_audit = Some(AuditReport {
        started_us: NOW - 3_600_000_000,
        counts: vec![(FindingKind::Missing, 2), (FindingKind::Orphan, 1)],
        ..AuditReport::default()
    });
    insta::assert_snapshot!("status_of_a_bad_day", tables::status(&status, view));
    assert!(
        tables::status(&StatusSnapshot::default(), view).contains("not seen yet"),
        "an empty status is readable too"
    );
}

#[test]
fn a_comparison_reads_well() {
    let finding = |kind, book_id: &str, title: &str, detail: &str| Finding {
        kind,
        library_uuid: LIBRARY,
        book_uuid: Uuid::from_u128(7),
        book_id: book_id.into(),
        title: title.into(),
        detail: detail.into(),
    };
    let mut report = AuditReport {
        seconds: 12.3,
        library: "12,345 books, nothing new".into(),
        library_answers: true,
        books: 12_345,
        points: 1_234_567,
        in_work: 3,
        foreign_points: 44,
        counts: vec![(FindingKind::Missing, 1), (FindingKind::Stale, 0), (FindingKind::Orphan, 8)],
        findings: vec![
            finding(FindingKind::Missing, "calibre 7", "Košnica", "the store holds 3 of 12 points"),
            finding(FindingKind::Orphan, "", "", "12 points, of which the state knows nothing"),
        ],
        ..AuditReport::default()
    };
    insta::assert_snapshot!("audit", tables::audit(&report, VIEW));
    report.repair = Some(AuditRepair { queued: 1, deleted_points: 96 });
    assert!(tables::audit(&report, VIEW).ends_with("1 missing, 8 orphan; 1 books are queued, 96 points deleted\n"));
    assert!(tables::audit(&AuditReport::default(), VIEW).contains("agree"));
}

#[test]
fn lists_read_well() {
    let mut queue = filled_queue();
    queue.enqueue_by_hand(LIBRARY, Uuid::from_u128(4), alexandria_ingestd::queue::JobKind::Ingest, false, NOW).unwrap();
    let waiting = queue.claim(NOW).unwrap().unwrap();
    queue.fail(waiting.id, &Failure::transient("the share answered 'Host is down'"), NOW).unwrap();
    let jobs = queue.list(None, 10).unwrap();
    insta::assert_snapshot!("queue", tables::queue(&JobsResponse { jobs, total: 15 }, VIEW));
    let jobs = queue.parked(10).unwrap();
    let failed = FailedFile::new(&book(7, "Hive").file, "/library/Hive.epub is damaged: no central directory");
    let answer = FailedResponse {
        jobs,
        total: 1,
        unreadable: vec![passed_over("Tintin", "CBZ: a comic: its pages are images without text\nXYZ: no reader")],
        unreadable_total: 9,
        fallbacks: vec![FallbackRow {
            book_uuid: LIBRARY,
            source: "calibre".into(),
            source_id: "7".into(),
            title: "Hive".into(),
            author: "Ana Anić".into(),
            format: "TXT".into(),
            failed: vec![failed],
        }],
        fallbacks_total: 1,
    };
    insta::assert_snapshot!("failed", tables::failed(&answer, VIEW));
    assert_eq!(tables::queue(&JobsResponse::default(), VIEW), "nothing is queued\n");
    assert_eq!(tables::failed(&FailedResponse::default(), VIEW), "nothing has failed\n");
}

#[test]
fn passages_read_well() {
    let hit = SearchHit {
        score: 0.7312,
        title: "Debian Developer's Reference".into(),
        author: "Barth & di Carlo".into(),
        section: "5.9.5 Adopting a package".into(),
        text: "A list of packages in need of a new maintainer is available. \n".repeat(12),
        language: "en".into(),
        source: "calibre".into(),
        source_id: "12".into(),
        ..SearchHit::default()
    };
    let short = SearchHit { text: "短い文。".into(), section: String::new(), title: "本".into(), ..hit.clone() };
    let answer = SearchResponse { query: "adopt".into(), hits: vec![hit, short], notes: vec![] };
    insta::assert_snapshot!("search", tables::search(&answer, false, VIEW));
    assert_eq!(
        tables::search(&SearchResponse { hits: vec![], ..answer }, false, VIEW),
        "nothing was found for 'adopt'\n"
    );
}

#[test]
fn a_client_of_another_protocol_changes_nothing() {
    let service = Service::start();
    let request = post("/pause", "").replace("host: x", "host: x\r\nalexandria-protocol: 2");
    let (status, body) = service.raw(&request);
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("speaks protocol 1"), "{body}");
    assert_eq!(service.json(&["status"])["paused"], false);
    assert_eq!(service.json(&["status"])["protocol"], 1, "the body says it, too");
    let (status, _) = service.raw(&request.replace("protocol: 2", "protocol: 1"));
    assert_eq!(status, 200);
}

#[test]
fn what_never_ends_is_ended() {
    let service = Service::start();
    let connect = || UnixStream::connect(&service.socket).unwrap();
    let answer = |mut stream: UnixStream| {
        let mut answer = Vec::new();
        // A server that closes with bytes unread resets the connection; what came before that counts.
        let _ = stream.read_to_end(&mut answer);
        text(&answer)
    };
    // A body in chunks that would go on for ever.
    let mut endless = connect();
    endless.write_all(b"POST /retry HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    while endless.write_all(chunk.as_bytes()).is_ok() {}
    // A head that would go on for ever.
    let mut head = connect();
    head.write_all(b"GET /status HTTP/1.1\r\n").unwrap();
    let line = format!("x-header: {}\r\n", "x".repeat(1000));
    while head.write_all(line.as_bytes()).is_ok() {}
    // No HTTP at all, a body that is shorter than was said, one that is longer than is taken.
    let mut garbage = connect();
    garbage.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0]).unwrap();
    garbage.write_all(b"\r\n\r\n").unwrap();
    assert!(answer(garbage).starts_with("HTTP/1.1 400"));
    let mut short = connect();
    short.write_all(b"POST /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    short.shutdown(std::net::Shutdown::Write).unwrap();
    let said = answer(short);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400"), "{said}");
    let mut announced = connect();
    announced.write_all(b"POST /ingest HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
    let said = answer(announced);
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("over the limit of 1048576 bytes"), "{said}");
    // All of one user's connections, taken and left idle, and one more.
    let idle: Vec<UnixStream> = (0..63).map(|_| connect()).collect();
    assert_eq!(service.json(&["status"])["pid"], 42);
    drop(idle);
    assert_eq!(service.json(&["status"])["pid"], 42);
}
