//! The decisions of a job, pure: what it has to do, which points a book becomes, which points are stale.

use std::borrow::Cow;
use std::collections::HashSet;

use uuid::Uuid;

use crate::domain::{
    Book, BookFile, CataloguePayload, ChapterChunks, ChunkLevel, FileMetadata, Payload, Point, StoredPoint, TextSpan,
    TokenCounter, UUID_NAMESPACE,
};
use crate::embed::ModelInfo;
use crate::queue::{ClaimedJob, IndexedState};

/// The contract's `ingest_version`.
const INGEST_VERSION: &str = "2.0";

/// Where a chapter's vector comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parents {
    /// The normalised mean of its children's vectors: costs no pass of its own.
    Mean,
    /// A pass over the chapter's text, cut at the model's limit.
    Embed,
    /// No parent points.
    None,
}

/// What stands before a child's text when it is embedded; the payload's `text` is the bare passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    None,
    /// The book's title and the titles of the sections that the child stands in. The title alone was measured, too, and
    /// gained nothing (tests/RESULTS.md).
    Path,
}

impl Context {
    /// Tokens that are kept free for it in a text: an eighth of what the model takes, and no more than long titles need.
    pub fn tokens(self, content_tokens: usize) -> usize {
        match self {
            Context::None => 0,
            Context::Path => (content_tokens / 8).min(64),
        }
    }
}

/// The text of a child as it is embedded: the context, cut at `context_tokens`, a blank line, the passage.
pub fn embedded_text<'a>(
    context: Context,
    book_title: &str,
    chapter: &'a ChapterChunks,
    child: &TextSpan,
    counter: &dyn TokenCounter,
    context_tokens: usize,
) -> Cow<'a, str> {
    let text = chapter.child_text(child);
    if context == Context::None {
        return Cow::Borrowed(text);
    }
    // A book whose only chapter bears its title says it once.
    let titles = chapter.path_of(child).iter().map(String::as_str).filter(|title| *title != book_title);
    let context = std::iter::once(book_title).chain(titles).collect::<Vec<_>>().join(" > ");
    // Two less: the blank line, and a cut that tokenises to one more.
    let context = cut_to_tokens(&context, context_tokens.saturating_sub(2), counter);
    if context.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(format!("{context}\n\n{text}")) }
}

/// What a job has to do, as far as the state alone can tell.
#[derive(Debug, PartialEq)]
pub enum Need<'a> {
    /// The file to read is the one that was read: only payloads may be behind.
    Keep { file: &'a BookFile, indexed: Box<IndexedState> },
    /// Files have to be read: their content decides.
    Read,
}

/// Decides from the claimed job alone. A book that other settings chunked or another model embedded stays as it is
/// until its content changes or someone asks: nothing is embedded again by surprise.
pub fn need(job: &ClaimedJob) -> Need<'_> {
    match (&job.indexed, job.book.file_to_read(&job.failed)) {
        (Some(indexed), Some(file)) if !job.force && indexed.file_signature == file.signature() => {
            Need::Keep { file, indexed: Box::new(indexed.clone()) }
        }
        _ => Need::Read,
    }
}

/// The state to keep where a file's bytes are what the store holds already (a touched file, another `data.id`).
pub fn same_bytes(job: &ClaimedJob, file: &BookFile, content_hash: &str) -> Option<IndexedState> {
    let indexed = job.indexed.as_ref().filter(|indexed| indexed.content_hash == content_hash)?;
    Some(IndexedState { file_signature: file.signature(), ..indexed.clone() })
}

/// The state to keep where the bytes changed but the text did not (Calibre's "embed metadata", another format of the
/// same text). The job is that of the file that was read.
pub fn same_text(
    job: &ClaimedJob,
    text_hash: &str,
    content_hash: &str,
    file_metadata: FileMetadata,
) -> Option<IndexedState> {
    let indexed = job.indexed.as_ref().filter(|indexed| indexed.text_hash == text_hash)?;
    Some(IndexedState {
        content_hash: content_hash.to_owned(),
        file_metadata,
        file_signature: job.book.file.signature(),
        ..indexed.clone()
    })
}

/// The beginning of a text that has no more tokens than that.
pub fn cut_to_tokens<'a>(text: &'a str, tokens: usize, counter: &dyn TokenCounter) -> &'a str {
    match counter.token_ranges(text).get(tokens) {
        None => text,
        Some(first_over) => text.get(..first_over.start).unwrap_or_default().trim_end(),
    }
}

/// What the live collection holds of a book, where that is what a shadow with these settings would hold: its points can
/// be taken over. (They are of the file that would be read, or that one failed: the live collection's job goes first.)
pub fn same_settings<'a>(job: &'a ClaimedJob, chunker: &str, model: &str) -> Option<&'a IndexedState> {
    job.live.as_ref().filter(|live| live.chunker_fingerprint == chunker && live.model_fingerprint == model)
}

/// Names the points that one content, chunker and model give.
pub fn generation(content_hash: &str, chunker_fingerprint: &str, model_fingerprint: &str) -> String {
    let name = format!("generation\n{content_hash}\n{chunker_fingerprint}\n{model_fingerprint}");
    Uuid::new_v5(&UUID_NAMESPACE, name.as_bytes()).simple().to_string()[..16].to_owned()
}

/// The same book, generation, level and index always give the same id; the same book in two libraries gives two.
fn point_id(book: &Book, generation: &str, level: ChunkLevel, section: usize, index: usize) -> Uuid {
    let name = format!("{}\n{}\n{generation}\n{}\n{section}\n{index}", book.library_uuid, book.uuid, level.as_str());
    Uuid::new_v5(&UUID_NAMESPACE, name.as_bytes())
}

/// A chapter as its parent point carries it.
#[derive(Debug, PartialEq)]
pub struct ParentText {
    /// The chapter, cut at the model's limit on a word border.
    pub text: String,
    pub tokens: usize,
    /// Whether `text` is the whole chapter.
    pub whole: bool,
}

/// The parents' texts; empty where there are to be no parents.
pub fn parents(
    chapters: &[ChapterChunks],
    kind: Parents,
    counter: &dyn TokenCounter,
    content_tokens: usize,
) -> Vec<ParentText> {
    if kind == Parents::None {
        return Vec::new();
    }
    chapters
        .iter()
        .map(|chapter| {
            let tokens: usize = chapter.children.iter().map(|child| child.tokens).sum();
            if tokens <= content_tokens {
                return ParentText { text: chapter.text.clone(), tokens, whole: true };
            }
            let ranges: Vec<_> = counter.tokens_in_pieces(&chapter.text).into_iter().map(|token| token.range).collect();
            // Two less, because a cut may tokenise to one more.
            let keep = content_tokens.saturating_sub(2).min(ranges.len());
            let end = keep.checked_sub(1).map_or(0, |last| ranges[last].end);
            let head = chapter.text.get(..end).unwrap_or(&chapter.text);
            let on_word_border = chapter.text[head.len()..].starts_with(char::is_whitespace);
            let cut = match head.rfind(char::is_whitespace) {
                Some(at) if !on_word_border => &head[..at],
                _ => head,
            };
            let text = cut.trim_end().to_owned();
            let tokens = ranges.partition_point(|range| range.end <= text.len());
            ParentText { text, tokens, whole: false }
        })
        .collect()
}

/// Each chapter's normalised mean of its children's vectors, every child counting the same.
pub fn mean_vectors(chapters: &[ChapterChunks], child_vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut rest = child_vectors;
    chapters
        .iter()
        .map(|chapter| {
            let (own, others) = rest.split_at(chapter.children.len());
            rest = others;
            let mut sum = vec![0f64; own.first().map_or(0, Vec::len)];
            for vector in own {
                sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
            // Opposite vectors may cancel; then the first child stands for all.
            if norm < 1e-6 {
                return own.first().cloned().unwrap_or_default();
            }
            sum.iter().map(|value| (value / norm) as f32).collect()
        })
        .collect()
}

/// Everything a book's points are made from.
pub struct PointInputs<'a> {
    pub book: &'a Book,
    pub file: &'a FileMetadata,
    pub chapters: &'a [ChapterChunks],
    /// One for each child, in order.
    pub child_vectors: &'a [Vec<f32>],
    /// One for each chapter, or none at all; with as many `parent_vectors`.
    pub parents: Vec<ParentText>,
    pub parent_vectors: Vec<Vec<f32>>,
    pub model: &'a ModelInfo,
    pub strategy: &'a str,
    pub chunker_fingerprint: &'a str,
    pub content_hash: &'a str,
    pub generation: &'a str,
    pub ingested_at: &'a str,
}

/// The book's points: each chapter's parent, then its children.
pub fn points(inputs: &PointInputs) -> Vec<Point> {
    let catalogue = CataloguePayload::new(inputs.book, inputs.file, inputs.content_hash);
    let payload = |level, section: usize, text: String, tokens| Payload {
        text,
        section_name: section_name(inputs.chapters, section, &catalogue.book_title),
        chunk_level: level,
        token_count: tokens,
        ingested_at: inputs.ingested_at.to_owned(),
        strategy: match level {
            ChunkLevel::Parent => "hierarchical".to_owned(),
            ChunkLevel::Child => inputs.strategy.to_owned(),
        },
        embedding_model_id: inputs.model.id.clone(),
        embedding_model_name: inputs.model.name.clone(),
        embedding_dimension: inputs.model.dimension,
        ingest_version: INGEST_VERSION.to_owned(),
        section_index: section,
        section_count: inputs.chapters.len(),
        full_text: None,
        child_count: None,
        parent_id: None,
        sequence_index: None,
        sibling_count: None,
        char_start: None,
        char_end: None,
        book_uuid: inputs.book.uuid.to_string(),
        library_uuid: inputs.book.library_uuid.to_string(),
        generation: inputs.generation.to_owned(),
        chunker_fingerprint: inputs.chunker_fingerprint.to_owned(),
        model_fingerprint: inputs.model.fingerprint.clone(),
        catalogue: catalogue.clone(),
    };
    let id = |level, section, index| point_id(inputs.book, inputs.generation, level, section, index);
    let mut points = Vec::new();
    let mut child_vectors = inputs.child_vectors.iter();
    for (section, chapter) in inputs.chapters.iter().enumerate() {
        let parent_id = id(ChunkLevel::Parent, section, 0);
        if let (Some(parent), Some(vector)) = (inputs.parents.get(section), inputs.parent_vectors.get(section)) {
            points.push(Point {
                id: parent_id,
                vector: vector.clone(),
                payload: Payload {
                    full_text: (!parent.whole).then(|| chapter.text.clone()),
                    child_count: Some(chapter.children.len()),
                    ..payload(ChunkLevel::Parent, section, parent.text.clone(), parent.tokens)
                },
            });
        }
        // Counted once through the chapter: character positions from byte positions.
        let (mut bytes, mut characters) = (0, 0);
        let mut position = |at: usize| {
            characters += chapter.text[bytes..at].chars().count();
            bytes = at;
            characters
        };
        for (index, (child, vector)) in chapter.children.iter().zip(&mut child_vectors).enumerate() {
            let (start, end) = (position(child.range.start), position(child.range.end));
            points.push(Point {
                id: id(ChunkLevel::Child, section, index),
                vector: vector.clone(),
                payload: Payload {
                    parent_id: Some(parent_id.to_string()),
                    sequence_index: Some(index),
                    sibling_count: Some(chapter.children.len()),
                    char_start: Some(start),
                    char_end: Some(end),
                    ..payload(ChunkLevel::Child, section, chapter.child_text(child).to_owned(), child.tokens)
                },
            });
        }
    }
    points
}

/// A chapter's title; where it has none, the book's if it is the only one, else its number.
fn section_name(chapters: &[ChapterChunks], section: usize, book_title: &str) -> String {
    match chapters[section].title.trim() {
        "" if chapters.len() == 1 => book_title.to_owned(),
        "" => format!("Section {}", section + 1),
        title => title.to_owned(),
    }
}

/// The points that the store holds of a book and the new generation does not have.
pub fn stale(held: &[StoredPoint], current: &[Point]) -> Vec<Uuid> {
    let current: HashSet<Uuid> = current.iter().map(|point| point.id).collect();
    held.iter().map(|point| point.id).filter(|id| !current.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FailedFile, Metadata, SectionStart, Source, Token};
    use crate::queue::{JobId, JobKind};

    /// Words are tokens.
    struct Words;

    impl TokenCounter for Words {
        fn tokens(&self, text: &str) -> Vec<Token> {
            text.split_whitespace()
                .map(|word| {
                    let start = word.as_ptr() as usize - text.as_ptr() as usize;
                    Token { id: 0, range: start..start + word.len() }
                })
                .collect()
        }
    }

    fn book() -> Book {
        Book {
            uuid: Uuid::from_u128(0xb00c),
            library_uuid: Uuid::from_u128(0x11b),
            source: Source::Calibre(42),
            metadata: Metadata {
                title: "Život pčela".into(),
                authors: vec!["Ana Horvat".into(), "B. Babić".into()],
                language: Some("hrv".into()),
                tags: vec!["bees".into()],
                ..Metadata::default()
            },
            file: BookFile {
                format: "EPUB".into(),
                path: "/library/book.epub".into(),
                data_id: Some(7),
                size: 10,
                mtime_us: 1,
            },
            others: Vec::new(),
            unread: Vec::new(),
            added_us: 0,
        }
    }

    fn indexed(book: &Book) -> IndexedState {
        IndexedState {
            content_hash: "c".into(),
            text_hash: "t".into(),
            metadata_hash: "m".into(),
            file_signature: book.file.signature(),
            generation: "g".into(),
            ..IndexedState::default()
        }
    }

    fn job(book: Book, indexed: Option<IndexedState>) -> ClaimedJob {
        ClaimedJob {
            id: JobId(1),
            kind: JobKind::Ingest,
            book,
            attempts: 1,
            force: false,
            indexed,
            shadow: false,
            live: None,
            failed: Vec::new(),
        }
    }

    fn chapters() -> Vec<ChapterChunks> {
        let text = "Pčela leti. Med je sladak.".to_owned();
        let split = text.find("Med").unwrap_or_default();
        let children =
            vec![TextSpan { range: 0..split - 1, tokens: 2 }, TextSpan { range: split..text.len(), tokens: 3 }];
        vec![ChapterChunks { title: "Košnica".into(), text, children, ..ChapterChunks::default() }]
    }

    fn made(content_hash: &str) -> Vec<Point> {
        let (book, chapters) = (book(), chapters());
        let vectors = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        points(&PointInputs {
            book: &book,
            file: &FileMetadata::default(),
            chapters: &chapters,
            child_vectors: &vectors,
            parents: parents(&chapters, Parents::Mean, &Words, 100),
            parent_vectors: mean_vectors(&chapters, &vectors),
            model: &ModelInfo {
                id: "bge-m3".into(),
                name: "BAAI/bge-m3".into(),
                dimension: 2,
                max_tokens: 8192,
                fingerprint: "m".into(),
                device: "cpu".into(),
            },
            strategy: "universal-semantic",
            chunker_fingerprint: "chunker",
            content_hash,
            generation: &generation(content_hash, "chunker", "model"),
            ingested_at: "2026-11-22T08:16:48.325484",
        })
    }

    #[test]
    fn payloads_follow_the_contract() {
        let shown: Vec<serde_json::Value> = made("content")
            .iter()
            .map(|point| serde_json::json!({ "id": point.id, "vector": point.vector, "payload": point.payload }))
            .collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&shown).unwrap());
    }

    #[test]
    fn ids_repeat_for_the_same_content_and_differ_for_another() {
        let ids = |content: &str| made(content).iter().map(|point| point.id).collect::<Vec<_>>();
        assert_eq!(ids("a"), ids("a"));
        let (a, b): (HashSet<Uuid>, HashSet<Uuid>) = (ids("a").into_iter().collect(), ids("b").into_iter().collect());
        assert_eq!((a.len(), a.intersection(&b).count()), (3, 0));
    }

    #[test]
    fn a_child_names_its_parent_and_its_place() {
        let points = made("a");
        let (parent, second) = (&points[0], &points[2]);
        assert_eq!(second.payload.parent_id.as_deref(), Some(parent.id.to_string().as_str()));
        // Characters, not bytes: "Pčela leti." has 11 of them.
        assert_eq!((second.payload.char_start, second.payload.char_end), (Some(12), Some(26)));
        assert!((parent.vector[0] - std::f32::consts::FRAC_1_SQRT_2).abs() < 1e-6);
    }

    #[test]
    fn only_what_may_have_changed_is_read() {
        let book = book();
        let state = indexed(&book);
        assert_eq!(need(&job(book.clone(), None)), Need::Read);
        assert!(matches!(need(&job(book.clone(), Some(state.clone()))), Need::Keep { .. }));
        assert_eq!(need(&ClaimedJob { force: true, ..job(book.clone(), Some(state.clone())) }), Need::Read);
        let mut replaced = book.clone();
        replaced.file.data_id = Some(8);
        assert_eq!(need(&job(replaced.clone(), Some(state.clone()))), Need::Read);
        let mut moved = book;
        moved.file.path = "/elsewhere/book.epub".into();
        moved.metadata.title = "Another".into();
        assert!(matches!(need(&job(moved, Some(state.clone()))), Need::Keep { .. }), "a rename reads nothing");

        let again = job(replaced.clone(), Some(state));
        let kept = same_bytes(&again, &replaced.file, "c").unwrap();
        assert_eq!((kept.file_signature, kept.generation.as_str()), (replaced.file.signature(), "g"));
        assert!(same_bytes(&again, &replaced.file, "other").is_none());
        let kept = same_text(&again, "t", "other", FileMetadata::default()).unwrap();
        assert_eq!((kept.content_hash.as_str(), kept.generation.as_str()), ("other", "g"));
        assert!(same_text(&again, "other", "other", FileMetadata::default()).is_none());
    }

    #[test]
    fn a_book_read_in_a_spare_format_rests_until_its_files_change() {
        let spare = BookFile { format: "TXT".into(), data_id: Some(9), ..book().file };
        let shelf = Book { others: vec![spare.clone()], ..book() };
        let state = IndexedState { file_signature: spare.signature(), ..indexed(&shelf) };
        let failed = vec![FailedFile::new(&shelf.file, "damaged")];
        let rests = ClaimedJob { failed: failed.clone(), ..job(shelf.clone(), Some(state.clone())) };
        assert!(matches!(need(&rests), Need::Keep { file, .. } if *file == spare), "a metadata edit reads nothing");
        // Asked for anew, or read by a newer extractor: nothing is known to fail.
        assert_eq!(need(&job(shelf.clone(), Some(state.clone()))), Need::Read);
        let mut mended = rests.clone();
        mended.book.file.data_id = Some(10);
        assert_eq!(need(&mended), Need::Read);
        let mut replaced = rests.clone();
        replaced.book.others[0].size += 1;
        assert_eq!(need(&replaced), Need::Read);
        let gone = ClaimedJob { book: Book { file: spare.clone(), others: vec![], ..shelf.clone() }, ..rests.clone() };
        assert!(matches!(need(&gone), Need::Keep { .. }), "the damaged one is gone");
        let only_failed = ClaimedJob { book: Book { others: vec![], ..shelf }, ..rests };
        assert_eq!(need(&only_failed), Need::Read);
    }

    #[test]
    fn a_parent_over_the_limit_is_cut_on_a_word_border_and_keeps_its_whole_text() {
        let text: String = (0..50).map(|n| format!("word{n} ")).collect();
        let text = text.trim_end().to_owned();
        let children = vec![TextSpan { range: 0..text.len(), tokens: 50 }];
        let chapters = [ChapterChunks { text: text.clone(), children, ..ChapterChunks::default() }];
        let cut = parents(&chapters, Parents::Embed, &Words, 22).remove(0);
        assert_eq!((cut.tokens, cut.whole), (20, false));
        assert!(cut.text.ends_with("word19") && text.starts_with(&cut.text));
        assert!(parents(&chapters, Parents::None, &Words, 22).is_empty());
        assert_eq!(section_name(&chapters, 0, "The Book"), "The Book");
    }

    #[test]
    fn a_child_is_embedded_under_its_titles_as_far_as_they_fit() {
        let text = "Some passage.".to_owned();
        let child = TextSpan { range: 0..text.len(), tokens: 2 };
        let path = vec!["Bees".to_owned(), "Of honey".to_owned()];
        let sections = vec![SectionStart { at: 0, path }];
        let chapter = ChapterChunks { text, sections, ..ChapterChunks::default() };
        let embedded = |context, tokens| embedded_text(context, "Bees", &chapter, &child, &Words, tokens);
        assert_eq!(embedded(Context::None, 9), "Some passage.");
        assert_eq!(embedded(Context::Path, 9), "Bees > Of honey\n\nSome passage.");
        assert_eq!(embedded(Context::Path, 5), "Bees > Of\n\nSome passage.");
        assert_eq!(embedded(Context::Path, 2), "Some passage.");
        assert_eq!([Context::Path.tokens(254), Context::Path.tokens(8190), Context::None.tokens(254)], [31, 64, 0]);
    }

    #[test]
    fn stale_is_what_the_new_generation_does_not_have() {
        let current = made("a");
        let held: Vec<StoredPoint> = made("old")
            .iter()
            .chain(&current)
            .map(|point| StoredPoint { id: point.id, ..StoredPoint::default() })
            .collect();
        assert_eq!(stale(&held, &current), held[..3].iter().map(|point| point.id).collect::<Vec<_>>());
    }

    #[test]
    fn children_that_cancel_still_give_a_unit_parent() {
        let vectors = [vec![1.0, 0.0], vec![-1.0, 0.0]];
        assert_eq!(mean_vectors(&chapters(), &vectors), [[1.0, 0.0]]);
    }
}
