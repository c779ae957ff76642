//! Shelf to queue: takes a look at a library, compares it with the state, and records what changed.
//!
//! A look that fails changes nothing. Removals wait for the grace time, and a great many at once for a person.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::clock::now_us;
use crate::domain::{Change, KnownBook, LibraryKind, PassedOver};
use crate::library::diff::{diff, too_many_removals};
use crate::library::{self, Heartbeat, LibraryError, SnapshotRequest};
use crate::queue::{Applied, LibraryRecord, QueueError, QueueHandle, QueueStopped};

/// How a library is looked at.
#[derive(Debug, Clone)]
pub struct ReconcileSettings {
    pub path: PathBuf,
    pub formats: Vec<String>,
    pub scratch_dir: PathBuf,
    pub removal_grace_us: i64,
    pub removal_limit: usize,
    pub removal_limit_percent: f64,
    /// The service's own library: it must stay the same one, and absent books leave the index. Not so for a library
    /// named by hand once.
    pub watched: bool,
}

/// What the last looks found, for the status.
#[derive(Debug, Clone, Default)]
pub struct ShelfState {
    pub library: Option<LibraryRecord>,
    /// Why the library is not available; None where the last look was complete.
    pub unavailable: Option<String>,
    pub last_look_us: Option<i64>,
    pub books: usize,
    pub passed_over: Vec<PassedOver>,
    pub removals_waiting: usize,
}

/// Why a look changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Stopped(#[from] QueueStopped),
}

/// A complete look, recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Looked {
    pub applied: Applied,
    /// Files not whole yet, or books whose grace time runs: worth another look soon.
    pub unsettled: bool,
}

/// Looks at one library on request.
pub struct Reconciler {
    queue: QueueHandle,
    settings: ReconcileSettings,
    shelf: Mutex<ShelfState>,
    /// So many removals may go although they are too many; 0 when nobody said so.
    approved: AtomicUsize,
}

impl Reconciler {
    pub fn new(queue: QueueHandle, settings: ReconcileSettings) -> Self {
        Self { queue, settings, shelf: Mutex::default(), approved: AtomicUsize::new(0) }
    }

    pub fn settings(&self) -> &ReconcileSettings {
        &self.settings
    }

    /// What the last looks found.
    pub fn shelf(&self) -> ShelfState {
        self.lock().clone()
    }

    /// Lets the removals that wait now go at the next look, and no more than those. Returns how many they are.
    pub fn approve_removals(&self) -> usize {
        let waiting = self.lock().removals_waiting;
        self.approved.store(waiting, Ordering::Relaxed);
        waiting
    }

    /// Looks once and records the changes. `full` compares every file.
    pub fn look(&self, full: bool, heartbeat: &Heartbeat) -> Result<Looked, LookError> {
        let result = self.look_and_apply(full, heartbeat);
        let mut shelf = self.lock();
        match &result {
            Ok(_) => {
                if shelf.unavailable.take().is_some() {
                    tracing::info!("library {} is available again", self.settings.path.display());
                }
                shelf.last_look_us = Some(now_us());
            }
            Err(error) => {
                let reason = error.to_string();
                // Once, not at every retry.
                if shelf.unavailable.as_ref() != Some(&reason) {
                    match error {
                        LookError::Library(error) if error.needs_operator() => tracing::error!("{reason}"),
                        _ => tracing::warn!("{reason}"),
                    }
                }
                shelf.unavailable = Some(reason);
            }
        }
        drop(shelf);
        heartbeat.rest();
        result
    }

    fn look_and_apply(&self, full: bool, heartbeat: &Heartbeat) -> Result<Looked, LookError> {
        heartbeat.beat();
        let kind = library::detect(&self.settings.path)?;
        let record = self.known_library(kind)?;
        let known = match &record {
            Some(record) => {
                let uuid = record.uuid;
                self.queue.call(move |queue| queue.known_books(uuid))??
            }
            None => Vec::new(),
        };
        let look = library::take_snapshot(&SnapshotRequest {
            path: &self.settings.path,
            kind,
            folder_uuid: record.as_ref().filter(|_| kind == LibraryKind::Folder).map(|record| record.uuid),
            expected: record.as_ref().map(|record| record.uuid),
            formats: &self.settings.formats,
            known: &known,
            scratch_dir: &self.settings.scratch_dir,
            full,
            heartbeat,
        })?;
        let snapshot = look.snapshot;
        let empty = snapshot.books.is_empty() && snapshot.passed_over.is_empty();
        if kind == LibraryKind::Folder && empty && !known.is_empty() {
            // Calibre's catalogue says by its uuid that it is the right one; a folder without books says nothing, and
            // the brake would let a small one go.
            return Err(LibraryError::Empty { path: self.settings.path.clone() }.into());
        }
        let library = self.remember_library(kind, snapshot.library_uuid)?;
        let now = now_us();
        let mut changes = diff(&known, &snapshot, now, self.settings.removal_grace_us);
        let removals_waiting = self.hold_removals(&mut changes, &known);
        let uuid = library.uuid;
        let applied = self.queue.call(move |queue| queue.apply(uuid, &changes, now))??;
        if !applied.is_empty() {
            tracing::info!("library looked at: {applied}");
        }
        let grace_runs = known.iter().any(|book| book.missing_since_us.is_some()) || applied.missing > 0;
        let mut shelf = self.lock();
        if removals_waiting > 0 && shelf.removals_waiting != removals_waiting {
            tracing::warn!(
                "{removals_waiting} books are gone from the library, more than library.removal_limit allows at once; nothing is removed. Bring them back, or let them go with `alexandriactl approve`"
            );
        }
        shelf.library = Some(library);
        shelf.books = snapshot.books.len();
        shelf.passed_over = snapshot.passed_over;
        shelf.removals_waiting = removals_waiting;
        Ok(Looked { applied, unsettled: look.unsettled > 0 || (self.settings.watched && grace_runs) })
    }

    /// The library this path must be: the watched one, or the one that the state knows at this path.
    fn known_library(&self, kind: LibraryKind) -> Result<Option<LibraryRecord>, LookError> {
        let (watched, path) = (self.settings.watched, self.settings.path.clone());
        let record = self.queue.call(move |queue| -> Result<_, QueueError> {
            let expected = if watched { queue.watched_library()? } else { None };
            let libraries = queue.libraries()?;
            Ok(match expected {
                Some(uuid) => libraries.into_iter().find(|library| library.uuid == uuid),
                None if watched => None,
                None => libraries.into_iter().find(|library| library.kind == kind && same_path(&library.path, &path)),
            })
        })??;
        if let Some(record) = &record {
            let path = self.settings.path.clone();
            match (record.kind, kind) {
                // The share is not mounted, or its metadata.db is gone: a Calibre library never turns into a folder.
                (LibraryKind::Calibre, LibraryKind::Folder) => return Err(LibraryError::NoDatabase { path }.into()),
                (LibraryKind::Folder, _) if self.settings.watched && !same_path(&record.path, &path) => {
                    let found = library::folder_uuid_of_path(&path);
                    return Err(LibraryError::WrongLibrary { path, found, expected: record.uuid }.into());
                }
                _ => {}
            }
        }
        Ok(record)
    }

    fn remember_library(&self, kind: LibraryKind, uuid: Uuid) -> Result<LibraryRecord, LookError> {
        let (watched, path) = (self.settings.watched, self.settings.path.clone());
        Ok(self.queue.call(move |queue| {
            let library = queue.library_at(kind, &path, Some(uuid))?;
            if watched {
                queue.set_watched_library(library.uuid)?;
            }
            Ok::<_, QueueError>(library)
        })??)
    }

    /// Takes removals out of the changes where they must not happen; returns how many wait for a person.
    fn hold_removals(&self, changes: &mut Vec<Change>, known: &[KnownBook]) -> usize {
        if !self.settings.watched {
            changes.retain(|change| !matches!(change, Change::Missing(_) | Change::Gone(_)));
            return 0;
        }
        let gone = changes.iter().filter(|change| matches!(change, Change::Gone(_))).count();
        let settings = &self.settings;
        if !too_many_removals(gone, known.len(), settings.removal_limit, settings.removal_limit_percent) {
            return 0;
        }
        if gone <= self.approved.swap(0, Ordering::Relaxed) {
            tracing::info!("{gone} books leave the index, as approved");
            return 0;
        }
        changes.retain(|change| !matches!(change, Change::Gone(_)));
        gone
    }

    fn lock(&self) -> MutexGuard<'_, ShelfState> {
        // The state is whole at every moment.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same_path(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
