//! The daemon as a process: started, asked over its real socket by the real alexandriactl, stopped, killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A state directory, a configuration, and the service while it runs.
pub struct Daemon {
    pub place: TempDir,
    child: Option<Child>,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    /// The configuration file, where there is one.
    config: Option<PathBuf>,
    /// Runs the program as this user, where that is another one.
    user: Option<u32>,
    /// The words of another program that runs this one.
    wrapper: Vec<String>,
}

impl Daemon {
    /// With the fake embedder and the embedded store; nothing is started. Timers are short.
    pub fn new(library: &Path) -> Self {
        let mut daemon = Self {
            place: tempfile::tempdir().unwrap(),
            child: None,
            settings: Vec::new(),
            environment: Vec::new(),
            config: None,
            user: None,
            wrapper: Vec::new(),
        };
        daemon.set("library.path", library.to_str().unwrap());
        daemon.set("embedding.model", "fake");
        daemon.set("library.removal_grace_seconds", "1");
        daemon
    }

    /// Sets one key for the following starts and one-shot verbs.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push(format!("{key}={value}"));
    }

    /// Takes its settings from this file, too; those that are set one by one win.
    pub fn set_config(&mut self, file: &Path) {
        self.config = Some(file.to_owned());
    }

    /// Sets a variable of the environment for the following starts.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From the next start on, an unprivileged user runs the service. Only root can ask for that.
    pub fn run_as(&mut self, user: u32) {
        // The build's own directory may be closed to others.
        fs::copy(env!("CARGO_BIN_EXE_alexandria-ingestd"), self.place.path().join("program")).unwrap();
        std::os::unix::fs::chown(self.place.path(), Some(user), Some(user)).unwrap();
        self.user = Some(user);
    }

    /// From the next start on, a program (and its arguments) runs the service, as its last arguments.
    pub fn wrap(&mut self, words: &[&str]) {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    }

    pub fn state_dir(&self) -> PathBuf {
        self.place.path().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.state_dir().join("control.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    /// The program with this daemon's settings, in an environment of its own.
    pub fn command(&self) -> Command {
        let mut command = match self.user {
            None => match self.wrapper.split_first() {
                None => Command::new(env!("CARGO_BIN_EXE_alexandria-ingestd")),
                Some((program, arguments)) => {
                    let mut command = Command::new(program);
                    command.args(arguments).arg(env!("CARGO_BIN_EXE_alexandria-ingestd"));
                    command
                }
            },
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
                command.arg(self.place.path().join("program"));
                command
            }
        };
        command.env_clear().env("HOME", self.place.path()).env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("--set").arg(format!("state_dir={}", self.state_dir().display()));
        command.args(self.config.iter().flat_map(|file| [Path::new("--config"), file]));
        for setting in &self.settings {
            command.arg("--set").arg(setting);
        }
        command
    }

    /// Runs a one-shot verb to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts the service and waits for nothing.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.place.path().join("log")).unwrap();
        self.child = Some(self.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts the service and waits until its socket answers.
    pub fn start(&mut self) {
        self.spawn();
        self.until("the socket answers", |daemon| {
            let ended = daemon.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the service ended with {ended:?}:\n{}", daemon.log());
            daemon.ctl(&["status"]).status.success()
        });
    }

    /// The running service's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the service runs").id()
    }

    /// SIGTERM; the exit code and the seconds it took.
    pub fn stop(&mut self) -> (Option<i32>, f64) {
        self.signal("TERM");
        let ended = self.wait(Duration::from_secs(60));
        ended.unwrap_or_else(|| {
            let _ = self.child.as_mut().unwrap().kill();
            panic!("the service does not stop:\n{}", self.log());
        })
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.as_ref().expect("the service runs"), name);
    }

    /// Waits for the service to end by itself; the exit code and the seconds it took. None where it does not.
    pub fn wait(&mut self, patience: Duration) -> Option<(Option<i32>, f64)> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(status) = self.child.as_mut().expect("the service runs").try_wait().unwrap() {
                self.child = None;
                return Some((status.code(), started.elapsed().as_secs_f64()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the service runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn ctl(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_alexandriactl"))
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .output()
            .unwrap()
    }

    /// The JSON answer of a verb that must succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ctl(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A GET that no verb makes.
    pub fn get(&self, path: &str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = alexandria_ingestd::control::client::Client::new(&self.socket());
        runtime.block_on(client.get(path, &[])).unwrap()
    }

    pub fn status(&self) -> Value {
        self.json(&["status", "--fresh"])
    }

    /// Waits until a condition holds, at most a minute.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        while !holds(self) {
            assert!(started.elapsed() < Duration::from_secs(60), "not within a minute: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until so many books are in the index and nothing is to do.
    pub fn until_indexed(&mut self, books: u64) {
        self.until(&format!("{books} books indexed"), |daemon| {
            let queue = &daemon.status()["queue"];
            let at = |name: &str| queue[name].as_u64().unwrap();
            at("done_books") == books && at("queued") + at("running") + at("waiting") == 0
        });
    }

    /// Titles and texts of the nearest passages.
    pub fn search(&self, question: &str) -> Vec<(String, String)> {
        let answer = self.json(&["search", question]);
        let hits = answer["hits"].as_array().unwrap();
        let field = |hit: &Value, name: &str| hit[name].as_str().unwrap().to_owned();
        hits.iter().map(|hit| (field(hit, "title"), field(hit, "text"))).collect()
    }

    /// What the jobs done so far did, newest first.
    pub fn outcomes(&self) -> Vec<String> {
        let answer = self.json(&["queue", "--state", "done"]);
        let jobs = answer["jobs"].as_array().unwrap();
        jobs.iter().map(|job| job["outcome"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub fn points(&mut self) -> u64 {
        // The status shows the store as it was a few seconds ago; the queue's sum is of this moment.
        self.status()["queue"]["points"].as_u64().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
