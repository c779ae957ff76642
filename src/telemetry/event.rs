//! What the journal is told: the one table of the fields that events carry, and of the events that have an id of their
//! own (`journalctl MESSAGE_ID=…`), with what each means and what to do about it. The catalogue for `journalctl -x` and
//! the manual's page are made from these tables. Must never name what no event carries: `tests/it/journal.rs` compares
//! both with the code.

/// A field that events carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    /// The unit, or what kind of text it is.
    pub unit: &'static str,
    pub meaning: &'static str,
}

/// An event with an id of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// As this program calls it.
    pub name: &'static str,
    /// MESSAGE_ID: 128 bits in hex.
    pub id: &'static str,
    /// `info`, `warning` or `error`. An error needs a person; a warning tells of something that was lost or made worse,
    /// while the service goes on.
    pub level: &'static str,
    /// The catalogue's headline; `@FIELD@` stands for a field's value.
    pub subject: &'static str,
    pub meaning: &'static str,
    /// What to do next.
    pub action: &'static str,
}

const fn field(name: &'static str, unit: &'static str, meaning: &'static str) -> Field {
    Field { name, unit, meaning }
}

/// All fields, beside those that the journal itself adds.
pub const FIELDS: &[Field] = &[
    field("MESSAGE_ID", "128 bits in hex", "which event it is; see the list of events"),
    field("BOOK_ID", "text", "Calibre's number of the book, or the 16 hex digits of a file that Calibre does not keep"),
    field("BOOK_SOURCE", "calibre or file", "whose number BOOK_ID is"),
    field("BOOK_UUID", "uuid", "the book's uuid, as its points in the store have it"),
    field("BOOK_TITLE", "text", "the book's title"),
    field("LIBRARY", "path", "the library's folder"),
    field("LIBRARY_UUID", "uuid", "the library that the book is of"),
    field("JOB", "number", "the job in the queue, as `alexandriactl queue` shows it"),
    field("ATTEMPT", "number", "which try of the job this is"),
    field("STAGE", "copy, extract, chunk, embed or store", "where in its work the job was"),
    field("OUTCOME", "text", "what came of the job: embedded, payload_only, adopted, unchanged, removed"),
    field("FORMAT", "text", "the format of the file that was read, such as EPUB"),
    field("BYTES", "bytes", "the size of the file that is read"),
    field("SECTIONS", "number", "chapters of the book"),
    field("WORDS", "number", "words of the book's text"),
    field("CHUNKS", "number", "passages the book was cut into"),
    field("CHUNKS_DONE", "number", "passages embedded so far"),
    field("POINTS", "number", "points of the book in the store"),
    field("TOKENS", "number", "tokens of the book's passages"),
    field("TOKENS_DONE", "number", "tokens embedded so far"),
    field("CHUNKS_PER_MIN", "chunks a minute", "the book's passages by the time that all stages took"),
    field("SECONDS", "seconds", "how long all stages took together, or how long something has lasted"),
    field("COPY_SECONDS", "seconds", "copying the file out of the library"),
    field("EXTRACT_SECONDS", "seconds", "reading the text out of the file"),
    field("BORDERS_SECONDS", "seconds", "finding where passages begin and end"),
    field("EMBED_SECONDS", "seconds", "embedding the passages"),
    field("STORE_SECONDS", "seconds", "writing the points"),
    field("FAILURE", "book, transient, dependency or fatal", "the kind of failure, which decides what happens next"),
    field("REASON", "text", "why, in words"),
    field("RETRY_SECONDS", "seconds", "until the next try"),
    field("MODEL", "text", "the model's id"),
    field("DEVICE", "text", "what embeds: the GPU's or the CPU's name"),
    field("BATCH_TOKENS", "tokens", "how many tokens a batch may have from now on"),
    field("BOOKS", "number", "how many books an event is about"),
    field("STUCK", "queue, embedder or worker", "which part does not go on"),
    field("VERB", "text", "what was asked for on the control socket"),
    field("PEER_UID", "number", "the user who asked for it"),
    field("SHARD", "path", "the folder of the embedded store"),
    field("COLLECTION", "text", "the collection that a reindex fills, or that is deleted"),
    field("JOURNAL_MODE", "text", "SQLite's journal mode that the state's file system allows"),
];

macro_rules! events {
    ($($name:ident, $id:literal, $level:literal, $subject:literal, $meaning:literal, $action:literal;)*) => {
        $(#[doc = $meaning] pub const $name: &str = $id;)*
        /// All events that have an id.
        pub const EVENTS: &[Event] = &[$(Event {
            name: stringify!($name), id: $id, level: $level, subject: $subject, meaning: $meaning, action: $action,
        }),*];
    };
}

events! {
    SERVICE_READY, "ee55e9a0dfcd412eaf3e86e54ad2666c", "info", "The service is ready",
        "The model is loaded and warm, the state is open and the control socket answers.",
        "Nothing. `alexandriactl status` shows what is being done.";
    SERVICE_STOPPING, "4d9d7b6aa31c45df937cace05260d6de", "info", "The service is stopping",
        "The service was told to end. Books in work go back to the queue, and what is written is made durable.",
        "Nothing. The next start goes on with what is left.";
    SERVICE_FAILED, "4173f1e8cb9844da8dda4c34d4e268be", "error", "The service cannot go on",
        "Something failed that the process cannot get over; the message says what.",
        "systemd starts it again, but for exit code 2 (the configuration is refused) and 3 (the state needs a person): then mend what the message names and run `systemctl start alexandria-ingestd`.";
    UNCLEAN_START, "a0cc3a26b192415699b3db2f68be9805", "warning", "The process before did not end in order",
        "The service was killed, it crashed, or the machine went down. Nothing is lost: the books that were written last are compared with the store.",
        "Where it comes again and again, look for the reason in the lines before: `journalctl -u alexandria-ingestd -b -p warning`.";
    CONFIGURATION_RELOADED, "8e364848437b40499ee83a4551d49340", "info", "SIGHUP was received",
        "The service was asked to read its configuration again (`systemctl reload`); the message says what is in force now and what waits for a restart.",
        "Where a changed setting waits for a restart: `systemctl restart alexandria-ingestd`.";
    CONFIGURATION_REFUSED, "04ad2cb193a54518beb000c0ad81d6f0", "error", "The configuration was not taken",
        "The configuration that was read again has a mistake, which the message names; everything stays as it was.",
        "Mend the file, ask `alexandria-ingestd check-config`, and reload again: `systemctl reload alexandria-ingestd`.";
    MODEL_LOADED, "9340516eba244611b65b0b01d3920199", "info", "The model @MODEL@ is loaded",
        "The embedding model is in memory and warm. It happens once in the life of a process.",
        "Nothing. Where DEVICE names the CPU though there is a GPU, `alexandria-ingestd device` says why.";
    BOOK_FOUND, "75880f7a3d954911a63c3f6b29272c57", "info", "Book @BOOK_ID@ is new or changed in the library",
        "A look at the library found a new book, a new file or new metadata, and its job is in the queue. Of a look that finds very many, the first hundred are told.",
        "Nothing. `alexandriactl queue` shows what comes next.";
    BOOK_MISSING, "5d63cb343d214674abf9b041a0c69c6f", "info", "Book @BOOK_ID@ is missing in the library",
        "A complete look did not find the book any more. It stays in the index until library.removal_grace_seconds are over.",
        "Nothing, where it was removed on purpose. A book that comes back in time loses nothing.";
    BOOK_GONE, "ffec2b1b37eb4ababee123560bf0b1f9", "info", "Book @BOOK_ID@ is gone from the library",
        "The book was missing for the whole grace time; its removal from the index is queued.",
        "Nothing.";
    BOOK_READ, "dbf0a9a66ce6415995aacc158a4d7255", "info", "Book @BOOK_ID@ was read",
        "The text was taken out of the book's file; it is cut into passages and embedded next.",
        "Nothing.";
    BOOK_FALLBACK, "fa0975fb673d405b86fb2481658b042b", "warning", "Book @BOOK_ID@ is read in another format",
        "The preferred format of the book gave no text, so another one stands in for it.",
        "Mend or replace the damaged file in Calibre; the book is then read anew by itself. `alexandriactl failed` lists the reasons.";
    BOOK_INDEXED, "68b4eb2010d542bf8fa08cad4d534909", "info", "Book @BOOK_ID@ is in the index",
        "The book's passages are embedded, written to the store and counted there.",
        "Nothing. `alexandriactl search` finds it.";
    BOOK_UPDATED, "b43291108ffb4285be74adf4000b39c9", "info", "Book @BOOK_ID@ needed no embedding",
        "The store has the book's text already: its metadata were brought up to date, or its points were taken over.",
        "Nothing.";
    BOOK_PARKED, "2f16a4e9a5934e47a708ad8edca9ab57", "warning", "Book @BOOK_ID@ is parked",
        "The book cannot be indexed, and trying again would not help: its file is damaged, encrypted or empty, or it failed too often. The other books go on.",
        "Replace the file in Calibre, and it is tried again by itself; or mend what REASON names and run `alexandriactl retry @BOOK_ID@`.";
    BOOK_RETRY, "8e5a225d69a0442fb062da5ad19e7b92", "warning", "Book @BOOK_ID@ failed and will be tried again",
        "Something failed that may pass by itself. The book waits, and other books go first.",
        "Nothing yet. `alexandriactl retry @BOOK_ID@` tries it at once.";
    BOOK_WAITS, "30063c52f04942b1a3f5a1d64e5df11a", "warning", "Book @BOOK_ID@ waits",
        "What the book needs (the store, the library, memory on the GPU, room on the disk) is away for now. It is back in the queue and no try is spent.",
        "See what REASON names; `alexandriactl status` shows when it is back.";
    BOOK_REMOVED, "d17cf9c1283140bfbc8d5f99ee854601", "info", "Book @BOOK_ID@ has left the index",
        "The book's points are out of the store, because it is gone from the library or a person asked for it.",
        "Nothing. `alexandriactl ingest @BOOK_ID@` takes one in again that was taken out by hand.";
    LIBRARY_AWAY, "d6ae6fd63e64480e8cc8dd8f729d89a9", "warning", "The library is not available",
        "The library cannot be looked at: it is not mounted, its server does not answer, or what is there is another one. Nothing is removed because of that.",
        "Look at the mount (`findmnt`, `systemctl status mnt-calibre.mount`). The service goes on by itself when the library is back.";
    LIBRARY_BACK, "5b7aa9c7bfac4c85b0a41ad6d55d967a", "info", "The library is available again",
        "The library answers; the books that waited for it go on.",
        "Nothing.";
    LIBRARY_CHANGED, "0dd3d754b67a4236bbe490ed19c8ffcc", "info", "The library has changed",
        "A look at the library found something new; the message counts what.",
        "Nothing.";
    REMOVALS_HELD, "e7b3b0b1ff984fa0924216853e5c334d", "error", "Removals are held back",
        "More books are gone from the library than library.removal_limit lets go at once. It may be another library, or half of one, so nothing is removed.",
        "Bring the books back; or, where they are gone for good, run `alexandriactl approve`.";
    REMOVALS_APPROVED, "d06dfff882244e7f8a6f71761777be0e", "info", "Removals were approved",
        "A person let the removals go that were held back.",
        "Nothing.";
    STORE_AWAY, "7033a2dd25e64a82abdfd039730226c4", "warning", "The store does not answer",
        "The vector store cannot be reached or refuses. Books that are embedded wait in memory, the others in the queue.",
        "Look at the Qdrant server, its key and its disk. The service goes on by itself when it answers.";
    STORE_BACK, "8b98763923874fae888245ac5b81d6b6", "info", "The store answers again",
        "The vector store is back; the books of the last minutes are compared with it.",
        "Nothing.";
    STORE_EMPTY, "62202a1313b14de6b798e9216805080c", "warning", "The store has lost its books",
        "The collection is empty, but the state knew books in it. All of them are ingested again.",
        "Find out who emptied the collection, or whether store.collection names another one than before.";
    STORE_DISAGREES, "412e65a2270041f1840b02bdae1cd2de", "error", "State and store disagree",
        "A comparison found books that are not whole in the store, or points that belong to no book.",
        "`alexandriactl verify` lists them, `alexandriactl verify --repair` mends them.";
    SETTINGS_CHANGED, "effd72b14c2f4019ac74fa5979449c8d", "warning", "@BOOKS@ books are made with other settings",
        "The chunker, its settings or the model are not those that the index was made with. The books stay as they are and are found; new ones are made with the present settings. The message says what it would cost to make all of them anew.",
        "`alexandriactl reindex` builds a new index beside the live one and switches when it is whole.";
    REINDEX_BEGUN, "a7cdae04086a45579eb8b411fe3e290a", "info", "A reindex into @COLLECTION@ has begun",
        "A second collection is filled beside the live one, with the present settings. Searches find the live one until it is whole.",
        "Nothing. `alexandriactl status` shows how far it is, `alexandriactl reindex --abort` gives it up.";
    REINDEX_WAITS, "c813c327a846425abcb5f82ac8b48896", "warning", "The reindex into @COLLECTION@ waits for a person",
        "The new collection holds all that can be made anew, but it cannot take the live one's place without a person's word: books cannot be read any more that the live one has, or the switch would leave readers without a collection for a moment.",
        "Do what REASON says. The live collection stays in use and both are kept up to date.";
    REINDEX_DONE, "f35a0e6b0b844a63b7bfa1d0d2953c60", "info", "The reindex is done, @COLLECTION@ is live",
        "The new collection was counted, and has taken the place of the one before.",
        "Nothing.";
    STALLED, "6653433ee9ef459bb586567cff552218", "error", "The @STUCK@ is stuck",
        "A part of the service has not gone on for longer than it may. The watchdog is not fed any more, so systemd ends the process and starts it again.",
        "Where it comes again: for the embedder, look at the GPU (`nvidia-smi`, `dmesg`) and at embedding.stall_seconds; for the queue, at the disk of the state; for a worker, at the book in the message.";
    STALL_OVER, "f4ac4ee53e9648eeb8f9a844fd31e367", "warning", "The @STUCK@ goes on",
        "What was stuck has gone on before the watchdog had the service restarted.",
        "Where it comes often, see what the earlier message asks for.";
    OPERATOR_ACT, "a038e4abfdda457ba7f42fa2bd9c67f5", "info", "@VERB@ was asked for",
        "A person or a program asked for something over the control socket that changes what the service does; PEER_UID says who.",
        "Nothing.";
    QUEUE_TROUBLE, "e3403b6af33341c0b635a56f1aeb972e", "error", "The state cannot be read or written",
        "The state's file or its disk gave an error: it may be full, read-only or failing.",
        "Make room on the disk that holds the state directory, or mend it. The service tries again by itself.";
    INGEST_LOG_TROUBLE, "c1a132257e564ee3a45379760dbe2593", "warning", "The shared ingest log cannot be written",
        "The log that other tools read (ingest_log.path) cannot be written. Books are ingested all the same.",
        "Look at the file's folder, its permissions and its disk.";
    GPU_MEMORY_SHORT, "88913e5b79ca43e1bb5521c58442cf26", "warning", "The GPU's memory is short",
        "There was no memory on the GPU for a batch, so batches are smaller from now on. They grow again when there is memory.",
        "Look which other programs use the card (`nvidia-smi`), or set embedding.memory_mb.";
}

/// The catalogue for `journalctl -x`, as /usr/lib/systemd/catalog wants it.
pub fn catalogue() -> String {
    let mut text = String::from(
        "# Explanations of alexandria-ingestd's events, for `journalctl -x`. Made from src/telemetry/event.rs;\n\
         # `UPDATE_CATALOGUE=1 cargo test the_catalogue` writes it anew.\n",
    );
    for event in EVENTS {
        text += &format!(
            "\n-- {}\nSubject: {}\nDefined-By: alexandria-ingestd\nSupport: man:alexandria-ingestd-journal(7)\n\n{}\n\n{}\n",
            event.id,
            event.subject,
            wrapped(event.meaning),
            wrapped(event.action)
        );
    }
    text
}

/// In lines of at most 78 characters.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > 78 {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_ids_and_names_are_names() {
        let ids: BTreeSet<&str> = EVENTS.iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), EVENTS.len(), "no two events share an id");
        for event in EVENTS {
            assert!(
                event.id.len() == 32 && event.id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')),
                "{event:?}"
            );
            assert!(["info", "warning", "error"].contains(&event.level), "{event:?}");
            for placeholder in [event.subject, event.meaning, event.action].join(" ").split('@').skip(1).step_by(2) {
                assert!(FIELDS.iter().any(|field| field.name == placeholder), "{placeholder} in {event:?}");
            }
        }
        let names: BTreeSet<&str> = FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), FIELDS.len());
        // What journald takes: capitals, digits and underscores, no underscore in front.
        let fits = |name: &str| name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_') && !name.starts_with('_');
        assert!(names.iter().all(|name| fits(name)), "{names:?}");
    }
}
