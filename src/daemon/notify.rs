//! What systemd is told: READY, STATUS, the watchdog. By a socket that never blocks: a manager that does not read, or a
//! socket that is full, must never hold the service.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Between two tries to send what must arrive.
const PAUSE: Duration = Duration::from_millis(20);

/// The way to systemd; outside systemd there is none, and nothing is sent.
#[derive(Debug)]
pub(super) struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notifier {
    pub(super) fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let to = name.and_then(|name| {
            let address = match name.as_bytes() {
                [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
                _ => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        Self { to }
    }

    /// Sends it where there is room for it now. A lost line is no reason to stop. True where it is on its way, or nobody
    /// wants it.
    pub(super) fn tell(&self, states: &[NotifyState]) -> bool {
        let Some((socket, address)) = &self.to else { return true };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        socket.send_to_addr(text.as_bytes(), address).is_ok()
    }

    /// What must arrive (READY): tried again for a while. True where it is on its way.
    pub(super) fn insist(&self, states: &[NotifyState], patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.tell(states) {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(address: SocketAddr) -> Notifier {
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        Notifier { to: Some((socket, address)) }
    }

    #[test]
    fn a_full_socket_blocks_nobody_and_what_must_arrive_arrives() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(SocketAddr::from_pathname(&path).unwrap());
        let mut sent = 0;
        while notifier.tell(&[NotifyState::Status("a line")]) {
            sent += 1;
            assert!(sent < 100_000, "it is full some time");
        }
        let started = Instant::now();
        assert!(!notifier.tell(&[NotifyState::Watchdog]));
        assert!(started.elapsed() < Duration::from_secs(1));
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            let mut buffer = [0; 100];
            loop {
                let size = systemd.recv(&mut buffer).unwrap();
                if buffer[..size].starts_with(b"READY=1") {
                    return;
                }
            }
        });
        assert!(notifier.insist(&[NotifyState::Ready], Duration::from_secs(10)));
        reader.join().unwrap();
    }

    #[test]
    fn an_abstract_socket_is_one_too_and_without_systemd_nothing_is_sent() {
        let address = SocketAddr::from_abstract_name(format!("alexandria-test-{}", std::process::id())).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        assert!(notifier(address).tell(&[NotifyState::Ready, NotifyState::Status("x")]));
        let mut buffer = [0; 100];
        let size = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..size], b"READY=1\nSTATUS=x\n");
        assert!(Notifier { to: None }.tell(&[NotifyState::Ready]));
    }
}
