//! Whether the service goes on: the watchdog is fed only while it does. What is stuck is named once, before systemd ends
//! the process. Pure but for the log.
//!
//! A library that hangs or a store that is away is waited for, and never counts as stuck: a restart would mend neither.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ingest::{CurrentJob, Stage};
use crate::telemetry::event;

/// What is seen of the parts at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Vitals {
    /// How long the queue has owed an answer; None where it owes none.
    pub queue: Option<Duration>,
    /// How long no batch has come to an end though there is work.
    pub embedder: Option<Duration>,
    pub jobs: Vec<CurrentJob>,
}

/// How long a part may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// An answer of the queue, before it is called stuck. (Until it comes the watchdog is not fed at all.)
    pub queue: Duration,
    /// One batch.
    pub batch: Duration,
    /// Reading one book.
    pub read: Duration,
}

/// A part that does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stuck {
    /// `queue`, `embedder` or `worker`.
    pub part: &'static str,
    pub lasts: Duration,
    /// For a person.
    pub what: String,
}

/// What is stuck, if anything.
pub(super) fn stuck(vitals: &Vitals, limits: &Limits) -> Vec<Stuck> {
    let mut found = Vec::new();
    let over = |lasts: Option<Duration>, limit: Duration| lasts.filter(|lasts| *lasts > limit);
    if let Some(lasts) = over(vitals.queue, limits.queue) {
        let what = format!("the state has not answered for {} s; look at the disk it is on", lasts.as_secs());
        found.push(Stuck { part: "queue", lasts, what });
    }
    if let Some(lasts) = over(vitals.embedder, limits.batch) {
        let what = format!(
            "no batch has come to an end for {} s (embedding.stall_seconds); look at the GPU (nvidia-smi, dmesg)",
            lasts.as_secs()
        );
        found.push(Stuck { part: "embedder", lasts, what });
    }
    for job in &vitals.jobs {
        let limit = match job.stage {
            // The mount and the store have their own patience, and a restart would not mend them.
            Stage::Copy | Stage::Store => continue,
            Stage::Extract => limits.read,
            // A worker that waits for a stuck or a slow embedder is not stuck itself.
            Stage::Chunk | Stage::Embed if job.asks_embedder => continue,
            Stage::Chunk | Stage::Embed => limits.batch.max(limits.read),
        };
        if let Some(lasts) = over(Some(job.went_on.elapsed()), limit) {
            let what = format!(
                "book {} '{}' has been in the stage '{}' for {} s without a step",
                job.book_id,
                job.title,
                job.stage.as_str(),
                lasts.as_secs()
            );
            found.push(Stuck { part: "worker", lasts, what });
        }
    }
    found
}

/// What was named, so that it is named once.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    named: BTreeMap<&'static str, Duration>,
}

impl Alarm {
    /// Says what is newly stuck, and what goes on again.
    pub(super) fn say(&mut self, stuck: &[Stuck], watched: bool) {
        for Stuck { part, lasts, what } in stuck {
            if self.named.insert(part, *lasts).is_none() {
                let next = if watched { "systemd will start the service again" } else { "restart the service" };
                tracing::error!(
                    MESSAGE_ID = event::STALLED,
                    STUCK = part,
                    SECONDS = lasts.as_secs(),
                    "the {part} is stuck: {what}; {next}"
                );
            }
        }
        let over: Vec<&'static str> =
            self.named.keys().copied().filter(|part| !stuck.iter().any(|stuck| stuck.part == *part)).collect();
        for part in over {
            let lasted = self.named.remove(part).unwrap_or_default();
            tracing::warn!(
                MESSAGE_ID = event::STALL_OVER,
                STUCK = part,
                SECONDS = lasted.as_secs(),
                "the {part} goes on, after {} s at least",
                lasted.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMITS: Limits =
        Limits { queue: Duration::from_secs(30), batch: Duration::from_secs(600), read: Duration::from_secs(400) };

    fn job(stage: Stage, seconds: u64) -> CurrentJob {
        CurrentJob {
            book_uuid: uuid::Uuid::nil(),
            book_id: "calibre 42".into(),
            title: "The Hive".into(),
            stage,
            done: 0,
            total: 0,
            done_tokens: 0,
            total_tokens: 0,
            unread: None,
            went_on: Instant::now() - Duration::from_secs(seconds),
            asks_embedder: false,
            started_us: 0,
            waits_for: None,
        }
    }

    fn parts(vitals: &Vitals) -> Vec<&'static str> {
        stuck(vitals, &LIMITS).iter().map(|stuck| stuck.part).collect()
    }

    #[test]
    fn what_takes_too_long_is_stuck_and_named() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert!(parts(&Vitals::default()).is_empty());
        assert!(parts(&Vitals { queue: seconds(29), embedder: seconds(599), jobs: vec![] }).is_empty());
        assert_eq!(parts(&Vitals { queue: seconds(31), embedder: seconds(601), jobs: vec![] }), ["queue", "embedder"]);
        let reading = Vitals { jobs: vec![job(Stage::Extract, 401)], ..Vitals::default() };
        let found = stuck(&reading, &LIMITS);
        assert!(found[0].part == "worker" && found[0].what.contains("42 'The Hive'"), "{found:?}");
        assert!(parts(&Vitals { jobs: vec![job(Stage::Extract, 399)], ..Vitals::default() }).is_empty());
        assert_eq!(parts(&Vitals { jobs: vec![job(Stage::Chunk, 700)], ..Vitals::default() }), ["worker"]);
    }

    #[test]
    fn a_mount_or_a_store_that_hangs_is_waited_for() {
        let jobs = vec![job(Stage::Copy, 1_000_000), job(Stage::Store, 1_000_000)];
        assert!(parts(&Vitals { jobs, ..Vitals::default() }).is_empty());
    }

    #[test]
    fn who_waits_for_a_stuck_or_slow_embedder_is_not_stuck_itself() {
        let asks = |stage| CurrentJob { asks_embedder: true, ..job(stage, 700) };
        let jobs = vec![asks(Stage::Embed), asks(Stage::Chunk)];
        let stuck = Vitals { embedder: Some(Duration::from_secs(700)), jobs: jobs.clone(), queue: None };
        assert_eq!(parts(&stuck), ["embedder"]);
        // A slow one that goes on: a request of many texts may take longer than any batch.
        assert!(parts(&Vitals { embedder: Some(Duration::from_secs(30)), jobs, queue: None }).is_empty());
    }
}
