//! Libraries that do not answer: nothing is read from them for a while, so that the jobs that need no reading, and those
//! of other libraries, go on. Every now and then one job tries again; a library that is seen again is open at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clock::now_us;

/// Between two tries at a library that does not answer: first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A library whose books wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedLibrary {
    pub library: Uuid,
    /// Microseconds since the epoch.
    pub since_us: i64,
    pub reason: String,
}

#[derive(Debug)]
struct Closed {
    since_us: i64,
    reason: String,
    pause: Duration,
    until: Instant,
}

/// Shared by workers, watcher and status.
#[derive(Debug, Default)]
pub struct LibraryGate {
    closed: Mutex<BTreeMap<Uuid, Closed>>,
}

impl LibraryGate {
    /// Nothing is read from this library until the next try. True where it was open before.
    pub fn close(&self, library: Uuid, reason: &str) -> bool {
        let now = Instant::now();
        let mut closed = self.lock();
        match closed.get_mut(&library) {
            Some(closed) => {
                closed.pause = (closed.pause * 2).min(LONGEST_PAUSE);
                closed.until = now + closed.pause;
                reason.clone_into(&mut closed.reason);
                false
            }
            None => {
                let (pause, reason) = (FIRST_PAUSE, reason.to_owned());
                closed.insert(library, Closed { since_us: now_us(), reason, pause, until: now + pause });
                true
            }
        }
    }

    /// The library answers. True where it was closed before.
    pub fn open(&self, library: Uuid) -> bool {
        self.lock().remove(&library).is_some()
    }

    /// The libraries from which nothing is to be read now.
    pub fn closed_now(&self) -> Vec<Uuid> {
        let now = Instant::now();
        self.lock().iter().filter(|(_, closed)| closed.until > now).map(|(library, _)| *library).collect()
    }

    /// How long until the next of them may be tried; None where all are open, or may be tried already.
    pub fn next_try_in(&self) -> Option<Duration> {
        let now = Instant::now();
        self.lock().values().filter_map(|closed| closed.until.checked_duration_since(now)).min()
    }

    /// All that are closed, for the status.
    pub fn closed(&self) -> Vec<ClosedLibrary> {
        let closed = self.lock();
        let row = |(library, closed): (&Uuid, &Closed)| ClosedLibrary {
            library: *library,
            since_us: closed.since_us,
            reason: closed.reason.clone(),
        };
        closed.iter().map(row).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Closed>> {
        // Entries are whole at every moment.
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_library_is_tried_ever_less_often_and_opens_at_once() {
        let (gate, library) = (LibraryGate::default(), Uuid::from_u128(1));
        assert!(gate.close(library, "no answer") && !gate.close(library, "still none"));
        assert_eq!(gate.closed_now(), [library]);
        assert!(gate.next_try_in().is_some_and(|wait| wait > FIRST_PAUSE && wait <= FIRST_PAUSE * 2));
        assert_eq!(gate.closed()[0].reason, "still none");
        for _ in 0..10 {
            gate.close(library, "none");
        }
        assert!(gate.next_try_in().is_some_and(|wait| wait <= LONGEST_PAUSE));
        assert!(gate.open(library) && !gate.open(library));
        assert!(gate.closed_now().is_empty() && gate.next_try_in().is_none());
    }
}
