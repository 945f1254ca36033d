//! What disk and kernel say is there now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::base::ids::ContainerId;
use crate::spec::{NetworkSpec, Protocol, ServiceSpec, VolumeSpec};

/// Everything of one project that exists.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub containers: Vec<ContainerState>,
    /// Networks that exist, by key.
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Volumes that exist, by key.
    pub volumes: BTreeMap<String, VolumeSpec>,
    /// Image id by reference, for the references that the store can resolve.
    pub images: BTreeMap<String, String>,
}

impl Observed {
    /// The latest time at which a container was created, started or ended.
    pub fn latest(&self) -> i64 {
        let times = self.containers.iter().map(|container| match container.phase {
            Phase::Created => container.created_at,
            Phase::Running { started_at, .. } => started_at.max(container.created_at),
            Phase::Exited(exit) => exit.at.max(container.created_at),
        });
        times.max().unwrap_or(0)
    }
}

/// One container, running or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    pub id: ContainerId,
    pub name: String,
    /// Replica number, from 1; 0 for a one-off container of `run`.
    pub number: u32,
    /// What it was made from.
    pub service: ServiceSpec,
    /// Image id (`sha256:…`) it was made from.
    pub image_id: String,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    pub phase: Phase,
    /// Starts by policy since the last start by command.
    pub restarts: u32,
    /// Last stopped by command, so that policies leave it alone.
    pub stopped_by_user: bool,
    /// Ended because one whose namespaces it was in has been restarted: it is started again, whatever its policy.
    #[serde(default)]
    pub rejoins: bool,
    /// Address by network key.
    pub addresses: BTreeMap<String, IpAddr>,
    /// None while it does not run.
    pub ports: Vec<Published>,
}

impl ContainerState {
    /// It has ended, and is started again without being asked for, if not at once.
    pub fn comes_back(&self) -> bool {
        let Phase::Exited(exit) = self.phase else { return false };
        let wanted = self.rejoins || self.service.restart.wants_restart(exit.code, self.restarts);
        wanted && self.number > 0 && !self.stopped_by_user
    }
}

/// A port as it is reachable now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub host_ip: IpAddr,
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Created,
    Running {
        pid: i32,
        /// Nanoseconds since the epoch.
        started_at: i64,
        /// `None`: it has no health check.
        health: Option<Health>,
        /// Frozen by command.
        #[serde(default)]
        paused: bool,
        /// Processes of other containers whose namespaces it is in; empty also where that was not written down.
        #[serde(default)]
        joined: Vec<i32>,
    },
    Exited(Exit),
}

/// How and when a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status; 128 + signal when killed by one. 255 when it could not be learnt.
    pub code: i32,
    /// The kernel killed something in it for want of memory.
    pub oom: bool,
    /// Nanoseconds since the epoch.
    pub at: i64,
}

/// Result of the health checks so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}
