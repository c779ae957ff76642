//! The comparison of library, state and store as a table.

use super::{View, finish, headed, number, seconds, some};
use crate::control::protocol::AuditReport;

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
