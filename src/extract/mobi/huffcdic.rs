//! HUFF/CDIC, the Huffman coding of whole phrases in Mobipocket books. Must never recurse: a phrase may be coded by
//! others, and a hostile dictionary's phrases contain themselves.
//!
//! Format: <https://wiki.mobileread.com/wiki/MOBI#HUFF.2FCDIC_compression> and KindleUnpack's reading of it.

use super::Fault;
use super::palm::{be16, be32};

/// Phrases within phrases. Real books have a handful.
const MAX_DEPTH: usize = 40;
/// Phrases of a dictionary. Real ones have up to 2^16.
const MAX_PHRASES: usize = 1 << 20;

const SHORT: Fault = Fault::Damaged("the compression's tables break off");

#[derive(Debug, Clone, Copy)]
struct Phrase {
    record: usize,
    start: usize,
    end: usize,
    /// Text as it is, not codes.
    is_plain: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Code {
    bits: u32,
    /// The length is final; else it is the least.
    is_final: bool,
    greatest: u64,
}

/// The tables of one book.
pub struct HuffCdic {
    codes: Vec<Code>,
    /// The least and the greatest code of every length, moved to the top of 32 bits.
    ranges: [(u64, u64); 33],
    records: Vec<Vec<u8>>,
    phrases: Vec<Phrase>,
    steps_left: u64,
}

/// A place in coded bytes.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    bit: usize,
}

impl Cursor<'_> {
    /// The next 32 bits, zeros behind the end.
    fn window(&self) -> u32 {
        let first = self.bit / 8;
        let mut bits = 0u64;
        for at in first..first + 5 {
            bits = bits << 8 | u64::from(self.bytes.get(at).copied().unwrap_or(0));
        }
        (bits >> (8 - self.bit % 8)) as u32
    }
}

impl HuffCdic {
    /// `steps` bounds the codes read in all: phrases may be empty, so the text's size alone does not.
    pub fn new(huff: &[u8], dictionaries: Vec<Vec<u8>>, steps: u64) -> Result<Self, Fault> {
        if !huff.starts_with(b"HUFF") {
            return Err(Fault::Damaged("the compression's HUFF record is none"));
        }
        let table = be32(huff, 8).ok_or(SHORT)? as usize;
        let lengths = be32(huff, 12).ok_or(SHORT)? as usize;
        let mut codes = Vec::with_capacity(256);
        for at in 0..256 {
            let value = be32(huff, table.saturating_add(at * 4)).ok_or(SHORT)?;
            let bits = value & 0x1f;
            codes.push(Code { bits, is_final: value & 0x80 != 0, greatest: greatest(value >> 8, bits) });
        }
        let mut ranges = [(0, 0); 33];
        for bits in 1..=32u32 {
            let at = lengths.saturating_add((bits as usize - 1) * 8);
            let least = be32(huff, at).ok_or(SHORT)?;
            let most = be32(huff, at.saturating_add(4)).ok_or(SHORT)?;
            ranges[bits as usize] = (u64::from(least) << (32 - bits), greatest(most, bits));
        }
        let mut huffcdic = Self { codes, ranges, records: dictionaries, phrases: Vec::new(), steps_left: steps };
        for record in 0..huffcdic.records.len() {
            huffcdic.read_dictionary(record)?;
        }
        Ok(huffcdic)
    }

    fn read_dictionary(&mut self, record: usize) -> Result<(), Fault> {
        let bytes = &self.records[record];
        if !bytes.starts_with(b"CDIC") {
            return Err(Fault::Damaged("a CDIC record of the compression is none"));
        }
        let phrases = be32(bytes, 8).ok_or(SHORT)? as usize;
        let bits = be32(bytes, 12).ok_or(SHORT)?;
        let count = phrases.saturating_sub(self.phrases.len()).min(1usize.checked_shl(bits).unwrap_or(usize::MAX));
        for at in 0..count {
            let offset = usize::from(be16(bytes, 16 + at * 2).ok_or(SHORT)?) + 16;
            let length = be16(bytes, offset).ok_or(SHORT)?;
            let (start, end) = (offset + 2, offset + 2 + usize::from(length & 0x7fff));
            if end > bytes.len() || self.phrases.len() == MAX_PHRASES {
                return Err(SHORT);
            }
            self.phrases.push(Phrase { record, start, end, is_plain: length & 0x8000 != 0 });
        }
        Ok(())
    }

    /// Unpacks one record to the end of `out`, at most up to `limit` bytes of it.
    pub fn unpack(&mut self, record: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Fault> {
        let mut open = vec![Cursor { bytes: record, bit: 0 }];
        while let Some(cursor) = open.last_mut() {
            let code = u64::from(cursor.window());
            let Code { mut bits, is_final, mut greatest } = self.codes[(code >> 24) as usize];
            if !is_final {
                while bits < 33 && code < self.ranges[bits as usize].0 {
                    bits += 1;
                }
                greatest = self.ranges.get(bits as usize).map_or(0, |range| range.1);
            }
            if bits == 0 || bits > 32 {
                return Err(Fault::Damaged("a text record holds an unknown code"));
            }
            cursor.bit += bits as usize;
            if cursor.bit > cursor.bytes.len() * 8 {
                open.pop();
                continue;
            }
            self.steps_left = self.steps_left.checked_sub(1).ok_or(Fault::TooLarge)?;
            let number = greatest.checked_sub(code).map(|distance| (distance >> (32 - bits)) as usize);
            let Some(phrase) = number.and_then(|number| self.phrases.get(number)) else {
                return Err(Fault::Damaged("a text record refers to an unknown phrase"));
            };
            let bytes = &self.records[phrase.record][phrase.start..phrase.end];
            if phrase.is_plain {
                if bytes.len() > limit.saturating_sub(out.len()) {
                    return Err(Fault::TooLarge);
                }
                out.extend_from_slice(bytes);
            } else if open.len() == MAX_DEPTH {
                return Err(Fault::Damaged("the compression's dictionary runs in circles"));
            } else {
                open.push(Cursor { bytes, bit: 0 });
            }
        }
        Ok(())
    }
}

/// The greatest code of a length with all that may follow it.
fn greatest(value: u32, bits: u32) -> u64 {
    ((u64::from(value) + 1) << 32u32.saturating_sub(bits)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All codes have eight bits; code 255 - n is phrase n.
    fn huff() -> Vec<u8> {
        let mut huff = b"HUFF\0\0\0\x18".to_vec();
        huff.extend_from_slice(&24u32.to_be_bytes());
        huff.extend_from_slice(&(24u32 + 1024).to_be_bytes());
        huff.extend_from_slice(&[0; 8]);
        (0..256).for_each(|_| huff.extend_from_slice(&(255u32 << 8 | 0x80 | 8).to_be_bytes()));
        huff.extend_from_slice(&[0; 256]);
        huff
    }

    fn cdic(phrases: &[(&[u8], bool)]) -> Vec<u8> {
        let mut cdic = b"CDIC\0\0\0\x10".to_vec();
        cdic.extend_from_slice(&(phrases.len() as u32).to_be_bytes());
        cdic.extend_from_slice(&8u32.to_be_bytes());
        let mut at = phrases.len() * 2;
        for (phrase, _) in phrases {
            cdic.extend_from_slice(&(at as u16).to_be_bytes());
            at += 2 + phrase.len();
        }
        for (phrase, is_plain) in phrases {
            let flag = if *is_plain { 0x8000 } else { 0 };
            cdic.extend_from_slice(&(phrase.len() as u16 | flag).to_be_bytes());
            cdic.extend_from_slice(phrase);
        }
        cdic
    }

    fn unpacked(phrases: &[(&[u8], bool)], record: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        HuffCdic::new(&huff(), vec![cdic(phrases)], 10_000)?.unpack(record, &mut out, limit)?;
        Ok(out)
    }

    #[test]
    fn phrases_of_phrases_are_read() {
        let phrases: [(&[u8], bool); 3] = [(b"to be ", true), (b"or not ", true), (&[255, 254, 255], false)];
        assert_eq!(unpacked(&phrases, &[253, 254], 100).unwrap(), b"to be or not to be or not ");
        assert!(matches!(unpacked(&phrases, &[253, 254], 20), Err(Fault::TooLarge)));
        assert!(matches!(unpacked(&phrases, &[252], 20), Err(Fault::Damaged(_))));
    }

    #[test]
    fn circles_and_empty_phrases_end() {
        assert!(matches!(unpacked(&[(&[255], false)], &[255], 100), Err(Fault::Damaged(_))));
        // Thirty levels of eight: 8^30 codes without a byte of text.
        let mut phrases: Vec<(Vec<u8>, bool)> = vec![(Vec::new(), true)];
        (0..30).for_each(|level| phrases.push((vec![255 - level; 8], false)));
        let phrases: Vec<(&[u8], bool)> = phrases.iter().map(|(bytes, plain)| (bytes.as_slice(), *plain)).collect();
        assert!(matches!(unpacked(&phrases, &[225], 100), Err(Fault::TooLarge)));
    }

    proptest! {
        #[test]
        fn anything_ends_within_the_limit(
            tables in prop::collection::vec(any::<u8>(), 0..1500),
            phrases in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..8), any::<bool>()), 0..40),
            record in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let phrases: Vec<(&[u8], bool)> = phrases.iter().map(|(bytes, plain)| (bytes.as_slice(), *plain)).collect();
            let mut random = huff();
            for (at, byte) in tables.iter().enumerate().skip(16) {
                if let Some(to) = random.get_mut(at) { *to = *byte; }
            }
            for tables in [huff(), random, tables] {
                let mut out = Vec::new();
                if let Ok(mut huffcdic) = HuffCdic::new(&tables, vec![cdic(&phrases)], 5_000) {
                    let _ = huffcdic.unpack(&record, &mut out, 1_000);
                }
                prop_assert!(out.len() <= 1_000);
            }
        }
    }
}
