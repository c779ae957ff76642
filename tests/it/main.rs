//! Integration tests: one binary, because linking is what costs.

mod control;
mod queue;
