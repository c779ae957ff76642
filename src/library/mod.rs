//! What is on the shelf: looks at a Calibre library or a plain folder, and what changed since the state last saw it.
//!
//! ```text
//! watch (when to look) ──> Shelf, book by book ──> diff (what the state must learn)
//!                            ├─ Calibre: snapshot (untorn copy of metadata.db) -> calibre (rows) -> catalogue (books)
//!                            └─ folder:  walk, books recognised again by place, or by size and time after a rename
//! ```
//!
//! Must never open anything in the library for writing, and never report less than a complete look: an error, an empty
//! directory, another library or a mount that came or went are errors, not a smaller shelf. Every call here may block
//! as long as the mount does, so none may be made on an async worker thread.

mod calibre;
mod catalogue;
pub mod diff;
mod error;
mod files;
mod folder;
mod mount;
mod notify_cifs;
mod schedule;
mod snapshot;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use uuid::Uuid;

pub use error::{LibraryError, is_mount_trouble};
pub use folder::{folder_uuid_of_path, single_file};
pub use mount::{MountInfo, mount_info};
pub use watch::{Hint, LookOutcome, LookReason, Settings, WatchStatus, Watcher};

use crate::domain::{KnownBook, LibraryKind, Sighting};

/// Calibre's catalogue, in the library's root.
const DATABASE: &str = "metadata.db";

/// Sightings handed over at once: enough that the root's check before each is nothing beside them, few enough that a
/// large library is never in memory as a whole.
const HANDED_OVER: usize = 1000;

/// What a look needs to know.
#[derive(Debug, Clone, Copy)]
pub struct LookRequest<'a> {
    pub path: &'a Path,
    /// The state's kind of this library, and what [`detect`] says at first sight only: a Calibre library whose
    /// `metadata.db` is away must not be walked as a folder.
    pub kind: LibraryKind,
    /// A plain folder's identity, from the state; None: from its path. (A Calibre library carries its own.)
    pub folder_uuid: Option<Uuid>,
    /// The library the index was made from: any other is refused. None: take what is there.
    pub expected: Option<Uuid>,
    /// Formats in the order of preference.
    pub formats: &'a [String],
    /// Why a book's file of a format is not read, where that is not one of `formats`; None for what is no book. The
    /// shelf knows no readers.
    pub why_unread: fn(&str) -> Option<String>,
    /// A local directory for the copy of `metadata.db`, the service's own.
    pub scratch_dir: &'a Path,
    /// Stat every book's file, to find what changed behind Calibre's back. A plain folder is always looked at whole.
    pub full: bool,
    /// Told of every step, so that a watchdog can tell slow from hanging.
    pub heartbeat: &'a Heartbeat,
}

/// Calibre where there is a `metadata.db`, else a plain folder. An empty directory is an error: it may be a mount point.
pub fn detect(path: &Path) -> Result<LibraryKind, LibraryError> {
    mount::Root::open(path)?;
    match fs::symlink_metadata(path.join(DATABASE)) {
        Ok(_) => Ok(LibraryKind::Calibre),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LibraryKind::Folder),
        Err(error) => Err(LibraryError::from_io(path, error)),
    }
}

/// Whether the library's server answers just now: asked for a name that nothing on the way can have in its cache.
pub fn answers(path: &Path) -> bool {
    let probe = path.join(format!(".alexandria-{}", Uuid::new_v4().simple()));
    fs::symlink_metadata(probe).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A library that is there and is the right one, ready to be looked at once.
pub struct Shelf<'a> {
    request: LookRequest<'a>,
    /// Absolute: the books' paths are, whatever the caller was given.
    path: PathBuf,
    root: mount::Root,
    library_uuid: Uuid,
    /// None for a plain folder.
    catalogue: Option<snapshot::DatabaseCopy>,
}

/// A complete look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Books that can be read, or could be when they were last seen.
    pub books: usize,
    pub passed_over: usize,
    /// Books whose file was absent or still being written: look again soon, though the signature may stay the same.
    pub unsettled: usize,
}

/// A sighting as the two kinds of shelves make it; `settled` is false where the next look may well find more.
struct Seen {
    sighting: Sighting,
    settled: bool,
}

impl<'a> Shelf<'a> {
    /// Finds out which library it is; copies its catalogue where it has one.
    pub fn open(request: LookRequest<'a>) -> Result<Self, LibraryError> {
        let path = std::path::absolute(request.path).map_err(|source| LibraryError::from_io(request.path, source))?;
        request.heartbeat.beat();
        let root = mount::Root::open(&path)?;
        let (library_uuid, catalogue) = match request.kind {
            LibraryKind::Files => return Err(LibraryError::NeverScanned { path }),
            LibraryKind::Folder => (request.folder_uuid.unwrap_or_else(|| folder_uuid_of_path(&path)), None),
            LibraryKind::Calibre => {
                let patience = snapshot::Patience::default();
                let copy = snapshot::copy_database(&path, request.scratch_dir, patience, request.heartbeat).map_err(
                    |error| match error {
                        LibraryError::Missing { .. } => LibraryError::NoDatabase { path: path.clone() },
                        other => other,
                    },
                )?;
                (calibre::identify(&copy.connection, &path.join(DATABASE))?, Some(copy))
            }
        };
        // Before any file is looked at: a look at another library's files costs time and means nothing.
        match request.expected {
            Some(expected) if expected != library_uuid => {
                Err(LibraryError::WrongLibrary { path, found: library_uuid, expected })
            }
            _ => Ok(Self { request, path, root, library_uuid, catalogue }),
        }
    }

    pub fn library_uuid(&self) -> Uuid {
        self.library_uuid
    }

    /// Looks at every book and hands the sightings over, many at once, each time after a check that the root is still
    /// the same. An error means that the look is not complete; what was handed over before is true all the same.
    ///
    /// `known` are the state's books of this library: they spare stat calls, and let renamed files keep their identity.
    pub fn look<E: From<LibraryError>>(
        self,
        known: &[KnownBook],
        mut take: impl FnMut(Vec<Sighting>) -> Result<(), E>,
    ) -> Result<Look, E> {
        let request = &LookRequest { path: &self.path, ..self.request };
        let mut look = Look::default();
        let mut waiting = Vec::with_capacity(HANDED_OVER);
        let mut see = |seen: Seen| -> Result<(), E> {
            match seen.sighting {
                Sighting::Book(_) | Sighting::AsKnown(_) => look.books += 1,
                Sighting::PassedOver(_) => look.passed_over += 1,
            }
            look.unsettled += usize::from(!seen.settled);
            waiting.push(seen.sighting);
            if waiting.len() < HANDED_OVER {
                return Ok(());
            }
            self.root.check_unchanged(&self.path)?;
            take(std::mem::replace(&mut waiting, Vec::with_capacity(HANDED_OVER)))
        };
        match &self.catalogue {
            Some(copy) => catalogue::look(request, &copy.connection, self.library_uuid, known, &mut see)?,
            None => folder::look(request, self.library_uuid, known, &mut see)?,
        }
        // Also where nothing is left to hand over: what comes next is to say which books are absent.
        self.root.check_unchanged(&self.path)?;
        take(waiting)?;
        Ok(look)
    }
}

/// The cheap look: equal signatures mean that nothing changed, at the grain of the file system's time stamps.
///
/// For a Calibre library one stat of `metadata.db`: Calibre writes there whatever it does to a book. For a plain
/// folder one more, of the root: it tells of entries right there, while deeper changes take a walk or the kernel's
/// events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    kind: LibraryKind,
    stamp: snapshot::Stamp,
}

impl Signature {
    pub fn kind(&self) -> LibraryKind {
        self.kind
    }

    fn device(&self) -> u64 {
        self.stamp.device()
    }
}

/// Takes the signature of the library at `path`: at most two stat calls, whatever the library's size.
pub fn signature(path: &Path) -> Result<Signature, LibraryError> {
    match snapshot::Stamp::of(&path.join(DATABASE)) {
        Ok(stamp) => Ok(Signature { kind: LibraryKind::Calibre, stamp }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let stamp = snapshot::Stamp::of(path).map_err(|source| LibraryError::from_io(path, source))?;
            Ok(Signature { kind: LibraryKind::Folder, stamp })
        }
        Err(error) => Err(LibraryError::from_io(path, error)),
    }
}

/// When the library last answered a call that is still going on. Clones share one value.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// What the beats are counted from: the wall clock may jump while a call hangs.
    origin: Instant,
    /// Microseconds after `origin`; negative while nobody waits for the library.
    waiting_since: Arc<AtomicI64>,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { origin: Instant::now(), waiting_since: Arc::new(AtomicI64::new(RESTING)) }
    }
}

/// Of [`Heartbeat::waiting_since`].
const RESTING: i64 = -1;

impl Heartbeat {
    /// A call into the library is about to be made.
    pub fn beat(&self) {
        self.waiting_since.store(self.elapsed_us(), Ordering::Relaxed);
    }

    /// Nobody waits for the library.
    pub fn rest(&self) {
        self.waiting_since.store(RESTING, Ordering::Relaxed);
    }

    /// Since when the present call has not returned, microseconds since the epoch by the clock as it goes now; None
    /// where none is going on.
    pub fn waiting_since_us(&self) -> Option<i64> {
        let since = Some(self.waiting_since.load(Ordering::Relaxed)).filter(|since| *since != RESTING)?;
        Some(crate::clock::now_us() - (self.elapsed_us() - since))
    }

    fn elapsed_us(&self) -> i64 {
        i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_heartbeat_tells_since_when_a_call_waits_and_clones_share_it() {
        let heartbeat = Heartbeat::default();
        assert_eq!(heartbeat.waiting_since_us(), None);
        let watching = heartbeat.clone();
        heartbeat.beat();
        std::thread::sleep(Duration::from_millis(30));
        let waited = crate::clock::now_us() - watching.waiting_since_us().unwrap();
        assert!((20_000..10_000_000).contains(&waited), "{waited} us");
        heartbeat.rest();
        assert_eq!(watching.waiting_since_us(), None);
    }
}
