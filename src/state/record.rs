//! The records on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::ids::ContainerId;
use crate::spec::ContainerState;
use crate::spec::Exit;
use crate::spec::Health;
use crate::spec::NetworkSpec;
use crate::spec::Phase;
use crate::spec::ServiceSpec;
use crate::spec::VolumeSpec;
use crate::spec::observed::Published;

/// `project.json`: what the project is known by when its Compose file is not at hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProjectRecord {
    pub working_dir: PathBuf,
    pub config_files: Vec<PathBuf>,
    /// Networks that were created, by key.
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Volumes that were created, and external ones that were found, by key.
    pub volumes: BTreeMap<String, VolumeSpec>,
    /// Volumes (by target) of containers, by name, that are being replaced: what replaces them takes these over.
    #[serde(default)]
    pub left_volumes: BTreeMap<String, BTreeMap<String, String>>,
    /// The change under way, as the supervisor wrote it down before it began: a successor goes on with it.
    pub change: Option<serde_json::Value>,
}

/// `config.json`: what the container is. Written once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub id: ContainerId,
    pub name: String,
    /// Replica number from 1; 0 for a one-off container.
    pub number: u32,
    pub service: ServiceSpec,
    pub image_id: String,
    /// Entrypoint and arguments, the image's where the service has none.
    pub command: Vec<String>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Volume (by host name) behind each target that has a volume, named or anonymous.
    pub volumes: BTreeMap<String, String>,
}

/// `state.json`: where the container is in its life.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateFile {
    pub run: Option<RunState>,
    /// The end of the latest run, once it is known; `exit.json` is newer when it is there.
    pub exit: Option<Exit>,
    pub restarts: u32,
    pub stopped_by_user: bool,
    /// As [`ContainerState::rejoins`].
    #[serde(default)]
    pub rejoins: bool,
    pub health: Option<Health>,
    /// The run has been frozen by command.
    #[serde(default)]
    pub paused: bool,
    pub addresses: BTreeMap<String, IpAddr>,
    pub ports: Vec<Published>,
}

/// A run of the container's program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat; the pid counts only together with it.
    pub start_time: u64,
    /// The boot it ran in (/proc/sys/kernel/random/boot_id).
    pub boot_id: String,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// Processes of other containers whose namespaces it is in.
    #[serde(default)]
    pub joined: Vec<i32>,
}

/// The part of `exit.json` that is read here; the keeper writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) code: Option<i32>,
    pub(crate) oom: bool,
    pub(crate) at: i64,
}

/// A container as its directory tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerRecord {
    pub config: ContainerConfig,
    pub state: StateFile,
    pub(crate) exit_file: Option<ExitFile>,
}

/// Exit status reported when the true one was lost together with both of our processes.
const UNKNOWN_STATUS: i32 = 255;

impl ContainerRecord {
    /// The observed state; `alive` says whether the process of a run still exists.
    pub fn observe(&self, alive: impl Fn(&RunState) -> bool) -> ContainerState {
        let ContainerConfig { id, name, number, service, image_id, created_at, .. } = self.config.clone();
        let state = self.state.clone();
        let phase = self.phase(alive);
        let runs = matches!(phase, Phase::Running { .. });
        ContainerState {
            id,
            name,
            number,
            service,
            image_id,
            created_at,
            phase,
            restarts: state.restarts,
            stopped_by_user: state.stopped_by_user,
            rejoins: state.rejoins,
            addresses: state.addresses,
            ports: if runs { state.ports } else { Vec::new() },
        }
    }

    /// A run has begun, and the keeper has not written of its end.
    pub fn is_open(&self) -> bool {
        self.state.run.is_some() && self.exit_file.is_none()
    }

    /// The latest time that is written down (nanoseconds since the epoch).
    pub(crate) fn latest(&self) -> i64 {
        let started = self.state.run.as_ref().map(|run| run.started_at);
        let ended = [self.state.exit.map(|exit| exit.at), self.exit_file.map(|exit| exit.at)];
        ended.into_iter().chain([started]).flatten().fold(self.config.created_at, i64::max)
    }

    fn phase(&self, alive: impl Fn(&RunState) -> bool) -> Phase {
        let written =
            self.exit_file.map(|exit| Exit { code: exit.code.unwrap_or(UNKNOWN_STATUS), oom: exit.oom, at: exit.at });
        // No run ends before it begins, whatever was done to the machine's clock meanwhile.
        let began = self.state.run.as_ref().map_or(i64::MIN, |run| run.started_at);
        let ended = written.or(self.state.exit).map(|exit| Exit { at: exit.at.max(began), ..exit });
        match (&self.state.run, ended) {
            (Some(run), _) if alive(run) => Phase::Running {
                pid: run.pid,
                started_at: run.started_at,
                health: self.state.health,
                paused: self.state.paused,
                joined: run.joined.clone(),
            },
            (_, Some(exit)) => Phase::Exited(exit),
            (Some(run), None) => Phase::Exited(Exit { code: UNKNOWN_STATUS, oom: false, at: run.started_at }),
            (None, None) => Phase::Created,
        }
    }
}
