//! Starting a keeper, from a client or from a supervisor whose keeper died.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use super::channel::{decode, encode};
use super::{KeeperHandle, ROLE, SUPERVISOR};
use crate::sys::message::{self, Wait};
use crate::sys::mount::{MountAttributes, set_attributes};

/// A program the keeper starts: the supervisor. The environment is the keeper's, which is the client's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    pub path: PathBuf,
    /// With `argv[0]`, which may be any text.
    pub argv: Vec<OsString>,
}

impl Program {
    /// The supervisor of a project: this very program (`/proc/self/exe` of the keeper, so that it is there even when the
    /// file has been replaced), in another role.
    pub fn supervisor(project: &str, data: &Path, run: &Path) -> Self {
        let title = format!("rcompose: supervisor {project}");
        let argv = vec![title.into(), SUPERVISOR.into(), project.into(), data.into(), run.into()];
        Self { path: PathBuf::from("/proc/self/exe"), argv }
    }
}

/// What a new keeper is told.
#[derive(Debug)]
pub struct SpawnOptions<'a> {
    /// The program of ours to run as the keeper: `/proc/self/exe` unless the caller is another program.
    pub binary: PathBuf,
    /// Shown in process lists.
    pub project: String,
    pub supervisor: Program,
    /// Descriptors held from the start, by name: a listening control socket, for example.
    pub held: Vec<(String, BorrowedFd<'a>)>,
    /// Standard output and error of keeper and supervisor; /dev/null without.
    pub log: Option<File>,
}

/// [`SpawnOptions`] on the wire. Descriptors: those held, then the supervisor's socket and pidfd when it is there already.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) project: String,
    pub(super) supervisor: Program,
    pub(super) attached: bool,
    pub(super) held: Vec<String>,
}

/// The keeper's answer: error number and text when the supervisor could not be started.
pub(super) type Started = Result<(), (Option<i32>, String)>;

/// Starts a keeper, which starts the supervisor; returns when that has been executed.
///
/// # Errors
/// When either cannot be started.
pub fn spawn(options: SpawnOptions<'_>) -> io::Result<()> {
    start(options, None)
}

/// Starts a keeper for this process, which is the supervisor already. Inside a runtime. The keeper knows nothing yet: send
/// it [`super::Request::Hold`] and [`super::Request::Adopt`] for all that is there.
///
/// # Errors
/// When it cannot be started.
pub fn spawn_replacement(options: SpawnOptions<'_>) -> io::Result<KeeperHandle> {
    let (ours, theirs) = message::pair()?;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    start(options, Some([theirs, own]))?;
    KeeperHandle::from_fd(ours)
}

fn start(options: SpawnOptions<'_>, attached: Option<[OwnedFd; 2]>) -> io::Result<()> {
    let SpawnOptions { binary, project, supervisor, held, log } = options;
    let (names, mut descriptors): (Vec<String>, Vec<BorrowedFd<'_>>) = held.into_iter().unzip();
    let title = format!("rcompose: keeper {project}");
    let setup = encode(&Setup { project, supervisor, attached: attached.is_some(), held: names })?;
    descriptors.extend(attached.iter().flatten().map(AsFd::as_fd));

    let (ours, theirs) = message::pair()?;
    message::send(&ours, &setup, &descriptors, Wait::Yes)?;
    let output = || log.as_ref().map_or_else(|| Ok(Stdio::null()), |file| file.try_clone().map(Stdio::from));
    let (program, _keep_open) = sealed(binary);
    let mut command = Command::new(program);
    command.arg0(title).arg(ROLE).current_dir("/");
    command.stdin(Stdio::from(theirs)).stdout(output()?).stderr(output()?);
    // The process that is started here ends at once, leaving the keeper behind (see `serve::main`).
    command.status()?;
    // It holds the other end of the pair, which ours must not keep open.
    drop(command);
    let Some((answer, _)) = message::receive(&ours, Wait::Yes)? else {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the keeper ended before it was ready"));
    };
    match decode::<Started>(&answer)? {
        Ok(()) => Ok(()),
        Err((Some(errno), _)) => Err(io::Error::from_raw_os_error(errno)),
        Err((None, text)) => Err(io::Error::other(text)),
    }
}

/// The program through a read-only mount where that can be made, so that nobody who gets hold of /proc/PID/exe of a
/// process of ours can open it for writing (CVE-2019-5736). The descriptor must live until the program is executed.
fn sealed(binary: PathBuf) -> (PathBuf, Option<OwnedFd>) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let read_only = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    let clone = open_tree(rustix::fs::CWD, &binary, flags).map_err(io::Error::from);
    match clone.and_then(|clone| set_attributes(&clone, &read_only, false).map(|()| clone)) {
        Ok(clone) => (format!("/proc/self/fd/{}", clone.as_raw_fd()).into(), Some(clone)),
        // Not root: then the binary is not the container's to write to either.
        Err(_) => (binary, None),
    }
}
