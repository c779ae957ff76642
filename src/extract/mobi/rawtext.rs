//! A book's text records as one run of markup. Must never take a record's trailing entries for text, or unpack more
//! than the limit.
//!
//! Format: <https://wiki.mobileread.com/wiki/MOBI#Trailing_entries>.

use super::header::Header;
use super::huffcdic::HuffCdic;
use super::palm::Palm;
use super::{Fault, palmdoc};

const NONE: u16 = 1;
const PALMDOC: u16 = 2;
/// "DH".
const HUFF_CDIC: u16 = 17480;

/// Of all records of a dictionary. Real ones have a few dozen records of at most 64 KB.
const MAX_DICTIONARY_BYTES: usize = 32 << 20;

/// The whole text of the book whose header is record `base`.
pub fn read(palm: &mut Palm, base: usize, header: &Header) -> Result<Vec<u8>, Fault> {
    let limit = usize::try_from(palm.limits().max_entry_bytes).unwrap_or(usize::MAX);
    let mut huff = match header.compression {
        NONE | PALMDOC => None,
        HUFF_CDIC => Some(dictionary(palm, base, header)?),
        _ => return Err(Fault::Damaged("its text is compressed in an unknown way")),
    };
    let mut text = Vec::new();
    for number in 1..=usize::from(header.text_records) {
        let record = palm.record(base + number)?;
        let record = without_trailing(&record, header.extra_data_flags)
            .ok_or(Fault::Damaged("a text record is shorter than what it carries behind its text"))?;
        match &mut huff {
            Some(huff) => huff.unpack(record, &mut text, limit)?,
            None if header.compression == PALMDOC => palmdoc::unpack(record, &mut text, limit)?,
            None if record.len() > limit - text.len() => return Err(Fault::TooLarge),
            None => text.extend_from_slice(record),
        }
    }
    Ok(text)
}

fn dictionary(palm: &mut Palm, base: usize, header: &Header) -> Result<HuffCdic, Fault> {
    let (first, count) = header.huff;
    let first = base.saturating_add(first as usize);
    let huff = palm.record(first)?;
    let mut dictionaries = Vec::new();
    let mut bytes = 0;
    for at in 1..count as usize {
        let record = palm.record(first.saturating_add(at))?;
        bytes += record.len();
        if bytes > MAX_DICTIONARY_BYTES {
            return Err(Fault::TooLarge);
        }
        dictionaries.push(record);
    }
    HuffCdic::new(&huff, dictionaries, palm.limits().max_entry_bytes)
}

/// The record up to its trailing entries: one for every bit above the lowest, each with its length at its end, and
/// for the lowest the bytes of a character that the next record has again.
fn without_trailing(record: &[u8], flags: u16) -> Option<&[u8]> {
    let mut rest = record;
    for _ in 0..(flags >> 1).count_ones() {
        let length = backward_number(rest);
        rest = rest.get(..rest.len().checked_sub(length)?)?;
    }
    if flags & 1 != 0 {
        let length = usize::from(rest.last().copied()? & 3) + 1;
        rest = rest.get(..rest.len().checked_sub(length)?)?;
    }
    Some(rest)
}

/// A number of seven bits a byte read from the end; its first byte has the top bit.
fn backward_number(bytes: &[u8]) -> usize {
    let mut value = 0;
    for (at, byte) in bytes.iter().rev().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (at * 7);
        if byte & 0x80 != 0 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_entries_are_cut() {
        assert_eq!(without_trailing(b"text", 0), Some(b"text".as_slice()));
        // The lowest bit: two bytes of a character and their count.
        assert_eq!(without_trailing(b"text\xc5\xbe\x02", 1), Some(b"text".as_slice()));
        assert_eq!(without_trailing(b"text\x80", 1), Some(b"text".as_slice()));
        // One entry of three bytes with its length; two of them; both kinds.
        assert_eq!(without_trailing(b"textab\x83", 2), Some(b"text".as_slice()));
        assert_eq!(without_trailing(b"texta\x82ab\x83", 6), Some(b"text".as_slice()));
        assert_eq!(without_trailing(b"text\0ab\x83", 3), Some(b"text".as_slice()));
        let long = [b"text".as_slice(), &[b'x'; 198], &[0x81, 200 - 128]].concat();
        assert_eq!(without_trailing(&long, 2), Some(b"text".as_slice()));
    }

    #[test]
    fn an_entry_longer_than_its_record_is_damage() {
        assert_eq!(without_trailing(b"a\x83", 2), None);
        assert_eq!(without_trailing(b"a\x03", 1), None);
        assert_eq!(without_trailing(b"", 1), None);
        assert_eq!(without_trailing(b"", 2), Some(b"".as_slice()));
    }
}
