//! The thread that owns the one writing connection, and the handle by which everybody else reaches it: a bounded
//! channel of closures, each answered. Must never hold two connections, or let a caller's panic take the state down.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Queue;
use crate::domain::Failure;
use crate::failpoint;

/// Requests that may wait for the thread; a caller beyond that blocks.
const WAITING: usize = 64;
/// How long the end of the thread is waited for. A disk that does not answer holds it for ever, and the process must end
/// all the same; what is not committed by then is as after a kill.
const LAST_REQUEST: Duration = Duration::from_secs(8);

type Request = Box<dyn FnOnce(&mut Queue) + Send>;

/// The queue's thread has ended, or the request itself panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the queue's thread does not answer: the service is stopping, or a request to the state panicked (see the log)"
)]
pub struct QueueStopped;

impl From<QueueStopped> for Failure {
    fn from(stopped: QueueStopped) -> Self {
        Failure::fatal(stopped)
    }
}

/// Reaches the queue from any thread. Calls block: none may be made on an async worker thread.
#[derive(Clone)]
pub struct QueueHandle {
    shared: Arc<Shared>,
}

struct Shared {
    /// None once stopped: dropping the sender ends the thread after what was sent before.
    sender: Mutex<Option<SyncSender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    wake: Arc<Wake>,
}

/// Counts up whenever there may be work. Counting, rather than a flag, lets several workers miss nothing.
#[derive(Default)]
struct Wake {
    state: Mutex<(u64, bool)>,
    changed: Condvar,
}

impl Wake {
    fn update(&self, change: impl FnOnce(&mut (u64, bool))) {
        change(&mut lock(&self.state));
        self.changed.notify_all();
    }
}

impl QueueHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has no thread to give.
    pub fn spawn(queue: Queue) -> std::io::Result<QueueHandle> {
        let (sender, receiver) = sync_channel(WAITING);
        let wake = Arc::new(Wake::default());
        let thread = std::thread::Builder::new().name("queue".into()).spawn(move || serve(queue, &receiver))?;
        Ok(QueueHandle {
            shared: Arc::new(Shared { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), wake }),
        })
    }

    /// Runs a closure on the queue's thread and waits for its answer. Calls are served in the order they come.
    ///
    /// # Errors
    /// [`QueueStopped`] after [`QueueHandle::stop`], or where the closure panicked.
    pub fn call<R: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Queue) -> R + Send + 'static,
    ) -> Result<R, QueueStopped> {
        let sender = lock(&self.shared.sender).clone().ok_or(QueueStopped)?;
        let (request, answered) = self.prepare(request);
        sender.send(request).map_err(|_| QueueStopped)?;
        answered.recv().map_err(|_| QueueStopped)
    }

    /// Hands a request over and does not wait: its answer comes by the receiver. None where too many wait already.
    ///
    /// # Errors
    /// As [`QueueHandle::call`].
    pub fn begin<R: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Queue) -> R + Send + 'static,
    ) -> Result<Option<Receiver<R>>, QueueStopped> {
        let sender = lock(&self.shared.sender).clone().ok_or(QueueStopped)?;
        let (request, answered) = self.prepare(request);
        match sender.try_send(request) {
            Ok(()) => Ok(Some(answered)),
            Err(TrySendError::Full(_)) => Ok(None),
            Err(TrySendError::Disconnected(_)) => Err(QueueStopped),
        }
    }

    /// As [`QueueHandle::call`], but waits no longer than that: None where there is no answer by then. The request is
    /// done all the same.
    ///
    /// # Errors
    /// As [`QueueHandle::call`].
    pub fn call_within<R: Send + 'static>(
        &self,
        patience: Duration,
        request: impl FnOnce(&mut Queue) -> R + Send + 'static,
    ) -> Result<Option<R>, QueueStopped> {
        let Some(answered) = self.begin(request)? else { return Ok(None) };
        match answered.recv_timeout(patience) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(QueueStopped),
        }
    }

    fn prepare<R: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Queue) -> R + Send + 'static,
    ) -> (Request, Receiver<R>) {
        let (answer, answered) = sync_channel(1);
        let wake = Arc::clone(&self.shared.wake);
        let request = Box::new(move |queue: &mut Queue| {
            failpoint::hang("queue");
            let result = request(queue);
            // Before the answer: who has it may rely on the workers having been told.
            if queue.take_work_added() {
                wake.update(|state| state.0 += 1);
            }
            // A caller that has gone away does not want its answer.
            let _ = answer.send(result);
        });
        (request, answered)
    }

    /// A number that grows whenever a job may have become claimable. Read it before [`Queue::claim`], and hand it to
    /// [`QueueHandle::wait_for_work`] where nothing was claimed: work that came in between is not slept through.
    pub fn work_seen(&self) -> u64 {
        lock(&self.shared.wake.state).0
    }

    /// Sleeps until there may be work that came after `seen`, the handle is stopped, or the time is up. True where
    /// there may be work.
    pub fn wait_for_work(&self, seen: u64, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = lock(&self.shared.wake.state);
        while state.0 == seen && !state.1 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.wake.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !state.1
    }

    /// Wakes everybody in [`QueueHandle::wait_for_work`]. Changes made through the queue do so by themselves.
    pub fn work_available(&self) {
        self.shared.wake.update(|state| state.0 += 1);
    }

    /// Whether [`QueueHandle::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        lock(&self.shared.wake.state).1
    }

    /// Serves what was sent before, closes the file and ends the thread, unless that takes too long. Later calls fail;
    /// waiting workers wake.
    pub fn stop(&self) {
        self.shared.wake.update(|state| state.1 = true);
        drop(lock(&self.shared.sender).take());
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let until = Instant::now() + LAST_REQUEST;
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                // The thread catches panics; there is nothing to learn from its end.
                let _ = thread.join();
            }
        }
    }
}

fn serve(mut queue: Queue, requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv() {
        // An open transaction is rolled back while the panic unwinds, so the queue is whole afterwards.
        if std::panic::catch_unwind(AssertUnwindSafe(|| request(&mut queue))).is_err() {
            tracing::error!("a request to the state panicked; nothing of it was kept. This is a bug: please report it");
        }
    }
}

/// The guarded values are plain and whole at every moment, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
