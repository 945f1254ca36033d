//! The container's control group: where it is, `pause`, `resume`, `update`.

use std::borrow::Cow;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, Mount, Spec};

use crate::base::units::parse_bytes;
use crate::engine::cgroup::{Cgroup, Hierarchies};
use crate::oci::arguments::{Changes, Global};
use crate::oci::error::OciError;
use crate::oci::state::{Container, Record, Status};
use crate::oci::systemd::Unit;

/// The group's path in every hierarchy, from `linux.cgroupsPath`.
pub(super) fn path(wanted: &Path, id: &str) -> String {
    let wanted = wanted.to_string_lossy();
    let wanted = wanted.trim_matches('/');
    if wanted.is_empty() { format!("rcompose-oci-{id}") } else { wanted.to_owned() }
}

/// With the bundle's limits, but for device rules in version 2: see [`restrict`].
pub(super) fn make(hierarchies: &Hierarchies, path: &str, spec: &Spec) -> Result<Cgroup, OciError> {
    let linux = spec.linux().as_ref();
    let mut resources = resources(spec);
    if hierarchies.has_v2() {
        resources.set_devices(None);
    }
    // Whoever names a group looks for it in every hierarchy.
    let named = linux.is_some_and(|linux| linux.cgroups_path().is_some());
    let (group, left_out) = if named {
        Cgroup::create_everywhere(hierarchies, path, &resources)?
    } else {
        Cgroup::create(hierarchies, path, &resources)?
    };
    for line in left_out {
        use std::io::Write as _;
        // Advice only.
        let _ = writeln!(std::io::stderr(), "rcompose oci: warning: {line}");
    }
    Ok(group)
}

/// A group that was there already must be empty: its limits are those of others, and what is in it would be ended with the
/// container. In a frozen one nothing would ever start.
pub(super) fn check_unused(group: &Cgroup, path: &str) -> Result<(), OciError> {
    if group.is_frozen() {
        return Err(OciError::Config(format!(
            "the container's cgroup unexpectedly frozen: thaw `{path}` (`linux.cgroupsPath`) or name another one"
        )));
    }
    match group.processes()?.len() {
        0 => Ok(()),
        count => Err(OciError::Config(format!(
            "the container's cgroup is not empty: {count} processes are in `{path}` (`linux.cgroupsPath`)"
        ))),
    }
}

/// Puts device rules into force, while the process is at its mounts already: the kernel's check of the rules takes as long.
pub(super) fn restrict(group: &mut Cgroup, hierarchies: &Hierarchies, path: &str, spec: &Spec) -> Result<(), OciError> {
    if hierarchies.has_v2() {
        group.restrict_devices(hierarchies, path, &resources(spec))?;
    }
    Ok(())
}

fn resources(spec: &Spec) -> LinuxResources {
    spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default()
}

/// Shows the container its own group by binding its directory. A cgroup2 mount would show every group of the host, unless the
/// container has a cgroup namespace; and it waits for whoever changes groups meanwhile, for milliseconds.
pub(super) fn own_only<'a>(spec: &'a Spec, hierarchies: &Hierarchies, group: &Cgroup) -> Cow<'a, Spec> {
    let shows = |mount: &Mount| match mount.typ().as_deref() {
        Some("cgroup2") => true,
        Some("cgroup") => hierarchies.is_unified(),
        _ => false,
    };
    let Some(directory) = group.v2_directory() else { return Cow::Borrowed(spec) };
    if !spec.mounts().iter().flatten().any(shows) {
        return Cow::Borrowed(spec);
    }
    let mut changed = spec.clone();
    for mount in changed.mounts_mut().iter_mut().flatten().filter(|mount| shows(mount)) {
        mount.set_typ(Some("bind".to_owned()));
        mount.set_source(Some(directory.to_owned()));
    }
    Cow::Owned(changed)
}

/// Ends what is still in the group and removes it.
pub(super) fn remove(group: &Cgroup, unit: Option<&Unit>) -> Result<(), OciError> {
    if !group.remove_if_unused() {
        group.kill()?;
        group.remove()?;
    }
    unit.map_or(Ok(()), Unit::stop)
}

fn running(global: &Global, id: &str, wanted: &[Status]) -> Result<(Container, Record), OciError> {
    let container = Container::open(global, id)?;
    let record = container.made()?;
    let status = container.status(&record);
    if wanted.contains(&status) {
        return Ok((container, record));
    }
    let wanted = wanted.first().map_or("", |status| status.name());
    Err(OciError::WrongStatus { id: id.to_owned(), status: status.name(), wanted })
}

pub(super) fn pause(global: &Global, id: &str) -> Result<(), OciError> {
    let (_, record) = running(global, id, &[Status::Running, Status::Created])?;
    Ok(record.group()?.freeze()?)
}

pub(super) fn resume(global: &Global, id: &str) -> Result<(), OciError> {
    let (_, record) = running(global, id, &[Status::Paused])?;
    Ok(record.group()?.thaw()?)
}

pub(super) fn update(global: &Global, id: &str, changes: &Changes) -> Result<(), OciError> {
    let (_, record) = running(global, id, &[Status::Running, Status::Created, Status::Paused])?;
    let mut resources = match &changes.file {
        Some(path) => read(path)?,
        None => LinuxResources::default(),
    };
    for (name, value) in &changes.single {
        change(&mut resources, name, value)?;
    }
    if let Some(memory) = resources.memory_mut()
        && (memory.limit(), memory.swap()) == (Some(-1), None)
    {
        // The sum of memory and swap cannot be less than unlimited memory.
        memory.set_swap(Some(-1));
    }
    // Rules for devices are not what is updated: containerd sends the container's own again.
    resources.set_devices(None);
    let mut group = record.group()?;
    group.update(&record.hierarchies()?, &record.cgroup, &resources)?;
    record.unit.map_or(Ok(()), |unit| unit.tell_limits(&group))
}

fn read(path: &Path) -> Result<LinuxResources, OciError> {
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        fs::read(path).map(|bytes| text = bytes)
    };
    read.map_err(OciError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| OciError::Json {
        what: "linux.resources",
        path: path.to_owned(),
        source,
    })
}

fn change(resources: &mut LinuxResources, name: &str, value: &str) -> Result<(), OciError> {
    let wrong = || OciError::Usage(format!("`{value}` is not a value for --{name}"));
    let number = || value.parse::<i64>().map_err(|_| wrong());
    let bytes = || parse_bytes(value).ok_or_else(wrong);
    let positive = || value.parse::<u64>().map_err(|_| wrong());
    let mut memory: LinuxMemory = resources.memory().unwrap_or_default();
    let mut cpu: LinuxCpu = resources.cpu().clone().unwrap_or_default();
    match name {
        "memory" => drop(memory.set_limit(Some(bytes()?))),
        "memory-reservation" => drop(memory.set_reservation(Some(bytes()?))),
        "memory-swap" => drop(memory.set_swap(Some(bytes()?))),
        "cpu-period" => drop(cpu.set_period(Some(positive()?))),
        "cpu-quota" => drop(cpu.set_quota(Some(number()?))),
        "cpu-burst" => drop(cpu.set_burst(Some(positive()?))),
        "cpu-idle" => drop(cpu.set_idle(Some(number()?))),
        "cpu-rt-period" => drop(cpu.set_realtime_period(Some(positive()?))),
        "cpu-rt-runtime" => drop(cpu.set_realtime_runtime(Some(number()?))),
        "cpu-share" => drop(cpu.set_shares(Some(positive()?))),
        "cpuset-cpus" => drop(cpu.set_cpus(Some(value.to_owned()))),
        "cpuset-mems" => drop(cpu.set_mems(Some(value.to_owned()))),
        "pids-limit" => {
            let mut pids = LinuxPids::default();
            pids.set_limit(number()?);
            resources.set_pids(Some(pids));
        }
        "blkio-weight" => {
            let mut io = LinuxBlockIo::default();
            io.set_weight(Some(value.parse().map_err(|_| wrong())?));
            resources.set_block_io(Some(io));
        }
        _ => return Err(OciError::Unsupported(format!("--{name}"))),
    }
    if memory != LinuxMemory::default() {
        resources.set_memory(Some(memory));
    }
    if cpu != LinuxCpu::default() {
        resources.set_cpu(Some(cpu));
    }
    Ok(())
}
