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
        let of = |list: fn(&Hooks) -> &Option<Vec<OciHook>>| {
            spec.hooks().as_ref().map_or(Vec::new(), |all| hooks(list(all), &own_environment()))
        };
        #[allow(deprecated, reason = "callers still use it")]
        let for_parent = !of(Hooks::prestart).is_empty() || !of(Hooks::create_runtime).is_empty();
        if for_parent {
            steps.push(Step::Rendezvous);
        }
        run(of(Hooks::create_container), "creating", &self.state, steps);
        let slots = self.gate.map(|(start, result)| (slots.add(start), slots.add(result)));
        Gate { state: self.state, slots }
    }
}

impl Gate {
    pub(super) fn before_program(self, spec: &Spec, steps: &mut Vec<Step>) {
        steps.extend(self.slots.map(|(start, result)| Step::AwaitStart { start, result }));
        let environment = spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
        let start_container = spec.hooks().as_ref().map_or(Vec::new(), |all| hooks(all.start_container(), environment));
        run(start_container, "created", &self.state, steps);
    }
}

fn run(hooks: Vec<Hook>, status: &str, state: &str, steps: &mut Vec<Step>) {
    if !hooks.is_empty() {
        steps.push(Step::Hooks { hooks, status: status.to_owned(), state: state.to_owned() });
    }
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
