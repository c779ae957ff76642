//! GET /metrics: what the service counts, in Prometheus' text format. Every label has few values, and none comes from a
//! client or a book. Names, units and help texts are here and nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::core::Collector;
use prometheus::{
    Counter, CounterVec, Encoder, Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::Shared;
use super::guard::Place;
use crate::control::answer::blocking;
use crate::control::protocol::StatusSnapshot;
use crate::control::server::whole_status;
use crate::domain::FailureKind;
use crate::queue::Outcome;

/// Every outcome and every kind of failure has its line, also what never came.
const OUTCOMES: [Outcome; 5] =
    [Outcome::Embedded, Outcome::PayloadOnly, Outcome::Adopted, Outcome::Unchanged, Outcome::Removed];
const FAILURES: [FailureKind; 4] =
    [FailureKind::Book, FailureKind::Transient, FailureKind::Dependency, FailureKind::Fatal];

/// Paths that have a name of their own in the metrics.
const ROUTES: [&str; 11] = [
    "/",
    "/embed",
    "/healthz",
    "/history",
    "/metrics",
    "/openapi.json",
    "/readyz",
    "/search",
    "/status",
    "/v1/embeddings",
    "/v1/models",
];

/// Upper bounds of the duration's buckets, in seconds: from a look at the status to a large request on a CPU.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// What is counted of the requests themselves.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGauge,
}

impl Metrics {
    pub fn new() -> Self {
        let requests = IntCounterVec::new(
            Opts::new("alexandria_http_requests_total", "HTTP requests answered, by route, method and status code."),
            &["route", "method", "code"],
        );
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "alexandria_http_request_duration_seconds",
                "Seconds from a request's head to its answer, by route.",
            )
            .buckets(BUCKETS.to_vec()),
            &["route"],
        );
        let in_flight = IntGauge::new("alexandria_http_requests_in_flight", "HTTP requests that are not answered yet.");
        // Names and labels are constants; the tests of this file make them all.
        let (Ok(requests), Ok(seconds), Ok(in_flight)) = (requests, seconds, in_flight) else {
            unreachable!("the constant names of the metrics are valid")
        };
        let registry = Registry::new();
        for collector in
            [Box::new(requests.clone()) as Box<dyn Collector>, Box::new(seconds.clone()), Box::new(in_flight.clone())]
        {
            // Only a name that was given twice is refused.
            let _ = registry.register(collector);
        }
        Self { registry, requests, seconds, in_flight }
    }

    fn text(&self, status: &StatusSnapshot) -> Result<String, prometheus::Error> {
        let page = Page(Registry::new());
        page.service(status)?;
        page.queue(status)?;
        page.stages(status)?;
        page.embedder(status)?;
        page.card(status)?;
        let mut families = page.0.gather();
        families.extend(self.registry.gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// One look at everything, made anew for each scrape: nothing that is gone stays on it.
struct Page(Registry);

type Done = Result<(), prometheus::Error>;

impl Page {
    fn counter(&self, name: &str, help: &str, value: u64) -> Done {
        let counter = IntCounter::new(name, help)?;
        counter.inc_by(value);
        self.0.register(Box::new(counter))
    }

    fn gauge(&self, name: &str, help: &str, value: f64) -> Done {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        self.0.register(Box::new(gauge))
    }

    fn counters(&self, name: &str, help: &str, label: &str, values: &[(&'static str, u64)]) -> Done {
        let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
        for (value, count) in values {
            counters.get_metric_with_label_values(&[value])?.inc_by(*count);
        }
        self.0.register(Box::new(counters))
    }

    fn gauges(&self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> Done {
        let gauges = IntGaugeVec::new(Opts::new(name, help), &[label])?;
        for (value, count) in values {
            gauges.get_metric_with_label_values(&[value])?.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        self.0.register(Box::new(gauges))
    }

    fn service(&self, status: &StatusSnapshot) -> Done {
        let model = &status.model;
        self.gauges("alexandria_build_info", "1, with the version that runs.", "version", &[(&status.version, 1)])?;
        let info = IntGaugeVec::new(
            Opts::new("alexandria_model_info", "1, with the loaded model's id and its device."),
            &["model", "device"],
        )?;
        info.get_metric_with_label_values(&[&model.id, &model.device])?.set(1);
        self.0.register(Box::new(info))?;
        self.gauge("alexandria_uptime_seconds", "Seconds since the service started.", status.uptime_seconds as f64)?;
        self.counter(
            "alexandria_model_loads_total",
            "Models loaded since the start: 1, for ever.",
            model.loads as u64,
        )?;
        let yes = |holds: bool| f64::from(u8::from(holds));
        self.gauge("alexandria_store_up", "1 where the store answers.", yes(status.store.healthy))?;
        if let Some(points) = status.store.points {
            self.gauge("alexandria_store_points", "Points in the collection, as last counted.", points as f64)?;
        }
        self.gauge("alexandria_library_up", "1 where the library is available.", yes(status.library.available))?;
        if let Some(last_us) = status.library.last_look_us {
            self.gauge(
                "alexandria_library_last_look_timestamp_seconds",
                "When the last complete look at the library ended, since the epoch.",
                last_us as f64 / 1e6,
            )?;
        }
        self.gauge("alexandria_library_books", "Books on the shelf.", status.library.books as f64)?;
        self.gauge(
            "alexandria_library_unreadable_books",
            "Books on the shelf that cannot be ingested as they are.",
            status.library.passed_over.len() as f64,
        )?;
        if let Some(rss) = resident_bytes() {
            self.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", rss as f64)?;
        }
        Ok(())
    }

    /// The time of the jobs that were done, by stage: the names are the service's own.
    fn stages(&self, status: &StatusSnapshot) -> Done {
        let seconds = CounterVec::new(
            Opts::new("alexandria_job_stage_seconds_total", "Seconds that the jobs which were done spent, by stage."),
            &["stage"],
        )?;
        for (stage, spent) in &status.totals.stage_seconds {
            seconds.get_metric_with_label_values(&[stage])?.inc_by(spent.max(0.0));
        }
        self.0.register(Box::new(seconds))?;
        self.gauge(
            "alexandria_stuck",
            "Parts that do not go on; the watchdog is not fed until they do.",
            status.stuck.len() as f64,
        )
    }

    fn queue(&self, status: &StatusSnapshot) -> Done {
        let queue = &status.queue;
        self.gauges(
            "alexandria_jobs",
            "Jobs that are not done, by state.",
            "state",
            &[
                ("queued", queue.queued),
                ("waiting", queue.waiting),
                ("running", queue.running),
                ("parked", queue.parked),
            ],
        )?;
        self.gauge("alexandria_indexed_books", "Books that the store holds.", queue.done_books as f64)?;
        self.gauge("alexandria_indexed_chunks", "Chunks of those books.", queue.chunks as f64)?;
        self.gauge("alexandria_indexed_tokens", "Tokens of those chunks.", queue.tokens as f64)?;
        self.gauge(
            "alexandria_paused",
            "1 while claiming is stopped by a person.",
            f64::from(u8::from(status.paused)),
        )?;
        self.gauge(
            "alexandria_removals_waiting",
            "Removals held back until a person approves them.",
            status.removals_waiting as f64,
        )?;
        if let Some(estimate) = &status.estimate {
            self.gauge(
                "alexandria_remaining_tokens",
                "Tokens still to be embedded, as estimated.",
                estimate.tokens as f64,
            )?;
            self.gauge(
                "alexandria_remaining_seconds",
                "Seconds until the queue is done, as estimated.",
                estimate.seconds,
            )?;
        }
        Ok(())
    }

    fn embedder(&self, status: &StatusSnapshot) -> Done {
        let totals = &status.totals;
        let of = |counts: &BTreeMap<String, u64>, name: &'static str| (name, counts.get(name).copied().unwrap_or(0));
        self.counter(
            "alexandria_embedded_tokens_total",
            "Tokens that went through the model, of books and of requests.",
            totals.tokens,
        )?;
        self.counter("alexandria_embedded_texts_total", "Texts that went through the model.", totals.texts)?;
        self.counter("alexandria_embedder_batches_total", "Batches that the model computed.", totals.batches)?;
        let busy = Counter::new("alexandria_embedder_busy_seconds_total", "Seconds in which the model computed.")?;
        busy.inc_by(totals.busy_seconds.max(0.0));
        self.0.register(Box::new(busy))?;
        let working = Counter::new(
            "alexandria_working_seconds_total",
            "Seconds in which a job was in work and waited for neither the library nor the store.",
        )?;
        working.inc_by(totals.working_seconds.max(0.0));
        self.0.register(Box::new(working))?;
        self.gauge(
            "alexandria_embedder_batch_limit_tokens",
            "Tokens that a batch has at most, as of now.",
            status.model.batch_tokens as f64,
        )?;
        self.counter(
            "alexandria_embedder_budget_halvings_total",
            "How often that limit was halved for want of memory.",
            status.model.budget_halvings,
        )?;
        self.counter(
            "alexandria_written_chunks_total",
            "Chunks of books that were embedded and written.",
            totals.chunks,
        )?;
        let outcomes = OUTCOMES.map(|outcome| of(&totals.outcomes, outcome.as_str()));
        let failures = FAILURES.map(|kind| of(&totals.failures, kind.as_str()));
        self.counters("alexandria_jobs_done_total", "Jobs done, by what came of them.", "outcome", &outcomes)?;
        self.counters("alexandria_job_failures_total", "Jobs that failed, by the kind of failure.", "kind", &failures)
    }

    fn card(&self, status: &StatusSnapshot) -> Done {
        if let Some(memory) = &status.model.memory {
            self.gauges(
                "alexandria_model_memory_bytes",
                "GPU memory of this process, by what is in it.",
                "part",
                &[("weights", memory.weights), ("workspace", memory.workspace)],
            )?;
            self.gauge(
                "alexandria_model_memory_peak_bytes",
                "The most that both ever were together.",
                memory.peak as f64,
            )?;
        }
        let Some(gpu) = &status.gpu else { return Ok(()) };
        self.gauge(
            "alexandria_gpu_memory_used_bytes",
            "Used memory of the card, by all its tenants.",
            gpu.memory_used as f64,
        )?;
        self.gauge("alexandria_gpu_memory_total_bytes", "The card's memory.", gpu.memory_total as f64)?;
        if let Some(percent) = gpu.utilisation_percent {
            self.gauge(
                "alexandria_gpu_utilisation_ratio",
                "Share of the last while in which a kernel ran.",
                f64::from(percent) / 100.0,
            )?;
        }
        if let Some(watts) = gpu.power_watts {
            self.gauge("alexandria_gpu_power_watts", "Power that the card draws.", watts)?;
        }
        if let Some(celsius) = gpu.temperature_celsius {
            self.gauge("alexandria_gpu_temperature_celsius", "The card's temperature.", f64::from(celsius))?;
        }
        Ok(())
    }
}

/// This process' resident memory; None where /proc does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The counters, for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "service",
    responses(
        (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
        super::openapi::CommonPlain,
    ))]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>, Extension(place): Extension<Place>) -> Response {
    let made = blocking(move || {
        // Without the state there is still all the rest.
        let status = whole_status(&shared.handles.control, false).unwrap_or_else(|_| (shared.handles.control.status)());
        let text = shared.metrics.text(&status).map_err(|error| error.to_string());
        drop(place);
        Ok(text)
    });
    match made.await {
        Ok(made) => match made.0 {
            Ok(text) => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                ([(header::CONTENT_TYPE, kind)], text).into_response()
            }
            Err(error) => {
                tracing::error!("the metrics cannot be written: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n").into_response()
            }
        },
        Err(refusal) => refusal.into_response(),
    }
}

/// A label for each path, of few.
fn route_label(path: &str) -> &'static str {
    match ROUTES.into_iter().find(|route| *route == path) {
        Some(route) => route,
        None if path.starts_with("/v1/models/") => "/v1/models",
        None => "other",
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}

/// Counts down when the request ends, however it ends.
struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Middleware: counts every request and the time it took.
pub(super) async fn measure(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let (route, method) = (route_label(request.uri().path()), method_label(request.method()));
    let metrics = &shared.metrics;
    metrics.in_flight.inc();
    let _in_flight = InFlight(metrics.in_flight.clone());
    let started = Instant::now();
    let answer = next.run(request).await;
    metrics.seconds.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
    metrics.requests.with_label_values(&[route, method, answer.status().as_str()]).inc();
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{Estimate, GpuStatus, ModelMemory};

    /// With everything that can be there.
    fn full() -> StatusSnapshot {
        let mut status = StatusSnapshot { version: "1.2.3".into(), ..StatusSnapshot::default() };
        status.model.id = "bge-m3".into();
        status.model.device = "a \"card\"\n".into();
        status.model.loads = 1;
        status.model.memory = Some(ModelMemory { weights: 5, workspace: 7, ..ModelMemory::default() });
        status.store.points = Some(9);
        status.library.last_look_us = Some(1_800_000_000_500_000);
        status.totals.stage_seconds.insert("extract".into(), 1.25);
        status.stuck = vec!["the embedder has not ended a batch for 700 s".into()];
        status.estimate = Some(Estimate { tokens: 1000, seconds: 2.5, ..Estimate::default() });
        status.gpu = Some(GpuStatus {
            utilisation_percent: Some(42),
            power_watts: Some(61.5),
            temperature_celsius: Some(60),
            ..GpuStatus::default()
        });
        status
    }

    #[test]
    fn everything_is_on_the_page_once_with_its_help() {
        let metrics = Metrics::new();
        metrics.requests.with_label_values(&["/embed", "POST", "200"]).inc();
        metrics.seconds.with_label_values(&["/embed"]).observe(0.2);
        let mut status = full();
        let counted = |name: &str, count| (name.to_owned(), count);
        (status.totals.tokens, status.totals.busy_seconds) = (12, 1.5);
        status.totals.outcomes.extend([counted("embedded", 3)]);
        status.totals.failures.extend([counted("book", 2)]);
        let text = metrics.text(&status).unwrap();
        for line in [
            "alexandria_build_info{version=\"1.2.3\"} 1",
            "alexandria_model_info{device=\"a \\\"card\\\"\\n\",model=\"bge-m3\"} 1",
            "alexandria_model_loads_total 1",
            "alexandria_embedded_tokens_total 12",
            "alexandria_embedder_busy_seconds_total 1.5",
            "alexandria_jobs_done_total{outcome=\"embedded\"} 3",
            "alexandria_jobs_done_total{outcome=\"removed\"} 0",
            "alexandria_job_failures_total{kind=\"book\"} 2",
            "alexandria_library_last_look_timestamp_seconds 1800000000.5",
            "alexandria_gpu_utilisation_ratio 0.42",
            "alexandria_job_stage_seconds_total{stage=\"extract\"} 1.25",
            "alexandria_stuck 1",
            "alexandria_remaining_seconds 2.5",
            "alexandria_http_requests_total{code=\"200\",method=\"POST\",route=\"/embed\"} 1",
            "alexandria_http_request_duration_seconds_bucket{route=\"/embed\",le=\"0.25\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        // What is not there is left out, not zero.
        let bare = metrics.text(&StatusSnapshot::default()).unwrap();
        assert!(!bare.contains("gpu") && !bare.contains("store_points") && !bare.contains("remaining"), "{bare}");
    }

    #[test]
    fn labels_are_few_whatever_is_asked() {
        assert_eq!(route_label("/embed"), "/embed");
        assert_eq!(route_label("/v1/models/BAAI/bge-m3"), "/v1/models");
        assert_eq!(route_label("/etc/passwd"), "other");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
