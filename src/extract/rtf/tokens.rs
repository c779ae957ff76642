//! RTF's bytes as tokens. Must never look further than one token ahead, or trust a declared length.

/// Longer control words are cut; the specification ends them at 32 letters.
const WORD_BYTES: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    Open,
    Close,
    /// `\*`
    Star,
    /// A run of plain bytes without line ends.
    Text(&'a [u8]),
    /// `\'hh`
    Byte(u8),
    /// A backslash and what is no letter.
    Symbol(u8),
    Word(&'a [u8], Option<i32>),
}

pub struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The bytes from here that are alike, at most `limit`.
    fn run(&mut self, limit: usize, alike: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(limit)];
        let run = &rest[..rest.iter().position(|byte| !alike(*byte)).unwrap_or(rest.len())];
        self.at += run.len();
        run
    }

    /// What stands behind a backslash.
    fn control(&mut self) -> Option<Token<'a>> {
        let first = *self.bytes.get(self.at)?;
        if !first.is_ascii_alphabetic() {
            self.at += 1;
            return Some(match first {
                b'*' => Token::Star,
                b'\'' => {
                    let hex = self.run(2, |byte| byte.is_ascii_hexdigit());
                    let value = std::str::from_utf8(hex).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                    if let (Some(b'\\'), Some(brace)) = (value, self.twice_escaped_brace()) {
                        return Some(brace);
                    }
                    value.map_or(Token::Symbol(b'\''), Token::Byte)
                }
                // One line end of two bytes is one.
                b'\r' => {
                    self.run(1, |byte| byte == b'\n');
                    Token::Symbol(b'\n')
                }
                b'\\' => self.twice_escaped_brace().unwrap_or(Token::Symbol(b'\\')),
                other => Token::Symbol(other),
            });
        }
        let word = self.run(usize::MAX, |byte| byte.is_ascii_alphabetic());
        let negative = !self.run(1, |byte| byte == b'-').is_empty();
        let digits = self.run(usize::MAX, |byte| byte.is_ascii_digit());
        let number = digits.iter().fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1 << 32));
        let number = if negative { -number } else { number };
        let number = number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        let number = (!digits.is_empty()).then_some(number);
        if negative && digits.is_empty() {
            // It was a hyphen.
            self.at -= 1;
        } else {
            self.run(1, |byte| byte == b' ');
        }
        if word == b"bin" {
            let length = number.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            self.at = self.at.saturating_add(length).min(self.bytes.len());
        }
        Some(Token::Word(&word[..word.len().min(WORD_BYTES)], number))
    }
}

impl<'a> Tokens<'a> {
    /// Calibre's writer escapes the backslash of a brace that it has escaped already: what is left of the brace's
    /// escape stands behind an escaped backslash.
    fn twice_escaped_brace(&mut self) -> Option<Token<'a>> {
        let brace = match self.bytes.get(self.at..self.at + 3)? {
            b"'7b" => b'{',
            b"'7d" => b'}',
            _ => return None,
        };
        self.at += 3;
        Some(Token::Symbol(brace))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.run(usize::MAX, |byte| matches!(byte, b'\n' | b'\r' | 0));
        match *self.bytes.get(self.at)? {
            b'{' => {
                self.at += 1;
                Some(Token::Open)
            }
            b'}' => {
                self.at += 1;
                Some(Token::Close)
            }
            b'\\' => {
                self.at += 1;
                self.control()
            }
            _ => {
                Some(Token::Text(self.run(usize::MAX, |byte| !matches!(byte, b'{' | b'}' | b'\\' | b'\n' | b'\r' | 0))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        Tokens::new(text.as_bytes()).collect()
    }

    #[test]
    fn words_numbers_symbols_and_bytes() {
        assert_eq!(
            tokens("{\\b0 a\\u-12?\r\nb\\'e9\\~\\*\\x-\\bin3 }}}c}"),
            [
                Token::Open,
                Token::Word(b"b", Some(0)),
                Token::Text(b"a"),
                Token::Word(b"u", Some(-12)),
                Token::Text(b"?"),
                Token::Text(b"b"),
                Token::Byte(0xe9),
                Token::Symbol(b'~'),
                Token::Star,
                Token::Word(b"x", None),
                Token::Text(b"-"),
            ]
            .into_iter()
            .take(10)
            .chain([Token::Text(b"-"), Token::Word(b"bin", Some(3)), Token::Text(b"c"), Token::Close])
            .collect::<Vec<_>>()
        );
    }

    #[test]
    fn ends_and_monstrous_numbers_do_no_harm() {
        assert_eq!(tokens("\\"), []);
        assert_eq!(tokens("\\'z"), [Token::Symbol(b'\''), Token::Text(b"z")]);
        assert_eq!(tokens("\\u99999999999999999999"), [Token::Word(b"u", Some(i32::MAX))]);
        assert_eq!(tokens("\\bin99999999 abc"), [Token::Word(b"bin", Some(99_999_999))]);
    }
}
