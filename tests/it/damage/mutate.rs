//! Small damage at random places: what disks, networks and careless programs do, and what finds a parser's edges.
//! Must never depend on anything but its seed.

use super::File;
use super::archives::{self, Entry};
use super::seeds::{Content, Seed};

/// A small generator with a fixed seed (xorshift), so that a failure can be repeated.
#[derive(Debug, Clone)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// One damage: cut, flipped, doubled, removed or nested.
pub fn damage(bytes: &mut Vec<u8>, random: &mut Seeded) {
    let at = random.below(bytes.len());
    let end = (at + random.below(200)).min(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => drop(bytes.splice(at..at, b"<div><![CDATA[<!--&#x;&;<a id='".iter().copied())),
        _ => drop(bytes.splice(at..at, b"<b><ruby><rt><svg><title><template>".repeat(2000))),
    }
}

/// What parsers stumble over, put in anywhere.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>",
    b"&e;",
    b"&#xd800;",
    b"&#x110000;",
    b"]]>",
    b"--!>",
    b"<![CDATA[",
    b"<?x",
    b"<script><!--<script>",
    b"</",
    b"<title:x>",
    b"encoding='utf-16'",
    b"charset=iso-2022-jp",
    b"\x1b$B",
    b"{\\*\\",
    b"\\bin2147483647 ",
    b"\\u-40000?",
    b"\\uc-1 ",
    b"\\'",
    b"INDX",
    b"TAGX",
    b"CDIC",
    b"EXTH",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"PK\x05\x06",
    b"endobj",
    b"stream\n",
    b"<<",
    b"[[[[",
    b"99999999999999999999",
    b"-1",
    b"1 0 R",
];

/// A number that offsets, counts and lengths are rarely tried with.
fn nasty(random: &mut Seeded) -> u32 {
    let any = random.0 as u32;
    *random.pick(&[0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX, 0x0001_0000, 0xffff, any, any & 0xffff])
}

/// One damage of bytes whose format is not known.
fn scar(bytes: &mut Vec<u8>, random: &mut Seeded) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(64)).min(bytes.len());
    match random.below(11) {
        0..=2 => damage(bytes, random),
        3 => bytes[at..end].fill(0),
        4 => bytes[at..end].fill(0xff),
        5 => bytes[at..end].reverse(),
        6 => {
            let number = nasty(random);
            let number = if random.one_in(2) { number.to_be_bytes() } else { number.to_le_bytes() };
            let width = 1 + random.below(4);
            for (to, from) in bytes[at..].iter_mut().zip(&number[4 - width..]) {
                *to = *from;
            }
        }
        7 => drop(bytes.splice(at..at, random.pick(TOKENS).iter().copied())),
        8 => {
            let copy = bytes[at..end].repeat(1 + random.below(400));
            bytes.splice(at..at, copy);
        }
        9 => {
            let from = random.below(bytes.len());
            let run = bytes[from..(from + 64).min(bytes.len())].to_vec();
            for (to, from) in bytes[at..].iter_mut().zip(run) {
                *to = from;
            }
        }
        // At an end of something: where a line, a tag, a group or a record of the ZIP directory stops.
        _ => {
            let ends: Vec<usize> = (0..bytes.len()).filter(|at| b"\n>}P".contains(&bytes[*at])).collect();
            let at = if ends.is_empty() { at } else { *random.pick(&ends) };
            bytes.truncate(at + random.below(2));
        }
    }
}

fn scars(bytes: &mut Vec<u8>, random: &mut Seeded) {
    (0..=random.below(4)).for_each(|_| scar(bytes, random));
}

/// The first half of one and the second of another.
fn splice(one: &[u8], other: &[u8], random: &mut Seeded) -> Vec<u8> {
    let (end, start) = (random.below(one.len()), random.below(other.len()));
    [&one[..end], &other[start..]].concat()
}

/// One change of an archive that leaves its files as they are.
fn rearrange(entries: &mut Vec<Entry>, random: &mut Seeded) {
    if entries.is_empty() {
        return;
    }
    let at = random.below(entries.len());
    let other = random.below(entries.len());
    match random.below(16) {
        0 => (1..entries.len()).for_each(|at| entries.swap(at, random.below(at + 1))),
        1 => drop(entries.remove(at)),
        2 => {
            let name = entries[other].name.clone();
            entries[at].name = name;
        }
        3 => {
            let names: [&[u8]; 7] = [
                b"",
                b"/",
                b"../../../../etc/passwd",
                b"C:\\x",
                b"a\0b",
                b"\xff\xfe.html",
                b"./META-INF/container.xml",
            ];
            entries[at].name = random.pick(&names).to_vec();
        }
        4 => entries[at].name.splice(0..0, b"../../".repeat(random.below(3000))).for_each(drop),
        5 => entries[at].flags ^= 1 << random.below(16),
        6 => entries[at].crc = nasty(random),
        7 => entries[at].size = u64::from(nasty(random)),
        8 => entries[at].packed = u64::from(nasty(random)),
        9 => (entries[at].size, entries[at].zip64) = (u64::MAX >> random.below(40), true),
        10 => (entries[at].packed, entries[at].zip64) = (u64::MAX >> random.below(40), true),
        11 => entries[at].method = *random.pick(&[0, 1, 6, 8, 9, 12, 14, 93, 95, 99, 0xffff]),
        12 => entries[at].offset = Some(u64::from(nasty(random))),
        13 => entries[at].same_data_as = Some(other),
        14 => entries[at].extra = [nasty(random).to_le_bytes(), nasty(random).to_le_bytes()].concat(),
        _ => {
            let copy = entries[at].clone();
            entries.push(copy);
        }
    }
}

/// Mutations of `seeds` without end, each seed as often as the others.
pub fn mutations(seed: u64, seeds: Vec<Seed>) -> impl Iterator<Item = File> + Send {
    // A generator whose state is zero stays there.
    let mut random = Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..).map(move |number: usize| {
        let seed = &seeds[number % seeds.len()];
        let other = &seeds[random.below(seeds.len())];
        let (kind, bytes) = mutation(seed, other, &mut random);
        (format!("mutation-{number}-{}-{kind}", seed.name), seed.format, bytes)
    })
}

fn mutation(seed: &Seed, other: &Seed, random: &mut Seeded) -> (&'static str, Vec<u8>) {
    let Content::Archive(files) = &seed.content else {
        let mut bytes = seed.bytes();
        if random.one_in(8) {
            return ("splice", splice(&bytes, &other.bytes(), random));
        }
        scars(&mut bytes, random);
        return ("scars", bytes);
    };
    match random.below(8) {
        0 => {
            let mut bytes = seed.bytes();
            scars(&mut bytes, random);
            ("scars", bytes)
        }
        1 => ("splice", splice(&seed.bytes(), &other.bytes(), random)),
        2..=4 => {
            let mut entries = archives::entries(files);
            (0..=random.below(3)).for_each(|_| rearrange(&mut entries, random));
            let mut bytes = archives::write(&entries);
            if random.one_in(4) {
                scar(&mut bytes, random);
            }
            ("archive", bytes)
        }
        5 => {
            // A part where another belongs.
            let mut files = files.clone();
            let at = random.below(files.len());
            files[at].1 = match &other.content {
                Content::Archive(others) => random.pick(others).1.clone(),
                Content::Bytes(bytes) => bytes.clone(),
            };
            ("swapped", archives::zip(&files))
        }
        _ => {
            let mut files = files.clone();
            for _ in 0..=random.below(2) {
                let at = random.below(files.len());
                scars(&mut files[at].1, random);
            }
            ("part", if random.one_in(2) { archives::zip(&files) } else { archives::packed(&files) })
        }
    }
}
