//! See `inputs.rs`, target `pdf`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("pdf"),
    |data: &[u8]| inputs::run("pdf", data)
);
