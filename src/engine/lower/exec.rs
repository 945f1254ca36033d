//! A further process in a running container: its namespaces, and the same restrictions.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use oci_spec::runtime::LinuxNamespaceType;
use oci_spec::runtime::LinuxPersonality;
use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::Process;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;

use crate::engine::cgroup;
use crate::engine::lower::Described;
use crate::engine::lower::LowerError;
use crate::engine::lower::Lowered;
use crate::engine::lower::Slots;
use crate::engine::lower::cpus;
use crate::engine::lower::exec;
use crate::engine::lower::exec_arguments;
use crate::engine::lower::open_namespace;
use crate::engine::lower::restrict;
use crate::engine::lower::session;
use crate::engine::lower::stdio;
use crate::engine::lower::unsupported;
use crate::engine::lower::working_directory;
use crate::init::Launch;
use crate::init::Namespace;
use crate::init::NamespaceKind;
use crate::init::Stdio;
use crate::init::Step;

const NAMESPACES: [(&str, LinuxNamespaceType, NamespaceKind); 8] = [
    ("user", LinuxNamespaceType::User, NamespaceKind::User),
    ("time", LinuxNamespaceType::Time, NamespaceKind::Time),
    ("ipc", LinuxNamespaceType::Ipc, NamespaceKind::Ipc),
    ("uts", LinuxNamespaceType::Uts, NamespaceKind::Uts),
    ("net", LinuxNamespaceType::Network, NamespaceKind::Net),
    ("pid", LinuxNamespaceType::Pid, NamespaceKind::Pid),
    ("cgroup", LinuxNamespaceType::Cgroup, NamespaceKind::Cgroup),
    ("mnt", LinuxNamespaceType::Mount, NamespaceKind::Mount),
];

/// The container's first process.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// For the listener of its filter.
    pub described: Option<Described<'a>>,
    pub personality: Option<&'a LinuxPersonality>,
    /// The SELinux label of its files.
    pub mount_label: Option<&'a str>,
}

/// Lowers a process (see [`crate::engine::spec::exec_process`]) that joins all namespaces of a container's first one.
///
/// # Errors
/// The container has ended; fields that cannot be honoured.
pub fn lower_exec(
    process: &Process,
    target: Target<'_>,
    cgroup: cgroup::Entry,
    stdin: bool,
    terminal: Option<(u16, u16)>,
) -> Result<Lowered, LowerError> {
    unsupported::process(process)?;
    let mut slots = Slots::default();
    let cgroup = slots.cgroup(cgroup);
    let mut namespaces = Vec::new();
    for (name, kind, namespace) in NAMESPACES {
        let path = PathBuf::from(format!("/proc/{}/ns/{name}", target.pid));
        let optional = matches!(namespace, NamespaceKind::User | NamespaceKind::Time);
        if optional && same_namespace(&path, Path::new(&format!("/proc/self/ns/{name}"))) {
            // Nobody can join the user namespace that he is in; and kernels need not have time namespaces.
            continue;
        }
        let descriptor = open_namespace(kind, &path)?;
        namespaces.push(Namespace::Join(namespace, slots.add(descriptor)));
    }
    // Only now is it certain that the pid was this process's all the time.
    if has_ended(target.pidfd) {
        return Err(LowerError::Ended(target.pid));
    }
    let stdio = stdio(process, stdin, terminal);
    let mut steps = Vec::new();
    if let Stdio::Terminal { .. } = stdio {
        steps.push(Step::Console { bind_console: false });
    }
    if process.exec_cpu_affinity().is_none() {
        steps.push(Step::EveryCpu);
    }
    let affinity = process.exec_cpu_affinity().as_ref().and_then(|affinity| affinity.cpu_affinity_final().as_deref());
    if let Some(list) = affinity.filter(|list| !list.is_empty()) {
        steps.push(Step::Affinity(cpus(list)?));
    }
    let target_directory = working_directory(process)?;
    let directory = |last| Step::WorkingDirectory { target: target_directory.clone(), create: false, last };
    steps.push(directory(false));
    steps.extend(target.personality.map(restrict::personality).transpose()?);
    let filter = target.seccomp.map(|profile| restrict::filter(profile, target.described, &mut slots)).transpose()?;
    let filter = restrict::restrict(process, filter, vec![directory(true)], &mut steps)?;
    steps.push(Step::Rebirth);
    // A session ends with its first process, so it is the new one that makes it.
    steps.push(session(stdio));
    steps.push(Step::CloseOnExec);
    steps.extend(filter);
    steps.push(exec(process)?);
    let pipe_label = restrict::pipe_label(process, target.mount_label);
    Ok(Lowered { launch: Launch { namespaces, cgroup, stdio, pipe_label, steps }, descriptors: slots.0 })
}

/// Has the launch fail early, with the right words, when there is no such program.
///
/// # Errors
/// No program is named.
pub fn check_program(process: &Process, lowered: &mut Lowered) -> Result<(), LowerError> {
    let (argv, env) = exec_arguments(process)?;
    let steps = &mut lowered.launch.steps;
    let at = steps.iter().position(|step| matches!(step, Step::WorkingDirectory { last: true, .. }));
    steps.insert(at.map_or(steps.len().saturating_sub(1), |at| at + 1), Step::FindProgram { argv, env });
    Ok(())
}

/// Whether both lead to the same namespace, or there is none.
fn same_namespace(one: &Path, other: &Path) -> bool {
    let identity = |path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(one) == identity(other)
}

/// A pidfd is readable once its process has ended.
fn has_ended(pidfd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
