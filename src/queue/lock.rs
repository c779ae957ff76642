//! One process a state directory: a lock file that the kernel frees when its holder dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::QueueError;

/// How long the lock of a holder that is dead is waited for: a child process that it was just starting when it was
/// killed has its open files, and so its lock, until that child is a program of its own.
const OF_THE_DEAD: Duration = Duration::from_secs(2);

/// Held for the life of the process that writes the state. Dropping it frees the directory.
#[derive(Debug)]
pub struct StateLock {
    // The lock belongs to the open file; the file stays on disk, for removing it would let two processes each lock
    // a file of that name.
    _file: File,
}

impl StateLock {
    /// Takes `state_dir/lock`, creating the directory where it is absent.
    ///
    /// # Errors
    /// [`QueueError::Locked`] with the holder's pid where another process has it, [`QueueError::Io`] otherwise.
    pub fn acquire(state_dir: &Path) -> Result<StateLock, QueueError> {
        let path = state_dir.join("lock");
        let io = |source| QueueError::Io { path: path.clone(), source };
        std::fs::create_dir_all(state_dir).map_err(io)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    // The holder may be about to write its pid: an unknown pid is no reason to say less.
                    let _ = file.rewind().and_then(|()| file.read_to_string(&mut pid));
                    let pid = pid.trim();
                    if started.elapsed() > OF_THE_DEAD || !is_dead(pid) {
                        let pid = if pid.is_empty() { "unknown" } else { pid }.to_owned();
                        return Err(QueueError::Locked { state_dir: state_dir.to_owned(), pid });
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(StateLock { _file: file })
    }
}

/// Whether there is no such process (to be seen from here). What is no number says nothing.
fn is_dead(pid: &str) -> bool {
    let Ok(pid) = pid.parse() else { return false };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_outlives_its_holder_for_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = StateLock::acquire(dir.path()).unwrap();
        // Its holder's last words, though another process (here, this one) still has the file.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        std::fs::write(dir.path().join("lock"), format!("{}\n", child.id())).unwrap();
        let waited = Instant::now();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(held);
        });
        StateLock::acquire(dir.path()).unwrap();
        assert!(waited.elapsed() >= Duration::from_millis(290), "{:?}", waited.elapsed());
    }

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("new");
        let held = StateLock::acquire(&state_dir).unwrap();
        let error = StateLock::acquire(&state_dir).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(error.contains("alexandriactl"), "{error}");
        drop(held);
        StateLock::acquire(&state_dir).unwrap();
    }
}
