//! Bytes to text: byte order marks, declared encodings, UTF-8, and a guess, in that order of trust. Must never fail:
//! a byte that fits nothing becomes U+FFFD.

mod dos;

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, ISO_2022_JP, UTF_8, UTF_16BE, UTF_16LE};

/// How far into a page its declaration may stand (HTML's own limit).
const DECLARATION_WINDOW: usize = 1024;
/// How much of a text is looked at for signs of UTF-16. A surrogate pair may be cut at its end, so it is no power of two
/// that files are made of.
const SENSE_WINDOW: usize = 8000;

/// The text of a plain file.
pub fn plain(bytes: &[u8]) -> Cow<'_, str> {
    decode(bytes, None)
}

/// The text of an XML or HTML file, whose declaration is believed where the bytes do not speak against it.
pub fn markup(bytes: &[u8]) -> Cow<'_, str> {
    decode(bytes, declared(bytes))
}

/// The text of bytes whose container names the encoding; believed like a declaration of their own.
pub fn declared_as<'a>(bytes: &'a [u8], encoding: &'static Encoding) -> Cow<'a, str> {
    decode(bytes, Some(encoding))
}

fn decode<'a>(bytes: &'a [u8], declared: Option<&'static Encoding>) -> Cow<'a, str> {
    if let Some(text) = utf32(bytes) {
        return Cow::Owned(text);
    }
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return encoding.decode_without_bom_handling(&bytes[mark..]).0;
    }
    if let Some(encoding) = utf16_by_zeros(bytes).or_else(|| utf16_by_sense(bytes)) {
        return encoding.decode_without_bom_handling(bytes).0;
    }
    // ISO-2022-JP is the one encoding in use whose bytes are always valid UTF-8.
    if declared != Some(ISO_2022_JP)
        && let Ok(text) = std::str::from_utf8(bytes)
        && !(declared.is_none() && bytes.contains(&0x1b))
    {
        return Cow::Borrowed(text);
    }
    match declared {
        Some(encoding) if encoding != UTF_8 => return encoding.decode_without_bom_handling(bytes).0,
        _ => {}
    }
    if mostly_utf8(bytes) {
        return UTF_8.decode_without_bom_handling(bytes).0;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    let guess = detector.guess(None, Utf8Detection::Allow);
    match dos::decode(bytes, guess) {
        Some(text) => Cow::Owned(text),
        None => guess.decode_without_bom_handling(bytes).0,
    }
}

/// UTF-32, with its mark or without: every fourth byte is zero, and the one beside it nearly so.
fn utf32(bytes: &[u8]) -> Option<String> {
    if bytes.len() < 8 {
        return None;
    }
    let read = |read: fn([u8; 4]) -> u32, bytes: &[u8]| -> Option<String> {
        let (units, _) = bytes.as_chunks::<4>();
        units.iter().map(|unit| char::from_u32(read(*unit))).collect()
    };
    // Whatever follows the first zero decides quickly against all other texts.
    let window = &bytes[..bytes.len().min(DECLARATION_WINDOW) & !3];
    for unit in [u32::from_le_bytes as fn([u8; 4]) -> u32, u32::from_be_bytes] {
        let is_text = |c: char| c == '\u{feff}' || !c.is_control() || c.is_whitespace();
        if read(unit, window).is_some_and(|text| text.chars().all(is_text)) {
            let text = read(unit, bytes)?;
            return Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text));
        }
    }
    None
}

/// UTF-16 without a mark, of a script that is not Latin: valid one way, with spaces or ideographic full stops, and
/// without the control characters that other data would be full of.
fn utf16_by_sense(bytes: &[u8]) -> Option<&'static Encoding> {
    let window = &bytes[..bytes.len().min(SENSE_WINDOW) & !1];
    if !window.contains(&0) {
        return None;
    }
    let sense = |encoding: &'static Encoding| {
        let text = encoding.decode_without_bom_handling_and_without_replacement(window)?;
        let odd = |c: char| {
            (c.is_control() && !c.is_whitespace()) || ('\u{e000}'..='\u{f8ff}').contains(&c) || c == '\u{fffe}'
        };
        let marks = text.chars().filter(|c| matches!(c, ' ' | '\n' | '\r' | '、' | '。' | '，' | '\u{3000}')).count();
        (marks > 0 && !text.chars().any(odd)).then_some(marks)
    };
    match (sense(UTF_16LE).unwrap_or(0), sense(UTF_16BE).unwrap_or(0)) {
        (little, big) if little > big * 2 => Some(UTF_16LE),
        (little, big) if big > little * 2 => Some(UTF_16BE),
        _ => None,
    }
}

/// A damaged byte or two must not turn a whole UTF-8 book into another encoding's letters.
fn mostly_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0usize, 0usize);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    good > bad * 20
}

/// UTF-16 without a mark: among the first characters of nearly all texts some are ASCII, with a zero beside each.
fn utf16_by_zeros(bytes: &[u8]) -> Option<&'static Encoding> {
    let window = &bytes[..bytes.len().min(DECLARATION_WINDOW) & !1];
    let zeros = |parity: usize| window.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let many = window.len() / 8 + 1;
    if odd >= many && even == 0 {
        Some(UTF_16LE)
    } else if even >= many && odd == 0 {
        Some(UTF_16BE)
    } else {
        None
    }
}

/// The encoding that an XML declaration or a meta element names.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let window = bytes[..bytes.len().min(DECLARATION_WINDOW)].to_ascii_lowercase();
    let xml = window.starts_with(b"<?xml").then(|| value_after(&window, b"encoding")).flatten();
    let encoding = Encoding::for_label(xml.or_else(|| value_after(&window, b"charset"))?)?;
    // A declaration that could be read byte by byte is not UTF-16, whatever it says.
    Some(if encoding == UTF_16LE || encoding == UTF_16BE { UTF_8 } else { encoding })
}

/// The word after `name=`, quoted or not.
fn value_after<'a>(window: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = window.windows(name.len()).position(|part| part == name)? + name.len();
    let rest = window[at..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\'' | b';' | b'>' | b'?' | b' ')).unwrap_or(rest.len());
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_recognised() {
        let text = "Žuti čamac šuti na žalu. Ćuk i đak čitaju knjigu, a kiša šumi.";
        let encoded = |encoding: &'static Encoding| encoding.encode(text).0.into_owned();
        assert_eq!(plain(text.as_bytes()), text);
        assert_eq!(plain(&[b"\xef\xbb\xbf", text.as_bytes()].concat()), text);
        assert_eq!(plain(&encoded(encoding_rs::WINDOWS_1250)), text);
        let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(plain(&le), text);
        assert_eq!(plain(&be), text);
        assert_eq!(plain(&[b"\xff\xfe".as_slice(), &le].concat()), text);
        assert_eq!(plain(&[b"\xfe\xff".as_slice(), &be].concat()), text);
        let le: Vec<u8> = text.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        let be: Vec<u8> = text.chars().flat_map(|c| (c as u32).to_be_bytes()).collect();
        assert_eq!((plain(&le).as_ref(), plain(&be).as_ref()), (text, text));
        assert_eq!(plain(&[b"\xff\xfe\0\0".as_slice(), &le].concat()), text);
        assert_eq!(plain(&[b"\0\0\xfe\xff".as_slice(), &be].concat()), text);
        for text in ["Все люди рождаются свободными и равными.\n", "すべての人間は、生まれながらにして自由である。\n"]
        {
            let text = text.repeat(40);
            let le: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let be: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert_eq!((plain(&le).as_ref(), plain(&be).as_ref()), (text.as_str(), text.as_str()));
        }
    }

    #[test]
    fn declarations_are_believed_unless_the_bytes_are_utf8() {
        let latin2 = |head: &str| [head.as_bytes(), b"\xb9uma"].concat();
        assert!(markup(&latin2("<?xml version='1.0' encoding='iso-8859-2'?>")).ends_with("šuma"));
        assert!(markup(&latin2("<meta charset=iso-8859-2>")).ends_with("šuma"));
        assert!(markup(&latin2("<meta content=\"text/html; charset=ISO-8859-2\">")).ends_with("šuma"));
        assert!(markup("<meta charset=iso-8859-1>šuma".as_bytes()).ends_with("šuma"));
    }

    #[test]
    fn one_bad_byte_does_not_change_the_rest() {
        let mut bytes = "škola života čeka đake ".repeat(20).into_bytes();
        bytes.push(0xff);
        assert!(plain(&bytes).starts_with("škola života"));
    }
}
