//! The manual pages and the shells' completions, generated from what the programs themselves parse and read: the
//! argument parsers, the commented example configuration, the journal's fields. Packaging calls it through a hidden verb
//! of both programs. It must never document what is documented elsewhere, and never run in the service.

mod completions;
mod journal;
mod markup;
mod program;
mod service;
mod settings;

use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};

pub use journal::journal_page;
pub use service::{control_page, service_page};
pub use settings::settings_page;

/// What the hidden verb `generate` takes.
#[derive(Debug, Args)]
pub struct GenerateArguments {
    /// What to write
    what: What,
    /// Under this folder, as in /usr/share
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Manual pages, in man1 to man8
    Man,
    /// Completions for bash, zsh and fish, where their packages look for them
    Completions,
}

/// One manual page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub name: &'static str,
    pub section: u8,
    /// In roff.
    pub text: String,
}

/// Writes the pages, or the completions of the program `name`.
///
/// # Errors
/// Where a file cannot be written; its path is in the error.
pub fn generate(
    arguments: &GenerateArguments,
    name: &'static str,
    command: &Command,
    pages: &[Page],
) -> std::io::Result<()> {
    match arguments.what {
        What::Man => pages.iter().try_for_each(|page| {
            let file = format!("man{0}/{1}.{0}", page.section, page.name);
            write(&arguments.directory.join(file), page.text.as_bytes())
        }),
        What::Completions => completions::all(name, command)
            .into_iter()
            .try_for_each(|(file, script)| write(&arguments.directory.join(file), &script)),
    }
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let with_path = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(with_path)?;
    }
    std::fs::write(path, content).map_err(with_path)
}
