//! Calls into a library, on threads that may be left behind: a hung mount blocks a call for minutes or for ever, and
//! nothing ends it from outside. Must never let the caller wait for more than its patience without any progress, nor
//! leave more than one batch of threads behind at one library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::clock::now_us;

/// Between two looks at the progress of a call.
const TICK: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// A call has not returned since then (microseconds since the epoch).
    Hangs { since_us: i64 },
    /// The caller was told to stop.
    Interrupted,
    /// The system has no thread to give, or the call panicked.
    Failed,
}

/// Told by a call of every step it makes.
#[derive(Debug, Clone, Default)]
pub struct Steps(Arc<AtomicU64>);

impl Steps {
    pub fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy)]
struct Hanging {
    since_us: i64,
    threads: usize,
}

/// Runs calls, and remembers which libraries hang.
#[derive(Debug)]
pub struct Fetcher {
    /// Microseconds.
    patience: AtomicU64,
    hanging: Arc<Mutex<BTreeMap<Uuid, Hanging>>>,
}

impl Fetcher {
    /// A call without a step for `patience` is given up.
    pub fn new(patience: Duration) -> Self {
        let fetcher = Self { patience: AtomicU64::default(), hanging: Arc::default() };
        fetcher.set_patience(patience);
        fetcher
    }

    /// A call without a step for that long is given up from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.patience.store(u64::try_from(patience.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        Duration::from_micros(self.patience.load(Ordering::Relaxed))
    }

    /// Runs one call into a library. While an earlier one hangs there, none is made.
    pub fn run<T: Send + 'static>(
        &self,
        library: Uuid,
        go_on: &dyn Fn() -> bool,
        call: impl FnOnce(&Steps) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        if let Some(hanging) = lock(&self.hanging).get(&library) {
            return Err(NoAnswer::Hangs { since_us: hanging.since_us });
        }
        let steps = Steps::default();
        let left_behind = Arc::new(AtomicBool::new(false));
        let (answer, answered) = sync_channel(1);
        let returned = Returned { library, left_behind: left_behind.clone(), hanging: self.hanging.clone() };
        let of_call = steps.clone();
        let started = thread::Builder::new().name("fetch".to_owned()).spawn(move || {
            let _returned = returned;
            // A caller that has gone away does not want its answer; what it holds is dropped with it.
            let _ = answer.send(call(&of_call));
        });
        if started.is_err() {
            return Err(NoAnswer::Failed);
        }
        let (mut seen, mut since, mut since_us) = (steps.count(), Instant::now(), now_us());
        loop {
            match answered.recv_timeout(TICK) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Disconnected) => return Err(NoAnswer::Failed),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if !go_on() {
                return Err(NoAnswer::Interrupted);
            }
            let count = steps.count();
            if count != seen {
                (seen, since, since_us) = (count, Instant::now(), now_us());
            } else if since.elapsed() >= self.patience() {
                let mut hanging = lock(&self.hanging);
                // It may have ended just now; under the lock it either has answered or will see that it was left.
                if let Ok(value) = answered.try_recv() {
                    return Ok(value);
                }
                left_behind.store(true, Ordering::Relaxed);
                let entry = hanging.entry(library).or_insert(Hanging { since_us, threads: 0 });
                entry.threads += 1;
                return Err(NoAnswer::Hangs { since_us: entry.since_us });
            }
        }
    }
}

/// Tells, when a call has returned or panicked, that it hangs no more.
struct Returned {
    library: Uuid,
    left_behind: Arc<AtomicBool>,
    hanging: Arc<Mutex<BTreeMap<Uuid, Hanging>>>,
}

impl Drop for Returned {
    fn drop(&mut self) {
        let mut hanging = lock(&self.hanging);
        if self.left_behind.load(Ordering::Relaxed)
            && let Some(entry) = hanging.get_mut(&self.library)
        {
            entry.threads -= 1;
            if entry.threads == 0 {
                hanging.remove(&self.library);
            }
        }
    }
}

fn lock(hanging: &Mutex<BTreeMap<Uuid, Hanging>>) -> MutexGuard<'_, BTreeMap<Uuid, Hanging>> {
    // Entries are whole at every moment.
    hanging.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    #[test]
    fn a_call_that_hangs_is_left_behind_and_asked_no_more_until_it_returns() {
        let fetcher = Fetcher::new(Duration::from_millis(150));
        let (free, wait) = channel::<()>();
        let hung = fetcher.run(ONE, &|| true, move |_| wait.recv().is_ok());
        let Err(NoAnswer::Hangs { since_us }) = hung else { panic!("{hung:?}") };
        let started = Instant::now();
        assert_eq!(fetcher.run(ONE, &|| true, |_| 1), Err(NoAnswer::Hangs { since_us }));
        assert!(started.elapsed() < TICK, "no second thread is risked");
        assert_eq!(fetcher.run(OTHER, &|| true, |_| 1), Ok(1), "another library is another matter");
        free.send(()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while fetcher.run(ONE, &|| true, |_| 1).is_err() {
            assert!(Instant::now() < deadline, "it answers again");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_slow_call_that_makes_steps_is_waited_for() {
        let fetcher = Fetcher::new(Duration::from_millis(300));
        let slow = |steps: &Steps| {
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(80));
                steps.step();
            }
            7
        };
        assert_eq!(fetcher.run(ONE, &|| true, slow), Ok(7));
    }

    #[test]
    fn an_interrupted_caller_leaves_at_once_and_a_panic_is_no_hang() {
        let fetcher = Fetcher::new(Duration::from_secs(60));
        let (_never, wait) = channel::<()>();
        let started = Instant::now();
        assert_eq!(fetcher.run(ONE, &|| false, move |_| wait.recv().is_ok()), Err(NoAnswer::Interrupted));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(fetcher.run(ONE, &|| true, |_| panic!("a bug")), Err::<(), _>(NoAnswer::Failed));
    }
}
