//! Passages that were found, for reading.

use super::{View, finish, plain};
use crate::control::protocol::{SearchHit, SearchResponse};

/// Passages, best first: the book, the place in it, and the text, wrapped to the terminal. `full`: all of the text.
pub fn search(answer: &SearchResponse, full: bool, view: View) -> String {
    let mut text = String::new();
    for note in &answer.notes {
        text += &format!("note: {note}\n");
    }
    if answer.hits.is_empty() {
        return text + &format!("nothing was found for '{}'\n", answer.query);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for (at, hit) in answer.hits.iter().enumerate() {
        text += &format!("{}. {} · {}\n", at + 1, hit.title, hit.author);
        text += &format!("   {}\n", place(hit));
        text += &format!("   {}\n", facts(hit));
        let passage_text = if full { whole(&hit.text) } else { excerpt(&hit.text) };
        let mut passage = plain(view);
        passage.add_row(["  ".to_owned(), passage_text]);
        text += &finish(&passage);
        text += "\n";
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// Where in the book: `Winter · chapter 3 of 12, passage 2 of 9`.
fn place(hit: &SearchHit) -> String {
    let of = |count: Option<usize>| count.map(|count| format!(" of {count}")).unwrap_or_default();
    let mut place = format!("chapter {}{}", hit.section_index + 1, of(hit.section_count));
    if hit.level != "parent" {
        place += &format!(", passage {}{}", hit.sequence_index + 1, of(hit.passage_count));
    }
    if hit.section.is_empty() || hit.section == hit.title { place } else { format!("{} · {place}", hit.section) }
}

/// Which book it is, for other verbs, and how near the passage is.
fn facts(hit: &SearchHit) -> String {
    let id: String = hit.source_id.chars().take(8).collect();
    let mut facts = vec![format!("similarity {:.3}", hit.score), format!("{} {id}", hit.source), hit.language.clone()];
    facts.push(hit.format.clone());
    if !hit.series.is_empty() {
        let index = hit.series_index.map(|index| format!(" {index}")).unwrap_or_default();
        facts.push(format!("{}{index}", hit.series));
    }
    facts.retain(|fact| !fact.is_empty());
    facts.join(" · ")
}

fn whole(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The start of a passage, on a word border: enough to judge it by.
fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 400;
    let text = whole(text);
    let Some((end, _)) = text.char_indices().nth(CHARACTERS) else { return text };
    let end = text[..end].rfind(' ').unwrap_or(end);
    format!("{} … (--full shows all)", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_passage_is_cut_between_words() {
        let cut = excerpt(&"čarobnjak ".repeat(100));
        assert!(cut.ends_with("čarobnjak … (--full shows all)"), "{cut}");
        assert!(cut.chars().count() <= 425);
        assert_eq!(excerpt(" a\n\nb "), "a b");
    }

    fn answer() -> SearchResponse {
        let hit = SearchHit {
            score: 0.8125,
            title: "The Hive".into(),
            author: "Ana Horvat".into(),
            section: "Winter".into(),
            text: "Bees keep warm by shivering. ".repeat(30),
            language: "en".into(),
            source: "calibre".into(),
            source_id: "12".into(),
            section_index: 2,
            section_count: Some(12),
            sequence_index: 0,
            passage_count: Some(9),
            level: "child".into(),
            format: "EPUB".into(),
            series: "Insects".into(),
            series_index: Some(2.0),
            ..SearchHit::default()
        };
        let python =
            SearchHit { title: "Old".into(), source: "calibre".into(), source_id: "7".into(), ..SearchHit::default() };
        SearchResponse {
            query: "winter".into(),
            hits: vec![hit, python],
            notes: vec!["author 'horvat' is taken for 'Ana Horvat'".into()],
        }
    }

    #[test]
    fn a_passage_says_where_it_is_and_fits_the_terminal() {
        let view = View { width: 60, now_us: 0 };
        let text = search(&answer(), false, view);
        assert!(text.starts_with("note: author 'horvat'"), "{text}");
        for part in [
            "1. The Hive · Ana Horvat",
            "Winter · chapter 3 of 12, passage 1 of 9",
            "calibre 12 · en · EPUB · Insects 2",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("chapter 1, passage 1\n"), "what an older point lacks is left out: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 62), "{text}");
        let full = search(&answer(), true, view);
        assert_eq!(full.matches("shivering").count(), 30);
        let chapter = SearchHit { level: "parent".into(), ..answer().hits[0].clone() };
        assert_eq!(place(&chapter), "Winter · chapter 3 of 12");
        let none = SearchResponse { hits: vec![], ..answer() };
        assert!(search(&none, false, view).ends_with("nothing was found for 'winter'\n"));
    }
}
