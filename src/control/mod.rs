//! Talking to the running service: the protocol, the server on the Unix socket, the client, and the tables people see.
//!
//! It must never read the library or run a job itself: the daemon hands the server what it may use as handles.

mod answer;
pub mod arguments;
pub mod client;
mod connections;
pub mod http;
mod intake;
mod peer;
pub mod protocol;
pub mod server;
mod socket;
pub mod tables;
pub mod watch;

use std::path::PathBuf;

pub use socket::LONGEST_PATH;

/// Where systemd's RuntimeDirectory puts the socket.
pub const SYSTEM_SOCKET: &str = "/run/alexandria-ingestd/control.sock";

/// The socket's name in whatever directory holds it.
pub const SOCKET_NAME: &str = "control.sock";

/// Where a client looks when it is told nothing: `ALEXANDRIA_CONTROL__SOCKET`, the system service's socket where it
/// exists, else the one in the state directory of a service that this user runs.
pub fn default_socket() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose_socket(variable, system_service_is_there())
}

/// By the directory, which anybody may see: what is in it shows only to the group.
fn system_service_is_there() -> bool {
    PathBuf::from(SYSTEM_SOCKET).parent().is_some_and(|directory| directory.is_dir())
}

fn choose_socket(variable: impl Fn(&str) -> Option<PathBuf>, system_socket_exists: bool) -> PathBuf {
    if let Some(socket) = variable("ALEXANDRIA_CONTROL__SOCKET") {
        return socket;
    }
    if let Some(state) = variable("ALEXANDRIA_STATE_DIR") {
        return state.join(SOCKET_NAME);
    }
    let state_home = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    match state_home {
        Some(state_home) if !system_socket_exists => state_home.join("alexandria-ingestd").join(SOCKET_NAME),
        _ => PathBuf::from(SYSTEM_SOCKET),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], system: bool) -> String {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        choose_socket(variable, system).display().to_string()
    }

    #[test]
    fn the_nearest_word_wins() {
        let home = ("HOME", "/home/ana");
        assert_eq!(chosen(&[home], true), SYSTEM_SOCKET);
        assert_eq!(chosen(&[home], false), "/home/ana/.local/state/alexandria-ingestd/control.sock");
        assert_eq!(chosen(&[home, ("XDG_STATE_HOME", "/x")], false), "/x/alexandria-ingestd/control.sock");
        assert_eq!(chosen(&[home, ("ALEXANDRIA_STATE_DIR", "/s")], true), "/s/control.sock");
        assert_eq!(chosen(&[("ALEXANDRIA_CONTROL__SOCKET", "/c.sock")], true), "/c.sock");
        assert_eq!(chosen(&[], false), SYSTEM_SOCKET);
    }
}
