//! Where each setting comes from, and which keys there are: for messages that name the line, the variable or the flag.
//! Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::de::DeTable;

use super::{Config, ConfigError};
use crate::domain::nearest;

/// Where a value comes from. What is in no map is a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "line {line} of {}", path.display()),
            Origin::Variable(name) => write!(f, "variable {name}"),
            Origin::Flag => f.write_str("--set"),
        }
    }
}

/// A configuration, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// None where there was none.
    pub file: Option<PathBuf>,
    pub origins: BTreeMap<String, Origin>,
    /// Odd things that are no errors, a sentence each.
    pub notes: Vec<String>,
}

/// A configuration's values by key, as `library.path`; the keys in alphabetical order.
pub fn values(config: &Config) -> Vec<(String, toml::Value)> {
    let mut found = Vec::new();
    // A struct of strings, numbers and lists always serialises.
    let Ok(toml::Value::Table(sections)) = toml::Value::try_from(config) else { return found };
    for (section, value) in sections {
        match value {
            toml::Value::Table(table) => {
                found.extend(table.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
            }
            value => found.push((section, value)),
        }
    }
    found
}

/// What is wrong with a key that there is not, and what may have been meant. `written`: how the key is written where it
/// stands, from its name in the file.
pub(super) fn unknown_key(key: &str, written: impl Fn(&str) -> String) -> String {
    let known: Vec<String> = values(&Config::default()).into_iter().map(|(key, _)| key).collect();
    let shown = written(key);
    let Some((section, name)) = key.split_once('.') else {
        let sections: Vec<&str> = known.iter().map(|key| key.split('.').next().unwrap_or(key)).collect();
        return match nearest(key, sections, 1).first() {
            Some(near) => format!("there is no {shown}; did you mean {}?", written(near)),
            None => format!("there is no {shown}"),
        };
    };
    let of_section: Vec<&str> = known.iter().filter_map(|key| key.strip_prefix(section)?.strip_prefix('.')).collect();
    let elsewhere: Vec<&String> =
        known.iter().filter(|key| key.split_once('.').is_some_and(|(_, other)| other == name)).collect();
    match (nearest(name, of_section, 1).first(), elsewhere.as_slice()) {
        (Some(near), _) => {
            format!("there is no key {shown}; did you mean {}?", written(&format!("{section}.{near}")))
        }
        (None, []) => match nearest(key, known.iter().map(String::as_str), 1).first() {
            Some(near) => format!("there is no key {shown}; did you mean {}?", written(near)),
            None => format!("there is no key {shown}"),
        },
        (None, others) => {
            let others: Vec<String> = others.iter().map(|key| written(key)).collect();
            format!("there is no key {shown}, but there is {}", others.join(", "))
        }
    }
}

/// The keys that a file sets, with their lines, all of them known.
pub(super) fn keys_of_file(text: &str) -> Result<Vec<(String, usize)>, String> {
    let whole = |error: toml::de::Error| error.to_string().trim_end().to_owned();
    let table = DeTable::parse(text).map_err(whole)?;
    let known: Vec<String> = values(&Config::default()).into_iter().map(|(key, _)| key).collect();
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    let mut take = |key: String, at: usize| {
        if known.contains(&key) {
            found.push((key, line(at)));
        } else {
            wrong.push(format!("line {}: {}", line(at), unknown_key(&key, str::to_owned)));
        }
    };
    for (name, value) in table.get_ref() {
        let section = name.get_ref().as_ref();
        let is_section = known.iter().any(|key| key.split_once('.').is_some_and(|(first, _)| first == section));
        match value.get_ref().as_table() {
            Some(table) if is_section => {
                for key in table.keys() {
                    take(format!("{section}.{}", key.get_ref()), key.span().start);
                }
            }
            // The deserialiser says that a section is expected there.
            None if is_section => {}
            _ => take(section.to_owned(), name.span().start),
        }
    }
    if wrong.is_empty() { Ok(found) } else { Err(wrong.join("\n")) }
}

/// An error of [`Config::check`], with the place of the value that it refuses.
pub(super) fn located(error: ConfigError, origins: &BTreeMap<String, Origin>) -> ConfigError {
    match error {
        ConfigError::BadValue { key, reason } => match origins.get(key) {
            Some(origin) => ConfigError::BadValue { key, reason: format!("{reason} ({origin})") },
            None => ConfigError::BadValue { key, reason },
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_misspelt_key_is_named_with_its_line_and_what_was_meant() {
        let file = "state_dri = \"x\"\n[library]\npath = \"/x\"\npol_seconds = 3\nmodel = \"y\"\nlisten = \"z\"\n[libary]\n\
                    [zzz]\na = 1\n";
        let wrong = keys_of_file(file).unwrap_err();
        let expected = "\
line 7: there is no libary; did you mean library?
line 5: there is no key library.model, but there is embedding.model
line 6: there is no key library.listen, but there is http.listen
line 4: there is no key library.pol_seconds; did you mean library.poll_seconds?
line 1: there is no state_dri; did you mean state_dir?
line 8: there is no zzz";
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&wrong), sorted(expected));
    }

    #[test]
    fn a_file_that_is_no_toml_says_where() {
        let wrong = keys_of_file("[library]\npath = /x\n").unwrap_err();
        assert!(wrong.contains("line 2"), "{wrong}");
    }

    #[test]
    fn keys_have_their_lines_however_they_are_written() {
        let mut found = keys_of_file("state_dir = \"\"\n\nlibrary.path = \"/x\"\n[embedding]\nmodel = 'm'\n").unwrap();
        found.sort();
        let expected = [("embedding.model", 5), ("library.path", 3), ("state_dir", 1)];
        assert_eq!(found, expected.map(|(key, line)| (key.to_owned(), line)));
    }
}
