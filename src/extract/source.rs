//! Whole files, read under a limit. Must never read more than the limit, whatever the file system says of the size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{ExtractError, Limits};

/// The bytes of the text file at `path`, at most `max_text_bytes` of them.
pub fn read_text_file(path: &Path, limits: &Limits) -> Result<Vec<u8>, ExtractError> {
    let file = open(path)?;
    let limit = limits.max_text_bytes;
    let too_large = || ExtractError::TooLarge { path: path.to_owned(), what: "the text file".to_owned(), limit };
    let declared = file.metadata().map_err(|e| ExtractError::from_io(path, e))?.len();
    if declared > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(declared as usize);
    // The file may grow while it is read.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| ExtractError::from_io(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Opens a book's file; an empty one is damaged, not a book without text: most often a copy that broke off.
/// A size over the limit is not refused here, because only archives may be larger than their text.
pub fn open(path: &Path) -> Result<File, ExtractError> {
    let io = |source| ExtractError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(io(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    if metadata.len() == 0 {
        return Err(ExtractError::corrupt(path, "the file is empty"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_text_file_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big.txt");
        // Sparse: 200 MB that cost nothing.
        File::create(&path).unwrap().set_len(200_000_000).unwrap();
        let error = read_text_file(&path, &Limits::default()).unwrap_err();
        assert!(matches!(error, ExtractError::TooLarge { limit: 67_108_864, .. }), "{error}");
    }
}
