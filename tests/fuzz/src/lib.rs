//! The parsers alone: `domain` and `extract` of the main crate, by path, without the models and stores that take
//! twenty minutes to compile. What the fuzz targets run, and a quick way to work on a parser:
//!
//! `cargo test --manifest-path tests/fuzz/Cargo.toml --lib extract::`
//!
//! Must never hold code of its own.

#[path = "../../../src/domain/mod.rs"]
pub mod domain;
#[path = "../../../src/extract/mod.rs"]
pub mod extract;
