//! What a DOCX archive holds and where, and which paragraph styles are headings. Must never follow a style's ancestry
//! in a circle.

use std::collections::HashMap;

use super::super::container::{Container, folder};
use super::super::markup::{self, Attributes, Sink};
use super::super::{ExtractError, decode};

/// Styles that inherit through more than this many others are no headings.
const MAX_ANCESTORS: usize = 16;

/// The archive's entries that are read.
#[derive(Debug)]
pub struct Parts {
    pub document: usize,
    pub styles: Option<usize>,
    /// Footnotes, then endnotes.
    pub notes: Vec<usize>,
    pub core: Option<usize>,
}

impl Parts {
    /// By the archive's relationships, and by the usual names where those lead nowhere.
    pub fn find(container: &mut Container) -> Result<Self, ExtractError> {
        let root = Relations::read(container, "")?;
        let document = root.target(container, "", "/officeDocument").or_else(|| container.find("word/document.xml"));
        let document = document.ok_or_else(|| {
            ExtractError::corrupt(container.path(), "it is not a DOCX: it has no main document (word/document.xml)")
        })?;
        let name = container.name(document);
        let relations = Relations::read(container, &name)?;
        let base = folder(&name).to_owned();
        let part = |kind: &str, usual: &str| {
            relations.target(container, &base, kind).or_else(|| container.resolve(&base, usual).map(|t| t.entry))
        };
        let notes = [part("/footnotes", "footnotes.xml"), part("/endnotes", "endnotes.xml")];
        Ok(Self {
            document,
            styles: part("/styles", "styles.xml"),
            notes: notes.into_iter().flatten().collect(),
            core: root.target(container, "", "/core-properties").or_else(|| container.find("docProps/core.xml")),
        })
    }
}

/// Type and target of each relationship of a part.
#[derive(Default)]
struct Relations(Vec<(String, String)>);

impl Relations {
    /// Of the part with this name, of the whole archive where it is empty.
    fn read(container: &mut Container, part: &str) -> Result<Self, ExtractError> {
        let file = part.rsplit('/').next().unwrap_or_default();
        let Some(entry) = container.find(&format!("{}/_rels/{file}.rels", folder(part))) else {
            return Ok(Self::default());
        };
        let bytes = container.read(entry)?;
        Ok(markup::parse_xml(&decode::markup(&bytes), Self::default))
    }

    fn target(&self, container: &Container, base: &str, kind: &str) -> Option<usize> {
        let (_, target) = self.0.iter().find(|(known, _)| known.ends_with(kind))?;
        // A target that begins with a slash counts from the archive's root.
        let base = if target.starts_with('/') { "" } else { base };
        container.resolve(base, target).map(|target| target.entry)
    }
}

impl Sink for Relations {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        if name == "relationship"
            && let (Some(kind), Some(target)) = (attributes.get("type"), attributes.get("target"))
        {
            self.0.push((kind.into_owned(), target.into_owned()));
        }
    }

    fn close(&mut self, _name: &str) {}

    fn text(&mut self, _text: &str) {}
}

/// Paragraph styles by their id.
#[derive(Debug, Default)]
pub struct Styles {
    by_id: HashMap<String, Style>,
    open: Option<(String, Style)>,
}

#[derive(Debug, Default)]
struct Style {
    name: String,
    parent: Option<String>,
    /// As in the file: 0 for the first level, 9 for none.
    outline: Option<usize>,
}

impl Styles {
    pub fn read(text: &str) -> Self {
        markup::parse_xml(text, Self::default)
    }

    /// The heading level, from 1, of paragraphs of the style `id`. The built-in names are English in every language's
    /// files ("heading 1", while the id may be "berschrift1"); they win, because Calibre counts its outline from 1.
    pub fn level(&self, id: &str) -> Option<usize> {
        let mut id = id;
        for _ in 0..MAX_ANCESTORS {
            let Some(style) = self.by_id.get(id) else { return level_by_name(id) };
            if let Some(level) = level_by_name(&style.name) {
                return Some(level);
            }
            if let Some(outline) = style.outline {
                return (outline < 9).then_some(outline + 1);
            }
            id = style.parent.as_deref()?;
        }
        None
    }
}

impl Sink for Styles {
    fn open(&mut self, name: &str, attributes: &dyn Attributes) {
        let value = || attributes.get("val").map(|value| value.into_owned());
        match (name, &mut self.open) {
            ("style", open) => {
                let paragraph = attributes.get("type").is_none_or(|kind| kind == "paragraph");
                let id = attributes.get("styleid").filter(|_| paragraph);
                *open = id.map(|id| (id.into_owned(), Style::default()));
            }
            ("name", Some((_, style))) => style.name = value().unwrap_or_default(),
            ("basedon", Some((_, style))) => style.parent = value(),
            ("outlinelvl", Some((_, style))) => style.outline = value().and_then(|level| level.trim().parse().ok()),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        if name == "style"
            && let Some((id, style)) = self.open.take()
        {
            self.by_id.insert(id, style);
        }
    }

    fn text(&mut self, _text: &str) {}
}

/// Longer names of styles are no headings' names; they are looked at for every paragraph.
const NAME_BYTES: usize = 100;

/// The level of "heading 2", "Heading2", and of the names that programs in other languages write.
pub fn level_by_name(name: &str) -> Option<usize> {
    if name.len() > NAME_BYTES {
        return None;
    }
    let name = name.trim().to_lowercase();
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let level: usize = name[word.len()..].parse().ok()?;
    let known = [
        "heading",
        "überschrift",
        "berschrift",
        "titre",
        "título",
        "titolo",
        "kop",
        "rubrik",
        "overskrift",
        "nagłówek",
        "nadpis",
        "naslov",
        "заголовок",
        "başlık",
        "otsikko",
        "标题",
        "見出し",
    ];
    ((1..=9).contains(&level) && known.contains(&word.trim_end_matches([' ', '_', '-']))).then_some(level)
}

/// An on-off value (clause 17.17.4).
pub fn is_on(value: &str) -> bool {
    !matches!(value, "0" | "false" | "off")
}
