//! Integration tests: one binary, because linking is what costs.

mod agreement;
mod architecture;
mod bench;
mod big;
mod books;
mod calibre;
mod clock;
mod configuration;
mod control;
mod control_process;
mod crash_matrix;
#[cfg(feature = "cuda")]
mod cuda;
mod cuda_kernels;
mod daemon;
mod damage;
mod damaged;
mod damaged_service;
mod embed;
mod emulated_gpu;
mod extract;
mod fallback;
mod forecast;
mod formats;
mod gpu_check;
mod half_done;
mod history;
mod http;
mod http_clients;
mod ingest_log;
// Of the fuzz targets' crate; the fuzzer uses all of it, the tests replay its findings.
#[allow(dead_code)]
#[path = "../fuzz/src/inputs.rs"]
mod inputs;
mod journal;
mod kindle;
mod library;
mod main_job;
mod manual;
mod model;
mod mounts;
mod pdf;
mod qdrant_server;
mod queue;
mod random_kills;
mod random_model;
mod real_server;
mod regressions;
mod reporting;
mod sandbox;
mod scale;
mod service;
mod service_process;
mod shelf;
mod shelf_changes;
mod smb;
mod smb_mount;
mod store;
mod store_kills;
mod store_server;
mod store_trouble;
mod support;
mod systemd;
mod trouble;
mod verify;
mod watch;
