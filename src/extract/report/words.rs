//! Words as a multiset, and the comparison of two. Must never decide what becomes of a footnote's mark or of a line's
//! end: where a text may rightly be read in several ways, each of them counts as kept.
//!
//! Four noncharacters stand in the text that the independent count hands over: a mark stands between [`MARK`] and
//! [`MARK_END`] (it may be kept, set apart or left out), [`MAY_SPACE`] is a space that may go with the mark behind it,
//! and [`LINE_HYPHEN`] a hyphen at the end of a line, which may or may not belong to the word.

use std::collections::{BTreeSet, HashMap};

use unicode_normalization::UnicodeNormalization;

use super::{EXAMPLES, Report};

pub const MARK: char = '\u{fdd0}';
pub const MARK_END: char = '\u{fdd1}';
pub const MAY_SPACE: char = '\u{fdd2}';
pub const LINE_HYPHEN: char = '\u{fdd3}';

/// How often each word occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordCounts(pub HashMap<String, usize>);

impl WordCounts {
    /// Counts the words of a text, in Unicode NFKC: a ligature is its letters, a raised digit a digit.
    pub fn add(&mut self, text: &str) {
        let kept: String = text.chars().filter(|c| !skipped(*c)).nfkc().collect();
        for word in kept.split_whitespace() {
            *self.0.entry(word.to_owned()).or_default() += 1;
        }
    }

    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// What `other` lost and doubled of the words counted here.
    pub fn compare(&self, other: &WordCounts) -> Report {
        let wanted = self.as_read_in(other);
        let mut report = Report { words_linear: wanted.total(), words_sections: other.total(), ..Report::default() };
        let words: BTreeSet<&String> = wanted.0.keys().chain(other.0.keys()).collect();
        for word in words {
            let count = |counts: &WordCounts| counts.0.get(word).copied().unwrap_or(0);
            let (wanted, got) = (count(&wanted), count(other));
            if got < wanted {
                report.lost += wanted - got;
                if report.missing_examples.len() < EXAMPLES {
                    report.missing_examples.push(word.clone());
                }
            }
            if got > wanted {
                report.doubled += got - wanted;
                if report.doubled_examples.len() < EXAMPLES {
                    report.doubled_examples.push(word.clone());
                }
            }
        }
        report
    }

    /// The words, each doubtful one in the reading whose words `other` has left over.
    fn as_read_in(&self, other: &WordCounts) -> WordCounts {
        let mut wanted = WordCounts::default();
        let (doubtful, certain): (Vec<_>, Vec<_>) = self.0.iter().partition(|(word, _)| word.contains(is_sign));
        for (word, count) in certain {
            *wanted.0.entry(word.clone()).or_default() += count;
        }
        let doubtful: BTreeSet<_> = doubtful.into_iter().collect();
        for (word, count) in doubtful {
            let readings = readings(word);
            for _ in 0..*count {
                let fits = |reading: &&Vec<String>| {
                    reading.iter().all(|part| {
                        let needed = reading.iter().filter(|other| *other == part).count();
                        let had = wanted.0.get(part).copied().unwrap_or(0);
                        other.0.get(part).is_some_and(|count| *count >= had + needed)
                    })
                };
                let Some(chosen) = readings.iter().find(fits).or(readings.first()) else { continue };
                for part in chosen {
                    *wanted.0.entry(part.clone()).or_default() += 1;
                }
            }
        }
        wanted
    }
}

/// Brackets what was written from `from` on as a footnote's mark, if that is what it looks like.
pub fn bracket_mark(text: &mut String, from: usize) {
    let Some(part) = text.get(from..) else { return };
    let mark = part.trim();
    let letters = mark.chars().filter(|c| c.is_alphabetic()).count();
    let says_mark = |c: char| c.is_alphanumeric() || "*†‡§¶".contains(c);
    if !mark.contains(says_mark) || mark.len() > 16 || letters > usize::from(mark.len() == 1) || mark.contains(is_sign)
    {
        return;
    }
    let start = from + (part.len() - part.trim_start().len());
    let end = start + mark.len();
    text.insert(end, MARK_END);
    text.insert(start, MARK);
}

/// To be called with what follows `text`: the space before a mark may go where no word follows the mark.
pub fn continue_behind_mark(text: &mut String, next: &str) {
    if !text.ends_with(MARK_END) || next.starts_with(|c: char| c.is_whitespace() || c.is_alphanumeric()) {
        return;
    }
    let Some(start) = text.rfind(MARK) else { return };
    let before = text[..start].trim_end();
    if !before.is_empty() && before.len() < start {
        let from = before.len();
        text.replace_range(from..start, &MAY_SPACE.to_string());
    }
}

fn is_sign(c: char) -> bool {
    matches!(c, MARK | MARK_END | MAY_SPACE | LINE_HYPHEN)
}

/// What may become of a mark: whether it is kept, and what stands before and behind it.
const FATES: [(bool, &str, &str); 6] =
    [(true, " ", " "), (true, " ", ""), (true, "", " "), (true, "", ""), (false, " ", ""), (false, "", "")];
/// More marks in one word share a fate.
const MARKS: u32 = 3;

/// The ways to read a doubtful word, those of most words first.
fn readings(word: &str) -> Vec<Vec<String>> {
    let marks = word.chars().filter(|c| *c == MARK).count() as u32;
    let mut readings = BTreeSet::new();
    for choice in 0..FATES.len().pow(marks.clamp(1, MARKS)) {
        for space in [" ", ""] {
            for hyphen in ["- ", "-", ""] {
                readings.insert(read(word, choice, space, hyphen));
            }
        }
    }
    let mut readings: Vec<_> = readings.into_iter().collect();
    readings.sort_by_key(|reading| std::cmp::Reverse(reading.len()));
    readings
}

/// The word in one reading; `choice` holds the marks' fates as digits.
fn read(word: &str, choice: usize, space: &str, hyphen: &str) -> Vec<String> {
    let mut text = String::new();
    let mut number = 0;
    let (mut in_mark, mut fate) = (false, FATES[0]);
    for c in word.chars() {
        match c {
            MARK => {
                fate = FATES[choice / FATES.len().pow(number % MARKS) % FATES.len()];
                number += 1;
                in_mark = true;
                text.push_str(fate.1);
            }
            MARK_END => {
                in_mark = false;
                text.push_str(fate.2);
            }
            MAY_SPACE => text.push_str(space),
            LINE_HYPHEN => text.push_str(hyphen),
            c if fate.0 || !in_mark => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().map(str::to_owned).collect()
}

/// Characters that show nothing.
fn skipped(c: char) -> bool {
    let format = matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || ('\u{2060}'..='\u{206f}').contains(&c);
    format || (c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(text: &str) -> WordCounts {
        let mut counts = WordCounts::default();
        counts.add(text);
        counts
    }

    #[test]
    fn losses_and_doubles_are_named() {
        let report = counts("a a b c").compare(&counts("a b b d"));
        assert_eq!((report.words_linear, report.words_sections, report.lost, report.doubled), (4, 4, 2, 2));
        assert_eq!(report.missing_examples, ["a", "c"]);
        assert_eq!(report.doubled_examples, ["b", "d"]);
    }

    #[test]
    fn a_mark_may_be_kept_set_apart_or_left_out_and_nothing_else() {
        let mut text = "one word[1]".to_owned();
        bracket_mark(&mut text, 8);
        text.push_str(". Next");
        let lost = |other: &str| {
            let report = counts(&text).compare(&counts(other));
            report.lost + report.doubled
        };
        for kept in ["one word[1]. Next", "one word [1]. Next", "one word. Next"] {
            assert_eq!(lost(kept), 0, "{kept}");
        }
        assert!(lost("one. Next") > 0 && lost("one word 1. Next") > 0 && lost("one wor d. Next") > 0);
        let hyphen = format!("a exam{LINE_HYPHEN}ple b");
        for kept in ["a example b", "a exam-ple b", "a exam- ple b"] {
            assert_eq!(counts(&hyphen).compare(&counts(kept)).lost, 0);
        }
        assert!(counts(&hyphen).compare(&counts("a exam b")).lost > 0);
    }
}
