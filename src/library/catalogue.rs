//! A look at a Calibre library: the catalogue's rows and the files they name become books.
//!
//! The catalogue alone says which books exist. A file that is absent or half-written keeps what was known of it.

use std::collections::HashMap;

use uuid::Uuid;

use super::calibre::{Catalogue, CatalogueBook};
use super::files::{FileState, choose, inside, stat_file};
use super::{LibraryError, Look, SnapshotRequest};
use crate::clock::now_us;
use crate::domain::{Book, BookFile, KnownBook, LibraryKind, PassedOver, ShelfSnapshot, Source};

/// Stats the chosen files: of new and changed rows only, or of every book on a full look.
pub(super) fn look(request: &SnapshotRequest, catalogue: Catalogue) -> Result<Look, LibraryError> {
    let known: HashMap<Uuid, &KnownBook> = request.known.iter().map(|known| (known.book.uuid, known)).collect();
    let mut look = Look {
        snapshot: ShelfSnapshot {
            library_uuid: catalogue.library_uuid,
            kind: LibraryKind::Calibre,
            books: Vec::with_capacity(catalogue.books.len()),
            passed_over: Vec::new(),
        },
        unsettled: 0,
    };
    let now_us = now_us();
    for row in catalogue.books {
        let known = known.get(&row.uuid).map(|known| &known.book.file);
        match find_file(request, &row, known, now_us)? {
            Found::File { file, settled } => {
                look.unsettled += usize::from(!settled);
                look.snapshot.books.push(Book {
                    uuid: row.uuid,
                    library_uuid: catalogue.library_uuid,
                    source: Source::Calibre(row.id),
                    metadata: row.metadata,
                    file,
                    added_us: row.added_us,
                });
            }
            Found::Nothing { reason, settled } => {
                look.unsettled += usize::from(!settled);
                look.snapshot.passed_over.push(PassedOver { uuid: row.uuid, title: row.metadata.title, reason });
            }
        }
    }
    Ok(look)
}

enum Found {
    File {
        file: BookFile,
        settled: bool,
    },
    /// `settled` is false where the next look may well find more.
    Nothing {
        reason: String,
        settled: bool,
    },
}

fn find_file(
    request: &SnapshotRequest,
    row: &CatalogueBook,
    known: Option<&BookFile>,
    now_us: i64,
) -> Result<Found, LibraryError> {
    let nothing = |reason: String| Ok(Found::Nothing { reason, settled: true });
    if row.path.is_empty() || row.formats.is_empty() {
        // Normal while Calibre adds a book; the row's next change is seen as any other.
        return nothing("it has no book file".to_owned());
    }
    let Some(at) = choose(request.formats, row.formats.iter().map(|format| format.format.as_str())) else {
        let formats: Vec<&str> = row.formats.iter().map(|format| format.format.as_str()).collect();
        return nothing(format!("none of its formats ({}) is among library.formats", formats.join(", ")));
    };
    let chosen = &row.formats[at];
    let relative = format!("{}/{}.{}", row.path, chosen.name, chosen.format.to_lowercase());
    let Some(path) = inside(request.path, &relative) else {
        return nothing(format!("its path '{relative}' leads out of the library"));
    };

    if let Some(known) = known {
        let same_row = known.data_id == Some(chosen.id) && known.format == chosen.format && known.path == path;
        if same_row && !request.full {
            return Ok(Found::File { file: known.clone(), settled: true });
        }
    }
    // A book that is known stays what it was until its file can be seen whole.
    let keep = |reason: String, settled: bool| {
        Ok(match known {
            Some(known) => Found::File { file: known.clone(), settled },
            None => Found::Nothing { reason, settled },
        })
    };
    match stat_file(request.path, &path, request.heartbeat)? {
        // The size in the catalogue is what Calibre wrote. Another size is a writer at work, or, once the file has
        // come to rest, a file that another program replaced.
        FileState::There(stat) if stat.size != chosen.size && stat.is_fresh(now_us) => {
            keep(format!("its file {} is still being written", path.display()), false)
        }
        FileState::There(stat) => Ok(Found::File {
            file: BookFile {
                format: chosen.format.clone(),
                path,
                data_id: Some(chosen.id),
                size: stat.size,
                mtime_us: stat.mtime_us,
            },
            settled: true,
        }),
        FileState::Absent => keep(format!("its file {} is not there", path.display()), false),
        FileState::Unusable(why) => keep(format!("its file {} {why}", path.display()), true),
    }
}
