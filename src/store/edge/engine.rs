//! One qdrant-edge shard behind a guard: a panic or a failed write inside the engine becomes an error, and the shard
//! is loaded again from its log before it is used next. Must never let the engine's panics out, or write to a nearly
//! full disk (the engine maps sparse files: a write that finds no block kills the process).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qdrant_edge::{
    CreateIndex, DEFAULT_VECTOR_NAME, Distance, EdgeConfig, EdgeShard, EdgeVectorParams, FieldIndexOperations,
    OperationError, OperationResult, PayloadFieldSchema, PayloadSchemaType, UpdateOperation,
};

use super::super::{KEYWORD_INDEXES, StoreError};
use crate::failpoint;

/// A kill during optimisation leaves this behind, and nothing else removes it.
const TEMP_SEGMENTS: &str = "temp_segments";

pub(super) struct Engine {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shard: Option<Arc<EdgeShard>>,
    /// Why the shard must be loaded again before its next use.
    broken: Option<String>,
}

impl Engine {
    /// Loads the shard at `path`, replaying what its log holds beyond the last flush.
    pub(super) fn load(path: &Path) -> Result<Engine, StoreError> {
        let shard = load(path)?;
        let state = State { shard: Some(Arc::new(shard)), broken: None };
        Ok(Engine { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// Creates a shard at `path`, whole or not at all: it is made under `scratch` and renamed when it is complete.
    pub(super) fn create(path: &Path, scratch: &Path, dimension: usize) -> Result<Engine, StoreError> {
        let failed = |reason: String| unavailable(path, format!("the collection cannot be created: {reason}"));
        remove_dir(scratch).map_err(|error| failed(error.to_string()))?;
        guarded(|| {
            let vectors = EdgeVectorParams::builder(dimension, Distance::Cosine).build();
            let config = EdgeConfig::builder().vector(DEFAULT_VECTOR_NAME, vectors).build();
            let shard = EdgeShard::new(scratch, config)?;
            add_indexes(&shard)?;
            shard.flush()
        })
        .map_err(&failed)?;
        sync_dir(scratch);
        // An empty directory in the way is nobody's collection; anything else makes the rename fail.
        let _ = fs::remove_dir(path);
        failpoint::pass("store: before the collection has its name");
        fs::rename(scratch, path).map_err(|error| failed(error.to_string()))?;
        if let Some(parent) = path.parent() {
            sync_dir(parent);
        }
        failpoint::pass("store: after the collection has its name");
        Engine::load(path)
    }

    /// Runs a read. Its failure says nothing about the shard's state, a panic does.
    pub(super) fn read<T>(&self, what: &str, f: impl Fn(&EdgeShard) -> OperationResult<T>) -> Result<T, StoreError> {
        let shard = self.shard()?;
        match catch_unwind(AssertUnwindSafe(|| f(&shard))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.error(what, &error)),
            Err(panic) => Err(self.panicked(what, &*panic)),
        }
    }

    /// Runs a write. After a failure that is not the request's fault the engine refuses all later writes until the
    /// shard is loaded again, so the next use does that.
    pub(super) fn write<T>(
        &self,
        what: &str,
        f: impl FnOnce(&EdgeShard) -> OperationResult<T>,
    ) -> Result<T, StoreError> {
        let shard = self.shard()?;
        failpoint::pass(&format!("store: before {what}"));
        let done = catch_unwind(AssertUnwindSafe(|| f(&shard)));
        failpoint::pass(&format!("store: after {what}"));
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if !is_callers_fault(&error) {
                    self.mark_broken(format!("{what}: {error}"));
                }
                Err(self.error(what, &error))
            }
            Err(panic) => Err(self.panicked(what, &*panic)),
        }
    }

    /// The shard, loaded again first where it broke.
    pub(super) fn shard(&self) -> Result<Arc<EdgeShard>, StoreError> {
        let mut state = self.lock();
        if let (Some(shard), None) = (&state.shard, &state.broken) {
            return Ok(shard.clone());
        }
        if let Some(shard) = state.shard.take() {
            match Arc::try_unwrap(shard) {
                Ok(shard) => close(shard),
                Err(shared) => {
                    state.shard = Some(shared);
                    let reason = state.broken.clone().unwrap_or_default();
                    return Err(unavailable(
                        &self.path,
                        format!("it is to be loaded again when the calls in progress have ended, after: {reason}"),
                    ));
                }
            }
        }
        tracing::warn!(SHARD = %self.path.display(), REASON = ?state.broken, "loading the embedded store again");
        let shard = Arc::new(load(&self.path)?);
        *state = State { shard: Some(shard.clone()), broken: None };
        Ok(shard)
    }

    fn error(&self, what: &str, error: &OperationError) -> StoreError {
        // A point deleted meanwhile: the caller looks again and repeats.
        let gone = matches!(error, OperationError::PointIdError { .. });
        if is_callers_fault(error) && !gone {
            StoreError::Rejected { location: self.path.display().to_string(), reason: format!("{what}: {error}") }
        } else {
            unavailable(&self.path, format!("{what}: {}", first_line(&error.to_string())))
        }
    }

    fn panicked(&self, what: &str, panic: &(dyn std::any::Any + Send)) -> StoreError {
        let reason = format!("{what}: the engine panicked: {}", panic_text(panic));
        self.mark_broken(reason.clone());
        unavailable(&self.path, reason)
    }

    fn mark_broken(&self, reason: String) {
        self.lock().broken = Some(reason);
    }

    // A panic under this lock would leave a consistent state: every field is replaced whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(shard) = self.lock().shard.take().and_then(Arc::into_inner) {
            close(shard);
        }
    }
}

/// Adds the keyword indexes that are missing. Repeating it is harmless.
pub(super) fn add_indexes(shard: &EdgeShard) -> OperationResult<()> {
    let present = shard.info()?.payload_schema;
    for field in KEYWORD_INDEXES {
        let Ok(field_name) = field.parse() else { continue };
        if present.contains_key(&field_name) {
            continue;
        }
        let field_schema = Some(PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword));
        shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(CreateIndex {
            field_name,
            field_schema,
        })))?;
    }
    Ok(())
}

/// Removes a directory and what is in it; its absence is no error.
pub(super) fn remove_dir(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn unavailable(path: &Path, reason: String) -> StoreError {
    StoreError::Unavailable { location: path.display().to_string(), reason }
}

fn load(path: &Path) -> Result<EdgeShard, StoreError> {
    let failed = |reason: String| {
        if reason.contains("WouldBlock") || reason.contains("temporarily unavailable") {
            return StoreError::InUse { location: path.display().to_string() };
        }
        unavailable(
            path,
            format!(
                "it cannot be loaded: {reason}; if this stays so with enough free disk space, move that directory \
                 away and rescan (it holds nothing that cannot be computed again)"
            ),
        )
    };
    remove_dir(&path.join(TEMP_SEGMENTS)).map_err(|error| failed(error.to_string()))?;
    guarded(|| EdgeShard::load(path, None)).map_err(failed)
}

/// Dropping a shard flushes it, which may fail like any other write; the log then still holds everything.
fn close(shard: EdgeShard) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(move || drop(shard))) {
        tracing::warn!("closing the embedded store: the engine panicked: {}", panic_text(&*panic));
    }
}

fn guarded<T>(f: impl FnOnce() -> OperationResult<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|error| first_line(&error.to_string()).to_owned()),
        Err(panic) => Err(format!("the engine panicked: {}", panic_text(&*panic))),
    }
}

/// Errors that the same request would meet again, and that leave the shard as it was.
fn is_callers_fault(error: &OperationError) -> bool {
    matches!(
        error,
        OperationError::WrongVectorDimension { .. }
            | OperationError::VectorNameNotExists { .. }
            | OperationError::PointIdError { .. }
            | OperationError::TypeError { .. }
            | OperationError::TypeInferenceError { .. }
            | OperationError::ValidationError { .. }
            | OperationError::WrongSparse
            | OperationError::WrongMulti
            | OperationError::NonFiniteNumber { .. }
    )
}

/// Engine errors may carry a backtrace.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)")
}

/// Replaces a small file by one with this text, durable, or leaves it as it was.
pub(super) fn replace_file(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let scratch = path.with_extension("new");
    let mut file = fs::File::create(&scratch)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&scratch, path)?;
    if let Some(parent) = path.parent() {
        sync_dir(parent);
    }
    Ok(())
}

/// Makes a rename durable. Best effort: file systems that cannot sync a directory order renames themselves.
fn sync_dir(path: &Path) {
    if let Ok(dir) = fs::File::open(path) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(dir: &Path) -> Engine {
        Engine::create(&dir.join("books"), &dir.join(".books.creating"), 4).unwrap()
    }

    #[test]
    fn a_panic_inside_the_engine_is_an_error_and_heals() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        for _ in 0..2 {
            let error = engine.write::<()>("testing", |_| panic!("boom {}", 1)).unwrap_err();
            assert!(error.is_unavailable() && error.to_string().contains("boom 1"), "{error}");
            let error = engine.read::<()>("testing", |_| panic!("boom")).unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert_eq!(engine.read("testing", |shard| shard.info()).unwrap().points_count, 0);
        }
    }

    #[test]
    fn a_failed_write_has_the_shard_loaded_again_once_nobody_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let held = engine.shard().unwrap();
        let full = || OperationError::service_error("no space left on device");
        let error = engine.write::<()>("testing", |_| Err(full())).unwrap_err();
        assert!(error.is_unavailable() && error.to_string().contains("no space left"), "{error}");
        assert!(engine.shard().unwrap_err().is_unavailable());
        drop(held);
        let before = engine.shard().unwrap();
        assert!(Arc::ptr_eq(&before, &engine.shard().unwrap()));
    }

    #[test]
    fn a_refused_request_leaves_the_shard_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(dir.path());
        let before = Arc::as_ptr(&engine.shard().unwrap());
        let wrong = || OperationError::WrongVectorDimension { expected_dim: 4, received_dim: 5 };
        let error = engine.write::<()>("testing", |_| Err(wrong())).unwrap_err();
        assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
        assert_eq!(before, Arc::as_ptr(&engine.shard().unwrap()));
    }

    #[test]
    fn what_cannot_be_loaded_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("books");
        drop(engine(dir.path()));
        fs::write(path.join("edge_config.json"), "{").unwrap();
        let Err(error) = Engine::load(&path) else { panic!("loaded") };
        assert!(error.is_unavailable() && error.to_string().contains("books"), "{error}");
    }
}
