//! A rate over the last while: cheap enough for every batch, forgotten when nothing is done.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A rate over the last while: tokens a second, chunks a minute. Cheap enough for every batch.
#[derive(Debug)]
pub struct RateMeter {
    window: Duration,
    /// What came in, by second, oldest first: bounded by the window's seconds.
    entries: Mutex<VecDeque<(Instant, u64)>>,
}

impl RateMeter {
    pub fn new(window: Duration) -> Self {
        Self { window, entries: Mutex::default() }
    }

    /// Notes that so much was done now.
    pub fn add(&self, amount: u64) {
        self.add_at(Instant::now(), amount);
    }

    /// The mean over the window, or since the first entry in it where that is shorter; 0 when nothing was done in it.
    pub fn per_second(&self) -> f64 {
        self.per_second_at(Instant::now())
    }

    fn add_at(&self, now: Instant, amount: u64) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.back_mut() {
            Some((at, total)) if now.saturating_duration_since(*at) < Duration::from_secs(1) => *total += amount,
            _ => entries.push_back((now, amount)),
        }
        self.forget_old(&mut entries, now);
    }

    fn per_second_at(&self, now: Instant) -> f64 {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_old(&mut entries, now);
        let Some((first, _)) = entries.front() else { return 0.0 };
        // The first entry's work was done before it was noted: over less than a second a rate would be noise.
        let over = now.saturating_duration_since(*first).max(Duration::from_secs(1));
        entries.iter().map(|(_, amount)| *amount as f64).sum::<f64>() / over.as_secs_f64()
    }

    fn forget_old(&self, entries: &mut VecDeque<(Instant, u64)>, now: Instant) {
        while entries.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > self.window) {
            entries.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_mean_that_is_forgotten() {
        let meter = RateMeter::new(Duration::from_secs(60));
        let start = Instant::now();
        assert_eq!(meter.per_second_at(start), 0.0);
        for second in 0..10 {
            meter.add_at(start + Duration::from_secs(second), 50);
            meter.add_at(start + Duration::from_millis(second * 1000 + 500), 50);
        }
        assert_eq!(meter.per_second_at(start + Duration::from_secs(10)), 100.0);
        assert_eq!(meter.entries.lock().unwrap().len(), 10);
        assert_eq!(meter.per_second_at(start + Duration::from_secs(100)), 0.0);
    }
}
