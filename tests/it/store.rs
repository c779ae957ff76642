//! The store's contract, run on the map and on the embedded engine (store_server.rs runs it on servers), and what only
//! the embedded one can get wrong: locks, reopening, a full disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::domain::{CataloguePayload, ChunkLevel, Payload, Point, StoredPoint, UUID_NAMESPACE};
use alexandria_ingestd::store::edge::EdgeStore;
use alexandria_ingestd::store::memory::MemoryStore;
use alexandria_ingestd::store::{self, CollectionSpec, Filter, StoreError, VectorStore};
use uuid::Uuid;

pub const DIMENSION: usize = 24;

pub fn spec(name: &str) -> CollectionSpec {
    CollectionSpec { name: name.into(), dimension: DIMENSION, model_id: "minilm".into() }
}

pub fn id_of(name: &str) -> Uuid {
    Uuid::new_v5(&UUID_NAMESPACE, name.as_bytes())
}

/// A unit vector that depends on nothing but `seed`.
pub fn unit_vector(seed: u64, dimension: usize) -> Vec<f32> {
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

pub fn catalogue(title: &str) -> CataloguePayload {
    CataloguePayload {
        book_title: title.into(),
        author: "Ana Anić & 村上春樹".into(),
        language: "hr".into(),
        source: "calibre".into(),
        source_id: "17".into(),
        book_format: "EPUB".into(),
        content_hash: "00ff".into(),
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

pub fn point_of(book: Uuid, generation: &str, index: usize, dimension: usize) -> Point {
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
            section_count: 0,
            full_text: parent.then(|| "the whole chapter".into()),
            child_count: parent.then_some(3),
            parent_id: (!parent).then(|| id_of(&format!("{book}/{generation}/0")).to_string()),
            sequence_index: (!parent).then_some(index),
            sibling_count: None,
            char_start: None,
            char_end: None,
            book_uuid: book.to_string(),
            library_uuid: Uuid::nil().to_string(),
            generation: generation.into(),
            chunker_fingerprint: "chunker".into(),
            model_fingerprint: "model".into(),
            catalogue: catalogue("Šuma"),
        },
    }
}

pub fn points_of(book: Uuid, generation: &str, count: usize) -> Vec<Point> {
    (0..count).map(|index| point_of(book, generation, index, DIMENSION)).collect()
}

pub fn of_book(book: Uuid) -> Filter {
    Filter::field("book_uuid", book.to_string())
}

pub fn sorted(mut points: Vec<StoredPoint>) -> Vec<(Uuid, String)> {
    points.sort_by_key(|point| point.id);
    points.into_iter().map(|point| (point.id, point.generation)).collect()
}

pub fn expected(points: &[Point]) -> Vec<(Uuid, String)> {
    sorted(
        points
            .iter()
            .map(|p| StoredPoint {
                id: p.id,
                library_uuid: p.payload.library_uuid.clone(),
                generation: p.payload.generation.clone(),
                ..StoredPoint::default()
            })
            .collect(),
    )
}

pub fn scroll_all(store: &dyn VectorStore, page: usize) -> Vec<(Uuid, String)> {
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
pub fn contract(store: &dyn VectorStore, name: &str) {
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
    store.set_catalogue(&ids, &changed, None).unwrap();
    store.set_catalogue(&ids, &changed, None).unwrap();
    store.set_catalogue(&[id_of("never written")], &changed, None).unwrap();
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
pub fn contract_left(store: &dyn VectorStore) {
    let (a, b) = (id_of("book a"), id_of("book b"));
    assert_eq!(sorted(store.points_of_book(a).unwrap()), expected(&points_of(a, "two", 70)));
    assert_eq!(sorted(store.points_of_book(b).unwrap()), expected(&points_of(b, "one", 40)));
    let wanted = point_of(b, "one", 11, DIMENSION);
    let hit = store.search(&wanted.vector, &of_book(b), 1).unwrap().remove(0);
    assert_eq!(hit.id, wanted.id);
}

pub fn numbered_book(number: usize) -> Uuid {
    id_of(&format!("numbered book {number}"))
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
                4..=6 => store.set_catalogue(&some, &catalogue(&title), None).unwrap(),
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
        store.set_catalogue(&ids, &catalogue("x"), None).unwrap();
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
