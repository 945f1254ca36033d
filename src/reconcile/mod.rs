//! Runs plans: holds dependents until their condition is met, restarts by policy, checks health. Knows no system call.
//!
//! One loop over a closed set of events; every operation of the machine is a task that ends in one of them. Must run
//! inside a `tokio::task::LocalSet`.

mod advance;
mod change;
mod gate;
mod health;
mod live;
mod restart;
mod run;
mod step;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::plan::Change;

pub use run::Reconciler;

/// A change to be made, and whom to tell.
#[derive(Debug)]
pub struct Command {
    pub change: Change,
    /// Wait until everything runs or is healthy (`up --wait`).
    pub wait: Option<Wait>,
    /// What happens meanwhile; nobody needs to listen.
    pub progress: mpsc::UnboundedSender<Update>,
    /// How it ended: everything that failed.
    pub done: oneshot::Sender<Result<(), Vec<Failure>>>,
}

/// How long to wait for a change to have its effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    pub timeout: Option<Duration>,
}

/// News of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// `id` is `Container NAME`, `Network NAME` or `Volume NAME`; `status` the word docker compose uses.
    Progress {
        id: String,
        status: &'static str,
        text: String,
    },
    Warning(String),
    /// It has not begun, and what it waits for.
    Waits(String),
}

/// Something that went wrong, told so that a person can act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    /// Evidence and advice, over several lines.
    pub help: Option<String>,
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Handle {
    pub commands: mpsc::UnboundedSender<Command>,
    /// True: nothing runs, nothing is pending, no restart is due.
    pub idle: watch::Receiver<bool>,
}
