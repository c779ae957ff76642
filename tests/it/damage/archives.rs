//! ZIP archives byte by byte, because no library writes the wrong ones: sizes that are not true, entries that share their
//! data, names that lead out of the archive, and bombs. Must never hold a bomb unpacked.
//!
//! Format: PKWARE's APPNOTE.TXT 6.3.10; bombs: David Fifield, "A better zip bomb" (WOOT 2019).

use std::io::{Cursor, Write};

use super::{Recipe, recipe};

pub type Files = Vec<(String, Vec<u8>)>;

/// An entry as the archive will describe it, true or not.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub name: Vec<u8>,
    /// As in the archive: compressed by `method`.
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub crc: u32,
    /// The declared sizes, compressed and not.
    pub packed: u64,
    pub size: u64,
    /// Writes the sizes in ZIP64's extra field.
    pub zip64: bool,
    /// Where the directory says that the entry is, if not where it is.
    pub offset: Option<u64>,
    /// Has no data of its own: the directory points at those of the entry with this number.
    pub same_data_as: Option<usize>,
    /// Bytes of the extra field.
    pub extra: Vec<u8>,
}

impl Entry {
    pub fn stored(name: impl Into<Vec<u8>>, data: &[u8]) -> Self {
        let size = data.len() as u64;
        Self { name: name.into(), data: data.to_vec(), crc: crc32(data), packed: size, size, ..Self::default() }
    }

    /// An entry of deflated `data`; the checksum is not known.
    pub fn deflated(name: impl Into<Vec<u8>>, data: Vec<u8>, size: u64) -> Self {
        let packed = data.len() as u64;
        Self { name: name.into(), data, method: 8, packed, size, ..Self::default() }
    }
}

/// Files as entries, stored.
pub fn entries(files: &Files) -> Vec<Entry> {
    files.iter().map(|(name, bytes)| Entry::stored(name.as_str(), bytes)).collect()
}

/// A proper archive, stored.
pub fn zip(files: &Files) -> Vec<u8> {
    write(&entries(files))
}

/// A proper archive, deflated.
pub fn packed(files: &Files) -> Vec<u8> {
    let options = zip::write::SimpleFileOptions::default().compression_level(Some(1));
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        // A name that the library refuses is left out; entries with such names are written by `write`.
        if zip.start_file(name.as_str(), options).is_ok() {
            zip.write_all(bytes).expect("memory can be written");
        }
    }
    zip.finish().expect("memory can be written").into_inner()
}

/// The archive with these entries.
pub fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut starts = Vec::new();
    for entry in entries {
        starts.push(out.len() as u64);
        if entry.same_data_as.is_none() {
            out.extend_from_slice(b"PK\x03\x04");
            head(&mut out, entry);
            out.extend_from_slice(&entry.name[..entry.name.len().min(0xffff)]);
            out.extend_from_slice(&extra(entry));
            out.extend_from_slice(&entry.data);
        }
    }
    let directory = out.len();
    for (entry, start) in entries.iter().zip(&starts) {
        let start = entry.same_data_as.and_then(|other| starts.get(other).copied()).unwrap_or(*start);
        out.extend_from_slice(b"PK\x01\x02\x14\x00");
        head(&mut out, entry);
        // Comment, disk, attributes.
        out.extend_from_slice(&[0; 10]);
        out.extend_from_slice(&(entry.offset.unwrap_or(start) as u32).to_le_bytes());
        out.extend_from_slice(&entry.name[..entry.name.len().min(0xffff)]);
        out.extend_from_slice(&extra(entry));
    }
    let size = (out.len() - directory) as u32;
    if entries.len() > 0xffff {
        // ZIP64's end of the directory and the locator of it.
        let end = out.len() as u64;
        out.extend_from_slice(b"PK\x06\x06");
        out.extend_from_slice(&44u64.to_le_bytes());
        out.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [entries.len() as u64, entries.len() as u64, u64::from(size), directory as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        out.extend_from_slice(&end.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
    }
    let count = (entries.len().min(0xffff) as u16).to_le_bytes();
    out.extend_from_slice(&[b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count, &size.to_le_bytes()].concat());
    out.extend_from_slice(&(directory as u32).to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

/// What the local header and the directory have in common.
fn head(out: &mut Vec<u8>, entry: &Entry) {
    let narrow = |size: u64| if entry.zip64 { u32::MAX } else { size as u32 };
    out.extend_from_slice(&[20, 0]);
    out.extend_from_slice(&entry.flags.to_le_bytes());
    out.extend_from_slice(&entry.method.to_le_bytes());
    out.extend_from_slice(&[0, 0, 0x21, 0]);
    for number in [entry.crc, narrow(entry.packed), narrow(entry.size)] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(entry.name.len().min(0xffff) as u16).to_le_bytes());
    out.extend_from_slice(&(extra(entry).len() as u16).to_le_bytes());
}

fn extra(entry: &Entry) -> Vec<u8> {
    let mut extra = entry.extra.clone();
    if entry.zip64 {
        extra.extend_from_slice(&[1, 0, 16, 0]);
        extra.extend_from_slice(&entry.size.to_le_bytes());
        extra.extend_from_slice(&entry.packed.to_le_bytes());
    }
    extra
}

pub fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|at| {
        (0..8).fold(at as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ table[((crc ^ u32::from(*byte)) & 0xff) as usize])
}

/// A deflated stream of `size` bytes, `literal` again and again, in one byte for each thousand: one block whose code for
/// "258 times the byte before" is two zero bits (RFC 1951, 3.2.7).
pub fn bomb(literal: u8, size: u64) -> Vec<u8> {
    let mut out = Bits::default();
    // Last block, dynamic codes; 286 codes of length and literal, 1 of distance, 18 of the codes' lengths.
    out.number(1, 1);
    out.number(2, 2);
    out.number(29, 5);
    out.number(0, 5);
    out.number(14, 4);
    // In the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: "18" has one bit, "2" and "1" have two.
    for length in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
        out.number(length, 3);
    }
    // Lengths of the codes: two bits for the literal and the end, one for 258 times, one for the distance of one.
    let zeros = |out: &mut Bits, mut count: usize| {
        while count > 0 {
            let run = if count > 138 && count < 149 { 100 } else { count.min(138) };
            out.code("0");
            out.number(run as u32 - 11, 7);
            count -= run;
        }
    };
    assert!(literal >= 11, "shorter runs have another code");
    zeros(&mut out, usize::from(literal));
    out.code("11");
    zeros(&mut out, 255 - usize::from(literal));
    out.code("11");
    zeros(&mut out, 28);
    out.code("10");
    out.code("10");
    // The text: the literal, then copies of it.
    out.code("10");
    out.zeros(2 * (size / 258));
    out.code("11");
    out.bytes
}

/// Bits as deflate packs them.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn bit(&mut self, bit: bool) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << (self.used % 8);
        }
        self.used = (self.used + 1) % 8;
    }

    fn number(&mut self, value: u32, bits: u32) {
        (0..bits).for_each(|at| self.bit(value >> at & 1 == 1));
    }

    fn code(&mut self, code: &str) {
        code.bytes().for_each(|bit| self.bit(bit == b'1'));
    }

    fn zeros(&mut self, mut bits: u64) {
        while !self.used.is_multiple_of(8) && bits > 0 {
            self.bit(false);
            bits -= 1;
        }
        self.bytes.resize(self.bytes.len() + (bits / 8) as usize, 0);
        (0..bits % 8).for_each(|_| self.bit(false));
    }
}

/// The formats that are archives, with the name of the entry that holds most of the text.
pub const ARCHIVES: [(&str, &str); 8] = [
    ("EPUB", "OEBPS/a.xhtml"),
    ("KEPUB", "OEBPS/a.xhtml"),
    ("DOCX", "word/document.xml"),
    ("ODT", "content.xml"),
    ("FBZ", "b.fb2"),
    ("HTMLZ", "index.html"),
    ("ZIP", "x/index.html"),
    ("FB2", "b.fb2"),
];

/// The proper files of such a format.
fn proper(format: &str) -> Vec<Entry> {
    entries(&super::seeds::archive(format))
}

fn with(format: &'static str, change: impl Fn(&mut Vec<Entry>, usize)) -> Vec<u8> {
    let mut all = proper(format);
    let name = ARCHIVES.iter().find(|(own, _)| *own == format).map_or("", |(_, name)| name);
    let at = all.iter().position(|entry| entry.name == name.as_bytes()).unwrap_or(0);
    change(&mut all, at);
    write(&all)
}

pub fn recipes() -> Vec<Recipe> {
    let mut list = Vec::new();
    for (format, _) in ARCHIVES {
        let mut add = |name: &str, change: fn(&mut Vec<Entry>, usize)| {
            list.push(recipe(format!("zip-{name}"), format, move || with(format, change)));
        };
        add("bomb-1-gb", |all, at| {
            all[at] = Entry::deflated(all[at].name.clone(), bomb(b'a', 1 << 30), 1 << 30);
        });
        add("bomb-just-below-the-limit", |all, at| {
            all[at] = Entry::deflated(all[at].name.clone(), bomb(b'<', (64 << 20) - 600), (64 << 20) - 600);
        });
        add("declared-4-gb", |all, at| (all[at].size, all[at].packed) = (u64::from(u32::MAX) - 1, 0xffff_fff0));
        add("declared-16-eb", |all, at| (all[at].size, all[at].zip64) = (u64::MAX, true));
        add("declared-packed-16-eb", |all, at| (all[at].packed, all[at].zip64) = (u64::MAX - 5, true));
        add("declared-nothing", |all, at| (all[at].size, all[at].packed) = (0, 0));
        add("wrong-checksum", |all, at| all[at].crc ^= 1);
        add("encrypted", |all, at| all[at].flags |= 1);
        add("unknown-method", |all, at| all[at].method = 97);
        add("stored-said-to-be-deflated", |all, at| all[at].method = 8);
        add("doubled-names", |all, at| {
            let copy = all[at].clone();
            (0..1000).for_each(|_| all.push(copy.clone()));
        });
        add("names-that-lead-out", |all, _| {
            for name in
                ["../../../../etc/passwd", "/etc/passwd", "C:\\Windows\\x.html", "\\\\host\\x.html", "..", "/", ""]
            {
                all.push(Entry::stored(name, b"<p>x</p>"));
            }
        });
        add("names-of-64-kb", |all, _| {
            (0..50u8)
                .for_each(|at| all.push(Entry::stored([&[b'a' + at % 26], &b"/x"[..]].concat().repeat(21_000), b"")));
        });
        add("100000-entries", |all, _| {
            (0..100_000).for_each(|at| all.push(Entry::stored(format!("{at:x}.html"), b"")));
        });
        add("100000-entries-of-the-same-data", |all, at| {
            (0..30_000).for_each(|n| {
                let name = format!("p{n:x}.html");
                all.push(Entry { name: name.into_bytes(), same_data_as: Some(at), ..all[at].clone() });
            });
        });
        add("overlapping-bombs", |all, at| {
            // Every entry is the same two hundred kilobytes, two hundred megabytes unpacked: 400 GB.
            all[at] = Entry::deflated(all[at].name.clone(), bomb(b' ', 200 << 20), 200 << 20);
            (0..2000).for_each(|n| {
                let name = format!("p{n:x}.html");
                all.push(Entry {
                    name: name.into_bytes(),
                    data: Vec::new(),
                    same_data_as: Some(at),
                    ..all[at].clone()
                });
            });
        });
        add("entry-points-at-the-directory", |all, at| all[at].offset = Some(u64::from(u32::MAX)));
        add("entry-points-at-itself", |all, at| all[at].offset = Some(31));
    }
    let tail = |make: fn(Vec<u8>) -> Vec<u8>| move || make(zip(&super::seeds::archive("EPUB")));
    for (name, change) in [
        // Each of these could be the end of the directory.
        ("5-mb-of-ends", (|bytes| [bytes, b"PK\x05\x06".repeat(1_300_000)].concat()) as fn(Vec<u8>) -> Vec<u8>),
        ("5-mb-of-whole-ends", |bytes| {
            let end = bytes[bytes.len() - 22..].to_vec();
            [bytes, end.repeat(230_000), b"x".to_vec()].concat()
        }),
        ("5-mb-of-zip64-ends", |bytes| {
            let end = [b"PK\x06\x06".as_slice(), &44u64.to_le_bytes(), &[0; 44]].concat();
            [end.repeat(90_000), b"PK\x06\x07\0\0\0\0\x38\0\0\0\0\0\0\0\x01\0\0\0".to_vec(), bytes].concat()
        }),
        ("ends-that-each-fit-a-directory", |bytes| {
            // 64 KB of ends in a comment, each of which names a directory of many entries that is there.
            let many = write(&(0..20_000).map(|n| Entry::stored(format!("{n}"), b"")).collect::<Vec<_>>());
            let end = many[many.len() - 22..].to_vec();
            [many, end.repeat(2900), bytes[..10].to_vec()].concat()
        }),
        ("data-before-it", |bytes| [vec![b'x'; 5 << 20], bytes].concat()),
        ("data-behind-it", |bytes| [bytes, vec![0; 5 << 20]].concat()),
        ("a-directory-that-says-65535", |mut bytes| {
            let end = bytes.len() - 14;
            bytes[end..end + 4].fill(0xff);
            bytes
        }),
        ("a-directory-of-4-gb", |mut bytes| {
            let end = bytes.len() - 10;
            bytes[end..end + 8].fill(0xfe);
            bytes
        }),
        ("directory-only", |bytes| {
            let at = bytes.windows(4).position(|part| part == b"PK\x01\x02").unwrap_or(0);
            bytes[at..].to_vec()
        }),
        ("local-headers-only", |bytes| {
            let at = bytes.windows(4).position(|part| part == b"PK\x01\x02").unwrap_or(0);
            bytes[..at].to_vec()
        }),
    ] {
        list.push(recipe(format!("zip-{name}"), "EPUB", tail(change)));
    }
    // Ten gigabytes in ten megabytes; and an archive in an archive in an archive.
    list.push(recipe("zip-bomb-10-gb", "EPUB", || {
        with("EPUB", |all, at| all[at] = Entry::deflated(all[at].name.clone(), bomb(b'a', 10 << 30), 10 << 30))
    }));
    list.push(recipe("zip-nested", "ZIP", || {
        (0..12).fold(b"<p>x</p>".to_vec(), |inner, level| {
            let name = if level == 0 { "index.html" } else { "inner.zip" };
            write(&(0..4).map(|n| Entry::stored(format!("{n}{name}"), &inner)).collect::<Vec<_>>()[..1 + level % 2])
        })
    }));
    list
}
