//! The interpreter: what runs in the forked child.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use super::fault::{At, Fault, fault};
use super::restrict::{self, Masks};
use super::{BindSource, IdMap, Launch, LaunchFailure, Listener, Namespace, NamespaceKind, Slot, Step};
use super::{console, exec, hooks, mounts, other, reaper};
use crate::sys::message::{self, Wait};
use crate::sys::process::{self, SingleThreaded};
use crate::sys::scheduling;
use crate::sys::security;

/// First byte of what the child reports: the program is about to be executed. Then the pipe closes, or a failure follows.
pub(crate) const ABOUT_TO_EXECUTE: u8 = b'x';
/// A [`LaunchFailure`] follows, in postcard's encoding.
pub(crate) const FAILED: u8 = b'f';
/// [`Step::Rendezvous`] has been reached.
pub(crate) const MOUNTED: u8 = b'm';
/// The container's process is another one: its pid follows (4 bytes, native order), and then the rest of the report.
pub(crate) const MOVED: u8 = b'p';
/// [`Step::AwaitStart`] has been reached.
pub(crate) const WAITING: u8 = b'w';

/// What the child gets from its parent, besides the launch itself.
#[derive(Debug)]
pub struct Inherited<'a> {
    pub slots: &'a [OwnedFd],
    /// Detached mounts of the [`Step::Bind`]s, by index of the step ([`prepare_binds`]).
    pub binds: &'a BTreeMap<usize, OwnedFd>,
    /// How many descriptors from 3 on the program gets as they are.
    pub preserved: u32,
    /// Read end: one byte means go, the end of it means that the parent is gone.
    pub go: BorrowedFd<'a>,
    /// Mounts are made before the parent says go: it has nothing to do to the child before that.
    pub eager: bool,
    /// Write end, for the report.
    pub status: BorrowedFd<'a>,
    pub streams: Streams<'a>,
    /// Our own program, for [`Step::Reaper`].
    pub exe: BorrowedFd<'a>,
    pub single: SingleThreaded,
}

/// Standard streams of the child.
#[derive(Clone, Copy, Debug)]
pub enum Streams<'a> {
    Pipes {
        stdin: BorrowedFd<'a>,
        stdout: BorrowedFd<'a>,
        stderr: BorrowedFd<'a>,
    },
    /// Until there is a terminal they are `null`; its master is sent over `socket`. What is written to it comes out
    /// `unchanged` (no carriage return before each newline), where the reader's own terminal sees to that.
    Terminal {
        null: BorrowedFd<'a>,
        socket: BorrowedFd<'a>,
        rows: u16,
        columns: u16,
        unchanged: bool,
    },
}

impl Inherited<'_> {
    /// The descriptors that the child needs.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut all: Vec<RawFd> = self.slots.iter().chain(self.binds.values()).map(AsRawFd::as_raw_fd).collect();
        all.extend([self.go, self.status, self.exe].map(|fd| fd.as_raw_fd()));
        all.extend((3..).take(self.preserved as usize));
        match self.streams {
            Streams::Pipes { stdin, stdout, stderr } => all.extend([stdin, stdout, stderr].map(|fd| fd.as_raw_fd())),
            Streams::Terminal { null, socket, .. } => all.extend([null, socket].map(|fd| fd.as_raw_fd())),
        }
        all
    }
}

/// Clones what the launch's [`Step::Bind`]s and its [`Step::RootBind`] bind into detached mounts. Only the mount namespace
/// that the sources lie in can do that: the parent's.
///
/// # Errors
/// Whatever `open_tree(2)` says, with the step.
pub fn prepare_binds(launch: &Launch, slots: &[OwnedFd]) -> Result<BTreeMap<usize, OwnedFd>, LaunchFailure> {
    let mut binds = BTreeMap::new();
    for (index, step) in launch.steps.iter().enumerate() {
        let (source, recursive, id_map, detail) = match step {
            Step::Bind { source: BindSource::Host(source), recursive, target, id_map, .. } => {
                (*source, *recursive, *id_map, target.as_str())
            }
            Step::RootBind { source, .. } => (*source, true, None, "the root"),
            _ => continue,
        };
        let clone = slots.get(source).ok_or(Errno::BADF).and_then(|source| mounts::clone_tree(source, recursive));
        let failed =
            |error: Errno| LaunchFailure { step: Some(index), errno: error.raw_os_error(), detail: detail.to_owned() };
        let clone = match clone {
            // An ordinary user's child may, in the user namespace that it gets.
            Err(Errno::PERM)
                if id_map.is_none() && launch.namespaces.contains(&Namespace::New(NamespaceKind::User)) =>
            {
                continue;
            }
            clone => clone.map_err(failed)?,
        };
        if let Some(id_map) = id_map {
            let namespace = slots.get(id_map.namespace).ok_or_else(|| failed(Errno::BADF))?;
            mounts::map_ids(&clone, namespace, id_map.recursive).map_err(|error| LaunchFailure {
                step: Some(index),
                errno: error.raw_os_error().unwrap_or(libc::EINVAL),
                detail: format!("{detail}: id mapping"),
            })?;
        }
        binds.insert(index, clone);
    }
    Ok(binds)
}

/// Runs the launch's steps in a child that was just forked. Returns only when that failed (and has been reported): with
/// the status to exit with. `born` is for [`Step::Rebirth`]: the pid of the new process goes there, or why there is none.
/// With `late` it hides only after the parent's go.
pub(super) fn launch_steps(
    launch: &Launch,
    inherited: &Inherited<'_>,
    born: Option<BorrowedFd<'_>>,
    late: bool,
) -> i32 {
    // From here on no process of a container may look into this one (memory, /proc/PID/exe, descriptors).
    let hide = || rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at("dumpable");
    let hidden = if late { Ok(()) } else { hide() };
    let goes = match born {
        Some(_) => hidden.and_then(|()| enter_v1_groups(launch, inherited)).map(|()| true),
        None if inherited.eager => hidden.map(|()| true),
        None => hidden.and_then(|()| wait_for_go(inherited.go)),
    };
    let goes = if late { goes.and_then(|goes| hide().map(|()| goes)) } else { goes };
    let mut waits = inherited.eager && born.is_none();
    match goes {
        Ok(true) => {}
        // Nobody is left who would want this process.
        Ok(false) => return 1,
        Err(error) => return report(inherited.status, born, None, error),
    }
    let mut child = match enter(launch, inherited, born) {
        Ok(child) => child,
        Err(error) => return report(inherited.status, born, None, error),
    };
    for (index, step) in launch.steps.iter().enumerate() {
        if waits && needs_go(step) {
            waits = false;
            match wait_for_go(inherited.go) {
                Ok(true) => {}
                Ok(false) => return 1,
                Err(error) => return report(inherited.status, born, Some(index), error),
            }
        }
        if let Err(error) = child.apply(index, step) {
            return report(child.status, child.born, Some(index), error);
        }
    }
    let error = Fault { errno: libc::EINVAL, detail: "the steps end without a program".to_owned() };
    report(child.status, child.born, None, error)
}

fn enter_v1_groups(launch: &Launch, inherited: &Inherited<'_>) -> Result<(), Fault> {
    for &slot in &launch.cgroup.v1 {
        // The writer itself.
        rustix::io::write(slot_of(inherited, slot)?, b"0").at("entering the cgroup")?;
    }
    Ok(())
}

/// Tells the parent. When it is gone the report has no reader, and the exit status is all there is.
fn report(
    to: BorrowedFd<'_>,
    born: Option<BorrowedFd<'_>>,
    step: Option<usize>,
    Fault { errno, detail }: Fault,
) -> i32 {
    let failure = LaunchFailure { step, errno, detail };
    if let Some(born) = born {
        if let Ok(bytes) = postcard::to_allocvec(&failure) {
            let _ = rustix::io::write(born, &bytes);
        }
    } else if let Ok(bytes) = postcard::to_extend(&failure, vec![FAILED]) {
        let _ = rustix::io::write(to, &bytes);
    }
    1
}

/// Whether the parent said go; not when it is gone.
fn wait_for_go(go: BorrowedFd<'_>) -> Result<bool, Fault> {
    let mut byte = [0];
    Ok(rustix::io::retry_on_intr(|| rustix::io::read(go, &mut byte)).at("waiting for the parent")? == 1)
}

/// Whether others could see that the step was done: programs that it runs, or that it is followed by the container's.
fn needs_go(step: &Step) -> bool {
    matches!(
        step,
        Step::Rendezvous
            | Step::Hooks { .. }
            | Step::FindProgram { .. }
            | Step::AwaitStart { .. }
            | Step::Identity { .. }
            | Step::Seccomp { .. }
            | Step::Reaper
            | Step::Exec { .. }
    )
}

/// The state of the interpreter.
struct Child<'a> {
    inherited: &'a Inherited<'a>,
    /// Where it reports to.
    status: BorrowedFd<'a>,
    /// Until [`Step::Rebirth`].
    born: Option<BorrowedFd<'a>>,
    /// What targets refer to.
    root: OwnedFd,
    /// The root of the mount namespace, where that is not this process's own: then this is a chroot.
    top: Option<OwnedFd>,
    /// The host's, opened before the container's own files are in sight.
    proc: OwnedFd,
    /// It is in its working directory.
    entered: bool,
    /// What masked directories show.
    empty: OnceCell<OwnedFd>,
    /// Of [`Step::MountLabel`].
    label: Option<String>,
    /// Pid 1 is our init process: this one is its child.
    has_init: bool,
}

fn enter<'a>(launch: &Launch, inherited: &'a Inherited<'a>, born: Option<BorrowedFd<'a>>) -> Result<Child<'a>, Fault> {
    rustix::process::umask(Mode::empty());
    let (stdin, stdout, stderr) = match inherited.streams {
        Streams::Pipes { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Streams::Terminal { null, .. } => (null, null, null),
    };
    rustix::stdio::dup2_stdin(stdin).at("standard input")?;
    rustix::stdio::dup2_stdout(stdout).at("standard output")?;
    rustix::stdio::dup2_stderr(stderr).at("standard error")?;
    let proc = restrict::host_proc()?;
    enter_those_of_others(launch, inherited).at("joining a namespace")?;
    // The user namespace first, for the rights in the others; the mount namespace last, as it changes what paths mean.
    use NamespaceKind::{Cgroup, Ipc, Mount, Net, Pid, Time, User, Uts};
    for wanted in [User, Pid, Time, Ipc, Uts, Net, Cgroup, Mount] {
        for namespace in &launch.namespaces {
            match *namespace {
                // Its parent has done that for it.
                Namespace::Join(Pid, _) if born.is_none() => {}
                Namespace::Join(kind, slot) if kind == wanted => {
                    let there = slot_of(inherited, slot)?;
                    let joining = || format!("joining the {kind:?} namespace");
                    // One that is the host's may be another user's to enter; then we are in it already.
                    let own = if kind == Pid { "pid_for_children" } else { kind.name() };
                    if !process::is_in_namespace(there, own).at(joining())? {
                        process::enter_namespace(there, kind.flag()).at(joining())?;
                    }
                }
                // Only now is the process in its cgroups, which the namespace takes as its root.
                Namespace::New(Cgroup) if wanted == Cgroup => {
                    process::new_cgroup_namespace().at("new cgroup namespace")?;
                }
                _ => {}
            }
        }
    }
    if launch.namespaces.iter().any(|namespace| namespace.kind() == User) {
        restrict::become_root()?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).at("/")?;
    let status = inherited.status;
    Ok(Child {
        inherited,
        status,
        born,
        root,
        top: None,
        proc,
        entered: false,
        empty: OnceCell::new(),
        label: None,
        has_init: false,
    })
}

/// Before a user namespace is joined: namespaces that are not of that one can only be entered from where this process is.
/// The others follow, with the rights that it has then.
pub(super) fn enter_those_of_others(launch: &Launch, inherited: &Inherited<'_>) -> io::Result<()> {
    let slot = |slot: Slot| inherited.slots.get(slot).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
    let of_kind = |namespace: &Namespace, kind| matches!(namespace, Namespace::Join(other, _) if *other == kind);
    let Some(&Namespace::Join(kind, user)) = launch.namespaces.iter().find(|it| of_kind(it, NamespaceKind::User))
    else {
        return Ok(());
    };
    if process::is_in_namespace(slot(user)?, kind.name())? {
        return Ok(());
    }
    for namespace in &launch.namespaces {
        if let Namespace::Join(kind, there) = *namespace
            && !matches!(kind, NamespaceKind::User | NamespaceKind::Mount | NamespaceKind::Cgroup)
        {
            match process::enter_namespace(slot(there)?, kind.flag()) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
                entered => entered?,
            }
        }
    }
    Ok(())
}

fn slot_of<'a>(inherited: &'a Inherited<'_>, slot: Slot) -> Result<&'a OwnedFd, Fault> {
    inherited.slots.get(slot).map_or_else(|| fault(libc::EBADF, format!("slot {slot}")), Ok)
}

impl Child<'_> {
    fn apply(&mut self, index: usize, step: &Step) -> Result<(), Fault> {
        match step {
            Step::MountLabel(label) => {
                self.label = Some(label.clone());
                Ok(())
            }
            Step::Reaper => {
                reaper::split(self.inherited.single, self.inherited.exe, &self.proc)?;
                self.has_init = true;
                Ok(())
            }
            Step::IsolateMounts { slave } => {
                self.top = mounts::isolate(&self.proc, &self.root, *slave)?;
                Ok(())
            }
            Step::RootOverlay { at, overlay } => {
                self.root = mounts::root_overlay(at, overlay, self.label.as_deref())?;
                Ok(())
            }
            Step::RootBind { propagation, source, in_place } => {
                let here = in_place.then(|| self.here(*source).map_err(|fault| fault.of("the root"))).transpose()?;
                let over = here.as_ref().or(self.top.as_ref()).unwrap_or(&self.root);
                let source = self.bind_source(index, *source, true).map_err(|fault| fault.of("the root"))?;
                self.root = mounts::root_bind(&source, over, *propagation)?;
                // Hooks may expect to be there.
                if *in_place { rustix::process::fchdir(&self.root).at("entering the root") } else { Ok(()) }
            }
            Step::PivotRoot => {
                self.root = mounts::pivot(&self.root, self.top.take())?;
                Ok(())
            }
            Step::Bind { source, target, recursive, flags, clear, recursive_flags, propagation, id_map } => {
                let source = match source {
                    BindSource::Host(slot) => self.bind_source(index, *slot, *recursive),
                    BindSource::Detached(slot) => slot_of(self.inherited, *slot)?.try_clone().at(""),
                    BindSource::Root(path) => self.bind_from_root(path, *recursive, *id_map),
                };
                let source = source.map_err(|fault| fault.of(target))?;
                mounts::bind(&self.root, &source, target, (*flags, *clear, *recursive_flags), *propagation)
            }
            Step::Image { layers, subpath, target } => mounts::image(&self.root, layers, subpath, target),
            Step::Overlay { .. }
            | Step::Mount { .. }
            | Step::Directory { .. }
            | Step::Device { .. }
            | Step::Symlink { .. }
            | Step::Console { .. }
            | Step::ReadonlyRoot
            | Step::ReadonlyMount { .. }
            | Step::RootPropagation(_)
            | Step::ReadonlyPath { .. }
            | Step::MaskPath { .. } => self.files(step),
            Step::WorkingDirectory { target, create, last } => match self.working_directory(target, *create) {
                Err(Fault { errno: libc::EACCES, .. }) if self.entered || !last => Ok(()),
                Err(error) => Err(error),
                Ok(()) => {
                    self.entered = true;
                    Ok(())
                }
            },
            Step::Rendezvous => {
                rustix::io::write(self.status, &[MOUNTED]).at("reporting")?;
                if wait_for_go(self.inherited.go)? { Ok(()) } else { fault(libc::EPIPE, "the parent is gone") }
            }
            Step::AwaitStart { start, result } => {
                rustix::io::write(self.status, &[WAITING]).at("reporting")?;
                let mut byte = [0];
                let start = slot_of(self.inherited, *start)?;
                rustix::io::retry_on_intr(|| rustix::io::read(start, &mut byte)).at("waiting for the start")?;
                self.status = slot_of(self.inherited, *result)?.as_fd();
                // Nobody waits for a start from here on, whatever descriptor the program's execution closes first.
                process::replace_descriptor(start, self.status).at("the start")
            }
            Step::Rebirth => self.rebirth(),
            Step::OtherRuntime { program, arguments, bundle, id } => {
                other::run(other::Wanted { program, arguments, bundle, id }, self.inherited.streams, self.status)
            }
            _ => self.process(step),
        }
    }

    /// The detached mount that the parent has made; or one made here, where only this process may make mounts.
    fn bind_source(&self, index: usize, slot: Slot, recursive: bool) -> Result<OwnedFd, Fault> {
        match self.inherited.binds.get(&index) {
            Some(clone) => clone.try_clone().at(""),
            None => mounts::clone_tree(&self.here(slot)?, recursive).at(""),
        }
    }

    fn bind_from_root(&self, path: &str, recursive: bool, id_map: Option<IdMap>) -> Result<OwnedFd, Fault> {
        let clone =
            mounts::clone_tree(super::inroot::open(&self.root, path, OFlags::PATH).at("")?, recursive).at("")?;
        if let Some(IdMap { namespace, recursive }) = id_map {
            mounts::map_ids(&clone, slot_of(self.inherited, namespace)?, recursive).at("id mapping")?;
        }
        Ok(clone)
    }

    /// A file of the parent's mount namespace in this one: looked up once more.
    fn here(&self, slot: Slot) -> Result<OwnedFd, Fault> {
        let wanted = slot_of(self.inherited, slot)?;
        let link = format!("self/fd/{}", wanted.as_raw_fd());
        let path = rustix::fs::readlinkat(&self.proc, link, Vec::new()).at("its path")?;
        let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).at("")?;
        let (wanted, other) = (rustix::fs::fstat(wanted).at("")?, rustix::fs::fstat(&found).at("")?);
        if (wanted.st_dev, wanted.st_ino) != (other.st_dev, other.st_ino) {
            return fault(libc::ESTALE, "it has been replaced meanwhile");
        }
        Ok(found)
    }

    /// Returns in the new process; this one ends.
    fn rebirth(&mut self) -> Result<(), Fault> {
        let Some(born) = self.born else { return fault(libc::EINVAL, "nobody waits for a new process") };
        let preserved = (3..).take(self.inherited.preserved as usize);
        let keep: Vec<RawFd> = preserved.chain([self.status.as_raw_fd(), born.as_raw_fd()]).collect();
        process::close_inherited(&keep);
        if let Some(pid) = process::clone_sibling(self.inherited.single).at("making the process")? {
            // Without its number the parent takes it for ended.
            let written = rustix::io::write(born, &pid.to_ne_bytes());
            process::exit_now(i32::from(written.is_err()));
        }
        self.born = None;
        Ok(())
    }

    /// Steps about files inside the root.
    fn files(&self, step: &Step) -> Result<(), Fault> {
        let (root, label) = (&self.root, self.label.as_deref());
        match step {
            Step::Overlay { target, overlay } => mounts::overlay(root, target, overlay, label),
            Step::Mount { fstype, source, target, flags, data, copy_up } => {
                mounts::mount(root, (fstype, source, data), target, (*flags, *copy_up), label)
            }
            Step::Directory { target, mode, uid, gid } => mounts::directory(root, target, *mode, *uid, *gid),
            Step::Device { target, kind, major, minor, mode, uid, gid } => {
                mounts::device(root, target, (*kind, *major, *minor), (*mode, *uid, *gid))
            }
            Step::Symlink { target, to } => mounts::symlink(root, target, to),
            Step::Console { bind_console } => match self.inherited.streams {
                Streams::Terminal { socket, rows, columns, unchanged, .. } => {
                    console::open(root, socket, (rows, columns), unchanged, *bind_console)
                }
                Streams::Pipes { .. } => fault(libc::EINVAL, "a terminal was not asked for"),
            },
            Step::ReadonlyRoot => mounts::readonly_root(root),
            Step::ReadonlyMount { target } => mounts::readonly_mount(root, target),
            Step::RootPropagation(propagation) => mounts::propagate(root, *propagation).at("/"),
            Step::ReadonlyPath { target } => mounts::readonly_path(root, target),
            Step::MaskPath { target } => mounts::mask(root, target, &self.empty, label),
            _ => fault(libc::EINVAL, "not a step about files"),
        }
    }

    fn listened_filter(&self, filter: &[u8], flags: u32, listener: &Listener) -> Result<(), Fault> {
        let doing = "handing the seccomp filter's descriptor to its listener";
        let pid = match listener.pid {
            Some(pid) => pid,
            None => hooks::own_pid(&self.proc).at(doing)?,
        };
        let state = hooks::process_state(listener, pid).at(doing)?;
        let socket = slot_of(self.inherited, listener.socket)?;
        let hand_over = |descriptor: BorrowedFd<'_>| message::send(socket, state.as_bytes(), &[descriptor], Wait::Yes);
        security::install_listened_filter(filter, flags, self.inherited.single, hand_over).at(doing)
    }

    fn working_directory(&self, target: &str, create: bool) -> Result<(), Fault> {
        let directory = if create {
            super::inroot::make_directory(&self.root, target, 0o755).at(target)?.0
        } else {
            super::inroot::open(&self.root, target, OFlags::PATH | OFlags::DIRECTORY).at(target)?
        };
        rustix::process::fchdir(directory).at(target)
    }

    /// Steps about the process itself.
    fn process(&self, step: &Step) -> Result<(), Fault> {
        match step {
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes()).at(&**name),
            Step::Domainname(name) => rustix::system::setdomainname(name.as_bytes()).at(&**name),
            Step::Sysctl { name, value } => restrict::sysctl(&self.proc, name, value),
            Step::Rlimit { resource, soft, hard } => restrict::rlimit(*resource, *soft, *hard),
            Step::OomScoreAdj(score) => restrict::oom_score(&self.proc, *score),
            Step::IoPriority(priority) => scheduling::set_io_priority(*priority).at("I/O priority"),
            Step::Scheduler(wanted) => scheduling::set_scheduler(0, wanted).at("scheduler"),
            Step::EveryCpu => scheduling::set_affinity(0..scheduling::MAX_CPU).at("CPU affinity"),
            Step::Affinity(cpus) => scheduling::set_affinity(cpus.iter().copied()).at("CPU affinity"),
            Step::ProcessLabel(label) => restrict::process_label(&self.proc, label),
            Step::AppArmor(profile) => restrict::apparmor(&self.proc, profile),
            Step::Umask(mask) => {
                rustix::process::umask(Mode::from_raw_mode(*mask));
                Ok(())
            }
            Step::Personality(personality) => security::set_personality(*personality).at("personality"),
            Step::SessionKeyring => match security::new_session_keyring() {
                // A kernel without keyrings has no keys either.
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
                result => result.at("session keyring"),
            },
            Step::Hooks { kind, hooks, state, status } => {
                hooks::run_in_child(&self.proc, (kind, hooks), (state, status))
            }
            Step::FindProgram { argv, env } => exec::find(argv, env),
            Step::TerminalSession => console::control(),
            Step::NewSession => rustix::process::setsid().map(drop).at("new session"),
            Step::Groups(groups) => restrict::groups(&self.proc, groups),
            Step::Identity { uid, gid } => restrict::identity(*uid, *gid),
            Step::Capabilities { bounding, permitted, effective, inheritable, ambient } => {
                restrict::capabilities(&Masks {
                    bounding: *bounding,
                    permitted: *permitted,
                    effective: *effective,
                    inheritable: *inheritable,
                    ambient: *ambient,
                })
            }
            Step::CloseOnExec => {
                process::close_on_exec(3 + self.inherited.preserved);
                Ok(())
            }
            Step::RegainCapabilities => restrict::regain_capabilities().map(drop),
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true).at("no new privileges"),
            Step::Seccomp { filters, flags, listener: None } => {
                filters.iter().try_for_each(|filter| security::install_filter(filter, *flags).at("seccomp filter"))
            }
            Step::Seccomp { filters, flags, listener: Some(listener) } => {
                filters.iter().try_for_each(|filter| self.listened_filter(filter, *flags, listener))
            }
            Step::Exec { argv, env } => {
                process::reset_signals();
                rustix::io::write(self.status, &[ABOUT_TO_EXECUTE]).at("reporting")?;
                let Err(fault) = exec::exec(argv, env);
                // The container has begun, as with Docker's.
                if self.has_init { reaper::give_up(&fault) } else { Err(fault) }
            }
            _ => fault(libc::EINVAL, "not a step about the process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_whose_parent_died_does_not_go() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        drop(write);
        assert!(!wait_for_go(read.as_fd()).unwrap());
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&write, b"g").unwrap();
        assert!(wait_for_go(read.as_fd()).unwrap());
    }
}
