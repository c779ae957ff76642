//! What a font's codes mean: text, width and direction, each code looked up once. Must never draw, and never invent a
//! character for a glyph that nothing maps.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hayro_cmap::{BfString, CMap, CMapName, CidFamily};
use hayro_font::{CMapResolverFn, Font, FontCache, FontGlyph, FontQuery, FontResolverFn};
use hayro_syntax::object::{Array, Dict, Name, Object, Stream};
use skrifa::MetadataProvider;
use unicode_normalization::UnicodeNormalization;

use super::super::Limits;
use super::file;

/// Mappings taken from one embedded font.
const MAX_MAPPINGS: usize = 200_000;

/// Characters that ranges of widths name, in all fonts of a document. The parser writes down each; a hostile font names
/// four billion in twenty bytes, real ones the sixty-five thousand that there can be (ISO 32000-2, 9.7.4.3).
const MAX_RANGED_WIDTHS: u64 = 4 << 20;

/// The fonts of a document.
pub struct Fonts<'a> {
    cache: FontCache<'a>,
    faces: HashMap<Key, Option<Rc<Face<'a>>>>,
    programs: FontResolverFn,
    cmaps: CMapResolverFn,
    limits: Limits,
    ranged_widths: Cell<u64>,
}

/// A font by the place of its dictionary: equal bytes at one place are one font.
type Key = (*const u8, usize);

impl<'a> Fonts<'a> {
    pub fn new(limits: &Limits) -> Self {
        Self {
            cache: FontCache::new(),
            faces: HashMap::new(),
            programs: Arc::new(|query| {
                Some(match query {
                    FontQuery::Standard(font) => font.get_font_data(),
                    FontQuery::Fallback(query) => query.pick_standard_font().get_font_data(),
                })
            }),
            cmaps: Arc::new(hayro_cmap::load_embedded),
            limits: limits.clone(),
            ranged_widths: Cell::new(0),
        }
    }

    /// The font of a dictionary; None where it cannot be read.
    pub fn face(&mut self, dict: &Dict<'a>) -> Option<Rc<Face<'a>>> {
        let key = (dict.data().as_ptr(), dict.data().len());
        if let Some(face) = self.faces.get(&key) {
            return face.clone();
        }
        let face = self.load(dict).map(Rc::new);
        self.faces.insert(key, face.clone());
        face
    }

    fn load(&self, dict: &Dict<'a>) -> Option<Face<'a>> {
        let inner = dict.get::<Array<'_>>("DescendantFonts").and_then(|fonts| fonts.iter::<Dict<'_>>().next());
        for owner in [Some(dict), inner.as_ref()].into_iter().flatten() {
            let descriptor = owner.get::<Dict<'_>>("FontDescriptor").unwrap_or_default();
            let own = ["ToUnicode", "Encoding", "CIDToGIDMap"].map(|key| owner.get::<Stream<'_>>(key));
            let programs = ["FontFile", "FontFile2", "FontFile3"].map(|key| descriptor.get::<Stream<'_>>(key));
            if own.iter().chain(&programs).flatten().any(|stream| !file::is_harmless(stream, &self.limits)) {
                return None;
            }
        }
        if let Some(inner) = &inner {
            self.ranged_widths.set(self.ranged_widths.get().saturating_add(ranged_widths(inner)));
            if self.ranged_widths.get() > MAX_RANGED_WIDTHS {
                return None;
            }
        }
        let font = self.cache.font(dict, &self.programs, &self.cmaps)?;
        let is_type3 = dict.get::<Name<'_>>("Subtype").is_some_and(|name| name.as_str() == "Type3");
        let scale = if is_type3 { type3_scale(&font) } else { 1.0 };
        Some(Face {
            vertical: !font.is_horizontal(),
            font,
            scale,
            dict: dict.clone(),
            inner,
            cmaps: self.cmaps.clone(),
            fallback: OnceCell::new(),
            codes: RefCell::default(),
        })
    }
}

/// The characters in a font's ranges of widths, read as the parser will read them.
fn ranged_widths(dict: &Dict<'_>) -> u64 {
    let mut count = 0u64;
    let mut add = |first: u32, last: u32| count = count.saturating_add(u64::from(last.saturating_sub(first)) + 1);
    if let Some(widths) = dict.get::<Array<'_>>("W") {
        let mut parts = widths.flex_iter();
        loop {
            if parts.next::<(u32, Array<'_>)>().is_some() {
                continue;
            }
            let Some((first, last, _)) = parts.next::<(u32, u32, f32)>() else { break };
            add(first, last);
        }
    }
    if let Some(widths) = dict.get::<Array<'_>>("W2") {
        let mut parts = widths.flex_iter();
        loop {
            if parts.next::<(u32, Array<'_>)>().is_some() {
                continue;
            }
            let Some((first, last, ..)) = parts.next::<(u32, u32, f32, f32, f32)>() else { break };
            add(first, last);
        }
    }
    count
}

/// A Type 3 font has no em; its letters are taken to be half of one wide, as most are.
fn type3_scale(font: &Font<'_>) -> f32 {
    let widths: Vec<f64> = (0..256).map(|code| font.code_advance(code).x).filter(|width| *width > 0.0).collect();
    if widths.is_empty() {
        return 1.0;
    }
    ((widths.iter().sum::<f64>() / widths.len() as f64 / 500.0) as f32).clamp(0.001, 1000.0)
}

/// A font, and what is known of its codes.
pub struct Face<'a> {
    font: Font<'a>,
    /// Text runs from top to bottom.
    pub vertical: bool,
    /// Of its letters to those of other fonts at the same nominal size.
    pub scale: f32,
    dict: Dict<'a>,
    inner: Option<Dict<'a>>,
    cmaps: CMapResolverFn,
    /// Made when the first glyph maps to nothing.
    fallback: OnceCell<Fallback>,
    codes: RefCell<HashMap<u32, Rc<Code>>>,
}

/// What one code of a font shows.
#[derive(Debug)]
pub struct Code {
    /// Empty where nothing maps the glyph.
    pub text: Box<str>,
    /// To the next glyph, in ems: along x, or along y in vertical writing.
    pub advance: f32,
    /// Of the glyph from the pen, in ems.
    pub origin: (f32, f32),
}

impl Face<'_> {
    /// The code at `at`, which must be inside `bytes`, its meaning, and how many bytes it takes.
    pub fn read(&self, bytes: &[u8], at: usize) -> (u32, Rc<Code>, usize) {
        let (code, length) = self.font.read_code(bytes, at);
        if let Some(known) = self.codes.borrow().get(&code) {
            return (code, known.clone(), length.max(1));
        }
        let known = Rc::new(self.look_up(code));
        self.codes.borrow_mut().insert(code, known.clone());
        (code, known, length.max(1))
    }

    fn look_up(&self, code: u32) -> Code {
        let glyph = self.font.map_code(code);
        let mut text = match self.font.glyph(glyph, code) {
            FontGlyph::Outline(outline) => outline.as_unicode(),
            FontGlyph::Type3(drawn) => drawn.as_unicode(),
        }
        .map(|text| match text {
            BfString::Char(c) => c.to_string(),
            BfString::String(text) => text,
        })
        .unwrap_or_default();
        if text.is_empty() {
            let fallback = self.fallback.get_or_init(|| match &self.inner {
                Some(inner) => Fallback::of(&self.font, &self.dict, inner, &self.cmaps),
                None => Fallback::None,
            });
            text = fallback.text(code, glyph.to_u32()).map(String::from).unwrap_or_default();
        }
        let advance = self.font.code_advance(code);
        let origin = self.font.origin_displacement(code);
        Code {
            text: tidy(&text).into_boxed_str(),
            advance: (if self.vertical { advance.y } else { advance.x }) as f32 / 1000.0,
            origin: (origin.x as f32 / 1000.0, origin.y as f32 / 1000.0),
        }
    }
}

/// Ligatures and presentation forms as letters; no control characters; Symbol's bullet as one.
fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{fb00}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}' => out.extend(std::iter::once(c).nfkc()),
            '\u{f0b7}' => out.push('•'),
            '\t' | '\n' | '\r' | '\u{a0}' => out.push(' '),
            // The end of a line tells it from a hyphen that is meant; see `join`.
            '\u{ad}' => out.push(c),
            '\u{feff}' | '\u{fffd}' | '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Text of glyphs in a composite font that says nothing about Unicode.
enum Fallback {
    None,
    /// By the number in Adobe's collection of characters.
    Collection {
        encoding: Box<CMap>,
        unicode: Box<CMap>,
    },
    /// By the embedded font's own table, backwards.
    Glyphs(HashMap<u32, char>),
}

impl Fallback {
    fn of(font: &Font<'_>, dict: &Dict<'_>, inner: &Dict<'_>, cmaps: &CMapResolverFn) -> Self {
        Self::collection(dict, inner, cmaps).unwrap_or_else(|| Self::glyphs(font))
    }

    fn collection(dict: &Dict<'_>, inner: &Dict<'_>, cmaps: &CMapResolverFn) -> Option<Self> {
        let parse = |data: &[u8]| {
            let cmaps = cmaps.clone();
            CMap::parse(data, move |name| cmaps(name))
        };
        let encoding = match dict.get::<Object<'_>>("Encoding")? {
            Object::Name(name) if name.as_str() == "Identity-H" => CMap::identity_h(),
            Object::Name(name) if name.as_str() == "Identity-V" => CMap::identity_v(),
            Object::Name(name) => parse(cmaps(CMapName::from_bytes(name.as_ref()))?)?,
            Object::Stream(stream) => parse(&stream.decoded_data().ok()?)?,
            _ => return None,
        };
        let known = |family: &CidFamily| family.ucs2_cmap();
        let by_encoding = encoding.metadata().character_collection.as_ref().and_then(|one| known(&one.family));
        let by_font = || {
            let info = inner.get::<Dict<'_>>("CIDSystemInfo")?;
            let part = |key| info.get::<hayro_syntax::object::String<'_>>(key);
            known(&CidFamily::from_registry_ordering(&part("Registry")?, &part("Ordering")?))
        };
        let unicode = parse(cmaps(by_encoding.or_else(by_font)?)?)?;
        Some(Self::Collection { encoding: Box::new(encoding), unicode: Box::new(unicode) })
    }

    fn glyphs(font: &Font<'_>) -> Self {
        let FontGlyph::Outline(outline) = font.glyph(hayro_font::GlyphId::new(1), 1) else { return Self::None };
        let Some(data) = outline.font_data() else { return Self::None };
        let bytes: &[u8] = (*data.data).as_ref();
        let Ok(program) = skrifa::FontRef::new(bytes) else { return Self::None };
        let mut glyphs = HashMap::new();
        for (code, glyph) in program.charmap().mappings().take(MAX_MAPPINGS) {
            if let Some(c) = char::from_u32(code) {
                glyphs.entry(glyph.to_u32()).or_insert(c);
            }
        }
        Self::Glyphs(glyphs)
    }

    fn text(&self, code: u32, glyph: u32) -> Option<char> {
        match self {
            Self::None => None,
            Self::Glyphs(glyphs) => glyphs.get(&glyph).copied(),
            Self::Collection { encoding, unicode } => {
                let cid = (1..=4).find_map(|length| encoding.lookup_cid_code(code, length))?;
                match unicode.lookup_bf_string(cid)? {
                    BfString::Char(c) => Some(c),
                    BfString::String(text) => text.chars().next(),
                }
            }
        }
    }
}
