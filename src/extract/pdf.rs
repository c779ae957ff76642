//! PDF: pages of placed glyphs, read as lines, columns and paragraphs. Must never trust a length, a tree or a count that
//! the file states, or leave out a glyph's text but of running headers, footers and page numbers.
//!
//! The objects and the fonts are read by `hayro-syntax` and `hayro-font`; a page's operators are run here (`content`),
//! because only text is wanted of them. The way of a page: glyphs, `runs`, `columns`, `lines`; then of the document:
//! `running` lines out, `paragraphs` and `join`, sections by the `outline`. Why these crates: `tests/RESULTS.md`.

mod bidi;
mod columns;
mod content;
mod file;
mod fonts;
mod headings;
mod join;
mod lines;
mod metadata;
mod outline;
mod paragraphs;
mod running;
mod runs;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use hayro_syntax::Pdf;
use hayro_syntax::object::Dict;

use self::content::{Findings, Runner, Shown};
use self::join::Vocabulary;
use self::metadata::Metadata;
use self::outline::{Entry, Outline};
use self::paragraphs::LineAt;
use self::running::PageLines;
use self::runs::Runs;
use super::sections::{self, Start};
use super::text::PageText;
use super::{ExtractError, Limits, Source};
use crate::domain::Document;

/// Pages of one document that are read.
const MAX_PAGES: usize = 100_000;
/// Of a document's glyphs, the share that may map to nothing; with more there is no text to speak of.
const MAX_UNMAPPED: f64 = 0.9;

/// Reads a PDF.
pub fn read(source: &Source, limits: &Limits) -> Result<Document, ExtractError> {
    read_with_removed(source, limits).map(|(document, _)| document)
}

/// Reads a PDF; the second part is the text of the headers, footers and page numbers left out.
pub fn read_with_removed(source: &Source, limits: &Limits) -> Result<(Document, Vec<String>), ExtractError> {
    let pdf = guard(source, || file::open(source, limits))??;
    let mut notes = Vec::new();
    let (mut pages, findings) = lines_of(&pdf, source, limits, &mut notes)?;
    tell(&findings, &mut notes);
    let metadata = guard(source, || Metadata::of(&pdf)).unwrap_or_default();
    let outline = guard(source, || Outline::of(&pdf)).unwrap_or_default();
    drop(pdf);
    if findings.glyphs > 0 && findings.unmapped as f64 > MAX_UNMAPPED * findings.glyphs as f64 {
        return Err(ExtractError::NoText { path: source.path().to_owned() });
    }
    let body = headings::body_size(&pages);
    let removed: Vec<String> = running::remove(&mut pages, body).into_iter().map(|(_, line)| line.text).collect();
    let mut entries = outline.entries;
    if outline.is_cyclic {
        notes.push("the table of contents turns back into itself; each entry is taken once".to_owned());
    }
    if outline.nowhere > 0 {
        notes.push(format!("{} entries of the table of contents lead to no page", outline.nowhere));
    }
    if entries.is_empty() {
        entries = headings::entries(&pages, body);
        let stand_in = if entries.is_empty() { "the text is one section" } else { "headings by their size are" };
        notes.push(format!("no table of contents leads into the text; {stand_in}"));
    }
    let (text, starts) = assemble(&pages, entries, body);
    drop(pages);
    super::check_text_size(source.path(), limits, text.len() as u64)?;
    let page = PageText { text, ..PageText::default() };
    let Metadata { title, authors, language } = metadata;
    let sections = if page.text.is_empty() { Vec::new() } else { sections::split(&[page], starts) };
    Ok((Document { title, authors, language, sections, notes }, removed))
}

/// Hands every glyph's text to `visit` in the order of the content, with its page and place: what the report's
/// independent count runs on.
pub fn visit_glyphs(
    source: &Source,
    limits: &Limits,
    visit: &mut dyn FnMut(usize, &str, f32, f32),
) -> Result<(), ExtractError> {
    let pdf = guard(source, || file::open(source, limits))??;
    let mut runner = Runner::new(&pdf, limits);
    for (number, page) in pdf.pages().iter().take(MAX_PAGES).enumerate() {
        let mut show = |shown: Shown<'_>| visit(number, shown.text, shown.x, shown.y);
        // What fails here fails in the extraction, too, and is noted there.
        let _ = guard(source, || runner.page(page, &mut show));
    }
    Ok(())
}

/// A parser's panic is the book's fault like any other damage. What it leaves half done is not looked at again.
fn guard<T>(source: &Source, work: impl FnOnce() -> T) -> Result<T, ExtractError> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| ExtractError::corrupt(source.path(), "the parser of PDF gave up on it"))
}

fn lines_of(
    pdf: &Pdf,
    source: &Source,
    limits: &Limits,
    notes: &mut Vec<String>,
) -> Result<(Vec<PageLines>, Findings), ExtractError> {
    let mut runner = Runner::new(pdf, limits);
    let (mut pages, mut bytes, mut failed) = (Vec::new(), 0, 0);
    for page in pdf.pages().iter().take(MAX_PAGES) {
        super::progress::tick();
        let mut runs = Runs::default();
        failed += u64::from(guard(source, || runner.page(page, &mut |shown| runs.push(shown))).is_err());
        let lines = columns::order(runs.finish());
        bytes += lines.iter().map(|line| line.text.len() as u64).sum::<u64>();
        super::check_text_size(source.path(), limits, bytes)?;
        let (_, height) = content::upright(page);
        pages.push(PageLines { lines, height });
    }
    let root: Dict<'_> = pdf.xref().get(pdf.xref().root_id()).unwrap_or_default();
    let count = root.get::<Dict<'_>>("Pages").and_then(|top| top.get::<i32>("Count"));
    if let Some(count) = count.and_then(|count| usize::try_from(count).ok())
        && count > pages.len()
    {
        notes.push(format!("{} of its {count} pages could be found", pages.len()));
    }
    if failed > 0 {
        notes.push(format!("the parser gave up on {failed} pages; what came before is kept"));
    }
    Ok((pages, std::mem::take(&mut runner.findings)))
}

fn tell(findings: &Findings, notes: &mut Vec<String>) {
    let Findings { glyphs, unmapped, damaged, too_large, fontless } = *findings;
    if unmapped > 0 {
        let share = unmapped as f64 / glyphs.max(1) as f64 * 100.0;
        notes.push(format!("{unmapped} of {glyphs} glyphs ({share:.1} %) stand for no character and are left out"));
    }
    if damaged > 0 {
        notes.push(format!("{damaged} streams of content are damaged; what could be decoded is kept"));
    }
    if too_large > 0 {
        notes.push(format!("{too_large} streams of content are larger than the limit and left out from there on"));
    }
    if fontless > 0 {
        notes.push(format!("{fontless} fonts cannot be read; their text is left out"));
    }
}

/// The text of all pages, and where in it the entries begin.
fn assemble(pages: &[PageLines], entries: Vec<Entry>, body: f32) -> (String, Vec<Start>) {
    let mut words = Vocabulary::default();
    pages.iter().flat_map(|page| &page.lines).for_each(|line| words.add(&line.text));
    let mut places: Vec<(LineAt, Entry)> =
        entries.into_iter().map(|entry| (outline::line_of(&entry, pages), entry)).collect();
    // Stable: entries at one line stay in the order of the table of contents.
    places.sort_by_key(|(at, _)| *at);
    let marks: Vec<LineAt> = places.iter().map(|(at, _)| *at).collect();
    let (text, offsets) = paragraphs::text(pages, &marks, &words, body);
    let starts = places.into_iter().zip(offsets);
    let starts = starts.map(|((_, entry), offset)| Start {
        page: 0,
        offset: offset.min(text.len()),
        level: entry.level,
        title: entry.title,
    });
    let starts = starts.collect();
    (text, starts)
}
