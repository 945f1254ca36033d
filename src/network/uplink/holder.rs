//! The process that the way out lives in: init of a pid namespace of its own, so that whatever ends it ends all of it.
//!
//! Keeper and supervisor hold the other end of its standard input. When both were killed, it stays as long as containers of
//! the project are connected, which may need it, and with it the project's network, which it lives in.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::CWD;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::{NAME, Program};
use crate::network::sandbox::LINK;
use crate::sys::process::{self, SingleThreaded};

/// What it says when traffic can pass; before it, and a line end, its process number.
pub(super) const READY: &str = "ready";

/// How often it looks whether containers are left that need it, once keeper and supervisor are gone.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Entry of the process; the arguments are the network namespace's path and the project's folder.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever starts it reads that; when he is gone, nobody is to be told.
            let _ = write!(io::stdout(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Forks the holder and ends; returns in the holder when that is to end.
fn start(arguments: Vec<OsString>) -> io::Result<()> {
    let [netns, folder]: [PathBuf; 2] = arguments
        .into_iter()
        .map(PathBuf::from)
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| io::Error::other("it is started by the supervisor only"))?;
    let netns = OwnedFd::from(File::open(netns)?);
    process::close_inherited(&[netns.as_raw_fd()]);
    let single = SingleThreaded::check()?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    if let Some(pid) = process::fork(single)? {
        writeln!(io::stdout(), "{pid}")?;
        process::exit_now(0);
    }
    // For those who look for one that nobody has written down.
    rustix::thread::set_name(NAME)?;
    hold(&netns, &folder)
}

fn hold(netns: &OwnedFd, folder: &Path) -> io::Result<()> {
    rustix::process::setsid()?;
    let place = Place::mount(netns.as_fd(), folder)?;
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "neither pasta nor slirp4netns is installed"));
    for program in Program::installed() {
        outcome = match &program {
            Program::Pasta(path) => pasta(path, &place.0),
            Program::Slirp(path) => slirp(path, &place.0),
        };
        if outcome.is_ok() {
            break;
        }
    }
    drop(place);
    outcome?;
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    write!(io::stdout(), "{READY}")?;
    io::stdout().flush()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    process::replace_descriptor(rustix::stdio::stdout(), &null)?;
    // From here on: what it starts would inherit that.
    let mask = SigSet::from(Signal::SIGCHLD);
    mask.thread_block()?;
    wait(&SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Returns when the program has ended, or nobody is left who needs it.
fn wait(ends: &SignalFd) -> io::Result<()> {
    let stdin = rustix::stdio::stdin();
    let mut needed = true;
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                // It has no child any more.
                Err(_) => return Ok(()),
            }
        }
        if !needed && !has_containers(&fs::read_to_string("/proc/thread-self/net/dev")?) {
            return Ok(());
        }
        let mut polled = vec![PollFd::new(ends, PollFlags::IN)];
        if needed {
            // Nobody writes: what can come is the end.
            polled.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut polled, (!needed).then_some(&LOOK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        needed = polled.get(1).is_some_and(|stdin| stdin.revents().is_empty());
        while ends.read_signal()?.is_some() {}
    }
}

/// Whether a container is connected to a network of this namespace, by its list of devices.
fn has_containers(devices: &str) -> bool {
    devices.lines().any(|line| line.trim_start().starts_with(LINK))
}

/// The namespace by a path, which only this mount namespace sees: pasta opens it after it has given up most of its rights.
struct Place(PathBuf);

impl Place {
    fn mount(netns: BorrowedFd<'_>, folder: &Path) -> io::Result<Self> {
        let place = Self(folder.join("netns"));
        File::create(&place.0)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(netns, "", flags)?;
        move_mount(&mount, "", CWD, &place.0, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays goes with the mount namespace, and the file with the project's folder.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.0);
    }
}

fn pasta(program: &Path, netns: &Path) -> io::Result<()> {
    let mut command = Command::new(program);
    command.args(["--netns-only", "--config-net", "--no-map-gw", "--no-netns-quit", "--quiet"]);
    // Ports are the supervisor's matter.
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    command.arg("--netns").arg(netns).stdin(Stdio::null()).stdout(Stdio::null());
    // It leaves a process of its own behind when it is ready, which becomes a child of this one.
    let ended = command.output()?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(format!("pasta failed: {}", said.lines().last().unwrap_or_default())))
}

fn slirp(program: &Path, netns: &Path) -> io::Result<()> {
    let (mut ready, tell) = io::pipe()?;
    let tell = OwnedFd::from(tell);
    let mut command = Command::new(program);
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]);
    command.arg(format!("--ready-fd={}", tell.as_raw_fd())).arg(netns).arg("tap0");
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
    Ok(())
}
