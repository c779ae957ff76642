//! `check-config`: what a configuration comes to, where each value comes from, and what about it is odd. It must never
//! start, fetch or change anything, nor hang with a mount that does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use nix::unistd::{AccessFlags, Group, access};
use serde::Serialize;

use super::reload::{self, Effect};
use super::{DaemonError, formats};
use crate::chunk::words_as_tokens;
use crate::config::{Config, Loaded, is_open_to_all, values};
use crate::control::{LONGEST_PATH, SYSTEM_SOCKET};
use crate::embed::ModelSpec;
use crate::ingest_log::{LogSettings, Place};
use crate::library;

/// How long a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where systemd has the packaged service keep its state: the StateDirectory= of its unit.
const SERVICE_STATE: &str = "/var/lib/alexandria-ingestd";

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigReport {
    pub valid: bool,
    /// None where the defaults are used.
    pub file: Option<PathBuf>,
    pub library: String,
    pub library_kind: String,
    pub state_dir: PathBuf,
    pub control_socket: PathBuf,
    pub store: String,
    /// Where it is kept.
    pub ingest_log: Option<PathBuf>,
    /// Every key.
    pub values: Vec<ValueRow>,
    pub warnings: Vec<String>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueRow {
    pub key: String,
    pub value: serde_json::Value,
    pub is_default: bool,
    /// `default`, or where it was set.
    pub origin: String,
    /// Whether SIGHUP (`systemctl reload`) applies a change.
    pub reloads: bool,
}

impl ConfigReport {
    /// For a person.
    pub fn text(&self, config: &Config) -> String {
        let mut out = String::from("configuration is valid\n");
        let file = self.file.as_ref().map_or_else(|| "none (defaults)".to_owned(), |file| file.display().to_string());
        let log = self.ingest_log.as_ref().map_or_else(|| "off".to_owned(), |path| path.display().to_string());
        let http = if config.http.listen.is_empty() { "off" } else { config.http.listen.as_str() };
        for (name, value) in [
            ("file", file),
            ("library", format!("{} ({})", self.library, self.library_kind)),
            ("state", self.state_dir.display().to_string()),
            ("socket", self.control_socket.display().to_string()),
            ("model", format!("{} on {}", config.embedding.model, config.embedding.device)),
            ("store", format!("{}, collection {}", self.store, config.store.collection)),
            ("http", http.to_owned()),
            ("shared log", log),
        ] {
            out += &format!("  {name:<10} {value}\n");
        }
        let set: Vec<&ValueRow> = self.values.iter().filter(|row| row.origin != "default").collect();
        if set.is_empty() {
            out += "\nall settings are the defaults\n";
        } else {
            out += "\nset:\n";
            let widest = set.iter().map(|row| row.key.len() + row.value.to_string().len()).max().unwrap_or(0).min(60);
            for row in set {
                let setting = format!("{} = {}", row.key, row.value);
                let same = if row.is_default { ", the default" } else { "" };
                out += &format!("  {setting:<width$}  {}{same}\n", row.origin, width = widest + 3);
            }
        }
        if !self.warnings.is_empty() {
            out += "\nwarnings:\n";
            for warning in &self.warnings {
                out += &format!("  - {warning}\n");
            }
        }
        out += "\nWhether the collection holds this model's vectors is seen at the start, when the store answers.\n";
        out
    }
}

/// Looks at everything that can be looked at without starting.
///
/// # Errors
/// What keeps the service from starting: the exit code is 2.
pub fn check_config(loaded: &Loaded) -> Result<ConfigReport, DaemonError> {
    let config = &loaded.config;
    let state_dir = config.state_directory()?;
    let control_socket = config.control_socket()?;
    formats::in_order(config)?;
    let library = PathBuf::from(&config.library.path);
    let mut warnings = loaded.notes.clone();
    let detected = within_patience({
        let library = library.clone();
        move || library::detect(&library)
    });
    let library_kind = match detected {
        Some(Ok(kind)) => format!("{kind:?}").to_lowercase(),
        // The mount may come later: the service waits for it.
        Some(Err(error)) => {
            warnings.push(format!("the library is not there now: {error}; the service waits for it"));
            "not available now".to_owned()
        }
        None => {
            warnings.push(format!(
                "{} has not answered for {} s; the service waits for it",
                library.display(),
                PATIENCE.as_secs()
            ));
            "does not answer".to_owned()
        }
    };
    let ingest_log = config.ingest_log.enabled.then(|| LogSettings::place(&config.ingest_log.path, &library));
    warnings.extend(other_directories(config, &state_dir, Path::new(SERVICE_STATE).is_dir()));
    check_state(&state_dir, &mut warnings);
    check_socket(config, &control_socket, &mut warnings);
    check_http(config, &mut warnings);
    check_secrets(loaded, &mut warnings);
    check_model(config, &mut warnings);
    check_store(config, &mut warnings);
    if let Some(place) = &ingest_log {
        check_ingest_log(place, &mut warnings);
    }
    let store = match config.store.kind.as_str() {
        "server" => format!("server {}", config.store.url),
        kind => kind.to_owned(),
    };
    Ok(ConfigReport {
        valid: true,
        file: loaded.file.clone(),
        library: config.library.path.clone(),
        library_kind,
        state_dir,
        control_socket,
        store,
        ingest_log: ingest_log.map(|place| place.path),
        values: value_rows(loaded),
        warnings,
    })
}

/// A shell does not see the directories that systemd gives the service.
fn other_directories(config: &Config, state_dir: &Path, service_has_state: bool) -> Option<String> {
    let differ = service_has_state && config.state_dir.is_empty() && state_dir != Path::new(SERVICE_STATE);
    differ.then(|| {
        format!(
            "state and socket are those of a program that this user runs; the installed service has {SERVICE_STATE} and \
             {SYSTEM_SOCKET}"
        )
    })
}

fn value_rows(loaded: &Loaded) -> Vec<ValueRow> {
    let defaults = values(&Config::default());
    values(&loaded.config)
        .into_iter()
        .map(|(key, value)| {
            let is_default = defaults.iter().any(|(other, default)| *other == key && *default == value);
            let is_secret = key == "store.api_key" && !is_default;
            let shown = if is_secret { "(set)".into() } else { serde_json::to_value(&value).unwrap_or_default() };
            let origin = loaded.origins.get(&key).map_or_else(|| "default".to_owned(), ToString::to_string);
            let reloads = reload::effect(&key) == Some(Effect::Live);
            ValueRow { key, value: shown, is_default, origin, reloads }
        })
        .collect()
}

/// What a call into a file system says, or None where it hangs: its thread is left behind, and ends with the program.
fn within_patience<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = sync_channel(1);
    // Nobody may wait any more.
    std::thread::Builder::new().spawn(move || drop(answer.send(call()))).ok()?;
    answered.recv_timeout(PATIENCE).ok()
}

/// The nearest directory that is there.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|ancestor| ancestor.is_dir()).map(Path::to_owned)
}

fn check_state(state_dir: &Path, warnings: &mut Vec<String>) {
    let wanted = state_dir.to_owned();
    let Some(found) = within_patience(move || {
        let there = existing(&wanted)?;
        let mount = library::mount_info(&there).ok();
        Some((access(&there, AccessFlags::W_OK).is_ok(), mount))
    }) else {
        warnings.push(format!("the state directory {} does not answer", state_dir.display()));
        return;
    };
    let Some((writable, mount)) = found else { return };
    if let Some(mount) = mount.filter(|mount| mount.network) {
        warnings.push(format!(
            "state_dir {} is on {}, which is or may be a network file system: the state needs a local disk",
            state_dir.display(),
            mount.fs_name
        ));
    }
    if !writable {
        warnings.push(format!(
            "the state directory {} cannot be written by this user; the service's own user may well",
            state_dir.display()
        ));
    }
}

fn check_socket(config: &Config, socket: &Path, warnings: &mut Vec<String>) {
    if socket.as_os_str().len() > LONGEST_PATH {
        warnings.push(format!(
            "control.socket {} is longer than {LONGEST_PATH} bytes, which is all that Linux takes",
            socket.display()
        ));
    }
    let group = &config.control.group;
    if !group.is_empty() && !matches!(Group::from_name(group), Ok(Some(_))) {
        warnings.push(format!("control.group: there is no group '{group}' here"));
    }
}

fn check_http(config: &Config, warnings: &mut Vec<String>) {
    let Ok(address) = config.http.listen.parse::<SocketAddr>() else { return };
    if matches!(config.http_token(), Ok(None)) && !address.ip().is_loopback() {
        warnings.push(format!(
            "http.listen {address} can be reached from other machines, and no token is asked for: set http.token_file, \
             or listen on 127.0.0.1"
        ));
    }
}

fn check_secrets(loaded: &Loaded, warnings: &mut Vec<String>) {
    let config = &loaded.config;
    for secret in [config.http_token(), config.store_api_key().map(Some)] {
        match secret {
            Ok(secret) => warnings.extend(secret.and_then(|secret| secret.warning)),
            Err(error) => warnings.push(format!("{error}; the service will not start")),
        }
    }
    let in_file = matches!(loaded.origins.get("store.api_key"), Some(crate::config::Origin::File { .. }));
    if let Some(file) = loaded.file.as_ref().filter(|_| in_file && !config.store.api_key.is_empty())
        && is_open_to_all(file)
    {
        warnings.push(format!(
            "store.api_key is in {}, which every user of this machine can read: put it into store.api_key_file, or \
             chmod 0640 {}",
            file.display(),
            file.display()
        ));
    }
    if !config.store.api_key.is_empty() && !config.store.api_key_file.is_empty() {
        warnings.push("both store.api_key and store.api_key_file are set; one is enough".to_owned());
    }
}

fn check_model(config: &Config, warnings: &mut Vec<String>) {
    let settings = &config.embedding;
    if settings.model == "fake" && settings.model_path.is_empty() {
        warnings.push("embedding.model is \"fake\": vectors mean nothing; for tests only".to_owned());
        return;
    }
    let spec = ModelSpec::from_name(&settings.model);
    if !spec.is_known_to_readers() {
        warnings.push(format!(
            "embedding.model '{}' is none of bge-m3, bge-large, minilm: the Python tools cannot query its collection",
            settings.model
        ));
    }
    if settings.model_path.is_empty() {
        if spec.repository.is_none() {
            warnings.push(format!(
                "embedding.model '{}' is no model that can be fetched: set embedding.model_path, or name a hub \
                 repository (owner/name)",
                settings.model
            ));
        }
    } else {
        check_model_files(Path::new(&settings.model_path), warnings);
    }
    let tokens = words_as_tokens(config.chunking.max_words);
    if let Some(limit) = spec.known_limit().filter(|limit| tokens > *limit) {
        warnings.push(format!(
            "chunking.max_words {} is about {tokens} tokens, and {} takes {limit}: minimum and maximum shrink in \
             proportion",
            config.chunking.max_words, spec.id
        ));
    }
}

fn check_model_files(directory: &Path, warnings: &mut Vec<String>) {
    let wanted = directory.to_owned();
    let missing = within_patience(move || {
        if !wanted.is_dir() {
            return Some("does not exist".to_owned());
        }
        let lacks = |name: &str| !wanted.join(name).is_file();
        let mut missing: Vec<&str> = ["config.json", "tokenizer.json"].into_iter().filter(|name| lacks(name)).collect();
        if lacks("model.safetensors") && lacks("pytorch_model.bin") {
            missing.push("model.safetensors (or pytorch_model.bin)");
        }
        (!missing.is_empty()).then(|| format!("lacks {}", missing.join(", ")))
    });
    match missing {
        None => warnings.push(format!("embedding.model_path {} does not answer", directory.display())),
        Some(Some(missing)) => {
            warnings.push(format!("embedding.model_path {} {missing}: the service will not start", directory.display()))
        }
        Some(None) => {}
    }
}

fn check_store(config: &Config, warnings: &mut Vec<String>) {
    let store = &config.store;
    if store.kind == "memory" {
        warnings.push("store.kind is \"memory\": everything is forgotten at the end; for tests only".to_owned());
    }
    if store.kind == "server" && store.url.ends_with(":6333") {
        warnings
            .push(format!("store.url {}: 6333 is Qdrant's REST port; gRPC, which is spoken here, is 6334", store.url));
    }
}

fn check_ingest_log(place: &Place, warnings: &mut Vec<String>) {
    let (path, in_library) = (place.path.clone(), place.in_library.clone());
    let refused = within_patience(move || {
        let directory = path.parent().filter(|directory| directory.is_dir()).map(Path::to_owned);
        // In the library the directory is made at need, and nowhere else.
        let target =
            if path.exists() { Some(path.clone()) } else { directory.or(in_library.filter(|path| path.is_dir())) };
        match target {
            Some(target) => {
                access(&target, AccessFlags::W_OK).err().map(|error| format!("{}: {error}", target.display()))
            }
            None => Some(format!("{} has no directory", path.display())),
        }
    });
    match refused {
        None => warnings.push(format!("the ingest log {} does not answer", place.path.display())),
        Some(Some(reason)) => warnings.push(format!(
            "the ingest log cannot be written now ({reason}): books go on, and it is caught up later; the packaged \
             service needs ReadWritePaths= for it"
        )),
        Some(None) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn report(text: &str, mode: u32) -> (ConfigReport, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        let state = format!("state_dir = \"{}\"\n", directory.path().join("state").display());
        fs::write(&file, format!("{state}{text}")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let loaded = Config::load_with_origins(Some(&file), [], &[]).unwrap();
        let report = check_config(&loaded).unwrap();
        let text = report.text(&loaded.config);
        (report, text)
    }

    fn warns(text: &str, mode: u32, words: &[&str]) {
        let (report, shown) = report(text, mode);
        let found = report.warnings.iter().any(|warning| words.iter().all(|word| warning.contains(word)));
        assert!(found, "{words:?}: {shown}");
    }

    #[test]
    fn the_directories_of_the_installed_service_are_named_where_it_has_others() {
        let mut config = Config::default();
        let mine = Path::new("/root/.local/state/alexandria-ingestd");
        let said = other_directories(&config, mine, true).unwrap();
        assert!(said.contains("/var/lib/alexandria-ingestd") && said.contains("/run/"), "{said}");
        assert_eq!(other_directories(&config, mine, false), None, "it is not installed");
        assert_eq!(other_directories(&config, Path::new(SERVICE_STATE), true), None, "it is the service that asks");
        config.state_dir = "/srv/state".into();
        assert_eq!(other_directories(&config, Path::new("/srv/state"), true), None, "both have the configured one");
    }

    #[test]
    fn what_is_odd_is_said() {
        warns("[library]\npath = \"/nonexistent/library\"\n", 0o640, &["not there now", "waits"]);
        warns("[http]\nlisten = \"0.0.0.0:8765\"\n", 0o640, &["0.0.0.0:8765", "no token"]);
        warns("[store]\nkind = \"server\"\napi_key = \"k\"\n", 0o644, &["store.api_key", "every user"]);
        warns("[store]\napi_key_file = \"/nonexistent/key\"\n", 0o640, &["store.api_key_file", "/nonexistent/key"]);
        warns("[store]\nkind = \"server\"\nurl = \"http://x:6333\"\n", 0o640, &["6334"]);
        warns("[embedding]\nmodel = \"bge-large\"\n", 0o640, &["512", "shrink"]);
        warns(
            "[embedding]\nmodel = \"mine\"\nmodel_path = \"/nonexistent/m\"\n",
            0o640,
            &["does not exist", "/nonexistent/m"],
        );
        warns("[embedding]\nmodel = \"mine\"\n", 0o640, &["no model that can be fetched"]);
        warns("[control]\ngroup = \"no-such-group\"\n", 0o640, &["no-such-group"]);
        let nowhere = "[library]\npath = \"/proc/nothing\"\n[ingest_log]\nenabled = true\npath = \"/proc/x/log.db\"\n";
        warns(nowhere, 0o640, &["ingest log cannot be written"]);
    }

    #[test]
    fn what_is_in_order_raises_no_warning() {
        let library = tempfile::tempdir().unwrap();
        fs::write(library.path().join("a.txt"), "a").unwrap();
        let token = library.path().join("token");
        fs::write(&token, "a-token-that-is-long-enough\n").unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o640)).unwrap();
        let text = format!(
            "[library]\npath = \"{}\"\n[http]\nlisten = \"0.0.0.0:8765\"\ntoken_file = \"{}\"\n[ingest_log]\nenabled = true\n\
             [store]\napi_key = \"k\"\n",
            library.path().display(),
            token.display()
        );
        let (report, shown) = report(&text, 0o600);
        assert_eq!(report.warnings, Vec::<String>::new(), "{shown}");
        assert!(shown.contains("store.api_key = \"(set)\"") && !shown.contains("\"k\""), "{shown}");
        assert!(shown.contains("line 5 of"), "{shown}");
        assert_eq!(report.ingest_log, Some(library.path().join(".qdrant/alexandria.db")));
        fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
        warns(&text, 0o600, &["http.token_file", "every user"]);
    }
}
