//! Whether a book's text is encrypted. Must never take obfuscated fonts for DRM: most of Adobe's and many publishers'
//! free books have them.

use super::super::decode;
use super::super::markup::{self, Attributes, Sink};

/// What META-INF/encryption.xml says of one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encrypted {
    pub algorithm: String,
    /// From the archive's root.
    pub uri: String,
}

impl Encrypted {
    /// Only scrambled so that the font cannot be lifted out of the book.
    pub fn is_font_obfuscation(&self) -> bool {
        matches!(self.algorithm.as_str(), "http://www.idpf.org/2008/embedding" | "http://ns.adobe.com/pdf/enc#RC")
    }
}

/// The entries that META-INF/encryption.xml lists.
pub fn parse(bytes: &[u8]) -> Vec<Encrypted> {
    markup::parse(&decode::markup(bytes), List::default).entries
}

#[derive(Default)]
struct List {
    entries: Vec<Encrypted>,
    algorithm: String,
    in_key: bool,
}

impl Sink for List {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        match name {
            "encrypteddata" => self.algorithm.clear(),
            // The key is encrypted by a method of its own.
            "keyinfo" | "encryptedkey" => self.in_key = true,
            "encryptionmethod" if !self.in_key => {
                self.algorithm = attributes.get("algorithm").unwrap_or_default().trim().to_owned();
            }
            "cipherreference" => self.entries.push(Encrypted {
                algorithm: self.algorithm.clone(),
                uri: attributes.get("uri").unwrap_or_default().trim().to_owned(),
            }),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        if matches!(name, "keyinfo" | "encryptedkey") {
            self.in_key = false;
        }
    }

    fn text(&mut self, _text: &str) {}
}

/// Whether bytes that should be markup are not: the first that is neither whitespace nor a mark does not open a tag.
pub fn is_no_markup(bytes: &[u8]) -> bool {
    let text = decode::markup(&bytes[..bytes.len().min(4096)]);
    text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').chars().next().is_some_and(|c| c != '<')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_and_content_are_told_apart() {
        let list = parse(
            b"<encryption><enc:EncryptedData><enc:EncryptionMethod Algorithm='http://www.idpf.org/2008/embedding'/>\
            <enc:CipherData><enc:CipherReference URI='OEBPS/f.otf'/></enc:CipherData></enc:EncryptedData>\
            <EncryptedData><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes256-cbc'/>\
            <KeyInfo><EncryptedKey><EncryptionMethod Algorithm='k'/></EncryptedKey></KeyInfo>\
            <CipherData><CipherReference URI='OEBPS/a.xhtml'/></CipherData></EncryptedData></encryption>",
        );
        assert!(list[0].is_font_obfuscation() && list[0].uri == "OEBPS/f.otf");
        assert!(!list[1].is_font_obfuscation() && list[1].algorithm.ends_with("aes256-cbc"));
    }

    #[test]
    fn markup_is_recognised() {
        assert!(!is_no_markup(b"\xef\xbb\xbf\n <html>") && !is_no_markup(b"") && is_no_markup(b"\x8e\x01\x99<"));
    }
}
