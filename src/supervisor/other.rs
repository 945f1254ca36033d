//! Containers that another OCI runtime makes (`runtime: NAME`).

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::base::disk::{self, Durability};
use crate::base::ids::ContainerId;
use crate::engine::cgroup::{self, Cgroup, Entry};
use crate::engine::lower::{self, Handover, Root};
use crate::engine::runtimes;
use crate::engine::selinux::{self, Labels};
use crate::init;
use crate::runtime::RuntimeError;
use crate::state::ContainerConfig;
use crate::supervisor::connect::Connected;
use crate::supervisor::failure::because;
use crate::supervisor::host::Host;
use crate::supervisor::start::Prepared;
use oci_spec::runtime::Spec;

impl Host {
    /// Writes the bundle, and makes the launch that has the runtime called.
    pub(super) async fn hand_over(
        &self,
        config: &ContainerConfig,
        name: &str,
        spec: &Spec,
        root: Root,
        cgroup: &Cgroup,
        connected: &Connected,
    ) -> Result<Prepared, RuntimeError> {
        let what = || format!("the container cannot be given to the runtime `{name}`");
        self.forget_other(config).await;
        let runtime = runtimes::find(name).map_err(|error| because(what(), &error))?;
        let folder = self.bundle_folder(&config.id);
        // Ours stays open until the start is over.
        let network = connected
            .netns
            .as_ref()
            .map(|netns| PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())));
        let path = Path::new("/").join(self.cgroup_path(&config.id));
        // With version 2 alone a group that holds processes can have none below it, and runtimes want theirs to be empty.
        // With version 1 it is the other way round: in cgroup2, where we freeze and kill, they put nobody, and those that can do
        // nothing here (crun) leave the container in the groups that it is made in.
        let (entry, group) = if self.hierarchies.is_unified() {
            (Ok(Entry::default()), path)
        } else {
            (cgroup.entry(), path.join("runtime"))
        };
        let entry = entry.map_err(|error| because("cannot open the control group", &error))?;
        let memory = self.joined_memory(config)?;
        let at = memory.is_some().then(|| folder.join("shm"));
        let bundle =
            lower::bundle(spec, &root, network, group, at.as_deref()).map_err(|error| because(what(), &error))?;
        fs::create_dir_all(at.as_ref().unwrap_or(&folder))
            .and_then(|()| disk::replace_json(&folder.join("config.json"), &bundle, Durability::Kill))
            .map_err(|error| because(format!("cannot write a bundle in `{}`", folder.display()), &error))?;
        let handover = Handover {
            runtime: &runtime,
            id: config.id.as_str(),
            root,
            bundle: &folder,
            cgroup: entry,
            shared_memory: memory.zip(at.as_deref()),
            stdin: config.service.container.stdin_open,
        };
        let lowered = lower::lower_other(spec, handover).map_err(|error| because(what(), &error))?;
        Ok(Prepared { lowered, program: name.to_owned() })
    }

    /// This program as a file of the container's own, which it may execute: nothing leads from there to the one that we run.
    pub(super) fn copy_of_init(&self, folder: &Path, labels: &Labels) -> Result<PathBuf, RuntimeError> {
        let path = folder.join("init");
        let what = || format!("cannot copy the init process to `{}`", path.display());
        let copied = fs::File::open("/proc/self/exe").and_then(|mut ours| {
            let mut copy = fs::File::create(&path)?;
            io::copy(&mut ours, &mut copy)?;
            copy.set_permissions(fs::Permissions::from_mode(0o755))
        });
        copied.map_err(|error| because(what(), &error))?;
        if let Some(label) = &labels.mount {
            selinux::relabel(&path, label).map_err(|error| because(what(), &error))?;
        }
        Ok(path)
    }

    /// Has the runtime remove what it knows of an ended container.
    pub(super) async fn forget_other(&self, config: &ContainerConfig) {
        let folder = self.bundle_folder(&config.id);
        let Some(name) = config.service.container.runtime.as_ref().filter(|_| folder.exists()) else { return };
        let runtime = match runtimes::find(name) {
            Ok(runtime) => runtime,
            Err(error) => return self.warn(&because("cannot clean up", &error).message),
        };
        let mut command = init::other_runtime(&runtime.program, &runtime.arguments, &folder);
        command.args(["delete", "--force"]).arg(config.id.as_str());
        let removed = tokio::task::spawn_blocking(move || {
            let ended = command.output();
            (ended, fs::remove_dir_all(&folder))
        });
        let removed = removed.await;
        let group = self.cgroup_path(&config.id);
        if let Err(error) = cgroup::remove_named(&self.hierarchies, &format!("{group}/runtime")) {
            self.warn(&because("cannot remove a control group", &error).message);
        }
        match removed {
            Ok((Ok(ended), Ok(()))) if ended.status.success() => {}
            Ok((Ok(ended), Ok(()))) => {
                let said = String::from_utf8_lossy(&ended.stderr);
                self.warn(&format!("`{name} delete` of container {}: {}", config.id.short(), said.trim()));
            }
            Ok((Err(error), _) | (_, Err(error))) => self.warn(&because(format!("`{name} delete`"), &error).message),
            Err(error) => self.warn(&because(format!("`{name} delete`"), &error).message),
        }
    }

    /// The bundle, and what the runtime keeps.
    fn bundle_folder(&self, id: &ContainerId) -> PathBuf {
        self.dir.run().join("runtime").join(id.as_str())
    }
}
