//! The store's contract, run on every store: a map, the embedded engine, a server (faked on a real socket, and a real
//! one where `QDRANT_TEST_URL` names it). Then what only one of them can get wrong: kills, locks, lost connections.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::domain::{BookPoints, CataloguePayload, ChunkLevel, Payload, Point, UUID_NAMESPACE};
use alexandria_ingestd::store::edge::EdgeStore;
use alexandria_ingestd::store::memory::MemoryStore;
use alexandria_ingestd::store::server::{ServerConfig, ServerStore};
use alexandria_ingestd::store::{self, CollectionSpec, Filter, StoreError, VectorStore};
use uuid::Uuid;

use crate::qdrant_server::{FakeQdrant, Fault};

const DIMENSION: usize = 24;

fn spec(name: &str) -> CollectionSpec {
    CollectionSpec { name: name.into(), dimension: DIMENSION, model_id: "minilm".into() }
}

fn id_of(name: &str) -> Uuid {
    Uuid::new_v5(&UUID_NAMESPACE, name.as_bytes())
}

/// A unit vector that depends on nothing but `seed`.
fn unit_vector(seed: u64, dimension: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut vector: Vec<f32> = (0..dimension)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f32 / (1u64 << 31) as f32) * 2.0 - 1.0
        })
        .collect();
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

fn catalogue(title: &str) -> CataloguePayload {
    CataloguePayload {
        book_title: title.into(),
        author: "Ana Anić & 村上春樹".into(),
        language: "hr".into(),
        source: "calibre".into(),
        source_id: "17".into(),
        authors: vec!["Ana Anić".into(), "村上春樹".into()],
        tags: vec!["a".into()],
        series: Some("Serija".into()),
        series_index: Some(2.5),
        publisher: None,
        published: Some("2001-02-03".into()),
        identifiers: BTreeMap::from([("isbn".into(), "978".into())]),
        rating: Some(8),
    }
}

fn point_of(book: Uuid, generation: &str, index: usize, dimension: usize) -> Point {
    let id = id_of(&format!("{book}/{generation}/{index}"));
    let parent = index == 0;
    Point {
        id,
        vector: unit_vector(id.as_u64_pair().0, dimension),
        payload: Payload {
            text: format!("Češće ¿qué? «текст» 日本語 \u{1F4DA} \"quoted\" \\ {index}"),
            section_name: format!("Poglavlje {}", index / 10),
            chunk_level: if parent { ChunkLevel::Parent } else { ChunkLevel::Child },
            token_count: 7,
            ingested_at: "2026-11-22T08:16:48.325484".into(),
            strategy: "universal-semantic".into(),
            embedding_model_id: "minilm".into(),
            embedding_model_name: "all-MiniLM-L6-v2".into(),
            embedding_dimension: dimension,
            ingest_version: "2.0".into(),
            section_index: index / 10,
            full_text: parent.then(|| "the whole chapter".into()),
            child_count: parent.then_some(3),
            parent_id: (!parent).then(|| id_of(&format!("{book}/{generation}/0")).to_string()),
            sequence_index: (!parent).then_some(index),
            sibling_count: None,
            char_start: None,
            char_end: None,
            book_uuid: book.to_string(),
            library_uuid: Uuid::nil().to_string(),
            book_format: "EPUB".into(),
            content_hash: "00ff".into(),
            generation: generation.into(),
            catalogue: catalogue("Šuma"),
        },
    }
}

fn points_of(book: Uuid, generation: &str, count: usize) -> Vec<Point> {
    (0..count).map(|index| point_of(book, generation, index, DIMENSION)).collect()
}

fn of_book(book: Uuid) -> Filter {
    Filter::field("book_uuid", book.to_string())
}

fn sorted(mut points: Vec<BookPoints>) -> Vec<(Uuid, String)> {
    points.sort_by_key(|point| point.id);
    points.into_iter().map(|point| (point.id, point.generation)).collect()
}

fn expected(points: &[Point]) -> Vec<(Uuid, String)> {
    sorted(points.iter().map(|p| BookPoints { id: p.id, generation: p.payload.generation.clone() }).collect())
}

fn scroll_all(store: &dyn VectorStore, page: usize) -> Vec<(Uuid, String)> {
    let (mut all, mut from) = (Vec::new(), None);
    loop {
        let answer = store.scroll(from, page).unwrap();
        assert!(answer.points.len() <= page);
        all.extend(answer.points.into_iter().map(|point| (point.id, point.generation)));
        from = answer.next;
        if from.is_none() {
            return all;
        }
    }
}

/// What every store must do. Starts without the collection, and leaves two books' points in it.
fn contract(store: &dyn VectorStore, name: &str) {
    let spec = spec(name);
    let (a, b) = (id_of("book a"), id_of("book b"));
    let first = points_of(a, "one", 600);
    let other = points_of(b, "one", 40);

    // Before there is a collection.
    assert!(matches!(store.upsert(&other), Err(StoreError::CollectionMissing { .. })));
    store.health().unwrap();

    // Created, then verified.
    store.ensure_collection(&spec).unwrap();
    store.ensure_collection(&spec).unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 0);
    assert_eq!(scroll_all(store, 10), vec![]);
    assert!(store.search(&unit_vector(1, DIMENSION), &Filter::default(), 5).unwrap().is_empty());
    assert!(store.points_of_book(a).unwrap().is_empty());

    // Written twice, there once.
    store.upsert(&[]).unwrap();
    store.upsert(&first).unwrap();
    store.upsert(&first).unwrap();
    store.upsert(&other).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 640);
    assert_eq!(store.count(&of_book(a)).unwrap(), 600);
    assert_eq!(store.count(&of_book(a).and("chunk_level", "parent")).unwrap(), 1);
    assert_eq!(store.count(&of_book(a).and("chunk_level", "none such")).unwrap(), 0);
    assert_eq!(store.count(&Filter::field("author", "Ana Anić & 村上春樹")).unwrap(), 640);
    assert_eq!(sorted(store.points_of_book(b).unwrap()), expected(&other));
    assert_eq!(sorted(store.points_of_book(a).unwrap()), expected(&first));

    // Another model's or size's collection is refused, and says both.
    let wrong = CollectionSpec { dimension: 1024, ..spec.clone() };
    let refusal = store.ensure_collection(&wrong).unwrap_err();
    assert!(matches!(refusal, StoreError::WrongCollection { .. }), "{refusal}");
    assert!(refusal.to_string().contains("1024") && refusal.to_string().contains("24"), "{refusal}");
    let wrong = CollectionSpec { model_id: "bge-m3".into(), ..spec.clone() };
    let refusal = store.ensure_collection(&wrong).unwrap_err();
    assert!(matches!(refusal, StoreError::WrongCollection { .. }), "{refusal}");
    assert!(refusal.to_string().contains("bge-m3") && refusal.to_string().contains("minilm"), "{refusal}");

    // Bad vectors are refused, and nothing of their batch is written.
    for bad in [vec![0.5; DIMENSION + 1], vec![f32::NAN; DIMENSION], vec![0.0; DIMENSION], vec![2.0; DIMENSION]] {
        let mut batch = points_of(id_of("bad"), "one", 3);
        batch[2].vector = bad;
        assert!(matches!(store.upsert(&batch), Err(StoreError::BadVector { .. })));
    }
    assert_eq!(store.count(&of_book(id_of("bad"))).unwrap(), 0);

    // Search: the point itself is the best, with cosine 1 and its whole payload.
    let wanted = &first[123];
    let hits = store.search(&wanted.vector, &Filter::default(), 10).unwrap();
    assert_eq!(hits.len(), 10);
    assert_eq!(hits[0].id, wanted.id);
    assert!((hits[0].score - 1.0).abs() < 1e-4, "{}", hits[0].score);
    assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    let mut payload = hits[0].payload.clone();
    payload.retain(|_, value| !value.is_null());
    let read: Payload = serde_json::from_value(serde_json::Value::Object(payload)).unwrap();
    assert_eq!(read, wanted.payload);
    for hit in &hits {
        let point = first.iter().chain(&other).find(|point| point.id == hit.id).unwrap();
        let cosine: f32 = point.vector.iter().zip(&wanted.vector).map(|(x, y)| x * y).sum();
        assert!((hit.score - cosine).abs() < 1e-4, "{} is not the cosine {cosine}", hit.score);
    }
    let hits = store.search(&wanted.vector, &of_book(b), 10).unwrap();
    assert_eq!(hits.len(), 10);
    assert!(hits.iter().all(|hit| hit.payload["book_uuid"] == b.to_string()));

    // All points, in id order, whatever the page's size.
    let all: Vec<Point> = first.iter().chain(&other).cloned().collect();
    for page in [7, 640, 5000] {
        assert_eq!(scroll_all(store, page), expected(&all), "pages of {page}");
    }

    // A metadata change rewrites the catalogue's fields and nothing else; absent ids are passed over.
    let mut ids: Vec<Uuid> = first.iter().map(|point| point.id).collect();
    ids.push(id_of("never written"));
    let changed = CataloguePayload { series: None, series_index: None, ..catalogue("Nova šuma") };
    store.set_catalogue(&ids, &changed).unwrap();
    store.set_catalogue(&ids, &changed).unwrap();
    store.set_catalogue(&[id_of("never written")], &changed).unwrap();
    assert_eq!(store.count(&Filter::field("book_title", "Nova šuma")).unwrap(), 600);
    assert_eq!(store.count(&Filter::field("book_title", "Šuma")).unwrap(), 40);
    assert_eq!(store.count(&Filter::default()).unwrap(), 640);
    let hit = store.search(&wanted.vector, &Filter::default(), 1).unwrap().remove(0);
    assert!((hit.score - 1.0).abs() < 1e-4);
    let mut payload = hit.payload;
    payload.retain(|_, value| !value.is_null());
    let read: Payload = serde_json::from_value(serde_json::Value::Object(payload)).unwrap();
    assert_eq!(read, Payload { catalogue: changed.clone(), ..wanted.payload.clone() });

    // A book's new generation beside the old one, then the old one deleted by its ids.
    let second = points_of(a, "two", 70);
    store.upsert(&second).unwrap();
    assert_eq!(store.points_of_book(a).unwrap().len(), 670);
    let mut stale: Vec<Uuid> = store
        .points_of_book(a)
        .unwrap()
        .into_iter()
        .filter(|point| point.generation != "two")
        .map(|point| point.id)
        .collect();
    assert_eq!(stale.len(), 600);
    stale.push(id_of("never written"));
    store.delete(&stale).unwrap();
    store.delete(&stale).unwrap();
    store.delete(&[]).unwrap();
    assert_eq!(sorted(store.points_of_book(a).unwrap()), expected(&second));
    assert_eq!(store.count(&of_book(b)).unwrap(), 40);
    let hits = store.search(&wanted.vector, &Filter::default(), 110).unwrap();
    assert_eq!(hits.len(), 110);
    assert!(hits.iter().all(|hit| hit.id != wanted.id));

    store.checkpoint().unwrap();
    store.maintain().unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 110);
    store.health().unwrap();
}

/// What [`contract`] leaves behind is still there.
fn contract_left(store: &dyn VectorStore) {
    let (a, b) = (id_of("book a"), id_of("book b"));
    assert_eq!(sorted(store.points_of_book(a).unwrap()), expected(&points_of(a, "two", 70)));
    assert_eq!(sorted(store.points_of_book(b).unwrap()), expected(&points_of(b, "one", 40)));
    let wanted = point_of(b, "one", 11, DIMENSION);
    let hit = store.search(&wanted.vector, &of_book(b), 1).unwrap().remove(0);
    assert_eq!(hit.id, wanted.id);
}

#[test]
fn memory_keeps_the_contract() {
    contract(&MemoryStore::default(), "books");
}

#[test]
fn edge_keeps_the_contract_and_everything_over_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let store = EdgeStore::open(dir.path()).unwrap();
    contract(&store, "books");
    drop(store);
    let store = EdgeStore::open(dir.path()).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    contract_left(&store);
    // Verified from what is on the disk, too.
    drop(store);
    let store = EdgeStore::open(dir.path()).unwrap();
    for wrong in [
        CollectionSpec { dimension: 384, ..spec("books") },
        CollectionSpec { model_id: "bge-m3".into(), ..spec("books") },
    ] {
        assert!(matches!(store.ensure_collection(&wrong), Err(StoreError::WrongCollection { .. })));
    }
    store.ensure_collection(&spec("books")).unwrap();
    contract_left(&store);
    // A second collection beside it.
    store.ensure_collection(&spec("more books")).unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 0);
    store.ensure_collection(&spec("books")).unwrap();
    contract_left(&store);
}

#[test]
fn a_second_opener_is_told_who_holds_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = EdgeStore::open(dir.path()).unwrap();
    let Err(error) = EdgeStore::open(dir.path()) else { panic!("opened twice") };
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    drop(first);
    EdgeStore::open(dir.path()).unwrap();
}

#[test]
fn edge_clears_what_a_kill_leaves() {
    let dir = tempfile::tempdir().unwrap();
    // In the middle of a creation: a scratch directory, and perhaps an empty one.
    std::fs::create_dir_all(dir.path().join(".books.creating/segments")).unwrap();
    std::fs::write(dir.path().join(".books.creating/edge_config.json"), b"{").unwrap();
    std::fs::create_dir(dir.path().join("books")).unwrap();
    let store = EdgeStore::open(dir.path()).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    assert!(!dir.path().join(".books.creating").exists());
    let points = points_of(id_of("a"), "one", 20);
    store.upsert(&points).unwrap();
    drop(store);
    // In the middle of an optimisation.
    let temp = dir.path().join("books/temp_segments");
    std::fs::create_dir_all(temp.join("half")).unwrap();
    std::fs::write(temp.join("half/file"), b"x").unwrap();
    let store = EdgeStore::open(dir.path()).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    assert!(!temp.exists());
    assert_eq!(scroll_all(&store, 100), expected(&points));
}

#[test]
fn edge_waits_for_disk_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = EdgeStore::open(dir.path()).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    store.upsert(&points_of(id_of("a"), "one", 3)).unwrap();
    drop(store);
    let store = EdgeStore::open(dir.path()).unwrap().with_min_free(u64::MAX);
    store.ensure_collection(&spec("books")).unwrap();
    for error in [store.upsert(&points_of(id_of("b"), "one", 3)).unwrap_err(), store.health().unwrap_err()] {
        assert!(error.is_unavailable() && error.to_string().contains("MiB are free"), "{error}");
    }
    // Reading and deleting go on.
    assert_eq!(store.count(&Filter::default()).unwrap(), 3);
    store.delete(&[point_of(id_of("a"), "one", 0, DIMENSION).id]).unwrap();
    assert_eq!(store.count(&Filter::default()).unwrap(), 2);
    store.maintain().unwrap();
}

/// The same random operations on the embedded store and on the map give the same contents, reopenings included.
#[test]
fn edge_and_memory_agree() {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryStore::default();
    let mut edge = EdgeStore::open(dir.path()).unwrap();
    memory.ensure_collection(&spec("books")).unwrap();
    edge.ensure_collection(&spec("books")).unwrap();
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for step in 0..150 {
        let book = id_of(&format!("book {}", random(6)));
        let stores: [&dyn VectorStore; 2] = [&memory, &edge];
        let action = random(10);
        let (size, generation) = (1 + random(80), format!("g{}", random(3)));
        let title = format!("title {}", random(3));
        let some: Vec<Uuid> = memory.points_of_book(book).unwrap().iter().map(|p| p.id).skip(random(20)).collect();
        for store in stores {
            match action {
                0..=3 => store.upsert(&points_of(book, &generation, size)).unwrap(),
                4..=6 => store.set_catalogue(&some, &catalogue(&title)).unwrap(),
                7 => store.delete(&some).unwrap(),
                8 => store.checkpoint().unwrap(),
                _ => {}
            }
        }
        if action == 9 {
            if random(2) == 0 {
                edge.maintain().unwrap();
            }
            drop(edge);
            edge = EdgeStore::open(dir.path()).unwrap();
            edge.ensure_collection(&spec("books")).unwrap();
        }
        assert_eq!(scroll_all(&edge, 50), scroll_all(&memory, 5000), "step {step}, action {action}");
        for title in 0..3 {
            let filter = of_book(book).and("book_title", format!("title {title}"));
            assert_eq!(edge.count(&filter).unwrap(), memory.count(&filter).unwrap(), "step {step}");
        }
    }
}

const CHILD_DIR: &str = "ALEXANDRIA_TEST_STORE_CHILD_DIR";
const CHILD_FROM: &str = "ALEXANDRIA_TEST_STORE_CHILD_FROM";
const BOOK_POINTS: usize = 70;

fn numbered_book(number: usize) -> Uuid {
    id_of(&format!("numbered book {number}"))
}

/// Runs in a process of its own and is killed: books are written, retitled and halved, each step told once it is
/// acknowledged.
#[test]
#[ignore = "a part of killed_writers_lose_nothing_acknowledged, which runs it as its own process"]
fn child_that_writes() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let from: usize = std::env::var(CHILD_FROM).unwrap().parse().unwrap();
    let store = EdgeStore::open(Path::new(&dir)).unwrap();
    store.ensure_collection(&spec("books")).unwrap();
    let mut out = std::io::stdout();
    let mut tell = |line: String| {
        out.write_all(format!("\nACK {line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                store.maintain().unwrap();
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        for number in from.. {
            let points = points_of(numbered_book(number), "one", BOOK_POINTS);
            let ids: Vec<Uuid> = points.iter().map(|point| point.id).collect();
            store.upsert(&points).unwrap();
            tell(format!("written {number}"));
            store.set_catalogue(&ids, &catalogue("retitled")).unwrap();
            tell(format!("retitled {number}"));
            store.delete(&ids[..BOOK_POINTS / 2]).unwrap();
            tell(format!("halved {number}"));
            if number % 7 == 0 {
                store.checkpoint().unwrap();
            }
        }
    });
}

#[test]
fn killed_writers_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut done: Vec<usize> = Vec::new(); // steps acknowledged of each book
    for (round, until) in [3usize, 40, 9, 160, 24, 75].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::child_that_writes", "--ignored", "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_FROM, done.len().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = 0;
        let mut take = |line: String| {
            let Some(rest) = line.strip_prefix("ACK ") else { return };
            let (step, number) = rest.split_once(' ').unwrap();
            let number: usize = number.parse().unwrap();
            let steps = ["written", "retitled", "halved"].iter().position(|known| *known == step).unwrap() + 1;
            done.resize(done.len().max(number + 1), 0);
            done[number] = steps;
            told += 1;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < until {
            let line = lines.next().expect("the child ended by itself").unwrap();
            seen += usize::from(line.starts_with("ACK "));
            take(line);
        }
        // Somewhere in a later step rather than always right after an acknowledgement.
        std::thread::sleep(Duration::from_micros(round as u64 * 3_300));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was told between the last look and the kill; a torn last line is none.
        lines.map_while(Result::ok).filter(|line| line.split(' ').count() == 3).for_each(take);
        assert!(told >= until);

        let store = EdgeStore::open(dir.path()).unwrap();
        store.ensure_collection(&spec("books")).unwrap();
        for (number, steps) in done.iter().enumerate() {
            let book = numbered_book(number);
            let ids: HashSet<Uuid> = store.points_of_book(book).unwrap().into_iter().map(|point| point.id).collect();
            let all = points_of(book, "one", BOOK_POINTS);
            let retitled = store.count(&of_book(book).and("book_title", "retitled")).unwrap();
            assert_eq!(store.count(&of_book(book)).unwrap(), ids.len());
            let context = format!("round {round}, book {number} after {steps} steps: {} points", ids.len());
            // A step that was not acknowledged may be there in part; the ones before it must be there whole.
            match steps {
                0 => {}
                1 => assert_eq!(ids.len(), BOOK_POINTS, "{context}"),
                2 => {
                    assert!(all[BOOK_POINTS / 2..].iter().all(|point| ids.contains(&point.id)), "{context}");
                    assert_eq!(retitled, ids.len(), "{context}");
                }
                _ => {
                    let half: HashSet<Uuid> = all[BOOK_POINTS / 2..].iter().map(|point| point.id).collect();
                    assert_eq!(ids, half, "{context}");
                    assert_eq!(retitled, ids.len(), "{context}");
                }
            }
            for point in all.iter().filter(|point| ids.contains(&point.id)).take(2) {
                let hit = store.search(&point.vector, &of_book(book), 1).unwrap().remove(0);
                assert_eq!((hit.id, (hit.score * 1000.0).round()), (point.id, 1000.0), "{context}");
            }
        }
    }
    println!("6 kills, {} books, {} acknowledged steps, none lost", done.len(), done.iter().sum::<usize>());
}

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
#[ignore = "needs QDRANT_TEST_URL"]
fn a_real_server_keeps_the_contract() {
    let Ok(url) = std::env::var("QDRANT_TEST_URL") else {
        panic!("set QDRANT_TEST_URL to a Qdrant server's gRPC address (and QDRANT_TEST_KEY to its key)");
    };
    let name = format!("alexandria-test-{}", Uuid::new_v4());
    let api_key = std::env::var("QDRANT_TEST_KEY").unwrap_or_default();
    let config = ServerConfig { api_key: api_key.clone(), ..server_config(url.clone(), &name) };
    let outcome = std::panic::catch_unwind(|| {
        let store = ServerStore::connect(&config).unwrap();
        contract(&store, &name);
        contract_left(&store);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = qdrant_client::Qdrant::from_url(&url).api_key(Some(api_key).filter(|key| !key.is_empty()));
        client.skip_compatibility_check().build().unwrap().delete_collection(&name).await.unwrap();
    });
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
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
        assert!(store.set_catalogue(&ids, &catalogue("x")).unwrap_err().is_unavailable());
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
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
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

#[test]
fn open_takes_the_configured_kind() {
    let dir = tempfile::tempdir().unwrap();
    let open = |kind: &str| store::open(&StoreConfig { kind: kind.into(), ..StoreConfig::default() }, dir.path());
    assert!(open("embedded").unwrap().location().starts_with("embedded /"));
    assert_eq!(open("memory").unwrap().location(), "memory");
    assert_eq!(open("server").unwrap().location(), "server http://127.0.0.1:6334");
    let Err(error) = open("cloud") else { panic!("an unknown kind was taken") };
    assert!(error.to_string().contains("cloud"), "{error}");
}

#[test]
#[ignore = "a measurement: run it alone with --ignored --nocapture"]
fn measure_the_embedded_store() {
    const POINTS: usize = 20_000;
    let dimension = 384;
    let dir = tempfile::tempdir().unwrap();
    let store = EdgeStore::open(dir.path()).unwrap();
    let spec = CollectionSpec { dimension, ..spec("books") };
    store.ensure_collection(&spec).unwrap();
    let text: String = "Words of a passage. ".repeat(40);
    let points: Vec<Point> = (0..POINTS)
        .map(|n| {
            let mut point = point_of(numbered_book(n / 200), "one", n % 200, dimension);
            point.payload.text.clone_from(&text);
            point
        })
        .collect();
    let start = Instant::now();
    for chunk in points.chunks(256) {
        store.upsert(chunk).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("upsert: {:.0} points/s in batches of 256, {POINTS} points of {dimension}", POINTS as f64 / seconds);
    timed("checkpoint", || store.checkpoint().unwrap());
    let search = |what: &str, filter: &dyn Fn(usize) -> Filter| {
        let start = Instant::now();
        let mut distinct = BTreeSet::new();
        for n in 0..100 {
            let hits = store.search(&unit_vector(n as u64, dimension), &filter(n), 10).unwrap();
            distinct.extend(hits.into_iter().map(|hit| hit.id));
        }
        println!("search {what}: {:.2} ms ({} hits)", start.elapsed().as_secs_f64() * 10.0, distinct.len());
    };
    search("unfiltered, not indexed", &|_| Filter::default());
    search("in one book, not indexed", &|n| of_book(numbered_book(n)));
    timed("set_catalogue of 200 points", || {
        let ids: Vec<Uuid> = points[..200].iter().map(|point| point.id).collect();
        store.set_catalogue(&ids, &catalogue("x")).unwrap();
    });
    timed("maintain (index)", || store.maintain().unwrap());
    timed("maintain again", || store.maintain().unwrap());
    search("unfiltered, indexed", &|_| Filter::default());
    search("in one book, indexed", &|n| of_book(numbered_book(n)));
    timed("close", || drop(store));
    timed("reopen", || {
        let store = EdgeStore::open(dir.path()).unwrap();
        store.ensure_collection(&spec).unwrap();
        assert_eq!(store.count(&Filter::default()).unwrap(), POINTS);
    });
}

fn timed(what: &str, f: impl FnOnce()) {
    let start = Instant::now();
    f();
    println!("{what}: {:.0} ms", start.elapsed().as_secs_f64() * 1000.0);
}
