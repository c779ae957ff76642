//! Small EPUBs built by code: what real books get wrong, and what hostile ones try.

use std::io::Write;
use std::path::PathBuf;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::super::report::Report;
use super::super::{ExtractError, Limits, Source, extract};
use crate::domain::Document;

/// An EPUB under construction.
struct Builder {
    dir: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Builder {
    fn new(manifest: &str, spine: &str) -> Self {
        let opf = format!(
            r#"<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata
            xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>T</dc:title></metadata>
            <manifest>{manifest}</manifest><spine toc="ncx">{spine}</spine></package>"#
        );
        let container = r#"<container><rootfiles><rootfile full-path="O%20x/p.opf"/></rootfiles></container>"#;
        Self { dir: tempfile::tempdir().unwrap(), files: vec![] }
            .file("META-INF/container.xml", container)
            .file("O x/p.opf", &opf)
    }

    /// A book of XHTML files, `(name, body)`, in that order.
    fn pages(pages: &[(&str, &str)]) -> Self {
        let item = |(name, _): &(&str, &str)| {
            format!(r#"<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>"#)
        };
        let manifest: String = pages.iter().map(item).collect();
        let ncx = r#"<item id="ncx" href="toc/t.ncx" media-type="application/x-dtbncx+xml"/>"#;
        let spine: String = pages.iter().map(|(name, _)| format!(r#"<itemref idref="{name}"/>"#)).collect();
        pages.iter().fold(Self::new(&format!("{manifest}{ncx}"), &spine), |book, (name, body)| book.page(name, body))
    }

    fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_owned(), content.as_bytes().to_vec()));
        self
    }

    fn page(self, name: &str, body: &str) -> Self {
        self.file(&format!("O x/{name}"), &format!("<html><head><title/></head><body>{body}</body></html>"))
    }

    fn ncx(self, entries: &[(&str, &str)]) -> Self {
        let point = |(title, href): &(&str, &str)| {
            format!("<navPoint><navLabel><text>{title}</text></navLabel><content src='{href}'/></navPoint>")
        };
        let points: String = entries.iter().map(point).collect();
        self.file("O x/toc/t.ncx", &format!("<ncx><navMap>{points}</navMap></ncx>"))
    }

    fn write(&self) -> PathBuf {
        let path = self.dir.path().join("b.epub");
        let mut zip = ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, content) in &self.files {
            zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    fn extract(&self) -> Result<Document, ExtractError> {
        extract(&self.write(), "EPUB", &Limits::default())
    }

    /// The sections' titles and texts, after the independent count found nothing lost or doubled.
    fn shape(&self) -> Vec<(String, String)> {
        let document = self.extract().unwrap();
        let report =
            Report::measure(&Source::open(&self.write()).unwrap(), "EPUB", &document, &Limits::default()).unwrap();
        assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
        document.sections.into_iter().map(|section| (section.title, section.text)).collect()
    }
}

fn owned(shape: &[(&str, &str)]) -> Vec<(String, String)> {
    shape.iter().map(|(title, text)| ((*title).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn anchors_inside_files_split_them() {
    let book = Builder::pages(&[
        ("a.xhtml", "<h1 id='one'>One</h1><p>x</p><h1>T<a id='tw%6F'/>wo</h1><p>y</p>"),
        ("b.xhtml", "z"),
    ])
    .ncx(&[
        ("Two", "../a.xhtml#tw%256F"),
        ("One", "../a.xhtml#one"),
        ("B", "../b.xhtml"),
        ("B again", "../b.xhtml#"),
    ]);
    assert_eq!(book.shape(), owned(&[("One", "One\n\nx"), ("Two", "Two\n\ny"), ("B", "z")]));
}

#[test]
fn encoded_relative_and_wrongly_cased_links_are_followed() {
    let book = Builder::new(
        r#"<item id="a" href="./t%C3%A9xt/a%20b.xhtml" media-type="application/xhtml+xml"/>
        <item id="b" href="../C.XHTML" media-type="application/xhtml+xml"/>
        <item id="ncx" href="toc/t.ncx" media-type="application/x-dtbncx+xml"/>"#,
        r#"<itemref idref="a"/><itemref idref="b"/>"#,
    )
    .page("téxt/a b.xhtml", "one")
    .page("../c.xhtml", "two")
    .ncx(&[("A", "../t%C3%A9xt/a b.xhtml"), ("B", "../../c.xhtml")]);
    let mut book = book;
    book.files.iter_mut().for_each(|(name, _)| *name = name.replace("O x/../", ""));
    assert_eq!(book.shape(), owned(&[("A", "one"), ("B", "two")]));
}

#[test]
fn fragments_in_the_manifest_and_missing_items_do_no_harm() {
    let book = Builder::new(
        r#"<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
        <item id="a2" href="a.xhtml#s" media-type="application/xhtml+xml"/>
        <item id="gone" href="gone.xhtml" media-type="application/xhtml+xml"/>"#,
        r#"<itemref idref="a"/><itemref idref="a2"/><itemref idref="gone"/><itemref idref="never"/>"#,
    )
    .page("a.xhtml", "<h2>H</h2>x<p id='s'>y</p>");
    assert_eq!(book.shape(), owned(&[("H", "H\n\nx\n\ny")]));
    let notes = book.extract().unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("'gone.xhtml'")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("'never'")), "{notes:?}");
}

#[test]
fn entries_that_lead_nowhere_are_noted() {
    let book = Builder::pages(&[("a.xhtml", "x"), ("b.xhtml", "y")]).ncx(&[
        ("A", "../a.xhtml#none"),
        ("No", "../no.xhtml"),
        ("Empty", ""),
    ]);
    assert_eq!(book.shape(), owned(&[("A", "x\n\ny")]));
    assert_eq!(book.extract().unwrap().notes.len(), 2);
}

#[test]
fn the_navigation_page_is_text_only_where_it_is_all() {
    let nav = r#"<item id="n" href="n.xhtml" media-type="application/xhtml+xml" properties="nav"/>"#;
    let page = r#"<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>"#;
    let toc = "<nav epub:type='toc'><ol><li><a href='a.xhtml'>A</a></li></ol></nav>";
    let both = Builder::new(&format!("{nav}{page}"), r#"<itemref idref="n"/><itemref idref="a"/>"#);
    assert_eq!(both.page("n.xhtml", toc).page("a.xhtml", "x").shape(), owned(&[("A", "x")]));
    let alone = Builder::new(nav, r#"<itemref idref="n"/>"#).page("n.xhtml", toc);
    assert_eq!(alone.shape(), owned(&[("", "A")]));
}

#[test]
fn pages_outside_the_linear_text_are_left_out_and_noted() {
    let items = r#"<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
        <item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>"#;
    let book = Builder::new(items, r#"<itemref idref="a"/><itemref idref="b" linear="no"/>"#);
    let book = book.page("a.xhtml", "x").page("b.xhtml", "y");
    assert_eq!(book.shape(), owned(&[("", "x")]));
    assert!(book.extract().unwrap().notes.iter().any(|note| note.ends_with("1 of the spine's pages")));
}

#[test]
fn encrypted_books_are_refused_but_obfuscated_fonts_are_not() {
    let encryption = |algorithm: &str, uri: &str| {
        format!(
            "<encryption><EncryptedData><EncryptionMethod Algorithm='{algorithm}'/><CipherData>\
            <CipherReference URI='{uri}'/></CipherData></EncryptedData></encryption>"
        )
    };
    let book = |text: String| Builder::pages(&[("a.xhtml", "x")]).file("META-INF/encryption.xml", &text);
    let fonts = book(encryption("http://ns.adobe.com/pdf/enc#RC", "O%20x/f.otf"));
    assert!(fonts.extract().is_ok());
    let content = book(encryption("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "O%20x/a.xhtml"));
    let error = content.extract().unwrap_err();
    assert!(matches!(error, ExtractError::Encrypted { .. }) && error.to_string().contains("DRM"), "{error}");
    let mut rights = Builder::pages(&[("a.xhtml", "x")]).file("META-INF/rights.xml", "<rights/>");
    assert!(rights.extract().is_ok());
    rights.files.iter_mut().find(|(name, _)| name.ends_with("a.xhtml")).unwrap().1 = vec![0x9e, 0, 3, 0xff];
    assert!(matches!(rights.extract(), Err(ExtractError::Encrypted { .. })));
}

#[test]
fn damaged_files_are_named() {
    let book = Builder::pages(&[("a.xhtml", &"long text ".repeat(1000))]);
    let path = book.write();
    let whole = std::fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"not a zip", &[0; 4096]] {
        std::fs::write(&path, damaged).unwrap();
        let error = extract(&path, "EPUB", &Limits::default()).unwrap_err();
        assert!(matches!(error, ExtractError::Corrupt { .. }) && error.to_string().contains("ZIP archive"), "{error}");
    }
    let mut flipped = whole.clone();
    let at = whole.windows(7).position(|window| window == b"a.xhtml").unwrap() + 20;
    flipped[at] ^= 0xff;
    std::fs::write(&path, flipped).unwrap();
    let error = extract(&path, "EPUB", &Limits::default()).unwrap_err();
    assert!(matches!(error, ExtractError::Corrupt { .. }), "{error}");
    let mut no_package = Builder::pages(&[]);
    no_package.files.clear();
    assert!(no_package.file("x", "y").extract().unwrap_err().to_string().contains("package document"));
}

#[test]
fn bombs_stop_at_the_limit() {
    let mut book = Builder::pages(&[("a.xhtml", ""), ("b.xhtml", "")]);
    for (name, content) in &mut book.files {
        if name.ends_with("xhtml") {
            *content = vec![b' '; 3_000_000];
        }
    }
    let path = book.write();
    assert!(path.metadata().unwrap().len() < 100_000);
    let entry = Limits { max_entry_bytes: 1_000_000, ..Limits::default() };
    let error = extract(&path, "EPUB", &entry).unwrap_err();
    assert!(error.to_string().contains("'O x/a.xhtml' inside it") && error.to_string().contains("1000000"), "{error}");
    let total = Limits { max_total_bytes: 5_000_000, ..Limits::default() };
    let error = extract(&path, "EPUB", &total).unwrap_err();
    assert!(error.to_string().contains("all that is inside it"), "{error}");
    let text = Limits { max_text_bytes: 10, ..Limits::default() };
    let error = extract(&Builder::pages(&[("a.xhtml", "more than ten bytes")]).write(), "EPUB", &text);
    assert!(error.is_err());
}

#[test]
fn books_without_text_are_told_from_damaged_ones() {
    let book = Builder::pages(&[("a.xhtml", "<img src='a.png' alt='cover'/>")]);
    assert!(matches!(book.extract(), Err(ExtractError::NoText { .. })));
}
