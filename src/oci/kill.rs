//! `kill`.

use std::os::fd::OwnedFd;

use oci_spec::runtime::LinuxNamespaceType;

use crate::oci::arguments::Global;
use crate::oci::error::OciError;
use crate::oci::state::{Container, Record, Status};
use crate::sys::{process, signals};

pub(super) fn kill(global: &Global, id: &str, signal: &str, all: bool) -> Result<(), OciError> {
    // 0 only asks whether there is a process.
    let number = if signal == "0" { Some(0) } else { signals::number(signal) };
    let number = number.ok_or_else(|| OciError::Signal(signal.to_owned()))?;
    let container = Container::open(global, id)?;
    let record = container.made()?;
    let Some(pidfd) = record.process()? else {
        let group = record.group()?;
        // Its first process has ended, and others in its group may not have.
        if number == libc::SIGKILL && (all || (shares_pids(&container)? && !group.processes()?.is_empty())) {
            return Ok(group.kill()?);
        }
        if all {
            return signal_all(&group.processes()?, number);
        }
        return Err(OciError::NotRunning { id: id.to_owned(), status: Status::Stopped.name() });
    };
    let (number, _lock) = for_one_that_waits(&container, &record, number)?;
    if all && number != libc::SIGKILL {
        return signal_all(&record.group()?.processes()?, number);
    }
    if number == libc::SIGKILL && (all || shares_pids(&container)?) {
        // The kernel ends the others only with the first process of a pid namespace.
        return Ok(record.group()?.kill()?);
    }
    let sent = process::send_signal(&pidfd, number).map_err(|source| match source.raw_os_error() {
        Some(libc::ESRCH) => OciError::NotRunning { id: id.to_owned(), status: Status::Stopped.name() },
        _ => OciError::io("signal", format!("process {}", record.pid))(source),
    });
    if number == libc::SIGKILL && container.status(&record) == Status::Paused {
        // In version 1 what is frozen does not even end.
        record.group()?.thaw()?;
    }
    sent
}

/// Before its start a container's process has no handlers, and as the first of its pid namespace it would not hear what ends any
/// other: that ends it as SIGKILL. It cannot be started as long as the lock is held.
fn for_one_that_waits(container: &Container, record: &Record, number: i32) -> Result<(i32, Option<OwnedFd>), OciError> {
    let waits = || container.status(record) == Status::Created;
    if !ends_by_default(number) || !waits() || shares_pids(container)? {
        return Ok((number, None));
    }
    let lock = container.lock()?;
    Ok(if waits() { (libc::SIGKILL, Some(lock)) } else { (number, None) })
}

fn ends_by_default(number: i32) -> bool {
    use libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    let lets_live = [0, SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
    !lets_live.contains(&number)
}

fn signal_all(pids: &[i32], number: i32) -> Result<(), OciError> {
    for pid in pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
        // It can have ended meanwhile.
        if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            let _ = process::send_signal(pidfd, number);
        }
    }
    Ok(())
}

fn shares_pids(container: &Container) -> Result<bool, OciError> {
    let spec = container.config()?;
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    Ok(!namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none()))
}
