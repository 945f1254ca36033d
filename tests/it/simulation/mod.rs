//! The reconciler on a simulated machine: random projects, changes, faults and kills, on a virtual clock.
//! `RCOMPOSE_SEED=N` runs one seed again.

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use rcompose::plan::{Change, ChangeKind, Orphans, Recreate, UpOptions, plan};
use rcompose::reconcile::{Command, Failure, Handle, Reconciler, Wait};
use rcompose::spec::container::{Attachment, ContainerSpec, Mount, MountSource, NetworkMode};
use rcompose::spec::{
    Condition, ContainerState, Dependency, Health, HealthSpec, HealthTimes, NetworkSpec, Phase, ProjectSpec,
    RestartPolicy, ServiceSpec, VolumeSpec,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use world::{Random, Sim, World};

const SEEDS: u64 = 2500;
/// Virtual time in which every change must end.
const PATIENCE: Duration = Duration::from_secs(3600);

#[test]
fn changes_converge_whatever_fails_or_is_killed() {
    let seeds = match std::env::var("RCOMPOSE_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| simulate(seed));
        assert!(result.is_ok(), "seed {seed} failed; run it again with RCOMPOSE_SEED={seed}");
    }
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in 0..20 {
        assert_eq!(simulate(seed), simulate(seed), "seed {seed}");
    }
}

/// One that lives in another one's network ends up in that of its last run, however often that dies, its policy restarts it, and
/// the reconciler is killed.
#[test]
fn who_joined_a_namespace_follows_its_owner_through_restarts() {
    for seed in 0..200 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, follows(seed));
    }
}

async fn follows(seed: u64) {
    let world = World::new(seed);
    world.faults.set(false);
    let mut project = random_project(&Random::new(seed));
    let mut service = project.services.remove("app0").unwrap();
    service.scale = 1;
    let joined = |name: &str, restart, network| {
        let mut service = service.clone();
        (service.name, service.restart, service.container.network) = (name.to_owned(), restart, network);
        (name.to_owned(), service)
    };
    let of = |name: &str| NetworkMode::Service(name.to_owned());
    project.services = BTreeMap::from([
        joined("a", RestartPolicy::Always, service.container.network.clone()),
        joined("b", RestartPolicy::No, of("a")),
        joined("c", RestartPolicy::OnFailure { max_retries: Some(1) }, of("b")),
    ]);
    let depends = |on: &str| {
        let dependency = Dependency { condition: Condition::ServiceStarted, required: true, restart: true };
        BTreeMap::from([(on.to_owned(), dependency)])
    };
    project.services.get_mut("b").unwrap().depends_on = depends("a");
    project.services.get_mut("c").unwrap().depends_on = depends("b");
    let mut driver = Driver::new(&world);
    driver.make(up(&project, Recreate::Changed), false).await.unwrap();
    let id = |service: &str| {
        world.boxes.borrow().values().find(|b| b.state.service.name == service).unwrap().state.id.clone()
    };
    for _ in 0..1 + world.random.below(3) {
        world.end(&id("a"), 1, None);
        sleep(Duration::from_millis(world.random.below(15_000))).await;
        if world.random.percent(50) {
            driver.kill().await;
        }
    }
    sleep(Duration::from_secs(150)).await;
    for (name, parent) in [("b", "a"), ("c", "b")] {
        let phase = world.boxes.borrow()[&id(name)].state.phase.clone();
        let Phase::Running { joined, .. } = phase else { panic!("seed {seed}: {name} is {phase:?}") };
        assert_eq!(joined, [world.pid_of(parent).unwrap()], "seed {seed}: {name}");
    }
    driver.make(ChangeKind::Stop { services: Vec::new(), timeout: None }, false).await.unwrap();
    sleep(Duration::from_secs(150)).await;
    assert_eq!(["a", "b", "c"].map(|name| world.pid_of(name)), [None; 3], "seed {seed}: stopped is stopped");
    driver.task.abort();
}

/// A container that its policy is about to start again is stopped like one that runs.
#[test]
fn what_was_stopped_between_two_restarts_stays_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let world = World::new(1);
        world.faults.set(false);
        let mut project = random_project(&Random::new(1));
        project.services.retain(|name, _| name == "app0");
        project.services.get_mut("app0").unwrap().restart = RestartPolicy::Always;
        project.services.get_mut("app0").unwrap().scale = 1;
        let mut driver = Driver::new(&world);
        driver.make(up(&project, Recreate::Changed), false).await.unwrap();
        let id = world.boxes.borrow().keys().next().unwrap().clone();
        world.end(&id, 1, None);
        sleep(Duration::from_millis(20)).await;
        driver.make(ChangeKind::Stop { services: Vec::new(), timeout: None }, false).await.unwrap();
        sleep(Duration::from_secs(150)).await;
        assert_eq!(world.pid_of("app0"), None);
        driver.task.abort();
    });
}

fn simulate(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, scenario(seed))
}

/// A reconciler and the world it works on; it can be killed and begun again.
struct Driver {
    world: Rc<World>,
    handle: Handle,
    task: JoinHandle<()>,
}

impl Driver {
    fn new(world: &Rc<World>) -> Self {
        let (reconciler, handle) = Reconciler::new(Rc::new(Sim(Rc::clone(world))));
        let task = tokio::task::spawn_local(async move { reconciler.run().await.unwrap() });
        Self { world: Rc::clone(world), handle, task }
    }

    async fn kill(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        *self = Self::new(&Rc::clone(&self.world));
    }

    fn send(&self, change: Change) -> oneshot::Receiver<Result<(), Vec<Failure>>> {
        self.send_with(change, None)
    }

    fn send_with(&self, change: Change, wait: Option<Wait>) -> oneshot::Receiver<Result<(), Vec<Failure>>> {
        let (progress, _) = mpsc::unbounded_channel();
        let (done, result) = oneshot::channel();
        assert!(self.handle.commands.send(Command { change, wait, progress, done }).is_ok());
        result
    }

    /// Makes a change; kills the reconciler on the way at random, and begins the change again, as a journal would.
    async fn make(&mut self, kind: ChangeKind, kills: bool) -> Result<(), Vec<Failure>> {
        // `restart` is about containers, whatever they wait for; so it is with docker compose.
        self.world.conditions.set(!matches!(kind, ChangeKind::Restart { .. }));
        self.world.note(kind.verb());
        if let ChangeKind::Up { project, .. } = &kind {
            let scales = project.services.values().map(|service| (service.name.clone(), service.scale as usize));
            *self.world.scales.borrow_mut() = scales.collect();
        }
        let change = Change { requested_at: self.world.now(), kind };
        loop {
            let mut result = self.send(change.clone());
            if kills && self.world.random.percent(40) {
                let until = Duration::from_millis(self.world.random.below(800));
                if let Ok(result) = timeout(until, &mut result).await {
                    return self.ended(result).await;
                }
                self.kill().await;
                continue;
            }
            return match timeout(PATIENCE, result).await {
                Ok(result) => self.ended(result).await,
                Err(_) => panic!("{} hangs", change.kind.verb()),
            };
        }
    }

    async fn ended(
        &mut self,
        result: Result<Result<(), Vec<Failure>>, oneshot::error::RecvError>,
    ) -> Result<(), Vec<Failure>> {
        match result {
            Ok(result) => result,
            Err(_) => match (&mut self.task).await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => panic!("the reconciler ended without an answer"),
            },
        }
    }
}

/// Shows what happened when a test of one seed fails.
struct Shown(Rc<World>);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("RCOMPOSE_SEED").is_some() {
            eprintln!("{}", self.0.trace.borrow().join("\n"));
        }
    }
}

async fn scenario(seed: u64) -> Vec<String> {
    let world = World::new(seed);
    let _shown = Shown(Rc::clone(&world));
    let mut project = random_project(&world.random);
    *world.one_shots.borrow_mut() = project.services.keys().filter(|name| name.starts_with("job")).cloned().collect();
    let mut driver = Driver::new(&world);
    for _ in 0..=world.random.below(4) {
        let kind = random_change(&world.random, &mut project);
        // Faults make changes fail; what counts is that they end, and what comes after.
        let _ = driver.make(kind, true).await;
        sleep(Duration::from_millis(world.random.below(5000))).await;
    }
    world.faults.set(false);
    // Programs that were to die have died, and policies have had their time.
    sleep(Duration::from_secs(70)).await;
    converge(&mut driver, &project).await;
    survives_death(&world, &project).await;
    match world.random.below(5) {
        0 => {
            converge(&mut driver, &project).await;
            restarts(&mut driver).await;
        }
        1 => {
            converge(&mut driver, &project).await;
            runs_one_off(&mut driver, &project).await;
        }
        2 => waits(&mut driver, &project).await,
        3 => preempts(&mut driver, &project).await,
        _ => {}
    }
    driver.make(down(&project), true).await.unwrap();
    assert!(world.boxes.borrow().is_empty(), "containers left");
    assert!(world.networks.borrow().is_empty(), "networks left");
    assert!(world.volumes.borrow().is_empty(), "volumes left");
    let mut idle = driver.handle.idle.clone();
    timeout(PATIENCE, idle.wait_for(|idle| *idle)).await.expect("idle at the end").unwrap();
    driver.task.abort();
    world.trace.take()
}

async fn converge(driver: &mut Driver, project: &ProjectSpec) {
    let world = Rc::clone(&driver.world);
    let mut result = Ok(());
    for _ in 0..5 {
        let kind = up(project, Recreate::Changed);
        let change = Change { requested_at: world.now(), kind: kind.clone() };
        result = driver.make(kind, false).await;
        if result.is_ok() {
            let left = plan(&change, &world.observed()).unwrap();
            assert!(left.is_empty(), "still to do: {:?}", left.lines());
            break;
        }
        // A container that was found unhealthy needs a probe or a few to be healthy again.
        sleep(Duration::from_secs(100)).await;
    }
    assert_eq!(result, Ok(()), "`up` does not converge");
    let before = runs(&world);
    driver.make(up(project, Recreate::Changed), true).await.unwrap();
    assert_eq!(runs(&world), before, "a second `up` touched what was right");
}

/// Which containers run, since when. Jobs are left out: each `up` starts them again.
fn runs(world: &World) -> BTreeSet<(String, String, i64)> {
    let containers = world.observed().containers.into_iter();
    let lasting = containers.filter(|container| !container.service.name.starts_with("job"));
    let run = |container: ContainerState| match container.phase {
        Phase::Running { started_at, .. } => (container.name, container.id.to_string(), started_at),
        _ => (container.name, container.id.to_string(), 0),
    };
    lasting.map(run).collect()
}

/// A `restart` starts each container exactly once more, also when it is killed on the way.
async fn restarts(driver: &mut Driver) {
    let world = Rc::clone(&driver.world);
    let (before, starts) = (runs(&world), world.starts.borrow().clone());
    let kind = ChangeKind::Restart { services: Vec::new(), timeout: None, no_deps: false };
    driver.make(kind, true).await.unwrap();
    let after = runs(&world);
    assert_eq!(before.len(), after.len());
    for ((name, id, was), (_, id_after, is)) in before.iter().zip(&after) {
        assert!(id == id_after && was < is, "{name} was started at {was}, and after `restart` at {is}");
        let count = |starts: &BTreeMap<String, u32>| starts.get(name).copied().unwrap_or_default();
        assert_eq!(count(&world.starts.borrow()), count(&starts) + 1, "starts of {name}");
    }
}

/// A one-off container is made and started once, also when the change is killed on the way, and discarded after.
async fn runs_one_off(driver: &mut Driver, project: &ProjectSpec) {
    let world = Rc::clone(&driver.world);
    let (before, name) = (runs(&world), "x-app0-run-1");
    let (service, no_deps) = ("app0".to_owned(), world.random.percent(50));
    let kind = ChangeKind::Run { project: project.clone(), service, name: name.to_owned(), no_deps };
    driver.make(kind, true).await.unwrap();
    assert_eq!(world.starts.borrow().get(name), Some(&1), "starts of the one-off container");
    let others: BTreeSet<_> = runs(&world).into_iter().filter(|(one, ..)| one != name).collect();
    assert_eq!(others, before, "`run` touched other containers");
    driver.make(ChangeKind::Discard { container: name.to_owned() }, true).await.unwrap();
    assert_eq!(runs(&world), before, "discarded is gone, and alone");
}

/// `up --wait` ends when everything is healthy, and not before.
async fn waits(driver: &mut Driver, project: &ProjectSpec) {
    let world = Rc::clone(&driver.world);
    driver.make(ChangeKind::Stop { services: Vec::new(), timeout: None }, true).await.unwrap();
    let change = Change { requested_at: world.now(), kind: up(project, Recreate::Changed) };
    let result = timeout(PATIENCE, driver.send_with(change, Some(Wait::default()))).await;
    let result = result.expect("`up --wait` hangs").unwrap();
    // A check may fail often enough to be unhealthy for a while; then the wait says so.
    let Ok(()) = result else { return };
    for container in world.observed().containers.iter().filter(|c| !c.service.name.starts_with("job")) {
        let healthy = match &container.phase {
            Phase::Running { health, .. } => health.is_none_or(|health| health == Health::Healthy),
            _ => false,
        };
        assert!(healthy, "`--wait` ended while {} is {:?}", container.name, container.phase);
    }
}

/// While an `up` goes on, a second one is refused, and `down` takes over.
async fn preempts(driver: &mut Driver, project: &ProjectSpec) {
    let world = Rc::clone(&driver.world);
    driver.make(ChangeKind::Stop { services: Vec::new(), timeout: None }, true).await.unwrap();
    let change = |kind| Change { requested_at: world.now(), kind };
    let mut first = driver.send(change(up(project, Recreate::Force)));
    let begun = Duration::from_millis(world.random.below(100));
    if timeout(begun, &mut first).await.is_ok() {
        return;
    }
    let second = driver.send(change(up(project, Recreate::Changed))).await.unwrap();
    let refused = second.expect_err("a second `up` is refused");
    assert!(refused[0].message.contains("refused"), "{refused:?}");
    if first.try_recv().is_ok() {
        return;
    }
    let down = driver.send(change(down(project)));
    let first = timeout(PATIENCE, first).await.expect("the first `up` hangs").unwrap();
    let interrupted = first.expect_err("it was interrupted");
    assert!(interrupted.iter().any(|failure| failure.message.contains("interrupted by `down`")), "{interrupted:?}");
    timeout(PATIENCE, down).await.expect("`down` hangs").unwrap().unwrap();
    assert!(world.boxes.borrow().is_empty(), "containers left by the `down` that took over");
}

fn down(project: &ProjectSpec) -> ChangeKind {
    ChangeKind::Down {
        services: Vec::new(),
        volumes: true,
        orphans: Orphans::Remove,
        timeout: None,
        project: Some(project.clone()),
    }
}

/// A container that dies comes back exactly when its policy says so.
async fn survives_death(world: &Rc<World>, project: &ProjectSpec) {
    sleep(Duration::from_secs(100)).await;
    let victims: Vec<_> = world
        .observed()
        .containers
        .into_iter()
        .filter(|c| matches!(c.phase, Phase::Running { .. }) && project.services.contains_key(&c.service.name))
        .collect();
    for victim in &victims {
        world.end(&victim.id, 1, None);
    }
    sleep(Duration::from_secs(70)).await;
    for victim in victims.iter().filter(|victim| !victim.service.name.starts_with("job")) {
        let now = world.boxes.borrow()[&victim.id].state.phase.clone();
        let comes_back = match victim.service.restart {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { max_retries } => max_retries.is_none_or(|max| victim.restarts < max),
        };
        let runs = matches!(now, Phase::Running { .. });
        assert_eq!(runs, comes_back, "{} with {:?} is {now:?}", victim.name, victim.service.restart);
    }
}

fn up(project: &ProjectSpec, recreate: Recreate) -> ChangeKind {
    let options = UpOptions {
        recreate,
        always_recreate_deps: false,
        no_deps: false,
        no_start: false,
        orphans: Orphans::Remove,
        renew_anonymous_volumes: false,
        timeout: None,
    };
    ChangeKind::Up { project: project.clone(), services: Vec::new(), options }
}

fn random_change(random: &Random, project: &mut ProjectSpec) -> ChangeKind {
    let pick = usize::try_from(random.below(project.services.len() as u64)).unwrap();
    let name = project.services.keys().nth(pick).unwrap().clone();
    let service = project.services.get_mut(&name).unwrap();
    match random.below(10) {
        0 => {
            service.config_hash.push('x');
            up(project, Recreate::Changed)
        }
        1 => {
            service.scale = u32::try_from(random.below(4)).unwrap();
            up(project, Recreate::Changed)
        }
        2 => up(project, Recreate::Force),
        3 => ChangeKind::Stop { services: vec![name], timeout: None },
        4 => ChangeKind::Stop { services: Vec::new(), timeout: Some(Duration::from_secs(1)) },
        5 => ChangeKind::Down {
            services: Vec::new(),
            volumes: false,
            orphans: Orphans::Warn,
            timeout: None,
            project: Some(project.clone()),
        },
        8 => ChangeKind::Restart { services: vec![name], timeout: None, no_deps: false },
        6 => ChangeKind::Kill { services: vec![name], signal: "SIGKILL".into() },
        7 => {
            project.networks.get_mut("default").unwrap().config_hash.push('x');
            up(project, Recreate::Changed)
        }
        _ => up(project, Recreate::Changed),
    }
}

fn random_project(random: &Random) -> ProjectSpec {
    let mut services = BTreeMap::<String, ServiceSpec>::new();
    for number in 0..=random.below(6) {
        let job = number > 0 && random.percent(20);
        let name = format!("{}{number}", if job { "job" } else { "app" });
        let mut depends_on = BTreeMap::new();
        for (other, spec) in &services {
            if random.percent(40) {
                let condition = match random.below(2) {
                    _ if other.starts_with("job") => Condition::ServiceCompletedSuccessfully,
                    0 if spec.health.is_some() => Condition::ServiceHealthy,
                    _ => Condition::ServiceStarted,
                };
                let dependency = Dependency { condition, required: random.percent(80), restart: random.percent(30) };
                depends_on.insert(other.clone(), dependency);
            }
        }
        let restart = match random.below(4) {
            _ if job => RestartPolicy::No,
            0 => RestartPolicy::No,
            1 => RestartPolicy::Always,
            2 => RestartPolicy::UnlessStopped,
            _ => RestartPolicy::OnFailure { max_retries: random.percent(50).then_some(2) },
        };
        let health = (!job && random.percent(50)).then(|| HealthSpec {
            command: vec!["check".into()],
            interval: Duration::from_secs(1 + random.below(20)),
            timeout: Duration::from_secs(1),
            retries: 1 + u32::try_from(random.below(4)).unwrap(),
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
        });
        let attachment = Attachment { network: "default".into(), ..Attachment::default() };
        let source = MountSource::Volume { key: "data".into(), no_copy: false, subpath: None, relabel: None };
        let volume = Mount { target: "/data".into(), read_only: false, source };
        let container = ContainerSpec {
            image: "app".into(),
            network: NetworkMode::Networks(vec![attachment]),
            mounts: if random.percent(40) { vec![volume] } else { Vec::new() },
            ..ContainerSpec::default()
        };
        let service = ServiceSpec {
            name: name.clone(),
            scale: 1 + u32::try_from(random.below(2)).unwrap(),
            container_name: None,
            config_hash: "a".into(),
            fields: serde_json::Map::new(),
            depends_on,
            restart,
            health,
            health_times: HealthTimes::default(),
            stop_signal: None,
            stop_grace: Duration::from_secs(10),
            post_start: Vec::new(),
            pre_start: Vec::new(),
            pre_stop: Vec::new(),
            attach: true,
            builds: false,
            auto_remove: false,
            container,
        };
        services.insert(name, service);
    }
    let network = NetworkSpec {
        name: "x_default".into(),
        external: false,
        internal: false,
        enable_ipv4: true,
        enable_ipv6: false,
        driver: Default::default(),
        mtu: None,
        interface_prefix: None,
        subnets: Vec::new(),
        labels: BTreeMap::new(),
        config_hash: "n".into(),
    };
    let volume =
        VolumeSpec { name: "x_data".into(), external: false, driver_opts: BTreeMap::new(), labels: BTreeMap::new() };
    ProjectSpec {
        name: "x".into(),
        separator: '-',
        working_dir: "/x".into(),
        config_files: Vec::new(),
        services,
        disabled_services: Vec::new(),
        networks: BTreeMap::from([("default".into(), network)]),
        volumes: BTreeMap::from([("data".into(), volume)]),
    }
}
