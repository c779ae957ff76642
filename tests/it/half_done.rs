//! Work that is cut short half-way, and an order or a change that comes before it goes on: what random tests meet once
//! in a thousand runs, made to happen.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tonic::Code;

use crate::agreement::{Expectation, differences, oracle, shown};
use crate::qdrant_server::{FakeQdrant, Fault};
use crate::service_process::ServiceProcess;
use crate::shelf::{Shelf, Story};
use crate::support::quick_directory;

/// The service rests, ends, and is compared with its library.
fn agrees(service: &mut ServiceProcess, shelf: &Shelf, place: &Path) {
    service.settle(false).expect("nobody kills it");
    service.kill();
    let fresh = oracle(service, place);
    let (wrong, _) = differences(service, &Expectation::of(shelf, &BTreeSet::new()), &fresh);
    assert!(wrong.is_empty(), "{}", shown(&wrong));
}

#[test]
fn a_renamed_book_renames_the_chapter_that_bears_its_title() {
    let place = quick_directory();
    let mut shelf = Shelf::new(&place.path().join("library"), 1);
    let id = shelf.add("Book", "Ana Anić", &[("TXT", Story::Text { number: 1, chapters: 1, words: 100 })]);
    let mut service = ServiceProcess::new(place.path(), shelf.path());
    service.spawn(None);
    service.settle(false).expect("nobody kills it");
    shelf.rename(id, "Another title");
    agrees(&mut service, &shelf, place.path());
}

#[test]
fn a_metadata_edit_cut_short_and_taken_back_leaves_no_trace() {
    let place = quick_directory();
    let server = FakeQdrant::new(None);
    let mut shelf = Shelf::new(&place.path().join("library"), 1);
    // More points than one change of payloads takes.
    let id = shelf.add("Book", "Ana Anić", &[("EPUB", Story::Text { number: 1, chapters: 4, words: 1500 })]);
    let mut service = ServiceProcess::new(place.path(), shelf.path());
    service.use_server(&server.url(), "books");
    service.spawn(None);
    service.settle(false).expect("nobody kills it");
    // The first part of the points gets the new tag, the others do not.
    server.inject("set_payload", Fault::Delay(Duration::ZERO));
    for _ in 0..100 {
        server.inject("set_payload", Fault::Refuse(Code::Unavailable, "ordered"));
    }
    shelf.set_tags(id, &["ape"]);
    while server.calls("set_payload") < 3 {
        std::thread::sleep(Duration::from_millis(5));
    }
    // It must see the edit taken back before it goes on.
    service.post("/pause", &Value::Null).expect("nobody kills it");
    service.kill();
    server.heal();
    shelf.set_tags(id, &[]);
    service.spawn(None);
    service.look(false).expect("nobody kills it");
    service.post("/resume", &Value::Null).expect("nobody kills it");
    agrees(&mut service, &shelf, place.path());
}
