//! A real gRPC server on a real loopback socket that speaks Qdrant's protocol, on top of the embedded engine, with
//! faults on order: for tests of the server store. It must never be more forgiving than the real one.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qdrant_client::qdrant as q;
use qdrant_client::qdrant::collections_server::{Collections, CollectionsServer};
use qdrant_client::qdrant::points_server::{Points, PointsServer};
use qdrant_client::qdrant::qdrant_server::{Qdrant as QdrantService, QdrantServer};
use qdrant_edge as edge;
use tonic::{Code, Request, Response, Status};

/// What goes wrong, once per entry, when the named call comes (`upsert`, `query`, ...; `*` for any).
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers after this time (longer than the client's timeout: a hang).
    Delay(Duration),
    /// Refuses without doing anything.
    Refuse(Code, &'static str),
    /// Does it, then answers with an error.
    DoneButFails(Code),
    /// Does the first half of an upsert, then answers with an error.
    HalfDone(Code),
    /// Does it, and answers OK with this status instead of Completed.
    Status(q::UpdateStatus),
}

/// The server: it keeps its collections over [`FakeQdrant::stop`] and [`FakeQdrant::start`].
pub struct FakeQdrant {
    address: SocketAddr,
    pub state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

pub struct State {
    dir: tempfile::TempDir,
    api_key: Mutex<Option<String>>,
    shards: Mutex<HashMap<String, Arc<edge::EdgeShard>>>,
    /// Alias to collection.
    aliases: Mutex<HashMap<String, String>>,
    faults: Mutex<Vec<(&'static str, Fault)>>,
    calls: Mutex<Vec<&'static str>>,
    created: Mutex<Vec<q::CreateCollection>>,
}

/// What [`FakeQdrant::save`] kept.
pub struct SavedCollections(tempfile::TempDir, HashMap<String, String>);

/// Sparse files stay sparse.
fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

impl FakeQdrant {
    pub fn new(api_key: Option<&str>) -> FakeQdrant {
        let state = Arc::new(State {
            dir: tempfile::tempdir().unwrap(),
            api_key: Mutex::new(api_key.map(String::from)),
            shards: Mutex::default(),
            aliases: Mutex::default(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            created: Mutex::default(),
        });
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = FakeQdrant { address, state, runtime: None };
        server.start();
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let service = Service(self.state.clone());
        let incoming = runtime.block_on(async {
            tonic::transport::server::TcpIncoming::bind(self.address).unwrap_or_else(|error| panic!("{error}"))
        });
        runtime.spawn(async move {
            let limit = usize::MAX;
            tonic::transport::Server::builder()
                .add_service(QdrantServer::new(service.clone()))
                .add_service(CollectionsServer::new(service.clone()))
                .add_service(PointsServer::new(service).max_decoding_message_size(limit))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        self.runtime = Some(runtime);
    }

    /// As a killed server: every connection is cut, calls in progress included.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Orders a fault; faults of one call are served in the order given.
    pub fn inject(&self, call: &'static str, fault: Fault) {
        self.state.faults.lock().unwrap().push((call, fault));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// As an operator who changes the key.
    pub fn set_key(&self, key: Option<&str>) {
        *self.state.api_key.lock().unwrap() = key.map(String::from);
    }

    pub fn calls(&self, call: &str) -> usize {
        self.state.calls.lock().unwrap().iter().filter(|name| **name == call).count()
    }

    /// The names of its collections, in order.
    pub fn collections(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state.shards.lock().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    /// What an alias stands for.
    pub fn alias(&self, name: &str) -> Option<String> {
        self.state.aliases.lock().unwrap().get(name).cloned()
    }

    pub fn created(&self) -> Vec<q::CreateCollection> {
        self.state.created.lock().unwrap().clone()
    }

    /// Everything it holds, as it is now.
    pub fn save(&self) -> SavedCollections {
        let saved = tempfile::tempdir().unwrap();
        for (name, shard) in self.state.shards.lock().unwrap().iter() {
            shard.flush().unwrap();
            copy_directory(&self.state.dir.path().join(name), &saved.path().join(name));
        }
        SavedCollections(saved, self.state.aliases.lock().unwrap().clone())
    }

    /// Holds again what it held then, and nothing else.
    pub fn restore(&self, saved: &SavedCollections) {
        let mut shards = self.state.shards.lock().unwrap();
        self.state.aliases.lock().unwrap().clone_from(&saved.1);
        for (name, shard) in shards.drain() {
            drop(shard);
            std::fs::remove_dir_all(self.state.dir.path().join(name)).unwrap();
        }
        for entry in std::fs::read_dir(saved.0.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = self.state.dir.path().join(&name);
            copy_directory(&saved.0.path().join(&name), &path);
            shards.insert(name, Arc::new(edge::EdgeShard::load(&path, None).unwrap()));
        }
    }

    /// As an operator deleting a collection behind the client's back.
    pub fn drop_collection(&self, name: &str) {
        self.state.shards.lock().unwrap().remove(name).expect("no such collection");
        // A call in progress may still write there: what it writes goes with the directory's new name.
        let dropped = self.state.dir.path().join(format!(".{name}.dropped-{}", uuid::Uuid::new_v4()));
        std::fs::rename(self.state.dir.path().join(name), dropped).unwrap();
    }
}

impl Drop for FakeQdrant {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Clone)]
struct Service(Arc<State>);

type Answer<T> = Result<T, Status>;

impl Service {
    /// Key, faults, then the work.
    async fn serve<T, R: Reply>(
        &self,
        call: &'static str,
        request: Request<T>,
        work: impl FnOnce(&State, T, bool) -> Answer<R> + Send,
    ) -> Answer<Response<R>>
    where
        T: Send,
    {
        self.0.calls.lock().unwrap().push(call);
        let key = self.0.api_key.lock().unwrap().clone();
        if let Some(key) = key.as_deref().filter(|_| call != "health_check")
            && request.metadata().get("api-key").and_then(|value| value.to_str().ok()) != Some(key)
        {
            return Err(Status::unauthenticated("Must provide an API key or an Authorization bearer token"));
        }
        let fault = {
            let mut faults = self.0.faults.lock().unwrap();
            let at = faults.iter().position(|(name, _)| *name == call || *name == "*");
            at.map(|at| faults.remove(at).1)
        };
        let request = request.into_inner();
        match fault {
            None => work(&self.0, request, false).map(Response::new),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                work(&self.0, request, false).map(Response::new)
            }
            Some(Fault::Refuse(code, text)) => Err(Status::new(code, text)),
            Some(Fault::DoneButFails(code)) => {
                work(&self.0, request, false)?;
                Err(Status::new(code, "injected after the work"))
            }
            Some(Fault::HalfDone(code)) => {
                work(&self.0, request, true)?;
                Err(Status::new(code, "injected after half of the work"))
            }
            Some(Fault::Status(status)) => {
                let mut reply = work(&self.0, request, false)?;
                reply.set_status(status);
                Ok(Response::new(reply))
            }
        }
    }
}

/// Replies whose status a fault may change.
trait Reply: Send {
    fn set_status(&mut self, _: q::UpdateStatus) {}
}

impl Reply for q::PointsOperationResponse {
    fn set_status(&mut self, status: q::UpdateStatus) {
        if let Some(result) = &mut self.result {
            result.set_status(status);
        }
    }
}

macro_rules! plain_replies {
    ($($reply:ident)*) => { $(impl Reply for q::$reply {})* };
}
plain_replies! { GetCollectionInfoResponse ListCollectionsResponse CollectionOperationResponse HealthCheckReply
GetResponse ScrollResponse CountResponse QueryResponse ListAliasesResponse }

impl State {
    /// By its name, or by an alias.
    fn shard(&self, name: &str) -> Answer<Arc<edge::EdgeShard>> {
        let missing = || Status::not_found(format!("Not found: Collection `{name}` doesn't exist!"));
        let name = self.aliases.lock().unwrap().get(name).cloned().unwrap_or_else(|| name.to_owned());
        self.shards.lock().unwrap().get(&name).cloned().ok_or_else(missing)
    }

    /// Deletes its aliases, too; of an alias, nothing.
    fn delete_collection(&self, request: q::DeleteCollection, _: bool) -> Answer<q::CollectionOperationResponse> {
        let name = request.collection_name;
        let removed = self.shards.lock().unwrap().remove(&name).is_some();
        if removed {
            self.aliases.lock().unwrap().retain(|_, collection| *collection != name);
            let dropped = self.dir.path().join(format!(".{name}.dropped-{}", uuid::Uuid::new_v4()));
            std::fs::rename(self.dir.path().join(&name), dropped).unwrap();
        }
        Ok(q::CollectionOperationResponse { result: removed, time: 0.0 })
    }

    /// All of them or none; an alias that is there already is moved.
    fn change_aliases(&self, request: q::ChangeAliases, _: bool) -> Answer<q::CollectionOperationResponse> {
        let shards = self.shards.lock().unwrap();
        let mut aliases = self.aliases.lock().unwrap();
        for action in request.actions {
            match action.action {
                Some(q::alias_operations::Action::CreateAlias(create)) => {
                    if !shards.contains_key(&create.collection_name) {
                        let name = create.collection_name;
                        return Err(Status::not_found(format!("Not found: Collection `{name}` doesn't exist!")));
                    }
                    if shards.contains_key(&create.alias_name) {
                        let name = create.alias_name;
                        return Err(Status::invalid_argument(format!("Collection `{name}` already exists!")));
                    }
                    aliases.insert(create.alias_name, create.collection_name);
                }
                other => return Err(Status::unimplemented(format!("{other:?}"))),
            }
        }
        Ok(q::CollectionOperationResponse { result: true, time: 0.0 })
    }

    fn list_aliases(&self, _: q::ListAliasesRequest, _: bool) -> Answer<q::ListAliasesResponse> {
        let aliases = self.aliases.lock().unwrap();
        let described = aliases.iter().map(|(alias, collection)| q::AliasDescription {
            alias_name: alias.clone(),
            collection_name: collection.clone(),
        });
        Ok(q::ListAliasesResponse { aliases: described.collect(), time: 0.0 })
    }

    fn health_check(&self, _: q::HealthCheckRequest, _: bool) -> Answer<q::HealthCheckReply> {
        Ok(q::HealthCheckReply {
            title: "qdrant - vector search engine".into(),
            version: "1.19.0".into(),
            ..Default::default()
        })
    }

    fn list(&self, _: q::ListCollectionsRequest, _: bool) -> Answer<q::ListCollectionsResponse> {
        let names = self.shards.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        let collections = names.into_iter().map(|name| q::CollectionDescription { name }).collect();
        Ok(q::ListCollectionsResponse { collections, time: 0.0 })
    }

    fn create(&self, request: q::CreateCollection, _: bool) -> Answer<q::CollectionOperationResponse> {
        self.created.lock().unwrap().push(request.clone());
        let Some(q::vectors_config::Config::Params(vector)) = request.vectors_config.and_then(|v| v.config) else {
            return Err(Status::invalid_argument("the fake server creates one unnamed vector only"));
        };
        assert_eq!(vector.distance(), q::Distance::Cosine);
        let mut shards = self.shards.lock().unwrap();
        let is_alias = self.aliases.lock().unwrap().contains_key(&request.collection_name);
        if is_alias || shards.contains_key(&request.collection_name) {
            return Err(Status::already_exists(format!("Collection `{}` already exists!", request.collection_name)));
        }
        let params = edge::EdgeVectorParams::builder(vector.size as usize, edge::Distance::Cosine).build();
        let config = edge::EdgeConfig::builder().vector(edge::DEFAULT_VECTOR_NAME, params).build();
        let shard = edge::EdgeShard::new(&self.dir.path().join(&request.collection_name), config).map_err(failed)?;
        shards.insert(request.collection_name, Arc::new(shard));
        Ok(q::CollectionOperationResponse { result: true, time: 0.0 })
    }

    fn info(&self, request: q::GetCollectionInfoRequest, _: bool) -> Answer<q::GetCollectionInfoResponse> {
        let shard = self.shard(&request.collection_name)?;
        let size = shard.config().vectors[edge::DEFAULT_VECTOR_NAME].size as u64;
        let vector = q::VectorParams { size, distance: q::Distance::Cosine.into(), ..Default::default() };
        let kind = q::vectors_config::Config::Params(vector);
        let vectors_config = Some(q::VectorsConfig { config: Some(kind) });
        let params = q::CollectionParams { shard_number: 1, vectors_config, ..Default::default() };
        let schema = shard.info().map_err(failed)?.payload_schema;
        let payload_schema = schema
            .into_keys()
            .map(|field| {
                let data_type = q::PayloadSchemaType::Keyword.into();
                (field.to_string(), q::PayloadSchemaInfo { data_type, ..Default::default() })
            })
            .collect();
        let config = Some(q::CollectionConfig { params: Some(params), ..Default::default() });
        let info = q::CollectionInfo {
            status: q::CollectionStatus::Green.into(),
            config,
            payload_schema,
            ..Default::default()
        };
        Ok(q::GetCollectionInfoResponse { result: Some(info), time: 0.0 })
    }

    fn create_field_index(
        &self,
        request: q::CreateFieldIndexCollection,
        _: bool,
    ) -> Answer<q::PointsOperationResponse> {
        assert_eq!(request.field_type, Some(q::FieldType::Keyword.into()));
        let index = edge::CreateIndex {
            field_name: request.field_name.parse().unwrap(),
            field_schema: Some(edge::PayloadFieldSchema::FieldType(edge::PayloadSchemaType::Keyword)),
        };
        let index = edge::FieldIndexOperations::CreateIndex(index);
        self.update(&request.collection_name, request.wait, edge::UpdateOperation::FieldIndexOperation(index))
    }

    fn upsert(&self, request: q::UpsertPoints, half: bool) -> Answer<q::PointsOperationResponse> {
        let mut points = request.points;
        if half {
            points.truncate(points.len() / 2);
        }
        let points = points
            .into_iter()
            .map(|point| edge::PointStructPersisted {
                id: edge_id(point.id.as_ref()).unwrap(),
                vector: edge::VectorStructPersisted::Single(dense(point.vectors.unwrap())),
                payload: Some(edge::Payload(json(point.payload))),
            })
            .collect();
        let points = edge::PointOperations::UpsertPoints(edge::PointInsertOperations::PointsList(points));
        self.update(&request.collection_name, request.wait, edge::UpdateOperation::PointOperation(points))
    }

    fn delete(&self, request: q::DeletePoints, _: bool) -> Answer<q::PointsOperationResponse> {
        let ids = selected(request.points)?;
        let points = edge::PointOperations::DeletePoints { ids };
        self.update(&request.collection_name, request.wait, edge::UpdateOperation::PointOperation(points))
    }

    fn set_payload(&self, request: q::SetPayloadPoints, _: bool) -> Answer<q::PointsOperationResponse> {
        let points = Some(selected(request.points_selector)?);
        let payload = edge::Payload(json(request.payload));
        let set = edge::PayloadOps::SetPayload(edge::SetPayloadOp { payload, points, filter: None, key: None });
        self.update(&request.collection_name, request.wait, edge::UpdateOperation::PayloadOperation(set))
    }

    fn update(
        &self,
        collection: &str,
        wait: Option<bool>,
        operation: edge::UpdateOperation,
    ) -> Answer<q::PointsOperationResponse> {
        self.shard(collection)?.update(operation).map_err(failed)?;
        let status = if wait == Some(true) { q::UpdateStatus::Completed } else { q::UpdateStatus::Acknowledged }.into();
        let result = Some(q::UpdateResult { operation_id: Some(0), status });
        Ok(q::PointsOperationResponse { result, ..Default::default() })
    }

    fn get(&self, request: q::GetPoints, _: bool) -> Answer<q::GetResponse> {
        let ids = request.ids.iter().map(|id| edge_id(Some(id))).collect::<Answer<Vec<_>>>()?;
        let records = self.shard(&request.collection_name)?.retrieve(edge::RetrieveRequest {
            point_ids: ids,
            with_payload: Some(payload_selector(request.with_payload)),
            with_vector: wanted_vectors(request.with_vectors).then_some(edge::WithVector::Bool(true)),
        });
        let result = records.map_err(failed)?.into_iter().map(retrieved).collect();
        Ok(q::GetResponse { result, ..Default::default() })
    }

    fn scroll(&self, request: q::ScrollPoints, _: bool) -> Answer<q::ScrollResponse> {
        let shard = self.shard(&request.collection_name)?;
        let page = shard.scroll(edge::ScrollRequest {
            offset: request.offset.as_ref().map(|id| edge_id(Some(id))).transpose()?,
            limit: request.limit.map(|limit| limit as usize),
            filter: edge_filter(request.filter),
            with_payload: Some(payload_selector(request.with_payload)),
            with_vector: edge::WithVector::Bool(false),
            order_by: None,
        });
        let (records, next) = page.map_err(failed)?;
        Ok(q::ScrollResponse {
            next_page_offset: next.map(client_id),
            result: records.into_iter().map(retrieved).collect(),
            ..Default::default()
        })
    }

    fn count(&self, request: q::CountPoints, _: bool) -> Answer<q::CountResponse> {
        let count = edge::CountRequest { filter: edge_filter(request.filter), exact: request.exact.unwrap_or(true) };
        let count = self.shard(&request.collection_name)?.count(count).map_err(failed)? as u64;
        Ok(q::CountResponse { result: Some(q::CountResult { count }), ..Default::default() })
    }

    fn query(&self, request: q::QueryPoints, _: bool) -> Answer<q::QueryResponse> {
        let Some(q::query::Variant::Nearest(input)) = request.query.and_then(|query| query.variant) else {
            return Err(Status::invalid_argument("the fake server knows nearest only"));
        };
        let Some(q::vector_input::Variant::Dense(vector)) = input.variant else {
            return Err(Status::invalid_argument("the fake server knows dense vectors only"));
        };
        let nearest = edge::QueryEnum::Nearest(edge::NamedQuery::default_dense(vector.data));
        let found = self.shard(&request.collection_name)?.query(edge::QueryRequest {
            query: Some(edge::ScoringQuery::Vector(nearest)),
            filter: edge_filter(request.filter),
            with_payload: payload_selector(request.with_payload),
            ..edge::QueryRequest::new(request.limit.unwrap_or(10) as usize)
        });
        let result = found
            .map_err(failed)?
            .into_iter()
            .map(|point| q::ScoredPoint {
                id: Some(client_id(point.id)),
                payload: client_payload(point.payload),
                score: point.score,
                version: point.version,
                ..Default::default()
            })
            .collect();
        Ok(q::QueryResponse { result, ..Default::default() })
    }
}

/// Status codes as the real server was seen to use them.
fn failed(error: edge::OperationError) -> Status {
    match &error {
        edge::OperationError::PointIdError { .. } => Status::not_found(error.to_string()),
        edge::OperationError::WrongVectorDimension { .. } | edge::OperationError::ValidationError { .. } => {
            Status::invalid_argument(error.to_string())
        }
        _ => Status::internal(error.to_string()),
    }
}

fn edge_id(id: Option<&q::PointId>) -> Answer<edge::PointId> {
    match id.and_then(|id| id.point_id_options.as_ref()) {
        Some(q::point_id::PointIdOptions::Uuid(text)) => uuid::Uuid::parse_str(text)
            .map(edge::PointId::Uuid)
            .map_err(|error| Status::invalid_argument(format!("Unable to parse UUID: {text}: {error}"))),
        Some(q::point_id::PointIdOptions::Num(number)) => Ok(edge::PointId::NumId(*number)),
        None => Err(Status::invalid_argument("No ID options provided")),
    }
}

fn client_id(id: edge::PointId) -> q::PointId {
    match id {
        edge::PointId::Uuid(uuid) => q::PointId::from(uuid),
        edge::PointId::NumId(number) => q::PointId::from(number),
    }
}

fn selected(selector: Option<q::PointsSelector>) -> Answer<Vec<edge::PointId>> {
    match selector.and_then(|selector| selector.points_selector_one_of) {
        Some(q::points_selector::PointsSelectorOneOf::Points(list)) => {
            list.ids.iter().map(|id| edge_id(Some(id))).collect()
        }
        other => Err(Status::invalid_argument(format!("a change must name its points by id, not by {other:?}"))),
    }
}

fn dense(vectors: q::Vectors) -> Vec<f32> {
    match vectors.vectors_options {
        Some(q::vectors::VectorsOptions::Vector(vector)) => match vector.vector {
            Some(q::vector::Vector::Dense(dense)) => dense.data,
            #[allow(deprecated)]
            _ => vector.data,
        },
        other => panic!("the contract has one unnamed vector, not {other:?}"),
    }
}

fn json(payload: HashMap<String, q::Value>) -> serde_json::Map<String, serde_json::Value> {
    payload.into_iter().map(|(key, value)| (key, value.into_json())).collect()
}

fn client_payload(payload: Option<edge::Payload>) -> HashMap<String, q::Value> {
    payload.map(|payload| payload.0).unwrap_or_default().into_iter().map(|(key, value)| (key, value.into())).collect()
}

fn retrieved(record: edge::Record) -> q::RetrievedPoint {
    let vector = match record.vector {
        Some(edge::VectorStructInternal::Single(data)) => Some(data),
        _ => None,
    };
    let vectors = vector.map(|data| {
        let vector = Some(q::vector_output::Vector::Dense(q::DenseVector { data }));
        let output = q::VectorOutput { vector, ..Default::default() };
        q::VectorsOutput { vectors_options: Some(q::vectors_output::VectorsOptions::Vector(output)) }
    });
    let payload = client_payload(record.payload);
    q::RetrievedPoint { id: Some(client_id(record.id)), payload, vectors, ..Default::default() }
}

fn wanted_vectors(selector: Option<q::WithVectorsSelector>) -> bool {
    use q::with_vectors_selector::SelectorOptions;
    matches!(selector.and_then(|selector| selector.selector_options), Some(SelectorOptions::Enable(true)))
}

fn payload_selector(selector: Option<q::WithPayloadSelector>) -> edge::WithPayloadInterface {
    use q::with_payload_selector::SelectorOptions;
    match selector.and_then(|selector| selector.selector_options) {
        Some(SelectorOptions::Enable(enable)) => edge::WithPayloadInterface::Bool(enable),
        Some(SelectorOptions::Include(include)) => {
            edge::WithPayloadInterface::Fields(include.fields.iter().map(|field| field.parse().unwrap()).collect())
        }
        other => panic!("the fake server does not know {other:?}"),
    }
}

fn edge_filter(filter: Option<q::Filter>) -> Option<edge::Filter> {
    let filter = filter?;
    assert!(filter.should.is_empty() && filter.must_not.is_empty() && filter.min_should.is_none());
    let conditions = filter.must.into_iter().map(|condition| {
        let Some(q::condition::ConditionOneOf::Field(field)) = condition.condition_one_of else {
            panic!("the fake server knows field conditions only");
        };
        let wanted: edge::Match = match field.r#match.and_then(|m| m.match_value) {
            Some(q::r#match::MatchValue::Keyword(value)) => value.into(),
            Some(q::r#match::MatchValue::Keywords(values)) => values.strings.into(),
            _ => panic!("the fake server knows keyword matches only"),
        };
        edge::Condition::Field(edge::FieldCondition::new_match(field.key.parse().unwrap(), wanted))
    });
    Some(edge::Filter { must: Some(conditions.collect()), ..Default::default() })
}

type Served<'a, R> = Pin<Box<dyn Future<Output = Answer<Response<R>>> + Send + 'a>>;

/// The generated traits' methods: those the store uses, and the others, which answer as a server without them would.
macro_rules! calls {
    (served { $($call:ident($request:ident) -> $reply:ident = $work:ident;)* }
     unserved { $($other:ident($other_request:ident) -> $other_reply:ident;)* }) => {
        $(fn $call<'a, 'b>(&'a self, request: Request<q::$request>) -> Served<'b, q::$reply>
        where 'a: 'b, Self: 'b {
            Box::pin(async move { self.serve(stringify!($work), request, State::$work).await })
        })*
        $(fn $other<'a, 'b>(&'a self, _: Request<q::$other_request>) -> Served<'b, q::$other_reply>
        where 'a: 'b, Self: 'b {
            Box::pin(async move { Err(Status::unimplemented(stringify!($other))) })
        })*
    };
}

impl QdrantService for Service {
    calls! {
        served {
        health_check(HealthCheckRequest) -> HealthCheckReply = health_check;
        }
        unserved {
        }
    }
}

impl Collections for Service {
    calls! {
        served {
        get(GetCollectionInfoRequest) -> GetCollectionInfoResponse = info;
        list(ListCollectionsRequest) -> ListCollectionsResponse = list;
        create(CreateCollection) -> CollectionOperationResponse = create;
        delete(DeleteCollection) -> CollectionOperationResponse = delete_collection;
        update_aliases(ChangeAliases) -> CollectionOperationResponse = change_aliases;
        list_aliases(ListAliasesRequest) -> ListAliasesResponse = list_aliases;
        }
        unserved {
        update(UpdateCollection) -> CollectionOperationResponse;
        list_collection_aliases(ListCollectionAliasesRequest) -> ListAliasesResponse;
        collection_cluster_info(CollectionClusterInfoRequest) -> CollectionClusterInfoResponse;
        collection_exists(CollectionExistsRequest) -> CollectionExistsResponse;
        update_collection_cluster_setup(UpdateCollectionClusterSetupRequest)
            -> UpdateCollectionClusterSetupResponse;
        create_shard_key(CreateShardKeyRequest) -> CreateShardKeyResponse;
        delete_shard_key(DeleteShardKeyRequest) -> DeleteShardKeyResponse;
        list_shard_keys(ListShardKeysRequest) -> ListShardKeysResponse;
        }
    }
}

impl Points for Service {
    calls! {
        served {
        upsert(UpsertPoints) -> PointsOperationResponse = upsert;
        delete(DeletePoints) -> PointsOperationResponse = delete;
        get(GetPoints) -> GetResponse = get;
        set_payload(SetPayloadPoints) -> PointsOperationResponse = set_payload;
        create_field_index(CreateFieldIndexCollection) -> PointsOperationResponse = create_field_index;
        scroll(ScrollPoints) -> ScrollResponse = scroll;
        count(CountPoints) -> CountResponse = count;
        query(QueryPoints) -> QueryResponse = query;
        }
        unserved {
        update_vectors(UpdatePointVectors) -> PointsOperationResponse;
        delete_vectors(DeletePointVectors) -> PointsOperationResponse;
        overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
        delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
        clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
        delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
        create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
        delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
        search(SearchPoints) -> SearchResponse;
        search_batch(SearchBatchPoints) -> SearchBatchResponse;
        search_groups(SearchPointGroups) -> SearchGroupsResponse;
        recommend(RecommendPoints) -> RecommendResponse;
        recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
        recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
        discover(DiscoverPoints) -> DiscoverResponse;
        discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
        update_batch(UpdateBatchPoints) -> UpdateBatchResponse;
        query_batch(QueryBatchPoints) -> QueryBatchResponse;
        query_groups(QueryPointGroups) -> QueryGroupsResponse;
        facet(FacetCounts) -> FacetResponse;
        search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
        search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
        }
    }
}
