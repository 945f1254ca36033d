//! Pure: `model` to `spec`, desired against observed, the DAG of steps with reasons.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::ProjectSpec;

/// A change that a person asks for. It can be planned again at any time: a half-done change continues where it was,
/// because what was created or started since `requested_at` counts as done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Nanoseconds since the epoch.
    pub requested_at: i64,
    pub kind: ChangeKind,
}

/// What is asked for. Empty `services` means all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Make the project as the file says.
    Up {
        project: ProjectSpec,
        services: Vec<String>,
        options: UpOptions,
    },
    /// Stop and remove containers, then networks, then volumes when asked.
    Down {
        services: Vec<String>,
        volumes: bool,
        remove_orphans: bool,
        timeout: Option<Duration>,
        project: Option<ProjectSpec>,
    },
    Start {
        services: Vec<String>,
    },
    Stop {
        services: Vec<String>,
        timeout: Option<Duration>,
    },
    Restart {
        services: Vec<String>,
        timeout: Option<Duration>,
        no_deps: bool,
    },
    Kill {
        services: Vec<String>,
        signal: String,
    },
    /// Remove stopped containers (stopping running ones first when `stop`).
    Remove {
        services: Vec<String>,
        stop: bool,
        volumes: bool,
    },
    /// A one-off container of one service, its dependencies started first unless `no_deps`.
    Run {
        project: ProjectSpec,
        service: String,
        name: String,
        no_deps: bool,
    },
}

/// Options of `up`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpOptions {
    pub recreate: Recreate,
    pub always_recreate_deps: bool,
    pub no_deps: bool,
    pub no_start: bool,
    pub remove_orphans: bool,
    pub renew_anonymous_volumes: bool,
    pub timeout: Option<Duration>,
}

/// When `up` replaces containers that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recreate {
    Changed,
    Force,
    Never,
}
