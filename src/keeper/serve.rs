//! The keeper process: one loop over the supervisor's requests and the ends of processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Resource, WaitOptions};

use super::channel::{Outbox, decode, encode};
use super::handle::take_stdin;
use super::launch::Launcher;
use super::settle::settle;
use super::spawn::{Setup, Started};
use super::supervise::{Supervision, Watch};
use super::table::{Entry, Stage};
use super::{COMPANIONS, CONTROL, Event, Process, Request};
use crate::base::visible::visible_name;
use crate::init::LaunchFailure;
use crate::sys::message::{self, Wait};
use crate::sys::process::{self, Ended, SingleThreaded};

/// Clients that may wait for a supervisor; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;

/// How long the end of a process that is not our child may wait to be reaped before its status counts as unknown.
pub(super) const REAP_TIME: Duration = Duration::from_secs(1);

/// Entry of the process, called when the first argument is [`super::ROLE`]. Standard input is the socket of whoever starts it.
pub fn main() -> ExitCode {
    let mut words = std::env::args().skip(2);
    let project = words.next().unwrap_or_default();
    // The user namespace to join, see `SpawnOptions::like`.
    let like = words.next().map(PathBuf::from);
    match settle(&project, like.as_deref()).or_else(refuse).and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("keeper: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever waits for the start that there will be none.
fn refuse(error: io::Error) -> io::Result<()> {
    let client = take_stdin()?;
    let answer: Started = Err((None, error.to_string()));
    message::send(&client, &encode(&answer)?, &[], Wait::Yes)?;
    Err(error)
}

/// One line for the log file, which is standard error. When it cannot be written there is nobody left to tell.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", visible_name(line));
}

fn run() -> io::Result<()> {
    let client = take_stdin()?;
    process::close_inherited(&[client.as_raw_fd()]);
    let single = SingleThreaded::check()?;
    rustix::process::setsid()?;
    if process::fork(single)?.is_some() {
        // The client waits for this process only; the keeper becomes init's child.
        process::exit_now(0);
    }
    rustix::thread::set_name(c"rcompose-keeper")?;
    let mut keeper = match Keeper::new(single, &client) {
        Ok(keeper) => keeper,
        Err(error) => {
            let answer: Started = Err((error.raw_os_error(), error.to_string()));
            return message::send(&client, &encode(&answer)?, &[], Wait::Yes);
        }
    };
    let answer: Started = Ok(());
    // The client may have been killed meanwhile: the project goes on without it.
    if let Err(error) = message::send(&client, &encode(&answer)?, &[], Wait::Yes) {
        note(&format!("keeper: nobody waits for the start: {error}"));
    }
    drop(client);
    while !keeper.done {
        keeper.turn()?;
    }
    Ok(())
}

struct Keeper {
    launcher: Launcher,
    signals: SignalFd,
    supervision: Supervision,
    socket: Option<OwnedFd>,
    outbox: Outbox,
    held: BTreeMap<String, Vec<OwnedFd>>,
    entries: BTreeMap<String, Entry>,
    finish: bool,
    done: bool,
}

impl Keeper {
    fn new(single: SingleThreaded, client: &OwnedFd) -> io::Result<Self> {
        let Some((setup, mut descriptors)) = message::receive(client, Wait::Yes)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let Setup { supervisor, attached, held: names, .. } = decode(&setup)?;
        let mask = SigSet::from(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        if rustix::process::geteuid().is_root() {
            // Processes of containers that share our pid namespace shall not look inside.
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        }
        let mut files = rustix::process::getrlimit(Resource::Nofile);
        files.current = files.maximum;
        rustix::process::setrlimit(Resource::Nofile, files)?;

        let mut rest = descriptors.split_off(names.len().min(descriptors.len())).into_iter();
        let held: BTreeMap<_, _> = names.into_iter().zip(descriptors.into_iter().map(|fd| vec![fd])).collect();
        held.iter().for_each(|(name, descriptors)| claim(name, descriptors));
        let mut keeper = Self {
            launcher: Launcher::new(single)?,
            signals,
            supervision: Supervision::new(supervisor),
            socket: None,
            outbox: Outbox::default(),
            held,
            entries: BTreeMap::new(),
            finish: false,
            done: false,
        };
        if attached {
            let (Some(socket), Some(pidfd)) = (rest.next(), rest.next()) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            keeper.supervision.attach(pidfd);
            keeper.welcome(socket);
        } else {
            let socket = keeper.supervision.start()?;
            keeper.welcome(socket);
        }
        protect(true);
        Ok(keeper)
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        if ready.contains(&Source::Signals) {
            while self.signals.read_signal()?.is_some() {}
        }
        if ready.contains(&Source::Supervisor) {
            self.requests();
        }
        self.reports();
        self.reap();
        self.adopted(&ready);
        let now = Instant::now();
        if self.supervision.ended(now, ready.contains(&Source::Watched)) {
            self.supervisor_ended();
        }
        if self.finish && !self.living() {
            self.finished();
        } else if self.supervision.due(now) && !self.done {
            protect(false);
            match self.supervision.start() {
                Ok(socket) => self.welcome(socket),
                Err(error) => note(&format!("keeper: cannot start the supervisor: {error}")),
            }
            protect(true);
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Signals];
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(socket) = &self.socket {
            let out = if self.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(socket, PollFlags::IN | out));
            sources.push(Source::Supervisor);
        }
        // Once seen to have ended, only the hang-up that reaping brings is of interest.
        let interest = |since: &Option<Instant>| if since.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut deadline = self.supervision.deadline();
        if let Watch::Attached { pidfd, since } = &self.supervision.watch {
            polled.push(PollFd::new(pidfd, interest(since)));
            sources.push(Source::Watched);
        }
        for (id, entry) in &self.entries {
            match &entry.stage {
                Stage::Starting(starting) => polled.push(PollFd::new(starting.status(), PollFlags::IN)),
                Stage::Adopted { since } => {
                    polled.push(PollFd::new(&entry.pidfd, interest(since)));
                    let latest = since.map(|since| since + REAP_TIME);
                    deadline = [deadline, latest].into_iter().flatten().min();
                }
                Stage::Running | Stage::Ended(_) => continue,
            }
            sources.push(Source::Process(id.clone()));
        }
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = polled.iter().zip(sources).filter(|(polled, _)| !polled.revents().is_empty());
        Ok(happened.map(|(_, source)| source).collect())
    }

    /// Takes all requests that are there; clones all children first, then attaches all, then releases all.
    fn requests(&mut self) {
        let Some(socket) = &self.socket else { return };
        let mut requests = Vec::new();
        let mut open = true;
        while open {
            match message::receive(socket, Wait::No) {
                Ok(Some((bytes, descriptors))) => match decode(&bytes) {
                    Ok(request) => requests.push((request, descriptors)),
                    Err(error) => note(&format!("keeper: a request that is none: {error}")),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // One message's descriptors did not arrive; the next one is sound.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    note(&format!("keeper: lost descriptors: {error}"));
                }
                Ok(None) | Err(_) => open = false,
            }
        }
        let flushed = self.outbox.flush(socket);
        self.sent(flushed);
        if !open {
            // It has died or is about to; its process is watched.
            self.socket = None;
        }
        let mut burst = Vec::new();
        protect(false);
        for (request, descriptors) in requests {
            self.request(request, descriptors, &mut burst);
        }
        protect(true);
        self.release(burst);
    }

    fn release(&mut self, burst: Vec<String>) {
        let mut failures = Vec::new();
        for id in &burst {
            if let Some(Entry { stage: Stage::Starting(starting), process, .. }) = self.entries.get(id)
                && let Err(failure) = starting.attach(process.pid)
            {
                failures.push((id.clone(), failure));
            }
        }
        for (id, failure) in failures {
            // Dropping its end of the pipe ends the child before it has done anything.
            self.entries.remove(&id);
            self.tell(&Event::LaunchFailed { id, failure }, &[]);
        }
        for id in burst {
            if let Some(Entry { stage: Stage::Starting(starting), .. }) = self.entries.get_mut(&id) {
                starting.release();
            }
        }
    }

    fn request(&mut self, request: Request, descriptors: Vec<OwnedFd>, burst: &mut Vec<String>) {
        match request {
            Request::Launch { id, exit_file, oom, launch } => {
                self.finish = false;
                let begun = match self.entries.get(&id) {
                    Some(entry) if entry.lives() => Err(LaunchFailure {
                        step: None,
                        errno: libc::EEXIST,
                        detail: "a process with this id runs already".to_owned(),
                    }),
                    _ => self.launcher.begin(&launch, descriptors),
                };
                match begun {
                    Ok((child, starting)) => {
                        let start_time = process::start_time(child.pid).unwrap_or_default();
                        let process = Process { id: id.clone(), pid: child.pid, start_time };
                        let stage = Stage::Starting(starting);
                        self.entries.insert(id.clone(), Entry { process, pidfd: child.pidfd, exit_file, oom, stage });
                        burst.push(id);
                    }
                    Err(failure) => self.tell(&Event::LaunchFailed { id, failure }, &[]),
                }
            }
            Request::Signal { id, signal } => {
                if let Some(entry) = self.entries.get(&id).filter(|entry| entry.lives()) {
                    match process::send_signal(&entry.pidfd, signal) {
                        // Ended: its exit is about to be told.
                        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                            note(&format!("keeper: cannot signal {id}: {error}"));
                        }
                        _ => {}
                    }
                }
            }
            Request::Hold { name } => {
                claim(&name, &descriptors);
                self.held.insert(name, descriptors);
            }
            Request::Release { name } => {
                self.held.remove(&name);
                if let Some(entry) = self.entries.get(&name) {
                    if !entry.lives() {
                        self.entries.remove(&name);
                    }
                    self.held.remove(&format!("stdio:{name}"));
                    self.held.remove(&format!("stdin:{name}"));
                }
            }
            Request::Adopt { id, pid, exit_file, oom } => {
                let Some(pidfd) = descriptors.into_iter().next() else {
                    return note(&format!("keeper: no pidfd to adopt {id} with"));
                };
                let start_time = process::start_time(pid).unwrap_or_default();
                let process = Process { id: id.clone(), pid, start_time };
                let stage = Stage::Adopted { since: None };
                self.entries.insert(id, Entry { process, pidfd, exit_file, oom, stage });
            }
            Request::GoOn { id } => {
                if let Some(Entry { stage: Stage::Starting(starting), .. }) = self.entries.get_mut(&id) {
                    starting.release();
                }
            }
            Request::Finish => self.finish = true,
            Request::Leave => self.done = true,
        }
    }

    /// Looks at what starting children have reported.
    fn reports(&mut self) {
        let starting = |entry: &Entry| matches!(entry.stage, Stage::Starting(_));
        let ids: Vec<String> = self.entries.iter().filter(|(_, e)| starting(e)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let Stage::Starting(starting) = &mut entry.stage else { continue };
            let mut outcome = starting.outcome();
            if let Some(pid) = starting.moved().filter(|pid| *pid != entry.process.pid) {
                match follow(pid) {
                    Ok(pidfd) => {
                        entry.pidfd = pidfd;
                        entry.process.start_time = process::start_time(pid).unwrap_or_default();
                        entry.process.pid = pid;
                    }
                    Err(failure) => outcome = Some(Err(failure)),
                }
            }
            let mounted = starting.take_mounted();
            let early = starting.early;
            if mounted {
                let pid = entry.process.pid;
                self.tell(&Event::Mounted { id, pid }, &[]);
                continue;
            }
            let Some(outcome) = outcome else { continue };
            let pidfd = entry.pidfd.try_clone();
            let process = entry.process.clone();
            match (outcome, pidfd) {
                (Ok(started), Ok(pidfd)) => {
                    entry.stage = Stage::Running;
                    let mut all = vec![pidfd];
                    all.extend(started.output);
                    let told: Vec<BorrowedFd<'_>> = all.iter().chain(&started.input).map(AsFd::as_fd).collect();
                    self.tell(&Event::Launched { id: id.clone(), process }, &told);
                    self.held.insert(format!("stdio:{id}"), all);
                    if let Some(input) = started.input {
                        self.held.insert(format!("stdin:{id}"), vec![input]);
                    }
                    if let Some(code) = early {
                        self.ended(&id, Some(code));
                    }
                }
                (outcome, pidfd) => {
                    let failure = outcome.err().unwrap_or_else(|| LaunchFailure {
                        step: None,
                        errno: pidfd.err().and_then(|error| error.raw_os_error()).unwrap_or(libc::EMFILE),
                        detail: "keeping descriptors".to_owned(),
                    });
                    // Usually it has ended itself; what has not must not run on unseen.
                    let _ = process::send_signal(&entry.pidfd, libc::SIGKILL);
                    self.entries.remove(&id);
                    self.tell(&Event::LaunchFailed { id, failure }, &[]);
                }
            }
        }
    }

    /// Collects children that have ended.
    fn reap(&mut self) {
        // First only looked at: until it is reaped its pid is its own, also in a report that has not been read yet.
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(Some(pid)) = waitid(Id::All, ended).map(|status| status.pid()) {
            // Its report is complete now: what was executed and ended at once is told in that order.
            self.reports();
            let Ok(Some((_, status))) = rustix::process::waitpid(Pid::from_raw(pid.as_raw()), WaitOptions::NOHANG)
            else {
                break;
            };
            let (pid, code) = (pid.as_raw(), process::exit_code(status.as_raw()));
            if self.supervision.reaped(pid, code) {
                continue;
            }
            let Some(entry) = self.entries.values_mut().find(|entry| entry.lives() && entry.process.pid == pid) else {
                continue;
            };
            match &mut entry.stage {
                Stage::Running => {
                    let id = entry.process.id.clone();
                    self.ended(&id, Some(code));
                }
                Stage::Starting(starting) => starting.early = Some(code),
                Stage::Adopted { .. } | Stage::Ended(_) => {}
            }
        }
    }

    /// Looks at processes that are not our children.
    fn adopted(&mut self, ready: &[Source]) {
        let now = Instant::now();
        let mut ended = Vec::new();
        for (id, entry) in &mut self.entries {
            let Stage::Adopted { since } = &mut entry.stage else { continue };
            let happened = ready.iter().any(|source| matches!(source, Source::Process(ready) if ready == id));
            let Process { pid, start_time, .. } = entry.process;
            let zombie = if happened { process::zombie_code(pid, start_time) } else { None };
            if let Some(code) = zombie.map(Some).or_else(|| look(&entry.pidfd, since, now, happened)) {
                ended.push((id.clone(), code));
            }
        }
        for (id, code) in ended {
            self.ended(&id, code);
        }
    }

    fn ended(&mut self, id: &str, code: Option<i32>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (record, written) = entry.record(code);
        entry.stage = Stage::Ended(record);
        if let Err(error) = written {
            note(&format!("keeper: cannot write {}: {error}", entry.exit_file.display()));
        }
        self.tell(&Event::Exited { id: id.to_owned(), record }, &[]);
    }

    fn living(&self) -> bool {
        self.entries.values().any(Entry::lives)
    }

    fn supervisor_ended(&mut self) {
        // What it asked for before it died counts, its asking to finish first of all.
        self.requests();
        self.socket = None;
        let living = self.living();
        if !living && (self.finish || self.supervision.is_done()) {
            self.finished();
        } else if !living && self.supervision.is_hopeless() {
            note("keeper: the supervisor keeps dying and nothing runs: giving up");
            self.finished();
        }
    }

    fn finished(&mut self) {
        self.done = true;
        for companion in self.held.get(COMPANIONS).into_iter().flatten() {
            // Usually the supervisor has ended it.
            let _ = process::send_signal(companion, libc::SIGKILL);
        }
    }

    /// Tells a new supervisor all there is.
    fn welcome(&mut self, socket: OwnedFd) {
        self.socket = Some(socket);
        self.outbox = Outbox::default();
        // Its predecessor may have overlooked something that lives.
        self.finish = false;
        let living = self.entries.values().filter(|entry| entry.lives());
        let processes = living.map(|entry| entry.process.clone()).collect();
        self.tell(&Event::Welcome { processes }, &[]);
        let held = std::mem::take(&mut self.held);
        for (name, descriptors) in &held {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            self.tell(&Event::Held { name: name.clone() }, &descriptors);
        }
        self.held = held;
        let ended = self.entries.iter().filter_map(|(id, entry)| match entry.stage {
            Stage::Ended(record) => Some((id.clone(), record)),
            _ => None,
        });
        for (id, record) in ended.collect::<Vec<_>>() {
            self.tell(&Event::Exited { id, record }, &[]);
        }
        self.tell(&Event::Ready, &[]);
    }

    /// Tells the supervisor, if there is one; the next one learns it from what is held and recorded.
    fn tell(&mut self, event: &Event, descriptors: &[BorrowedFd<'_>]) {
        if let Some(socket) = &self.socket {
            let sent = self.outbox.send(socket, event, descriptors);
            self.sent(sent);
        }
    }

    fn sent(&self, sent: io::Result<()>) {
        match sent {
            // It has died, which is dealt with when that is seen.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => note(&format!("keeper: cannot tell: {error}")),
            _ => {}
        }
    }
}

/// Makes this process the one that listens on the control socket, for clients who ask the kernel.
fn claim(name: &str, descriptors: &[OwnedFd]) {
    for socket in descriptors.iter().filter(|_| name == CONTROL) {
        if let Err(error) = rustix::net::listen(socket, BACKLOG) {
            note(&format!("keeper: cannot listen on the control socket: {error}"));
        }
    }
}

/// A pidfd of a child that another one has left to us.
fn follow(pid: i32) -> Result<OwnedFd, LaunchFailure> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH);
    pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty())).map_err(|error| LaunchFailure {
        step: None,
        errno: error.raw_os_error(),
        detail: "the container's process has ended before it was started".to_owned(),
    })
}

/// What a poll can report.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Supervisor,
    /// The pidfd of a supervisor that is not our child.
    Watched,
    Process(String),
}

/// Whether a process that is not our child has ended for good, and with which status if that can be learnt.
pub(super) fn look(pidfd: &OwnedFd, since: &mut Option<Instant>, now: Instant, happened: bool) -> Option<Option<i32>> {
    let overdue = since.is_some_and(|since| now >= since + REAP_TIME);
    if !happened && !overdue {
        return None;
    }
    match process::how_ended(pidfd) {
        Ended::Code(code) => Some(Some(code)),
        Ended::NotYet if !overdue => {
            since.get_or_insert(now);
            None
        }
        Ended::NotYet | Ended::Unknown => Some(None),
    }
}

/// Keeps the kernel from choosing the keeper when memory is short; not so what it starts meanwhile (as root only).
fn protect(on: bool) {
    if rustix::process::geteuid().is_root() {
        let score = if on { "-999" } else { "0" };
        if let Err(error) = fs::OpenOptions::new()
            .write(true)
            .open("/proc/self/oom_score_adj")
            .and_then(|mut file| file.write_all(score.as_bytes()))
            // A restricted root may not; then the kernel chooses as it likes.
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            note(&format!("keeper: cannot set oom_score_adj: {error}"));
        }
    }
}
