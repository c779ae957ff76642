//! The reading order of a page: columns, one after the other, between what runs across them. Pure. Must never lose a
//! run, or take the cells of a table for columns of text.

use super::lines::{self, Line};
use super::runs::Run;

/// Columns inside columns.
const MAX_DEPTH: usize = 4;
/// A column of text has at least so many lines.
const MIN_LINES: usize = 5;
/// Letters of an average line of a column; cells have fewer.
const MIN_LETTERS: f32 = 14.0;
/// How much of its column's width an average line fills; cells are ragged.
const MIN_FILL: f32 = 0.5;
/// A gutter's width, in ems.
const GUTTER: f32 = 0.7;
/// Bins across a region in the search for gutters.
const BINS: usize = 400;

/// The lines of a page in reading order. What is turned against the page's direction comes last.
pub fn order(runs: Vec<Run>) -> Vec<Line> {
    let mut by_turn: [Vec<Run>; 4] = Default::default();
    for run in runs {
        by_turn[usize::from(run.turn % 4)].push(run);
    }
    let letters = |runs: &Vec<Run>| runs.iter().map(|run| run.text.len()).sum::<usize>();
    let main = (0..4).max_by_key(|turn| (letters(&by_turn[*turn]), 4 - turn)).unwrap_or(0);
    let mut out = Vec::new();
    let mut column = 0;
    for at in [main, 0, 1, 2, 3] {
        let from = out.len();
        region(std::mem::take(&mut by_turn[at]), 0, &mut column, &mut out);
        for line in &mut out[from..] {
            line.is_turned = at != main;
        }
    }
    out
}

fn region(runs: Vec<Run>, depth: usize, column: &mut usize, out: &mut Vec<Line>) {
    if runs.is_empty() {
        return;
    }
    let gutter = if depth < MAX_DEPTH { gutter(&runs) } else { None };
    let Some(gutter) = gutter else {
        out.extend(lines::lines(runs, *column));
        *column += 1;
        return;
    };
    for band in bands(runs, gutter) {
        match band {
            Band::Across(runs) => {
                out.extend(lines::lines(runs, *column));
                *column += 1;
            }
            Band::Sides(left, right) => {
                region(left, depth + 1, column, out);
                region(right, depth + 1, column, out);
            }
        }
    }
}

enum Band {
    Across(Vec<Run>),
    Sides(Vec<Run>, Vec<Run>),
}

/// Cuts a region into what crosses the gutter and what stands beside it, from top to bottom.
fn bands(mut runs: Vec<Run>, gutter: f32) -> Vec<Band> {
    runs.sort_by(|a, b| a.y.total_cmp(&b.y));
    let crosses = |run: &Run| run.x0 < gutter - 0.2 * run.size && run.x1 > gutter + 0.2 * run.size;
    // Whatever shares a row with a crossing run is of that row.
    let rows: Vec<(f32, f32)> = runs.iter().filter(|run| crosses(run)).map(|run| (run.y, run.size)).collect();
    let mut bands: Vec<Band> = Vec::new();
    let mut from = 0;
    for run in runs {
        while rows.get(from).is_some_and(|(y, size)| *y < run.y - 0.6 * size.max(run.size)) {
            from += 1;
        }
        let near = rows[from..].iter().take_while(|(y, size)| *y <= run.y + 0.6 * size.max(run.size));
        let is_across = crosses(&run) || near.into_iter().any(|(y, size)| (y - run.y).abs() < 0.5 * size.min(run.size));
        match (bands.last_mut(), is_across) {
            (Some(Band::Across(runs)), true) => runs.push(run),
            (_, true) => bands.push(Band::Across(vec![run])),
            (Some(Band::Sides(left, right)), false) => {
                if run.x0 < gutter && run.x1 <= gutter + 0.2 * run.size { left } else { right }.push(run)
            }
            (_, false) => {
                let is_left = run.x0 < gutter && run.x1 <= gutter + 0.2 * run.size;
                let (left, right) = if is_left { (vec![run], vec![]) } else { (vec![], vec![run]) };
                bands.push(Band::Sides(left, right));
            }
        }
    }
    bands
}

/// Where two columns of text part, if the region has any.
fn gutter(runs: &[Run]) -> Option<f32> {
    let body = lines::body_size(runs);
    let left = runs.iter().map(|run| run.x0).fold(f32::MAX, f32::min);
    let right = runs.iter().map(|run| run.x1).fold(f32::MIN, f32::max);
    let width = right - left;
    if runs.len() < 2 * MIN_LINES || width < 20.0 * body || !width.is_finite() {
        return None;
    }
    let step = width / BINS as f32;
    let bin = |x: f32| (((x - left) / step) as usize).min(BINS - 1);
    // Height of text over every bin, by differences.
    let mut changes = vec![0.0f32; BINS + 1];
    for run in runs {
        changes[bin(run.x0)] += run.size;
        changes[bin(run.x1)] -= run.size;
    }
    let mut covered = Vec::with_capacity(BINS);
    let mut height = 0.0;
    for change in &changes[..BINS] {
        height += change;
        covered.push(height);
    }
    let mut sorted = covered.clone();
    sorted.sort_by(f32::total_cmp);
    let usual = sorted[BINS / 2];
    let mut best: Option<(f32, f32)> = None;
    let mut at = BINS / 8;
    while at < BINS * 7 / 8 {
        if covered[at] > 0.35 * usual {
            at += 1;
            continue;
        }
        let from = at;
        while at < BINS && covered[at] <= 0.35 * usual {
            at += 1;
        }
        let (x0, x1) = (left + from as f32 * step, left + at as f32 * step);
        if x1 - x0 < GUTTER * body {
            continue;
        }
        let middle = (x0 + x1) / 2.0;
        let least = covered[from..at].iter().copied().fold(f32::MAX, f32::min);
        let score = (x1 - x0).min(4.0 * body) - least / body;
        if best.is_none_or(|(known, _)| score > known)
            && is_text(runs, |run| run.x1 <= middle)
            && is_text(runs, |run| run.x0 >= middle)
        {
            best = Some((score, middle));
        }
    }
    best.map(|(_, x)| x)
}

/// True where a side looks like a column of text: enough lines, long ones, and most of them full.
fn is_text(runs: &[Run], is_side: impl Fn(&Run) -> bool) -> bool {
    let mut rows: Vec<(f32, f32, f32, usize)> = Vec::new();
    let mut side: Vec<&Run> = runs.iter().filter(|run| is_side(run)).collect();
    side.sort_by(|a, b| a.y.total_cmp(&b.y));
    for run in side {
        match rows.last_mut() {
            Some(row) if (row.0 - run.y).abs() < 0.5 * run.size => {
                row.1 = row.1.min(run.x0);
                row.2 = row.2.max(run.x1);
                row.3 += run.text.chars().count();
            }
            _ => rows.push((run.y, run.x0, run.x1, run.text.chars().count())),
        }
    }
    if rows.len() < MIN_LINES {
        return false;
    }
    let x0 = rows.iter().map(|row| row.1).fold(f32::MAX, f32::min);
    let x1 = rows.iter().map(|row| row.2).fold(f32::MIN, f32::max);
    let count = rows.len() as f32;
    let fill = rows.iter().map(|row| (row.2 - row.1) / (x1 - x0)).sum::<f32>() / count;
    let letters = rows.iter().map(|row| row.3).sum::<usize>() as f32 / count;
    // Languages that write no spaces say as much with a third of the letters.
    let wide = runs.iter().any(|run| run.text.chars().any(super::join::is_cjk));
    fill >= MIN_FILL && letters >= if wide { MIN_LETTERS / 3.0 } else { MIN_LETTERS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, x: f32, y: f32) -> Run {
        let x1 = x + text.chars().count() as f32 * 5.0;
        Run { text: text.to_owned(), x0: x, x1, y, size: 10.0, turn: 0, is_fixed: false, is_artifact: false }
    }

    fn texts(runs: Vec<Run>) -> Vec<String> {
        order(runs).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn columns_are_read_one_after_the_other_between_what_crosses_them() {
        let mut runs = vec![run("a title that runs across both of the columns below", 20.0, 0.0)];
        for line in 0..6 {
            let y = 20.0 + 12.0 * line as f32;
            runs.push(run(&format!("left line number {line}...."), 0.0, y));
            runs.push(run(&format!("right line number {line}..."), 140.0, y));
        }
        let texts = texts(runs);
        assert!(texts[0].starts_with("a title"));
        assert!(texts[1..7].iter().all(|text| text.starts_with("left")), "{texts:?}");
        assert!(texts[7..].iter().all(|text| text.starts_with("right")), "{texts:?}");
    }

    #[test]
    fn tables_are_read_row_by_row() {
        let mut runs = Vec::new();
        for line in 0..8 {
            let y = 12.0 * line as f32;
            runs.extend([run("name", 0.0, y), run("12.5", 120.0, y), run("some words", 200.0, y)]);
        }
        assert_eq!(texts(runs)[0], "name 12.5 some words");
    }

    #[test]
    fn no_run_is_lost() {
        let runs: Vec<Run> = (0..500).map(|at| run("word", (at * 37 % 500) as f32, (at * 91 % 700) as f32)).collect();
        let words: usize = texts(runs).iter().map(|line| line.matches("word").count()).sum();
        assert!(words > 480, "{words}");
    }
}
