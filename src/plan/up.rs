//! `up` and `run`: what must be created, replaced and started.

use std::collections::{BTreeMap, BTreeSet};

use super::differences::differences;
use super::relations::{container_name, networks_of, parents_of, volumes_of};
use super::starts::Starts;
use super::step::{Op, Plan, Reason};
use super::{Orphans, PlanError, Recreate, UpOptions, down, graph};
use crate::spec::ContainerState;
use crate::spec::Observed;
use crate::spec::Phase;
use crate::spec::PortSpec;
use crate::spec::ProjectSpec;
use crate::spec::ServiceSpec;
use crate::spec::container::MountsOf;
use crate::spec::observed::Published;

pub(super) fn up(
    requested_at: i64,
    project: &ProjectSpec,
    services: &[String],
    options: &UpOptions,
    observed: &Observed,
) -> Result<Plan, PlanError> {
    let order = graph::order(project)?;
    let selected = graph::select(project, services, !options.no_deps)?;
    let forced = if options.always_recreate_deps { Vec::new() } else { services.to_vec() };
    let mut up = Up::new(requested_at, project, options, forced, observed);
    up.orphans();
    let active: Vec<_> = order.into_iter().filter(|service| selected.contains(&service.name)).collect();
    up.converge(&active)?;
    Ok(up.plan)
}

pub(super) fn run(
    requested_at: i64,
    project: &ProjectSpec,
    service: &str,
    name: &str,
    no_deps: bool,
    observed: &Observed,
) -> Result<Plan, PlanError> {
    let order = graph::order(project)?;
    let names = [service.to_owned()];
    let mut selected = graph::select(project, &names, !no_deps)?;
    selected.remove(service);
    let options = UpOptions {
        recreate: Recreate::Changed,
        always_recreate_deps: false,
        no_deps,
        no_start: false,
        orphans: Orphans::Ignore,
        renew_anonymous_volumes: false,
        timeout: None,
    };
    let mut up = Up::new(requested_at, project, &options, Vec::new(), observed);
    let active: Vec<_> = order.into_iter().filter(|service| selected.contains(&service.name)).collect();
    up.converge(&active)?;
    if let Some(spec) = project.services.get(service) {
        up.resources(&[spec]);
        match observed.containers.iter().find(|container| container.name == name) {
            None => {
                up.create(spec, name.to_owned(), 0, None, Reason::Asked)?;
                up.start(spec, name, Reason::Asked, None);
            }
            Some(container) if container.created_at < requested_at => {
                let (name, service) = (name.to_owned(), container.service.name.clone());
                return Err(PlanError::NameTaken { name, service });
            }
            Some(container) if container.phase == Phase::Created => up.start(spec, name, Reason::NeverStarted, None),
            Some(_) => {}
        }
    }
    Ok(up.plan)
}

/// The state of planning an `up`.
struct Up<'a> {
    requested_at: i64,
    project: &'a ProjectSpec,
    options: &'a UpOptions,
    /// Services that `--force-recreate` is meant for; empty: all.
    forced: Vec<String>,
    observed: &'a Observed,
    plan: Plan,
    networks: BTreeMap<String, usize>,
    volumes: BTreeMap<String, usize>,
    /// Networks that exist and are replaced.
    replaced_networks: BTreeSet<String>,
    /// Services of which a container is recreated.
    recreated: BTreeSet<String>,
    removals: BTreeMap<String, usize>,
    /// Stops of containers by service, for what has to come before.
    stops: BTreeMap<String, Vec<usize>>,
    creates: BTreeMap<String, usize>,
    starts: Starts<'a>,
}

/// What becomes of one container that exists.
struct Fate<'a> {
    container: &'a ContainerState,
    replace: Option<Reason>,
}

impl<'a> Up<'a> {
    fn new(
        requested_at: i64,
        project: &'a ProjectSpec,
        options: &'a UpOptions,
        forced: Vec<String>,
        observed: &'a Observed,
    ) -> Self {
        Self {
            requested_at,
            project,
            options,
            forced,
            observed,
            plan: Plan::default(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            replaced_networks: BTreeSet::new(),
            recreated: BTreeSet::new(),
            removals: BTreeMap::new(),
            stops: BTreeMap::new(),
            creates: BTreeMap::new(),
            starts: Starts::new(observed),
        }
    }

    /// Containers of services that the project does not have.
    fn orphans(&mut self) {
        let orphans = down::orphans(self.project, self.observed);
        if self.options.orphans != Orphans::Remove {
            self.plan.warnings.extend(down::orphan_warning(&orphans, self.options.orphans));
            return;
        }
        for container in orphans {
            let step = down::stop_and_remove(&mut self.plan, container, self.options.timeout, false, Reason::Orphan);
            self.removals.insert(container.name.clone(), step);
        }
    }

    fn converge(&mut self, services: &[&'a ServiceSpec]) -> Result<(), PlanError> {
        self.find_replaced_networks(services);
        let mut fates = Vec::new();
        for service in services {
            fates.push(self.fates(service)?);
        }
        self.stop_dependents(services, &fates);
        for (service, fates) in services.iter().zip(&fates) {
            self.remove(service, fates);
        }
        self.resources(services);
        for (service, fates) in services.iter().zip(fates) {
            self.service(service, fates)?;
        }
        Ok(())
    }

    fn find_replaced_networks(&mut self, services: &[&ServiceSpec]) {
        for key in services.iter().flat_map(|service| networks_of(service)) {
            let spec = self.project.networks.get(key).filter(|spec| !spec.external);
            let there = self.observed.networks.get(key);
            if spec.zip(there).is_some_and(|(spec, there)| spec.config_hash != there.config_hash) {
                self.replaced_networks.insert(key.to_owned());
            }
        }
    }

    /// What exists of a service, the containers to keep or replace first, the surplus after `scale`.
    fn fates(&mut self, service: &'a ServiceSpec) -> Result<Vec<Fate<'a>>, PlanError> {
        if service.container_name.is_some() && service.scale > 1 {
            return Err(PlanError::FixedNameScaled { service: service.name.clone(), scale: service.scale });
        }
        let mine = self.observed.containers.iter().filter(|c| c.number > 0 && c.service.name == service.name);
        let mut fates: Vec<_> =
            mine.map(|container| Fate { container, replace: self.why_replace(service, container) }).collect();
        fates.sort_by_key(|fate| (fate.replace.is_some(), fate.container.number));
        let wanted = usize::try_from(service.scale).unwrap_or(usize::MAX);
        if fates.iter().take(wanted).any(|fate| fate.replace.is_some()) {
            self.recreated.insert(service.name.clone());
        }
        Ok(fates)
    }

    fn why_replace(&self, service: &ServiceSpec, container: &ContainerState) -> Option<Reason> {
        if let Some(network) = networks_of(&container.service).find(|key| self.replaced_networks.contains(*key)) {
            return Some(Reason::NetworkChanged { network: network.to_owned() });
        }
        if self.options.recreate == Recreate::Never {
            return None;
        }
        if container.service.config_hash != service.config_hash {
            return Some(Reason::Changed { fields: differences(&container.service.fields, &service.fields) });
        }
        if let Some(network) =
            networks_of(service).find(|key| networks_of(&container.service).all(|there| there != *key))
        {
            return Some(Reason::NetworkLeft { network: network.to_owned() });
        }
        let image = self.observed.images.get(&service.container.image);
        if let Some(image) = image.filter(|image| **image != container.image_id) {
            return Some(Reason::ImageChanged { old: container.image_id.clone(), new: image.clone() });
        }
        if let Some(parent) = parents_of(service).find(|parent| self.recreated.contains(*parent)) {
            return Some(Reason::DependencyRecreated { service: parent.to_owned() });
        }
        if let Some(parent) = parents_of(service).find(|parent| self.has_left(parent, container)) {
            return Some(Reason::NamespacesLeft { service: parent.to_owned() });
        }
        let meant = self.forced.is_empty() || self.forced.contains(&service.name);
        let dependency = self.options.always_recreate_deps && !self.forced.contains(&service.name);
        let forced = (self.options.recreate == Recreate::Force && meant) || dependency;
        (forced && container.created_at < self.requested_at).then_some(Reason::Forced)
    }

    /// Whether a service whose namespaces a container joined is in others now, or will be once it has been started. Not where
    /// it has done its work: its namespaces were to be left, and are each time.
    fn has_left(&self, parent: &str, container: &ContainerState) -> bool {
        let Phase::Running { joined, .. } = &container.phase else { return false };
        let parents = self.observed.containers.iter().filter(|one| one.number > 0 && one.service.name == parent);
        let mut parents = parents.map(|one| match one.phase {
            Phase::Running { pid, .. } => !joined.contains(&pid),
            Phase::Exited(exit) => !self.options.no_deps && (exit.code != 0 || one.stopped_by_user),
            Phase::Created => !self.options.no_deps,
        });
        let first = parents.next().unwrap_or(!self.options.no_deps);
        !joined.is_empty() && first && parents.all(|left| left)
    }

    /// A service that wants to be restarted with its dependency is stopped before that is replaced.
    fn stop_dependents(&mut self, services: &[&'a ServiceSpec], fates: &[Vec<Fate<'a>>]) {
        for (service, fates) in services.iter().zip(fates) {
            let mut restarting = service.depends_on.iter().filter(|(_, how)| how.restart);
            let Some((cause, _)) = restarting.find(|(name, _)| self.recreated.contains(*name)) else { continue };
            // What is replaced or too much is stopped for that.
            let wanted = usize::try_from(service.scale).unwrap_or(usize::MAX);
            for fate in fates.iter().take(wanted).filter(|fate| fate.replace.is_none()) {
                if let Phase::Running { .. } = fate.container.phase {
                    let op = down::stop_op(fate.container, self.options.timeout, false);
                    let reason = Reason::DependencyRecreated { service: cause.clone() };
                    let step = self.plan.push(op, reason, Vec::new());
                    self.stops.entry(service.name.clone()).or_default().push(step);
                }
            }
        }
    }

    /// Stops and removes what is replaced and what is too much, the highest number first.
    fn remove(&mut self, service: &ServiceSpec, fates: &[Fate<'_>]) {
        let dependents = self
            .project
            .services
            .values()
            .filter(|other| other.depends_on.get(&service.name).is_some_and(|how| how.restart));
        let before: Vec<usize> =
            dependents.flat_map(|other| self.stops.get(&other.name).cloned().unwrap_or_default()).collect();
        let wanted = usize::try_from(service.scale).unwrap_or(usize::MAX);
        for (index, fate) in fates.iter().enumerate().rev() {
            let surplus = index >= wanted;
            let reason = match &fate.replace {
                _ if surplus => Reason::Surplus { wanted: service.scale },
                Some(reason) => reason.clone(),
                None => continue,
            };
            let mut needs = before.clone();
            let mut reason = Some(reason);
            if let Phase::Running { .. } = fate.container.phase {
                let op = down::stop_op(fate.container, self.options.timeout, !surplus);
                needs = vec![self.plan.push(op, reason.take().unwrap_or(Reason::Follows), needs)];
            }
            let container = fate.container;
            let op = Op::Remove { id: container.id.clone(), name: container.name.clone(), volumes: false };
            let step = self.plan.push(op, reason.take().unwrap_or(Reason::Follows), needs);
            self.removals.insert(container.name.clone(), step);
        }
    }

    /// Networks and volumes that the services use. External ones that the project does not know yet are looked for.
    fn resources(&mut self, services: &[&ServiceSpec]) {
        let keys: BTreeSet<&str> = services.iter().flat_map(|service| networks_of(service)).collect();
        for key in keys {
            let Some(spec) = self.project.networks.get(key) else { continue };
            let exists = self.observed.networks.contains_key(key);
            let replaced = self.replaced_networks.contains(key);
            if self.networks.contains_key(key) || (exists && !replaced) {
                continue;
            }
            let mut needs = Vec::new();
            let mut reason = if spec.external { Reason::Follows } else { Reason::Missing };
            if replaced {
                let users = self.observed.containers.iter().filter(|c| networks_of(&c.service).any(|used| used == key));
                let removed = users.filter_map(|container| self.removals.get(&container.name).copied()).collect();
                let op = Op::RemoveNetwork { key: key.to_owned(), name: spec.name.clone() };
                needs.push(self.plan.push(op, Reason::Changed { fields: Vec::new() }, removed));
                reason = Reason::Follows;
            }
            let op = Op::CreateNetwork { key: key.to_owned(), spec: spec.clone() };
            let step = self.plan.push(op, reason, needs);
            self.networks.insert(key.to_owned(), step);
        }
        let keys: BTreeSet<&str> = services.iter().flat_map(|service| volumes_of(service)).collect();
        for key in keys {
            let Some(spec) = self.project.volumes.get(key) else { continue };
            if self.volumes.contains_key(key) || self.observed.volumes.contains_key(key) {
                continue;
            }
            let op = Op::CreateVolume { key: key.to_owned(), spec: spec.clone() };
            let reason = if spec.external { Reason::Follows } else { Reason::Missing };
            let step = self.plan.push(op, reason, Vec::new());
            self.volumes.insert(key.to_owned(), step);
        }
    }

    fn service(&mut self, service: &ServiceSpec, fates: Vec<Fate<'_>>) -> Result<(), PlanError> {
        let wanted = usize::try_from(service.scale).unwrap_or(usize::MAX);
        let mut taken = BTreeSet::new();
        let mut starting = Vec::new();
        for fate in fates.into_iter().take(wanted) {
            let container = fate.container;
            taken.insert(container.number);
            if fate.replace.is_some() {
                let name = container_name(self.project, service, container.number);
                let heir = (!self.options.renew_anonymous_volumes).then_some(container);
                self.create(service, name.clone(), container.number, heir, Reason::Follows)?;
                starting.push((name, Reason::Follows));
            } else if let Some(reason) = self.why_start(service, container) {
                starting.push((container.name.clone(), reason));
            } else {
                self.plan.unchanged.push(container.name.clone());
            }
        }
        for number in taken.last().map_or(1, |last| last + 1).. {
            if taken.len() >= wanted {
                break;
            }
            if taken.insert(number) {
                let name = container_name(self.project, service, number);
                self.create(service, name.clone(), number, None, Reason::Missing)?;
                starting.push((name, Reason::Follows));
            }
        }
        let hooked = self.pre_start(service, &starting);
        for (name, reason) in starting {
            let hooked = hooked.get(&name).copied();
            self.start(service, &name, reason, hooked);
        }
        Ok(())
    }

    /// The service's `pre_start` hooks: the last step of them for each container that is started.
    fn pre_start(&mut self, service: &ServiceSpec, starting: &[(String, Reason)]) -> BTreeMap<String, usize> {
        if self.options.no_start || service.pre_start.is_empty() {
            return BTreeMap::new();
        }
        let runs = |container: &ContainerState| {
            let mine = container.number > 0 && container.service.name == service.name;
            mine && matches!(container.phase, Phase::Running { .. }) && !self.removals.contains_key(&container.name)
        };
        let first = !self.observed.containers.iter().any(runs);
        let names: Vec<&str> = starting.iter().map(|(name, _)| name.as_str()).collect();
        let mut needs: Vec<usize> = names.iter().filter_map(|name| self.creates.get(*name).copied()).collect();
        needs.extend(self.stops.get(&service.name).into_iter().flatten());
        let depends_on = service.depends_on.iter().filter(|_| !self.options.no_deps);
        self.starts.hooks(&mut self.plan, service, (&names, first), depends_on, needs)
    }

    fn why_start(&self, service: &ServiceSpec, container: &ContainerState) -> Option<Reason> {
        match container.phase {
            Phase::Created => Some(Reason::NeverStarted),
            Phase::Running { .. } => self.stops.contains_key(&service.name).then_some(Reason::Follows),
            // Started by this very change before, and over since: nothing to repeat.
            Phase::Exited(exit) if exit.at >= self.requested_at && !container.stopped_by_user && !container.rejoins => {
                None
            }
            Phase::Exited(exit) => Some(Reason::Stopped { code: exit.code }),
        }
    }

    fn create(
        &mut self,
        service: &ServiceSpec,
        name: String,
        number: u32,
        replaces: Option<&ContainerState>,
        reason: Reason,
    ) -> Result<(), PlanError> {
        let mut needs: Vec<usize> = networks_of(service).filter_map(|key| self.networks.get(key).copied()).collect();
        needs.extend(volumes_of(service).filter_map(|key| self.volumes.get(key).copied()));
        let holder = self.observed.containers.iter().find(|container| container.name == name);
        match (self.removals.get(&name), holder) {
            (Some(removal), _) => needs.push(*removal),
            (None, Some(holder)) => {
                return Err(PlanError::NameTaken { name, service: holder.service.name.clone() });
            }
            (None, None) => {}
        }
        needs.extend(replaces.and_then(|old| self.removals.get(&old.name).copied()));
        let lenders = service.container.volumes_from.iter().filter_map(|from| match &from.of {
            MountsOf::Service(name) => Some(name.as_str()),
            MountsOf::Container(_) => None,
        });
        needs.extend(parents_of(service).chain(lenders).flat_map(|parent| self.parent_steps(parent)));
        needs.sort_unstable();
        needs.dedup();
        let recreate = reason == Reason::Follows;
        let replaces = replaces.map(|old| old.id.clone());
        let op = Op::Create { name: name.clone(), number, service: Box::new(service.clone()), replaces, recreate };
        let step = self.plan.push(op, reason, needs);
        self.creates.insert(name, step);
        Ok(())
    }

    /// Creations of the containers whose namespaces a service joins, or whose mounts it takes over.
    fn parent_steps(&self, parent: &str) -> Vec<usize> {
        let made = self.plan.steps.iter().filter(
            |step| matches!(&step.op, Op::Create { service, number, .. } if service.name == parent && *number > 0),
        );
        made.map(|step| step.id).collect()
    }

    /// Removals of the containers that hold a port that the service publishes.
    fn port_steps(&self, service: &ServiceSpec) -> Vec<usize> {
        let wanted = |port: &Published| {
            let of_host = |spec: &PortSpec| {
                spec.protocol == port.protocol
                    && spec.host.is_some_and(|(first, last)| (first..=last).contains(&port.host))
            };
            service.container.ports.iter().any(of_host)
        };
        let holders = self.observed.containers.iter().filter(|container| container.ports.iter().any(wanted));
        holders.filter_map(|container| self.removals.get(&container.name).copied()).collect()
    }

    fn start(&mut self, service: &ServiceSpec, name: &str, reason: Reason, hooked: Option<usize>) {
        if self.options.no_start {
            return;
        }
        let mut needs: Vec<usize> = self.creates.get(name).copied().into_iter().chain(hooked).collect();
        needs.extend(self.stops.get(&service.name).into_iter().flatten());
        needs.extend(self.port_steps(service));
        // A container that is already there still needs the networks of those it waits for, which their starts bring.
        let depends_on = service.depends_on.iter().filter(|_| !self.options.no_deps);
        self.starts.push(&mut self.plan, &service.name, name, depends_on, needs, reason);
    }
}
