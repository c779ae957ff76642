//! Files that gave no text, and which of a book's files is read because of that. Pure; must never look at a disk.

use serde::{Deserialize, Serialize};

use super::{Book, BookFile};

/// A file that was read and gave no text by its own fault: damaged, encrypted, empty, too large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedFile {
    /// Upper case, as in [`BookFile`].
    pub format: String,
    pub data_id: Option<i64>,
    pub size: u64,
    pub mtime_us: i64,
    /// For a person.
    pub reason: String,
}

impl FailedFile {
    pub fn new(file: &BookFile, reason: impl ToString) -> Self {
        Self {
            format: file.format.clone(),
            data_id: file.data_id,
            size: file.size,
            mtime_us: file.mtime_us,
            reason: reason.to_string(),
        }
    }

    /// Whether it is this file, unchanged since. A new path is no change.
    pub fn is(&self, file: &BookFile) -> bool {
        file.looks_unchanged_since(&self.format, self.data_id, self.size, self.mtime_us)
    }
}

impl Book {
    /// All readable files, in the order in which they are tried.
    pub fn files(&self) -> impl Iterator<Item = &BookFile> {
        std::iter::once(&self.file).chain(&self.others)
    }

    /// The file that the book is read from: the first that is not known to give no text. None where none is left.
    pub fn file_to_read(&self, failed: &[FailedFile]) -> Option<&BookFile> {
        first_sound(self.files(), failed)
    }
}

/// The first file that is not known to give no text.
pub(super) fn first_sound<'a>(
    mut files: impl Iterator<Item = &'a BookFile>,
    failed: &[FailedFile],
) -> Option<&'a BookFile> {
    files.find(|file| !failed.iter().any(|known| known.is(file)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::subsequence;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Metadata, Source};

    fn file(format: usize, content: i64) -> BookFile {
        BookFile {
            format: format!("F{format}"),
            path: format!("/library/book.f{format}").into(),
            data_id: Some(content),
            size: 100,
            mtime_us: 1_234_567,
        }
    }

    fn book(files: Vec<BookFile>) -> Book {
        let mut files = files.into_iter();
        Book {
            uuid: Uuid::from_u128(1),
            library_uuid: Uuid::from_u128(2),
            source: Source::Calibre(1),
            metadata: Metadata::default(),
            file: files.next().unwrap(),
            others: files.collect(),
            unread: Vec::new(),
            added_us: 0,
        }
    }

    #[test]
    fn the_next_file_is_read_until_the_failed_one_is_replaced() {
        let failed = [FailedFile::new(&file(0, 1), "damaged")];
        let shelf = book(vec![file(0, 1), file(1, 2), file(2, 3)]);
        assert_eq!(shelf.file_to_read(&[]), Some(&file(0, 1)));
        assert_eq!(shelf.file_to_read(&failed), Some(&file(1, 2)));
        let mended = book(vec![file(0, 9), file(1, 2)]);
        assert_eq!(mended.file_to_read(&failed), Some(&file(0, 9)));
        let without = book(vec![file(1, 2), file(2, 3)]);
        assert_eq!(without.file_to_read(&failed), Some(&file(1, 2)), "a failed file that goes changes nothing");
        assert_eq!(book(vec![file(0, 1)]).file_to_read(&failed), None);
    }

    #[test]
    fn a_failed_file_is_known_again_after_a_rename_and_on_another_mount() {
        let failed = FailedFile::new(&file(0, 1), "damaged");
        let moved = BookFile { path: "/elsewhere/x.f0".into(), ..file(0, 1) };
        assert!(failed.is(&moved));
        assert!(failed.is(&BookFile { mtime_us: 1_000_000, ..moved.clone() }), "whole seconds alone (sshfs)");
        assert!(!failed.is(&BookFile { size: 101, ..moved.clone() }));
        assert!(!failed.is(&BookFile { mtime_us: 1_234_568, ..moved }));
    }

    proptest! {
        /// What is read is on the shelf, has not failed, and everything before it has.
        #[test]
        fn the_first_that_has_not_failed_is_read(
            shelf in subsequence((0..6_usize).collect::<Vec<_>>(), 1..=6),
            contents in proptest::collection::vec(0..3_i64, 6),
            failed in proptest::collection::vec((0..6_usize, 0..3_i64), 0..8),
        ) {
            let shelf = book(shelf.into_iter().map(|format| file(format, contents[format])).collect());
            let failed: Vec<_> = failed.into_iter().map(|(f, c)| FailedFile::new(&file(f, c), "x")).collect();
            let has_failed = |file: &BookFile| failed.iter().any(|known| known.is(file));
            match shelf.file_to_read(&failed) {
                None => prop_assert!(shelf.files().all(has_failed)),
                Some(chosen) => {
                    prop_assert!(!has_failed(chosen));
                    prop_assert!(shelf.files().take_while(|file| *file != chosen).all(has_failed));
                }
            }
        }

        /// Files that come, change or go behind the one that is read, and failed ones that go, change nothing.
        #[test]
        fn what_is_behind_the_file_in_use_does_not_matter(
            failed_before in 0..3_usize, behind in 0..3_usize, content in 0..9_i64, gone in any::<bool>(),
        ) {
            let failed: Vec<_> = (0..failed_before).map(|f| FailedFile::new(&file(f, 0), "x")).collect();
            let first = if gone { failed_before } else { 0 };
            let files = (first..=failed_before).map(|f| file(f, 0));
            let files = files.chain((0..behind).map(|b| file(10 + b, content))).collect();
            let shelf = book(files);
            prop_assert_eq!(shelf.file_to_read(&failed), Some(&file(failed_before, 0)));
        }
    }
}
