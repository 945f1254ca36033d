//! A world that does at once what a plan says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rcompose::base::diagnostic::Diagnostic;
use rcompose::base::ids::ContainerId;
use rcompose::compose::{LoadOptions, load};
use rcompose::plan::{Change, ChangeKind, Op, Orphans, Plan, PlanError, Recreate, UpOptions, lower, plan};
use rcompose::spec::container::NetworkMode;
use rcompose::spec::{ContainerState, Exit, Health, Observed, Phase, ProjectSpec};

pub(super) const OPTIONS: UpOptions = UpOptions {
    recreate: Recreate::Changed,
    always_recreate_deps: false,
    no_deps: false,
    no_start: false,
    orphans: Orphans::Warn,
    renew_anonymous_volumes: false,
    timeout: None,
};

/// Loads and lowers a file called `compose.yaml` of a project called `p`.
pub(super) fn lowered(text: &str) -> Result<ProjectSpec, Vec<Diagnostic>> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("compose.yaml"), text).unwrap();
    let options =
        LoadOptions { working_dir: folder.clone(), project_name: Some("p".to_owned()), ..LoadOptions::default() };
    let environment = BTreeMap::from([("TOKEN".to_owned(), "secret".to_owned())]);
    let loaded = load(&options, &environment);
    std::fs::remove_dir_all(&folder).unwrap();
    let lowered = match loaded.project {
        Some(project) => lower(&project),
        None => Err(loaded.diagnostics),
    };
    lowered.map_err(|problems| {
        let short = |mut problem: Diagnostic| {
            if let Some(place) = &mut problem.place {
                place.file = Arc::new(place.file.file_name().map(PathBuf::from).unwrap());
            }
            problem
        };
        problems.into_iter().map(short).collect()
    })
}

pub(super) fn project(text: &str) -> ProjectSpec {
    lowered(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

pub(super) fn names(services: &[&str]) -> Vec<String> {
    services.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn up(text: &str) -> ChangeKind {
    up_with(text, &[], OPTIONS)
}

pub(super) fn up_with(text: &str, services: &[&str], options: UpOptions) -> ChangeKind {
    ChangeKind::Up { project: project(text), services: names(services), options }
}

pub(super) fn down(text: Option<&str>, services: &[&str], volumes: bool) -> ChangeKind {
    ChangeKind::Down {
        services: names(services),
        volumes,
        orphans: Orphans::Warn,
        timeout: None,
        project: text.map(project),
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    /// Of the process that was started last.
    pid: i32,
    pub(super) observed: Observed,
    /// Volume keys by the names they were made with.
    volumes: BTreeMap<String, String>,
    clock: i64,
    pub(super) healthy: bool,
}

impl World {
    /// After an `up` whose health checks all went well.
    pub(super) fn after_up(text: &str) -> Self {
        let mut world = Self { healthy: true, ..Self::default() };
        world.make(up(text));
        world
    }

    pub(super) fn now(&mut self) -> i64 {
        self.clock += 1;
        self.clock
    }

    pub(super) fn plan(&mut self, kind: ChangeKind) -> Result<Plan, PlanError> {
        let change = Change { requested_at: self.now(), kind };
        plan(&change, &self.seen(&change.kind))
    }

    /// Every image exists, under an id that tells its reference.
    pub(super) fn seen(&self, kind: &ChangeKind) -> Observed {
        let mut observed = self.observed.clone();
        for image in kind.images() {
            let id = self.image_id(&image);
            observed.images.insert(image, id);
        }
        observed
    }

    fn image_id(&self, image: &str) -> String {
        self.observed.images.get(image).cloned().unwrap_or_else(|| format!("sha256:{image}"))
    }

    pub(super) fn make(&mut self, kind: ChangeKind) -> Plan {
        let plan = self.plan(kind).unwrap();
        plan.steps.iter().for_each(|step| self.apply(&step.op));
        plan
    }

    pub(super) fn container(&mut self, name: &str) -> &mut ContainerState {
        let found = self.observed.containers.iter_mut().find(|container| container.name == name);
        found.unwrap_or_else(|| panic!("no container {name}"))
    }

    /// A new process, and those whose namespaces it joins.
    fn process(&mut self, name: &str) -> (i32, Vec<i32>) {
        self.pid += 1;
        let container = &self.container(name).service.container;
        let NetworkMode::Service(parent) = container.network.clone() else { return (self.pid, Vec::new()) };
        let pids = self.observed.containers.iter().filter_map(|one| match one.phase {
            Phase::Running { pid, .. } if one.service.name == parent && one.number > 0 => Some(pid),
            _ => None,
        });
        (self.pid, pids.collect())
    }

    pub(super) fn exit(&mut self, name: &str, code: i32) {
        let at = self.now();
        self.container(name).phase = Phase::Exited(Exit { code, oom: false, at });
    }

    pub(super) fn apply(&mut self, op: &Op) {
        let now = self.now();
        match op {
            Op::CreateNetwork { key, spec } => {
                let was = self.observed.networks.insert(key.clone(), spec.clone());
                assert!(was.is_none(), "network {key} made twice");
            }
            Op::RemoveNetwork { key, .. } => {
                assert!(self.observed.networks.remove(key).is_some(), "no network {key}");
            }
            Op::CreateVolume { key, spec } => {
                self.volumes.insert(spec.name.clone(), key.clone());
                self.observed.volumes.insert(key.clone(), spec.clone());
            }
            Op::RemoveVolume { name } => {
                let key = self.volumes.remove(name).unwrap_or_else(|| panic!("no volume {name}"));
                self.observed.volumes.retain(|volume, _| *volume != key);
            }
            Op::Create { name, number, service, .. } => {
                let taken = self.observed.containers.iter().any(|container| container.name == *name);
                assert!(!taken, "two containers called {name}");
                let mut id = [0; 32];
                id[..8].copy_from_slice(&now.to_be_bytes());
                self.observed.containers.push(ContainerState {
                    id: ContainerId::from_bytes(id),
                    name: name.clone(),
                    number: *number,
                    service: (**service).clone(),
                    image_id: self.image_id(&service.container.image),
                    created_at: now,
                    phase: Phase::Created,
                    restarts: 0,
                    stopped_by_user: false,
                    rejoins: false,
                    addresses: BTreeMap::new(),
                    ports: Vec::new(),
                });
            }
            Op::Start { name } => {
                let health = if self.healthy { Health::Healthy } else { Health::Starting };
                let (pid, joined) = self.process(name);
                let container = self.container(name);
                assert!(!matches!(container.phase, Phase::Running { .. }), "{name} started twice");
                let health = container.service.health.as_ref().map(|_| health);
                container.stopped_by_user = false;
                container.phase = Phase::Running { pid, started_at: now, health, paused: false, joined };
            }
            Op::Stop { name, .. } => {
                let container = self.container(name);
                let goes_on = matches!(container.phase, Phase::Running { .. }) || container.comes_back();
                assert!(goes_on, "{name} stopped twice");
                container.stopped_by_user = true;
                container.phase = Phase::Exited(Exit { code: 143, oom: false, at: now });
            }
            Op::Restart { name, .. } => {
                let (pid, joined) = self.process(name);
                let container = self.container(name);
                assert!(matches!(container.phase, Phase::Running { .. }), "{name} restarted while it does not run");
                container.stopped_by_user = false;
                let health = container.service.health.as_ref().map(|_| Health::Healthy);
                container.phase = Phase::Running { pid, started_at: now, health, paused: false, joined };
            }
            Op::Kill { name, .. } => {
                let container = self.container(name);
                container.stopped_by_user = true;
                container.phase = Phase::Exited(Exit { code: 137, oom: false, at: now });
            }
            Op::Pause { name, pause, .. } => {
                if let Phase::Running { paused, .. } = &mut self.container(name).phase {
                    *paused = *pause;
                }
            }
            Op::Remove { name, .. } | Op::Discard { name } => {
                let container = self.container(name);
                assert!(!matches!(container.phase, Phase::Running { .. }), "{name} removed while it runs");
                self.observed.containers.retain(|container| container.name != *name);
            }
            // One that waits for a program to end: it ends well.
            Op::Wait { condition: rcompose::spec::Condition::ServiceCompletedSuccessfully, containers, .. } => {
                for name in containers {
                    if matches!(self.container(name).phase, Phase::Running { .. }) {
                        self.exit(name, 0);
                    }
                }
            }
            Op::Wait { containers, .. } => {
                for name in containers {
                    if let Phase::Running { health, .. } = &mut self.container(name).phase {
                        *health = Some(Health::Healthy);
                    }
                }
            }
        }
    }

    /// The plan of a change as text: each step with its id, and those it needs and comes after.
    pub(super) fn text(&mut self, kind: ChangeKind) -> String {
        match self.plan(kind) {
            Ok(plan) => text(&plan),
            Err(error) => format!("error: {error}\n"),
        }
    }
}

pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        assert!(
            step.needs.iter().chain(&step.after).all(|other| *other < step.id),
            "{} waits for what follows",
            step.id
        );
        let list = |word: &str, ids: &[usize]| match ids {
            [] => String::new(),
            ids => format!(" {word} {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        };
        let (needs, after) = (list("needs", &step.needs), list("after", &step.after));
        let reason = step.reason.to_string();
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        text.push_str(&format!("{} {}{reason}{needs}{after}\n", step.id, step.text));
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if !plan.unchanged.is_empty() {
        text.push_str(&format!("unchanged: {}\n", plan.unchanged.join(" ")));
    }
    text
}
