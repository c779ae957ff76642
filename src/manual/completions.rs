//! Completions for three shells. They must never offer a hidden verb.

use std::path::PathBuf;

use clap::Command;
use clap_complete::{Shell, generate};

/// Each script with its place under /usr/share.
pub(super) fn all(name: &'static str, command: &Command) -> Vec<(PathBuf, Vec<u8>)> {
    let mut command = visible(name, command);
    [
        (Shell::Bash, format!("bash-completion/completions/{name}")),
        (Shell::Zsh, format!("zsh/vendor-completions/_{name}")),
        (Shell::Fish, format!("fish/vendor_completions.d/{name}.fish")),
    ]
    .into_iter()
    .map(|(shell, file)| {
        let mut script = Vec::new();
        generate(shell, &mut command, name, &mut script);
        (PathBuf::from(file), script)
    })
    .collect()
}

/// The generators offer hidden verbs, too: the command is made again without them.
fn visible(name: &'static str, command: &Command) -> Command {
    let mut made = Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned());
    if let Some(about) = command.get_about() {
        made = made.about(about.clone());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn a_hidden_verb_is_offered_by_no_shell() {
        let command = Command::new("program")
            .version("1")
            .about("does things")
            .arg(Arg::new("socket").long("socket").global(true))
            .subcommand(Command::new("status").about("says how it is").arg(Arg::new("limit").long("limit")))
            .subcommand(Command::new("secret").hide(true));
        let scripts = all("program", &command);
        assert_eq!(scripts.len(), 3);
        for (file, script) in scripts {
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("status") && script.contains("limit") && script.contains("socket"), "{file:?}");
            assert!(!script.contains("secret"), "{file:?}: {script}");
        }
    }
}
