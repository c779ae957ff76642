//! What one run measured, as a table for a person, and beside an earlier run with the ratios. Pure.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One run. Written by `bench --json` and read back by `bench --compare`; `null` is what could not be had here, and
/// `notes` says why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbedBench {
    pub version: String,
    pub model: String,
    pub model_name: String,
    pub dimension: usize,
    pub max_tokens: usize,
    /// Of the model's files: equal when two runs had the same weights.
    pub fingerprint: String,
    /// `cuda` or `cpu`.
    pub device_kind: String,
    pub device: String,
    /// `f16` or `f32`.
    pub precision: String,
    /// What the texts are, in words.
    pub texts: String,
    pub chunks: u64,
    /// Tokens that went through the model for these chunks, special ones included.
    pub tokens: u64,
    pub shortest_tokens: usize,
    pub mean_tokens: f64,
    pub longest_tokens: usize,
    /// Wall time from the first chunk handed over to the last vector received.
    pub seconds: f64,
    pub tokens_per_second: f64,
    pub chunks_per_second: f64,
    pub chunks_per_minute: f64,
    /// The wall time divided by the chunks.
    pub ms_per_chunk: f64,
    /// Share of the wall time in which the model computed.
    pub busy_share: f64,
    /// Of the model's matrix products, by the chunks' lengths.
    pub model_flops_per_second: Option<f64>,
    /// Of one large matrix product on the same device, measured after the run.
    pub matmul_ceiling_flops_per_second: Option<f64>,
    pub ceiling_share: Option<f64>,
    pub gpu_memory_total_bytes: Option<u64>,
    /// Weights and workspace of this process.
    pub gpu_memory_loaded_bytes: Option<u64>,
    pub gpu_memory_peak_bytes: Option<u64>,
    pub gpu_utilisation_mean: Option<f64>,
    pub gpu_utilisation_max: Option<f64>,
    pub gpu_power_watts: Option<f64>,
    pub gpu_clock_mhz: Option<f64>,
    pub host_loaded_bytes: u64,
    pub host_peak_bytes: u64,
    /// Reading, converting and copying the model and the first batch, until a service would report READY.
    pub load_seconds: f64,
    pub loads: usize,
    /// User and system time of the process during the run.
    pub cpu_seconds: f64,
    pub cpu_ms_per_token: f64,
    /// The token budget of a batch, after the run.
    pub batch_tokens: usize,
    /// How often it was halved because memory was short.
    pub budget_halvings: u64,
    pub interactive: Option<Interactive>,
    pub notes: Vec<String>,
}

/// Queries that were asked while the chunks went through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interactive {
    pub queries: usize,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub worst_ms: f64,
    /// A query on the idle model.
    pub idle_ms: f64,
    /// One full batch of chunks on the idle model: what a query may have to wait for.
    pub batch_ms: f64,
}

/// The smallest value that at least this share of the values does not exceed (the nearest rank); 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

/// One line of the table.
struct Row {
    name: &'static str,
    unit: &'static str,
    value: Option<f64>,
}

impl Row {
    fn text(&self) -> String {
        self.value.map_or_else(|| NOT_AVAILABLE.to_owned(), readable)
    }

    fn unit(&self) -> &str {
        if self.value.is_some() { self.unit } else { "" }
    }
}

const NOT_AVAILABLE: &str = "not available";

const MIB: f64 = (1 << 20) as f64;

fn rows(run: &EmbedBench) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name, unit, value: Option<f64>| rows.push(Row { name, unit, value });
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / MIB);
    let tera = |flops: Option<f64>| flops.map(|flops| flops / 1e12);
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    row("tokens per second", "", Some(run.tokens_per_second));
    row("chunks per second", "", Some(run.chunks_per_second));
    row("chunks per minute", "", Some(run.chunks_per_minute));
    row("time per chunk", "ms", Some(run.ms_per_chunk));
    row("model's matrix products", "TFLOP/s", tera(run.model_flops_per_second));
    row("measured matmul ceiling", "TFLOP/s", tera(run.matmul_ceiling_flops_per_second));
    row("share of the ceiling", "%", percent(run.ceiling_share));
    row("model at work", "%", Some(run.busy_share * 100.0));
    row("GPU memory after load", "MiB", mib(run.gpu_memory_loaded_bytes));
    row("GPU memory at peak", "MiB", mib(run.gpu_memory_peak_bytes));
    row("GPU utilisation, mean", "%", run.gpu_utilisation_mean);
    row("GPU utilisation, most", "%", run.gpu_utilisation_max);
    row("GPU power, mean", "W", run.gpu_power_watts);
    row("GPU clock, mean", "MHz", run.gpu_clock_mhz);
    row("host memory after load", "MiB", mib(Some(run.host_loaded_bytes)));
    row("host memory at peak", "MiB", mib(Some(run.host_peak_bytes)));
    row("load time to READY", "s", Some(run.load_seconds));
    row("number of loads", "", Some(run.loads as f64));
    row("CPU time", "s", Some(run.cpu_seconds));
    row("CPU time per token", "µs", Some(run.cpu_ms_per_token * 1e3));
    row("batch, tokens", "", Some(run.batch_tokens as f64));
    row("batch halvings", "", Some(run.budget_halvings as f64));
    if let Some(interactive) = &run.interactive {
        row("queries answered", "", Some(interactive.queries as f64));
        row("answer time, median", "ms", Some(interactive.median_ms));
        row("answer time, p99", "ms", Some(interactive.p99_ms));
        row("answer time, worst", "ms", Some(interactive.worst_ms));
        row("answer time, idle", "ms", Some(interactive.idle_ms));
        row("one bulk batch", "ms", Some(interactive.batch_ms));
        row("worst answer, batches", "", Some(interactive.worst_ms / interactive.batch_ms));
    }
    rows
}

/// A run as text.
pub fn table(run: &EmbedBench) -> String {
    let mut out = head(run, "");
    // Writing to a String cannot fail.
    for row in rows(run) {
        let _ = writeln!(out, "{}", format!("{:<24} {:>13} {}", row.name, row.text(), row.unit()).trim_end());
    }
    notes(&mut out, run, "");
    out
}

/// Two runs side by side.
pub fn comparison(before: &EmbedBench, now: &EmbedBench) -> String {
    let mut out = head(before, "before: ") + &head(now, "now:    ");
    for warning in incomparable(before, now) {
        let _ = writeln!(out, "not the same work: {warning}");
    }
    let _ = writeln!(out, "{:<24} {:>13} {:>13} {:<8} {:>11}", "", "before", "now", "", "now/before");
    let earlier = rows(before);
    for row in rows(now) {
        let then = earlier.iter().find(|earlier| earlier.name == row.name);
        let text = then.map_or_else(|| "not asked".to_owned(), Row::text);
        let ratio = match (then.and_then(|then| then.value), row.value) {
            (Some(then), Some(now)) if then > 0.0 => format!("{:.3}", now / then),
            _ => "-".to_owned(),
        };
        let _ = writeln!(out, "{:<24} {:>13} {:>13} {:<8} {:>11}", row.name, text, row.text(), row.unit, ratio);
    }
    notes(&mut out, before, "before: ");
    notes(&mut out, now, "now: ");
    out
}

/// Why a ratio of these two runs would say nothing about the program. Another device is what may be compared.
fn incomparable(before: &EmbedBench, now: &EmbedBench) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut differs = |what: &str, before: &str, now: &str| {
        if before != now {
            reasons.push(format!("{what}: {before} before, {now} now"));
        }
    };
    differs("model", &before.model, &now.model);
    differs("weights", &before.fingerprint, &now.fingerprint);
    differs("texts", &before.texts, &now.texts);
    reasons
}

fn head(run: &EmbedBench, prefix: &str) -> String {
    let indent = " ".repeat(prefix.len());
    let lengths = if run.shortest_tokens == run.longest_tokens {
        format!("{}", run.longest_tokens)
    } else {
        format!("{} to {} (mean {:.1})", run.shortest_tokens, readable(run.longest_tokens as f64), run.mean_tokens)
    };
    format!(
        "{prefix}{} ({} dimensions, up to {} tokens) on {}, {}; alexandria-ingestd {}\n\
         {indent}{}: {} chunks of {lengths} tokens, {} tokens in {:.2} s\n",
        run.model_name,
        run.dimension,
        readable(run.max_tokens as f64),
        run.device,
        run.precision,
        run.version,
        run.texts,
        readable(run.chunks as f64),
        readable(run.tokens as f64),
        run.seconds,
    )
}

fn notes(out: &mut String, run: &EmbedBench, prefix: &str) {
    for note in &run.notes {
        let _ = writeln!(out, "{prefix}{note}");
    }
}

/// Three or four significant digits, thousands apart: 12,345; 1,234; 123.4; 1.234.
fn readable(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        1000.0.. => 0,
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let digits = whole.trim_start_matches('-').len();
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if left < digits && left % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_gpu() -> EmbedBench {
        EmbedBench {
            version: "0.1.0".into(),
            model: "bge-m3".into(),
            model_name: "BAAI/bge-m3".into(),
            dimension: 1024,
            max_tokens: 8192,
            fingerprint: "0123456789abcdef".into(),
            device_kind: "cuda".into(),
            device: "cuda (NVIDIA RTX A2000 12GB)".into(),
            precision: "f16".into(),
            texts: "chunks of 450 random tokens, seed 1".into(),
            chunks: 540,
            tokens: 243_000,
            shortest_tokens: 450,
            mean_tokens: 450.0,
            longest_tokens: 450,
            seconds: 10.125,
            tokens_per_second: 24_000.0,
            chunks_per_second: 53.333,
            chunks_per_minute: 3200.0,
            ms_per_chunk: 18.75,
            busy_share: 0.9875,
            model_flops_per_second: Some(15.6e12),
            matmul_ceiling_flops_per_second: Some(31.2e12),
            ceiling_share: Some(0.5),
            gpu_memory_total_bytes: Some(12 << 30),
            gpu_memory_loaded_bytes: Some(1100 << 20),
            gpu_memory_peak_bytes: Some(3072 << 20),
            gpu_utilisation_mean: Some(98.2),
            gpu_utilisation_max: Some(100.0),
            gpu_power_watts: Some(69.5),
            gpu_clock_mhz: Some(1327.0),
            host_loaded_bytes: 350 << 20,
            host_peak_bytes: 380 << 20,
            load_seconds: 2.5,
            loads: 1,
            cpu_seconds: 1.5,
            cpu_ms_per_token: 0.00617,
            batch_tokens: 43_200,
            budget_halvings: 0,
            interactive: Some(Interactive {
                queries: 98,
                median_ms: 900.0,
                p99_ms: 1801.5,
                worst_ms: 1820.25,
                idle_ms: 4.5,
                batch_ms: 1800.0,
            }),
            notes: Vec::new(),
        }
    }

    fn on_a_cpu() -> EmbedBench {
        EmbedBench {
            device_kind: "cpu".into(),
            device: "cpu (2 threads)".into(),
            precision: "f32".into(),
            chunks: 5,
            tokens: 2250,
            tokens_per_second: 240.0,
            chunks_per_second: 0.5333,
            chunks_per_minute: 32.0,
            ms_per_chunk: 1875.0,
            gpu_memory_total_bytes: None,
            gpu_memory_loaded_bytes: None,
            gpu_memory_peak_bytes: None,
            gpu_utilisation_mean: None,
            gpu_utilisation_max: None,
            gpu_power_watts: None,
            gpu_clock_mhz: None,
            interactive: None,
            notes: vec!["GPU: the model is on the CPU".into()],
            ..on_a_gpu()
        }
    }

    #[test]
    fn numbers_read_well() {
        for (value, text) in [
            (0.0, "0"),
            (0.00617, "0.006"),
            (1.0, "1"),
            (18.75, "18.75"),
            (999.96, "1,000.0"),
            (123.44, "123.4"),
            (1234.5, "1,234"),
            (43_200.0, "43,200"),
            (1_234_567.8, "1,234,568"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(readable(value), text, "{value}");
        }
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (50.0, 99.0, 100.0));
        assert_eq!((quantile(&[7.0], 0.99), quantile(&[], 0.5), quantile(&[1.0, 2.0, 9.0], 0.5)), (7.0, 0.0, 2.0));
    }

    #[test]
    fn a_run_reads_as_one_table() {
        insta::assert_snapshot!("table_gpu", table(&on_a_gpu()));
        insta::assert_snapshot!("table_cpu", table(&on_a_cpu()));
    }

    #[test]
    fn two_runs_stand_side_by_side_with_ratios() {
        insta::assert_snapshot!("comparison", comparison(&on_a_cpu(), &on_a_gpu()));
    }

    #[test]
    fn runs_of_other_work_are_not_compared_in_silence() {
        assert_eq!(incomparable(&on_a_cpu(), &on_a_gpu()), Vec::<String>::new());
        let other = EmbedBench { texts: "mix".into(), fingerprint: "f".into(), ..on_a_gpu() };
        let text = comparison(&on_a_gpu(), &other);
        assert!(
            text.contains("not the same work: texts: chunks of 450 random tokens, seed 1 before, mix now"),
            "{text}"
        );
        assert!(text.contains("not the same work: weights"), "{text}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        for run in [on_a_gpu(), on_a_cpu()] {
            let text = serde_json::to_string(&run).unwrap();
            assert_eq!(serde_json::from_str::<EmbedBench>(&text).unwrap(), run);
        }
    }
}
