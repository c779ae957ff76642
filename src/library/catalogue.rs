//! A look at a Calibre library: the catalogue's rows and the files they name become books.
//!
//! The catalogue alone says which books exist. A file that is absent or half-written keeps what was known of it.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::Connection;
use uuid::Uuid;

use super::calibre::{self, CatalogueBook, FormatRow};
use super::files::{FileState, UNFINISHED_US, in_order, inside, not_in_order, stat_file, why_none};
use super::{DATABASE, LibraryError, LookRequest, Seen};
use crate::clock::now_us;
use crate::domain::{Book, BookFile, KnownBook, PassedOver, Sighting, Source};

/// Stats the files of new and changed rows; on a full look, every book's file in use and those preferred to it.
pub(super) fn look<E: From<LibraryError>>(
    request: &LookRequest,
    copy: &Connection,
    library_uuid: Uuid,
    known: &[KnownBook],
    mut take: impl FnMut(Seen) -> Result<(), E>,
) -> Result<(), E> {
    let known: HashMap<Uuid, &KnownBook> = known.iter().map(|known| (known.uuid, known)).collect();
    let now_us = now_us();
    calibre::each_book(copy, &request.path.join(DATABASE), library_uuid, |row| {
        let found = find_files(request, &row, known.get(&row.uuid).copied(), now_us)?;
        take(match found {
            Found::Files { file, others, settled } => {
                let unread = not_in_order(request.formats, formats(&row));
                let sighting = Sighting::Book(Book {
                    uuid: row.uuid,
                    library_uuid,
                    source: Source::Calibre(row.id),
                    unread,
                    metadata: row.metadata,
                    file,
                    others,
                    added_us: row.added_us,
                });
                Seen { sighting, settled }
            }
            Found::Nothing { reason, settled } => {
                let sighting = Sighting::PassedOver(PassedOver {
                    uuid: row.uuid,
                    book_id: format!("calibre {}", row.id),
                    formats: formats(&row).map(str::to_owned).collect(),
                    title: row.metadata.title,
                    reason,
                });
                Seen { sighting, settled }
            }
        })
    })
}

fn formats(row: &CatalogueBook) -> impl Iterator<Item = &str> + Clone {
    row.formats.iter().map(|format| format.format.as_str())
}

enum Found {
    Files {
        file: BookFile,
        others: Vec<BookFile>,
        settled: bool,
    },
    /// `settled` is false where the next look may well find more.
    Nothing {
        reason: String,
        settled: bool,
    },
}

/// What a look can say of one file.
enum FileSeen {
    Whole(BookFile),
    NotNow { reason: String, settled: bool },
}

/// The book's readable files in the order of preference. Where the first of them cannot be seen whole, a book that is
/// known stays what it was; a spare one that cannot be seen is left out until it can.
fn find_files(
    request: &LookRequest,
    row: &CatalogueBook,
    known: Option<&KnownBook>,
    now_us: i64,
) -> Result<Found, LibraryError> {
    let nothing = |reason: String, settled: bool| Ok(Found::Nothing { reason, settled });
    if row.path.is_empty() || row.formats.is_empty() {
        // Normal while Calibre adds a book; the row's next change is seen as any other.
        return nothing("it has no book file".to_owned(), true);
    }
    let wanted = in_order(request.formats, formats(row));
    if wanted.is_empty() {
        return nothing(why_none(request.why_unread, &not_in_order(request.formats, formats(row))), true);
    }
    let mut files: Vec<BookFile> = Vec::with_capacity(wanted.len());
    let mut all_settled = true;
    // Whether a file was found that is not known to fail: what comes after it is not in use.
    let mut found_usable = false;
    for format in wanted.iter().map(|at| &row.formats[*at]) {
        let Some(path) = path_of(request, row, format) else {
            if files.is_empty() {
                let reason = format!("its path '{}/{}' leads out of the library", row.path, format.name);
                return nothing(reason, true);
            }
            continue;
        };
        let same_row =
            |file: &&BookFile| file.data_id == Some(format.id) && file.format == format.format && file.path == path;
        let before = known.and_then(|known| known.files().find(same_row));
        let seen = match before {
            // Calibre gives the number of its last row anew when that is gone: a file that was removed and added again
            // may have the row of before, but hardly its size as well.
            Some(before) if (!request.full || found_usable) && before.size == format.size => {
                FileSeen::Whole(before.clone())
            }
            _ => {
                let replaced = known.and_then(|known| known.files().find(|file| file.path == path));
                see(request, format, path.clone(), replaced, now_us)?
            }
        };
        let file = match (seen, before, known) {
            (FileSeen::Whole(file), ..) => file,
            (FileSeen::NotNow { settled, .. }, Some(before), _) => {
                all_settled &= settled;
                before.clone()
            }
            (FileSeen::NotNow { settled, .. }, None, Some(known)) if files.is_empty() => {
                let (file, others) = (known.file.clone(), known.others.clone());
                return Ok(Found::Files { file, others, settled });
            }
            (FileSeen::NotNow { reason, settled }, None, None) if files.is_empty() => return nothing(reason, settled),
            // Calibre writes a file before its row: a row without its file may be so for years.
            (FileSeen::NotNow { .. }, None, _) => continue,
        };
        let failed = known.map_or(&[][..], |known| &known.failed);
        found_usable |= !failed.iter().any(|failed| failed.is(&file));
        files.push(file);
    }
    // The first one is there, or this was left above.
    let mut files = files.into_iter();
    match files.next() {
        Some(file) => Ok(Found::Files { file, others: files.collect(), settled: all_settled }),
        None => nothing("none of its files can be seen".to_owned(), false),
    }
}

fn path_of(request: &LookRequest, row: &CatalogueBook, format: &FormatRow) -> Option<PathBuf> {
    let path = inside(request.path, &format!("{}/{}.{}", row.path, format.name, format.format.to_lowercase()))?;
    // Calibre's names hold no '/': one that does is no name of a file in the book's directory.
    (!format.name.contains('/')).then_some(path)
}

/// `replaced` is what was known of a file at that place.
fn see(
    request: &LookRequest,
    row: &FormatRow,
    path: PathBuf,
    replaced: Option<&BookFile>,
    now_us: i64,
) -> Result<FileSeen, LibraryError> {
    let not_now = |reason: String, settled: bool| FileSeen::NotNow { reason, settled };
    // A client that holds a lease on a file may show its old size and time for seconds after the row says that Calibre
    // has replaced it. Taken as the new file, it would be read as it was, and not again before the next full look.
    let is_late = |size: u64, mtime_us: i64| {
        replaced.is_some_and(|old| {
            old.data_id != Some(row.id) && (old.size, old.mtime_us) == (size, mtime_us) && size != row.size
        })
    };
    Ok(match stat_file(request.path, &path, request.heartbeat)? {
        // The size in the catalogue is what Calibre wrote. Another size is a writer at work, or, once the file has
        // come to rest, a file that another program replaced.
        FileState::There(stat) if stat.size != row.size && stat.is_younger_than(UNFINISHED_US, now_us) => {
            not_now(format!("its file {} is still being written", path.display()), false)
        }
        FileState::There(stat) if is_late(stat.size, stat.mtime_us) => {
            not_now(format!("its file {} is not seen as Calibre left it yet", path.display()), false)
        }
        FileState::There(stat) => FileSeen::Whole(BookFile {
            format: row.format.clone(),
            path,
            data_id: Some(row.id),
            size: stat.size,
            mtime_us: stat.mtime_us,
        }),
        FileState::Absent => not_now(format!("its file {} is not there", path.display()), false),
        FileState::Unusable { why, may_pass } => not_now(format!("its file {} {why}", path.display()), !may_pass),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::domain::{LibraryKind, Metadata};
    use crate::library::Heartbeat;

    /// A library of one book with one file.
    struct Shelf {
        folder: tempfile::TempDir,
        known: Option<KnownBook>,
    }

    impl Shelf {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), known: None }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("A/B (1)/B.epub")
        }

        fn write(&self, content: &str, age: Duration) {
            fs::create_dir_all(self.file().parent().unwrap()).unwrap();
            fs::write(self.file(), content).unwrap();
            File::options().append(true).open(self.file()).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }

        /// What is found of the book whose row has that id and size, and whether all is settled.
        fn find(&self, data_id: i64, size: u64, full: bool) -> (BookFile, bool) {
            let row = CatalogueBook {
                id: 1,
                uuid: Uuid::from_u128(1),
                path: "A/B (1)".into(),
                added_us: 0,
                metadata: Metadata::default(),
                formats: vec![FormatRow { id: data_id, format: "EPUB".into(), size, name: "B".into() }],
            };
            let request = LookRequest {
                path: self.folder.path(),
                kind: LibraryKind::Calibre,
                folder_uuid: None,
                expected: None,
                formats: &["EPUB".to_owned()],
                why_unread: |_| None,
                scratch_dir: Path::new("/nonexistent"),
                full,
                heartbeat: &Heartbeat::default(),
            };
            match find_files(&request, &row, self.known.as_ref(), now_us()).unwrap() {
                Found::Files { file, settled, .. } => (file, settled),
                Found::Nothing { reason, .. } => panic!("{reason}"),
            }
        }

        /// The size and id of the file that is found, and whether all is settled.
        fn look(&self, data_id: i64, size: u64, full: bool) -> (u64, Option<i64>, bool) {
            let (file, settled) = self.find(data_id, size, full);
            (file.size, file.data_id, settled)
        }
    }

    #[test]
    fn a_replaced_file_that_the_client_still_shows_as_it_was_is_waited_for() {
        const OLD: Duration = Duration::from_secs(5000);
        let mut shelf = Shelf::new();
        shelf.write("old", OLD);
        let (file, _) = shelf.find(7, 3, false);
        shelf.known = Some(KnownBook::new(&Book {
            uuid: Uuid::from_u128(1),
            library_uuid: Uuid::from_u128(9),
            source: Source::Calibre(1),
            metadata: Metadata::default(),
            file,
            others: Vec::new(),
            unread: Vec::new(),
            added_us: 0,
        }));
        assert_eq!(shelf.look(7, 3, false), (3, Some(7), true));
        // The row is Calibre's new one, the file is seen as it was: by an ordinary look as by a full one.
        for full in [false, true] {
            assert_eq!(shelf.look(8, 11, full), (3, Some(7), false), "full: {full}");
        }
        // The lease is over.
        shelf.write("new content", Duration::from_secs(3));
        assert_eq!(shelf.look(8, 11, false), (11, Some(8), true));
        // A restored catalogue has new rows for files that nobody touched.
        shelf.write("old", OLD);
        assert_eq!(shelf.look(8, 3, false), (3, Some(8), true));
    }

    #[test]
    fn a_file_of_another_size_than_its_row_is_waited_for_while_it_is_young() {
        let shelf = Shelf::new();
        shelf.write("whole", Duration::from_secs(1));
        assert_eq!(shelf.look(7, 5, false), (5, Some(7), true));
        // Another program replaced it behind Calibre's back, long ago.
        shelf.write("longer than the row says", Duration::from_secs(100));
        assert_eq!(shelf.look(7, 5, false), (24, Some(7), true));
    }
}
