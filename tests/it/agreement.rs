//! Library, state and store compared book by book and point by point, while the service is down. Every difference is a
//! line of text; a test prints them all. Must never pass over what it cannot explain.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::path::Path;

use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::domain::{Book, BookFile, CataloguePayload, Metadata, Source};
use alexandria_ingestd::embed::{Embedder, FakeEmbedder};
use alexandria_ingestd::ingest;
use alexandria_ingestd::queue::{BookRecord, FILE_NAME, JobState, Queue};
use alexandria_ingestd::store::{self, CollectionSpec, Filter};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::service_process::ServiceProcess;
use crate::shelf::Shelf;

/// What the index must say of one book.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// Exactly this. `made_from`: the hashes of the files that its points may have been made from, which all hold the
    /// same text.
    Indexed {
        id: i64,
        metadata: Box<Metadata>,
        format: String,
        sha256: String,
        made_from: BTreeSet<String>,
        on_shelf: bool,
    },
    /// Taken out by hand: known, and nothing in the store.
    Excluded,
    /// It gives no text (any more): nothing, or what it gave before, as one whole generation.
    Unreadable,
}

/// What library, state and store must agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    pub library_uuid: Uuid,
    pub books: BTreeMap<Uuid, Wanted>,
}

impl Expectation {
    /// Every book of the shelf that can be read, but those that are kept out by hand.
    pub fn of(shelf: &Shelf, excluded: &BTreeSet<Uuid>) -> Expectation {
        let wanted = |book: &crate::shelf::ShelfBook| match book.read_from() {
            _ if excluded.contains(&book.uuid) => Wanted::Excluded,
            None => Wanted::Unreadable,
            Some(file) => Wanted::Indexed {
                id: book.id,
                metadata: Box::new(book.metadata.clone()),
                format: file.format.clone(),
                sha256: file.sha256.clone(),
                made_from: book.hashes_of(file.story).map(str::to_owned).collect(),
                on_shelf: true,
            },
        };
        let books = shelf.books().map(|book| (book.uuid, wanted(book))).collect();
        Expectation { library_uuid: shelf.library_uuid, books }
    }
}

/// Points with their whole payloads, by id.
pub type Points = BTreeMap<Uuid, Map<String, Value>>;

/// What was compared, for the tests to print and to add up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compared {
    pub books: usize,
    pub points: usize,
    /// Books whose points had the oracle's ids; the others hold the same text under the hash of an earlier file.
    pub same_ids: usize,
    pub other_ids: usize,
}

impl Compared {
    pub fn add(&mut self, other: Compared) {
        self.books += other.books;
        self.points += other.points;
        self.same_ids += other.same_ids;
        self.other_ids += other.other_ids;
    }
}

/// Fields that tell of the file's bytes or of the time, not of the text.
const NOT_OF_THE_TEXT: [&str; 4] = ["ingested_at", "content_hash", "generation", "parent_id"];

/// The whole store of a service that is down.
pub fn points_of_store(config: &StoreConfig, state_dir: &Path, wrong: &mut Vec<String>) -> Points {
    let store = store::open(config, state_dir).unwrap_or_else(|error| panic!("{error}"));
    let info = FakeEmbedder::default();
    let info = info.info();
    let spec = CollectionSpec { name: config.collection.clone(), dimension: info.dimension, model_id: info.id.clone() };
    store.ensure_collection(&spec).unwrap_or_else(|error| panic!("{error}"));
    let count = store.count(&Filter::default()).unwrap();
    let mut scrolled = HashSet::new();
    let mut from = None;
    loop {
        let page = store.scroll(from, 1000).unwrap();
        for point in page.points {
            if !scrolled.insert(point.id) {
                wrong.push(format!("the store shows point {} twice", point.id));
            }
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    // Searching is the one call that gives whole payloads; nothing is left out where all are asked for.
    let vector: Vec<f32> = (0..info.dimension).map(|at| if at == 0 { 1.0 } else { 0.0 }).collect();
    let hits = store.search(&vector, &Filter::default(), count + 100).unwrap();
    if (count, hits.len()) != (scrolled.len(), scrolled.len()) {
        wrong.push(format!("the store counts {count} points, scrolls over {}, finds {}", scrolled.len(), hits.len()));
    }
    let points: Points = hits.into_iter().map(|hit| (hit.id, hit.payload)).collect();
    if !points.keys().all(|id| scrolled.contains(id)) {
        wrong.push("the store finds points that it does not scroll over".to_owned());
    }
    points
}

/// What the library gives from nothing, undisturbed; `place` is an empty directory.
pub fn oracle(service: &ServiceProcess, place: &Path) -> Points {
    let state_dir = place.join("oracle");
    service.ingest_anew(&state_dir);
    let mut wrong = Vec::new();
    let points = points_of_store(&StoreConfig::default(), &state_dir, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:?}");
    std::fs::remove_dir_all(state_dir).unwrap();
    points
}

/// Compares everything; the service must be down.
pub fn differences(service: &ServiceProcess, wanted: &Expectation, oracle: &Points) -> (Vec<String>, Compared) {
    assert!(!service.is_running());
    let mut wrong = Vec::new();
    let queue = Queue::open(&service.state_dir().join(FILE_NAME)).unwrap_or_else(|error| panic!("{error}"));
    wrong.extend(queue.check_counters().unwrap());
    for job in queue.list(None, 1000).unwrap() {
        wrong.push(format!("job {} of '{}' is {:?}: nothing should be left to do", job.id, job.title, job.state));
    }
    let points = points_of_store(service.store(), &service.state_dir(), &mut wrong);
    let known: BTreeSet<Uuid> =
        queue.known_books(wanted.library_uuid).unwrap().into_iter().map(|known| known.uuid).collect();
    for library in queue.libraries().unwrap().iter().filter(|library| library.uuid != wanted.library_uuid) {
        wrong.push(format!("the state knows a library {} that nobody has", library.uuid));
    }
    let mut compared = Compared { points: points.len(), ..Compared::default() };
    let mut by_book: BTreeMap<String, Points> = BTreeMap::new();
    for (id, payload) in points {
        if text(&payload, "library_uuid") != wanted.library_uuid.to_string() {
            wrong.push(format!("point {id} is of library {}", text(&payload, "library_uuid")));
        }
        by_book.entry(text(&payload, "book_uuid").to_owned()).or_default().insert(id, payload);
    }
    for uuid in known.iter().filter(|uuid| !wanted.books.contains_key(*uuid)) {
        let record = queue.book(wanted.library_uuid, *uuid).unwrap().unwrap();
        wrong.push(format!("the state knows '{}', which is not on the shelf", record.book.metadata.title));
    }
    for (uuid, wanted_book) in &wanted.books {
        let record = queue.book(wanted.library_uuid, *uuid).unwrap();
        let own = by_book.remove(&uuid.to_string()).unwrap_or_default();
        compared.books += 1;
        let mut of_book = BookCheck { uuid: *uuid, record: record.as_ref(), points: &own, wrong: &mut wrong };
        of_book.check(wanted_book);
        if let Wanted::Indexed { on_shelf: true, .. } = wanted_book {
            let fresh = oracle.iter().filter(|(_, payload)| text(payload, "book_uuid") == uuid.to_string());
            match of_book.compare_with_oracle(&fresh.collect()) {
                true => compared.same_ids += 1,
                false => compared.other_ids += 1,
            }
        }
    }
    for (book, points) in by_book {
        wrong.push(format!("the store holds {} points of book {book}, which is not on the shelf", points.len()));
    }
    (wrong, compared)
}

/// Its parents, and its children's payloads.
type Chapter<'a> = (Vec<Uuid>, Vec<&'a Map<String, Value>>);

struct BookCheck<'a> {
    uuid: Uuid,
    record: Option<&'a BookRecord>,
    points: &'a Points,
    wrong: &'a mut Vec<String>,
}

impl BookCheck<'_> {
    fn wrong(&mut self, what: impl Display) {
        let title = self.record.map_or("", |record| &record.book.metadata.title);
        self.wrong.push(format!("book {} '{title}': {what}", self.uuid));
    }

    /// Says so where they differ.
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, wanted: T) {
        if found != wanted {
            self.wrong(format!("{what}: {found:?} instead of {wanted:?}"));
        }
    }

    fn check(&mut self, wanted: &Wanted) {
        let Some(record) = self.record else {
            if *wanted != Wanted::Unreadable {
                self.wrong("the state does not know it");
            }
            self.same("points of an unknown book", self.points.len(), 0);
            return;
        };
        let points = record.indexed.as_ref().map_or(0, |indexed| indexed.points);
        self.same("points in the store", self.points.len(), points);
        let generation = record.indexed.as_ref().map(|indexed| indexed.generation.as_str());
        let generations: BTreeSet<&str> = self.points.values().map(|payload| text(payload, "generation")).collect();
        self.same("generations in the store", generations, generation.into_iter().collect());
        self.check_structure();
        match wanted {
            Wanted::Excluded => {
                self.same("excluded", record.excluded_us.is_some(), true);
                self.same("indexed", record.indexed.is_some(), false);
                self.same("open job", record.job, None);
            }
            Wanted::Unreadable => {
                self.same("excluded", record.excluded_us.is_some(), false);
                self.same("missing", record.missing_since_us.is_some(), false);
            }
            Wanted::Indexed { id, metadata, format, sha256, made_from, on_shelf } => {
                self.same("excluded", record.excluded_us.is_some(), false);
                self.same("missing", record.missing_since_us.is_none(), *on_shelf);
                self.same("open job", record.job, None::<JobState>);
                self.same("source", &record.book.source, &Source::Calibre(*id));
                self.same("metadata in the state", &record.book.metadata, metadata.as_ref());
                let Some(indexed) = &record.indexed else { return self.wrong("it is not indexed") };
                self.same("content hash", &indexed.content_hash, sha256);
                self.same("format", indexed.format(), format.as_str());
                let book = Book {
                    metadata: metadata.as_ref().clone(),
                    file: BookFile { format: format.clone(), ..record.book.file.clone() },
                    ..record.book.clone()
                };
                let catalogue = CataloguePayload::new(&book, &indexed.file_metadata, sha256);
                self.same("metadata hash", &indexed.metadata_hash, &catalogue.hash());
                let mut generations = made_from
                    .iter()
                    .map(|sha256| ingest::generation(sha256, &indexed.chunker_fingerprint, &indexed.model_fingerprint));
                if !generations.any(|generation| generation == indexed.generation) {
                    self.wrong("its points were made from another text");
                }
                let Ok(Value::Object(catalogue)) = serde_json::to_value(&catalogue) else { unreachable!() };
                for (id, payload) in self.points {
                    if !made_from.contains(text(payload, "content_hash")) {
                        self.wrong(format!("point {id} is of another file"));
                    }
                    for (name, value) in &catalogue {
                        let found = field(payload, name);
                        if found != value {
                            self.wrong(format!("{name} of point {id}: {found} instead of {value}"));
                        }
                    }
                }
            }
        }
    }

    /// Every chapter whole: one parent, all its children, each in its place.
    fn check_structure(&mut self) {
        let mut chapters: BTreeMap<u64, Chapter> = BTreeMap::new();
        for (id, payload) in self.points {
            let (parents, children) = chapters.entry(number(payload, "section_index")).or_default();
            match text(payload, "chunk_level") {
                "parent" => parents.push(*id),
                "child" => children.push(payload),
                other => self.wrong.push(format!("point {id}: chunk_level {other:?}")),
            }
        }
        self.same("chapters", chapters.keys().copied().collect::<Vec<_>>(), (0..chapters.len() as u64).collect());
        for (chapter, (parents, mut children)) in chapters {
            let [parent] = parents.as_slice() else {
                self.wrong(format!("chapter {chapter} has {} parents", parents.len()));
                continue;
            };
            let count = children.len() as u64;
            self.same("child_count", number(&self.points[parent], "child_count"), count);
            children.sort_by_key(|payload| number(payload, "sequence_index"));
            for (at, child) in children.into_iter().enumerate() {
                self.same("parent_id", text(child, "parent_id"), parent.to_string().as_str());
                self.same("sequence_index", number(child, "sequence_index"), at as u64);
                self.same("sibling_count", number(child, "sibling_count"), count);
            }
        }
    }

    /// Whether the ids are the oracle's. Where the state kept points of an earlier file with the same text they are
    /// not, and everything else must be equal all the same.
    fn compare_with_oracle(&mut self, oracle: &BTreeMap<&Uuid, &Map<String, Value>>) -> bool {
        let same_ids = self.points.keys().eq(oracle.keys().copied());
        let place = |payload: &Map<String, Value>| {
            (
                number(payload, "section_index"),
                text(payload, "chunk_level").to_owned(),
                payload.get("sequence_index").and_then(Value::as_u64),
            )
        };
        let fresh: BTreeMap<_, _> = oracle.values().map(|payload| (place(payload), *payload)).collect();
        let held: BTreeMap<_, _> = self.points.values().map(|payload| (place(payload), payload)).collect();
        let places = |points: &BTreeMap<_, _>| points.keys().cloned().collect::<Vec<_>>();
        let (found, wanted) = (places(&held), places(&fresh));
        self.same("number of points, compared with a fresh index", found.len(), wanted.len());
        if let Some((found, wanted)) = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted) {
            self.wrong(format!("a point is at {found:?}, in a fresh index at {wanted:?}"));
        }
        let left_out: &[&str] = if same_ids { &NOT_OF_THE_TEXT[..1] } else { &NOT_OF_THE_TEXT };
        for (place, payload) in held {
            let Some(fresh) = fresh.get(&place) else { continue };
            let names: BTreeSet<&String> = payload.keys().chain(fresh.keys()).collect();
            for name in names.into_iter().filter(|name| !left_out.contains(&name.as_str())) {
                let (found, wanted) = (field(payload, name), field(fresh, name));
                if found != wanted {
                    self.wrong(format!("{name} at {place:?}: {found}, in a fresh index {wanted}"));
                }
            }
        }
        same_ids
    }
}

fn text<'a>(payload: &'a Map<String, Value>, field: &str) -> &'a str {
    payload.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Null where there is none: to the engine, setting a field to null is taking it away.
fn field<'a>(payload: &'a Map<String, Value>, name: &str) -> &'a Value {
    payload.get(name).unwrap_or(&Value::Null)
}

/// The differences as a test prints them: all of their number, and the first of them.
pub fn shown(wrong: &[String]) -> String {
    let first = wrong[..wrong.len().min(60)].join("\n");
    format!("{} differences:\n{first}", wrong.len())
}

/// `u64::MAX` where there is none.
fn number(payload: &Map<String, Value>, field: &str) -> u64 {
    payload.get(field).and_then(Value::as_u64).unwrap_or(u64::MAX)
}
