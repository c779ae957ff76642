//! Which headings are asked of which books: in one language, and of the same book in another one. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::labels::{LabelledBook, letters};
use crate::domain::iso_639_1;

/// The language whose books are asked for by other languages' headings.
pub const ACROSS: &str = "en";

/// How a section is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// The heading with its parents' before it.
    Path,
    /// The heading alone, where no other book of the collection has the same.
    Heading,
    /// The same, of sections without sections under them. Nobody's context has these headings.
    Leaf,
}

impl Form {
    pub const ALL: [Self; 3] = [Self::Path, Self::Heading, Self::Leaf];

    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Heading => "heading",
            Self::Leaf => "leaf heading",
        }
    }
}

/// One query and what answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    /// The book with the answer, and the section in it.
    pub book: usize,
    pub section: usize,
}

/// Queries of one form from one language to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub from: String,
    pub to: String,
    pub form: Form,
    pub questions: Vec<Question>,
}

/// All groups that have questions. `searched` are the books with passages; the others only ask.
pub fn groups(books: &[LabelledBook], searched: &[usize]) -> Vec<Group> {
    let mut groups: BTreeMap<(bool, &str, &str, Form), Vec<Question>> = BTreeMap::new();
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    for &book in searched {
        for section in &books[book].sections {
            *seen.entry((&books[book].language, heading_letters(&section.title))).or_default() += 1;
        }
    }
    for (asking, book) in books.iter().enumerate() {
        let answering = searched.iter().copied().filter(|&other| {
            other == asking
                || (books[other].language == ACROSS && book.language != ACROSS && are_parallel(book, &books[other]))
        });
        for other in answering {
            let answers = &books[other];
            for query in &book.queries {
                if other != asking {
                    // What is generic in one language is so in the other; what was left in English asks nothing new.
                    let theirs = answers.queries.iter().find(|theirs| theirs.section == query.section);
                    if theirs.is_none_or(|theirs| letters(&theirs.heading) == letters(&query.heading)) {
                        continue;
                    }
                }
                let alone =
                    seen.get(&(answers.language.as_str(), letters(&query.heading))).is_none_or(|&count| count < 2);
                for form in Form::ALL {
                    let text = match form {
                        Form::Path => &query.path,
                        Form::Heading if alone => &query.heading,
                        Form::Leaf if alone && query.leaf => &query.heading,
                        _ => continue,
                    };
                    let question = Question { text: text.clone(), book: other, section: query.section };
                    let key = (other != asking, book.language.as_str(), answers.language.as_str(), form);
                    groups.entry(key).or_default().push(question);
                }
            }
        }
    }
    let groups = groups.into_iter().map(|((_, from, to, form), questions)| Group {
        from: from.to_owned(),
        to: to.to_owned(),
        form,
        questions,
    });
    groups.collect()
}

fn heading_letters(title: &str) -> String {
    letters(super::labels::without_number(title))
}

/// Whether two books are translations of one another as far as their tables of contents tell: files of one name but for
/// the language, and the same sequence of levels.
fn are_parallel(a: &LabelledBook, b: &LabelledBook) -> bool {
    let levels = |book: &LabelledBook| book.sections.iter().map(|section| section.level).collect::<Vec<_>>();
    family_and_language(&a.name).0 == family_and_language(&b.name).0 && levels(a) == levels(b)
}

/// `live-manual.pt_BR.epub` is the family `live-manual` in `pt`. The language in a file's name is right where the one
/// in the file was left at English.
pub fn family_and_language(name: &str) -> (&str, Option<String>) {
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
    let Some((family, tag)) = stem.rsplit_once('.') else { return (stem, None) };
    let language = iso_639_1(Some(tag));
    if language.len() == 2 { (family, Some(language)) } else { (stem, None) }
}

/// The share of a translation's text that is still its original's, section by section; None where the two are not
/// parallel.
pub fn untranslated_share(book: &LabelledBook, original: &LabelledBook) -> Option<f64> {
    if !are_parallel(book, original) {
        return None;
    }
    let pairs = || book.sections.iter().zip(&original.sections).zip(&book.own);
    let same = pairs().filter(|((a, b), _)| letters(&a.text) == letters(&b.text)).map(|(_, own)| own.len());
    Some(same.sum::<usize>() as f64 / book.plain_bytes().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Section;

    fn book(name: &str, language: &str, headings: &[(&str, usize)]) -> LabelledBook {
        let section = |(title, level): &(&str, usize)| Section {
            title: (*title).to_owned(),
            level: *level,
            text: format!("The text about {title}. ").repeat(10),
        };
        let sections = headings.iter().map(section).collect();
        LabelledBook::new(name.into(), name.into(), language.into(), sections)
    }

    #[test]
    fn headings_ask_their_own_book_and_the_english_one() {
        let books = [
            book("a.en.epub", "en", &[("Tools", 0), ("Hammers", 1), ("Introduction", 1)]),
            book("a.de.epub", "de", &[("Werkzeuge", 0), ("Hammers", 1), ("Zur Sache", 1)]),
            book("b.epub", "en", &[("Tools", 0), ("Nails", 0)]),
            book("a.fr.epub", "fr", &[("Outils", 0), ("Marteaux", 0), ("Divers", 1)]),
        ];
        let groups = groups(&books, &[0, 2]);
        let shown: Vec<(String, Vec<&str>)> = groups
            .iter()
            .map(|group| {
                let texts = group.questions.iter().map(|question| question.text.as_str()).collect();
                (format!("{}-{} {}", group.from, group.to, group.form.name()), texts)
            })
            .collect();
        let expected: [(&str, &[&str]); 6] = [
            ("en-en path", &["Tools", "Tools: Hammers", "Tools", "Nails"]),
            // Tools are in two books.
            ("en-en heading", &["Hammers", "Nails"]),
            ("en-en leaf heading", &["Hammers", "Nails"]),
            // One heading is English still, the other one's original is generic; French has another structure.
            ("de-en path", &["Werkzeuge"]),
            ("de-en heading", &["Werkzeuge"]),
            ("", &[]),
        ];
        let expected: Vec<(String, Vec<&str>)> =
            expected[..5].iter().map(|(name, texts)| ((*name).to_owned(), texts.to_vec())).collect();
        assert_eq!(shown, expected);
        assert_eq!((groups[3].questions[0].book, groups[3].questions[0].section), (0, 0));
    }

    #[test]
    fn a_name_tells_family_and_language() {
        for (name, expected) in [
            ("live-manual.pt_BR.epub", ("live-manual", Some("pt"))),
            ("debmake-doc.zh-cn.epub", ("debmake-doc", Some("zh"))),
            ("policy.epub", ("policy", None)),
            ("v1.2.epub", ("v1.2", None)),
        ] {
            let (family, language) = family_and_language(name);
            assert_eq!((family, language.as_deref()), expected, "{name}");
        }
    }

    #[test]
    fn what_was_not_translated_is_measured() {
        let english = book("a.en.epub", "en", &[("Tools", 0), ("Nails", 1)]);
        let half = book("a.de.epub", "de", &[("Tools", 0), ("Nägel", 1)]);
        let share = untranslated_share(&half, &english).unwrap();
        assert!((0.4..0.6).contains(&share), "{share}");
        assert_eq!(untranslated_share(&book("b.de.epub", "de", &[("Tools", 0), ("Nails", 1)]), &english), None);
    }
}
