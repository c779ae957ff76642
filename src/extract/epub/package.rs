//! The package document (OPF): what is in the book and in which order. Must never take an error in it for the end of
//! the spine.
//!
//! The crate `epub` reads what the book says of itself (title, authors with their roles, language, in EPUB 2's and 3's
//! way). The spine is read here: `epub` drops itemrefs behind an XML error without a word, knows neither fragments
//! nor %-encoding in hrefs, reads entries without a limit, and its tree overflows the stack when it nests deeply. So it
//! is handed an archive in memory that holds this one document, after its depth was seen.

use std::io::{Cursor, Write};

use epub::doc::EpubDoc;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::super::decode;
use super::super::markup::{self, Attributes, Sink};
use super::super::text::one_line;

/// Deeper packages are not handed to `epub`; real ones have a depth of four.
const MAX_DEPTH: usize = 64;
/// Nor are larger ones, because it makes a tree of them, of nearly two kilobytes an element.
const MAX_TREE_BYTES: usize = 4 << 20;
const MAX_TREE_ELEMENTS: usize = 100_000;
/// Of the manifest, and of the spine. Real books have up to some thousands.
const MAX_ITEMS: usize = 200_000;

/// An item of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    pub id: String,
    pub href: String,
    pub media_type: String,
    /// It is the navigation document of EPUB 3.
    pub is_nav: bool,
}

/// An entry of the spine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRef {
    pub id: String,
    pub linear: bool,
}

/// What a package document says.
#[derive(Debug, Default)]
pub struct Package {
    pub items: Vec<Item>,
    pub spine: Vec<ItemRef>,
    /// The manifest id of the NCX.
    pub ncx: Option<String>,
    open: usize,
    depth: usize,
    elements: usize,
}

impl Package {
    pub fn parse(bytes: &[u8]) -> Self {
        markup::parse(&decode::markup(bytes), Package::default)
    }
}

impl Sink for Package {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        self.open += 1;
        self.elements += 1;
        self.depth = self.depth.max(self.open);
        let get = |name| attributes.get(name).map(|value| value.trim().to_owned());
        match name {
            "item" if self.items.len() < MAX_ITEMS => self.items.push(Item {
                id: get("id").unwrap_or_default(),
                href: get("href").unwrap_or_default(),
                media_type: get("media-type").unwrap_or_default().to_ascii_lowercase(),
                is_nav: get("properties").is_some_and(|value| value.split_whitespace().any(|word| word == "nav")),
            }),
            "itemref" if self.spine.len() < MAX_ITEMS => self.spine.push(ItemRef {
                id: get("idref").unwrap_or_default(),
                linear: get("linear").is_none_or(|value| !value.eq_ignore_ascii_case("no")),
            }),
            "spine" => self.ncx = get("toc"),
            _ => {}
        }
    }

    fn close(&mut self, _name: &str) {
        self.open = self.open.saturating_sub(1);
    }

    fn text(&mut self, _text: &str) {}
}

/// What the book says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct About {
    pub title: Option<String>,
    pub authors: Vec<String>,
    pub language: Option<String>,
}

impl About {
    /// Reads the metadata of the package document `bytes`, None where `epub` refuses it.
    pub fn read(package: &Package, bytes: &[u8]) -> Option<Self> {
        let doc = epub_doc(package, bytes)?;
        let values = |property: &str| {
            let found: Vec<_> = doc.metadata.iter().filter(|item| item.property == property).collect();
            found.into_iter().map(|item| (one_line(&item.value), item)).filter(|(value, _)| !value.is_empty())
        };
        let creators: Vec<_> = values("creator").collect();
        let is_author = |role: Option<&str>| role.is_none_or(|role| role.eq_ignore_ascii_case("aut"));
        let mut authors: Vec<String> = creators
            .iter()
            .filter(|(_, item)| is_author(item.refinement("role").map(|role| role.value.trim())))
            .map(|(name, _)| name.clone())
            .collect();
        if authors.is_empty() {
            authors = creators.into_iter().map(|(name, _)| name).collect();
        }
        let first = |property: &str| values(property).next().map(|(value, _)| value);
        Some(Self { title: first("title"), authors, language: first("language") })
    }
}

/// The package document as the crate `epub` reads it, None where it refuses it. Hrefs are as in the document.
pub fn epub_doc(package: &Package, bytes: &[u8]) -> Option<EpubDoc<Cursor<Vec<u8>>>> {
    if package.depth > MAX_DEPTH || package.elements > MAX_TREE_ELEMENTS || bytes.len() > MAX_TREE_BYTES {
        return None;
    }
    EpubDoc::from_reader(Cursor::new(archive_of(bytes)?)).ok()
}

/// A minimal EPUB around a package document.
fn archive_of(package: &[u8]) -> Option<Vec<u8>> {
    const CONTAINER: &[u8] = b"<container><rootfiles><rootfile full-path=\"content.opf\"/></rootfiles></container>";
    let mut writer = ZipWriter::new(Cursor::new(Vec::with_capacity(package.len() + 1024)));
    for (name, bytes) in [("META-INF/container.xml", CONTAINER), ("content.opf", package)] {
        writer
            .start_file(name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored))
            .ok()?;
        writer.write_all(bytes).ok()?;
    }
    Some(writer.finish().ok()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPF: &str = r##"<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="2.0">
        <metadata xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:opf="http://www.idpf.org/2007/opf">
        <dc:title> A  book </dc:title><dc:creator opf:role="trl">T</dc:creator><dc:creator opf:role="aut">A</dc:creator>
        <dc:creator>B</dc:creator><dc:language>hr</dc:language></metadata>
        <manifest><item id="a" href="a.xhtml#f" media-type="application/xhtml+xml" properties="x nav"/></manifest>
        <spine toc="ncx"><itemref idref="a" linear="no"/><itemref idref="b"/></spine></package>"##;

    #[test]
    fn packages_are_read() {
        let package = Package::parse(OPF.as_bytes());
        assert_eq!(
            (package.items.len(), package.items[0].is_nav, package.items[0].href.as_str()),
            (1, true, "a.xhtml#f")
        );
        assert_eq!((package.spine.len(), package.spine[0].linear, package.spine[1].linear), (2, false, true));
        assert_eq!(package.ncx.as_deref(), Some("ncx"));
        let about = About::read(&package, OPF.as_bytes()).unwrap();
        assert_eq!((about.title.as_deref(), about.language.as_deref()), (Some("A book"), Some("hr")));
        assert_eq!(about.authors, ["A", "B"]);
    }

    #[test]
    fn an_error_in_the_middle_loses_no_spine() {
        let broken = OPF.replace("<spine", "<meta & x><spine");
        assert_eq!(Package::parse(broken.as_bytes()).spine.len(), 2);
    }

    #[test]
    fn monstrous_packages_take_no_monstrous_memory() {
        for more in ["<x/>".repeat(MAX_TREE_ELEMENTS), " ".repeat(MAX_TREE_BYTES)] {
            let wide = OPF.replace("<spine", &format!("{more}<spine"));
            let package = Package::parse(wide.as_bytes());
            assert_eq!((package.spine.len(), About::read(&package, wide.as_bytes())), (2, None));
        }
        let many = format!("<p>{}{}</p>", "<item/>".repeat(MAX_ITEMS + 9), "<itemref/>".repeat(MAX_ITEMS + 9));
        let package = Package::parse(many.as_bytes());
        assert_eq!((package.items.len(), package.spine.len()), (MAX_ITEMS, MAX_ITEMS));
    }

    #[test]
    fn deep_packages_are_not_built_as_trees() {
        let deep = OPF.replace("<spine", &format!("{}{}<spine", "<x>".repeat(200_000), "</x>".repeat(200_000)));
        let package = Package::parse(deep.as_bytes());
        assert_eq!(package.spine.len(), 2);
        assert_eq!(About::read(&package, deep.as_bytes()), None);
    }
}
