//! One service: its containers' common specification, how many, and when they may start.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::ContainerSpec;

/// A service, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: String,
    /// Replicas wanted.
    pub scale: u32,
    /// Fixed container name; then `scale` is at most 1.
    pub container_name: Option<String>,
    /// SHA-256 (hexadecimal) of what makes a container of this service what it is; a difference means recreation.
    pub config_hash: String,
    /// The canonical attributes behind `config_hash`, so that a plan can say which field changed.
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// By service name.
    pub depends_on: BTreeMap<String, Dependency>,
    pub restart: RestartPolicy,
    pub health: Option<HealthSpec>,
    /// What the file says of the check's times; the image has a say in the others.
    #[serde(default)]
    pub health_times: HealthTimes,
    /// `None`: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    pub stop_grace: Duration,
    /// Run to their ends one after the other, each in a container of its own, before the service's are started.
    #[serde(default)]
    pub pre_start: Vec<PreStart>,
    /// Run inside the container when it has been started by command.
    #[serde(default)]
    pub post_start: Vec<HookSpec>,
    /// Run inside the container before it is stopped by command.
    #[serde(default)]
    pub pre_stop: Vec<HookSpec>,
    /// False: `up` does not show this service's output unless asked to.
    pub attach: bool,
    /// The file says how to build its image.
    #[serde(default)]
    pub builds: bool,
    /// Its container is removed when it has ended: `run -d --rm`.
    #[serde(default)]
    pub auto_remove: bool,
    pub container: ContainerSpec,
}

/// A program that has done its work before containers of a service are started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreStart {
    /// Before each container of the service that is started, with that one's mounts; otherwise before the first of them.
    #[serde(default)]
    pub per_replica: bool,
    /// What it runs in.
    #[serde(flatten)]
    pub service: ServiceSpec,
}

/// Times of a health check, as far as they are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthTimes {
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
}

/// A program run inside a container at a moment of its life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookSpec {
    pub command: Vec<String>,
    /// `None`: the container's.
    pub user: Option<String>,
    pub privileged: bool,
    /// `None`: the container's.
    pub working_dir: Option<String>,
    /// Added to the container's; `None` takes a variable away.
    pub environment: BTreeMap<String, Option<String>>,
}

/// What one service needs of another before it may start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub condition: Condition,
    /// False: a failed condition is a warning only.
    pub required: bool,
    /// Recreating or restarting the dependency restarts this service too.
    pub restart: bool,
}

/// `depends_on` conditions of the Compose Specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

/// What happens when a container exits by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    No,
    Always,
    UnlessStopped,
    /// Only after a non-zero status; at most so many times when given.
    OnFailure {
        max_retries: Option<u32>,
    },
}

impl RestartPolicy {
    /// Whether a container that ended by itself is started again, after `restarts` of the kind.
    pub fn wants_restart(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure { max_retries } => code != 0 && max_retries.is_none_or(|max| restarts < max),
        }
    }
}

/// A health check. Durations that the file leaves out carry the engine's defaults (30 s, 30 s, 0 s, 5 s, 3 retries).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// The command, exec form; `CMD-SHELL` is already `["/bin/sh", "-c", …]`.
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub start_period: Duration,
    pub start_interval: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_failure_gives_up_after_so_many() {
        let policy = RestartPolicy::OnFailure { max_retries: Some(2) };
        assert!(policy.wants_restart(1, 1));
        assert!(!policy.wants_restart(1, 2));
        assert!(!policy.wants_restart(0, 0));
        assert!(RestartPolicy::Always.wants_restart(0, 99));
        assert!(!RestartPolicy::No.wants_restart(1, 0));
    }
}
