//! Text files as people and programs wrote them.

use super::*;

fn text(raw: &str) -> String {
    page(raw).text
}

fn shape(raw: &str) -> Vec<(String, usize, String)> {
    sections(raw).into_iter().map(|section| (section.title, section.level, section.text)).collect()
}

fn titles(raw: &str) -> Vec<String> {
    sections(raw).into_iter().map(|section| section.title).collect()
}

/// A paragraph of some hundred words without a sign of a heading.
fn prose(seed: usize) -> String {
    let words =
        ["the", "old", "house", "stood", "behind", "seven", "tall", "trees", "and", "nobody", "knew", "who", "lived"];
    (0..130).map(|at| words[(at * 7 + seed) % words.len()]).collect::<Vec<_>>().join(" ") + "."
}

/// `text` wrapped at `width`, as `fold -s` does it.
fn wrap(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(word);
        }
    }
    lines.join("\n")
}

#[test]
fn lines_and_paragraphs_are_kept() {
    assert_eq!(text("\n\n a  b\r\nc\r\n\r\n \r\nd\u{c}e\nf\u{ad}g\n"), "a b\nc\n\nd\n\ne\nfg");
    assert_eq!(text("a\rb\r\rc"), "a\nb\n\nc");
    assert_eq!(text(" \u{ad} \n"), "");
    assert_eq!(text("a\u{c}\nb"), "a\n\nb");
    assert_eq!(text("exam\u{ad}\nple"), "example");
}

#[test]
fn binary_data_is_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("My book.txt");
    std::fs::write(&path, [b"PK\x03\x04".as_slice(), &[0; 100], b"\xff\xfe\x80"].concat()).unwrap();
    assert!(read(&Source::open(&path).unwrap(), &Limits::default()).unwrap_err().to_string().contains("binary data"));
    std::fs::write(&path, "Prva rečenica.\n").unwrap();
    let document = read(&Source::open(&path).unwrap(), &Limits::default()).unwrap();
    assert_eq!((document.sections[0].title.as_str(), document.sections[0].text.as_str()), ("", "Prva rečenica."));
}

#[test]
fn wrapped_lines_read_through_and_verse_stays() {
    let verse = "Roses are red,\n  violets are blue,\nsugar is sweet,\n  and so are you.";
    let list = "- one thing\n- another thing";
    let (one, two) = (prose(1), prose(2));
    for width in [60, 72, 78] {
        let raw = format!("{}\n\n{verse}\n\n{list}\n\n{}\n", wrap(&one, width), wrap(&two, width));
        let verse = verse.replace("  ", "");
        assert_eq!(text(&raw), format!("{one}\n\n{verse}\n\n{list}\n\n{two}"), "{width}");
    }
    // Verse alone has no width.
    let poem =
        "So long as men can breathe or eyes can see,\nSo long lives this, and this gives life to thee.\n".repeat(20);
    assert_eq!(text(&poem), poem.trim());
}

#[test]
fn words_cut_at_lines_ends_are_joined_on_evidence() {
    let body = wrap(&prose(3), 60);
    let cut = |head: &str, tail: &str| {
        format!("{}{head}-\n{tail} {}", "x ".repeat((60 - head.len() - 1) / 2), "x ".repeat(20).trim())
    };
    let raw = format!(
        "{body}\n\nan example of a well-known kind\n\n{}\n\n{}\n\n{}\n\n{body}",
        cut("exam", "ple"),
        cut("well", "known"),
        cut("unse", "en")
    );
    let text = text(&raw);
    assert!(text.contains("x example x") && text.contains("x well-known x") && text.contains("x unse-en x"), "{text}");
}

#[test]
fn wrapped_japanese_reads_through_without_spaces() {
    let line = "これは日本語の文章であり、行の幅は四十文字に揃えられている。".repeat(20);
    let characters: Vec<char> = line.chars().collect();
    let raw: Vec<String> = characters.chunks(32).map(|line| line.iter().collect()).collect();
    assert_eq!(text(&raw.join("\n")), line);
}

#[test]
fn chapters_are_the_sections_in_many_languages() {
    for (one, two) in [
        ("CHAPTER I.", "CHAPTER II."),
        ("POGLAVLJE PRVO", "POGLAVLJE DRUGO"),
        ("1. Kapitel", "2. Kapitel"),
        ("Глава первая", "Глава вторая"),
        ("第一章", "第二章"),
        ("Članak 1.", "Članak 2."),
    ] {
        let raw = format!("My Book\n\n{one}\n\n{}\n\n{two}\n\n{}", wrap(&prose(1), 70), wrap(&prose(2), 70));
        let expected = [
            (one.to_owned(), 0, format!("My Book\n\n{one}\n\n{}", prose(1))),
            (two.to_owned(), 0, format!("{two}\n\n{}", prose(2))),
        ];
        assert_eq!(shape(&raw), expected);
    }
}

#[test]
fn parts_hold_chapters_and_a_table_of_contents_holds_none() {
    let raw = format!(
        "Contents\n\nPart One\n\nChapter 1\n\nChapter 2\n\nPart Two\n\nChapter 3\n\nPART ONE\n\nChapter 1\nThe Beginning\n\n{0}\n\n\
         Chapter 2\n\n{0}\n\nPART TWO\n\n{0}\n\nChapter 3\n\n{0}",
        prose(1)
    );
    let found: Vec<(String, usize)> = sections(&raw).into_iter().map(|s| (s.title, s.level)).collect();
    let titles: Vec<(&str, usize)> = found.iter().map(|(title, level)| (title.as_str(), *level)).collect();
    assert_eq!(
        titles[titles.len() - 4..],
        [("Chapter 1 The Beginning", 1), ("Chapter 2", 1), ("PART TWO", 0), ("Chapter 3", 1)]
    );
    assert_eq!(
        sections(&raw).iter().map(|s| s.text.split_whitespace().count()).sum::<usize>(),
        raw.split_whitespace().count()
    );
}

#[test]
fn marked_spaced_and_capital_lines_are_headings() {
    let p = prose(5);
    assert_eq!(titles(&format!("# One\n\n{p}\n\n## Two\n\n{p}")), ["One", "Two"]);
    assert_eq!(titles(&format!("One\n===\n\n{p}\n\nTwo\n---\n\n{p}")), ["One", "Two"]);
    assert_eq!(titles(&format!("x\n\n\n\n\nThe house\n\n\n{p}\n\n\n\n\nThe tree\n\n\n{p}")), ["The house", "The tree"]);
    let p4 = [p.as_str(); 4].join("\n\n");
    assert_eq!(
        titles(&format!("THE HOUSE\n\n{p4}\n\nTHE TREE\n\n{p4}\n\nŽENA\n\n{p4}")),
        ["THE HOUSE", "THE TREE", "ŽENA"]
    );
    assert_eq!(titles(&format!("I\n\n{p4}\n\nII.\n\n{p4}\n\nIII\n\n{p4}")), ["I", "II.", "III"]);
    assert_eq!(
        titles(&format!("{p4}\u{c}The house\n\n{p4}\u{c}\nThe tree\n\n{p4}\u{c}The end\n\n{p4}")),
        ["", "The house", "The tree", "The end"]
    );
}

#[test]
fn what_is_no_heading_makes_no_section() {
    let p = prose(5);
    assert_eq!(titles(&format!("{p}\n\nYES\n\n{p}\n\n12\n\n{p}\n\nand so, he said,\n\n{p}")), [""]);
    assert_eq!(titles(&format!("{p}\u{c}1\n\n{p}\u{c}2\n\n{p}\u{c}3\n\n{p}")), [""]);
    assert_eq!(titles(&format!("# mount /dev/sda /mnt\n\n{p}\n\n# umount /mnt\n\n{p}")), [""]);
    let (one, two) = ("Section 3 tells how that is done.", "Chapter 4 is about the house and its trees.");
    assert_eq!(titles(&format!("{p}\n\n{one}\n\n{p}\n\n{two}\n\n{p}")), [""]);
    assert_eq!(titles(&"AAA\n\nb\n\n".repeat(100)), [""]);
}

#[test]
fn many_lines_cost_little() {
    assert_eq!(sections(&"a\n\n".repeat(500_000)).len(), 1);
    assert!(!sections(&"Chapter 1\n\nb\n\n".repeat(200_000)).is_empty());
    assert_eq!(sections(&"-\n".repeat(500_000)).len(), 1);
}
