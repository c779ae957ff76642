//! A book's file, open, and read under limits. The only file a reader ever sees: in the child process there is no file
//! system to open another one in. Must never read more than the limit, whatever the file system says of the size.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ExtractError, Limits};

/// An open file and the path by which messages call it.
#[derive(Debug)]
pub struct Source {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
}

impl Source {
    /// Opens the file at `path`.
    pub fn open(path: &Path) -> Result<Self, ExtractError> {
        let file = File::open(path).map_err(|source| ExtractError::Io { path: path.to_owned(), source })?;
        Self::from_file(file, path)
    }

    /// Takes an open file; an empty one is damaged, not a book without text: most often a copy that broke off. A size
    /// over the limit is not refused here, because only archives may be larger than their text.
    pub fn from_file(file: File, path: &Path) -> Result<Self, ExtractError> {
        let io = |source| ExtractError::Io { path: path.to_owned(), source };
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(io(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if metadata.len() == 0 {
            return Err(ExtractError::corrupt(path, "the file is empty"));
        }
        Ok(Self { file: Arc::new(file), path: path.to_owned(), size: metadata.len() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes, when it was opened.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file from its beginning, with a position of its own.
    pub fn reader(&self) -> SourceReader {
        SourceReader { file: self.file.clone(), size: self.size, position: 0 }
    }

    /// The bytes of a text file, at most `max_text_bytes` of them.
    pub fn read_text(&self, limits: &Limits) -> Result<Vec<u8>, ExtractError> {
        self.read_whole("the text file", limits.max_text_bytes)
    }

    /// All bytes, at most `limit` of them; `what` names the file where it has more.
    pub fn read_whole(&self, what: &str, limit: u64) -> Result<Vec<u8>, ExtractError> {
        let too_large = || ExtractError::TooLarge { path: self.path.clone(), what: what.to_owned(), limit };
        if self.size > limit {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(self.size as usize);
        // The file may grow while it is read.
        let read = self.reader().take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| ExtractError::from_io(&self.path, error))?;
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        Ok(bytes)
    }
}

/// Reads a [`Source`]; several may read the same one.
#[derive(Debug, Clone)]
pub struct SourceReader {
    file: Arc<File>,
    size: u64,
    position: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        super::progress::tick();
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for SourceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the file's beginning");
        self.position = position.ok_or_else(outside)?;
        Ok(self.position)
    }
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
        let error = Source::open(&path).unwrap().read_text(&Limits::default()).unwrap_err();
        assert!(matches!(error, ExtractError::TooLarge { limit: 67_108_864, .. }), "{error}");
    }

    #[test]
    fn readers_have_their_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "abcdef").unwrap();
        let source = Source::open(&path).unwrap();
        let (mut one, mut two) = (source.reader(), source.reader());
        let mut byte = [0];
        one.read_exact(&mut byte).unwrap();
        assert_eq!(two.seek(SeekFrom::End(-1)).unwrap(), 5);
        two.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"f");
        one.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"b");
        assert!(one.seek(SeekFrom::Current(-9)).is_err());
    }
}
