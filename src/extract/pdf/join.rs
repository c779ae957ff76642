//! How two lines of one paragraph become text: with a space, without one, and what becomes of a hyphen between them.
//! Pure. Must never join two words, or part one, without evidence: the document's own words decide.

use std::collections::HashMap;

/// Different words that are counted.
const MAX_WORDS: usize = 400_000;
/// Longer ones are none.
const MAX_WORD_BYTES: usize = 80;
/// Words that follow a hyphen which stands for a part left out: `Ein- und Ausgabe`, `pre- and postwar`.
const AFTER_LEFT_OUT: &[&str] =
    &["und", "oder", "bzw", "sowie", "bis", "and", "or", "to", "et", "ou", "en", "of", "och", "og", "eller", "y", "e"];

/// The words of a document that do not stand at a line's end, in lower case, and how often.
#[derive(Debug, Default)]
pub struct Vocabulary(HashMap<Box<str>, u32>);

impl Vocabulary {
    /// Counts a line's words; its last one may go on in the next line, its first may be the end of one.
    pub fn add(&mut self, line: &str) {
        let line = line.trim();
        let (Some(first), Some(last)) = (line.find(' '), line.rfind(' ')) else { return };
        let Some(inner) = line.get(first..last) else { return };
        for word in inner.split(' ') {
            let word = word.trim_matches(|c: char| !c.is_alphanumeric());
            if word.is_empty() || word.len() > MAX_WORD_BYTES {
                continue;
            }
            let word = word.to_lowercase();
            if let Some(count) = self.0.get_mut(word.as_str()) {
                *count += 1;
            } else if self.0.len() < MAX_WORDS {
                self.0.insert(word.into_boxed_str(), 1);
            }
        }
    }

    fn count(&self, word: &str) -> u32 {
        self.0.get(word).copied().unwrap_or(0)
    }
}

/// Han, kana and their marks: written without spaces. Hangul has them.
pub fn is_cjk(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{303f}' | '\u{3040}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ffef}' | '\u{20000}'..='\u{3ffff}')
}

/// Appends a paragraph's next line.
pub fn append(text: &mut String, line: &str, words: &Vocabulary) {
    let (Some(last), Some(first)) = (text.chars().next_back(), line.chars().next()) else {
        text.push_str(line);
        return;
    };
    if last == '\u{ad}' {
        text.pop();
    } else if matches!(last, '-' | '\u{2010}') && joins_word(text) {
        match hyphen(text, line, words) {
            Hyphen::Breaks => drop(text.pop()),
            Hyphen::Meant => {}
            Hyphen::Ends => text.push(' '),
        }
    } else if !(is_cjk(last) && is_cjk(first)) && !matches!(last, ' ' | '\n') {
        text.push(' ');
    }
    text.push_str(line);
}

/// True where a hyphen ends a word: not a dash, an option or a rule.
fn joins_word(text: &str) -> bool {
    text.chars().rev().nth(1).is_some_and(char::is_alphanumeric)
}

enum Hyphen {
    /// It parts a word at the line's end only.
    Breaks,
    /// It belongs to the word.
    Meant,
    /// The word ends with it.
    Ends,
}

fn hyphen(text: &str, line: &str, words: &Vocabulary) -> Hyphen {
    let before = text.rsplit(char::is_whitespace).next().unwrap_or_default();
    let before = before.trim_start_matches(|c: char| !c.is_alphanumeric());
    let stem = &before[..before.len() - before.chars().next_back().map_or(0, char::len_utf8)];
    let end = line.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '\'' && c != '’').unwrap_or(line.len());
    let after = line[..end].trim_end_matches(|c: char| !c.is_alphanumeric());
    let Some(first) = after.chars().next() else { return Hyphen::Meant };
    let joined = format!("{stem}{after}").to_lowercase();
    let hyphened = format!("{stem}-{after}").to_lowercase();
    if AFTER_LEFT_OUT.contains(&after) && words.count(&joined) == 0 {
        return Hyphen::Ends;
    }
    // Addresses, file names and numbers keep what they are written with.
    if !first.is_lowercase()
        || stem.contains(['/', '_', '@', '.', ':', '='])
        || stem.ends_with(|c: char| !c.is_alphabetic())
    {
        return Hyphen::Meant;
    }
    if words.count(&hyphened) > words.count(&joined) {
        return Hyphen::Meant;
    }
    // `well-known` at a line's end, in a book that writes it nowhere else: both parts are words, and it has a hyphen
    // already, so another is likelier to be meant.
    if stem.contains('-') && words.count(&joined) == 0 && words.count(after) > 0 {
        return Hyphen::Meant;
    }
    Hyphen::Breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(lines: &[&str], vocabulary: &str) -> String {
        let mut words = Vocabulary::default();
        words.add(&format!("x {vocabulary} x"));
        let mut text = String::new();
        lines.iter().for_each(|line| append(&mut text, line, &words));
        text
    }

    #[test]
    fn hyphens_at_line_ends_go_unless_they_are_meant() {
        assert_eq!(joined(&["the exam-", "ple of"], ""), "the example of");
        assert_eq!(joined(&["a well-", "known fact"], "well-known"), "a well-known fact");
        assert_eq!(joined(&["so\u{ad}", "ft"], ""), "soft");
        assert_eq!(joined(&["Jean-", "Paul, UTF-", "8"], ""), "Jean-Paul, UTF-8");
        assert_eq!(joined(&["Ein-", "und Ausgabe"], ""), "Ein- und Ausgabe");
        assert_eq!(joined(&["Verb-", "und"], "verbund"), "Verbund");
        assert_eq!(joined(&["a dash -", "here"], ""), "a dash - here");
        assert_eq!(joined(&["https://a.org/some-", "thing"], ""), "https://a.org/some-thing");
    }

    #[test]
    fn languages_without_spaces_get_none() {
        assert_eq!(joined(&["これは", "本です。", "Linux", "を"], ""), "これは本です。 Linux を");
        assert_eq!(joined(&["한국", "말"], ""), "한국 말");
    }
}
