//! The way out of a project's own network namespace, for a user who may not route: pasta or slirp4netns.
//!
//! Either puts a tap device with a default route into the namespace and carries what goes through it with ordinary sockets
//! of the host. Neither is needed for containers to reach each other, for published ports, or for names.

mod holder;

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, fstat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::base::disk::{self, Durability};
use crate::sys::process;
use crate::sys::userns::program;

pub use holder::main;

/// First argument of the process that holds the way out; the network namespace's path and the project's folder follow.
pub const ROLE: &str = "uplink-process";

/// What the kernel calls it.
const NAME: &CStr = c"rcompose-uplink";

/// The device that both need.
const TUN: &str = "/dev/net/tun";

/// One of the programs that can be the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    Pasta(PathBuf),
    Slirp(PathBuf),
}

impl Program {
    /// Those that are installed, the better one first.
    pub fn installed() -> Vec<Self> {
        program("pasta").map(Self::Pasta).into_iter().chain(program("slirp4netns").map(Self::Slirp)).collect()
    }
}

/// A way out that runs: its holder, whose end is the program's, too. What is on disk of it: `uplink.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    pub pid: i32,
    pub start_time: u64,
}

impl Uplink {
    /// The one that an earlier supervisor of the project has started, if it runs still. `folder` is the project's own.
    ///
    /// # Errors
    /// Its record cannot be read.
    pub fn recorded(folder: &Path) -> io::Result<Option<Self>> {
        let found: Option<Self> = disk::read_json(&folder.join("uplink.json"))?;
        Ok(found.filter(|uplink| process::start_time(uplink.pid) == Some(uplink.start_time)))
    }

    /// The network namespace of a project whose processes are all gone but this one. Where it cannot be had, the way out of
    /// it is of no use any more and is ended. Called in the host's network.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn left(folder: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(uplink) = Self::recorded(folder)? else { return Ok(None) };
        // What an earlier build has started is in the host's.
        let apart = |netns: &OwnedFd| process::is_in_namespace(netns, "net").is_ok_and(|same| !same);
        let netns = uplink.netns().filter(apart);
        if netns.is_none() {
            uplink.end()?;
            fs::remove_file(folder.join("uplink.json"))?;
        }
        Ok(netns)
    }

    /// Ends it; that it has ended already is no error. It is init of a pid namespace, which no other signal ends.
    ///
    /// # Errors
    /// Whatever keeps the signal from being sent.
    pub fn end(&self) -> io::Result<()> {
        match self.pidfd().and_then(|pidfd| process::send_signal(&pidfd, libc::SIGKILL)) {
            // The number is free, or that of somebody's thread.
            Err(error) if matches!(error.raw_os_error(), None | Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => {
                Ok(())
            }
            ended => ended,
        }
    }

    /// Starts the first of the installed programs that works; returns when traffic can pass. What `lives` is the other end of
    /// is for all to hold that the way out is for: when it is closed everywhere, it ends with the last container.
    ///
    /// # Errors
    /// None is there, or what the last one says.
    pub fn start(project: &str, netns: BorrowedFd<'_>, folder: &Path, lives: PipeReader) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("rcompose: uplink {project}")).arg(ROLE);
        command.arg(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())).arg(folder);
        // It leaves the holder behind, which closes its standard output when it is ready.
        let ended = command.stdin(lives).stderr(Stdio::inherit()).output()?;
        let said = String::from_utf8_lossy(&ended.stdout);
        let (pid, rest) = said.split_once('\n').unwrap_or_default();
        let known = pid.parse().ok().and_then(|pid| Some(Self { pid, start_time: process::start_time(pid)? }));
        match known {
            Some(uplink) if rest == holder::READY => Ok(uplink),
            _ if rest.is_empty() => Err(io::Error::other("its process ended before it was ready")),
            _ => Err(io::Error::other(rest.trim().to_owned())),
        }
    }

    /// The two ends of what tells a way out that it is needed no more.
    ///
    /// # Errors
    /// Too many descriptors are open.
    pub fn life() -> io::Result<(PipeReader, PipeWriter)> {
        io::pipe()
    }

    /// Writes down that it runs; where that cannot be done, it is ended, as nobody would know of it.
    ///
    /// # Errors
    /// The file's.
    pub fn record(&self, folder: &Path) -> io::Result<()> {
        disk::replace_json(&folder.join("uplink.json"), self, Durability::Kill).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.end();
        })
    }

    /// The one of this network namespace, looked for among the processes.
    pub fn of_namespace(netns: BorrowedFd<'_>) -> Option<Self> {
        let identity = |file: BorrowedFd<'_>| fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let wanted = identity(netns)?;
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let named = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim_end().as_bytes() == NAME.to_bytes())
        };
        pids.filter(named)
            .filter_map(|pid| Some(Self { pid, start_time: process::start_time(pid)? }))
            .find(|uplink| uplink.netns().is_some_and(|found| identity(found.as_fd()) == Some(wanted)))
    }

    /// Names the process, for waiting and for ending it.
    ///
    /// # Errors
    /// It has ended.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // Not one that has got its number since.
        let same = process::start_time(self.pid) == Some(self.start_time);
        same.then_some(pidfd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The network namespace that it is the way out of: its holder lives there.
    fn netns(&self) -> Option<OwnedFd> {
        let netns = File::open(format!("/proc/{}/ns/net", self.pid)).ok()?;
        // The number was still its own.
        self.pidfd().is_ok().then(|| netns.into())
    }
}

/// Whether packets can be handed to a program at all: the device both need.
///
/// # Errors
/// It is not there, or not for this user.
pub fn check_tap() -> io::Result<()> {
    Ok(rustix::fs::open(TUN, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_out_that_cannot_be_written_down_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id().cast_signed();
        let uplink = Uplink { pid, start_time: process::start_time(pid).unwrap() };
        uplink.record(folder.path()).unwrap();
        assert_eq!(Uplink::recorded(folder.path()).unwrap(), Some(uplink));
        assert!(child.try_wait().unwrap().is_none());
        // As on a full disk.
        uplink.record(&folder.path().join("not there")).unwrap_err();
        assert!(!child.wait().unwrap().success());
        assert_eq!(Uplink::recorded(folder.path()).unwrap(), None, "the record names nobody who runs");
    }
}
