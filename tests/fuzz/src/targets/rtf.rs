//! See `inputs.rs`, target `rtf`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("rtf"),
    |data: &[u8]| inputs::run("rtf", data)
);
