//! The service and its verbs: arguments and exit codes only.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 the state file needs a person.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use alexandria_ingestd::config::{Config, ConfigError, ConfigSource};
use alexandria_ingestd::control::arguments::SearchArguments;
use alexandria_ingestd::control::tables::{self, View};
use alexandria_ingestd::daemon::{self, BenchTexts, DaemonError, EmbedBenchSettings, IngestSummary, RetrievalSettings};
use alexandria_ingestd::manual::{self, GenerateArguments};
use alexandria_ingestd::telemetry;
use clap::{Args, CommandFactory, Parser, Subcommand};
use indicatif::ProgressBar;

/// Watches a Calibre library and keeps a Qdrant collection of its books' embeddings up to date.
///
/// Without a verb it runs as a service, until SIGTERM.
#[derive(Parser)]
#[command(name = "alexandria-ingestd", version)]
struct Arguments {
    /// Configuration file [default: /etc/alexandria-ingestd/config.toml where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrides one setting, e.g. --set library.path=/mnt/calibre; stands before the verb
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_override)]
    overrides: Vec<(String, String)>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Check the configuration, say what it comes to, and end
    #[command(after_help = "Example: alexandria-ingestd --set library.path=/mnt/books check-config")]
    CheckConfig {
        /// Print every key with its value and where it comes from as JSON
        #[arg(long)]
        json: bool,
    },
    /// Ingest files, folders or Calibre libraries now, without a service
    #[command(after_help = "Example: alexandria-ingestd ingest ~/Books novel.epub")]
    Ingest {
        /// A book, a folder or a library
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Put a backup made by `alexandriactl backup` in the place of the state; the service must be stopped
    #[command(after_help = "Example: alexandria-ingestd restore state-2026-11-25.db")]
    Restore {
        /// The backup's file
        backup: PathBuf,
    },
    /// Make a new state from the library and the store, embedding only what the store does not have whole; the service
    /// must be stopped
    #[command(after_help = "Example: alexandria-ingestd rebuild")]
    Rebuild {
        /// Replace a state that is sound, too
        #[arg(long)]
        force: bool,
    },
    /// Search without a service
    #[command(after_help = "Example: alexandria-ingestd search \"how are bees kept in winter?\"")]
    Search {
        #[command(flatten)]
        search: SearchArguments,
        /// Print the passages as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read one JSON string a line, write one JSON vector a line
    #[command(after_help = "Example: echo '\"a text\"' | alexandria-ingestd embed")]
    Embed,
    /// Show the sections of a book's file, or compare its words with an independent count
    #[command(after_help = "Example: alexandria-ingestd extract novel.epub --report")]
    Extract {
        /// The book's file
        path: PathBuf,
        /// Print the comparison instead of the sections
        #[arg(long)]
        report: bool,
    },
    /// Measure the embedding; or, with a BOOK, all stages of ingesting it into a store that is thrown away
    ///
    /// Without a BOOK: loads the configured model, embeds chunks of random tokens, and prints one table: rate, share of
    /// what the device can do, memory, load time. Other settings of the model are --set before the verb.
    #[command(after_help = BENCH_EXAMPLES)]
    Bench {
        /// The book's file
        #[arg(value_name = "BOOK", conflicts_with_all = ["tokens", "mix", "texts", "chunks", "seconds", "interactive", "no_ceiling", "compare"])]
        books: Vec<PathBuf>,
        #[command(flatten)]
        embedding: EmbeddingArguments,
        /// Read the books and do no more, in this process and in a child
        #[arg(long, requires = "books")]
        extract: bool,
        /// With --extract: how often each book is read
        #[arg(long, default_value_t = 5, requires = "extract")]
        rounds: usize,
        #[command(flatten)]
        retrieval: RetrievalArguments,
        /// Print a machine's table
        #[arg(long)]
        json: bool,
    },
    /// Say where the embedding would run, and why
    #[command(after_help = "Example: alexandria-ingestd device --check")]
    Device {
        /// Compare what the GPU computes with the CPU, and fill its memory; takes minutes, and the card must be idle
        #[arg(long)]
        check: bool,
        /// With --check: a machine's table
        #[arg(long, requires = "check")]
        json: bool,
    },
    /// For packagers: the manual pages, or the shells' completions
    #[command(hide = true)]
    Generate(GenerateArguments),
}

const BENCH_EXAMPLES: &str = "\
Examples:
  alexandria-ingestd bench --json > before.json
  alexandria-ingestd bench --compare before.json
  alexandria-ingestd --set embedding.device=cpu --set embedding.threads=1 bench --mix --seconds 60
  alexandria-ingestd bench --interactive
  alexandria-ingestd bench novel.epub
  alexandria-ingestd bench --extract ~/Books/*.epub
  alexandria-ingestd bench --retrieval --asking manual.de.epub -- manual.en.epub policy.epub";

/// What `bench` embeds without a BOOK.
#[derive(Args)]
struct EmbeddingArguments {
    /// Tokens of a chunk, special tokens included; clipped to the model's limit
    #[arg(long, default_value_t = daemon::DEFAULT_TOKENS as u64, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tokens: u64,
    /// Chunks of 20 to 1,700 tokens as in books, clipped to the model's limit
    #[arg(long, conflicts_with = "tokens")]
    mix: bool,
    /// Real texts: one JSON string a line, each once unless --chunks or --seconds says more
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens", "mix"])]
    texts: Option<PathBuf>,
    /// So many chunks
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    chunks: Option<u64>,
    /// About so many seconds of work, after the warm-up [default: 10]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    seconds: Option<f64>,
    /// Also ask a query every 100 ms, and show how long its answer takes
    #[arg(long)]
    interactive: bool,
    /// Leave out the large matrix product that the share of the ceiling is taken of
    #[arg(long)]
    no_ceiling: bool,
    /// Show an earlier run's JSON beside this one, with the ratios
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    compare: Option<PathBuf>,
}

impl EmbeddingArguments {
    fn settings(&self) -> EmbedBenchSettings {
        let texts = match &self.texts {
            Some(path) => BenchTexts::File(path.clone()),
            None if self.mix => BenchTexts::Mix,
            None => BenchTexts::Fixed(self.tokens as usize),
        };
        EmbedBenchSettings {
            texts,
            chunks: self.chunks,
            seconds: self.seconds,
            interactive: self.interactive,
            ceiling: !self.no_ceiling,
        }
    }
}

/// What `bench --retrieval` measures.
#[derive(Args)]
struct RetrievalArguments {
    /// How well passages cut in different ways are found: a heading of the BOOKs is the question, the text under it the
    /// answer
    #[arg(long, requires = "books", conflicts_with = "extract")]
    retrieval: bool,
    /// With --retrieval: translations of English BOOKs, of which only the headings are taken, as questions
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "retrieval")]
    asking: Vec<PathBuf>,
    /// With --retrieval: only these ways to cut, each with parameters where it has any
    #[arg(long, value_name = "NAME[:KEY=VALUE...],...", value_delimiter = ',', requires = "retrieval")]
    methods: Vec<String>,
    /// With --retrieval: a folder to keep vectors in from run to run; the times are then those of the first run
    #[arg(long, value_name = "DIR", requires = "retrieval")]
    cache: Option<PathBuf>,
}

impl RetrievalArguments {
    fn settings(self, books: Vec<PathBuf>) -> RetrievalSettings {
        RetrievalSettings { books, asking: self.asking, methods: self.methods, cache: self.cache }
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, from 0 to 86400".to_owned())
}

fn parse_override(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, e.g. library.path=/mnt/calibre")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    // Before anything else is read or opened: a child gets neither arguments nor configuration.
    if daemon::is_child_call(std::env::args_os().nth(1).as_deref()) {
        return daemon::run_child();
    }
    let arguments = Arguments::parse();
    if let Some(Verb::Generate(what)) = &arguments.verb {
        return generate(what);
    }
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("alexandria-ingestd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Needs no configuration: it runs where the package is built.
fn generate(what: &GenerateArguments) -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let pages =
        [manual::service_page(Arguments::command()), manual::settings_page(version), manual::journal_page(version)];
    match manual::generate(what, "alexandria-ingestd", &Arguments::command(), &pages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alexandria-ingestd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, DaemonError> {
    let source = ConfigSource { file: arguments.config, overrides: arguments.overrides };
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(error) if matches!(arguments.verb, Some(Verb::CheckConfig { json: true })) => {
            return Err(invalid(error.into()));
        }
        Err(error) => return Err(error.into()),
    };
    let config = loaded.config.clone();
    let works = matches!(arguments.verb, Some(Verb::Ingest { .. } | Verb::Rebuild { .. }));
    let bar = works.then(|| ProgressBar::new(0));
    let quiet = !works && arguments.verb.is_some();
    let level = if quiet && config.log.level == "info" { "warn" } else { config.log.level.as_str() };
    telemetry::init(level, bar.clone())
        .map_err(|reason| DaemonError::Config(ConfigError::BadValue { key: "log.level", reason }))?;
    match arguments.verb {
        // Answered before there is a configuration.
        Some(Verb::Generate(_)) => {}
        None => daemon::run(config, source)
            .inspect_err(|error| tracing::error!(MESSAGE_ID = telemetry::event::SERVICE_FAILED, "{error}"))?,
        Some(Verb::CheckConfig { json }) => {
            let report = daemon::check_config(&loaded).map_err(|error| if json { invalid(error) } else { error })?;
            if json {
                println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                print!("{}", report.text(&config));
            }
        }
        Some(Verb::Ingest { paths }) => {
            return Ok(report(&daemon::ingest_paths(&config, &paths, &bar.unwrap_or_else(ProgressBar::hidden))?));
        }
        Some(Verb::Rebuild { force }) => {
            return Ok(report(&daemon::rebuild(&config, force, &bar.unwrap_or_else(ProgressBar::hidden))?));
        }
        Some(Verb::Restore { backup }) => println!("{}", daemon::restore(&config, &backup)?),
        Some(Verb::Search { search, json }) => {
            let response = daemon::search_once(&config, &search.request())?;
            if json {
                println!("{}", serde_json::to_string_pretty(&response).unwrap_or_default());
            } else {
                print!("{}", tables::search(&response, search.full, View::of_stdout()));
            }
        }
        Some(Verb::Embed) => {
            let output = BufWriter::new(std::io::stdout().lock());
            daemon::embed_lines(&config, std::io::stdin().lock(), output)?;
        }
        Some(Verb::Extract { path, report }) => return extract(&config, &path, report),
        Some(Verb::Bench { books, extract: true, rounds, json, .. }) => {
            print!("{}", daemon::bench_extract(&config, &books, rounds, json)?);
        }
        Some(Verb::Bench { books, retrieval, json, .. }) if retrieval.retrieval => {
            print!("{}", daemon::bench_retrieval(&config, &retrieval.settings(books), json)?);
        }
        Some(Verb::Bench { books, embedding, json, .. }) if books.is_empty() => {
            print!("{}", daemon::bench_embed(&config, &embedding.settings(), json, embedding.compare.as_deref())?);
        }
        Some(Verb::Bench { books, json, .. }) => {
            for book in books {
                print!("{}", daemon::bench(&config, &book, json)?);
            }
        }
        Some(Verb::Device { check: false, .. }) => println!("{}", daemon::device(&config)?),
        Some(Verb::Device { json, .. }) => {
            let (text, passed) = daemon::check_device(&config, json)?;
            print!("{text}");
            return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration's error for a program that reads JSON; a person has it on standard error.
fn invalid(error: DaemonError) -> DaemonError {
    println!("{:#}", serde_json::json!({ "valid": false, "error": error.to_string() }));
    error
}

fn report(summary: &IngestSummary) -> ExitCode {
    println!(
        "{} books embedded, {} updated without embedding, {} unchanged, {} failed",
        summary.embedded,
        summary.payload_only,
        summary.unchanged,
        summary.failed.len()
    );
    if summary.embedded > 0 && !summary.worked.is_zero() {
        println!(
            "model at work {:.1} % of {:.1} s",
            summary.model_at_work.as_secs_f64() / summary.worked.as_secs_f64() * 100.0,
            summary.worked.as_secs_f64()
        );
    }
    if summary.adopted > 0 {
        println!("{} books were in the store already and are known again", summary.adopted);
    }
    if summary.remaining > 0 {
        println!("{} jobs are still to be done: the same command goes on with them", summary.remaining);
    }
    for failure in &summary.failed {
        eprintln!("failed: {failure}");
    }
    let failed = summary.interrupted || summary.remaining > 0 || !summary.failed.is_empty();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn extract(config: &Config, path: &std::path::Path, report: bool) -> Result<ExitCode, DaemonError> {
    let (document, coverage) = daemon::extract_report(config, path)?;
    let mut output = BufWriter::new(std::io::stdout().lock());
    let written = if report {
        serde_json::to_writer_pretty(&mut output, &coverage)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(output))
    } else {
        document.sections.iter().try_for_each(|section| {
            let indent = "  ".repeat(section.level);
            writeln!(output, "{indent}{} ({} words)", section.title, section.text.split_whitespace().count())
        })
    };
    written.and_then(|()| output.flush()).map_err(DaemonError::io("standard output"))?;
    let whole = coverage.lost == 0 && coverage.doubled == 0;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
