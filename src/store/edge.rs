//! The embedded store: qdrant-edge in this process, under `<dir>/<collection>/`. Nothing to install, one process at
//! a time. It must never run an operation by filter or a payload update of many ids: the engine replays them
//! differently after a kill.
//!
//! Durable after a kill: every acknowledged write (it is in the memory-mapped log). Durable after a power loss:
//! everything before the last [`EdgeStore::checkpoint`].

mod engine;

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qdrant_edge::{
    Condition, CountRequest, DEFAULT_VECTOR_NAME, Distance, EdgeShard, FieldCondition, Match, MatchValue, NamedQuery,
    OperationResult, Payload, PayloadOps, PointId, PointInsertOperations, PointOperations, PointStructPersisted,
    QueryEnum, QueryRequest, Record, RetrieveRequest, ScoringQuery, ScrollRequest, SetPayloadOp, UpdateOperation,
    ValueVariants, VectorStructInternal, VectorStructPersisted, WithPayloadInterface, WithVector,
};
use uuid::Uuid;

use self::engine::Engine;
use super::verify::{self, Found, Sample};
use super::{CollectionSpec, Ensured, Filter, Hit, Resolved, ScrollPage, StoreError, VectorStore, check_vector};
use crate::domain::{CataloguePayload, Point, StoredPoint};
use crate::failpoint;

const LOCK_FILE: &str = ".lock";
/// Bytes that stay free on the disk: a log segment is 32 MiB, and running out inside the engine kills the process.
const MIN_FREE: u64 = 256 << 20;

pub struct EdgeStore {
    dir: PathBuf,
    min_free: u64,
    opened: Mutex<Option<Opened>>,
    maintaining: AtomicBool,
    // Dropped last: it holds the lock.
    shared: Arc<Shared>,
}

/// What the store's collections have in common.
struct Shared {
    /// Those that are open, by the name of their directory. One opening at a time: the engine's own lock would take a
    /// second one for another process.
    engines: Mutex<HashMap<String, Arc<Engine>>>,
    // Held, never read: the operating system frees it with the process, however that ends. Dropped last.
    _lock: File,
}

#[derive(Clone)]
struct Opened {
    dimension: usize,
    engine: Arc<Engine>,
    /// The engine's directory.
    directory: String,
}

impl EdgeStore {
    /// Takes the store's directory, creating it where absent. The collection is opened by
    /// [`VectorStore::ensure_collection`]. [`StoreError::InUse`] where another process holds it.
    pub fn open(dir: &Path) -> Result<EdgeStore, StoreError> {
        let location = || dir.display().to_string();
        let failed = |what: &str, error: std::io::Error| {
            let reason = format!("{what}: {error}");
            match error.kind() {
                // Not a matter of time.
                ErrorKind::PermissionDenied | ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                    StoreError::Rejected { location: location(), reason }
                }
                _ => StoreError::Unavailable { location: location(), reason },
            }
        };
        fs::create_dir_all(dir).map_err(|error| failed("the directory cannot be created", error))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK_FILE))
            .map_err(|error| failed("its lock file cannot be opened", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { location: location() }),
            Err(TryLockError::Error(error)) => return Err(failed("its lock file cannot be locked", error)),
        }
        Ok(EdgeStore {
            dir: dir.to_owned(),
            min_free: MIN_FREE,
            opened: Mutex::new(None),
            maintaining: AtomicBool::new(false),
            shared: Arc::new(Shared { engines: Mutex::default(), _lock: lock }),
        })
    }

    /// Writes are refused while less than this many bytes are free on the disk.
    #[must_use]
    pub fn with_min_free(mut self, bytes: u64) -> Self {
        self.min_free = bytes;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> Result<Opened, StoreError> {
        self.lock().clone().ok_or_else(|| StoreError::CollectionMissing {
            location: self.location(),
            collection: "(none opened yet)".into(),
        })
    }

    fn engines(&self) -> MutexGuard<'_, HashMap<String, Arc<Engine>>> {
        self.shared.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a name's pointer is kept: no collection's name begins with a dot.
    fn pointer(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}.collection"))
    }

    /// The directory that a collection's name stands for: what its pointer says, else the one of that name.
    fn directory_of(&self, name: &str) -> Result<String, StoreError> {
        let pointer = self.pointer(name);
        match fs::read_to_string(&pointer) {
            Ok(text) => {
                let directory = text.trim().to_owned();
                verify::check_name(&directory, &pointer.display().to_string())?;
                Ok(directory)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(name.to_owned()),
            Err(error) => Err(engine::unavailable(&pointer, format!("it cannot be read: {error}"))),
        }
    }

    /// Opens the collection in a directory, creating it where there is none and its `dimension` is known.
    fn engine_in(&self, directory: &str, dimension: Option<usize>) -> Result<Arc<Engine>, StoreError> {
        let path = self.dir.join(directory);
        let scratch = self.dir.join(format!(".{directory}.creating"));
        let is_new = match fs::read_dir(&path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(engine::unavailable(&path, format!("it cannot be read: {error}"))),
        };
        let engine = match dimension {
            None if is_new => {
                let collection = directory.to_owned();
                return Err(StoreError::CollectionMissing { location: self.location(), collection });
            }
            Some(dimension) if is_new => {
                self.check_space()?;
                Engine::create(&path, &scratch, dimension)?
            }
            _ => {
                // What a kill during creation left; the complete collection is under its own name.
                let _ = engine::remove_dir(&scratch);
                Engine::load(&path)?
            }
        };
        Ok(Arc::new(engine))
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let free = free_bytes(&self.dir)
            .map_err(|error| engine::unavailable(&self.dir, format!("its disk cannot be asked for space: {error}")))?;
        if free >= self.min_free {
            return Ok(());
        }
        Err(engine::unavailable(
            &self.dir,
            format!(
                "only {} MiB are free on its disk, at least {} are kept; free some space there",
                free >> 20,
                self.min_free >> 20
            ),
        ))
    }

    /// Which of `ids` are there, in their order.
    fn present(&self, engine: &Engine, ids: &[Uuid]) -> Result<Vec<PointId>, StoreError> {
        let records = engine.read("looking up points", |shard| {
            shard.retrieve(RetrieveRequest {
                point_ids: ids.iter().copied().map(PointId::Uuid).collect(),
                with_payload: Some(WithPayloadInterface::Bool(false)),
                with_vector: None,
            })
        })?;
        Ok(records.into_iter().map(|record| record.id).collect())
    }

    /// One page in id order of the points that match.
    fn page(
        &self,
        engine: &Engine,
        filter: &Filter,
        from: Option<PointId>,
        limit: usize,
    ) -> Result<(Vec<StoredPoint>, Option<PointId>), StoreError> {
        let filter = self.filter(filter)?;
        let (records, next) = engine.read("reading points", |shard| {
            shard.scroll(ScrollRequest {
                offset: from,
                limit: Some(limit),
                filter: filter.clone(),
                with_payload: Some(only_fields(&verify::STORED_POINT_FIELDS)),
                with_vector: WithVector::Bool(false),
                order_by: None,
            })
        })?;
        Ok((records.into_iter().filter_map(stored_point).collect(), next))
    }

    fn filter(&self, filter: &Filter) -> Result<Option<qdrant_edge::Filter>, StoreError> {
        if filter.must.is_empty() && filter.any.is_empty() {
            return Ok(None);
        }
        let conditions: Result<Vec<Condition>, StoreError> = filter
            .must
            .iter()
            .map(|(field, value)| (field, Match::Value(MatchValue { value: ValueVariants::String(value.clone()) })))
            .chain(filter.any.iter().map(|(field, values)| (field, Match::from(values.clone()))))
            .map(|(field, wanted)| {
                let key = field.parse().map_err(|()| StoreError::Rejected {
                    location: self.location(),
                    reason: format!("{field:?} is no field name"),
                })?;
                Ok(Condition::Field(FieldCondition::new_match(key, wanted)))
            })
            .collect();
        Ok(Some(qdrant_edge::Filter { must: Some(conditions?), ..qdrant_edge::Filter::default() }))
    }
}

impl VectorStore for EdgeStore {
    fn location(&self) -> String {
        format!("embedded {}", self.dir.display())
    }

    fn ensure_collection(&self, spec: &CollectionSpec) -> Result<Ensured, StoreError> {
        verify::check_name(&spec.name, &self.location())?;
        let mut engines = self.engines();
        let directory = self.directory_of(&spec.name)?;
        let engine = match engines.get(&directory) {
            Some(engine) => engine.clone(),
            None => self.engine_in(&directory, Some(spec.dimension))?,
        };
        let found = engine.read("verifying the collection", look)?;
        let ensured = verify::verify(spec, &found)?;
        engine.write("adding payload indexes", engine::add_indexes)?;
        engines.insert(directory.clone(), engine.clone());
        *self.lock() = Some(Opened { dimension: spec.dimension, engine, directory });
        Ok(ensured)
    }

    fn fetch(&self, ids: &[Uuid]) -> Result<Vec<Point>, StoreError> {
        let opened = self.opened()?;
        let mut points = Vec::new();
        for ids in ids.chunks(verify::BATCH_POINTS) {
            let records = opened.engine.read("reading points", |shard| {
                shard.retrieve(RetrieveRequest {
                    point_ids: ids.iter().copied().map(PointId::Uuid).collect(),
                    with_payload: Some(WithPayloadInterface::Bool(true)),
                    with_vector: Some(WithVector::Bool(true)),
                })
            })?;
            points.extend(records.into_iter().filter_map(|record| {
                let Some(VectorStructInternal::Single(vector)) = record.vector else { return None };
                verify::point(uuid_of(record.id)?, vector, record.payload?.0)
            }));
        }
        Ok(points)
    }

    fn beside(&self, collection: &str) -> Result<Arc<dyn VectorStore>, StoreError> {
        verify::check_name(collection, &self.location())?;
        Ok(Arc::new(EdgeStore {
            dir: self.dir.clone(),
            min_free: self.min_free,
            opened: Mutex::new(None),
            maintaining: AtomicBool::new(false),
            shared: self.shared.clone(),
        }))
    }

    fn resolve(&self, name: &str) -> Result<Resolved, StoreError> {
        let directory = self.directory_of(name)?;
        // A pointer can be written at any time.
        Ok(if self.dir.join(&directory).is_dir() { Resolved::Alias(directory) } else { Resolved::Nothing })
    }

    fn switch(&self, name: &str, collection: &str) -> Result<(), StoreError> {
        let mut engines = self.engines();
        let engine = match engines.get(collection) {
            Some(engine) => engine.clone(),
            None => self.engine_in(collection, None)?,
        };
        let dimension = engine.read("verifying the collection", look)?.dimension.unwrap_or_default();
        engine.write("flushing", EdgeShard::flush)?;
        failpoint::pass("store: before the name stands for another collection");
        engine::replace_file(&self.pointer(name), collection)
            .map_err(|error| engine::unavailable(&self.pointer(name), format!("it cannot be written: {error}")))?;
        failpoint::pass("store: after the name stands for another collection");
        engines.insert(collection.to_owned(), engine.clone());
        *self.lock() = Some(Opened { dimension, engine, directory: collection.to_owned() });
        Ok(())
    }

    fn drop_collection(&self, collection: &str) -> Result<(), StoreError> {
        verify::check_name(collection, &self.location())?;
        let in_use = |reason: &str| StoreError::Unavailable {
            location: self.location(),
            reason: format!("the collection '{collection}' cannot be deleted now: {reason}"),
        };
        let mut engines = self.engines();
        if self.lock().as_ref().is_some_and(|opened| opened.directory == collection) {
            return Err(in_use("it is the one in use"));
        }
        if let Some(engine) = engines.remove(collection) {
            // Whoever reads it still has it for a moment.
            if let Err(engine) = Arc::try_unwrap(engine) {
                engines.insert(collection.to_owned(), engine);
                return Err(in_use("something still reads it"));
            }
        }
        let (path, dropped) = (self.dir.join(collection), self.dir.join(format!(".{collection}.dropped")));
        let failed = |error: std::io::Error| engine::unavailable(&path, format!("it cannot be deleted: {error}"));
        // What an interrupted deletion left.
        engine::remove_dir(&dropped).map_err(failed)?;
        failpoint::pass("store: before a collection is deleted");
        match fs::rename(&path, &dropped) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        engine::remove_dir(&dropped).map_err(failed)?;
        failpoint::pass("store: after a collection is deleted");
        Ok(())
    }

    fn upsert(&self, points: &[Point]) -> Result<(), StoreError> {
        let opened = self.opened()?;
        for point in points {
            check_vector(point.id, &point.vector, opened.dimension)?;
        }
        for batch in verify::batches(points, verify::BATCH_POINTS, verify::BATCH_BYTES) {
            self.check_space()?;
            let batch: Result<Vec<PointStructPersisted>, StoreError> = batch
                .iter()
                .map(|point| {
                    Ok(PointStructPersisted {
                        id: PointId::Uuid(point.id),
                        vector: VectorStructPersisted::Single(point.vector.clone()),
                        payload: Some(Payload(verify::payload_map(point, &self.location())?)),
                    })
                })
                .collect();
            let operation = PointOperations::UpsertPoints(PointInsertOperations::PointsList(batch?));
            opened.engine.write("writing points", |shard| shard.update(UpdateOperation::PointOperation(operation)))?;
        }
        Ok(())
    }

    fn points_of_book(&self, book: Uuid) -> Result<Vec<StoredPoint>, StoreError> {
        let opened = self.opened()?;
        let filter = Filter::field("book_uuid", book.to_string());
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let (points, next) = self.page(&opened.engine, &filter, from, verify::PAGE)?;
            all.extend(points);
            if next.is_none() {
                return Ok(all);
            }
            from = next;
        }
    }

    fn delete(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        let opened = self.opened()?;
        for ids in ids.chunks(verify::ID_BATCH) {
            let ids = ids.iter().copied().map(PointId::Uuid).collect();
            let operation = PointOperations::DeletePoints { ids };
            opened.engine.write("deleting points", |shard| shard.update(UpdateOperation::PointOperation(operation)))?;
        }
        Ok(())
    }

    fn set_catalogue(
        &self,
        ids: &[Uuid],
        catalogue: &CataloguePayload,
        section_name: Option<&str>,
    ) -> Result<(), StoreError> {
        let opened = self.opened()?;
        let payload = Payload(verify::catalogue_map(catalogue, section_name, &self.location())?);
        for ids in ids.chunks(verify::PAYLOAD_IDS) {
            self.check_space()?;
            // An absent id would fail the operation after a part of it was done.
            let present = self.present(&opened.engine, ids)?;
            if present.is_empty() {
                continue;
            }
            let operation = PayloadOps::SetPayload(SetPayloadOp {
                payload: payload.clone(),
                points: Some(present),
                filter: None,
                key: None,
            });
            opened
                .engine
                .write("updating payloads", |shard| shard.update(UpdateOperation::PayloadOperation(operation)))?;
        }
        Ok(())
    }

    fn count(&self, filter: &Filter) -> Result<usize, StoreError> {
        let filter = self.filter(filter)?;
        self.opened()?
            .engine
            .read("counting", |shard| shard.count(CountRequest { filter: filter.clone(), exact: true }))
    }

    fn search(&self, vector: &[f32], filter: &Filter, limit: usize) -> Result<Vec<Hit>, StoreError> {
        let opened = self.opened()?;
        check_vector(Uuid::nil(), vector, opened.dimension)?;
        let filter = self.filter(filter)?;
        let found = opened.engine.read("searching", |shard| {
            let nearest = QueryEnum::Nearest(NamedQuery::default_dense(vector.to_vec()));
            shard.query(QueryRequest {
                query: Some(ScoringQuery::Vector(nearest)),
                filter: filter.clone(),
                with_payload: WithPayloadInterface::Bool(true),
                ..QueryRequest::new(limit)
            })
        })?;
        Ok(found
            .into_iter()
            .filter_map(|point| {
                let payload = point.payload.map(|payload| payload.0).unwrap_or_default();
                Some(Hit { id: uuid_of(point.id)?, score: point.score, payload })
            })
            .collect())
    }

    fn scroll(&self, from: Option<Uuid>, limit: usize) -> Result<ScrollPage, StoreError> {
        let opened = self.opened()?;
        let from = from.map(PointId::Uuid);
        let (points, next) = self.page(&opened.engine, &Filter::default(), from, limit.max(1))?;
        Ok(ScrollPage { points, next: next.and_then(uuid_of) })
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.opened()?.engine.write("flushing", EdgeShard::flush)
    }

    /// Builds the search index. Takes minutes on a large collection; searches and writes go on meanwhile.
    fn maintain(&self) -> Result<(), StoreError> {
        let opened = self.opened()?;
        if self.maintaining.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let done = self.maintain_once(&opened);
        self.maintaining.store(false, Ordering::Release);
        done
    }

    fn health(&self) -> Result<(), StoreError> {
        self.check_space()?;
        match self.opened() {
            Ok(opened) => opened.engine.shard().map(drop),
            // The directory is ours; nobody asked for a collection yet.
            Err(_) => Ok(()),
        }
    }
}

impl EdgeStore {
    fn maintain_once(&self, opened: &Opened) -> Result<(), StoreError> {
        // Segments are rebuilt beside the old ones.
        let needed = directory_bytes(&self.dir.join(&opened.directory)).saturating_add(self.min_free);
        let free = free_bytes(&self.dir).unwrap_or(0);
        if free < needed {
            tracing::warn!(
                SHARD = %self.dir.display(),
                "the search index is not built: {} MiB of disk are free, {} are needed; searches stay slower until there are",
                free >> 20,
                needed >> 20
            );
            return Ok(());
        }
        if opened.engine.write("building the search index", EdgeShard::optimize)? {
            opened.engine.write("flushing", EdgeShard::flush)?;
        }
        Ok(())
    }
}

/// What the shard is, from its configuration and its first point.
fn look(shard: &EdgeShard) -> OperationResult<Found> {
    let (dimension, cosine) = match shard.config().vectors.get(DEFAULT_VECTOR_NAME) {
        Some(vector) => (Some(vector.size), vector.distance == Distance::Cosine),
        None => (None, false),
    };
    let (first, _) = shard.scroll(ScrollRequest {
        limit: Some(1),
        with_payload: Some(only_fields(&["embedding_model_id"])),
        ..ScrollRequest::new()
    })?;
    let sample = match first.first() {
        None => Sample::Empty,
        Some(record) => Sample::of_payload(record.payload.as_ref().map(|payload| &payload.0)),
    };
    Ok(Found { dimension, cosine, sample })
}

fn only_fields(names: &[&str]) -> WithPayloadInterface {
    match names.iter().map(|name| name.parse()).collect() {
        Ok(paths) => WithPayloadInterface::Fields(paths),
        // Not reached with this file's names; the whole payload is the correct, slower answer.
        Err(()) => WithPayloadInterface::Bool(true),
    }
}

fn stored_point(record: Record) -> Option<StoredPoint> {
    Some(verify::stored_point(uuid_of(record.id)?, record.payload.as_ref().map(|payload| &payload.0)))
}

/// None for an integer id, which nothing here ever writes.
fn uuid_of(id: PointId) -> Option<Uuid> {
    match id {
        PointId::Uuid(uuid) => Some(uuid),
        PointId::NumId(_) => None,
    }
}

fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(dir)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Bytes that the files under `dir` occupy; what cannot be read counts as nothing.
fn directory_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
            // Sparse files: what they occupy, not their length.
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
