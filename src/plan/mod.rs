//! Pure: `model` to `spec`, desired against observed, the DAG of steps with reasons.

mod differences;
mod down;
mod graph;
mod images;
mod lower;
mod rejoin;
mod relations;
mod starts;
mod step;
mod up;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::Observed;
use crate::spec::ProjectSpec;

pub use images::{PullPolicy, WantedImage, images};
pub use lower::lower;
pub use rejoin::{can_join, left_behind};
pub use relations::volumes_of;
pub use step::{FieldChange, Op, Plan, Reason, Step};

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
        orphans: Orphans,
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
    /// Freeze containers, or let them go on.
    Pause {
        services: Vec<String>,
        pause: bool,
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
    /// End the change that is being made, and keep what is made by then (Ctrl-C).
    Cancel,
    /// Remove one container, by name, with its anonymous volumes (`run --rm`).
    Discard {
        container: String,
    },
}

/// Options of `up`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpOptions {
    pub recreate: Recreate,
    pub always_recreate_deps: bool,
    pub no_deps: bool,
    pub no_start: bool,
    pub orphans: Orphans,
    pub renew_anonymous_volumes: bool,
    pub timeout: Option<Duration>,
}

/// What becomes of containers of services that the file does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphans {
    /// They stay, and a warning names them.
    Warn,
    Remove,
    Ignore,
}

/// When `up` replaces containers that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recreate {
    Changed,
    Force,
    Never,
}

impl ChangeKind {
    /// The command's name, for messages.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Up { .. } => "up",
            Self::Down { .. } => "down",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Kill { .. } => "kill",
            Self::Pause { pause: true, .. } => "pause",
            Self::Pause { pause: false, .. } => "unpause",
            Self::Remove { .. } => "rm",
            Self::Run { .. } => "run",
            Self::Discard { .. } => "rm",
            Self::Cancel => "Ctrl-C",
        }
    }

    /// Image references whose ids the plan needs in [`Observed::images`].
    pub fn images(&self) -> Vec<String> {
        let (Self::Up { project, .. } | Self::Run { project, .. }) = self else { return Vec::new() };
        let of = |service: &crate::spec::ServiceSpec| {
            let mounted = service.container.mounts.iter().filter_map(|mount| match &mount.source {
                crate::spec::container::MountSource::Image { reference, .. } => Some(reference.clone()),
                _ => None,
            });
            let hooks = service.pre_start.iter().map(|hook| hook.service.container.image.clone());
            mounted.chain([service.container.image.clone()]).chain(hooks).collect::<Vec<_>>()
        };
        let mut images: Vec<_> = project.services.values().flat_map(of).collect();
        images.sort();
        images.dedup();
        images
    }
}

/// Why no plan can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("no such service: `{name}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownService { name: String, nearest: Option<String> },
    #[error("dependency cycle detected: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
    #[error("service `{service}` depends on `{dependency}`, which does not exist")]
    UnknownDependency { service: String, dependency: String },
    #[error("container name `{name}` is in use by a container of service `{service}`")]
    NameTaken { name: String, service: String },
    #[error("service `{service}` has a `container_name` and cannot have {scale} containers")]
    FixedNameScaled { service: String, scale: u32 },
}

/// What to do so that `observed` becomes what `change` asks for. Reads no clock and touches nothing.
///
/// # Errors
/// When the change contradicts itself or what is there.
pub fn plan(change: &Change, observed: &Observed) -> Result<Plan, PlanError> {
    match &change.kind {
        ChangeKind::Up { project, services, options } => {
            up::up(change.requested_at, project, services, options, observed)
        }
        ChangeKind::Run { project, service, name, no_deps } => {
            up::run(change.requested_at, project, service, name, *no_deps, observed)
        }
        ChangeKind::Down { services, volumes, orphans, timeout, project } => {
            let down = down::Down { services, volumes: *volumes, orphans: *orphans, timeout: *timeout };
            down.plan(project.as_ref(), observed)
        }
        ChangeKind::Start { services } => Ok(starts::start(services, observed)),
        ChangeKind::Stop { services, timeout } => Ok(down::stop(services, *timeout, observed)),
        ChangeKind::Restart { services, timeout, no_deps } => {
            Ok(down::restart(change.requested_at, services, *timeout, *no_deps, observed))
        }
        ChangeKind::Kill { services, signal } => Ok(down::kill(services, signal, observed)),
        ChangeKind::Pause { services, pause } => Ok(down::pause(services, *pause, observed)),
        ChangeKind::Cancel => Ok(Plan::default()),
        ChangeKind::Discard { container } => Ok(down::discard(container, observed)),
        ChangeKind::Remove { services, stop, volumes } => Ok(down::remove(services, *stop, *volumes, observed)),
    }
}
