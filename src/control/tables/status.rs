//! The status as a screen: a line or two for every part.

use super::{View, elapsed, finish, number, plain, seconds, some, until};
use crate::control::protocol::{ChangeHint, CurrentJob, LibraryStatus, StatusSnapshot};
use crate::domain::LibraryKind;

/// The state of everything, a line or two each.
pub fn status(status: &StatusSnapshot, view: View) -> String {
    let queue = &status.queue;
    let mut table = plain(view);
    let mut line = |name: &str, text: String| {
        table.add_row([name.to_owned(), text]);
    };
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
                "{} removals at once are held back: is the library the right one, and whole?",
                number(status.removals_waiting)
            ),
        );
    }
    line("changes", changes(&status.library));
    let model = &status.model;
    let loads = if model.loads == 1 { "loaded once".to_owned() } else { format!("loaded {} times", model.loads) };
    line("model", format!("{} on {} · {} dimensions · {loads}", model.id, model.device, model.dimension));
    if let Some(memory) = &model.memory {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let halvings = match model.budget_halvings {
            0 => String::new(),
            times => format!(", made smaller {times} times for want of memory"),
        };
        line(
            "memory",
            format!(
                "{:.1} GiB model, {:.1} GiB work on the GPU, {:.1} of {:.1} GiB free · batches of {} tokens{halvings}",
                gib(memory.weights),
                gib(memory.workspace),
                gib(memory.free),
                gib(memory.total),
                model.batch_tokens
            ),
        );
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
    let speed = |rate: f64| number(rate.round().max(0.0) as u64);
    line(
        "speed",
        format!("{} tokens/s · {} chunks/min", speed(status.tokens_per_second), speed(status.chunks_per_minute)),
    );
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
    finish(&table)
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

fn current(job: &CurrentJob, view: View) -> String {
    let progress = match job.total_chunks {
        0 => String::new(),
        total => format!(" {}/{} chunks ({} %)", number(job.done_chunks), number(total), job.done_chunks * 100 / total),
    };
    format!("{} {} · {}{progress} · {}", job.book_id, job.title, job.stage, seconds(elapsed(job.since_us, view.now_us)))
}
