//! alexandria-ingestd.toml(5), from the commented example configuration: each key is explained in that one place. It must
//! never leave out a key.

use clap_mangen::roff::{Roff, bold, roman};

use super::Page;
use super::markup::{entry, inlines, render};

const EXAMPLE: &str = include_str!("../../packaging/config.toml");

/// What stands before the keys.
const INTRODUCTION: &str = "\
The file that alexandria-ingestd(8) reads at its start, in TOML. Every key has a default: a file without any is valid, and \
the packaged `/etc/alexandria-ingestd/config.toml` shows them all, commented out.";

const AFTER: [(&str, &str); 4] = [
    (
        "ENVIRONMENT",
        "\
= ALEXANDRIA_SECTION__KEY
Sets the key of that section, as `ALEXANDRIA_STORE__URL` or `ALEXANDRIA_LIBRARY__POLL_SECONDS`; `ALEXANDRIA_STATE_DIR` the
one key outside a section. Lists are separated by commas. A variable that names no key is refused.

= CALIBRE_LIBRARY_PATH
library.path

= QDRANT_HOST
= QDRANT_PORT
store.url, and store.kind = \"server\"; port 6333 is taken for its gRPC neighbour 6334

= QDRANT_COLLECTION
store.collection

= DEFAULT_EMBEDDING_MODEL
= EMBEDDING_DEVICE
embedding.model and embedding.device

The packaged service takes variables from `/etc/alexandria-ingestd/environment`, where that file exists.",
    ),
    (
        "EXAMPLES",
        "\
A library on a share, bge-m3 on the GPU, the embedded store:

  [library]
  path = \"/mnt/calibre\"

  [embedding]
  device = \"cuda\"

A Qdrant server, and other machines may ask:

  [store]
  kind = \"server\"
  url = \"http://qdrant.example:6334\"

  [http]
  listen = \"0.0.0.0:8765\"

Check a change before the service sees it:

  alexandria-ingestd check-config",
    ),
    ("FILES", "= /etc/alexandria-ingestd/config.toml\nRead where no --config names another."),
    ("SEE ALSO", "alexandria-ingestd(8), alexandriactl(1)"),
];

/// A paragraph of the example: its comment, and the keys with their defaults under it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Paragraph {
    comment: String,
    keys: Vec<(String, String)>,
}

/// The page.
pub fn settings_page(version: &str) -> Page {
    let mut roff = Roff::new();
    let source = format!("alexandria-ingestd {version}");
    roff.control("TH", ["alexandria-ingestd.toml", "5", "", source.as_str(), "Alexandria"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("alexandria-ingestd.toml - configuration of the Alexandria ingestion daemon")]);
    roff.control("SH", ["DESCRIPTION"]);
    render(&mut roff, INTRODUCTION);
    let (head, sections) = parse(EXAMPLE);
    for paragraph in &head {
        show(&mut roff, paragraph);
    }
    for (name, paragraphs) in &sections {
        roff.control("SH", [format!("[{name}]").as_str()]);
        for paragraph in paragraphs {
            show(&mut roff, paragraph);
        }
    }
    for (heading, text) in AFTER {
        roff.control("SH", [heading]);
        render(&mut roff, text);
    }
    Page { name: "alexandria-ingestd.toml", section: 5, text: roff.render() }
}

fn show(roff: &mut Roff, paragraph: &Paragraph) {
    if paragraph.keys.is_empty() {
        roff.control("PP", []);
        roff.text(inlines(&paragraph.comment));
        return;
    }
    let terms: Vec<_> =
        paragraph.keys.iter().map(|(key, value)| vec![bold(key.as_str()), roman(format!(" = {value}"))]).collect();
    entry(roff, &terms, &paragraph.comment);
}

/// What stands before the first section, and the sections.
fn parse(example: &str) -> (Vec<Paragraph>, Vec<(String, Vec<Paragraph>)>) {
    let mut head = Vec::new();
    let mut sections: Vec<(String, Vec<Paragraph>)> = Vec::new();
    for block in example.split("\n\n") {
        let mut paragraph = Paragraph::default();
        for line in block.lines() {
            if let Some(name) = line.strip_prefix('[') {
                sections.push((name.trim_end_matches(']').to_owned(), Vec::new()));
            } else if let Some((key, value)) = commented_key(line) {
                paragraph.keys.push((key, value));
            } else {
                let comment = line.trim_start_matches('#').trim();
                // A single `#` between two lines: a paragraph of the header.
                if comment.is_empty() && !paragraph.comment.is_empty() {
                    keep(&mut head, &mut sections, std::mem::take(&mut paragraph));
                }
                if !paragraph.comment.is_empty() {
                    paragraph.comment.push(' ');
                }
                paragraph.comment.push_str(comment);
            }
        }
        keep(&mut head, &mut sections, paragraph);
    }
    (head, sections)
}

fn keep(head: &mut Vec<Paragraph>, sections: &mut [(String, Vec<Paragraph>)], paragraph: Paragraph) {
    if paragraph == Paragraph::default() {
        return;
    }
    match sections.last_mut() {
        Some((_, paragraphs)) => paragraphs.push(paragraph),
        None => head.push(paragraph),
    }
}

/// `#key = value`, which a comment (`# text`) is not.
fn commented_key(line: &str) -> Option<(String, String)> {
    let (key, value) = line.strip_prefix('#')?.split_once(" = ")?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_key.then(|| (key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_keys_are_told_apart() {
        let (head, sections) = parse(
            "# Head.\n#\n# More = head.\n\n# State.\n#state_dir = \"\"\n\n[a]\n# Two\n# lines.\n#x = 1\n#y = 2\n\n# Third.\n#z = []\n",
        );
        let paragraph = |comment: &str, keys: &[(&str, &str)]| Paragraph {
            comment: comment.into(),
            keys: keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        assert_eq!(
            head,
            [paragraph("Head.", &[]), paragraph("More = head.", &[]), paragraph("State.", &[("state_dir", "\"\"")])]
        );
        let expected = vec![paragraph("Two lines.", &[("x", "1"), ("y", "2")]), paragraph("Third.", &[("z", "[]")])];
        assert_eq!(sections, [("a".to_owned(), expected)]);
    }
}
