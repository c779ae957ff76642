//! The HTTP listener with handles made for the test: dialects, refusals, limits, broken clients, and that no control verb
//! is there. What other programs make of it is in `http_clients.rs`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use alexandria_ingestd::control::http::{
    EmbedRefusal, EmbedTask, Embedded, HttpHandles, HttpServer, HttpSettings, ModelCard, RunningHttp, TooLong,
};
use alexandria_ingestd::control::protocol::{HistoryResponse, SearchHit, SearchResponse, StatusSnapshot};
use alexandria_ingestd::control::server::ControlHandles;
use alexandria_ingestd::queue::{Queue, QueueHandle};
use serde_json::{Value, json};

const MODEL: &str = "tiny";

/// What the handles of the test share.
#[derive(Default)]
struct Behind {
    /// While it is true, embedding waits.
    held: Mutex<bool>,
    changed: Condvar,
    /// Texts in the embedder's hands, and requests that were abandoned there.
    waiting: AtomicUsize,
    abandoned: AtomicUsize,
    status: Mutex<StatusSnapshot>,
}

impl Behind {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }

    /// A text's vector is its length; ten words are too many.
    fn embed(&self, task: EmbedTask) -> Result<Embedded, EmbedRefusal> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut held = self.held.lock().unwrap();
        while *held && !task.abandoned.load(Ordering::Relaxed) {
            held = self.changed.wait_timeout(held, Duration::from_millis(10)).unwrap().0;
        }
        drop(held);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if task.abandoned.load(Ordering::Relaxed) {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        let mut tokens = 0;
        for (index, text) in task.texts.iter().enumerate() {
            match text.as_str() {
                "panic" => panic!("a bug behind the listener"),
                "stopped" => return Err(EmbedRefusal::Unavailable("the embedder has stopped".into())),
                "broken" => return Err(EmbedRefusal::Failed("the model failed".into())),
                _ => {}
            }
            let words = text.split_whitespace().count() + 2;
            if words > 12 && task.too_long == TooLong::Refuse {
                return Err(EmbedRefusal::TooLong { index, tokens: words, limit: 12 });
            }
            tokens += words.min(12);
        }
        let vectors = task.texts.iter().map(|text| vec![text.len() as f32, 0.5, -1.0]).collect();
        Ok(Embedded { vectors, tokens })
    }
}

/// What must not be reached.
fn never<T>(what: &str) -> T {
    panic!("{what} was reached over TCP")
}

struct Listener {
    address: SocketAddr,
    behind: Arc<Behind>,
    queue: QueueHandle,
    running: RunningHttp,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.behind.hold(false);
        self.running.stop();
        self.queue.stop();
    }
}

fn settings() -> HttpSettings {
    HttpSettings {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: None,
        max_texts: 4,
        max_body: 64 << 10,
        max_requests: 8,
        max_connections: 64,
        timeout: Duration::from_secs(20),
    }
}

impl Listener {
    fn start(settings: HttpSettings) -> Listener {
        let behind = Arc::new(Behind::default());
        {
            let mut status = behind.status.lock().unwrap();
            status.version = "1.2.3".into();
            status.model.loads = 1;
            status.store.healthy = true;
        }
        let queue = QueueHandle::spawn(Queue::open_in_memory().unwrap()).unwrap();
        let (embedding, looked) = (behind.clone(), behind.clone());
        let control = ControlHandles {
            queue: queue.clone(),
            status: Arc::new(move || looked.status.lock().unwrap().clone()),
            rescan: Arc::new(move |_| never("rescan")),
            approve: Arc::new(move || never("approve")),
            ingest_path: Arc::new(move |_, _| never("ingest")),
            search: Arc::new(|request| {
                if request.q == "down" {
                    return Err("the store does not answer".into());
                }
                let hit = SearchHit { title: format!("{request:?}"), ..SearchHit::default() };
                Ok(SearchResponse { query: request.q, hits: vec![hit], ..SearchResponse::default() })
            }),
            verify: Arc::new(move |_| never("verify")),
            backup: Arc::new(move || never("backup")),
            reindex: Arc::new(move |_| never("reindex")),
            report: Arc::new(move |_| never("report")),
            history: Arc::new(|| HistoryResponse { step_seconds: 60, ..HistoryResponse::default() }),
        };
        let model = ModelCard { id: MODEL.into(), name: "Lab/Tiny-Model".into(), dimension: 3, max_tokens: 12 };
        let handles = HttpHandles { control, model, embed: Arc::new(move |task| embedding.embed(task)) };
        let server = HttpServer::bind(settings).unwrap();
        let address = server.address();
        Listener { address, behind, queue, running: server.start(handles).unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn raw(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        // The server may refuse and close before all is sent.
        let _ = stream.write_all(request.as_bytes());
        Answer::read(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw(&post(path, &body.to_string()))
    }

    /// That everything is still well.
    fn assert_well(&self) {
        assert_eq!(self.post("/embed", &json!({"texts": ["abc"]})).json(), json!({"embeddings": [[3.0, 0.5, -1.0]]}));
    }

    fn until(&self, what: &str, holds: impl Fn(&Behind) -> bool) {
        let started = Instant::now();
        while !holds(&self.behind) {
            assert!(started.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Answer { status: 0, head: text, body: String::new() };
        };
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[test]
fn texts_come_back_as_vectors_in_each_dialect() {
    let listener = Listener::start(settings());
    let two = json!([[1.0, 0.5, -1.0], [2.0, 0.5, -1.0]]);
    assert_eq!(listener.post("/embed", &json!({"texts": ["a", "bb"]})).json(), json!({"embeddings": two}));
    assert_eq!(listener.post("/embed", &json!({"texts": []})).json(), json!({"embeddings": []}));
    assert_eq!(listener.post("/embed", &json!({"inputs": ["a", "bb"], "normalize": true})).json(), two);
    assert_eq!(listener.post("/embed", &json!({"inputs": "a"})).json(), json!([[1.0, 0.5, -1.0]]));
    let long = "word ".repeat(20);
    assert_eq!(listener.post("/embed", &json!({"inputs": long, "truncate": true})).status, 200);
    let answer = listener.post("/v1/embeddings", &json!({"input": ["a", "bb cc"], "model": MODEL})).json();
    assert_eq!(answer["data"][1]["index"], 1);
    assert_eq!(answer["data"][1]["embedding"], json!([5.0, 0.5, -1.0]));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
    assert_eq!(answer["model"], MODEL);
    let coded = listener.post(
        "/v1/embeddings",
        &json!({"input": "a", "model": "lab/tiny-model", "encoding_format": "base64", "dimensions": 3, "user": "ana"}),
    );
    assert_eq!(coded.json()["data"][0]["embedding"], "AACAPwAAAD8AAIC/");
    assert_eq!(listener.get("/v1/models").json()["data"][0]["id"], MODEL);
    assert_eq!(listener.get("/v1/models/Lab/Tiny-Model").status, 200);
}

#[test]
fn refusals_have_the_status_and_the_shape_that_each_dialects_clients_know() {
    let listener = Listener::start(settings());
    let long = "word ".repeat(20);
    for (body, status, kind, says) in [
        (json!({"texts": ["a", long]}), 422, "validation", "text 1 has 22 tokens, the model takes at most 12"),
        (json!({"texts": ["a", "a", "a", "a", "a"]}), 413, "validation", "5 texts"),
        (json!({"texts": "a"}), 422, "validation", "invalid type"),
        (json!({"texts": [1]}), 422, "validation", "invalid type"),
        (json!({"texts": ["a"], "inputs": "a"}), 422, "validation", "not both"),
        (json!({}), 422, "validation", "neither `texts`"),
        (json!({"texts": ["stopped"]}), 503, "unhealthy", "stopped"),
        (json!({"texts": ["broken"]}), 500, "backend", "the model failed"),
        (json!({"texts": ["panic"]}), 500, "backend", "bug"),
        (json!({"inputs": ["a", long]}), 413, "validation", "at most 12 tokens. Given: 22 (input 1)"),
        (
            json!({"inputs": ["a", "a", "a", "a", "a"]}),
            413,
            "validation",
            "batch size 5 > maximum allowed batch size 4",
        ),
        (json!({"inputs": []}), 400, "empty", "cannot be empty"),
        (json!({"inputs": ""}), 400, "empty", "cannot be empty"),
        (json!({"inputs": [[1, 2]]}), 422, "validation", "token ids"),
        (json!({"inputs": "a", "normalize": false}), 422, "validation", "normalize"),
        (json!({"inputs": "a", "prompt_name": "query"}), 422, "validation", "prompt"),
        (json!({"inputs": "a", "dimensions": 2}), 422, "validation", "3 dimensions, not 2"),
        (json!({"inputs": "broken"}), 424, "backend", "the model failed"),
        (json!({"inputs": "stopped"}), 503, "unhealthy", "stopped"),
    ] {
        let answer = listener.post("/embed", &body);
        let got = answer.json();
        assert_eq!((answer.status, got["error_type"].as_str()), (status, Some(kind)), "{body}: {got}");
        assert!(got["error"].as_str().unwrap().contains(says), "{body}: {got}");
    }
    assert_eq!(listener.raw(&post("/embed", "{")).status, 400);
    for (body, status, kind, code, says) in [
        (
            json!({"input": long}),
            400,
            "invalid_request_error",
            Some("context_length_exceeded"),
            "12 tokens, input 0 has 22",
        ),
        (json!({"input": ["a", ""]}), 400, "invalid_request_error", None, "an empty one"),
        (json!({"input": []}), 400, "invalid_request_error", None, "no text"),
        (json!({"input": [1, 2]}), 400, "invalid_request_error", None, "token ids"),
        (json!({"input": ["a", "a", "a", "a", "a"]}), 400, "invalid_request_error", None, "5 texts"),
        (json!({"input": "a", "dimensions": 256}), 400, "invalid_request_error", None, "3 dimensions, not 256"),
        (json!({"input": "a", "encoding_format": "int8"}), 400, "invalid_request_error", None, "int8"),
        (
            json!({"input": "a", "model": "text-embedding-3-small"}),
            404,
            "invalid_request_error",
            Some("model_not_found"),
            "'tiny'",
        ),
        (json!({"input": "stopped"}), 503, "server_error", None, "stopped"),
        (json!({"input": "panic"}), 500, "server_error", None, "bug"),
    ] {
        let answer = listener.post("/v1/embeddings", &body);
        let error = &answer.json()["error"];
        let got = (answer.status, error["type"].as_str(), error["code"].as_str());
        assert_eq!(got, (status, Some(kind), code), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(says), "{body}: {error}");
    }
    assert_eq!(listener.get("/v1/models/gpt").status, 404);
    let form = post("/embed", "{}").replace("application/json", "application/x-www-form-urlencoded");
    assert_eq!(listener.raw(&form).status, 415);
    listener.assert_well();
}

#[test]
fn no_control_verb_is_there() {
    let listener = Listener::start(settings());
    for verb in [
        "queue", "failed", "backup", "verify", "retry", "rescan", "approve", "ingest", "remove", "pause", "resume",
        "report", "shutdown",
    ] {
        for path in [format!("/{verb}"), format!("//{verb}"), format!("/status/../{verb}"), format!("/%2e/{verb}")] {
            assert_eq!(listener.get(&path).status, 404, "GET {path}");
            for body in [json!({}), json!({"target": "1"}), json!({"repair": true})] {
                assert_eq!(listener.post(&path, &body).status, 404, "POST {path}");
            }
        }
    }
    assert_eq!(listener.post("/status", &json!({})).status, 405);
    assert_eq!(listener.get("/embed").status, 405);
    assert!(!listener.queue.call(|queue| queue.stats().unwrap().paused).unwrap());
}

#[test]
fn what_can_be_looked_at() {
    let listener = Listener::start(settings());
    let found = listener.get("/search?q=bees%20%26%20honey&limit=3&language=en").json();
    assert_eq!(found["query"], "bees & honey");
    let asked = found["hits"][0]["title"].as_str().unwrap();
    assert!(asked.contains("limit: 3") && asked.contains(r#"language: Some("en")"#), "{asked}");
    assert_eq!(listener.post("/search", &json!({"q": "bees", "limit": 2})).status, 200);
    assert_eq!(listener.get("/search").status, 400);
    assert_eq!(listener.get("/search?q=+").status, 400);
    assert_eq!(listener.get("/search?q=down").status, 503);
    assert_eq!(listener.get("/status").json()["version"], "1.2.3");
    assert_eq!(listener.get("/history").json()["step_seconds"], 60);
    assert_eq!((listener.get("/healthz").status, listener.get("/readyz").status), (200, 200));
    listener.behind.status.lock().unwrap().store.healthy = false;
    let not_ready = listener.get("/readyz");
    assert_eq!((not_ready.status, &not_ready.json()["ready"]), (503, &json!(false)));
    assert_eq!(listener.get("/healthz").body, "ok\n");
    listener.queue.stop();
    assert_eq!(listener.get("/readyz").status, 503);
    let metrics = listener.get("/metrics");
    assert_eq!(metrics.status, 200, "without the state there is still the rest");
    assert!(metrics.body.contains("alexandria_http_requests_total{code=\"503\",method=\"GET\",route=\"/readyz\"} 2"));
    let page = listener.get("/");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for header in ["x-content-type-options: nosniff", "x-frame-options: deny", "cache-control: no-store"] {
        assert!(page.head.contains(header), "{header}: {}", page.head);
    }
    assert!(!page.head.contains("access-control"), "no other site's script reads this");
}

#[test]
fn with_a_token_only_health_and_the_empty_page_are_open() {
    let listener = Listener::start(HttpSettings { token: Some("correct-horse-battery".into()), ..settings() });
    let with = |token: &str, request: &str| {
        listener.raw(&request.replacen("host:", &format!("authorization: Bearer {token}\r\nhost:"), 1))
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    for path in ["/status", "/history", "/search?q=a", "/metrics", "/readyz", "/openapi.json", "/v1/models", "/nothing"]
    {
        let refused = listener.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
        assert_eq!(with("correct-horse-batterz", &get(path)).status, 401, "{path}");
        assert_ne!(with("correct-horse-battery", &get(path)).status, 401, "{path}");
    }
    assert_eq!((listener.get("/healthz").status, listener.get("/").status), (200, 200));
    let body = post("/v1/embeddings", r#"{"input": "a"}"#);
    assert_eq!(listener.raw(&body).json()["error"]["code"], "invalid_api_key");
    assert_eq!(with("correct-horse-battery", &body).status, 200);
    assert_eq!(listener.raw(&post("/embed", r#"{"texts": ["a"]}"#)).json()["error_type"], "unauthorized");
}

#[test]
fn another_sites_name_is_refused_where_there_is_no_token() {
    let listener = Listener::start(settings());
    let of =
        |host: &str| listener.raw(&format!("GET /status HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).status;
    assert_eq!(
        (of("evil.example.com"), of("127.0.0.1:8765"), of("gpu-server:8765"), of("gpu.lan")),
        (403, 200, 200, 200)
    );
}

#[test]
fn more_than_the_limit_is_told_to_come_back_and_looking_goes_on() {
    let listener = Listener::start(HttpSettings { max_requests: 2, ..settings() });
    listener.behind.hold(true);
    let mut busy: Vec<TcpStream> = Vec::new();
    for _ in 0..2 {
        let mut stream = listener.connect();
        stream.write_all(post("/embed", r#"{"texts": ["abc"]}"#).as_bytes()).unwrap();
        busy.push(stream);
    }
    listener.until("both are in work", |behind| behind.waiting.load(Ordering::Relaxed) == 2);
    let refused = listener.post("/embed", &json!({"inputs": "a"}));
    assert_eq!((refused.status, &refused.json()["error_type"]), (429, &json!("overloaded")));
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    let refused = listener.post("/v1/embeddings", &json!({"input": "a"}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    assert_eq!((listener.get("/status").status, listener.get("/metrics").status), (200, 200));
    listener.behind.hold(false);
    for stream in busy {
        assert_eq!(Answer::read(stream).status, 200);
    }
    listener.assert_well();
}

#[test]
fn a_client_that_goes_away_or_whose_time_is_up_leaves_no_work_behind() {
    let listener = Listener::start(HttpSettings { timeout: Duration::from_millis(300), ..settings() });
    listener.behind.hold(true);
    let late = listener.post("/embed", &json!({"texts": ["abc"]}));
    assert_eq!((late.status, late.head.contains("retry-after")), (503, true));
    listener.until("it is given up", |behind| behind.abandoned.load(Ordering::Relaxed) == 1);
    drop(listener);

    let listener = Listener::start(settings());
    listener.behind.hold(true);
    let mut gone = listener.connect();
    gone.write_all(post("/embed", r#"{"texts": ["abc"]}"#).as_bytes()).unwrap();
    listener.until("it is in work", |behind| behind.waiting.load(Ordering::Relaxed) == 1);
    drop(gone);
    listener.until("it is given up", |behind| behind.abandoned.load(Ordering::Relaxed) == 1);
    listener.behind.hold(false);
    listener.assert_well();
}

#[test]
fn slow_and_broken_clients_harm_nobody() {
    let listener = Listener::start(HttpSettings { timeout: Duration::from_secs(1), max_connections: 16, ..settings() });
    // A head that never ends: a byte now and then, and nothing at all.
    let mut slow: Vec<TcpStream> = (0..4).map(|_| listener.connect()).collect();
    for stream in &mut slow[1..] {
        stream.write_all(b"GET /status HTTP/1.1\r\nx-slow: ").unwrap();
    }
    // Bodies that never end: announced and not sent, dribbled, in chunks, larger than is taken.
    let mut dribbled = listener.connect();
    dribbled.write_all(post("/embed", &"x".repeat(1000)).replace(&"x".repeat(1000), "{").as_bytes()).unwrap();
    let chunked = "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   transfer-encoding: chunked\r\n\r\n1\r\n{\r\n";
    let mut chunks = listener.connect();
    chunks.write_all(chunked.as_bytes()).unwrap();
    listener.assert_well();
    assert_eq!(Answer::read(dribbled).status, 408);
    assert_eq!(Answer::read(chunks).status, 408);
    for stream in slow {
        // Closed by the server, with or without a word.
        let said = Answer::read(stream);
        assert!(matches!(said.status, 0 | 408), "{said:?}");
    }
    let mut endless = listener.connect();
    endless.write_all(chunked.as_bytes()).unwrap();
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    while endless.write_all(chunk.as_bytes()).is_ok() {}
    drop(endless);
    listener.assert_well();
    let large = listener.raw(&post("/embed", &json!({"texts": ["x".repeat(100 << 10)]}).to_string()));
    assert_eq!((large.status, &large.json()["error_type"]), (413, &json!("validation")));
    assert_eq!(listener.raw(&post("/embed", "{").replace("length: 1", "length: 99999999999")).status, 413);
    // Heads of too many lines or bytes, garbage, another protocol, half a request.
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(listener.raw(&format!("GET /status HTTP/1.1\r\n{headers}\r\n")).status, 431);
    let huge = format!("GET /status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100 << 10));
    assert!(matches!(listener.raw(&huge).status, 0 | 431));
    for garbage in ["\u{16}\u{3}\u{1}\0\0\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "{}\r\n\r\n"] {
        assert!(matches!(listener.raw(garbage).status, 0 | 400 | 505), "{garbage:?}");
    }
    let twice = post("/embed", "{}").replace("content-length: 2", "content-length: 2\r\ncontent-length: 3");
    assert_eq!(listener.raw(&twice).status, 400, "no request is smuggled");
    let half = listener.connect();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(Answer::read(half).status, 0);
    // Resets in the middle.
    for _ in 0..50 {
        let mut stream = listener.connect();
        let _ = stream.write_all(&post("/embed", r#"{"texts": ["abc"]}"#).as_bytes()[..60]);
        drop(stream);
    }
    // JSON that is deep; as soon as the server has seen that those are gone, and there is a place again.
    let deep = post("/embed", &format!("{{\"texts\": {}", "[".repeat(20_000)));
    listener.until("JSON that is deep is refused", |_| matches!(listener.raw(&deep).status, 400 | 422));
    listener.assert_well();
}

#[test]
fn one_address_cannot_take_all_connections() {
    let listener = Listener::start(HttpSettings { max_connections: 8, ..settings() });
    let idle: Vec<TcpStream> = (0..8).map(|_| listener.connect()).collect();
    // Those over the half are closed at once, so that there is always a place for others.
    let closed = idle
        .into_iter()
        .filter(|stream| {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            matches!((&*stream).read(&mut [0]), Ok(0))
        })
        .count();
    assert_eq!(closed, 4);
}

#[test]
fn a_client_that_takes_no_answer_is_given_up() {
    let listener = Listener::start(HttpSettings { timeout: Duration::from_secs(1), ..settings() });
    let mut deaf = listener.connect();
    // Far more answers than the sockets' buffers hold, and nobody reads.
    let request = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(400);
    let _ = deaf.write_all(request.as_bytes());
    std::thread::sleep(Duration::from_secs(3));
    let mut received = 0;
    let mut piece = vec![0; 1 << 20];
    while let Ok(count @ 1..) = deaf.read(&mut piece) {
        received += count;
    }
    assert!(received < 20 << 20, "all {received} bytes came, though nobody read for seconds");
    listener.assert_well();
}
