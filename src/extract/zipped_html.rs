//! HTML in a ZIP archive: Calibre's HTMLZ (`index.html` and `metadata.opf`), what it makes of an added HTML file (ZIP:
//! pages with a package document, an EPUB in all but name), and a folder somebody packed. Must never read a page twice,
//! or leave one out because nothing links to it.

use std::collections::HashSet;

use super::container::{Container, folder};
use super::epub::{self, Package};
use super::flow::Fields;
use super::markup::{self, Attributes, Sink};
use super::{ExtractError, Limits, Source, decode, fb2, html, sections};
use crate::domain::Document;

/// More links are not followed; the pages they lead to come by name.
const MAX_LINKS: usize = 10_000;

/// Reads an archive of HTML pages.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let mut container = Container::open(source, limits)?;
    let about = match kind(&mut container)? {
        Kind::Epub => return epub::read(source, limits),
        Kind::Fb2 => return fb2::read(source, limits),
        Kind::Pages(about) => about,
    };
    let mut pages = Vec::new();
    let mut bytes_of_text = 0;
    visit_pages(&mut container, &mut |bytes| {
        let page = html::parse(&decode::markup(bytes));
        bytes_of_text += page.text.len() as u64;
        super::check_text_size(source.path(), limits, bytes_of_text)?;
        pages.push(page);
        Ok(())
    })?;
    let first = |get: fn(&super::text::PageText) -> &Option<String>| pages.iter().find_map(|page| get(page).clone());
    let mut authors = about.all("creator");
    if authors.is_empty() {
        authors.extend(first(|page| &page.author));
    }
    Ok(Document {
        title: about.first("title").or_else(|| first(|page| &page.title)),
        authors,
        language: about.first("language").or_else(|| first(|page| &page.language)),
        sections: sections::split(&pages, Vec::new()),
        notes: Vec::new(),
    })
}

/// What an archive holds.
pub enum Kind {
    /// A package document with a spine.
    Epub,
    Fb2,
    /// With the metadata's fields.
    Pages(Fields),
}

/// Tells archives apart by their content.
pub fn kind(container: &mut Container) -> Result<Kind, ExtractError> {
    if let Some(entry) = container.find_by_suffix(".opf") {
        let bytes = container.read(entry)?;
        let package = Package::parse(&bytes);
        if !package.spine.is_empty() {
            return Ok(Kind::Epub);
        }
        return Ok(Kind::Pages(Fields::read(&decode::markup(&bytes))));
    }
    let pages = container.names().any(|(name, _)| is_page(name));
    let fb2 = !pages && container.find_by_suffix(".fb2").is_some();
    Ok(if fb2 { Kind::Fb2 } else { Kind::Pages(Fields::default()) })
}

/// What a visitor of pages is.
type Visit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), ExtractError>;

/// Every page once: the index, what the pages link to in the order of the links, then the rest by name.
pub fn visit_pages(container: &mut Container, visit: Visit) -> Result<(), ExtractError> {
    let mut names: Vec<(String, usize)> =
        container.names().filter(|(name, _)| is_page(name)).map(|(name, entry)| (name.to_owned(), entry)).collect();
    names.sort_by_cached_key(|(name, _)| (!is_index(name), name.matches('/').count(), natural(name)));
    let is_known: HashSet<usize> = names.iter().map(|(_, entry)| *entry).collect();
    let mut seen = HashSet::new();
    for (_, start) in &names {
        // A stack of pages to read, the next one last.
        let mut next = vec![*start];
        while let Some(entry) = next.pop() {
            if !seen.insert(entry) {
                continue;
            }
            let bytes = container.read(entry)?;
            visit(&bytes)?;
            if next.len() > MAX_LINKS {
                continue;
            }
            let links = markup::parse(&decode::markup(&bytes), Links::default).0;
            let name = container.name(entry);
            let targets = links.iter().filter_map(|link| container.resolve(folder(&name), link));
            let targets = targets.map(|target| target.entry).filter(|entry| is_known.contains(entry));
            let mut once = HashSet::new();
            let targets: Vec<usize> = targets.filter(|entry| !seen.contains(entry) && once.insert(*entry)).collect();
            next.extend(targets.into_iter().rev());
        }
    }
    Ok(())
}

fn is_page(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let file = name.rsplit('/').next().unwrap_or_default();
    // Macs pack a shadow beside each file.
    !name.starts_with("__macosx/")
        && !file.starts_with('.')
        && [".html", ".htm", ".xhtml", ".xhtm"].iter().any(|end| file.ends_with(end))
}

fn is_index(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    file.split('.').next() == Some("index")
}

/// Names as people count: "part 10" behind "part 9". Digits are kept as text, because they may be many.
fn natural(name: &str) -> Vec<(usize, String)> {
    let mut parts: Vec<(usize, String)> = Vec::new();
    let mut in_number = false;
    for c in name.chars().flat_map(char::to_lowercase) {
        let digit = c.is_ascii_digit();
        match parts.last_mut() {
            Some((length, part)) if digit == in_number => {
                part.push(c);
                *length += usize::from(digit);
            }
            _ => parts.push((usize::from(digit), c.to_string())),
        }
        in_number = digit;
    }
    parts
}

#[derive(Default)]
struct Links(Vec<String>);

impl Sink for Links {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        let attribute = match name {
            "a" => "href",
            "frame" => "src",
            _ => return,
        };
        if self.0.len() < MAX_LINKS {
            self.0.extend(attributes.get(attribute).map(|link| link.into_owned()));
        }
    }

    fn close(&mut self, _name: &str) {}

    fn text(&mut self, _text: &str) {}
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::extract;
    use super::super::report::Report;
    use super::*;

    fn read(format: &str, files: &[(&str, &str)]) -> Result<Document, ExtractError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.zip");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, content) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let document = extract(&path, format, &Limits::default())?;
        let report = Report::measure(&Source::open(&path).unwrap(), format, &document, &Limits::default()).unwrap();
        assert_eq!((report.lost, report.doubled), (0, 0), "{report:?}");
        Ok(document)
    }

    fn shape(document: &Document) -> Vec<(&str, &str)> {
        document.sections.iter().map(|section| (section.title.as_str(), section.text.as_str())).collect()
    }

    #[test]
    fn htmlz_is_its_index_and_its_metadata() {
        let opf = "<package xmlns:dc='d'><metadata><dc:title>T</dc:title><dc:creator>A</dc:creator><dc:language>hr</dc:language>\
            </metadata><guide/></package>";
        let document =
            read("HTMLZ", &[("metadata.opf", opf), ("index.html", "<h1>One</h1><p>a<h2>Two</h2>b")]).unwrap();
        assert_eq!(shape(&document), [("One", "One\n\na"), ("Two", "Two\n\nb")]);
        assert_eq!((document.title.as_deref(), document.language.as_deref()), (Some("T"), Some("hr")));
        assert_eq!(document.authors, ["A"]);
    }

    #[test]
    fn a_package_with_a_spine_is_read_as_an_epub() {
        let opf = "<package><metadata xmlns:dc='d'><dc:title>T</dc:title></metadata><manifest>\
            <item id='b' href='b.html' media-type='text/html'/><item id='a' href='a.html' media-type='text/html'/></manifest>\
            <spine><itemref idref='b'/><itemref idref='a'/></spine></package>";
        let files =
            [("c.opf", opf), ("a.html", "<html><body>a</body></html>"), ("b.html", "<html><body>b</body></html>")];
        assert_eq!(shape(&read("ZIP", &files).unwrap()), [("", "b"), ("", "a")]);
    }

    #[test]
    fn packed_folders_follow_links_then_names() {
        let files = [
            ("x/p10.htm", "<title>10</title>ten"),
            ("x/p9.htm", "<title>9</title>nine"),
            ("x/z.html", "<title>z</title>last <a href='index.html'>i</a>"),
            (
                "x/index.html",
                "<title>i</title><a href='z.html#q'>z</a><a href='http://x/'>w</a><a href='z.html'>again</a>",
            ),
            ("__MACOSX/x/._z.html", "shadow"),
        ];
        let titles: Vec<String> = read("ZIP", &files).unwrap().sections.into_iter().map(|s| s.title).collect();
        assert_eq!(titles, ["i", "z", "9", "10"]);
        assert!(matches!(read("ZIP", &[("a.jpg", "x")]), Err(ExtractError::NoText { .. })));
    }
}
