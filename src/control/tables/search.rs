//! Passages that were found, for reading.

use super::{View, finish, plain};
use crate::control::protocol::SearchResponse;

/// Passages, best first: the book, the chapter, and the text.
pub fn search(answer: &SearchResponse, view: View) -> String {
    if answer.hits.is_empty() {
        return format!("nothing was found for '{}'\n", answer.query);
    }
    let mut text = String::new();
    for (at, hit) in answer.hits.iter().enumerate() {
        let section = if hit.section.is_empty() { String::new() } else { format!(" · {}", hit.section) };
        text += &format!("{}. {} · {}{section}\n", at + 1, hit.title, hit.author);
        text += &format!("   {} {} · {} · similarity {:.3}\n", hit.source, hit.source_id, hit.language, hit.score);
        let mut passage = plain(view);
        passage.add_row(["  ".to_owned(), excerpt(&hit.text)]);
        text += &finish(&passage);
        text += "\n";
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The start of a passage, on a word border: enough to judge it by. `--json` has all of it.
fn excerpt(text: &str) -> String {
    const CHARACTERS: usize = 400;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((end, _)) = text.char_indices().nth(CHARACTERS) else { return text };
    let end = text[..end].rfind(' ').unwrap_or(end);
    format!("{} …", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_passage_is_cut_between_words() {
        let cut = excerpt(&"čarobnjak ".repeat(100));
        assert!(cut.ends_with("čarobnjak …"), "{cut}");
        assert!(cut.chars().count() <= 402);
        assert_eq!(excerpt(" a\n\nb "), "a b");
    }
}
