//! See `inputs.rs`, target `odt`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("odt"),
    |data: &[u8]| inputs::run("odt", data)
);
