//! See `inputs.rs`, target `fb2`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("fb2"),
    |data: &[u8]| inputs::run("fb2", data)
);
