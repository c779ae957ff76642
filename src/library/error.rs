//! What can be wrong with a library. The texts are for a person: what happened, to what, what to do next.
//!
//! None of these may ever be read as "the books are gone": an error means that nothing was learned.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use uuid::Uuid;

/// Why a look at the library learned nothing.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("library {} does not exist: mount the share it is on, or correct library.path", path.display())]
    Missing { path: PathBuf },
    #[error("library {} is not a directory: library.path must name a Calibre library or a folder of books", path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "library {} is an empty directory, as a mount point is while nothing is mounted on it: mount the share, or put the first book there",
        path.display()
    )]
    Empty { path: PathBuf },
    #[error(
        "library {} has no metadata.db, but it was a Calibre library before: check that the share is mounted at the right place; nothing is removed from the index",
        path.display()
    )]
    NoDatabase { path: PathBuf },
    #[error("library {} does not answer ({source}): check the server and the mount; it is tried again", path.display())]
    NotAnswering { path: PathBuf, source: io::Error },
    #[error("library {} changed under the look ({reason}); it is tried again", path.display())]
    ChangedUnderLook { path: PathBuf, reason: String },
    #[error("{} is being written ({reason}); it is tried again", path.display())]
    Busy { path: PathBuf, reason: String },
    #[error("{} cannot be read ({source}): check the permissions of the service's user and the disk", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not a sound Calibre database ({reason}): run Calibre's 'Check library', or restore it from a backup", path.display())]
    BadDatabase { path: PathBuf, reason: String },
    #[error(
        "{} has schema version {found}, older than {oldest}: open the library once with a current Calibre, which upgrades it",
        path.display()
    )]
    SchemaTooOld { path: PathBuf, found: i64, oldest: i64 },
    #[error(
        "{} is another library ({found}) than the one in the index ({expected}): correct library.path or the mount, or use another state_dir and store.collection for this library",
        path.display()
    )]
    WrongLibrary { path: PathBuf, found: Uuid, expected: Uuid },
    #[error("{} has the format {format}, which is not among library.formats", path.display())]
    UnknownFormat { path: PathBuf, format: String },
    #[error("{} cannot be written ({source}): the service needs room and permission for a copy of metadata.db there", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error("{} stands for files named by hand, which are never scanned", path.display())]
    NeverScanned { path: PathBuf },
}

impl LibraryError {
    /// True where only a person can help; the others may pass by themselves (a server comes back, a writer finishes).
    pub fn needs_operator(&self) -> bool {
        match self {
            LibraryError::NotADirectory { .. }
            | LibraryError::BadDatabase { .. }
            | LibraryError::SchemaTooOld { .. }
            | LibraryError::WrongLibrary { .. }
            | LibraryError::UnknownFormat { .. }
            | LibraryError::Scratch { .. }
            | LibraryError::NeverScanned { .. }
            | LibraryError::Unreadable { .. } => true,
            LibraryError::Missing { .. }
            | LibraryError::Empty { .. }
            | LibraryError::NoDatabase { .. }
            | LibraryError::NotAnswering { .. }
            | LibraryError::ChangedUnderLook { .. }
            | LibraryError::Busy { .. } => false,
        }
    }

    /// Sorts an error of a call on the library's root or its database.
    pub(super) fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => LibraryError::Missing { path },
            io::ErrorKind::NotADirectory => LibraryError::NotADirectory { path },
            _ if is_mount_trouble(&source) => LibraryError::NotAnswering { path, source },
            _ => LibraryError::Unreadable { path, source },
        }
    }
}

/// Whether an error speaks of the mount or its server rather than of one file.
pub fn is_mount_trouble(error: &io::Error) -> bool {
    let Some(number) = error.raw_os_error() else { return false };
    matches!(
        Errno::from_raw(number),
        Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::ECONNREFUSED
            | Errno::ENOTCONN
            | Errno::ETIMEDOUT
            | Errno::ESTALE
            | Errno::EIO
            | Errno::EREMOTEIO
            | Errno::EAGAIN
            | Errno::ENODEV
            | Errno::EPIPE
            | Errno::ESHUTDOWN
            | Errno::ENOLINK
            // The session's key is gone (cifs and NFS with Kerberos).
            | Errno::ENOKEY
            | Errno::EKEYEXPIRED
            | Errno::EKEYREVOKED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_broken_mount_are_told_from_those_of_a_file() {
        let sorted = |errno: Errno| LibraryError::from_io(Path::new("/x"), io::Error::from_raw_os_error(errno as i32));
        for errno in [Errno::EHOSTDOWN, Errno::ENOTCONN, Errno::EIO, Errno::EAGAIN, Errno::ECONNABORTED] {
            assert!(matches!(sorted(errno), LibraryError::NotAnswering { .. }), "{errno}");
            assert!(!sorted(errno).needs_operator());
        }
        assert!(matches!(sorted(Errno::ENOENT), LibraryError::Missing { .. }));
        assert!(matches!(sorted(Errno::ENOTDIR), LibraryError::NotADirectory { .. }));
        assert!(matches!(sorted(Errno::EACCES), LibraryError::Unreadable { .. }));
    }
}
