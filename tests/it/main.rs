//! Integration tests: one binary, because linking is what costs.

mod books;
mod calibre;
mod control;
mod embed;
mod extract;
mod library;
mod qdrant_server;
mod queue;
mod store;
mod store_kills;
mod store_server;
mod support;
