//! `bench` without a book as a process: every figure that is promised is there, and they agree with one another. What
//! the figures are is printed, never judged.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::daemon::{Daemon, text};
use crate::support::model_directory;

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn number(run: &Value, name: &str) -> f64 {
    run[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", run[name]))
}

fn assert_close(a: f64, b: f64, what: &str) {
    assert!((a - b).abs() <= 1e-6 * a.abs().max(b.abs()), "{what}: {a} and {b}");
}

/// What holds of every run, on whatever device.
fn assert_consistent(run: &Value) {
    let of = |name| number(run, name);
    assert_close(of("tokens_per_second"), of("tokens") / of("seconds"), "tokens/s");
    assert_close(of("chunks_per_second"), of("chunks") / of("seconds"), "chunks/s");
    assert_close(of("chunks_per_minute"), of("chunks_per_second") * 60.0, "chunks/min");
    assert_close(of("ms_per_chunk"), of("seconds") * 1e3 / of("chunks"), "time per chunk");
    assert_close(of("cpu_ms_per_token"), of("cpu_seconds") * 1e3 / of("tokens"), "CPU time per token");
    assert_close(of("mean_tokens"), of("tokens") / of("chunks"), "mean length");
    assert!(of("shortest_tokens") <= of("mean_tokens") && of("mean_tokens") <= of("longest_tokens"));
    assert!(of("load_seconds") > 0.0 && of("cpu_seconds") > 0.0 && of("busy_share") > 0.0);
    assert!(of("host_loaded_bytes") > 1e6 && of("host_peak_bytes") >= of("host_loaded_bytes") * 0.9);
    assert!(of("batch_tokens") >= 1.0);
    assert_eq!(run["loads"], 1);
    if let (Some(flops), Some(ceiling)) =
        (run["model_flops_per_second"].as_f64(), run["matmul_ceiling_flops_per_second"].as_f64())
    {
        assert_close(of("ceiling_share"), flops / ceiling, "share of the ceiling");
    }
    let gpu = ["gpu_memory_loaded_bytes", "gpu_memory_peak_bytes", "gpu_utilisation_mean", "gpu_utilisation_max"];
    let notes = run["notes"].as_array().unwrap();
    for name in gpu {
        // Present, or null with a reason: never left out.
        assert!(run.get(name).is_some_and(|value| value.is_number() || !notes.is_empty()), "{name}");
    }
}

#[test]
fn slow_the_bench_of_a_real_model_has_every_figure() {
    let mut daemon = Daemon::new(Path::new("/nonexistent"));
    daemon.set("embedding.model", "minilm");
    daemon.set("embedding.model_path", model_directory("minilm").to_str().unwrap());
    daemon.set("embedding.device", "cpu");
    let run = json(&daemon.run(&["bench", "--tokens", "64", "--chunks", "40", "--json"]));
    println!("{run:#}");
    assert_consistent(&run);
    assert_eq!((&run["chunks"], &run["tokens"]), (&40.into(), &(40 * 64).into()));
    assert_eq!((&run["shortest_tokens"], &run["longest_tokens"]), (&64.into(), &64.into()));
    assert_eq!((&run["model"], &run["dimension"], &run["device_kind"]), (&"minilm".into(), &384.into(), &"cpu".into()));
    assert_eq!(run["fingerprint"].as_str().unwrap().len(), 16);
}

#[test]
fn a_run_is_laid_beside_an_earlier_one() {
    let daemon = Daemon::new(Path::new("/nonexistent"));
    let mixed = daemon.run(&["bench", "--mix", "--seconds", "0.2", "--json"]);
    let run = json(&mixed);
    assert_consistent(&run);
    assert!(run["texts"].as_str().unwrap().contains("clipped to the model's limit of 258"), "{}", run["texts"]);
    let before = daemon.place.path().join("before.json");
    fs::write(&before, &mixed.stdout).unwrap();
    let compare = ["bench", "--mix", "--seconds", "0.2", "--interactive", "--compare", before.to_str().unwrap()];
    let output = daemon.run(&compare);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["now/before", "tokens per second", "GPU utilisation, mean", "answer time, p99", "one bulk batch"] {
        assert!(table.contains(part), "{part} is missing:\n{table}");
    }
    assert!(!table.contains("not the same work"), "{table}");
    fs::write(&before, "{}").unwrap();
    let refused = daemon.run(&compare);
    assert!(!refused.status.success() && text(&refused.stderr).contains("is not the output of bench --json"));
}

#[test]
fn real_texts_go_through_once_and_a_bad_line_is_named() {
    let daemon = Daemon::new(Path::new("/nonexistent"));
    let texts = daemon.place.path().join("texts.jsonl");
    fs::write(&texts, "\"one\"\n\"two words\"\n\n\"three words \\u017eaba\"\n").unwrap();
    let arguments = ["bench", "--texts", texts.to_str().unwrap(), "--json"];
    let run = json(&daemon.run(&arguments));
    assert_consistent(&run);
    // Two special tokens each.
    assert_eq!((&run["chunks"], &run["tokens"]), (&3.into(), &(3 + 4 + 5).into()));
    fs::write(&texts, "\"one\"\ntwo\n").unwrap();
    let refused = daemon.run(&arguments);
    assert!(!refused.status.success() && text(&refused.stderr).contains("texts.jsonl, line 2"));
}

#[test]
fn slow_a_random_model_is_the_same_for_the_same_seed_and_loads() {
    let place = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: &str| {
        let directory = place.path().join(name);
        let output = std::process::Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/make_random_model.py"))
            .arg(&directory)
            .args(["--layers", "2", "--hidden", "64", "--heads", "2", "--ffn", "128", "--vocab", "30522"])
            .args(["--positions", "128", "--type", "bert", "--seed", seed])
            .arg("--tokenizer")
            .arg(model_directory("minilm").join("tokenizer.json"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        directory
    };
    let (one, again, other) = (make("one", "1"), make("again", "1"), make("other", "2"));
    let weights = |directory: &Path| fs::read(directory.join("model.safetensors")).unwrap();
    assert!(weights(&one) == weights(&again) && weights(&one) != weights(&other));
    let mut daemon = Daemon::new(Path::new("/nonexistent"));
    daemon.set("embedding.model", "one");
    daemon.set("embedding.model_path", one.to_str().unwrap());
    daemon.set("embedding.device", "cpu");
    let run = json(&daemon.run(&["bench", "--mix", "--chunks", "12", "--json"]));
    assert_consistent(&run);
    assert_eq!((&run["dimension"], &run["max_tokens"], &run["longest_tokens"]), (&64.into(), &128.into(), &128.into()));
}
