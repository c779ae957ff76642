//! A program's page from its argument parser: every verb with its options and its examples. It must never leave out a
//! verb or an option that is not hidden.

use clap::{Arg, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::markup::{entry, inlines, literal, render};

/// A heading and its text, see [`super::markup`].
pub(super) type Section = (&'static str, &'static str);

/// The page; `sections` follow what the parser says.
pub(super) fn page(command: Command, section: u8, sections: &[Section]) -> String {
    let mut command = command;
    command.build();
    let mut text = title(&command, section);
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        verb_section(&mut roff, verb);
    }
    for (heading, content) in sections {
        roff.control("SH", [*heading]);
        render(&mut roff, content);
    }
    text.push_str(&body(&roff));
    text
}

/// What clap_mangen makes of the program itself: title, name, synopsis, description, options.
fn title(command: &Command, section: u8) -> String {
    let source = format!("{} {}", command.get_name(), command.get_version().unwrap_or_default());
    let man = Man::new(command.clone()).section(section.to_string()).source(source).manual("Alexandria");
    let mut written = Vec::new();
    let parts = man
        .render_title(&mut written)
        .and_then(|()| man.render_name_section(&mut written))
        .and_then(|()| man.render_synopsis_section(&mut written))
        .and_then(|()| man.render_description_section(&mut written))
        .and_then(|()| man.render_options_section(&mut written));
    // Writing into memory does not fail.
    debug_assert!(parts.is_ok());
    String::from_utf8_lossy(&written).into_owned()
}

/// Without the preamble, which a page has once.
pub(super) fn body(roff: &Roff) -> String {
    let preamble = Roff::new().render();
    roff.render().split_off(preamble.len())
}

fn verb_section(roff: &mut Roff, verb: &Command) {
    roff.control("SS", [verb.get_name()]);
    let usage = verb.clone().render_usage().to_string();
    roff.control("PP", []);
    roff.text([bold(usage.trim_start_matches("Usage: ").trim())]);
    if let Some(about) = verb.get_long_about().or_else(|| verb.get_about()) {
        for paragraph in about.to_string().split("\n\n") {
            roff.control("PP", []);
            roff.text(inlines(&sentence(paragraph)));
        }
    }
    let own = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help";
    for arg in verb.get_arguments().filter(own) {
        entry(roff, &[term(arg)], &explanation(arg));
    }
    if let Some(examples) = verb.get_after_long_help().or_else(|| verb.get_after_help()) {
        let examples = examples.to_string();
        let shown = examples.trim_start_matches("Examples:").trim_start_matches("Example:");
        let lines = shown.lines().flat_map(|line| line.split(" · ")).map(str::trim).filter(|line| !line.is_empty());
        roff.control("PP", []);
        roff.text([roman(if examples.starts_with("Examples") { "Examples:" } else { "Example:" })]);
        literal(roff, lines);
    }
}

/// `-n, --limit LIMIT`, or a positional's name.
fn term(arg: &Arg) -> Vec<Inline> {
    let names: Vec<String> = arg
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .chain(arg.get_long().map(|long| format!("--{long}")))
        .collect();
    let mut term = Vec::new();
    for (number, name) in names.iter().enumerate() {
        term.extend((number > 0).then(|| roman(", ")));
        term.push(bold(name.as_str()));
    }
    if arg.get_action().takes_values() {
        term.extend((!names.is_empty()).then(|| roman(" ")));
        let values = match arg.get_value_names() {
            Some(names) => names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" "),
            None => arg.get_id().as_str().to_uppercase(),
        };
        term.push(italic(values));
    }
    term
}

fn explanation(arg: &Arg) -> String {
    let mut text =
        arg.get_long_help().or_else(|| arg.get_help()).map(|help| sentence(&help.to_string())).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() {
        text.push_str(&format!(" Default: {}.", defaults.join(", ")));
    }
    let possible = arg.get_possible_values();
    if arg.get_action().takes_values() && !possible.is_empty() {
        let names: Vec<_> =
            possible.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name()).collect();
        text.push_str(&format!(" One of {}.", names.join(", ")));
    }
    text.trim().to_owned()
}

/// clap's help has no full stop at its end.
fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() || text.ends_with(['.', ':', '?', '!']) { text } else { text + "." }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        Command::new("program")
            .version("1.2")
            .about("Does things")
            .arg(Arg::new("socket").long("socket").global(true).help("Where to ask"))
            .subcommand(
                Command::new("queue")
                    .about("What is next")
                    .arg(Arg::new("limit").long("limit").short('n').default_value("50").help("Most jobs shown"))
                    .arg(Arg::new("state").value_name("STATE").value_parser(["queued", "done"]))
                    .after_help("Examples: program queue · program queue -n 3"),
            )
            .subcommand(Command::new("secret").hide(true))
    }

    #[test]
    fn a_page_has_every_verb_that_is_not_hidden_with_options_and_examples() {
        let text = page(program(), 1, &[("EXIT STATUS", "= 0\nDone.")]);
        for part in [
            ".TH program 1",
            "program \\- Does things",
            ".SS queue",
            "\\fB\\-n\\fR, \\fB\\-\\-limit\\fR \\fILIMIT\\fR\nMost jobs shown. Default: 50.",
            "One of queued, done.",
            ".nf\nprogram queue\nprogram queue \\-n 3\n.fi",
            ".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\nDone.",
        ] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(
            text.matches("\\-\\-socket").count(),
            text.split(".SH COMMANDS").next().unwrap().matches("\\-\\-socket").count()
        );
    }
}
