//! Every hostile piece of markup in every format that holds markup. Must never leave out a part that a reader parses:
//! tables of contents, package documents and metadata are attacked like pages.

use super::archives::packed;
use super::markup::{BODIES, FOREIGN, PROLOGUES};
use super::{Recipe, kindle, recipe, seeds};

/// A document around a body; `part` is its name in the archive, empty where it is the file itself.
struct Frame {
    format: &'static str,
    part: &'static str,
    before: &'static str,
    after: &'static str,
}

const fn frame(format: &'static str, part: &'static str, before: &'static str, after: &'static str) -> Frame {
    Frame { format, part, before, after }
}

/// Where the text of a book is.
const PAGES: [Frame; 8] = [
    frame("EPUB", "OEBPS/a.xhtml", "<html><body><p id='s'>word &x;</p>", "</body></html>"),
    frame("HTML", "", "<html><body>word &x; <br> & ", "</body></html>"),
    frame(
        "DOCX",
        "word/document.xml",
        "<w:document><w:body><w:p><w:r><w:t>word &x;",
        "</w:t></w:r></w:p></w:body></w:document>",
    ),
    frame("ODT", "content.xml", "<o><office:body><text:p>word &x;", "</text:p></office:body></o>"),
    frame("FB2", "", "<FictionBook><body><section><p>word &x;</p>", "</section></body></FictionBook>"),
    frame("HTMLZ", "index.html", "<p>word &x;", ""),
    frame("MOBI", "", "<html><body><p>word &x;", ""),
    frame("MD", "", "# word\n\n", "\n\n&x;\n"),
];

/// Parts that say something of the book.
const PARTS: [Frame; 7] = [
    frame(
        "EPUB",
        "META-INF/container.xml",
        "<container>&x;",
        "<rootfiles><rootfile full-path='OEBPS/content.opf'/></rootfiles></container>",
    ),
    frame(
        "EPUB",
        "OEBPS/content.opf",
        "<package><metadata><dc:title>&x;</dc:title>",
        "</metadata><manifest><item id='a' href='a.xhtml'/></manifest><spine><itemref idref='a'/></spine></package>",
    ),
    frame(
        "EPUB",
        "OEBPS/toc.ncx",
        "<ncx><navMap><navPoint><navLabel><text>&x;",
        "</text></navLabel><content src='a.xhtml'/></navPoint></navMap></ncx>",
    ),
    frame(
        "EPUB",
        "OEBPS/nav.xhtml",
        "<html><body><nav epub:type='toc'><ol><li><a href='a.xhtml'>&x;",
        "</a></li></ol></nav></body></html>",
    ),
    frame("DOCX", "word/styles.xml", "<w:styles>&x;", "</w:styles>"),
    frame("DOCX", "docProps/core.xml", "<c><dc:title>&x;", "</dc:title></c>"),
    frame("ODT", "META-INF/manifest.xml", "<m>&x;", "</m>"),
];

impl Frame {
    fn around(&self, head: &str, body: &[u8]) -> Vec<u8> {
        let content = [head.as_bytes(), self.before.as_bytes(), body, self.after.as_bytes()].concat();
        match (self.part, self.format) {
            ("", "MOBI") => kindle::around(&content),
            ("", _) => content,
            (part, format) => {
                let mut files = seeds::archive(format);
                let place = files.iter_mut().find(|(name, _)| name == part).expect("the part is in the archive");
                place.1 = content;
                packed(&files)
            }
        }
    }

    fn name(&self, attack: &str) -> String {
        format!("markup-{}-{attack}", if self.part.is_empty() { "file" } else { self.part })
    }
}

pub fn recipes() -> Vec<Recipe> {
    let mut list = Vec::new();
    for (frames, step) in [(&PAGES[..], 1), (&PARTS[..], 3)] {
        for frame in frames {
            // The readers of the parts are those of the pages again: a third of the pieces will do.
            for (name, body) in BODIES.iter().step_by(step) {
                list.push(recipe(frame.name(name), frame.format, move || frame.around("", body().as_bytes())));
            }
            for (name, head) in PROLOGUES {
                let body = "<b>&x;</b>".repeat(2000);
                list.push(recipe(frame.name(name), frame.format, move || frame.around(&head(), body.as_bytes())));
            }
            for (name, bytes) in FOREIGN.iter().step_by(step) {
                list.push(recipe(frame.name(name), frame.format, move || frame.around("", &bytes.repeat(20_000))));
            }
        }
    }
    list
}
