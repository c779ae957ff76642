//! A book's file, copied to local disk and hashed on the way: parsers never read the mount, and what was hashed is
//! what is parsed. Never writes into the library.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::ending;
use super::fetcher::Steps;
use crate::clock::now_us;
use crate::domain::{BookFile, Failure, FailureKind, LibraryKind, hex};
use crate::library::{self, is_mount_trouble};

/// A local copy; the file goes when this is dropped.
#[derive(Debug)]
pub struct ScratchCopy {
    pub file: NamedTempFile,
    /// SHA-256 of the bytes, as hex.
    pub content_hash: String,
}

impl ScratchCopy {
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The copy from its beginning, for reading alone.
    pub fn reopen(&self) -> io::Result<File> {
        File::open(self.file.path())
    }
}

/// Why there is no copy.
#[derive(Debug)]
pub enum CopyError {
    /// The file itself.
    File(Failure),
    /// The library it is in, or the mount that is on: not the book's fault.
    Library(String),
    /// The working directory.
    Scratch(String),
}

/// What a copy needs to know besides the file.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    pub file: BookFile,
    /// The library the file is in, where that is one that is looked at: a file that is missing is the book's trouble
    /// only while the library itself is there.
    pub library: Option<(LibraryKind, PathBuf)>,
    pub scratch_dir: PathBuf,
    /// Larger files are refused.
    pub max_bytes: u64,
    /// A file without its end that came less than this time ago is taken for one that is being written.
    pub unfinished: Duration,
}

/// Copies a book's file to local disk. A file that changes meanwhile, or seems to be still on its way, is tried again
/// later.
pub fn copy_to_scratch(request: &CopyRequest, steps: &Steps) -> Result<ScratchCopy, CopyError> {
    let copied = copy(request, steps);
    match (copied, &request.library) {
        (Err(CopyError::File(failure)), Some((kind, path))) if failure.kind == FailureKind::Transient => {
            steps.step();
            Err(match library::detect(path) {
                Ok(found) if found == *kind => CopyError::File(failure),
                Ok(_) => CopyError::Library(format!("{failure}; its library is not at {}", path.display())),
                Err(error) => CopyError::Library(error.to_string()),
            })
        }
        // A file on a bad sector says what every file says when the server is gone. While the library answers it is the
        // file's trouble alone: waited for as the library's, it would hold up every other book, for ever.
        (Err(CopyError::Library(reason)), Some((kind, path))) => {
            steps.step();
            let answers = library::detect(path).is_ok_and(|found| found == *kind) && library::answers(path);
            Err(if answers { CopyError::File(Failure::transient(reason)) } else { CopyError::Library(reason) })
        }
        (copied, _) => copied,
    }
}

fn copy(request: &CopyRequest, steps: &Steps) -> Result<ScratchCopy, CopyError> {
    let CopyRequest { file: book, scratch_dir: scratch, max_bytes, .. } = request;
    let shown = book.path.display();
    let on_library = |error: io::Error| library_failure(&book.path, &error);
    let on_scratch =
        |error: io::Error| CopyError::Scratch(format!("cannot write a working copy to {}: {error}", scratch.display()));
    let of_book = |reason: String| CopyError::File(Failure::book(reason));
    let not_yet = |reason: String| CopyError::File(Failure::transient(reason));
    let mut source = File::open(&book.path).map_err(on_library)?;
    let before = source.metadata().map_err(on_library)?;
    steps.step();
    if !before.is_file() {
        return Err(of_book(format!("{shown} is not a file")));
    }
    if before.len() > *max_bytes {
        return Err(of_book(format!(
            "{shown} has {} MiB, more than ingest.max_file_mib = {} allows",
            before.len() >> 20,
            max_bytes >> 20
        )));
    }
    if before.len() == 0 {
        return Err(of_book(format!("{shown} is empty")));
    }
    if is_young(&before, request.unfinished) {
        let missing = ending::unfinished(&source, before.len(), &book.format, book.data_id.is_some());
        if let Some(missing) = missing.map_err(on_library)? {
            return Err(not_yet(format!("{shown} seems to be still on its way: {missing}")));
        }
    }
    std::fs::create_dir_all(scratch).map_err(on_scratch)?;
    let suffix = format!(".{}", book.format.to_lowercase());
    let mut copy = tempfile::Builder::new().prefix("book-").suffix(&suffix).tempfile_in(scratch).map_err(on_scratch)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0u64;
    loop {
        steps.step();
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(on_library(error)),
        };
        hasher.update(&buffer[..read]);
        copy.write_all(&buffer[..read]).map_err(on_scratch)?;
        copied += read as u64;
        if copied > *max_bytes {
            return Err(not_yet(format!("{shown} grew while it was copied")));
        }
    }
    copy.flush().map_err(on_scratch)?;
    let after = std::fs::metadata(&book.path).map_err(on_library)?;
    steps.step();
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
        (a.len(), a.mtime(), a.mtime_nsec()) == (b.len(), b.mtime(), b.mtime_nsec())
    };
    if copied != before.len() || !same(&before, &after) {
        return Err(not_yet(format!("{shown} changed while it was copied; it is tried again when it is whole")));
    }
    let content_hash = hex(&hasher.finalize());
    // What came over the network is what lies on the disk: a disk that is full or failing may have taken less.
    let written = hash_of(copy.path(), &mut buffer, steps).map_err(on_scratch)?;
    if written != content_hash {
        return Err(CopyError::Scratch(format!(
            "the working copy of {shown} in {} is not what was written; is the disk failing?",
            scratch.display()
        )));
    }
    Ok(ScratchCopy { file: copy, content_hash })
}

/// Whether the file came or changed so lately that its writer may be at work. A time in the future is a clock that
/// differs.
fn is_young(stat: &std::fs::Metadata, young: Duration) -> bool {
    let (now_us, young_us) = (now_us(), i64::try_from(young.as_micros()).unwrap_or(i64::MAX));
    let at_us = |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000) + nanoseconds / 1000;
    let times = [at_us(stat.mtime(), stat.mtime_nsec()), at_us(stat.ctime(), stat.ctime_nsec())];
    times.into_iter().any(|time_us| (now_us - time_us).abs() < young_us)
}

fn hash_of(path: &Path, buffer: &mut [u8], steps: &Steps) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    loop {
        steps.step();
        match file.read(buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// A file that is not there may be on its way (Calibre renames in two steps); a mount that does not answer is not the
/// book's fault.
fn library_failure(path: &Path, error: &io::Error) -> CopyError {
    let reason = format!("cannot read {}: {error}", path.display());
    if is_mount_trouble(error) { CopyError::Library(reason) } else { CopyError::File(Failure::transient(reason)) }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const UNFINISHED: Duration = Duration::from_secs(600);

    struct Place {
        directory: tempfile::TempDir,
        name: &'static str,
    }

    impl Place {
        fn new(name: &'static str) -> Self {
            Self { directory: tempfile::tempdir().unwrap(), name }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join(self.name)
        }

        fn copy(&self, max_bytes: u64) -> Result<ScratchCopy, CopyError> {
            let format = self.path().extension().unwrap().to_string_lossy().to_uppercase();
            let file = BookFile { format, path: self.path(), data_id: None, size: 0, mtime_us: 0 };
            let scratch_dir = self.directory.path().join("scratch");
            let request = CopyRequest { file, library: None, scratch_dir, max_bytes, unfinished: UNFINISHED };
            copy_to_scratch(&request, &Steps::default())
        }

        fn failure(&self, max_bytes: u64) -> Failure {
            match self.copy(max_bytes) {
                Err(CopyError::File(failure)) => failure,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_copy_is_the_file_and_the_hash_is_its_sha_256() {
        let place = Place::new("a.txt");
        std::fs::write(place.path(), "abc").unwrap();
        let copy = place.copy(10).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(copy.content_hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"abc");
        let kept = copy.path().to_owned();
        drop(copy);
        assert!(!kept.exists());
    }

    #[test]
    fn what_cannot_be_copied_says_why_and_whose_fault_it_is() {
        let place = Place::new("a.txt");
        assert_eq!(place.failure(10).kind, FailureKind::Transient);
        std::fs::write(place.path(), "").unwrap();
        assert_eq!(place.failure(10).kind, FailureKind::Book);
        std::fs::write(place.path(), "abcdef").unwrap();
        let error = place.failure(3);
        assert!(error.kind == FailureKind::Book && error.reason.contains("max_file_mib"), "{error}");
    }

    #[test]
    fn half_a_young_file_is_on_its_way_and_half_an_old_one_is_read_as_it_is() {
        let place = Place::new("a.epub");
        std::fs::write(place.path(), b"PK\x03\x04 and no more yet").unwrap();
        let error = place.failure(1000);
        assert!(error.kind == FailureKind::Transient && error.reason.contains("on its way"), "{error}");
        // Its time of arrival cannot be set back: only the rule itself is asked.
        let file = File::options().write(true).open(place.path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        let stat = file.metadata().unwrap();
        assert!(is_young(&stat, UNFINISHED), "moved here just now, whatever its age");
        assert!(!is_young(&stat, Duration::ZERO));
    }

    #[test]
    fn a_missing_file_in_a_missing_library_is_the_librarys_trouble() {
        let place = Place::new("library/a.txt");
        let file = BookFile { format: "TXT".into(), path: place.path(), data_id: None, size: 0, mtime_us: 0 };
        let request = CopyRequest {
            file,
            library: Some((LibraryKind::Folder, place.directory.path().join("library"))),
            scratch_dir: place.directory.path().join("scratch"),
            max_bytes: 10,
            unfinished: UNFINISHED,
        };
        let copy = || copy_to_scratch(&request, &Steps::default());
        assert!(matches!(copy(), Err(CopyError::Library(_))));
        std::fs::create_dir(place.directory.path().join("library")).unwrap();
        assert!(matches!(copy(), Err(CopyError::Library(reason)) if reason.contains("mount")));
        std::fs::write(place.directory.path().join("library/b.txt"), "b").unwrap();
        assert!(matches!(copy(), Err(CopyError::File(failure)) if failure.kind == FailureKind::Transient));
    }
}
