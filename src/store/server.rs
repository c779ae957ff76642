//! A Qdrant server or cluster over gRPC. Synchronous outside; a small runtime of its own drives the connection, so it
//! can be called from any thread. It must never take an answer for an acknowledgement, nor alter a collection that it
//! finds.
//!
//! Neither Qdrant nor this store syncs the disk before an answer: after the *server's machine* lost its power the
//! books of the last seconds must be checked again.

mod reply;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::vector_output::Vector::Dense;
use qdrant_client::qdrant::vectors_config::Config as VectorsKind;
use qdrant_client::qdrant::with_payload_selector::SelectorOptions;
use qdrant_client::qdrant::{
    CollectionInfo, CollectionOperationResponse, Condition, CountPointsBuilder, CreateAliasBuilder,
    CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, DeletePointsBuilder, Distance, FieldType,
    Filter as QdrantFilter, GetPointsBuilder, PayloadIncludeSelector, PointId, PointStruct, PointsIdsList,
    PointsOperationResponse, Query, QueryPointsBuilder, RepeatedStrings, ScrollPointsBuilder, SetPayloadPointsBuilder,
    UpsertPointsBuilder, Value, VectorParamsBuilder, WriteOrdering, WriteOrderingType,
};
use qdrant_client::{Payload, Qdrant, QdrantError};
use serde_json::Map;
use tokio::runtime::Runtime;
use uuid::Uuid;

use self::reply::Target;
use super::verify::{self, Found, Sample};
use super::{
    CollectionSpec, Ensured, Filter, Hit, KEYWORD_INDEXES, Resolved, ScrollPage, StoreError, VectorStore, check_vector,
};
use crate::config::StoreConfig;
use crate::domain::{CataloguePayload, Point, StoredPoint};
use crate::failpoint;

/// The query call came with this version.
const OLDEST: (u32, u32) = (1, 10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A health check is asked while nothing else is going on, and its answer decides whether to wait.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the server is, and how the collection is laid out over a cluster when it is created.
#[derive(Clone)]
pub struct ServerConfig {
    /// gRPC, e.g. `http://127.0.0.1:6334`.
    pub url: String,
    /// Empty: none.
    pub api_key: String,
    pub collection: String,
    /// Of one request.
    pub timeout: Duration,
    /// 0 leaves the server's default, here and below.
    pub shard_number: u32,
    pub replication_factor: u32,
    pub write_consistency_factor: u32,
}

impl From<&StoreConfig> for ServerConfig {
    fn from(config: &StoreConfig) -> Self {
        Self {
            url: config.url.clone(),
            api_key: config.api_key.clone(),
            collection: config.collection.clone(),
            timeout: Duration::try_from_secs_f64(config.timeout_seconds).unwrap_or(Duration::from_secs(60)),
            shard_number: config.shard_number,
            replication_factor: config.replication_factor,
            write_consistency_factor: config.write_consistency_factor,
        }
    }
}

pub struct ServerStore {
    config: ServerConfig,
    target: Target,
    client: Qdrant,
    /// Taken only by drop, which must not wait for it.
    runtime: Option<Runtime>,
    /// Of the verified collection.
    dimension: Mutex<Option<usize>>,
}

impl ServerStore {
    /// Prepares the client. Nothing is sent yet, so a server that is down is no error here.
    pub fn connect(config: &ServerConfig) -> Result<ServerStore, StoreError> {
        let target = Target { url: config.url.clone(), collection: config.collection.clone() };
        verify::check_name(&config.collection, &target.url)?;
        if !config.url.starts_with("http://") && !config.url.starts_with("https://") {
            return Err(target.rejected("store.url must start with http:// or https://, e.g. http://127.0.0.1:6334"));
        }
        // Checked here because the client would put the key into its error.
        if config.api_key.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(target.rejected("store.api_key holds a character that no key has (a space or a line end?)"));
        }
        let api_key = (!config.api_key.is_empty()).then(|| config.api_key.clone());
        let client = Qdrant::from_url(&config.url)
            .api_key(api_key)
            .timeout(config.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout))
            // It blocks, and prints to stdout; the version is checked with the collection.
            .skip_compatibility_check()
            .build()
            .map_err(|error| target.error(&error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("qdrant-client")
            .enable_all()
            .build()
            .map_err(|error| target.unavailable(format!("the client's threads cannot be started: {error}")))?;
        Ok(ServerStore { config: config.clone(), target, client, runtime: Some(runtime), dimension: Mutex::new(None) })
    }

    /// Runs one request on the store's own runtime and waits for it, at most for the client's timeout, twice (it
    /// retries once inside), and a little.
    fn call<T, F>(&self, request: impl FnOnce(Qdrant) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QdrantError>> + Send + 'static,
    {
        self.call_within(self.config.timeout * 2 + 2 * CONNECT_TIMEOUT, request)
    }

    fn call_within<T, F>(&self, limit: Duration, request: impl FnOnce(Qdrant) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QdrantError>> + Send + 'static,
    {
        let Some(runtime) = &self.runtime else {
            return Err(self.target.unavailable("the store is being closed"));
        };
        let request = request(self.client.clone());
        // A channel rather than block_on: that panics when some caller's thread belongs to another runtime.
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            // The receiver waits until this is sent or dropped.
            let _ = answer.send(tokio::time::timeout(limit, request).await);
        });
        match answered.recv() {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(self.target.error(&error)),
            Ok(Err(_)) => Err(self.target.unavailable(format!("no answer within {} s", limit.as_secs()))),
            Err(_) => Err(self.target.unavailable("the request was dropped: its task panicked")),
        }
    }

    fn name(&self) -> String {
        self.config.collection.clone()
    }

    fn dimension(&self) -> Result<usize, StoreError> {
        // Not verified yet, as after a start without the server: the caller ensures the collection first.
        self.dimension
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ok_or_else(|| StoreError::CollectionMissing { location: self.target.url.clone(), collection: self.name() })
    }

    /// None where there is no such collection.
    fn info(&self) -> Result<Option<CollectionInfo>, StoreError> {
        let name = self.name();
        match self.call(|client| async move { client.collection_info(name).await }) {
            Ok(response) => match response.result {
                Some(info) => Ok(Some(info)),
                None => Err(self.target.unavailable("the collection's description came back empty")),
            },
            Err(StoreError::CollectionMissing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, spec: &CollectionSpec) -> Result<(), StoreError> {
        let mut request = CreateCollectionBuilder::new(spec.name.clone())
            .vectors_config(VectorParamsBuilder::new(spec.dimension as u64, Distance::Cosine));
        if self.config.shard_number > 0 {
            request = request.shard_number(self.config.shard_number);
        }
        if self.config.replication_factor > 0 {
            request = request.replication_factor(self.config.replication_factor);
        }
        if self.config.write_consistency_factor > 0 {
            request = request.write_consistency_factor(self.config.write_consistency_factor);
        }
        failpoint::pass("store: before the collection is made");
        let created = self.call(|client| async move {
            match client.create_collection(request).await {
                // Somebody was faster, or an earlier answer got lost; what is there now is verified anyway.
                Err(QdrantError::ResponseError { status }) if status.code() == tonic::Code::AlreadyExists => Ok(None),
                other => other.map(Some),
            }
        })?;
        failpoint::pass("store: after the collection is made");
        created.map_or(Ok(()), |answer| self.done(&answer, "the collection was not created"))
    }

    /// An answer that says no is none.
    fn done(&self, answer: &CollectionOperationResponse, otherwise: &str) -> Result<(), StoreError> {
        if answer.result { Ok(()) } else { Err(self.target.unavailable(otherwise)) }
    }

    fn add_indexes(&self, info: &CollectionInfo) -> Result<(), StoreError> {
        for field in KEYWORD_INDEXES {
            if info.payload_schema.contains_key(field) {
                continue;
            }
            let request = CreateFieldIndexCollectionBuilder::new(self.name(), field, FieldType::Keyword).wait(true);
            self.write("adding payload indexes", |client| async move { client.create_field_index(request).await })?;
        }
        Ok(())
    }

    fn sample(&self) -> Result<Sample, StoreError> {
        let request = ScrollPointsBuilder::new(self.name())
            .limit(1)
            .with_payload(only_fields(&["embedding_model_id"]))
            .with_vectors(false);
        let response = self.call(|client| async move { client.scroll(request).await })?;
        Ok(match response.result.into_iter().next() {
            None => Sample::Empty,
            Some(point) => Sample::of_payload(Some(&json_map(point.payload))),
        })
    }

    fn page(
        &self,
        filter: &Filter,
        from: Option<PointId>,
        limit: usize,
    ) -> Result<(Vec<StoredPoint>, Option<PointId>), StoreError> {
        let mut request = ScrollPointsBuilder::new(self.name())
            .filter(qdrant_filter(filter))
            .limit(u32::try_from(limit).unwrap_or(u32::MAX))
            .with_payload(only_fields(&verify::STORED_POINT_FIELDS))
            .with_vectors(false);
        if let Some(from) = from {
            request = request.offset(from);
        }
        let response = self.call(|client| async move { client.scroll(request).await })?;
        let points = response
            .result
            .into_iter()
            .filter_map(|point| {
                let id = uuid_of(point.id?)?;
                Some(verify::stored_point(id, Some(&json_map(point.payload))))
            })
            .collect();
        Ok((points, response.next_page_offset))
    }

    /// Runs one request that changes points, and takes no answer but an acknowledgement.
    fn write<F>(&self, what: &str, request: impl FnOnce(Qdrant) -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<PointsOperationResponse, QdrantError>> + Send + 'static,
    {
        failpoint::pass(&format!("store: before {what}"));
        let response = self.call(request)?;
        failpoint::pass(&format!("store: after {what}"));
        self.target.completed(&response)
    }

    /// Which of `ids` are there.
    fn present(&self, ids: &[Uuid]) -> Result<Vec<PointId>, StoreError> {
        let ids: Vec<PointId> = ids.iter().copied().map(PointId::from).collect();
        let request = GetPointsBuilder::new(self.name(), ids).with_payload(false).with_vectors(false);
        let response = self.call(|client| async move { client.get_points(request).await })?;
        Ok(response.result.into_iter().filter_map(|point| point.id).collect())
    }
}

impl Drop for ServerStore {
    fn drop(&mut self) {
        // Waiting for it would panic on another runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl VectorStore for ServerStore {
    fn location(&self) -> String {
        format!("server {}", self.target.url)
    }

    fn ensure_collection(&self, spec: &CollectionSpec) -> Result<Ensured, StoreError> {
        if spec.name != self.config.collection {
            return Err(self.target.rejected(format!(
                "this store was opened for collection '{}', not '{}'",
                self.config.collection, spec.name
            )));
        }
        // Listing needs a valid key; the version call answers without one.
        self.call(|client| async move { client.list_collections().await })?;
        let version = self.call(|client| async move { client.health_check().await })?.version;
        if reply::major_minor(&version).is_some_and(|found| found < OLDEST) {
            return Err(self
                .target
                .rejected(format!("Qdrant {version} is too old; {}.{} or newer is needed", OLDEST.0, OLDEST.1)));
        }
        let info = match self.info()? {
            Some(info) => info,
            None => {
                self.create(spec)?;
                let info = self.info()?;
                let missing = || self.target.unavailable("the collection just created is not there");
                info.ok_or_else(missing)?
            }
        };
        let (dimension, cosine) = unnamed_vector(&info);
        let ensured = verify::verify(spec, &Found { dimension, cosine, sample: self.sample()? })?;
        self.add_indexes(&info)?;
        *self.dimension.lock().unwrap_or_else(PoisonError::into_inner) = Some(spec.dimension);
        Ok(ensured)
    }

    fn upsert(&self, points: &[Point]) -> Result<(), StoreError> {
        let dimension = self.dimension()?;
        for point in points {
            check_vector(point.id, &point.vector, dimension)?;
        }
        for batch in verify::batches(points, verify::BATCH_POINTS, verify::BATCH_BYTES) {
            let batch: Result<Vec<PointStruct>, StoreError> = batch
                .iter()
                .map(|point| {
                    let payload = Payload::from(verify::payload_map(point, &self.target.url)?);
                    Ok(PointStruct::new(point.id, point.vector.clone(), payload))
                })
                .collect();
            let request = UpsertPointsBuilder::new(self.name(), batch?).wait(true).ordering(medium());
            self.write("writing points", |client| async move { client.upsert_points(request).await })?;
        }
        Ok(())
    }

    fn points_of_book(&self, book: Uuid) -> Result<Vec<StoredPoint>, StoreError> {
        let filter = Filter::field("book_uuid", book.to_string());
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let (points, next) = self.page(&filter, from, verify::PAGE)?;
            all.extend(points);
            if next.is_none() {
                return Ok(all);
            }
            from = next;
        }
    }

    fn delete(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        for ids in ids.chunks(verify::ID_BATCH) {
            let ids = PointsIdsList { ids: ids.iter().copied().map(PointId::from).collect() };
            let request = DeletePointsBuilder::new(self.name()).points(ids).wait(true).ordering(medium());
            self.write("deleting points", |client| async move { client.delete_points(request).await })?;
        }
        Ok(())
    }

    fn set_catalogue(
        &self,
        ids: &[Uuid],
        catalogue: &CataloguePayload,
        section_name: Option<&str>,
    ) -> Result<(), StoreError> {
        let payload = Payload::from(verify::catalogue_map(catalogue, section_name, &self.target.url)?);
        for ids in ids.chunks(verify::PAYLOAD_IDS) {
            // An absent id would fail the operation after a part of it was done.
            let present = self.present(ids)?;
            if present.is_empty() {
                continue;
            }
            let request = SetPayloadPointsBuilder::new(self.name(), payload.clone())
                .points_selector(PointsIdsList { ids: present })
                .wait(true)
                .ordering(medium());
            self.write("updating payloads", |client| async move { client.set_payload(request).await })?;
        }
        Ok(())
    }

    fn count(&self, filter: &Filter) -> Result<usize, StoreError> {
        let request = CountPointsBuilder::new(self.name()).filter(qdrant_filter(filter)).exact(true);
        let response = self.call(|client| async move { client.count(request).await })?;
        match response.result {
            Some(result) => Ok(usize::try_from(result.count).unwrap_or(usize::MAX)),
            None => Err(self.target.unavailable("the count came back empty")),
        }
    }

    fn search(&self, vector: &[f32], filter: &Filter, limit: usize) -> Result<Vec<Hit>, StoreError> {
        check_vector(Uuid::nil(), vector, self.dimension()?)?;
        let request = QueryPointsBuilder::new(self.name())
            .query(Query::new_nearest(vector.to_vec()))
            .filter(qdrant_filter(filter))
            .limit(limit as u64)
            .with_payload(true);
        let response = self.call(|client| async move { client.query(request).await })?;
        Ok(response
            .result
            .into_iter()
            .filter_map(|point| {
                Some(Hit { id: uuid_of(point.id?)?, score: point.score, payload: json_map(point.payload) })
            })
            .collect())
    }

    fn scroll(&self, from: Option<Uuid>, limit: usize) -> Result<ScrollPage, StoreError> {
        let mut from = from.map(PointId::from);
        loop {
            let (points, next) = self.page(&Filter::default(), from, limit.max(1))?;
            match next {
                // Integer ids come first, and are not ours: on to where the UUIDs start.
                Some(integer) if uuid_of(integer.clone()).is_none() => from = Some(integer),
                next => return Ok(ScrollPage { points, next: next.and_then(uuid_of) }),
            }
        }
    }

    fn fetch(&self, ids: &[Uuid]) -> Result<Vec<Point>, StoreError> {
        let mut points = Vec::new();
        // Chapters carry their whole text.
        for ids in ids.chunks(verify::PAYLOAD_IDS) {
            let ids: Vec<PointId> = ids.iter().copied().map(PointId::from).collect();
            let request = GetPointsBuilder::new(self.name(), ids).with_payload(true).with_vectors(true);
            let response = self.call(|client| async move { client.get_points(request).await })?;
            points.extend(response.result.into_iter().filter_map(|point| {
                let Dense(vector) = point.vectors?.get_vector()? else { return None };
                verify::point(uuid_of(point.id?)?, vector.data, json_map(point.payload))
            }));
        }
        Ok(points)
    }

    fn beside(&self, collection: &str) -> Result<Arc<dyn VectorStore>, StoreError> {
        let config = ServerConfig { collection: collection.to_owned(), ..self.config.clone() };
        Ok(Arc::new(ServerStore::connect(&config)?))
    }

    fn is_private(&self) -> bool {
        false
    }

    fn resolve(&self, name: &str) -> Result<Resolved, StoreError> {
        let aliases = self.call(|client| async move { client.list_aliases().await })?.aliases;
        if let Some(alias) = aliases.into_iter().find(|alias| alias.alias_name == name) {
            return Ok(Resolved::Alias(alias.collection_name));
        }
        let collections = self.call(|client| async move { client.list_collections().await })?.collections;
        let is_there = collections.iter().any(|collection| collection.name == name);
        Ok(if is_there { Resolved::Collection } else { Resolved::Nothing })
    }

    fn switch(&self, name: &str, collection: &str) -> Result<(), StoreError> {
        if self.resolve(name)? == Resolved::Collection {
            // An alias cannot have the name of a collection.
            self.drop_collection(name)?;
        }
        // Creating an alias that is there already moves it, under the server's lock on all collections.
        let request = CreateAliasBuilder::new(collection, name);
        failpoint::pass("store: before the name stands for another collection");
        let answer = self.call(|client| async move { client.create_alias(request).await })?;
        failpoint::pass("store: after the name stands for another collection");
        self.done(&answer, "the alias was not made")
    }

    fn drop_collection(&self, collection: &str) -> Result<(), StoreError> {
        let name = collection.to_owned();
        failpoint::pass("store: before a collection is deleted");
        let answer = self.call(|client| async move { client.delete_collection(name).await });
        failpoint::pass("store: after a collection is deleted");
        match answer {
            // The server answers so where there is none.
            Ok(_) | Err(StoreError::CollectionMissing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Nothing to do: writes wait until they are applied, and the server flushes by itself.
    fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Nothing to do: the server indexes by itself.
    fn maintain(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn health(&self) -> Result<(), StoreError> {
        let limit = HEALTH_TIMEOUT.min(self.config.timeout);
        self.call_within(limit, |client| async move { client.list_collections().await }).map(drop)
    }
}

/// Dimension of the unnamed vector and whether its distance is cosine.
fn unnamed_vector(info: &CollectionInfo) -> (Option<usize>, bool) {
    let params = info.config.as_ref().and_then(|config| config.params.as_ref());
    let vectors = params.and_then(|params| params.vectors_config.as_ref()).and_then(|vectors| vectors.config.as_ref());
    match vectors {
        Some(VectorsKind::Params(vector)) if vector.multivector_config.is_none() => {
            (usize::try_from(vector.size).ok(), vector.distance() == Distance::Cosine)
        }
        _ => (None, false),
    }
}

fn qdrant_filter(filter: &Filter) -> QdrantFilter {
    // Spelt out: the client turns a plain string with a space in it into a full-text match.
    QdrantFilter::must(
        filter
            .must
            .iter()
            .map(|(field, value)| Condition::matches(field.clone(), MatchValue::Keyword(value.clone())))
            .chain(filter.any.iter().map(|(field, values)| {
                let strings = RepeatedStrings { strings: values.clone() };
                Condition::matches(field.clone(), MatchValue::Keywords(strings))
            })),
    )
}

fn only_fields(names: &[&str]) -> SelectorOptions {
    SelectorOptions::Include(PayloadIncludeSelector { fields: names.iter().map(|name| (*name).to_owned()).collect() })
}

/// One writer a book: its writes are applied in their order on every replica.
fn medium() -> WriteOrdering {
    WriteOrdering { r#type: WriteOrderingType::Medium.into() }
}

/// None for an integer id, which nothing here ever writes.
fn uuid_of(id: PointId) -> Option<Uuid> {
    match id.point_id_options? {
        PointIdOptions::Uuid(text) => Uuid::parse_str(&text).ok(),
        PointIdOptions::Num(_) => None,
    }
}

fn json_map(payload: HashMap<String, Value>) -> Map<String, serde_json::Value> {
    payload.into_iter().map(|(key, value)| (key, value.into_json())).collect()
}
