//! Book files on the shelf: which format of a book is read, and whether its file is there and whole.
//!
//! Never opens a file: one stat each. A file that is absent or half-written now says nothing about the book.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::error::is_mount_trouble;
use super::{Heartbeat, LibraryError};

/// A file touched more recently than this may still be growing. Two seconds are the coarsest time stamps in use (FAT).
pub(super) const FRESH_US: i64 = 2_000_000;

/// What one stat call says about a book's file.
#[derive(Debug)]
pub(super) enum FileState {
    There(FileStat),
    /// Not there at this moment: being renamed, or removed behind the catalogue's back.
    Absent,
    /// There, but not for us: a directory of that name, no permission.
    Unusable(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStat {
    pub size: u64,
    pub mtime_us: i64,
    /// When the file came here or last changed, whichever is later: copying keeps mtime but sets ctime.
    pub arrived_us: i64,
}

impl FileStat {
    pub(super) fn from_metadata(stat: &fs::Metadata) -> FileStat {
        let mtime_us = stat.mtime().saturating_mul(1_000_000) + stat.mtime_nsec() / 1000;
        let ctime_us = stat.ctime().saturating_mul(1_000_000) + stat.ctime_nsec() / 1000;
        FileStat { size: stat.size(), mtime_us, arrived_us: mtime_us.max(ctime_us) }
    }

    /// Whether the file may still be being written. A time far in the future is a wrong clock, not a writer.
    pub(super) fn is_fresh(&self, now_us: i64) -> bool {
        (now_us - self.mtime_us).abs() < FRESH_US
    }
}

/// One stat call. An error that speaks of the mount ends the look; one that speaks of the file does not.
pub(super) fn stat_file(library: &Path, file: &Path, heartbeat: &Heartbeat) -> Result<FileState, LibraryError> {
    heartbeat.beat();
    match fs::metadata(file) {
        Ok(stat) if stat.is_file() => Ok(FileState::There(FileStat::from_metadata(&stat))),
        Ok(_) => Ok(FileState::Unusable("is not a regular file".to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(FileState::Absent)
        }
        Err(error) if is_mount_trouble(&error) => Err(LibraryError::from_io(library, error)),
        Err(error) => Ok(FileState::Unusable(format!("cannot be read ({error})"))),
    }
}

/// The first format of `preference` that is `available`: its index in `available`.
pub(super) fn choose<'a>(preference: &[String], available: impl Iterator<Item = &'a str> + Clone) -> Option<usize> {
    preference.iter().find_map(|wanted| available.clone().position(|format| format.eq_ignore_ascii_case(wanted)))
}

/// `relative` inside `library`; None where it would lead out of it.
pub(super) fn inside(library: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && relative.components().next().is_some()).then(|| library.join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_format_wins_whatever_the_order_on_the_shelf() {
        let preference = ["EPUB".to_owned(), "TXT".to_owned()];
        assert_eq!(choose(&preference, ["TXT", "epub"].into_iter()), Some(1));
        assert_eq!(choose(&preference, ["PDF", "TXT"].into_iter()), Some(1));
        assert_eq!(choose(&preference, ["PDF", "ORIGINAL_EPUB"].into_iter()), None);
    }

    #[test]
    fn a_path_never_leads_out_of_the_library() {
        let library = Path::new("/lib");
        assert_eq!(inside(library, "A/B (1)/c.epub"), Some(PathBuf::from("/lib/A/B (1)/c.epub")));
        for bad in ["../x", "/etc/passwd", "A/../../x", "", "./x"] {
            assert_eq!(inside(library, bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_recent_file_may_still_be_written() {
        let at = |mtime_us| FileStat { size: 1, mtime_us, arrived_us: mtime_us };
        assert!(at(10_000_000).is_fresh(11_000_000));
        assert!(!at(10_000_000).is_fresh(12_000_000));
        assert!(!at(99_000_000).is_fresh(11_000_000));
    }
}
