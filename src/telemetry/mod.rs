//! The log (journald with fields when run by systemd, readable text otherwise), the table of its fields and events, and
//! the reckoning of rates and remaining time.
//! Must never block a stage or fail the service: a log that cannot be written is a poor reason to stop.

pub mod estimate;
pub mod event;
mod rate;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use indicatif::ProgressBar;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

pub use event::{EVENTS, Event, FIELDS, Field};
pub use rate::RateMeter;

/// The filter of the log that was started, to be changed while it goes on.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    Journal,
    Stderr,
}

/// Starts the log: `level` is a level's name or a tracing filter; lines on standard error go above `bar`. Says where
/// the log goes.
///
/// # Errors
/// A filter that cannot be read, or a log that was started before.
pub fn init(level: &str, bar: Option<ProgressBar>) -> Result<LogTarget, String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    // A second log is refused below.
    let _ = FILTER.set(handle);
    let registry = tracing_subscriber::registry().with(filter);
    // Where systemd's promise of a journal is not kept, text on stderr is better than silence.
    if stderr_is_the_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        // `journalctl -p notice` shows what is more than the course of things.
        let priorities =
            PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
        // Without a prefix the fields are what people type: `journalctl BOOK_ID=12`.
        let journal = journal
            .with_field_prefix(None)
            .with_priority_mappings(priorities)
            .with_syslog_identifier("alexandria-ingestd".into());
        registry.with(journal).try_init().map_err(|error| error.to_string())?;
        return Ok(LogTarget::Journal);
    }
    // The message says what the fields say: on a terminal both would be one too many.
    let message_alone = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let text = tracing_subscriber::fmt::layer()
        .fmt_fields(message_alone)
        .with_writer(move || AboveBar(bar.clone()))
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // A job's span gives its events their fields in the journal; here it would be a word in front of each line.
        .with_filter(filter_fn(|metadata| metadata.is_event()));
    registry.with(text).try_init().map_err(|error| error.to_string())?;
    Ok(LogTarget::Stderr)
}

/// Standard error, with the progress bar out of the way while a line is written.
struct AboveBar(Option<ProgressBar>);

impl std::io::Write for AboveBar {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match &self.0 {
            Some(bar) => bar.suspend(|| std::io::stderr().write(line)),
            None => std::io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// Whether [`init`] would take this `log.level`.
///
/// # Errors
/// What is wrong with it.
pub fn check_level(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// Changes the level of the log that was started.
///
/// # Errors
/// What is wrong with the level, or that there is no log.
pub fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    let handle = FILTER.get().ok_or("there is no log whose level could be changed")?;
    handle.reload(filter).map_err(|error| error.to_string())
}

/// A level's name means ours at that level, and warnings of the libraries: their chatter would bury the books.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let bad = |reason: &str| {
        format!(
            "log.level '{level}': {reason}; use error, warn, info, debug, trace or a tracing filter such as 'info,alexandria_ingestd::store=debug'"
        )
    };
    let text = level.trim();
    let text = match text.to_lowercase().as_str() {
        name @ ("info" | "debug" | "trace") => format!("warn,qdrant_edge=error,alexandria_ingestd={name}"),
        // The engine warns, hundreds of times, that a program which is not Qdrant's server has set no feature flags.
        "warn" => "warn,qdrant_edge=error".to_owned(),
        name @ ("error" | "off") => name.to_owned(),
        // To a filter a misspelt level is a module that nothing is ever logged from.
        _ if !text.contains('=') => return Err(bad("there is no such level")),
        _ => text.to_owned(),
    };
    EnvFilter::try_new(text).map_err(|error| bad(&error.to_string()))
}

/// Whether stderr is the stream that systemd connected to the journal: JOURNAL_STREAM names its device and inode, and
/// is inherited by processes whose stderr goes somewhere else.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() else { return false };
    std::fs::File::from(stderr).metadata().is_ok_and(|found| names(&stream, found.dev(), found.ino()))
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(names("8:42", 8, 42));
        assert!(!names("8:43", 8, 42));
        assert!(!names("", 8, 42));
        assert!(!names("8", 8, 42));
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for level in ["info", " INFO ", "warn", "off", "warn,alexandria_ingestd::store=debug", "hyper=trace"] {
            check_level(level).unwrap();
        }
        for level in ["", "infoo", "7", "a=b=c", "warn,loud"] {
            let error = check_level(level).unwrap_err();
            assert!(error.contains("log.level"), "{error}");
        }
        assert_eq!(filter("debug").unwrap().to_string(), "alexandria_ingestd=debug,qdrant_edge=error,warn");
    }
}
