//! See `inputs.rs`, target `zipped_html`.
#![no_main]

use alexandria_fuzz::inputs;

libfuzzer_sys::fuzz_target!(
    init: inputs::write_examples("zipped_html"),
    |data: &[u8]| inputs::run("zipped_html", data)
);
