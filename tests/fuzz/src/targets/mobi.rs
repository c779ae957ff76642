//! See `inputs.rs`, target `mobi`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("mobi"),
    |data: &[u8]| inputs::run("mobi", data)
);
