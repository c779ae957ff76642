//! The difference between what the state knows and what a complete look finds. Pure.
//!
//! Books are compared one by one as they are seen, so that a look at a large library never has all of them in memory.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use uuid::Uuid;

use crate::domain::{Book, BookFile, Change, KnownBook};

/// A look in comparison with the state. What is absent shows only at its end, and only if it was complete: a look that
/// fails must never come to [`Comparison::absent`].
#[derive(Debug)]
pub struct Comparison<'a> {
    known: &'a [KnownBook],
    /// Places in `known`.
    places: HashMap<Uuid, usize>,
    /// By the places in `known`.
    present: Vec<bool>,
    /// Books that the state does not have.
    new: HashSet<Uuid>,
}

impl<'a> Comparison<'a> {
    pub fn with(known: &'a [KnownBook]) -> Self {
        Self {
            known,
            places: known.iter().enumerate().map(|(place, known)| (known.uuid, place)).collect(),
            present: vec![false; known.len()],
            new: HashSet::new(),
        }
    }

    /// A book was seen: adds what the state must learn of it. [`Change::Returned`] comes before a change of the same
    /// book; a second book of one uuid is left out.
    pub fn seen(&mut self, book: Book, changes: &mut Vec<Change>) {
        match self.places.get(&book.uuid) {
            Some(place) if !self.present[*place] => {
                let known = &self.known[*place];
                self.seen_as_known(book.uuid, changes);
                changes.extend(compare(known, book));
            }
            Some(_) => {}
            None => {
                if self.new.insert(book.uuid) {
                    changes.push(Change::New(book));
                }
            }
        }
    }

    /// A book is there, though perhaps not in a readable form: no removal.
    pub fn seen_as_known(&mut self, book: Uuid, changes: &mut Vec<Change>) {
        let Some(place) = self.places.get(&book) else {
            // It must not come up as a new one afterwards.
            self.new.insert(book);
            return;
        };
        let before = std::mem::replace(&mut self.present[*place], true);
        if !before && self.known[*place].missing_since_us.is_some() {
            changes.push(Change::Returned(book));
        }
    }

    /// At the end of a complete look: the books that were missing before and are still.
    pub fn still_missing(&self) -> Vec<Uuid> {
        let absent = self.known.iter().zip(&self.present).filter(|(_, present)| !**present);
        absent.filter(|(known, _)| known.missing_since_us.is_some()).map(|(known, _)| known.uuid).collect()
    }

    /// The end of a complete look: the books that it did not see.
    ///
    /// A book is [`Change::Gone`] when it was found missing `grace_us` before `now_us` and is still absent; never at
    /// the first look that misses it, whatever the grace. One found missing in the future, by a clock that jumped back
    /// since, is missing from now on.
    pub fn absent(self, now_us: i64, grace_us: i64) -> Vec<Change> {
        let absent = self.known.iter().zip(&self.present).filter(|(_, present)| !**present);
        absent
            .filter_map(|(known, _)| match known.missing_since_us {
                None => Some(Change::Missing(known.uuid)),
                // The grace would last as long as the clock jumped.
                Some(since_us) if since_us > now_us => Some(Change::Missing(known.uuid)),
                Some(since_us) if since_us <= now_us.saturating_sub(grace_us) => Some(Change::Gone(known.uuid)),
                Some(_) => None,
            })
            .collect()
    }
}

/// The file of a change is the one that the book would be read from: a replaced file that failed before, or a better
/// format, is one; a failed format that goes, or a spare one that comes, is none.
fn compare(known: &KnownBook, found: Book) -> Option<Change> {
    let file = match (known.file_to_read(), found.file_to_read(&known.failed)) {
        (Some(before), Some(now)) => !before.looks_unchanged(now),
        // The file in use is gone, and what is left failed before: the job says so.
        (before, now) => before.is_some() != now.is_some(),
    };
    // The source is part of the payload, as the catalogue's data are.
    let metadata = known.metadata_digest != found.metadata.digest() || known.source != found.source;
    let moved = known.added_us != found.added_us
        || known.unread != found.unread
        || !known.files().map(place).eq(found.files().map(place))
        || !known.files().zip(found.files()).all(|(known, found)| known.looks_unchanged(found)) && !file;
    (file || metadata || moved).then_some(Change::Changed { book: found, file, metadata, moved })
}

fn place(file: &BookFile) -> (&str, &Path) {
    (&file.format, &file.path)
}

/// The brake: whether `gone` removals of `total` books at once must wait for the operator's word.
///
/// The limit is the larger of `limit` books and `percent` per cent of the books.
pub fn too_many_removals(gone: usize, total: usize, limit: usize, percent: f64) -> bool {
    let share = (total as f64 * percent / 100.0).floor();
    gone > limit && gone as f64 > share
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{FailedFile, Metadata, PassedOver, Sighting, Source};

    const GRACE_US: i64 = 600_000_000;

    fn book(number: u8, content: u8, title: u8, place: u8) -> Book {
        Book {
            uuid: Uuid::from_u128(u128::from(number) + 1),
            library_uuid: Uuid::from_u128(1000),
            source: Source::Calibre(i64::from(number)),
            metadata: Metadata { title: format!("title {title}"), ..Metadata::default() },
            file: BookFile {
                format: "EPUB".into(),
                path: PathBuf::from(format!("/library/{place}/{number}.epub")),
                data_id: Some(i64::from(content)),
                size: 1000 + u64::from(content),
                mtime_us: 1_234_567 + i64::from(content) * 1000,
            },
            others: Vec::new(),
            unread: Vec::new(),
            added_us: i64::from(number),
        }
    }

    fn shelf(books: Vec<Book>) -> Vec<Sighting> {
        books.into_iter().map(Sighting::Book).collect()
    }

    fn known(book: Book) -> KnownBook {
        KnownBook::new(&book)
    }

    /// One complete look.
    fn diff(known: &[KnownBook], shelf: &[Sighting], now_us: i64, grace_us: i64) -> Vec<Change> {
        let mut comparison = Comparison::with(known);
        let mut changes = Vec::new();
        for sighting in shelf.iter().cloned() {
            match sighting {
                Sighting::Book(book) => comparison.seen(book, &mut changes),
                Sighting::AsKnown(uuid) | Sighting::PassedOver(PassedOver { uuid, .. }) => {
                    comparison.seen_as_known(uuid, &mut changes);
                }
            }
        }
        changes.extend(comparison.absent(now_us, grace_us));
        changes
    }

    /// What the state does with the changes.
    fn apply(known: &[KnownBook], changes: &[Change], now_us: i64) -> Vec<KnownBook> {
        let mut books: std::collections::BTreeMap<Uuid, KnownBook> =
            known.iter().map(|known| (known.uuid, known.clone())).collect();
        for change in changes {
            match change {
                Change::New(book) => {
                    books.insert(book.uuid, KnownBook::new(book));
                }
                Change::Changed { book, .. } => {
                    let failed = books[&book.uuid].failed.clone();
                    books.insert(book.uuid, KnownBook { failed, ..KnownBook::new(book) });
                }
                Change::Returned(uuid) => books.get_mut(uuid).unwrap().missing_since_us = None,
                Change::Missing(uuid) => books.get_mut(uuid).unwrap().missing_since_us = Some(now_us),
                Change::Gone(uuid) => drop(books.remove(uuid)),
            }
        }
        books.into_values().collect()
    }

    #[test]
    fn each_kind_of_edit_sets_its_own_flag() {
        let before = book(1, 1, 1, 1);
        for (after, expected) in [
            (book(1, 2, 1, 1), (true, false, false)),
            (book(1, 1, 2, 1), (false, true, false)),
            (book(1, 1, 1, 2), (false, false, true)),
            (book(1, 2, 2, 2), (true, true, true)),
        ] {
            let changes = diff(&[known(before.clone())], &shelf(vec![after.clone()]), 0, GRACE_US);
            let [Change::Changed { book, file, metadata, moved }] = changes.as_slice() else { panic!("{changes:?}") };
            assert_eq!((book, (*file, *metadata, *moved)), (&after, expected));
        }
    }

    #[test]
    fn a_book_goes_only_after_two_looks_and_the_grace() {
        let mut state = vec![known(book(1, 1, 1, 1))];
        let gone = Uuid::from_u128(2);
        let mut look = |now_us: i64, grace_us: i64| {
            let changes = diff(&state, &shelf(vec![]), now_us, grace_us);
            state = apply(&state, &changes, now_us);
            changes
        };
        assert_eq!(look(0, 0), [Change::Missing(gone)], "even without a grace");
        assert_eq!(look(GRACE_US - 1, GRACE_US), []);
        assert_eq!(look(GRACE_US, GRACE_US), [Change::Gone(gone)]);
    }

    #[test]
    fn a_clock_that_jumped_back_lengthens_the_grace_by_no_more_than_a_grace() {
        const HOUR_US: i64 = 3_600_000_000;
        let mut state = vec![known(book(1, 1, 1, 1))];
        let gone = Uuid::from_u128(2);
        let mut look = |now_us: i64| {
            let changes = diff(&state, &shelf(vec![]), now_us, GRACE_US);
            state = apply(&state, &changes, now_us);
            changes
        };
        assert_eq!(look(HOUR_US), [Change::Missing(gone)]);
        assert_eq!(look(5), [Change::Missing(gone)], "nothing is removed, the grace begins anew");
        assert_eq!(look(GRACE_US), []);
        assert_eq!(look(5 + GRACE_US), [Change::Gone(gone)], "ten minutes later, not an hour");
    }

    #[test]
    fn a_book_that_comes_back_or_is_passed_over_is_not_removed() {
        let missing = KnownBook { missing_since_us: Some(0), ..known(book(1, 1, 1, 1)) };
        let back = diff(std::slice::from_ref(&missing), &shelf(vec![book(1, 1, 1, 1)]), GRACE_US * 2, GRACE_US);
        assert_eq!(back, [Change::Returned(missing.uuid)]);
        let passed = PassedOver {
            uuid: missing.uuid,
            book_id: String::new(),
            title: String::new(),
            formats: Vec::new(),
            reason: String::new(),
        };
        for sighting in [Sighting::PassedOver(passed), Sighting::AsKnown(missing.uuid)] {
            let shelf = [sighting];
            let back = diff(std::slice::from_ref(&missing), &shelf, GRACE_US * 2, GRACE_US);
            assert_eq!(back, [Change::Returned(missing.uuid)]);
            assert_eq!(diff(&[known(book(1, 1, 1, 1))], &shelf, GRACE_US * 2, GRACE_US), []);
        }
    }

    #[test]
    fn a_second_book_of_one_uuid_is_left_out() {
        let (first, second) = (book(1, 1, 1, 1), book(1, 2, 2, 2));
        let both = shelf(vec![first.clone(), second.clone()]);
        assert_eq!(diff(&[], &both, 0, 0), [Change::New(first.clone())]);
        assert_eq!(diff(&[known(first.clone())], &both, 0, 0), []);
        let missing = KnownBook { missing_since_us: Some(0), ..known(first.clone()) };
        assert_eq!(diff(&[missing], &both, 0, 0), [Change::Returned(first.uuid)]);
    }

    #[test]
    fn times_without_a_fraction_equal_any_time_in_their_second() {
        let with = |mtime_us| {
            let mut book = book(1, 1, 1, 1);
            book.file.mtime_us = mtime_us;
            book
        };
        let changes = |before, after| diff(&[known(with(before))], &shelf(vec![with(after)]), 0, 0).len();
        assert_eq!(changes(5_000_000, 5_400_000), 0);
        assert_eq!(changes(5_400_000, 5_000_000), 0);
        assert_eq!(changes(5_400_000, 5_400_001), 1);
        assert_eq!(changes(5_000_000, 6_000_000), 1);
    }

    #[test]
    fn the_brake_takes_the_larger_of_the_two_limits() {
        for (gone, total, held) in
            [(10, 20, false), (11, 20, true), (11, 10_000, false), (200, 10_000, false), (201, 10_000, true)]
        {
            assert_eq!(too_many_removals(gone, total, 10, 2.0), held, "{gone} of {total}");
        }
        assert!(!too_many_removals(0, 0, 0, 0.0));
    }

    fn shelves() -> impl Strategy<Value = Vec<Book>> {
        btree_map(0_u8..12, (0_u8..3, 0_u8..3, 0_u8..3), 0..10).prop_map(|books| {
            books.into_iter().map(|(number, (content, title, place))| book(number, content, title, place)).collect()
        })
    }

    /// A book of these formats; the number is the file's content.
    fn with_files(files: &[(u8, u8)]) -> Book {
        let file = |(format, content): &(u8, u8)| BookFile {
            format: format!("F{format}"),
            path: PathBuf::from(format!("/library/1.f{format}")),
            ..book(1, *content, 1, 1).file
        };
        let mut files = files.iter().map(file);
        Book { file: files.next().unwrap(), others: files.collect(), ..book(1, 1, 1, 1) }
    }

    #[test]
    fn the_file_in_use_decides_what_is_work() {
        let failed = |files: &[(u8, u8)]| -> Vec<FailedFile> {
            files.iter().map(|file| FailedFile::new(&with_files(&[*file]).file, "x")).collect()
        };
        // What the state has, what failed of it, what the shelf has now, whether a job is due.
        type Files<'a> = &'a [(u8, u8)];
        let cases: [(Files, Files, Files, bool, &str); 10] = [
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(1, 1), (2, 1)], false, "nothing changed"),
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(1, 2), (2, 1)], true, "the preferred file was replaced"),
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(1, 1), (2, 2)], true, "the file in use was replaced"),
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(2, 1)], false, "the failed one is gone"),
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(0, 1), (1, 1), (2, 1)], true, "a better one came"),
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(1, 1), (2, 1), (3, 1)], false, "a spare one came"),
            (&[(1, 1), (2, 1)], &[(1, 1)], &[(1, 1)], true, "the one in use is gone, the rest failed"),
            (&[(1, 1), (2, 1)], &[], &[(1, 1), (2, 2)], false, "a spare one was replaced"),
            (&[(1, 1), (2, 1)], &[(1, 1), (2, 1)], &[(2, 1)], false, "parked, and a failed one is gone"),
            (&[(1, 1)], &[(1, 1)], &[(1, 1), (2, 1)], true, "parked, and another one came"),
        ];
        for (before, failures, after, due, what) in cases {
            let state = KnownBook { failed: failed(failures), ..known(with_files(before)) };
            let changes = diff(&[state], &shelf(vec![with_files(after)]), 0, 0);
            match changes.as_slice() {
                [] => assert!(before == after && !due, "{what}"),
                [Change::Changed { file, metadata: false, moved, .. }] => {
                    assert_eq!(*file, due, "{what}");
                    assert!(*file || *moved, "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    proptest! {
        /// Whatever the shelf does to a book's files: once the state has it, the next look asks for nothing.
        #[test]
        fn a_look_that_was_recorded_is_not_repeated(
            before in proptest::collection::vec((0_u8..3, 0_u8..3), 1..4),
            after in proptest::collection::vec((0_u8..3, 0_u8..3), 1..4),
            failed in proptest::collection::vec((0_u8..3, 0_u8..3), 0..6),
        ) {
            let failed: Vec<_> = failed.iter().map(|file| FailedFile::new(&with_files(&[*file]).file, "x")).collect();
            let state = KnownBook { failed: failed.clone(), ..known(with_files(&before)) };
            let shelf = shelf(vec![with_files(&after)]);
            let changes = diff(std::slice::from_ref(&state), &shelf, 0, 0);
            let mut now = apply(&[state], &changes, 0);
            now[0].failed = failed;
            prop_assert_eq!(diff(&now, &shelf, 0, 0), []);
        }

        #[test]
        fn applying_the_changes_gives_the_shelf(before in shelves(), after in shelves()) {
            let shelf = shelf(after.clone());
            let mut state: Vec<KnownBook> = before.into_iter().map(known).collect();
            let changes = diff(&state, &shelf, 0, GRACE_US);
            prop_assert!(!changes.iter().any(|change| matches!(change, Change::Gone(_))));
            state = apply(&state, &changes, 0);
            let changes = diff(&state, &shelf, GRACE_US, GRACE_US);
            prop_assert!(changes.iter().all(|change| matches!(change, Change::Gone(_))));
            state = apply(&state, &changes, GRACE_US);
            prop_assert_eq!(state, after.into_iter().map(known).collect::<Vec<_>>());
        }

        #[test]
        fn equal_shelves_have_no_difference(books in shelves(), now_us in any::<i64>(), grace_us in 0..i64::MAX) {
            let state: Vec<KnownBook> = books.iter().cloned().map(known).collect();
            prop_assert_eq!(diff(&state, &shelf(books), now_us, grace_us), []);
        }

        #[test]
        fn edits_of_the_catalogue_or_the_place_never_ask_for_the_file(before in shelves(), title in 0_u8..9, place in 0_u8..9) {
            let after = before.iter().map(|book| {
                let mut after = book.clone();
                after.metadata.title = format!("other {title}");
                after.file.path = PathBuf::from(format!("/elsewhere/{place}/{}", book.uuid));
                after
            }).collect();
            let state: Vec<KnownBook> = before.into_iter().map(known).collect();
            for change in diff(&state, &shelf(after), 0, 0) {
                let file = matches!(change, Change::Changed { file: false, metadata: true, .. });
                prop_assert!(file, "{:?}", change);
            }
        }
    }
}
