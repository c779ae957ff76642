//! Glyphs to runs: stretches of text on one baseline, in one size, without a gap, with the spaces that the page only
//! shows. Pure. Must never drop a glyph but the copies that thicken a letter.

use super::content::Shown;

/// A gap of this many ems parts words (poppler's figure is 0.1; loose kerning reaches that).
pub const WORD_GAP: f32 = 0.13;
/// A gap of this many ems ends a run: it may be a column's edge.
const RUN_GAP: f32 = 0.9;
/// Glyphs may step back so many ems: kerning, accents.
const STEP_BACK: f32 = 0.6;
/// Baselines this near, in ems, are one.
const SAME_BASELINE: f32 = 0.1;
/// Runs of one page; the rest of a page with more is not looked at.
const MAX_RUNS: usize = 400_000;

/// Which way a run's text goes on the page, in quarter turns clockwise.
pub type Turn = u8;

/// A stretch of text. Coordinates are in the frame of its turn: x along the text, y across it, downwards.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub text: String,
    pub x0: f32,
    pub x1: f32,
    /// Of the baseline.
    pub y: f32,
    pub size: f32,
    pub turn: Turn,
    /// All its glyphs are equally wide.
    pub is_fixed: bool,
    pub is_artifact: bool,
}

impl Run {
    /// Has text besides spaces.
    pub fn is_visible(&self) -> bool {
        !self.text.trim().is_empty()
    }
}

/// Builds the runs of a page.
#[derive(Debug, Default)]
pub struct Runs {
    runs: Vec<Run>,
    open: Option<Run>,
    /// Width of every glyph of the open run, in ems; 0 while none is known, negative where they differ.
    width: f32,
    glyphs: usize,
    /// The last glyph: where it begins, and what it shows.
    last: Option<(f32, char)>,
    /// An accent waiting for its letter, or the letter an accent may still come for.
    accent: Option<(char, f32, f32, f32)>,
}

impl Runs {
    /// Takes the next glyph in the order of the content.
    pub fn push(&mut self, shown: Shown<'_>) {
        if self.runs.len() >= MAX_RUNS {
            return;
        }
        let turn = turn(&shown);
        let (x, y) = into_frame(turn, shown.x, shown.y);
        let (end, _) = into_frame(turn, shown.x + shown.dx, shown.y + shown.dy);
        let (x0, x1) = (x.min(end), x.max(end));
        let size = shown.size;
        if shown.text.is_empty() {
            return;
        }
        let continues = self.open.as_ref().is_some_and(|run| {
            run.turn == turn
                && run.is_artifact == shown.is_artifact
                && (run.y - y).abs() < SAME_BASELINE * size
                && (run.size - size).abs() < 0.05 * size
                && x0 - run.x1 < RUN_GAP * size
                && x0 - run.x1 > -STEP_BACK * size
                && x0 >= run.x0
        });
        if self.put_accent(shown.text, turn, x0, x1, y, size) {
            return;
        }
        if !continues {
            self.close();
            self.width = 0.0;
            self.glyphs = 0;
            self.last = None;
            self.open = Some(Run {
                text: String::new(),
                x0,
                x1: x0,
                y,
                size,
                turn,
                is_fixed: false,
                is_artifact: shown.is_artifact,
            });
        }
        let Some(run) = &mut self.open else { return };
        // The same glyph again, a hair's breadth away: poor men's bold.
        let first = shown.text.chars().next();
        if let Some((at, c)) = self.last
            && (at - x0).abs() < 0.1 * size
            && Some(c) == first
            && !c.is_whitespace()
        {
            return;
        }
        if x0 - run.x1 > WORD_GAP * size && !run.text.is_empty() && !run.text.ends_with(' ') {
            run.text.push(' ');
        }
        if shown.text.chars().all(char::is_whitespace) {
            if run.text.is_empty() {
                // The gap before the run tells of it.
                run.x0 = x1;
            } else if !run.text.ends_with(' ') {
                run.text.push(' ');
            }
        } else {
            if shown.text.chars().nth(1).is_some() && shown.text.chars().any(super::bidi::is_rtl) {
                // The line is put in logical order later, letter by letter.
                run.text.extend(shown.text.chars().rev());
            } else {
                run.text.push_str(shown.text);
            }
            let width = (x1 - x0) / size;
            self.glyphs += 1;
            self.width = match self.width {
                0.0 => width,
                known if (known - width).abs() < 0.01 => known,
                _ => -1.0,
            };
            self.last = first.map(|c| (x0, c));
        }
        run.x1 = run.x1.max(x1);
        run.is_fixed = self.glyphs >= 3 && self.width > 0.3 && self.width < 0.85;
    }

    /// Puts an accent that is a glyph of its own onto its letter, as TeX's older fonts have it. True where the glyph
    /// has found its place that way.
    fn put_accent(&mut self, text: &str, turn: Turn, x0: f32, x1: f32, y: f32, size: f32) -> bool {
        let mut chars = text.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else {
            self.accent = None;
            return false;
        };
        if let Some(mark) = combining(c) {
            // The letter may stand before it already: a cedilla comes after.
            if let (Some(run), Some((at, letter))) = (&mut self.open, self.last)
                && run.turn == turn
                && letter.is_alphabetic()
                && (at..run.x1 - 0.05 * size).contains(&((x0 + x1) / 2.0))
                && (run.y - y).abs() < 0.4 * size
            {
                run.text.push(mark);
                return true;
            }
            self.accent = Some((mark, x0, x1, y));
            return false;
        }
        let Some((mark, from, to, height)) = self.accent.take() else { return false };
        let middle = (from + to) / 2.0;
        if !c.is_alphabetic() || middle < x0 || middle > x1 || (height - y).abs() > 0.4 * size {
            return false;
        }
        // Take the accent back: it is the last character of the open run.
        if let Some(run) = &mut self.open
            && run.text.chars().next_back().and_then(combining) == Some(mark)
        {
            run.text.pop();
            let letter = match c {
                'ı' => 'i',
                'ȷ' => 'j',
                c => c,
            };
            if (run.y - y).abs() > SAME_BASELINE * size || (run.size - size).abs() > 0.05 * size {
                let rest = run.text.trim_end().to_owned();
                let is_artifact = run.is_artifact;
                run.text = rest;
                self.close();
                self.width = -1.0;
                self.glyphs = 1;
                self.open = Some(Run { text: String::new(), x0, x1, y, size, turn, is_fixed: false, is_artifact });
            }
            if let Some(run) = &mut self.open {
                if x0 - run.x1 > WORD_GAP * size && !run.text.is_empty() && !run.text.ends_with(' ') {
                    run.text.push(' ');
                }
                run.text.push(letter);
                run.text.push(mark);
                run.x1 = run.x1.max(x1);
                self.last = Some((x0, letter));
            }
            return true;
        }
        false
    }

    fn close(&mut self) {
        if let Some(run) = self.open.take()
            && run.is_visible()
        {
            self.runs.push(run);
        }
    }

    pub fn finish(mut self) -> Vec<Run> {
        self.close();
        self.runs
    }
}

/// The direction of a glyph's text, to the nearest quarter turn. Vertical writing is turned by one: its lines go down,
/// and follow one another to the left.
fn turn(shown: &Shown<'_>) -> Turn {
    if shown.vertical {
        return 1;
    }
    match (shown.dx.abs() >= shown.dy.abs(), shown.dx >= 0.0, shown.dy >= 0.0) {
        (true, true, _) => 0,
        (false, _, true) => 1,
        (true, false, _) => 2,
        (false, _, false) => 3,
    }
}

/// A place on the page in the frame of a turn.
pub fn into_frame(turn: Turn, x: f32, y: f32) -> (f32, f32) {
    match turn {
        1 => (y, -x),
        2 => (-x, -y),
        3 => (-y, x),
        _ => (x, y),
    }
}

fn combining(accent: char) -> Option<char> {
    Some(match accent {
        '`' | '\u{2cb}' => '\u{300}',
        '´' | '\u{2ca}' => '\u{301}',
        'ˆ' => '\u{302}',
        '˜' => '\u{303}',
        '¯' | 'ˉ' => '\u{304}',
        '˘' => '\u{306}',
        '˙' => '\u{307}',
        '¨' => '\u{308}',
        '˚' => '\u{30a}',
        '˝' => '\u{30b}',
        'ˇ' => '\u{30c}',
        '¸' => '\u{327}',
        '˛' => '\u{328}',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn glyph(text: &str, x: f32, y: f32, dx: f32) -> Shown<'_> {
        Shown { text, x, y, dx, dy: 0.0, size: 10.0, vertical: false, is_artifact: false }
    }

    fn texts(shown: &[Shown<'_>]) -> Vec<String> {
        let mut runs = Runs::default();
        shown.iter().for_each(|shown| runs.push(*shown));
        runs.finish().into_iter().map(|run| run.text).collect()
    }

    #[test]
    fn gaps_part_words_and_runs() {
        let shown = [glyph("a", 0.0, 0.0, 5.0), glyph("b", 5.5, 0.0, 5.0), glyph("c", 13.0, 0.0, 5.0)];
        assert_eq!(texts(&shown), ["ab c"]);
        assert_eq!(texts(&[shown[0], glyph("d", 40.0, 0.0, 5.0), glyph("e", 0.0, 12.0, 5.0)]), ["a", "d", "e"]);
    }

    #[test]
    fn a_space_at_a_runs_edge_is_a_gap() {
        let mut runs = Runs::default();
        let shown = [glyph(" ", 10.0, 0.0, 3.0), glyph("a", 13.0, 0.0, 5.0), glyph(" ", 18.0, 0.0, 3.0)];
        shown.iter().for_each(|shown| runs.push(*shown));
        let run = &runs.finish()[0];
        assert_eq!((run.text.as_str(), run.x0, run.x1), ("a ", 13.0, 21.0));
    }

    #[test]
    fn thickened_letters_are_read_once() {
        let shown = [glyph("l", 0.0, 0.0, 3.0), glyph("l", 0.3, 0.0, 3.0), glyph("l", 3.0, 0.0, 3.0)];
        assert_eq!(texts(&shown), ["ll"]);
    }

    #[test]
    fn accents_join_their_letters() {
        let before = [glyph("n", 0.0, 0.0, 5.0), glyph("´", 5.5, 0.0, 4.0), glyph("e", 5.0, 0.0, 5.0)];
        assert_eq!(texts(&before), ["ne\u{301}"]);
        let raised = [glyph("ˇ", 0.5, -2.0, 4.0), glyph("S", 0.0, 0.0, 5.0), glyph("u", 5.0, 0.0, 5.0)];
        assert_eq!(texts(&raised), ["S\u{30c}u"]);
        let after = [glyph("c", 0.0, 0.0, 5.0), glyph("¸", 0.5, 0.0, 4.0), glyph("a", 5.0, 0.0, 5.0)];
        assert_eq!(texts(&after), ["c\u{327}a"]);
        let narrow = [glyph("a", 0.0, 0.0, 5.0), glyph("´", 3.9, 0.0, 5.0), glyph("ı", 5.0, 0.0, 2.8)];
        assert_eq!(texts(&narrow), ["ai\u{301}"]);
        let alone = [glyph("a", 0.0, 0.0, 5.0), glyph("´", 5.0, 0.0, 3.0), glyph("b", 8.0, 0.0, 5.0)];
        assert_eq!(texts(&alone), ["a´b"]);
    }

    #[test]
    fn turned_text_has_a_frame_of_its_own() {
        let mut runs = Runs::default();
        for (text, y) in [("a", 50.0), ("b", 45.0)] {
            runs.push(Shown { text, x: 7.0, y, dx: 0.0, dy: -5.0, size: 10.0, vertical: false, is_artifact: false });
        }
        let runs = runs.finish();
        assert_eq!((runs[0].text.as_str(), runs[0].turn, runs[0].x0, runs[0].y), ("ab", 3, -50.0, 7.0));
    }
}
