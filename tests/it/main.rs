//! Integration tests: one binary, because linking is what costs.

mod books;
mod extract;
