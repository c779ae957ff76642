//! What a search is narrowed to: from what a person wrote to conditions that every store can check. Pure.
//!
//! People write an author's name as they remember it; points hold one exact line. The state knows all of those, so a
//! name is turned into the lines that it can mean. What the contract has no index for (series, tags, publisher, format)
//! becomes the books that have it: a server in strict mode refuses conditions on fields without an index.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::control::protocol::SearchRequest;
use crate::domain::{ChunkLevel, folded, iso_639_1, nearest};
use crate::queue::CatalogueRow;
use crate::store::Filter;

/// Values, or books, of one condition. More would be a request of megabytes.
const MOST: usize = 5000;
/// Of values named in a sentence.
const NAMED: usize = 4;

/// Conditions, and what to say about them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Narrowed {
    pub filter: Filter,
    /// How what was asked for was understood, or why there can be nothing; a sentence each.
    pub notes: Vec<String>,
    /// No book fits: the store need not be asked.
    pub nothing: bool,
}

/// Whether the books of the state are needed to understand this.
pub fn needs_catalogue(request: &SearchRequest) -> bool {
    let set = |value: &Option<String>| value.is_some();
    [&request.author, &request.title, &request.series, &request.tag, &request.publisher, &request.format]
        .into_iter()
        .any(set)
}

/// Understands the request. Without a catalogue (no state is at hand) what was written is taken to the letter.
///
/// # Errors
/// Where it cannot be meant: a sentence for the one who asked.
pub fn narrow(request: &SearchRequest, catalogue: Option<&[CatalogueRow]>) -> Result<Narrowed, String> {
    let level = request.level.unwrap_or(ChunkLevel::Child);
    let mut narrowed = Narrowed { filter: Filter::field("chunk_level", level.as_str()), ..Narrowed::default() };
    if let Some(book) = &request.book {
        narrowed.filter = of_book(std::mem::take(&mut narrowed.filter), book.trim())?;
    }
    if let Some(language) = &request.language {
        narrowed.filter = std::mem::take(&mut narrowed.filter).and("language", code(language));
    }
    let Some(catalogue) = catalogue else {
        narrowed.filter = to_the_letter(narrowed.filter, request);
        return Ok(narrowed);
    };
    if let Some(author) = &request.author {
        let lines = catalogue.iter().map(|row| row.metadata.author_line_with(&row.file)).collect();
        by_value(&mut narrowed, "author", "author", author, lines)?;
    }
    if let Some(title) = &request.title {
        let titles = catalogue.iter().map(|row| row.metadata.title_with(&row.file, &row.source).to_owned()).collect();
        by_value(&mut narrowed, "title", "book_title", title, titles)?;
    }
    by_books(&mut narrowed, request, catalogue)?;
    Ok(narrowed)
}

fn of_book(filter: Filter, book: &str) -> Result<Filter, String> {
    if let Ok(uuid) = Uuid::try_parse(book) {
        return Ok(filter.and("book_uuid", uuid.to_string()));
    }
    if book.parse::<i64>().is_ok() {
        return Ok(filter.and("source", "calibre").and("source_id", book));
    }
    Err(format!("'{book}' is no book: give its Calibre id or its uuid (--title finds books by their title)"))
}

fn code(language: &str) -> String {
    iso_639_1(Some(&language.trim().to_lowercase()))
}

/// Why nothing can be found in a language, where no book is in it. Asked only when nothing was found.
pub fn no_such_language(language: &str, catalogue: &[CatalogueRow]) -> Option<String> {
    let wanted = code(language);
    let known: BTreeSet<String> = catalogue.iter().map(|row| row.metadata.language_with(&row.file)).collect();
    let there = listed(known.iter(), 12);
    (!known.contains(&wanted)).then(|| format!("no book is in language '{wanted}'; there are: {there}"))
}

/// A condition on one of the contract's indexed fields: the exact values that the words can mean.
fn by_value(
    narrowed: &mut Narrowed,
    what: &str,
    field: &str,
    wanted: &str,
    values: BTreeSet<String>,
) -> Result<(), String> {
    let fitting: Vec<String> = values.iter().filter(|value| fits(wanted, value)).cloned().collect();
    if fitting.len() > MOST {
        return Err(format!("{what} '{wanted}' fits {} books' {what}s; write more of it", fitting.len()));
    }
    if fitting.is_empty() {
        let near = nearest(wanted, values.iter().map(String::as_str), NAMED);
        narrowed.notes.push(unknown(what, wanted, &near));
        // Points of another program may have it, though no book of the state does.
        narrowed.filter = std::mem::take(&mut narrowed.filter).and(field, wanted);
        return Ok(());
    }
    if fitting != [wanted] {
        narrowed.notes.push(format!("{what} '{wanted}' is taken for {}", listed(fitting.iter(), NAMED)));
    }
    narrowed.filter = std::mem::take(&mut narrowed.filter).and_any(field, fitting);
    Ok(())
}

/// Conditions on what only the catalogue knows: one list of books that fit all of them.
fn by_books(narrowed: &mut Narrowed, request: &SearchRequest, catalogue: &[CatalogueRow]) -> Result<(), String> {
    let mut books: Vec<&CatalogueRow> = catalogue.iter().collect();
    type Values = fn(&CatalogueRow) -> Vec<&str>;
    let conditions: [(&str, &Option<String>, Values, bool); 4] = [
        ("series", &request.series, |row| row.metadata.series.as_deref().into_iter().collect(), false),
        ("publisher", &request.publisher, |row| row.metadata.publisher.as_deref().into_iter().collect(), false),
        ("tag", &request.tag, |row| row.metadata.tags.iter().map(String::as_str).collect(), true),
        ("format", &request.format, |row| vec![row.format.as_str()], true),
    ];
    let mut asked = false;
    for (what, wanted, values, whole) in conditions {
        let Some(wanted) = wanted else { continue };
        asked = true;
        let all: BTreeSet<&str> = catalogue.iter().flat_map(values).collect();
        // A tag is a word that others contain: 'art' is not 'martial arts'. The parts are taken where no whole one fits.
        let equal = |value: &str| folded(value) == folded(wanted);
        let any_equal = whole && all.iter().any(|value| equal(value));
        let fitting: BTreeSet<&str> =
            all.iter().copied().filter(|value| if any_equal { equal(value) } else { fits(wanted, value) }).collect();
        if fitting.is_empty() {
            let near = nearest(wanted, all.iter().copied(), NAMED);
            let near = if near.is_empty() && all.len() <= 12 { all.iter().copied().collect() } else { near };
            narrowed.notes.push(unknown(what, wanted, &near));
            narrowed.nothing = true;
            return Ok(());
        }
        if fitting.iter().ne([&wanted.as_str()]) {
            narrowed.notes.push(format!("{what} '{wanted}' is taken for {}", listed(fitting.iter(), NAMED)));
        }
        books.retain(|row| values(row).iter().any(|value| fitting.contains(value)));
    }
    if !asked {
        return Ok(());
    }
    if books.is_empty() {
        narrowed.notes.push("no book fits all of these conditions".to_owned());
        narrowed.nothing = true;
    } else if books.len() == catalogue.len() {
        // Every book: no condition at all.
    } else if books.len() > MOST {
        return Err(format!("{} books fit these conditions; add another one (--author, --language, ...)", books.len()));
    } else {
        let uuids = books.iter().map(|row| row.book_uuid.to_string()).collect();
        narrowed.filter = std::mem::take(&mut narrowed.filter).and_any("book_uuid", uuids);
    }
    Ok(())
}

fn to_the_letter(filter: Filter, request: &SearchRequest) -> Filter {
    let format = request.format.as_ref().map(|format| format.to_uppercase());
    [
        ("author", &request.author),
        ("book_title", &request.title),
        ("series", &request.series),
        ("tags", &request.tag),
        ("publisher", &request.publisher),
        ("book_format", &format),
    ]
    .into_iter()
    .filter_map(|(field, value)| Some((field, value.clone()?)))
    .fold(filter, |filter, (field, value)| filter.and(field, value))
}

/// Whether a value has all of the words, in any order, case and accents aside: `andric ivo` is `Ivo Andrić`.
fn fits(wanted: &str, value: &str) -> bool {
    let value = folded(value);
    let wanted = folded(wanted);
    let mut words = wanted.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).peekable();
    words.peek().is_some() && words.all(|word| value.contains(word))
}

fn unknown(what: &str, wanted: &str, near: &[&str]) -> String {
    if near.is_empty() {
        return format!("no book in the store has the {what} '{wanted}'");
    }
    format!("no book in the store has the {what} '{wanted}'; near it: {}", listed(near.iter(), NAMED))
}

fn listed<T: AsRef<str>>(values: impl ExactSizeIterator<Item = T>, most: usize) -> String {
    let count = values.len();
    let named: Vec<String> = values.take(most).map(|value| format!("'{}'", value.as_ref())).collect();
    let more = if count > most { format!(" and {} more", count - most) } else { String::new() };
    named.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FileMetadata, Metadata};

    fn row(number: u128, title: &str, authors: &[&str]) -> CatalogueRow {
        CatalogueRow {
            book_uuid: Uuid::from_u128(number),
            source: "calibre".into(),
            source_id: number.to_string(),
            metadata: Metadata {
                title: title.into(),
                authors: authors.iter().map(|author| author.to_string()).collect(),
                language: Some("eng".into()),
                ..Metadata::default()
            },
            file: FileMetadata::default(),
            format: "EPUB".into(),
        }
    }

    fn shelf() -> Vec<CatalogueRow> {
        let mut rows = vec![
            row(1, "The Dispossessed", &["Ursula K. Le Guin"]),
            row(2, "Na Drini ćuprija", &["Ivo Andrić"]),
            row(3, "Good Omens", &["Terry Pratchett", "Neil Gaiman"]),
        ];
        rows[0].metadata.tags = vec!["Fiction".into(), "Art".into()];
        rows[1].metadata.tags = vec!["Martial Arts".into()];
        rows[1].metadata.language = Some("hrv".into());
        rows[1].format = "PDF".into();
        rows[2].metadata.series = Some("Discworld, aside".into());
        rows[2].metadata.publisher = Some("Gollancz".into());
        rows
    }

    fn ask(change: impl FnOnce(&mut SearchRequest)) -> Result<Narrowed, String> {
        let mut request = SearchRequest::default();
        change(&mut request);
        narrow(&request, Some(&shelf()))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_name_is_understood_in_any_case_order_and_part() {
        for name in ["le guin", "LE GUIN, URSULA", "Ursula K. Le Guin", "ursula"] {
            let narrowed = ask(|request| request.author = some(name)).unwrap();
            assert_eq!(narrowed.filter.any, [("author".to_owned(), vec!["Ursula K. Le Guin".to_owned()])], "{name}");
            assert_eq!(narrowed.notes.is_empty(), name == "Ursula K. Le Guin", "{name}: {:?}", narrowed.notes);
        }
        let narrowed = ask(|request| request.author = some("andric")).unwrap();
        assert_eq!(narrowed.filter.any[0].1, ["Ivo Andrić"]);
        let narrowed = ask(|request| request.author = some("gaiman")).unwrap();
        assert_eq!(
            narrowed.filter.any[0].1,
            ["Terry Pratchett & Neil Gaiman"],
            "the whole line, as the points have it"
        );
    }

    #[test]
    fn what_no_book_has_is_said_with_what_is_near() {
        let narrowed = ask(|request| request.author = some("Ivo Andirc")).unwrap();
        assert_eq!(narrowed.notes, ["no book in the store has the author 'Ivo Andirc'; near it: 'Ivo Andrić'"]);
        assert_eq!(narrowed.filter.must.last().unwrap(), &("author".to_owned(), "Ivo Andirc".to_owned()));
        assert!(!narrowed.nothing, "another program's points may have it");
        let narrowed = ask(|request| request.series = some("Diskworld, asid")).unwrap();
        assert!(narrowed.nothing && narrowed.notes[0].contains("'Discworld, aside'"), "{:?}", narrowed.notes);
        let note = no_such_language("fr", &shelf());
        assert_eq!(note.as_deref(), Some("no book is in language 'fr'; there are: 'en', 'hr'"));
        assert_eq!(no_such_language("HRV", &shelf()), None);
        let narrowed = ask(|request| request.format = some("mobi")).unwrap();
        assert!(narrowed.nothing && narrowed.notes[0].contains("'EPUB', 'PDF'"), "{:?}", narrowed.notes);
    }

    #[test]
    fn what_has_no_index_becomes_books() {
        let uuids = |narrowed: &Narrowed| narrowed.filter.any.iter().find(|(field, _)| field == "book_uuid").cloned();
        let of = |number: u128| Uuid::from_u128(number).to_string();
        let narrowed = ask(|request| request.tag = some("art")).unwrap();
        assert_eq!(uuids(&narrowed).unwrap().1, [of(1)], "a whole tag first");
        let narrowed = ask(|request| request.tag = some("martial")).unwrap();
        assert_eq!(uuids(&narrowed).unwrap().1, [of(2)], "then parts");
        let narrowed = ask(|request| {
            request.publisher = some("gollancz");
            request.series = some("discworld");
        })
        .unwrap();
        assert_eq!(uuids(&narrowed).unwrap().1, [of(3)]);
        let narrowed = ask(|request| {
            request.publisher = some("gollancz");
            request.tag = some("fiction");
        })
        .unwrap();
        assert!(narrowed.nothing && narrowed.notes.last().unwrap().contains("all of these"));
        assert_eq!(uuids(&ask(|request| request.format = some("pdf")).unwrap()).unwrap().1, [of(2)]);
    }

    #[test]
    fn a_book_a_language_and_a_level_are_conditions_of_their_own() {
        let narrowed = ask(|request| {
            request.book = some("12");
            request.language = some("ENG");
            request.level = Some(ChunkLevel::Parent);
        })
        .unwrap();
        let expected = [("chunk_level", "parent"), ("source", "calibre"), ("source_id", "12"), ("language", "en")];
        assert_eq!(narrowed.filter.must, expected.map(|(field, value)| (field.to_owned(), value.to_owned())));
        assert!(ask(|request| request.book = some("The Dispossessed")).unwrap_err().contains("--title"));
        let uuid = Uuid::from_u128(7).to_string();
        let narrowed = ask(|request| request.book = Some(uuid.clone())).unwrap();
        assert_eq!(narrowed.filter.must[1], ("book_uuid".to_owned(), uuid));
    }

    #[test]
    fn without_a_state_the_words_are_taken_to_the_letter() {
        let request =
            SearchRequest { author: some("A. B."), tag: some("Art"), format: some("epub"), ..SearchRequest::default() };
        let narrowed = narrow(&request, None).unwrap();
        let expected = [("chunk_level", "child"), ("author", "A. B."), ("tags", "Art"), ("book_format", "EPUB")];
        assert_eq!(narrowed.filter.must, expected.map(|(field, value)| (field.to_owned(), value.to_owned())));
    }
}
