//! Points at which a test has the process killed: one before and one after everything that is written, to the state or
//! to the store; and threads that a test has hang. They exist in builds with debug assertions alone; in a release they
//! compile to nothing.
//!
//! `ALEXANDRIA_FAILPOINTS=kill=N,log=FILE,hang=THREAD`: the process kills itself (SIGKILL) at the N-th point it comes to,
//! counted from 1 over all threads; the name of every point that is passed becomes a line of FILE; `hang=embedder` has
//! that thread sleep for ever at its next batch, `hang=queue` at its next request. `hang=THREAD@FILE` waits with that
//! until FILE exists, so that a service can start first. All parts may be left out.
//! Must never change what a program does in any other way.

/// Passes the point, or does not.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_name: &str) {}

/// Goes on, or sleeps for ever.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn hang(_thread: &str) {}

#[cfg(debug_assertions)]
pub use armed::{hang, pass};

#[cfg(debug_assertions)]
mod armed {
    use std::fs::{File, OpenOptions};
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    const VARIABLE: &str = "ALEXANDRIA_FAILPOINTS";

    #[derive(Default)]
    struct Plan {
        kill: Option<u64>,
        log: Option<File>,
        /// The thread, and the file that it waits for.
        hang: Option<(String, Option<PathBuf>)>,
    }

    impl Plan {
        /// What makes no sense ends the process: a test that kills nothing would look green.
        fn read(text: &str) -> Plan {
            let mut plan = Plan::default();
            for part in text.split(',').filter(|part| !part.is_empty()) {
                match part.split_once('=') {
                    Some(("kill", number)) => {
                        plan.kill = Some(number.parse().unwrap_or_else(|_| panic!("{VARIABLE}: {part}")));
                    }
                    Some(("log", path)) => {
                        let file = OpenOptions::new().create(true).append(true).open(path);
                        plan.log = Some(file.unwrap_or_else(|error| panic!("{VARIABLE}: {path}: {error}")));
                    }
                    Some(("hang", thread)) => {
                        let (thread, file) =
                            thread.split_once('@').map_or((thread, None), |(a, b)| (a, Some(b.into())));
                        assert!(matches!(thread, "embedder" | "queue"), "{VARIABLE}: {part}");
                        plan.hang = Some((thread.to_owned(), file));
                    }
                    _ => panic!("{VARIABLE}: {part}"),
                }
            }
            plan
        }
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| std::env::var(VARIABLE).ok().map(|text| Plan::read(&text))).as_ref()
    }

    /// Goes on, or sleeps for ever.
    pub fn hang(thread: &str) {
        let Some((planned, file)) = plan().and_then(|plan| plan.hang.as_ref()) else { return };
        while planned == thread && file.as_ref().is_none_or(|file| file.exists()) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Passes the point, or does not.
    pub fn pass(name: &str) {
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let Some(plan) = plan() else { return };
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(mut log) = plan.log.as_ref() {
            // One write, so that the lines of two threads stay whole.
            let _ = log.write_all(format!("{name}\n").as_bytes());
        }
        if plan.kill == Some(number) {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
            unreachable!("SIGKILL cannot be outlived");
        }
    }
}
