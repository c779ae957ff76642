//! A language's books as passages: cut by a method, placed in their books, and ready to be embedded.

use std::ops::Range;

use nix::sys::resource::UsageWho;

use super::cut::{Tokens, fit_size};
use super::labels::{LabelledBook, letters, overlap, plain_bytes};
use super::methods::{Chapters, Context, Cut, Method, of_size};
use super::vectors::Vectors;
use crate::chunk::{BorderVectors, chunk_sections, merge_into_chapters};
use crate::daemon::DaemonError;
use crate::daemon::bench::cpu_seconds;
use crate::domain::ChapterChunks;
use crate::embed::{EmbedError, TextTokenizer};
use crate::ingest::{Parents, cut_to_tokens, mean_vectors, parents};

/// The least a passage may have where the size is fitted.
const MIN_FITTED_TOKENS: usize = 8;

/// Something that can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Index of the book among all books.
    pub book: usize,
    pub place: Range<usize>,
    /// Of its bare text.
    pub tokens: usize,
    /// Whether it stands for a chapter.
    pub chapter: bool,
}

/// One language's passages by one method.
#[derive(Debug, Default)]
pub struct Collection {
    pub passages: Vec<Passage>,
    pub vectors: Vec<Vec<f32>>,
    /// CPU seconds that finding the borders takes, vectors of sentences included.
    pub border_seconds: f64,
    /// CPU seconds that the vectors of the passages (and of chapters with a pass of their own) take.
    pub embed_seconds: f64,
    /// Passages whose context had to be cut to stay within the model's limit.
    pub cut_contexts: usize,
}

impl Collection {
    /// The lengths of the passages that are no chapters, ascending.
    pub fn lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> =
            self.passages.iter().filter(|passage| !passage.chapter).map(|passage| passage.tokens).collect();
        lengths.sort_unstable();
        lengths
    }
}

/// Makes collections, one after the other.
pub struct Maker<'a, 'b> {
    pub books: &'a [LabelledBook],
    pub tokenizer: &'a dyn TextTokenizer,
    pub vectors: &'a mut Vectors<'b>,
    /// For the methods that are not the service's: chapters are the same for all.
    pub min_chapter_words: usize,
}

impl Maker<'_, '_> {
    /// Cuts the books with these indices and embeds the passages. `mean` is the mean size to fit, where the
    /// method has none of its own.
    pub fn make(&mut self, method: &Method, books: &[usize], mean: Option<f64>) -> Result<Collection, DaemonError> {
        let size = mean.map(|mean| self.fit(&method.cut, books, mean)).transpose()?;
        let mut collection = Collection::default();
        for &book in books {
            let (chapters, border_seconds) = self.cut(&method.cut, book, size)?;
            collection.border_seconds += border_seconds;
            self.add(method, book, &chapters, &mut collection)?;
        }
        Ok(collection)
    }

    /// The mean tokens of the passages that a method cuts.
    pub fn mean_tokens(&mut self, cut: &Cut, books: &[usize], size: Option<usize>) -> Result<f64, DaemonError> {
        let (mut tokens, mut passages) = (0, 0);
        for &book in books {
            for chapter in self.cut(cut, book, size)?.0 {
                tokens += chapter.children.iter().map(|child| child.tokens).sum::<usize>();
                passages += chapter.children.len();
            }
        }
        Ok(tokens as f64 / passages.max(1) as f64)
    }

    fn fit(&mut self, cut: &Cut, books: &[usize], mean: f64) -> Result<usize, DaemonError> {
        // Windows that end between words may be a quarter longer than asked for.
        let high = self.tokenizer.content_tokens() * 4 / 5;
        fit_size(MIN_FITTED_TOKENS, high, mean, |size| self.mean_tokens(cut, books, Some(size)))
    }

    /// The chapters with their passages (which overlap where the method says so), and the CPU seconds it takes.
    fn cut(&mut self, cut: &Cut, book: usize, size: Option<usize>) -> Result<(Vec<ChapterChunks>, f64), DaemonError> {
        let (before, inside) = (cpu_seconds(UsageWho::RUSAGE_SELF), self.vectors.spent());
        let mut charged = 0.0;
        let labelled = &self.books[book];
        let chapters = match cut {
            Cut::Service(settings) => {
                let limit = self.tokenizer.content_tokens();
                let settings = size.map_or_else(|| settings.clone(), |size| of_size(settings, size, limit));
                let mut charging = Charging { vectors: self.vectors, seconds: 0.0 };
                let (sections, language) = (&labelled.sections, &labelled.language);
                let cut = chunk_sections(sections, language, &settings, self.tokenizer, limit, &mut charging)?;
                charged = charging.seconds;
                cut
            }
            Cut::Windows { .. } | Cut::Paragraphs => {
                let size = size.unwrap_or_else(|| self.tokenizer.content_tokens() * 4 / 5);
                let chapters = merge_into_chapters(&labelled.sections, self.min_chapter_words).into_iter();
                let chapters = chapters.map(|chapter| {
                    let tokens = Tokens::of(&chapter.text, self.tokenizer);
                    let children = match cut {
                        Cut::Windows { overlap } => tokens.windows(size, *overlap),
                        _ => tokens.paragraphs(size),
                    };
                    ChapterChunks { title: chapter.title, text: chapter.text, sections: chapter.sections, children }
                });
                chapters.collect()
            }
        };
        let outside = cpu_seconds(UsageWho::RUSAGE_SELF) - before - (self.vectors.spent() - inside);
        Ok((chapters, outside.max(0.0) + charged))
    }

    /// Places a book's passages and embeds them.
    fn add(
        &mut self,
        method: &Method,
        book: usize,
        chapters: &[ChapterChunks],
        collection: &mut Collection,
    ) -> Result<(), DaemonError> {
        let labelled = &self.books[book];
        let places = places(chapters);
        let reached = places.last().map_or(0, |chapter| chapter.place.end);
        if reached != labelled.plain_bytes() {
            let (all, name, method) = (labelled.plain_bytes(), &labelled.name, &method.name);
            return Err(DaemonError::Failed(format!("{method} keeps {reached} of the {all} bytes of {name}: a bug")));
        }
        let mut texts: Vec<String> = Vec::new();
        for (chapter, places) in chapters.iter().zip(&places) {
            for (child, place) in chapter.children.iter().zip(&places.children) {
                let text = chapter.child_text(child);
                let context = context(method.context, labelled, place);
                let room = self.tokenizer.content_tokens().saturating_sub(child.tokens + 2);
                let cut = cut_to_tokens(&context, room, self.tokenizer);
                collection.cut_contexts += usize::from(cut.len() < context.len());
                texts.push(if cut.is_empty() { text.to_owned() } else { format!("{cut}\n\n{text}") });
                collection.passages.push(Passage { book, place: place.clone(), tokens: child.tokens, chapter: false });
            }
        }
        let (vectors, took) = self.vectors.embed(&texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        collection.embed_seconds += took;
        let chapter_vectors = match method.chapters {
            Chapters::Absent => Vec::new(),
            Chapters::MeanOfPassages => mean_vectors(chapters, &vectors),
            Chapters::OwnPass => {
                let limit = self.tokenizer.content_tokens();
                let texts = parents(chapters, Parents::Embed, self.tokenizer, limit);
                let (vectors, took) =
                    self.vectors.embed(&texts.iter().map(|parent| parent.text.as_str()).collect::<Vec<_>>())?;
                collection.embed_seconds += took;
                vectors
            }
        };
        collection.vectors.extend(vectors);
        for ((chapter, places), vector) in chapters.iter().zip(&places).zip(chapter_vectors) {
            let tokens = chapter.children.iter().map(|child| child.tokens).sum();
            collection.passages.push(Passage { book, place: places.place.clone(), tokens, chapter: true });
            collection.vectors.push(vector);
        }
        Ok(())
    }
}

/// The vectors that borders depend on, and what those took that the model made.
struct Charging<'a, 'b> {
    vectors: &'a mut Vectors<'b>,
    seconds: f64,
}

impl BorderVectors for Charging<'_, '_> {
    type Error = EmbedError;

    fn of_sentences(&mut self, sentences: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let (vectors, took) = self.vectors.embed(sentences)?;
        self.seconds += took;
        Ok(vectors)
    }

    fn of_tokens(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.vectors.of_tokens(ids)
    }
}

/// Where a chapter and its passages are in their book.
struct Places {
    place: Range<usize>,
    children: Vec<Range<usize>>,
}

fn places(chapters: &[ChapterChunks]) -> Vec<Places> {
    let mut base = 0;
    let places = chapters.iter().map(|chapter| {
        // The plain bytes before every byte of the text.
        let mut before = Vec::with_capacity(chapter.text.len() + 1);
        let mut at = base;
        for c in chapter.text.chars() {
            let counts = !c.is_whitespace();
            for byte in 0..c.len_utf8() {
                before.push(at + if counts { byte } else { 0 });
            }
            at += if counts { c.len_utf8() } else { 0 };
        }
        before.push(at);
        let place = base..base + plain_bytes(&chapter.text);
        base = place.end;
        let children =
            chapter.children.iter().map(|child| before[child.range.start]..before[child.range.end]).collect();
        Places { place, children }
    });
    places.collect()
}

/// What is put before a passage. Headings of the sections that the passage has text of are left out: they would give the
/// answer away. So the path is what all those sections have above them.
fn context(context: Context, book: &LabelledBook, place: &Range<usize>) -> String {
    if context == Context::Bare {
        return String::new();
    }
    let mut parts = vec![book.title.as_str()];
    if context == Context::TitleAndPath {
        let first = book.own.partition_point(|own| own.end <= place.start);
        let touched = (first..book.own.len())
            .take_while(|&section| book.own[section].start < place.end)
            .filter(|&section| overlap(&book.own[section], place) > 0);
        let common = touched.map(|section| book.ancestors[section].as_slice()).reduce(|a, b| {
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            &a[..same]
        });
        let titles = common.unwrap_or_default().iter().map(|&section| book.sections[section].title.as_str());
        let titles = titles.map(super::labels::without_number).filter(|title| !letters(title).is_empty());
        parts.extend(titles.filter(|title| letters(title) != letters(&book.title)));
    }
    parts.join(" > ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Section, TextSpan};

    #[test]
    fn places_count_what_is_no_whitespace_over_all_chapters() {
        let chapter = |text: &str, ranges: &[(usize, usize)]| ChapterChunks {
            text: text.into(),
            children: ranges.iter().map(|&(start, end)| TextSpan { range: start..end, tokens: 1 }).collect(),
            ..ChapterChunks::default()
        };
        let places = places(&[chapter("ab cd\n\nef", &[(0, 5), (3, 9)]), chapter("日 x", &[(0, 5)])]);
        assert_eq!((places[0].place.clone(), places[1].place.clone()), (0..6, 6..10));
        assert_eq!(places[0].children, [0..4, 2..6]);
        assert_eq!(places[1].children[0], 6..10);
    }

    #[test]
    fn a_context_never_has_the_headings_of_the_passages_own_text() {
        let section = |title: &str, level| Section { title: title.into(), level, text: "x".repeat(10) };
        let sections =
            vec![section("1. Top", 0), section("1.1. Middle", 1), section("1.1.1. Low", 2), section("2. End", 0)];
        let book = LabelledBook::new("f".into(), "Book".into(), "en".into(), sections);
        let path = |place: Range<usize>| context(Context::TitleAndPath, &book, &place);
        assert_eq!(path(22..28), "Book > Top > Middle");
        assert_eq!(path(12..25), "Book > Top", "it has text of Middle");
        assert_eq!(path(25..35), "Book", "it reaches into another chapter");
        assert_eq!(context(Context::Title, &book, &(22..28)), "Book");
        assert_eq!(context(Context::Bare, &book, &(22..28)), "");
    }
}
