//! From a launch request to a running process: clone, attach to cgroups, release, report.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::init::Launch;
use crate::init::LaunchFailure;
use crate::init::Pipes;
use crate::init::{self, Inherited, Streams};
use crate::init::{ABOUT_TO_EXECUTE, FAILED, MOUNTED, MOVED};
use crate::init::{Stdio, Step};
use crate::sys::message::{self, Wait};
use crate::sys::process::{Child, SingleThreaded};

/// What a container may print while no supervisor reads it. Memory is used as it fills.
const PIPE_SIZE: usize = 1 << 20;

/// What every launch needs of the keeper.
#[derive(Debug)]
pub(crate) struct Launcher {
    single: SingleThreaded,
    null: OwnedFd,
    exe: OwnedFd,
}

/// A process that has been cloned and has not executed its program yet.
#[derive(Debug)]
pub(crate) struct Starting {
    go: OwnedFd,
    status: OwnedFd,
    report: Vec<u8>,
    ends: Ends,
    slots: Vec<OwnedFd>,
    v1: Vec<usize>,
    /// How the container's process ended, when that was seen before its start was reported.
    pub(crate) early: Option<i32>,
}

/// Our ends of the child's standard streams.
#[derive(Debug)]
enum Ends {
    Pipes { stdout: OwnedFd, stderr: OwnedFd, stdin: Option<OwnedFd> },
    Terminal { socket: OwnedFd },
}

/// The descriptors of a process that runs, beside its pidfd.
#[derive(Debug)]
pub(crate) struct Started {
    /// Standard output and error, or the terminal's master.
    pub(crate) output: Vec<OwnedFd>,
    pub(crate) input: Option<OwnedFd>,
}

fn failed(step: Option<usize>, error: &io::Error, detail: &str) -> LaunchFailure {
    LaunchFailure { step, errno: error.raw_os_error().unwrap_or(libc::EINVAL), detail: detail.to_owned() }
}

impl Launcher {
    pub(crate) fn new(single: SingleThreaded) -> io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?.into();
        Ok(Self { single, null, exe: File::open("/proc/self/exe")?.into() })
    }

    /// Clones the child, which then waits for [`Starting::release`].
    pub(crate) fn begin(&self, launch: &Launch, slots: Vec<OwnedFd>) -> Result<(Child, Box<Starting>), LaunchFailure> {
        if launch.steps.iter().any(|step| matches!(step, Step::OtherRuntime { .. })) {
            // What it makes becomes our child when it has ended.
            rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
                .map_err(|error| failed(None, &error.into(), "becoming the parent of what another runtime makes"))?;
        }
        let binds = init::prepare_binds(launch, &slots)?;
        let before = |error: &io::Error| failed(None, error, "making the process");
        let pipe = |flags| pipe_with(PipeFlags::CLOEXEC | flags).map_err(|error| before(&error.into()));
        let (go_read, go) = pipe(PipeFlags::empty())?;
        let (status, status_write) = pipe(PipeFlags::empty())?;
        rustix::fs::fcntl_setfl(&status, OFlags::NONBLOCK).map_err(|error| before(&error.into()))?;

        let (theirs, ends) = self.streams(launch).map_err(|error| before(&error))?;
        let inherited = Inherited {
            slots: &slots,
            binds: &binds,
            preserved: 0,
            go: go_read.as_fd(),
            eager: false,
            status: status_write.as_fd(),
            streams: theirs.streams(launch.stdio, &self.null),
            exe: self.exe.as_fd(),
            single: self.single,
        };
        let child = init::spawn(launch, &inherited)?;
        // A process that was born anew is in its groups already.
        let reborn = launch.steps.iter().any(|step| matches!(step, Step::Rebirth));
        let v1 = if reborn { Vec::new() } else { launch.cgroup.v1.clone() };
        Ok((child, Box::new(Starting { go, status, report: Vec::new(), ends, slots, v1, early: None })))
    }

    fn streams(&self, launch: &Launch) -> io::Result<(Theirs, Ends)> {
        let Stdio::Pipes { stdin } = launch.stdio else {
            let (socket, child) = message::pair()?;
            return Ok((Theirs::Terminal(child), Ends::Terminal { socket }));
        };
        let pipes = Pipes::new(launch.pipe_label.as_deref())?;
        let ((stdout, out), (stderr, err)) = (pipes.pipe()?, pipes.pipe()?);
        for end in [&stdout, &stderr] {
            // Refused to a user who has too much in pipes: then they stay small, which is no failure.
            let _ = fcntl_setpipe_size(end, PIPE_SIZE);
        }
        let (input, stdin) = if stdin {
            let (read, write) = pipes.pipe()?;
            (read, Some(write))
        } else {
            (self.null.try_clone()?, None)
        };
        Ok((Theirs::Pipes([input, out, err]), Ends::Pipes { stdout, stderr, stdin }))
    }
}

/// The child's ends.
enum Theirs {
    Pipes([OwnedFd; 3]),
    Terminal(OwnedFd),
}

impl Theirs {
    fn streams<'a>(&'a self, stdio: Stdio, null: &'a OwnedFd) -> Streams<'a> {
        match self {
            Self::Pipes([stdin, stdout, stderr]) => {
                Streams::Pipes { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
            }
            Self::Terminal(socket) => {
                let (rows, columns) = match stdio {
                    Stdio::Terminal { rows, columns } => (rows, columns),
                    Stdio::Pipes { .. } => (0, 0),
                };
                Streams::Terminal { null: null.as_fd(), socket: socket.as_fd(), rows, columns, unchanged: false }
            }
        }
    }
}

impl Starting {
    /// Puts the blocked child into its v1 cgroups. Called for all children of a burst one after the other: the first
    /// attach after a pause waits for the kernel, those that follow at once do not.
    pub(crate) fn attach(&self, pid: i32) -> Result<(), LaunchFailure> {
        let text = pid.to_string();
        for slot in self.v1.iter().filter_map(|&slot| self.slots.get(slot)) {
            rustix::io::write(slot, text.as_bytes())
                .map_err(|error| failed(None, &error.into(), "entering the cgroup"))?;
        }
        Ok(())
    }

    /// Whether it waits at [`Step::Rendezvous`]; told once.
    pub(crate) fn take_mounted(&mut self) -> bool {
        let mounted = self.report.first() == Some(&MOUNTED);
        if mounted {
            self.report.remove(0);
        }
        mounted
    }

    /// Lets the child run its steps, or go on with them.
    pub(crate) fn release(&mut self) {
        // A child that was killed meanwhile shows in its report.
        let _ = rustix::io::write(&self.go, b"g");
        self.slots.clear();
    }

    pub(crate) fn status(&self) -> &OwnedFd {
        &self.status
    }

    /// Reads the report on; the outcome, once it is complete.
    pub(crate) fn outcome(&mut self) -> Option<Result<Started, LaunchFailure>> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.status, &mut buffer) {
                Ok(0) => break,
                Ok(length) => self.report.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return None,
                Err(error) => return Some(Err(failed(None, &error.into(), "reading the report"))),
            }
        }
        let report = self.report.get(self.moved().map_or(0, |_| 1 + size_of::<i32>())..).unwrap_or_default();
        let executed = report.first() == Some(&ABOUT_TO_EXECUTE);
        let rest = report.get(usize::from(executed)..).unwrap_or_default();
        Some(match rest.split_first() {
            Some((&FAILED, failure)) => Err(postcard::from_bytes(failure).unwrap_or_else(|_| unreported())),
            None if executed => self.started(),
            _ => Err(unreported()),
        })
    }

    /// The container's process, when that is not the one that was cloned.
    pub(crate) fn moved(&self) -> Option<i32> {
        let (_, rest) = self.report.split_first().filter(|(first, _)| **first == MOVED)?;
        rest.first_chunk().map(|pid| i32::from_ne_bytes(*pid))
    }

    fn started(&mut self) -> Result<Started, LaunchFailure> {
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| failed(None, &error, "keeping descriptors"));
        match &self.ends {
            Ends::Pipes { stdout, stderr, stdin } => {
                Ok(Started { output: vec![copy(stdout)?, copy(stderr)?], input: stdin.as_ref().map(copy).transpose()? })
            }
            Ends::Terminal { socket } => match message::receive(socket, Wait::No) {
                Ok(Some((_, master))) if master.len() == 1 => Ok(Started { output: master, input: None }),
                _ => Err(failed(None, &io::Error::from_raw_os_error(libc::ENOTTY), "the terminal did not arrive")),
            },
        }
    }
}

fn unreported() -> LaunchFailure {
    failed(None, &io::Error::from_raw_os_error(libc::ESRCH), "the process ended before it executed its program")
}
