//! What several areas' tests share: where the real models are.

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
