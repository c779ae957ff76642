//! When to look: a thread that follows a timer, the kernel's events where they exist, and requests by hand.
//!
//! The thread may hang with the mount for minutes; it must never be waited for without a limit. The timer is the
//! truth, events only shorten the wait: over a network none arrive, but for the SMB client's notification.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::notify_cifs::{self, Notice};
use super::schedule::{Input, Schedule};
use super::{DATABASE, Heartbeat, MountInfo, Signature, mount_info, signature, snapshot};
use crate::domain::LibraryKind;

/// After an event, this much quiet is waited for: Calibre adds a book in a dozen transactions over 0.3 s.
const QUIET: Duration = Duration::from_millis(250);
/// But never longer than this after the first event.
const QUIET_AT_MOST: Duration = Duration::from_millis(1000);
/// The SMB client may show a file as it was for a second after it was told of a change, and the server for some more
/// (leases): so often, and so long, it is looked at again.
const AFTER_NOTIFICATION: Duration = Duration::from_secs(1);
const NOTIFICATION_HOLDS: Duration = Duration::from_secs(6);
/// A notification that failed is asked for again after this.
const NOTIFICATION_AGAIN: Duration = Duration::from_secs(60);
/// Polling faster than this would be a busy loop.
const SHORTEST_POLL: Duration = Duration::from_millis(5);

/// What the watcher needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    pub path: PathBuf,
    /// Between two signatures (one or two stat calls).
    pub poll: Duration,
    /// Between two full looks.
    pub full_scan: Duration,
    /// Use the kernel's change events where the file system has them.
    pub inotify: bool,
    /// Use the SMB client's change notification on its mounts.
    pub change_notify: bool,
}

/// What shortens the wait between two polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The kernel's events.
    Inotify,
    /// The SMB client's change notification.
    Cifs,
}

/// Why a look is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookReason {
    /// The first look.
    Start,
    /// Asked for by hand.
    Asked { full: bool },
    /// The signature changed, or the library came or went.
    Changed,
    /// The kernel reported a change in a plain folder.
    Event,
    /// The last look left something open.
    Again,
    /// The last look failed.
    Retry,
    /// A plain folder, which only a walk can tell about.
    Walk,
    /// The slow timer.
    FullScan,
}

impl LookReason {
    /// Whether every book's file is to be looked at.
    pub fn is_full(self) -> bool {
        matches!(self, LookReason::FullScan | LookReason::Asked { full: true })
    }
}

/// What became of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookOutcome {
    /// Complete; the next change will tell.
    Settled,
    /// Complete, but a file is not whole, or a book is missing and its grace runs: look again, ever less often, at
    /// least every `at_most`.
    Again { at_most: Duration },
    /// Nothing learned: try again, ever less often, at least every minute, and at once when the signature changes.
    Failed,
}

/// What the watcher is doing, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchStatus {
    /// None until the file system has answered once.
    pub mount: Option<MountInfo>,
    /// Between two polls.
    pub poll: Duration,
    pub hint: Option<Hint>,
    /// Why nothing shortens the wait.
    pub no_hint_because: Option<String>,
    /// Signatures taken.
    pub polls: u64,
    /// Looks made, and how many of them at every file.
    pub looks: u64,
    pub full_looks: u64,
    /// Since when a call into the library has not returned, microseconds since the epoch.
    pub waiting_since_us: Option<i64>,
    /// False once the thread has ended.
    pub running: bool,
}

/// Talks to the watcher's thread. Clones talk to the same one; dropping them all does not end it.
#[derive(Clone)]
pub struct Watcher {
    shared: Arc<Shared>,
}

impl Watcher {
    /// Starts the thread. `on_look` runs on it, one call at a time; it decides by `reason` how thorough to be, and
    /// passes the heartbeat on to [`super::Shelf`].
    pub fn spawn(
        mut settings: Settings,
        on_look: impl FnMut(LookReason, &Heartbeat) -> LookOutcome + Send + 'static,
    ) -> io::Result<Watcher> {
        settings.poll = settings.poll.max(SHORTEST_POLL);
        let shared = Arc::new(Shared::default());
        shared.lock().status = WatchStatus { poll: settings.poll, running: true, ..WatchStatus::default() };
        let watcher = Watcher { shared: Arc::clone(&shared) };
        thread::Builder::new().name("library".to_owned()).spawn(move || {
            let ending = EndGuard(shared);
            Loop { settings, shared: Arc::clone(&ending.0), on_look }.run();
        })?;
        Ok(watcher)
    }

    /// Asks for a look as soon as possible. Requests made while one is pending become one.
    pub fn look_now(&self, full: bool) {
        let mut state = self.shared.lock();
        state.asked = Some(state.asked.unwrap_or(false) || full);
        self.shared.wake.notify_all();
    }

    /// Polls and compares in full at these intervals from now on.
    pub fn retime(&self, poll: Duration, full_scan: Duration) {
        self.shared.lock().retime = Some((poll.max(SHORTEST_POLL), full_scan));
        self.shared.wake.notify_all();
    }

    pub fn status(&self) -> WatchStatus {
        let waiting_since_us = self.shared.heartbeat.waiting_since_us();
        WatchStatus { waiting_since_us, ..self.shared.lock().status.clone() }
    }

    /// Ends the thread, waiting for at most `patience`: false where it hangs in the library; it is then left behind,
    /// and ends by itself when the library answers.
    pub fn stop(&self, patience: Duration) -> bool {
        let mut state = self.shared.lock();
        state.stop = true;
        self.shared.wake.notify_all();
        let deadline = Instant::now() + patience;
        while state.status.running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wait(state, left);
        }
        true
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Anything in `state` changed.
    wake: Condvar,
    heartbeat: Heartbeat,
}

#[derive(Default)]
struct State {
    stop: bool,
    /// A look is wanted; true: a full one.
    asked: Option<bool>,
    /// Other intervals are wanted: of polls, of full comparisons.
    retime: Option<(Duration, Duration)>,
    /// When the first and the latest event since the last look came.
    events: Option<(Instant, Instant)>,
    /// When the SMB client last told of a change.
    notified: Option<Instant>,
    /// When a notification that failed is to be asked for again.
    notify_again: Option<Instant>,
    status: WatchStatus,
}

impl Shared {
    /// Something changed: the wait ends soon.
    fn event(&self, notified: bool) {
        let now = Instant::now();
        let mut state = self.lock();
        state.events = Some((state.events.map_or(now, |(first, _)| first), now));
        if notified {
            state.notified = Some(now);
        }
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change to the state is a single assignment, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.wake.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Marks the end of the thread, also when `on_look` panics.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.heartbeat.rest();
        self.0.lock().status.running = false;
        self.0.wake.notify_all();
    }
}

struct Loop<F> {
    settings: Settings,
    shared: Arc<Shared>,
    on_look: F,
}

impl<F: FnMut(LookReason, &Heartbeat) -> LookOutcome> Loop<F> {
    fn run(mut self) {
        let mut schedule = Schedule::new(self.settings.poll, self.settings.full_scan);
        let mut events = EventSource::default();
        loop {
            let retime = self.shared.lock().retime.take();
            if let Some((poll, full_scan)) = retime {
                self.settings.poll = poll;
                self.shared.lock().status.poll = poll;
                schedule.retime(Instant::now(), poll, full_scan);
            }
            let heartbeat = self.shared.heartbeat.clone();
            heartbeat.beat();
            let found = signature(&self.settings.path).ok();
            if let Some(found) = found {
                if self.shared.lock().notify_again.is_some_and(|at| at <= Instant::now()) {
                    events = EventSource::default();
                }
                self.arm(&mut events, found);
            }
            let calibre = found.is_some_and(|found| found.kind() == LibraryKind::Calibre);
            let counter = if calibre && schedule.wants_counter(found) {
                snapshot::change_counter(&self.settings.path.join(DATABASE)).ok().flatten()
            } else {
                None
            };
            heartbeat.rest();

            let (asked, event) = {
                let mut state = self.shared.lock();
                state.status.polls += 1;
                if state.stop {
                    return;
                }
                (state.asked.take(), state.events.take().is_some())
            };
            let input = Input { signature: found, counter, asked, event, events_active: events.inotify.is_some() };
            if let Some(reason) = schedule.decide(Instant::now(), input) {
                let started = Instant::now();
                heartbeat.beat();
                let outcome = (self.on_look)(reason, &heartbeat);
                heartbeat.rest();
                {
                    let status = &mut self.shared.lock().status;
                    status.looks += 1;
                    status.full_looks += u64::from(reason.is_full());
                }
                schedule.done(Instant::now(), started.elapsed(), reason, outcome);
                if outcome == LookOutcome::Failed && events.cifs.is_none() {
                    // What was watched may be another mount's directory by now. Not so with the SMB client: the handle
                    // it holds keeps the mount's number, so another mount has another one; and each asking leaves a
                    // thread behind that ends only with the next change.
                    events = EventSource::default();
                }
            }
            if self.sleep() {
                return;
            }
        }
    }

    /// Sleeps until something is due; true when the thread is to end.
    fn sleep(&self) -> bool {
        let started = Instant::now();
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            let notified = state.notified.is_some_and(|at| now < at + NOTIFICATION_HOLDS);
            let poll = self.settings.poll;
            let end = started + if notified { poll.min(AFTER_NOTIFICATION) } else { poll };
            if state.stop {
                return true;
            }
            if state.asked.is_some() || state.retime.is_some() || now >= end {
                return false;
            }
            let wake_at = match state.events {
                Some((first, latest)) => (latest + QUIET).min(first + QUIET_AT_MOST).min(end),
                None => end,
            };
            if wake_at <= now {
                return false;
            }
            state = self.shared.wait(state, wake_at - now);
        }
    }

    /// Asks once for what may shorten the wait, as the file system has it.
    fn arm(&self, events: &mut EventSource, found: Signature) {
        let place = (found.kind(), found.device());
        if events.tried_at == Some(place) {
            return;
        }
        let mount = match mount_info(&self.settings.path) {
            Ok(mount) => mount,
            Err(_) => return,
        };
        *events = EventSource { tried_at: Some(place), ..EventSource::default() };
        {
            // Before the thread that may take it back is started.
            let mut state = self.shared.lock();
            state.notify_again = None;
            state.status.hint = Some(if mount.network { Hint::Cifs } else { Hint::Inotify });
            state.status.no_hint_because = None;
            state.status.mount = Some(mount.clone());
        }
        let (settings, shared) = (&self.settings, Arc::clone(&self.shared));
        let refused = if mount.is_smb() {
            if settings.change_notify {
                let whole_tree = found.kind() == LibraryKind::Folder;
                let asked =
                    notify_cifs::subscribe(&settings.path, whole_tree, move |notice| take_note(&shared, notice));
                asked.map(|subscription| events.cifs = Some(subscription)).map_err(|error| error.to_string())
            } else {
                Err("library.change_notify is off".to_owned())
            }
        } else if mount.network {
            Err(format!("{} reports no changes made elsewhere", mount.fs_name))
        } else if settings.inotify {
            let asked = subscribe(&settings.path, found.kind(), shared);
            asked.map(|watcher| events.inotify = Some(watcher)).map_err(|error| error.to_string())
        } else {
            Err("library.inotify is off".to_owned())
        };
        if let Err(reason) = refused {
            let mut state = self.shared.lock();
            state.status.hint = None;
            state.status.no_hint_because = Some(reason);
        }
    }
}

/// On the notification's own thread.
fn take_note(shared: &Shared, notice: Notice) {
    match notice {
        Notice::Change => shared.event(true),
        Notice::Ended { reason, for_good } => {
            let mut state = shared.lock();
            state.status.hint = None;
            state.status.no_hint_because = Some(reason);
            state.notify_again = (!for_good).then(|| Instant::now() + NOTIFICATION_AGAIN);
        }
    }
}

/// What shortens the wait, and for which kind of library on which device it was asked for.
#[derive(Default)]
struct EventSource {
    tried_at: Option<(LibraryKind, u64)>,
    // Held, never used again: dropping them ends them.
    inotify: Option<notify::RecommendedWatcher>,
    cifs: Option<notify_cifs::Subscription>,
}

/// A Calibre library needs its root alone watched, for `metadata.db`; a plain folder every directory.
fn subscribe(path: &Path, kind: LibraryKind, shared: Arc<Shared>) -> notify::Result<notify::RecommendedWatcher> {
    use notify::event::{AccessKind, AccessMode};
    use notify::{Event, EventKind, RecursiveMode, Watcher};

    let calibre = kind == LibraryKind::Calibre;
    let root = path.to_owned();
    let matters = move |event: &Event| {
        let changes = match event.kind {
            // Our own reading opens files, too.
            EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        let of_database = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DATABASE.as_bytes()))
        };
        // What a look passes over tells of no book: above all the shared log, which this program writes itself.
        let hidden = |path: &PathBuf| {
            let name = |part: &std::path::Component| part.as_os_str().as_encoded_bytes().starts_with(b".");
            path.strip_prefix(&root).is_ok_and(|inside| inside.components().any(|part| name(&part)))
        };
        let of_books = |event: &Event| event.paths.is_empty() || !event.paths.iter().all(hidden);
        let told = if calibre { event.paths.iter().any(of_database) } else { of_books(event) };
        changes && (event.need_rescan() || told)
    };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error may mean lost events: one look too many is harmless.
        if event.as_ref().map_or(true, &matters) {
            shared.event(false);
        }
    })?;
    watcher.watch(path, if calibre { RecursiveMode::NonRecursive } else { RecursiveMode::Recursive })?;
    Ok(watcher)
}
