//! The child's side: takes one book after the other from the parent's socket (its standard input) and answers with the
//! text. Must never open a file, and must end when the parent does.

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrusage, setrlimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::super::report::Report;
use super::super::{ExtractError, Source, extract_source, progress};
use super::confine::confine;
use super::protocol::{Ending, Fault, FrameReader, KEPT_BYTES, Reply, Request, Setup, push_frame, write_frame};
use crate::domain::Document;

/// The argument that makes the program a child; no verb for people.
pub const VERB: &str = "extract-child";
/// A request holds a path and a few numbers.
const MAX_REQUEST_BYTES: usize = 1 << 20;
/// A child that once needed so much gives its memory back by ending.
const RETIRE_BYTES: i64 = 192 << 20;
/// Sections are gathered up to so many bytes before they are written.
const WRITE_BYTES: usize = 1 << 20;
const BEAT: Duration = Duration::from_secs(1);

/// The parent. Global because a sign of life comes from deep inside a reader; written to by one thread alone.
static PARENT: OnceLock<UnixStream> = OnceLock::new();
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs the process as a child until the parent closes the socket.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the reader's child: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    // SAFETY: the parent made descriptor 0 a socket that is this process's own; nothing else here uses it, for
    // std::io::stdin is never called.
    let parent = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let parent = PARENT.get_or_init(|| parent);
    let mut frames = FrameReader::new(MAX_REQUEST_BYTES);
    let setup = match frames.next::<Setup>(parent) {
        Ok(Some((setup, _))) => setup,
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
        _ => return Ok(()),
    };
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string().replace('\n', " ");
    }));
    progress::listen(beat);
    let confinement = confine(&setup)?;
    write_frame(parent, &Reply::Ready(confinement))?;
    let mut inbox = Inbox { parent, file: None };
    let mut frames_out = Vec::new();
    loop {
        let request = match frames.next::<Request>(&mut inbox) {
            Ok(Some((request, _))) => request,
            Ok(None) => continue,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(file) = inbox.file.take() else { return Err(io::Error::other("a request without a file")) };
        limit_cpu(request.cpu_seconds)?;
        frames_out = answer(parent, &request, file, frames_out)?;
    }
}

/// Reads the socket and keeps the descriptor that comes with a request.
struct Inbox<'a> {
    parent: &'a UnixStream,
    file: Option<File>,
}

impl io::Read for Inbox<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = nix::cmsg_space!([i32; 1]);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.parent.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                for descriptor in descriptors {
                    // SAFETY: the kernel has just made this descriptor for this process; nobody else owns it.
                    self.file = Some(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }));
                }
            }
        }
        Ok(message.bytes)
    }
}

/// Reads one book and sends the text. `frames` is an empty buffer, kept from book to book.
fn answer(mut parent: &UnixStream, request: &Request, file: File, mut frames: Vec<u8>) -> io::Result<Vec<u8>> {
    let read = catch_unwind(AssertUnwindSafe(|| read(request, file)));
    match read {
        Ok(Ok((document, report))) => {
            for section in document.sections {
                frames = push_frame(frames, &Reply::Section(section))?;
                if frames.len() > WRITE_BYTES {
                    parent.write_all(&frames)?;
                    frames.clear();
                }
            }
            if let Some(report) = report {
                frames = push_frame(frames, &Reply::Report(report))?;
            }
            let (title, authors, language, notes) =
                (document.title, document.authors, document.language, document.notes);
            let ending = Ending { title, authors, language, notes, retire: retire() };
            frames = push_frame(frames, &Reply::Finished(ending))?;
        }
        Ok(Err(error)) => frames = push_frame(frames, &Reply::Failed(Fault::from(error), retire()))?,
        Err(_) => {
            let message = std::mem::take(&mut *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
            frames = push_frame(frames, &Reply::Failed(Fault::Panicked { message }, true))?;
        }
    }
    parent.write_all(&frames)?;
    frames.clear();
    frames.shrink_to(KEPT_BYTES);
    Ok(frames)
}

fn read(request: &Request, file: File) -> Result<(Document, Option<Report>), ExtractError> {
    #[cfg(debug_assertions)]
    super::misbehave::misbehave(&request.format);
    let source = Source::from_file(file, &request.path())?;
    let document = extract_source(&source, &request.format, &request.limits)?;
    let report = match request.measure {
        true => Some(Report::measure(&source, &request.format, &document, &request.limits)?),
        false => None,
    };
    Ok((document, report))
}

/// The kernel ends the process (SIGXCPU) once it has used so much more.
fn limit_cpu(seconds: u64) -> io::Result<()> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let used = usage.user_time().tv_sec() + usage.system_time().tv_sec();
    let limit = u64::try_from(used).unwrap_or(0).saturating_add(seconds).saturating_add(1);
    let hard = nix::sys::resource::RLIM_INFINITY;
    Ok(setrlimit(Resource::RLIMIT_CPU, limit, hard)?)
}

fn retire() -> bool {
    // In KiB (getrusage(2)).
    getrusage(UsageWho::RUSAGE_SELF).is_ok_and(|usage| usage.max_rss().saturating_mul(1024) > RETIRE_BYTES)
}

/// Tells the parent, at most once a second, that the work goes on; ends the process where there is no parent.
fn beat() {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = STARTED.get_or_init(Instant::now).elapsed().as_millis() as u64;
    if now < NEXT.load(Ordering::Relaxed) {
        return;
    }
    NEXT.store(now + BEAT.as_millis() as u64, Ordering::Relaxed);
    if let Some(parent) = PARENT.get()
        && write_frame(parent, &Reply::Working).is_err()
    {
        std::process::exit(1);
    }
}

/// The parent's socket, for readers that misbehave on purpose.
#[cfg(debug_assertions)]
pub fn parent_of_tests() -> Option<&'static UnixStream> {
    PARENT.get()
}
