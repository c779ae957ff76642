//! What follows a failure: the one place that decides. Pure; must never look at anything but its arguments.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::FailureKind;

/// How often and how patiently a failing job is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Tries before a book that keeps failing is parked; at least 1.
    pub max_attempts: u32,
    /// The wait after the first failure; each further one is four times as long.
    pub first_wait: Duration,
    /// No wait is longer.
    pub longest_wait: Duration,
}

impl Default for RetryRules {
    fn default() -> Self {
        Self { max_attempts: 4, first_wait: Duration::from_secs(30), longest_wait: Duration::from_secs(3600) }
    }
}

/// What happens with a job that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NextStep {
    /// Out of the queue until the file changes or someone asks.
    Parked,
    /// Queued again, not before this time (microseconds since the epoch).
    RetryAt(i64),
    /// Back in the queue as if it had not been tried. The caller waits until what it depends on is healthy.
    GivenBack,
}

/// Decides from the kind of failure and the attempts counted so far, this one included.
pub fn decide(kind: FailureKind, attempts: u32, rules: &RetryRules, now_us: i64) -> NextStep {
    let spent = attempts >= rules.max_attempts.max(1);
    match kind {
        FailureKind::Book => NextStep::Parked,
        FailureKind::Dependency => NextStep::GivenBack,
        FailureKind::Transient if spent => NextStep::Parked,
        FailureKind::Transient => NextStep::RetryAt(now_us.saturating_add(wait_us(attempts, rules))),
        // The process goes down. The attempt stays counted: a book that loses the device every time must not loop.
        FailureKind::Fatal if spent => NextStep::Parked,
        FailureKind::Fatal => NextStep::RetryAt(now_us),
    }
}

/// Decides for a job that was running when the process died.
pub fn decide_after_death(attempts: u32, rules: &RetryRules, now_us: i64) -> NextStep {
    match attempts {
        _ if attempts >= rules.max_attempts.max(1) => NextStep::Parked,
        // Once may be a power cut: go on where it was.
        0 | 1 => NextStep::RetryAt(now_us),
        // Twice is suspicious: let the other books go first.
        _ => NextStep::RetryAt(now_us.saturating_add(wait_us(attempts, rules))),
    }
}

/// When a job that waits after so many attempts is tried again at the latest, microseconds since the epoch.
pub fn latest_try_us(attempts: u32, rules: &RetryRules, now_us: i64) -> i64 {
    now_us.saturating_add(wait_us(attempts, rules))
}

/// The wait after the given number of attempts, in microseconds.
fn wait_us(attempts: u32, rules: &RetryRules) -> i64 {
    let factor = 4_u32.saturating_pow(attempts.saturating_sub(1));
    let wait = rules.first_wait.saturating_mul(factor).min(rules.longest_wait);
    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: RetryRules =
        RetryRules { max_attempts: 3, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(10) };

    #[test]
    fn a_bad_book_is_parked_at_once() {
        assert_eq!(decide(FailureKind::Book, 1, &RULES, 0), NextStep::Parked);
    }

    #[test]
    fn what_may_pass_is_tried_again_with_growing_waits() {
        assert_eq!(decide(FailureKind::Transient, 1, &RULES, 5), NextStep::RetryAt(1_000_005));
        assert_eq!(decide(FailureKind::Transient, 2, &RULES, 0), NextStep::RetryAt(4_000_000));
        assert_eq!(decide(FailureKind::Transient, 3, &RULES, 0), NextStep::Parked);
        let patient = RetryRules { max_attempts: u32::MAX, ..RULES };
        assert_eq!(decide(FailureKind::Transient, 1000, &patient, 0), NextStep::RetryAt(10_000_000));
    }

    #[test]
    fn no_wait_ends_later_than_the_rules_say() {
        for (attempts, seconds) in [(0, 1), (1, 1), (2, 4), (3, 10), (u32::MAX, 10)] {
            assert_eq!(latest_try_us(attempts, &RULES, 7), 7 + seconds * 1_000_000, "{attempts}");
        }
        assert_eq!(latest_try_us(1, &RULES, i64::MAX), i64::MAX);
    }

    #[test]
    fn a_dependency_never_costs_the_book_its_attempts() {
        assert_eq!(decide(FailureKind::Dependency, 99, &RULES, 0), NextStep::GivenBack);
    }

    #[test]
    fn what_stops_the_process_counts() {
        assert_eq!(decide(FailureKind::Fatal, 1, &RULES, 7), NextStep::RetryAt(7));
        assert_eq!(decide(FailureKind::Fatal, 3, &RULES, 7), NextStep::Parked);
    }

    #[test]
    fn a_death_is_forgiven_once_and_parks_in_the_end() {
        assert_eq!(decide_after_death(1, &RULES, 7), NextStep::RetryAt(7));
        assert_eq!(decide_after_death(2, &RULES, 0), NextStep::RetryAt(4_000_000));
        assert_eq!(decide_after_death(3, &RULES, 0), NextStep::Parked);
        let strict = RetryRules { max_attempts: 0, ..RULES };
        assert_eq!(decide_after_death(1, &strict, 0), NextStep::Parked);
    }
}
