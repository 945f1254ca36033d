//! The machine as the reconciler sees it: the `Runtime` of Linux.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::Spec;
use tokio::sync::Mutex;
use tokio::sync::Notify;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::base::ids::ContainerId;
use crate::base::trash::Trash;
use crate::control;
use crate::engine::cgroup::Hierarchies;
use crate::engine::selinux::Policy;
use crate::image::Image;
use crate::image::Store;
use crate::keeper::ExitRecord;
use crate::logs::{Forwarder, LogPump};
use crate::plan::Reason;
use crate::runtime::NewContainer;
use crate::runtime::Probe;
use crate::runtime::Runtime;
use crate::runtime::RuntimeError;
use crate::runtime::RuntimeEvent;
use crate::spec::ContainerState;
use crate::spec::Health;
use crate::spec::HealthSpec;
use crate::spec::HookSpec;
use crate::spec::NetworkSpec;
use crate::spec::Observed;
use crate::spec::VolumeSpec;
use crate::spec::container::NamespaceMode;
use crate::state::ProjectDir;
use crate::state::ProjectRecord;
use crate::state::Roots;
use crate::state::RunState;
use crate::state::StateFile;
use crate::state::{ContainerConfig, ContainerRecord};
use crate::supervisor::check::Room;
use crate::supervisor::connect::Connections;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::link::Link;
use crate::sys::process;
use crate::volume::NewVolume;
use crate::volume::Volumes;

/// A container that runs, until its end has been dealt with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) pid: i32,
    pub(super) start_time: u64,
}

impl Live {
    /// Whether the number is still its process's: that may have ended, and somebody else have got the number, before we hear of it.
    pub(super) fn is_itself(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }
}

/// What is being done about ends.
pub(super) type Dealings = JoinSet<Option<RuntimeEvent>>;

/// Everything below the seam. Cheap to clone.
#[derive(Clone)]
pub(super) struct Host(Rc<Parts>);

pub(super) struct Parts {
    pub(super) project: String,
    pub(super) roots: Roots,
    pub(super) dir: ProjectDir,
    pub(super) boot_id: String,
    pub(super) link: Link,
    pub(super) store: Store,
    /// Images by the name or id they were asked for; an image never changes.
    pub(super) images: RefCell<HashMap<String, Rc<Image>>>,
    pub(super) volumes: Volumes,
    pub(super) trash: Trash,
    /// It is going to be emptied.
    pub(super) trash_waits: Rc<Cell<bool>>,
    pub(super) hierarchies: Hierarchies,
    /// Where the host has SELinux.
    pub(super) selinux: Option<Policy>,
    pub(super) pump: LogPump,
    /// Who sends output on, and hears when all of it has been.
    pub(super) forwarders: RefCell<HashMap<ContainerId, (Forwarder, oneshot::Receiver<()>)>>,
    pub(super) connections: Connections,
    pub(super) record: RefCell<ProjectRecord>,
    pub(super) live: RefCell<BTreeMap<ContainerId, Live>>,
    /// `cgroup_parent` of the containers that have one.
    pub(super) cgroup_parents: RefCell<HashMap<ContainerId, String>>,
    /// Containers whose start has not been written down yet: their end waits for that.
    pub(super) starting: RefCell<BTreeSet<ContainerId>>,
    pub(super) started: Notify,
    /// Containers that do not run and whose files somebody copies.
    pub(super) held: RefCell<BTreeSet<ContainerId>>,
    pub(super) let_go: Notify,
    /// Descriptors for the containers that are being started.
    pub(super) room: Cell<Room>,
    /// What whoever asked for the change under way should know.
    pub(super) notices: RefCell<Option<mpsc::UnboundedSender<String>>>,
    /// What a user with one id does without has been said.
    pub(super) said_single: Cell<bool>,
    /// Ends that the keeper has reported, and those that are being dealt with.
    pub(super) ends: Mutex<(mpsc::UnboundedReceiver<(String, ExitRecord)>, Dealings)>,
    /// Who follows the containers' lives.
    pub(super) watchers: RefCell<Vec<mpsc::UnboundedSender<control::Event>>>,
    /// The latest time in the project's records.
    pub(super) latest: Cell<i64>,
    /// Makes the ids of processes inside containers.
    pub(super) next_process: Cell<u64>,
}

impl std::ops::Deref for Host {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Host {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Rc::new(parts))
    }

    /// Nanoseconds since the epoch, but later than all that the project's records say: times are compared to tell what came first,
    /// and the machine's clock may have been set back.
    pub(super) fn now(&self) -> i64 {
        self.latest.set(machine_now().max(self.latest.get().saturating_add(1)));
        self.latest.get()
    }

    /// The same for when something was asked for: what has been done since then by the machine's clock counts as done.
    pub(super) fn requested(&self, at: i64) -> i64 {
        let behind = self.latest.get() > machine_now();
        // What is done for it comes after it, also when the clock is set back between the two.
        self.seen(at);
        if behind { self.now() } else { at }
    }

    /// Takes in a time of the records.
    pub(super) fn seen(&self, at: i64) {
        self.latest.set(self.latest.get().max(at));
    }

    /// An image by reference or id.
    pub(super) fn image(&self, name: &str) -> Result<Rc<Image>, RuntimeError> {
        if let Some(image) = self.images.borrow().get(name) {
            return Ok(Rc::clone(image));
        }
        let image = Rc::new(self.store.resolve(name).map_err(|error| because("cannot use the image", &error))?);
        self.images.borrow_mut().insert(name.to_owned(), Rc::clone(&image));
        Ok(image)
    }

    /// A read-only view of what the image's layers hold together.
    pub(super) fn view(&self, image: &Image) -> std::io::Result<OwnedFd> {
        crate::engine::view::open(&image.layers)
    }

    pub(super) fn load(&self, id: &ContainerId) -> Result<ContainerRecord, RuntimeError> {
        let record = self.dir.load_container(id).map_err(|error| because("cannot read the container", &error))?;
        record.ok_or_else(|| failure(format!("container {} does not exist", id.short())))
    }

    /// What a container was started with; processes that join it get the same restrictions. It is read when needed: there
    /// may be many containers, and it is large.
    pub(super) fn spec(&self, id: &ContainerId) -> Result<Spec, RuntimeError> {
        let path = self.dir.container(id).join("spec.json");
        let read = crate::base::disk::read_json(&path)
            .map_err(|error| because("cannot read the runtime specification", &error))?;
        read.ok_or_else(|| failure(format!("`{}` is gone", path.display())))
    }

    pub(super) fn write_state(&self, id: &ContainerId, state: &StateFile) -> Result<(), RuntimeError> {
        self.dir.write_state(id, state).map_err(|error| because("cannot write the container's state", &error))
    }

    /// Changes the project's record on disk.
    pub(super) fn change_record(&self, change: impl FnOnce(&mut ProjectRecord)) -> Result<(), RuntimeError> {
        let mut record = self.record.borrow_mut();
        change(&mut record);
        let written = match self.dir.write_record(&record) {
            // What was removed is still there, and may be what takes the room.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                self.trash.empty().and_then(|()| self.dir.write_record(&record))
            }
            written => written,
        };
        written.map_err(|error| because("cannot write the project's record", &error))
    }

    pub(super) fn observe_one(&self, id: &ContainerId) -> Result<ContainerState, RuntimeError> {
        Ok(self.load(id)?.observe(|run| self.is_alive(id, run)))
    }

    /// A run counts while its end has not been dealt with.
    pub(super) fn is_alive(&self, id: &ContainerId, run: &RunState) -> bool {
        self.live.borrow().get(id).is_some_and(|live| live.pid == run.pid)
    }

    /// The running container that fits.
    pub(super) fn id_of(&self, fits: impl Fn(&ContainerConfig) -> bool) -> Result<Option<ContainerId>, RuntimeError> {
        for id in self.live.borrow().keys() {
            if fits(&self.load(id)?.config) {
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }

    /// The running container whose namespace is joined.
    pub(super) fn owner_of(&self, mode: &NamespaceMode) -> Result<Option<ContainerId>, RuntimeError> {
        match mode {
            NamespaceMode::Service(service) => self.id_of(|other| other.service.name == *service),
            NamespaceMode::Container(name) => {
                self.id_of(|other| other.name == *name || other.id.as_str().starts_with(name.as_str()))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn cgroup_path(&self, id: &ContainerId) -> String {
        let parents = self.cgroup_parents.borrow();
        self.roots.cgroup_path(&self.project, parents.get(id).map(String::as_str), id)
    }

    /// To be called before anything is asked about a container's control group.
    pub(super) fn note_cgroup_parent(&self, config: &ContainerConfig) {
        if let Some(parent) = config.service.container.resources.cgroup_parent.clone() {
            self.cgroup_parents.borrow_mut().insert(config.id.clone(), parent);
        }
    }

    /// Tells whoever follows the containers' lives.
    pub(super) fn tell(&self, event: &control::Event) {
        self.watchers.borrow_mut().retain(|watcher| watcher.send(event.clone()).is_ok());
    }

    /// Containers starting, ending and being removed from now on.
    pub(super) fn watch_lives(&self) -> mpsc::UnboundedReceiver<control::Event> {
        let (tell, told) = mpsc::unbounded_channel();
        self.watchers.borrow_mut().push(tell);
        told
    }

    /// What a person should know of the change they asked for; when nobody waits for one, it goes to the log.
    pub(super) fn notice(&self, message: &str) {
        let told = self.notices.borrow().as_ref().is_some_and(|notices| notices.send(message.to_owned()).is_ok());
        if !told {
            self.warn(message);
        }
    }

    /// What nobody waits for goes to the supervisor's log, which is its standard error.
    pub(super) fn warn(&self, message: &str) {
        crate::supervisor::failure::log(message);
    }

    /// No longer a container of ours.
    pub(super) fn forget(&self, id: &ContainerId) {
        self.live.borrow_mut().remove(id);
        self.disconnect(id);
        self.release_addresses(id);
        self.remove_group(id);
        self.cgroup_parents.borrow_mut().remove(id);
        let contents = self.dir.run().join("contents").join(id.as_str());
        match std::fs::remove_dir_all(&contents) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.warn(&format!("cannot remove `{}`: {error}", contents.display()));
            }
            _ => {}
        }
    }

    fn observe_all(&self, images: &[String]) -> Result<Observed, RuntimeError> {
        let records = self.dir.load().map_err(|error| because("cannot read the project's containers", &error))?;
        let containers =
            records.iter().map(|record| record.observe(|run| self.is_alive(&record.config.id, run))).collect();
        let images = images.iter().filter_map(|name| Some((name.clone(), self.image(name).ok()?.id.to_string())));
        let volumes = self.record.borrow().volumes.clone();
        let volumes = volumes.into_iter().filter(|(_, spec)| self.volumes.get(&spec.name).is_ok());
        Ok(Observed {
            containers,
            networks: self.existing_networks(),
            volumes: volumes.collect(),
            images: images.collect(),
        })
    }
}

/// Nanoseconds since the epoch.
fn machine_now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

impl Runtime for Host {
    fn notice(&self, message: &str) {
        self.notice(message);
    }

    async fn observe(&self, images: Vec<String>) -> Result<Observed, RuntimeError> {
        self.images.borrow_mut().clear();
        self.observe_all(&images)
    }

    async fn preflight(&self, containers: &[NewContainer], going: &[ContainerId]) -> Result<(), Vec<RuntimeError>> {
        self.check(containers, going)
    }

    async fn create_network(&self, key: String, spec: NetworkSpec) -> Result<(), RuntimeError> {
        self.ensure_network(&key, &spec)
    }

    async fn remove_network(&self, key: String) -> Result<(), RuntimeError> {
        self.drop_network(&key)
    }

    async fn create_volume(&self, key: String, spec: VolumeSpec) -> Result<(), RuntimeError> {
        self.change_record(|record| {
            record.volumes.insert(key.clone(), spec.clone());
        })?;
        if spec.external {
            let found = self.volumes.get(&spec.name);
            return found.map(|_| ()).map_err(|error| because(format!("cannot use external volume `{key}`"), &error));
        }
        let new = NewVolume {
            name: Some(spec.name),
            driver: String::new(),
            driver_opts: spec.driver_opts,
            labels: spec.labels,
        };
        self.volumes.create(new).map_err(|error| because(format!("cannot create volume `{key}`"), &error)).map(|_| ())
    }

    async fn remove_volume(&self, name: String) -> Result<(), RuntimeError> {
        let in_use = self.volumes_in_use()?;
        match self.volumes.remove(&name, &in_use) {
            Ok(()) | Err(crate::volume::Error::NotFound { .. }) => {}
            Err(error) => return Err(because("cannot remove the volume", &error)),
        }
        self.change_record(|record| record.volumes.retain(|_, known| known.name != name))
    }

    async fn create_container(&self, new: NewContainer) -> Result<ContainerState, RuntimeError> {
        self.create(new)
    }

    async fn start_container(&self, id: ContainerId, restarts: u32) -> Result<ContainerState, RuntimeError> {
        self.start(&id, restarts).await
    }

    async fn signal_container(&self, id: ContainerId, signal: String) -> Result<(), RuntimeError> {
        let number =
            crate::sys::signals::number(&signal).ok_or_else(|| failure(format!("`{signal}` is not a signal")))?;
        if self.live.borrow().contains_key(&id) {
            self.note("kill", &self.load(&id)?.config, &[("signal", number.to_string())]);
            let sent = self.link.signal(id.as_str(), number);
            sent.map_err(|error| because("cannot signal the container", &error))?;
            // The signal waits until it may run again.
            if self.load(&id)?.state.paused {
                self.pause(&id, false).await?;
            }
        }
        Ok(())
    }

    fn is_ending(&self, id: &ContainerId) -> bool {
        self.live.borrow().get(id).is_some_and(|live| !live.is_itself())
    }

    async fn pause_container(&self, id: ContainerId, pause: bool) -> Result<ContainerState, RuntimeError> {
        self.pause(&id, pause).await
    }

    async fn run_hook(&self, id: ContainerId, hook: HookSpec) -> Result<Probe, RuntimeError> {
        self.run_inside_hook(&id, hook).await
    }

    async fn mark_stopped(&self, id: ContainerId, stopped: bool) -> Result<(), RuntimeError> {
        let mut state = self.load(&id)?.state;
        state.stopped_by_user = stopped;
        state.rejoins = false;
        self.write_state(&id, &state)
    }

    async fn mark_rejoins(&self, id: ContainerId, service: String) -> Result<(), RuntimeError> {
        let found = self.load(&id)?;
        let mut state = found.state;
        state.rejoins = true;
        self.write_state(&id, &state)?;
        let reason = Reason::NamespacesLeft { service }.to_string();
        self.warn(&format!("container {} is restarted: {reason}", found.config.name));
        self.note("restart", &found.config, &[("reason", reason)]);
        Ok(())
    }

    async fn remove_container(&self, id: ContainerId, volumes: bool) -> Result<(), RuntimeError> {
        self.files_are_free(&id).await;
        self.remove(&id, volumes)
    }

    async fn probe(&self, id: ContainerId, health: HealthSpec) -> Result<Probe, RuntimeError> {
        self.run_probe(&id, &health).await
    }

    async fn record_health(&self, id: ContainerId, health: Health) -> Result<(), RuntimeError> {
        let found = self.load(&id)?;
        let mut state = found.state;
        state.health = Some(health);
        self.write_state(&id, &state)?;
        let word = match health {
            Health::Starting => return Ok(()),
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        };
        self.note(&format!("health_status: {word}"), &found.config, &[]);
        Ok(())
    }

    async fn last_output(&self, id: ContainerId, lines: usize) -> Vec<String> {
        self.tail(&id, lines)
    }

    async fn next_event(&self) -> Option<RuntimeEvent> {
        self.next_end().await
    }
}

/// Folder of a container's output.
pub(super) fn log_folder(container: &Path) -> PathBuf {
    container.join("log")
}
