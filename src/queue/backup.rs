//! A copy of the state while it is in use, putting one back, and setting a damaged one aside. Must never leave the state
//! directory with half of a state: what is replaced is kept under another name, and the new one comes whole, by a rename.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{FILE_NAME, Queue, QueueError, RUNNING, schema};

impl Queue {
    /// Copies the state, as it is at this moment, into a file without a name in `directory` (SQLite's online backup).
    ///
    /// # Errors
    /// [`QueueError::Io`], [`QueueError::Sqlite`] (a full disk).
    pub fn backup(&self, directory: &Path) -> Result<File, QueueError> {
        let io = |source| QueueError::Io { path: directory.to_owned(), source };
        let copy = tempfile::Builder::new().prefix("backup-").suffix(".db").tempfile_in(directory).map_err(io)?;
        self.connection.backup("main", copy.path(), None::<fn(rusqlite::backup::Progress)>)?;
        // Without a name it goes with its last reader, however that ends.
        File::open(copy.path()).map_err(io)
    }
}

/// Puts a backup in the place of the state in `state_dir`, whose lock the caller holds. Returns where the state of before
/// is kept; None where there was none.
///
/// # Errors
/// Those of [`Queue::open`], about the backup, with the state of before untouched; [`QueueError::Io`].
pub fn restore(state_dir: &Path, backup: &Path) -> Result<Option<PathBuf>, QueueError> {
    let state = state_dir.join(FILE_NAME);
    let incoming = state_dir.join(format!("{FILE_NAME}.restoring"));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| QueueError::Io { path, source }
    };
    for leftover in files_of(&incoming) {
        remove(&leftover)?;
    }
    fs::copy(backup, &incoming).map_err(io(backup))?;
    // Checked, brought up to date, and marked as one whose last words may be missing.
    let checked = schema::open(&incoming).map_err(|error| error.about(backup)).and_then(|connection| {
        let mut queue = Queue::with(connection, incoming.clone());
        queue.set_meta(RUNNING, Some("1"))
    });
    if let Err(error) = checked {
        for leftover in files_of(&incoming) {
            remove(&leftover)?;
        }
        return Err(error);
    }
    File::open(&incoming).and_then(|file| file.sync_all()).map_err(io(&incoming))?;
    let kept = set_aside(state_dir)?;
    fs::rename(&incoming, &state).map_err(io(&state))?;
    sync(state_dir);
    Ok(kept)
}

/// Moves the state in `state_dir` away, with its log; a new one is made at the next start. Returns its new name; None
/// where there was none.
///
/// # Errors
/// [`QueueError::Io`].
pub fn set_aside(state_dir: &Path) -> Result<Option<PathBuf>, QueueError> {
    let state = state_dir.join(FILE_NAME);
    // A log alone counts: SQLite would play it into the next file of that name.
    if !files_of(&state).iter().any(|file| file.exists()) {
        return Ok(None);
    }
    let mut number = 1;
    let kept = loop {
        let kept = state_dir.join(format!("{FILE_NAME}.replaced-{number}"));
        if !files_of(&kept).iter().any(|file| file.exists()) {
            break kept;
        }
        number += 1;
    };
    // The log goes before the file: SQLite must never find the log of one state beside another one.
    for (from, to) in files_of(&state).into_iter().zip(files_of(&kept)).rev() {
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(QueueError::Io { path: from, source: error });
            }
            _ => {}
        }
    }
    sync(state_dir);
    Ok(Some(kept))
}

/// A database and what SQLite keeps beside it.
fn files_of(database: &Path) -> [PathBuf; 3] {
    ["", "-shm", "-wal"].map(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

fn remove(path: &Path) -> Result<(), QueueError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(QueueError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Makes renames durable; a file system that cannot sync a directory orders them itself.
fn sync(directory: &Path) {
    if let Ok(directory) = File::open(directory) {
        let _ = directory.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_state_that_was_lost_is_not_played_into_the_restored_one() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join(FILE_NAME);
        let backup = place.path().join("backup.db");
        let mut queue = Queue::open(&state).unwrap();
        queue.set_meta("word", Some("of the backup")).unwrap();
        io::copy(&mut queue.backup(place.path()).unwrap(), &mut File::create(&backup).unwrap()).unwrap();
        // Written to the log alone; then the process dies, and the file is lost without it.
        queue.set_meta("word", Some("of later")).unwrap();
        let log = place.path().join(format!("{FILE_NAME}-wal"));
        let left = fs::read(&log).unwrap();
        drop(queue);
        fs::remove_file(&state).unwrap();
        fs::write(&log, left).unwrap();

        assert!(restore(place.path(), &backup).unwrap().is_some(), "the log is kept under another name");
        assert!(!log.exists());
        let restored = Queue::open(&state).unwrap();
        assert_eq!(restored.meta("word").unwrap().as_deref(), Some("of the backup"));
    }
}
