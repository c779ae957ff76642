//! What several areas' tests share: where the real models are, how long and from where random tests run.

use std::path::PathBuf;

/// The directory of a real small model (`minilm`, `me5-small-xlmr`). `tests/run.sh` fetches them and sets the variable.
pub fn model_directory(name: &str) -> PathBuf {
    let root = std::env::var_os("ALEXANDRIA_TEST_MODELS").map(PathBuf::from).unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
        cache.join("alexandria-ingestd/models")
    });
    let directory = root.join(name);
    assert!(
        directory.join("model.safetensors").is_file(),
        "the model {} is missing: run the tests with `bash tests/run.sh`, or fetch it with `python3 packaging/get_models.py {}`",
        directory.display(),
        root.display()
    );
    directory
}

/// A directory in memory where there is room: a killed process loses nothing in it that it would keep on a disk, and a
/// sync costs nothing.
pub fn quick_directory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    match nix::sys::statvfs::statvfs(memory) {
        Ok(stat) if stat.blocks_available() * stat.fragment_size() > 4 << 30 => tempfile::tempdir_in(memory).unwrap(),
        _ => tempfile::tempdir().unwrap(),
    }
}

/// Whether everything is to be tried, for hours if need be, not only what a run of the whole suite has time for.
pub fn full_run() -> bool {
    std::env::var("ALEXANDRIA_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Where a random test starts: `ALEXANDRIA_TEST_SEED`, else always the same number.
pub fn seed(default: u64) -> u64 {
    std::env::var("ALEXANDRIA_TEST_SEED").map_or(default, |text| text.parse().expect("ALEXANDRIA_TEST_SEED: a number"))
}
