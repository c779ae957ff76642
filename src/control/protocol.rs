//! What client and server say to each other: JSON bodies over HTTP. Plain values, shared by both; no IO.
//!
//! Every answer carries the header [`PROTOCOL_HEADER`]. Adding a field is no new protocol (readers ignore what they do
//! not know); changing or dropping one is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::domain::report::{Coverage, CoverageRow, ReasonRow, Report, SlowBook, SpeedRow};
pub use crate::domain::{AuditRepair, AuditReport, ChunkLevel, Finding, FindingKind};
use crate::domain::{LibraryKind, PassedOver};
pub use crate::queue::{FallbackRow, JobId, JobKind, JobRow, JobState, Outcome, QueueStats};

/// Grows when an old client would misread a new server.
pub const PROTOCOL: u32 = 1;

/// The header that carries [`PROTOCOL`].
pub const PROTOCOL_HEADER: &str = "alexandria-protocol";

/// GET /status; answers with a [`StatusSnapshot`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StatusRequest {
    /// Wait for the queue's present numbers. Without it they may be a second old while the queue is busy.
    pub fresh: bool,
}

/// The state of everything.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct StatusSnapshot {
    /// [`PROTOCOL`]; filled by the server.
    pub protocol: u32,
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub library: LibraryStatus,
    /// Filled by the server from the queue itself.
    pub queue: QueueStats,
    pub current: Vec<CurrentJob>,
    pub model: ModelStatus,
    pub store: StoreStatus,
    /// Of the last minutes; 0 while nothing is embedded.
    pub tokens_per_second: f64,
    pub chunks_per_minute: f64,
    /// The share of the last hour of work in which the model computed; None where there was none to speak of.
    pub model_share: Option<f64>,
    /// Claiming is stopped by a person's word. Filled by the server from the queue itself.
    pub paused: bool,
    /// Removals held back because they are too many at once.
    pub removals_waiting: usize,
    /// What waits for what, a line each, for a person.
    pub waiting: Vec<String>,
    /// The last comparison of library, state and store, without its findings.
    pub last_audit: Option<AuditReport>,
    /// What the driver says of the card; None on a CPU.
    pub gpu: Option<GpuStatus>,
    /// How long the queue will take; None while there is nothing to do, or nothing to reckon from.
    pub estimate: Option<Estimate>,
    /// The latest failures of books, the newest first; a few.
    pub recent_errors: Vec<RecentError>,
    /// What was done since the start.
    pub totals: Totals,
    /// What does not go on, a line each, for a person: the watchdog is not fed until it does.
    pub stuck: Vec<String>,
    /// The log that other tools read; None where it is not kept.
    pub ingest_log: Option<IngestLogStatus>,
    /// Books that are not made with the present settings; None where all are.
    pub outdated: Option<OutdatedStatus>,
    /// The reindex that goes on.
    pub reindex: Option<ReindexStatus>,
}

/// Books in the index that another chunker or another model made, and what a reindex would cost. They stay as they are
/// until their content changes or somebody asks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct OutdatedStatus {
    pub books: u64,
    /// Of them, those with another chunker, and with another model; a book may have both.
    pub chunker_books: u64,
    pub model_books: u64,
    /// Of their passages, as they were counted when they were made.
    pub tokens: u64,
    /// Measured with this model on this device, all stages together; None where nothing was embedded so yet.
    pub tokens_per_second: Option<f64>,
    /// How long a reindex takes at that rate.
    pub seconds: Option<f64>,
}

/// A collection that is filled beside the live one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ReindexStatus {
    pub collection: String,
    /// The one that it is to replace.
    pub from: String,
    pub started_us: i64,
    /// What it holds.
    pub books: u64,
    pub points: u64,
    pub tokens: u64,
    /// Books that are still to be done.
    pub queued: u64,
    /// Books that the live collection has, and that cannot be read any more.
    pub left_behind: u64,
    pub tokens_left: u64,
    /// At the measured rate.
    pub seconds_left: Option<f64>,
    /// What it waits for, for a person.
    pub waits_for: Option<String>,
}

/// Counted since the start of the process; they never fall.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Totals {
    /// Jobs that were done, by what they did: `embedded`, `payload_only`, `adopted`, `unchanged`, `removed`.
    pub outcomes: BTreeMap<String, u64>,
    /// Tries that failed, by the kind of failure: `book`, `transient`, `dependency`, `fatal`.
    pub failures: BTreeMap<String, u64>,
    /// The same, by what came of them: `parked`, `retry`, `waits`.
    pub next_steps: BTreeMap<String, u64>,
    /// Chunks of books that were embedded, and the tokens of those.
    pub chunks: u64,
    pub chunk_tokens: u64,
    /// What the model computed in all, queries and the sentences between which borders are sought included.
    pub tokens: u64,
    pub texts: u64,
    pub batches: u64,
    /// Seconds in which the model computed.
    pub busy_seconds: f64,
    /// Seconds in which a job was in work and waited for neither the library nor the store.
    pub working_seconds: f64,
    /// Seconds of the jobs that were done, by stage: `copy`, `extract`, `borders`, `embed`, `store`.
    pub stage_seconds: BTreeMap<String, f64>,
}

/// The shared ingest log and manifest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct IngestLogStatus {
    pub path: String,
    /// Rows and lines that the file does not have yet.
    pub behind: u64,
    /// Rows that were given up because too many waited.
    pub dropped: u64,
    /// When the file last took something, microseconds since the epoch.
    pub written_us: Option<i64>,
    /// Why it does not take anything, and since when.
    pub trouble: Option<String>,
    pub trouble_since_us: Option<i64>,
}

/// The card as NVML sees it, all of its tenants together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct GpuStatus {
    pub name: String,
    /// Percent of the last while in which a kernel ran.
    pub utilisation_percent: Option<u32>,
    /// Bytes.
    pub memory_used: u64,
    pub memory_total: u64,
    pub power_watts: Option<f64>,
    pub temperature_celsius: Option<u32>,
}

/// What is left to embed, counted in tokens, and how long it takes at the present rate. The true value lies between
/// `low` and `high` in about nine of ten cases.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Estimate {
    /// Books whose text is still to be embedded.
    pub books: u64,
    pub tokens: u64,
    pub tokens_low: u64,
    pub tokens_high: u64,
    pub seconds: f64,
    pub seconds_low: f64,
    pub seconds_high: f64,
    /// What it is reckoned from, for a person: `512 indexed books, 12,345 tokens/s over 20 min`.
    pub basis: String,
}

/// A book's failure, parked or to be tried again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct RecentError {
    pub at_us: i64,
    /// As people name it: `calibre 12`.
    pub book_id: String,
    pub title: String,
    pub reason: String,
    /// What happens next: `parked`, `retry`, `waits`.
    pub next: String,
}

/// GET /history: what was done, a row for every `step_seconds`, the oldest first. Kept in memory, since the start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct HistoryResponse {
    pub step_seconds: u64,
    pub rows: Vec<HistoryRow>,
}

/// What was done in one step; the last row is of a step that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct HistoryRow {
    /// When the step began, microseconds since the epoch.
    pub at_us: i64,
    pub tokens: u64,
    pub chunks: u64,
    pub books: u64,
    pub failures: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct LibraryStatus {
    pub path: String,
    pub kind: Option<LibraryKind>,
    #[schema(value_type = Option<String>, format = "uuid")]
    pub uuid: Option<Uuid>,
    /// The mount's file system, such as `ext4` or `cifs`.
    pub filesystem: String,
    /// Seconds between two polls.
    pub poll_seconds: f64,
    /// What shortens the wait between them; None where nothing does.
    pub hint: Option<ChangeHint>,
    pub no_hint_because: Option<String>,
    pub available: bool,
    /// Why it is not available, or what is odd about it.
    pub reason: Option<String>,
    /// Since when a call into the library has not returned, where that is longer than a slow one takes; microseconds
    /// since the epoch.
    pub not_answering_since_us: Option<i64>,
    /// When the last complete look ended, microseconds since the epoch.
    pub last_look_us: Option<i64>,
    pub books: usize,
    /// Books on the shelf that cannot be ingested as they are.
    pub passed_over: Vec<PassedOver>,
}

/// What tells of a change in the library before the next poll finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeHint {
    /// The kernel's events, of a local file system.
    Inotify,
    /// The change notification of the kernel's SMB client.
    Cifs,
}

/// A book in a worker's hands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct CurrentJob {
    #[schema(value_type = String, format = "uuid")]
    pub book_uuid: Uuid,
    /// As people name it: `calibre 12`.
    pub book_id: String,
    pub title: String,
    /// `extract`, `chunk`, `embed`, `store`.
    pub stage: String,
    /// Chunks done; of `total_chunks`, which is 0 until it is known.
    pub done_chunks: usize,
    pub total_chunks: usize,
    /// Tokens of those chunks.
    pub done_tokens: usize,
    pub total_tokens: usize,
    pub since_us: i64,
    /// What it waits for, where it does.
    pub waits_for: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ModelStatus {
    pub id: String,
    pub name: String,
    pub dimension: usize,
    pub device: String,
    /// How often the model was loaded since the start: 1, for ever.
    pub loads: usize,
    pub fingerprint: String,
    /// Tokens a batch has at most, as of now.
    pub batch_tokens: usize,
    /// How often that was made smaller because the device's memory ran out.
    pub budget_halvings: u64,
    /// None on a CPU.
    pub memory: Option<ModelMemory>,
}

/// A GPU's memory, in bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct ModelMemory {
    pub total: u64,
    pub free: u64,
    /// The model's weights.
    pub weights: u64,
    /// The work on it.
    pub workspace: u64,
    /// The most that both ever were together.
    pub peak: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct StoreStatus {
    pub location: String,
    pub collection: String,
    /// None where the store does not answer.
    pub points: Option<u64>,
    pub healthy: bool,
    pub reason: Option<String>,
}

/// GET /queue, with an optional `limit`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct JobsResponse {
    pub jobs: Vec<JobRow>,
    /// How many there are in all.
    pub total: u64,
}

/// GET /failed, with an optional `limit` for each of the lists.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FailedResponse {
    /// What was tried and failed for good.
    pub jobs: Vec<JobRow>,
    /// How many there are in all.
    pub total: u64,
    /// Books of the library that are not even tried: no format of theirs can be read.
    pub unreadable: Vec<PassedOver>,
    pub unreadable_total: u64,
    /// Books in the store whose preferred format gave no text.
    pub fallbacks: Vec<FallbackRow>,
    pub fallbacks_total: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListRequest {
    pub limit: Option<usize>,
    /// `queued`, `running`, `parked` or `done`; without it, what is running and queued.
    pub state: Option<JobState>,
}

/// POST /retry: without a book, all parked ones.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    pub book: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RetryResponse {
    pub retried: usize,
}

/// POST /rescan
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RescanRequest {
    /// Compare every file with the state, not only what the catalogue says has changed.
    pub full: bool,
}

/// POST /verify; answers with an [`AuditReport`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyRequest {
    /// Queue what is missing, delete what is nobody's.
    pub repair: bool,
}

/// POST /reindex; answers with a [`DoneResponse`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReindexRequest {
    /// Give the one that goes on up, and delete what it has filled.
    pub abort: bool,
    /// The collection of before may be deleted where that alone makes room for its name.
    pub replace: bool,
    /// Books may be left behind that cannot be read any more.
    pub skip_failed: bool,
}

/// POST /ingest and POST /remove
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRequest {
    /// A Calibre id, a book's uuid, or (to ingest) the absolute path of a file, folder or library.
    pub target: String,
    /// Embed even if nothing changed.
    #[serde(default)]
    pub force: bool,
}

/// What a request for work came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DoneResponse {
    pub message: String,
    /// The book's job, where it is one book.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
}

/// POST /pause and POST /resume
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PausedResponse {
    pub paused: bool,
}

/// GET /report; answers with a [`Report`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportRequest {
    /// Local days, today included; without it, all that are known.
    pub days: Option<u32>,
    /// Most books in the list of the slowest; 10 without it.
    pub limit: Option<usize>,
}

/// GET /search
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    pub q: String,
    #[serde(default = "default_limit")]
    pub limit: usize,
    /// As the contract has it: `en`.
    pub language: Option<String>,
    /// Words of the author line, in any case and order.
    pub author: Option<String>,
    /// Words of the title.
    pub title: Option<String>,
    /// Words of the series.
    pub series: Option<String>,
    /// A tag, or words of one where no whole tag fits.
    pub tag: Option<String>,
    /// Of the file that was read: `EPUB`.
    pub format: Option<String>,
    /// Words of the publisher.
    pub publisher: Option<String>,
    /// A Calibre id or a book's uuid.
    pub book: Option<String>,
    /// Passages (`child`, the default) or whole chapters (`parent`).
    pub level: Option<ChunkLevel>,
    /// Leaves out what is less similar.
    pub min_similarity: Option<f32>,
}

fn default_limit() -> usize {
    5
}

impl Default for SearchRequest {
    fn default() -> Self {
        Self {
            q: String::new(),
            limit: default_limit(),
            language: None,
            author: None,
            title: None,
            series: None,
            tag: None,
            format: None,
            publisher: None,
            book: None,
            level: None,
            min_similarity: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct SearchResponse {
    pub query: String,
    pub hits: Vec<SearchHit>,
    /// How the conditions were understood, or why nothing was found; a sentence each.
    pub notes: Vec<String>,
}

/// One passage, best first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct SearchHit {
    /// Cosine similarity.
    pub score: f32,
    pub title: String,
    pub author: String,
    /// The chapter.
    pub section: String,
    pub text: String,
    pub language: String,
    pub source: String,
    pub source_id: String,
    pub book_uuid: String,
    pub point_id: String,
    /// Of the chapter in the book and of the passage in the chapter, 0-based.
    pub section_index: usize,
    pub sequence_index: usize,
    /// `child` or `parent`.
    pub level: String,
    /// Chapters of the book.
    pub section_count: Option<usize>,
    /// Passages of the chapter.
    pub passage_count: Option<usize>,
    /// Of the file that was read.
    pub format: String,
    pub series: String,
    pub series_index: Option<f64>,
    pub publisher: String,
    pub tags: Vec<String>,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ErrorResponse {
    pub error: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
