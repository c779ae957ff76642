//! A look at a Calibre library: the catalogue's rows and the files they name become books.
//!
//! The catalogue alone says which books exist. A file that is absent or half-written keeps what was known of it.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::Connection;
use uuid::Uuid;

use super::calibre::{self, CatalogueBook, FormatRow};
use super::files::{FileState, in_order, inside, not_in_order, stat_file, why_none};
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
            Some(before) if !request.full || found_usable => FileSeen::Whole(before.clone()),
            _ => see(request, format, path.clone(), now_us)?,
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

fn see(request: &LookRequest, row: &FormatRow, path: PathBuf, now_us: i64) -> Result<FileSeen, LibraryError> {
    let not_now = |reason: String, settled: bool| FileSeen::NotNow { reason, settled };
    Ok(match stat_file(request.path, &path, request.heartbeat)? {
        // The size in the catalogue is what Calibre wrote. Another size is a writer at work, or, once the file has
        // come to rest, a file that another program replaced.
        FileState::There(stat) if stat.size != row.size && stat.is_fresh(now_us) => {
            not_now(format!("its file {} is still being written", path.display()), false)
        }
        FileState::There(stat) => FileSeen::Whole(BookFile {
            format: row.format.clone(),
            path,
            data_id: Some(row.id),
            size: stat.size,
            mtime_us: stat.mtime_us,
        }),
        FileState::Absent => not_now(format!("its file {} is not there", path.display()), false),
        FileState::Unusable(why) => not_now(format!("its file {} {why}", path.display()), true),
    })
}
