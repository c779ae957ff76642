//! The status as a screen: a line or two for every part, so that a terminal of 80 by 24 shows an ordinary day whole.

use super::{View, about, bar, elapsed, finish, number, plain, seconds, some, until};
use crate::control::protocol::{
    ChangeHint, CurrentJob, Estimate, GpuStatus, LibraryStatus, ModelStatus, OutdatedStatus, RecentError,
    ReindexStatus, StatusSnapshot,
};
use crate::domain::LibraryKind;

/// Failures that have room on the screen.
const ERRORS_SHOWN: usize = 3;
/// Characters of a reason or a title there.
const REASON: usize = 100;
const TITLE: usize = 40;

/// The state of everything, a line or two each.
pub fn status(status: &StatusSnapshot, view: View) -> String {
    let queue = &status.queue;
    let mut table = plain(view);
    let mut line = |name: &str, text: String| {
        table.add_row([name.to_owned(), text]);
    };
    for stuck in &status.stuck {
        line("STUCK", stuck.clone());
    }
    let state = if status.paused { " · PAUSED (alexandriactl resume)" } else { "" };
    line(
        "service",
        format!(
            "alexandria-ingestd {} · pid {} · up {}{state}",
            status.version,
            status.pid,
            seconds(status.uptime_seconds as f64)
        ),
    );
    line("library", library(&status.library, view));
    if status.removals_waiting > 0 {
        line(
            "",
            format!(
                "{} removals at once are held back: is the library the right one, and whole? (alexandriactl approve)",
                number(status.removals_waiting)
            ),
        );
    }
    line("changes", changes(&status.library));
    let model = &status.model;
    let loads = if model.loads == 1 { "loaded once".to_owned() } else { format!("loaded {} times", model.loads) };
    line("model", format!("{} on {} · {} dimensions · {loads}", model.id, model.device, model.dimension));
    if let Some(gpu) = &status.gpu {
        line("gpu", load(gpu));
    }
    if let Some(memory) = memory(model) {
        line(if status.gpu.is_some() { "" } else { "memory" }, memory);
    }
    let store = &status.store;
    let points = store.points.map(|points| format!(" · {} points", number(points))).unwrap_or_default();
    line(
        "store",
        format!(
            "{} · collection {}{points} · {}",
            store.location,
            store.collection,
            health(store.healthy, store.reason.as_deref())
        ),
    );
    line(
        "books",
        format!(
            "{} of {} in the store · {} chunks · {} tokens{}{}{}",
            number(queue.done_books),
            number(queue.books),
            number(queue.chunks),
            number(queue.tokens),
            some(queue.fallbacks, " · ", " not in their preferred format (alexandriactl failed)"),
            some(queue.missing, " · ", " missing"),
            some(queue.excluded, " · ", " taken out by hand"),
        ),
    );
    let next = match queue.next_try_us {
        Some(at) if queue.waiting > 0 => format!(" (next try {})", until(at, view.now_us)),
        _ => String::new(),
    };
    line(
        "queue",
        format!(
            "{} queued · {} waiting{next} · {} running · {} parked",
            number(queue.queued),
            number(queue.waiting),
            number(queue.running),
            number(queue.parked),
        ),
    );
    line("speed", speed(status));
    if let Some(estimate) = &status.estimate {
        line("left", left(estimate));
    }
    if let Some(reindex) = &status.reindex {
        line("reindex", self::reindex(reindex));
        if let Some(reason) = &reindex.waits_for {
            line("", reason.clone());
        }
    } else if let Some(outdated) = &status.outdated {
        line("settings", format!("{} (alexandriactl reindex)", self::outdated(outdated)));
    }
    if let Some(audit) = &status.last_audit {
        let found = if audit.agrees() { "state and store agree".to_owned() } else { audit.summary() };
        let ago = seconds(elapsed(audit.started_us, view.now_us));
        line("verified", format!("{ago} ago · {found}"));
    }
    for (at, job) in status.current.iter().enumerate() {
        line(if at == 0 { "now" } else { "" }, current(job, view));
    }
    for (at, waiting) in status.waiting.iter().enumerate() {
        line(if at == 0 { "waiting" } else { "" }, waiting.clone());
    }
    for (at, error) in status.recent_errors.iter().take(ERRORS_SHOWN).enumerate() {
        line(if at == 0 { "failed" } else { "" }, failure(error, view));
    }
    finish(&table)
}

/// Tokens and chunks by the time of the last minute; the model's share of the last hour of work.
pub(super) fn speed(status: &StatusSnapshot) -> String {
    let rate = |rate: f64| number(rate.round().max(0.0) as u64);
    let share = status.model_share.map(|share| format!(" · model at work {:.0} % of the time", share * 100.0));
    format!(
        "{} tokens/s · {} chunks/min{}",
        rate(status.tokens_per_second),
        rate(status.chunks_per_minute),
        share.unwrap_or_default()
    )
}

/// How long it takes, how sure that is, and what it is made of.
pub(super) fn left(estimate: &Estimate) -> String {
    format!(
        "about {} ({} to {}) for {} tokens of {} books",
        about(estimate.seconds),
        about(estimate.seconds_low),
        about(estimate.seconds_high),
        rounded(estimate.tokens),
        number(estimate.books)
    )
}

/// What is not made with the present settings, and what it would cost to make it anew.
pub fn outdated(outdated: &OutdatedStatus) -> String {
    let what = match (outdated.chunker_books > 0, outdated.model_books > 0) {
        (true, true) => "another chunker and another model",
        (false, true) => "another model",
        _ => "another chunker or other settings of it",
    };
    let cost = match (outdated.seconds, outdated.tokens_per_second) {
        (Some(seconds), Some(rate)) => {
            format!("about {} at {} tokens/s", about(seconds), number(rate.round().max(0.0) as u64))
        }
        _ => "how long is not known: nothing was embedded with this model on this device yet".to_owned(),
    };
    format!("{} books ({} tokens) made with {what}; {cost}", number(outdated.books), rounded(outdated.tokens))
}

/// How far it is.
pub(super) fn reindex(reindex: &ReindexStatus) -> String {
    let left = match (reindex.queued, reindex.seconds_left) {
        (0, _) => String::new(),
        (_, Some(seconds)) => format!(", {} tokens, about {}", rounded(reindex.tokens_left), about(seconds)),
        (_, None) => format!(", {} tokens", rounded(reindex.tokens_left)),
    };
    format!(
        "{} beside {} · {} books are in it · {} to do{left}{}",
        reindex.collection,
        reindex.from,
        number(reindex.books),
        number(reindex.queued),
        some(reindex.left_behind, " · ", " cannot be read any more"),
    )
}

/// No more digits than an estimate has: 12,300,000 is `12.3 M`.
fn rounded(count: u64) -> String {
    match count {
        0..10_000 => number(count),
        10_000..1_000_000 => format!("{} k", number((count + 500) / 1000)),
        1_000_000..1_000_000_000 => format!("{:.1} M", count as f64 / 1e6),
        _ => format!("{:.1} G", count as f64 / 1e9),
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// The card's load, whoever causes it.
pub(super) fn load(gpu: &GpuStatus) -> String {
    let mut parts = vec![gpu.name.clone()];
    parts.extend(gpu.utilisation_percent.map(|percent| format!("{percent} % busy")));
    if gpu.memory_total > 0 {
        parts.push(format!("{:.1} of {:.1} GiB", gib(gpu.memory_used), gib(gpu.memory_total)));
    }
    parts.extend(gpu.temperature_celsius.map(|celsius| format!("{celsius} °C")));
    parts.extend(gpu.power_watts.map(|watts| format!("{watts:.0} W")));
    parts.join(" · ")
}

/// What the model takes of it.
fn memory(model: &ModelStatus) -> Option<String> {
    let memory = model.memory.as_ref()?;
    let halvings = match model.budget_halvings {
        0 => String::new(),
        times => format!(", made smaller {times} times for want of memory"),
    };
    Some(format!(
        "{:.1} GiB model, {:.1} GiB work, {:.1} GiB free · batches of {} tokens{halvings}",
        gib(memory.weights),
        gib(memory.workspace),
        gib(memory.free),
        model.batch_tokens
    ))
}

fn failure(error: &RecentError, view: View) -> String {
    let ago = seconds(elapsed(error.at_us, view.now_us));
    let next = match error.next.as_str() {
        "retry" => "will be tried again",
        "waits" => "waits",
        _ => "parked",
    };
    let reason = error.reason.split('\n').next().unwrap_or_default();
    format!("{} {}: {} ({next}, {ago} ago)", error.book_id, cut(&error.title, TITLE), cut(reason, REASON))
}

/// The start of a text, with a mark where there is more.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn library(library: &LibraryStatus, view: View) -> String {
    let kind = match library.kind {
        Some(LibraryKind::Calibre) => "calibre",
        Some(LibraryKind::Folder) => "folder",
        Some(LibraryKind::Files) => "files",
        None => "not seen yet",
    };
    let filesystem = if library.filesystem.is_empty() { String::new() } else { format!(" on {}", library.filesystem) };
    let looked = match library.last_look_us {
        Some(at) => format!(" · looked at {} ago", seconds(elapsed(at, view.now_us))),
        None => String::new(),
    };
    // One without any file may be on paper.
    let unreadable = library.passed_over.iter().filter(|book| !book.formats.is_empty()).count();
    format!(
        "{} ({kind}{filesystem}) · {} books{}{looked} · {}",
        library.path,
        number(library.books),
        some(unreadable, " · ", " that cannot be read (alexandriactl failed)"),
        if library.available { health(true, library.reason.as_deref()) } else { not_available(library) },
    )
}

/// How changes of the library are noticed.
fn changes(library: &LibraryStatus) -> String {
    let polling = format!("polling every {} s", library.poll_seconds);
    match (library.hint, library.no_hint_because.as_deref()) {
        (Some(ChangeHint::Inotify), _) => "inotify".to_owned(),
        (Some(ChangeHint::Cifs), _) => format!("{polling}, cifs change notification as a hint"),
        (None, Some(reason)) => format!("{polling}: {reason}"),
        (None, None) => polling,
    }
}

fn not_available(library: &LibraryStatus) -> String {
    format!("NOT AVAILABLE: {}", library.reason.as_deref().unwrap_or("no reason given"))
}

fn health(healthy: bool, reason: Option<&str>) -> String {
    match (healthy, reason) {
        (true, None) => "healthy".to_owned(),
        (true, Some(reason)) => reason.to_owned(),
        (false, reason) => format!("NOT HEALTHY: {}", reason.unwrap_or("no reason given")),
    }
}

/// What a worker is at: with a bar where the end is known.
fn current(job: &CurrentJob, view: View) -> String {
    const BAR: usize = 20;
    let since = seconds(elapsed(job.since_us, view.now_us));
    let (done, total) = (job.done_tokens as u64, job.total_tokens as u64);
    let percent = (done * 100).checked_div(total);
    let progress = match percent.filter(|_| job.stage == "embed") {
        Some(percent) => format!(" {} {percent} % of {} tokens", bar(done as f64 / total as f64, BAR), number(total)),
        None => String::new(),
    };
    let waits = if job.waits_for.is_some() { " · WAITS" } else { "" };
    format!("{} {}\n{}{progress} · {since}{waits}", job.book_id, cut(&job.title, TITLE), job.stage)
}
