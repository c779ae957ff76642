//! See `inputs.rs`, target `epub`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("epub"),
    |data: &[u8]| inputs::run("epub", data)
);
