//! Integration tests: one binary, because linking is what costs.

mod architecture;
mod books;
mod calibre;
mod control;
mod daemon;
mod embed;
mod extract;
mod fallback;
mod formats;
mod kindle;
mod library;
mod main_job;
mod pdf;
mod qdrant_server;
mod queue;
mod sandbox;
mod service;
mod store;
mod store_kills;
mod store_server;
mod support;
