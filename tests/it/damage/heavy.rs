//! Small archives, and some large files, whose contents are as large as the limits allow: what costs little by the byte
//! must not cost much by the sixty megabytes. Must never go over the limits, because such files are refused at once.

use super::archives::{Entry, entries, packed, write};
use super::mutate::Seeded;
use super::seeds::archive;
use super::{Recipe, kindle, recipe};

const FULL: usize = 60 << 20;

fn fill(unit: &str) -> Vec<u8> {
    unit.repeat(FULL / unit.len()).into_bytes()
}

fn part(format: &str, name: &str, before: &str, unit: &str, after: &str) -> Vec<u8> {
    let content = [before.as_bytes(), &fill(unit), after.as_bytes()].concat();
    let mut files = archive(format);
    match files.iter_mut().find(|(own, _)| own == name) {
        Some((_, bytes)) => *bytes = content,
        None => files.push((name.to_owned(), content)),
    }
    packed(&files)
}

fn page(unit: &str) -> Vec<u8> {
    part("EPUB", "OEBPS/a.xhtml", "<html><body><p>x</p>", unit, "</body></html>")
}

/// A book of nine pages that are one and the same, five hundred megabytes in all.
fn pages(unit: &str) -> Vec<u8> {
    let content = [b"<html><body>".as_slice(), &fill(unit), b"</body></html>"].concat();
    let size = content.len() as u64;
    let packed = packed(&vec![("x".to_owned(), content.clone())]);
    // The archive of one file: its data stand behind the local header of 30 bytes, the name and the extra field.
    let length = |at: usize| usize::from(u16::from_le_bytes([packed[at], packed[at + 1]]));
    let start = 30 + length(26) + length(28);
    let end = packed.windows(4).rposition(|part| part == b"PK\x01\x02").unwrap_or(packed.len());
    let mut page = Entry::deflated("OEBPS/0.xhtml", packed[start..end].to_vec(), size);
    page.crc = super::archives::crc32(&content);
    let items: String = (0..9).map(|n| format!("<item id='i{n}' href='{n}.xhtml'/>")).collect();
    let refs: String = (0..9).map(|n| format!("<itemref idref='i{n}'/>")).collect();
    let opf = format!("<package><manifest>{items}</manifest><spine>{refs}</spine></package>");
    let mut all = entries(&archive("EPUB"));
    all[2] = Entry::stored("OEBPS/content.opf", opf.as_bytes());
    let at = all.len();
    all.push(page.clone());
    for n in 1..9 {
        let name = format!("OEBPS/{n}.xhtml").into_bytes();
        all.push(Entry { name, data: Vec::new(), same_data_as: Some(at), ..page.clone() });
    }
    write(&all)
}

type Attack = (&'static str, &'static str, fn() -> Vec<u8>);

const ATTACKS: &[Attack] = &[
    ("EPUB", "headings", || page("<h1>x</h1>")),
    ("EPUB", "headings-broken", || page("<h1>x")),
    ("EPUB", "tags", || page("<b/>")),
    ("EPUB", "attributes-broken", || {
        let tag: String = (0..110).map(|n| format!(" {n:x}")).collect();
        page(&format!("<p{tag}>"))
    }),
    ("EPUB", "ruby", || page("<ruby>x<rt>y</rt></ruby>")),
    ("EPUB", "notes", || page("<a href='#x'><sup>1</sup></a>")),
    ("EPUB", "five-hundred-megabytes-of-broken-tags", || pages("<br>")),
    ("EPUB", "five-hundred-megabytes-of-blanks", || pages(" ")),
    ("EPUB", "ncx", || {
        let point = "<navPoint><navLabel><text>x</text></navLabel><content src='a.xhtml#s'/></navPoint>";
        part("EPUB", "OEBPS/toc.ncx", "<ncx><navMap>", point, "</navMap></ncx>")
    }),
    ("EPUB", "ncx-bare", || part("EPUB", "OEBPS/toc.ncx", "<ncx><navMap>", "<navPoint>", "</navMap></ncx>")),
    ("EPUB", "nav-bare", || part("EPUB", "OEBPS/nav.xhtml", "<nav epub:type='toc'>", "<a/>", "</nav>")),
    ("EPUB", "navs", || part("EPUB", "OEBPS/nav.xhtml", "<x>", "<nav/>", "</x>")),
    ("EPUB", "items", || {
        part("EPUB", "OEBPS/content.opf", "<package><manifest>", "<item/>", "</manifest><spine/></package>")
    }),
    ("EPUB", "itemrefs", || {
        part("EPUB", "OEBPS/content.opf", "<package><manifest/><spine>", "<itemref/>", "</spine></package>")
    }),
    ("EPUB", "metadata", || {
        part("EPUB", "OEBPS/content.opf", "<package><metadata>", "<x/>", "</metadata><manifest/><spine/></package>")
    }),
    ("EPUB", "metadata-below-the-limit", || {
        let metadata = "<x/>".repeat((4 << 20) / 4 - 100);
        let opf = format!("<package><metadata>{metadata}</metadata><manifest/><spine/></package>");
        let mut files = archive("EPUB");
        files[2].1 = opf.into_bytes();
        packed(&files)
    }),
    ("EPUB", "encryption", || part("EPUB", "META-INF/encryption.xml", "<e>", "<CipherReference/>", "</e>")),
    ("DOCX", "paragraphs", || part("DOCX", "word/document.xml", "<w:body>", "<w:p><w:t>x</w:t></w:p>", "</w:body>")),
    ("DOCX", "headings", || {
        let heading = "<w:p><w:pPr><w:outlineLvl w:val='0'/></w:pPr><w:t>x</w:t></w:p>";
        part("DOCX", "word/document.xml", "<w:body>", heading, "</w:body>")
    }),
    ("DOCX", "bare-paragraphs", || part("DOCX", "word/document.xml", "<w:body>", "<w:p/>", "</w:body>")),
    ("DOCX", "relations", || {
        part("DOCX", "word/_rels/document.xml.rels", "<r>", "<Relationship Type='' Target=''/>", "</r>")
    }),
    ("DOCX", "styles", || {
        let styles: String = (0..2_000_000).map(|n| format!("<style styleId='{n:x}'/>")).collect();
        let mut files = archive("DOCX");
        files[4].1 = format!("<w:styles>{styles}</w:styles>").into_bytes();
        packed(&files)
    }),
    ("ODT", "headings", || part("ODT", "content.xml", "<o><office:body>", "<text:h>x</text:h>", "</office:body></o>")),
    ("ODT", "items", || {
        part("ODT", "content.xml", "<o><office:body>", "<text:list><text:list-item><text:p>x", "</office:body></o>")
    }),
    ("FB2", "titles", || {
        let section = "<section><title><p>x</p></title></section>";
        [b"<FictionBook><body>".to_vec(), fill(section), b"</body></FictionBook>".to_vec()].concat()
    }),
    ("FB2", "bold", || {
        let section = "<section><p><strong>x</strong></p></section>";
        [b"<FictionBook><body>".to_vec(), fill(section), b"</body></FictionBook>".to_vec()].concat()
    }),
    ("FB2", "bodies", || {
        [b"<FictionBook>".to_vec(), fill("<body><p>x</p></body>"), b"</FictionBook>".to_vec()].concat()
    }),
    ("HTML", "less-than", || fill("<a")),
    ("RTF", "unicode", || [b"{\\rtf1 ".to_vec(), fill("\\u353?"), b"}".to_vec()].concat()),
    ("RTF", "headings", || [b"{\\rtf1\\outlinelevel0 ".to_vec(), fill("x\\par "), b"}".to_vec()].concat()),
    ("TXT", "noise", || {
        let mut random = Seeded(7);
        (0..FULL).map(|_| random.below(255) as u8 + 1).collect()
    }),
    ("TXT", "utf-16", || [b"\xff\xfe".to_vec(), b"W\x5b".repeat(FULL / 2)].concat()),
    ("MD", "emphasis", || fill("*x* ")),
    ("MD", "brackets", || fill("[")),
    ("MD", "quotes", || fill("> ")),
    ("MOBI", "pages", || kindle::around(&fill("<mbp:pagebreak/><h1>x</h1>"))),
    ("MOBI", "headings", || kindle::around(&fill("<h1>x</h1>"))),
];

pub fn recipes() -> Vec<Recipe> {
    ATTACKS.iter().map(|(format, name, make)| recipe(format!("heavy-{name}"), format, make)).collect()
}
