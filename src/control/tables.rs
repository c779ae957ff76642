//! Answers as text for people: what `alexandriactl` prints without `--json`. Pure but for [`View::of_stdout`], which
//! measures the terminal.

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::protocol::{
    AuditReport, ChangeHint, CurrentJob, FailedResponse, JobRow, JobState, JobsResponse, LibraryStatus, Outcome,
    SearchResponse, StatusSnapshot,
};
use crate::clock::now_us;
use crate::domain::LibraryKind;

/// For whom the text is.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Columns of the terminal.
    pub width: u16,
    /// Microseconds since the epoch.
    pub now_us: i64,
}

impl View {
    /// The terminal's width, or 100 columns where the output goes elsewhere.
    pub fn of_stdout() -> Self {
        let measured = Table::new().width().filter(|_| std::io::stdout().is_terminal());
        Self { width: measured.unwrap_or(100).max(60), now_us: now_us() }
    }
}

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

/// What a comparison found, and what was done about it.
pub fn audit(report: &AuditReport, view: View) -> String {
    let mut text = format!(
        "library  {}\nstore    {} points of {} books compared in {} ({} left out: queued or in work)\n",
        report.library,
        number(report.points),
        number(report.books),
        seconds(report.seconds),
        number(report.in_work),
    );
    if report.foreign_points > 0 {
        text.push_str(&format!(
            "         {} points are another library's or program's; they are never touched\n",
            number(report.foreign_points)
        ));
    }
    if report.agrees() {
        return text + "state and store agree\n";
    }
    let mut table = headed(view, &["FOUND", "BOOK", "TITLE", "DETAIL"]);
    for finding in &report.findings {
        let id = if finding.book_id.is_empty() { finding.book_uuid.to_string() } else { finding.book_id.clone() };
        table.add_row([finding.kind.as_str(), &id, &finding.title, &finding.detail]);
    }
    let found: u64 = report.counts.iter().map(|(_, count)| count).sum();
    let more = some(found.saturating_sub(report.findings.len() as u64), "and ", " more\n");
    text.push_str(&format!("\n{}{more}", finish(&table)));
    match &report.repair {
        None => text + &format!("\n{}; `alexandriactl verify --repair` mends it\n", report.summary()),
        Some(repair) => {
            text + &format!(
                "\n{}; {} books are queued, {} points deleted\n",
                report.summary(),
                number(repair.queued),
                number(repair.deleted_points)
            )
        }
    }
}

/// What runs and what is next, or the history where that was asked for.
pub fn queue(answer: &JobsResponse, view: View) -> String {
    if answer.jobs.is_empty() {
        return "nothing is queued\n".to_owned();
    }
    let mut table = headed(view, &["JOB", "BOOK", "TITLE", "WORK", "STATE"]);
    for job in &answer.jobs {
        let kind = if job.by_hand { format!("{} (by hand)", job.kind.as_str()) } else { job.kind.as_str().to_owned() };
        let id = book_id(&job.source, &job.source_id);
        table.add_row([job.id.to_string(), id, titled(job), kind, job_state(job, view)]);
    }
    finish(&table) + &more(answer.total, answer.jobs.len())
}

/// What failed for good, what is not read at all, and what is read in another format than the preferred one; and why.
pub fn failed(answer: &FailedResponse, view: View) -> String {
    let mut parts = Vec::new();
    if !answer.jobs.is_empty() {
        let mut table = headed(view, &["BOOK", "TITLE", "TRIES", "WHEN", "REASON"]);
        reason_column(&mut table, 4);
        for job in &answer.jobs {
            let when = job.finished_us.map(|at| format!("{} ago", seconds(elapsed(at, view.now_us))));
            let reason = job.last_error.clone().unwrap_or_default();
            let id = book_id(&job.source, &job.source_id);
            table.add_row([id, titled(job), job.attempts.to_string(), when.unwrap_or_default(), reason]);
        }
        parts.push(finish(&table) + &more(answer.total, answer.jobs.len()));
    }
    if !answer.unreadable.is_empty() {
        let mut table = headed(view, &["BOOK", "TITLE", "REASON"]);
        reason_column(&mut table, 2);
        for book in &answer.unreadable {
            table.add_row([&book.book_id, &book.title, &book.reason]);
        }
        let more = more(answer.unreadable_total, answer.unreadable.len());
        parts.push(format!("Without a file that can be read:\n\n{}{more}", finish(&table)));
    }
    if !answer.fallbacks.is_empty() {
        let mut table = headed(view, &["BOOK", "TITLE", "READ IN", "REASON"]);
        reason_column(&mut table, 3);
        for book in &answer.fallbacks {
            let reasons: Vec<String> =
                book.failed.iter().map(|file| format!("{}: {}", file.format, file.reason)).collect();
            let (id, title) = (book_id(&book.source, &book.source_id), by(&book.title, &book.author));
            table.add_row([id, title, book.format.clone(), reasons.join("\n")]);
        }
        let more = more(answer.fallbacks_total, answer.fallbacks.len());
        parts.push(format!("Read in another format than the preferred one:\n\n{}{more}", finish(&table)));
    }
    if parts.is_empty() {
        return "nothing has failed\n".to_owned();
    }
    parts.join("\n")
        + "\n`alexandriactl retry BOOK` tries one again, `alexandriactl retry --all` all; a changed file is tried by itself\n"
}

/// The reason is what people came for.
fn reason_column(table: &mut Table, at: usize) {
    if let Some(column) = table.column_mut(at) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Percentage(40)));
    }
}

/// Passages, best first: the book, the chapter, and the text.
pub fn search(answer: &SearchResponse, view: View) -> String {
    if answer.hits.is_empty() {
        return format!("nothing was found for '{}'\n", answer.query);
    }
    let mut text = String::new();
    for (at, hit) in answer.hits.iter().enumerate() {
        let section = if hit.section.is_empty() { String::new() } else { format!(" · {}", hit.section) };
        text += &format!("{}. {} · {}{section}\n", at + 1, hit.title, hit.author);
        text += &format!("   {} {} · {} · similarity {:.3}\n", hit.source, hit.source_id, hit.language, hit.score);
        let mut passage = plain(view);
        passage.add_row(["  ".to_owned(), excerpt(&hit.text)]);
        text += &finish(&passage);
        text += "\n";
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The start of a passage, on a word border: enough to judge it by. `--json` has all of it.
fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 400;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((end, _)) = text.char_indices().nth(CHARACTERS) else { return text };
    let end = text[..end].rfind(' ').unwrap_or(end);
    format!("{} …", &text[..end])
}

fn job_state(job: &JobRow, view: View) -> String {
    match job.state {
        JobState::Running => {
            let since =
                job.started_us.map(|at| format!(" for {}", seconds(elapsed(at, view.now_us)))).unwrap_or_default();
            format!("running{since}{}", tries(job.attempts))
        }
        JobState::Queued => match job.next_try_us {
            Some(at) => format!(
                "waiting, next try {}{}: {}",
                until(at, view.now_us),
                tries(job.attempts + 1),
                job.last_error.as_deref().unwrap_or("no reason given")
            ),
            None => format!("queued{}", tries(job.attempts + 1)),
        },
        JobState::Parked => format!("failed: {}", job.last_error.as_deref().unwrap_or("no reason given")),
        JobState::Done => {
            let outcome = match job.outcome {
                Some(Outcome::Embedded) => "embedded",
                Some(Outcome::PayloadOnly) => "metadata written",
                Some(Outcome::Adopted) => "found in the store",
                Some(Outcome::Unchanged) => "unchanged",
                Some(Outcome::Removed) => "removed",
                None => "done",
            };
            let took: f64 = job.timings.values().sum();
            let when =
                job.finished_us.map(|at| format!(" {} ago", seconds(elapsed(at, view.now_us)))).unwrap_or_default();
            if took > 0.0 { format!("{outcome}{when} in {}", seconds(took)) } else { format!("{outcome}{when}") }
        }
    }
}

fn tries(attempt: u32) -> String {
    if attempt > 1 { format!(" (try {attempt})") } else { String::new() }
}

fn book_id(source: &str, source_id: &str) -> String {
    let id: String = source_id.chars().take(8).collect();
    format!("{source} {id}")
}

fn titled(job: &JobRow) -> String {
    by(&job.title, &job.author)
}

fn by(title: &str, author: &str) -> String {
    if author.is_empty() { title.to_owned() } else { format!("{title} · {author}") }
}

fn more(total: u64, shown: usize) -> String {
    some(total.saturating_sub(shown as u64), "and ", " more (--limit shows them)\n")
}

/// A count with its words, or nothing where there is none.
fn some(count: impl TryInto<u64>, before: &str, after: &str) -> String {
    match count.try_into() {
        Ok(count) if count > 0 => format!("{before}{}{after}", number(count)),
        _ => String::new(),
    }
}

fn plain(view: View) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(view.width);
    table
}

fn headed(view: View, names: &[&str]) -> Table {
    let mut table = plain(view);
    table.set_header(names.iter().map(|name| Cell::new(name).set_alignment(CellAlignment::Left)));
    table
}

/// Without the blanks that comfy-table puts before the first column and after the last.
fn finish(table: &Table) -> String {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n").collect()
}

/// With thin grouping that survives copy and paste: 12,345.
fn number(count: impl TryInto<u64>) -> String {
    let digits = count.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds from then to now.
fn elapsed(then_us: i64, now_us: i64) -> f64 {
    now_us.saturating_sub(then_us).max(0) as f64 / 1e6
}

fn until(at_us: i64, now_us: i64) -> String {
    if at_us <= now_us { "now".to_owned() } else { format!("in {}", seconds(elapsed(now_us, at_us))) }
}

/// A length of time in its two largest units.
fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_read_well() {
        assert_eq!(seconds(59.9), "59 s");
        assert_eq!(seconds(61.0), "1 min 1 s");
        assert_eq!(seconds(7260.0), "2 h 1 min");
        assert_eq!(seconds(90_000.0), "1 d 1 h");
        assert_eq!(number(7_u64), "7");
        assert_eq!(number(1_234_567_u64), "1,234,567");
        assert_eq!(until(5, 9), "now");
        assert_eq!(until(31_000_000, 0), "in 31 s");
    }

    #[test]
    fn a_long_passage_is_cut_between_words() {
        let cut = excerpt(&"čarobnjak ".repeat(100));
        assert!(cut.ends_with("čarobnjak …"), "{cut}");
        assert!(cut.chars().count() <= 402);
        assert_eq!(excerpt(" a\n\nb "), "a b");
    }
}
