//! Where a text may be cut that is too long for one piece, in any script. Pure; the work grows with the text's length.
//! Must never decide how long a piece is.

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use crate::domain::Parting;

/// Parts words or syllables where a script has no spaces, and is not seen.
const ZERO_WIDTH_SPACE: char = '\u{200b}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// What older Ethiopic texts have between words in place of a space; twice it ends a sentence.
const ETHIOPIC_WORD_SPACE: char = '\u{1361}';

/// What a cut before a character keeps whole, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// No cut: the byte is inside a character.
    Inside,
    /// Characters; not what a reader takes for one, a letter and the signs on it.
    Character,
    /// A letter and its signs; perhaps not a word, or the pair of a bracket and its word.
    Cluster,
    /// Words, as far as it can be told without a dictionary.
    Word,
    /// What stands between two spaces.
    Space,
    /// A clause: behind its punctuation, and at the spaces of scripts that have none between words.
    Clause,
}

/// What a cut before each byte of `text`, and at its end, keeps whole.
pub fn places(text: &str) -> Vec<Place> {
    let mut places = vec![Place::Inside; text.len() + 1];
    for (at, _) in text.char_indices() {
        places[at] = Place::Character;
    }
    for (at, _) in text.grapheme_indices(true) {
        places[at] = Place::Cluster;
    }
    for (at, _) in text.split_word_bound_indices() {
        places[at] = places[at].max(Place::Word);
    }
    let mut before: Option<char> = None;
    // The punctuation, with closing quotes and brackets at most between it and the place.
    let mut behind: Option<char> = None;
    for (at, c) in text.char_indices() {
        if let Some(before) = before {
            places[at] = place(places[at], before, behind, &text[at..]);
        }
        if is_clause_end(c) || (c == ETHIOPIC_WORD_SPACE && before == Some(c)) {
            behind = Some(c);
        } else if !may_not_begin(c) {
            behind = None;
        }
        before = Some(c);
    }
    places[0] = Place::Clause;
    places[text.len()] = Place::Clause;
    places
}

/// `found` by the rules that are the same for all scripts; `rest` begins at the place.
fn place(found: Place, before: char, behind: Option<char>, rest: &str) -> Place {
    let Some(next) = rest.chars().next() else { return found };
    if found < Place::Cluster || before.is_whitespace() || belong_together(before, rest) {
        // A piece ends before the space, and the next one begins behind it.
        return found.min(Place::Character);
    }
    if next.is_whitespace() {
        let Some(word) = rest.chars().find(|c| !c.is_whitespace()) else { return Place::Space };
        let parts_phrases = Parting::of(before) == Parting::Phrases && Parting::of(word) == Parting::Phrases;
        return match behind {
            _ if may_not_begin(word) || may_not_end(before) => Place::Word,
            Some(_) => Place::Clause,
            None if parts_phrases => Place::Clause,
            None => Place::Space,
        };
    }
    if may_not_end(before) || may_not_begin(next) {
        return Place::Cluster;
    }
    match behind {
        // Without a space these are in numbers, addresses and words, too.
        Some(',' | '.' | ';' | ':' | '!' | '?' | '·') if Parting::of(next) == Parting::Spaces => found,
        Some(_) => Place::Clause,
        None if matches!(before, ZERO_WIDTH_SPACE | ETHIOPIC_WORD_SPACE) => Place::Space,
        None => found,
    }
}

/// What Unicode's grapheme clusters leave apart, though no reader would.
fn belong_together(before: char, rest: &str) -> bool {
    let mut rest = rest.chars();
    let next = rest.next().unwrap_or_default();
    is_combining_mark(next)
        || before == ZERO_WIDTH_JOINER
        // Burmese, Khmer, Tai Tham, Balinese, Sundanese, Javanese: the next consonant is written on or under this one.
        || matches!(before, '\u{1039}' | '\u{17d2}' | '\u{1a60}' | '\u{1b44}' | '\u{1bab}' | '\u{a9c0}')
        || is_vowel_before_its_letter(before)
        || is_vowel_behind_its_letter(next)
        // Burmese: a consonant without a vowel ends the syllable before it, or carries the next one.
        || (matches!(next, '\u{1000}'..='\u{102a}' | '\u{103f}' | '\u{1075}'..='\u{1081}')
            && matches!(rest.find(|c| *c != '\u{1037}'), Some('\u{1039}' | '\u{103a}')))
}

/// Thai, Lao, New Tai Lue, Tai Viet: written, and stored, before the consonant they are spoken after.
fn is_vowel_before_its_letter(c: char) -> bool {
    matches!(c, '\u{e40}'..='\u{e44}' | '\u{ec0}'..='\u{ec4}' | '\u{19b5}'..='\u{19b7}' | '\u{19ba}'
        | '\u{aab5}' | '\u{aab6}' | '\u{aab9}' | '\u{aabb}' | '\u{aabc}')
}

/// Letters to Unicode, but vowels, tones and marks of abbreviation to a reader.
fn is_vowel_behind_its_letter(c: char) -> bool {
    matches!(c, '\u{e2f}' | '\u{e30}' | '\u{e32}' | '\u{e33}' | '\u{e45}' | '\u{e46}'
        | '\u{eaf}' | '\u{eb0}' | '\u{eb2}' | '\u{eb3}' | '\u{ebd}' | '\u{ec6}'
        | '\u{1963}'..='\u{1974}' | '\u{19b0}'..='\u{19b4}' | '\u{19b8}' | '\u{19b9}' | '\u{19bb}'..='\u{19c9}'
        | '\u{aab1}' | '\u{aaba}' | '\u{aabd}' | '\u{aac0}' | '\u{aac2}')
}

/// A clause or a sentence ends behind it.
fn is_clause_end(c: char) -> bool {
    matches!(
        c,
        ',' | '.'
            | ';'
            | ':'
            | '!'
            | '?'
            | '·'
            | '—'
            | '―'
            | '…'
            | '、'
            | '，'
            | '。'
            | '．'
            | '；'
            | '：'
            | '！'
            | '？'
            | '､'
            | '｡'
            | '،'
            | '؛'
            | '؟'
            | '۔'
            | '՝'
            | '։'
            | '।'
            | '॥'
            | '၊'
            | '။'
            | '។'
            | '៕'
            | '៖'
            | '።'
            | '፣'
            | '፤'
            | '፥'
            | '፦'
            | '፧'
            | '།'
            | '༎'
            | '༏'
            | '༐'
            | '༑'
            | '༔'
            | '᠂'
            | '᠃'
            | '꓾'
            | '꓿'
            | '꧈'
            | '꧉'
    )
}

/// Stands with what is before it: closing brackets and quotes, punctuation, small kana, marks of repetition.
fn may_not_begin(c: char) -> bool {
    is_clause_end(c) && !matches!(c, '—' | '―' | '…')
        || matches!(
            c,
            ')' | ']'
                | '}'
                | '%'
                | '-'
                | '‐'
                | '”'
                | '’'
                | '»'
                | '›'
                | '」'
                | '』'
                | '）'
                | '］'
                | '｝'
                | '】'
                | '〕'
                | '〉'
                | '》'
                | '・'
                | 'ー'
                | '～'
                | '゛'
                | '゜'
                | '々'
                | '〻'
                | 'ゝ'
                | 'ゞ'
                | 'ヽ'
                | 'ヾ'
                | 'ぁ'
                | 'ぃ'
                | 'ぅ'
                | 'ぇ'
                | 'ぉ'
                | 'っ'
                | 'ゃ'
                | 'ゅ'
                | 'ょ'
                | 'ゎ'
                | 'ァ'
                | 'ィ'
                | 'ゥ'
                | 'ェ'
                | 'ォ'
                | 'ッ'
                | 'ャ'
                | 'ュ'
                | 'ョ'
                | 'ヮ'
                | 'ヵ'
                | 'ヶ'
                | 'ๆ'
                | 'ໆ'
                | 'ៗ'
                | '་'
                | '༌'
                | ZERO_WIDTH_SPACE
                | ETHIOPIC_WORD_SPACE
        )
}

/// Stands with what is behind it.
fn may_not_end(c: char) -> bool {
    matches!(
        c,
        '(' | '['
            | '{'
            | '“'
            | '‘'
            | '«'
            | '‹'
            | '¿'
            | '¡'
            | '「'
            | '『'
            | '（'
            | '［'
            | '｛'
            | '【'
            | '〔'
            | '〈'
            | '《'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with a bar at each place that keeps whole what is asked for.
    fn cut(text: &str, keeps: Place) -> String {
        let places = places(text);
        let mut out = String::new();
        for (at, c) in text.char_indices() {
            if at > 0 && places[at] >= keeps {
                out.push('|');
            }
            out.push(c);
        }
        out
    }

    #[test]
    fn clauses_end_behind_their_punctuation_in_every_script() {
        for (text, expected) in [
            ("One, two: 3.14 and 1,000; a.b.c — so", "One,| two:| 3.14 and 1,000;| a.b.c —| so"),
            (
                "生まれながらにして、「自由である。」かつ（平等）で",
                "生まれながらにして、|「自由である。」|かつ（平等）で",
            ),
            ("人人生而自由,在尊严和权利上", "人人生而自由,|在尊严和权利上"),
            ("منذ ولادتهم، وهم؛ أحرار", "منذ ولادتهم،| وهم؛| أحرار"),
            ("ทุกคน มีสิทธิ ต่าง ๆ กัน abc", "ทุกคน| มีสิทธิ| ต่าง ๆ| กัน abc"),
            ("སྐད་ཡིག། ཆོས་ལུགས།", "སྐད་ཡིག།| ཆོས་ལུགས།"),
            ("ነው፣በክብር፡ነው", "ነው፣|በክብር፡ነው"),
            ("αλφα· βητα κλη", "αλφα·| βητα κλη"),
            ("col·lecció", "col·lecció"),
        ] {
            assert_eq!(cut(text, Place::Clause), expected);
        }
    }

    #[test]
    fn what_is_read_as_one_is_not_cut() {
        for (text, expected) in [
            // Vowels before and behind their consonant, tones above.
            ("เมื่อไหร่ก็ได้น้ำ", "เมื่|อ|ไห|ร่|ก็|ได้|น้ำ"),
            ("ເສລີພາບ", "ເສ|ລີ|ພາ|ບ"),
            // Consonants that end a syllable, or stand on one another.
            ("မြန်မာ့ဗုဒ္ဓ", "မြန်|မာ့|ဗုဒ္ဓ"),
            ("ខ្មែរ", "ខ្មែ|រ"),
            ("हिन्दी", "हि|न्दी"),
            ("👩‍👩‍👧🇭🇷x\u{301}y", "👩‍👩‍👧|🇭🇷|x\u{301}|y"),
            ("각하", "각|하"),
        ] {
            assert_eq!(cut(text, Place::Cluster), expected);
        }
        assert_eq!(cut("キャットは「人々」だ。", Place::Word), "キャット|は|「人々」|だ。");
        assert_eq!(cut("don't re-do 1,000.5", Place::Word), "don't| re-|do| 1,000.5");
        assert_eq!(cut("ភាសា\u{200b}ខ្មែរ", Place::Space), "ភាសា\u{200b}|ខ្មែរ");
    }
}
