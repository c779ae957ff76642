//! Reads and checks the configuration: defaults, file, environment, overrides. Nothing here is applied.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::origin::{self, Loaded, Origin};
use super::{Config, ConfigError, DEFAULT_PATH};

/// `key=value` pairs from the command line, e.g. `library.path=/mnt/calibre`.
pub type Overrides = [(String, String)];

/// Variables with the project's prefix that are not configuration.
const NOT_CONFIGURATION: [&str; 4] =
    ["ALEXANDRIA_TEST_", "ALEXANDRIA_SOCKET", "ALEXANDRIA_BENCH_", "ALEXANDRIA_FAILPOINTS"];

/// What a configuration is read from: at the start, and again on SIGHUP.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// None: [`DEFAULT_PATH`] where it exists.
    pub file: Option<PathBuf>,
    pub overrides: Vec<(String, String)>,
}

impl ConfigSource {
    /// Reads the file anew. The environment is the process's own, which stays as it was at the start.
    ///
    /// # Errors
    /// [`ConfigError`]
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        Config::load_with_origins(self.file.as_deref(), std::env::vars(), &self.overrides)
    }
}

impl Config {
    /// Loads `file` (or [`DEFAULT_PATH`] where it exists), then `environment`, then `overrides`, and checks the result.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Config, ConfigError> {
        Ok(Self::load_with_origins(file, environment, overrides)?.config)
    }

    /// [`Config::load`], and where each value that was set comes from.
    pub fn load_with_origins(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &Overrides,
    ) -> Result<Loaded, ConfigError> {
        let file = match file {
            Some(path) => Some(path),
            None => Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists()),
        };
        let mut builder = config::Config::builder();
        let mut origins = BTreeMap::new();
        let mut notes = Vec::new();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            let invalid = |reason: String| ConfigError::Invalid { path: path.to_owned(), reason };
            for (key, line) in origin::keys_of_file(&text).map_err(invalid)? {
                origins.insert(key, Origin::File { path: path.to_owned(), line });
            }
            // Parsed on its own first: the TOML parser's errors name key, line and column, the merged value's do not.
            toml::from_str::<Config>(&text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let mut given = Vec::new();
        for (name, key, value) in from_present_names(&environment, &mut notes)? {
            given.push((Origin::Variable(name.to_owned()), key.to_owned(), value));
        }
        for (name, key, value) in from_own_names(&environment)? {
            given.push((Origin::Variable(name), key, value));
        }
        for (key, value) in overrides {
            given.push((Origin::Flag, key.clone(), value.clone()));
        }
        for (origin, key, value) in given {
            let wrong = |reason: String| match &origin {
                Origin::Variable(name) => ConfigError::Environment(format!("{name}: {reason}")),
                _ => ConfigError::CommandLine(format!("--set {key}={value}: {reason}")),
            };
            let typed = parsed(&key, &value).map_err(wrong)?;
            builder = builder.set_override(&key, typed).map_err(|error| wrong(error.to_string()))?;
            origins.insert(key, origin);
        }
        let config: Config = builder
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| ConfigError::Environment(error.to_string()))?;
        config.check().map_err(|error| origin::located(error, &origins))?;
        Ok(Loaded { config, file: file.map(Path::to_owned), origins, notes })
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
        one_of(
            "chunking.strategy",
            &self.chunking.strategy,
            &["structure", "lexical", "universal-semantic", "packed"],
        )?;
        one_of("chunking.parents", &self.chunking.parents, &["mean", "embed", "none"])?;
        one_of("chunking.context", &self.chunking.context, &["none", "path"])?;
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
        let target = self.chunking.target_words;
        ensure(
            "chunking.target_words",
            (min..=max).contains(&target),
            "must be from chunking.min_words to chunking.max_words",
        )?;
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

type Given<'a> = (&'a str, &'static str, String);

/// The names the user's Python tools read already: variable, key, value. An empty one is as good as none.
fn from_present_names<'a>(
    environment: &'a BTreeMap<String, String>,
    notes: &mut Vec<String>,
) -> Result<Vec<Given<'a>>, ConfigError> {
    let get = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    match (get("QDRANT_HOST"), get("QDRANT_PORT")) {
        (Some(host), port) => {
            found.push(("QDRANT_HOST", "store.kind", "server".to_owned()));
            found.push(("QDRANT_HOST", "store.url", grpc_url(host, port)?));
        }
        (None, Some(port)) => {
            notes.push(format!("QDRANT_PORT={port} changes nothing without QDRANT_HOST"));
        }
        (None, None) => {}
    }
    for (name, key) in [
        ("QDRANT_COLLECTION", "store.collection"),
        ("CALIBRE_LIBRARY_PATH", "library.path"),
        ("DEFAULT_EMBEDDING_MODEL", "embedding.model"),
    ] {
        found.extend(get(name).map(|value| (name, key, value.to_owned())));
    }
    // PyTorch's names of devices.
    let device = get("EMBEDDING_DEVICE").map(|value| match value.to_lowercase().as_str() {
        "gpu" | "cuda:0" => "cuda".to_owned(),
        other => other.to_owned(),
    });
    found.extend(device.map(|device| ("EMBEDDING_DEVICE", "embedding.device", device)));
    Ok(found)
}

/// The Python client speaks REST on 6333; gRPC, which is spoken here, is the port above. A host may be a whole address.
fn grpc_url(host: &str, port: Option<&str>) -> Result<String, ConfigError> {
    let (scheme, host) = host.split_once("://").unwrap_or(("http", host));
    let host = host.trim_end_matches('/');
    let own_port = host.rsplit_once(':').filter(|(before, port)| {
        let is_ipv6 = before.contains(':') && !before.ends_with(']');
        !is_ipv6 && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let (host, port) = match own_port {
        Some((host, own)) => (host, port.unwrap_or(own)),
        None => (host, port.unwrap_or("6333")),
    };
    let number: u16 = port
        .parse()
        .map_err(|_| ConfigError::Environment(format!("QDRANT_PORT: '{port}' is no port; the usual one is 6333")))?;
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    Ok(format!("{scheme}://{host}:{}", if number == 6333 { 6334 } else { number }))
}

/// `ALEXANDRIA_STORE__KIND` -> `store.kind`; a variable with the prefix that is no key is refused, not ignored.
fn from_own_names(environment: &BTreeMap<String, String>) -> Result<Vec<(String, String, String)>, ConfigError> {
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
        let key = rest.to_lowercase().replace("__", ".");
        if !is_known(&key) {
            let written = |key: &str| format!("ALEXANDRIA_{}", key.to_uppercase().replace('.', "__"));
            return Err(ConfigError::Environment(format!("{name} ({key}): {}", origin::unknown_key(&key, written))));
        }
        found.push((name.clone(), key, value.clone()));
    }
    Ok(found)
}

fn is_known(key: &str) -> bool {
    origin::values(&Config::default()).iter().any(|(known, _)| known == key)
}

/// Environment and command line give text, which becomes what the key holds; lists are separated by commas. An empty
/// text is an empty value, and no number.
fn parsed(key: &str, value: &str) -> Result<config::Value, String> {
    let defaults = origin::values(&Config::default());
    let Some((_, default)) = defaults.iter().find(|(known, _)| known == key) else {
        return Err(origin::unknown_key(key, str::to_owned));
    };
    let bare = value.trim();
    let not = |what: &str| {
        if bare.is_empty() { format!("it is empty, but {what} is expected") } else { format!("'{bare}' is not {what}") }
    };
    Ok(match default {
        toml::Value::Float(_) => bare.parse::<f64>().map_err(|_| not("a number"))?.into(),
        // Not negative in any key: the type of the field says so.
        toml::Value::Integer(_) => {
            let number: u64 = bare.parse().map_err(|_| not("a whole number"))?;
            i64::try_from(number).map_err(|_| not("a number of that size"))?.into()
        }
        toml::Value::Boolean(_) => match bare.to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => true.into(),
            "false" | "no" | "off" | "0" => false.into(),
            _ => return Err(not("true or false")),
        },
        toml::Value::Array(_) => {
            let items: Vec<String> =
                value.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect();
            items.into()
        }
        _ => value.into(),
    })
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

    fn refused(environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> String {
        load("", environment, overrides).unwrap_err().to_string()
    }

    #[test]
    fn each_of_the_users_present_names_is_honoured() {
        let environment = [
            ("CALIBRE_LIBRARY_PATH", "/mnt/books"),
            ("QDRANT_HOST", "10.0.0.5"),
            ("QDRANT_PORT", "7333"),
            ("QDRANT_COLLECTION", "books"),
            ("DEFAULT_EMBEDDING_MODEL", "BAAI/bge-m3"),
            ("EMBEDDING_DEVICE", "CUDA"),
        ];
        let config = load("", &environment, &[]).unwrap();
        assert_eq!(config.library.path, "/mnt/books");
        assert_eq!((config.store.kind.as_str(), config.store.url.as_str()), ("server", "http://10.0.0.5:7333"));
        assert_eq!(config.store.collection, "books");
        assert_eq!((config.embedding.model.as_str(), config.embedding.device.as_str()), ("BAAI/bge-m3", "cuda"));
        let empty = environment.map(|(name, _)| (name, " "));
        assert_eq!(load("", &empty, &[]).unwrap(), Config::default(), "an empty variable is as good as none");
    }

    #[test]
    fn hosts_are_taken_as_people_write_them() {
        let url =
            |host: &str, port: &str| load("", &[("QDRANT_HOST", host), ("QDRANT_PORT", port)], &[]).unwrap().store.url;
        assert_eq!(url("buco", ""), "http://buco:6334");
        assert_eq!(url("https://cloud.example/", "6333"), "https://cloud.example:6334");
        assert_eq!(url("buco:6334", ""), "http://buco:6334");
        assert_eq!(url("::1", "6333"), "http://[::1]:6334");
        assert_eq!(url("[::1]:6400", ""), "http://[::1]:6400");
        assert!(refused(&[("QDRANT_HOST", "buco"), ("QDRANT_PORT", "many")], &[]).contains("QDRANT_PORT"));
        let alone = [("QDRANT_PORT".to_owned(), "6333".to_owned())];
        let loaded = Config::load_with_origins(None, alone, &[]).unwrap();
        assert_eq!((loaded.config.store.kind.as_str(), loaded.notes.len()), ("embedded", 1));
    }

    #[test]
    fn values_from_text_must_be_of_the_keys_kind() {
        for (value, expected) in [("yes", true), ("0", false), ("TRUE", true)] {
            let config = load("", &[("ALEXANDRIA_LIBRARY__INOTIFY", value)], &[]).unwrap();
            assert_eq!(config.library.inotify, expected, "{value}");
        }
        let wrong = refused(&[("ALEXANDRIA_LIBRARY__POLL_SECONDS", "soon")], &[]);
        assert!(wrong.contains("ALEXANDRIA_LIBRARY__POLL_SECONDS: 'soon' is not a number"), "{wrong}");
        let wrong = refused(&[("ALEXANDRIA_INGEST__WORKERS", "")], &[]);
        assert!(wrong.contains("it is empty, but a whole number"), "{wrong}");
        let wrong = refused(&[], &[("ingest.workers", "-1")]);
        assert!(wrong.contains("--set ingest.workers=-1"), "{wrong}");
        let wrong = refused(&[("ALEXANDRIA_LIBRARY__FORMATS", ",")], &[]);
        assert!(wrong.contains("library.formats") && wrong.contains("ALEXANDRIA_LIBRARY__FORMATS"), "{wrong}");
        assert_eq!(load("", &[("ALEXANDRIA_HTTP__LISTEN", "")], &[]).unwrap(), Config::default());
    }

    #[test]
    fn a_refused_value_is_traced_to_where_it_was_set() {
        let wrong = load("\n[http]\nlisten = \"8765\"\n", &[], &[]).unwrap_err().to_string();
        assert!(wrong.contains("line 3 of"), "{wrong}");
        let wrong = refused(&[("EMBEDDING_DEVICE", "mps")], &[]);
        assert!(wrong.contains("variable EMBEDDING_DEVICE"), "{wrong}");
        let wrong = refused(&[], &[("embedding.device", "tpu")]);
        assert!(wrong.contains("(--set)"), "{wrong}");
        let wrong = refused(&[("ALEXANDRIA_LIBRARY__PAHT", "/x")], &[]);
        assert!(wrong.contains("did you mean ALEXANDRIA_LIBRARY__PATH?"), "{wrong}");
        let wrong = refused(&[], &[("library.paht", "/x")]);
        assert!(wrong.contains("did you mean library.path?"), "{wrong}");
    }

    #[test]
    fn the_last_word_on_a_key_is_its_origin() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "[library]\npath = \"/file\"\npoll_seconds = 3.0\n").unwrap();
        let environment = [("CALIBRE_LIBRARY_PATH".to_owned(), "/present".to_owned())];
        let overrides = [("ingest.workers".to_owned(), "3".to_owned())];
        let loaded = Config::load_with_origins(Some(&path), environment, &overrides).unwrap();
        let origin = |key: &str| loaded.origins.get(key).map(ToString::to_string).unwrap_or_default();
        assert_eq!(origin("library.path"), "variable CALIBRE_LIBRARY_PATH");
        assert_eq!(origin("library.poll_seconds"), format!("line 3 of {}", path.display()));
        assert_eq!((origin("ingest.workers").as_str(), origin("log.level").as_str()), ("--set", ""));
    }
}
