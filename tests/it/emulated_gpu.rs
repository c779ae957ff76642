//! Builds the emulated GPU of `tests/emulated_gpu` once and says where it is: `LD_LIBRARY_PATH` for a process that shall
//! see it, and the programs that test it.
//!
//! Never hands out a half-built or an outdated one: the folder's name is a hash of the sources and of the CPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// Where the sources are.
const SOURCES: &str = "tests/emulated_gpu";
const KERNELS: &str = "src/embed/cuda/kernels.cu";

/// The folder with `libcuda.so.1`, `libcublas.so.13`, `kernels_test` and `driver_test`. Panics where there is no g++.
pub fn folder() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = place.join(format!("emulated-gpu-{}", fingerprint(root)));
    // Tests run in processes of their own: the first builds, the others wait.
    let lock = fs::File::create(place.join("emulated-gpu.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap();
    let complete = folder.join("complete");
    if !complete.is_file() {
        let output = Command::new("sh").arg(root.join(SOURCES).join("build.sh")).arg(&folder).output().unwrap();
        assert!(
            output.status.success(),
            "the emulated GPU does not build:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        fs::write(&complete, "").unwrap();
    }
    folder
}

/// Of everything that decides what is built: it is compiled for the CPU at hand.
fn fingerprint(root: &Path) -> String {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join(SOURCES)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.push(root.join(KERNELS));
    paths.sort();
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(path.file_name().unwrap().as_encoded_bytes());
        hash.update(fs::read(path).unwrap());
    }
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    hash.update(cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default());
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
