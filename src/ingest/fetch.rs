//! A book's file, copied to local disk and hashed on the way: parsers never read the mount, and what was hashed is
//! what is parsed. Never writes into the library.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::domain::{BookFile, Failure, hex};
use crate::library::is_mount_trouble;

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

/// Copies a book's file. A file that changes meanwhile is not whole yet: a transient failure.
pub fn copy_to_scratch(book: &BookFile, scratch: &Path, max_bytes: u64) -> Result<ScratchCopy, Failure> {
    let shown = book.path.display();
    let on_library = |error: io::Error| library_failure(&book.path, &error);
    let on_scratch = |error: io::Error| {
        Failure::dependency(format!("cannot write a working copy to {}: {error}", scratch.display()))
    };
    let mut source = File::open(&book.path).map_err(on_library)?;
    let before = source.metadata().map_err(on_library)?;
    if !before.is_file() {
        return Err(Failure::book(format!("{shown} is not a file")));
    }
    if before.len() > max_bytes {
        return Err(Failure::book(format!(
            "{shown} has {} MiB, more than ingest.max_file_mib = {} allows",
            before.len() >> 20,
            max_bytes >> 20
        )));
    }
    if before.len() == 0 {
        return Err(Failure::book(format!("{shown} is empty")));
    }
    std::fs::create_dir_all(scratch).map_err(on_scratch)?;
    let suffix = format!(".{}", book.format.to_lowercase());
    let mut copy = tempfile::Builder::new().prefix("book-").suffix(&suffix).tempfile_in(scratch).map_err(on_scratch)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0u64;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(on_library(error)),
        };
        hasher.update(&buffer[..read]);
        copy.write_all(&buffer[..read]).map_err(on_scratch)?;
        copied += read as u64;
        if copied > max_bytes {
            return Err(Failure::transient(format!("{shown} grew while it was copied")));
        }
    }
    copy.flush().map_err(on_scratch)?;
    let after = std::fs::metadata(&book.path).map_err(on_library)?;
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| {
        (a.len(), a.mtime(), a.mtime_nsec()) == (b.len(), b.mtime(), b.mtime_nsec())
    };
    if copied != before.len() || !same(&before, &after) {
        return Err(Failure::transient(format!(
            "{shown} changed while it was copied; it is tried again when it is whole"
        )));
    }
    let content_hash = hex(&hasher.finalize());
    // What came over the network is what lies on the disk: a disk that is full or failing may have taken less.
    let written = hash_of(copy.path(), &mut buffer).map_err(on_scratch)?;
    if written != content_hash {
        return Err(Failure::dependency(format!(
            "the working copy of {shown} in {} is not what was written; is the disk failing?",
            scratch.display()
        )));
    }
    Ok(ScratchCopy { file: copy, content_hash })
}

fn hash_of(path: &Path, buffer: &mut [u8]) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    loop {
        match file.read(buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// A file that is not there may be on its way (Calibre renames in two steps); a mount that does not answer is not the
/// book's fault.
fn library_failure(path: &Path, error: &io::Error) -> Failure {
    let reason = format!("cannot read {}: {error}", path.display());
    if is_mount_trouble(error) { Failure::dependency(reason) } else { Failure::transient(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FailureKind;

    fn book(path: &Path) -> BookFile {
        BookFile { format: "TXT".into(), path: path.to_owned(), data_id: None, size: 0, mtime_us: 0 }
    }

    #[test]
    fn the_copy_is_the_file_and_the_hash_is_its_sha_256() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.txt");
        std::fs::write(&path, "abc").unwrap();
        let copy = copy_to_scratch(&book(&path), &directory.path().join("scratch"), 10).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(copy.content_hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(std::fs::read(copy.path()).unwrap(), b"abc");
        let kept = copy.path().to_owned();
        drop(copy);
        assert!(!kept.exists());
    }

    #[test]
    fn what_cannot_be_copied_says_why_and_whose_fault_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        let path = directory.path().join("a.txt");
        assert_eq!(copy_to_scratch(&book(&path), &scratch, 10).unwrap_err().kind, FailureKind::Transient);
        std::fs::write(&path, "").unwrap();
        assert_eq!(copy_to_scratch(&book(&path), &scratch, 10).unwrap_err().kind, FailureKind::Book);
        std::fs::write(&path, "abcdef").unwrap();
        let error = copy_to_scratch(&book(&path), &scratch, 3).unwrap_err();
        assert!(error.kind == FailureKind::Book && error.reason.contains("max_file_mib"), "{error}");
    }
}
