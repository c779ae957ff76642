//! What `alexandriactl watch` shows of one moment: lines above, and a bar for each book in work. Pure.

use super::status::{cut, left, load, reindex, speed};
use super::{View, elapsed, number, seconds};
use crate::control::protocol::StatusSnapshot;

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Above the bars.
    pub head: Vec<String>,
    pub bars: Vec<Bar>,
    /// Below them.
    pub foot: Vec<String>,
}

/// A book in work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// `embed  The Hive`
    pub label: String,
    /// Tokens; 0 of 0 where the end is not known yet.
    pub done: u64,
    pub total: u64,
    /// `12 s`
    pub after: String,
}

/// The screen of this moment.
pub fn frame(status: &StatusSnapshot, view: View) -> Frame {
    let queue = &status.queue;
    let to_do = queue.queued + queue.waiting + queue.running;
    let paused = if status.paused { " · PAUSED (alexandriactl resume)" } else { "" };
    let mut head = vec![
        format!(
            "{} of {} books · {} to do · {} parked{paused}",
            number(queue.done_books),
            number(queue.books),
            number(to_do),
            number(queue.parked)
        ),
        speed(status),
    ];
    head.extend(status.gpu.as_ref().map(load));
    head.extend(status.reindex.as_ref().map(|going_on| format!("reindex: {}", reindex(going_on))));
    match &status.estimate {
        Some(estimate) => {
            head.push(left(estimate));
            head.push(format!("  reckoned from {}", estimate.basis));
        }
        None if to_do > 0 => head.push("how long it takes is not known yet".to_owned()),
        None => {}
    }
    let title = usize::from(view.width).saturating_sub(50).clamp(12, 50);
    let bars = status.current.iter().map(|job| Bar {
        label: format!("{:<7} {:<title$}", job.stage, cut(&job.title, title - 1)),
        done: if job.stage == "embed" { job.done_tokens as u64 } else { 0 },
        total: if job.stage == "embed" { job.total_tokens as u64 } else { 0 },
        after: seconds(elapsed(job.since_us, view.now_us)),
    });
    let mut foot: Vec<String> = status.stuck.iter().map(|stuck| format!("STUCK: {stuck}")).collect();
    foot.extend(status.waiting.iter().cloned());
    let library = &status.library;
    if let Some(reason) = library.reason.as_ref().filter(|_| !library.available) {
        foot.push(format!("the library is not available: {reason}"));
    }
    if status.removals_waiting > 0 {
        foot.push(format!("{} removals wait for `alexandriactl approve`", number(status.removals_waiting as u64)));
    }
    if let Some(error) = status.recent_errors.first() {
        foot.push(format!("last failure: {} {}: {}", error.book_id, cut(&error.title, 40), cut(&error.reason, 100)));
    }
    Frame { head, bars: bars.collect(), foot }
}

/// The same in one line, without anything that changes by time alone: where there is no terminal, a line a change.
pub fn summary(status: &StatusSnapshot) -> String {
    let queue = &status.queue;
    let to_do = queue.queued + queue.waiting + queue.running;
    let mut parts = vec![format!(
        "{} of {} books · {} to do · {} parked",
        number(queue.done_books),
        number(queue.books),
        number(to_do),
        number(queue.parked)
    )];
    parts.extend(status.paused.then(|| "paused".to_owned()));
    for job in &status.current {
        let tenth = (job.done_tokens * 10).checked_div(job.total_tokens).filter(|_| job.stage == "embed");
        let share = tenth.map(|tenth| format!(" {} %", tenth * 10)).unwrap_or_default();
        parts.push(format!("{} '{}'{share}", job.stage, cut(&job.title, 40)));
    }
    parts.extend(status.stuck.iter().map(|stuck| format!("STUCK: {stuck}")));
    if !status.library.available {
        parts.push("the library is not available".to_owned());
    }
    if !status.store.healthy {
        parts.push("the store does not answer".to_owned());
    }
    parts.join(" · ")
}
