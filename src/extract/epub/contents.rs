//! Tables of contents: NCX (EPUB 2) and the navigation document (EPUB 3). Must never invent an entry; what has no
//! target is left out by the caller.

use super::super::decode;
use super::super::markup::{self, Attributes, Sink};

/// Entries of a table of contents, and lists of a navigation document, beyond these are left out.
const MAX_LINKS: usize = 100_000;

/// An entry as the table of contents has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub title: String,
    /// Relative to the table of contents.
    pub href: String,
    /// 0 for a top entry.
    pub level: usize,
}

/// The entries of an NCX's navMap, in its order.
pub fn ncx(bytes: &[u8]) -> Vec<Link> {
    markup::parse(&decode::markup(bytes), Ncx::default).links
}

/// The entries of a navigation document: of its nav of type `toc`, else of the first that says no type.
pub fn nav(bytes: &[u8]) -> Vec<Link> {
    let nav = markup::parse(&decode::markup(bytes), Nav::default);
    let typed = nav.lists.iter().position(|list| list.is_toc);
    let chosen = typed.or_else(|| nav.lists.iter().position(|list| !list.has_type));
    nav.lists.into_iter().nth(chosen.unwrap_or(usize::MAX)).map(|list| list.links).unwrap_or_default()
}

#[derive(Default)]
struct Ncx {
    links: Vec<Link>,
    /// The open navPoints, as indexes of `links`.
    open: Vec<usize>,
    in_map: bool,
    in_label: bool,
}

impl Sink for Ncx {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        match name {
            "navmap" => self.in_map = true,
            "navpoint" if self.in_map => {
                let level = self.open.len();
                // One too many has no link of this number, so its label and target go nowhere.
                self.open.push(self.links.len());
                if self.links.len() < MAX_LINKS {
                    self.links.push(Link { level, ..Link::default() });
                }
            }
            "navlabel" => self.in_label = true,
            "content" => {
                if let Some(link) = self.open.last().and_then(|at| self.links.get_mut(*at)) {
                    link.href = attributes.get("src").unwrap_or_default().trim().to_owned();
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "navmap" => self.in_map = false,
            "navpoint" => {
                self.open.pop();
            }
            "navlabel" => self.in_label = false,
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.in_label
            && let Some(link) = self.open.last().and_then(|at| self.links.get_mut(*at))
        {
            link.title.push_str(text);
        }
    }
}

#[derive(Default)]
struct List {
    is_toc: bool,
    has_type: bool,
    links: Vec<Link>,
}

#[derive(Default)]
struct Nav {
    lists: Vec<List>,
    in_nav: bool,
    depth: usize,
    in_link: bool,
}

impl Sink for Nav {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        match name {
            "nav" if self.lists.len() < MAX_LINKS => {
                let kind = attributes.get("type");
                let is_toc = kind.as_ref().is_some_and(|kind| kind.split_whitespace().any(|word| word == "toc"));
                self.lists.push(List { is_toc, has_type: kind.is_some(), links: Vec::new() });
                (self.in_nav, self.depth, self.in_link) = (true, 0, false);
            }
            "ol" => self.depth += 1,
            "a" if self.in_nav => {
                self.in_link = false;
                let href = attributes.get("href").unwrap_or_default().trim().to_owned();
                let level = self.depth.saturating_sub(1);
                if let Some(list) = self.lists.last_mut().filter(|list| list.links.len() < MAX_LINKS) {
                    list.links.push(Link { title: String::new(), href, level });
                    self.in_link = true;
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "nav" => self.in_nav = false,
            "ol" => self.depth = self.depth.saturating_sub(1),
            "a" => self.in_link = false,
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.in_link
            && let Some(link) = self.lists.last_mut().and_then(|list| list.links.last_mut())
        {
            link.title.push_str(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(title: &str, href: &str, level: usize) -> Link {
        Link { title: title.to_owned(), href: href.to_owned(), level }
    }

    #[test]
    fn ncx_points_nest() {
        let ncx = ncx(b"<ncx><docTitle><text>no</text></docTitle><navMap><navPoint><navLabel><text>A &amp; B</text></navLabel>\
            <content src='a.x'/><navPoint><navLabel><text>C</text></navLabel><content src='a.x#c'/></navPoint></navPoint>\
            <navPoint><navLabel><text>D</text></navLabel><content src='d.x'/></navPoint></navMap>\
            <pageList><pageTarget><navLabel><text>1</text></navLabel><content src='p'/></pageTarget></pageList></ncx>");
        assert_eq!(ncx, [link("A & B", "a.x", 0), link("C", "a.x#c", 1), link("D", "d.x", 0)]);
    }

    #[test]
    fn entries_beyond_all_measure_are_left_out() {
        let points = "<navPoint><content src='x'/></navPoint>".repeat(MAX_LINKS + 1);
        assert_eq!(ncx(format!("<navMap>{points}</navMap>").as_bytes()).len(), MAX_LINKS);
        let links = "<a href='x'>y</a>".repeat(MAX_LINKS + 1);
        let links = nav(format!("<nav>{links}</nav>").as_bytes());
        assert_eq!((links.len(), links[MAX_LINKS - 1].title.as_str()), (MAX_LINKS, "y"));
        assert_eq!(nav("<nav></nav>".repeat(MAX_LINKS + 1).as_bytes()), []);
    }

    #[test]
    fn the_toc_nav_is_chosen() {
        let page = b"<html><body><nav epub:type='landmarks'><ol><li><a href='l'>L</a></li></ol></nav>\
            <nav epub:type='toc'><h1>Contents</h1><ol><li><a href='a'>A <b>b</b></a><ol><li><a href='c'>C</a></li></ol></li>\
            <li><span>no</span></li></ol></nav></body></html>";
        assert_eq!(nav(page), [link("A b", "a", 0), link("C", "c", 1)]);
        assert_eq!(nav(b"<nav><ol><li><a href='x'>X</a></li></ol></nav>"), [link("X", "x", 0)]);
        assert_eq!(nav(b"<nav epub:type='page-list'><ol><li><a href='x'>X</a></li></ol></nav>"), []);
    }
}
