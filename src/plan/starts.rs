//! Starting containers after what they wait for; `start` is nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::step::{Op, Plan, Reason};
use super::{down, graph};
use crate::spec::Condition;
use crate::spec::ContainerState;
use crate::spec::Dependency;
use crate::spec::Health;
use crate::spec::Observed;
use crate::spec::Phase;
use crate::spec::ServiceSpec;
use crate::spec::container::{MountsOf, VolumesFrom};

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
            let mut starting = Vec::new();
            for container in replicas().filter(|container| container.service.name == name) {
                match container.phase {
                    Phase::Running { .. } => plan.unchanged.push(container.name.clone()),
                    Phase::Created => starting.push((container, Reason::NeverStarted)),
                    Phase::Exited(exit) => starting.push((container, Reason::Stopped { code: exit.code })),
                }
            }
            let Some((one, _)) = starting.first() else { continue };
            let made = depends.get(name);
            let kept = |container: &ContainerState| -> BTreeMap<String, Dependency> {
                let mut kept = container.service.depends_on.clone();
                kept.retain(|key, _| made.is_some_and(|made| made.contains(key.as_str())));
                kept
            };
            let mut mine = replicas().filter(|container| container.service.name == name);
            let first = !mine.any(|container| matches!(container.phase, Phase::Running { .. }));
            let names: Vec<&str> = starting.iter().map(|(container, _)| container.name.as_str()).collect();
            let hooked = starts.hooks(&mut plan, &one.service, (&names, first), kept(one).iter(), Vec::new());
            for (container, reason) in starting {
                let needs = hooked.get(&container.name).copied().into_iter().collect();
                starts.push(&mut plan, name, &container.name, kept(container).iter(), needs, reason);
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

    /// Runs a service's `pre_start` hooks in their order, when what it depends on is there. `first`: none of its containers runs;
    /// otherwise only those are run that each container wants for itself. The last step for each of `starting`.
    pub(super) fn hooks<'d>(
        &mut self,
        plan: &mut Plan,
        service: &ServiceSpec,
        (starting, first): (&[&str], bool),
        depends_on: impl Iterator<Item = (&'d String, &'d Dependency)>,
        mut needs: Vec<usize>,
    ) -> BTreeMap<String, usize> {
        let mut last = BTreeMap::new();
        let Some(one) = starting.first().filter(|_| service.pre_start.iter().any(|hook| first || hook.per_replica))
        else {
            return last;
        };
        for (name, dependency) in depends_on {
            let started = self.steps.get(name).into_iter().flatten().map(|(step, _)| *step);
            needs.extend(started.filter(|_| dependency.required));
            needs.extend(self.gate(plan, name, dependency));
        }
        for (index, hook) in service.pre_start.iter().enumerate() {
            let before = |last: &BTreeMap<String, usize>, names: &[&str]| {
                let steps: BTreeSet<usize> = names.iter().filter_map(|name| last.get(*name).copied()).collect();
                if steps.is_empty() { needs.clone() } else { steps.into_iter().collect() }
            };
            if hook.per_replica {
                for replica in starting {
                    let mut spec = hook.service.clone();
                    let of = MountsOf::Container((*replica).to_owned());
                    spec.container.volumes_from = vec![VolumesFrom { of, read_only: None }];
                    let before = before(&last, &[*replica]);
                    let name = format!("{replica}-pre_start-{}", index + 1);
                    last.insert((*replica).to_owned(), self.hook(plan, &service.name, name, spec, before));
                }
            } else if first {
                let before = before(&last, starting);
                let name = format!("{one}-pre_start-{}", index + 1);
                let step = self.hook(plan, &service.name, name, hook.service.clone(), before);
                last.extend(starting.iter().map(|replica| ((*replica).to_owned(), step)));
            }
        }
        last
    }

    /// Runs one hook in a container that is gone afterwards; the last step.
    fn hook(&self, plan: &mut Plan, of: &str, name: String, spec: ServiceSpec, mut needs: Vec<usize>) -> usize {
        // One that failed is still there, for whoever wants to look at it.
        if let Some(old) = self.observed.containers.iter().find(|container| container.name == name) {
            if let Phase::Running { .. } = old.phase {
                needs = vec![plan.push(down::stop_op(old, None, true), Reason::Follows, needs)];
            }
            let op = Op::Remove { id: old.id.clone(), name: name.clone(), volumes: true };
            needs = vec![plan.push(op, Reason::Follows, needs)];
        }
        let create =
            Op::Create { name: name.clone(), number: 0, service: Box::new(spec), replaces: None, recreate: false };
        let mut step = plan.push(create, Reason::Hook { service: of.to_owned() }, needs);
        step = plan.push(Op::Start { name: name.clone() }, Reason::Follows, vec![step]);
        let wait = Op::Wait {
            service: name.clone(),
            condition: Condition::ServiceCompletedSuccessfully,
            required: true,
            containers: vec![name.clone()],
        };
        step = plan.push(wait, Reason::Follows, vec![step]);
        plan.push(Op::Discard { name }, Reason::Follows, vec![step])
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
