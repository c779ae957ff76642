//! Opening the file: is it ours, whole, and of a schema we know; and the numbered migrations.
//! Must never change a file that it then refuses.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::QueueError;
use crate::failpoint;

/// Each applied once, in order, in a transaction of its own. Published ones are never edited.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../migrations/0001_initial.sql"),
    include_str!("../../migrations/0002_other_formats.sql"),
    include_str!("../../migrations/0003_report.sql"),
    include_str!("../../migrations/0004_reindex.sql"),
];

/// In the file's header, so that `file(1)` and we can tell it from any other database: "AlxI".
const APPLICATION_ID: i64 = 0x416c_7849;

pub(super) fn open(path: &Path) -> Result<Connection, QueueError> {
    check_header(path)?;
    let on_open = |source| QueueError::on_open(path, source);
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(on_open)?;
    let version = inspect(&connection, path)?;
    prepare(&connection).map_err(on_open)?;
    migrate(&mut connection, version).map_err(on_open)?;
    Ok(connection)
}

pub(super) fn open_in_memory() -> Result<Connection, QueueError> {
    let mut connection = Connection::open_in_memory()?;
    prepare(&connection)?;
    migrate(&mut connection, 0)?;
    Ok(connection)
}

/// Refuses a file that is no SQLite database before SQLite touches it. Absent and empty files are new states.
fn check_header(path: &Path) -> Result<(), QueueError> {
    let io = |source| QueueError::Io { path: path.to_owned(), source };
    let mut header = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(16).read_to_end(&mut header).map_err(io)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                    let source = std::io::Error::new(std::io::ErrorKind::NotFound, "its directory does not exist");
                    Err(io(source))
                }
                _ => Ok(()),
            };
        }
        Err(error) => return Err(io(error)),
    };
    if header.is_empty() || header == *b"SQLite format 3\0" {
        return Ok(());
    }
    Err(QueueError::NotAState { path: path.to_owned(), reason: "it is not an SQLite database".into() })
}

/// Reads what the file says of itself, and has SQLite check it. Returns the schema's version.
fn inspect(connection: &Connection, path: &Path) -> Result<usize, QueueError> {
    let on_open = |source| QueueError::on_open(path, source);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(on_open);
    let found = pragma("user_version")?;
    let application = pragma("application_id")?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(on_open)?;
    // A file that a crash left before the first migration has neither tables nor our mark.
    if application != APPLICATION_ID && (application != 0 || tables > 0) {
        let reason = format!("its application id is {application:#x}, not {APPLICATION_ID:#x}");
        return Err(QueueError::NotAState { path: path.to_owned(), reason });
    }
    let known = MIGRATIONS.len();
    let version = usize::try_from(found).ok().filter(|version| *version <= known).ok_or_else(|| QueueError::Newer {
        path: path.to_owned(),
        found,
        known: i64::try_from(known).unwrap_or(i64::MAX),
    })?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(on_open)?;
    if verdict != "ok" {
        return Err(QueueError::Corrupt { path: path.to_owned(), reason: verdict });
    }
    Ok(version)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" && mode != "memory" {
        tracing::warn!(
            JOURNAL_MODE = mode,
            "the state file's file system does not carry SQLite's write-ahead log; put state_dir on a local disk"
        );
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "trusted_schema", false)
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (number, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number as i64 + 1)?;
        failpoint::pass("state: before a migration's commit");
        transaction.commit()?;
        failpoint::pass("state: after a migration's commit");
    }
    Ok(())
}
