//! Processes inside running containers: `exec`, and health probes.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use crate::base::ids::ContainerId;
use crate::control::Exec;
use crate::engine;
use crate::engine::cgroup::Cgroup;
use crate::engine::lower::{Lowered, Target};
use crate::engine::spec::ExecOptions;
use crate::engine::users::UserDatabase;
use crate::keeper::ExitRecord;
use crate::runtime::Probe;
use crate::runtime::RuntimeError;
use crate::spec::ContainerState;
use crate::spec::HealthSpec;
use crate::spec::HookSpec;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::Host;
use crate::supervisor::link::{LaunchError, Launched, Streams, Watched};
use crate::supervisor::start::explain;

/// How much of a probe's output is kept, in bytes.
const PROBE_OUTPUT: usize = 4096;
/// How long the output of an ended process is waited for when something else holds its pipe.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

/// A process inside a container, and its end when that comes.
pub(super) struct Inside {
    pub(super) id: String,
    pub(super) launched: Launched,
    pub(super) end: oneshot::Receiver<ExitRecord>,
}

/// Why a process could not be started inside a container; the status is what `exec` then ends with.
pub(super) struct Refused {
    pub(super) error: RuntimeError,
    pub(super) status: i32,
}

impl From<RuntimeError> for Refused {
    fn from(error: RuntimeError) -> Self {
        Self { error, status: 1 }
    }
}

impl Host {
    /// Starts a program inside a running container.
    pub(super) async fn exec(&self, exec: &Exec) -> Result<Inside, Refused> {
        let id = self.running_by_name(&exec.container)?;
        let environment = exec.env.iter().filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), Some(value.to_owned())))
        });
        let options = ExecOptions {
            command: exec.command.clone(),
            environment: environment.collect(),
            user: exec.user.clone(),
            group_add: self.load(&id)?.config.service.container.group_add,
            working_dir: exec.working_dir.clone(),
            tty: exec.terminal.is_some(),
            privileged: exec.privileged,
        };
        self.inside(&id, &options, exec.stdin, exec.terminal).await
    }

    /// Runs a health probe; one that takes too long is killed.
    pub(super) async fn run_probe(&self, id: &ContainerId, health: &HealthSpec) -> Result<Probe, RuntimeError> {
        let begin = Instant::now();
        let options = ExecOptions {
            command: health.command.clone(),
            environment: Vec::new(),
            user: None,
            group_add: Vec::new(),
            working_dir: None,
            tty: false,
            privileged: false,
        };
        let inside = match self.inside(id, &options, false, None).await {
            Ok(inside) => inside,
            // A probe whose program is not there has failed; that is no failure of ours.
            Err(refused) if refused.status != 1 => {
                let took = begin.elapsed();
                return Ok(Probe { code: Some(refused.status), output: refused.error.message, took });
            }
            Err(refused) => return Err(refused.error),
        };
        let Inside { id: process, launched, end } = inside;
        let printed = Printed::collect(launched.streams);
        let code = match tokio::time::timeout(health.timeout, end).await {
            Ok(Ok(record)) => record.code,
            Ok(Err(_)) => None,
            Err(_) => {
                let killed = self.link.signal(&process, libc::SIGKILL);
                killed.map_err(|error| because("cannot end the probe", &error))?;
                None
            }
        };
        let output = printed.end().await;
        self.release_process(&process);
        Ok(Probe { code, output, took: begin.elapsed() })
    }

    /// Runs a hook to its end.
    pub(super) async fn run_inside_hook(&self, id: &ContainerId, hook: HookSpec) -> Result<Probe, RuntimeError> {
        let begin = Instant::now();
        let options = ExecOptions {
            command: hook.command,
            environment: hook.environment.into_iter().collect(),
            user: hook.user,
            group_add: self.load(id)?.config.service.container.group_add,
            working_dir: hook.working_dir,
            tty: false,
            privileged: hook.privileged,
        };
        let inside = self.inside(id, &options, false, None).await.map_err(|refused| refused.error)?;
        let printed = Printed::collect(inside.launched.streams);
        let code = inside.end.await.ok().and_then(|record| record.code);
        let output = printed.end().await;
        self.release_process(&inside.id);
        Ok(Probe { code, output, took: begin.elapsed() })
    }

    /// Freezes a container, or lets it go on.
    pub(super) async fn pause(&self, id: &ContainerId, pause: bool) -> Result<ContainerState, RuntimeError> {
        let mut state = self.load(id)?.state;
        if self.live.borrow().contains_key(id) && state.paused != pause {
            let group = Cgroup::open(&self.hierarchies, &self.cgroup_path(id));
            let set = group.and_then(|group| if pause { group.freeze() } else { group.thaw() });
            set.map_err(|error| because("cannot freeze the container", &error))?;
            state.paused = pause;
            self.write_state(id, &state)?;
            self.note(if pause { "pause" } else { "unpause" }, &self.load(id)?.config, &[]);
        }
        self.observe_one(id)
    }

    async fn inside(
        &self,
        id: &ContainerId,
        options: &ExecOptions,
        stdin: bool,
        terminal: Option<(u16, u16)>,
    ) -> Result<Inside, Refused> {
        let record = self.load(id)?;
        if record.state.paused {
            let message = format!("container `{}` is paused, unpause the container before exec", record.config.name);
            return Err(failure(message).into());
        }
        let Lowered { launch, descriptors } = self.lower_inside(id, options, stdin, terminal)?;
        let (process, exit_file) = self.new_process("exec-")?;
        let watched = Watched { exit_file, oom: None };
        let end = self.link.end_of(&process);
        let steps = launch.steps.clone();
        match self.link.launch(&process, launch, &descriptors, watched).await {
            Ok(launched) => Ok(Inside { id: process, launched, end }),
            Err(error) => {
                let status = match &error {
                    LaunchError::Refused(refused) if refused.errno == libc::ENOENT => 127,
                    // A working directory that is none, as in Docker.
                    LaunchError::Refused(refused) if refused.errno == libc::ENOTDIR => 127,
                    LaunchError::Refused(_) => 126,
                    _ => 1,
                };
                let program = options.command.first().map_or("", String::as_str);
                Err(Refused { error: explain(error, &steps, program), status })
            }
        }
    }

    /// The id of a process that is no container, and the file for its end.
    pub(super) fn new_process(&self, prefix: &str) -> Result<(String, PathBuf), RuntimeError> {
        let number = self.next_process.get();
        self.next_process.set(number + 1);
        let process = format!("{prefix}{}-{number}", std::process::id());
        let folder = self.dir.run().join("exec");
        std::fs::create_dir_all(&folder)
            .map_err(|error| because(format!("cannot create `{}`", folder.display()), &error))?;
        let exit_file = folder.join(&process);
        Ok((process, exit_file))
    }

    fn lower_inside(
        &self,
        id: &ContainerId,
        options: &ExecOptions,
        stdin: bool,
        terminal: Option<(u16, u16)>,
    ) -> Result<Lowered, RuntimeError> {
        let what = "the program cannot be set up";
        let live = self.live.borrow();
        let live = live.get(id).ok_or_else(|| failure("the container does not run"))?;
        let pid = Pid::from_raw(live.pid).ok_or_else(|| failure("the container does not run"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| because("the container has ended", &error))?;
        if !live.is_itself() {
            return Err(failure("the container has ended"));
        }
        let root = format!("/proc/{}/root", live.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(|error| because("cannot look into the container", &error))?;
        let users = UserDatabase::read(&root);
        let spec = self.spec(id)?;
        let process = engine::spec::exec_process(&spec, &users, options).map_err(|error| because(what, &error))?;
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let group = Cgroup::open(&self.hierarchies, &self.cgroup_path(id));
        let entry = group.and_then(|group| group.entry()).map_err(|error| because(what, &error))?;
        let mount_label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
        let target =
            Target { pid: live.pid, pidfd: pidfd.as_fd(), seccomp, described: None, personality: None, mount_label };
        engine::lower::lower_exec(&process, target, entry, stdin, terminal).map_err(|error| because(what, &error))
    }

    /// The running container of that name.
    pub(super) fn running_by_name(&self, name: &str) -> Result<ContainerId, RuntimeError> {
        for id in self.live.borrow().keys() {
            if self.load(id)?.config.name == name {
                return Ok(id.clone());
            }
        }
        Err(failure(format!("container `{name}` does not run")))
    }
}

/// The beginning of what a process prints; the rest is read and forgotten, so that it never waits for us.
struct Printed {
    text: Rc<RefCell<Vec<u8>>>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl Printed {
    fn collect(streams: Streams) -> Self {
        let pipes: Vec<OwnedFd> = match streams {
            Streams::Pipes { stdout, stderr, .. } => vec![stdout, stderr],
            Streams::Terminal { master } => vec![master],
        };
        let text = Rc::new(RefCell::new(Vec::new()));
        let read = |pipe| {
            let text = Rc::clone(&text);
            tokio::task::spawn_local(async move {
                // What cannot be read is not there to be shown.
                let _ = read_into(pipe, &text).await;
            })
        };
        Self { readers: pipes.into_iter().map(read).collect(), text }
    }

    /// After the end of the process. One that it left behind may hold the pipe open: what is there by now is what counts.
    async fn end(self) -> String {
        for reader in self.readers {
            let stop = reader.abort_handle();
            if tokio::time::timeout(LEFT_BEHIND, reader).await.is_err() {
                stop.abort();
            }
        }
        String::from_utf8_lossy(&self.text.borrow()).into_owned()
    }
}

async fn read_into(pipe: OwnedFd, text: &RefCell<Vec<u8>>) -> std::io::Result<()> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    let mut chunk = vec![0; PROBE_OUTPUT];
    loop {
        let length = pipe.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        let mut text = text.borrow_mut();
        let room = PROBE_OUTPUT - text.len();
        text.extend_from_slice(chunk.get(..length.min(room)).unwrap_or_default());
    }
}
