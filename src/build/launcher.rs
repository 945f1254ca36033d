//! The process that makes the containers of `RUN`: forked while there is one thread, so that it may fork in its turn.
//!
//! Each container gets a parent of its own, forked from the launcher, which waits for it and tells its exit status. When
//! the build ends, however it does, its end of the socket closes and the container is killed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};

use super::network;
use crate::engine::cgroup::{self, Cgroup, Hierarchies};
use crate::init::{Launch, LaunchFailure};
use crate::keeper::Launcher;
use crate::sys::message::{self, Wait};
use crate::sys::process::{self, Child, SingleThreaded};
use crate::sys::userns::Ids;

/// First argument of the program as a launcher.
pub const LAUNCHER_ROLE: &str = "build-launcher-process";

/// The build's end.
#[derive(Debug)]
pub struct Launchers {
    socket: OwnedFd,
    group: String,
}

/// A container that runs.
#[derive(Debug)]
pub struct Running {
    socket: OwnedFd,
    /// Standard output and error, or the terminal's master.
    pub(super) output: Vec<OwnedFd>,
}

/// What a container's parent tells.
#[derive(Serialize, Deserialize)]
enum Told {
    /// Standard output and error come along, or the terminal's master.
    Started,
    Failed(LaunchFailure),
    /// Exit status, 128 + signal when killed by one.
    Ended(i32),
}

impl Launchers {
    /// Forks the launcher. `data` is the data directory, `groups` the control group that the build's is made in.
    ///
    /// # Errors
    /// This process has several threads, or there can be no more processes.
    pub fn fork(data: &Path, groups: &str) -> io::Result<Self> {
        let (build, networks) = (std::process::id(), super::builder::networks(data));
        let group = format!("{groups}/build-{build}");
        let single = SingleThreaded::check()?;
        let (ours, theirs) = message::pair()?;
        let keep = [theirs.as_raw_fd()];
        process::clone_child(single, 0, None, &keep, || {
            if Ids::of_this_process() != Ids::Host {
                // Nobody could be told but by the build's finding it gone.
                let _ = again(&theirs, &group, &networks, build);
                return 1;
            }
            live(single, &theirs, &group, &networks, build)
        })?;
        Ok(Self { socket: ours, group })
    }

    /// The control group for the groups of this build's containers. The launcher removes it when the build is gone.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The launcher is gone, or what the launch says (inside).
    pub fn start(&self, launch: &Launch, descriptors: &[OwnedFd]) -> io::Result<Result<Running, LaunchFailure>> {
        let (ours, theirs) = message::pair()?;
        let mut sent: Vec<BorrowedFd<'_>> = vec![theirs.as_fd()];
        sent.extend(descriptors.iter().map(AsFd::as_fd));
        let bytes = postcard::to_stdvec(launch).map_err(io::Error::other)?;
        message::send(&self.socket, &bytes, &sent, Wait::Yes)?;
        drop(theirs);
        match receive(&ours)? {
            Some((Told::Started, output)) => Ok(Ok(Running { socket: ours, output })),
            Some((Told::Failed(failure), _)) => Ok(Err(failure)),
            Some((Told::Ended(_), _)) | None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Running {
    /// Becomes readable when the container has ended.
    pub(super) fn ended(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits for the end: exit status, 128 + signal when killed by one.
    ///
    /// # Errors
    /// The container's parent was killed.
    pub fn wait(self) -> io::Result<i32> {
        match receive(&self.socket)? {
            Some((Told::Ended(code), _)) => Ok(code),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<(Told, Vec<OwnedFd>)>> {
    let Some((bytes, descriptors)) = message::receive(socket, Wait::Yes)? else { return Ok(None) };
    let told = postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((told, descriptors)))
}

/// Executes this program once more as the launcher: only a program that was executed inside a user namespace can hide from its
/// processes and still reach its own /proc. Returns when that fails.
fn again(socket: &OwnedFd, group: &str, networks: &Path, build: u32) -> io::Error {
    if let Err(error) = rustix::stdio::dup2_stdin(socket) {
        return error.into();
    }
    let mut program = std::process::Command::new("/proc/self/exe");
    program.arg(LAUNCHER_ROLE).arg(group).arg(networks).arg(build.to_string()).exec()
}

/// The launcher as a program of its own, with the build's socket as standard input.
pub fn launcher_main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2);
    let Some(group) = arguments.next().and_then(|group| group.into_string().ok()) else { return ExitCode::FAILURE };
    let networks = arguments.next().unwrap_or_default();
    let build = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or_default();
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let (Ok(single), Ok(socket)) = (SingleThreaded::check(), socket) else { return ExitCode::FAILURE };
    match live(single, &socket, &group, Path::new(&networks), build) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn live(single: SingleThreaded, socket: &OwnedFd, group: &str, networks: &Path, build: u32) -> i32 {
    let status = serve(single, socket);
    remove_group(group);
    network::remove_of(networks, build);
    status
}

/// The launcher's life: a child for each request, until the build is gone and all of its children have ended.
fn serve(single: SingleThreaded, socket: &OwnedFd) -> i32 {
    // Its name shows in process lists; Ctrl-C is for the build, which ends the containers.
    let _ = rustix::thread::set_name(c"rcompose-build");
    let _ = rustix::process::setsid();
    process::reset_signals();
    let status = loop {
        let (bytes, descriptors) = match message::receive(socket, Wait::Yes) {
            Ok(Some(message)) => message,
            Ok(None) => break 0,
            Err(_) => break 1,
        };
        // Parents of containers that have ended.
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
        let keep: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        // When there can be no child, its end of the socket closes, which is how the build hears of it.
        let _ = process::clone_child(single, 0, None, &keep, move || parent(single, &bytes, descriptors));
    };
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::empty()) {}
    status
}

/// The build's control group with what a killed build could not remove, and those above it as far as they are empty. Nobody is
/// there to be told of a failure.
fn remove_group(path: &str) {
    let Ok(hierarchies) = Hierarchies::detect() else { return };
    let _ = Cgroup::open(&hierarchies, path)
        .and_then(|group| group.kill().and_then(|()| group.remove()))
        .and_then(|()| cgroup::remove_empty(&hierarchies, path));
}

/// The life of a container's parent.
fn parent(single: SingleThreaded, request: &[u8], mut descriptors: Vec<OwnedFd>) -> i32 {
    if descriptors.is_empty() {
        return 1;
    }
    let socket = descriptors.remove(0);
    let tell = |told: &Told, streams: &[BorrowedFd<'_>]| {
        let bytes = postcard::to_stdvec(told).unwrap_or_default();
        message::send(&socket, &bytes, streams, Wait::Yes)
    };
    let launched = postcard::from_bytes::<Launch>(request)
        .map_err(|_| LaunchFailure { step: None, errno: libc::EBADMSG, detail: "the request".to_owned() })
        .and_then(|launch| launch_one(single, &launch, descriptors));
    let (child, output) = match launched {
        Ok(launched) => launched,
        Err(failure) => return i32::from(tell(&Told::Failed(failure), &[]).is_err()),
    };
    let streams: Vec<BorrowedFd<'_>> = output.iter().map(AsFd::as_fd).collect();
    let told = tell(&Told::Started, &streams);
    drop(output);
    let code = if told.is_ok() { wait(&child, &socket) } else { kill(&child) };
    i32::from(tell(&Told::Ended(code), &[]).is_err())
}

fn launch_one(
    single: SingleThreaded,
    launch: &Launch,
    slots: Vec<OwnedFd>,
) -> Result<(Child, Vec<OwnedFd>), LaunchFailure> {
    let failed = |error: &io::Error| LaunchFailure {
        step: None,
        errno: error.raw_os_error().unwrap_or(libc::EINVAL),
        detail: "the container's parent".to_owned(),
    };
    let launcher = Launcher::new(single).map_err(|error| failed(&error))?;
    let (child, mut starting) = launcher.begin(launch, slots)?;
    starting.attach(child.pid)?;
    starting.release();
    loop {
        if let Some(outcome) = starting.outcome() {
            return outcome.map(|started| (child, started.output));
        }
        let mut polled = [PollFd::new(starting.status(), PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(&error.into())),
        }
    }
}

/// Waits for the container's end, or for that of the build.
fn wait(child: &Child, socket: &OwnedFd) -> i32 {
    loop {
        let mut polled = [PollFd::new(&child.pidfd, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return kill(child),
        }
        let [ended, gone] = polled.map(|one| !one.revents().is_empty());
        if ended {
            return reap(child);
        }
        if gone {
            return kill(child);
        }
    }
}

fn kill(child: &Child) -> i32 {
    // It can have ended meanwhile.
    let _ = process::send_signal(&child.pidfd, libc::SIGKILL);
    reap(child)
}

fn reap(child: &Child) -> i32 {
    let pid = Pid::from_raw(child.pid);
    match rustix::process::waitpid(pid, WaitOptions::empty()) {
        Ok(Some((_, status))) => process::exit_code(status.as_raw()),
        _ => 255,
    }
}
