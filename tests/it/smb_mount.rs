//! A network mount with all its faults: Samba serves a directory on a port of its own, rclone mounts it by FUSE. The
//! protocol is real SMB, no inotify event comes through, and server and client can be hung, killed and started again.
//!
//! However a test ends, the mount is taken away and both programs are killed; nothing outside the test's own directory
//! is written.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::mounts::{can_test, detach, find, is_mounted};

/// Server, client and mount of one share.
pub struct SmbMount {
    place: TempDir,
    share: PathBuf,
    port: u16,
    server: Option<Child>,
    client: Option<Child>,
}

impl SmbMount {
    /// Serves `share` and mounts it. None, with a line that says why, where the machine has no means for that.
    pub fn new(share: &Path) -> Option<Self> {
        if !can_test(&["smbd", "rclone", "fusermount3", "setpriv"], &["/dev/fuse"]) {
            return None;
        }
        sweep();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let place = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        fs::create_dir(place.path().join("mount")).unwrap();
        let mut mount = SmbMount { place, share: share.to_owned(), port: 0, server: None, client: None };
        mount.start_server();
        mount.start_client();
        Some(mount)
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.place.path().join("mount")
    }

    /// The server hangs: it keeps its connections and answers nothing.
    pub fn hang_server(&self) {
        self.signal_server(Signal::SIGSTOP);
    }

    /// The server goes on.
    pub fn wake_server(&self) {
        self.signal_server(Signal::SIGCONT);
    }

    pub fn kill_server(&mut self) {
        end(&mut self.server);
    }

    /// Starts the server on the port it had, or on a free one at first.
    pub fn start_server(&mut self) {
        for _ in 0..5 {
            if self.port == 0 {
                // Another program may take it before the server does: then the next one is tried.
                self.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            }
            let configuration = self.write_server_configuration();
            let mut server = self.program("smbd");
            server.args(["--foreground", "--no-process-group", "--configfile"]).arg(configuration);
            self.server = Some(server.spawn().unwrap());
            if self.server_answers() {
                return;
            }
            end(&mut self.server);
            self.port = 0;
        }
        panic!("smbd does not start:\n{}", self.logs());
    }

    /// What served the mount is gone: every call says ENOTCONN until it is mounted again.
    pub fn kill_client(&mut self) {
        end(&mut self.client);
    }

    /// Mounts the share, also over what a killed client left.
    pub fn start_client(&mut self) {
        detach(&self.path());
        let configuration = self.place.path().join("rclone.conf");
        fs::write(&configuration, format!("[s]\ntype = smb\nhost = 127.0.0.1\nport = {}\nuser = guest\n", self.port))
            .unwrap();
        let mut client = self.program("rclone");
        client.arg("--config").arg(configuration).args(["mount", "s:books"]).arg(self.path());
        client.args(["--read-only", "--allow-other", "--dir-cache-time", "1s", "--attr-timeout", "1s"]);
        // Its own patience with a server that is away; the default makes every call last ten seconds and more.
        client.args(["--vfs-cache-mode", "off", "--low-level-retries", "2"]);
        self.client = Some(client.spawn().unwrap());
        let started = Instant::now();
        while !is_mounted(&self.path()) {
            assert!(started.elapsed() < Duration::from_secs(20), "rclone does not mount:\n{}", self.logs());
            sleep(Duration::from_millis(20));
        }
    }

    fn signal_server(&self, signal: Signal) {
        let server = self.server.as_ref().expect("the server runs");
        killpg(Pid::from_raw(server.id().cast_signed()), signal).unwrap();
    }

    /// In a process group of its own, with its children; killed with this thread.
    fn program(&self, name: &str) -> Command {
        let log = fs::File::options().create(true).append(true).open(self.place.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(find(name).unwrap()).process_group(0);
        command.env("HOME", self.place.path()).env_remove("RCLONE_CONFIG");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    fn write_server_configuration(&self) -> PathBuf {
        let base = self.place.path();
        let directories = ["lock", "state", "cache", "private", "pid", "ncalrpc"];
        for directory in directories {
            // What a killed server left in its databases is nobody's business.
            let _ = fs::remove_dir_all(base.join(directory));
            fs::create_dir(base.join(directory)).unwrap();
        }
        let [lock, state, cache, private, pid, ncalrpc] = directories.map(|name| base.join(name).display().to_string());
        let (port, share, log) = (self.port, self.share.display(), base.join("smbd.log").display().to_string());
        // Without leases: the client sees what changes on the server within its own cache times.
        let configuration = format!(
            "[global]\nserver role = standalone server\ninterfaces = lo\nbind interfaces only = yes\nsmb ports = {port}\n\
             disable netbios = yes\nmap to guest = Bad User\nguest account = root\nload printers = no\n\
             lock directory = {lock}\nstate directory = {state}\ncache directory = {cache}\nprivate dir = {private}\n\
             pid directory = {pid}\nncalrpc dir = {ncalrpc}\nlog file = {log}\nunix extensions = no\n\
             oplocks = no\nlevel2 oplocks = no\n\
             [books]\npath = {share}\nguest ok = yes\nread only = yes\n"
        );
        let path = base.join("smb.conf");
        fs::write(&path, configuration).unwrap();
        path
    }

    /// False where it ended instead.
    fn server_answers(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if self.server.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    fn logs(&self) -> String {
        ["log", "smbd.log"].map(|name| fs::read_to_string(self.place.path().join(name)).unwrap_or_default()).join("\n")
    }
}

impl Drop for SmbMount {
    fn drop(&mut self) {
        // The client first: who hangs in the mount is freed when it dies, even where the server never answers again.
        end(&mut self.client);
        detach(&self.path());
        end(&mut self.server);
    }
}

/// Followed by the number of the test's process.
const PREFIX: &str = "alexandria-smb-";

/// Takes away the mounts whose test was killed: its programs died with it.
fn sweep() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    for place in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let process = place.split_once(PREFIX).and_then(|(_, rest)| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            detach(Path::new(place));
        }
    }
}

/// Kills a program and its children.
fn end(program: &mut Option<Child>) {
    if let Some(mut child) = program.take() {
        // A stopped process dies of SIGKILL, too.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = child.wait();
    }
}
