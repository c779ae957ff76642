//! The control client: arguments, one request, and exit codes (0 done, 1 refused or not reachable, 2 wrong usage).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alexandria_ingestd::control::arguments::{ReportTable, SearchArguments};
use alexandria_ingestd::control::client::{Client, ClientError};
use alexandria_ingestd::control::protocol::{
    AuditReport, DoneResponse, FailedResponse, JobState, JobsResponse, PausedResponse, ReindexRequest, Report,
    RescanRequest, RetryRequest, RetryResponse, SearchResponse, StatusSnapshot, TargetRequest, VerifyRequest,
};
use alexandria_ingestd::control::tables::{self, View};
use alexandria_ingestd::control::{self, default_socket};
use alexandria_ingestd::manual::{self, GenerateArguments};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use serde::de::DeserializeOwned;

/// Talks to a running alexandria-ingestd.
///
/// Exit codes: 0 done, 1 the service refused or does not answer, 2 wrong usage.
#[derive(Parser)]
#[command(name = "alexandriactl", version)]
struct Arguments {
    /// The service's control socket [default: /run/alexandria-ingestd/control.sock, or the one in this user's state
    /// directory]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print the service's answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// How the service, its library, its model and its store are, and what is being done
    #[command(after_help = "Example: alexandriactl status --json | jq .queue.parked")]
    Status {
        /// Wait for the queue's present numbers: while it is busy they may be a second old
        #[arg(long)]
        fresh: bool,
    },
    /// The same, again and again: bars of the books in work, and how long the rest takes; Ctrl-C ends it
    ///
    /// Without a terminal: a line for every change. With --json: the whole status, a line a second.
    #[command(after_help = "Example: alexandriactl watch")]
    Watch,
    /// What is running and what is next
    #[command(after_help = "Example: alexandriactl queue --state done --limit 20")]
    Queue {
        /// Most jobs shown
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Only jobs in this state
        #[arg(long)]
        state: Option<StateName>,
    },
    /// Books that failed for good, cannot be read, or are read in another format than the preferred one; and why
    #[command(after_help = "Example: alexandriactl failed")]
    Failed {
        /// Most books shown
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Try failed books again, and failed formats of books that are read in another one
    #[command(after_help = "Examples: alexandriactl retry 12 · alexandriactl retry --all")]
    Retry {
        /// A Calibre id, a book's uuid or the path of its file
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        book: Option<String>,
        /// All books that failed
        #[arg(long)]
        all: bool,
    },
    /// Look at the library now
    #[command(after_help = "Example: alexandriactl rescan --full")]
    Rescan {
        /// Compare every file, not only what the catalogue says has changed
        #[arg(long)]
        full: bool,
    },
    /// Put a book at the front of the queue
    #[command(after_help = "Examples: alexandriactl ingest 12 · alexandriactl ingest ~/Downloads/book.epub")]
    Ingest {
        /// A Calibre id, a book's uuid, or the path of a file, folder or library
        #[arg(value_name = "PATH|ID")]
        target: String,
        /// Embed it even if nothing changed
        #[arg(long)]
        force: bool,
    },
    /// Take a book out of the store; it stays out until it is ingested by hand
    #[command(after_help = "Example: alexandriactl remove 12")]
    Remove {
        /// A Calibre id, a book's uuid or the path of its file
        #[arg(value_name = "ID")]
        target: String,
    },
    /// Start no more books; those in work are finished
    #[command(after_help = "Example: alexandriactl pause")]
    Pause,
    /// Let books leave the index that are gone from the library, where they are too many for that to happen by itself
    #[command(after_help = "Example: alexandriactl status; alexandriactl approve")]
    Approve,
    /// Compare library, state and store, book by book; exit code 1 where they disagree
    #[command(after_help = "Example: alexandriactl verify --repair")]
    Verify {
        /// Queue the books that are not whole in the store, and delete the points of books that are in no library
        #[arg(long)]
        repair: bool,
    },
    /// Build the index anew with the present settings, in a collection beside the live one, and switch when it is whole
    ///
    /// Searches find the live collection until then. It may take hours or days, and goes on after a restart; books that
    /// come, change or go meanwhile do so in both. Ask again with a flag to say how it may end.
    #[command(after_help = REINDEX_EXAMPLES)]
    Reindex {
        /// Give it up and delete what it has filled; the live collection stays
        #[arg(long, conflicts_with_all = ["replace", "skip_failed"])]
        abort: bool,
        /// On a Qdrant server: delete the collection of before, with whatever other programs put into it; where its name
        /// is its own and no alias, that leaves readers without it for a moment
        #[arg(long)]
        replace: bool,
        /// Switch even where books are left behind that cannot be read any more; they leave the index
        #[arg(long)]
        skip_failed: bool,
    },
    /// Write a copy of the state to a new file, while the service works; `alexandria-ingestd restore` puts it back
    #[command(after_help = "Example: alexandriactl backup state-2026-11-25.db")]
    Backup { file: PathBuf },
    /// Go on after a pause
    #[command(after_help = "Example: alexandriactl resume")]
    Resume,
    /// Find passages by meaning
    #[command(after_help = "Example: alexandriactl search how to adopt a package --author krafft --language en --full")]
    Search {
        #[command(flatten)]
        search: Box<SearchArguments>,
    },
    /// What was done and how fast, before and after; the slowest books; what is in the store and what is not, and why
    #[command(after_help = REPORT_EXAMPLES)]
    Report {
        /// Only the last days, today included; the rows of MODELS are always of all days
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        days: Option<u32>,
        /// Most books in the list of the slowest
        #[arg(long, default_value_t = 10, value_name = "N")]
        limit: usize,
        /// Only this table
        #[arg(long, value_enum)]
        table: Option<ReportTable>,
        /// Print one table as CSV: days, unless --table says otherwise
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// For packagers: the manual page, or the shells' completions
    #[command(hide = true)]
    Generate(GenerateArguments),
}

const REINDEX_EXAMPLES: &str = "\
Examples:
  alexandriactl status                  # says how many books other settings made, and what a reindex costs
  alexandriactl reindex
  alexandriactl reindex --skip-failed   # while it goes on, or before
  alexandriactl reindex --abort";

const REPORT_EXAMPLES: &str = "\
Examples:
  alexandriactl report
  alexandriactl report --days 7 --table slowest --limit 20
  alexandriactl report --csv --table coverage > coverage.csv
  alexandriactl report --json | jq '.models[] | {model, device, tokens_per_second}'";

#[derive(Clone, Copy, ValueEnum)]
enum StateName {
    Queued,
    Running,
    Parked,
    Done,
}

impl From<StateName> for JobState {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Queued => JobState::Queued,
            StateName::Running => JobState::Running,
            StateName::Parked => JobState::Parked,
            StateName::Done => JobState::Done,
        }
    }
}

fn main() -> ExitCode {
    let Arguments { socket, json, verb } = Arguments::parse();
    if let Verb::Generate(what) = &verb {
        let pages = [manual::control_page(Arguments::command())];
        return match manual::generate(what, "alexandriactl", &Arguments::command(), &pages) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(&error.to_string()),
        };
    }
    let client = Client::new(&socket.unwrap_or_else(default_socket));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&format!("the system has no resources for a request: {error}")),
    };
    if matches!(verb, Verb::Watch) {
        return watch(&runtime, &client, json);
    }
    match runtime.block_on(ask(&client, verb, json)) {
        Ok((text, code)) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            code
        }
        Err(error) => failure(&error.to_string()),
    }
}

/// Until Ctrl-C, which is its proper end.
fn watch(runtime: &tokio::runtime::Runtime, client: &Client, json: bool) -> ExitCode {
    let ended = runtime.block_on(control::watch::watch(client, json, async {
        // Where signals cannot be heard Ctrl-C kills, as it does with any program.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error.to_string()),
    }
}

/// What is printed, and the exit code.
async fn ask(client: &Client, verb: Verb, json: bool) -> Result<(String, ExitCode), ClientError> {
    let view = View::of_stdout();
    let show = Show { client, json };
    let mut code = ExitCode::SUCCESS;
    let text = match verb {
        // Answered before there is a service.
        Verb::Generate(_) => Ok(String::new()),
        Verb::Verify { repair } => {
            let answer: serde_json::Value = client.post_and_wait("/verify", &VerifyRequest { repair }).await?;
            let report: AuditReport = client.understand(answer.clone())?;
            // What a repair found is being mended.
            if !report.library_answers || !(report.agrees() || report.repair.is_some()) {
                code = ExitCode::FAILURE;
            }
            show.answer(answer, |report: &AuditReport| tables::audit(report, view))
        }
        Verb::Backup { file } => {
            let size = client.download("/backup", &file).await?;
            let answer = serde_json::json!({ "file": file, "bytes": size });
            Ok(if json { format!("{answer:#}\n") } else { format!("{}: {size} bytes\n", file.display()) })
        }
        Verb::Status { fresh } => {
            let query = [("fresh", fresh.to_string())];
            show.answer(client.get("/status", &query).await?, |answer: &StatusSnapshot| tables::status(answer, view))
        }
        // It has no answer: see `main`.
        Verb::Watch => Ok(String::new()),
        Verb::Queue { limit, state } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(state.map(|state| ("state", JobState::from(state).as_str().to_owned())));
            show.answer(client.get("/queue", &query).await?, |answer: &JobsResponse| tables::queue(answer, view))
        }
        Verb::Failed { limit } => {
            let answer = client.get("/failed", &[("limit", limit.to_string())]).await?;
            show.answer(answer, |answer: &FailedResponse| tables::failed(answer, view))
        }
        Verb::Retry { book, all: _ } => {
            let answer = client.post("/retry", &RetryRequest { book }).await?;
            show.answer(answer, |answer: &RetryResponse| format!("{} queued again\n", answer.retried))
        }
        Verb::Reindex { abort, replace, skip_failed } => {
            let request = ReindexRequest { abort, replace, skip_failed };
            show.answer(client.post_and_wait("/reindex", &request).await?, done)
        }
        Verb::Rescan { full } => show.answer(client.post("/rescan", &RescanRequest { full }).await?, done),
        Verb::Ingest { target, force } => {
            let target = absolute(target);
            show.answer(client.post("/ingest", &TargetRequest { target, force }).await?, done)
        }
        Verb::Remove { target } => {
            let target = absolute(target);
            show.answer(client.post("/remove", &TargetRequest { target, force: false }).await?, done)
        }
        Verb::Approve => show.answer(client.post("/approve", &serde_json::json!({})).await?, done),
        Verb::Pause => show.answer(client.post("/pause", &serde_json::json!({})).await?, paused),
        Verb::Resume => show.answer(client.post("/resume", &serde_json::json!({})).await?, paused),
        Verb::Search { search } => show
            .answer(client.get("/search", &search.parameters()).await?, |answer: &SearchResponse| {
                tables::search(answer, search.full, view)
            }),
        Verb::Report { days, limit, table, csv } => {
            let mut parameters = vec![("limit", limit.to_string())];
            parameters.extend(days.map(|days| ("days", days.to_string())));
            let answer: serde_json::Value = client.get("/report", &parameters).await?;
            if csv {
                let report: Report = client.understand(answer)?;
                let table = table.unwrap_or(ReportTable::Days);
                Ok(tables::report_csv(&report, table).map_err(|reason| client.broken(reason))?)
            } else {
                show.answer(answer, |report: &Report| tables::report(report, table, view))
            }
        }
    };
    Ok((text?, code))
}

struct Show<'a> {
    client: &'a Client,
    json: bool,
}

impl Show<'_> {
    fn answer<T: DeserializeOwned>(
        &self,
        answer: serde_json::Value,
        table: impl FnOnce(&T) -> String,
    ) -> Result<String, ClientError> {
        if self.json {
            // As it came: fields that this version does not know are kept.
            return Ok(format!("{answer:#}\n"));
        }
        Ok(table(&self.client.understand(answer)?))
    }
}

fn done(answer: &DoneResponse) -> String {
    format!("{}\n", answer.message)
}

fn paused(answer: &PausedResponse) -> String {
    let text = if answer.paused { "paused: books in work are finished, no others are started\n" } else { "going on\n" };
    text.to_owned()
}

/// The service has another working directory: what names something here is sent with its whole path.
fn absolute(target: String) -> String {
    let looks_like_an_id = target.bytes().all(|byte| byte.is_ascii_digit());
    match Path::new(&target).canonicalize() {
        Ok(path) if !looks_like_an_id => path.display().to_string(),
        _ => target,
    }
}

fn failure(text: &str) -> ExitCode {
    eprintln!("alexandriactl: {text}");
    ExitCode::from(1)
}
