//! The whole configuration: every key, its default, and its check. Unknown keys are refused by name and line.
//!
//! Order, later wins: defaults, the TOML file, the user's present variables (`CALIBRE_LIBRARY_PATH`, ...),
//! `ALEXANDRIA_<SECTION>__<KEY>`, command-line flags.

mod load;
mod origin;
mod secrets;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::{ConfigSource, Overrides};
pub use origin::{Loaded, Origin, values};
pub use secrets::{Secret, is_open_to_all};

/// Where the service looks for its file when none is named.
pub const DEFAULT_PATH: &str = "/etc/alexandria-ingestd/config.toml";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the state file, the embedded store and fetched models live. Empty: systemd's STATE_DIRECTORY, else
    /// `$XDG_STATE_HOME/alexandria-ingestd`, else `~/.local/state/alexandria-ingestd`.
    pub state_dir: String,
    pub library: LibraryConfig,
    pub embedding: EmbeddingConfig,
    pub chunking: ChunkingConfig,
    pub store: StoreConfig,
    pub ingest: IngestConfig,
    pub extract: ExtractConfig,
    pub control: ControlConfig,
    pub http: HttpConfig,
    pub ingest_log: IngestLogConfig,
    pub log: LogConfig,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LibraryConfig {
    /// A Calibre library or a plain folder.
    pub path: String,
    /// Seconds between two looks at the library.
    pub poll_seconds: f64,
    /// Seconds between two full comparisons of files and catalogue, whatever the looks saw.
    pub full_scan_seconds: f64,
    /// Formats in the order of preference, in any case; a book is read in the first one it has that gives text.
    pub formats: Vec<String>,
    /// Seconds without any progress after which a file on the library's mount is given up until the mount answers again.
    pub stall_seconds: f64,
    /// Use the kernel's change events where the file system has them.
    pub inotify: bool,
    /// On a mount of the kernel's SMB client: use its change notification as a hint. Holds the share's root open.
    pub change_notify: bool,
    /// Seconds a book must stay absent, over two complete looks, before its points go.
    pub removal_grace_seconds: f64,
    /// More removals at once than max(this many, `removal_limit_percent` of the books) wait for the operator.
    pub removal_limit: usize,
    pub removal_limit_percent: f64,
}

impl Default for LibraryConfig {
    fn default() -> Self {
        Self {
            path: "/mnt/calibre".into(),
            poll_seconds: 2.0,
            full_scan_seconds: 3600.0,
            formats: [
                "EPUB", "KEPUB", "AZW3", "AZW", "MOBI", "PRC", "DOCX", "ODT", "FB2", "FBZ", "HTMLZ", "MD", "MARKDOWN",
                "HTML", "XHTML", "HTM", "ZIP", "RTF", "TXT", "TEXT", "PDF",
            ]
            .map(String::from)
            .to_vec(),
            stall_seconds: 30.0,
            inotify: true,
            change_notify: false,
            removal_grace_seconds: 600.0,
            removal_limit: 10,
            removal_limit_percent: 2.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingConfig {
    /// `bge-m3`, `bge-large`, `minilm`, `fake` (tests), or any name together with `model_path`.
    pub model: String,
    /// A directory in the hub's layout; empty: fetched from the hub by the model's id into the state directory.
    pub model_path: String,
    /// `auto`, `cpu` or `cuda`.
    pub device: String,
    /// Tokens of one batch, padding not counted (there is none). 0: chosen for the device.
    pub batch_tokens: usize,
    /// CPU threads of the embedder. 0: all cores.
    pub threads: usize,
    /// MiB of GPU memory that the model and its batches may take. 0: what is free at the start, less 1 GiB.
    pub memory_mb: u64,
    /// The folder that holds libcublas.so.13 and libcublasLt.so.13, where the system does not find them by itself.
    pub cuda_libraries: String,
    /// Seconds one batch may take before the embedder counts as stuck, and the watchdog has the service restarted.
    pub stall_seconds: f64,
}

impl Default for EmbeddingConfig {
    fn default() -> Self {
        Self {
            model: "bge-m3".into(),
            model_path: String::new(),
            device: "auto".into(),
            batch_tokens: 0,
            threads: 0,
            memory_mb: 0,
            cuda_libraries: String::new(),
            stall_seconds: 600.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkingConfig {
    /// `structure` (the cheapest division by headings, paragraphs and sizes), `lexical` (by the likeness of the model's
    /// token embeddings, too), `universal-semantic` (a border where neighbouring sentences' vectors differ) or `packed`
    /// (by size alone).
    pub strategy: String,
    /// A border needs a cosine between neighbouring sentences under this.
    pub threshold: f64,
    /// Words (as tokens by the model's average) a chunk must have before a border, and may have at most. Shrunk in
    /// proportion where the model's limit is smaller than bge-m3's.
    pub min_words: usize,
    /// What most chunks are near to, for the strategies `structure` and `lexical`.
    pub target_words: usize,
    pub max_words: usize,
    /// Sections with fewer words are merged with their neighbours into one chapter.
    pub min_chapter_words: usize,
    /// The chapter's vector: `mean` of its children, `embed` (a pass of its own) or `none` (no parent points).
    pub parents: String,
    /// What a chunk is embedded with: `none`, or `path` (the titles of the book and of the chunk's sections).
    pub context: String,
}

impl Default for ChunkingConfig {
    fn default() -> Self {
        Self {
            strategy: "structure".into(),
            threshold: 0.55,
            min_words: 200,
            target_words: 260,
            max_words: 1200,
            min_chapter_words: 384,
            parents: "mean".into(),
            context: "none".into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `embedded` (in the state directory), `server`, or `memory` (tests; forgets everything).
    pub kind: String,
    /// The server's gRPC address.
    pub url: String,
    pub api_key: String,
    /// A file with the key. Empty: systemd's credential `qdrant-api-key`, where it is given.
    pub api_key_file: String,
    pub collection: String,
    /// Seconds a request may take.
    pub timeout_seconds: f64,
    /// Hours between two comparisons of library, state and store that nobody asked for. 0: none.
    pub verify_hours: f64,
    /// Set when the collection is created on a cluster; 0 leaves the server's default.
    pub shard_number: u32,
    pub replication_factor: u32,
    pub write_consistency_factor: u32,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: "embedded".into(),
            url: "http://127.0.0.1:6334".into(),
            api_key: String::new(),
            api_key_file: String::new(),
            collection: "alexandria".into(),
            timeout_seconds: 60.0,
            verify_hours: 24.0,
            shard_number: 0,
            replication_factor: 0,
            write_consistency_factor: 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Books in work at once: one is read while another is embedded.
    pub workers: usize,
    /// Tries before a book that keeps failing is parked.
    pub max_attempts: u32,
    /// Seconds before a job that failed for a reason that may pass is tried again; each further wait is four times as
    /// long, an hour at most.
    pub retry_seconds: f64,
    /// Larger files are parked, in MiB.
    pub max_file_mib: u64,
    /// A file that came less than this many seconds ago and lacks its end is taken for one that is still being copied.
    pub unfinished_seconds: f64,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self { workers: 2, max_attempts: 4, retry_seconds: 30.0, max_file_mib: 512, unfinished_seconds: 600.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExtractConfig {
    /// What reading one book may cost before it is parked: memory in MiB, CPU time, and time without any progress.
    pub memory_mib: u64,
    pub cpu_seconds: u64,
    pub stall_seconds: u64,
    /// Text of one book, in MiB.
    pub max_text_mib: u64,
    /// All that is read out of one book's archive, decompressed, in MiB.
    pub max_unpacked_mib: u64,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self { memory_mib: 1024, cpu_seconds: 300, stall_seconds: 60, max_text_mib: 64, max_unpacked_mib: 512 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// The Unix socket. Empty: systemd's RUNTIME_DIRECTORY, else `control.sock` in the state directory.
    pub socket: String,
    /// The group that may use the socket (mode 0660). Empty: the service's own.
    pub group: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address for other machines, e.g. `0.0.0.0:8765`. Empty: off.
    pub listen: String,
    /// A file with the bearer token that requests must carry. Empty: systemd's credential `http-token`, where it is
    /// given, else none is asked for.
    pub token_file: String,
    /// Texts of one request, and bytes of its body in MiB.
    pub max_texts: usize,
    pub max_body_mib: usize,
    /// Requests in work at once; more are told to come back.
    pub max_requests: usize,
    /// Open connections at once; more wait in the kernel's line.
    pub max_connections: usize,
    /// Seconds a client may take to send a request, and a request may take until its answer.
    pub timeout_seconds: f64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            token_file: String::new(),
            max_texts: 1024,
            max_body_mib: 8,
            max_requests: 64,
            max_connections: 256,
            timeout_seconds: 60.0,
        }
    }
}

/// The log that the user's other tools read (the contract's `alexandria.db`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct IngestLogConfig {
    pub enabled: bool,
    /// The SQLite file. Empty: `.qdrant/alexandria.db` in the library.
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing filter.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}

/// Why a configuration is refused. The text names the key, and the line where there is a file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("configuration file {}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("configuration from the environment: {0}")]
    Environment(String),
    #[error("configuration from the command line: {0}")]
    CommandLine(String),
    #[error("configuration key {key}: {reason}")]
    BadValue { key: &'static str, reason: String },
}
