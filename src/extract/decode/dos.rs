//! DOS and old Macintosh, which the detector does not know: code pages 852 and 850 (437's letters are the same), and
//! Mac Roman. Must never be preferred to a guess whose letters make sense.

use encoding_rs::{Encoding, MACINTOSH};

/// Bytes from the start that are looked at.
const WINDOW: usize = 256 << 10;
/// Fewer letters beyond ASCII prove nothing.
const MIN_LETTERS: usize = 6;

/// Code page 852, Central Europe, from 0x80.
const CP852: &str = "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐\
    └┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´-˝˛ˇ˘§÷¸°¨˙űŘř■ ";
/// Code page 850, Western Europe.
const CP850: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
    └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´-±‗¾¶§÷¸°¨·¹³²■ ";

/// The lower-case letters of the languages that code page 852 is for.
const CENTRAL: &str = "áâăäąćçčďđéęëěíîĺľłńňóôőöŕřśšşťţúůűüýźžżß";
/// And of those that code page 850 and Mac Roman are for.
const WESTERN: &str = "áàâãäåæçéèêëíìîïñóòôõöøúùûüÿß";

/// The text, where it is much more sensible in one of these code pages than in `guess`.
pub fn decode(bytes: &[u8], guess: &'static Encoding) -> Option<String> {
    if !guess.is_single_byte() {
        return None;
    }
    let window = &bytes[..bytes.len().min(WINDOW)];
    let of_guess = sense(window, &table_of(guess), &[CENTRAL, WESTERN].concat())?;
    if of_guess * 10 > 8 * 100 {
        return None;
    }
    let candidates = [
        (CP850.chars().collect::<Vec<_>>(), WESTERN),
        (CP852.chars().collect(), CENTRAL),
        (table_of(MACINTOSH), WESTERN),
    ];
    let scored = candidates.into_iter().filter_map(|(table, letters)| Some((sense(window, &table, letters)?, table)));
    // The first of equals.
    let best = scored.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let (_, table) = best.filter(|(score, _)| *score >= 95)?;
    let letter = |byte: u8| if byte < 0x80 { byte as char } else { table[usize::from(byte) - 0x80] };
    Some(bytes.iter().map(|byte| letter(*byte)).collect())
}

fn table_of(encoding: &'static Encoding) -> Vec<char> {
    (0x80..=0xffu8)
        .map(|byte| encoding.decode_without_bom_handling(&[byte]).0.chars().next().unwrap_or('\u{fffd}'))
        .collect()
}

/// Of the bytes beyond ASCII that stand in words of ASCII letters, how many in a hundred are the letters meant. None
/// where the text is not of this kind.
fn sense(bytes: &[u8], table: &[char], letters: &str) -> Option<usize> {
    let (mut seen, mut good, mut ascii, mut others) = (0usize, 0usize, 0usize, 0usize);
    for (at, byte) in bytes.iter().enumerate() {
        if *byte < 0x80 {
            ascii += usize::from(byte.is_ascii_alphabetic());
            continue;
        }
        others += 1;
        let before = at.checked_sub(1).and_then(|at| bytes.get(at)).filter(|byte| byte.is_ascii_alphabetic());
        let behind = bytes.get(at + 1).filter(|byte| byte.is_ascii_alphabetic());
        let Some(neighbour) = before.or(behind) else { continue };
        let c = table[usize::from(*byte) - 0x80];
        // Quotation marks touch words in every language, an apostrophe and a dash stand in them.
        let mark = matches!(c, '\u{2010}'..='\u{203a}' | '«' | '»' | '°' | '\u{a0}' | '·' | '¿' | '¡');
        if mark && (before.is_none() || behind.is_none() || matches!(c, '’' | '–' | '—')) {
            continue;
        }
        seen += 1;
        let lower = c.to_lowercase().next().unwrap_or(c);
        let fits = c == lower || before.is_none() || neighbour.is_ascii_uppercase();
        good += usize::from(fits && letters.contains(lower));
    }
    (seen >= MIN_LETTERS && ascii > others * 2).then(|| good * 100 / seen)
}

#[cfg(test)]
mod tests {
    use encoding_rs::{WINDOWS_1250, WINDOWS_1252};

    use super::*;

    fn encode(text: &str, table: &str) -> Vec<u8> {
        text.chars()
            .map(
                |c| {
                    if c.is_ascii() {
                        c as u8
                    } else {
                        0x80 + table.chars().position(|known| known == c).unwrap() as u8
                    }
                },
            )
            .collect()
    }

    #[test]
    fn dos_texts_are_read_and_others_left_alone() {
        assert_eq!((CP852.chars().count(), CP850.chars().count()), (128, 128));
        let croatian = "Žuti čamac šuti na žalu. Ćuk i đak čitaju knjigu, a kiša šumi.";
        let german = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich, während böse Füchse heulen.";
        for guess in [WINDOWS_1250, WINDOWS_1252] {
            assert_eq!(decode(&encode(croatian, CP852), guess).as_deref(), Some(croatian));
            assert_eq!(decode(&encode(german, CP850), guess).as_deref(), Some(german));
        }
        assert_eq!(decode(&WINDOWS_1250.encode(croatian).0, WINDOWS_1250), None);
        assert_eq!(decode(&WINDOWS_1252.encode(german).0, WINDOWS_1252), None);
        assert_eq!(decode(b"plain ASCII", WINDOWS_1252), None);
    }
}
