//! Integration tests: one binary, because linking is what costs.

mod queue;
