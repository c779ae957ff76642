//! The parsers alone: `domain` and `extract` of the main crate, by path, without the models and stores that take
//! twenty minutes to compile. What the fuzz targets run, and a quick way to work on a parser:
//!
//! `cargo test --manifest-path tests/fuzz/Cargo.toml --lib extract::`
//!
//! Must never hold code of its own.

// What is included from the main crate's tests calls the readers by its name.
extern crate self as alexandria_ingestd;

#[path = "../../../src/domain/mod.rs"]
pub mod domain;
#[path = "../../../src/extract/mod.rs"]
pub mod extract;

#[cfg(any(test, feature = "targets"))]
#[path = "../../it/damage/mod.rs"]
pub mod damage;
#[cfg(any(test, feature = "targets"))]
pub mod inputs;

#[cfg(test)]
#[path = "../../it/damaged.rs"]
mod damaged;
#[cfg(test)]
#[path = "../../it/regressions.rs"]
mod regressions;
