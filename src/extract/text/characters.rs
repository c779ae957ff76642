//! Characters that show nothing, or several letters in one. Pure. Must never take away what a script needs to be
//! written: a joiner in Persian or Hindi, the word borders of Thai and Khmer.
//!
//! | character | becomes |
//! | --- | --- |
//! | soft hyphen, word joiner, byte order mark, marks of direction, control characters | nothing: they split words for a tokenizer and a search |
//! | zero width space | nothing: a place where a line may end inside a word or an address; kept between letters of scripts without spaces, where it is the border of two words |
//! | zero width joiner and non-joiner | kept behind letters of scripts that join, and in emoji; nothing elsewhere (typesetting of `Auflage`) |
//! | the ligatures U+FB00 to U+FB06 | their letters: they are shapes, not letters, and NFC leaves them alone |

/// True for all that [`push`] does not simply copy.
pub fn is_special(c: char) -> bool {
    // Nearly all text beyond ASCII ends here.
    if !matches!(c, '\u{7f}'..='\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{206f}' | '\u{fb00}'..='\u{ffff}') {
        return c.is_ascii_control() && !c.is_whitespace();
    }
    is_invisible(c) || matches!(c, '\u{200b}'..='\u{200d}' | '\u{fb00}'..='\u{fb06}')
}

/// True for what a run of characters beyond ASCII, copied as a whole, ends at.
pub fn ends_run(c: char) -> bool {
    match c {
        // Nearly all letters.
        '\u{ae}'..='\u{61b}' | '\u{61d}'..='\u{167f}' | '\u{1681}'..='\u{1fff}' | '\u{3001}'..='\u{faff}' => false,
        c => c.is_ascii() || c.is_whitespace() || is_special(c),
    }
}

/// Shows nothing, and no script needs it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || (c.is_control() && !c.is_whitespace())
}

/// What a special character between `before` and `after` becomes.
pub fn meaning(c: char, before: Option<char>, after: Option<char>) -> &'static str {
    match c {
        '\u{fb00}' => "ff",
        '\u{fb01}' => "fi",
        '\u{fb02}' => "fl",
        '\u{fb03}' => "ffi",
        '\u{fb04}' => "ffl",
        '\u{fb05}' | '\u{fb06}' => "st",
        '\u{200b}' if before.is_some_and(parts_no_words) && after.is_some_and(parts_no_words) => "\u{200b}",
        '\u{200c}' if before.is_some_and(joins) && after.is_some_and(|c| !c.is_whitespace()) => "\u{200c}",
        '\u{200d}' if before.is_some_and(joins) && after.is_some_and(|c| !c.is_whitespace()) => "\u{200d}",
        _ => "",
    }
}

/// Appends `text`, which stands inside one line.
pub fn push(out: &mut String, text: &str) {
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if is_special(c) {
            out.push_str(meaning(c, out.chars().next_back(), characters.peek().copied()));
        } else {
            out.push(c);
        }
    }
}

/// Thai, Lao, Burmese, Khmer and their kin: words follow one another without a space.
fn parts_no_words(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1950}'..='\u{1aaf}'
        | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aadf}')
}

/// Arabic, Syriac, the scripts of India, Mongolian, and emoji.
fn joins(c: char) -> bool {
    matches!(c, '\u{600}'..='\u{dff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{18af}' | '\u{2600}'..='\u{27bf}'
        | '\u{a840}'..='\u{a8ff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe0f}' | '\u{fe70}'..='\u{fefc}' | '\u{10a00}'..='\u{11fff}'
        | '\u{1f000}'..='\u{1faff}')
}

/// Chinese, Japanese and what stands between their words: no space belongs where two of them meet.
pub fn is_cjk(c: char) -> bool {
    matches!(c, '\u{2e80}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> String {
        let mut out = String::new();
        push(&mut out, text);
        out
    }

    #[test]
    fn words_hold_no_invisible_characters() {
        assert_eq!(clean("so\u{ad}ft a\u{feff}b\u{2060}c\u{200e}d\u{202b}e\u{2067}f\u{1}"), "soft abcdef");
        assert_eq!(clean("/usr/\u{200b}share/\u{200b}doc 日本\u{200b}語"), "/usr/share/doc 日本語");
        assert_eq!(clean("Auf\u{200c}lage"), "Auflage");
    }

    #[test]
    fn scripts_keep_what_they_are_written_with() {
        for text in ["می\u{200c}خواهم", "क्\u{200d}ष", "ការ\u{200b}អប់រំ", "👩\u{200d}💻"]
        {
            assert_eq!(clean(text), text);
        }
    }

    #[test]
    fn ligatures_are_their_letters() {
        assert_eq!(clean("ﬁnd oﬃce ﬂow ﬀ ﬄ ﬆ"), "find office flow ff ffl st");
    }
}
