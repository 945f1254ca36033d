//! What can go wrong, in words that callers know: containerd and podman look for some of them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::cgroup::CgroupError;
use crate::engine::lower::LowerError;
use crate::init::{HookError, LaunchFailure, Step};

#[derive(Debug, thiserror::Error)]
pub(super) enum OciError {
    #[error("{0}; see `rcompose oci --help`")]
    Usage(String),
    #[error("`{0}` is not supported")]
    Unsupported(String),
    #[error("`{0}` is not a container id: it takes letters, digits and `_+-.`, at most 1024 of them")]
    BadId(String),
    #[error("container with id `{0}` exists already")]
    Exists(String),
    #[error("container `{0}` does not exist")]
    NotFound(String),
    #[error("container not running: `{id}` is {status}")]
    NotRunning { id: String, status: &'static str },
    #[error("cannot exec in a paused container: `{0}` is paused; resume it, or use --ignore-paused")]
    Paused(String),
    #[error("container `{id}` is {status}, not {wanted}")]
    WrongStatus { id: String, status: &'static str, wanted: &'static str },
    #[error("`{}` is not a valid {what}", path.display())]
    Json { what: &'static str, path: PathBuf, source: serde_json::Error },
    #[error("config.json: {0}")]
    Config(String),
    #[error("cannot {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[error("error running {kind} hook #{index}")]
    Hook { kind: &'static str, index: usize, source: HookError },
    #[error("{0}")]
    Launch(String),
    #[error(
        "the container's process {0} was killed and does not end: it waits in the kernel, or in a frozen control group of \
         somebody else; see /proc/{0}/stack and /proc/{0}/cgroup"
    )]
    Stuck(i32),
    #[error("`{0}` is not a signal")]
    Signal(String),
}

impl OciError {
    pub(super) fn io<E: Into<io::Error>>(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// What the child reported, with the words that shells and callers know for a missing program.
    pub(super) fn launch(failure: &LaunchFailure, steps: &[Step]) -> Self {
        let step = failure.step.and_then(|step| steps.get(step));
        let system = io::Error::from_raw_os_error(failure.errno);
        let detail = &failure.detail;
        Self::Launch(match step {
            // The program is there: it was looked for before.
            Some(Step::Exec { .. }) if failure.errno == libc::ENOENT && detail.contains('/') => {
                format!("exec {detail}: no such file or directory (its interpreter, if the file is there)")
            }
            Some(Step::Exec { .. } | Step::FindProgram { .. }) => match failure.errno {
                libc::ENOENT if !detail.contains('/') => {
                    format!("exec: \"{detail}\": executable file not found in $PATH")
                }
                libc::ENOENT => format!("exec: \"{detail}\": no such file or directory"),
                libc::EACCES => format!("exec: \"{detail}\": permission denied"),
                libc::ENOEXEC => format!("exec: \"{detail}\": exec format error"),
                _ => format!("exec: \"{detail}\": {system}"),
            },
            Some(Step::Hooks { .. }) => detail.clone(),
            Some(Step::Scheduler(_)) if failure.errno == libc::EPERM => format!(
                "cannot set the scheduler: {system}; a deadline needs all CPUs of the machine, so such a process scheduler \
                 can't be used together with AllowedCPUs (`linux.resources.cpu.cpus`)"
            ),
            Some(Step::WorkingDirectory { .. }) => format!("cannot use the working directory `{detail}`: {system}"),
            Some(Step::Mount { target, fstype, .. }) => {
                format!("cannot mount {fstype} on `{target}`: {detail}: {system}")
            }
            Some(Step::Bind { target, .. }) => format!("cannot mount on `{target}`: {detail}: {system}"),
            _ => format!("cannot set up the container: {detail}: {system}"),
        })
    }

    pub(super) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}
