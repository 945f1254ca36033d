//! What an OCI runtime's caller may put between a container's creation and its start: hooks, and a gate before the program.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{Hook as OciHook, Hooks, Spec};

use crate::engine::lower::Slots;
use crate::init::{Hook, Slot, Step};

/// How a container of an OCI runtime comes to life.
#[derive(Debug)]
pub struct Lifecycle {
    /// For hooks: the state of the runtime specification as JSON, without the pid.
    pub state: String,
    /// FIFOs, for the byte that starts the program and for what becomes of that; `None`: it is started at once.
    pub gate: Option<(OwnedFd, OwnedFd)>,
}

/// What is left of a [`Lifecycle`] after the root has been changed.
pub(super) struct Gate {
    state: String,
    slots: Option<(Slot, Slot)>,
}

impl Lifecycle {
    pub(super) fn before_pivot(self, spec: &Spec, slots: &mut Slots, steps: &mut Vec<Step>) -> Gate {
        if has_hooks_of_the_parent(spec) {
            steps.push(Step::Rendezvous);
        }
        let all = spec.hooks().as_ref();
        let hooks = all.map_or(Vec::new(), |all| hooks(all.create_container(), &own_environment()));
        steps.extend(run("createContainer", hooks, "creating", &self.state));
        let slots = self.gate.map(|(start, result)| (slots.add(start), slots.add(result)));
        Gate { state: self.state, slots }
    }
}

fn is_empty(hooks: &Option<Vec<OciHook>>) -> bool {
    hooks.as_ref().is_none_or(Vec::is_empty)
}

/// Hooks that the runtime itself runs while the container waits.
fn has_hooks_of_the_parent(spec: &Spec) -> bool {
    #[allow(deprecated, reason = "callers still use it")]
    let prestart = Hooks::prestart;
    spec.hooks().as_ref().is_some_and(|hooks| !is_empty(prestart(hooks)) || !is_empty(hooks.create_runtime()))
}

/// Whether there are hooks that run when the mounts are made and the root has not been changed: they find the container's
/// root under its path in the container's mount namespace, and what they mount there stays.
pub(super) fn looks_for_the_root(spec: &Spec) -> bool {
    has_hooks_of_the_parent(spec) || spec.hooks().as_ref().is_some_and(|hooks| !is_empty(hooks.create_container()))
}

impl Gate {
    /// Returns the hooks that run in the container, as confined as its program.
    pub(super) fn before_program(self, spec: &Spec, steps: &mut Vec<Step>) -> Option<Step> {
        steps.extend(self.slots.map(|(start, result)| Step::AwaitStart { start, result }));
        let environment = spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
        let start_container = spec.hooks().as_ref().map_or(Vec::new(), |all| hooks(all.start_container(), environment));
        run("startContainer", start_container, "created", &self.state)
    }
}

fn run(kind: &str, hooks: Vec<Hook>, status: &str, state: &str) -> Option<Step> {
    let (status, state) = (status.to_owned(), state.to_owned());
    (!hooks.is_empty()).then(|| Step::Hooks { kind: kind.to_owned(), hooks, status, state })
}

/// One of the specification's lists of hooks. Those that name no environment get the `inherited` one, as with runc and crun.
pub fn hooks(list: &Option<Vec<OciHook>>, inherited: &[String]) -> Vec<Hook> {
    let hooks = list.iter().flatten();
    let hooks = hooks.map(|hook| Hook {
        path: hook.path().clone(),
        args: hook.args().clone().unwrap_or_default(),
        env: hook.env().clone().unwrap_or_else(|| inherited.to_vec()),
        timeout: hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0),
    });
    hooks.collect()
}

/// This process's.
pub fn own_environment() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?))).collect()
}
