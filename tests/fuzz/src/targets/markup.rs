//! See `inputs.rs`, target `markup`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("markup"),
    |data: &[u8]| inputs::run("markup", data)
);
