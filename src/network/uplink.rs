//! The way out of a project's own network namespace, for a user who may not route: pasta or slirp4netns.
//!
//! Either puts a tap device with a default route into the namespace and carries what goes through it with ordinary sockets
//! of the host. Neither is needed for containers to reach each other, for published ports, or for names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, fstat};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::base::disk::{self, Durability};
use crate::sys::process;
use crate::sys::userns::{self, program};

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

/// A way out that runs. What is on disk of it: `uplink.json`.
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
    /// it is of no use any more and is ended.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn left(folder: &Path) -> io::Result<Option<OwnedFd>> {
        let Some(uplink) = Self::recorded(folder)? else { return Ok(None) };
        let netns = uplink.netns();
        if netns.is_none() {
            uplink.end()?;
            fs::remove_file(folder.join("uplink.json"))?;
        }
        Ok(netns)
    }

    /// Ends it; that it has ended already is no error. pasta is init of a pid namespace, which no other signal ends.
    ///
    /// # Errors
    /// Whatever keeps the signal from being sent.
    pub fn end(&self) -> io::Result<()> {
        match self.pidfd().and_then(|pidfd| process::send_signal(&pidfd, libc::SIGKILL)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
                Ok(())
            }
            ended => ended,
        }
    }

    /// Starts the first of the installed programs that works; returns when traffic can pass.
    ///
    /// # Errors
    /// None is there, or what the last one says.
    pub fn start(netns: BorrowedFd<'_>, folder: &Path) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "neither pasta nor slirp4netns is installed");
        for program in Program::installed() {
            let started = match &program {
                Program::Pasta(path) => pasta(path, netns, folder),
                Program::Slirp(path) => slirp(path, netns),
            };
            match started {
                Ok(pid) => {
                    let start_time = process::start_time(pid).ok_or(io::ErrorKind::NotFound)?;
                    return Ok(Self { pid, start_time });
                }
                Err(error) => {
                    // It may run all the same: its number could not be written down.
                    if let Some(uplink) = Self::of_namespace(netns) {
                        uplink.end()?;
                    }
                    last = error;
                }
            }
        }
        Err(last)
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
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            // pasta is a link to passt, which executes the variant for the processor.
            ["pasta", "passt", "slirp4netns"].iter().any(|known| name.starts_with(known))
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

    /// The network namespace of the tap device that it holds open.
    fn netns(&self) -> Option<OwnedFd> {
        let is_tap = |path: &PathBuf| fs::read_link(path).is_ok_and(|link| link == Path::new(TUN));
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        let tap = entries.flatten().map(|entry| entry.path()).find(is_tap)?;
        let number = tap.file_name()?.to_str()?.parse().ok()?;
        let tap = pidfd_getfd(self.pidfd().ok()?, number, PidfdGetfdFlags::empty()).ok()?;
        userns::network_of_tap(tap).ok()
    }
}

/// pasta opens the namespace by a path after it has given up most of its rights; a mount of it, which only this mount
/// namespace sees, is one that it may open.
fn pasta(program: &Path, netns: BorrowedFd<'_>, folder: &Path) -> io::Result<i32> {
    let (place, pid_file) = (folder.join("netns"), folder.join("uplink.pid"));
    File::create(&place)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(netns, "", flags)?;
    move_mount(&mount, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mut command = Command::new(program);
    command.args(["--netns-only", "--config-net", "--no-map-gw", "--no-netns-quit", "--quiet"]);
    // Ports are the supervisor's matter.
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--pid"]).arg(&pid_file);
    command.arg("--netns").arg(&place).stdin(Stdio::null()).stdout(Stdio::null());
    // It leaves a process of its own behind when it is ready.
    let ended = command.output();
    unmount(&place, UnmountFlags::DETACH)?;
    fs::remove_file(&place)?;
    let ended = ended?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said = said.lines().last().unwrap_or_default().to_owned();
        return Err(io::Error::other(format!("pasta failed: {said}")));
    }
    let pid = fs::read_to_string(&pid_file)?.trim().parse();
    fs::remove_file(&pid_file)?;
    pid.map_err(|_| io::ErrorKind::InvalidData.into())
}

fn slirp(program: &Path, netns: BorrowedFd<'_>) -> io::Result<i32> {
    let (mut ready, tell) = io::pipe()?;
    let netns = netns.try_clone_to_owned()?;
    let (tell, netns) = (OwnedFd::from(tell), netns);
    let mut command = Command::new(program);
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]);
    command.arg(format!("--ready-fd={}", tell.as_raw_fd()));
    command.arg(format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())).arg("tap0");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    fcntl_setfd(&tell, FdFlags::empty())?;
    let child = command.spawn();
    // Ours closed, its end is seen when it gives up.
    drop(tell);
    let mut child = child?;
    if ready.read_exact(&mut [0]).is_err() {
        let status = child.wait()?;
        return Err(io::Error::other(format!("slirp4netns failed: {status}")));
    }
    Ok(child.id().cast_signed())
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
