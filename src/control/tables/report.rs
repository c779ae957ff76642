//! The report for people, and as rows for other programs.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, Table};

use super::{View, elapsed, finish, headed, number, seconds};
use crate::control::arguments::ReportTable;
use crate::control::protocol::{Coverage, CoverageRow, Report, SlowBook, SpeedRow};

/// The whole report, or one table of it.
pub fn report(report: &Report, only: Option<ReportTable>, view: View) -> String {
    let parts: Vec<(ReportTable, &str, String)> = vec![
        (ReportTable::Models, "What embedded, before and after", models(&report.models, view)),
        (ReportTable::Days, "Day by day", days(&report.days, view)),
        (ReportTable::Slowest, "The books that took longest", slowest(&report.slowest, view)),
        (ReportTable::Coverage, "What is in the store", coverage(&report.coverage, view)),
        (ReportTable::Reasons, "Why books are not", reasons(&report.coverage, view)),
    ];
    let shown: Vec<String> = parts
        .into_iter()
        .filter(|(table, _, text)| match only {
            Some(only) => only == *table,
            None => !text.is_empty(),
        })
        .map(|(_, title, text)| {
            let text = if text.is_empty() { "nothing so far\n".to_owned() } else { text };
            if only.is_some() { text } else { format!("{title}\n\n{text}") }
        })
        .collect();
    shown.join("\n")
}

/// Right-aligned columns from the given one on.
fn right(table: &mut Table, from: usize, to: usize) {
    for at in from..to {
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "?".to_owned(), number)
}

/// A rate or a time with as many digits as say something: 12,345; 123; 12.3; 0.123.
fn figure(value: Option<f64>) -> String {
    match value {
        None => "?".to_owned(),
        Some(value) if value >= 100.0 => number(value.round() as u64),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn known(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "?".to_owned())
}

/// How often the first row's rate a row has.
fn times(first: Option<&SpeedRow>, row: &SpeedRow) -> String {
    match (first.and_then(|first| first.tokens_per_second), row.tokens_per_second) {
        (Some(before), Some(now)) if before > 0.0 => figure(Some(now / before)),
        _ => String::new(),
    }
}

/// Only the device gives way where the terminal is narrow: a figure in two lines is none.
fn speed_table(view: View, names: &[&str], device: usize, figures_from: usize) -> Table {
    let mut table = headed(view, names);
    right(&mut table, figures_from, names.len());
    for at in (0..names.len()).filter(|at| *at != device) {
        if let Some(column) = table.column_mut(at) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

fn models(rows: &[SpeedRow], view: View) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let names =
        ["MODEL", "DEVICE", "VERSION", "SINCE", "BOOKS", "CHUNKS", "TOKENS/S", "CHUNKS/MIN", "MS/CHUNK", "TIMES"];
    let mut table = speed_table(view, &names, 1, 4);
    let first = rows.iter().find(|row| row.tokens_per_second.is_some());
    for row in rows {
        table.add_row([
            known(&row.model),
            row.device.clone(),
            known(&row.version),
            row.first_day.clone(),
            number(row.books),
            count(row.chunks),
            figure(row.tokens_per_second),
            figure(row.chunks_per_minute),
            figure(row.ms_per_chunk),
            times(first, row),
        ]);
    }
    let mut text = finish(&table);
    text += "rates: over the time in which books were in work, all stages; TIMES: tokens/s by those of the first row\n";
    if rows.iter().any(|row| row.model.is_none()) {
        text += "?: from a version that did not note it\n";
    }
    text
}

fn days(rows: &[SpeedRow], view: View) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let names = ["DAY", "MODEL", "DEVICE", "BOOKS", "CHUNKS", "TOKENS/S", "CHUNKS/MIN", "MS/CHUNK", "FAILED", "LOADS"];
    let mut table = speed_table(view, &names, 2, 3);
    for row in rows {
        let of_books = |text: String| if row.books == 0 { String::new() } else { text };
        table.add_row([
            row.first_day.clone(),
            known(&row.model),
            row.device.clone(),
            number(row.books),
            of_books(count(row.chunks)),
            of_books(figure(row.tokens_per_second)),
            of_books(figure(row.chunks_per_minute)),
            of_books(figure(row.ms_per_chunk)),
            number(row.failed),
            number(row.loads),
        ]);
    }
    finish(&table)
}

fn slowest(books: &[SlowBook], view: View) -> String {
    if books.is_empty() {
        return String::new();
    }
    let mut table =
        headed(view, &["TOOK", "BOOK", "TITLE", "FORMAT", "SIZE", "CHUNKS", "TOKENS", "LONGEST STAGE", "WHEN"]);
    for at in [0, 4, 5, 6] {
        right(&mut table, at, at + 1);
    }
    for book in books {
        let size = book
            .file_size
            .map_or_else(|| "?".to_owned(), |size| format!("{:.1} MiB", size as f64 / f64::from(1 << 20)));
        let stage = if book.longest_stage.is_empty() {
            "?".to_owned()
        } else {
            format!("{} {}", book.longest_stage, short(book.longest_stage_seconds))
        };
        table.add_row([
            short(book.seconds),
            book.book_id.clone(),
            super::by(&book.title, &book.author),
            known(&book.format),
            size,
            count(book.chunks),
            count(book.tokens),
            stage,
            format!("{} ago", seconds(elapsed(book.finished_us, view.now_us))),
        ]);
    }
    finish(&table)
}

/// A length of time; under a minute with a tenth.
fn short(length: f64) -> String {
    if length < 60.0 { format!("{length:.1} s") } else { seconds(length) }
}

fn coverage(coverage: &Coverage, view: View) -> String {
    if coverage.all.books == 0 {
        return String::new();
    }
    let on_paper = super::some(coverage.without_file, "; ", " more have no file at all");
    let mut text =
        format!("{} of {} books can be found{on_paper}\n\n", number(coverage.in_store), number(coverage.all.books));
    let mut table =
        headed(view, &["", "BOOKS", "DONE", "WAITING", "FAILED", "UNREADABLE", "TAKEN OUT", "MISSING", "SHARE"]);
    right(&mut table, 1, 9);
    let add = |table: &mut Table, row: &CoverageRow| {
        let blank = |count: u64| if count == 0 { String::new() } else { number(count) };
        table.add_row([
            Cell::new(&row.name),
            Cell::new(number(row.books)),
            Cell::new(number(row.done)),
            Cell::new(blank(row.waiting)),
            Cell::new(blank(row.parked)),
            Cell::new(blank(row.unreadable)),
            Cell::new(blank(row.excluded)),
            Cell::new(blank(row.missing)),
            Cell::new(format!("{} %", row.done * 100 / row.books.max(1))),
        ]);
    };
    add(&mut table, &coverage.all);
    for rows in [&coverage.formats, &coverage.languages] {
        table.add_row([""]);
        const MOST: usize = 12;
        rows.iter().take(MOST).for_each(|row| add(&mut table, row));
        if rows.len() > MOST {
            table.add_row([format!("and {} more", rows.len() - MOST)]);
        }
    }
    text += &finish(&table);
    text
}

fn reasons(coverage: &Coverage, view: View) -> String {
    if coverage.reasons.is_empty() {
        return String::new();
    }
    let mut table = headed(view, &["BOOKS", "", "REASON", "SUCH AS"]);
    right(&mut table, 0, 1);
    for row in &coverage.reasons {
        let standing = if row.standing == "parked" { "failed" } else { row.standing.as_str() };
        table.add_row([number(row.books), standing.to_owned(), row.reason.clone(), row.example.clone()]);
    }
    finish(&table) + "`alexandriactl failed` lists them one by one\n"
}

/// One table as CSV, with its names in the first row; an empty field is what is not known.
///
/// # Errors
/// Where it cannot be written as text.
pub fn report_csv(report: &Report, table: ReportTable) -> Result<String, String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written: csv::Result<()> = match table {
        ReportTable::Models => report.models.iter().try_for_each(|row| writer.serialize(row)),
        ReportTable::Days => report.days.iter().try_for_each(|row| writer.serialize(row)),
        ReportTable::Slowest => report.slowest.iter().try_for_each(|row| writer.serialize(row)),
        ReportTable::Reasons => report.coverage.reasons.iter().try_for_each(|row| writer.serialize(row)),
        ReportTable::Coverage => {
            let coverage = &report.coverage;
            let of = |kind: &'static str, rows: &[CoverageRow]| -> Vec<(&'static str, CoverageRow)> {
                rows.iter().map(|row| (kind, row.clone())).collect()
            };
            let rows = [
                of("all", std::slice::from_ref(&coverage.all)),
                of("format", &coverage.formats),
                of("language", &coverage.languages),
            ];
            let head = ["by", "name", "books", "done", "waiting", "parked", "unreadable", "excluded", "missing"];
            writer.write_record(head).and_then(|()| {
                rows.concat().iter().try_for_each(|(kind, row)| {
                    let counts =
                        [row.books, row.done, row.waiting, row.parked, row.unreadable, row.excluded, row.missing];
                    let fields = [(*kind).to_owned(), row.name.clone()].into_iter();
                    writer.write_record(fields.chain(counts.iter().map(ToString::to_string)))
                })
            })
        }
    };
    written.map_err(|error| error.to_string())?;
    let bytes = writer.into_inner().map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
