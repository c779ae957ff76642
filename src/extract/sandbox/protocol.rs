//! What parent and child say to each other over their socket: frames of a length (four bytes, little-endian) and a
//! postcard message. Must never let the other side's declared length decide how much memory is taken.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::report::Report;
use super::super::{ExtractError, Limits};
use crate::domain::Section;

/// Bytes taken off the socket at once; it holds some 200 KB.
const READ_BYTES: usize = 1 << 18;
/// Buffers up to this size are kept for the next book.
pub const KEPT_BYTES: usize = 4 << 20;

/// The first frame to a child: what it may use over all its books.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Writable memory, in bytes.
    pub memory_bytes: u64,
}

/// One book; its open file travels beside the frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// For messages only: the child can open nothing.
    pub path: Vec<u8>,
    pub format: String,
    pub limits: Limits,
    pub cpu_seconds: u64,
    /// Compare the text with an independent count, too.
    pub measure: bool,
}

/// What a child answers, in this order: `Working` any number of times, then `Section`s, `Report` and `Finished`, or
/// `Failed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Once, after the setup.
    Ready(Confinement),
    Working,
    Section(Section),
    Report(Report),
    Finished(Ending),
    Failed(Fault, Retire),
}

/// True where the child's memory has grown so much that another should take its place.
pub type Retire = bool;

/// A document without its sections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    pub title: Option<String>,
    pub authors: Vec<String>,
    pub language: Option<String>,
    pub notes: Vec<String>,
    pub retire: Retire,
}

/// What keeps a child from doing harm, as far as this kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// No file system, no TCP (Landlock, Linux 5.13).
    pub landlock: bool,
    /// No system calls but those of reading and computing (seccomp).
    pub seccomp: bool,
}

/// An [`ExtractError`] without its path, or a panic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Fault {
    Corrupt { reason: String },
    Encrypted { scheme: String },
    NoText,
    UnknownFormat { format: String },
    TooLarge { what: String, limit: u64 },
    Io { code: Option<i32>, reason: String },
    Panicked { message: String },
}

impl From<ExtractError> for Fault {
    fn from(error: ExtractError) -> Self {
        match error {
            ExtractError::Corrupt { reason, .. } => Self::Corrupt { reason },
            ExtractError::Encrypted { scheme, .. } => Self::Encrypted { scheme },
            ExtractError::NoText { .. } => Self::NoText,
            ExtractError::UnknownFormat { format, .. } => Self::UnknownFormat { format },
            ExtractError::TooLarge { what, limit, .. } => Self::TooLarge { what, limit },
            ExtractError::Io { source, .. } => Self::Io { code: source.raw_os_error(), reason: source.to_string() },
            // The parent alone makes these.
            error @ (ExtractError::Crashed { .. } | ExtractError::Costly { .. } | ExtractError::Child { .. }) => {
                Self::Panicked { message: error.to_string() }
            }
            ExtractError::Stopped => Self::Panicked { message: "stopped".to_owned() },
        }
    }
}

impl Fault {
    /// The error, said of the book at `path`.
    pub fn of(self, path: &Path) -> ExtractError {
        let path = path.to_owned();
        match self {
            Self::Corrupt { reason } => ExtractError::Corrupt { path, reason },
            Self::Encrypted { scheme } => ExtractError::Encrypted { path, scheme },
            Self::NoText => ExtractError::NoText { path },
            Self::UnknownFormat { format } => ExtractError::UnknownFormat { path, format },
            Self::TooLarge { what, limit } => ExtractError::TooLarge { path, what, limit },
            Self::Io { code: Some(code), .. } => ExtractError::Io { path, source: io::Error::from_raw_os_error(code) },
            Self::Io { code: None, reason } => ExtractError::Io { path, source: io::Error::other(reason) },
            Self::Panicked { message } => ExtractError::Crashed { path, how: message },
        }
    }
}

impl Request {
    pub fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.path))
    }
}

/// Writes one frame.
pub fn write_frame(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    to.write_all(&push_frame(Vec::new(), message)?)
}

/// Writes one frame and hands over `file` with its first byte.
pub fn write_frame_with_file(mut to: &UnixStream, message: &impl Serialize, file: &File) -> io::Result<()> {
    let bytes = push_frame(Vec::new(), message)?;
    let files = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&files)];
    let sent = sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    to.write_all(&bytes[sent..])
}

/// Appends one frame to others: a book's sections go out together, for each write wakes the other side.
pub fn push_frame(mut frames: Vec<u8>, message: &impl Serialize) -> io::Result<Vec<u8>> {
    let start = frames.len();
    frames.extend([0; 4]);
    let mut frames = postcard::to_extend(message, frames).map_err(io::Error::other)?;
    let length = u32::try_from(frames.len() - start - 4).map_err(io::Error::other)?;
    frames[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(frames)
}

/// Takes frames off a stream; one that comes in pieces is kept until it is whole.
#[derive(Debug)]
pub struct FrameReader {
    /// A frame longer than this is refused.
    max_bytes: usize,
    /// Kept from book to book, so that the pages of memory behind it are made once.
    buffer: Vec<u8>,
    /// The part of the buffer that was received and not yet handed out.
    waiting: Range<usize>,
}

impl FrameReader {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, buffer: vec![0; READ_BYTES], waiting: 0..0 }
    }

    /// The next message, and the bytes of its frame. None where the stream's read timeout passed first.
    ///
    /// # Errors
    /// `UnexpectedEof` where the other side has ended; `InvalidData` for what is no message.
    pub fn next<M: DeserializeOwned>(&mut self, mut from: impl Read) -> io::Result<Option<(M, usize)>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.make_room();
            match from.read(&mut self.buffer[self.waiting.end..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.waiting.end += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, usize)>> {
        let Some((length, rest)) = self.buffer[self.waiting.clone()].split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > self.max_bytes {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = postcard::from_bytes(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        self.waiting.start += 4 + length;
        if self.waiting.is_empty() {
            self.waiting = 0..0;
        }
        Ok(Some((message, 4 + length)))
    }

    /// Room for one more read: what waits moves to the front; only what was received makes the buffer grow.
    fn make_room(&mut self) {
        if self.buffer.len() - self.waiting.end >= READ_BYTES / 2 {
            return;
        }
        self.buffer.copy_within(self.waiting.clone(), 0);
        self.waiting = 0..self.waiting.len();
        if self.buffer.len() - self.waiting.end < READ_BYTES / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }

    /// Gives back the memory that a large book has taken.
    pub fn shrink(&mut self) {
        if self.waiting.is_empty() && self.buffer.len() > KEPT_BYTES {
            self.buffer = vec![0; READ_BYTES];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        for text in ["", "one", "zweitens"] {
            let section = Section { title: text.to_owned(), level: 1, text: text.repeat(50) };
            write_frame(&mut bytes, &Reply::Section(section)).unwrap();
        }
        for cut in 0..bytes.len() {
            let mut reader = FrameReader::new(1 << 20);
            let (head, tail) = bytes.split_at(cut);
            let mut titles = Vec::new();
            for mut part in [head, tail] {
                loop {
                    match reader.next::<Reply>(&mut part) {
                        Ok(Some((Reply::Section(section), _))) => titles.push(section.title),
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                            break;
                        }
                    }
                }
            }
            assert_eq!(titles, ["", "one", "zweitens"], "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_or_no_message_is_refused() {
        let mut reader = FrameReader::new(100);
        let error = reader.next::<Reply>(&mut [255_u8, 255, 255, 255, 0].as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = FrameReader::new(100).next::<Reply>(&mut [1_u8, 0, 0, 0, 99].as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
