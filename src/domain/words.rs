//! How many words a text has, in any script: an estimate where words are not parted by spaces. Must never decide where
//! a text is cut.

use unicode_normalization::char::is_combining_mark;

/// How the script of a character parts words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// By spaces, or not a letter of any script.
    Spaces,
    /// Not at all; a character is a syllable or a word (Chinese, Yi).
    Ideographs,
    /// Not at all; Japanese syllables.
    Kana,
    /// Not at all: a space parts phrases, where there is one (Thai, Lao, Khmer, Burmese, Tibetan, Javanese and their
    /// relatives).
    Phrases,
}

/// Parts of a word in the estimate.
const WORD: usize = 36;

impl Parting {
    pub fn of(c: char) -> Self {
        match c as u32 {
            // Nearly every character of nearly every book.
            ..0x0e00 => Self::Spaces,
            0x0e00..=0x109f
            | 0x1780..=0x17ff
            | 0x1950..=0x19ff
            | 0x1a20..=0x1aaf
            | 0x1b00..=0x1b7f
            | 0xa980..=0xa9ff
            | 0xaa60..=0xaadf => Self::Phrases,
            0x3041..=0x312f | 0x31a0..=0x31bf | 0x31f0..=0x31ff | 0xff66..=0xff9f => Self::Kana,
            0x2e80..=0x2fdf
            | 0x3005..=0x3007
            | 0x3400..=0x4dbf
            | 0x4e00..=0xa4cf
            | 0xf900..=0xfaff
            | 0x17000..=0x18cff
            | 0x20000..=0x3ffff => Self::Ideographs,
            _ => Self::Spaces,
        }
    }

    /// What a letter is of an English word, in [`WORD`] parts: the Declaration of Human Rights has 1,747 words in
    /// English, 2,500 to 2,600 characters in Chinese, 1,790 and 1,960 kana in Japanese, 5,900 to 7,100 letters without
    /// the marks on them in Thai, Lao, Khmer, Burmese, Tibetan and Javanese.
    fn share(self) -> usize {
        match self {
            Self::Spaces => 0,
            Self::Ideographs => 24,
            Self::Kana => 12,
            Self::Phrases => 10,
        }
    }
}

/// Words of a text: what stands between spaces, and where a script has none between words, as many as the same text
/// would have in English.
pub fn word_count(text: &str) -> usize {
    text.split(|c: char| c.is_whitespace() || c == '፡').map(words_of_run).sum()
}

/// Of what stands between two spaces.
fn words_of_run(run: &str) -> usize {
    if run.is_ascii() {
        return usize::from(!run.is_empty());
    }
    let mut parts = 0;
    let (mut spaced, mut in_spaced) = (0, false);
    for c in run.chars() {
        match Parting::of(c) {
            Parting::Spaces => {
                spaced += usize::from(!in_spaced && c.is_alphanumeric());
                in_spaced = c.is_alphanumeric() || (in_spaced && is_combining_mark(c));
            }
            parting => {
                in_spaced = false;
                parts += if c.is_alphanumeric() && !is_combining_mark(c) { parting.share() } else { 0 };
            }
        }
    }
    if parts == 0 { 1 } else { (spaced + parts.div_ceil(WORD)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_between_spaces_are_counted_as_they_are() {
        for text in [
            "",
            "  a bc\nd — e-f  ",
            "Živio! Kako si?",
            "Что это?",
            "سلام عليكم",
            "모든 인간은 태어날 때부터",
            "सभी मनुष्यों को",
        ] {
            assert_eq!(word_count(text), text.split_whitespace().count(), "{text}");
        }
        assert_eq!(word_count("የሰው፡ልጅ፡ሁሉ፡ሲወለድ"), 4);
    }

    #[test]
    fn scripts_without_spaces_have_about_the_words_of_the_english() {
        // Article 1: 30 words in English.
        let texts = [
            "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
            "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
            "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
        ];
        for text in texts {
            assert!((22..=42).contains(&word_count(text)), "{}: {text}", word_count(text));
        }
        assert_eq!(word_count("第2章"), 3);
        assert_eq!(word_count("。、"), 1);
    }
}
