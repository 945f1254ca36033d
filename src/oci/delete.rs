//! `delete`, and what is left of a container that could not be made.

use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::event::Timespec;

use crate::engine::cgroup::{Cgroup, CgroupError, Hierarchies};
use crate::oci::arguments::Global;
use crate::oci::create;
use crate::oci::error::OciError;
use crate::oci::group;
use crate::oci::state::{Container, Record, Status};
use crate::sys::process;

/// For the end of a process that was killed.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

pub(super) fn delete(global: &Global, id: &str, force: bool) -> Result<(), OciError> {
    let container = match Container::open(global, id) {
        Err(OciError::NotFound(_)) if force => return Ok(()),
        container => container?,
    };
    let record = container.record()?;
    let status = record.as_ref().map_or(Status::Creating, |record| container.status(record));
    // What was never started is ended as well, as with runc and crun: containerd stands on it.
    if !matches!(status, Status::Stopped | Status::Created) && !force {
        let (id, status, wanted) = (id.to_owned(), status.name(), Status::Stopped.name());
        return Err(OciError::WrongStatus { id, status, wanted });
    }
    if let Some(record) = &record
        && let Some(pidfd) = record.process()?
    {
        // It can have ended meanwhile.
        let _ = process::send_signal(&pidfd, libc::SIGKILL);
        record.group()?.thaw()?;
        let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, Some(&PATIENCE)));
        if ready.map_err(OciError::io("wait for", "the container"))? == 0 {
            return Err(OciError::Stuck(record.pid));
        }
    }
    remove(&container, record.as_ref())
}

/// Ends what still runs in the container's group, removes the group and the record, and runs the last hooks.
pub(super) fn remove(container: &Container, record: Option<&Record>) -> Result<(), OciError> {
    let Some(record) = record else { return remove_unrecorded(container) };
    // Without one it was not made before something failed.
    if !record.cgroup.is_empty() {
        match record.group().and_then(|group| group::remove(&group, record.unit.as_ref())) {
            // Without any hierarchy there is no group either.
            Err(OciError::Cgroup(CgroupError::NotMounted)) => {}
            removed => removed?,
        }
    }
    forget(container, record, &container.config()?)
}

/// What was interrupted before there was a process.
fn remove_unrecorded(container: &Container) -> Result<(), OciError> {
    if let Ok(spec) = container.config() {
        let wanted = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        let path = group::path(wanted.unwrap_or(Path::new("")), &container.id);
        match Hierarchies::detect().and_then(|hierarchies| Cgroup::open(&hierarchies, &path)) {
            // The group may be of others, too.
            Ok(group) => drop(group.remove_if_unused()),
            Err(CgroupError::NotMounted) => {}
            Err(error) => return Err(error.into()),
        }
    }
    container.remove()
}

/// Removes the record of a container that has ended; it is gone whatever its last hooks say.
pub(super) fn forget(container: &Container, record: &Record, spec: &Spec) -> Result<(), OciError> {
    container.remove()?;
    create::poststop(record, spec)
}
