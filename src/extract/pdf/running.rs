//! Headers, footers and page numbers: lines that stand at the same place of many pages and say the same, or count.
//! Pure. Must never take a line of the text for one: what is not clearly repeated stays.

use std::collections::HashMap;

use super::lines::Line;

/// Lines from either edge that are looked at.
const EDGE_LINES: usize = 3;
/// The part of a page's height, at either edge, where they stand.
const EDGE: f32 = 0.16;
/// Pages that must carry a line.
const MIN_PAGES: usize = 3;
/// Points that a line may stand higher or lower on another page.
const SAME_PLACE: f32 = 3.0;
/// Numbers of one line that are tried as its page's.
const MAX_NUMBERS: usize = 4;
/// A header is not larger than so many times the text.
const LARGEST: f32 = 1.25;

/// One page's lines, in reading order.
#[derive(Debug, Default)]
pub struct PageLines {
    pub lines: Vec<Line>,
    pub height: f32,
}

/// A line near an edge.
struct Candidate {
    page: usize,
    line: usize,
    is_top: bool,
    place: i32,
    key: String,
    numbers: Vec<i64>,
    /// Nothing but a number.
    is_bare: bool,
    is_sentence: bool,
}

/// Takes the running lines out of the pages and returns them, with the page of each.
pub fn remove(pages: &mut [PageLines], body: f32) -> Vec<(usize, Line)> {
    let candidates: Vec<Candidate> =
        pages.iter().enumerate().flat_map(|(number, page)| candidates(number, page, LARGEST * body)).collect();
    let offsets = offsets(&candidates);
    // How often a key stands at a place, on how many different pages.
    let mut repeated: HashMap<(bool, i32, &str), Vec<usize>> = HashMap::new();
    for candidate in &candidates {
        for place in candidate.place - 1..=candidate.place + 1 {
            let pages = repeated.entry((candidate.is_top, place, &candidate.key)).or_default();
            if pages.last() != Some(&candidate.page) {
                pages.push(candidate.page);
            }
        }
    }
    let enough = (pages.len() / 4).clamp(MIN_PAGES, 2 * MIN_PAGES);
    let is_counted = |candidate: &Candidate| {
        let offset = |number: &i64| (candidate.is_top, candidate.place, number - candidate.page as i64);
        let pages = candidate.numbers.iter().filter_map(|number| offsets.get(&offset(number))).max();
        // Notes count, too, and may keep step with the pages for a while; they stand below, and are sentences.
        let is_safe = |pages: usize| candidate.is_top || pages >= enough;
        pages.is_some_and(|pages| candidate.is_bare || (is_safe(*pages) && !candidate.is_sentence))
    };
    let is_repeated = |candidate: &Candidate| {
        let on = &repeated[&(candidate.is_top, candidate.place, candidate.key.as_str())];
        // A chapter's header is on its pages only: neighbours within reach of one another (two sides alternate).
        // In the order of the pages, so that a long book costs no more a page than a short one.
        let until = |page: usize| on.partition_point(|on| *on < page);
        let near = until(candidate.page + 5) - until(candidate.page.saturating_sub(4));
        near >= MIN_PAGES && !candidate.key.is_empty()
    };
    let mut verdicts: Vec<bool> = candidates
        .iter()
        .map(|candidate| match candidate.is_bare {
            true => is_counted(candidate),
            false => is_repeated(candidate) || is_counted(candidate),
        })
        .collect();
    // Where most pages have a running line, the line at that place is one on the others, too, if it says what some
    // other does (a section's title over its last page) and there is text besides.
    let mut places: HashMap<(bool, i32), usize> = HashMap::new();
    for (candidate, _) in candidates.iter().zip(&verdicts).filter(|(_, verdict)| **verdict) {
        *places.entry((candidate.is_top, candidate.place)).or_default() += 1;
    }
    for (candidate, verdict) in candidates.iter().zip(&mut verdicts) {
        let twice = repeated[&(candidate.is_top, candidate.place, candidate.key.as_str())].len() >= 2;
        let usual = places.get(&(candidate.is_top, candidate.place)).is_some_and(|count| *count * 5 >= pages.len() * 2);
        *verdict |= usual && twice && !candidate.is_bare;
    }
    keep_what_stands_inside(&candidates, &mut verdicts);
    let mut removed = Vec::new();
    let mut judged = candidates.iter().zip(&verdicts).peekable();
    for (number, page) in pages.iter_mut().enumerate() {
        let mut gone: Vec<usize> = (0..page.lines.len()).filter(|at| page.lines[*at].is_artifact).collect();
        while let Some((candidate, verdict)) = judged.next_if(|(candidate, _)| candidate.page == number) {
            gone.extend(verdict.then_some(candidate.line));
        }
        gone.sort_unstable();
        gone.dedup();
        for at in gone.into_iter().rev() {
            removed.push((number, page.lines.remove(at)));
        }
    }
    removed.sort_by_key(|(page, _)| *page);
    removed
}

/// A line is no header while one above it, which is none, stands nearer to the edge. Candidates are in the order from
/// the edge inwards.
fn keep_what_stands_inside(candidates: &[Candidate], verdicts: &mut [bool]) {
    let mut kept: Option<(usize, bool, i32)> = None;
    for (candidate, verdict) in candidates.iter().zip(verdicts) {
        let Candidate { page, is_top, place, .. } = *candidate;
        let is_inside = kept.is_some_and(|(on, top, at)| on == page && top == is_top && at.abs_diff(place) > 1);
        if is_inside {
            *verdict = false;
        } else if !*verdict {
            kept = Some((page, is_top, place));
        }
    }
}

/// The lines near a page's edges that nothing stands beyond but others of them.
fn candidates(number: usize, page: &PageLines, largest: f32) -> Vec<Candidate> {
    let mut order: Vec<usize> = (0..page.lines.len()).filter(|at| !page.lines[*at].is_turned).collect();
    order.sort_by(|a, b| page.lines[*a].y.total_cmp(&page.lines[*b].y));
    let mut found = Vec::new();
    let mut add = |at: usize, is_top: bool| {
        let line = &page.lines[at];
        let edge = EDGE * page.height;
        if (is_top && line.y > edge) || (!is_top && line.y < page.height - edge) || line.size > largest {
            return;
        }
        let (key, numbers) = key(&line.text);
        let is_bare = key.chars().all(|c| !c.is_alphanumeric());
        let is_sentence = line.text.ends_with(['.', '!', '?', ',', ';', '-', '。']);
        let place = (line.y / SAME_PLACE).round() as i32;
        found.push(Candidate { page: number, line: at, is_top, place, key, numbers, is_bare, is_sentence });
    };
    // Header and number may stand on one row in two columns.
    let top = order.iter().take(EDGE_LINES);
    let bottom = order.iter().rev().take(EDGE_LINES.min(order.len().saturating_sub(EDGE_LINES)));
    top.for_each(|at| add(*at, true));
    bottom.for_each(|at| add(*at, false));
    found
}

/// A line's text to compare, and the numbers in it that may be its page's.
fn key(text: &str) -> (String, Vec<i64>) {
    let is_border = |c: char| c.is_whitespace() || matches!(c, '/' | '|' | '-' | '–' | '—' | '·' | '•' | ':');
    let words: Vec<&str> = text.split(is_border).filter(|word| !word.is_empty()).collect();
    let mut numbers = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_edge = at == 0 || at + 1 == words.len();
        let number = if word.len() > 6 { None } else { word.parse().ok() };
        numbers.extend(number.or_else(|| if is_edge { roman(word) } else { None }));
    }
    numbers.truncate(MAX_NUMBERS);
    if words.len() == 1 && !numbers.is_empty() {
        return (String::new(), numbers);
    }
    (text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect(), numbers)
}

fn roman(text: &str) -> Option<i64> {
    let text = text.to_ascii_lowercase();
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    let values: Option<Vec<i64>> = text
        .chars()
        .map(|c| {
            Some(match c {
                'i' => 1,
                'v' => 5,
                'x' => 10,
                'l' => 50,
                'c' => 100,
                _ => return None,
            })
        })
        .collect();
    let values = values?;
    let signed = values.iter().enumerate().map(|(at, value)| match values.get(at + 1) {
        Some(next) if next > value => -value,
        _ => *value,
    });
    Some(signed.sum())
}

/// The differences between a page's printed number and its place in the file that hold, at one place of the page, for
/// several pages near one another, and for how many.
fn offsets(candidates: &[Candidate]) -> HashMap<(bool, i32, i64), usize> {
    let mut pages: HashMap<(bool, i32, i64), Vec<usize>> = HashMap::new();
    for candidate in candidates {
        for number in &candidate.numbers {
            for place in candidate.place - 1..=candidate.place + 1 {
                let offset = (candidate.is_top, place, number - candidate.page as i64);
                pages.entry(offset).or_default().push(candidate.page);
            }
        }
    }
    let mut found = HashMap::new();
    for (offset, mut on) in pages {
        on.dedup();
        if on.windows(MIN_PAGES).any(|near| near[MIN_PAGES - 1] - near[0] <= 2 * MIN_PAGES) {
            found.insert(offset, on.len());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, y: f32) -> Line {
        Line { text: text.to_owned(), y, size: 10.0, x1: 100.0, right: 100.0, ..Line::default() }
    }

    fn book(pages: usize, edges: impl Fn(usize) -> (String, String)) -> Vec<PageLines> {
        (0..pages)
            .map(|at| {
                let (header, footer) = edges(at);
                let mut lines = vec![line(&header, 40.0)];
                lines.extend((0..20).map(|row| {
                    line(&format!("text {} of it", (row * 31 + at * at * 17) % 97), 100.0 + 20.0 * row as f32)
                }));
                lines.push(line(&footer, 760.0));
                lines.retain(|line| !line.text.is_empty());
                PageLines { lines, height: 800.0 }
            })
            .collect()
    }

    #[test]
    fn headers_and_numbers_go() {
        let mut pages = book(12, |at| match at % 2 {
            0 => (format!("{} The Book", at + 5), String::new()),
            _ => (format!("Chapter {} {}", at / 6, at + 5), String::new()),
        });
        let removed = remove(&mut pages, 10.0);
        assert_eq!(removed.len(), 12, "{removed:?}");
        assert!(pages.iter().all(|page| page.lines.len() == 20));
        let mut pages = book(6, |at| ("A Title".to_owned(), ["i", "ii", "iii", "iv", "v", "vi"][at].to_owned()));
        assert_eq!(remove(&mut pages, 10.0).len(), 12);
    }

    #[test]
    fn text_stays() {
        let mut pages =
            book(6, |at| (["Alpha", "Beta", "Gamma", "Delta", "Eps", "Zeta"][at].to_owned(), String::new()));
        assert_eq!(remove(&mut pages, 10.0).len(), 0);
        // Numbers that do not count.
        let mut pages = book(6, |at| (String::new(), [7, 3, 9, 1, 4, 4][at].to_string()));
        assert_eq!(remove(&mut pages, 10.0).len(), 0);
        assert_eq!(remove(&mut book(2, |at| ("Header".to_owned(), at.to_string())), 10.0).len(), 0);
    }
}
