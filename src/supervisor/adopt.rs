//! Taking over what is there: after this process was replaced, after its keeper was, or after both were killed.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::base::ids::ContainerId;
use crate::keeper::OomSource;
use crate::keeper::Process;
use crate::runtime::RuntimeError;
use crate::state::ContainerRecord;
use crate::state::RunState;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::files::is_holder;
use crate::supervisor::host::{Host, Live};
use crate::supervisor::link::{Inherited, Streams, Watched};

impl Host {
    /// Makes everything that runs ours again, and sweeps what was left half-made.
    ///
    /// # Errors
    /// When the project's directory cannot be read. A container that cannot be taken over is ended.
    pub(super) async fn take_over(&self, inherited: Inherited) -> Result<(), RuntimeError> {
        self.sweep()?;
        let Inherited { processes, ended, .. } = inherited;
        let records = self.dir.load().map_err(|error| because("cannot read the project's containers", &error))?;
        for holder in processes.iter().filter(|process| is_holder(&process.id)) {
            let ended = self.link.signal(&holder.id, libc::SIGKILL);
            ended.map_err(|error| because("the keeper could not be reached", &error))?;
        }
        for record in &records {
            let id = &record.config.id;
            self.seen(record.latest());
            self.note_cgroup_parent(&record.config);
            let known = processes.iter().find(|process| process.id == id.as_str());
            let taken = match (known, &record.state.run) {
                (Some(process), _) => self.resume(record, process),
                (None, Some(run)) if self.still_runs(record, run) => self.adopt(record, run),
                _ => {
                    self.kill_group(id);
                    self.forget_other(&record.config).await;
                    self.remove_group(id);
                    self.disconnect(id);
                    self.detach_volumes(&record.config);
                    self.note_end(record);
                    continue;
                }
            };
            if let Err(error) = taken {
                self.warn(&format!("cannot take over container `{}`, ending it: {error}", record.config.name));
                self.kill_group(id);
                // Where it has no control group, its first process takes the others along.
                if let Err(error) = self.link.signal(id.as_str(), libc::SIGKILL) {
                    self.warn(&because("it cannot be ended", &error).message);
                }
            }
        }
        for (id, end) in ended {
            match ContainerId::parse(&id) {
                Some(id) => {
                    self.ended(&id, end).await;
                }
                None => self.release_process(&id),
            }
        }
        self.settle_networks(&records);
        self.refresh_network()
    }

    /// A process that the keeper has kept, with its descriptors.
    fn resume(&self, record: &ContainerRecord, process: &Process) -> Result<(), RuntimeError> {
        let config = &record.config;
        let id = &config.id;
        let what = "its descriptors are gone";
        let copies = self.link.held(&format!("stdio:{id}")).map_err(|error| because(what, &error))?;
        let mut copies = copies.into_iter();
        let pidfd = copies.next().ok_or_else(|| because(what, &std::io::Error::from(std::io::ErrorKind::NotFound)))?;
        self.link.restore_process(process.clone(), pidfd, self.watched(id));
        let mut record = record.clone();
        let run = Some(self.run_of(&record, process));
        if record.state.run != run {
            record.state.run = run;
            self.write_state(id, &record.state)?;
        }
        if let Some(streams) = Streams::from_parts(copies, None) {
            self.log_output(config, streams)?;
        }
        self.live.borrow_mut().insert(id.clone(), Live { pid: process.pid, start_time: process.start_time });
        self.reconnect(&record)
    }

    /// A process that outlived both of ours.
    fn adopt(&self, record: &ContainerRecord, run: &RunState) -> Result<(), RuntimeError> {
        let config = &record.config;
        let id = &config.id;
        let what = "its process cannot be reached";
        let pid =
            Pid::from_raw(run.pid).ok_or_else(|| because(what, &std::io::Error::from(std::io::ErrorKind::NotFound)))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| because(what, &error))?;
        let process = Process { id: id.to_string(), pid: run.pid, start_time: run.start_time };
        if !self.still_runs(record, run) {
            return Err(failure(what));
        }
        if let Some(streams) = self.reopen_streams(id, run.pid) {
            self.log_output(config, streams)?;
        }
        self.link.adopt(process, pidfd, self.watched(id)).map_err(|error| because(what, &error))?;
        self.live.borrow_mut().insert(id.clone(), Live { pid: run.pid, start_time: run.start_time });
        self.reconnect(record)
    }

    /// Our ends of the pipes that a process writes to. A terminal's master died with its holders: then there is nothing.
    fn reopen_streams(&self, id: &ContainerId, pid: i32) -> Option<Streams> {
        let open = |number: u32| -> Option<OwnedFd> {
            let path = format!("/proc/{pid}/fd/{number}");
            let is_pipe = std::fs::metadata(&path).ok()?.file_type().is_fifo();
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            is_pipe.then(|| rustix::fs::open(&path, flags, Mode::empty()).ok()).flatten()
        };
        let (stdout, stderr) = (open(1)?, open(2)?);
        let copies = [&stdout, &stderr].map(OwnedFd::try_clone).into_iter().collect::<Result<Vec<_>, _>>();
        if let Err(error) = copies.and_then(|copies| self.link.hold(&format!("stdio:{id}"), copies)) {
            self.warn(&format!("cannot hold the output of container {}: {error}", id.short()));
        }
        Some(Streams::Pipes { stdout, stderr, stdin: None })
    }

    /// Whether the process of a run is the same one still, and has not ended.
    fn still_runs(&self, record: &ContainerRecord, run: &RunState) -> bool {
        record.is_open() && crate::supervisor::is_same_process(&self.boot_id, run)
    }

    fn run_of(&self, record: &ContainerRecord, process: &Process) -> RunState {
        match &record.state.run {
            Some(run) if run.pid == process.pid && run.start_time == process.start_time => run.clone(),
            // The one before us was killed between the launch and writing it down.
            _ => RunState {
                pid: process.pid,
                start_time: process.start_time,
                boot_id: self.boot_id.clone(),
                started_at: self.now(),
                joined: Vec::new(),
            },
        }
    }

    /// A run that ended while nobody looked.
    fn note_end(&self, record: &ContainerRecord) {
        if let (Some(_), crate::spec::Phase::Exited(exit)) = (&record.state.run, record.observe(|_| false).phase) {
            let mut state = record.state.clone();
            state.run = None;
            state.paused = false;
            state.exit = Some(exit);
            if let Err(error) = self.write_state(&record.config.id, &state) {
                self.warn(&error.message);
            }
        }
    }

    fn watched(&self, id: &ContainerId) -> Watched {
        let group = crate::engine::cgroup::Cgroup::open(&self.hierarchies, &self.cgroup_path(id));
        let oom = group.ok().and_then(|group| group.oom_counter()).map(OomSource::Counter);
        Watched { exit_file: self.dir.exit_file(id), oom }
    }

    /// Removes container folders that were never finished.
    fn sweep(&self) -> Result<(), RuntimeError> {
        let unfinished =
            self.dir.unfinished().map_err(|error| because("cannot read the project's containers", &error))?;
        for folder in unfinished {
            self.trash
                .discard(&folder)
                .map_err(|error| because(format!("cannot remove `{}`", folder.display()), &error))?;
        }
        self.sweep_networks()
    }

    /// Lets go of a process that was no container.
    pub(super) fn release_process(&self, id: &str) {
        if let Err(error) = self.link.release(id) {
            self.warn(&format!("cannot release process {id}: {error}"));
        }
        let file = self.dir.run().join("exec").join(id);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                self.warn(&format!("cannot remove `{}`: {error}", file.display()));
            }
            _ => {}
        }
    }
}
