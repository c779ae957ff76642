//! `alexandriactl watch`: the status again and again, as bars on a terminal, as lines elsewhere. It only asks and shows;
//! must never end because the service does: that is what people watch for.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::client::{Client, ClientError};
use super::protocol::StatusSnapshot;
use super::tables::{self, Frame, View};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it is shown.
enum Screen {
    Bars(Bars),
    /// A line a change; the last one.
    Lines(String),
    /// The whole status, a line a second.
    Json,
}

/// Shows the status until `stop`, or until nobody reads any more.
///
/// # Errors
/// Where the service does not answer at the start, or speaks another protocol.
pub async fn watch(client: &Client, json: bool, stop: impl Future<Output = ()>) -> Result<(), ClientError> {
    let mut screen = match (json, std::io::stdout().is_terminal()) {
        (true, _) => Screen::Json,
        (false, true) => Screen::Bars(Bars::new()),
        (false, false) => Screen::Lines(String::new()),
    };
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    let (mut seen, mut away) = (false, false);
    loop {
        let answer = tokio::select! {
            () = &mut stop => break,
            answer = async { tick.tick().await; tokio::time::timeout(PATIENCE, client.get("/status", &[])).await } => answer,
        };
        let shown = match answer {
            Ok(Ok(answer)) => {
                let status: StatusSnapshot = client.understand(serde_json::Value::clone(&answer))?;
                let shown = if std::mem::take(&mut away) { screen.say("the service answers again") } else { Ok(()) };
                seen = true;
                shown.and_then(|()| screen.show(&status, &answer))
            }
            Ok(Err(error @ (ClientError::OtherProtocol { .. } | ClientError::Refused { .. }))) => return Err(error),
            Ok(Err(error)) if !seen => return Err(error),
            _ if std::mem::replace(&mut away, true) => Ok(()),
            _ => screen.say("the service does not answer (is it starting again?); still watching, Ctrl-C ends"),
        };
        if shown.is_err() {
            // A reader that has seen enough (`| head`) is no failure.
            break;
        }
    }
    screen.clear();
    Ok(())
}

impl Screen {
    fn show(&mut self, status: &StatusSnapshot, answer: &serde_json::Value) -> std::io::Result<()> {
        match self {
            Screen::Bars(bars) => {
                bars.show(&tables::frame(status, View::of_stdout()));
                Ok(())
            }
            Screen::Lines(last) => {
                let line = tables::summary(status);
                if line == *last {
                    return Ok(());
                }
                writeln!(std::io::stdout(), "{line}")?;
                *last = line;
                std::io::stdout().flush()
            }
            Screen::Json => {
                writeln!(std::io::stdout(), "{answer}")?;
                std::io::stdout().flush()
            }
        }
    }

    /// A line for the person; to where no program takes it for an answer.
    fn say(&mut self, line: &str) -> std::io::Result<()> {
        match self {
            Screen::Bars(bars) => {
                bars.show(&Frame { head: vec![line.to_owned()], bars: Vec::new(), foot: Vec::new() });
                Ok(())
            }
            Screen::Lines(last) => {
                last.clear();
                writeln!(std::io::stdout(), "{line}")?;
                std::io::stdout().flush()
            }
            Screen::Json => {
                // Standard error may be closed; the lines go on.
                let _ = writeln!(std::io::stderr(), "alexandriactl: {line}");
                Ok(())
            }
        }
    }

    fn clear(&self) {
        if let Screen::Bars(bars) = self {
            // The terminal may be gone.
            let _ = bars.all.clear();
        }
    }
}

/// Lines and bars that are redrawn in place.
struct Bars {
    all: MultiProgress,
    rows: Vec<ProgressBar>,
}

impl Bars {
    fn new() -> Self {
        Self { all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout()), rows: Vec::new() }
    }

    fn show(&mut self, frame: &Frame) {
        let rows = frame.head.len() + frame.bars.len() + frame.foot.len();
        while self.rows.len() > rows {
            if let Some(row) = self.rows.pop() {
                row.finish_and_clear();
                self.all.remove(&row);
            }
        }
        while self.rows.len() < rows {
            self.rows.push(self.all.add(ProgressBar::new(0)));
        }
        // The templates are constants; one that could not be read would be a plain bar.
        let style = |template: &str| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("█▉▊▋▌▍▎▏░")
        };
        let mut at = self.rows.iter();
        let mut text = |line: &str| {
            if let Some(row) = at.next() {
                row.set_style(style("{wide_msg}"));
                row.set_message(line.to_owned());
                row.tick();
            }
        };
        frame.head.iter().for_each(|line| text(line));
        for bar in &frame.bars {
            let Some(row) = at.next() else { break };
            if bar.total > 0 {
                row.set_style(style("{prefix} {bar:20} {percent:>3} % {msg}"));
            } else {
                row.set_style(style("{prefix} {msg}"));
            }
            row.set_prefix(bar.label.clone());
            row.set_length(bar.total.max(1));
            row.set_position(bar.done);
            row.set_message(bar.after.clone());
            row.tick();
        }
        let mut text = |line: &str| {
            if let Some(row) = at.next() {
                row.set_style(style("{wide_msg}"));
                row.set_message(line.to_owned());
                row.tick();
            }
        };
        frame.foot.iter().for_each(|line| text(line));
    }
}
