//! The build script: compiles `kernels.cu` to PTX where the feature `cuda` is asked for, and does nothing elsewhere.
//!
//! It needs NVIDIA's compiler (nvcc) and fetches nothing. Looked for in `NVCC`, `$CUDA_HOME/bin`, `$CUDA_PATH/bin`,
//! `PATH` and `/usr/local/cuda/bin`, in this order.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/embed/cuda/kernels.cu";

/// Compute capability 8.0 runs on every card since Ampere: the driver compiles the PTX for the one at hand.
const ARCHITECTURE: &str = "compute_80";

fn main() {
    println!("cargo::rerun-if-changed=src/embed/cuda/compile_kernels.rs");
    println!("cargo::rerun-if-env-changed=CARGO_FEATURE_CUDA");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed={SOURCE}");
    for name in ["NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(reason) = compile() {
        println!("cargo::error={reason}");
    }
}

fn compile() -> Result<(), String> {
    let nvcc = compiler().ok_or(
        "the feature `cuda` needs NVIDIA's compiler: install the CUDA toolkit 13.0 or run packaging/cuda_toolkit.sh, \
         then set CUDA_HOME; a build without the feature needs nothing of CUDA",
    )?;
    let version = run(Command::new(&nvcc).arg("--version"))?;
    println!("cargo::rustc-env=KERNELS_CUDA_VERSION={}", driver_version(&version)?);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("kernels.ptx");
    run(Command::new(&nvcc)
        .args(["-ptx", "-O3", "-std=c++17", "-arch", ARCHITECTURE, "--Werror", "all-warnings", "-o"])
        .arg(out)
        .arg(SOURCE))?;
    Ok(())
}

fn compiler() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(nvcc) = set("NVCC") {
        return Some(nvcc);
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set).map(|home| home.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = homes.chain(std::env::split_paths(&path)).chain([PathBuf::from("/usr/local/cuda/bin")]);
    folders.map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file())
}

/// `... release 13.0, V13.0.88 ...` to 13000, as a driver says its version.
fn driver_version(output: &str) -> Result<u32, String> {
    let numbers = output.split("release ").nth(1).and_then(|rest| rest.split(',').next()).and_then(|release| {
        let (major, minor) = release.trim().split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let (major, minor) = numbers.ok_or_else(|| format!("nvcc --version says no release: {output}"))?;
    Ok(major * 1000 + minor * 10)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\n', " ");
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{command:?}: {} {}", text(&output.stdout), text(&output.stderr))),
    }
}
