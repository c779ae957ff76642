//! Integration tests: one binary, because linking is what costs.

<<<<<<< HEAD
mod embed;
mod support;
=======
mod queue;
>>>>>>> state
