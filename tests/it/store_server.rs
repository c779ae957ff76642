//! The server store against a Qdrant server: the contract, and what a network and an operator do to it. The server is
//! qdrant_server.rs's, on a real socket; real_server.rs has a real one.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::store::server::{ServerConfig, ServerStore};
use alexandria_ingestd::store::{self, Filter, StoreError, VectorStore};
use uuid::Uuid;

use crate::qdrant_server::{FakeQdrant, Fault};
use crate::store::{catalogue, contract, contract_left, expected, id_of, points_of, scroll_all, spec};

fn server_config(url: String, collection: &str) -> ServerConfig {
    ServerConfig {
        url,
        collection: collection.into(),
        timeout: Duration::from_secs(10),
        ..ServerConfig::from(&StoreConfig::default())
    }
}

#[test]
fn server_keeps_the_contract() {
    let server = FakeQdrant::new(Some("secret"));
    let config = ServerConfig {
        api_key: "secret".into(),
        shard_number: 6,
        replication_factor: 2,
        write_consistency_factor: 1,
        ..server_config(server.url(), "books")
    };
    let store = ServerStore::connect(&config).unwrap();
    contract(&store, "books");
    let created = server.created();
    assert_eq!(created.len(), 1);
    assert_eq!(
        (created[0].shard_number, created[0].replication_factor, created[0].write_consistency_factor),
        (Some(6), Some(2), Some(1))
    );
    assert_eq!(server.calls("create_field_index"), store::KEYWORD_INDEXES.len());
    drop(store);
    let store = ServerStore::connect(&config).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    contract_left(&store);
    assert_eq!(server.created().len(), 1);
}

#[test]
fn a_server_that_is_down_is_waited_for() {
    let mut server = FakeQdrant::new(None);
    server.stop();
    let store = ServerStore::connect(&server_config(server.url(), "books")).unwrap();
    for error in [store.health().unwrap_err(), store.ensure_collection(&spec("books")).unwrap_err()] {
        assert!(error.is_unavailable(), "{error}");
        let text = error.to_string();
        assert!(text.contains(&server.url()) && text.contains("store.url"), "{text}");
    }
    server.start();
    store.health().unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    let points = points_of(id_of("a"), "one", 30);
    store.upsert(&points[..10]).unwrap();
    server.stop();
    assert!(store.upsert(&points).unwrap_err().is_unavailable());
    assert!(store.search(&points[0].vector, &Filter::default(), 1).unwrap_err().is_unavailable());
    server.start();
    store.upsert(&points).unwrap();
    assert_eq!(scroll_all(&store, 100), expected(&points));
}

#[test]
fn a_server_killed_in_a_call_is_waited_for() {
    let mut server = FakeQdrant::new(None);
    let store = ServerStore::connect(&server_config(server.url(), "books")).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    let points = points_of(id_of("a"), "one", 30);
    server.inject("upsert", Fault::Delay(Duration::from_secs(60)));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| store.upsert(&points));
        while server.calls("upsert") == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.stop();
        assert!(writer.join().unwrap().unwrap_err().is_unavailable());
    });
    server.start();
    store.upsert(&points).unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 30);
}

#[test]
fn faults_are_sorted_into_wait_and_give_up() {
    use qdrant_client::qdrant::UpdateStatus;
    use tonic::Code;
    let server = FakeQdrant::new(None);
    let config = ServerConfig { timeout: Duration::from_secs(1), ..server_config(server.url(), "books") };
    let store = ServerStore::connect(&config).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    let points = points_of(id_of("a"), "one", 300);
    let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();

    // The client tries those once more by itself, hence twice.
    for code in [Code::Internal, Code::Unknown, Code::Unavailable, Code::Cancelled] {
        server.inject("upsert", Fault::HalfDone(code));
        server.inject("upsert", Fault::HalfDone(code));
        assert!(store.upsert(&points).unwrap_err().is_unavailable(), "{code:?}");
    }
    for code in [Code::DeadlineExceeded, Code::ResourceExhausted, Code::Aborted] {
        server.inject("upsert", Fault::DoneButFails(code));
        assert!(store.upsert(&points).unwrap_err().is_unavailable(), "{code:?}");
    }
    for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented] {
        server.inject("upsert", Fault::Refuse(code, "no"));
        let error = store.upsert(&points).unwrap_err();
        assert!(matches!(error, StoreError::Rejected { .. }), "{code:?}: {error}");
    }
    // Received is not applied.
    for status in [UpdateStatus::Acknowledged, UpdateStatus::WaitTimeout] {
        for call in ["upsert", "delete", "set_payload"] {
            server.inject(call, Fault::Status(status));
        }
        assert!(store.upsert(&points).unwrap_err().is_unavailable());
        assert!(store.delete(&ids).unwrap_err().is_unavailable());
        store.upsert(&points).unwrap();
        assert!(store.set_catalogue(&ids, &catalogue("x"), None).unwrap_err().is_unavailable());
    }
    // A hang ends with the timeout, the client's second try included.
    server.inject("count", Fault::Delay(Duration::from_secs(30)));
    server.inject("count", Fault::Delay(Duration::from_secs(30)));
    let start = Instant::now();
    let error = store.count(&Filter::default()).unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("timeout_seconds"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());

    // After all of it, repeating gives exactly the points.
    store.upsert(&points).unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 300);

    // Deleted behind our back: told apart, and healed by ensuring it.
    server.drop_collection("books");
    assert!(matches!(store.upsert(&points), Err(StoreError::CollectionMissing { .. })));
    assert!(matches!(store.count(&Filter::default()), Err(StoreError::CollectionMissing { .. })));
    store.ensure_collection(&spec("books")).unwrap();
    store.upsert(&points).unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 300);
}

#[test]
fn a_wrong_key_is_an_operators_matter() {
    let server = FakeQdrant::new(Some("secret"));
    for api_key in ["", "wrong"] {
        let config = ServerConfig { api_key: api_key.into(), ..server_config(server.url(), "books") };
        let store = ServerStore::connect(&config).unwrap();
        for error in [store.health().unwrap_err(), store.ensure_collection(&spec("books")).unwrap_err()] {
            assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
            assert!(error.to_string().contains("store.api_key"), "{error}");
        }
    }
    let config = ServerConfig { api_key: "se cret".into(), ..server_config(server.url(), "books") };
    let Err(error) = ServerStore::connect(&config) else { panic!("a key with a space was taken") };
    assert!(!error.to_string().contains("se cret"), "{error}");
}

#[test]
fn what_is_no_qdrant_is_named() {
    // A web server on the port.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // Read, answer, and hang up last, as web servers do: a connection reset under the answer loses it.
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let store = ServerStore::connect(&server_config(url.clone(), "books")).unwrap();
    let error = store.ensure_collection(&spec("books")).unwrap_err();
    assert!(error.to_string().contains(&url) && error.to_string().contains("gRPC"), "{error}");

    for bad in ["", "qdrant:6334", "ftp://x", "http://"] {
        let Err(error) = ServerStore::connect(&server_config(bad.into(), "books")) else { panic!("{bad:?} was taken") };
        assert!(matches!(error, StoreError::Rejected { .. }) && error.to_string().contains("store.url"), "{error}");
    }
}

#[test]
fn the_server_store_works_from_any_thread() {
    let server = FakeQdrant::new(None);
    let store = std::sync::Arc::new(ServerStore::connect(&server_config(server.url(), "books")).unwrap());
    store.ensure_collection(&spec("books")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let from_blocking = store.clone();
        tokio::task::spawn_blocking(move || from_blocking.health()).await.unwrap().unwrap();
        // Not meant to be done, but it must not panic; nor must dropping the store there.
        tokio::spawn(async move { store.health() }).await.unwrap().unwrap();
    });
}
