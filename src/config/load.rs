//! Reads and checks the configuration: defaults, file, environment, overrides. Nothing here is applied.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, DEFAULT_PATH};

/// `key=value` pairs from the command line, e.g. `library.path=/mnt/calibre`.
pub type Overrides = [(String, String)];

/// Variables with the project's prefix that are not configuration.
const NOT_CONFIGURATION: [&str; 4] =
    ["ALEXANDRIA_TEST_", "ALEXANDRIA_SOCKET", "ALEXANDRIA_BENCH_", "ALEXANDRIA_FAILPOINTS"];

impl Config {
    /// Loads `file` (or [`DEFAULT_PATH`] where it exists), then `environment`, then `overrides`, and checks the result.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        let file = match file {
            Some(path) => Some(path),
            None => Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists()),
        };
        let mut builder = config::Config::builder();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            // Parsed on its own first: the TOML parser's errors name key, line and column, the merged value's do not.
            toml::from_str::<Config>(&text).map_err(|error| ConfigError::Invalid {
                path: path.to_owned(),
                reason: error.to_string().trim_end().to_owned(),
            })?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let environment: HashMap<String, String> = environment.into_iter().collect();
        for (key, value) in from_present_names(&environment) {
            builder = builder.set_override(key, value).map_err(in_environment)?;
        }
        for (key, value) in from_own_names(&environment)? {
            builder = builder.set_override(&key, parsed(&key, &value)).map_err(in_environment)?;
        }
        for (key, value) in overrides {
            builder = builder
                .set_override(key, parsed(key, value))
                .map_err(|error| ConfigError::CommandLine(error.to_string()))?;
        }
        let source = if overrides.is_empty() { ConfigError::Environment } else { ConfigError::CommandLine };
        let config: Config =
            builder.build().and_then(config::Config::try_deserialize).map_err(|error| source(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values that no part could work with.
    pub fn check(&self) -> Result<(), ConfigError> {
        let one_of = |key, value: &str, allowed: &[&str]| {
            if allowed.contains(&value) {
                return Ok(());
            }
            Err(ConfigError::BadValue { key, reason: format!("'{value}' is none of {}", allowed.join(", ")) })
        };
        let ensure = |key, holds: bool, reason: &str| {
            if holds { Ok(()) } else { Err(ConfigError::BadValue { key, reason: reason.to_owned() }) }
        };
        one_of("embedding.device", &self.embedding.device, &["auto", "cpu", "cuda"])?;
        one_of("chunking.strategy", &self.chunking.strategy, &["universal-semantic", "packed"])?;
        one_of("chunking.parents", &self.chunking.parents, &["mean", "embed", "none"])?;
        one_of("store.kind", &self.store.kind, &["embedded", "server", "memory"])?;
        ensure("library.path", !self.library.path.is_empty(), "must not be empty")?;
        ensure("library.formats", !self.library.formats.is_empty(), "must name at least one format")?;
        ensure("embedding.model", !self.embedding.model.is_empty(), "must not be empty")?;
        let seconds = |value: f64| (0.05..=31_536_000.0).contains(&value);
        ensure("library.poll_seconds", seconds(self.library.poll_seconds), "must be from 0.05 to a year")?;
        ensure("library.full_scan_seconds", seconds(self.library.full_scan_seconds), "must be from 0.05 to a year")?;
        let grace = self.library.removal_grace_seconds;
        ensure("library.removal_grace_seconds", grace == 0.0 || seconds(grace), "must be 0, or from 0.05 to a year")?;
        let percent = self.library.removal_limit_percent;
        ensure("library.removal_limit_percent", (0.0..=100.0).contains(&percent), "must be from 0 to 100")?;
        ensure("library.stall_seconds", seconds(self.library.stall_seconds), "must be from 0.05 to a year")?;
        let unfinished = self.ingest.unfinished_seconds;
        ensure("ingest.unfinished_seconds", unfinished == 0.0 || seconds(unfinished), "must be 0, or up to a year")?;
        ensure("store.verify_hours", (0.0..=8760.0).contains(&self.store.verify_hours), "must be from 0 to a year")?;
        ensure("store.timeout_seconds", seconds(self.store.timeout_seconds), "must be from 0.05 to a year")?;
        ensure("chunking.threshold", (-1.0..=1.0).contains(&self.chunking.threshold), "must be from -1 to 1")?;
        let (min, max) = (self.chunking.min_words, self.chunking.max_words);
        ensure("chunking.max_words", max >= 16, "must be at least 16")?;
        ensure("chunking.min_words", min >= 1 && min * 2 <= max, "must be from 1 to half of chunking.max_words")?;
        ensure("ingest.workers", (1..=64).contains(&self.ingest.workers), "must be from 1 to 64")?;
        ensure("ingest.max_attempts", self.ingest.max_attempts >= 1, "must be at least 1")?;
        ensure("ingest.retry_seconds", seconds(self.ingest.retry_seconds), "must be from 0.05 to a year")?;
        ensure("ingest.max_file_mib", self.ingest.max_file_mib >= 1, "must be at least 1")?;
        let extract = &self.extract;
        ensure("extract.memory_mib", (64..=1 << 20).contains(&extract.memory_mib), "must be from 64 to 1048576")?;
        ensure("extract.cpu_seconds", extract.cpu_seconds >= 1, "must be at least 1")?;
        ensure("extract.stall_seconds", extract.stall_seconds >= 2, "must be at least 2")?;
        ensure("extract.max_text_mib", (1..=2048).contains(&extract.max_text_mib), "must be from 1 to 2048")?;
        ensure(
            "extract.max_unpacked_mib",
            (1..=1 << 20).contains(&extract.max_unpacked_mib),
            "must be from 1 to 1048576",
        )?;
        ensure("embedding.stall_seconds", seconds(self.embedding.stall_seconds), "must be from 0.05 to a year")?;
        let http = &self.http;
        let address = http.listen.parse::<SocketAddr>();
        ensure("http.listen", http.listen.is_empty() || address.is_ok(), "must be ADDRESS:PORT, e.g. 0.0.0.0:8765")?;
        ensure("http.max_texts", (1..=1 << 20).contains(&http.max_texts), "must be from 1 to 1048576")?;
        ensure("http.max_body_mib", (1..=1024).contains(&http.max_body_mib), "must be from 1 to 1024")?;
        ensure("http.max_requests", (1..=65_536).contains(&http.max_requests), "must be from 1 to 65536")?;
        ensure("http.max_connections", (1..=65_536).contains(&http.max_connections), "must be from 1 to 65536")?;
        ensure("http.timeout_seconds", seconds(http.timeout_seconds), "must be from 0.05 to a year")?;
        let collection = &self.store.collection;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure(
            "store.collection",
            !collection.is_empty() && !collection.starts_with('.') && collection.chars().all(plain),
            "must be letters, digits, '-', '_' and '.', and not start with '.'",
        )?;
        if self.store.kind == "server" {
            let url = &self.store.url;
            let is_url = url.starts_with("http://") || url.starts_with("https://");
            ensure("store.url", is_url, "must start with http:// or https://, e.g. http://127.0.0.1:6334")?;
        }
        Ok(())
    }

    /// Where state lives: the configured directory, else systemd's, else the user's.
    pub fn state_directory(&self) -> Result<PathBuf, ConfigError> {
        if !self.state_dir.is_empty() {
            return Ok(PathBuf::from(&self.state_dir));
        }
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // systemd may name several directories, separated by colons; the unit of this project names one.
        if let Some(directory) = variable("STATE_DIRECTORY") {
            return Ok(directory);
        }
        let base = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
        base.map(|base| base.join("alexandria-ingestd")).ok_or_else(|| ConfigError::BadValue {
            key: "state_dir",
            reason: "is empty, and neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set; set it".to_owned(),
        })
    }

    /// The control socket: the configured path, else in systemd's runtime directory, else in the state directory.
    pub fn control_socket(&self) -> Result<PathBuf, ConfigError> {
        if !self.control.socket.is_empty() {
            return Ok(PathBuf::from(&self.control.socket));
        }
        match std::env::var_os("RUNTIME_DIRECTORY").filter(|value| !value.is_empty()) {
            Some(directory) => Ok(PathBuf::from(directory).join("control.sock")),
            None => Ok(self.state_directory()?.join("control.sock")),
        }
    }
}

/// The names the user's Python tools read already.
fn from_present_names(environment: &HashMap<String, String>) -> Vec<(&'static str, String)> {
    let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
    let mut found = Vec::new();
    if let Some(host) = get("QDRANT_HOST") {
        // The Python client speaks REST on 6333; gRPC, which is spoken here, is the port above.
        let port = match get("QDRANT_PORT").as_deref() {
            None | Some("6333") => "6334".to_owned(),
            Some(other) => other.to_owned(),
        };
        found.push(("store.kind", "server".to_owned()));
        found.push(("store.url", format!("http://{host}:{port}")));
    }
    for (name, key) in [
        ("QDRANT_COLLECTION", "store.collection"),
        ("CALIBRE_LIBRARY_PATH", "library.path"),
        ("DEFAULT_EMBEDDING_MODEL", "embedding.model"),
        ("EMBEDDING_DEVICE", "embedding.device"),
    ] {
        found.extend(get(name).map(|value| (key, value)));
    }
    found
}

/// `ALEXANDRIA_STORE__KIND` -> `store.kind`; a variable with the prefix that is no key is refused, not ignored.
fn from_own_names(environment: &HashMap<String, String>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut found = Vec::new();
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix("ALEXANDRIA_") else { continue };
        if NOT_CONFIGURATION.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        if !rest.contains("__") && rest != "STATE_DIR" {
            return Err(ConfigError::Environment(format!(
                "{name} is not a setting; section and key are separated by two underscores, as in ALEXANDRIA_LIBRARY__PATH"
            )));
        }
        found.push((rest.to_lowercase().replace("__", "."), value.clone()));
    }
    Ok(found)
}

/// Environment and command line give text; lists are separated by commas. Numbers and booleans are converted when the
/// whole is deserialised.
fn parsed(key: &str, value: &str) -> config::Value {
    if key == "library.formats" {
        let formats: Vec<String> = value.split(',').map(|format| format.trim().to_owned()).collect();
        return formats.into();
    }
    value.into()
}

fn in_environment(error: config::ConfigError) -> ConfigError {
    ConfigError::Environment(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        Config::load(Some(&path), pairs(environment), &pairs(overrides))
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(load("", &[], &[]).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = load("[library]\npath = \"/x\"\npol_seconds = 3\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("pol_seconds") && error.contains("line 3"), "{error}");
        let error = load("[libary]\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("libary") && error.contains("line 1"), "{error}");
    }

    #[test]
    fn an_ill_typed_value_is_named_with_its_line() {
        let error = load("[library]\npoll_seconds = \"soon\"\n", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn environment_wins_over_the_file_and_overrides_over_both() {
        let file = "[library]\npath = \"/file\"\n";
        assert_eq!(load(file, &[("CALIBRE_LIBRARY_PATH", "/present")], &[]).unwrap().library.path, "/present");
        let environment = [("CALIBRE_LIBRARY_PATH", "/present"), ("ALEXANDRIA_LIBRARY__PATH", "/own")];
        assert_eq!(load(file, &environment, &[]).unwrap().library.path, "/own");
        assert_eq!(load(file, &environment, &[("library.path", "/flag")]).unwrap().library.path, "/flag");
    }

    #[test]
    fn the_users_present_names_select_the_server() {
        let config = load("", &[("QDRANT_HOST", "buco"), ("QDRANT_PORT", "6333")], &[]).unwrap();
        assert_eq!((config.store.kind.as_str(), config.store.url.as_str()), ("server", "http://buco:6334"));
    }

    #[test]
    fn numbers_booleans_and_lists_come_from_text() {
        let environment = [
            ("ALEXANDRIA_LIBRARY__POLL_SECONDS", "0.5"),
            ("ALEXANDRIA_LIBRARY__INOTIFY", "false"),
            ("ALEXANDRIA_LIBRARY__FORMATS", "TXT, EPUB"),
        ];
        let config = load("", &environment, &[]).unwrap();
        assert_eq!(config.library.poll_seconds, 0.5);
        assert!(!config.library.inotify);
        assert_eq!(config.library.formats, ["TXT", "EPUB"]);
    }

    #[test]
    fn unknown_variables_and_bad_values_are_refused() {
        assert!(load("", &[("ALEXANDRIA_LIBRARY_PATH", "/x")], &[]).unwrap_err().to_string().contains("__PATH"));
        assert!(load("", &[("ALEXANDRIA_LIBRARY__PAHT", "/x")], &[]).unwrap_err().to_string().contains("paht"));
        assert!(load("[store]\nkind = \"cloud\"\n", &[], &[]).unwrap_err().to_string().contains("embedded"));
        assert!(load("[chunking]\nmin_words = 900\n", &[], &[]).is_err());
        assert!(load("[http]\nlisten = \"8765\"\n", &[], &[]).unwrap_err().to_string().contains("http.listen"));
        assert!(load("", &[("ALEXANDRIA_TEST_MODELS", "/x")], &[]).is_ok());
    }
}
