//! Removing groups.

use std::fs;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::engine::cgroup::{Cgroup, CgroupError, Hierarchies, check, is_gone, with_descendants};

/// How long [`Cgroup::remove`] waits for the last process to be gone.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Removes the group where nothing is in it and nothing below it; whether it is gone everywhere.
    pub fn remove_if_unused(&self) -> bool {
        let removed = |group: &PathBuf| fs::remove_dir(group).map_or_else(|error| is_gone(&error), |()| true);
        self.v2.iter().chain(self.v1.iter().map(|(_, directory)| directory)).all(removed)
    }

    /// Removes the group and all below it, in every hierarchy; waits a little for processes that are just ending.
    /// Blocks: not for an async task.
    ///
    /// # Errors
    /// Processes that do not go.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_WITHIN;
        let groups = self.v2.iter().chain(self.v1.iter().map(|(_, directory)| directory));
        for group in groups {
            for directory in with_descendants(group)?.iter().rev() {
                remove_one(directory, deadline)?;
            }
        }
        Ok(())
    }
}

/// Removes the group `path` as far as it is empty, and then its parents as far as they are: for a project's end.
///
/// # Errors
/// What the kernel says, other than that a group is in use.
pub fn remove_empty(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    check(path)?;
    remove_upwards(hierarchies.v2.iter().map(|v2| &v2.mount).chain(hierarchies.v1.values()), path)
}

/// The same in hierarchies without a controller, where other runtimes make groups (systemd's, on a machine with v1).
///
/// # Errors
/// As there.
pub fn remove_named(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    check(path)?;
    remove_upwards(hierarchies.named.iter(), path)
}

fn remove_upwards<'a>(mounts: impl Iterator<Item = &'a PathBuf>, path: &str) -> Result<(), CgroupError> {
    for mount in mounts {
        for ancestor in Path::new(path).ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            let directory = mount.join(ancestor);
            match fs::remove_dir(&directory) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) if is_busy(&error) => break,
                Err(source) => return Err(CgroupError::Io { doing: "remove", path: directory, source }),
            }
        }
    }
    Ok(())
}

fn remove_one(directory: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let mut pause = Duration::from_millis(1);
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if is_busy(&error) => {}
            Err(source) => return Err(CgroupError::Io { doing: "remove", path: directory.to_owned(), source }),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CgroupError::Busy(directory.to_owned()));
        }
        wait_for_change(directory, pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(64));
    }
}

/// Waits for news from the group: cgroup2 tells when its last process is gone, v1 does not and is asked again.
fn wait_for_change(directory: &Path, pause: Duration) {
    let Ok(mut events) = File::open(directory.join("cgroup.events")) else {
        std::thread::sleep(pause);
        return;
    };
    // Reading arms the notification.
    let populated = io::read_to_string(&mut events).is_ok_and(|text| text.contains("populated 1"));
    if populated {
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        // Whatever it says, the caller looks again.
        let _ = rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout));
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}
