//! `exec`: a further process in a container.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capabilities, Capability, Process, Spec};

use crate::engine::cgroup::{Cgroup, Entry};
use crate::engine::lower::{self, Described, Target};
use crate::oci::Outcome;
use crate::oci::arguments::{ExecOptions, Global, SubGroup};
use crate::oci::bundle;
use crate::oci::console::Console;
use crate::oci::create;
use crate::oci::error::OciError;
use crate::oci::launch::{self, Inheritance, Progress};
use crate::oci::state::{Container, Status};
use crate::oci::systemd;
use crate::oci::wait::Forwarded;
use crate::sys::scheduling;

pub(super) fn exec(global: &Global, options: &ExecOptions) -> Outcome {
    let container = Container::open(global, &options.id)?;
    let record = container.made()?;
    let stopped = |status: Status| OciError::NotRunning { id: options.id.clone(), status: status.name() };
    let pidfd = record.process()?.ok_or_else(|| stopped(Status::Stopped))?;
    let status = container.status(&record);
    if status == Status::Paused && !options.ignore_paused {
        return Err(OciError::Paused(options.id.clone()));
    }
    let spec = container.config()?;
    let (mut process, warnings) = process(&spec, options)?;
    warnings.iter().for_each(|warning| super::log(global, "warning", warning));
    bundle::complete_environment(&mut process, &PathBuf::from(format!("/proc/{}/root", record.pid)))?;
    let console =
        Console::open(process.terminal() == Some(true), options.io.console_socket.as_deref(), options.detach)?;
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let mount_label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let personality = spec.linux().as_ref().and_then(|linux| linux.personality().as_ref());
    let state = record.for_hooks();
    let described = Some(Described { state: &state, status: status.name(), pid: Some(record.pid) });
    let target = Target { pid: record.pid, pidfd: pidfd.as_fd(), seccomp, described, personality, mount_label };
    let entry = match record.unit.as_ref().filter(|_| !systemd::is_system()) {
        // See `create`. The new process is born where this one is.
        Some(unit) => {
            unit.attach(std::process::id().cast_signed())?;
            Entry::default()
        }
        None => entry(&record.group()?, &options.groups)?,
    };
    let mut lowered = lower::lower_exec(&process, target, entry, true, None)?;
    lower::check_program(&process, &mut lowered)?;
    create::keep_groups(&spec, &mut lowered.launch);
    // Inherited by the new process, until it is in its control group.
    let affinity = process.exec_cpu_affinity().as_ref().and_then(|affinity| affinity.initial().as_deref());
    if let Some(list) = affinity.filter(|list| !list.is_empty()) {
        scheduling::set_affinity(lower::cpus(list)?).map_err(OciError::io("use the CPUs", list))?;
    }
    let signals = if options.detach { None } else { Some(Forwarded::block()?) };
    let with = Inheritance { console: console.as_ref().map(Console::for_child), preserve_fds: options.io.preserve_fds };
    let mut starting = launch::begin(lowered, None, &with)?;
    let done = starting.go_on().and_then(|()| match starting.progress()? {
        Progress::Executed => create::tell(&options.io, starting.pid, starting.pidfd.as_fd()),
        Progress::Mounted | Progress::Waiting => Err(stopped(status)),
    });
    if let Err(error) = done {
        starting.abandon();
        return Err(error);
    }
    let Some(signals) = signals else { return Ok(0) };
    console.map_or(Ok(()), |console| console.carry(starting.pidfd.as_fd()))?;
    signals.until_end(starting.pid, starting.pidfd.as_fd())
}

/// To enter the container's group, or groups below it that are there.
fn entry(group: &Cgroup, below: &[SubGroup]) -> Result<Entry, OciError> {
    let mut group = group.clone();
    for SubGroup { controllers, path } in below {
        group.descend(controllers, path)?;
    }
    Ok(group.entry()?)
}

/// What `--process` says, or the container's own process with what the options change.
fn process(spec: &Spec, options: &ExecOptions) -> Result<(Process, Vec<String>), OciError> {
    if let Some(path) = &options.process {
        let bytes = fs::read(path).map_err(OciError::io("read", path))?;
        return bundle::parse(&bytes).map_err(|source| OciError::Json { what: "process", path: path.clone(), source });
    }
    if options.command.is_empty() {
        return Err(OciError::Usage("the command to run is missing".to_owned()));
    }
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(options.command.clone()));
    process.set_terminal(Some(options.tty));
    if let Some(directory) = &options.cwd {
        process.set_cwd(Path::new("/").join(directory));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    environment.extend(options.environment.iter().cloned());
    process.set_env(Some(environment));
    if options.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    user(&mut process, options)?;
    let warnings = add_capabilities(&mut process, &options.capabilities);
    Ok((process, warnings))
}

fn user(process: &mut Process, options: &ExecOptions) -> Result<(), OciError> {
    let mut user = process.user().clone();
    if let Some(wanted) = &options.user {
        let number = |text: &str| {
            text.parse::<u32>().map_err(|_| OciError::Usage(format!("--user takes numbers, not `{wanted}`")))
        };
        let (uid, gid) = wanted.split_once(':').map_or((wanted.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(number(uid)?);
        if let Some(gid) = gid {
            user.set_gid(number(gid)?);
        }
    }
    if !options.additional_gids.is_empty() {
        let mut groups = user.additional_gids().clone().unwrap_or_default();
        groups.extend(&options.additional_gids);
        user.set_additional_gids(Some(groups));
    }
    process.set_user(user);
    Ok(())
}

/// What nobody knows is left out with a warning, as in a specification.
fn add_capabilities(process: &mut Process, names: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut added = Capabilities::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match plain.parse::<Capability>() {
            Ok(capability) => drop(added.insert(capability)),
            Err(_) => warnings.push(format!("the capability {name:?} is not known and left out")),
        }
    }
    if added.is_empty() {
        return warnings;
    }
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<Capabilities>| Some(set.iter().flatten().chain(&added).copied().collect::<Capabilities>());
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding);
    sets.set_effective(effective);
    sets.set_permitted(permitted);
    if sets.inheritable().as_ref().is_some_and(|set| !set.is_empty()) {
        // As with runc; those that are not inheritable cannot be.
        let ambient = with(sets.ambient());
        sets.set_ambient(ambient);
    }
    process.set_capabilities(Some(sets));
    warnings
}
