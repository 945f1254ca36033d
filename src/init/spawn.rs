//! Making the child that runs a launch's steps.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::wait::waitpid;
use nix::unistd::Pid as NixPid;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags};

use super::run::{Inherited, enter_those_of_others, launch_steps};
use super::{Launch, LaunchFailure, Namespace, NamespaceKind, Slot, Step};
use crate::sys::process::{self, Child};
use crate::sys::userns;

/// Makes the process, in its namespaces and its cgroup2. It waits for the go before it runs its steps; with
/// [`Step::Rebirth`] it does not, enters its v1 groups by itself, and what is returned has done all its steps.
///
/// # Errors
/// What the kernel says, and with [`Step::Rebirth`] a step that failed.
pub fn spawn(launch: &Launch, inherited: &Inherited<'_>) -> Result<Child, LaunchFailure> {
    let slot = |slot: Slot| {
        inherited.slots.get(slot).ok_or_else(|| failed(&io::Error::from_raw_os_error(libc::EBADF), "slot"))
    };
    let cgroup = launch.cgroup.v2.map(slot).transpose()?.map(AsFd::as_fd);
    for &index in &launch.cgroup.v1 {
        slot(index)?;
    }
    if launch.steps.iter().any(|step| matches!(step, Step::Rebirth)) {
        return reborn(launch, inherited, cgroup);
    }
    let mut flags = 0;
    let (mut join, mut user) = (None, None);
    for namespace in &launch.namespaces {
        match *namespace {
            Namespace::New(kind) => flags |= kind.clone_flag(),
            Namespace::Join(NamespaceKind::Pid, index) => join = Some(slot(index)?),
            Namespace::Join(NamespaceKind::User, index) => user = Some(slot(index)?),
            Namespace::Join(..) => {}
        }
    }
    let before = |error: io::Error| failed(&error, "making the process");
    let join = match join {
        Some(there) if process::is_in_namespace(there, "pid").map_err(before)? => None,
        join => join,
    };
    let keep = inherited.descriptors();
    // Whoever is no root could not write the mappings of a process that hides. Nobody is there yet to look into it.
    let late = !rustix::process::geteuid().is_root() && flags & NamespaceKind::User.clone_flag() != 0;
    let body = || launch_steps(launch, inherited, None, late);
    if let Some(user) = user
        && !process::is_in_namespace(user, "user").map_err(before)?
    {
        // New namespaces are those of the user namespace that they are made in.
        let enter = || {
            enter_those_of_others(launch, inherited)?;
            process::enter_namespace(user, libc::CLONE_NEWUSER)?;
            match join {
                Some(there) if !process::is_in_namespace(there, "pid_for_children")? => {
                    process::enter_namespace(there, libc::CLONE_NEWPID)
                }
                _ => Ok(()),
            }
        };
        return process::clone_child_from(inherited.single, enter, flags, cgroup, &keep, body).map_err(before);
    }
    if let Some(there) = join
        && !userns::owns("pid").map_err(before)?
    {
        // There would be no way back from there.
        let enter = || process::enter_namespace(there, libc::CLONE_NEWPID);
        return process::clone_child_from(inherited.single, enter, flags, cgroup, &keep, body).map_err(before);
    }
    let own = join.map(enter_for_children).transpose()?;
    let child = process::clone_child(inherited.single, flags, cgroup, &keep, body);
    if let Some(own) = own {
        // Our own is an ancestor of every namespace we can enter, so this cannot be refused; were it, all later
        // processes would be born in the wrong place.
        process::enter_namespace(&own, libc::CLONE_NEWPID).map_err(before)?;
    }
    child.map_err(before)
}

/// Has this process's children in another pid namespace; returns its own one.
fn enter_for_children(namespace: &OwnedFd) -> Result<OwnedFd, LaunchFailure> {
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let own = own.map_err(|error| failed(&error.into(), "own pid namespace"))?;
    process::enter_namespace(namespace, libc::CLONE_NEWPID)
        .map_err(|error| failed(&error, "joining the pid namespace"))?;
    Ok(own)
}

fn reborn(launch: &Launch, inherited: &Inherited<'_>, cgroup: Option<BorrowedFd<'_>>) -> Result<Child, LaunchFailure> {
    let before = |error: &io::Error| failed(error, "making the process");
    let (born, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| before(&error.into()))?;
    let mut keep = inherited.descriptors();
    keep.push(std::os::fd::AsRawFd::as_raw_fd(&tell));
    let first = process::clone_child(inherited.single, 0, cgroup, &keep, || {
        launch_steps(launch, inherited, Some(tell.as_fd()), false)
    });
    let first = first.map_err(|error| before(&error))?;
    drop(tell);
    let mut text = Vec::new();
    let read = File::from(born).read_to_end(&mut text);
    // It ends right after it has told, or failed.
    while waitpid(NixPid::from_raw(first.pid), None) == Err(nix::errno::Errno::EINTR) {}
    read.map_err(|error| before(&error))?;
    match text.split_first_chunk::<4>() {
        Some((pid, [])) => {
            let pid = i32::from_ne_bytes(*pid);
            // It is our child and not reaped yet, so its number can mean nobody else.
            let pidfd = Pid::from_raw(pid)
                .ok_or(rustix::io::Errno::SRCH)
                .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
            Ok(Child { pid, pidfd: pidfd.map_err(|error| before(&error.into()))? })
        }
        _ => Err(postcard::from_bytes(&text).unwrap_or_else(|_| {
            failed(&io::Error::from_raw_os_error(libc::ESRCH), "the process ended before it executed its program")
        })),
    }
}

fn failed(error: &io::Error, detail: &str) -> LaunchFailure {
    LaunchFailure { step: None, errno: error.raw_os_error().unwrap_or(libc::EINVAL), detail: detail.to_owned() }
}
