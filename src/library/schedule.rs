//! The watcher's decisions: from signature, events, requests and past looks to "look now, because". Pure: the time is
//! an argument.

use std::time::{Duration, Instant};

use super::Signature;
use super::watch::{LookOutcome, LookReason};
use crate::domain::LibraryKind;

/// How often the database's change counter is read as well: some servers show a file's new time only when its writer
/// closes it, and two writes within one tick of the clock leave one time stamp.
const COUNTER_EVERY_POLLS: u32 = 15;
/// The longest pause between tries while the library fails.
const RETRY_AT_MOST: Duration = Duration::from_secs(60);
/// Without events a plain folder is walked so often that walking takes at most 1/500 of the time.
const WALK_SHARE: u32 = 500;
/// While Calibre writes on and on (9,000 books edited at once), looks take at most a fifth of the time: a look copies
/// the whole catalogue, perhaps over the network.
const REST_SHARE: u32 = 4;
const REST_AT_MOST: Duration = Duration::from_secs(10);

/// What one poll learned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    /// None: the library does not answer as it should.
    pub signature: Option<Signature>,
    /// Calibre's change counter, where it was asked for and could be read.
    pub counter: Option<u32>,
    pub asked: Option<bool>,
    pub event: bool,
    pub events_active: bool,
}

#[derive(Debug)]
pub(super) struct Schedule {
    poll: Duration,
    full_scan: Duration,
    /// The signature before the last look; the outer None: there was no look yet.
    seen: Option<Option<Signature>>,
    counter: Option<u32>,
    polls_since_counter: u32,
    full_due: Option<Instant>,
    walk_due: Option<Instant>,
    again: Option<(Instant, LookReason)>,
    pause: Duration,
    /// No look for a change before this.
    rest_until: Option<Instant>,
    /// An event came that was not looked at yet.
    event: bool,
}

impl Schedule {
    pub(super) fn new(poll: Duration, full_scan: Duration) -> Self {
        Schedule {
            poll,
            full_scan,
            seen: None,
            counter: None,
            polls_since_counter: 0,
            full_due: None,
            walk_due: None,
            again: None,
            pause: poll,
            rest_until: None,
            event: false,
        }
    }

    /// Takes other intervals. The next full scan comes no later than by the new one.
    pub(super) fn retime(&mut self, now: Instant, poll: Duration, full_scan: Duration) {
        self.poll = poll;
        self.full_scan = full_scan;
        self.full_due = self.full_due.map(|due| due.min(now + full_scan));
        self.walk_due = self.walk_due.map(|due| due.min(now + full_scan));
    }

    /// Whether this poll should read the change counter: before a look, at the poll after it (a write within the clock
    /// tick of the signature shows in it), and every now and then.
    pub(super) fn wants_counter(&self, found: Option<Signature>) -> bool {
        self.seen != Some(found) || self.polls_since_counter == 0 || self.polls_since_counter >= COUNTER_EVERY_POLLS
    }

    /// Whether to look now, and why.
    pub(super) fn decide(&mut self, now: Instant, input: Input) -> Option<LookReason> {
        let folder = input.signature.is_some_and(|signature| signature.kind() == LibraryKind::Folder);
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let changed = self.seen.is_some_and(|seen| seen != input.signature);
        let counter_moved = matches!((self.counter, input.counter), (Some(before), Some(found)) if before != found);
        self.polls_since_counter = if input.counter.is_some() { 1 } else { self.polls_since_counter.saturating_add(1) };
        self.event |= input.event;
        let resting = self.rest_until.is_some_and(|until| now < until);
        if resting && counter_moved {
            // Compared again at the next poll.
            self.polls_since_counter = 0;
        } else {
            self.counter = input.counter.or(self.counter.filter(|_| !changed));
        }

        let reason = match input.asked {
            _ if self.seen.is_none() => LookReason::Start,
            Some(full) => LookReason::Asked { full },
            None if (changed || counter_moved) && !resting => LookReason::Changed,
            None if folder && self.event && !resting => LookReason::Event,
            // A full scan that failed waits for its next try as any other look.
            None if due(self.full_due) && self.again.is_none_or(|(at, _)| at <= now) => LookReason::FullScan,
            None => match self.again {
                Some((at, reason)) if at <= now => reason,
                // Events that work leave the walk to the full scan.
                None if folder && !input.events_active && due(self.walk_due) => LookReason::Walk,
                _ => return None,
            },
        };
        // From before the look: what changes during it differs from this.
        self.seen = Some(input.signature);
        self.counter = input.counter.or(self.counter);
        self.event = false;
        Some(reason)
    }

    /// Notes what became of the look.
    pub(super) fn done(&mut self, now: Instant, took: Duration, reason: LookReason, outcome: LookOutcome) {
        let repeated = matches!(reason, LookReason::Again | LookReason::Retry | LookReason::FullScan);
        if !(repeated && self.again.is_some()) {
            self.pause = self.poll;
        }
        let mut again = |at_most: Duration, reason: LookReason| {
            let pause = self.pause.min(at_most);
            self.pause = (self.pause * 2).min(at_most);
            Some((now + pause, reason))
        };
        self.again = match outcome {
            LookOutcome::Settled => None,
            LookOutcome::Again { at_most } => again(at_most, LookReason::Again),
            LookOutcome::Failed => again(RETRY_AT_MOST, LookReason::Retry),
        };
        let learned = outcome != LookOutcome::Failed;
        self.rest_until = learned.then(|| now + (took * REST_SHARE).min(REST_AT_MOST));
        if learned && (reason.is_full() || self.full_due.is_none()) {
            self.full_due = Some(now + self.full_scan);
        }
        self.walk_due = Some(now + (took * WALK_SHARE).clamp(self.poll, self.full_scan.max(self.poll)));
        self.polls_since_counter = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::library::signature;

    const POLL: Duration = Duration::from_secs(2);
    const FULL: Duration = Duration::from_secs(3600);

    struct Clock {
        schedule: Schedule,
        now: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Clock { schedule: Schedule::new(POLL, FULL), now: Instant::now() }
        }

        /// One poll, `POLL` after the last one; a look ends as `outcome`.
        fn poll(&mut self, input: Input, outcome: LookOutcome) -> Option<LookReason> {
            self.now += POLL;
            let reason = self.schedule.decide(self.now, input)?;
            self.schedule.done(self.now, Duration::from_millis(40), reason, outcome);
            Some(reason)
        }

        /// The polls, counted from 1, at which there was a look.
        fn looks(&mut self, polls: u32, input: Input, outcome: LookOutcome) -> Vec<(u32, LookReason)> {
            (1..=polls).filter_map(|poll| Some((poll, self.poll(input, outcome)?))).collect()
        }
    }

    fn input(signature: Option<Signature>) -> Input {
        Input { signature, counter: None, asked: None, event: false, events_active: false }
    }

    fn shelf(name: &str) -> (tempfile::TempDir, Signature) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), name).unwrap();
        let signature = signature(folder.path()).unwrap();
        (folder, signature)
    }

    #[test]
    fn an_idle_calibre_library_is_looked_at_once_and_then_by_the_slow_timer() {
        let (_folder, idle) = shelf("metadata.db");
        let mut clock = Clock::new();
        let looks = clock.looks(2000, input(Some(idle)), LookOutcome::Settled);
        assert_eq!(looks, [(1, LookReason::Start), (1801, LookReason::FullScan)]);
    }

    #[test]
    fn a_shorter_full_scan_counts_from_now_on() {
        let (_folder, idle) = shelf("metadata.db");
        let mut clock = Clock::new();
        clock.poll(input(Some(idle)), LookOutcome::Settled);
        clock.schedule.retime(clock.now, POLL, POLL * 10);
        let polls: Vec<u32> = clock.looks(25, input(Some(idle)), LookOutcome::Settled).iter().map(|at| at.0).collect();
        assert_eq!(polls, [10, 20]);
    }

    #[test]
    fn a_change_or_a_request_is_looked_at_at_once() {
        let ((_one, before), (_two, after)) = (shelf("metadata.db"), shelf("metadata.db"));
        let mut clock = Clock::new();
        clock.poll(input(Some(before)), LookOutcome::Settled);
        assert_eq!(clock.poll(input(Some(after)), LookOutcome::Settled), Some(LookReason::Changed));
        assert_eq!(clock.poll(input(Some(after)), LookOutcome::Settled), None);
        let asked = Input { asked: Some(true), ..input(Some(after)) };
        assert_eq!(clock.poll(asked, LookOutcome::Settled), Some(LookReason::Asked { full: true }));
        // Gone, and back.
        assert_eq!(clock.poll(input(None), LookOutcome::Failed), Some(LookReason::Changed));
        assert_eq!(clock.poll(input(Some(after)), LookOutcome::Settled), Some(LookReason::Changed));
    }

    #[test]
    fn a_counter_that_moves_under_an_unchanged_signature_is_a_change() {
        let (_folder, idle) = shelf("metadata.db");
        let at = |counter| Input { counter, ..input(Some(idle)) };
        let mut clock = Clock::new();
        assert!(clock.schedule.wants_counter(Some(idle)));
        clock.poll(at(Some(7)), LookOutcome::Settled);
        assert!(clock.schedule.wants_counter(Some(idle)), "right after a look");
        assert_eq!(clock.poll(at(Some(7)), LookOutcome::Settled), None);
        assert!(!clock.schedule.wants_counter(Some(idle)));
        assert_eq!(clock.poll(at(None), LookOutcome::Settled), None);
        assert_eq!(clock.poll(at(Some(8)), LookOutcome::Settled), Some(LookReason::Changed));
        assert_eq!(clock.poll(at(Some(8)), LookOutcome::Settled), None);
    }

    #[test]
    fn failures_and_open_ends_are_looked_at_again_ever_less_often() {
        let (_folder, idle) = shelf("metadata.db");
        let mut clock = Clock::new();
        let polls: Vec<u32> = clock.looks(120, input(Some(idle)), LookOutcome::Failed).iter().map(|at| at.0).collect();
        assert_eq!(polls, [1, 2, 4, 8, 16, 32, 62, 92]);
        let mut clock = Clock::new();
        let again = LookOutcome::Again { at_most: Duration::from_secs(10) };
        let polls: Vec<u32> = clock.looks(20, input(Some(idle)), again).iter().map(|at| at.0).collect();
        assert_eq!(polls, [1, 2, 4, 8, 13, 18]);
    }

    #[test]
    fn endless_changes_do_not_mean_endless_looks() {
        let ((_one, odd), (_two, even)) = (shelf("metadata.db"), shelf("metadata.db"));
        let mut clock = Clock::new();
        let mut looks = 0;
        for poll in 0..100 {
            clock.now += POLL;
            let found = if poll % 2 == 0 { odd } else { even };
            if let Some(reason) = clock.schedule.decide(clock.now, input(Some(found))) {
                looks += 1;
                clock.now += Duration::from_secs(2);
                clock.schedule.done(clock.now, Duration::from_secs(2), reason, LookOutcome::Settled);
            }
        }
        assert!((20..=26).contains(&looks), "{looks}");
        // A change of the counter seen while resting is not forgotten.
        let at = |counter| Input { counter, ..input(Some(odd)) };
        let mut clock = Clock::new();
        clock.schedule.decide(clock.now, at(Some(1)));
        clock.schedule.done(clock.now, Duration::from_secs(1), LookReason::Start, LookOutcome::Settled);
        assert_eq!(clock.poll(at(Some(2)), LookOutcome::Settled), None);
        assert!(clock.schedule.wants_counter(Some(odd)));
        assert_eq!(clock.poll(at(Some(2)), LookOutcome::Settled), Some(LookReason::Changed));
        assert_eq!(clock.poll(at(Some(2)), LookOutcome::Settled), None);
    }

    #[test]
    fn a_full_scan_that_fails_does_not_run_at_every_poll() {
        let (_folder, idle) = shelf("metadata.db");
        let mut clock = Clock::new();
        clock.poll(input(Some(idle)), LookOutcome::Settled);
        clock.now += FULL;
        let polls: Vec<u32> = clock.looks(20, input(Some(idle)), LookOutcome::Failed).iter().map(|at| at.0).collect();
        assert_eq!(polls, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn a_plain_folder_is_walked_in_proportion_to_what_a_walk_costs() {
        let (_folder, idle) = shelf("a.txt");
        let mut clock = Clock::new();
        let polls: Vec<u32> = clock.looks(30, input(Some(idle)), LookOutcome::Settled).iter().map(|at| at.0).collect();
        // 40 ms * 500 = 20 s.
        assert_eq!(polls, [1, 11, 21]);
        // With events no walk but for one.
        let mut clock = Clock::new();
        let quiet = Input { events_active: true, ..input(Some(idle)) };
        assert_eq!(clock.looks(30, quiet, LookOutcome::Settled).len(), 1);
        let event = Input { event: true, ..quiet };
        assert_eq!(clock.poll(event, LookOutcome::Settled), Some(LookReason::Event));
        assert!(signature(Path::new("/nonexistent")).is_err());
    }
}
