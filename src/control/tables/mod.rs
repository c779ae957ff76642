//! Answers as text for people: what `alexandriactl` prints without `--json`. Pure but for [`View::of_stdout`], which
//! measures the terminal.

mod audit;
mod jobs;
mod report;
mod search;
mod status;
mod watch;

use std::io::IsTerminal;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use crate::clock::now_us;

pub use audit::audit;
pub use jobs::{failed, queue};
pub use report::{report, report_csv};
pub use search::search;
pub use status::{outdated, status};
pub use watch::{Frame, frame, summary};

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

fn book_id(source: &str, source_id: &str) -> String {
    let id: String = source_id.chars().take(8).collect();
    format!("{source} {id}")
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
pub(crate) fn number(count: impl TryInto<u64>) -> String {
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

/// A bar of so many characters, filled by that share.
fn bar(share: f64, width: usize) -> String {
    let filled = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled.min(width)))
}

/// Seconds from then to now.
fn elapsed(then_us: i64, now_us: i64) -> f64 {
    now_us.saturating_sub(then_us).max(0) as f64 / 1e6
}

fn until(at_us: i64, now_us: i64) -> String {
    if at_us <= now_us { "now".to_owned() } else { format!("in {}", seconds(elapsed(now_us, at_us))) }
}

/// A length of time in its two largest units.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A length of time as one says it that is not sure of it: `2 h`, `25 min`.
pub(crate) fn about(seconds: f64) -> String {
    let minutes = (seconds.max(0.0) / 60.0).round() as u64;
    match minutes {
        // Tens of seconds, rounded up.
        0 | 1 if seconds < 90.0 => format!("{} s", ((seconds.max(1.0) / 10.0).ceil() as u64) * 10),
        0..10 => format!("{minutes} min"),
        10..90 => format!("{} min", (minutes + 2) / 5 * 5),
        90..600 => {
            let halves = (minutes + 15) / 30;
            format!("{}{} h", halves / 2, if halves % 2 == 1 { ".5" } else { "" })
        }
        600..2880 => format!("{} h", (minutes + 30) / 60),
        _ => format!("{} days", (minutes + 720) / 1440),
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
        for (seconds, said) in [
            (0.0, "10 s"),
            (31.0, "40 s"),
            (100.0, "2 min"),
            (1490.0, "25 min"),
            (7300.0, "2 h"),
            (9000.0, "2.5 h"),
            (50_000.0, "14 h"),
            (400_000.0, "5 days"),
        ] {
            assert_eq!(about(seconds), said);
        }
        assert_eq!(until(5, 9), "now");
        assert_eq!(until(31_000_000, 0), "in 31 s");
    }
}
