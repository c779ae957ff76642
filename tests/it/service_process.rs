//! The service as a process that may die at any moment: started, asked over its socket without a program between,
//! waited for until it rests, killed. `daemon.rs` is the patient one that goes through the real alexandriactl. Must
//! never take a death that nobody ordered for one that somebody did.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use alexandria_ingestd::clock::now_us;
use alexandria_ingestd::config::StoreConfig;
use alexandria_ingestd::control::client::{Client, ClientError};
use alexandria_ingestd::control::protocol::StatusSnapshot;
use serde_json::{Value, json};

use crate::daemon::text;

/// No wait for the service is longer.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// The service was killed while it was waited for.
#[derive(Debug)]
pub struct Died;

pub struct ServiceProcess {
    place: PathBuf,
    library: PathBuf,
    store: StoreConfig,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl ServiceProcess {
    /// With the fake embedder and short timers; nothing is started. The state is `place/state`.
    pub fn new(place: &Path, library: &Path) -> Self {
        let settings = [
            "embedding.model=fake",
            "library.poll_seconds=0.05",
            // Its quiet time would make every look wait a quarter of a second.
            "library.inotify=false",
            "library.removal_grace_seconds=0.1",
            // Small chunks, so that small books have several chapters and one has several writes.
            "chunking.max_words=24",
            "chunking.target_words=16",
            "chunking.min_words=4",
            "chunking.min_chapter_words=30",
            "ingest.max_attempts=1000000",
            "ingest.retry_seconds=0.05",
            "store.timeout_seconds=5",
        ];
        Self {
            place: place.to_owned(),
            library: library.to_owned(),
            store: StoreConfig::default(),
            settings: settings.map(str::to_owned).to_vec(),
            environment: Vec::new(),
            child: None,
            client: Client::new(&place.join("state/control.sock")),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    /// Sets one key for the following starts.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push(format!("{key}={value}"));
    }

    /// Sets an environment variable for the following starts; empty takes it away.
    #[cfg(feature = "cuda")]
    pub fn environment(&mut self, name: &str, value: &str) {
        self.environment.retain(|(other, _)| other != name);
        if !value.is_empty() {
            self.environment.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A server instead of the embedded store.
    pub fn use_server(&mut self, url: &str, collection: &str) {
        self.store =
            StoreConfig { kind: "server".into(), url: url.into(), collection: collection.into(), ..self.store.clone() };
        for (key, value) in [("store.kind", "server"), ("store.url", url), ("store.collection", collection)] {
            self.set(key, value);
        }
    }

    pub fn store(&self) -> &StoreConfig {
        &self.store
    }

    pub fn library(&self) -> &Path {
        &self.library
    }

    pub fn state_dir(&self) -> PathBuf {
        self.place.join("state")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    /// The last lines of the log: what a failure is explained with.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    pub fn forget_log(&self) {
        let _ = fs::remove_file(self.place.join("log"));
    }

    fn command(&self, state_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alexandria-ingestd"));
        command.env_clear().env("HOME", &self.place).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // The thread that feeds it is the one that an end waits longest for.
        command.env("WATCHDOG_USEC", "150000");
        command.arg("--set").arg(format!("state_dir={}", state_dir.display()));
        command.arg("--set").arg(format!("library.path={}", self.library.display()));
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// What the same library gives from nothing, without any disturbance: the one-shot mode's embedded store, in
    /// `directory`.
    pub fn ingest_anew(&self, directory: &Path) {
        let output = self
            .command(directory)
            .args(["--set", "store.kind=embedded", "--set", "store.collection=alexandria", "ingest"])
            .arg(&self.library)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        // 1: some book could not be read, as the shelf says.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {}", output.status, text(&output.stderr));
    }

    /// Starts the service and waits for nothing. `failpoints`: see `src/failpoint.rs`.
    pub fn spawn(&mut self, failpoints: Option<&str>) {
        assert!(self.child.is_none());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.place.join("log")).unwrap();
        let mut command = self.command(&self.state_dir());
        if let Some(failpoints) = failpoints {
            command.env("ALEXANDRIA_FAILPOINTS", failpoints);
        }
        self.child = Some(command.stderr(log).spawn().unwrap());
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL, where it has not died before.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            self.expect_killed(child.wait().unwrap());
        }
    }

    /// The exit code of a service that ends by itself; None where a signal ended it.
    #[cfg(feature = "cuda")]
    pub fn exit_code_within(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.child.take().expect("the service runs");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if started.elapsed() > limit {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the service did not end:\n{}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
    }

    /// SIGTERM. `Err` where a failpoint killed it on its way out.
    pub fn stop(&mut self) -> Result<(), Died> {
        let child = self.child.as_mut().expect("the service runs");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let started = Instant::now();
        loop {
            self.look_for_death_or(|status| status.code() == Some(0))?;
            if self.child.is_none() {
                return Ok(());
            }
            assert!(started.elapsed() < PATIENCE, "the service does not stop:\n{}", self.log_tail());
            std::thread::sleep(POLL);
        }
    }

    /// `Err` where it was killed. Any other end is a failure of the test.
    fn look_for_death(&mut self) -> Result<(), Died> {
        self.look_for_death_or(|_| false)
    }

    fn look_for_death_or(&mut self, is_fine: impl Fn(ExitStatus) -> bool) -> Result<(), Died> {
        let Some(status) = self.child.as_mut().ok_or(Died)?.try_wait().unwrap() else { return Ok(()) };
        self.child = None;
        if is_fine(status) {
            return Ok(());
        }
        self.expect_killed(status);
        Err(Died)
    }

    fn expect_killed(&self, status: ExitStatus) {
        assert_eq!(status.signal(), Some(9), "the service ended with {status}:\n{}", self.log_tail());
    }

    /// None where nobody answers (yet).
    pub fn status(&self) -> Option<StatusSnapshot> {
        match self.runtime.block_on(self.client.get("/status", &[("fresh", "true".to_owned())])) {
            Ok(status) => Some(status),
            Err(ClientError::NotReachable { .. } | ClientError::Broken { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// One request; `Ok(None)` where it was refused, with a reason in the log of the test.
    pub fn try_post(&mut self, path: &str, body: &Value) -> Result<Option<Value>, Died> {
        let started = Instant::now();
        loop {
            match self.runtime.block_on(self.client.post(path, body)) {
                Ok(answer) => return Ok(Some(answer)),
                Err(ClientError::Refused { error, .. }) => {
                    println!("{path} {body}: refused: {error}");
                    return Ok(None);
                }
                Err(error) => {
                    self.look_for_death()?;
                    assert!(started.elapsed() < PATIENCE, "{path}: {error}\n{}", self.log_tail());
                    std::thread::sleep(POLL);
                }
            }
        }
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, Died> {
        let answer = self.try_post(path, body)?;
        Ok(answer.unwrap_or_else(|| panic!("{path} {body} was refused")))
    }

    /// Waits until it answers.
    pub fn until_ready(&mut self) -> Result<StatusSnapshot, Died> {
        self.until("the socket answers", |_| true)
    }

    /// Whether it gets something to do in this time; says so as soon as it has.
    pub fn is_busy_within(&self, limit: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < limit {
            if self.status().is_some_and(|status| status.queue.queued + status.queue.running > 0) {
                return true;
            }
        }
        false
    }

    /// Waits until the status is as wanted.
    pub fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&StatusSnapshot) -> bool,
    ) -> Result<StatusSnapshot, Died> {
        let started = Instant::now();
        let mut poked = started;
        loop {
            let status = self.status();
            match status {
                Some(status) if holds(&status) => return Ok(status),
                status => {
                    self.look_for_death()?;
                    assert!(
                        started.elapsed() < PATIENCE,
                        "not within {PATIENCE:?}: {what}\n{}\n{status:#?}",
                        self.log_tail()
                    );
                    // An idle worker finds a job whose next try has come up to ten seconds late; who resumes wakes it.
                    let waits = status.is_some_and(|status| status.queue.waiting > 0 && !status.paused);
                    if waits && poked.elapsed() > Duration::from_millis(200) {
                        poked = Instant::now();
                        self.post("/resume", &Value::Null)?;
                    }
                }
            }
            std::thread::sleep(POLL);
        }
    }

    /// Waits until what is on the shelf now is seen.
    pub fn look(&mut self, full: bool) -> Result<(), Died> {
        // A look that is going on may have read the catalogue of before: the second one has not.
        for _ in 0..2 {
            let asked_us = now_us();
            self.post("/rescan", &json!({ "full": full }))?;
            self.until("a look at the library", |status| status.library.last_look_us > Some(asked_us))?;
        }
        Ok(())
    }

    /// Waits until what is on the shelf now is seen, and nothing is left to do but what waits for a person.
    pub fn settle(&mut self, full: bool) -> Result<StatusSnapshot, Died> {
        self.look(full)?;
        self.until("nothing is left to do", |status| {
            let queue = &status.queue;
            status.library.available
                && queue.queued + queue.running + queue.waiting == 0
                && queue.missing == status.removals_waiting as u64
        })
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
