//! SELinux: the labels of a container, and of what is mounted into it.

use std::collections::BTreeSet;

use crate::base::ids::ContainerId;
use crate::engine::selinux::{self, Labels, Policy};
use crate::engine::spec::{EtcFiles, HostMount};
use crate::image::Image;
use crate::runtime::RuntimeError;
use crate::spec::container::{Mount, MountSource, Relabel};
use crate::state::ContainerConfig;
use crate::supervisor::failure::because;
use crate::supervisor::host::Host;

impl Host {
    /// An id for a new container; with SELinux one whose categories no other container of this host has.
    pub(super) fn new_id(&self) -> Result<ContainerId, RuntimeError> {
        let random = || {
            let bytes = super::create::random_bytes().map_err(|error| because("cannot make an id", &error))?;
            Ok(ContainerId::from_bytes(bytes))
        };
        if self.selinux.is_none() {
            return random();
        }
        let reading = |error: &std::io::Error| because("cannot list the containers", error);
        let mut taken = BTreeSet::new();
        for project in self.roots.projects().map_err(|error| reading(&error))? {
            let ids = self.roots.project(&project).ids().map_err(|error| reading(&error))?;
            taken.extend(ids.iter().map(selinux::categories));
        }
        loop {
            let id = random()?;
            // There are half a million pairs.
            if taken.len() > 100_000 || !taken.contains(&selinux::categories(&id)) {
                return Ok(id);
            }
        }
    }

    /// Without SELinux: none.
    pub(super) fn labels(&self, config: &ContainerConfig) -> Result<Labels, RuntimeError> {
        let Some(policy) = &self.selinux else { return Ok(Labels::default()) };
        let container = &config.service.container;
        let mut joined = Vec::new();
        for mode in [&container.pid, &container.ipc] {
            if let Some(id) = self.owner_of(mode)? {
                let process = self.spec(&id)?.process().clone().unwrap_or_default();
                joined.push(process.selinux_label().clone().filter(|label| !label.is_empty()));
            }
        }
        let labels = policy.labels(&config.id, container, &joined);
        labels.map_err(|error| because("the container cannot be set up", &error))
    }

    /// Gives what is mounted the labels with which the container may use it: its own files, volumes, and binds where they say
    /// so (`z`, `Z`).
    pub(super) fn label_mounts(
        &self,
        config: &ContainerConfig,
        labels: &Labels,
        etc: &EtcFiles,
        volumes: &[HostMount],
    ) -> Result<(), RuntimeError> {
        let (Some(policy), Some(label)) = (&self.selinux, &labels.mount) else { return Ok(()) };
        let failed = |target: &str, error: &selinux::RelabelError| because(format!("cannot mount `{target}`"), error);
        let shared = policy.label_of_volume(Relabel::Shared, label);
        // Containers of one network namespace have the same files.
        for path in [&etc.hosts, &etc.hostname, &etc.resolv_conf].into_iter().flatten() {
            selinux::relabel(path, &shared).map_err(|error| failed("/etc", &error))?;
        }
        let mounts = &config.service.container.mounts;
        for HostMount { source, target, .. } in volumes {
            let wanted = mounts.iter().find(|mount| mount.target == *target).map(|mount| &mount.source);
            let label = match wanted {
                Some(MountSource::Content { .. }) => label.clone(),
                Some(MountSource::Volume { relabel: Some(relabel), .. }) => policy.label_of_volume(*relabel, label),
                // A new one.
                _ if !policy.is_for_containers(source) => shared.clone(),
                _ => continue,
            };
            selinux::relabel(source, &label).map_err(|error| failed(target, &error))?;
        }
        for Mount { target, source, .. } in mounts {
            match source {
                MountSource::Bind { path, relabel: Some(relabel), .. } => {
                    let label = policy.label_of_volume(*relabel, label);
                    selinux::relabel(path, &label).map_err(|error| failed(target, &error))?;
                }
                MountSource::Bind { path, relabel: None, .. } => {
                    let closed = labels.process.as_ref().and_then(|process| policy.closed_label(process, path));
                    if let Some(closed) = closed {
                        self.notice(&format!(
                            "`{path}` will not let {} in: its SELinux label is `{closed}`; give the volume `z` (for all containers) or \
                             `Z` (for this one), a config or secret another label (`chcon -t {} {path}`), or the service \
                             `security_opt: [label:disable]`",
                            config.name,
                            policy.kind_of_files(),
                            path = path.display(),
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets containers read an image's files where they lie. Once: a layer never changes.
    pub(super) fn label_image(&self, image: &Image) -> Result<(), RuntimeError> {
        let Some(label) = self.selinux.as_ref().map(Policy::label_of_images) else { return Ok(()) };
        for layer in image.layers.iter().filter(|layer| !selinux::is_labelled(layer, &label)) {
            selinux::relabel(layer, &label).map_err(|error| because("cannot mount the image", &error))?;
        }
        Ok(())
    }
}
