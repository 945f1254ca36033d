//! Starting a container: its root, its volumes, its network, its control group, and the launch by the keeper.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::base::disk::Durability;
use crate::base::ids::ContainerId;
use crate::control;
use crate::engine;
use crate::engine::apparmor;
use crate::engine::cgroup::Cgroup;
use crate::engine::lower::{Extras, Lifecycle, Lowered, Root};
use crate::engine::spec::{HostMount, ImageConfig, ImageMount, Request};
use crate::engine::users::UserDatabase;
use crate::image::Image;
use crate::init::LaunchFailure;
use crate::init::NamespaceKind;
use crate::init::Overlay;
use crate::init::Step;
use crate::keeper::OomSource;
use crate::runtime::RuntimeError;
use crate::spec::ContainerState;
use crate::spec::container::MountSource;
use crate::spec::container::NamespaceMode;
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::state::RunState;
use crate::supervisor::connect::Connected;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::{Host, Live};
use crate::supervisor::link::{LaunchError, Watched};
use crate::sys::userns::Ids;

/// A namespace of another container: its kind, its file in /proc/PID/ns, and whose it is.
type JoinedNamespace = (LinuxNamespaceType, &'static str, Live);

/// What the launch of a container is made from, and what must be taken back when it fails.
pub(super) struct Prepared {
    pub(super) lowered: Lowered,
    /// The program's name, for messages.
    pub(super) program: String,
}

impl Host {
    /// Starts a container that does not run; one that runs is left as it is.
    pub(super) async fn start(&self, id: &ContainerId, restarts: u32) -> Result<ContainerState, RuntimeError> {
        let record = self.load(id)?;
        if self.live.borrow().contains_key(id) {
            return self.observe_one(id);
        }
        self.files_are_free(id).await;
        self.check_room(&record.config)?;
        self.forget_last_end(&record, restarts)?;
        self.starting.borrow_mut().insert(id.clone());
        let started = self.connect_and_launch(&record).await;
        self.note_started(id);
        match started {
            Ok(()) => self.observe_one(id),
            Err(error) => {
                self.disconnect(id);
                self.forget_other(&record.config).await;
                // It may run, and no descriptor was left to take it over with.
                self.kill_group(id);
                self.remove_group(id);
                self.detach_volumes(&record.config);
                Err(error)
            }
        }
    }

    fn note_started(&self, id: &ContainerId) {
        self.starting.borrow_mut().remove(id);
        self.started.notify_waiters();
    }

    async fn connect_and_launch(&self, record: &ContainerRecord) -> Result<(), RuntimeError> {
        self.check_forwarding(&record.config)?;
        self.note_cgroup_parent(&record.config);
        self.uplink_settled().await;
        let connected = self.connect(&record.config)?;
        self.launch(record, &connected, &self.cgroup_path(&record.config.id)).await
    }

    async fn launch(&self, record: &ContainerRecord, connected: &Connected, group: &str) -> Result<(), RuntimeError> {
        let config = &record.config;
        let id = &config.id;
        let image = self.image(&config.image_id)?;
        let folder = self.dir.container(id);
        let joined = self.joined_namespaces(config)?;
        let (spec, root, _open) = self.specification(config, &image, &folder, connected, &joined, group)?;
        let cgroup = self.make_group(&spec, group)?;
        let saved = crate::base::disk::replace_json(&folder.join("spec.json"), &spec, Durability::Kill);
        saved.map_err(|error| because("cannot write the runtime specification", &error))?;
        let prepared = match &config.service.container.runtime {
            Some(name) => self.hand_over(config, name, &spec, root, &cgroup, connected).await?,
            None => self.lower(config, &spec, root, &cgroup, connected)?,
        };
        // Only now is it certain whose namespaces have been opened.
        if !joined.iter().all(|(_, _, live)| live.is_itself()) {
            return Err(failure("a container whose namespaces are to be joined has ended"));
        }
        let watched = Watched { exit_file: self.dir.exit_file(id), oom: cgroup.oom_counter().map(OomSource::Counter) };
        let steps = prepared.lowered.launch.steps.clone();
        // It may have ended before we hear of its start, and no run ends before it begins.
        let started_at = self.now();
        let launch = self.link.launch(id.as_str(), prepared.lowered.launch, &prepared.lowered.descriptors, watched);
        let launched = if steps.iter().any(|step| matches!(step, Step::Rendezvous)) {
            let mounted = self.link.mounted(id.as_str());
            let (launched, hooked) = tokio::join!(launch, self.run_hooks_at_creation(id, &spec, mounted));
            // The launch of a container whose hook failed fails, too.
            hooked.and(launched.map_err(|error| explain(error, &steps, &prepared.program)))
        } else {
            launch.await.map_err(|error| explain(error, &steps, &prepared.program))
        };
        let launched = launched?;
        let run = RunState {
            pid: launched.process.pid,
            start_time: launched.process.start_time,
            boot_id: self.boot_id.clone(),
            started_at,
            joined: joined.iter().map(|(_, _, live)| live.pid).collect(),
        };
        let noted = self.log_output(config, launched.streams).and_then(|()| self.note_start(record, run, connected));
        self.live
            .borrow_mut()
            .insert(id.clone(), Live { pid: launched.process.pid, start_time: launched.process.start_time });
        if let Err(error) = noted {
            // What is not written down must not run: a full disk, for one.
            self.kill_group(id);
            if let Err(error) = self.link.signal(id.as_str(), libc::SIGKILL) {
                self.warn(&because("it cannot be ended", &error).message);
            }
            // Ends are dealt with once the start is over.
            self.note_started(id);
            self.link.gone(id.as_str()).await;
            return Err(error);
        }
        self.note("start", config, &[]);
        if config.service.container.runtime.is_none() {
            self.run_poststart_hooks(id, &spec, launched.process.pid).await;
        }
        self.tell(&control::Event::Started { container: config.name.clone(), service: config.service.name.clone() });
        Ok(())
    }

    /// The descriptors are what the specification names of volumes: to be kept until the container is made.
    pub(super) fn specification(
        &self,
        config: &ContainerConfig,
        image: &Image,
        folder: &Path,
        connected: &Connected,
        joined: &[JoinedNamespace],
        group: &str,
    ) -> Result<(Spec, Root, Vec<OwnedFd>), RuntimeError> {
        let container = &config.service.container;
        let root = root(image, folder, self.dir.run().join("rootfs"))
            .map_err(|error| because("cannot make the container's directories", &error))?;
        let view = self.view(image).map_err(|error| because("cannot look into the image", &error))?;
        let (mut volumes, open) = self.fill_volumes(config, &view)?;
        let contents = self.dir.run().join("contents").join(config.id.as_str());
        let written = engine::spec::contents(&contents, container);
        volumes.extend(written.map_err(|error| because("cannot write configs and secrets", &error))?);
        self.make_bind_sources(config)?;
        let labels = self.labels(config)?;
        self.label_mounts(config, &labels, &connected.etc, &volumes)?;
        let images = self.image_mounts(config)?;
        let users = UserDatabase::read(&view);
        let path = |file: &str, pid: i32| PathBuf::from(format!("/proc/{pid}/ns/{file}"));
        let joined: Vec<_> = joined.iter().map(|(kind, file, live)| (*kind, path(file, live.pid))).collect();
        let defaults = &image.document.config;
        let apparmor = apparmor::load_default();
        let request = Request {
            container,
            image: &ImageConfig {
                entrypoint: defaults.entrypoint.clone().unwrap_or_default(),
                command: defaults.cmd.clone().unwrap_or_default(),
                environment: defaults.env.clone(),
                user: Some(defaults.user.clone()).filter(|user| !user.is_empty()),
                working_dir: Some(defaults.working_dir.clone()).filter(|folder| !folder.is_empty()),
            },
            users: &users,
            hostname: &connected.hostname,
            etc: &connected.etc,
            volumes: &volumes,
            images: &images,
            joined: &joined,
            project_dir: &self.record.borrow().working_dir,
            apparmor: apparmor.map_err(|error| because("cannot load the AppArmor profile of containers", &error))?,
            cgroup_path: group,
            unified_cgroups: self.hierarchies.is_unified(),
        };
        let built = engine::spec::build(&request);
        let mut spec = built.map_err(|error| because("the container cannot be set up", &error))?;
        labels.apply(&mut spec);
        if container.init && container.runtime.is_some() {
            engine::spec::add_init(&mut spec, &self.copy_of_init(folder, &labels)?);
        }
        Ok((spec, root, open))
    }

    fn make_group(&self, spec: &Spec, group: &str) -> Result<Cgroup, RuntimeError> {
        if Ids::of_this_process() == Ids::Single && !self.said_single.replace(true) {
            self.notice(
                "this user has no subordinate ids: all files of containers belong to one user, and services that change to \
                 another user fail (`rcompose doctor` says how to get some)",
            );
        }
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let (cgroup, left_out) = Cgroup::create(&self.hierarchies, group, &resources)
            .map_err(|error| because("cannot make the control group", &error))?;
        for missing in left_out {
            self.notice(&missing);
        }
        Ok(cgroup)
    }

    fn lower(
        &self,
        config: &ContainerConfig,
        spec: &Spec,
        root: Root,
        cgroup: &Cgroup,
        connected: &Connected,
    ) -> Result<Prepared, RuntimeError> {
        let container = &config.service.container;
        let entry = cgroup.entry().map_err(|error| because("cannot open the control group", &error))?;
        let sandbox = connected.netns.as_ref().map(AsFd::as_fd).map(|netns| netns.try_clone_to_owned()).transpose();
        let sandbox = sandbox.map_err(|error| because("cannot use the network namespace", &error))?;
        let extras = Extras {
            root,
            joined: sandbox.map(|netns| (NamespaceKind::Net, netns)).into_iter().collect(),
            cgroup: entry,
            cgroup_v1: (!self.hierarchies.is_unified()).then(|| cgroup.v1_directories()),
            shared_memory: self.joined_memory(config)?,
            stdin: container.stdin_open,
            terminal: None,
            init: container.init,
            lifecycle: spec
                .hooks()
                .is_some()
                .then(|| Lifecycle { state: self.state_for_hooks(&config.id, spec), gate: None }),
        };
        let lowered =
            engine::lower::lower(spec, extras).map_err(|error| because("the container cannot be set up", &error))?;
        let program = spec.process().as_ref().and_then(|process| process.args().as_ref()?.first().cloned());
        Ok(Prepared { lowered, program: program.unwrap_or_default() })
    }

    /// The state file of a run that has begun.
    fn note_start(&self, record: &ContainerRecord, run: RunState, connected: &Connected) -> Result<(), RuntimeError> {
        let mut state = self.load(&record.config.id)?.state;
        state.run = Some(run);
        state.exit = None;
        state.paused = false;
        state.stopped_by_user = false;
        state.rejoins = false;
        state.health = record.config.service.health.as_ref().map(|_| crate::spec::Health::Starting);
        state.addresses.clone_from(&connected.addresses);
        state.ports.clone_from(&connected.ports);
        self.write_state(&record.config.id, &state)
    }

    /// Makes room for the next end: the last one moves from the keeper's file to ours.
    fn forget_last_end(&self, record: &ContainerRecord, restarts: u32) -> Result<(), RuntimeError> {
        let id = &record.config.id;
        let mut state = record.state.clone();
        if let crate::spec::Phase::Exited(exit) = record.observe(|_| false).phase {
            state.exit = Some(exit);
        }
        state.run = None;
        state.restarts = restarts;
        if state != record.state {
            self.write_state(id, &state)?;
        }
        match fs::remove_file(self.dir.exit_file(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(because("cannot remove the last exit record", &error))
            }
            _ => Ok(()),
        }
    }

    /// Opens the volumes, and fills those that are empty with what the image has there. The descriptors are what some are named by.
    fn fill_volumes(
        &self,
        config: &ContainerConfig,
        view: &OwnedFd,
    ) -> Result<(Vec<HostMount>, Vec<OwnedFd>), RuntimeError> {
        let (mut mounts, mut open) = (Vec::new(), Vec::new());
        let wanted = |target: &String| config.service.container.mounts.iter().find(|mount| mount.target == *target);
        let of_a_part =
            |target| matches!(wanted(target).map(|it| &it.source), Some(MountSource::Volume { subpath: Some(_), .. }));
        // A folder of a volume may be one that the image fills it with, where it is mounted whole.
        let mut volumes: Vec<_> = config.volumes.iter().collect();
        volumes.sort_by_key(|(target, _)| of_a_part(target));
        for (target, name) in volumes {
            let wanted = wanted(target);
            let labels = match wanted.map(|mount| &mount.source) {
                Some(MountSource::Anonymous { labels, .. }) => labels.clone(),
                _ => BTreeMap::new(),
            };
            let volume = self.open_volume(name, &labels)?;
            self.volumes.attach(&volume).map_err(|error| because("cannot use the volume", &error))?;
            let copies = !matches!(
                wanted.map(|mount| &mount.source),
                Some(MountSource::Volume { no_copy: true, .. } | MountSource::Anonymous { no_copy: true, .. })
            );
            if copies
                && self.volumes.needs_copy_up(&volume).map_err(|error| because("cannot read the volume", &error))?
            {
                let populated = self.volumes.populate(&volume, view, Path::new(target));
                populated.map_err(|error| because("cannot fill the volume", &error))?;
            }
            let read_only = volume.read_only || wanted.is_some_and(|mount| mount.read_only);
            let source = match wanted.map(|mount| &mount.source) {
                Some(MountSource::Volume { subpath: Some(subpath), .. }) => {
                    let folder = subfolder(&volume.data, subpath)?;
                    let source = format!("/proc/{}/fd/{}", std::process::id(), folder.as_raw_fd());
                    open.push(folder);
                    source.into()
                }
                _ => volume.data,
            };
            mounts.push(HostMount { source, target: target.clone(), read_only });
        }
        Ok((mounts, open))
    }

    /// What is mounted of other images.
    fn image_mounts(&self, config: &ContainerConfig) -> Result<Vec<ImageMount>, RuntimeError> {
        let mut mounts = Vec::new();
        for mount in &config.service.container.mounts {
            let MountSource::Image { reference, subpath } = &mount.source else { continue };
            let image = self.image(reference)?;
            if !image.binds.is_empty() {
                return Err(failure(format!("image `{reference}` is the host itself; mount its folders as binds")));
            }
            self.label_image(&image)?;
            let (layers, subpath, target) = (image.layers.clone(), subpath.clone(), mount.target.clone());
            mounts.push(ImageMount { layers, subpath, target });
        }
        Ok(mounts)
    }

    /// The short volume syntax makes a missing folder.
    fn make_bind_sources(&self, config: &ContainerConfig) -> Result<(), RuntimeError> {
        for mount in &config.service.container.mounts {
            if let MountSource::Bind { path, create: true, .. } = &mount.source
                && !path.exists()
            {
                fs::create_dir_all(path)
                    .map_err(|error| because(format!("cannot make the folder `{}`", path.display()), &error))?;
            }
        }
        Ok(())
    }

    /// What the container whose `ipc` namespace is joined has in /dev/shm.
    pub(super) fn joined_memory(&self, config: &ContainerConfig) -> Result<Option<OwnedFd>, RuntimeError> {
        let Some(id) = self.owner_of(&config.service.container.ipc)? else { return Ok(None) };
        let pid = self.live.borrow().get(&id).map(|live| live.pid);
        let memory = pid.map(|pid| crate::sys::mount::clone_of(pid, b"dev/shm")).transpose();
        memory.map_err(|error| because("cannot share the memory of the container whose `ipc` is joined", &error))
    }

    /// Namespaces of other containers that this one lives in.
    fn joined_namespaces(&self, config: &ContainerConfig) -> Result<Vec<JoinedNamespace>, RuntimeError> {
        let container = &config.service.container;
        let network = container.network.namespace();
        let wanted = [
            ("net", LinuxNamespaceType::Network, &network),
            ("pid", LinuxNamespaceType::Pid, &container.pid),
            ("ipc", LinuxNamespaceType::Ipc, &container.ipc),
            ("uts", LinuxNamespaceType::Uts, &container.uts),
        ];
        let mut joined = Vec::new();
        for (file, kind, mode) in wanted {
            if !matches!(mode, NamespaceMode::Service(_) | NamespaceMode::Container(_)) {
                continue;
            }
            let owner = self.owner_of(mode)?;
            let live = owner.and_then(|id| self.live.borrow().get(&id).copied());
            let live = live
                .ok_or_else(|| failure(format!("{mode:?} does not run, so its {kind} namespace cannot be joined")))?;
            joined.push((kind, file, live));
        }
        Ok(joined)
    }
}

/// The container's root as an overlay of its own folder on the image. `at`: where it is mounted, in the container's own mount
/// namespace, so that one folder serves all.
fn root(image: &Image, folder: &Path, at: PathBuf) -> std::io::Result<Root> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&at)?;
    let private = |name: &str| -> std::io::Result<PathBuf> {
        let path = folder.join(name);
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&path)?;
        Ok(path)
    };
    let overlay = |lower: Vec<PathBuf>, upper: &str, work: &str| -> std::io::Result<Overlay> {
        Ok(Overlay { lower, upper: private(upper)?, work: private(work)?, volatile: true })
    };
    let mut trees = Vec::new();
    for (number, tree) in image.binds.iter().enumerate() {
        let target = tree.target.to_string_lossy().into_owned();
        let tree = overlay(vec![tree.host.clone()], &format!("upper.{number}"), &format!("work.{number}"))?;
        trees.push((target, tree));
    }
    Ok(Root::Overlay { at, overlay: overlay(image.layers.clone(), "upper", "work")?, trees })
}

/// A folder inside a volume, which a container may have filled with links, and may be changing: it has no name that would lead
/// to the same one later.
fn subfolder(data: &Path, subpath: &str) -> Result<OwnedFd, RuntimeError> {
    let found = fs::File::open(data).and_then(|root| crate::sys::inroot::open_directory(&root, subpath.as_bytes()));
    found.map_err(|error| because(format!("cannot use `{subpath}` of the volume"), &error))
}

/// A launch that failed, in a person's words.
pub(super) fn explain(error: LaunchError, steps: &[Step], program: &str) -> RuntimeError {
    let LaunchError::Refused(LaunchFailure { step, errno, detail }) = &error else {
        return because("cannot start the container", &error);
    };
    let cause = std::io::Error::from_raw_os_error(*errno);
    match step.and_then(|step| steps.get(step)) {
        Some(Step::Identity { uid, gid }) if *errno == libc::EINVAL => RuntimeError {
            message: format!("user {uid} with group {gid} is none of this user's subordinate ids ({detail})"),
            help: Some("give this user more of them (`rcompose doctor` says how), or run as root".to_owned()),
        },
        Some(Step::Exec { .. }) => match *errno {
            libc::ENOENT => RuntimeError {
                message: format!("there is no `{program}` in the image ({detail})"),
                help: Some("check `command` and `entrypoint`, and that the program is in the image's PATH".to_owned()),
            },
            libc::EACCES => RuntimeError {
                message: format!("`{program}` may not be executed ({detail})"),
                help: Some(match steps.iter().any(|step| matches!(step, Step::ProcessLabel(_))) {
                    false => "give the file its execute permission; a directory has no program".to_owned(),
                    true => {
                        "give the file its execute permission; or SELinux refuses it, which `ausearch -m avc` tells"
                            .to_owned()
                    }
                }),
            },
            _ => because(format!("cannot execute `{program}` ({detail})"), &cause),
        },
        Some(Step::OtherRuntime { .. }) => failure(detail.clone()),
        // An ordinary user: what hides below a mount of root's stays hidden.
        Some(Step::Bind { target, recursive: false, .. }) if *errno == libc::EINVAL => RuntimeError {
            message: format!("cannot mount at `{target}` without what is mounted inside: that takes root"),
            help: Some("take out `recursive: disabled`".to_owned()),
        },
        Some(Step::Bind { target, .. }) if matches!(*errno, libc::ENOTDIR | libc::EINVAL) => RuntimeError {
            message: format!(
                "cannot mount at `{target}`: one of source and target is a directory, the other one a file"
            ),
            help: Some("look at both: a missing source becomes a directory, a target is what the image has".to_owned()),
        },
        Some(Step::WorkingDirectory { target, .. }) if *errno == libc::ENOENT => {
            failure(format!("there is no directory `{target}` in the container to work in"))
        }
        Some(Step::WorkingDirectory { target, .. }) if *errno == libc::ENOTDIR => {
            RuntimeError { message: format!("the working directory `{target}` is a file in the image"), help: None }
        }
        Some(step) => {
            let name = format!("{step:?}");
            let name = name.split([' ', '(']).next().unwrap_or_default();
            because(format!("cannot set up the container ({name}: {detail})"), &cause)
        }
        None => because(format!("cannot make the container's process ({detail})"), &cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_may_not_be_executed_may_be_selinuxs_doing() {
        let exec = Step::Exec { argv: Vec::new(), env: Vec::new() };
        let help = |steps: &[Step]| {
            let (step, errno) = (Some(steps.len() - 1), libc::EACCES);
            let failure = LaunchFailure { step, errno, detail: "/bin/app".to_owned() };
            explain(LaunchError::Refused(failure), steps, "app").help.unwrap()
        };
        assert!(!help(std::slice::from_ref(&exec)).contains("SELinux"));
        assert!(help(&[Step::ProcessLabel("u:r:t:s0".to_owned()), exec]).contains("SELinux"));
    }

    #[test]
    fn a_bind_that_is_refused_says_which_way() {
        let said = |recursive| {
            let bind = Step::Bind {
                source: crate::init::BindSource::Host(0),
                target: "/data".to_owned(),
                recursive,
                flags: crate::init::MountFlags::default(),
                recursive_flags: crate::init::RecursiveFlags::default(),
                clear: crate::init::Cleared::default(),
                propagation: None,
                id_map: None,
            };
            let failure = LaunchFailure { step: Some(0), errno: libc::EINVAL, detail: "/data".to_owned() };
            explain(LaunchError::Refused(failure), &[bind], "app").help.unwrap()
        };
        assert!(said(false).contains("recursive: disabled") && said(true).contains("directory"));
    }
}
