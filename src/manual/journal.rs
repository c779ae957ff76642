//! alexandria-ingestd-journal(7): the fields and the message ids of the service's journal entries, from the tables of the
//! code that writes them. It must never have a table of its own.

use clap_mangen::roff::{Roff, bold, italic, roman};

use super::Page;
use super::markup::{entry, inlines, render};
use crate::telemetry::event::{EVENTS, Event, FIELDS, Field};

const INTRODUCTION: &str = "\
The service writes one journal entry an event, with the usual fields of systemd.journal-fields(7) and those listed here.
An error means that a person must act, a warning that something was lost or made worse while the service goes on.

One book's story, from its arrival on:

  journalctl -u alexandria-ingestd BOOK_ID=42

What went wrong since yesterday, with what each of it means and what to do:

  journalctl -u alexandria-ingestd --since yesterday -p warning -x

All values of a field:

  journalctl -u alexandria-ingestd -F BOOK_ID";

/// The page.
pub fn journal_page(version: &str) -> Page {
    page(version, FIELDS, EVENTS)
}

fn page(version: &str, fields: &[Field], events: &[Event]) -> Page {
    let mut roff = Roff::new();
    let source = format!("alexandria-ingestd {version}");
    roff.control("TH", ["alexandria-ingestd-journal", "7", "", source.as_str(), "Alexandria"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("alexandria-ingestd-journal - fields and message ids of the Alexandria ingestion daemon")]);
    roff.control("SH", ["DESCRIPTION"]);
    render(&mut roff, INTRODUCTION);
    roff.control("SH", ["FIELDS"]);
    for field in fields {
        let term = vec![bold(format!("{}=", field.name)), roman(" ("), italic(field.unit), roman(")")];
        entry(&mut roff, &[term], &sentence(field.meaning));
    }
    roff.control("SH", ["EVENTS"]);
    roff.control("PP", []);
    roff.text(inlines("To be filtered by `journalctl MESSAGE_ID=...`, and explained by `journalctl -x`."));
    for event in events {
        let title = vec![bold(event.name), roman(format!(" ({})", event.level))];
        let id = vec![roman(format!("MESSAGE_ID={}", event.id))];
        entry(&mut roff, &[title, id], &format!("{} {}", sentence(event.meaning), sentence(event.action)));
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.control("PP", []);
    roff.text([roman("alexandria-ingestd(8), journalctl(1), systemd.journal-fields(7)")]);
    Page { name: "alexandria-ingestd-journal", section: 7, text: roff.render() }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim().trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str() + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_events_are_on_the_page() {
        let fields = [Field { name: "BYTES", unit: "bytes", meaning: "the size of the file that is read" }];
        let events = [Event {
            name: "BOOK_PARKED",
            id: "0123456789abcdef0123456789abcdef",
            level: "warning",
            subject: "A book is parked",
            meaning: "A book failed for good.",
            action: "`alexandriactl failed` says why",
        }];
        let text = page("1", &fields, &events).text;
        for part in [
            "\\fBBYTES=\\fR (\\fIbytes\\fR)\nThe size of the file that is read.\n",
            ".TP\n\\fBBOOK_PARKED\\fR (warning)\n.TQ\nMESSAGE_ID=0123456789abcdef0123456789abcdef\n",
            "A book failed for good. \\fBalexandriactl failed\\fR says why.\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
