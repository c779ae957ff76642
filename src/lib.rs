//! # alexandria-ingestd: the architecture on one page
//!
//! The service watches a Calibre library (or a plain folder of books), and keeps a Qdrant collection of the books'
//! embeddings up to date. Data flows one way:
//!
//! ```text
//! library ──> queue ──> extract ──> chunk ──> embed ──> store
//!   (what is     (what is    (a file's   (chapters   (vectors)  (points in
//!  on the shelf)  to do)      sections)   and spans)             Qdrant)
//!                         └────────────── ingest ──────────────┘
//! control and telemetry stand at the side; daemon builds the parts and starts them
//! ```
//!
//! | module | is | must never |
//! | --- | --- | --- |
//! | [`domain`] | plain values every stage speaks in | do IO |
//! | [`library`] | what is on the shelf: snapshots of `metadata.db`, folders, the diff, the watcher | write into the library, or take an error for an absence |
//! | [`queue`] | the SQLite state: libraries, books, jobs; the only SQL beside Calibre's catalogue and the shared log | forget a job, or run one twice at a time |
//! | [`extract`] | a book's file as a [`domain::Document`], read in a confined child process ([`extract::sandbox`]) | lose or double a word, or parse in the daemon |
//! | [`chunk`] | sentences, chapters, spans; pure but for the vectors it is handed | cut inside a word, or exceed the model's limit |
//! | [`embed`] | the resident model on CPU or GPU, its tokenizer, the thread that owns it | cut a text silently, or load the model twice |
//! | [`store`] | the [`store::VectorStore`] trait: embedded Qdrant, a Qdrant server, a map for unit tests | change points by filter, or touch another model's collection |
//! | [`ingest`] | one job as a straight line through the stages | delete before the new points are safe |
//! | [`ingest_log`] | the log and manifest that other tools read, written from the state | write anything else into a library, or hold up a job |
//! | [`control`] | the protocol, the server on the Unix socket, the client | read the library or run a job itself |
//! | [`config`] | every setting, its default and its check | accept an unknown key |
//! | [`telemetry`] | the log (journald or stderr), the one table of its fields and events, rates and the remaining time | block a stage |
//! | [`failpoint`] | where tests kill the process (around every write) or have a thread hang | exist in a release, or do anything else |
//! | [`manual`] | the manual pages and completions, from the parsers and tables themselves | document a thing a second time |
//! | [`clock`] | the wall clock, as the state keeps it | measure a duration |
//! | [`daemon`] | the composition root: builds, starts, notifies systemd, stops in order | hold logic of a stage |
//!
//! ## Invariants
//! 1. The library is read-only and may lie: no error, emptiness or absence is a deletion.
//! 2. A book is its library uuid + book uuid; its content is the hash of the file it was read from: the first, in the
//!    configured order of formats, that gives text. What failed is remembered until that file changes.
//! 3. Point ids are deterministic, so every write can be repeated.
//! 4. New points are written and counted before the state says so; older generations go last. Whatever is killed in
//!    between heals: the job runs again, and takes over what the store has whole instead of embedding it.
//! 5. An attempt is counted, in its own transaction, before the work.
//! 6. A book's bytes are parsed in child processes alone, which hold no file, socket or secret but that one book.
//! 7. While a reindex goes on there are two collections: the live one, and its shadow, which has rows and jobs of its
//!    own. Rule 4 holds for each; what is wanted of a book is wanted of both; they change places in one step, when the
//!    shadow was counted and nothing is in work.
//! 8. Stages never import one another: only [`ingest`] knows their order (`tests/it/architecture.rs` checks it).
//!
//! ## Threads
//! library thread and fetch threads (may hang with the mount, and are then left behind) · queue thread (the one writing
//! SQLite connection) · ingest workers (one holds its embedded book in memory while the store is away) · readers' child
//! processes (one a worker) · embedder thread (owns the model) · store-probe thread (health, the scheduled comparison) ·
//! housekeeper (meters, watchdog, STATUS; waits for nobody) · forecast thread (the remaining time) · gpu-status thread (may
//! hang with the driver) · ingest-log thread (may hang with its share) · tokio's threads (the control server). All
//! channels are bounded; only SQLite grows.

pub mod chunk;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod domain;
pub mod embed;
pub mod extract;
pub mod failpoint;
pub mod ingest;
pub mod ingest_log;
pub mod library;
pub mod manual;
pub mod queue;
pub mod store;
pub mod telemetry;
