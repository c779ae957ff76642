//! The ingest workers: claim a job, run it, report what came of it. One bad book never stops the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Ingestor, JobError, JobSummary, Ran, story};
use crate::clock::now_us;
use crate::domain::{Failure, FailureKind};
use crate::queue::{ClaimedJob, NextStep, QueueError, QueueStats, QueueStopped};
use crate::telemetry::event;

/// The shortest sleep of a worker without work.
const TICK: Duration = Duration::from_millis(100);
/// The longest sleep of an idle worker.
const LONGEST_IDLE: Duration = Duration::from_secs(10);
/// The longest pause after a dependency (store, mount) failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// So many jobs that only wrote payloads are ended together, or fewer where the first of them waited this long: what
/// makes a job durable (a sync of the store, two of the state) costs a hundred times its work on a slow disk.
const ENDED_TOGETHER: usize = 64;
const ENDED_AFTER: Duration = Duration::from_secs(1);

/// How workers run.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSettings {
    pub workers: usize,
    /// End when nothing is left to claim now (the one-shot mode) instead of waiting for more.
    pub until_idle: bool,
}

/// Why a job was not done, and what happens with it; None where that could not be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct Unfinished {
    pub failure: Failure,
    pub next: Option<NextStep>,
}

/// Why the process is to end.
#[derive(Debug)]
pub enum FatalFailure {
    /// The state cannot be worked with; a new process would find the same.
    State(QueueError),
    /// The GPU is lost, or a thread has died: a new process may do better. The log says more.
    Other,
}

/// The first fatal failure that a worker met.
type Fatal = Mutex<Option<FatalFailure>>;

/// Running workers.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    fatal: Arc<Fatal>,
}

impl Workers {
    /// Starts the threads. `on_summary` is told of every finished job, on the worker's thread.
    pub fn spawn(
        ingestor: &Arc<Ingestor>,
        settings: WorkerSettings,
        on_finished: impl Fn(&ClaimedJob, &Result<JobSummary, Unfinished>) + Send + Sync + Clone + 'static,
    ) -> std::io::Result<Self> {
        let fatal = Arc::new(Fatal::default());
        let threads = (0..settings.workers.max(1))
            .map(|index| {
                let (ingestor, fatal, on_finished) = (ingestor.clone(), fatal.clone(), on_finished.clone());
                std::thread::Builder::new()
                    .name(format!("ingest-{index}"))
                    .spawn(move || work(&ingestor, settings, &fatal, &on_finished))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { threads, fatal })
    }

    /// Whether all workers have ended.
    pub fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// The failure that asks for the end of the process, where there is one. It is told once.
    pub fn take_fatal_failure(&self) -> Option<FatalFailure> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the threads to end, at most until `deadline`. False where one still works.
    pub fn join_until(self, deadline: Instant) -> bool {
        while !self.are_done() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// Jobs whose payloads are written, to be ended together.
struct Written<'a, F> {
    ingestor: &'a Ingestor,
    on_finished: &'a F,
    jobs: Vec<(ClaimedJob, JobSummary)>,
    since: Instant,
}

impl<F: Fn(&ClaimedJob, &Result<JobSummary, Unfinished>)> Written<'_, F> {
    fn add(&mut self, job: ClaimedJob, summary: JobSummary) {
        // Only jobs of one collection end together.
        if self.jobs.first().is_some_and(|(first, _)| first.shadow != job.shadow) {
            self.end();
        }
        if self.jobs.is_empty() {
            self.since = Instant::now();
        }
        self.jobs.push((job, summary));
        if self.jobs.len() >= ENDED_TOGETHER || self.since.elapsed() >= ENDED_AFTER {
            self.end();
        }
    }

    fn end(&mut self) {
        let jobs = std::mem::take(&mut self.jobs);
        if jobs.is_empty() {
            return;
        }
        let failure = match self.ingestor.finish_written_in_their_collection(&jobs) {
            Ok(()) => {
                for (job, summary) in jobs {
                    story::finished(&job, &summary);
                    (self.on_finished)(&job, &Ok(summary));
                }
                return;
            }
            // The queue's thread has ended: they are found in work at the next start, and done again.
            Err(JobError::Interrupted) => return,
            Err(JobError::Failed(failure) | JobError::LibraryAway(failure)) => failure,
        };
        for (at, (job, _)) in jobs.iter().enumerate() {
            let unfinished = report_failure(self.ingestor, job, &failure, at == 0);
            (self.on_finished)(job, &Err(unfinished));
        }
    }
}

fn work(
    ingestor: &Ingestor,
    settings: WorkerSettings,
    fatal: &Fatal,
    on_finished: &impl Fn(&ClaimedJob, &Result<JobSummary, Unfinished>),
) {
    let mut written = Written { ingestor, on_finished, jobs: Vec::new(), since: Instant::now() };
    claim_and_run(ingestor, settings, fatal, on_finished, &mut written);
    written.end();
}

/// The first one counts.
fn end_process(fatal: &Fatal, failure: FatalFailure) {
    fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
}

fn claim_and_run<F: Fn(&ClaimedJob, &Result<JobSummary, Unfinished>)>(
    ingestor: &Ingestor,
    settings: WorkerSettings,
    fatal: &Fatal,
    on_finished: &F,
    written: &mut Written<F>,
) {
    let mut pause = Duration::ZERO;
    while !ingestor.stopping.load(Ordering::Relaxed) {
        let seen = ingestor.queue.work_seen();
        let closed = ingestor.gate.closed_now();
        // None while the collections change places.
        let claimed = ingestor.reindexing.while_claiming(|lanes| match lanes {
            Some(lanes) => ingestor.queue.call(move |queue| queue.claim_except(now_us(), &closed, lanes)),
            None => Ok(Ok(None)),
        });
        let job = match claimed {
            Ok(Ok(Some(job))) => job,
            Ok(Ok(None)) => {
                written.end();
                if settings.until_idle && nothing_in_work(ingestor) {
                    return;
                }
                let idle = if settings.until_idle { Duration::from_millis(100) } else { LONGEST_IDLE };
                let idle = next_try_in(ingestor).map_or(idle, |wait| wait.clamp(TICK, idle));
                ingestor.queue.wait_for_work(seen, idle);
                continue;
            }
            Ok(Err(error)) => {
                written.end();
                tracing::error!(MESSAGE_ID = event::QUEUE_TROUBLE, "the queue cannot be read: {error}");
                if error.kind() == FailureKind::Fatal {
                    end_process(fatal, FatalFailure::State(error));
                    return;
                }
                sleep_unless_stopping(ingestor, Duration::from_secs(5));
                continue;
            }
            Err(error) => {
                if !ingestor.stopping.load(Ordering::Relaxed) {
                    tracing::error!("{error}");
                    end_process(fatal, FatalFailure::Other);
                }
                return;
            }
        };
        if !Ingestor::is_cheap(&job) {
            // It may take hours.
            written.end();
        }
        ingestor.progress.start(&job, now_us());
        let shadow = if job.shadow { ingestor.reindexing.shadow() } else { None };
        let result = {
            let _fields = story::of_job(&job).entered();
            story::started(&job);
            catch_unwind(AssertUnwindSafe(|| match &shadow {
                Some(shadow) => shadow.run(&job),
                // A reindex that was given up a moment ago.
                None if job.shadow => Err(JobError::Interrupted),
                None => ingestor.run(&job),
            }))
        };
        ingestor.progress.finish(job.id);
        let failure = match result {
            Ok(Ok(Ran::Written(summary))) => {
                written.add(job, summary);
                pause = Duration::ZERO;
                continue;
            }
            Ok(Ok(Ran::Done(summary))) => {
                story::finished(&job, &summary);
                on_finished(&job, &Ok(summary));
                pause = Duration::ZERO;
                continue;
            }
            Ok(Err(JobError::Interrupted)) => {
                give_back(ingestor, &job);
                if job.shadow && shadow.is_none_or(|shadow| shadow.called_off.load(Ordering::Relaxed)) {
                    continue;
                }
                if !ingestor.stopping.load(Ordering::Relaxed) {
                    // Nobody asked for a stop: the embedder's or the queue's thread has died.
                    end_process(fatal, FatalFailure::Other);
                }
                return;
            }
            Ok(Err(JobError::LibraryAway(failure))) => {
                let first = ingestor.gate.close(job.book.library_uuid, &failure.reason);
                let unfinished = report_failure(ingestor, &job, &failure, first);
                on_finished(&job, &Err(unfinished));
                continue;
            }
            Ok(Err(JobError::Failed(failure))) => failure,
            // The panic's message is in the log already, by the standard hook.
            Err(_) => Failure::book("reading this book made the program panic; this is a bug: please report it"),
        };
        let unfinished = report_failure(ingestor, &job, &failure, true);
        let next = unfinished.next;
        on_finished(&job, &Err(unfinished));
        if failure.kind == FailureKind::Fatal {
            end_process(fatal, FatalFailure::Other);
            return;
        }
        if matches!(next, Some(NextStep::GivenBack)) {
            if settings.until_idle {
                return;
            }
            pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
            sleep_unless_stopping(ingestor, pause);
        } else {
            pause = Duration::ZERO;
        }
    }
}

/// When the first of the jobs and libraries that wait may be tried again; None where none waits.
fn next_try_in(ingestor: &Ingestor) -> Option<Duration> {
    // A paused queue hands out nothing, whatever is due.
    let due = ingestor.queue.call(|queue| if queue.paused()? { Ok(None) } else { queue.next_try_us() });
    let job = due.ok().and_then(Result::ok).flatten();
    let job = job.map(|at| Duration::from_micros(u64::try_from(at - now_us()).unwrap_or(0)));
    job.into_iter().chain(ingestor.gate.next_try_in()).min()
}

/// In one-shot mode a job another worker holds may come back, so nobody leaves while one is running. What waits for a
/// library that does not answer is left for the next run.
fn nothing_in_work(ingestor: &Ingestor) -> bool {
    let waits = !ingestor.gate.closed().is_empty();
    match ingestor.queue.call(|queue| queue.stats()) {
        Ok(Ok(QueueStats { running: 0, queued, paused, .. })) => queued == 0 || paused || waits,
        Ok(_) => false,
        Err(_) => true,
    }
}

fn sleep_unless_stopping(ingestor: &Ingestor, pause: Duration) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !ingestor.stopping.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100).min(pause));
    }
}

/// Repeats a call to the queue while its disk is full or stuck: a job whose end is not recorded would stay in work for
/// ever.
fn insist<T>(
    ingestor: &Ingestor,
    call: impl Fn() -> Result<Result<T, QueueError>, QueueStopped>,
) -> Result<Result<T, QueueError>, QueueStopped> {
    loop {
        match call() {
            Ok(Err(error)) if error.kind() == FailureKind::Dependency && !ingestor.stopping.load(Ordering::Relaxed) => {
                tracing::error!(MESSAGE_ID = event::QUEUE_TROUBLE, "{error}; it is tried again");
                sleep_unless_stopping(ingestor, Duration::from_secs(5));
            }
            other => return other,
        }
    }
}

fn give_back(ingestor: &Ingestor, job: &ClaimedJob) {
    let id = job.id;
    match insist(ingestor, || ingestor.queue.call(move |queue| queue.give_back(id))) {
        Ok(Ok(())) => story::given_back(job),
        // It is found running at the next start and queued again.
        Ok(Err(error)) => tracing::warn!("job {} could not be given back: {error}", job.id.0),
        Err(_) => {}
    }
}

/// Records the failure, and says it: `aloud` as a warning, else for debugging only.
fn report_failure(ingestor: &Ingestor, job: &ClaimedJob, failure: &Failure, aloud: bool) -> Unfinished {
    let id = job.id;
    let report = || {
        let reported = failure.clone();
        ingestor.queue.call(move |queue| queue.fail(id, &reported, now_us()))
    };
    let next = match insist(ingestor, report) {
        Ok(Ok(next)) => Some(next),
        Ok(Err(error)) => {
            tracing::error!(
                MESSAGE_ID = event::QUEUE_TROUBLE,
                "the failure of job {} could not be recorded: {error}",
                job.id.0
            );
            None
        }
        Err(_) => None,
    };
    if let Some(next) = next {
        story::failed(job, failure, next, aloud);
    }
    Unfinished { failure: failure.clone(), next }
}
