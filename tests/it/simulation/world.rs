//! A machine that exists in memory only: operations take random time, fail at random, and containers die.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use rcompose::base::ids::ContainerId;
use rcompose::runtime::{NewContainer, Probe, Runtime, RuntimeError, RuntimeEvent};
use rcompose::spec::container::{MountSource, NetworkMode};
use rcompose::spec::{
    Condition, ContainerState, Exit, Health, HealthSpec, HookSpec, NetworkSpec, Observed, Phase, RestartPolicy,
    VolumeSpec,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// splitmix64
pub(super) struct Random(Cell<u64>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub(super) fn below(&self, limit: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    pub(super) fn percent(&self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

pub(super) struct Simulated {
    pub(super) state: ContainerState,
    run: u64,
    was_started: bool,
    was_healthy: bool,
    completed: bool,
}

pub(super) struct World {
    pub(super) random: Random,
    begun: Instant,
    pub(super) faults: Cell<bool>,
    /// What a container waits for must have come when a command starts it.
    pub(super) conditions: Cell<bool>,
    /// Containers wanted by service.
    pub(super) scales: RefCell<BTreeMap<String, usize>>,
    pub(super) boxes: RefCell<BTreeMap<ContainerId, Simulated>>,
    pub(super) networks: RefCell<BTreeMap<String, NetworkSpec>>,
    pub(super) volumes: RefCell<BTreeMap<String, VolumeSpec>>,
    /// Services that end by themselves with status 0.
    pub(super) one_shots: RefCell<Vec<String>>,
    /// Starts by command, by container name.
    pub(super) starts: RefCell<BTreeMap<String, u32>>,
    events: RefCell<VecDeque<RuntimeEvent>>,
    news: Notify,
    made: Cell<u64>,
    pub(super) trace: RefCell<Vec<String>>,
}

/// The world as one reconciler has it.
pub(super) struct Sim(pub(super) Rc<World>);

impl World {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            random: Random::new(seed),
            begun: Instant::now(),
            faults: Cell::new(true),
            conditions: Cell::new(true),
            scales: RefCell::default(),
            boxes: RefCell::default(),
            networks: RefCell::default(),
            volumes: RefCell::default(),
            one_shots: RefCell::default(),
            starts: RefCell::default(),
            events: RefCell::default(),
            news: Notify::new(),
            made: Cell::new(0),
            trace: RefCell::default(),
        })
    }

    /// Nanoseconds since the epoch of this world; never the same twice.
    pub(super) fn now(&self) -> i64 {
        self.made.set(self.made.get() + 1);
        1_000_000_000 + i64::try_from(self.begun.elapsed().as_nanos() + u128::from(self.made.get())).unwrap()
    }

    pub(super) fn note(&self, what: &str) {
        self.trace.borrow_mut().push(format!("{} {what}", self.begun.elapsed().as_millis()));
    }

    async fn work(&self, what: &str) -> Result<(), RuntimeError> {
        sleep(Duration::from_millis(self.random.below(20))).await;
        if self.faults.get() && self.random.percent(4) {
            self.note(&format!("fault: {what}"));
            return Err(RuntimeError { message: format!("injected fault: {what}"), help: None });
        }
        self.note(what);
        Ok(())
    }

    /// The answer takes its time too, so that a kill may fall between deed and answer.
    async fn answer(&self) {
        sleep(Duration::from_millis(self.random.below(5))).await;
    }

    pub(super) fn end(&self, id: &ContainerId, code: i32, run: Option<u64>) {
        let at = self.now();
        let mut boxes = self.boxes.borrow_mut();
        let Some(found) = boxes.get_mut(id) else { return };
        if !matches!(found.state.phase, Phase::Running { .. }) || run.is_some_and(|run| run != found.run) {
            return;
        }
        let exit = Exit { code, oom: false, at };
        found.state.phase = Phase::Exited(exit);
        found.completed |= code == 0;
        let name = found.state.name.clone();
        drop(boxes);
        self.note(&format!("exit {name} {code}"));
        self.events.borrow_mut().push_back(RuntimeEvent::Exited { id: id.clone(), exit });
        self.news.notify_one();
    }

    /// The process of a service that runs.
    pub(super) fn pid_of(&self, service: &str) -> Option<i32> {
        self.boxes.borrow().values().find_map(|found| match found.state.phase {
            Phase::Running { pid, .. } if found.state.service.name == service => Some(pid),
            _ => None,
        })
    }

    pub(super) fn observed(&self) -> Observed {
        Observed {
            containers: self.boxes.borrow().values().map(|found| found.state.clone()).collect(),
            networks: self.networks.borrow().clone(),
            volumes: self.volumes.borrow().clone(),
            images: BTreeMap::from([("app".to_owned(), "sha256:app".to_owned())]),
        }
    }

    /// Fails unless everything that this container waits for has come.
    fn check_conditions(&self, state: &ContainerState) {
        let boxes = self.boxes.borrow();
        for (name, how) in state.service.depends_on.iter().filter(|(_, how)| how.required) {
            let others = boxes.values().filter(|b| b.state.service.name == *name && b.state.number > 0);
            let wanted = self.scales.borrow().get(name).copied().unwrap_or_default();
            // Nobody waits for what is about to be removed.
            if others.clone().count() == 0 || others.clone().count() > wanted {
                continue;
            }
            let mut others = others;
            let held = match how.condition {
                Condition::ServiceStarted => others.all(|b| b.was_started),
                Condition::ServiceHealthy => others.all(|b| b.was_healthy),
                Condition::ServiceCompletedSuccessfully => others.any(|b| b.completed),
            };
            assert!(held, "{} started before `{name}` met {:?}", state.name, how.condition);
        }
    }
}

impl Runtime for Sim {
    async fn observe(&self, _: Vec<String>) -> Result<Observed, RuntimeError> {
        self.0.answer().await;
        Ok(self.0.observed())
    }

    fn notice(&self, _: &str) {}

    async fn preflight(&self, _: &[NewContainer], _: &[ContainerId]) -> Result<(), Vec<RuntimeError>> {
        self.0.work("preflight").await.map_err(|error| vec![error])
    }

    async fn create_network(&self, key: String, spec: NetworkSpec) -> Result<(), RuntimeError> {
        self.0.work(&format!("create network {key}")).await?;
        self.0.networks.borrow_mut().insert(key, spec);
        self.0.answer().await;
        Ok(())
    }

    async fn remove_network(&self, key: String) -> Result<(), RuntimeError> {
        self.0.work(&format!("remove network {key}")).await?;
        self.0.networks.borrow_mut().remove(&key);
        Ok(())
    }

    async fn create_volume(&self, key: String, spec: VolumeSpec) -> Result<(), RuntimeError> {
        self.0.work(&format!("create volume {key}")).await?;
        self.0.volumes.borrow_mut().insert(key, spec);
        Ok(())
    }

    async fn remove_volume(&self, name: String) -> Result<(), RuntimeError> {
        self.0.work(&format!("remove volume {name}")).await?;
        let uses = |found: &Simulated| !found.state.service.container.mounts.is_empty();
        assert!(!self.0.boxes.borrow().values().any(uses), "volume {name} removed in use");
        self.0.volumes.borrow_mut().retain(|_, there| there.name != name);
        Ok(())
    }

    async fn create_container(&self, new: NewContainer) -> Result<ContainerState, RuntimeError> {
        let world = &self.0;
        world.work(&format!("create {}", new.name)).await?;
        let taken = world.boxes.borrow().values().any(|found| found.state.name == new.name);
        assert!(!taken, "two containers called {}", new.name);
        for mount in &new.service.container.mounts {
            if let MountSource::Volume { key, .. } = &mount.source {
                assert!(world.volumes.borrow().contains_key(key), "{} made before volume {key}", new.name);
            }
        }
        assert!(world.networks.borrow().contains_key("default"), "{} made before its network", new.name);
        let mut bytes = [0; 32];
        let made = world.now();
        bytes[..8].copy_from_slice(&made.to_be_bytes());
        let state = ContainerState {
            id: ContainerId::from_bytes(bytes),
            name: new.name,
            number: new.number,
            service: new.service,
            image_id: "sha256:app".into(),
            created_at: made,
            phase: Phase::Created,
            restarts: 0,
            stopped_by_user: false,
            rejoins: false,
            addresses: BTreeMap::new(),
            ports: Vec::new(),
        };
        let found =
            Simulated { state: state.clone(), run: 0, was_started: false, was_healthy: false, completed: false };
        world.boxes.borrow_mut().insert(state.id.clone(), found);
        world.answer().await;
        Ok(state)
    }

    async fn start_container(&self, id: ContainerId, restarts: u32) -> Result<ContainerState, RuntimeError> {
        let world = Rc::clone(&self.0);
        let state = world.boxes.borrow().get(&id).map(|found| found.state.clone());
        let name = state.map(|state| state.name).unwrap_or_default();
        world.work(&format!("start {name}, restarts {restarts}")).await?;
        let started_at = world.now();
        let state = world.boxes.borrow().get(&id).map(|found| found.state.clone());
        let Some(state) = state else {
            return Err(RuntimeError { message: "no such container".into(), help: None });
        };
        if matches!(state.phase, Phase::Running { .. }) {
            return Ok(state);
        }
        if restarts == 0 {
            if world.conditions.get() {
                world.check_conditions(&state);
            }
        } else {
            assert!(!state.stopped_by_user, "{} was stopped by command and restarted by policy", state.name);
            let policy = state.service.restart;
            assert!(policy != RestartPolicy::No || state.rejoins, "{} restarted against its policy", state.name);
        }
        let joined = match &state.service.container.network {
            NetworkMode::Service(parent) => match world.pid_of(parent) {
                Some(pid) => vec![pid],
                None => return Err(RuntimeError { message: format!("`{parent}` does not run"), help: None }),
            },
            _ => Vec::new(),
        };
        let pid = i32::try_from(world.made.get()).unwrap();
        let (state, run) = {
            let mut boxes = world.boxes.borrow_mut();
            let found = boxes.get_mut(&id).unwrap();
            found.run += 1;
            found.was_started = true;
            found.state.stopped_by_user = false;
            found.state.rejoins = false;
            found.state.restarts = restarts;
            let health = found.state.service.health.as_ref().map(|_| Health::Starting);
            found.state.phase = Phase::Running { pid, started_at, health, paused: false, joined };
            (found.state.clone(), found.run)
        };
        world.note(&format!("started {}", state.name));
        if restarts == 0 {
            *world.starts.borrow_mut().entry(state.name.clone()).or_default() += 1;
        }
        let one_shot = world.one_shots.borrow().contains(&state.service.name);
        let dies = world.faults.get() && world.random.percent(15);
        if one_shot || dies {
            let after = Duration::from_millis(world.random.below(3000));
            let code = i32::from(dies);
            let world = Rc::clone(&world);
            tokio::task::spawn_local(async move {
                sleep(after).await;
                world.end(&id, code, Some(run));
            });
        }
        world.answer().await;
        Ok(state)
    }

    async fn signal_container(&self, id: ContainerId, signal: String) -> Result<(), RuntimeError> {
        self.0.work(&format!("signal {signal}")).await?;
        let stubborn = signal != "SIGKILL" && self.0.random.percent(20);
        if !stubborn {
            let world = Rc::clone(&self.0);
            let after = Duration::from_millis(world.random.below(500));
            let run = world.boxes.borrow().get(&id).map(|found| found.run);
            tokio::task::spawn_local(async move {
                sleep(after).await;
                world.end(&id, 143, run);
            });
        }
        Ok(())
    }

    fn is_ending(&self, id: &ContainerId) -> bool {
        self.0.boxes.borrow().get(id).is_some_and(|found| !matches!(found.state.phase, Phase::Running { .. }))
    }

    async fn mark_rejoins(&self, id: ContainerId, _: String) -> Result<(), RuntimeError> {
        self.0.work("mark rejoins").await?;
        if let Some(found) = self.0.boxes.borrow_mut().get_mut(&id) {
            found.state.rejoins = true;
        }
        Ok(())
    }

    async fn mark_stopped(&self, id: ContainerId, stopped: bool) -> Result<(), RuntimeError> {
        self.0.work("mark").await?;
        if let Some(found) = self.0.boxes.borrow_mut().get_mut(&id) {
            found.state.stopped_by_user = stopped;
            found.state.rejoins = false;
        }
        Ok(())
    }

    async fn remove_container(&self, id: ContainerId, _: bool) -> Result<(), RuntimeError> {
        self.0.work("remove").await?;
        if let Some(found) = self.0.boxes.borrow().get(&id) {
            let running = matches!(found.state.phase, Phase::Running { .. });
            assert!(!running, "{} removed while it runs", found.state.name);
        }
        self.0.boxes.borrow_mut().remove(&id);
        self.0.answer().await;
        Ok(())
    }

    async fn pause_container(&self, id: ContainerId, pause: bool) -> Result<ContainerState, RuntimeError> {
        self.0.work(&format!("pause {pause}")).await?;
        let mut boxes = self.0.boxes.borrow_mut();
        let found = boxes.get_mut(&id).ok_or(RuntimeError { message: "no such container".into(), help: None })?;
        if let Phase::Running { paused, .. } = &mut found.state.phase {
            *paused = pause;
        }
        Ok(found.state.clone())
    }

    async fn run_hook(&self, _: ContainerId, hook: HookSpec) -> Result<Probe, RuntimeError> {
        self.0.work(&format!("hook {}", hook.command.join(" "))).await?;
        let code = i32::from(self.0.faults.get() && self.0.random.percent(20));
        Ok(Probe { code: Some(code), output: String::new(), took: Duration::ZERO })
    }

    async fn probe(&self, id: ContainerId, _: HealthSpec) -> Result<Probe, RuntimeError> {
        let world = &self.0;
        let took = Duration::from_millis(world.random.below(30));
        sleep(took).await;
        let ok = !world.faults.get() || world.random.percent(60);
        if let Some(found) = world.boxes.borrow_mut().get_mut(&id) {
            found.was_healthy |= ok;
        }
        Ok(Probe { code: Some(i32::from(!ok)), output: String::new(), took })
    }

    async fn record_health(&self, id: ContainerId, new: Health) -> Result<(), RuntimeError> {
        if let Some(found) = self.0.boxes.borrow_mut().get_mut(&id)
            && let Phase::Running { health, .. } = &mut found.state.phase
        {
            *health = Some(new);
        }
        Ok(())
    }

    async fn last_output(&self, _: ContainerId, _: usize) -> Vec<String> {
        vec!["last words".into()]
    }

    async fn next_event(&self) -> Option<RuntimeEvent> {
        loop {
            if let Some(event) = self.0.events.borrow_mut().pop_front() {
                return Some(event);
            }
            self.0.news.notified().await;
        }
    }
}
