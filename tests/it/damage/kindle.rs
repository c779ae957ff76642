//! Mobipocket and KF8 books byte by byte, whole and with tables that lie. Must never depend on the reader under test for
//! how a table is laid out.

use super::{Recipe, recipe};

const NONE: u32 = u32::MAX;

/// A Palm database.
pub fn palm(kind: &[u8; 8], records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 78];
    bytes[60..68].copy_from_slice(kind);
    bytes[76..78].copy_from_slice(&(records.len() as u16).to_be_bytes());
    let mut at = 78 + records.len() * 8;
    for record in records {
        bytes.extend_from_slice(&(at as u32).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        at += record.len();
    }
    records.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

/// The records of a proper database.
pub fn records(database: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|n| database[at + n])) as usize;
    let count = usize::from(u16::from_be_bytes([database[76], database[77]]));
    let mut places: Vec<usize> = (0..count).map(|at| number(78 + at * 8)).collect();
    places.push(database.len());
    places.windows(2).map(|pair| database[pair[0]..pair[1]].to_vec()).collect()
}

/// Record 0: everything absent but the text.
fn header(compression: u16, text_records: usize, version: u32) -> Vec<u8> {
    let mut bytes = vec![0; 16 + 264];
    bytes[..2].copy_from_slice(&compression.to_be_bytes());
    bytes[8..10].copy_from_slice(&(text_records as u16).to_be_bytes());
    bytes[16..20].copy_from_slice(b"MOBI");
    put(&mut bytes, 20, 264);
    put(&mut bytes, 28, 65001);
    put(&mut bytes, 36, version);
    put(&mut bytes, 0x5c, 0x1a);
    put(&mut bytes, 0x80, 0x40);
    [0xf4, 0xf8, 0xfc, 0x104].into_iter().for_each(|at| put(&mut bytes, at, NONE));
    put(&mut bytes, 0xc0, NONE);
    bytes.extend_from_slice(&exth(&[(100, b"A. Author".as_slice()), (503, b"Title"), (524, b"hr")]));
    bytes
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
}

fn with(mut bytes: Vec<u8>, numbers: &[(usize, u32)]) -> Vec<u8> {
    numbers.iter().for_each(|(at, number)| put(&mut bytes, *at, *number));
    bytes
}

fn exth(records: &[(u32, &[u8])]) -> Vec<u8> {
    let mut bytes = [b"EXTH\0\0\0\0".as_slice(), &(records.len() as u32).to_be_bytes()].concat();
    for (kind, value) in records {
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&(value.len() as u32 + 8).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    bytes
}

/// The rows of a table's description: tag, values an entry, mask, end.
const TAGS: &[u8] = &[1, 1, 1, 0, 3, 1, 2, 0, 4, 1, 4, 0, 6, 2, 0x18, 0, 0, 0, 0, 1];

fn description(records: u32, string_records: u32, tags: &[u8]) -> Vec<u8> {
    let mut bytes = with(vec![0; 192], &[(4, 192), (24, records), (52, string_records)]);
    bytes[..4].copy_from_slice(b"INDX");
    bytes.extend_from_slice(b"TAGX");
    bytes.extend_from_slice(&(12 + tags.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&1u32.to_be_bytes());
    bytes.extend_from_slice(tags);
    bytes
}

fn rows(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 192];
    bytes[..4].copy_from_slice(b"INDX");
    let mut places = b"IDXT".to_vec();
    for entry in entries {
        places.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    let end = bytes.len() as u32;
    bytes = with(bytes, &[(20, end), (24, entries.len() as u32)]);
    [bytes, places].concat()
}

/// A number of seven bits a byte.
fn number(value: u32) -> Vec<u8> {
    vec![(value >> 14 & 0x7f) as u8, (value >> 7 & 0x7f) as u8, (value & 0x7f) as u8 | 0x80]
}

fn row(name: &str, control: u8, values: &[u32]) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes(), &[control], &values.iter().flat_map(|v| number(*v)).collect::<Vec<_>>()]
        .concat()
}

const TEXT: &[u8] =
    b"<html><head><guide><reference type=\"toc\" filepos=0000000140 /></guide></head><body><h1>One</h1><p>first \
    words<mbp:pagebreak/><h1>Two</h1><p>second &amp; last<a filepos=0000000010>link</a></body></html>";

/// PalmDOC's compression without any: each byte as it is.
fn palmdoc(text: &[u8]) -> Vec<u8> {
    text.chunks(8).flat_map(|part| [&[part.len() as u8], part].concat()).collect()
}

/// Codes of eight bits; 255 - n is phrase n.
fn huff() -> Vec<u8> {
    let mut huff = b"HUFF\0\0\0\x18\0\0\0\x18".to_vec();
    huff.extend_from_slice(&(24u32 + 1024).to_be_bytes());
    huff.extend_from_slice(&[0; 8]);
    (0..256).for_each(|_| huff.extend_from_slice(&(255u32 << 8 | 0x80 | 8).to_be_bytes()));
    huff.extend_from_slice(&[0; 256]);
    huff
}

fn cdic(phrases: &[(Vec<u8>, bool)]) -> Vec<u8> {
    let mut cdic = b"CDIC\0\0\0\x10".to_vec();
    cdic.extend_from_slice(&(phrases.len() as u32).to_be_bytes());
    cdic.extend_from_slice(&8u32.to_be_bytes());
    let mut at = phrases.len() * 2;
    for (phrase, _) in phrases {
        cdic.extend_from_slice(&(at as u16).to_be_bytes());
        at += 2 + phrase.len();
    }
    for (phrase, is_plain) in phrases {
        cdic.extend_from_slice(&(phrase.len() as u16 | u16::from(*is_plain) << 15).to_be_bytes());
        cdic.extend_from_slice(phrase);
    }
    cdic
}

fn huffed(phrases: &[(Vec<u8>, bool)], text: &[u8]) -> Vec<u8> {
    let header = with(header(17480, 1, 6), &[(0x70, 2), (0x74, 2)]);
    palm(b"BOOKMOBI", &[header, text.to_vec(), huff(), cdic(phrases)])
}

/// A whole book before KF8 with a table of contents.
pub fn book(compression: u16) -> Vec<u8> {
    if compression == 17480 {
        let phrases: Vec<(Vec<u8>, bool)> = TEXT.chunks(20).map(|part| (part.to_vec(), true)).collect();
        let codes: Vec<u8> = (0..phrases.len()).map(|n| 255 - n as u8).collect();
        return huffed(&phrases, &codes);
    }
    let text = |text: &[u8]| if compression == 2 { palmdoc(text) } else { text.to_vec() };
    let (one, two) = TEXT.split_at(100);
    let entries = [row("0", 0b111, &[90, 0, 0]), row("1", 0b111, &[130, 4, 1])];
    palm(
        b"BOOKMOBI",
        &[
            with(header(compression, 2, 6), &[(0xf4, 3)]),
            text(one),
            text(two),
            description(1, 1, TAGS),
            rows(&entries),
            b"\x83One\x83Two".to_vec(),
        ],
    )
}

/// A whole book around this markup, not compressed.
pub fn around(markup: &[u8]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = markup.chunks(4096).map(<[u8]>::to_vec).collect();
    palm(b"BOOKMOBI", &[vec![header(1, parts.len(), 6)], parts].concat())
}

/// Record 0 and the tables of a book in KF8 of one skeleton and one fragment, with a drawing.
fn kf8_with(skeletons: &[Vec<u8>], fragments: &[Vec<u8>], text: &[u8], flows: &[u32]) -> Vec<u8> {
    let header = with(
        header(1, 1, 8),
        &[(0xc0, 2), (0xc4, flows.len() as u32 / 2), (0xfc, 3), (0xf8, 5), (0xf4, 7), (0x104, 10)],
    );
    let places: Vec<u8> = flows.iter().flat_map(|flow| flow.to_be_bytes()).collect();
    let fdst = [b"FDST\0\0\0\x0c".as_slice(), &(flows.len() as u32 / 2).to_be_bytes(), &places].concat();
    let records = [
        header,
        text.to_vec(),
        fdst,
        description(1, 0, TAGS),
        rows(skeletons),
        description(1, 0, TAGS),
        rows(fragments),
        description(1, 1, TAGS),
        rows(&[row("0", 0b1110, &[0, 0, 0, 0]), row("1", 0b1110, &[4, 0, 0, 3])]),
        b"\x83One\x83Two".to_vec(),
        description(1, 0, TAGS),
        rows(&[row("toc", 0b1000, &[0, 1])]),
    ];
    palm(b"BOOKMOBI", &records)
}

/// A whole AZW3.
pub fn kf8() -> Vec<u8> {
    let text = b"<html><body></body></html><p>word <img src=\"kindle:flow:0001?mime=image/svg+xml\"/> end</p><svg><text>T</text></svg>";
    kf8_with(&[row("SKEL0", 0b1001, &[1, 0, 26])], &[row("12", 0b1001, &[0, 0, 63])], text, &[0, 89, 89, 113])
}

/// A PalmDOC text, as old readers have them.
pub fn palmdoc_text() -> Vec<u8> {
    let header = [&[0u8, 2, 0, 0, 0, 0, 0, 40, 0, 1][..], &[0; 6]].concat();
    palm(b"TEXtREAd", &[header, palmdoc(b"One  line\r\ntwo\r\n\r\nthree and some more words")])
}

pub fn recipes() -> Vec<Recipe> {
    let mut list = Vec::new();
    let mut add = |name: &str, format, make: fn() -> Vec<u8>| list.push(recipe(format!("mobi-{name}"), format, make));
    add("65535-records", "MOBI", || {
        let mut records = vec![header(1, 65_534, 6)];
        records.resize(65_535, b"<p>x".to_vec());
        palm(b"BOOKMOBI", &records)
    });
    add("records-that-are-not-there", "MOBI", || with(book(1), &[(74, 0xffff)]));
    add("records-backwards", "MOBI", || {
        let mut bytes = book(1);
        let starts: Vec<[u8; 4]> = (0..6).rev().map(|n| bytes[78 + n * 8..][..4].try_into().unwrap()).collect();
        starts.iter().enumerate().for_each(|(n, start)| bytes[78 + n * 8..][..4].copy_from_slice(start));
        bytes
    });
    add("records-at-one-place", "MOBI", || {
        let mut bytes = around(&vec![b'x'; 4096 * 2000]);
        (2..1000).for_each(|n| put(&mut bytes, 78 + n * 8, 78 + 2001 * 8 + 300));
        bytes
    });
    add("palmdoc-before-the-start", "MOBI", || palm(b"BOOKMOBI", &[header(2, 1, 6), b"<p>x\x80\xf8\xbf\xff".to_vec()]));
    add("palmdoc-bomb", "MOBI", || {
        let record = [b"<p>ab".as_slice(), &[0x80, 0x0f].repeat(32_000)].concat();
        palm(b"BOOKMOBI", &[vec![header(2, 300, 6)], vec![record; 300]].concat())
    });
    add("palmdoc-breaks-off", "PRC", || {
        palm(b"BOOKMOBI", &[header(2, 2, 6), b"<p>x\x80".to_vec(), b"\x08ab".to_vec()])
    });
    add("huff-phrase-of-itself", "AZW", || huffed(&[(vec![255], false)], &[255; 3000]));
    add("huff-phrases-in-a-circle", "AZW", || huffed(&[(vec![254, 254], false), (vec![255, 255], false)], &[255]));
    add("huff-exponential", "AZW", || {
        let mut phrases = vec![(b"ab".to_vec(), true)];
        (0..30).for_each(|level| phrases.push((vec![255 - level; 8], false)));
        huffed(&phrases, &[225; 200])
    });
    add("huff-exponential-of-nothing", "AZW", || {
        let mut phrases = vec![(Vec::new(), true)];
        (0..30).for_each(|level| phrases.push((vec![255 - level; 8], false)));
        huffed(&phrases, &[225; 200])
    });
    add("huff-long-codes", "AZW", || {
        // No code is final, so that each is looked for among all lengths.
        let mut huff = huff();
        (0..256).for_each(|n| put(&mut huff, 24 + n * 4, 1));
        let header = with(header(17480, 1, 6), &[(0x70, 2), (0x74, 2)]);
        palm(b"BOOKMOBI", &[header, vec![0xaa; 1 << 20], huff, cdic(&[(b"a".to_vec(), true)])])
    });
    add("huff-4-billion-dictionaries", "AZW", || {
        let header = with(header(17480, 1, 6), &[(0x70, 2), (0x74, u32::MAX)]);
        palm(b"BOOKMOBI", &[header, vec![255; 100], huff(), cdic(&[(b"a".to_vec(), true)])])
    });
    add("huff-4-billion-phrases", "AZW", || {
        let cdic = with(cdic(&[(b"a".to_vec(), true)]), &[(8, u32::MAX), (12, u32::MAX)]);
        palm(b"BOOKMOBI", &[with(header(17480, 1, 6), &[(0x70, 2), (0x74, 2)]), vec![255; 100], huff(), cdic])
    });
    add("exth-of-4-gb", "MOBI", || {
        let mut header = header(1, 1, 6);
        let at = header.windows(4).position(|part| part == b"EXTH").unwrap();
        header = with(header, &[(at + 4, u32::MAX), (at + 8, u32::MAX), (at + 16, u32::MAX - 3)]);
        palm(b"BOOKMOBI", &[header, b"<p>x".to_vec()])
    });
    add("exth-million-authors", "MOBI", || {
        let mut header = header(1, 1, 6);
        header.truncate(280);
        header.extend_from_slice(&exth(&vec![(100, b"A &amp; B".as_slice()); 300_000]));
        palm(b"BOOKMOBI", &[header, b"<p>x".to_vec()])
    });
    add("kf8-header-is-itself", "AZW3", || {
        let mut header = header(1, 1, 6);
        header.truncate(280);
        header.extend_from_slice(&exth(&[(121, &[0, 0, 0, 1])]));
        palm(b"BOOKMOBI", &[b"BOUNDARY".to_vec(), header, b"<p>x".to_vec()])
    });
    add("trailing-entries-longer-than-records", "MOBI", || {
        let mut header = header(1, 1, 6);
        header[0xf2..0xf4].fill(0xff);
        palm(b"BOOKMOBI", &[header, vec![0xff; 4000]])
    });
    add("table-of-itself", "MOBI", || {
        let header = with(header(1, 1, 6), &[(0xf4, 2)]);
        palm(b"BOOKMOBI", &[header, TEXT.to_vec(), description(u32::MAX, u32::MAX, TAGS)])
    });
    add("table-of-a-million-tags", "MOBI", || {
        // Rows of a tag that no entry has, and as many entries as there is room for.
        let tags = [1, 1, 0, 0].repeat(500_000);
        let entries = vec![row("0", 0, &[]); 20_000];
        let header = with(header(1, 1, 6), &[(0xf4, 2)]);
        palm(b"BOOKMOBI", &[header, TEXT.to_vec(), description(1, 0, &tags), rows(&entries)])
    });
    add("table-of-many-values", "MOBI", || {
        let tags = [1, 255, 255, 0, 0, 0, 0, 1];
        let entries = vec![[&[0, 254][..], &[0x81; 60_000]].concat()];
        let header = with(header(1, 1, 6), &[(0xf4, 2)]);
        palm(b"BOOKMOBI", &[header, TEXT.to_vec(), description(1, 0, &tags), rows(&entries)])
    });
    add("table-of-4-billion-entries", "MOBI", || {
        let entries = with(rows(&[row("0", 0b111, &[1, 0, 0])]), &[(24, u32::MAX), (20, u32::MAX)]);
        palm(b"BOOKMOBI", &[with(header(1, 1, 6), &[(0xf4, 2)]), TEXT.to_vec(), description(1, 0, TAGS), entries])
    });
    add("100000-entries-at-one-place", "MOBI", || {
        let mut records = vec![with(header(1, 1, 6), &[(0xf4, 2)]), TEXT.repeat(100)];
        records.push(description(30, 1, TAGS));
        records.resize(33, rows(&vec![row("0", 0b111, &[90, 0, 0]); 4000]));
        records.push(b"\x83One".to_vec());
        palm(b"BOOKMOBI", &records)
    });
    add("100000-entries-in-one-long-word", "MOBI", || {
        let mut records = vec![with(header(1, 1, 6), &[(0xf4, 2)])];
        records.push([b"<p>".as_slice(), &[b'x'; 2 << 20]].concat());
        records.push(description(25, 1, TAGS));
        for part in 0..25 {
            records
                .push(rows(&(0..4000).map(|n| row("0", 0b111, &[(part * 4000 + n) * 20, 0, 0])).collect::<Vec<_>>()));
        }
        records.push(b"\x83One".to_vec());
        palm(b"BOOKMOBI", &records)
    });
    add("page-breaks", "MOBI", || around(&b"<mbp:pagebreak/>x".repeat(200_000)));
    add("guide-of-links", "MOBI", || around(&[TEXT, &b"<a filepos=0000000010>x</a>".repeat(100_000)].concat()));
    add("kf8-fragments-out-of-range", "AZW3", || {
        let text = [b'x'; 300];
        kf8_with(&[row("S", 0b1001, &[1, 0, 200])], &[row("4000000000", 0b1001, &[0, 0, 90])], &text, &[0, 300])
    });
    add("kf8-skeletons-overlap", "AZW3", || {
        kf8_with(&vec![row("S", 0b1001, &[0, 0, 200]); 300], &[row("0", 0b1001, &[0, 0, 1])], &[b'x'; 300], &[0, 300])
    });
    add("kf8-fragments-all-at-the-front", "AZW3", || {
        // Each moves all that stands there already.
        let fragments: Vec<Vec<u8>> = (0..4000).map(|_| row("0", 0b1001, &[0, 0, 400])).collect();
        kf8_with(&[row("S", 0b1001, &[4000, 0, 1])], &fragments, &vec![b'x'; 4000 * 400 + 1], &[0, 1_600_001])
    });
    add("kf8-flows-overlap", "AZW3", || {
        let text = b"<html><body></body></html><p>x</p>".to_vec();
        kf8_with(&[row("S", 0b1001, &[1, 0, 26])], &[row("12", 0b1001, &[0, 0, 8])], &text, &[0, 34, 0, 34, 20, 10])
    });
    add("kf8-100000-drawings", "AZW3", || {
        let text = b"<img src=\"kindle:flow:0001?mime=image/svg+xml\"/>".repeat(40_000);
        let end = text.len() as u32;
        let text = [text, b"<svg><text>T</text></svg>".repeat(1000)].concat();
        kf8_with(&[row("S", 0b1001, &[0, 0, end.min(0x1f_ffff)])], &[], &text, &[0, end, end, text.len() as u32])
    });
    list
}
