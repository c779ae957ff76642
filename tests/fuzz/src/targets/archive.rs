//! See `inputs.rs`, target `archive`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("archive"),
    |data: &[u8]| inputs::run("archive", data)
);
