//! The one seam: what the reconciler needs of the machine. Implemented by the supervisor, and by a simulation in tests.
//!
//! Every operation is idempotent as far as it can be: creating what is there or removing what is gone succeeds.

use std::future::Future;
use std::time::Duration;

use crate::base::ids::ContainerId;
use crate::spec::ContainerState;
use crate::spec::Exit;
use crate::spec::HealthSpec;
use crate::spec::HookSpec;
use crate::spec::NetworkSpec;
use crate::spec::Observed;
use crate::spec::ServiceSpec;
use crate::spec::VolumeSpec;

/// A container to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewContainer {
    pub name: String,
    /// Replica number from 1; 0 for a one-off container.
    pub number: u32,
    pub service: ServiceSpec,
    /// Takes over the anonymous volumes of this one.
    pub replaces: Option<ContainerId>,
}

/// Something that happened without being asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum RuntimeEvent {
    Exited { id: ContainerId, exit: Exit },
}

/// Outcome of one health probe or hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Exit status; `None`: it ran into its timeout.
    pub code: Option<i32>,
    /// The first 4 KiB it printed.
    pub output: String,
    pub took: Duration,
}

/// An operation that failed, told so that a person can act on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// What went wrong, lower case, the causes joined with `: `.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// The machine, as the reconciler sees it.
pub trait Runtime: 'static {
    /// What exists now; `images` are the references to resolve for [`Observed::images`].
    fn observe(&self, images: Vec<String>) -> impl Future<Output = Result<Observed, RuntimeError>>;

    /// Checks what can be checked before anything is changed: images there, ports free (naming the holder), bind
    /// sources there. All problems, not the first one. `going` are removed before anything is started.
    fn preflight(
        &self,
        containers: &[NewContainer],
        going: &[ContainerId],
    ) -> impl Future<Output = Result<(), Vec<RuntimeError>>>;

    /// Makes a network, of the project's file under `key`.
    fn create_network(&self, key: String, spec: NetworkSpec) -> impl Future<Output = Result<(), RuntimeError>>;
    /// Removes a network that nothing uses any more.
    fn remove_network(&self, key: String) -> impl Future<Output = Result<(), RuntimeError>>;
    /// Makes a volume, of the project's file under `key`.
    fn create_volume(&self, key: String, spec: VolumeSpec) -> impl Future<Output = Result<(), RuntimeError>>;
    /// `name` is the volume's name on the host.
    fn remove_volume(&self, name: String) -> impl Future<Output = Result<(), RuntimeError>>;

    /// Makes the container's record and directories; nothing runs yet.
    fn create_container(&self, new: NewContainer) -> impl Future<Output = Result<ContainerState, RuntimeError>>;
    /// Connects and starts it; ends when its program has been executed (or could not be). `restarts` is noted as
    /// [`ContainerState::restarts`]: 0 when a command starts it, else how often its policy has.
    /// That it was stopped by command is forgotten in the same moment in which it is noted to run.
    fn start_container(
        &self,
        id: ContainerId,
        restarts: u32,
    ) -> impl Future<Output = Result<ContainerState, RuntimeError>>;
    /// Freezes a running container, or lets it go on; `Ok` when it is so already.
    fn pause_container(
        &self,
        id: ContainerId,
        pause: bool,
    ) -> impl Future<Output = Result<ContainerState, RuntimeError>>;
    /// Sends a signal to its first process; `Ok` when it has ended already.
    fn signal_container(&self, id: ContainerId, signal: String) -> impl Future<Output = Result<(), RuntimeError>>;
    /// Whether its first process has ended, and [`RuntimeEvent::Exited`] is still to come.
    fn is_ending(&self, id: &ContainerId) -> bool;
    /// Notes that the container is stopped by command (or no longer is), so that policies leave it alone after a restart of ours.
    fn mark_stopped(&self, id: ContainerId, stopped: bool) -> impl Future<Output = Result<(), RuntimeError>>;
    /// Notes that the container is to be started again once it has ended, to be in the namespaces that `service` is in now.
    fn mark_rejoins(&self, id: ContainerId, service: String) -> impl Future<Output = Result<(), RuntimeError>>;
    /// Removes an ended container with its anonymous volumes when `volumes`.
    fn remove_container(&self, id: ContainerId, volumes: bool) -> impl Future<Output = Result<(), RuntimeError>>;

    /// Runs a health probe inside the container; ends it when it takes longer than its timeout.
    fn probe(&self, id: ContainerId, health: HealthSpec) -> impl Future<Output = Result<Probe, RuntimeError>>;
    /// Runs a hook inside the container, however long it takes.
    fn run_hook(&self, id: ContainerId, hook: HookSpec) -> impl Future<Output = Result<Probe, RuntimeError>>;
    /// Tells whoever has asked for the change.
    fn notice(&self, message: &str);
    /// Notes the health, for whoever looks at the state on disk.
    fn record_health(
        &self,
        id: ContainerId,
        health: crate::spec::Health,
    ) -> impl Future<Output = Result<(), RuntimeError>>;
    /// The last lines the container printed, for error messages.
    fn last_output(&self, id: ContainerId, lines: usize) -> impl Future<Output = Vec<String>>;

    /// Waits for the next thing that happens. `None`: the machine is gone (shutdown).
    fn next_event(&self) -> impl Future<Output = Option<RuntimeEvent>>;
}
