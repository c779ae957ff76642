//! Record 0 of a book: the PalmDOC header, the Mobipocket header behind it and the EXTH metadata. Must never fail over
//! a field that is missing: old files end early.
//!
//! Format: <https://wiki.mobileread.com/wiki/MOBI>.

use encoding_rs::WINDOWS_1252;

use super::super::{decode, html};
use super::palm::{Kind, be16, be32};

const UTF_8_CODEPAGE: u32 = 65001;
/// "None" where a record's number stands.
const NULL_INDEX: u32 = u32::MAX;
/// Mobipocket headers that know of trailing entries; longer ones than the second are garbage.
const WITH_EXTRA_DATA: std::ops::RangeInclusive<u32> = 0xe4..=500;

/// What the rest of the reading needs. Numbers of records count from the header's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// 1 none, 2 PalmDOC, 17480 HUFF/CDIC.
    pub compression: u16,
    pub text_bytes: u32,
    pub text_records: u16,
    /// 0 none.
    pub encryption: u16,
    pub is_utf8: bool,
    /// 8 for KF8.
    pub version: u32,
    pub extra_data_flags: u16,
    /// The first record of HUFF and CDIC and their count.
    pub huff: (u32, u32),
    pub ncx: Option<u32>,
    pub flows: Option<u32>,
    pub skeletons: Option<u32>,
    pub fragments: Option<u32>,
    pub guide: Option<u32>,
    /// Where the header of a second book in KF8 is.
    pub kf8: Option<u32>,
    pub title: Option<String>,
    pub authors: Vec<String>,
    pub language: Option<String>,
}

impl Header {
    /// None where even the PalmDOC header is incomplete.
    pub fn parse(record: &[u8], kind: Kind) -> Option<Self> {
        let mut header = Header {
            compression: be16(record, 0)?,
            text_bytes: be32(record, 4)?,
            text_records: be16(record, 8)?,
            encryption: be16(record, 12)?,
            ..Header::default()
        };
        if kind == Kind::PalmDoc || record.get(16..20) != Some(b"MOBI") {
            return Some(header);
        }
        let number = |at| be32(record, at);
        let index = |at| number(at).filter(|number| *number != NULL_INDEX);
        let length = number(20).unwrap_or(0);
        header.is_utf8 = number(28) == Some(UTF_8_CODEPAGE);
        header.version = number(36).unwrap_or(0);
        if WITH_EXTRA_DATA.contains(&length) {
            header.extra_data_flags = be16(record, 0xf2).unwrap_or(0);
        }
        header.huff = (number(0x70).unwrap_or(0), number(0x74).unwrap_or(0));
        header.ncx = index(0xf4).filter(|_| length >= 0xe8);
        if header.version == 8 {
            // With one flow the record's number may be anything.
            header.flows = index(0xc0).filter(|_| number(0xc4).is_some_and(|count| count > 1));
            header.fragments = index(0xf8);
            header.skeletons = index(0xfc);
            header.guide = index(0x104);
        }
        header.language = number(0x5c).and_then(language);
        if let (Some(at), Some(length)) = (number(0x54), number(0x58)) {
            let name = (at as usize).checked_add(length as usize).and_then(|end| record.get(at as usize..end));
            header.title = name.and_then(|name| header.line(name));
        }
        if number(0x80).is_some_and(|flags| flags & 0x40 != 0) {
            header.read_exth(record.get((length as usize).saturating_add(16)..).unwrap_or_default());
        }
        Some(header)
    }

    fn read_exth(&mut self, exth: &[u8]) {
        if !exth.starts_with(b"EXTH") {
            return;
        }
        let count = be32(exth, 8).unwrap_or(0);
        let mut at = 12usize;
        for _ in 0..count {
            let (Some(kind), Some(length)) = (be32(exth, at), be32(exth, at + 4)) else { return };
            let Some(end) = at.checked_add(length as usize).filter(|end| length >= 8 && *end <= exth.len()) else {
                return;
            };
            let value = &exth[at + 8..end];
            match kind {
                100 => self.authors.extend(self.line(value)),
                121 => self.kf8 = be32(value, 0).filter(|number| *number != NULL_INDEX && *number > 0),
                503 => self.title = self.line(value).or_else(|| self.title.take()),
                524 => self.language = self.line(value).or_else(|| self.language.take()),
                _ => {}
            }
            at = end;
        }
    }

    /// The book's own encoding.
    pub fn decode(&self, bytes: Vec<u8>) -> String {
        if self.is_utf8 {
            return String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        }
        decode::declared_as(&bytes, WINDOWS_1252).into_owned()
    }

    /// A label; entities in it are resolved, because some tools write them and no reader shows them.
    pub fn line(&self, bytes: &[u8]) -> Option<String> {
        let text = self.decode(bytes.iter().copied().filter(|byte| *byte != 0).collect());
        let text = if text.contains('&') { html::parse(&text.replace('<', "&lt;")).text } else { text };
        Some(super::super::text::one_line(&text)).filter(|line| !line.is_empty())
    }
}

/// Of a Windows language number; the low ten bits are the language, the rest the country.
fn language(number: u32) -> Option<String> {
    let code = match number & 0x3ff {
        0x01 => "ar",
        0x02 => "bg",
        0x03 => "ca",
        0x04 => "zh",
        0x05 => "cs",
        0x06 => "da",
        0x07 => "de",
        0x08 => "el",
        0x09 => "en",
        0x0a => "es",
        0x0b => "fi",
        0x0c => "fr",
        0x0d => "he",
        0x0e => "hu",
        0x0f => "is",
        0x10 => "it",
        0x11 => "ja",
        0x12 => "ko",
        0x13 => "nl",
        0x14 => "no",
        0x15 => "pl",
        0x16 => "pt",
        0x18 => "ro",
        0x19 => "ru",
        // One number for Croatian and Serbian (and Bosnian): the country tells.
        0x1a if number >> 10 <= 1 => "hr",
        0x1a => "sr",
        0x1b => "sk",
        0x1c => "sq",
        0x1d => "sv",
        0x1e => "th",
        0x1f => "tr",
        0x21 => "id",
        0x22 => "uk",
        0x23 => "be",
        0x24 => "sl",
        0x25 => "et",
        0x26 => "lv",
        0x27 => "lt",
        0x29 => "fa",
        0x2a => "vi",
        0x2f => "mk",
        0x39 => "hi",
        _ => return None,
    };
    Some(code.to_owned())
}
