//! EPUB 2 and 3 (and Kobo's KEPUB): the linear text of the spine, cut at the table of contents. Must never follow
//! the manifest's order, take a table of contents for complete, or read a file twice because two names lead to it.

mod contents;
mod encryption;
mod package;
mod spine_check;

use std::collections::{HashMap, HashSet};

use self::contents::Link;
pub use self::package::Package;
use self::package::{About, Item};
pub use self::spine_check::visit_spine;
use super::container::{Container, Target, folder};
use super::sections::{self, Start};
use super::text::{PageText, TextBuilder};
use super::{ExtractError, Limits, Source, decode, markup};
use crate::domain::Document;

/// Reads an EPUB.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    let mut book = Book::open(source, limits)?;
    let toc = book.table_of_contents();
    let none = HashSet::new();
    let mut pages: Vec<PageText> = Vec::new();
    let mut bytes_of_text = 0;
    for at in 0..book.pages.len() {
        let bytes = book.page(at)?;
        let wanted = toc.wanted.get(&at).unwrap_or(&none);
        let page = markup::parse(&decode::markup(&bytes), || TextBuilder::new(wanted)).finish();
        bytes_of_text += page.text.len() as u64;
        super::check_text_size(source.path(), limits, bytes_of_text)?;
        pages.push(page);
    }
    let starts = toc.starts(&pages, &mut book.notes);
    let About { title, authors, language } = book.about;
    Ok(Document { title, authors, language, sections: sections::split(&pages, starts), notes: book.notes })
}

/// An opened book: what to read and in which order.
struct Book {
    container: Container,
    about: About,
    items: Vec<Item>,
    ncx: Option<String>,
    /// The folder of the package document.
    base: String,
    /// The linear pages' entries, in reading order, each once.
    pages: Vec<usize>,
    /// There is a licence, so unreadable pages are encrypted rather than damaged.
    has_rights: bool,
    notes: Vec<String>,
}

impl Book {
    fn open(source: &Source, limits: &Limits) -> Result<Self, ExtractError> {
        let mut container = Container::open(source, limits)?;
        let entry = package_entry(&mut container)?;
        let bytes = container.read(entry)?;
        let package = Package::parse(&bytes);
        let mut notes = Vec::new();
        let about = About::read(&package, &bytes).unwrap_or_else(|| {
            notes.push("the package's metadata cannot be read; title, authors and language are unknown".to_owned());
            About::default()
        });
        let base = folder(&container.name(entry)).to_owned();
        let has_rights = ["META-INF/rights.xml", "META-INF/license.lcpl", "META-INF/sinf.xml"]
            .iter()
            .any(|name| container.find(name).is_some());
        let pages = linear_pages(&container, &base, &package, &mut notes);
        let (items, ncx) = (package.items, package.ncx);
        let mut book = Self { container, about, items, ncx, base, pages, has_rights, notes };
        book.refuse_encrypted()?;
        Ok(book)
    }

    /// The markup of a linear page.
    fn page(&mut self, at: usize) -> Result<Vec<u8>, ExtractError> {
        let bytes = self.container.read(self.pages[at])?;
        if encryption::is_no_markup(&bytes) {
            if self.has_rights {
                return Err(self.encrypted("a licence in META-INF, and pages that are not readable".to_owned()));
            }
            if bytes.contains(&0) && !decode::markup(&bytes).contains('<') {
                let name = self.container.name(self.pages[at]);
                return Err(ExtractError::corrupt(self.container.path(), format!("'{name}' inside it is not text")));
            }
        }
        Ok(bytes)
    }

    fn encrypted(&self, scheme: String) -> ExtractError {
        ExtractError::Encrypted { path: self.container.path().to_owned(), scheme }
    }

    fn refuse_encrypted(&mut self) -> Result<(), ExtractError> {
        let Some(entry) = self.container.find("META-INF/encryption.xml") else { return Ok(()) };
        let bytes = self.container.read(entry)?;
        let pages: HashSet<usize> = self.pages.iter().copied().collect();
        for encrypted in encryption::parse(&bytes) {
            let target = self.container.resolve("", &encrypted.uri);
            if !encrypted.is_font_obfuscation() && target.is_some_and(|target| pages.contains(&target.entry)) {
                return Err(self.encrypted(format!("DRM, {}", encrypted.algorithm)));
            }
        }
        Ok(())
    }

    /// The navigation document's or the NCX's entries: whichever has more places in the text; EPUB 3's where equal.
    fn table_of_contents(&mut self) -> Toc {
        let page_of: HashMap<usize, usize> = self.pages.iter().enumerate().map(|(at, entry)| (*entry, at)).collect();
        let resolve = |container: &Container, item: &Item| container.resolve(&self.base, &item.href);
        let nav = self.items.iter().find(|item| item.is_nav);
        let is_ncx = |item: &&Item| item.media_type == "application/x-dtbncx+xml";
        let named = self.items.iter().find(|item| Some(&item.id) == self.ncx.as_ref() && !item.id.is_empty());
        let ncx = named.or_else(|| self.items.iter().find(is_ncx));
        let nav = nav.and_then(|item| resolve(&self.container, item));
        let ncx = ncx.and_then(|item| resolve(&self.container, item));
        let ncx = ncx.map(|target| target.entry).or_else(|| self.container.find_by_suffix(".ncx"));
        let mut best = Toc::default();
        for (entry, parse) in
            [(nav.map(|target| target.entry), contents::nav as fn(&[u8]) -> Vec<Link>), (ncx, contents::ncx)]
        {
            let Some(entry) = entry else { continue };
            match self.container.read(entry) {
                Ok(bytes) => {
                    let toc = Toc::new(&self.container, entry, parse(&bytes), &page_of);
                    if toc.places() > best.places() {
                        best = toc;
                    }
                }
                Err(error) => self.notes.push(format!("a table of contents is left out: {error}")),
            }
        }
        if best.places() == 0 {
            self.notes.push("no table of contents leads into the text; headings and files are the sections".to_owned());
        }
        best
    }
}

/// The package document's entry: as the container says, else the one that looks like it.
fn package_entry(container: &mut Container) -> Result<usize, ExtractError> {
    if let Some(entry) = container.find("META-INF/container.xml") {
        let bytes = container.read(entry)?;
        let roots = markup::parse(&decode::markup(&bytes), RootFiles::default).0;
        if let Some(entry) = roots.iter().find_map(|root| container.find(root)) {
            return Ok(entry);
        }
    }
    container
        .find_by_suffix(".opf")
        .ok_or_else(|| ExtractError::corrupt(container.path(), "not an EPUB: it has no package document (OPF)"))
}

#[derive(Default)]
struct RootFiles(Vec<String>);

impl markup::Sink for RootFiles {
    fn open(&mut self, name: &str, attributes: &dyn markup::Attributes) {
        if name == "rootfile" {
            self.0.extend(attributes.get("full-path").map(|path| path.into_owned()));
        }
    }

    fn close(&mut self, _name: &str) {}

    fn text(&mut self, _text: &str) {}
}

/// The entries of the spine's linear pages. Non-linear pages and the navigation page come in only where there is
/// nothing else.
fn linear_pages(container: &Container, base: &str, package: &Package, notes: &mut Vec<String>) -> Vec<usize> {
    let items: HashMap<&str, &Item> = package.items.iter().rev().map(|item| (item.id.as_str(), item)).collect();
    let mut order: Vec<(&Item, bool)> = Vec::new();
    for itemref in &package.spine {
        match items.get(itemref.id.as_str()) {
            Some(item) => order.push((item, itemref.linear)),
            None => notes.push(format!("the spine names '{}', which the manifest lacks", itemref.id)),
        }
    }
    if order.is_empty() {
        notes.push("the spine is empty; the manifest's order stands for it".to_owned());
        order.extend(package.items.iter().map(|item| (item, true)));
    }
    let nav_entries: HashSet<usize> = package
        .items
        .iter()
        .filter(|item| item.is_nav)
        .filter_map(|item| container.resolve(base, &item.href))
        .map(|target| target.entry)
        .collect();
    let mut seen = HashSet::new();
    let (mut pages, mut non_linear, mut nav) = (Vec::new(), Vec::new(), Vec::new());
    for (item, linear) in order {
        let Some(Target { entry, .. }) = container.resolve(base, &item.href) else {
            notes.push(format!("the spine's file '{}' is not in the archive", item.href));
            continue;
        };
        if !is_text(item, &container.name(entry)) || !seen.insert(entry) {
            continue;
        }
        match (nav_entries.contains(&entry), linear) {
            (true, _) => nav.push(entry),
            (false, true) => pages.push(entry),
            (false, false) => non_linear.push(entry),
        }
    }
    if !pages.is_empty() {
        if !non_linear.is_empty() {
            notes.push(format!("left out as outside the linear text: {} of the spine's pages", non_linear.len()));
        }
        return pages;
    }
    if non_linear.is_empty() { nav } else { non_linear }
}

fn is_text(item: &Item, name: &str) -> bool {
    let kind = item.media_type.as_str();
    kind.contains("html")
        || kind.contains("dtbook")
        || kind.contains("oeb1-document")
        || kind == "image/svg+xml"
        || [".xhtml", ".html", ".htm"].iter().any(|end| name.to_ascii_lowercase().ends_with(end))
}

/// A table of contents whose entries were looked up among the pages.
#[derive(Default)]
struct Toc {
    entries: Vec<Entry>,
    /// The ids to look for, by page.
    wanted: HashMap<usize, HashSet<String>>,
    nowhere: usize,
}

struct Entry {
    title: String,
    level: usize,
    page: usize,
    /// As written and decoded.
    fragments: Vec<String>,
}

impl Toc {
    fn new(container: &Container, own: usize, links: Vec<Link>, page_of: &HashMap<usize, usize>) -> Self {
        let own_name = container.name(own);
        let base = folder(&own_name);
        let mut toc = Self::default();
        for Link { title, href, level } in links {
            let target = container.resolve(base, &href);
            let Some((page, target)) = target.and_then(|target| Some((*page_of.get(&target.entry)?, target))) else {
                toc.nowhere += 1;
                continue;
            };
            let mut fragments = Vec::new();
            if let Some(raw) = target.fragment {
                let decoded = percent_encoding::percent_decode_str(&raw).decode_utf8_lossy().into_owned();
                if decoded != raw {
                    fragments.push(decoded);
                }
                fragments.push(raw);
                toc.wanted.entry(page).or_default().extend(fragments.iter().cloned());
            }
            toc.entries.push(Entry { title, level, page, fragments });
        }
        toc
    }

    /// Different places that entries lead to.
    fn places(&self) -> usize {
        self.entries.iter().map(|entry| (entry.page, entry.fragments.last())).collect::<HashSet<_>>().len()
    }

    fn starts(self, pages: &[PageText], notes: &mut Vec<String>) -> Vec<Start> {
        let mut without_anchor = 0;
        let mut starts = Vec::with_capacity(self.entries.len());
        for Entry { title, level, page, fragments } in self.entries {
            let found = fragments.iter().find_map(|id| pages[page].anchors.get(id).copied());
            without_anchor += usize::from(found.is_none() && !fragments.is_empty());
            starts.push(Start { page, offset: found.unwrap_or(0), level, title });
        }
        if self.nowhere > 0 {
            notes.push(format!("{} entries of the table of contents lead out of the linear text", self.nowhere));
        }
        if without_anchor > 0 {
            notes.push(format!("{without_anchor} entries of the table of contents name an anchor that is not there"));
        }
        starts
    }
}

#[cfg(test)]
mod tests;
