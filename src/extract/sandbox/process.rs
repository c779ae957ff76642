//! The parent's side of one child: start it, hand it a book, take the text, say what it died of. Must never believe the
//! child, wait for it without an end, or leave it behind.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use super::super::ExtractError;
use super::super::report::Report;
use super::SandboxSettings;
use super::protocol::{Confinement, FrameReader, Reply, Request, Setup, write_frame, write_frame_with_file};
use crate::domain::Document;

/// How often a wait looks whether it should go on.
const TICK: Duration = Duration::from_millis(100);
/// A new process must say that it is ready within this; generous, for the machine may be starting.
const START: Duration = Duration::from_secs(60);
/// One book may keep a child for so long at most, signs of life or not.
const LONGEST: Duration = Duration::from_secs(3600);
/// Of titles, notes and frames, beside the text itself.
const OVERHEAD_BYTES: u64 = 16 << 20;
/// Of a child's last words.
const LAST_WORDS_BYTES: u64 = 4096;

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    socket: UnixStream,
    frames: FrameReader,
    /// What it writes to its standard error: a file in memory, so that no one must read it to keep it going.
    stderr: File,
    pub confinement: Confinement,
    /// Books it has read.
    pub books: usize,
    /// Whether it may be given another book.
    pub reusable: bool,
}

/// Why there is no answer.
enum Silence {
    Ended,
    Stalled,
    Stopped,
    TooMuch,
    Nonsense(io::Error),
}

impl Process {
    /// Starts a child and waits until it has confined itself.
    pub fn start(settings: &SandboxSettings) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let stderr = File::from(memfd_create(c"alexandria-read-stderr", MFdFlags::MFD_CLOEXEC)?);
        let child = Command::new(&settings.program)
            .arg(super::child::VERB)
            // Secrets are in the environment, and nothing in it is for a reader.
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(stderr.try_clone()?)
            .spawn()?;
        let max_bytes = usize::try_from(settings.limits.max_text_bytes + OVERHEAD_BYTES).unwrap_or(usize::MAX);
        let confinement = Confinement { landlock: false, seccomp: false };
        let frames = FrameReader::new(max_bytes);
        let mut process = Self { child, socket, frames, stderr, confinement, books: 0, reusable: true };
        process.socket.set_read_timeout(Some(TICK))?;
        process.socket.set_write_timeout(Some(START))?;
        process.confinement = process.greet(settings)?;
        Ok(process)
    }

    fn greet(&mut self, settings: &SandboxSettings) -> io::Result<Confinement> {
        let died = |process: &mut Self, error: io::Error| {
            let status = process.end();
            let words = process.last_words();
            io::Error::other(format!("the reader's child did not start ({error}; {status}) {words}"))
        };
        if let Err(error) = write_frame(&self.socket, &Setup { memory_bytes: settings.memory_bytes }) {
            return Err(died(self, error));
        }
        let started = Instant::now();
        loop {
            match self.frames.next(&self.socket) {
                Ok(Some((Reply::Ready(confinement), _))) => return Ok(confinement),
                Ok(Some(_)) => return Err(died(self, io::Error::other("it answered out of turn"))),
                Ok(None) if started.elapsed() < START => {}
                Ok(None) => return Err(died(self, io::ErrorKind::TimedOut.into())),
                Err(error) => return Err(died(self, error)),
            }
        }
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Has the child read `file`; `path` is the book's name in messages. Ends the child where it does not answer as it
    /// should, or where `keep_going` says no.
    pub fn read(
        &mut self,
        file: &File,
        path: &Path,
        request: &Request,
        settings: &SandboxSettings,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<(Document, Option<Report>), ExtractError> {
        self.books += 1;
        self.reusable = false;
        let silence = match write_frame_with_file(&self.socket, request, file) {
            Ok(()) => match self.listen(path, settings, keep_going) {
                Ok(answer) => return answer,
                Err(silence) => silence,
            },
            Err(_) => Silence::Ended,
        };
        let status = self.end();
        Err(self.cause(silence, status, path, settings))
    }

    fn listen(
        &mut self,
        path: &Path,
        settings: &SandboxSettings,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Result<(Document, Option<Report>), ExtractError>, Silence> {
        let (mut document, mut report) = (Document::default(), None);
        let mut output = 0;
        let started = Instant::now();
        let mut last_sign = started;
        loop {
            match self.frames.next(&self.socket) {
                Ok(Some((reply, bytes))) => {
                    last_sign = Instant::now();
                    output += bytes as u64;
                    match reply {
                        Reply::Working => {}
                        Reply::Section(section) => document.sections.push(section),
                        Reply::Report(measured) => report = Some(measured),
                        Reply::Finished(ending) => {
                            self.reusable = !ending.retire;
                            self.frames.shrink();
                            document.title = ending.title;
                            document.authors = ending.authors;
                            document.language = ending.language;
                            document.notes = ending.notes;
                            return Ok(Ok((document, report)));
                        }
                        Reply::Failed(fault, retire) => {
                            self.reusable = !retire;
                            return Ok(Err(fault.of(path)));
                        }
                        Reply::Ready(_) => return Err(Silence::Nonsense(io::Error::other("it answered out of turn"))),
                    }
                    if output > settings.limits.max_text_bytes + OVERHEAD_BYTES {
                        return Err(Silence::TooMuch);
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Silence::Nonsense(error)),
                Err(_) => return Err(Silence::Ended),
            }
            if !keep_going() {
                return Err(Silence::Stopped);
            }
            if last_sign.elapsed() > settings.stall || started.elapsed() > LONGEST {
                return Err(Silence::Stalled);
            }
        }
    }

    /// Ends the process where it still runs; says how it ended.
    fn end(&mut self) -> ExitStatus {
        // Of a process that has ended already this fails, and its own status stays.
        let killed = self.child.try_wait().ok().flatten();
        killed.unwrap_or_else(|| {
            // Closed but not yet gone: give it the moment that an abort takes.
            std::thread::sleep(Duration::from_millis(20));
            let _ = self.child.kill();
            self.child.wait().unwrap_or_default()
        })
    }

    /// The end of what it wrote to standard error, on one line.
    fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        let length = self.stderr.metadata().map_or(0, |metadata| metadata.len());
        let _ = self.stderr.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)));
        let _ = (&self.stderr).take(LAST_WORDS_BYTES).read_to_end(&mut words);
        String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn cause(&mut self, silence: Silence, status: ExitStatus, path: &Path, settings: &SandboxSettings) -> ExtractError {
        let path = path.to_owned();
        let costly = |path, what: String| ExtractError::Costly { path, what };
        match silence {
            Silence::Stopped => return ExtractError::Stopped,
            Silence::TooMuch => {
                let limit = settings.limits.max_text_bytes;
                return ExtractError::TooLarge { path, what: "its text".to_owned(), limit };
            }
            Silence::Stalled => {
                let what = format!("made no progress for {} s", settings.stall.as_secs());
                return costly(path, what);
            }
            Silence::Nonsense(error) => {
                return ExtractError::Crashed { path, how: format!("the reader's child sent nonsense: {error}") };
            }
            Silence::Ended => {}
        }
        let words = self.last_words();
        // What std prints before it aborts (library/alloc/src/alloc.rs, library/std/src/sys/.../stack_overflow.rs).
        if words.contains("memory allocation of") {
            return costly(path, format!("needed more than {} MiB of memory", settings.memory_bytes >> 20));
        }
        if words.contains("has overflowed its stack") {
            return costly(path, "is nested too deeply (the stack overflowed)".to_owned());
        }
        match status.signal().map(Signal::try_from) {
            Some(Ok(Signal::SIGXCPU)) => costly(path, format!("took more than {} s of CPU time", settings.cpu_seconds)),
            // Not by this program's hand: the kernel's, short of memory, or a person's.
            Some(Ok(Signal::SIGKILL)) => {
                let source = io::Error::other("its reader was killed from outside (is the machine short of memory?)");
                ExtractError::Child { path, source }
            }
            Some(Ok(signal)) => ExtractError::Crashed { path, how: format!("{signal} {words}").trim().to_owned() },
            _ => ExtractError::Crashed { path, how: format!("{status} {words}").trim().to_owned() },
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
