//! Who is at the other end of a connection, and the line in the log for each act of theirs that changes something.

use std::net::IpAddr;

use axum::response::{IntoResponse, Response};
use nix::unistd::{Uid, User};
use serde::Serialize;

use super::answer::{Answer, blocking};
use crate::telemetry::event;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// Of the Unix socket, as the kernel says (SO_PEERCRED); None where it does not.
    Local(Option<LocalPeer>),
    Remote(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LocalPeer {
    pub uid: u32,
}

impl std::fmt::Display for Peer {
    /// `uid 1000 (ana)`. Asks the system's user database, which may block.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Remote(address) => write!(f, "{address}"),
            Peer::Local(None) => write!(f, "an unknown user"),
            Peer::Local(Some(LocalPeer { uid })) => match User::from_uid(Uid::from_raw(*uid)) {
                Ok(Some(user)) => write!(f, "uid {uid} ({})", user.name),
                _ => write!(f, "uid {uid}"),
            },
        }
    }
}

impl Peer {
    fn uid(self) -> Option<u32> {
        match self {
            Peer::Local(Some(LocalPeer { uid })) => Some(uid),
            _ => None,
        }
    }
}

/// An act that changes something, by this peer: done, then logged with how it ended.
pub(super) async fn act<T: Serialize + Send + 'static>(
    peer: Peer,
    verb: &'static str,
    target: String,
    work: impl FnOnce() -> Result<T, super::answer::Refusal> + Send + 'static,
) -> Response {
    let answer: Answer<T> = blocking(move || {
        let answer = work();
        let what = if target.is_empty() { verb.to_owned() } else { format!("{verb} {target}") };
        let uid = peer.uid().map(u64::from);
        match &answer {
            Ok(_) => tracing::info!(
                MESSAGE_ID = event::OPERATOR_ACT,
                VERB = verb,
                PEER_UID = uid,
                "control: {what}, by {peer}"
            ),
            Err(refusal) => {
                tracing::info!(
                    MESSAGE_ID = event::OPERATOR_ACT,
                    VERB = verb,
                    PEER_UID = uid,
                    "control: {what}, by {peer}: refused: {}",
                    refusal.body.error
                );
            }
        }
        answer
    })
    .await;
    answer.into_response()
}
