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

/// A file of another size than the catalogue says is waited for until it has been at rest so long: what writes it may
/// pause. After that it is what it is.
pub(super) const UNFINISHED_US: i64 = 60_000_000;

/// What one stat call says about a book's file.
#[derive(Debug)]
pub(super) enum FileState {
    There(FileStat),
    /// Not there at this moment: being renamed, or removed behind the catalogue's back.
    Absent,
    /// There, but not to be read: a directory of that name; or, where that may pass, no permission.
    Unusable {
        why: String,
        may_pass: bool,
    },
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
        self.is_younger_than(FRESH_US, now_us)
    }

    /// Whether the file changed so recently. A time further in the future than that is a wrong clock.
    pub(super) fn is_younger_than(&self, age_us: i64, now_us: i64) -> bool {
        now_us.saturating_sub(self.mtime_us).saturating_abs() < age_us
    }
}

/// One stat call. An error that speaks of the mount ends the look; one that speaks of the file does not.
pub(super) fn stat_file(library: &Path, file: &Path, heartbeat: &Heartbeat) -> Result<FileState, LibraryError> {
    heartbeat.beat();
    match fs::metadata(file) {
        Ok(stat) if stat.is_file() => Ok(FileState::There(FileStat::from_metadata(&stat))),
        Ok(_) => Ok(FileState::Unusable { why: "is not a regular file".to_owned(), may_pass: false }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(FileState::Absent)
        }
        Err(error) if is_mount_trouble(&error) => Err(LibraryError::from_io(library, error)),
        // Permissions that are set right again leave no trace in the catalogue.
        Err(error) => Ok(FileState::Unusable { why: format!("cannot be read ({error})"), may_pass: true }),
    }
}

/// The available formats of `preference`, in its order: their indices in `available`.
pub(super) fn in_order<'a>(preference: &[String], available: impl Iterator<Item = &'a str> + Clone) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for wanted in preference {
        let at = available.clone().position(|format| format.eq_ignore_ascii_case(wanted));
        // A format named twice is one format.
        found.extend(at.filter(|at| !found.contains(at)));
    }
    found
}

/// The formats of a book that are not in the configured order.
pub(super) fn not_in_order<'a>(preference: &[String], available: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_wanted = |format: &str| preference.iter().any(|wanted| wanted.eq_ignore_ascii_case(format));
    available.filter(|format| !is_wanted(format)).map(str::to_owned).collect()
}

/// Why none of a book's formats is read, one line each where there are several.
pub(super) fn why_none(why_unread: fn(&str) -> Option<String>, formats: &[String]) -> String {
    let why = |format: &String| {
        format!("{format}: {}", why_unread(format).unwrap_or_else(|| "there is no reader for it".to_owned()))
    };
    formats.iter().map(why).collect::<Vec<_>>().join("\n")
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
    fn formats_come_in_the_configured_order_whatever_theirs_on_the_shelf() {
        let preference = ["epub", "TXT", "EPUB"].map(str::to_owned);
        assert_eq!(in_order(&preference, ["TXT", "EPUB"].into_iter()), [1, 0]);
        assert_eq!(in_order(&preference, ["PDF", "txt"].into_iter()), [1]);
        assert!(in_order(&preference, ["PDF", "ORIGINAL_EPUB"].into_iter()).is_empty());
        assert_eq!(not_in_order(&preference, ["PDF", "Epub", "CBZ"].into_iter()), ["PDF", "CBZ"]);
    }

    #[test]
    fn each_unread_format_has_its_line() {
        let why = |format: &str| (format == "CBZ").then(|| "a comic".to_owned());
        assert_eq!(why_none(why, &["CBZ".into(), "XYZ".into()]), "CBZ: a comic\nXYZ: there is no reader for it");
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
