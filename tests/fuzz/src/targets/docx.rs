//! See `inputs.rs`, target `docx`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("docx"),
    |data: &[u8]| inputs::run("docx", data)
);
