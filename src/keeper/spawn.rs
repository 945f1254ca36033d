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
use super::{ROLE, SUPERVISOR, scope};
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
    /// The user namespace of what this project has already, for a keeper that needs one.
    pub like: Option<BorrowedFd<'a>>,
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

/// Starts a keeper for this process, which is the supervisor already, and returns the connection to it
/// ([`super::KeeperHandle::from_fd`]). The keeper knows nothing yet: send it [`super::Request::Hold`] and
/// [`super::Request::Adopt`] for all that is there.
///
/// # Errors
/// When it cannot be started.
pub fn spawn_replacement(options: SpawnOptions<'_>) -> io::Result<OwnedFd> {
    let (ours, theirs) = message::pair()?;
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())?;
    start(options, Some([theirs, own]))?;
    Ok(ours)
}

fn start(options: SpawnOptions<'_>, attached: Option<[OwnedFd; 2]>) -> io::Result<()> {
    let SpawnOptions { binary, project, supervisor, held, log, like } = options;
    let (names, mut descriptors): (Vec<String>, Vec<BorrowedFd<'_>>) = held.into_iter().unzip();
    let setup = encode(&Setup { project: project.clone(), supervisor, attached: attached.is_some(), held: names })?;
    descriptors.extend(attached.iter().flatten().map(AsFd::as_fd));
    let (program, _keep_open) = sealed(binary);
    let words = [ROLE.into(), project.clone()].into_iter().chain(like.map(path_of));
    let words: Vec<String> = words.collect();

    // Where systemd refuses, there are no limits, but all the rest.
    let scope = scope::command(&format!("project {project}"));
    let ways = scope.as_deref().map(Some).into_iter().chain([None]);
    let mut outcome = Err(io::Error::new(io::ErrorKind::BrokenPipe, "the keeper ended before it was ready"));
    for way in ways {
        let mut command = match way.and_then(<[OsString]>::split_first) {
            Some((run, options)) => {
                let mut command = Command::new(run);
                // `/proc/self` will be another's.
                command.args(options).arg(of_this_process(&program));
                command
            }
            None => {
                let mut command = Command::new(&program);
                command.arg0(title(&project));
                command
            }
        };
        let output = || log.as_ref().map_or_else(|| Ok(Stdio::null()), |file| file.try_clone().map(Stdio::from));
        let (ours, theirs) = message::pair()?;
        message::send(&ours, &setup, &descriptors, Wait::Yes)?;
        command.args(&words).current_dir("/").stdin(Stdio::from(theirs)).stdout(output()?).stderr(output()?);
        // The process that is started here ends at once, leaving the keeper behind (see `serve::main`).
        command.status()?;
        // It holds the other end of the pair, which ours must not keep open.
        drop(command);
        if let Some((answer, _)) = message::receive(&ours, Wait::Yes)? {
            outcome = match decode::<Started>(&answer)? {
                Ok(()) => Ok(()),
                Err((Some(errno), _)) => Err(io::Error::from_raw_os_error(errno)),
                Err((None, text)) => Err(io::Error::other(text)),
            };
            break;
        }
    }
    outcome
}

/// What process lists show.
pub(super) fn title(project: &str) -> String {
    format!("rcompose: keeper {project}")
}

/// Where others find an open descriptor of this process.
fn path_of(descriptor: BorrowedFd<'_>) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), descriptor.as_raw_fd())
}

fn of_this_process(path: &Path) -> PathBuf {
    match path.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc").join(std::process::id().to_string()).join(rest),
        Err(_) => path.to_owned(),
    }
}

/// The program through a read-only mount where that can be made, so that nobody who gets hold of /proc/PID/exe of a
/// process of ours can open it for writing (CVE-2019-5736). The descriptor must live until the program is executed.
pub(super) fn sealed(binary: PathBuf) -> (PathBuf, Option<OwnedFd>) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let read_only = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    let clone = open_tree(rustix::fs::CWD, &binary, flags).map_err(io::Error::from);
    match clone.and_then(|clone| set_attributes(&clone, &read_only, false).map(|()| clone)) {
        Ok(clone) => (format!("/proc/self/fd/{}", clone.as_raw_fd()).into(), Some(clone)),
        // Not root, or the file is gone: `settle` does it again where that can be had.
        Err(_) => (binary, None),
    }
}
