//! Integration tests: one binary, because linking is what costs.

mod calibre;
mod library;
