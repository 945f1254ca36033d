//! One step against the machine.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::base::ids::ContainerId;
use crate::runtime::NewContainer;
use crate::runtime::Runtime;
use crate::runtime::RuntimeError;
use crate::spec::ContainerState;
use crate::spec::NetworkSpec;
use crate::spec::VolumeSpec;

/// How long a container may take to be gone after SIGKILL.
const KILLED: Duration = Duration::from_secs(10);

/// A step, with what the reconciler knows filled in.
pub(super) enum Work {
    CreateNetwork { key: String, spec: NetworkSpec },
    RemoveNetwork { key: String },
    CreateVolume { key: String, spec: VolumeSpec },
    RemoveVolume { name: String },
    Create(Box<NewContainer>),
    Start { id: ContainerId },
    Stop { id: ContainerId, signal: String, grace: Duration, ended: watch::Receiver<bool> },
    Kill { id: ContainerId, signal: String, stops: bool, ended: watch::Receiver<bool> },
    Remove { id: ContainerId, volumes: bool },
}

/// What a step changed about containers.
pub(super) enum Outcome {
    Nothing,
    Made(Box<ContainerState>),
    Removed(ContainerId),
}

pub(super) async fn execute<R: Runtime>(runtime: Rc<R>, work: Work) -> Result<Outcome, RuntimeError> {
    match work {
        Work::CreateNetwork { key, spec } => runtime.create_network(key, spec).await?,
        Work::RemoveNetwork { key } => runtime.remove_network(key).await?,
        Work::CreateVolume { key, spec } => runtime.create_volume(key, spec).await?,
        Work::RemoveVolume { name } => runtime.remove_volume(name).await?,
        Work::Create(new) => return runtime.create_container(*new).await.map(|state| Outcome::Made(Box::new(state))),
        Work::Start { id } => return runtime.start_container(id, 0).await.map(|state| Outcome::Made(Box::new(state))),
        Work::Stop { id, signal, grace, ended } => stop(&*runtime, id, signal, grace, ended).await?,
        Work::Kill { id, signal, stops, ended } => kill(&*runtime, id, signal, stops, ended).await?,
        Work::Remove { id, volumes } => {
            runtime.remove_container(id.clone(), volumes).await?;
            return Ok(Outcome::Removed(id));
        }
    }
    Ok(Outcome::Nothing)
}

async fn stop<R: Runtime>(
    runtime: &R,
    id: ContainerId,
    signal: String,
    grace: Duration,
    mut ended: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    runtime.mark_stopped(id.clone(), true).await?;
    runtime.signal_container(id.clone(), signal).await?;
    if timeout(grace, ended.wait_for(|ended| *ended)).await.is_ok() {
        return Ok(());
    }
    runtime.signal_container(id, "SIGKILL".to_owned()).await?;
    gone(ended).await
}

pub(super) async fn kill<R: Runtime>(
    runtime: &R,
    id: ContainerId,
    signal: String,
    stops: bool,
    ended: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    if stops {
        runtime.mark_stopped(id.clone(), true).await?;
    }
    let fatal = is_sigkill(&signal);
    runtime.signal_container(id, signal).await?;
    if fatal { gone(ended).await } else { Ok(()) }
}

pub(super) fn is_sigkill(signal: &str) -> bool {
    matches!(signal, "SIGKILL" | "KILL" | "9")
}

async fn gone(mut ended: watch::Receiver<bool>) -> Result<(), RuntimeError> {
    match timeout(KILLED, ended.wait_for(|ended| *ended)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(RuntimeError {
            message: format!("it did not end within {} s of SIGKILL", KILLED.as_secs()),
            help: Some("a process in it hangs in the kernel, on a dead network file system perhaps".to_owned()),
        }),
    }
}
