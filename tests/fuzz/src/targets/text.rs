//! See `inputs.rs`, target `text`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("text"),
    |data: &[u8]| inputs::run("text", data)
);
