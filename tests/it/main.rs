//! Integration tests: one binary, because linking is what costs.

mod calibre;
mod embed;
mod library;
mod queue;
mod support;
