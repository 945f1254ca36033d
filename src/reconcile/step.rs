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
use crate::spec::HookSpec;
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
    Stop { id: ContainerId, hooks: Vec<HookSpec>, signal: String, grace: Duration, ended: watch::Receiver<bool> },
    Restart { id: ContainerId, hooks: Vec<HookSpec>, signal: String, grace: Duration, ended: watch::Receiver<bool> },
    Kill { id: ContainerId, signal: String, stops: bool, ended: watch::Receiver<bool> },
    Pause { id: ContainerId, pause: bool },
    Remove { id: ContainerId, volumes: bool },
}

/// What a step changed about containers.
pub(super) enum Outcome {
    Nothing,
    Made(Box<ContainerState>),
    /// It runs, but what belongs to its start has failed.
    Spoilt(Box<ContainerState>, RuntimeError),
    Removed(ContainerId),
}

pub(super) async fn execute<R: Runtime>(runtime: Rc<R>, work: Work) -> Result<Outcome, RuntimeError> {
    match work {
        Work::CreateNetwork { key, spec } => runtime.create_network(key, spec).await?,
        Work::RemoveNetwork { key } => runtime.remove_network(key).await?,
        Work::CreateVolume { key, spec } => runtime.create_volume(key, spec).await?,
        Work::RemoveVolume { name } => runtime.remove_volume(name).await?,
        Work::Create(new) => return runtime.create_container(*new).await.map(|state| Outcome::Made(Box::new(state))),
        Work::Start { id } => return start(&*runtime, id).await,
        Work::Pause { id, pause } => {
            return runtime.pause_container(id, pause).await.map(|state| Outcome::Made(Box::new(state)));
        }
        Work::Stop { id, hooks, signal, grace, ended } => {
            say_goodbye(&*runtime, &id, hooks).await;
            stop(&*runtime, id, signal, grace, ended).await?;
        }
        Work::Restart { id, hooks, signal, grace, ended } => {
            say_goodbye(&*runtime, &id, hooks).await;
            stop(&*runtime, id.clone(), signal, grace, ended).await?;
            return start(&*runtime, id).await;
        }
        Work::Kill { id, signal, stops, ended } => kill(&*runtime, id, signal, stops, ended).await?,
        Work::Remove { id, volumes } => {
            runtime.remove_container(id.clone(), volumes).await?;
            return Ok(Outcome::Removed(id));
        }
    }
    Ok(Outcome::Nothing)
}

async fn start<R: Runtime>(runtime: &R, id: ContainerId) -> Result<Outcome, RuntimeError> {
    let state = Box::new(runtime.start_container(id.clone(), 0).await?);
    match run_hooks(runtime, &id, "post_start", state.service.post_start.clone()).await {
        Ok(()) => Ok(Outcome::Made(state)),
        Err(error) => Ok(Outcome::Spoilt(state, error)),
    }
}

/// One after the other; the first that fails is the last.
async fn run_hooks<R: Runtime>(
    runtime: &R,
    id: &ContainerId,
    moment: &str,
    hooks: Vec<HookSpec>,
) -> Result<(), RuntimeError> {
    for hook in hooks {
        let words = hook.command.join(" ");
        let ran = runtime.run_hook(id.clone(), hook).await?;
        if ran.code != Some(0) {
            let end = ran.code.map_or_else(|| "was lost".to_owned(), |code| format!("exited with status {code}"));
            let output = ran.output.trim_end();
            let help = (!output.is_empty()).then(|| format!("its output:\n{output}"));
            return Err(RuntimeError { message: format!("the `{moment}` hook `{words}` {end}"), help });
        }
    }
    Ok(())
}

/// Hooks that fail keep no container from being stopped.
async fn say_goodbye<R: Runtime>(runtime: &R, id: &ContainerId, hooks: Vec<HookSpec>) {
    if let Err(error) = run_hooks(runtime, id, "pre_stop", hooks).await {
        let help = error.help.map(|help| format!("; {help}")).unwrap_or_default();
        runtime.notice(&format!("{}{help}", error.message));
    }
}

async fn stop<R: Runtime>(
    runtime: &R,
    id: ContainerId,
    signal: String,
    grace: Duration,
    ended: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    runtime.mark_stopped(id.clone(), true).await?;
    end(runtime, id, signal, grace, ended).await
}

/// Ends a container that is to join the namespaces of `service` anew.
pub(super) async fn part<R: Runtime>(
    runtime: &R,
    id: ContainerId,
    service: String,
    signal: String,
    grace: Duration,
    ended: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    runtime.mark_rejoins(id.clone(), service).await?;
    end(runtime, id, signal, grace, ended).await
}

/// Signal, grace period, SIGKILL.
async fn end<R: Runtime>(
    runtime: &R,
    id: ContainerId,
    signal: String,
    grace: Duration,
    mut ended: watch::Receiver<bool>,
) -> Result<(), RuntimeError> {
    runtime.signal_container(id.clone(), signal).await?;
    if timeout(grace, ended.wait_for(|ended| *ended)).await.is_ok() {
        return Ok(());
    }
    runtime.signal_container(id.clone(), "SIGKILL".to_owned()).await?;
    gone(runtime, &id, ended).await
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
    runtime.signal_container(id.clone(), signal).await?;
    if fatal { gone(runtime, &id, ended).await } else { Ok(()) }
}

pub(super) fn is_sigkill(signal: &str) -> bool {
    matches!(signal, "SIGKILL" | "KILL" | "9")
}

/// Waits for the end. One that has come, and only has not been dealt with, takes as long as its hooks and others' ends take.
async fn gone<R: Runtime>(runtime: &R, id: &ContainerId, mut ended: watch::Receiver<bool>) -> Result<(), RuntimeError> {
    while timeout(KILLED, ended.wait_for(|ended| *ended)).await.is_err() {
        if !runtime.is_ending(id) {
            return Err(RuntimeError {
                message: format!("it did not end within {} s of SIGKILL", KILLED.as_secs()),
                help: Some("a process in it hangs in the kernel, on a dead network file system perhaps".to_owned()),
            });
        }
    }
    Ok(())
}
