//! Shelf to queue: takes a look at a library, compares it with the state, and records what changed.
//!
//! A look that fails removes nothing. Removals wait for the grace time, and a great many at once for a person.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use super::formats::why_unread;
use super::story;
use crate::clock::now_us;
use crate::domain::{Change, LibraryKind, PassedOver, Sighting};
use crate::library::diff::{Comparison, too_many_removals};
use crate::library::{self, Heartbeat, LibraryError, LookRequest, Shelf};
use crate::queue::{Applied, LibraryRecord, QueueError, QueueHandle, QueueStopped};
use crate::telemetry::event;

/// How a library is looked at.
#[derive(Debug, Clone)]
pub struct ReconcileSettings {
    pub path: PathBuf,
    pub formats: Vec<String>,
    pub scratch_dir: PathBuf,
    pub removal: RemovalRules,
    /// The service's own library: it must stay the same one, and absent books leave the index. Not so for a library
    /// named by hand once.
    pub watched: bool,
}

/// How books leave the index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RemovalRules {
    /// How long a book must stay absent.
    pub grace_us: i64,
    /// More removals at once than the larger of these two wait for a person.
    pub limit: usize,
    /// Of the known books.
    pub limit_percent: f64,
}

/// What the last looks found, for the status.
#[derive(Debug, Clone, Default)]
pub struct ShelfState {
    pub library: Option<LibraryRecord>,
    /// Why the library is not available; None where the last look was complete.
    pub unavailable: Option<String>,
    pub last_look_us: Option<i64>,
    /// What that look found new.
    pub last_applied: Applied,
    pub books: usize,
    pub passed_over: Vec<PassedOver>,
    pub removals_waiting: usize,
}

/// Why a look changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error(
        "{} is a copy of the watched library {}, or the same one by another path; its books come in by that one",
        path.display(),
        original.display()
    )]
    CopyOfWatched { path: PathBuf, original: PathBuf },
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
    removal: Mutex<RemovalRules>,
    shelf: Mutex<ShelfState>,
    /// The books whose removal waits for a person.
    held: Mutex<HashSet<Uuid>>,
    /// Those of them that a person let go; forgotten after one complete look.
    approved: Mutex<HashSet<Uuid>>,
    /// Those whose removal is queued: they are seen as gone until it is done.
    released: Mutex<HashSet<Uuid>>,
    /// The steady clock and the wall clock at the last look.
    clocks: Mutex<Option<(Instant, i64)>>,
}

/// The wall clock is believed while it keeps step with the steady one to this many microseconds.
const CLOCK_JUMP_US: i64 = 30_000_000;

impl Reconciler {
    pub fn new(queue: QueueHandle, settings: ReconcileSettings) -> Self {
        Self {
            queue,
            removal: Mutex::new(settings.removal),
            settings,
            shelf: Mutex::default(),
            held: Mutex::default(),
            approved: Mutex::default(),
            released: Mutex::default(),
            clocks: Mutex::default(),
        }
    }

    pub fn settings(&self) -> &ReconcileSettings {
        &self.settings
    }

    /// How books leave the index, as of now.
    pub fn removal_rules(&self) -> RemovalRules {
        *lock(&self.removal)
    }

    /// Books leave the index by these rules from the next look on.
    pub fn set_removal_rules(&self, rules: RemovalRules) {
        *lock(&self.removal) = rules;
    }

    /// What the last looks found.
    pub fn shelf(&self) -> ShelfState {
        self.lock().clone()
    }

    /// Lets the removals that wait now go at the next look, and no more than those. Returns how many they are.
    pub fn approve_removals(&self) -> usize {
        let waiting = lock(&self.held).clone();
        let count = waiting.len();
        *lock(&self.approved) = waiting;
        count
    }

    /// Looks once and records the changes. `full` compares every file.
    pub fn look(&self, full: bool, heartbeat: &Heartbeat) -> Result<Looked, LookError> {
        let result = self.look_and_apply(full, heartbeat);
        let mut shelf = self.lock();
        match &result {
            Ok(_) => {
                if shelf.unavailable.take().is_some() {
                    tracing::info!(
                        MESSAGE_ID = event::LIBRARY_BACK,
                        LIBRARY = %self.settings.path.display(),
                        "library {} is available",
                        self.settings.path.display()
                    );
                }
                shelf.last_look_us = Some(now_us());
            }
            Err(error) => {
                let reason = error.to_string();
                // Once, not at every retry.
                if shelf.unavailable.as_ref() != Some(&reason) {
                    match error {
                        LookError::Library(error) if error.needs_operator() => tracing::error!(
                            MESSAGE_ID = event::LIBRARY_AWAY,
                            LIBRARY = %self.settings.path.display(),
                            REASON = reason,
                            "{reason}"
                        ),
                        _ => tracing::warn!(
                            MESSAGE_ID = event::LIBRARY_AWAY,
                            LIBRARY = %self.settings.path.display(),
                            REASON = reason,
                            "{reason}"
                        ),
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
        let shelf = Shelf::open(LookRequest {
            path: &self.settings.path,
            kind,
            folder_uuid: record.as_ref().filter(|_| kind == LibraryKind::Folder).map(|record| record.uuid),
            expected: record.as_ref().map(|record| record.uuid),
            formats: &self.settings.formats,
            why_unread,
            scratch_dir: &self.settings.scratch_dir,
            full,
            heartbeat,
        })?;
        let uuid = shelf.library_uuid();
        self.refuse_a_copy(uuid)?;
        // Also where it is first seen here: it may be known from elsewhere.
        let known = self.queue.call(move |queue| queue.known_books(uuid))??;
        let now_us = now_us();
        let mut record =
            Record { reconciler: self, kind, uuid, now_us, library: None, applied: Applied::default(), told: 0 };
        let mut comparison = Comparison::with(&known);
        let mut passed_over = Vec::new();
        let look = shelf.look(&known, |sightings| -> Result<(), LookError> {
            let mut changes = Vec::new();
            for sighting in sightings {
                match sighting {
                    Sighting::Book(book) => comparison.seen(book, &mut changes),
                    Sighting::AsKnown(uuid) => comparison.seen_as_known(uuid, &mut changes),
                    Sighting::PassedOver(book) => {
                        comparison.seen_as_known(book.uuid, &mut changes);
                        passed_over.push(book);
                    }
                }
            }
            record.take_in(changes)
        })?;
        if kind == LibraryKind::Folder && look.books + look.passed_over == 0 && !known.is_empty() {
            // Calibre's catalogue says by its uuid that it is the right one; a folder without books says nothing, and
            // the brake would let a small one go.
            return Err(LibraryError::Empty { path: self.settings.path.clone() }.into());
        }
        let still_missing = comparison.still_missing();
        let mut absent = comparison.absent(now_us, self.removal_rules().grace_us);
        if self.clock_jumped(Instant::now(), now_us) {
            self.restart_graces(&mut absent, still_missing);
        }
        let under_way = lock(&self.released).clone();
        let removals_waiting = self.hold_removals(&mut absent, known.len(), kind);
        let went: Vec<(Uuid, bool)> = absent
            .iter()
            .filter_map(|change| match change {
                Change::Missing(book) => Some((*book, false)),
                Change::Gone(book) if !under_way.contains(book) => Some((*book, true)),
                _ => None,
            })
            .take(story::TOLD_OF_A_LOOK)
            .collect();
        record.take_in(absent)?;
        self.tell_absent(uuid, went)?;
        let library = record.library()?;
        let applied = record.applied;
        if !applied.is_empty() {
            tracing::info!(
                MESSAGE_ID = event::LIBRARY_CHANGED,
                LIBRARY = %self.settings.path.display(),
                "library looked at: {applied}"
            );
        }
        let grace_runs = known.iter().any(|book| book.missing_since_us.is_some()) || applied.missing > 0;
        let mut shelf = self.lock();
        if removals_waiting > 0 && shelf.removals_waiting != removals_waiting {
            tracing::error!(
                MESSAGE_ID = event::REMOVALS_HELD,
                BOOKS = removals_waiting,
                "{removals_waiting} books are gone from the library, more than library.removal_limit allows at once; nothing is removed. Bring them back, or let them go with `alexandriactl approve`"
            );
        }
        // Said once: they are listed, not worked on, so nothing else tells of them.
        let unreadable = |books: &[PassedOver]| books.iter().filter(|book| !book.formats.is_empty()).count();
        let found = unreadable(&passed_over);
        if found > unreadable(&shelf.passed_over) {
            tracing::info!("{found} books have no file that can be read; `alexandriactl failed` says why");
        }
        shelf.library = Some(library);
        shelf.last_applied = applied;
        shelf.books = look.books;
        shelf.passed_over = passed_over;
        shelf.removals_waiting = removals_waiting;
        Ok(Looked { applied, unsettled: look.unsettled > 0 || (self.settings.watched && grace_runs) })
    }

    /// Tells of books that were not found: their names are in the state alone. `gone`: their grace is over.
    fn tell_absent(&self, library: Uuid, went: Vec<(Uuid, bool)>) -> Result<(), LookError> {
        if went.is_empty() {
            return Ok(());
        }
        let books = self.queue.call(move |queue| {
            let named = |(book, gone)| Ok(queue.book(library, book)?.map(|record| (record.book, gone)));
            went.into_iter().map(named).collect::<Result<Vec<_>, QueueError>>()
        })??;
        for (book, gone) in books.into_iter().flatten() {
            story::absent(&book, gone);
        }
        Ok(())
    }

    /// The library this path must be: the watched one, or the one that the state knows at this path.
    fn known_library(&self, kind: LibraryKind) -> Result<Option<LibraryRecord>, LookError> {
        let (watched, path) = (self.settings.watched, self.settings.path.clone());
        let (expected, libraries) = self.queue.call(move |queue| -> Result<_, QueueError> {
            Ok((if watched { queue.watched_library()? } else { None }, queue.libraries()?))
        })??;
        // Paths are resolved here, not on the queue's thread: another library's mount may hang.
        let record = libraries.into_iter().find(|library| match expected {
            Some(uuid) => library.uuid == uuid,
            None => library.kind != LibraryKind::Files && same_path(&library.path, &path),
        });
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

    /// A copy of the watched library, or a second way to it, has the same books: taken in by hand it would bend their
    /// paths away from the place that is watched.
    fn refuse_a_copy(&self, found: Uuid) -> Result<(), LookError> {
        if self.settings.watched {
            return Ok(());
        }
        let original = self.queue.call(move |queue| -> Result<_, QueueError> {
            let watched = queue.watched_library()?.filter(|watched| *watched == found);
            let libraries = queue.libraries()?;
            Ok(watched.and_then(|uuid| libraries.into_iter().find(|library| library.uuid == uuid)))
        })??;
        match original {
            Some(original) if !same_path(&original.path, &self.settings.path) => {
                Err(LookError::CopyOfWatched { path: self.settings.path.clone(), original: original.path })
            }
            _ => Ok(()),
        }
    }

    fn remember_library(&self, kind: LibraryKind, uuid: Uuid) -> Result<LibraryRecord, LookError> {
        let (watched, path) = (self.settings.watched, self.settings.path.clone());
        Ok(self.queue.call(move |queue| {
            let library = queue.library_at(kind, &path, Some(uuid))?;
            // A look that finds nothing new is not to write anything.
            if watched && queue.watched_library()? != Some(library.uuid) {
                queue.set_watched_library(library.uuid)?;
            }
            Ok::<_, QueueError>(library)
        })??)
    }

    /// Whether the wall clock was set since the last look, by more than clocks drift.
    fn clock_jumped(&self, steady: Instant, now_us: i64) -> bool {
        let before = lock(&self.clocks).replace((steady, now_us));
        before.is_some_and(|(steady_before, before_us)| {
            let passed = i64::try_from(steady.saturating_duration_since(steady_before).as_micros()).unwrap_or(i64::MAX);
            (now_us - before_us - passed).abs() > CLOCK_JUMP_US
        })
    }

    /// Has every book that is still missing found missing anew, but for those whose removal is under way: by a clock that
    /// was set forward its grace would be over at once.
    fn restart_graces(&self, changes: &mut Vec<Change>, still_missing: Vec<Uuid>) {
        let released = lock(&self.released);
        let anew: HashSet<Uuid> = still_missing.into_iter().filter(|uuid| !released.contains(uuid)).collect();
        changes.retain(|change| !matches!(change, Change::Gone(uuid) | Change::Missing(uuid) if anew.contains(uuid)));
        changes.extend(anew.into_iter().flat_map(|uuid| [Change::Returned(uuid), Change::Missing(uuid)]));
    }

    /// Takes removals out of the changes where they must not happen; returns how many wait for a person.
    fn hold_removals(&self, changes: &mut Vec<Change>, known: usize, kind: LibraryKind) -> usize {
        if !self.settings.watched {
            changes.retain(|change| !matches!(change, Change::Missing(_) | Change::Gone(_)));
            return 0;
        }
        let approved = std::mem::take(&mut *lock(&self.approved));
        let mut released = lock(&self.released);
        let gone: HashSet<Uuid> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Gone(uuid) => Some(*uuid),
                _ => None,
            })
            .collect();
        released.retain(|uuid| gone.contains(uuid));
        let fresh: HashSet<Uuid> = gone.difference(&released).copied().collect();
        let rules = self.removal_rules();
        let too_many = too_many_removals(fresh.len(), known, rules.limit, rules.limit_percent)
                // A folder has nothing that says it is the right one: most of it gone may be a mount that is not there.
                || (kind == LibraryKind::Folder && known > 1 && fresh.len() * 2 > known);
        if too_many && !fresh.is_subset(&approved) {
            changes.retain(|change| !matches!(change, Change::Gone(uuid) if fresh.contains(uuid)));
            let waiting = fresh.len();
            *lock(&self.held) = fresh;
            return waiting;
        }
        if too_many {
            tracing::info!(
                MESSAGE_ID = event::REMOVALS_APPROVED,
                BOOKS = fresh.len(),
                "{} books leave the index, as approved",
                fresh.len()
            );
        }
        lock(&self.held).clear();
        released.extend(fresh);
        0
    }

    fn lock(&self) -> MutexGuard<'_, ShelfState> {
        lock(&self.shelf)
    }
}

/// What one look has the state learn.
struct Record<'a> {
    reconciler: &'a Reconciler,
    kind: LibraryKind,
    uuid: Uuid,
    now_us: i64,
    /// None until it is registered: a look that learns nothing leaves no trace.
    library: Option<LibraryRecord>,
    applied: Applied,
    /// Books of this look that the log was told of.
    told: usize,
}

impl Record<'_> {
    /// Queues the work that changes mean. Of a large library that is seen for the first time these are some of many: the
    /// queue's thread serves others in between, and what a kill leaves out the next look finds.
    fn take_in(&mut self, changes: Vec<Change>) -> Result<(), LookError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.library()?;
        let (library, now_us) = (self.uuid, self.now_us);
        let news = story::news(&changes);
        let applied = self.reconciler.queue.call(move |queue| queue.apply(library, &changes, now_us))??;
        self.applied = self.applied.plus(&applied);
        story::found(&news, &mut self.told);
        Ok(())
    }

    fn library(&mut self) -> Result<LibraryRecord, LookError> {
        if let Some(library) = &self.library {
            return Ok(library.clone());
        }
        let library = self.reconciler.remember_library(self.kind, self.uuid)?;
        self.library = Some(library.clone());
        Ok(library)
    }
}

/// The guarded values are whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn same_path(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;

    fn reconciler() -> Reconciler {
        let queue = QueueHandle::spawn(Queue::open_in_memory().unwrap()).unwrap();
        let settings = ReconcileSettings {
            path: "/library".into(),
            formats: vec![],
            scratch_dir: "/scratch".into(),
            removal: RemovalRules { grace_us: 0, limit: 10, limit_percent: 2.0 },
            watched: true,
        };
        Reconciler::new(queue, settings)
    }

    fn gone(numbers: std::ops::Range<u128>) -> Vec<Change> {
        numbers.map(|number| Change::Gone(Uuid::from_u128(number))).collect()
    }

    #[test]
    fn an_approval_lets_go_what_was_held_and_nothing_else() {
        let (reconciler, known) = (reconciler(), 100);
        let mut changes = gone(0..12);
        assert_eq!(reconciler.hold_removals(&mut changes, known, LibraryKind::Calibre), 12);
        assert!(changes.is_empty());
        assert_eq!(reconciler.approve_removals(), 12);
        // Meanwhile those came back and others went.
        let mut changes = gone(50..62);
        assert_eq!(reconciler.hold_removals(&mut changes, known, LibraryKind::Calibre), 12);
        // The word is spent, even for the first ones.
        let mut changes = gone(0..12);
        assert_eq!(reconciler.hold_removals(&mut changes, known, LibraryKind::Calibre), 12);
        assert_eq!(reconciler.approve_removals(), 12);
        let mut changes = gone(0..12);
        assert_eq!(reconciler.hold_removals(&mut changes, known, LibraryKind::Calibre), 0);
        assert_eq!(changes.len(), 12);
    }

    #[test]
    fn a_clock_that_was_set_forward_ends_no_grace() {
        const HOUR_US: i64 = 3_600_000_000;
        let reconciler = reconciler();
        let start = Instant::now();
        let after = |seconds: u64| start + std::time::Duration::from_secs(seconds);
        assert!(!reconciler.clock_jumped(start, 0), "the first look has nothing to compare with");
        assert!(!reconciler.clock_jumped(after(600), 600_000_000));
        assert!(reconciler.clock_jumped(after(602), 602_000_000 + HOUR_US));
        assert!(!reconciler.clock_jumped(after(604), 604_000_000 + HOUR_US));
        assert!(reconciler.clock_jumped(after(606), 606_000_000), "and back");
        // One is under way, one waits.
        lock(&reconciler.released).insert(Uuid::from_u128(0));
        let mut changes = vec![gone(0..1).remove(0), gone(2..3).remove(0)];
        reconciler.restart_graces(&mut changes, vec![Uuid::from_u128(0), Uuid::from_u128(2)]);
        let waits = Uuid::from_u128(2);
        let expected = [Change::Gone(Uuid::from_u128(0)), Change::Returned(waits), Change::Missing(waits)];
        assert_eq!(changes, expected);
    }

    #[test]
    fn removals_under_way_raise_no_alarm() {
        let (reconciler, known) = (reconciler(), 100);
        assert_eq!(reconciler.hold_removals(&mut gone(0..10), known, LibraryKind::Calibre), 0);
        // The first ten are still gone at the next look, and two more.
        let mut changes = gone(0..12);
        assert_eq!(reconciler.hold_removals(&mut changes, known, LibraryKind::Calibre), 0);
        assert_eq!(changes.len(), 12);
    }

    #[test]
    fn most_of_a_folder_never_goes_unasked() {
        let reconciler = reconciler();
        assert_eq!(reconciler.hold_removals(&mut gone(0..4), 4, LibraryKind::Folder), 4);
        assert_eq!(reconciler.hold_removals(&mut gone(0..4), 4, LibraryKind::Calibre), 0);
        assert_eq!(reconciler.hold_removals(&mut gone(0..1), 1, LibraryKind::Folder), 0);
    }
}
