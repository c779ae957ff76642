//! Why the program ends, and with which exit code.

use crate::config::ConfigError;
use crate::control::server::ControlError;
use crate::domain::FailureKind;
use crate::embed::EmbedError;
use crate::ingest::LookError;
use crate::queue::QueueError;
use crate::store::StoreError;

/// Everything that ends the program early.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    State(#[from] QueueError),
    #[error(transparent)]
    Model(#[from] EmbedError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Look(#[from] LookError),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{0}")]
    Failed(String),
}

impl DaemonError {
    /// 1: failed, a restart may help. 2: wrong configuration or usage. 3: the state file needs a person. The unit
    /// does not restart on 2 and 3.
    pub fn exit_code(&self) -> u8 {
        match self {
            DaemonError::Config(_) => 2,
            DaemonError::Store(StoreError::WrongCollection { .. }) => 2,
            DaemonError::Model(EmbedError::Load(_)) => 2,
            DaemonError::Control(ControlError::NoGroup { .. }) => 2,
            DaemonError::State(error) | DaemonError::Look(LookError::Queue(error)) => match error {
                QueueError::Locked { .. } => 1,
                error if error.kind() == FailureKind::Fatal => 3,
                _ => 1,
            },
            _ => 1,
        }
    }

    /// For IO with a sentence about what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
