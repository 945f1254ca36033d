//! What the command line and the supervisor say to each other over the control socket. Plain data and its framing.
//!
//! A message is a length (four bytes, little endian) and that many bytes of JSON. Replies that carry file descriptors
//! are followed by one byte with them as ancillary data (unix(7), `SCM_RIGHTS`).

pub mod connection;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::Change;
use crate::spec::container::Attachment;

pub use connection::Connection;

/// Messages longer than this are refused on both sides.
pub const MAX_MESSAGE: u32 = 256 << 20;

/// First and only message of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Change the project: progress, then `Done` or `Failed`.
    Change { change: Box<Change>, wait: Option<Wait> },
    /// Run a program inside a running container: `Started` with descriptors, then `Exited`.
    Exec(Box<Exec>),
    /// Connect to the standard streams of a container that keeps its input open or has a terminal:
    /// `Started` with descriptors, then `Exited`.
    Attach { container: String },
    /// The root of a container that does not run: `Started` with its descriptor. Until the client hangs up the container is
    /// neither started nor removed.
    Files { container: String },
    /// Put a container on a network, or take it off one, while it runs or not: `Done` or `Failed`.
    Network { container: String, change: NetworkChange },
    /// Containers starting and ending, as `Event`s, until the client hangs up.
    Events,
    /// Another program is to take the place of keeper and supervisor; one byte with its descriptor follows. `Done` once it has
    /// the keeper's. What is said for this is the same in all versions.
    GiveWay,
}

/// Networks are meant by their key in the project, or by their name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkChange {
    Join(Attachment),
    Leave { network: String },
}

/// What to wait for after a change (`up --wait`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    pub timeout: Option<Duration>,
}

/// A program to run inside a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Container name.
    pub container: String,
    pub command: Vec<String>,
    /// `KEY=VALUE`.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub privileged: bool,
    /// Rows and columns; `None`: pipes.
    pub terminal: Option<(u16, u16)>,
    pub stdin: bool,
    /// Nobody reads its output or waits for it.
    pub detach: bool,
}

/// From the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Something happened to `id` (`Container x-web-1`): the status word of docker compose, and details.
    Progress {
        id: String,
        status: String,
        text: String,
    },
    Warning(String),
    /// The change is made.
    Done,
    Failed {
        failures: Vec<Failed>,
    },
    /// The process runs; `descriptors` follow: the terminal's master alone, or stdout and stderr (and stdin before
    /// them when it was asked for).
    Started {
        descriptors: usize,
    },
    Exited {
        code: i32,
    },
    Event(Event),
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub message: String,
    pub help: Option<String>,
}

/// A container's life, for whoever follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Started { container: String, service: String },
    Exited { container: String, service: String, code: i32 },
    Removed { container: String, service: String },
}
