//! `down`, `stop`, `restart`, `kill` and `rm`: what must end and go, dependents before what they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::graph;
use super::relations::{networks_of, parents_of, volumes_of};
use super::step::{Op, Plan, Reason};
use super::{Orphans, PlanError};
use crate::spec::ContainerState;
use crate::spec::Observed;
use crate::spec::Phase;
use crate::spec::ProjectSpec;

pub(super) struct Down<'a> {
    pub(super) services: &'a [String],
    pub(super) volumes: bool,
    pub(super) orphans: Orphans,
    pub(super) timeout: Option<Duration>,
}

impl Down<'_> {
    pub(super) fn plan(&self, project: Option<&ProjectSpec>, observed: &Observed) -> Result<Plan, PlanError> {
        let mut plan = Plan::default();
        let mut spared = BTreeSet::new();
        if let Some(project) = project {
            let declared = project.services.keys().chain(&project.disabled_services).map(String::as_str);
            graph::known(self.services, declared)?;
            let foreign = unknown_services(project, observed);
            if self.orphans != Orphans::Remove {
                spared.extend(foreign.iter().map(|container| container.name.as_str()));
                plan.warnings.extend(orphan_warning(&foreign, self.orphans));
            }
            if self.services.is_empty() {
                let disabled = |c: &&ContainerState| project.disabled_services.contains(&c.service.name);
                let inactive: Vec<&str> =
                    observed.containers.iter().filter(disabled).map(|c| c.name.as_str()).collect();
                plan.warnings.extend(inactive_warning(&inactive));
                spared.extend(inactive);
            }
        }
        let asked = |c: &&ContainerState| {
            let orphan = project.is_some_and(|p| is_unknown(p, c)) && self.orphans == Orphans::Remove;
            (self.services.is_empty() || self.services.contains(&c.service.name) || orphan)
                && !spared.contains(c.name.as_str())
        };
        let (going, staying): (Vec<_>, Vec<_>) = observed.containers.iter().partition(asked);
        let stops = stop_all(&mut plan, going.iter().copied().filter(goes_on), self.timeout, &Reason::Asked);
        let mut removals = Vec::new();
        for container in &going {
            let needs = stops.get(container.name.as_str()).copied().into_iter().collect::<Vec<_>>();
            let reason = if needs.is_empty() { Reason::Asked } else { Reason::Follows };
            // Anonymous volumes belong to nobody else once their container is gone.
            let op = Op::Remove { id: container.id.clone(), name: container.name.clone(), volumes: self.volumes };
            removals.push(plan.push(op, reason, needs));
        }
        self.resources(&mut plan, project, observed, &staying, &removals);
        Ok(plan)
    }

    fn resources(
        &self,
        plan: &mut Plan,
        project: Option<&ProjectSpec>,
        observed: &Observed,
        staying: &[&ContainerState],
        removals: &[usize],
    ) {
        for (key, spec) in &observed.networks {
            if project.and_then(|project| project.networks.get(key)).is_some_and(|spec| spec.external) {
                continue;
            }
            let name = spec.name.clone();
            if staying.iter().any(|container| networks_of(&container.service).any(|used| used == key)) {
                plan.warnings.push(format!("network {name}: resource is still in use"));
                continue;
            }
            plan.push(Op::RemoveNetwork { key: key.clone(), name }, Reason::Asked, removals.to_vec());
        }
        for (key, spec) in observed.volumes.iter().filter(|(_, spec)| self.volumes && !spec.external) {
            // What the file declares external by now, or not at all, is not ours any more.
            if project.is_some_and(|project| project.volumes.get(key).is_none_or(|spec| spec.external)) {
                continue;
            }
            let name = &spec.name;
            if staying.iter().any(|container| volumes_of(&container.service).any(|used| used == key)) {
                plan.warnings.push(format!("volume {name}: resource is still in use"));
                continue;
            }
            plan.push(Op::RemoveVolume { name: name.clone() }, Reason::Asked, removals.to_vec());
        }
    }
}

pub(super) fn stop(services: &[String], timeout: Option<Duration>, observed: &Observed) -> Plan {
    let mut plan = Plan { warnings: without_containers(services, observed), ..Plan::default() };
    // What its policy is about to start again is stopped, too.
    let asked = replicas(services, observed).filter(goes_on);
    stop_all(&mut plan, asked, timeout, &Reason::Asked);
    plan
}

pub(super) fn kill(services: &[String], signal: &str, observed: &Observed) -> Plan {
    let mut plan = Plan { warnings: without_containers(services, observed), ..Plan::default() };
    for container in selected(services, observed).filter(goes_on) {
        let op = Op::Kill { id: container.id.clone(), name: container.name.clone(), signal: signal.to_owned() };
        plan.push(op, Reason::Asked, Vec::new());
    }
    plan
}

pub(super) fn pause(services: &[String], pause: bool, observed: &Observed) -> Plan {
    let mut plan = Plan { warnings: without_containers(services, observed), ..Plan::default() };
    let meant = |container: &&ContainerState| match container.phase {
        Phase::Running { paused, .. } => paused != pause,
        _ => false,
    };
    for container in replicas(services, observed).filter(meant) {
        let op = Op::Pause { id: container.id.clone(), name: container.name.clone(), pause };
        plan.push(op, Reason::Asked, Vec::new());
    }
    plan
}

pub(super) fn remove(services: &[String], stop: bool, volumes: bool, observed: &Observed) -> Plan {
    let mut plan = Plan { warnings: without_containers(services, observed), ..Plan::default() };
    let asked: Vec<_> = replicas(services, observed).filter(|container| stop || !is_running(container)).collect();
    let stops = stop_all(&mut plan, asked.iter().copied().filter(goes_on), None, &Reason::Asked);
    for container in asked {
        let needs = stops.get(container.name.as_str()).copied().into_iter().collect::<Vec<_>>();
        let reason = if needs.is_empty() { Reason::Asked } else { Reason::Follows };
        plan.push(Op::Remove { id: container.id.clone(), name: container.name.clone(), volumes }, reason, needs);
    }
    plan
}

/// Stops and starts the containers, and with them those of services that want to be restarted along.
pub(super) fn restart(
    requested_at: i64,
    services: &[String],
    timeout: Option<Duration>,
    no_deps: bool,
    observed: &Observed,
) -> Plan {
    let mut plan = Plan { warnings: without_containers(services, observed), ..Plan::default() };
    let replicas = || observed.containers.iter().filter(|container| container.number > 0);
    let mut names: BTreeSet<&str> = selected(services, observed).map(|c| c.service.name.as_str()).collect();
    let along = |names: &BTreeSet<&str>, container: &ContainerState| {
        container.service.depends_on.iter().any(|(name, how)| how.restart && names.contains(name.as_str()))
    };
    loop {
        let more = replicas().filter(|c| !no_deps && !names.contains(c.service.name.as_str()) && along(&names, c));
        let more: Vec<&str> = more.map(|container| container.service.name.as_str()).collect();
        if more.is_empty() {
            break;
        }
        names.extend(more);
    }
    let undone = |container: &&ContainerState| match container.phase {
        Phase::Created => true,
        Phase::Running { started_at, .. } => started_at < requested_at,
        Phase::Exited(exit) => container.stopped_by_user || exit.at < requested_at,
    };
    let asked: Vec<_> = replicas().filter(|c| names.contains(c.service.name.as_str())).filter(undone).collect();
    let mut steps = BTreeMap::<&str, Vec<usize>>::new();
    let mut left = asked;
    while !left.is_empty() {
        // All at once, but for those that want to be restarted after what they depend on, or live in its namespaces.
        let along = |container: &ContainerState, other: &str| {
            let follows = container.service.depends_on.get(other).is_some_and(|how| how.restart);
            (follows && !no_deps) || parents_of(&container.service).any(|parent| parent == other)
        };
        let waits = |container: &&ContainerState| left.iter().any(|other| along(container, &other.service.name));
        let (mut later, mut now): (Vec<_>, Vec<_>) = left.iter().copied().partition(waits);
        if now.is_empty() {
            // What exists may be older than the file, and go round in a circle.
            std::mem::swap(&mut later, &mut now);
        }
        for container in now {
            let op = match container.phase {
                Phase::Running { .. } => restart_op(container, timeout),
                _ => Op::Start { name: container.name.clone() },
            };
            let step = plan.push(op, Reason::Asked, Vec::new());
            let before = steps.iter().filter(|(service, _)| along(container, service));
            let after = before.flat_map(|(_, steps)| steps.clone()).collect();
            if let Some(step) = plan.steps.get_mut(step) {
                step.after = after;
            }
            steps.entry(container.service.name.as_str()).or_default().push(step);
        }
        left = later;
    }
    plan
}

fn restart_op(container: &ContainerState, timeout: Option<Duration>) -> Op {
    Op::Restart {
        id: container.id.clone(),
        name: container.name.clone(),
        signal: signal_of(container),
        grace: timeout.unwrap_or(container.service.stop_grace),
    }
}

fn signal_of(container: &ContainerState) -> String {
    container.service.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned())
}

/// Stops `containers`, each after those that depend on it. Returns the steps by container name.
fn stop_all<'a>(
    plan: &mut Plan,
    containers: impl Iterator<Item = &'a ContainerState>,
    timeout: Option<Duration>,
    reason: &Reason,
) -> BTreeMap<&'a str, usize> {
    let mut left: Vec<_> = containers.collect();
    let depends = graph::made_dependencies(left.iter().copied());
    let mut steps = BTreeMap::new();
    let mut by_service = BTreeMap::<&str, Vec<usize>>::new();
    while !left.is_empty() {
        let needed = |container: &&ContainerState| {
            let service = container.service.name.as_str();
            left.iter().any(|other| depends.get(other.service.name.as_str()).is_some_and(|of| of.contains(service)))
        };
        let (later, now): (Vec<_>, Vec<_>) = left.iter().copied().partition(needed);
        for container in now {
            let service = container.service.name.as_str();
            let step = plan.push(stop_op(container, timeout, false), reason.clone(), Vec::new());
            let dependents = depends.iter().filter(|(_, of)| of.contains(service));
            let after = dependents.flat_map(|(name, _)| by_service.get(name).cloned().unwrap_or_default()).collect();
            if let Some(step) = plan.steps.get_mut(step) {
                step.after = after;
            }
            by_service.entry(service).or_default().push(step);
            steps.insert(container.name.as_str(), step);
        }
        left = later;
    }
    steps
}

pub(super) fn stop_and_remove(
    plan: &mut Plan,
    container: &ContainerState,
    timeout: Option<Duration>,
    volumes: bool,
    reason: Reason,
) -> usize {
    let remove = Op::Remove { id: container.id.clone(), name: container.name.clone(), volumes };
    if is_running(&container) {
        let stop = plan.push(stop_op(container, timeout, false), reason, Vec::new());
        plan.push(remove, Reason::Follows, vec![stop])
    } else {
        plan.push(remove, reason, Vec::new())
    }
}

pub(super) fn stop_op(container: &ContainerState, timeout: Option<Duration>, recreate: bool) -> Op {
    Op::Stop {
        id: container.id.clone(),
        name: container.name.clone(),
        signal: signal_of(container),
        grace: timeout.unwrap_or(container.service.stop_grace),
        recreate,
    }
}

/// Removes one container, stopping it first when it runs.
pub(super) fn discard(container: &str, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let going: Vec<_> = observed.containers.iter().filter(|one| one.name == container).collect();
    let stops = stop_all(&mut plan, going.iter().copied().filter(goes_on), Some(Duration::ZERO), &Reason::Asked);
    for one in going {
        let needs = stops.get(one.name.as_str()).copied().into_iter().collect::<Vec<_>>();
        let op = Op::Remove { id: one.id.clone(), name: one.name.clone(), volumes: true };
        plan.push(op, Reason::Asked, needs);
    }
    plan
}

/// Containers that belong to no service of the project, and one-off containers that have ended.
pub(super) fn orphans<'a>(project: &ProjectSpec, observed: &'a Observed) -> Vec<&'a ContainerState> {
    let gone = |container: &&ContainerState| {
        if container.number == 0 { matches!(container.phase, Phase::Exited(_)) } else { is_unknown(project, container) }
    };
    observed.containers.iter().filter(gone).collect()
}

fn unknown_services<'a>(project: &ProjectSpec, observed: &'a Observed) -> Vec<&'a ContainerState> {
    observed.containers.iter().filter(|container| is_unknown(project, container)).collect()
}

fn is_unknown(project: &ProjectSpec, container: &ContainerState) -> bool {
    let name = &container.service.name;
    !project.services.contains_key(name) && !project.disabled_services.contains(name)
}

pub(super) fn orphan_warning(orphans: &[&ContainerState], what: Orphans) -> Option<String> {
    let names: Vec<&str> = orphans.iter().map(|container| container.name.as_str()).collect();
    (!names.is_empty() && what == Orphans::Warn).then(|| {
        format!(
            "Found orphan containers ([{}]) for this project. If you removed or renamed this service in your compose \
             file, you can run this command with the --remove-orphans flag to clean it up.",
            names.join(" ")
        )
    })
}

fn inactive_warning(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| {
        format!(
            "containers of services whose profile is not active are left ([{}]); `--profile '*'` before `down` removes \
             them, too",
            names.join(" ")
        )
    })
}

/// The file is not at hand here, so a name without containers is a warning only.
pub(super) fn without_containers(services: &[String], observed: &Observed) -> Vec<String> {
    let missing = services.iter().filter(|name| !observed.containers.iter().any(|c| c.service.name == **name));
    missing.map(|name| format!("service `{name}` has no containers")).collect()
}

fn selected<'a>(services: &[String], observed: &'a Observed) -> impl Iterator<Item = &'a ContainerState> {
    let all = observed.containers.iter();
    all.filter(move |container| services.is_empty() || services.contains(&container.service.name))
}

/// Without the one-off containers of `run`: a person at work in one of them did not mean it to be stopped or removed.
fn replicas<'a>(services: &[String], observed: &'a Observed) -> impl Iterator<Item = &'a ContainerState> {
    selected(services, observed).filter(|container| container.number > 0)
}

/// It runs, or will run again without being asked.
fn goes_on(container: &&ContainerState) -> bool {
    is_running(container) || container.comes_back()
}

fn is_running(container: &&ContainerState) -> bool {
    matches!(container.phase, Phase::Running { .. })
}
