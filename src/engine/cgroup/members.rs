//! The processes of a group: which they are, ending and freezing them.

use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::{Pid, Signal};

use crate::engine::cgroup::{Cgroup, CgroupError, is_gone, with_descendants, write};
use crate::engine::processes;
use crate::sys::userns::Ids;

impl Cgroup {
    /// Processes in the group and the groups below it.
    ///
    /// # Errors
    /// Unreadable group.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let Some(top) = self.v2.as_ref().or(self.v1.first().map(|(_, directory)| directory)) else {
            return Ok(self.ungrouped.map(processes::of_namespace).unwrap_or_default());
        };
        let mut pids = Vec::new();
        for directory in with_descendants(top)? {
            let path = directory.join("cgroup.procs");
            match fs::read_to_string(&path) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(source) => return Err(CgroupError::read(&path, source)),
            }
        }
        Ok(pids)
    }

    /// Sends SIGKILL to everything in the group. Does not wait for it.
    ///
    /// # Errors
    /// What the kernel says; a group that is gone is none.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if self.v2.is_none() && self.v1.is_empty() {
            return Ok(());
        }
        if let Some(group) = &self.v2 {
            match fs::write(group.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(error) if is_gone(&error) && !group.is_dir() => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError::Io { doing: "kill", path: group.clone(), source }),
            }
        }
        // Frozen, nothing can fork away and no pid comes to mean another process.
        self.freeze()?;
        let killed = self.processes().map(|pids| {
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                // It can have ended meanwhile.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        });
        self.thaw()?;
        killed
    }

    /// Stops everything in the group from running.
    ///
    /// # Errors
    /// No freezer, or what the kernel says.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen("1", "FROZEN")
    }

    /// Undoes [`Cgroup::freeze`].
    ///
    /// # Errors
    /// As there.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen("0", "THAWED")
    }

    /// Whether [`Cgroup::freeze`] is in force.
    pub fn is_frozen(&self) -> bool {
        let says = |file: PathBuf, word: &[u8]| fs::read(file).is_ok_and(|text| text.starts_with(word));
        let freezer = self.v1.iter().find(|(controller, _)| controller == "freezer");
        // On a machine with both, others may have used either.
        self.v2.as_ref().is_some_and(|group| says(group.join("cgroup.freeze"), b"1"))
            || freezer.is_some_and(|(_, group)| says(group.join("freezer.state"), b"FR"))
    }

    fn set_frozen(&self, v2: &str, v1: &str) -> Result<(), CgroupError> {
        if let Some(group) = &self.v2 {
            return write("pause", &group.join("cgroup.freeze"), v2);
        }
        match self.v1.iter().find(|(controller, _)| controller == "freezer") {
            Some((_, directory)) => write("pause", &directory.join("freezer.state"), v1),
            None if Ids::of_this_process() != Ids::Host => Err(CgroupError::NotDelegated { attribute: "pause" }),
            None => Err(CgroupError::NoController { attribute: "pause", controller: "freezer" }),
        }
    }
}
