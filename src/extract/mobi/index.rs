//! INDX: the tables of a Mobipocket book (table of contents, KF8's skeletons and fragments). A record describes the
//! table, the next ones hold the entries, then come the strings (CNCX). Must never trust a count or an offset.
//!
//! Format: <https://wiki.mobileread.com/wiki/MOBI#Index_meta_record> and KindleUnpack's reading of it.

use super::Fault;
use super::palm::{be16, be32};

/// Of all tables of a book together. A book of 64 MB in KF8 has some 8,000 fragments.
const MAX_ENTRIES: usize = 100_000;
/// Rows of a table's description, each of which is looked at for every entry. Real ones have up to a few dozen.
const MAX_TAGS: usize = 1000;
/// Of all strings of a table.
const MAX_STRING_BYTES: usize = 16 << 20;
/// Of one string; longer ones are no titles.
const STRING_BYTES: usize = 1200;

/// A row: its name, and its values by tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    values: Vec<(u8, u32)>,
}

impl Entry {
    /// The `at`-th value of `tag`.
    pub fn value(&self, tag: u8, at: usize) -> Option<u32> {
        self.values.iter().filter(|(own, _)| *own == tag).nth(at).map(|(_, value)| *value)
    }
}

/// A whole table.
#[derive(Debug, Default)]
pub struct Index {
    pub entries: Vec<Entry>,
    strings: Vec<Vec<u8>>,
}

impl Index {
    /// Reads the table whose first record is `at`; `record` reads any.
    pub fn read(at: u32, mut record: impl FnMut(u32) -> Result<Vec<u8>, Fault>) -> Result<Self, Fault> {
        let description = Description::parse(&record(at)?)?;
        let mut index = Self::default();
        for next in 1..=description.records {
            let bytes = record(at.saturating_add(next))?;
            description.entries(&bytes, &mut index.entries)?;
        }
        let mut string_bytes = 0;
        for next in 1..=description.string_records {
            let strings = record(at.saturating_add(description.records).saturating_add(next))?;
            string_bytes += strings.len();
            if string_bytes > MAX_STRING_BYTES {
                return Err(Fault::TooLarge);
            }
            index.strings.push(strings);
        }
        Ok(index)
    }

    /// The string that an entry names by its offset: the record's number above, the place in it below.
    pub fn string(&self, offset: u32) -> Option<&[u8]> {
        let record = self.strings.get((offset >> 16) as usize)?;
        let mut rest = record.get((offset & 0xffff) as usize..)?;
        let length = number(&mut rest)? as usize;
        rest.get(..length).map(|string| &string[..length.min(STRING_BYTES)])
    }
}

#[derive(Debug, Clone, Copy)]
struct Tag {
    tag: u8,
    values: u8,
    mask: u8,
    /// The end of a control byte's tags.
    is_end: bool,
}

/// What the first record says.
struct Description {
    records: u32,
    string_records: u32,
    control_bytes: usize,
    tags: Vec<Tag>,
}

impl Description {
    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        const NO_INDEX: Fault = Fault::Damaged("a table's description is none");
        let field = |at| be32(bytes, at).ok_or(NO_INDEX);
        if !bytes.starts_with(b"INDX") {
            return Err(NO_INDEX);
        }
        let (records, string_records) = (field(24)?, field(52)?);
        let is_tagx = |at: &usize| bytes.get(*at..).is_some_and(|rest| rest.starts_with(b"TAGX"));
        let named = [4, 180].into_iter().filter_map(|at| be32(bytes, at)).map(|at| at as usize).find(is_tagx);
        let tagx = named.or_else(|| bytes.windows(4).position(|part| part == b"TAGX")).ok_or(NO_INDEX)?;
        let length = field(tagx + 4)? as usize;
        let control_bytes = field(tagx + 8)? as usize;
        let rows = tagx.checked_add(length).and_then(|end| bytes.get(tagx + 12..end)).ok_or(NO_INDEX)?;
        if rows.len() > MAX_TAGS * 4 {
            return Err(NO_INDEX);
        }
        let tags = rows
            .chunks_exact(4)
            .map(|row| Tag { tag: row[0], values: row[1], mask: row[2], is_end: row[3] == 1 })
            .collect();
        Ok(Self { records, string_records, control_bytes, tags })
    }

    fn entries(&self, bytes: &[u8], entries: &mut Vec<Entry>) -> Result<(), Fault> {
        const DAMAGED: Fault = Fault::Damaged("a table's record breaks off");
        if !bytes.starts_with(b"INDX") {
            return Err(DAMAGED);
        }
        let ends = be32(bytes, 20).ok_or(DAMAGED)? as usize;
        let count = be32(bytes, 24).ok_or(DAMAGED)? as usize;
        for at in 0..count {
            let place = |at: usize| be16(bytes, ends.saturating_add(4).saturating_add(at * 2)).map(usize::from);
            let start = place(at).ok_or(DAMAGED)?;
            let end = if at + 1 < count { place(at + 1).ok_or(DAMAGED)? } else { ends };
            // Rising places mean that no byte is read twice, so the values cannot outgrow the record.
            let entry = if start < end { bytes.get(start..end) } else { None };
            if entries.len() == MAX_ENTRIES {
                return Err(Fault::TooLarge);
            }
            entries.push(self.entry(entry.ok_or(DAMAGED)?).ok_or(DAMAGED)?);
        }
        Ok(())
    }

    fn entry(&self, bytes: &[u8]) -> Option<Entry> {
        let (length, rest) = bytes.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (mut controls, mut rest) = rest.split_at_checked(self.control_bytes)?;
        // First the lengths of all, then the values of all.
        let mut wanted = Vec::new();
        for tag in &self.tags {
            if tag.is_end {
                controls = controls.get(1..)?;
                continue;
            }
            let bits = controls.first()? & tag.mask;
            if bits == 0 {
                continue;
            }
            let wants = if bits == tag.mask && tag.mask.count_ones() > 1 {
                Wants::Bytes(number(&mut rest)? as usize)
            } else {
                Wants::Values(usize::from(bits >> tag.mask.trailing_zeros()) * usize::from(tag.values))
            };
            wanted.push((tag.tag, wants));
        }
        let mut entry = Entry { name: name.to_vec(), values: Vec::new() };
        for (tag, wants) in wanted {
            match wants {
                Wants::Values(count) => {
                    for _ in 0..count {
                        entry.values.push((tag, number(&mut rest)?));
                    }
                }
                Wants::Bytes(count) => {
                    let (mut values, behind) = rest.split_at_checked(count)?;
                    while !values.is_empty() {
                        entry.values.push((tag, number(&mut values)?));
                    }
                    rest = behind;
                }
            }
        }
        Some(entry)
    }
}

enum Wants {
    Values(usize),
    Bytes(usize),
}

/// A number of seven bits a byte; the last byte has the top bit.
fn number(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for at in 0..5 {
        let byte = *bytes.get(at)?;
        value = value << 7 | u32::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            *bytes = &bytes[at + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table's description: entries with a position (1), a label (3), a depth (4) and a fragment's place (6).
    pub fn description(records: u32, string_records: u32) -> Vec<u8> {
        let mut bytes = vec![0; 192];
        bytes[..4].copy_from_slice(b"INDX");
        bytes[4..8].copy_from_slice(&192u32.to_be_bytes());
        bytes[24..28].copy_from_slice(&records.to_be_bytes());
        bytes[52..56].copy_from_slice(&string_records.to_be_bytes());
        bytes.extend_from_slice(b"TAGX");
        bytes.extend_from_slice(&(12u32 + 5 * 4).to_be_bytes());
        bytes.extend_from_slice(&1u32.to_be_bytes());
        bytes.extend_from_slice(&[1, 1, 1, 0, 3, 1, 2, 0, 4, 1, 4, 0, 6, 2, 0x18, 0, 0, 0, 0, 1]);
        bytes
    }

    /// A record of entries, each already in bytes.
    pub fn record(entries: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 192];
        bytes[..4].copy_from_slice(b"INDX");
        bytes[24..28].copy_from_slice(&(entries.len() as u32).to_be_bytes());
        let mut places = b"IDXT".to_vec();
        for entry in entries {
            places.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            bytes.extend_from_slice(entry);
        }
        let ends = bytes.len() as u32;
        bytes[20..24].copy_from_slice(&ends.to_be_bytes());
        bytes.extend_from_slice(&places);
        bytes
    }

    fn read(records: &[Vec<u8>]) -> Result<Index, Fault> {
        Index::read(0, |at| records.get(at as usize).cloned().ok_or(Fault::Damaged("no such record")))
    }

    #[test]
    fn entries_and_their_strings_are_read() {
        let strings = b"\x83abc\x82\xc5\xbe".to_vec();
        // "0": position 300, label at 0, depth 0; "1": label at 4, one pair of fragment 2 and 5; "2": pairs by bytes.
        let first = [1, b'0', 0b111, 2, 0x80 | 44, 0x80, 0x80];
        let second = [1, b'1', 0b01010, 0x84, 0x82, 0x85];
        let third = [1, b'2', 0b11000, 0x84, 0x81, 0x82, 0x83, 0x84];
        let index = read(&[description(1, 1), record(&[&first, &second, &third]), strings]).unwrap();
        let values: Vec<_> = index.entries.iter().map(|e| (e.value(1, 0), e.value(3, 0), e.value(4, 0))).collect();
        assert_eq!(values, [(Some(300), Some(0), Some(0)), (None, Some(4), None), (None, None, None)]);
        assert_eq!((index.entries[1].value(6, 0), index.entries[1].value(6, 1)), (Some(2), Some(5)));
        assert_eq!((index.entries[2].value(6, 3), index.entries[2].value(6, 4)), (Some(4), None));
        assert_eq!((index.string(0), index.string(4)), (Some(b"abc".as_slice()), Some("ž".as_bytes())));
        assert_eq!((index.string(99), index.string(1 << 16)), (None, None));
    }

    #[test]
    fn a_description_of_endless_tags_is_none() {
        let mut description = description(1, 0);
        let tagx = description.windows(4).position(|part| part == b"TAGX").unwrap();
        description[tagx + 4..tagx + 8].copy_from_slice(&(12 + 4 * (MAX_TAGS as u32 + 1)).to_be_bytes());
        description.extend_from_slice(&[1, 1, 0, 0].repeat(MAX_TAGS + 1));
        assert!(matches!(read(&[description, record(&[&[1, b'0', 0]])]), Err(Fault::Damaged(_))));
    }

    #[test]
    fn wrong_counts_and_places_are_damage() {
        let entry = [1, b'0', 1, 0x80];
        assert!(read(&[description(2, 0), record(&[&entry])]).is_err());
        assert!(read(&[record(&[&entry])]).is_err());
        let mut backwards = record(&[&entry, &entry]);
        let end = backwards.len();
        backwards[end - 2..].copy_from_slice(&[0, 1]);
        assert!(read(&[description(1, 0), backwards]).is_err());
        let mut many = record(&[&entry]);
        many[24..28].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(read(&[description(1, 0), many]).is_err());
        assert!(read(&[description(1, 0), record(&[&[9, b'0']])]).is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(
            noise in prop::collection::vec((0usize..400, any::<u8>()), 0..20),
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..9),
        ) {
            let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            let mut records = [description(1, 1), record(&entries), b"\x83abc".to_vec()];
            for (at, byte) in noise {
                let length = records[at % 2].len();
                records[at % 2][at % length] = byte;
            }
            if let Ok(index) = read(&records) {
                for entry in &index.entries {
                    let _ = index.string(entry.value(3, 0).unwrap_or(0));
                }
            }
        }
    }
}
