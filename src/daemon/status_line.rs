//! The one line that `systemctl status` shows. Pure.

use crate::control::protocol::StatusSnapshot;
use crate::control::tables::{about, number};

/// What is being done, how far it is, and what a person should look at.
pub(super) fn status_line(status: &StatusSnapshot) -> String {
    let queue = &status.queue;
    let to_do = queue.queued + queue.waiting + queue.running;
    let mut parts = Vec::new();
    // The one that embeds tells most.
    let job = status.current.iter().max_by_key(|job| (job.total_tokens > 0, std::cmp::Reverse(job.since_us)));
    match job {
        Some(job) => {
            let percent = (job.done_tokens * 100).checked_div(job.total_tokens);
            let percent = percent.filter(|_| job.stage == "embed").map(|percent| format!(" {percent} %"));
            let doing = match job.stage.as_str() {
                "copy" | "extract" => "reading",
                "chunk" => "cutting",
                "embed" => "embedding",
                _ => "writing",
            };
            parts.push(format!("{doing} '{}'{}", shortened(&job.title), percent.unwrap_or_default()));
        }
        None if status.paused => parts.push("paused".to_owned()),
        None if to_do > 0 => parts.push("waiting".to_owned()),
        None => parts.push("idle".to_owned()),
    }
    let wanted = queue.books.saturating_sub(queue.excluded);
    parts.push(format!("{} of {} books", number(queue.done_books.min(wanted)), number(wanted)));
    if to_do > 0 {
        if status.tokens_per_second >= 1.0 {
            parts.push(format!("{} tokens/s", number(status.tokens_per_second.round() as u64)));
        }
        if let Some(estimate) = status.estimate.as_ref().filter(|_| !status.paused) {
            parts.push(format!("about {} left", about(estimate.seconds)));
        }
    }
    if queue.parked > 0 {
        parts.push(format!("{} parked", number(queue.parked)));
    }
    if !status.library.available && status.library.last_look_us.is_some() || status.library.reason.is_some() {
        parts.push("the library is not available".to_owned());
    }
    if !status.store.healthy && status.store.reason.is_some() {
        parts.push("the store does not answer".to_owned());
    }
    if status.removals_waiting > 0 {
        parts.push(format!("{} removals wait for alexandriactl approve", number(status.removals_waiting as u64)));
    }
    parts.extend(status.stuck.iter().map(|stuck| format!("STUCK: {stuck}")));
    // A line, whatever a title has in it.
    parts.join(" · ").replace(['\n', '\r'], " ")
}

fn shortened(title: &str) -> String {
    const MOST: usize = 50;
    match title.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &title[..end]),
        None => title.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{CurrentJob, Estimate, LibraryStatus, QueueStats, StoreStatus};

    #[test]
    fn the_line_says_what_is_done_and_how_far_it_is() {
        let library = LibraryStatus { available: true, last_look_us: Some(1), ..LibraryStatus::default() };
        let store = StoreStatus { healthy: true, ..StoreStatus::default() };
        let mut status = StatusSnapshot { library, store, ..StatusSnapshot::default() };
        assert_eq!(status_line(&status), "idle · 0 of 0 books");
        status.queue = QueueStats { books: 120, done_books: 3, queued: 116, running: 1, ..QueueStats::default() };
        assert_eq!(status_line(&status), "waiting · 3 of 120 books");
        status.current = vec![
            CurrentJob { title: "Next".into(), stage: "extract".into(), ..CurrentJob::default() },
            CurrentJob {
                title: "The\nHive".into(),
                stage: "embed".into(),
                done_tokens: 41,
                total_tokens: 100,
                ..CurrentJob::default()
            },
        ];
        status.tokens_per_second = 12_300.4;
        status.estimate = Some(Estimate { seconds: 7300.0, ..Estimate::default() });
        assert_eq!(
            status_line(&status),
            "embedding 'The Hive' 41 % · 3 of 120 books · 12,300 tokens/s · about 2 h left"
        );
        status.current.pop();
        status.estimate = None;
        status.queue.parked = 2;
        status.library.available = false;
        assert_eq!(
            status_line(&status),
            "reading 'Next' · 3 of 120 books · 12,300 tokens/s · 2 parked · the library is not available"
        );
        status.current.clear();
        status.paused = true;
        status.stuck = vec!["the queue is stuck".into()];
        assert!(status_line(&status).starts_with("paused · "), "{}", status_line(&status));
        assert!(status_line(&status).ends_with(" · STUCK: the queue is stuck"));
    }
}
