//! The CUDA kernels without a GPU: their source compiled for the CPU agrees with plain references in double precision,
//! and, where a CUDA compiler is at hand, it assembles for each architecture without spilling a register.
//!
//! Neither says how fast they are, nor that a real card agrees; only a real card can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::emulated_gpu;
use crate::mounts::find;

const KERNELS: [&str; 6] = [
    "embed_layer_norm",
    "bias_residual_layer_norm",
    "bias_gelu",
    "attention_head32",
    "attention_head64",
    "pool_normalise",
];

/// What an NVIDIA multiprocessor shares out: registers to warps, 256 at a time; shared memory to blocks, of which each
/// costs 1 KiB more. CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
struct Architecture {
    name: &'static str,
    warps: u32,
    shared_bytes: u32,
}

const ARCHITECTURES: [Architecture; 3] = [
    Architecture { name: "sm_80", warps: 64, shared_bytes: 164 << 10 },
    Architecture { name: "sm_86", warps: 48, shared_bytes: 100 << 10 },
    Architecture { name: "sm_90", warps: 64, shared_bytes: 228 << 10 },
];

#[test]
fn the_kernels_agree_with_references_in_double_precision() {
    run(&emulated_gpu::folder().join("kernels_test"));
}

#[test]
fn the_emulated_driver_keeps_its_promises() {
    run(&emulated_gpu::folder().join("driver_test"));
}

fn run(program: &Path) {
    let output = Command::new(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("all checks passed"), "{}: {}", program.display(), output.status);
}

#[test]
fn the_kernels_assemble_without_spills() {
    let Some(nvcc) = cuda_compiler() else {
        eprintln!("SKIPPED: no CUDA compiler (NVCC, CUDA_HOME or nvcc on the PATH); the kernels were not assembled");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let ptx = place.path().join("kernels.ptx");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/embed/cuda/kernels.cu");
    finish(Command::new(&nvcc).args(["-ptx", "-arch=compute_80", "-std=c++17", "-o"]).arg(&ptx).arg(&source));
    for architecture in &ARCHITECTURES {
        let arch = format!("-arch={}", architecture.name);
        let cubin = place.path().join("kernels.cubin");
        let report = finish(Command::new(nvcc.with_file_name("ptxas")).args(["-v", &arch, "-o"]).arg(&cubin).arg(&ptx));
        let ptx = fs::read_to_string(&ptx).unwrap();
        for kernel in KERNELS {
            let part = report
                .split("Compiling entry function '")
                .find(|part| part.starts_with(&format!("{kernel}'")))
                .unwrap_or_else(|| panic!("{kernel} is missing in:\n{report}"));
            assert!(
                part.contains("0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"),
                "{}: {kernel} spills:\n{part}",
                architecture.name
            );
            let registers = number_before(part, " registers").unwrap();
            let shared = number_before(part, " bytes smem").unwrap_or(0);
            assert!(shared <= 48 << 10, "{kernel}: {shared} bytes of shared memory");
            let threads = threads(&ptx, kernel);
            println!(
                "{} {kernel}: {registers} registers, {shared} bytes shared, {} of {} warps resident",
                architecture.name,
                resident_warps(architecture, registers, shared, threads),
                architecture.warps
            );
        }
    }
}

fn resident_warps(architecture: &Architecture, registers: u32, shared: u32, threads: u32) -> u32 {
    let warps = threads / 32;
    let by_registers = 65536 / ((registers * 32).next_multiple_of(256) * warps);
    let by_shared = architecture.shared_bytes / (shared.next_multiple_of(128) + 1024);
    by_registers.min(by_shared).min(architecture.warps / warps) * warps
}

/// Of `.maxntid` in the kernel's declaration.
fn threads(ptx: &str, kernel: &str) -> u32 {
    let declaration = ptx.split_once(&format!(".entry {kernel}(")).unwrap().1;
    let numbers = declaration.split_once(".maxntid ").unwrap().1;
    numbers.split(',').next().unwrap().trim().parse().unwrap()
}

fn number_before(text: &str, word: &str) -> Option<u32> {
    text.split_once(word)?.0.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn cuda_compiler() -> Option<PathBuf> {
    let named = std::env::var_os("NVCC").map(PathBuf::from);
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    named.or(home).or_else(|| find("nvcc"))
}

fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{text}");
    text
}
