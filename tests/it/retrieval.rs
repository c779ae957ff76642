//! `bench --retrieval` as a process, on a real book with the fake model: what it says has its shape, agrees with itself and
//! repeats. How good the figures are is printed, never judged.

use std::path::Path;

use serde_json::Value;

use crate::books::debian_book;
use crate::daemon::{Daemon, text};

const ENGLISH: &str = "project-history.en.epub";

fn run(daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = daemon.run(arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// Without what a clock says.
fn without_times(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let timed = |name: &str| name.ends_with("_seconds") || name == "border_share";
            fields
                .iter()
                .filter(|(name, _)| !timed(name))
                .map(|(name, value)| (name.clone(), without_times(value)))
                .collect()
        }
        Value::Array(values) => values.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

#[test]
fn a_books_headings_ask_for_its_text_in_every_method() {
    let daemon = Daemon::new(Path::new("/nonexistent"));
    let english = debian_book("debian-history", ENGLISH);
    let german = debian_book("debian-history", "project-history.de.epub");
    let (english, german) = (english.to_str().unwrap(), german.to_str().unwrap());
    let cache = daemon.place.path().join("vectors");
    let arguments =
        ["bench", "--retrieval", "--json", "--cache", cache.to_str().unwrap(), "--asking", german, "--", english];
    let report = run(&daemon, &arguments);
    println!("{report:#}");

    let book = &report["books"][0];
    assert_eq!((&book["book"], &book["language"], &book["searched"]), (&ENGLISH.into(), &"en".into(), &true.into()));
    assert_eq!(book["kept"], 0, "a heading is left in the text it asks for");
    assert!(book["queries"].as_u64().unwrap() > 20, "{book}");
    assert_eq!((&report["books"][1]["language"], &report["books"][1]["searched"]), (&"de".into(), &false.into()));

    let measures = report["measures"].as_array().unwrap();
    assert!(measures.contains(&"nDCG@10".into()) && measures.contains(&"recall@5".into()));
    let methods = report["methods"].as_array().unwrap();
    let mean_of = |wanted: &str| {
        let method = methods.iter().find(|method| method["name"] == wanted).unwrap();
        method["languages"][0]["mean_tokens"].as_f64().unwrap()
    };
    let mut best = 0;
    for method in methods {
        let name = method["name"].as_str().unwrap();
        let passages = &method["languages"][0];
        assert!(passages["passages"].as_u64().unwrap() > 20, "{name}: {passages}");
        let like = match name {
            "lexical" | "semantic" | "paragraphs" | "packed-same-size" | "windows" | "windows-overlap" => "structure",
            "structure-smaller" | "lexical-smaller" | "paragraphs-smaller" | "windows-smaller" => "universal-semantic",
            _ => name,
        };
        let (mean, like) = (mean_of(name), mean_of(like));
        assert!((mean / like - 1.0).abs() < 0.15, "{name} has {mean} tokens in the mean, not {like}");
        let groups: Vec<(&str, &str)> = method["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| (result["group"].as_str().unwrap(), result["form"].as_str().unwrap()))
            .collect();
        let pairs = |pair| ["path", "heading", "leaf heading"].map(|form| (pair, form));
        assert_eq!(groups, [pairs("en-en"), pairs("de-en")].concat(), "{name}");
        for result in method["results"].as_array().unwrap() {
            assert!(result["questions"].as_u64().unwrap() > 10, "{name}: {result}");
            let estimates = result["estimates"].as_array().unwrap();
            assert_eq!(estimates.len(), measures.len());
            for estimate in estimates {
                let of = |field: &str| estimate[field].as_f64().unwrap();
                assert!(0.0 <= of("low") && of("low") <= of("mean"), "{name}: {estimate}");
                assert!(of("mean") <= of("high") && of("high") <= 1.0, "{name}: {estimate}");
            }
        }
        let result = &method["results"][0];
        let is_best = result["best"].as_bool().unwrap();
        assert_eq!(is_best, result["compared_with"].is_null(), "{name}: {result}");
        best += usize::from(is_best);
    }
    assert_eq!(best, 2, "all but the best of each of two sizes are compared with another one");

    // The second run takes the vectors of the first.
    let again = run(&daemon, &arguments);
    assert_eq!(again["embedded_tokens"], 0);
    let same = |report: &Value| {
        let mut report = without_times(report);
        report["embedded_tokens"] = Value::Null;
        report
    };
    assert_eq!(same(&report), same(&again));
}

#[test]
fn the_tables_are_markdown_and_an_unknown_method_is_named() {
    let daemon = Daemon::new(Path::new("/nonexistent"));
    let english = debian_book("debian-history", ENGLISH);
    let english = english.to_str().unwrap();
    let output = daemon.run(&["bench", "--retrieval", "--methods", "structure,windows,paragraphs", "--", english]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let tables = text(&output.stdout);
    for part in ["### fake", "| project-history.en.epub | en |", "| windows |", "**en-en, path: ", "| (the best) |"] {
        assert!(tables.contains(part), "{part} is missing:\n{tables}");
    }
    assert!(!tables.contains("| packed |"), "{tables}");
    // Rows of a table have as many cells as its head.
    let mut columns = 0;
    for line in tables.lines() {
        let cells = line.matches('|').count();
        assert!(cells == 0 || columns == 0 || cells == columns, "{line}");
        columns = cells;
    }
    let refused = daemon.run(&["bench", "--retrieval", "--methods", "windows,holes", "--", english]);
    assert!(
        !refused.status.success() && text(&refused.stderr).contains("there is no method 'holes'; there are structure")
    );
}
