//! The main job with the real models on real books: every word embedded once, and the passage found.

use std::collections::HashMap;

use serde_json::Value;

use crate::books::debian_book;
use crate::daemon::{Daemon, text};
use crate::support::model_directory;

/// One-shot ingestion of one real book; then a question.
fn ingest_and_search(model: &str, book: &std::path::Path, question: &str) -> (Daemon, Value) {
    let mut daemon = Daemon::new(book.parent().unwrap());
    daemon.set("embedding.model", model);
    daemon.set("embedding.model_path", model_directory(model).to_str().unwrap());
    let output = daemon.run(&["ingest", book.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 books embedded"), "{}", text(&output.stdout));
    let answer = search(&daemon, question, 5);
    (daemon, answer)
}

fn search(daemon: &Daemon, question: &str, limit: usize) -> Value {
    let output = daemon.run(&["search", question, "--limit", &limit.to_string(), "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn slow_minilm_finds_the_passage_and_no_word_is_lost_or_doubled() {
    let book = debian_book("calibre", "quick_start/eng.epub");
    let (daemon, answer) = ingest_and_search("minilm", &book, "How do I convert a book to another format?");
    let best = &answer["hits"][0];
    println!("best: {} / {} / {}", best["title"], best["section"], best["text"]);
    assert!(best["text"].as_str().unwrap().to_lowercase().contains("conver"), "{best}");
    assert!(!best["section"].as_str().unwrap().is_empty());

    // Every child, put side by side, against a count that shares no code with the project.
    let all = search(&daemon, "book", 100_000);
    let mut found: HashMap<String, i64> = HashMap::new();
    for hit in all["hits"].as_array().unwrap() {
        for word in hit["text"].as_str().unwrap().split_whitespace() {
            *found.entry(word.to_owned()).or_default() += 1;
        }
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/spine_words.py");
    let output = std::process::Command::new("python3").arg(script).arg(&book).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected: HashMap<String, i64> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(expected.values().sum::<i64>() > 1000);
    for (word, count) in &expected {
        assert_eq!(found.get(word), Some(count), "{word:?}");
    }
    assert_eq!(found.len(), expected.len());

    // Again: nothing to do.
    let output = daemon.run(&["ingest", book.to_str().unwrap()]);
    assert!(text(&output.stdout).contains("0 books embedded"), "{}", text(&output.stdout));
}

#[test]
fn slow_the_multilingual_model_finds_german_text_by_an_english_question() {
    let book = debian_book("calibre", "quick_start/deu.epub");
    let (_daemon, answer) = ingest_and_search("me5-small-xlmr", &book, "query: converting e-books to another format");
    let best = &answer["hits"][0];
    println!("best: {} / {} / {}", best["title"], best["section"], best["text"]);
    assert_eq!(best["language"], "de");
    assert!(best["text"].as_str().unwrap().to_lowercase().contains("konvert"), "{best}");
}
