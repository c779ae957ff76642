//! Lines that run from right to left, from the order the page shows them in to the order they are read in. Pure. Must
//! never touch a line without such letters.

/// Hebrew, Arabic, Syriac, Thaana, N'Ko and the presentation forms.
pub fn is_rtl(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}')
        && !matches!(c, '\u{660}'..='\u{669}' | '\u{6f0}'..='\u{6f9}')
}

fn is_ltr(c: char) -> bool {
    c.is_alphanumeric() && !is_rtl(c)
}

/// The logical order of a line given as it is seen, from left to right.
pub fn logical(line: String) -> String {
    if line.is_ascii() || !line.chars().any(is_rtl) {
        return line;
    }
    let chars: Vec<char> = line.chars().collect();
    let (rtl, ltr) = chars.iter().fold((0, 0), |(rtl, ltr), c| {
        (rtl + usize::from(is_rtl(*c)), ltr + usize::from(c.is_alphabetic() && !is_rtl(*c)))
    });
    let right_to_left = rtl >= ltr;
    // Stretches of one direction; what has none belongs to the line's.
    let mut parts: Vec<(bool, Vec<char>)> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let own = if is_rtl(chars[at]) {
            true
        } else if is_ltr(chars[at]) {
            false
        } else {
            // A neutral between two of one direction is of theirs.
            let before = parts.last().map(|(rtl, _)| *rtl);
            let after = chars[at..].iter().find(|c| is_rtl(**c) || is_ltr(**c)).map(|c| is_rtl(*c));
            match (before, after) {
                (Some(before), Some(after)) if before == after => before,
                _ => right_to_left,
            }
        };
        match parts.last_mut() {
            Some((rtl, part)) if *rtl == own => part.push(chars[at]),
            _ => parts.push((own, vec![chars[at]])),
        }
        at += 1;
    }
    if right_to_left {
        parts.reverse();
    }
    let mut out = String::with_capacity(line.len());
    for (rtl, part) in parts {
        if rtl {
            out.extend(part.into_iter().rev().map(mirrored));
        } else {
            out.extend(part);
        }
    }
    out
}

fn mirrored(c: char) -> char {
    match c {
        '(' => ')',
        ')' => '(',
        '[' => ']',
        ']' => '[',
        '{' => '}',
        '}' => '{',
        '<' => '>',
        '>' => '<',
        '«' => '»',
        '»' => '«',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::logical;

    #[test]
    fn lines_are_read_from_the_side_they_begin_at() {
        assert_eq!(logical("abc (d)".to_owned()), "abc (d)");
        assert_eq!(logical("םולש".to_owned()), "שלום");
        assert_eq!(logical(".12 Linux (ב) םולש".to_owned()), "שלום (ב) 12 Linux.");
        assert_eq!(logical("the word םולש means".to_owned()), "the word שלום means");
    }
}
