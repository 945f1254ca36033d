//! Starting containers after what they wait for; `start` is nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Op, Plan, Reason};
use super::{down, graph};
use crate::spec::Condition;
use crate::spec::Dependency;
use crate::spec::Health;
use crate::spec::Observed;
use crate::spec::Phase;
use crate::spec::ServiceSpec;

/// Starts what exists, dependencies included.
pub(super) fn start(services: &[String], observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let replicas = || observed.containers.iter().filter(|container| container.number > 0);
    let depends = graph::made_dependencies(replicas());
    let mut open: Vec<&str> = if services.is_empty() {
        replicas().map(|container| container.service.name.as_str()).collect()
    } else {
        services.iter().map(String::as_str).collect()
    };
    plan.warnings = down::without_containers(services, observed);
    let mut selected = BTreeSet::new();
    while let Some(name) = open.pop() {
        if selected.insert(name) {
            open.extend(depends.get(name).into_iter().flatten());
        }
    }
    let mut starts = Starts::new(observed);
    let mut left: Vec<&str> = selected.into_iter().collect();
    while !left.is_empty() {
        let ready = |name: &&str| !depends.get(name).is_some_and(|all| all.iter().any(|other| left.contains(other)));
        let (now, later): (Vec<_>, Vec<_>) = left.iter().copied().partition(ready);
        for name in now {
            for container in replicas().filter(|container| container.service.name == name) {
                let reason = match container.phase {
                    Phase::Running { .. } => {
                        plan.unchanged.push(container.name.clone());
                        continue;
                    }
                    Phase::Created => Reason::NeverStarted,
                    Phase::Exited(exit) => Reason::Stopped { code: exit.code },
                };
                let made = depends.get(name);
                let kept = container.service.depends_on.iter();
                let kept = kept.filter(|(key, _)| made.is_some_and(|made| made.contains(key.as_str())));
                starts.push(&mut plan, name, &container.name, kept, Vec::new(), reason);
            }
        }
        left = later;
    }
    plan
}

/// Start steps and the gates before them.
pub(super) struct Starts<'a> {
    observed: &'a Observed,
    /// By service: the step and the container's name.
    steps: BTreeMap<String, Vec<(usize, String)>>,
    waits: BTreeMap<(String, Condition, bool), usize>,
}

impl<'a> Starts<'a> {
    pub(super) fn new(observed: &'a Observed) -> Self {
        Self { observed, steps: BTreeMap::new(), waits: BTreeMap::new() }
    }

    pub(super) fn push<'d>(
        &mut self,
        plan: &mut Plan,
        service: &str,
        container: &str,
        depends_on: impl Iterator<Item = (&'d String, &'d Dependency)>,
        mut needs: Vec<usize>,
        reason: Reason,
    ) -> usize {
        let mut after = Vec::new();
        for (name, dependency) in depends_on {
            let started = self.steps.get(name).into_iter().flatten().map(|(step, _)| *step);
            if dependency.required {
                needs.extend(started);
            } else {
                after.extend(started);
            }
            needs.extend(self.gate(plan, name, dependency));
        }
        let step = plan.push(Op::Start { name: container.to_owned() }, reason, needs);
        if let Some(step) = plan.steps.get_mut(step) {
            step.after = after;
        }
        self.steps.entry(service.to_owned()).or_default().push((step, container.to_owned()));
        step
    }

    /// Runs a service's `pre_start` hooks one after the other, when what it depends on is there; the last step.
    pub(super) fn hooks<'d>(
        &mut self,
        plan: &mut Plan,
        service: &ServiceSpec,
        first: &str,
        depends_on: impl Iterator<Item = (&'d String, &'d Dependency)>,
        needs: Vec<usize>,
    ) -> Option<usize> {
        let mut needs = needs;
        for (name, dependency) in depends_on {
            let started = self.steps.get(name).into_iter().flatten().map(|(step, _)| *step);
            needs.extend(started.filter(|_| dependency.required));
            needs.extend(self.gate(plan, name, dependency));
        }
        let mut last = None;
        for (index, hook) in service.pre_start.iter().enumerate() {
            let name = format!("{first}-pre_start-{}", index + 1);
            // One that failed is still there, for whoever wants to look at it.
            if let Some(old) = self.observed.containers.iter().find(|container| container.name == name) {
                let mut before = needs.clone();
                if let Phase::Running { .. } = old.phase {
                    before = vec![plan.push(down::stop_op(old, None, true), Reason::Follows, before)];
                }
                let op = Op::Remove { id: old.id.clone(), name: name.clone(), volumes: true };
                needs = vec![plan.push(op, Reason::Follows, before)];
            }
            let create = Op::Create {
                name: name.clone(),
                number: 0,
                service: Box::new(hook.clone()),
                replaces: None,
                recreate: false,
            };
            let mut step = plan.push(create, Reason::Hook { service: service.name.clone() }, needs);
            step = plan.push(Op::Start { name: name.clone() }, Reason::Follows, vec![step]);
            let wait = Op::Wait {
                service: name.clone(),
                condition: Condition::ServiceCompletedSuccessfully,
                required: true,
                containers: vec![name.clone()],
            };
            step = plan.push(wait, Reason::Follows, vec![step]);
            step = plan.push(Op::Discard { name }, Reason::Follows, vec![step]);
            needs = vec![step];
            last = Some(step);
        }
        last
    }

    /// The step that holds dependents of `name`, when there is something to wait for.
    fn gate(&mut self, plan: &mut Plan, name: &str, dependency: &Dependency) -> Option<usize> {
        let key = (name.to_owned(), dependency.condition, dependency.required);
        if let Some(step) = self.waits.get(&key) {
            return Some(*step);
        }
        let starting = self.steps.get(name).cloned().unwrap_or_default();
        let removed: BTreeSet<_> = plan
            .steps
            .iter()
            .filter_map(|step| match &step.op {
                Op::Remove { id, .. } => Some(id.clone()),
                _ => None,
            })
            .collect();
        let kept = self.observed.containers.iter();
        let kept = kept.filter(|c| c.number > 0 && c.service.name == name && !removed.contains(&c.id));
        let mut kept = kept.filter(|c| !starting.iter().any(|(_, name)| *name == c.name)).peekable();
        if starting.is_empty() && kept.peek().is_none() {
            return None;
        }
        let mut names: Vec<String> = starting.iter().map(|(_, name)| name.clone()).collect();
        let mut met = starting.is_empty();
        let mut completed = false;
        for container in kept {
            met &= satisfies(&container.phase, dependency.condition);
            completed |= satisfies(&container.phase, Condition::ServiceCompletedSuccessfully);
            names.push(container.name.clone());
        }
        met |= dependency.condition == Condition::ServiceCompletedSuccessfully && completed;
        if met || dependency.condition == Condition::ServiceStarted {
            return None;
        }
        let op = Op::Wait {
            service: name.to_owned(),
            condition: dependency.condition,
            required: dependency.required,
            containers: names,
        };
        let before: Vec<usize> = starting.iter().map(|(step, _)| *step).collect();
        let (needs, after) = if dependency.required { (before, Vec::new()) } else { (Vec::new(), before) };
        let id = plan.push(op, Reason::Dependency, needs);
        if let Some(step) = plan.steps.get_mut(id) {
            step.after = after;
        }
        self.waits.insert(key, id);
        Some(id)
    }
}

/// Whether a container in this phase meets the condition.
fn satisfies(phase: &Phase, condition: Condition) -> bool {
    match (condition, phase) {
        (Condition::ServiceStarted, Phase::Running { .. })
        | (Condition::ServiceHealthy, Phase::Running { health: Some(Health::Healthy), .. }) => true,
        (Condition::ServiceCompletedSuccessfully, Phase::Exited(exit)) => exit.code == 0,
        _ => false,
    }
}
