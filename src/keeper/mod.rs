//! The keeper: parent of the containers and holder of their file descriptors. Single-threaded, no async runtime, no YAML.
//!
//! A client starts it ([`spawn`]); it starts the supervisor, with its end of a `SOCK_SEQPACKET` pair as standard input
//! ([`KeeperHandle::from_stdin`]), and starts it again when it dies. A supervisor whose keeper died starts the next one
//! ([`spawn_replacement`]) and hands back what that must hold.

mod channel;
mod handle;
mod launch;
pub mod scope;
mod serve;
mod settle;
mod spawn;
mod supervise;
mod table;

use serde::{Deserialize, Serialize};

use crate::init::Launch;
use crate::init::LaunchFailure;

pub use handle::KeeperHandle;
pub(crate) use launch::Launcher;
pub use serve::main;
pub use spawn::{Program, SpawnOptions, spawn, spawn_replacement};

/// First argument of the keeper process, which `main.rs` dispatches on.
pub const ROLE: &str = "keeper-process";

/// First argument of the supervisor process; the project's name and the two roots follow.
pub const SUPERVISOR: &str = "supervisor-process";

/// The control socket is held under this name. Clients ask the kernel who listens there: the keeper must.
pub const CONTROL: &str = "control";

/// Pidfds that are held under this name are of processes that end with the keeper, when it ends because nothing is left.
pub const COMPANIONS: &str = "companions";

/// From the supervisor to the keeper, one per `SOCK_SEQPACKET` message, file descriptors beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make a process. `id` is the container id, or an id of its own for a process inside a container.
    /// The exit record is written to `exit_file` before anybody is told.
    Launch { id: String, exit_file: std::path::PathBuf, oom: Option<OomSource>, launch: Box<Launch> },
    /// Send a signal to a process that was launched (by pidfd).
    Signal { id: String, signal: i32 },
    /// Keep these descriptors under this name until told otherwise; replaces what had the name.
    Hold { name: String },
    /// Lets go of what has this name. When it is the id of a process: of its `stdio:ID` and `stdin:ID`, and of its exit
    /// record when it has ended (until then every new supervisor is told of its end again).
    Release { name: String },
    /// Take over a process that runs already: its pidfd comes along.
    Adopt { id: String, pid: i32, exit_file: std::path::PathBuf, oom: Option<OomSource> },
    /// Nothing is left to keep: exit once no process is left.
    Finish,
    /// Exit at once, as if killed: the supervisor starts another one and hands it everything.
    Leave,
    /// A process that has been reported as [`Event::Mounted`] may go on.
    GoOn { id: String },
}

/// Where to look whether the kernel killed for want of memory, when the process has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum OomSource {
    /// A v2 `memory.events` or v1 `memory.oom_control` file: its `oom_kill` counter.
    Counter(std::path::PathBuf),
}

/// From the keeper to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// First message to every supervisor: what runs (also what is about to) and what is held. `Held` messages follow, one
    /// per name, `Exited` for what has ended and is not released, then `Ready`.
    Welcome {
        processes: Vec<Process>,
    },
    Held {
        name: String,
    },
    Ready,
    /// The process runs (its `execve` succeeded). Descriptors: pidfd, then stdout and stderr read ends
    /// (then stdin write end when asked for), or pidfd and the pseudo-terminal master. The keeper holds copies of them
    /// under `stdio:ID`, but of the stdin write end under `stdin:ID`, until the process's id is released: end of input
    /// reaches the program when `stdin:ID` is released too.
    Launched {
        id: String,
        process: Process,
    },
    LaunchFailed {
        id: String,
        failure: LaunchFailure,
    },
    Exited {
        id: String,
        record: ExitRecord,
    },
    /// The mounts of a starting process are made ([`crate::init::Step::Rendezvous`]); it waits for [`Request::GoOn`].
    Mounted {
        id: String,
        pid: i32,
    },
}

/// A process the keeper is responsible for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub id: String,
    /// In the keeper's pid namespace.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: a pid counts only together with it.
    pub start_time: u64,
}

/// What lies in an exit file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit status, 128 + signal when killed by one; `None`: it could not be learnt.
    pub code: Option<i32>,
    pub oom: bool,
    /// Nanoseconds since the epoch.
    pub at: i64,
}
