//! Secrets that do not stand in the configuration: read from a file that it names, or from systemd's credentials. Must
//! never put a secret's text into an error or the log.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError};

/// A shorter token can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// A secret, and what is odd about where it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub text: String,
    /// For the log, where there is something to be said.
    pub warning: Option<String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?})", self.warning)
    }
}

impl Config {
    /// The bearer token of the HTTP listener: `http.token_file`, else systemd's credential `http-token`; None where
    /// neither is given.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no token.
    pub fn http_token(&self) -> Result<Option<Secret>, ConfigError> {
        let secret = read("http.token_file", &self.http.token_file, "http-token", credentials().as_deref())?;
        Ok(secret.map(|mut secret| {
            if secret.text.len() < SHORTEST_TOKEN {
                let short = format!(
                    "the HTTP token has {} characters: `openssl rand -hex 32` makes one that nobody guesses",
                    secret.text.len()
                );
                secret.warning = Some(secret.warning.map_or(short.clone(), |warning| format!("{warning}; {short}")));
            }
            secret
        }))
    }

    /// The store's key: `store.api_key`, else `store.api_key_file`, else systemd's credential `qdrant-api-key`; empty
    /// where none is given.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no key.
    pub fn store_api_key(&self) -> Result<Secret, ConfigError> {
        if !self.store.api_key.is_empty() {
            return Ok(Secret { text: self.store.api_key.clone(), warning: None });
        }
        let found = read("store.api_key_file", &self.store.api_key_file, "qdrant-api-key", credentials().as_deref())?;
        Ok(found.unwrap_or(Secret { text: String::new(), warning: None }))
    }
}

/// Whether every user of this machine can read the file.
pub fn is_open_to_all(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.mode() & 0o004 != 0)
}

/// Where systemd puts the credentials of a service (LoadCredential=).
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The secret in `file` where that is set, else the credential of that name where there is one.
fn read(
    key: &'static str,
    file: &str,
    credential: &str,
    credentials: Option<&Path>,
) -> Result<Option<Secret>, ConfigError> {
    let path = match credentials.map(|directory| directory.join(credential)) {
        _ if !file.is_empty() => PathBuf::from(file),
        Some(path) if path.exists() => path,
        _ => return Ok(None),
    };
    let bad = |reason: String| ConfigError::BadValue { key, reason: format!("{}: {reason}", path.display()) };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        bad(format!("{error}; the service's user must be able to read it (or give it as a credential: LoadCredential={credential}:FILE)"))
    })?;
    let text = text.trim();
    if text.is_empty() {
        return Err(bad("is empty; it must hold the secret on one line".into()));
    }
    if text.chars().any(|c| !c.is_ascii_graphic()) {
        return Err(bad("holds a space, a second line or a character that is not ASCII".into()));
    }
    let open = !file.is_empty() && is_open_to_all(&path);
    let warning =
        open.then(|| format!("{key}: {} can be read by every user of this machine: chmod 640 {0}", path.display()));
    Ok(Some(Secret { text: text.to_owned(), warning }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(directory: &Path, name: &str, text: &str, mode: u32) -> String {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_file_wins_over_the_credential_and_neither_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let file = written(directory.path(), "file", "from-the-file\n", 0o640);
        written(directory.path(), "http-token", "from-systemd", 0o400);
        let text = |file: &str, credentials| {
            read("http.token_file", file, "http-token", credentials).unwrap().map(|secret| secret.text)
        };
        assert_eq!(text(&file, Some(directory.path())).as_deref(), Some("from-the-file"));
        assert_eq!(text("", Some(directory.path())).as_deref(), Some("from-systemd"));
        assert_eq!(text("", None), None);
        assert_eq!(read("store.api_key_file", "", "qdrant-api-key", Some(directory.path())).unwrap(), None);
    }

    #[test]
    fn what_holds_no_secret_is_an_error_that_names_key_and_file() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text, says) in [("empty", "\n\n", "is empty"), ("two", "first\nsecond", "a second line")] {
            let file = written(directory.path(), name, text, 0o600);
            let error = read("http.token_file", &file, "http-token", None).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("http.token_file") && error.contains(&file), "{error}");
            assert!(!error.contains(text), "no secret is in an error: {error}");
        }
        let error = read("http.token_file", "/no/such/file", "http-token", None).unwrap_err().to_string();
        assert!(error.contains("/no/such/file") && error.contains("LoadCredential=http-token"), "{error}");
    }

    #[test]
    fn a_file_for_every_eye_is_warned_of() {
        let directory = tempfile::tempdir().unwrap();
        let open = written(directory.path(), "open", "a-long-enough-token", 0o644);
        let warning = read("http.token_file", &open, "http-token", None).unwrap().unwrap().warning.unwrap();
        assert!(warning.contains("chmod 640"), "{warning}");
        let closed = written(directory.path(), "closed", "a-long-enough-token", 0o640);
        assert_eq!(read("http.token_file", &closed, "http-token", None).unwrap().unwrap().warning, None);
        let config = Config {
            http: super::super::HttpConfig {
                token_file: written(directory.path(), "short", "abc", 0o600),
                ..Default::default()
            },
            ..Config::default()
        };
        let secret = config.http_token().unwrap().unwrap();
        assert!(secret.warning.as_ref().unwrap().contains("3 characters"), "{:?}", secret.warning);
        assert!(!format!("{secret:?}").contains("abc"));
    }
}
