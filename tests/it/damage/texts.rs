//! Plain text and Markdown that is none, or too much of one thing. Must never be a valid book by accident.

use super::mutate::Seeded;
use super::{Attack, Recipe, recipe};

const BIG: usize = 3 << 20;

fn fill(unit: &str) -> Vec<u8> {
    unit.repeat(BIG / unit.len()).into_bytes()
}

fn nest(open: &str, text: &str, close: &str) -> Vec<u8> {
    let times = BIG / (open.len() + close.len());
    format!("{}{text}{}", open.repeat(times), close.repeat(times)).into_bytes()
}

fn noise(seed: u64, keep: fn(u8) -> u8) -> Vec<u8> {
    let mut random = Seeded(seed);
    (0..1 << 20).map(|_| keep(random.below(256) as u8)).collect()
}

const TEXTS: &[Attack] = &[
    ("60-mb-one-word", || vec![b'x'; 60 << 20]),
    ("60-mb-of-spaces", || vec![b' '; 60 << 20]),
    ("60-mb-of-marks", || "\u{316}\u{301}".repeat(15 << 20).into_bytes()),
    ("one-long-line-of-cjk", || fill("字")),
    ("line-ends", || fill("\r\n\r\u{c}")),
    ("zeros", || vec![0; BIG]),
    ("noise", || noise(1, |byte| byte)),
    ("noise-without-zeros", || noise(2, |byte| byte.max(1))),
    ("noise-high", || noise(3, |byte| byte | 0x80)),
    ("noise-ascii", || noise(4, |byte| byte & 0x7f | 1)),
    ("noise-utf-16-le", || [b"\xff\xfe".to_vec(), noise(5, |byte| byte)].concat()),
    ("noise-utf-16-be", || [b"\xfe\xff".to_vec(), noise(6, |byte| byte)].concat()),
    ("noise-utf-8-mark", || [b"\xef\xbb\xbf".to_vec(), noise(7, |byte| byte)].concat()),
    ("noise-iso-2022-jp", || [b"\x1b$B".to_vec(), noise(8, |byte| byte & 0x7f | 0x21)].concat()),
    ("noise-escapes", || noise(9, |byte| if byte < 60 { 0x1b } else { byte & 0x7f | 1 })),
    ("lone-surrogates", || [b"\xff\xfe".to_vec(), b"\x00\xd8x\0\x00\xdc".repeat(100_000)].concat()),
    ("odd-utf-16", || b"x\0y\0z".to_vec()),
    ("half-a-mark", || b"\xef\xbb".to_vec()),
    ("one-byte", || vec![0xff]),
    ("hangul-parts", || fill("\u{1100}\u{1161}\u{11a8}")),
    ("expanding", || fill("\u{fdfa}\u{1d160}\u{0958}")),
];

const MARKDOWNS: &[Attack] = &[
    ("quotes", || nest("> ", "x", "")),
    ("quotes-by-line", || (0..2000).flat_map(|n| format!("{}x\n", ">".repeat(n)).into_bytes()).collect()),
    ("lists", || (0..2000).flat_map(|n| format!("{}- x\n", " ".repeat(n * 2)).into_bytes()).collect()),
    ("lists-in-a-line", || nest("- ", "x", "")),
    ("numbers-in-a-line", || nest("1. ", "x", "")),
    ("emphasis", || nest("*", "x", "*")),
    ("emphasis-mixed", || nest("*_", "x", "_*")),
    ("emphasis-unclosed", || fill("*a **b ")),
    ("emphasis-underscores", || fill("_a __b ")),
    ("struck", || fill("~~a ~")),
    ("brackets", || nest("[", "x", "]")),
    ("brackets-unclosed", || fill("[")),
    ("brackets-closed-only", || fill("]x")),
    ("links", || fill("[a](b")),
    ("links-with-brackets", || nest("[a](", "x", ")")),
    ("links-angle", || fill("[a](<b")),
    ("images", || nest("![", "x", "](y)")),
    ("references", || {
        let long = "y".repeat(50_000);
        [format!("[a]: http://{long}\n\n").into_bytes(), fill("[a] ")].concat()
    }),
    ("references-many", || (0..BIG / 20).flat_map(|n| format!("[a{n}]: http://x\n").into_bytes()).collect()),
    ("references-unclosed", || fill("[a]: (\n")),
    ("footnotes", || (0..BIG / 24).flat_map(|n| format!("[^{n}]: x [^{n}]\n\n").into_bytes()).collect()),
    ("footnotes-nested", || nest("[^1]: ", "x", "")),
    ("footnotes-unclosed", || fill("[^")),
    ("code-spans", || (1..2400).flat_map(|n| format!("{}x ", "`".repeat(n)).into_bytes()).collect()),
    ("code-unclosed", || fill("`a``")),
    ("fences", || fill("```\n")),
    ("headings", || fill("# x\n")),
    ("headings-attributes", || fill("# x {#a .b c=d}\n")),
    ("heading-attributes-of-megabytes", || [b"# x {".to_vec(), fill("#a "), b"}\n".to_vec()].concat()),
    ("underlines", || fill("x\n=\n")),
    ("entities", || fill("&amp;&#65;&nosuch")),
    ("html", || fill("<a b='c")),
    ("html-comments", || fill("<!-- ")),
    ("html-cdata", || fill("<![CDATA[ ")),
    ("html-instructions", || fill("a <? b ")),
    ("html-declarations", || fill("a <!A ")),
    ("autolinks", || fill("<http://x")),
    ("escapes", || fill("\\*\\")),
    ("table-of-columns", || {
        let columns = 20_000;
        let head = format!("{}|\n{}|\n", "|a".repeat(columns), "|-".repeat(columns));
        [head.into_bytes(), b"|x\n".repeat(500_000)].concat()
    }),
    ("table-rows", || [b"|a|b|\n|-|-|\n".to_vec(), fill("|c|d|\n")].concat()),
    ("table-pipes", || fill("|")),
    ("metadata-unclosed", || [b"---\n".to_vec(), fill("a: b\n")].concat()),
    ("rules", || fill("---\n")),
    ("tasks", || fill("- [ ] x\n")),
    ("tabs", || fill("\t- x\n")),
    ("blank", || fill(" \n")),
    ("hard-breaks", || fill("x  \n")),
    ("one-word", || fill("x")),
    ("zeros", || fill("x\0")),
];

pub fn recipes() -> Vec<Recipe> {
    let mut list: Vec<Recipe> = TEXTS.iter().map(|(name, make)| recipe(format!("text-{name}"), "TXT", make)).collect();
    list.extend(MARKDOWNS.iter().map(|(name, make)| recipe(format!("markdown-{name}"), "MD", make)));
    list
}
