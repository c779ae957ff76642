//! RTF that lies about its lengths, nests and floods. Must never be larger than a few megabytes.

use super::{Attack, Recipe, recipe};

const BIG: usize = 3 << 20;

fn around(body: &[u8]) -> Vec<u8> {
    [b"{\\rtf1\\ansi\\ansicpg1252 word ".as_slice(), body, b"}"].concat()
}

fn fill(unit: &[u8]) -> Vec<u8> {
    unit.repeat(BIG / unit.len())
}

fn nest(open: &[u8], text: &[u8], close: &[u8]) -> Vec<u8> {
    let times = BIG / (open.len() + close.len());
    [open.repeat(times), text.to_vec(), close.repeat(times)].concat()
}

const BODIES: &[Attack] = &[
    ("deep", || nest(b"{", b"x", b"}")),
    ("deep-unclosed", || fill(b"{")),
    ("closed-only", || fill(b"}x")),
    ("deep-destinations", || nest(b"{\\footnote ", b"x", b"}")),
    ("deep-fonts", || nest(b"{\\fonttbl{\\f1 ", b"x", b"}}")),
    ("deep-styles", || nest(b"{\\stylesheet{\\s1 a", b"x", b"}}")),
    ("deep-twins", || nest(b"{\\upr{x}{\\*\\ud{", b"x", b"}}}")),
    ("binary-of-2-gb", || [b"\\bin2147483647 ".as_slice(), &fill(b"x")].concat()),
    ("binary-negative", || fill(b"\\bin-2147483648 x")),
    ("binary-of-99-digits", || [b"\\bin".as_slice(), &[b'9'; 99], b" x"].concat()),
    ("number-of-megabytes", || [b"\\u".as_slice(), &fill(b"9"), b"?x"].concat()),
    ("word-of-megabytes", || [b"\\".as_slice(), &fill(b"a"), b" x"].concat()),
    ("unicode", || fill(b"\\u353?")),
    ("unicode-half-pairs", || fill(b"\\u-10179?\\u-10179?\\u-8704?")),
    ("unicode-negative-fallback", || fill(b"\\uc-5\\u353 abc")),
    ("unicode-huge-fallback", || fill(b"\\uc2147483647\\u353 abc{x}")),
    ("hex", || fill(b"\\'e9\\'zz\\'")),
    ("half-characters", || [b"{\\fonttbl{\\f1\\fcharset128 x;}}\\f1 ".as_slice(), &fill(b"\\'83{}")].concat()),
    ("fonts", || (0..BIG / 28).flat_map(|n| format!("{{\\fonttbl{{\\f{n}\\fcharset204 a;}}}}").into_bytes()).collect()),
    ("font-changes", || [b"{\\fonttbl{\\f1\\fcharset204 x;}}".as_slice(), &fill(b"\\f1 \xe0\\f0 \xe0")].concat()),
    ("styles", || {
        (0..BIG / 42)
            .flat_map(|n| format!("{{\\stylesheet{{\\s{n}\\outlinelevel1 heading 1;}}}}\\s{n} x\\par").into_bytes())
            .collect()
    }),
    ("style-name-of-megabytes", || [b"{\\stylesheet{\\s1 ".as_slice(), &fill(b"heading 1"), b";}}\\s1 x"].concat()),
    ("titles", || fill(b"{\\info{\\title x}{\\author y;z}}")),
    ("title-of-megabytes", || [b"{\\info{\\title ".as_slice(), &fill(b"x"), b"}}"].concat()),
    ("paragraphs", || fill(b"x\\par ")),
    ("headings", || fill(b"\\outlinelevel0 x\\par\\pard ")),
    ("cells", || fill(b"\\intbl x\\cell ")),
    ("rows", || fill(b"\\trowd\\cellx1 x\\nestcell\\nestrow\\cell\\row ")),
    ("table-numbers", || fill(b"\\trowd\\cellx-2147483648\\cellx2147483647\\itap2147483647 x\\cell\\row ")),
    ("notes", || fill(b"x{\\footnote y\\par}")),
    ("fields", || fill(b"{\\field{\\*\\fldinst x}{\\fldrslt y}}")),
    ("stars", || fill(b"\\*")),
    ("backslashes", || fill(b"\\")),
    ("code-pages", || fill(b"\\ansicpg932\\ansicpg65001\\ansicpg-1 \x81\x40")),
    ("unseen", || fill(b"\\v x\\v0 y\\deleted z\\plain ")),
    ("zeros", || fill(b"x\0")),
    ("line-ends", || fill(b"x\r\n")),
    ("line-ends-escaped", || fill(b"x\\\n")),
    ("pictures", || fill(b"{\\pict 0102030405}")),
    ("objects", || fill(b"{\\object{\\*\\objdata 00}{\\result x}}")),
    ("bytes", || fill(&(0..=255).collect::<Vec<u8>>())),
];

pub fn recipes() -> Vec<Recipe> {
    BODIES.iter().map(|(name, body)| recipe(format!("rtf-{name}"), "RTF", move || around(&body()))).collect()
}
