//! `packaging/gpu_check.sh`'s package as it runs on another machine: with the emulated GPU everything passes, without a
//! GPU it says so and fails nothing. Sizes are tiny; what is measured is not looked at.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::daemon::text;
use crate::support::model_directory;

/// What `gpu_check.sh pack` lays out, with the small tokenizer in the place of the large one.
fn package() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let to = |name: &str| place.path().join(name);
    let link = |source: PathBuf, name: &str| symlink(source, to(name)).unwrap();
    fs::create_dir(to("models")).unwrap();
    link(env!("CARGO_BIN_EXE_alexandria-ingestd").into(), "alexandria-ingestd");
    link(model_directory("minilm"), "models/minilm");
    link(model_directory("minilm").join("tokenizer.json"), "models/xlm-roberta-tokenizer.json");
    // Copied: it looks for the others beside itself.
    fs::copy(root.join("packaging/gpu_check_run.sh"), to("run.sh")).unwrap();
    link(root.join("packaging/gpu_check_vectors.py"), "vectors.py");
    link(root.join("packaging/make_random_model.py"), "make_random_model.py");
    link(root.join("tests/embed_peers.py"), "embed_peers.py");
    fs::write(to("texts.jsonl"), "{\"text\": \"bees in winter\"}\n{\"text\": \"a ship\"}\n").unwrap();
    fs::write(to("commit"), "test\n").unwrap();
    place
}

/// Runs it, and gives its output and its JSON.
fn run(package: &Path, (variable, value): (&str, &Path), parts: &[&str]) -> (Output, Value) {
    let out = package.join("out");
    let shape = "--type bert --vocab 30522 --layers 2 --hidden 64 --heads 2 --ffn 128 --positions 128";
    let output = Command::new("bash")
        .arg(package.join("run.sh"))
        .arg(&out)
        .args(parts)
        .env(variable, value)
        .env("SHAPE", shape)
        .env("BENCH", "--no-ceiling --chunks 8")
        .env("ALEXANDRIA_EMBEDDING__BATCH_TOKENS", "256")
        .output()
        .unwrap();
    let log = fs::read_to_string(out.join("log")).unwrap_or_default();
    let json = fs::read_to_string(out.join("result.json")).unwrap_or_default();
    let json = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}\n{log}"));
    println!("{}{}", text(&output.stdout), text(&output.stderr));
    (output, json)
}

fn results(json: &Value) -> Vec<(&str, &str)> {
    let parts = json["parts"].as_array().unwrap().iter();
    parts.map(|part| (part["part"].as_str().unwrap(), part["result"].as_str().unwrap())).collect()
}

#[test]
fn slow_without_a_gpu_nothing_fails_and_the_reason_is_said() {
    let package = package();
    // Whatever this machine has is hidden.
    let (output, json) = run(package.path(), ("CUDA_VISIBLE_DEVICES", Path::new("-1")), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).contains("no usable GPU: "));
    let results = results(&json);
    assert_eq!(results[..2], [("start", "passed"), ("device", "passed")]);
    assert_eq!(results.len(), 10);
    assert!(results[2..].iter().all(|(_, result)| *result == "not run"), "{results:?}");
}

#[test]
#[cfg(feature = "cuda")]
fn slow_with_an_emulated_gpu_every_part_passes() {
    let package = package();
    let libraries = crate::emulated_gpu::folder();
    let parts = ["start", "device", "vectors", "weights", "check-large", "bench", "bench-mix", "interactive"];
    let (output, json) = run(package.path(), ("LD_LIBRARY_PATH", &libraries), &parts);
    assert_eq!(results(&json), parts.map(|part| (part, "passed")));
    assert_eq!(output.status.code(), Some(0));
    for name in ["bench", "bench-mix", "interactive"] {
        assert_eq!((&json[name]["device_kind"], &json[name]["precision"]), (&"cuda".into(), &"f16".into()));
        assert_eq!((&json[name]["loads"], &json[name]["chunks"]), (&1.into(), &8.into()));
        let bytes = |field: &str| json[name][field].as_u64().unwrap();
        assert!(bytes("gpu_memory_peak_bytes") >= bytes("gpu_memory_loaded_bytes"));
        let percent = |field: &str| json[name][field].as_f64().unwrap_or_else(|| panic!("{}", json[name]["notes"]));
        let (mean, most) = (percent("gpu_utilisation_mean"), percent("gpu_utilisation_max"));
        assert!((0.0..=100.0).contains(&mean) && mean <= most, "{mean} and {most}");
        assert!(bytes("gpu_memory_loaded_bytes") > 30522 * 64 * 2, "the embeddings alone");
    }
    assert!(json["interactive"]["interactive"]["queries"].is_u64());
}
