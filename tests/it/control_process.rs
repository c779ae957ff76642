//! The servers of the real service as it starts: the control socket from systemd's hand, for a group, and who did what
//! on it in the log; the HTTP listener's address and token.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, text};

/// Binds a socket as systemd does, and becomes the program that is to take it.
const HAND_OVER: &str = r#"
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o600)
listener.listen(8)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="control")
os.execv(sys.argv[2], sys.argv[2:])
"#;

fn ctl(socket: &Path, verb: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_alexandriactl")).arg("--socket").arg(socket).arg(verb).output().unwrap()
}

fn end(mut child: Child) -> Option<i32> {
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    child.wait().unwrap().code()
}

#[test]
fn a_socket_from_systemd_is_used_and_left_where_it_is() {
    let library = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(library.path());
    let socket = daemon.place.path().join("handed.sock");
    let program = daemon.command();
    let mut command = Command::new("python3");
    command.arg("-c").arg(HAND_OVER).arg(&socket).arg(program.get_program()).args(program.get_args());
    let log = fs::File::create(daemon.place.path().join("log")).unwrap();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let started = Instant::now();
    while !socket.exists() && started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Asked long before it is ready: systemd's line keeps the question.
    let answer = ctl(&socket, "status");
    assert!(answer.status.success(), "{}\n{}", text(&answer.stderr), daemon.log());
    assert!(!daemon.socket().exists(), "none of its own is made beside it");
    assert_eq!(end(child), Some(0), "{}", daemon.log());
    assert!(socket.exists(), "systemd's socket outlives the service");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600, "and stays as systemd made it");
}

#[test]
fn what_systemd_hands_over_by_mistake_is_said() {
    let library = tempfile::tempdir().unwrap();
    let daemon = Daemon::new(library.path());
    let program = daemon.command();
    let wrong = HAND_OVER.replace("socket.socket(socket.AF_UNIX)", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)");
    let wrong = wrong.replace("listener.listen(8)", "");
    let mut command = Command::new("python3");
    command.arg("-c").arg(wrong).arg(daemon.place.path().join("handed.sock"));
    let output = command.arg(program.get_program()).args(program.get_args()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ListenStream="), "{said}");
}

#[test]
fn the_socket_is_its_groups_and_every_act_names_its_user() {
    let id = |flags: &str| text(&Command::new("id").arg(flags).output().unwrap().stdout).trim().to_owned();
    let (uid, user) = (id("-u"), id("-un"));
    // Root may give it to any group, others to one of their own.
    let group = if uid == "0" { "daemon".to_owned() } else { id("-gn") };
    let library = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::new(library.path());
    daemon.set("control.group", &group);
    daemon.start();
    let found = fs::metadata(daemon.socket()).unwrap();
    let gid = text(&Command::new("getent").args(["group", &group]).output().unwrap().stdout);
    assert_eq!(gid.trim().split(':').nth(2), Some(&*found.gid().to_string()));
    assert_eq!(found.permissions().mode() & 0o777, 0o660);
    for (arguments, line) in [
        (&["pause"][..], "control: pause"),
        (&["resume"], "control: resume"),
        (&["rescan", "--full"], "control: rescan --full"),
        (&["retry", "--all"], "control: retry of all failed books"),
        (&["approve"], "control: approve"),
        (&["remove", "77"], "control: remove 77"),
        (&["ingest", "77"], "control: ingest 77"),
    ] {
        daemon.ctl(arguments);
        let expected = format!("{line}, by uid {uid} ({user})");
        assert!(daemon.log().contains(&expected), "{expected} is not in\n{}", daemon.log());
    }
    assert!(daemon.log().contains("refused: no book '77' is known"), "{}", daemon.log());
    daemon.ctl(&["verify"]);
    assert!(!daemon.log().contains("control: verify"), "looking changes nothing");
    daemon.ctl(&["verify", "--repair"]);
    assert!(daemon.log().contains("control: verify --repair, by uid"), "{}", daemon.log());
    assert_eq!(daemon.stop().0, Some(0));

    daemon.set("control.group", "no-such-group-here");
    let refused = daemon.run(&[]);
    assert_eq!(refused.status.code(), Some(2), "no restart mends that");
    assert!(text(&refused.stderr).contains("no group 'no-such-group-here'"), "{}", text(&refused.stderr));
}

#[test]
fn a_listener_that_cannot_be_or_is_open_to_all_is_said_at_the_start() {
    let library = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut daemon = Daemon::new(library.path());
    daemon.set("http.listen", &taken.local_addr().unwrap().to_string());
    let refused = daemon.run(&[]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("http.listen") && said.contains(&taken.local_addr().unwrap().to_string()), "{said}");

    let mut daemon = Daemon::new(library.path());
    daemon.set("http.listen", "127.0.0.1:0");
    daemon.set("http.token_file", "/no/such/token");
    let refused = daemon.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("/no/such/token"), "{}", text(&refused.stderr));

    let mut daemon = Daemon::new(library.path());
    daemon.set("http.listen", "0.0.0.0:0");
    daemon.start();
    assert!(daemon.log().contains("there is no token"), "{}", daemon.log());
    daemon.stop();

    // With the token as a credential, and nothing to be warned of.
    let mut daemon = Daemon::new(library.path());
    fs::write(daemon.place.path().join("http-token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let directory = daemon.place.path().to_str().unwrap().to_owned();
    daemon.set_variable("CREDENTIALS_DIRECTORY", &directory);
    daemon.set("http.listen", "0.0.0.0:0");
    daemon.start();
    let log = daemon.log();
    assert!(!log.contains("there is no token") && !log.contains("the HTTP token"), "{log}");
    let port = log.split_once("listening on http://0.0.0.0:").unwrap().1.split(' ').next().unwrap().to_owned();
    let ask = |token: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        write!(stream, "GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!((&*ask("wrong"), &*ask("0123456789abcdef0123456789abcdef")), ("401", "200"));
    assert_eq!(daemon.stop().0, Some(0));
}
