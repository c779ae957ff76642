//! Integration tests: one binary, because linking is what costs.

mod embed;
mod queue;
mod support;
