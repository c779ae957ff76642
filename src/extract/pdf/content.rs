//! Runs a page's operators for their text alone: what is shown, where, how large. Must never paint, recurse through a
//! form without a bound, or do more work than the budget: a form may call a form may call a form.

use std::collections::HashMap;
use std::collections::HashSet;
use std::rc::Rc;

use hayro_font::kurbo::Affine;
use hayro_syntax::Pdf;
use hayro_syntax::content::TypedIter;
use hayro_syntax::content::ops::TypedInstruction as Op;
use hayro_syntax::object::{Array, Dict, Name, Object, ObjectIdentifier, Stream};
use hayro_syntax::page::{Page, Resources, Rotation};

use super::super::Limits;
use super::file::{self, Loss};
use super::fonts::{Code, Face, Fonts};
use super::metadata;

/// Forms inside forms.
const MAX_FORMS: usize = 16;
/// Saved states of one stream.
const MAX_STATES: usize = 512;
/// Open marks of one stream.
const MAX_MARKS: usize = 512;
/// Bytes of content, decoded, that one page may run, forms as often as they are shown.
const PAGE_BYTES: u64 = 64 << 20;
/// Bytes that showing a form costs beyond its content.
const FORM_COST: u64 = 256;

/// A piece of text as it is shown: one glyph, or a stretch that says what it stands for.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'t> {
    /// Empty where nothing maps the glyph.
    pub text: &'t str,
    /// Where it begins, in points from the page's upper left corner.
    pub x: f32,
    pub y: f32,
    /// From there to the next glyph.
    pub dx: f32,
    pub dy: f32,
    /// The height of an em.
    pub size: f32,
    pub vertical: bool,
    /// Marked by the file as a page's header, footer or number.
    pub is_artifact: bool,
}

/// What running the pages showed besides text.
#[derive(Debug, Default)]
pub struct Findings {
    /// Glyphs shown, and those that nothing maps to a character.
    pub glyphs: u64,
    pub unmapped: u64,
    /// Streams that broke off, and those that were too large.
    pub damaged: u64,
    pub too_large: u64,
    /// Fonts that could not be read.
    pub fontless: u64,
}

/// Runs the pages of one document.
pub struct Runner<'a> {
    fonts: Fonts<'a>,
    hidden: HashSet<ObjectIdentifier>,
    limits: Limits,
    /// Bytes of content left to the document.
    left: u64,
    pub findings: Findings,
}

/// The matrix from a page's space to points from its upper left corner as it is seen, and its height.
pub fn upright(page: &Page<'_>) -> (Affine, f32) {
    let area = page.intersected_crop_box();
    let (_, height) = page.render_dimensions();
    let matrix = match page.rotation() {
        Rotation::None => [1.0, 0.0, 0.0, -1.0, -area.x0, area.y1],
        Rotation::Horizontal => [0.0, 1.0, 1.0, 0.0, -area.y0, -area.x0],
        Rotation::Flipped => [-1.0, 0.0, 0.0, 1.0, area.x1, -area.y0],
        Rotation::FlippedHorizontal => [0.0, -1.0, -1.0, 0.0, area.y1, area.x1],
    };
    (Affine::new(matrix), height)
}

#[derive(Clone)]
struct State<'a> {
    ctm: Affine,
    font: Option<Rc<Face<'a>>>,
    size: f64,
    character_space: f64,
    word_space: f64,
    stretch: f64,
    leading: f64,
    rise: f64,
}

/// A stretch of marked content.
#[derive(Default)]
struct Mark {
    is_artifact: bool,
    is_hidden: bool,
    /// What the stretch stands for, and the places of its first and last glyph.
    actual: Option<String>,
    extent: Option<Extent>,
}

#[derive(Clone, Copy)]
struct Extent {
    x: f32,
    y: f32,
    end_x: f32,
    end_y: f32,
    size: f32,
    vertical: bool,
}

impl<'a> Runner<'a> {
    pub fn new(pdf: &'a Pdf, limits: &Limits) -> Self {
        let root: Dict<'a> = pdf.xref().get(pdf.xref().root_id()).unwrap_or_default();
        Self {
            fonts: Fonts::new(limits),
            hidden: hidden_layers(&root),
            limits: limits.clone(),
            left: limits.max_total_bytes,
            findings: Findings::default(),
        }
    }

    /// Shows a page's text, in the order of its content.
    pub fn page(&mut self, page: &Page<'a>, show: &mut dyn FnMut(Shown<'_>)) {
        let contents = match page.raw().get::<Object<'_>>("Contents") {
            Some(Object::Stream(stream)) => self.decode(&stream),
            Some(Object::Array(parts)) => {
                let mut all = Vec::new();
                for part in parts.iter::<Stream<'_>>() {
                    all.extend_from_slice(&self.decode(&part));
                    all.push(b' ');
                    if all.len() as u64 > self.limits.max_entry_bytes {
                        self.findings.too_large += 1;
                        break;
                    }
                }
                all
            }
            _ => return,
        };
        let (matrix, _) = upright(page);
        let mut run = Run { runner: self, show, left: PAGE_BYTES, depth: 0, marks: Vec::new() };
        run.content(&contents, page.resources(), matrix, None);
    }

    fn decode(&mut self, stream: &Stream<'_>) -> Vec<u8> {
        let (bytes, loss) = file::content(stream, self.limits.max_entry_bytes.min(self.left));
        match loss {
            None => {}
            Some(Loss::Damaged) => self.findings.damaged += 1,
            Some(Loss::TooLarge) => self.findings.too_large += 1,
        }
        bytes.into_owned()
    }
}

/// One page on its way.
struct Run<'r, 'a> {
    runner: &'r mut Runner<'a>,
    show: &'r mut dyn FnMut(Shown<'_>),
    left: u64,
    depth: usize,
    marks: Vec<Mark>,
}

impl<'a> Run<'_, 'a> {
    /// Runs one stream; `outer` is the state it begins with.
    fn content(&mut self, bytes: &[u8], resources: &Resources<'a>, ctm: Affine, outer: Option<&State<'a>>) {
        let cost = bytes.len() as u64 + FORM_COST;
        if cost > self.left || cost > self.runner.left {
            self.runner.findings.too_large += 1;
            return;
        }
        self.left -= cost;
        self.runner.left -= cost;
        let marks = self.marks.len();
        let mut state = match outer {
            Some(outer) => State { ctm, ..outer.clone() },
            None => State {
                ctm,
                font: None,
                size: 1.0,
                character_space: 0.0,
                word_space: 0.0,
                stretch: 1.0,
                leading: 0.0,
                rise: 0.0,
            },
        };
        let mut saved = Vec::new();
        let (mut text, mut line) = (Affine::IDENTITY, Affine::IDENTITY);
        let mut named: HashMap<Vec<u8>, Option<Rc<Face<'a>>>> = HashMap::new();
        let mut operators = TypedIter::new(bytes);
        while let Some(operator) = operators.next() {
            match operator {
                Op::SaveState(_) if saved.len() < MAX_STATES => saved.push(state.clone()),
                Op::RestoreState(_) => {
                    if let Some(outer) = saved.pop() {
                        state = outer;
                    }
                }
                Op::Transform(m) => {
                    let m = [m.0, m.1, m.2, m.3, m.4, m.5].map(|number| number.as_f64());
                    state.ctm *= Affine::new(m);
                }
                Op::BeginText(_) => (text, line) = (Affine::IDENTITY, Affine::IDENTITY),
                Op::SetTextMatrix(m) => {
                    line = Affine::new([m.0, m.1, m.2, m.3, m.4, m.5].map(|number| number.as_f64()));
                    text = line;
                }
                Op::NextLine(by) => (text, line) = next(line, by.0.as_f64(), by.1.as_f64()),
                Op::NextLineAndSetLeading(by) => {
                    state.leading = -by.1.as_f64();
                    (text, line) = next(line, by.0.as_f64(), by.1.as_f64());
                }
                Op::NextLineUsingLeading(_) => (text, line) = next(line, 0.0, -state.leading),
                Op::CharacterSpacing(n) => state.character_space = n.0.as_f64(),
                Op::WordSpacing(n) => state.word_space = n.0.as_f64(),
                Op::HorizontalScaling(n) => state.stretch = n.0.as_f64() / 100.0,
                Op::TextLeading(n) => state.leading = n.0.as_f64(),
                Op::TextRise(n) => state.rise = n.0.as_f64(),
                Op::TextFont(font) => {
                    state.size = font.1.as_f64();
                    let known = named.entry(font.0.as_ref().to_vec());
                    state.font =
                        known.or_insert_with(|| resources.get_font(font.0).and_then(|dict| self.face(&dict))).clone();
                }
                Op::SetGraphicsState(name) => {
                    let font = resources.get_ext_g_state(name.0).and_then(|state| state.get::<Array<'_>>("Font"));
                    if let Some(font) = font
                        && let Some(dict) = font.iter::<Object<'_>>().next().and_then(Object::into_dict)
                    {
                        state.font = self.face(&dict);
                        state.size = font.iter::<Object<'_>>().nth(1).and_then(Object::into_f32).unwrap_or(1.0).into();
                    }
                }
                Op::ShowText(shown) => self.string(shown.0.as_bytes(), &state, &mut text),
                Op::NextLineAndShowText(shown) => {
                    (text, line) = next(line, 0.0, -state.leading);
                    self.string(shown.0.as_bytes(), &state, &mut text);
                }
                Op::ShowTextWithParameters(shown) => {
                    state.word_space = shown.0.as_f64();
                    state.character_space = shown.1.as_f64();
                    (text, line) = next(line, 0.0, -state.leading);
                    self.string(shown.2.as_bytes(), &state, &mut text);
                }
                Op::ShowTexts(parts) => {
                    for part in parts.0.iter::<Object<'_>>() {
                        match part {
                            Object::String(part) => self.string(part.as_bytes(), &state, &mut text),
                            Object::Number(by) => {
                                let by = -by.as_f64() / 1000.0 * state.size;
                                let vertical = state.font.as_ref().is_some_and(|face| face.vertical);
                                let by = if vertical { (0.0, by) } else { (by * state.stretch, 0.0) };
                                text *= Affine::translate(by);
                            }
                            _ => {}
                        }
                    }
                }
                Op::XObject(name) => self.form(name.0, resources, &state),
                Op::BeginMarkedContent(mark) => {
                    self.open(Mark { is_artifact: mark.0.as_ref() == b"Artifact", ..Mark::default() });
                }
                Op::BeginMarkedContentWithProperties(mark) => {
                    let mark = self.mark(mark.0, mark.1, resources);
                    self.open(mark);
                }
                Op::EndMarkedContent(_) if self.marks.len() > marks => self.close(),
                _ => {}
            }
        }
        while self.marks.len() > marks {
            self.close();
        }
    }

    fn face(&mut self, dict: &Dict<'a>) -> Option<Rc<Face<'a>>> {
        let face = self.runner.fonts.face(dict);
        self.runner.findings.fontless += u64::from(face.is_none());
        face
    }

    fn form(&mut self, name: &Name<'_>, resources: &Resources<'a>, state: &State<'a>) {
        if self.depth >= MAX_FORMS || self.marks.iter().any(|mark| mark.is_hidden) {
            return;
        }
        let Some(stream) = resources.get_x_object(name) else { return };
        let dict = stream.dict();
        if dict.get::<Name<'_>>("Subtype").is_none_or(|kind| kind.as_str() != "Form") {
            return;
        }
        if dict.get_ref("OC").is_some_and(|layer| self.is_hidden(layer.into(), dict.get("OC"))) {
            return;
        }
        if self.left < FORM_COST {
            return;
        }
        let bytes = self.runner.decode(&stream);
        let own = dict.get::<Dict<'_>>("Resources").map(Resources::new);
        let matrix = dict.get::<[f64; 6]>("Matrix").map_or(Affine::IDENTITY, Affine::new);
        self.depth += 1;
        self.content(&bytes, own.as_ref().unwrap_or(resources), state.ctm * matrix, Some(state));
        self.depth -= 1;
    }

    fn mark(&self, tag: &Name<'_>, properties: &Object<'_>, resources: &Resources<'a>) -> Mark {
        let (dict, id) = match properties {
            Object::Dict(dict) => (dict.clone(), None),
            Object::Name(name) => {
                let id = resources.properties.get_ref(name).map(ObjectIdentifier::from);
                (resources.properties.get::<Dict<'_>>(name).unwrap_or_default(), id)
            }
            _ => (Dict::empty(), None),
        };
        let text = |key| dict.get::<hayro_syntax::object::String<'_>>(key).map(|text| metadata::text(&text));
        let is_name = |key, value: &str| dict.get::<Name<'_>>(key).is_some_and(|name| name.as_str() == value);
        Mark {
            // An artifact of another kind may be text: producers mark quotes, rules and watermarks so.
            is_artifact: tag.as_ref() == b"Artifact"
                && (is_name("Type", "Pagination") || is_name("Subtype", "Header") || is_name("Subtype", "Footer")),
            is_hidden: tag.as_ref() == b"OC" && id.is_some_and(|id| self.is_hidden(id, Some(dict.clone()))),
            actual: text("ActualText"),
            extent: None,
        }
    }

    fn is_hidden(&self, id: ObjectIdentifier, dict: Option<Dict<'_>>) -> bool {
        if self.runner.hidden.is_empty() {
            return false;
        }
        if self.runner.hidden.contains(&id) {
            return true;
        }
        // A group of layers shows while any of them does.
        let Some(layers) = dict.and_then(|dict| dict.get::<Array<'_>>("OCGs")) else { return false };
        let mut layers = layers.raw_iter().filter_map(|layer| layer.as_obj_ref()).peekable();
        layers.peek().is_some() && layers.all(|layer| self.runner.hidden.contains(&layer.into()))
    }

    fn open(&mut self, mark: Mark) {
        if self.marks.len() < MAX_MARKS {
            self.marks.push(mark);
        }
    }

    fn close(&mut self) {
        let Some(mark) = self.marks.pop() else { return };
        let (Some(actual), Some(extent)) = (mark.actual, mark.extent) else { return };
        if self.marks.iter().any(|outer| outer.is_hidden || outer.actual.is_some()) {
            return;
        }
        let is_artifact = mark.is_artifact || self.marks.iter().any(|outer| outer.is_artifact);
        let Extent { x, y, end_x, end_y, size, vertical } = extent;
        (self.show)(Shown { text: &actual, x, y, dx: end_x - x, dy: end_y - y, size, vertical, is_artifact });
    }

    fn string(&mut self, bytes: &[u8], state: &State<'a>, text: &mut Affine) {
        let Some(face) = state.font.clone() else { return };
        let is_hidden = self.marks.iter().any(|mark| mark.is_hidden);
        let is_artifact = self.marks.iter().any(|mark| mark.is_artifact);
        let replaced = self.marks.iter_mut().rev().find(|mark| mark.actual.is_some());
        let mut extent = replaced.and_then(|mark| mark.extent);
        let is_replaced = self.marks.iter().any(|mark| mark.actual.is_some());
        let mut at = 0;
        while at < bytes.len() {
            let (code, glyph, length) = face.read(bytes, at);
            at += length;
            let place = Place::of(&glyph, &face, state, text);
            let space = state.character_space + if code == 32 && length == 1 { state.word_space } else { 0.0 };
            let advance = f64::from(glyph.advance) * state.size + space;
            let step = if face.vertical { (0.0, advance) } else { (advance * state.stretch, 0.0) };
            *text *= Affine::translate(step);
            if is_hidden {
                continue;
            }
            self.runner.findings.glyphs += 1;
            // A font may have no letters for what ActualText says.
            self.runner.findings.unmapped += u64::from(glyph.text.is_empty() && !is_replaced);
            let Some(Place { x, y, dx, dy, size }) = place else { continue };
            if is_replaced {
                let first = extent.unwrap_or(Extent { x, y, end_x: x, end_y: y, size, vertical: face.vertical });
                extent = Some(Extent { end_x: x + dx, end_y: y + dy, ..first });
                continue;
            }
            (self.show)(Shown { text: &glyph.text, x, y, dx, dy, size, vertical: face.vertical, is_artifact });
        }
        if let Some(mark) = self.marks.iter_mut().rev().find(|mark| mark.actual.is_some()) {
            mark.extent = extent;
        }
    }
}

fn next(line: Affine, x: f64, y: f64) -> (Affine, Affine) {
    let line = line * Affine::translate((x, y));
    (line, line)
}

struct Place {
    x: f32,
    y: f32,
    dx: f32,
    dy: f32,
    size: f32,
}

impl Place {
    /// Where a glyph stands; None where numbers run wild.
    fn of(glyph: &Code, face: &Face<'_>, state: &State<'_>, text: &Affine) -> Option<Self> {
        let m = state.ctm * *text * Affine::new([state.size * state.stretch, 0.0, 0.0, state.size, 0.0, state.rise]);
        let [a, b, c, d, e, f] = m.as_coeffs();
        let (ox, oy) = if face.vertical { (0.0, 0.0) } else { glyph.origin };
        let (ox, oy) = (f64::from(ox), f64::from(oy));
        // Letters spaced out are still one word: the space between letters is part of each.
        let spaced = state.character_space / if state.size == 0.0 { 1.0 } else { state.size };
        let advance = f64::from(glyph.advance) + spaced;
        let (dx, dy) = if face.vertical { (c * advance, d * advance) } else { (a * advance, b * advance) };
        let size = c.hypot(d) * f64::from(face.scale);
        let place = [e + a * ox + c * oy, f + b * ox + d * oy, dx, dy, size].map(|number| number as f32);
        let [x, y, dx, dy, size] = place;
        let sane = place.iter().all(|number| number.is_finite() && number.abs() < 1e6);
        (sane && size > 0.0).then_some(Self { x, y, dx, dy, size })
    }
}

/// The layers that are off when the file is opened.
fn hidden_layers(root: &Dict<'_>) -> HashSet<ObjectIdentifier> {
    let mut hidden = HashSet::new();
    let Some(layers) = root.get::<Dict<'_>>("OCProperties") else { return hidden };
    let config = layers.get::<Dict<'_>>("D").unwrap_or_default();
    let ids = |array: Option<Array<'_>>| -> Vec<ObjectIdentifier> {
        let array = array.iter().flat_map(|array| array.raw_iter()).filter_map(|item| item.as_obj_ref());
        array.map(ObjectIdentifier::from).collect()
    };
    if config.get::<Name<'_>>("BaseState").is_some_and(|state| state.as_str() == "OFF") {
        hidden.extend(ids(layers.get("OCGs")));
        let shown = ids(config.get("ON"));
        hidden.retain(|id| !shown.contains(id));
    }
    hidden.extend(ids(config.get("OFF")));
    hidden
}
