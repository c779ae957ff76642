//! Lines in reading order to the document's text: paragraphs apart by a blank line, their lines joined. Pure. Must
//! never leave out a line, whatever it takes for a border.

use super::join::{self, Vocabulary};
use super::lines::Line;
use super::running::PageLines;

/// A first line is set in by at least so many ems.
const INDENT: f32 = 0.8;
/// Sizes that differ by more than this part are of different texts.
const SAME_SIZE: f32 = 0.08;
/// A gap of this many times the usual distance of lines parts paragraphs.
const GAP: f32 = 1.35;
/// A line that fills this part of its column is long.
const LONG: f32 = 0.7;
/// Notes are this much smaller than the text.
const NOTE_SIZE: f32 = 0.93;

/// Where a section begins: the line, by its page and number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineAt {
    pub page: usize,
    pub line: usize,
}

/// The document's text, and where in it, in bytes, each of the `marks` begins, which are in order.
pub fn text(pages: &[PageLines], marks: &[LineAt], words: &Vocabulary, body: f32) -> (String, Vec<usize>) {
    let leading = Leading { distance: usual_distance(pages), body };
    let mut writer = Writer { text: String::new(), words, leading, last: None, notes: Vec::new() };
    let mut offsets = Vec::with_capacity(marks.len());
    let mut marks = marks.iter().peekable();
    for (number, page) in pages.iter().enumerate() {
        let notes = notes_from(page, writer.leading.body);
        for (at, line) in page.lines.iter().enumerate() {
            let mut begins = false;
            while marks.next_if(|mark| **mark <= LineAt { page: number, line: at }).is_some() {
                if !begins {
                    writer.begin_section();
                }
                begins = true;
                offsets.push(writer.text.len() + if writer.text.is_empty() { 0 } else { 2 });
            }
            writer.line(line, number, begins, notes.is_some_and(|from| at >= from));
        }
        writer.end_page();
    }
    writer.begin_section();
    offsets.extend(marks.map(|_| writer.text.len()));
    (writer.text, offsets)
}

struct Leading {
    /// From line to line, usually, in ems.
    distance: f32,
    /// The size of most of the text.
    body: f32,
}

fn usual_distance(pages: &[PageLines]) -> f32 {
    let mut distances = [0; 125];
    for pair in pages.iter().flat_map(|page| page.lines.windows(2)) {
        let distance = (pair[1].y - pair[0].y) / pair[0].size.max(0.1);
        if pair[0].column == pair[1].column && (0.8..2.4).contains(&distance) {
            distances[(distance * 50.0) as usize] += pair[1].text.len();
        }
    }
    match distances.iter().enumerate().max_by_key(|(_, weight)| **weight) {
        Some((distance, weight)) if *weight > 0 => (distance as f32 + 0.5) / 50.0,
        _ => 1.2,
    }
}

/// The first line of the notes at a page's foot.
fn notes_from(page: &PageLines, body: f32) -> Option<usize> {
    let small = page.lines.iter().rev().take_while(|line| line.size < NOTE_SIZE * body && line.size > 0.5 * body);
    let from = page.lines.len() - small.count();
    let first = page.lines.get(from)?;
    // Something stands before it, and it begins as a note does.
    let begins = first.text.chars().next().is_some_and(|c| c.is_ascii_digit() || matches!(c, '*' | '†' | '‡' | '['));
    (from > 0 && begins && first.y > 0.4 * page.height).then_some(from)
}

/// What stands between two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Border {
    None,
    Line,
    Paragraph,
}

struct Writer<'a> {
    text: String,
    words: &'a Vocabulary,
    leading: Leading,
    last: Option<(Line, usize)>,
    /// The notes of a page, kept until the sentence that runs over its end is whole.
    notes: Vec<String>,
}

impl Writer<'_> {
    fn line(&mut self, line: &Line, page: usize, begins: bool, is_note: bool) {
        if is_note && !begins {
            let starts = line.text.chars().next().is_some_and(|c| c.is_ascii_digit() || matches!(c, '*' | '†' | '‡'));
            match self.notes.last_mut() {
                Some(note) if !starts || line.cells > 0 => join::append(note, &line.text, self.words),
                _ => self.notes.push(line.text.clone()),
            }
            return;
        }
        let border = match &self.last {
            _ if begins => Border::Paragraph,
            None => Border::Paragraph,
            Some((last, on)) if *on == page && last.column == line.column => within(last, line, &self.leading),
            Some((last, _)) => across(last, line),
        };
        if border == Border::Paragraph {
            self.write_notes(page);
        }
        match border {
            _ if self.text.is_empty() => {}
            Border::Paragraph => self.text.push_str("\n\n"),
            Border::Line => self.text.push('\n'),
            Border::None => {}
        }
        if border == Border::None {
            join::append(&mut self.text, &line.text, self.words);
        } else {
            self.text.push_str(&line.text);
        }
        self.last = Some((Line { text: last_part(&line.text), ..line.clone() }, page));
    }

    /// Notes of earlier pages go behind the paragraph that has just ended.
    fn write_notes(&mut self, _page: usize) {
        for note in std::mem::take(&mut self.notes) {
            if !self.text.is_empty() {
                self.text.push_str("\n\n");
            }
            self.text.push_str(&note);
        }
    }

    fn end_page(&mut self) {
        // A paragraph that is whole waits for nothing.
        if self.last.as_ref().is_none_or(|(last, _)| ends_sentence(&last.text)) {
            self.write_notes(0);
            if let Some((last, _)) = &mut self.last {
                // What follows the notes is a paragraph of its own, unless nothing stood between.
                last.x1 = if self.text.ends_with(last.text.as_str()) { last.x1 } else { f32::MIN };
            }
        }
    }

    fn begin_section(&mut self) {
        self.write_notes(0);
    }
}

/// True at the end of an entry of a table of contents: dots up to a page's number.
fn has_leaders(end: &str) -> bool {
    let dots = end.trim_end_matches(|c: char| c.is_alphanumeric()).trim_end();
    dots.ends_with(". .") || dots.ends_with("...")
}

fn last_part(text: &str) -> String {
    let from = text.char_indices().rev().nth(12).map_or(0, |(at, _)| at);
    text[from..].to_owned()
}

/// Between two lines of one column.
fn within(last: &Line, line: &Line, leading: &Leading) -> Border {
    let size = last.size.max(line.size);
    if last.is_turned || line.is_turned {
        return Border::Line;
    }
    let distance = (line.y - last.y) / size;
    // A word goes on, whatever the lines look like.
    let is_parted = last.text.ends_with(['-', '\u{ad}', '\u{2010}']) && begins_small(line) && !last.is_fixed;
    if is_parted && line.cells == 0 && (0.2..2.0 * leading.distance).contains(&distance) {
        return Border::None;
    }
    if distance > GAP * leading.distance || distance < -0.2 {
        return Border::Paragraph;
    }
    if (last.size - line.size).abs() > SAME_SIZE * size {
        return Border::Paragraph;
    }
    if last.is_fixed && line.is_fixed {
        // Prose in a typewriter's font fills its lines; code does not.
        return if fits(last, line) || line.x0 > last.x0 + size { Border::Line } else { Border::None };
    }
    if last.is_fixed != line.is_fixed && (fits(last, line) || (last.x0 - line.x0).abs() > 0.5 * size) {
        return Border::Paragraph;
    }
    if last.cells > 0 || line.cells > 0 || has_leaders(&last.text) {
        return Border::Line;
    }
    if line.x0 > last.x0 + INDENT * size {
        // A list's second line is set in as its text is; a paragraph's first stands out from the column's edge.
        return if is_item(last) && !fits(last, line) { Border::None } else { Border::Paragraph };
    }
    if is_item(line) && (line.x0 < last.x0 + 0.2 * size) {
        return if is_bullet(line) || fits(last, line) { Border::Line } else { Border::None };
    }
    if fits(last, line) {
        return if ends_sentence(&last.text) || last.text.ends_with(':') { Border::Paragraph } else { Border::Line };
    }
    Border::None
}

/// Between the last line of one column or page and the first of the next.
fn across(last: &Line, line: &Line) -> Border {
    let size = last.size.max(line.size);
    if last.is_turned || line.is_turned || (last.size - line.size).abs() > SAME_SIZE * size {
        return Border::Paragraph;
    }
    if last.is_fixed != line.is_fixed || last.x1 == f32::MIN {
        return Border::Paragraph;
    }
    if last.is_fixed {
        return Border::Line;
    }
    let continues = begins_small(line);
    if last.text.ends_with(['-', '\u{ad}', '\u{2010}', ',']) && continues {
        return Border::None;
    }
    if last.cells > 0 || line.cells > 0 || is_item(line) {
        return Border::Paragraph;
    }
    let is_full = last.x1 + first_word(line) >= last.right - 0.5 * size;
    if ends_sentence(&last.text) {
        let is_set_in = line.x0 > line.left + INDENT * size;
        return if is_full && !is_set_in { Border::None } else { Border::Paragraph };
    }
    if continues || (is_full && line.x0 <= line.left + 0.2 * size) { Border::None } else { Border::Paragraph }
}

/// True where the next line's first word would have stood on this one: whoever broke the line meant to. A sentence
/// that goes on in small letters behind a long line is ragged, not broken.
fn fits(last: &Line, line: &Line) -> bool {
    let is_long = last.x1 - last.left > LONG * (last.right - last.left);
    let goes_on = is_long && begins_small(line) && !ends_sentence(&last.text) && !last.is_fixed;
    !goes_on && last.x1 + first_word(line) + 0.6 * last.size < last.right
}

fn begins_small(line: &Line) -> bool {
    line.text.chars().next().is_some_and(char::is_lowercase)
}

/// The width of a line's first word.
fn first_word(line: &Line) -> f32 {
    let all = line.text.chars().count().max(1) as f32;
    let word = line.text.chars().take_while(|c| !c.is_whitespace() && !join::is_cjk(*c)).count().max(1) as f32;
    (line.x1 - line.x0) * word / all
}

fn is_bullet(line: &Line) -> bool {
    let mut chars = line.text.chars();
    let first = chars.next();
    first
        .is_some_and(|c| matches!(c, '•' | '◦' | '▪' | '‣' | '–' | '—' | '-' | '*' | '∗' | '·' | '○' | '●' | '■' | '➢'))
        && chars.next() == Some(' ')
}

/// True for a line that begins as an item of a list does.
fn is_item(line: &Line) -> bool {
    if is_bullet(line) {
        return true;
    }
    let word = line.text.split(' ').next().unwrap_or_default();
    let inner = word.trim_matches(|c| matches!(c, '(' | ')' | '.' | '[' | ']' | ':'));
    inner.len() < word.len()
        && inner.len() <= 4
        && !inner.is_empty()
        && (inner.chars().all(|c| c.is_ascii_digit() || c == '.') || inner.chars().count() == 1)
        && line.text.len() > word.len()
}

fn ends_sentence(text: &str) -> bool {
    let end = text.trim_end_matches(['"', '”', '“', '’', '\'', '»', '«', ')', ']', '」', '』']);
    end.ends_with(['.', '!', '?', '…', '。', '！', '？', '؟', '۔', '।'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, x0: f32, x1: f32, y: f32) -> Line {
        Line { text: text.to_owned(), x0, x1, y, size: 10.0, left: 0.0, right: 200.0, ..Line::default() }
    }

    fn page(lines: Vec<Line>) -> PageLines {
        PageLines { lines, height: 300.0 }
    }

    fn read(pages: &[PageLines]) -> String {
        text(pages, &[], &Vocabulary::default(), 10.0).0
    }

    #[test]
    fn indents_gaps_and_short_lines_part_paragraphs() {
        let lines = vec![
            line("first line of it", 15.0, 200.0, 0.0),
            line("and the second", 0.0, 200.0, 12.0),
            line("the end.", 0.0, 80.0, 24.0),
            line("a new one begins", 0.0, 200.0, 36.0),
            line("Set in here", 15.0, 200.0, 48.0),
            line("after a gap", 0.0, 200.0, 80.0),
        ];
        assert_eq!(
            read(&[page(lines)]),
            "first line of it and the second the end.\n\na new one begins\n\nSet in here\n\nafter a gap"
        );
    }

    #[test]
    fn sentences_run_over_pages_and_their_notes() {
        let mut note = line("1 A note.", 0.0, 80.0, 290.0);
        note.size = 8.0;
        let pages = [
            page(vec![line("a sentence that", 0.0, 200.0, 200.0), line("goes on to the", 0.0, 199.0, 212.0), note]),
            page(vec![line("next page.", 0.0, 80.0, 20.0), line("More.", 15.0, 50.0, 32.0)]),
        ];
        assert_eq!(read(&pages), "a sentence that goes on to the next page.\n\n1 A note.\n\nMore.");
    }

    #[test]
    fn code_keeps_its_lines() {
        let code = |text: &str, x0: f32, y: f32| Line { is_fixed: true, ..line(text, x0, x0 + 50.0, y) };
        let lines = vec![
            line("Like this:", 0.0, 60.0, 0.0),
            code("if x {", 0.0, 14.0),
            code("y();", 20.0, 26.0),
            code("}", 0.0, 38.0),
        ];
        assert_eq!(read(&[page(lines)]), "Like this:\n\nif x {\ny();\n}");
    }

    #[test]
    fn marks_begin_paragraphs() {
        let lines = vec![line("some text that", 0.0, 200.0, 0.0), line("Title", 0.0, 200.0, 12.0)];
        let (text, offsets) = text(&[page(lines)], &[LineAt { page: 0, line: 1 }], &Vocabulary::default(), 10.0);
        assert_eq!((text.as_str(), &text[offsets[0]..]), ("some text that\n\nTitle", "Title"));
    }
}
