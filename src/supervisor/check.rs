//! What can be checked before anything is changed.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::base::ids::ContainerId;
use crate::engine::runtimes;
use crate::network::ports::{Holder, PortError};
use crate::runtime::NewContainer;
use crate::runtime::RuntimeError;
use crate::spec::Protocol;
use crate::spec::container::MountSource;
use crate::spec::observed::Published;
use crate::state::ContainerConfig;
use crate::supervisor::failure::{DESCRIPTORS_HELP, because};
use crate::supervisor::host::Host;

/// Kept for whoever asks for something, for programs inside containers, and for what a start takes for a moment: without any left
/// nobody is answered, and a successor of this process cannot take over what runs.
const SPARE: usize = 64;

/// Descriptors, counted when containers begin to be started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// Open before the first of them.
    open: usize,
    /// For those that start.
    promised: usize,
}

impl Host {
    /// There are descriptors for one more container, besides those that are being started.
    pub(super) fn check_room(&self, config: &ContainerConfig) -> Result<(), RuntimeError> {
        let what = || format!("cannot start container `{}`", config.name);
        let mut room = self.room.get();
        if self.starting.borrow().is_empty() {
            let open = open_descriptors().ok_or_else(|| because(what(), &Errno::MFILE))?;
            room = Room { open, promised: 0 };
        }
        room.promised += config.service.container.network.descriptors();
        if limit().is_some_and(|limit| room.open.saturating_add(room.promised + SPARE) > limit) {
            return Err(because(what(), &Errno::MFILE));
        }
        self.room.set(room);
        Ok(())
    }

    /// Images there, bind sources there, ports free. All problems, not the first one.
    pub(super) fn check(&self, containers: &[NewContainer], going: &[ContainerId]) -> Result<(), Vec<RuntimeError>> {
        let mut problems: Vec<_> = check_descriptors(containers).into_iter().collect();
        let going = going.iter().filter_map(|id| self.dir.load_container(id).ok().flatten());
        let freed: Vec<Published> = going.flat_map(|record| record.state.ports).collect();
        let mut images = BTreeMap::new();
        for new in containers {
            let service = &new.service;
            let reference = service.container.image.clone();
            images.entry(reference).or_insert_with_key(|reference| {
                if let Err(error) = self.image(reference) {
                    problems.push(RuntimeError { message: format!("service `{}`: {error}", service.name), ..error });
                }
            });
            for mount in &service.container.mounts {
                if let MountSource::Image { reference, .. } = &mount.source
                    && let Err(error) = self.image(reference)
                {
                    let message = format!("service `{}`: the mount at `{}`: {error}", service.name, mount.target);
                    problems.push(RuntimeError { message, ..error });
                }
                if let MountSource::Bind { path, create: false, .. } = &mount.source
                    && let Err(error) = std::fs::metadata(path)
                {
                    let what = format!(
                        "service `{}`: the source `{}` of the mount at `{}` cannot be used",
                        service.name,
                        path.display(),
                        mount.target
                    );
                    problems.push(because(what, &error));
                }
            }
            problems.extend(check_runtime(new));
            problems.extend(self.check_ports(new, &freed));
            problems.extend(self.check_name(new));
        }
        problems.extend(wanted_twice(containers));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// A name that the file gives is no other project's.
    fn check_name(&self, new: &NewContainer) -> Option<RuntimeError> {
        let name = new.service.container_name.as_ref()?;
        let others = self.roots.projects().ok()?.into_iter().filter(|other| *other != self.project);
        let holds = |other: &String| {
            let containers = self.roots.project(other).load().unwrap_or_default();
            containers.iter().any(|container| container.config.name == *name)
        };
        let other = others.into_iter().find(holds)?;
        Some(RuntimeError {
            message: format!(
                "service `{}`: the container name `{name}` is already in use by project `{other}`",
                new.service.name
            ),
            help: Some(format!("`rcompose -p {other} down` frees it; or give the container another `container_name`")),
        })
    }

    /// A fixed port is free, or will be: containers that are removed hold it.
    fn check_ports(&self, new: &NewContainer, freed: &[Published]) -> Vec<RuntimeError> {
        let mut problems = Vec::new();
        for spec in &new.service.container.ports {
            let Some((first, last)) = spec.host.filter(|(first, last)| first == last && *first != 0) else { continue };
            if freed.iter().any(|port| port.host == first && port.protocol == spec.protocol) {
                continue;
            }
            if let Err(mut error) = self.reserve(spec) {
                if let PortError::InUse { address, protocol, holder: holder @ Holder::Unknown } = &mut error
                    && let Some(found) = self.recorded_holder(*address, *protocol)
                {
                    *holder = found;
                }
                let mut problem =
                    because(format!("service `{}`: cannot publish port {last}", new.service.name), &error);
                problem.help = Some(match holding_project(&error) {
                    Some(project) if project == self.project => {
                        "another container of this project has it: give replicas a range of host ports, or none"
                            .to_owned()
                    }
                    Some(project) => {
                        format!("it belongs to project `{project}`: `rcompose -p {project} down` frees it")
                    }
                    None => "stop what uses it, or publish another port".to_owned(),
                });
                problems.push(problem);
            }
        }
        problems
    }

    /// The supervisor of another project with a running container that publishes this port. Descriptors do not tell an ordinary
    /// user: each project has a user namespace of its own, from which those of another cannot be read.
    fn recorded_holder(&self, wanted: SocketAddr, protocol: Protocol) -> Option<Holder> {
        let has = |port: &Published| {
            let (ours, theirs) = (wanted.ip(), port.host_ip);
            let meet = ours == theirs || ours.is_unspecified() || theirs.is_unspecified();
            port.host == wanted.port() && port.protocol == protocol && ours.is_ipv4() == theirs.is_ipv4() && meet
        };
        let publishes = |other: &String| {
            let containers = self.roots.project(other).load().unwrap_or_default();
            let states = containers.iter().map(|container| &container.state);
            states.filter(|state| state.run.is_some() && state.exit.is_none()).any(|state| state.ports.iter().any(has))
        };
        let mut others = self.roots.projects().ok()?.into_iter().filter(|other| *other != self.project);
        let wanted = format!("rcompose: supervisor {}", others.find(publishes)?);
        let mut pids =
            std::fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let pid = pids.find(|pid| title(*pid).is_some_and(|title| title == wanted))?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Holder::Process { name: name.trim().to_owned(), pid })
    }
}

/// There are descriptors for the new containers: otherwise each of those that get none would fail for itself.
fn check_descriptors(containers: &[NewContainer]) -> Option<RuntimeError> {
    let (open, limit) = (open_descriptors()?, limit()?);
    let new = containers.iter().filter(|new| new.replaces.is_none());
    let wanted: usize = new.map(|new| new.service.container.network.descriptors()).sum();
    (wanted > 0 && open.saturating_add(wanted + SPARE) > limit).then(|| RuntimeError {
        message: format!(
            "the containers need {wanted} descriptors in the project's processes, which have {open} of {limit} by now and keep \
             {SPARE} free"
        ),
        help: Some(DESCRIPTORS_HELP.to_owned()),
    })
}

fn limit() -> Option<usize> {
    usize::try_from(getrlimit(Resource::Nofile).current?).ok()
}

fn open_descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Another runtime that is asked for is there.
fn check_runtime(new: &NewContainer) -> Option<RuntimeError> {
    let name = new.service.container.runtime.as_ref()?;
    let error = runtimes::find(name).err()?;
    Some(because(format!("service `{}`", new.service.name), &error))
}

/// Host ports that more than one of the new containers would have.
fn wanted_twice(containers: &[NewContainer]) -> Vec<RuntimeError> {
    let mut first = BTreeMap::new();
    let mut problems = Vec::new();
    for new in containers {
        for spec in &new.service.container.ports {
            let Some((port, _)) = spec.host.filter(|(first, last)| first == last && *first != 0) else { continue };
            let key = (port, spec.protocol.to_string(), spec.host_ip);
            let other = first.entry(key).or_insert(&new.name);
            if **other != new.name {
                problems.push(RuntimeError {
                    message: format!("containers {other} and {} both want to publish port {port}", new.name),
                    help: Some(format!(
                        "give a range with a port for each (`{port}-{}:…`), or leave the host's port out",
                        port.saturating_add(1)
                    )),
                });
            }
        }
    }
    problems
}

/// The project whose keeper holds a port.
fn holding_project(error: &PortError) -> Option<String> {
    let PortError::InUse { holder: Holder::Process { pid, .. }, .. } = error else { return None };
    let title = title(*pid)?;
    let project = title.strip_prefix("rcompose: keeper ").or_else(|| title.strip_prefix("rcompose: supervisor "));
    project.map(str::to_owned)
}

/// What a process calls itself.
fn title(pid: u32) -> Option<String> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(words.split(|byte| *byte == 0).next()?).into_owned())
}
