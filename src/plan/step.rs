//! A plan: steps, what each waits for, and why it is there.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::ids::ContainerId;
use crate::spec::Condition;
use crate::spec::NetworkSpec;
use crate::spec::ServiceSpec;
use crate::spec::VolumeSpec;

/// What to do, in an order that satisfies every `needs` and `after`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub warnings: Vec<String>,
    /// Names of containers that are as they should be.
    pub unchanged: Vec<String>,
}

/// One step. Its id is its index in [`Plan::steps`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub id: usize,
    pub op: Op,
    pub reason: Reason,
    /// Must have succeeded before.
    pub needs: Vec<usize>,
    /// Must have ended before, one way or the other.
    pub after: Vec<usize>,
    /// The step in one line, without its reason.
    pub text: String,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Makes a network; an external one is looked for and noted.
    CreateNetwork {
        key: String,
        spec: NetworkSpec,
    },
    RemoveNetwork {
        key: String,
        name: String,
    },
    /// Makes a volume; an external one is looked for and noted.
    CreateVolume {
        key: String,
        spec: VolumeSpec,
    },
    RemoveVolume {
        name: String,
    },
    Create {
        name: String,
        /// Replica number from 1; 0 for a one-off container.
        number: u32,
        service: Box<ServiceSpec>,
        /// Takes over the anonymous volumes of this one.
        replaces: Option<ContainerId>,
        /// Another container is removed for this one.
        recreate: bool,
    },
    Start {
        name: String,
    },
    /// Signal, grace period, SIGKILL.
    Stop {
        id: ContainerId,
        name: String,
        signal: String,
        grace: Duration,
        /// To be followed by a new container in its place.
        recreate: bool,
    },
    /// Signal, grace period, SIGKILL, and the same container again.
    Restart {
        id: ContainerId,
        name: String,
        signal: String,
        grace: Duration,
    },
    Kill {
        id: ContainerId,
        name: String,
        signal: String,
    },
    /// Freezes a container, or lets it go on.
    Pause {
        id: ContainerId,
        name: String,
        pause: bool,
    },
    Remove {
        id: ContainerId,
        name: String,
        volumes: bool,
    },
    /// Removes a container that an earlier step has made, with its anonymous volumes.
    Discard {
        name: String,
    },
    /// Holds what needs it until the containers of `service` meet `condition`.
    Wait {
        service: String,
        condition: Condition,
        /// False: a failure is a warning only.
        required: bool,
        containers: Vec<String>,
    },
}

/// Why a step is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It does not exist.
    Missing,
    Changed {
        fields: Vec<FieldChange>,
    },
    ImageChanged {
        old: String,
        new: String,
    },
    NetworkChanged {
        network: String,
    },
    /// It has been taken off a network that the file has it on.
    NetworkLeft {
        network: String,
    },
    Forced,
    DependencyRecreated {
        service: String,
    },
    /// It is in the namespaces of an earlier run of the service's.
    NamespacesLeft {
        service: String,
    },
    NeverStarted,
    Stopped {
        code: i32,
    },
    /// More containers than wanted.
    Surplus {
        wanted: u32,
    },
    Orphan,
    /// The command asks for it.
    Asked,
    /// A container waits for it.
    Dependency,
    /// `pre_start` of a service that is about to be started.
    Hook {
        service: String,
    },
    /// It follows from an earlier step.
    Follows,
}

/// A field of the configuration that differs. `None`: not set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Dotted path, such as `environment.MODE`.
    pub field: String,
    pub old: Option<serde_json::Value>,
    pub new: Option<serde_json::Value>,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<serde_json::Value>| match value {
            Some(value) => value.to_string(),
            None => "(unset)".to_owned(),
        };
        write!(f, "{}: {} -> {}", self.field, show(&self.old), show(&self.new))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::Changed { fields } => {
                f.write_str("its configuration changed")?;
                fields.iter().try_for_each(|field| write!(f, "\n    {field}"))
            }
            Self::ImageChanged { old, new } => write!(f, "its image changed: {old} -> {new}"),
            Self::NetworkChanged { network } => write!(f, "network `{network}` is recreated"),
            Self::NetworkLeft { network } => write!(f, "it is not on network `{network}` any more"),
            Self::Forced => f.write_str("recreation was asked for"),
            Self::DependencyRecreated { service } => write!(f, "`{service}` is recreated"),
            Self::NamespacesLeft { service } => write!(f, "it is in namespaces that `{service}` has left"),
            Self::NeverStarted => f.write_str("it was created but not started"),
            Self::Stopped { code } => write!(f, "it is not running (exit status {code})"),
            Self::Surplus { wanted } => write!(f, "only {wanted} wanted"),
            Self::Orphan => f.write_str("its service is not in the project"),
            Self::Asked => f.write_str("asked for"),
            Self::Dependency => f.write_str("something that starts depends on it"),
            Self::Hook { service } => write!(f, "`pre_start` of `{service}`"),
            Self::Follows => Ok(()),
        }
    }
}

impl Op {
    /// Progress id (`Container NAME`) and docker compose's words for it: when it begins and when it is done.
    pub fn words(&self) -> (String, &'static str, &'static str) {
        let container = |name: &String| format!("Container {name}");
        match self {
            Self::CreateNetwork { spec, .. } if spec.external => {
                (format!("Network {}", spec.name), "Looking up", "Found")
            }
            Self::CreateVolume { spec, .. } if spec.external => {
                (format!("Volume {}", spec.name), "Looking up", "Found")
            }
            Self::CreateNetwork { spec, .. } => (format!("Network {}", spec.name), "Creating", "Created"),
            Self::RemoveNetwork { name, .. } => (format!("Network {name}"), "Removing", "Removed"),
            Self::CreateVolume { spec, .. } => (format!("Volume {}", spec.name), "Creating", "Created"),
            Self::RemoveVolume { name } => (format!("Volume {name}"), "Removing", "Removed"),
            Self::Create { name, recreate: true, .. } => (container(name), "Recreate", "Recreated"),
            Self::Create { name, .. } => (container(name), "Creating", "Created"),
            Self::Start { name } => (container(name), "Starting", "Started"),
            Self::Stop { name, .. } => (container(name), "Stopping", "Stopped"),
            Self::Restart { name, .. } => (container(name), "Restarting", "Started"),
            Self::Kill { name, .. } => (container(name), "Killing", "Killed"),
            Self::Pause { name, pause: true, .. } => (container(name), "Pausing", "Paused"),
            Self::Pause { name, pause: false, .. } => (container(name), "Unpausing", "Unpaused"),
            Self::Remove { name, .. } | Self::Discard { name } => (container(name), "Removing", "Removed"),
            Self::Wait { containers, condition, service, .. } => {
                let id = containers.first().map_or_else(|| service.clone(), container);
                let met = if *condition == Condition::ServiceCompletedSuccessfully { "Exited" } else { "Healthy" };
                (id, "Waiting", met)
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::CreateNetwork { spec, .. } if spec.external => format!("find external network {}", spec.name),
            Self::CreateVolume { spec, .. } if spec.external => format!("find external volume {}", spec.name),
            Self::CreateNetwork { spec, .. } => format!("create network {}", spec.name),
            Self::RemoveNetwork { name, .. } => format!("remove network {name}"),
            Self::CreateVolume { spec, .. } => format!("create volume {}", spec.name),
            Self::RemoveVolume { name } => format!("remove volume {name}"),
            Self::Create { name, recreate: false, .. } => format!("create container {name}"),
            Self::Create { name, recreate: true, .. } => format!("recreate container {name}"),
            Self::Start { name } => format!("start container {name}"),
            Self::Stop { name, .. } => format!("stop container {name}"),
            Self::Restart { name, .. } => format!("restart container {name}"),
            Self::Kill { name, signal, .. } => format!("send {signal} to container {name}"),
            Self::Pause { name, pause: true, .. } => format!("pause container {name}"),
            Self::Pause { name, pause: false, .. } => format!("unpause container {name}"),
            Self::Remove { name, .. } | Self::Discard { name } => format!("remove container {name}"),
            Self::Wait { service, condition: Condition::ServiceHealthy, .. } => {
                format!("wait until `{service}` is healthy")
            }
            Self::Wait { service, condition: Condition::ServiceCompletedSuccessfully, .. } => {
                format!("wait until `{service}` has completed")
            }
            Self::Wait { service, .. } => format!("wait until `{service}` has started"),
        }
    }
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The plan as text, one step after the other, each with its reason; fields that changed are indented below.
    pub fn lines(&self) -> Vec<String> {
        let line = |step: &Step| match step.reason.to_string() {
            reason if reason.is_empty() => step.text.clone(),
            reason => format!("{}: {reason}", step.text),
        };
        self.steps.iter().flat_map(|step| line(step).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    pub(super) fn push(&mut self, op: Op, reason: Reason, needs: Vec<usize>) -> usize {
        let id = self.steps.len();
        let text = op.text();
        self.steps.push(Step { id, op, reason, needs, after: Vec::new(), text });
        id
    }
}
