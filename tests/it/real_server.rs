//! The same tests against a real Qdrant server, where there is one: `QDRANT_TEST_URL` (with `QDRANT_TEST_KEY`) names it, or
//! a `qdrant` on PATH is started. `tests/run.sh` runs them then, and says so where it cannot.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::store::VectorStore;
use alexandria_ingestd::store::server::{ServerConfig, ServerStore};
use uuid::Uuid;

use crate::daemon::Daemon;
use crate::store::{contract, contract_left};

struct RealServer {
    url: String,
    api_key: String,
    collection: String,
    /// None where somebody else runs it.
    started: Option<(Child, tempfile::TempDir, [u16; 2])>,
}

impl RealServer {
    fn new() -> RealServer {
        let collection = format!("alexandria-test-{}", Uuid::new_v4());
        if let Ok(url) = std::env::var("QDRANT_TEST_URL") {
            let api_key = std::env::var("QDRANT_TEST_KEY").unwrap_or_default();
            return RealServer { url, api_key, collection, started: None };
        }
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (place, ports) = (tempfile::tempdir().unwrap(), [free(), free()]);
        let child = start(&place, ports);
        let server = RealServer {
            url: format!("http://127.0.0.1:{}", ports[0]),
            api_key: String::new(),
            collection,
            started: Some((child, place, ports)),
        };
        server.until_up();
        server
    }

    fn connect(&self) -> ServerStore {
        let config = StoreConfig {
            url: self.url.clone(),
            api_key: self.api_key.clone(),
            collection: self.collection.clone(),
            timeout_seconds: 20.0,
            ..StoreConfig::default()
        };
        ServerStore::connect(&ServerConfig::from(&config)).unwrap()
    }

    fn until_up(&self) {
        let started = Instant::now();
        while let Err(error) = self.connect().health() {
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not come up: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// SIGKILL, and a new start on the same data. False where the server is somebody else's.
    fn kill_and_restart(&mut self) -> bool {
        let Some((child, place, ports)) = &mut self.started else { return false };
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        *child = start(place, *ports);
        self.until_up();
        true
    }
}

/// Listens on the two ports, gRPC and HTTP.
fn start(place: &tempfile::TempDir, [grpc, http]: [u16; 2]) -> Child {
    Command::new("qdrant")
        .current_dir(place.path())
        .env("QDRANT__SERVICE__HOST", "127.0.0.1")
        .env("QDRANT__SERVICE__GRPC_PORT", grpc.to_string())
        .env("QDRANT__SERVICE__HTTP_PORT", http.to_string())
        .env("QDRANT__STORAGE__STORAGE_PATH", place.path().join("storage"))
        .env("QDRANT__STORAGE__SNAPSHOTS_PATH", place.path().join("snapshots"))
        .env("QDRANT__TELEMETRY_DISABLED", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("set QDRANT_TEST_URL to a Qdrant server's gRPC address, or have a `qdrant` on PATH")
}

impl Drop for RealServer {
    fn drop(&mut self) {
        if let Some((child, ..)) = &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        let (url, key, name) = (self.url.clone(), self.api_key.clone(), self.collection.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(async {
            let client = qdrant_client::Qdrant::from_url(&url).api_key(Some(key).filter(|key| !key.is_empty()));
            client.skip_compatibility_check().build().unwrap().delete_collection(&name).await
        });
    }
}

#[test]
#[ignore = "needs QDRANT_TEST_URL, or a qdrant on PATH"]
fn a_real_server_keeps_the_contract() {
    let server = RealServer::new();
    let store = server.connect();
    contract(&store, &server.collection);
    contract_left(&store);
}

#[test]
#[ignore = "needs QDRANT_TEST_URL, or a qdrant on PATH"]
fn a_real_server_that_is_killed_loses_no_book() {
    let mut server = RealServer::new();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..20 {
        let about = format!("A book about topic{number} and nothing else.");
        std::fs::write(folder.path().join(format!("Book {number}.txt")), about).unwrap();
    }
    let mut daemon = Daemon::new(folder.path());
    for (key, value) in [
        ("library.poll_seconds", "0.1"),
        ("store.kind", "server"),
        ("store.url", &server.url),
        ("store.api_key", &server.api_key),
        ("store.collection", &server.collection),
    ] {
        daemon.set(key, value);
    }
    daemon.start();
    daemon.until("work has begun", |daemon| daemon.status()["queue"]["done_books"].as_u64() >= Some(3));
    if !server.kill_and_restart() {
        println!("the server is somebody else's: it is not killed");
    }
    daemon.until_indexed(20);
    assert!(daemon.ctl(&["verify"]).status.success());
    assert_eq!(daemon.search("topic7")[0].0, "Book 7");
}
