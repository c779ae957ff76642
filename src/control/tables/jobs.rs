//! The queue, and what failed, as tables.

use comfy_table::{ColumnConstraint, Table, Width};

use super::{View, book_id, by, elapsed, finish, headed, more, seconds, until};
use crate::control::protocol::{FailedResponse, JobRow, JobState, JobsResponse, Outcome};

/// What runs and what is next, or the history where that was asked for.
pub fn queue(answer: &JobsResponse, view: View) -> String {
    if answer.jobs.is_empty() {
        return "nothing is queued\n".to_owned();
    }
    let mut table = headed(view, &["JOB", "BOOK", "TITLE", "WORK", "STATE"]);
    for job in &answer.jobs {
        let kind = if job.reindex {
            "reindex".to_owned()
        } else if job.by_hand {
            format!("{} (by hand)", job.kind.as_str())
        } else {
            job.kind.as_str().to_owned()
        };
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

fn titled(job: &JobRow) -> String {
    by(&job.title, &job.author)
}
