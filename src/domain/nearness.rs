//! How near two pieces of text are, for a person who mistyped one, or wrote it another way. Pure.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Text as people compare it: without case, accents and runs of blanks.
pub fn folded(text: &str) -> String {
    let plain: String = text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect();
    // These have no decomposition, and are typed without their stroke.
    let plain = plain.replace(['đ', 'ð'], "d").replace('ø', "o").replace('ł', "l").replace('ß', "ss");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Letters to change, add, leave out, or swap with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The candidates that `text` may have been meant to be, the nearest first: at most a third of its letters differ.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<&'a str> {
    let wanted: Vec<char> = folded(text).chars().collect();
    let mut found: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter_map(|candidate| {
            let other: Vec<char> = folded(candidate).chars().collect();
            let far = wanted.len().max(other.len()).div_ceil(3);
            if wanted.len().abs_diff(other.len()) > far {
                return None;
            }
            let distance = distance(&wanted, &other);
            (distance <= far && distance < wanted.len()).then_some((distance, candidate))
        })
        .collect();
    found.sort();
    found.dedup();
    found.into_iter().take(most).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(a: &str, b: &str) -> usize {
        distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
    }

    #[test]
    fn distances_count_slips_of_the_hand() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("poll", "poll", 0),
            ("pol", "poll", 1),
            ("paht", "path", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
        ] {
            assert_eq!((far(a, b), far(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn what_was_meant_is_found_and_nothing_else() {
        let keys = ["poll_seconds", "path", "formats", "full_scan_seconds", "stall_seconds"];
        assert_eq!(nearest("pol_seconds", keys, 1), ["poll_seconds"]);
        assert_eq!(nearest("paht", keys, 3), ["path"]);
        assert_eq!(nearest("colour", keys, 3), [""; 0]);
        assert_eq!(nearest("Ursula le guinn", ["Ursula Le Guin", "Ana Anić"], 3), ["Ursula Le Guin"]);
    }

    #[test]
    fn text_is_compared_without_case_and_accents() {
        assert_eq!(folded("  Ivo  ANDRIĆ "), "ivo andric");
        assert_eq!(folded("Đorđe Ørsted Łódź Straße"), "dorde orsted lodz strasse");
        assert_eq!(folded("東京"), "東京");
    }
}
