//! The model of a service whose first start fetches it: a hub that cannot be reached is waited for, with a word in the
//! log and in systemd's status, instead of failing again and again. Whatever else is wrong with a model ends the start.

use std::path::Path;
use std::time::{Duration, Instant};

use super::DaemonError;
use super::parts::{self, LoadedEmbedder, Report};
use crate::config::Config;
use crate::embed::EmbedError;

/// Between the first two tries; each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Between two words on how long the wait still takes; each of them is progress to who watches the start.
const WORD: Duration = Duration::from_secs(5);

/// Loads the model, however long it takes to get it. A signal ends the wait with the process: nothing is to be put in
/// order yet.
pub(super) fn load_embedder(config: &Config, state_dir: &Path, report: Report) -> Result<LoadedEmbedder, DaemonError> {
    let mut failures = 0;
    loop {
        let error = match parts::load_embedder(config, state_dir, report) {
            Err(DaemonError::Model(error @ EmbedError::Fetch(_))) => error,
            loaded => return loaded,
        };
        let wait = wait_after(failures);
        failures += 1;
        tracing::error!("{error}; tried again in {} s", wait.as_secs());
        let until = Instant::now() + wait;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            report(&format!(
                "the model {} cannot be fetched (journalctl -u alexandria-ingestd says why); the next try is in {} s",
                config.embedding.model,
                left.as_secs() + 1
            ));
            std::thread::sleep(left.min(WORD));
        }
    }
}

fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let seconds: Vec<u64> = (0..8).map(|failures| wait_after(failures).as_secs()).collect();
        assert_eq!(seconds, [15, 30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }
}
