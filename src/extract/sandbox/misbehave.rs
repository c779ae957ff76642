//! What hostile books might make a reader do, on request: the tests of the sandbox need readers that fail on purpose.
//! Must never be part of a release build.

use std::hint::black_box;
use std::io::Write;

/// Does what a format of this name stands for; returns for all others.
pub fn misbehave(format: &str) {
    match format {
        "TEST-PANIC" => panic!("a reader's bug"),
        "TEST-LOOP" => loop {
            black_box(0);
        },
        "TEST-HANG" => std::thread::sleep(std::time::Duration::from_secs(3600)),
        "TEST-MEMORY" => {
            let mut kept = Vec::new();
            loop {
                kept.push(black_box(vec![1_u8; 16 << 20]));
            }
        }
        "TEST-STACK" => {
            black_box(dive(0));
        }
        "TEST-ABORT" => std::process::abort(),
        "TEST-EXIT" => std::process::exit(0),
        "TEST-GARBAGE" => {
            // What a reader that was taken over could send.
            let _ = super::child::parent_of_tests().map(|mut parent| parent.write_all(&[255; 4096]));
        }
        "TEST-FLOOD" => {
            let Some(parent) = super::child::parent_of_tests() else { return };
            let section = super::protocol::Reply::Section(crate::domain::Section {
                text: "x".repeat(1 << 20),
                ..crate::domain::Section::default()
            });
            while super::protocol::write_frame(parent, &section).is_ok() {}
        }
        "TEST-FILES" => report(&[
            ("open", std::fs::File::open("/etc/passwd").is_ok()),
            ("list", std::fs::read_dir("/").is_ok()),
            ("write", std::fs::write("/tmp/alexandria-escape", "x").is_ok()),
            ("connect", std::net::TcpStream::connect("127.0.0.1:22").map_or_else(may_try, |_| true)),
            ("bind", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
            ("datagram", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
            ("unix", std::os::unix::net::UnixDatagram::unbound().is_ok()),
            ("run", std::process::Command::new("/bin/true").status().is_ok()),
            ("thread", std::thread::Builder::new().spawn(|| ()).is_ok()),
            ("kill", nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok()),
        ]),
        _ => {}
    }
}

/// Refused by the other side is not refused by the sandbox.
fn may_try(error: std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionRefused
}

fn report(done: &[(&str, bool)]) {
    let allowed: Vec<&str> = done.iter().filter(|(_, done)| *done).map(|(what, _)| *what).collect();
    panic!("allowed: [{}]", allowed.join(" "));
}

#[allow(unconditional_recursion, reason = "the point of it")]
fn dive(depth: u64) -> u64 {
    black_box([depth; 64])[(depth % 64) as usize] + dive(depth + 1)
}
