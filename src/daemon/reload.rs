//! SIGHUP: the configuration is read again, what can be changed while books are in work is, and each change is said in
//! one line. A file that cannot be taken changes nothing. Must never apply half of a change.

use std::time::Duration;

use super::service::Service;
use super::{DaemonError, formats};
use crate::config::{Config, ConfigError, ConfigSource, values};
use crate::ingest::RemovalRules;
use crate::queue::RetryRules;
use crate::telemetry::{self, event};

/// When a changed key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once.
    Live,
    /// After a restart.
    Restart,
}

/// Applied by [`apply`]: timers, limits and rules that are asked for again and again.
const LIVE: [&str; 9] = [
    "library.full_scan_seconds",
    "library.poll_seconds",
    "library.removal_grace_seconds",
    "library.removal_limit",
    "library.removal_limit_percent",
    "library.stall_seconds",
    "ingest.max_attempts",
    "ingest.retry_seconds",
    "log.level",
];

/// What parts are built from: a loaded model, an open store, a bound socket, running threads; and how books are read and
/// chunked, which must not change between two books of one start.
const RESTART: [&str; 50] = [
    "chunking.context",
    "chunking.max_words",
    "chunking.min_chapter_words",
    "chunking.min_words",
    "chunking.parents",
    "chunking.strategy",
    "chunking.target_words",
    "chunking.threshold",
    "control.group",
    "control.socket",
    "embedding.batch_tokens",
    "embedding.cuda_libraries",
    "embedding.device",
    "embedding.memory_mb",
    "embedding.model",
    "embedding.model_path",
    "embedding.stall_seconds",
    "embedding.threads",
    "extract.cpu_seconds",
    "extract.max_text_mib",
    "extract.max_unpacked_mib",
    "extract.memory_mib",
    "extract.stall_seconds",
    "http.listen",
    "http.max_body_mib",
    "http.max_connections",
    "http.max_requests",
    "http.max_texts",
    "http.timeout_seconds",
    "http.token_file",
    "ingest.max_file_mib",
    "ingest.unfinished_seconds",
    "ingest.workers",
    "ingest_log.enabled",
    "ingest_log.path",
    "library.change_notify",
    "library.formats",
    "library.inotify",
    "library.path",
    "state_dir",
    "store.api_key",
    "store.api_key_file",
    "store.collection",
    "store.kind",
    "store.replication_factor",
    "store.shard_number",
    "store.timeout_seconds",
    "store.url",
    "store.verify_hours",
    "store.write_consistency_factor",
];

/// When a change of this key counts; None where there is no such key.
pub fn effect(key: &str) -> Option<Effect> {
    if LIVE.contains(&key) {
        Some(Effect::Live)
    } else if RESTART.contains(&key) {
        Some(Effect::Restart)
    } else {
        None
    }
}

/// One key that differs.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    key: String,
    before: toml::Value,
    after: toml::Value,
    effect: Effect,
}

impl Change {
    /// For the log. A secret is no one's to read there.
    fn line(&self) -> String {
        let (before, after) = match self.key.as_str() {
            "store.api_key" => ("(one)".to_owned(), "(another one)".to_owned()),
            _ => (self.before.to_string(), self.after.to_string()),
        };
        match self.effect {
            Effect::Live => format!("{} is {after} now, and was {before}", self.key),
            Effect::Restart => format!(
                "{} stays {before} until a restart (systemctl restart alexandria-ingestd); the file says {after}",
                self.key
            ),
        }
    }
}

fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let (before, after) = (values(before), values(after));
    before
        .into_iter()
        .zip(after)
        .filter(|(before, after)| before.1 != after.1)
        .map(|((key, before), (_, after))| {
            // A key that nobody has thought of needs a restart, to be safe; a test knows of none.
            let effect = effect(&key).unwrap_or(Effect::Restart);
            Change { key, before, after, effect }
        })
        .collect()
}

/// `before`, with what counts at once taken from `after`.
fn merged(before: &Config, after: &Config) -> Config {
    let mut config = before.clone();
    config.library.poll_seconds = after.library.poll_seconds;
    config.library.full_scan_seconds = after.library.full_scan_seconds;
    config.library.removal_grace_seconds = after.library.removal_grace_seconds;
    config.library.removal_limit = after.library.removal_limit;
    config.library.removal_limit_percent = after.library.removal_limit_percent;
    config.library.stall_seconds = after.library.stall_seconds;
    config.ingest.max_attempts = after.ingest.max_attempts;
    config.ingest.retry_seconds = after.ingest.retry_seconds;
    config.log.level.clone_from(&after.log.level);
    config
}

/// Reads the configuration again on request.
pub struct Reloader {
    source: ConfigSource,
    /// What counts now.
    in_effect: Config,
}

impl Reloader {
    pub fn new(source: ConfigSource, in_effect: Config) -> Self {
        Self { source, in_effect }
    }

    /// Reads, checks, applies, and says so. The sentence is for systemd's status.
    pub fn reload(&mut self, service: &Service) -> String {
        let config = match self.read() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(
                    MESSAGE_ID = event::CONFIGURATION_REFUSED,
                    "the configuration is not taken: {error}; everything stays as it was (alexandria-ingestd check-config)"
                );
                return "the configuration was not taken, see the log".to_owned();
            }
        };
        let changes = changes(&self.in_effect, &config);
        let next = merged(&self.in_effect, &config);
        if let Err(error) = apply(&next, service) {
            tracing::error!(
                MESSAGE_ID = event::CONFIGURATION_REFUSED,
                "the configuration could not be applied: {error}"
            );
            return "the configuration could not be applied, see the log".to_owned();
        }
        self.in_effect = next;
        for change in &changes {
            match change.effect {
                Effect::Live => {
                    tracing::info!(MESSAGE_ID = event::CONFIGURATION_RELOADED, "configuration: {}", change.line());
                }
                Effect::Restart => {
                    tracing::warn!(MESSAGE_ID = event::CONFIGURATION_RELOADED, "configuration: {}", change.line());
                }
            }
        }
        let live = changes.iter().filter(|change| change.effect == Effect::Live).count();
        let waiting = changes.len() - live;
        if changes.is_empty() {
            tracing::info!(MESSAGE_ID = event::CONFIGURATION_RELOADED, "configuration: nothing has changed");
        }
        match waiting {
            0 => format!("configuration reloaded, {live} changed"),
            _ => format!("configuration reloaded, {live} changed; {waiting} need a restart"),
        }
    }

    /// All that could refuse it is asked before anything is changed.
    fn read(&self) -> Result<Config, DaemonError> {
        let config = self.source.load()?.config;
        formats::in_order(&config)?;
        telemetry::check_level(&config.log.level)
            .map_err(|reason| DaemonError::Config(ConfigError::BadValue { key: "log.level", reason }))?;
        Ok(config)
    }
}

/// Has every part use what counts at once.
fn apply(config: &Config, service: &Service) -> Result<(), DaemonError> {
    // First what may fail.
    let rules = retry_rules(config);
    service
        .parts
        .queue
        .call(move |queue| queue.set_retry_rules(rules))
        .map_err(|error| DaemonError::Failed(error.to_string()))?;
    telemetry::set_level(&config.log.level)
        .map_err(|reason| DaemonError::Config(ConfigError::BadValue { key: "log.level", reason }))?;
    let seconds = Duration::from_secs_f64;
    service.watcher.retime(seconds(config.library.poll_seconds), seconds(config.library.full_scan_seconds));
    service.reconciler.set_removal_rules(removal_rules(config));
    service.parts.ingestor.fetcher.set_patience(seconds(config.library.stall_seconds));
    Ok(())
}

/// How failing jobs are tried.
pub fn retry_rules(config: &Config) -> RetryRules {
    RetryRules {
        max_attempts: config.ingest.max_attempts,
        first_wait: Duration::from_secs_f64(config.ingest.retry_seconds),
        ..RetryRules::default()
    }
}

/// How books leave the index.
pub fn removal_rules(config: &Config) -> RemovalRules {
    RemovalRules {
        grace_us: (config.library.removal_grace_seconds * 1e6) as i64,
        limit: config.library.removal_limit,
        limit_percent: config.library.removal_limit_percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_known_to_be_live_or_to_need_a_restart() {
        let keys: Vec<String> = values(&Config::default()).into_iter().map(|(key, _)| key).collect();
        let unknown: Vec<&String> = keys.iter().filter(|key| effect(key).is_none()).collect();
        assert!(unknown.is_empty(), "neither live nor restart: {unknown:?}");
        let gone: Vec<&&str> =
            LIVE.iter().chain(&RESTART).filter(|key| !keys.iter().any(|known| known == *key)).collect();
        assert!(gone.is_empty(), "no keys any more: {gone:?}");
        assert!(LIVE.iter().all(|key| !RESTART.contains(key)));
        assert_eq!(effect("library.paht"), None);
    }

    /// Another value for each key, as TOML has it.
    fn other_values() -> Config {
        let mut text = String::new();
        let mut section = String::new();
        for (key, value) in values(&Config::default()) {
            let Some((name, key)) = key.split_once('.') else { continue };
            if name != section {
                section = name.to_owned();
                text += &format!("[{name}]\n");
            }
            let other = match value {
                toml::Value::String(text) => toml::Value::String(format!("{text}x")),
                toml::Value::Integer(number) => toml::Value::Integer(number + 1),
                toml::Value::Float(number) => toml::Value::Float(number + 1.0),
                toml::Value::Boolean(value) => toml::Value::Boolean(!value),
                _ => toml::Value::Array(vec!["TXT".into()]),
            };
            text += &format!("{key} = {other}\n");
        }
        Config { state_dir: "/x".into(), ..toml::from_str(&text).unwrap() }
    }

    #[test]
    fn what_is_live_is_taken_over_and_nothing_else() {
        let (before, after) = (Config::default(), other_values());
        let all = changes(&before, &after);
        assert_eq!(all.len(), values(&before).len(), "each key differs");
        let next = merged(&before, &after);
        for change in changes(&before, &next) {
            assert_eq!(change.effect, Effect::Live, "{}", change.key);
        }
        for change in changes(&next, &after) {
            assert_eq!(change.effect, Effect::Restart, "{}", change.key);
        }
        assert_eq!(changes(&before, &next).len(), LIVE.len());
    }

    #[test]
    fn a_change_is_one_line_and_a_secret_stays_one() {
        let (before, mut after) = (Config::default(), Config::default());
        after.library.poll_seconds = 5.0;
        after.store.api_key = "sesame".into();
        let lines: Vec<String> = changes(&before, &after).iter().map(Change::line).collect();
        assert_eq!(lines[0], "library.poll_seconds is 5.0 now, and was 2.0");
        assert!(lines[1].contains("restart") && !lines[1].contains("sesame"), "{}", lines[1]);
    }
}
