//! Decided values for the host (services, containers, networks, volumes) and the observed state. No Compose syntax left.
//!
//! `plan` lowers the model to these; they are what the control socket carries, what lies on disk beside each container,
//! and what the runtime is asked to make real. Everything is plain data.

pub mod container;
#[cfg(test)]
pub(crate) mod fixture;
pub mod logging;
pub mod network;
pub mod observed;
pub mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use container::ContainerSpec;
pub use network::{NetworkSpec, PortSpec, Protocol};
pub use observed::{ContainerState, Exit, Health, Observed, Phase};
pub use service::{Condition, Dependency, HealthSpec, HealthTimes, HookSpec, PreStart, RestartPolicy, ServiceSpec};

/// The desired state of one project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProjectSpec {
    /// `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// Between the parts of the names of containers.
    #[serde(default = "separator")]
    pub separator: char,
    pub working_dir: PathBuf,
    /// The Compose files, absolute, in the order given.
    pub config_files: Vec<PathBuf>,
    /// Active services by name.
    pub services: BTreeMap<String, ServiceSpec>,
    /// Declared, but of no active profile: their containers are no orphans.
    #[serde(default)]
    pub disabled_services: Vec<String>,
    /// Networks by their key in the file.
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Named volumes by their key in the file.
    pub volumes: BTreeMap<String, VolumeSpec>,
}

fn separator() -> char {
    '-'
}

/// A named volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Name on the host, `PROJECT_KEY` unless set.
    pub name: String,
    /// Must exist already; never created or removed by us.
    pub external: bool,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}
