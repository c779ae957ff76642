//! Any bytes, read as the format that the first byte picks.
#![no_main]

use std::io::Write;

use alexandria_fuzz::extract::{Limits, extract, supported_formats};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, bytes)) = data.split_first() else { return };
    let formats = supported_formats();
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file");
    let limits = Limits { max_text_bytes: 1 << 20, max_entry_bytes: 1 << 20, max_total_bytes: 4 << 20 };
    let _ = extract(file.path(), formats[usize::from(*first) % formats.len()], &limits);
});
