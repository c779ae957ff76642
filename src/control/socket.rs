//! Where the control socket comes from: systemd's hand where it has one for us, else a path that is bound here, with its
//! group and mode. Must never remove a file that is in use, is no socket, or is systemd's.

use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::sockopt::{AcceptConn, SockType as TypeOption};
use nix::sys::socket::{SockType, getsockopt};
use nix::unistd::{Group, chown};

/// Linux keeps a socket's path in 108 bytes with a zero at the end.
pub const LONGEST_PATH: usize = 107;

/// `FileDescriptorName=` of the socket in the socket unit.
const SYSTEMD_NAME: &str = "control";

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(
        "the control socket {} is in use: another service answers on it; stop that one, or set another control.socket",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error("{} is in the way of the control socket and is no socket; move it away, or set another control.socket", path.display())]
    NotASocket { path: PathBuf },
    #[error(
        "the control socket's path {} has {} bytes, Linux allows {LONGEST_PATH}; set a shorter control.socket",
        path.display(),
        path.as_os_str().len()
    )]
    PathTooLong { path: PathBuf },
    #[error("the control socket {}: {source}; check the directory and its permissions", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("control.group: this machine has no group '{group}'; make it (groupadd {group}), or set another one")]
    NoGroup { group: String },
    #[error(
        "the control socket {} cannot be given to the group '{group}' (control.group): {source}; the service's user must \
         be a member of it (usermod -aG {group} USER, or SupplementaryGroups={group} in the unit)",
        path.display()
    )]
    Group { path: PathBuf, group: String, source: std::io::Error },
    #[error("the socket that systemd handed over cannot be used: {0}")]
    Systemd(String),
}

/// A listening socket, and whose it is.
#[derive(Debug)]
pub(super) struct ControlSocket {
    pub listener: UnixListener,
    pub path: PathBuf,
    /// systemd made it, keeps it over restarts, and removes it.
    pub systemd: bool,
}

impl ControlSocket {
    /// The socket that systemd handed over, if there is one.
    ///
    /// # Errors
    /// [`ControlError::Systemd`] where something was handed over that is no listening Unix socket.
    pub fn from_systemd() -> Result<Option<ControlSocket>, ControlError> {
        let wrong = |reason: &dyn std::fmt::Display| ControlError::Systemd(reason.to_string());
        let handed: Vec<(RawFd, String)> = sd_notify::listen_fds_with_names().map_err(|error| wrong(&error))?.collect();
        let Some(fd) = choose(&handed) else { return Ok(None) };
        // SAFETY: LISTEN_PID names this process, so descriptor `fd` was opened for it before it started, and nothing
        // else in the process owns it: this is the one place that takes descriptors from systemd, and it is called once,
        // by the daemon's start.
        let listener = unsafe { UnixListener::from_raw_fd(fd) };
        let is_stream = getsockopt(&listener, TypeOption).is_ok_and(|kind| kind == SockType::Stream);
        if !is_stream || !getsockopt(&listener, AcceptConn).unwrap_or(false) {
            return Err(wrong(&"it is no listening stream socket (ListenStream= in the socket unit)"));
        }
        let address = listener.local_addr().map_err(|error| wrong(&error))?;
        let Some(path) = address.as_pathname().map(Path::to_owned) else {
            return Err(wrong(&"it has no path; ListenStream= must name one, as /run/alexandria-ingestd/control.sock"));
        };
        listener.set_nonblocking(true).map_err(|error| wrong(&error))?;
        Ok(Some(ControlSocket { listener, path, systemd: true }))
    }

    /// Binds a socket, mode 0660, for `group` where it is not empty. A socket file that nobody answers on is left over
    /// from a crash and replaced.
    ///
    /// # Errors
    /// [`ControlError`]; nothing that is in use, or is no socket, is ever removed.
    pub fn bind(path: &Path, group: &str) -> Result<ControlSocket, ControlError> {
        let owned = || path.to_owned();
        let io = |source| ControlError::Io { path: owned(), source };
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(ControlError::PathTooLong { path: owned() });
        }
        // Before anything is made, so that a misspelt group leaves nothing behind.
        let gid = if group.is_empty() {
            None
        } else {
            let found = Group::from_name(group).map_err(|error| io(error.into()))?;
            Some(found.ok_or_else(|| ControlError::NoGroup { group: group.to_owned() })?.gid)
        };
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotASocket { path: owned() }),
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(ControlError::InUse { path: owned() }),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(io)?;
                }
                Err(error) => return Err(io(error)),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(io)?;
                }
            }
            Err(error) => return Err(io(error)),
        }
        let listener = UnixListener::bind(path).map_err(io)?;
        // The group first: with the mode first, the service's own group could connect for a moment.
        if let Some(gid) = gid
            && let Err(error) = chown(path, None, Some(gid))
        {
            // Nobody was told of it yet.
            let _ = std::fs::remove_file(path);
            return Err(ControlError::Group { path: owned(), group: group.to_owned(), source: error.into() });
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        Ok(ControlSocket { listener, path: owned(), systemd: false })
    }

    /// Removes the socket's file where it is ours. Another service cannot have taken the path: it would have found this
    /// one answering.
    pub fn remove(&self) {
        if !self.systemd {
            // It may be gone with its directory.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Which of the descriptors that systemd handed over is the control socket: the one of that name, or the only one.
fn choose(handed: &[(RawFd, String)]) -> Option<RawFd> {
    let named = handed.iter().find(|(_, name)| name == SYSTEMD_NAME);
    named.or(if handed.len() == 1 { handed.first() } else { None }).map(|(fd, _)| *fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_known_by_its_name_or_by_being_alone() {
        let handed = |names: &[&str]| -> Vec<(RawFd, String)> {
            names.iter().zip(3..).map(|(name, fd)| (fd, (*name).to_owned())).collect()
        };
        assert_eq!(choose(&handed(&[])), None);
        assert_eq!(choose(&handed(&["alexandria-ingestd.socket"])), Some(3));
        assert_eq!(choose(&handed(&["http", "control"])), Some(4));
        assert_eq!(choose(&handed(&["http", "other"])), None);
    }

    #[test]
    fn a_group_that_does_not_exist_is_named_and_nothing_is_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let error = ControlSocket::bind(&path, "no-such-group-here").unwrap_err();
        assert!(error.to_string().contains("no group 'no-such-group-here'"), "{error}");
        assert!(!path.exists());
    }
}
