//! The Palm database that holds a Mobipocket book: a table of records, read one by one. Must never load the pictures,
//! nor trust a record's place.
//!
//! Format: <https://wiki.mobileread.com/wiki/PDB>.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::source::SourceReader;
use super::super::{ExtractError, Limits, Source};

/// The header with the count of records; their table follows.
const HEADER_BYTES: usize = 78;

/// What the database says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Mobipocket book.
    Mobi,
    /// A PalmDOC text, without a Mobipocket header.
    PalmDoc,
}

/// An open database.
pub struct Palm {
    path: PathBuf,
    file: SourceReader,
    size: u64,
    starts: Vec<u32>,
    kind: Kind,
    limits: Limits,
    read: u64,
}

impl Palm {
    pub fn open(source: &Source, limits: &Limits) -> Result<Self, ExtractError> {
        let (path, mut file) = (source.path(), source.reader());
        let mut header = Vec::with_capacity(HEADER_BYTES);
        file.by_ref()
            .take(HEADER_BYTES as u64)
            .read_to_end(&mut header)
            .map_err(|error| ExtractError::from_io(path, error))?;
        let kind = kind(path, &header)?;
        let count = be16(&header, 76).ok_or_else(|| ExtractError::corrupt(path, "it breaks off in its header"))?;
        let mut table = Vec::new();
        file.by_ref()
            .take(u64::from(count) * 8)
            .read_to_end(&mut table)
            .map_err(|error| ExtractError::from_io(path, error))?;
        if count == 0 || table.len() < usize::from(count) * 8 {
            return Err(ExtractError::corrupt(path, "it breaks off in its table of records"));
        }
        let starts = (0..usize::from(count)).filter_map(|at| be32(&table, at * 8)).collect();
        Ok(Self { path: path.to_owned(), file, size: source.size(), starts, kind, limits: limits.clone(), read: 0 })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The bytes of record `at`.
    pub fn record(&mut self, at: usize) -> Result<Vec<u8>, ExtractError> {
        let outside = || ExtractError::corrupt(&self.path, format!("its record {at} lies outside the file"));
        let start = u64::from(*self.starts.get(at).ok_or_else(outside)?);
        let end = self.starts.get(at + 1).map_or(self.size, |next| u64::from(*next));
        let length = end.checked_sub(start).filter(|_| end <= self.size).ok_or_else(outside)?;
        self.read = self.read.saturating_add(length);
        for (bytes, limit) in [(length, self.limits.max_entry_bytes), (self.read, self.limits.max_total_bytes)] {
            if bytes > limit {
                return Err(ExtractError::TooLarge {
                    path: self.path.clone(),
                    what: "what was read of it".to_owned(),
                    limit,
                });
            }
        }
        let mut bytes = vec![0; length as usize];
        self.file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|error| ExtractError::from_io(&self.path, error))?;
        Ok(bytes)
    }
}

/// By the type and creator; what Amazon sells under the same names is told apart.
fn kind(path: &Path, header: &[u8]) -> Result<Kind, ExtractError> {
    let other = |format: &str| ExtractError::UnknownFormat { path: path.to_owned(), format: format.to_owned() };
    if header.starts_with(b"\xeaDRMION\xee") {
        return Err(ExtractError::Encrypted { path: path.to_owned(), scheme: "Amazon's DRM for KFX".to_owned() });
    }
    if header.starts_with(b"TPZ") {
        return Err(other("Topaz (AZW1)"));
    }
    if header.starts_with(b"CONT") {
        return Err(other("KFX"));
    }
    match header.get(60..68).map(<[u8]>::to_ascii_uppercase).as_deref() {
        Some(b"BOOKMOBI") => Ok(Kind::Mobi),
        Some(b"TEXTREAD") => Ok(Kind::PalmDoc),
        Some(_) => Err(ExtractError::corrupt(path, "not a Mobipocket book")),
        None => Err(ExtractError::corrupt(path, "it breaks off in its header")),
    }
}

/// The two bytes at `at`, big-endian as everything here.
pub fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// The four bytes at `at`.
pub fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
