//! The independent count of a PDF: every letter and figure that its glyphs show, in the order of the content, against
//! those of the sections and of the lines left out. In letters, because where a word ends is itself a reading of the
//! page. Must never use the layout that it checks; it shares the fonts and the operators.

use std::collections::HashSet;

use unicode_normalization::UnicodeNormalization;

use super::{EXAMPLES, Report, WordCounts};
use crate::domain::Document;
use crate::extract::{ExtractError, Limits, Source, pdf};

/// Counts the file's letters and compares.
pub fn measure(source: &Source, document: &Document, limits: &Limits) -> Result<Report, ExtractError> {
    let mut shown = Letters::default();
    // Letters printed twice in one place, to thicken them, are one.
    let (mut seen, mut on) = (HashSet::new(), 0);
    pdf::visit_glyphs(source, limits, &mut |page, text, x, y| {
        if page != on {
            seen.clear();
            on = page;
        }
        let near = |x: f32| (x * 0.5).round() as i32;
        if seen.insert((text.to_owned(), near(x), near(y))) {
            shown.add(text);
        }
    })?;
    let mut kept = Letters::default();
    document.sections.iter().for_each(|section| kept.add(&section.text));
    let in_sections = kept.0.iter().sum();
    let running = pdf::read_with_removed(source, limits)?.1;
    running.iter().for_each(|line| kept.add(line));
    let mut report = shown.words().compare(&kept.words());
    report.words_sections = in_sections;
    report.running_lines = running.len();
    report.running_examples = running.into_iter().take(EXAMPLES).collect();
    Ok(report)
}

/// How often each letter or figure occurs.
#[derive(Default)]
struct Letters(Vec<usize>);

impl Letters {
    fn add(&mut self, text: &str) {
        // Accents may be glyphs of their own, so they are left out on both sides.
        for c in text.nfkd().filter(|c| c.is_alphanumeric()) {
            let c = match c {
                'ı' => 'i',
                'ȷ' => 'j',
                c => c,
            };
            let at = c as usize;
            if at >= self.0.len() {
                self.0.resize(at + 1, 0);
            }
            self.0[at] += 1;
        }
    }

    fn words(&self) -> WordCounts {
        let mut counts = WordCounts::default();
        for (at, count) in self.0.iter().enumerate().filter(|(_, count)| **count > 0) {
            if let Some(c) = u32::try_from(at).ok().and_then(char::from_u32) {
                counts.0.insert(c.to_string(), *count);
            }
        }
        counts
    }
}
