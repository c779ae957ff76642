//! The composition root: builds the parts, starts them, and stops them in order. It holds no logic of a stage.

mod audit;
mod bench;
mod bench_embed;
mod bench_extract;
mod check_config;
mod error;
mod forecast;
mod formats;
mod gpu_watch;
mod heartbeat;
mod housekeeping;
mod http;
mod meters;
mod notify;
mod oneshot;
mod parts;
mod reload;
mod report;
mod search;
mod search_filter;
mod service;
mod shared_log;
mod start;
mod status;
mod status_line;
mod tools;

pub use crate::extract::sandbox::{is_child_call, run_child};
pub use bench::{BenchReport, bench};
pub use bench_embed::{BenchTexts, DEFAULT_TOKENS, EmbedBenchSettings, bench_embed};
pub use bench_extract::bench_extract;
pub use check_config::{ConfigReport, ValueRow, check_config};
pub use error::DaemonError;
pub use oneshot::{IngestSummary, ingest_paths, rebuild, restore};
pub use search::{search, search_once};
pub use service::run;
pub use tools::{check_device, device, embed_lines, extract_report};
