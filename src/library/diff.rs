//! The difference between what the state knows and what a complete look found. Pure.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::domain::{Book, BookFile, Change, KnownBook, ShelfSnapshot};

/// Everything the state must learn from `snapshot`, in the shelf's order, absences last.
///
/// A book is [`Change::Gone`] when it was found missing `grace_us` before `now_us` and is still absent; never at the
/// first look that misses it, whatever the grace. `returned` comes before a change of the same book.
pub fn diff(known: &[KnownBook], snapshot: &ShelfSnapshot, now_us: i64, grace_us: i64) -> Vec<Change> {
    let by_uuid: HashMap<Uuid, &KnownBook> = known.iter().map(|known| (known.book.uuid, known)).collect();
    let mut changes = Vec::new();
    let mut present: HashSet<Uuid> = HashSet::with_capacity(snapshot.books.len());

    for book in &snapshot.books {
        if !present.insert(book.uuid) {
            continue;
        }
        let Some(known) = by_uuid.get(&book.uuid) else {
            changes.push(Change::New(book.clone()));
            continue;
        };
        if known.missing_since_us.is_some() {
            changes.push(Change::Returned(book.uuid));
        }
        changes.extend(compare(&known.book, book));
    }
    for passed in &snapshot.passed_over {
        // There, though not in a readable form: no removal.
        let missing = by_uuid.get(&passed.uuid).is_some_and(|known| known.missing_since_us.is_some());
        if present.insert(passed.uuid) && missing {
            changes.push(Change::Returned(passed.uuid));
        }
    }
    for known in known.iter().filter(|known| !present.contains(&known.book.uuid)) {
        match known.missing_since_us {
            None => changes.push(Change::Missing(known.book.uuid)),
            Some(since_us) if since_us <= now_us.saturating_sub(grace_us) => {
                changes.push(Change::Gone(known.book.uuid));
            }
            Some(_) => {}
        }
    }
    changes
}

fn compare(known: &Book, found: &Book) -> Option<Change> {
    let file = !same_file(&known.file, &found.file);
    // The source is part of the payload, as the catalogue's data are.
    let metadata = known.metadata != found.metadata || known.source != found.source;
    let moved = known.file.path != found.file.path || known.added_us != found.added_us;
    (file || metadata || moved).then(|| Change::Changed { book: found.clone(), file, metadata, moved })
}

/// As [`BookFile::looks_unchanged`], but a time without a fraction (sshfs, some servers) equals any time in its second:
/// mounting the library another way must not look like 9,000 new files.
fn same_file(known: &BookFile, found: &BookFile) -> bool {
    const SECOND_US: i64 = 1_000_000;
    let coarse = known.mtime_us % SECOND_US == 0 || found.mtime_us % SECOND_US == 0;
    if coarse && known.mtime_us.div_euclid(SECOND_US) == found.mtime_us.div_euclid(SECOND_US) {
        return known.looks_unchanged(&BookFile { mtime_us: known.mtime_us, ..found.clone() });
    }
    known.looks_unchanged(found)
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
    use crate::domain::{LibraryKind, Metadata, PassedOver, Source};

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
            added_us: i64::from(number),
        }
    }

    fn snapshot(books: Vec<Book>) -> ShelfSnapshot {
        ShelfSnapshot {
            library_uuid: Uuid::from_u128(1000),
            kind: LibraryKind::Calibre,
            books,
            passed_over: Vec::new(),
        }
    }

    fn known(book: Book) -> KnownBook {
        KnownBook { book, missing_since_us: None }
    }

    /// What the state does with the changes.
    fn apply(known: &[KnownBook], changes: &[Change], now_us: i64) -> Vec<KnownBook> {
        let mut books: std::collections::BTreeMap<Uuid, KnownBook> =
            known.iter().map(|known| (known.book.uuid, known.clone())).collect();
        for change in changes {
            match change {
                Change::New(book) => {
                    books.insert(book.uuid, KnownBook { book: book.clone(), missing_since_us: None });
                }
                Change::Changed { book, .. } => books.get_mut(&book.uuid).unwrap().book = book.clone(),
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
            let changes = diff(&[known(before.clone())], &snapshot(vec![after.clone()]), 0, GRACE_US);
            let [Change::Changed { book, file, metadata, moved }] = changes.as_slice() else { panic!("{changes:?}") };
            assert_eq!((book, (*file, *metadata, *moved)), (&after, expected));
        }
    }

    #[test]
    fn a_book_goes_only_after_two_looks_and_the_grace() {
        let mut state = vec![known(book(1, 1, 1, 1))];
        let gone = Uuid::from_u128(2);
        let mut look = |now_us: i64, grace_us: i64| {
            let changes = diff(&state, &snapshot(vec![]), now_us, grace_us);
            state = apply(&state, &changes, now_us);
            changes
        };
        assert_eq!(look(0, 0), [Change::Missing(gone)], "even without a grace");
        assert_eq!(look(GRACE_US - 1, GRACE_US), []);
        assert_eq!(look(-5, GRACE_US), [], "a clock that jumped back removes nothing");
        assert_eq!(look(GRACE_US, GRACE_US), [Change::Gone(gone)]);
    }

    #[test]
    fn a_book_that_comes_back_or_is_passed_over_is_not_removed() {
        let missing = KnownBook { missing_since_us: Some(0), ..known(book(1, 1, 1, 1)) };
        let back = diff(std::slice::from_ref(&missing), &snapshot(vec![book(1, 1, 1, 1)]), GRACE_US * 2, GRACE_US);
        assert_eq!(back, [Change::Returned(missing.book.uuid)]);
        let passed = PassedOver { uuid: missing.book.uuid, title: String::new(), reason: String::new() };
        let shelf = ShelfSnapshot { passed_over: vec![passed], ..snapshot(vec![]) };
        let back = diff(std::slice::from_ref(&missing), &shelf, GRACE_US * 2, GRACE_US);
        assert_eq!(back, [Change::Returned(missing.book.uuid)]);
        assert_eq!(diff(&[known(book(1, 1, 1, 1))], &shelf, GRACE_US * 2, GRACE_US), []);
    }

    #[test]
    fn times_without_a_fraction_equal_any_time_in_their_second() {
        let with = |mtime_us| {
            let mut book = book(1, 1, 1, 1);
            book.file.mtime_us = mtime_us;
            book
        };
        let changes = |before, after| diff(&[known(with(before))], &snapshot(vec![with(after)]), 0, 0).len();
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

    proptest! {
        #[test]
        fn applying_the_changes_gives_the_shelf(before in shelves(), after in shelves()) {
            let shelf = snapshot(after.clone());
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
        fn equal_shelves_have_no_difference(shelf in shelves(), now_us in any::<i64>(), grace_us in 0..i64::MAX) {
            let state: Vec<KnownBook> = shelf.iter().cloned().map(known).collect();
            prop_assert_eq!(diff(&state, &snapshot(shelf), now_us, grace_us), []);
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
            for change in diff(&state, &snapshot(after), 0, 0) {
                let file = matches!(change, Change::Changed { file: false, metadata: true, .. });
                prop_assert!(file, "{:?}", change);
            }
        }
    }
}
