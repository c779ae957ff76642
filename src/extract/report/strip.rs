//! The second, independent reading of FB2, DOCX, ODT and RTF: tags and control words are cut out of the bytes, by lists
//! of names. Must never use the extraction's parsers or builder, which it is there to check; knows only what well-formed
//! files hold, and no ruby.

use super::words::{LINE_HYPHEN, bracket_mark, continue_behind_mark};

/// Which elements of a format matter. Names are in lower case, local, or with a prefix where that is what tells.
pub struct Rules {
    /// Text stands inside these only.
    pub within: &'static [&'static str],
    pub hidden: &'static [&'static str],
    /// Elements that part words.
    pub breaks: &'static [&'static str],
    /// Elements whose text is collected apart, because it stands inside other words.
    pub aside: &'static [&'static str],
    /// Elements that may hold a footnote's mark.
    pub marks: &'static [&'static str],
}

pub const FB2: Rules = Rules {
    within: &["body"],
    hidden: &["binary"],
    breaks: &[
        "body",
        "section",
        "title",
        "p",
        "v",
        "stanza",
        "poem",
        "cite",
        "epigraph",
        "annotation",
        "subtitle",
        "date",
        "text-author",
        "empty-line",
        "table",
        "tr",
        "td",
        "th",
    ],
    aside: &[],
    marks: &["a", "sup"],
};

pub const DOCX: Rules = Rules {
    within: &["t"],
    hidden: &["del", "movefrom", "fallback"],
    breaks: &["p", "br", "cr", "tab", "ptab", "tc", "tr", "tbl"],
    aside: &[],
    marks: &["hyperlink"],
};

pub const ODT: Rules = Rules {
    within: &["p", "h"],
    hidden: &[
        "tracked-changes",
        "annotation",
        "desc",
        "svg:title",
        "note-citation",
        "covered-table-cell",
        "forms",
        "table-of-content",
    ],
    breaks: &["p", "h", "s", "tab", "line-break", "table-cell", "list-item", "frame", "text-box"],
    aside: &["note-body"],
    marks: &[],
};

/// The text of an XML file by `rules`.
pub fn xml(text: &str, rules: &Rules) -> String {
    let (mut out, mut aside) = (String::new(), String::new());
    let (mut within, mut hidden, mut apart) = (0usize, 0usize, 0usize);
    let mut vanished = false;
    // Where open marks began, and the run that is raised.
    let mut marks: Vec<usize> = Vec::new();
    let (mut run_start, mut raised) = (0, false);
    // Word's table of contents is a content control that names its gallery.
    let mut contents = false;
    let mut rest = text;
    loop {
        let at = rest.find('<').unwrap_or(rest.len());
        let (run, tail) = rest.split_at(at);
        let seen = within > 0 && hidden == 0 && !vanished;
        if seen {
            let out = if apart > 0 { &mut aside } else { &mut out };
            if !run.is_empty() {
                continue_behind_mark(out, run);
            }
            unescape(run, out);
        }
        if tail.is_empty() {
            break;
        }
        if let Some(data) = tail.strip_prefix("<![CDATA[") {
            let end = data.find("]]>").unwrap_or(data.len());
            if seen {
                out.push_str(&data[..end]);
            }
            rest = data.get(end + 3..).unwrap_or_default();
            continue;
        }
        let close = if tail.starts_with("<!--") { "-->" } else { ">" };
        let end = tail.find(close).map_or(tail.len(), |end| end + close.len());
        let tag = tail[1..end].trim_end_matches('>');
        rest = &tail[end..];
        let (closes, opens) = (tag.starts_with('/'), !tag.starts_with('/') && !tag.ends_with('/'));
        let full: String =
            tag.trim_start_matches('/').chars().take_while(|c| !c.is_whitespace() && *c != '/').collect();
        let full = full.to_ascii_lowercase();
        let local = full.rsplit(':').next().unwrap_or_default();
        let named = |names: &[&str]| names.contains(&local) || names.contains(&full.as_str());
        let step =
            |count: &mut usize| *count = if closes { count.saturating_sub(1) } else { *count + usize::from(opens) };
        let separator = matches!(local, "footnote" | "endnote") && (hidden > 0 || tag.contains("type="));
        if named(rules.hidden) || separator {
            step(&mut hidden);
        }
        if named(rules.marks) && apart == 0 {
            if closes {
                if let Some(from) = marks.pop() {
                    bracket_mark(&mut out, from);
                }
            } else if opens {
                marks.push(out.len());
            }
        }
        contents = contents && local != "sdt"
            || local == "docpartgallery" && tag.contains("\"Table of Contents\"")
            || local == "docpartgallery" && tag.contains("'Table of Contents'");
        if local == "sdtcontent" && (contents || hidden > 0) {
            step(&mut hidden);
        }
        match local {
            "r" => {
                if closes && raised && apart == 0 {
                    bracket_mark(&mut out, run_start);
                }
                (vanished, raised, run_start) = (false, false, out.len());
            }
            "vertalign" => raised = tag.contains("superscript"),
            "vanish" => vanished = !["\"0\"", "'0'", "false"].iter().any(|off| tag.contains(off)),
            "nobreakhyphen" if hidden == 0 && !vanished => out.push('-'),
            _ => {}
        }
        if named(rules.aside) {
            aside.push(' ');
            step(&mut apart);
        }
        if named(rules.breaks) {
            if apart > 0 { &mut aside } else { &mut out }.push(' ');
        }
        if named(rules.within) {
            step(&mut within);
        }
    }
    out.push(' ');
    out + &aside
}

fn unescape(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((name, tail)) = rest.split_once(';').filter(|(name, _)| name.len() < 12) else {
            out.push('&');
            continue;
        };
        let number = name.strip_prefix('#').map(|digits| match digits.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => digits.parse(),
        });
        let character = match (name, number) {
            ("amp", _) => Some('&'),
            ("lt", _) => Some('<'),
            ("gt", _) => Some('>'),
            ("quot", _) => Some('"'),
            ("apos", _) => Some('\''),
            ("nbsp", _) => Some(' '),
            (_, Some(Ok(code))) => char::from_u32(code),
            _ => None,
        };
        match character {
            Some(character) => {
                out.push(character);
                rest = tail;
            }
            None => out.push('&'),
        }
    }
    out.push_str(rest);
}

/// A text with each character of scripts without spaces as a word: a line's end between two of them may go.
pub fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        match c {
            '\u{2e80}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe4f}'
            | '\u{ff00}'..='\u{ff9f}'
            | '\u{20000}'..='\u{3ffff}' => out.extend([' ', c, ' ']),
            _ => out.push(c),
        }
    }
    out
}

/// A text file's text: a hyphen that ends a line may or may not belong to the word, and a soft one goes.
pub fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let next_line = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(['\n', '\r']));
        let next_line = next_line.map(|next| next.trim_start_matches([' ', '\t']));
        if matches!(c, '-' | '\u{ad}')
            && out.ends_with(|c: char| !c.is_whitespace())
            && let Some(next) = next_line.filter(|next| next.starts_with(|c: char| !c.is_whitespace()))
        {
            // Gone as a soft hyphen and as a cut word's; else a hyphen, with its line's end or without.
            out.push(if c == '-' { LINE_HYPHEN } else { '\u{ad}' });
            rest = next;
        } else {
            out.push(c);
        }
    }
    spaced(&out)
}

/// The text of an RTF file whose characters beyond ASCII are all `\u` or in Windows' code page 1252.
pub fn rtf(bytes: &[u8]) -> String {
    const GROUPS: &[&str] = &[
        "fonttbl",
        "colortbl",
        "stylesheet",
        "info",
        "pict",
        "header",
        "headerl",
        "headerr",
        "headerf",
        "footer",
        "footerl",
        "footerr",
        "footerf",
        "nonshppict",
        "listtext",
        "pntext",
        "xe",
        "tc",
        "fldinst",
        "listtable",
        "generator",
    ];
    const BREAKS: &[&str] = &["par", "line", "tab", "cell", "row", "sect", "page", "pard", "emspace", "enspace"];
    let text: String = bytes.iter().map(|byte| *byte as char).collect();
    let text = text.replace("\\\\'7b", "\\{").replace("\\\\'7d", "\\}");
    let text = text.replace("\\'5c'7b", "\\{").replace("\\'5c'7d", "\\}");
    let mut out = String::new();
    // Depth of braces; where it was when what is skipped began.
    let (mut depth, mut skipping) = (0usize, None);
    let mut characters = text.chars().peekable();
    let mut units: Vec<u16> = Vec::new();
    let mut fallback = 0;
    // The depth at which raised text began, and where.
    let mut raised: Option<(usize, usize)> = None;
    while let Some(c) = characters.next() {
        let mut word = String::new();
        let mut number = String::new();
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if skipping.is_some_and(|from| depth < from) {
                    skipping = None;
                }
                if let Some((_, from)) = raised.take_if(|(from, _)| depth < *from) {
                    out.push_str(&String::from_utf16_lossy(&std::mem::take(&mut units)));
                    bracket_mark(&mut out, from);
                }
            }
            '\\' => {
                while let Some(letter) = characters.next_if(char::is_ascii_alphabetic) {
                    word.push(letter);
                }
                if word.is_empty() {
                    word.extend(characters.next());
                } else {
                    while let Some(digit) =
                        characters.next_if(|c| c.is_ascii_digit() || (*c == '-' && number.is_empty()))
                    {
                        number.push(digit);
                    }
                    characters.next_if_eq(&' ');
                }
            }
            _ => {}
        }
        if skipping.is_none() && (GROUPS.contains(&word.as_str()) || word == "*") {
            skipping = Some(depth);
        }
        if skipping.is_some() {
            continue;
        }
        match word.as_str() {
            "super" if number != "0" => raised = raised.or(Some((depth, out.len()))),
            "super" | "nosupersub" | "plain" => {
                if let Some((_, from)) = raised.take() {
                    bracket_mark(&mut out, from);
                }
            }
            _ => {}
        }
        if word == "u" {
            units.push(number.parse::<i32>().unwrap_or(0) as u16);
            fallback = 1;
            continue;
        }
        let plain = match word.as_str() {
            "" if matches!(c, '{' | '}' | '\r' | '\n' | '\0') => None,
            "" => Some(c),
            "'" => {
                let hex: String = characters.by_ref().take(2).collect();
                u8::from_str_radix(&hex, 16)
                    .ok()
                    .and_then(|byte| encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[byte]).0.chars().next())
            }
            "{" | "}" | "\\" => word.chars().next(),
            "~" => Some(' '),
            "_" => Some('-'),
            "emdash" => Some('—'),
            "endash" => Some('–'),
            "lquote" => Some('‘'),
            "rquote" => Some('’'),
            "ldblquote" => Some('“'),
            "rdblquote" => Some('”'),
            "bullet" => Some('•'),
            word if BREAKS.contains(&word) => Some(' '),
            _ => None,
        };
        if let Some(plain) = plain {
            if fallback > 0 {
                fallback = 0;
                continue;
            }
            out.push_str(&String::from_utf16_lossy(&units));
            units.clear();
            continue_behind_mark(&mut out, plain.encode_utf8(&mut [0; 4]));
            out.push(plain);
        }
    }
    out + &String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_cut_out() {
        let odt = "<b>no<text:p>a<text:s/>b&amp;<x>c</x><text:note><text:note-citation>1</text:note-citation><text:note-body>\
            <text:p>n</text:p></text:note-body></text:note>d</text:p></b>";
        assert_eq!(xml(odt, &ODT).split_whitespace().collect::<Vec<_>>(), ["a", "b&cd", "n"]);
        assert_eq!(rtf(b"{\\rtf1{\\fonttbl no}a\\'e9\\u353?\\par{\\*\\x no}{\\b b}c}"), "aéš bc");
    }
}
