//! A copy of `metadata.db` that is never torn, while Calibre (on this machine or another one) may be writing it.
//!
//! The library's file is only ever copied: opening it would either take locks that disturb Calibre, or, with a journal
//! present whose lock is not seen over the network, roll back Calibre's live transaction. So: no journal, stat and
//! change counter; copy; the same again, unchanged; `quick_check` on the copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::{Heartbeat, LibraryError};

/// How a copy's directory is called in the scratch directory, so that leftovers of a killed process are recognised.
const COPY_PREFIX: &str = "metadata-snapshot-";
/// SQLite's file header: where the change counter is, and how much there is.
const COUNTER_AT: u64 = 24;
const HEADER_BYTES: u64 = 100;

/// How long a writer is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// In one look, before it ends as [`LibraryError::Busy`]. Calibre's transactions last 5-60 ms.
    pub wait: Duration,
    /// A journal older than this, unchanged, is a crashed Calibre's: it is copied too, and rolled back in the copy.
    pub hot_after: Duration,
    /// It must have been seen unchanged so long, too: by the clock of a server that is behind every journal is old.
    pub hot_seen: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { wait: Duration::from_secs(5), hot_after: Duration::from_secs(60), hot_seen: Duration::from_secs(2) }
    }
}

/// A private, consistent copy of the database; deleted when dropped.
pub(super) struct DatabaseCopy {
    pub connection: Connection,
    _directory: TempDir,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    mtime_ns: i128,
}

impl Stamp {
    /// One stat call.
    pub(super) fn of(path: &Path) -> io::Result<Stamp> {
        let stat = fs::metadata(path)?;
        if stat.is_dir() && path.ends_with(super::DATABASE) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let mtime_ns = i128::from(stat.mtime()) * 1_000_000_000 + i128::from(stat.mtime_nsec());
        Ok(Stamp { device: stat.dev(), inode: stat.ino(), size: stat.size(), mtime_ns })
    }

    /// None where there is no such file, or an empty one (a journal that was truncated rather than deleted).
    fn of_companion(path: &Path) -> io::Result<Option<Stamp>> {
        match Stamp::of(path) {
            Ok(stamp) if stamp.size > 0 => Ok(Some(stamp)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn device(&self) -> u64 {
        self.device
    }

    fn age(&self) -> Duration {
        let now_ns = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as i128);
        Duration::from_nanos(u64::try_from(now_ns - self.mtime_ns).unwrap_or(0))
    }
}

/// The counter SQLite bumps with every transaction; None for a file too short to be a database.
pub(super) fn change_counter(database: &Path) -> io::Result<Option<u32>> {
    let mut bytes = [0; 4];
    match File::open(database)?.read_exact_at(&mut bytes, COUNTER_AT) {
        Ok(()) => Ok(Some(u32::from_be_bytes(bytes))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Copies `<library>/metadata.db` into `scratch` and opens the copy. Waits a little for a writer to finish.
pub(super) fn copy_database(
    library: &Path,
    scratch: &Path,
    patience: Patience,
    heartbeat: &Heartbeat,
) -> Result<DatabaseCopy, LibraryError> {
    let database = library.join(super::DATABASE);
    sweep_leftovers(scratch);
    let started = Instant::now();
    let mut pause = Duration::from_millis(20);
    let mut damaged = 0;
    let mut journal_seen = None;
    loop {
        heartbeat.beat();
        let trouble = match try_copy(&database, scratch, patience, &mut journal_seen) {
            Ok(copy) => return Ok(copy),
            Err(error @ LibraryError::Busy { .. }) => error,
            // A damaged copy may be a torn one: a server's cache can show parts of different times.
            Err(error @ LibraryError::BadDatabase { .. }) if damaged < 3 => {
                damaged += 1;
                error
            }
            Err(error) => return Err(error),
        };
        if started.elapsed() + pause > patience.wait {
            return Err(trouble);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// `journal_seen`: the journal of the tries before, and since when it is as it is.
fn try_copy(
    database: &Path,
    scratch: &Path,
    patience: Patience,
    journal_seen: &mut Option<(Stamp, Instant)>,
) -> Result<DatabaseCopy, LibraryError> {
    let reading = |source| LibraryError::from_io(database, source);
    let busy = |reason: &str| LibraryError::Busy { path: database.to_owned(), reason: reason.to_owned() };
    let scratch_error = |source| LibraryError::Scratch { path: scratch.to_owned(), source };
    // tempfile's own words name a directory of a new name at each try: to the log each would be another trouble.
    let no_directory = |source: io::Error| scratch_error(io::Error::from(source.kind()));

    let journal = sibling(database, "-journal");
    let wal = sibling(database, "-wal");
    let look = || -> io::Result<_> {
        // The journal first: a transaction that begins between the two calls is seen by the second look.
        let companions = (Stamp::of_companion(&journal)?, Stamp::of_companion(&wal)?);
        Ok((companions, Stamp::of(database)?, change_counter(database)?))
    };

    let before = look().map_err(reading)?;
    let (journal_before, wal_before) = before.0;
    let now = Instant::now();
    *journal_seen = journal_before.map(|stamp| match *journal_seen {
        Some((before, since)) if before == stamp => (stamp, since),
        _ => (stamp, now),
    });
    if journal_seen.is_some_and(|(stamp, since)| stamp.age() < patience.hot_after || now - since < patience.hot_seen) {
        return Err(busy("a transaction is open"));
    }

    let directory = tempfile::Builder::new().prefix(COPY_PREFIX).tempdir_in(scratch).map_err(no_directory)?;
    let copy = directory.path().join(super::DATABASE);
    let copied = copy_file(database, &copy, reading, scratch_error)?;
    if journal_before.is_some() {
        let target = sibling(&copy, "-journal");
        copy_file(&journal, &target, reading, scratch_error)?;
        forget_super_journal(&target).map_err(scratch_error)?;
    }
    if wal_before.is_some() {
        copy_file(&wal, &sibling(&copy, "-wal"), reading, scratch_error)?;
    }

    if look().map_err(reading)? != before || copied != before.1.size {
        return Err(busy("it changed while it was copied"));
    }
    let connection = open_checked(&copy, journal_before.is_some() || wal_before.is_some())
        .map_err(|reason| LibraryError::BadDatabase { path: database.to_owned(), reason })?;
    Ok(DatabaseCopy { connection, _directory: directory })
}

/// Opens the copy; read-write where SQLite has to roll back or recover in it.
fn open_checked(copy: &Path, recover: bool) -> Result<Connection, String> {
    let access = if recover { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let connection = Connection::open_with_flags(copy, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| error.to_string())?;
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if verdict == "ok" { Ok(connection) } else { Err(verdict) }
}

/// Bytes copied. The copy gets no permissions or times from the original.
fn copy_file(
    from: &Path,
    to: &Path,
    reading: impl Fn(io::Error) -> LibraryError,
    writing: impl Fn(io::Error) -> LibraryError,
) -> Result<u64, LibraryError> {
    let mut source = match File::open(from) {
        // Deleted between two calls: the transaction has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LibraryError::Busy { path: from.to_owned(), reason: "it has just vanished".to_owned() });
        }
        opened => opened.map_err(&reading)?,
    };
    let mut target = File::create_new(to).map_err(&writing)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        // Not io::copy: it cannot tell whether reading or writing failed.
        let count = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(&reading)?,
        };
        if count == 0 {
            return Ok(total);
        }
        io::Write::write_all(&mut target, &buffer[..count]).map_err(&writing)?;
        total += count as u64;
    }
}

/// Cuts the super-journal's name off a copied journal. SQLite would look for that file at a path of the writing
/// machine, not find it, take the journal as stale and keep half a transaction; without the name it rolls back.
fn forget_super_journal(journal: &Path) -> io::Result<()> {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let mut file = OpenOptions::new().read(true).write(true).open(journal)?;
    let size = file.metadata()?.len();
    if size < HEADER_BYTES {
        return Ok(());
    }
    // Page number (4), name, length of the name (4), checksum (4), magic (8).
    file.seek(SeekFrom::End(-16))?;
    let mut tail = [0; 16];
    file.read_exact(&mut tail)?;
    if tail[8..] == MAGIC {
        let name = u64::from(u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]));
        // A journal may consist of its header alone, which starts with the same magic; the name then makes no sense.
        if let Some(cut) = size.checked_sub(16 + name + 4).filter(|_| name > 0 && name < 4096) {
            file.set_len(cut)?;
        }
    }
    Ok(())
}

/// Copies that a killed process left behind. An hour is longer than any copy takes.
fn sweep_leftovers(scratch: &Path) {
    let Ok(entries) = fs::read_dir(scratch) else { return };
    for entry in entries.flatten() {
        let old = || entry.metadata().and_then(|stat| stat.modified()).ok()?.elapsed().ok();
        let ours = entry.file_name().to_string_lossy().starts_with(COPY_PREFIX);
        if ours && old().is_some_and(|age| age > Duration::from_secs(3600)) {
            // Only disk space is at stake, and the next look tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library() -> (TempDir, TempDir) {
        let (library, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let connection = Connection::open(library.path().join("metadata.db")).unwrap();
        connection.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1);").unwrap();
        (library, scratch)
    }

    fn patience(wait_ms: u64) -> Patience {
        Patience {
            wait: Duration::from_millis(wait_ms),
            hot_after: Duration::from_secs(60),
            hot_seen: Duration::from_millis(wait_ms / 2),
        }
    }

    fn value(copy: &DatabaseCopy) -> i64 {
        copy.connection.query_row("SELECT max(x) FROM t WHERE typeof(x) = 'integer'", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_idle_database_is_copied_and_the_copy_is_deleted_again() {
        let (library, scratch) = library();
        let copy = copy_database(library.path(), scratch.path(), patience(100), &Heartbeat::default()).unwrap();
        assert_eq!(value(&copy), 1);
        drop(copy);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_young_journal_means_busy_and_an_old_one_is_rolled_back_in_the_copy() {
        let (library, scratch) = library();
        let database = library.path().join("metadata.db");
        // A writer that spills its cache and never commits.
        let writer = Connection::open(&database).unwrap();
        writer.execute_batch("PRAGMA cache_size = 5; BEGIN IMMEDIATE; UPDATE t SET x = 2;").unwrap();
        for _ in 0..200 {
            writer.execute("INSERT INTO t VALUES (zeroblob(3000))", []).unwrap();
        }
        writer.cache_flush().unwrap();
        let copy = || copy_database(library.path(), scratch.path(), patience(100), &Heartbeat::default());
        assert!(matches!(copy(), Err(LibraryError::Busy { .. })));

        let before = fs::read(&database).unwrap();
        let journal = File::options().append(true).open(library.path().join("metadata.db-journal")).unwrap();
        journal.set_modified(SystemTime::now() - Duration::from_secs(300)).unwrap();
        assert_eq!(value(&copy().unwrap()), 1);
        assert_eq!(fs::read(&database).unwrap(), before, "the library's own file is not touched");
        writer.execute_batch("COMMIT").unwrap();
        assert_eq!(value(&copy().unwrap()), 2);
    }

    #[test]
    fn an_old_journal_that_changes_is_a_writer_on_a_server_whose_clock_is_behind() {
        let (library, scratch) = library();
        let journal = library.path().join("metadata.db-journal");
        let grow = || {
            let mut file = File::options().create(true).append(true).open(&journal).unwrap();
            io::Write::write_all(&mut file, &[7; 600]).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        };
        grow();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..60 {
                    grow();
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let copy = copy_database(library.path(), scratch.path(), patience(400), &Heartbeat::default());
            assert!(matches!(copy, Err(LibraryError::Busy { .. })));
            writer.join().unwrap();
        });
    }

    #[test]
    fn a_working_directory_that_takes_nothing_is_always_described_alike() {
        let (library, _) = library();
        let told = || {
            let scratch = Path::new("/proc/nowhere");
            let copy = copy_database(library.path(), scratch, patience(50), &Heartbeat::default());
            copy.map(drop).unwrap_err().to_string()
        };
        assert!(told().contains("/proc/nowhere"), "{}", told());
        assert_eq!(told(), told());
    }

    #[test]
    fn a_half_copied_database_is_refused() {
        let (library, scratch) = library();
        let database = library.path().join("metadata.db");
        let bytes = fs::read(&database).unwrap();
        fs::write(&database, &bytes[..bytes.len() / 2]).unwrap();
        let copy = copy_database(library.path(), scratch.path(), patience(50), &Heartbeat::default());
        assert!(matches!(copy, Err(LibraryError::BadDatabase { .. })));
    }

    #[test]
    fn a_super_journals_name_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut bytes = vec![7; 200];
        let kept = bytes.len() as u64;
        bytes.extend([0, 0, 0, 1]);
        bytes.extend(b"C:/x-mj");
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend([0, 0, 0, 9]);
        bytes.extend([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
        fs::write(&path, &bytes).unwrap();
        forget_super_journal(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), kept);
    }
}
