//! Hooks of the runtime specification, which CDI files ask for: those that run outside of the container.

use oci_spec::runtime::{Hook, Hooks, Spec};
use tokio::sync::oneshot;

use crate::base::ids::ContainerId;
use crate::engine::lower;
use crate::init;
use crate::runtime::RuntimeError;
use crate::state::ContainerConfig;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::Host;

/// One of the specification's lists.
type Kind = fn(&Hooks) -> &Option<Vec<Hook>>;

impl Host {
    /// What hooks get to read, but for status and pid.
    pub(super) fn state_for_hooks(&self, id: &ContainerId, spec: &Spec) -> String {
        serde_json::json!({
            "ociVersion": spec.version(),
            "id": id.as_str(),
            "bundle": self.dir.container(id),
            "annotations": spec.annotations().clone().unwrap_or_default(),
        })
        .to_string()
    }

    /// Waits until the mounts of a starting container are made, and runs what belongs there. The container goes on after that,
    /// or is ended.
    pub(super) async fn run_hooks_at_creation(
        &self,
        id: &ContainerId,
        spec: &Spec,
        mounted: oneshot::Receiver<i32>,
    ) -> Result<(), RuntimeError> {
        // Otherwise the launch has failed, which is told.
        let Ok(pid) = mounted.await else { return Ok(()) };
        #[allow(deprecated, reason = "CDI files still name it")]
        let prestart = Hooks::prestart;
        let mut ran = self.run_hooks(id, spec, prestart, ("creating", Some(pid))).await;
        if ran.is_ok() {
            ran = self.run_hooks(id, spec, Hooks::create_runtime, ("creating", Some(pid))).await;
        }
        let told = match &ran {
            Ok(()) => self.link.go_on(id.as_str()),
            Err(_) => self.link.signal(id.as_str(), libc::SIGKILL),
        };
        ran.and(told.map_err(|error| because("the keeper could not be reached", &error)))
    }

    /// As the specification has it, their failures are noted and the container goes on.
    pub(super) async fn run_poststart_hooks(&self, id: &ContainerId, spec: &Spec, pid: i32) {
        if let Err(error) = self.run_hooks(id, spec, Hooks::poststart, ("running", Some(pid))).await {
            self.warn(&error.message);
        }
    }

    /// The same after the container's end.
    pub(super) async fn run_poststop_hooks(&self, config: &ContainerConfig) {
        // Another runtime runs them itself; and without CDI there are none, so that nothing need be read.
        let container = &config.service.container;
        if container.cdi.is_empty() || container.runtime.is_some() {
            return;
        }
        let ran = match self.spec(&config.id) {
            Ok(spec) => self.run_hooks(&config.id, &spec, Hooks::poststop, ("stopped", None)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ran {
            self.warn(&error.message);
        }
    }

    async fn run_hooks(
        &self,
        id: &ContainerId,
        spec: &Spec,
        kind: Kind,
        (status, pid): (&str, Option<i32>),
    ) -> Result<(), RuntimeError> {
        let hooks = spec.hooks().as_ref().map_or(Vec::new(), |all| lower::hooks(kind(all), &lower::own_environment()));
        if hooks.is_empty() {
            return Ok(());
        }
        let state = init::state_json(&self.state_for_hooks(id, spec), status, pid)
            .map_err(|error| because("cannot write the state for hooks", &error))?;
        let ran = tokio::task::spawn_blocking(move || hooks.iter().try_for_each(|hook| init::run_hook(hook, &state)));
        match ran.await {
            Ok(ran) => ran.map_err(|error| because("a CDI file's hook failed", &error)),
            Err(error) => Err(failure(format!("a CDI file's hook could not be run: {error}"))),
        }
    }
}
