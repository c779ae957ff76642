//! Untrusted files are read in child processes of this program, which can do nothing but read the one file they are
//! handed and compute: a file that crashes, hangs or fills its reader costs that reader. Must never run a reader in
//! this process.
//!
//! Children are kept and given the next book, for starting one costs as much as a small book. One that failed in any
//! way of its own, or grew large, is replaced.

mod child;
mod confine;
#[cfg(debug_assertions)]
mod misbehave;
mod process;
mod protocol;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use self::child::{VERB as CHILD_VERB, run as run_child};
use self::process::Process;
pub use self::protocol::Confinement;
use self::protocol::Request;
use super::report::Report;
use super::{ExtractError, Limits};
use crate::domain::Document;

/// Books after which a child is replaced, whatever it says of its memory.
const BOOKS_PER_CHILD: usize = 500;

/// What a child may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// This program, which becomes a child by the argument [`CHILD_VERB`].
    pub program: PathBuf,
    pub limits: Limits,
    /// Writable memory of a child.
    pub memory_bytes: u64,
    /// CPU time of a book, in seconds.
    pub cpu_seconds: u64,
    /// A child without a sign of life for so long is ended.
    pub stall: Duration,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            // The running file itself, even where an update has put another one in its place.
            program: "/proc/self/exe".into(),
            limits: Limits::default(),
            memory_bytes: 1 << 30,
            cpu_seconds: 300,
            stall: Duration::from_secs(60),
        }
    }
}

/// The readers' children: as many as there are books read at once. Shared by all workers.
#[derive(Debug)]
pub struct Sandbox {
    settings: SandboxSettings,
    idle: Mutex<Vec<Process>>,
}

impl Sandbox {
    pub fn new(settings: SandboxSettings) -> Self {
        Self { settings, idle: Mutex::default() }
    }

    pub fn settings(&self) -> &SandboxSettings {
        &self.settings
    }

    /// Starts one child, to be used for the first book.
    ///
    /// # Errors
    /// Where no child can be started at all.
    pub fn warm_up(&self) -> io::Result<Confinement> {
        let process = Process::start(&self.settings)?;
        let confinement = process.confinement;
        self.put_back(process);
        Ok(confinement)
    }

    /// Reads the text of `file`. `path` is the book's name in messages, `format` Calibre's name of the format. Gives up
    /// with [`ExtractError::Stopped`] soon after `keep_going` says no.
    ///
    /// # Errors
    /// See [`ExtractError`].
    pub fn extract(
        &self,
        file: &File,
        path: &Path,
        format: &str,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Document, ExtractError> {
        Ok(self.read(file, path, format, false, keep_going)?.0)
    }

    /// The same of the file at `path`, with a comparison of its words with an independent count.
    pub fn extract_and_measure(&self, path: &Path, format: &str) -> Result<(Document, Report), ExtractError> {
        let file = File::open(path).map_err(|source| ExtractError::Io { path: path.to_owned(), source })?;
        let (document, report) = self.read(&file, path, format, true, &|| true)?;
        let how = || "the reader's child sent no report".to_owned();
        let report = report.ok_or_else(|| ExtractError::Crashed { path: path.to_owned(), how: how() })?;
        Ok((document, report))
    }

    fn read(
        &self,
        file: &File,
        path: &Path,
        format: &str,
        measure: bool,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<(Document, Option<Report>), ExtractError> {
        let request = Request {
            path: path.as_os_str().as_bytes().to_vec(),
            format: format.to_owned(),
            limits: self.settings.limits.clone(),
            cpu_seconds: self.settings.cpu_seconds,
            measure,
        };
        let mut process = self.take(path)?;
        let answer = process.read(file, path, &request, &self.settings, keep_going);
        if process.reusable && process.books < BOOKS_PER_CHILD {
            self.put_back(process);
        }
        let (document, report) = answer?;
        super::check_text_size(
            path,
            &self.settings.limits,
            document.sections.iter().map(|section| section.text.len() as u64).sum(),
        )?;
        Ok((document, report))
    }

    /// An idle child, else a new one.
    fn take(&self, path: &Path) -> Result<Process, ExtractError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(mut process) = idle() {
            // One that was killed while it had nothing to do has harmed no book.
            if !process.has_ended() {
                return Ok(process);
            }
        }
        let started = Process::start(&self.settings);
        started.map_err(|source| ExtractError::Child { path: path.to_owned(), source })
    }

    fn put_back(&self, process: Process) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(process);
    }
}

/// Whether `argument`, the program's first, makes this process a child.
pub fn is_child_call(argument: Option<&OsStr>) -> bool {
    argument == Some(OsStr::new(CHILD_VERB))
}
