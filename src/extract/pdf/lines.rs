//! Runs to lines: what stands on one row of one column, from left to right. Pure. Must never let a raised or lowered
//! figure start a line of its own, or glue a note's mark to the word before it.

use super::bidi;
use super::runs::{Run, WORD_GAP};

/// A gap of this many ems stands between two cells of a table.
const CELL_GAP: f32 = 2.0;

/// Points within which lines end at one place.
const SAME_EDGE: f32 = 2.0;

/// One line of text on a page.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Line {
    pub text: String,
    pub x0: f32,
    pub x1: f32,
    /// Of the baseline.
    pub y: f32,
    /// Of most of its text.
    pub size: f32,
    /// The column's edges, and its number on the page in reading order.
    pub left: f32,
    pub right: f32,
    pub column: usize,
    /// Set in a font whose letters are equally wide.
    pub is_fixed: bool,
    /// Wide gaps inside.
    pub cells: usize,
    pub is_artifact: bool,
    /// Runs across the page's direction.
    pub is_turned: bool,
}

/// Puts the runs of one column into rows.
pub fn rows(mut runs: Vec<Run>) -> Vec<Vec<Run>> {
    let body = body_size(&runs);
    for run in &mut runs {
        // An initial over several lines stands at the first of them.
        if run.size > 1.7 * body && run.text.trim().chars().count() <= 2 {
            run.y -= 0.7 * (run.size - body);
            run.size = body;
        }
    }
    runs.sort_by(|a, b| a.y.total_cmp(&b.y).then(a.x0.total_cmp(&b.x0)));
    let mut rows: Vec<Vec<Run>> = Vec::new();
    let mut span = (0.0, 0.0, 0.0);
    for run in runs {
        let own = (run.y - 0.7 * run.size, run.y + 0.15 * run.size);
        let overlap = own.1.min(span.1) - own.0.max(span.0);
        let height = (own.1 - own.0).min(span.1 - span.0);
        match rows.last_mut() {
            Some(row) if overlap > 0.5 * height => {
                if run.size > span.2 {
                    span = (own.0, own.1, run.size);
                }
                row.push(run);
            }
            _ => {
                span = (own.0, own.1, run.size);
                rows.push(vec![run]);
            }
        }
    }
    for row in &mut rows {
        row.sort_by(|a, b| a.x0.total_cmp(&b.x0));
    }
    rows
}

/// The size that most of the text has.
pub fn body_size(runs: &[Run]) -> f32 {
    let mut sizes: Vec<(f32, usize)> = runs.iter().map(|run| (run.size, run.text.len())).collect();
    sizes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = sizes.iter().map(|(_, length)| length).sum::<usize>() / 2;
    let mut seen = 0;
    for (size, length) in &sizes {
        seen += length;
        if seen > half {
            return *size;
        }
    }
    sizes.last().map_or(10.0, |(size, _)| *size)
}

/// The lines of a column.
pub fn lines(runs: Vec<Run>, column: usize) -> Vec<Line> {
    let left = runs.iter().map(|run| run.x0).fold(f32::MAX, f32::min);
    let right = runs.iter().map(|run| run.x1).fold(f32::MIN, f32::max);
    let mut lines: Vec<Line> = rows(runs).into_iter().filter_map(|row| line(row, left, right, column)).collect();
    if let Some(right) = full_lines_end(&lines, left) {
        lines.iter_mut().for_each(|line| line.right = right);
    }
    lines
}

/// Where the full lines of a column end, if enough of them end at one place; some may stick out of it.
fn full_lines_end(lines: &[Line], left: f32) -> Option<f32> {
    let mut ends: Vec<f32> = lines.iter().filter(|line| line.cells == 0).map(|line| line.x1).collect();
    ends.sort_by(f32::total_cmp);
    let farthest = *ends.last()?;
    let mut best = (0, farthest);
    let mut from = 0;
    for (at, end) in ends.iter().enumerate() {
        while end - ends[from] > SAME_EDGE {
            from += 1;
        }
        if at - from + 1 >= best.0 {
            best = (at - from + 1, *end);
        }
    }
    let (count, end) = best;
    (count >= 3.max(lines.len() / 6) && end - left > 0.6 * (farthest - left)).then_some(end)
}

fn line(row: Vec<Run>, left: f32, right: f32, column: usize) -> Option<Line> {
    let main = row.iter().max_by(|a, b| (a.text.len() as f32 * a.size).total_cmp(&(b.text.len() as f32 * b.size)))?;
    let mut line = Line {
        x0: f32::MAX,
        x1: f32::MIN,
        y: main.y,
        size: main.size,
        left,
        right,
        column,
        is_fixed: true,
        is_artifact: row.iter().all(|run| run.is_artifact),
        is_turned: main.turn != 0,
        ..Line::default()
    };
    let mut last: Option<&Run> = None;
    for run in &row {
        if let Some(last) = last {
            // The same words over themselves: a shadow.
            if last.text == run.text && (last.x0 - run.x0).abs() < 0.3 * run.size && last.text.len() > 1 {
                continue;
            }
            let gap = run.x0 - last.x1;
            let size = run.size.min(last.size);
            let apart = gap > WORD_GAP * size || last.text.ends_with(' ');
            if (apart || is_mark(last, run)) && !line.text.ends_with(' ') {
                line.text.push(' ');
            }
            line.cells += usize::from(gap > CELL_GAP * run.size.max(last.size));
        }
        line.text.push_str(&run.text);
        // A word or two in another font do not make the line another.
        line.is_fixed &= run.is_fixed || run.text.len() <= 3;
        line.x0 = line.x0.min(run.x0);
        line.x1 = line.x1.max(run.x1);
        last = Some(run);
    }
    line.is_fixed &= row.iter().any(|run| run.is_fixed);
    let text = bidi::logical(line.text.trim().to_owned());
    line.text = super::super::sections::nfc(&text).into_owned();
    (!line.text.is_empty()).then_some(line)
}

/// True for the mark of a note behind a word: raised, small, and no letter.
fn is_mark(word: &Run, run: &Run) -> bool {
    let is_figure = |c: char| c.is_ascii_digit() || matches!(c, '*' | '†' | '‡' | '§' | '¶' | ',' | '[' | ']' | ' ');
    run.size <= 0.85 * word.size
        && run.y < word.y - 0.15 * word.size
        && run.text.chars().all(is_figure)
        && word.text.trim_end().chars().next_back().is_some_and(|c| !c.is_ascii_digit())
        // A single letter with a figure is a formula's.
        && word.text.split_whitespace().next_back().is_some_and(|last| last.chars().nth(1).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn run(text: &str, x: f32, y: f32, size: f32) -> Run {
        let x1 = x + text.chars().count() as f32 * size * 0.5;
        Run { text: text.to_owned(), x0: x, x1, y, size, turn: 0, is_fixed: false, is_artifact: false }
    }

    fn texts(runs: Vec<Run>) -> Vec<String> {
        lines(runs, 0).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn rows_are_read_from_the_left() {
        let runs = vec![run("c", 0.0, 12.0, 10.0), run("b", 30.0, 0.2, 10.0), run("a", 0.0, 0.0, 10.0)];
        assert_eq!(texts(runs), ["a b", "c"]);
    }

    #[test]
    fn raised_figures_stay_on_their_line_and_off_their_word() {
        let runs = vec![run("word", 0.0, 0.0, 10.0), run("12", 20.0, -4.0, 7.0), run("next", 30.0, 0.0, 10.0)];
        assert_eq!(texts(runs), ["word 12 next"]);
        assert_eq!(texts(vec![run("H", 0.0, 0.0, 10.0), run("2", 5.0, 2.0, 7.0), run("O", 8.5, 0.0, 10.0)]), ["H2O"]);
    }

    #[test]
    fn a_line_that_sticks_out_moves_no_edge() {
        let ends = [100.0, 100.5, 60.0, 99.8, 130.0];
        let runs =
            ends.iter().enumerate().map(|(at, end)| Run { x1: *end, ..run("text", 0.0, 12.0 * at as f32, 10.0) });
        assert!(lines(runs.collect(), 0).iter().all(|line| line.right == 100.5));
    }

    #[test]
    fn an_initial_begins_its_first_line() {
        let mut runs: Vec<Run> = ["nce upon a time", "there was a page", "and so it went"]
            .iter()
            .enumerate()
            .map(|(at, text)| run(text, 20.0, at as f32 * 12.0, 10.0))
            .collect();
        runs.push(Run { x1: 19.5, ..run("O", 0.0, 16.8, 34.0) });
        assert_eq!(texts(runs)[0], "Once upon a time");
    }
}
