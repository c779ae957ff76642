//! The GPU's part, end to end, on an emulated card: the program as it is built for a GPU server, with libraries that run
//! the same kernels' source on the CPU (`tests/emulated_gpu`). What only a real card can show, speed above all, is not
//! shown here: `packaging/gpu_check.sh` is for that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::emulated_gpu;
use crate::random_model::{self, ModelShape};
use crate::service_process::ServiceProcess;
use crate::support::model_directory;

/// Small, and yet every path: two heads of 32, an inner layer that is no multiple of the hidden one.
const SMALL: ModelShape =
    ModelShape { layers: 2, hidden: 64, heads: 2, intermediate: 200, max_tokens: 600, xlm_roberta: true, cls: true };

/// A program that sees the emulated card.
struct OnCard {
    settings: Vec<String>,
    environment: Vec<(&'static str, String)>,
    place: tempfile::TempDir,
}

impl OnCard {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let libraries = emulated_gpu::folder().display().to_string();
        let mut this = Self { settings: Vec::new(), environment: vec![("LD_LIBRARY_PATH", libraries)], place };
        this.set("state_dir", &this.place.path().join("state").display().to_string());
        this
    }

    fn with_model(directory: &Path) -> Self {
        let mut this = Self::new();
        this.set("embedding.model", "test");
        this.set("embedding.model_path", &directory.display().to_string());
        this
    }

    fn with_random_model(shape: &ModelShape) -> Self {
        let mut this = Self::new();
        let model = this.place.path().join("model");
        fs::create_dir(&model).unwrap();
        random_model::write(shape, &model);
        this.set("embedding.model", "test");
        this.set("embedding.model_path", &model.display().to_string());
        this
    }

    fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.settings.push(format!("{key}={value}"));
        self
    }

    fn environment(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.environment.retain(|(other, _)| *other != name);
        self.environment.push((name, value.to_owned()));
        self
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alexandria-ingestd"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("EMULATED_GPU_")) {
            command.env_remove(name);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        command.output().unwrap()
    }

    /// Standard output of a run that ends well.
    fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Standard error and the exit code of a run that does not.
    fn failure(&self, arguments: &[&str]) -> (String, i32) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code().unwrap())
    }
}

#[test]
fn the_program_links_nothing_of_cuda_and_starts_without_a_driver() {
    let needed = Command::new("ldd").arg(env!("CARGO_BIN_EXE_alexandria-ingestd")).output().unwrap();
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    assert!(needed.contains("libc.so"), "{needed}");
    for library in ["cuda", "cublas", "nvrtc", "nvidia"] {
        assert!(!needed.contains(library), "{needed}");
    }
    let mut bare = OnCard::new();
    bare.environment("LD_LIBRARY_PATH", "");
    let text = bare.output(&["device"]);
    assert!(text.contains("GPU     none: there is no NVIDIA driver"), "{text}");
    assert!(text.contains("chosen  cpu f32 (auto: there is no NVIDIA driver"), "{text}");
    let (text, code) = bare.set("embedding.device", "cuda").failure(&["device"]);
    assert!(text.contains("embedding.device is \"cuda\", but there is no NVIDIA driver"), "{text}");
    assert_eq!(code, 1, "a driver may be loaded later: a restart may help");
}

#[test]
fn device_says_what_it_sees() {
    let mut card = OnCard::new();
    let text = card.output(&["device"]);
    assert!(text.contains("2.0 of 2.0 GiB free, compute capability 8.6, driver for CUDA 13.0"), "{text}");
    assert!(text.contains("chosen  cuda f16 (auto found a usable GPU)"), "{text}");
    let text = card.set("embedding.device", "cpu").output(&["device"]);
    assert!(text.contains("chosen  cpu f32 (embedding.device is \"cpu\")"), "{text}");
}

#[test]
fn a_card_that_cannot_be_used_is_named_with_the_reason() {
    let refused = |name: &'static str, value: &str| {
        let mut card = OnCard::new();
        card.environment(name, value);
        assert!(card.output(&["device"]).contains("chosen  cpu f32 (auto: "));
        let (text, code) = card.set("embedding.device", "cuda").failure(&["device"]);
        assert_eq!(code, 2, "only a person can change it: {text}");
        text
    };
    let text = refused("EMULATED_GPU_CAPABILITY", "7.5");
    assert!(text.contains("has compute capability 7.5, 8.0 or newer (Ampere) is needed"), "{text}");
    let text = refused("EMULATED_GPU_DRIVER", "12080");
    assert!(text.contains("speaks CUDA 12.8, this build needs 13.0"), "{text}");

    // The driver alone, without cuBLAS.
    let driver = tempfile::tempdir().unwrap();
    fs::copy(emulated_gpu::folder().join("libcuda.so.1"), driver.path().join("libcuda.so.1")).unwrap();
    let text = refused("LD_LIBRARY_PATH", &driver.path().display().to_string());
    assert!(text.contains("cuBLAS cannot be loaded") && text.contains("embedding.cuda_libraries"), "{text}");

    // cuBLAS in a folder of its own, as pip installs it.
    let cublas = tempfile::tempdir().unwrap();
    for library in ["libcuda.so.1", "libcublas.so.13", "libcublasLt.so.13"] {
        fs::copy(emulated_gpu::folder().join(library), cublas.path().join(library)).unwrap();
    }
    let mut card = OnCard::new();
    card.environment("LD_LIBRARY_PATH", &driver.path().display().to_string());
    card.set("embedding.cuda_libraries", &cublas.path().display().to_string());
    assert!(card.output(&["device"]).contains("chosen  cuda f16"));
}

#[derive(serde::Deserialize)]
struct Reference {
    text: String,
    vector: Vec<f32>,
}

fn references(file: &str) -> Vec<Reference> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity").join(file);
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A real small model on the emulated card.
fn real_model(name: &str) -> OnCard {
    let mut card = OnCard::with_model(&model_directory(name));
    card.set("embedding.batch_tokens", "512").set("embedding.device", "cuda");
    card
}

fn assert_agreement<'a>(name: &str, expected: impl Iterator<Item = &'a Vec<f32>>, found: &[Vec<f32>]) {
    let mut pairs = 0;
    let mut worst = 1f64;
    for (expected, found) in expected.zip(found) {
        worst = worst.min(cosine(expected, found));
        pairs += 1;
    }
    println!("{name} in f16 on the emulated card: worst cosine of {pairs} {worst:.7}");
    assert!(pairs >= 4 && worst > 0.999, "{pairs}, {worst}");
}

fn embed(card: &OnCard, texts: &[&str]) -> Vec<Vec<f32>> {
    use std::io::Write;
    let mut command = Command::new(env!("CARGO_BIN_EXE_alexandria-ingestd"));
    for setting in &card.settings {
        command.args(["--set", setting]);
    }
    command.arg("embed").envs(card.environment.iter().map(|(name, value)| (*name, value.as_str())));
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for text in texts {
        writeln!(input, "{}", Value::from(*text)).unwrap();
    }
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn slow_minilm_in_f16_equals_itself_in_f32() {
    // Over its limit, and so in windows: sentence-transformers' own vectors are of the first 256 tokens alone.
    let references = references("minilm-256.jsonl");
    let texts: Vec<&str> = references.iter().take(4).map(|reference| reference.text.as_str()).collect();
    let found = embed(&real_model("minilm"), &texts);
    let mut cpu = real_model("minilm");
    cpu.set("embedding.device", "cpu");
    assert_agreement("minilm", embed(&cpu, &texts).iter(), &found);
}

#[test]
fn slow_xlm_roberta_in_f16_equals_sentence_transformers() {
    let references = references("me5-small-xlmr.jsonl");
    let texts: Vec<&str> = references.iter().map(|reference| reference.text.as_str()).collect();
    let found = embed(&real_model("me5-small-xlmr"), &texts);
    assert_agreement("me5-small-xlmr", references.iter().map(|reference| &reference.vector), &found);
}

/// The whole check, as a person runs it: kernels, numerics, and a card that is full.
fn assert_check_passes(card: &mut OnCard) {
    card.set("embedding.batch_tokens", "512");
    let output = card.run(&["device", "--check", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let rows = report["rows"].as_array().unwrap();
    for row in rows {
        println!("{} {}: {} {}", row["part"], row["what"], row["measured"], row["goal"]);
    }
    assert!(output.status.success() && report["passed"] == true, "{text}");
    assert!(["kernels", "numerics", "memory"].iter().all(|part| rows.iter().any(|row| row["part"] == *part)));
}

#[test]
fn the_check_passes_with_heads_of_32_and_cls_pooling() {
    assert_check_passes(&mut OnCard::with_random_model(&SMALL));
}

#[test]
fn the_check_passes_with_heads_of_64_and_mean_pooling() {
    let shape = ModelShape { hidden: 128, intermediate: 512, xlm_roberta: false, cls: false, ..SMALL };
    assert_check_passes(&mut OnCard::with_random_model(&shape));
}

#[test]
fn the_check_fails_where_the_card_computes_something_else() {
    let mut card = OnCard::with_random_model(&SMALL);
    card.set("embedding.batch_tokens", "512").environment("EMULATED_GPU_WRONG", "1");
    let text = String::from_utf8_lossy(&card.run(&["device", "--check"]).stdout).into_owned();
    assert!(text.contains("FAILED  kernels") && text.contains("FAILED  numerics"), "{text}");
}

#[test]
fn the_token_budget_is_measured_at_the_start_within_the_memory_allowed() {
    let shape = ModelShape { layers: 1, max_tokens: 64, ..SMALL };
    let mut card = OnCard::with_random_model(&shape);
    card.set("log.level", "debug");
    // Ids, positions, starts, tiles and six units of [tokens, hidden] in f16; cuBLAS' 32 MiB and 4 MiB of weights.
    card.set("embedding.memory_mb", "40");
    let log = String::from_utf8_lossy(&card.run(&["embed"]).stderr).into_owned();
    let rates = log.split("tokens/s by the tokens of a batch: ").nth(1).unwrap_or_else(|| panic!("{log}"));
    assert!(rates.starts_with("2048: ") && !rates.contains("8192: "), "{log}");
}

#[test]
fn a_memory_budget_is_kept_or_refused() {
    let mut card = OnCard::with_random_model(&SMALL);
    card.set("embedding.memory_mb", "30");
    let (text, code) = card.failure(&["embed"]);
    assert!(text.contains("embedding.memory_mb is 30, and test takes 3"), "{text}");
    assert_eq!(code, 2);
    card.environment("EMULATED_GPU_MEMORY", &(20u64 << 20).to_string());
    let (text, code) = card.set("embedding.memory_mb", "0").failure(&["embed"]);
    assert!(text.contains("out of memory on the GPU"), "{text}");
    assert_eq!(code, 1, "others may leave the card: a restart may help");
}

fn service_on_card(place: &Path) -> ServiceProcess {
    let (library, model) = (place.join("library"), place.join("model"));
    for folder in [&library, &model] {
        fs::create_dir(folder).unwrap();
    }
    random_model::write(&SMALL, &model);
    fs::write(library.join("first.txt"), "The bees sleep in winter. ".repeat(40)).unwrap();
    let mut service = ServiceProcess::new(place, &library);
    service.set("embedding.model", "test");
    service.set("embedding.model_path", &model.display().to_string());
    service.set("embedding.batch_tokens", "256");
    service.set("embedding.device", "cuda");
    service.set("chunking.strategy", "packed");
    service.environment("LD_LIBRARY_PATH", &emulated_gpu::folder().display().to_string());
    service
}

#[test]
fn a_service_keeps_its_memory_when_others_take_the_rest_of_the_card() {
    let place = tempfile::tempdir().unwrap();
    let tenant = place.path().join("tenant");
    fs::write(&tenant, "0").unwrap();
    let mut service = service_on_card(place.path());
    service.environment("EMULATED_GPU_TENANT", &tenant.display().to_string());
    service.spawn(None);
    service.until("the first book is in", |status| status.queue.done_books == 1).unwrap();
    fs::write(&tenant, (2u64 << 30).to_string()).unwrap();
    fs::write(place.path().join("library/second.txt"), "Wasps build of paper. ".repeat(40)).unwrap();
    let status = service.until("the second is, too", |status| status.queue.done_books == 2).unwrap();
    let model = &status.model;
    assert_eq!((model.loads, model.budget_halvings, model.batch_tokens), (1, 0, 256));
    let memory = model.memory.as_ref().unwrap();
    assert!(memory.weights > 0 && memory.workspace > 32 << 20 && memory.free == 0, "{memory:?}");
    assert!(memory.peak >= memory.weights + memory.workspace, "{memory:?}");
    assert!(model.device.starts_with("cuda f16 ("), "{}", model.device);
    // What the driver says of the card, beside what the model says of itself.
    let status = service.until("the card's load is known", |status| status.gpu.is_some()).unwrap();
    let gpu = status.gpu.unwrap();
    assert!(model.device.contains(&gpu.name), "{gpu:?}");
    assert!(gpu.utilisation_percent <= Some(100) && gpu.memory_used > 0 && gpu.memory_total > 0, "{gpu:?}");
    assert_eq!((gpu.power_watts, gpu.temperature_celsius), (None, None), "the emulated card does not tell: {gpu:?}");
    service.stop().unwrap();
}

#[test]
fn a_lost_card_ends_the_service_so_that_a_new_process_can_go_on() {
    let place = tempfile::tempdir().unwrap();
    let mut service = service_on_card(place.path());
    // Past the warm-up's ten kernels, in the book: an illegal address, after which the context is of no use.
    service.environment("EMULATED_GPU_LAUNCH_FAILS", "15!");
    service.spawn(None);
    let code = service.exit_code_within(Duration::from_secs(60));
    assert_eq!(code, Some(1), "{}", service.log_tail());
    assert!(service.log().contains("the GPU is lost to this process"), "{}", service.log_tail());
    service.environment("EMULATED_GPU_LAUNCH_FAILS", "");
    service.spawn(None);
    service.until("the book is in", |status| status.queue.done_books == 1).unwrap();
    service.stop().unwrap();
}
