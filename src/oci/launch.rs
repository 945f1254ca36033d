//! Forking the container's process and following its report.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::engine::lower::Lowered;
use crate::init::{self, ABOUT_TO_EXECUTE, FAILED, MOUNTED, WAITING};
use crate::init::{Inherited, Launch, LaunchFailure, NamespaceKind, Stdio, Step, Streams};
use crate::oci::error::OciError;
use crate::oci::namespaces;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::scheduling::{self, Scheduling};

/// A process that was made and runs its steps.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// What it does: for messages.
    steps: Vec<Step>,
    go: OwnedFd,
    status: File,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The mounts are made; it goes on after [`Starting::go_on`].
    Mounted,
    /// It waits to be started.
    Waiting,
    Executed,
}

/// What the process gets besides its steps.
#[derive(Debug)]
pub(super) struct Inheritance<'a> {
    /// Where the master of its terminal is sent, and whether what is written to it comes out unchanged.
    pub(super) console: Option<(&'a OwnedFd, bool)>,
    pub(super) preserve_fds: u32,
}

/// Makes the process. `spec` is given for a container, not for a further process in one.
pub(super) fn begin(lowered: Lowered, spec: Option<&Spec>, with: &Inheritance<'_>) -> Result<Starting, OciError> {
    let Lowered { mut launch, descriptors: slots } = lowered;
    let oom_score = take_oom_score(&mut launch);
    let scheduler = take_scheduler(&mut launch);
    let single = SingleThreaded::check().map_err(OciError::io("look at", "/proc/self/task"))?;
    let binds = init::prepare_binds(&launch, &slots).map_err(|failure| OciError::launch(&failure, &launch.steps))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(OciError::io("make", "a pipe"));
    let (go_read, go) = pipe()?;
    let (status, status_write) = pipe()?;
    let null = open("/dev/null", OFlags::RDWR)?;
    let exe = open("/proc/self/exe", OFlags::PATH)?;
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let streams = match (launch.stdio, with.console) {
        (Stdio::Terminal { rows, columns }, Some((socket, unchanged))) => {
            Streams::Terminal { null: null.as_fd(), socket: socket.as_fd(), rows, columns, unchanged }
        }
        (Stdio::Terminal { .. }, None) => {
            return Err(OciError::Usage("`process.terminal` needs --console-socket".to_owned()));
        }
        (Stdio::Pipes { .. }, _) => Streams::Pipes { stdin, stdout, stderr },
    };
    let inherited = Inherited {
        slots: &slots,
        binds: &binds,
        preserved: with.preserve_fds,
        go: go_read.as_fd(),
        eager: launch.cgroup.v1.is_empty() && !joins_users(&launch),
        status: status_write.as_fd(),
        streams,
        exe: exe.as_fd(),
        single,
    };
    if let Some(spec) = spec {
        namespaces::prepare_time(&launch, spec)?;
    }
    let child = init::spawn(&launch, &inherited).map_err(|failure| OciError::launch(&failure, &launch.steps))?;
    let starting =
        Starting { pid: child.pid, pidfd: child.pidfd, steps: launch.steps.clone(), go, status: status.into() };
    let scheduled = scheduler.map_or(Ok(()), |wanted| set_scheduler(starting.pid, &wanted));
    if let Err(error) = scheduled.and_then(|()| settle(&launch, &slots, spec, (starting.pid, oom_score))) {
        starting.abandon();
        return Err(error);
    }
    Ok(starting)
}

/// A process that is made by another one, for `exec`, would not keep this scheduler: it is given to it from here, where it
/// may be running already.
fn take_scheduler(launch: &mut Launch) -> Option<Scheduling> {
    let reborn = launch.steps.iter().any(|step| matches!(step, Step::Rebirth));
    let mut taken = None;
    launch.steps.retain(|step| match step {
        Step::Scheduler(wanted) if reborn && wanted.ends_with_fork() => {
            taken = Some(*wanted);
            false
        }
        _ => true,
    });
    taken
}

fn set_scheduler(pid: i32, wanted: &Scheduling) -> Result<(), OciError> {
    match scheduling::set_scheduler(pid, wanted) {
        // It has ended, which is seen next.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        set => set.map_err(OciError::io("set the scheduler of", format!("process {pid}"))),
    }
}

fn joins_users(launch: &Launch) -> bool {
    launch.namespaces.iter().any(|namespace| namespace.kind() == NamespaceKind::User)
}

/// In a user namespace a process that nobody may look into cannot write its own files in /proc: that is done for it.
fn take_oom_score(launch: &mut Launch) -> Option<i32> {
    if !joins_users(launch) {
        return None;
    }
    let mut score = None;
    launch.steps.retain(|step| match step {
        Step::OomScoreAdj(wanted) => {
            score = Some(*wanted);
            false
        }
        _ => true,
    });
    score
}

/// What has to be done to the child before it goes: its groups of cgroup v1, its user mappings.
fn settle(
    launch: &Launch,
    slots: &[OwnedFd],
    spec: Option<&Spec>,
    (pid, oom_score): (i32, Option<i32>),
) -> Result<(), OciError> {
    if launch.steps.iter().any(|step| matches!(step, Step::Rebirth)) {
        // It has done all that by itself, and may have ended.
        return Ok(());
    }
    if let Some(score) = oom_score {
        let path = format!("/proc/{pid}/oom_score_adj");
        std::fs::write(&path, score.to_string()).map_err(OciError::io("write", path))?;
    }
    for slot in launch.cgroup.v1.iter().filter_map(|&slot| slots.get(slot)) {
        rustix::io::write(slot, pid.to_string().as_bytes()).map_err(OciError::io("enter", "the control group"))?;
    }
    spec.map_or(Ok(()), |spec| namespaces::map_users(launch, spec, pid))
}

/// Of the descriptors that the caller promised some may be missing (podman's `--preserve-fd` leaves gaps): what is returned
/// lies there, so that nothing of ours does, and is closed when the program is executed.
pub(super) fn hold_places(count: u32) -> Result<Vec<OwnedFd>, OciError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut places = vec![open("/dev/null", OFlags::PATH)?];
    for number in (3..).take(count as usize) {
        let place = places.first().map(|null| rustix::io::fcntl_dupfd_cloexec(null, number)).transpose();
        let place = place.map_err(OciError::io("look at", format!("/proc/self/fd/{number}")))?;
        places.extend(place.filter(|place| place.as_raw_fd() == number));
    }
    Ok(places)
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, OciError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(OciError::io("open", path))
}

impl Starting {
    /// Lets it run its steps, or those after [`Progress::Mounted`].
    pub(super) fn go_on(&self) -> Result<(), OciError> {
        // A child that was killed meanwhile shows in its report.
        match rustix::io::write(&self.go, b"g") {
            Err(error) if error != rustix::io::Errno::PIPE => Err(OciError::io("write to", "the child")(error)),
            _ => Ok(()),
        }
    }

    /// Waits for the next thing that it tells.
    pub(super) fn progress(&mut self) -> Result<Progress, OciError> {
        let ended = || OciError::Launch("the process ended before it executed its program".to_owned());
        let failed = OciError::io("read", "the child's report");
        let mut byte = [0];
        let mut executing = false;
        loop {
            match self.status.read(&mut byte) {
                Ok(0) if executing => return Ok(Progress::Executed),
                Ok(0) => return Err(ended()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            }
            match byte {
                [MOUNTED] => return Ok(Progress::Mounted),
                [WAITING] => return Ok(Progress::Waiting),
                [ABOUT_TO_EXECUTE] => executing = true,
                [FAILED] => break,
                _ => return Err(ended()),
            }
        }
        let mut report = Vec::new();
        self.status.read_to_end(&mut report).map_err(failed)?;
        let failure: LaunchFailure = postcard::from_bytes(&report).map_err(|_| ended())?;
        Err(OciError::launch(&failure, &self.steps))
    }

    /// Ends it, whatever it does, and waits until it is gone.
    pub(super) fn abandon(self) {
        // It can have ended by itself.
        let _ = process::send_signal(&self.pidfd, libc::SIGKILL);
        let _ = crate::oci::wait::for_child(self.pid);
    }
}
