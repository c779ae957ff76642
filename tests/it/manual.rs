//! The manual pages and completions as packaging makes them: every key and every verb is there, `man` has no complaint.

use std::fs;
use std::path::Path;
use std::process::Command;

use alexandria_ingestd::config::Config;

const INGESTD: &str = env!("CARGO_BIN_EXE_alexandria-ingestd");
const CONTROL: &str = env!("CARGO_BIN_EXE_alexandriactl");

fn generate(program: &str, what: &str, directory: &Path) {
    let output = Command::new(program).args(["generate", what]).arg(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn verbs(program: &str) -> Vec<String> {
    let output = Command::new(program).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let verbs: Vec<String> = names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned)
        .collect();
    assert!(verbs.len() > 5, "{help}");
    verbs
}

#[test]
fn the_pages_have_every_verb_and_man_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    for (program, page) in [(INGESTD, "man8/alexandria-ingestd.8"), (CONTROL, "man1/alexandriactl.1")] {
        generate(program, "man", directory.path());
        let text = fs::read_to_string(directory.path().join(page)).unwrap();
        for verb in verbs(program) {
            assert!(text.contains(&format!(".SS {verb}\n")), "{verb} is not in {page}");
        }
        assert!(!text.contains("packagers"), "a hidden verb is in {page}");
    }
    for page in [
        "man1/alexandriactl.1",
        "man5/alexandria-ingestd.toml.5",
        "man7/alexandria-ingestd-journal.7",
        "man8/alexandria-ingestd.8",
    ] {
        let path = directory.path().join(page);
        assert!(path.is_file(), "{page}");
        let Ok(output) = Command::new("man")
            .args(["--warnings", "-l", "-Tutf8"])
            .arg(&path)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .output()
        else {
            println!("SKIPPED: what man says of {page}: man is not installed");
            continue;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}

#[test]
fn the_settings_page_has_every_key() {
    let directory = tempfile::tempdir().unwrap();
    generate(INGESTD, "man", directory.path());
    let page = fs::read_to_string(directory.path().join("man5/alexandria-ingestd.toml.5")).unwrap();
    let config = toml::Value::try_from(Config::default()).unwrap();
    let mut keys = 0;
    for (name, value) in config.as_table().unwrap() {
        let Some(section) = value.as_table() else {
            assert!(page.contains(&format!("\\fB{name}\\fR = ")), "{name}");
            continue;
        };
        let start = page.find(&format!(".SH [{name}]")).unwrap_or_else(|| panic!("[{name}]"));
        let rest = &page[start + 4..];
        let text = &rest[..rest.find("\n.SH ").unwrap_or(rest.len())];
        for key in section.keys() {
            assert!(text.contains(&format!("\\fB{key}\\fR = ")), "{name}.{key} is not in {text}");
            keys += 1;
        }
    }
    assert!(keys > 40, "{keys} keys");
}

#[test]
fn the_journal_page_has_every_field_and_every_event() {
    use alexandria_ingestd::telemetry::event::{EVENTS, FIELDS};
    let directory = tempfile::tempdir().unwrap();
    generate(INGESTD, "man", directory.path());
    let page = fs::read_to_string(directory.path().join("man7/alexandria-ingestd-journal.7")).unwrap();
    for field in FIELDS {
        assert!(page.contains(&format!("\\fB{}=\\fR", field.name)), "{} is not in {page}", field.name);
    }
    for event in EVENTS {
        assert!(page.contains(&format!("MESSAGE_ID={}", event.id)), "{} is not in {page}", event.name);
    }
}

#[test]
fn completions_for_three_shells_offer_the_verbs() {
    for (program, name) in [(INGESTD, "alexandria-ingestd"), (CONTROL, "alexandriactl")] {
        let directory = tempfile::tempdir().unwrap();
        generate(program, "completions", directory.path());
        for file in [
            format!("bash-completion/completions/{name}"),
            format!("zsh/vendor-completions/_{name}"),
            format!("fish/vendor_completions.d/{name}.fish"),
        ] {
            let script = fs::read_to_string(directory.path().join(&file)).unwrap();
            for verb in verbs(program) {
                assert!(script.contains(&verb), "{verb} is not in {file}");
            }
            assert!(!script.contains("packagers"), "a hidden verb is in {file}");
        }
    }
}
