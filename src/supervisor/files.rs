//! The files of containers that do not run, for `cp`: mounted as for a start, in the mount namespace of a process that does
//! nothing but hold them.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::base::ids::ContainerId;
use crate::engine;
use crate::engine::lower::Lowered;
use crate::engine::spec::EtcFiles;
use crate::runtime::RuntimeError;
use crate::spec::container::{NamespaceMode, NetworkMode};
use crate::state::ContainerConfig;
use crate::supervisor::connect::Connected;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::Host;
use crate::supervisor::link::Watched;
use crate::supervisor::start::explain;

/// What the ids of the holding processes begin with.
const HOLDER: &str = "files-";

/// Whether a process only holds files: when its supervisor is gone, so is whoever had asked it for them.
pub(super) fn is_holder(process: &str) -> bool {
    process.starts_with(HOLDER)
}

impl Host {
    /// Hands `work` the root of a container that does not run, and does not start or remove it meanwhile.
    pub(super) async fn with_files<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(OwnedFd) -> T,
    ) -> Result<T, RuntimeError> {
        let id = self.by_name(name)?.config.id;
        self.files_are_free(&id).await;
        self.held.borrow_mut().insert(id.clone());
        let done = self.hold_files(&id, work).await;
        self.held.borrow_mut().remove(&id);
        self.let_go.notify_waiters();
        done
    }

    /// Waits while somebody copies files of a container.
    pub(super) async fn files_are_free(&self, id: &ContainerId) {
        while self.held.borrow().contains(id) {
            self.let_go.notified().await;
        }
    }

    async fn hold_files<T>(&self, id: &ContainerId, work: impl AsyncFnOnce(OwnedFd) -> T) -> Result<T, RuntimeError> {
        let mut config = self.load(id)?.config;
        if self.live.borrow().contains_key(id) || self.starting.borrow().contains(id) {
            return Err(failure(format!("container `{}` has just been started", config.name)));
        }
        // It lives in no namespace but that of its mounts.
        let container = &mut config.service.container;
        container.network = NetworkMode::None;
        for mode in [&mut container.ipc, &mut container.pid, &mut container.uts] {
            *mode = NamespaceMode::Private;
        }
        let held = self.try_hold_files(&config, work).await;
        self.detach_volumes(&config);
        held
    }

    async fn try_hold_files<T>(
        &self,
        config: &ContainerConfig,
        work: impl AsyncFnOnce(OwnedFd) -> T,
    ) -> Result<T, RuntimeError> {
        let what = || format!("cannot look into container `{}`", config.name);
        let EtcFiles { hosts, hostname, resolv_conf } = self.etc_files_of(config);
        let [hosts, hostname, resolv_conf] = [hosts, hostname, resolv_conf].map(|file| file.filter(|it| it.exists()));
        let connected = Connected { etc: EtcFiles { hosts, hostname, resolv_conf }, ..Connected::default() };
        let (image, folder) = (self.image(&config.image_id)?, self.dir.container(&config.id));
        let (spec, root, _open) =
            self.specification(config, &image, &folder, &connected, &[], &self.cgroup_path(&config.id))?;
        let lowered = engine::lower::lower_files(&spec, root).map_err(|error| because(what(), &error))?;
        let Lowered { launch, descriptors } = lowered;
        let (process, exit_file) = self.new_process(HOLDER)?;
        let steps = launch.steps.clone();
        let mounted = self.link.mounted(&process);
        let launched = self.link.launch(&process, launch, &descriptors, Watched { exit_file, oom: None });
        let worked = async {
            // Otherwise the launch has failed, which is told.
            let pid = mounted.await.ok()?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty());
            let worked = match root {
                Ok(root) => Ok(work(root).await),
                Err(error) => Err(because(what(), &error)),
            };
            // Its launch ends with it.
            let killed = self.link.signal(&process, libc::SIGKILL);
            Some(killed.map_err(|error| because("the keeper could not be reached", &error)).and(worked))
        };
        let (launched, worked) = tokio::join!(launched, worked);
        self.release_process(&process);
        match (worked, launched) {
            (Some(worked), _) => worked,
            (None, Err(error)) => Err(explain(error, &steps, "")),
            (None, Ok(_)) => Err(failure(what())),
        }
    }
}
