//! Integration tests: one binary, because linking is what costs.

mod qdrant_server;
mod store;
mod store_kills;
mod store_server;
