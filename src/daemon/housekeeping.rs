//! The thread that takes the meters' samples, feeds the watchdog and writes systemd's STATUS line. It must never wait: not
//! for the queue, which may be the one that hangs, and neither for the library nor the store.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::heartbeat::{self, Alarm, Limits, Vitals};
use super::meters::{self, Counted};
use super::service::{Service, lock};
use super::status::status_of;
use super::status_line::status_line;
use crate::queue::{QueueError, QueueStats};

/// Between two beats, at most; shorter where the watchdog wants it.
const BEAT: Duration = Duration::from_secs(1);
/// Between two pings of the watchdog, at most.
const LONGEST_FEED: Duration = Duration::from_secs(10);
/// Without a watchdog, when a queue that does not answer is called stuck.
const QUEUE_LIMIT: Duration = Duration::from_secs(60);
/// What reading a book may take beyond its limits of time.
const READ_MARGIN: Duration = Duration::from_secs(120);

/// A question to the queue that is not answered yet.
struct Ping {
    asked: Instant,
    answer: Receiver<Result<QueueStats, QueueError>>,
}

/// Until the service stops.
pub(super) fn housekeep(service: &Service) {
    let watchdog = sd_notify::watchdog_enabled();
    let beat = watchdog.map_or(BEAT, |period| (period / 4).min(BEAT));
    let settings = &service.config;
    let limits = Limits {
        queue: watchdog.map_or(QUEUE_LIMIT, |period| period / 2),
        batch: Duration::try_from_secs_f64(settings.embedding.stall_seconds).unwrap_or(Duration::MAX),
        read: Duration::from_secs(settings.extract.cpu_seconds + settings.extract.stall_seconds) + READ_MARGIN,
    };
    let mut alarm = Alarm::default();
    let mut ping: Option<Ping> = None;
    let mut sampled = Instant::now();
    let feed = watchdog.map_or(LONGEST_FEED, |period| (period / 4).min(LONGEST_FEED));
    let (mut fed, mut told) = (None::<Instant>, String::new());
    while !service.parts.stopping.load(Ordering::Relaxed) {
        std::thread::sleep(beat);
        sample(service, &mut sampled);
        let answered = answered(service, &mut ping);
        if ping.is_none()
            && let Ok(Some(answer)) = service.parts.queue.begin(|queue| queue.stats())
        {
            ping = Some(Ping { asked: Instant::now(), answer });
        }
        let vitals = Vitals {
            queue: ping.as_ref().map(|ping| ping.asked.elapsed()),
            embedder: service.parts.embedder.waits_for_batch(),
            jobs: service.parts.progress.current(),
        };
        let stuck = heartbeat::stuck(&vitals, &limits);
        alarm.say(&stuck, watchdog.is_some());
        *lock(&service.stuck) =
            stuck.iter().map(|stuck| format!("the {} is stuck: {}", stuck.part, stuck.what)).collect();
        let mut news = Vec::new();
        if answered && stuck.is_empty() && fed.is_none_or(|fed| fed.elapsed() >= feed) {
            fed = Some(Instant::now());
            news.push(NotifyState::Watchdog);
        }
        let line = status_line(&status_of(service));
        if line != told {
            news.push(NotifyState::Status(&line));
        }
        // What found no room is said at the next beat.
        if !news.is_empty() && service.notifier.tell(&news) {
            told = line;
        }
    }
}

/// Whether the queue has answered since the last beat. Its numbers are kept for whoever cannot wait for new ones.
fn answered(service: &Service, ping: &mut Option<Ping>) -> bool {
    let Some(asked) = ping else { return false };
    match asked.answer.try_recv() {
        Ok(stats) => {
            if let Ok(stats) = stats {
                *lock(&service.stats) = stats;
            }
            *ping = None;
            true
        }
        // The request panicked, which the queue survives; or the queue has ended, and the workers say so.
        Err(TryRecvError::Disconnected) => {
            *ping = None;
            false
        }
        Err(TryRecvError::Empty) => false,
    }
}

fn sample(service: &Service, sampled: &mut Instant) {
    let (chunks, chunk_tokens) = service.parts.progress.embedded();
    let embedder = service.parts.embedder.counters();
    let counted = Counted { tokens: embedder.tokens, chunks, chunk_tokens, model_seconds: embedder.busy_seconds };
    let passed = std::mem::replace(sampled, Instant::now()).elapsed();
    let busy = if meters::is_busy(&service.parts.progress.current()) { passed } else { Duration::ZERO };
    service.meters.sample(crate::clock::now_us(), counted, busy);
}
