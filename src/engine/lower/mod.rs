//! A runtime specification to the steps of a launch. Pure but for opening what has to be handed over as a descriptor.
//!
//! The order is what keeps a container in: nothing of the host is opened by path once the root is set up, limits and
//! kernel parameters are written while that is still allowed, and the restrictions come last.

mod exec;
mod files;
mod lifecycle;
mod mounts;
mod other;
mod restrict;
mod scheduling;
mod unsupported;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use oci_spec::runtime::LinuxNamespaceType;
use oci_spec::runtime::Process;
use oci_spec::runtime::Spec;
use rustix::fs::Mode;
use rustix::fs::OFlags;

use crate::engine::cgroup;
use crate::engine::seccomp::SeccompError;
use crate::init::CgroupEntry;
use crate::init::Launch;
use crate::init::Namespace;
use crate::init::NamespaceKind;
use crate::init::Overlay;
use crate::init::Propagation;
use crate::init::PropagationKind;
use crate::init::Slot;
use crate::init::Stdio;
use crate::init::Step;

pub use exec::Target;
pub use exec::check_program;
pub use exec::lower_exec;
pub use files::lower_files;
pub use lifecycle::Lifecycle;
pub use lifecycle::{hooks, own_environment};
pub use mounts::MOUNT_OPTIONS;
pub use mounts::mapping_lines;
pub use other::{Handover, bundle, lower_other};
pub use restrict::Described;
pub use scheduling::cpus;

/// Where a container's root comes from.
#[derive(Clone, Debug)]
pub enum Root {
    Overlay {
        /// Empty host directory that the overlay is mounted on.
        at: PathBuf,
        overlay: Overlay,
        /// Further overlays inside it, by target: the trees of the host image.
        trees: Vec<(String, Overlay)>,
    },
    /// The `root.path` of the specification: an OCI bundle's directory.
    Bind(PathBuf),
}

/// What a launch needs and the specification has no words for.
#[derive(Debug)]
pub struct Extras<'a> {
    pub root: Root,
    /// Namespaces to join besides those the specification names by path; they replace a new one of their kind.
    pub joined: Vec<(NamespaceKind, OwnedFd)>,
    pub cgroup: cgroup::Entry,
    /// v1 groups to show in /sys/fs/cgroup, by controller; `None` on a machine with only v2.
    pub cgroup_v1: Option<&'a [(String, PathBuf)]>,
    /// Shared memory of the container whose `ipc` namespace is joined, as a mount to be attached.
    pub shared_memory: Option<OwnedFd>,
    /// Keep a pipe for standard input (without a terminal).
    pub stdin: bool,
    /// Size of the terminal, if there is one and it is known.
    pub terminal: Option<(u16, u16)>,
    /// Pid 1 is an init that reaps and forwards signals.
    pub init: bool,
    /// `None`: the program is executed at once, and the specification has no hooks.
    pub lifecycle: Option<Lifecycle>,
}

/// A launch and its descriptors, in the order of their slots.
#[derive(Debug)]
pub struct Lowered {
    pub launch: Launch,
    pub descriptors: Vec<OwnedFd>,
}

/// Why a specification cannot be launched.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    #[error("`{0}` is missing in the runtime specification")]
    Missing(&'static str),
    #[error("`{0}` of the runtime specification is not supported")]
    Unsupported(String),
    #[error("`{0}` of the runtime specification needs SELinux, which this host does not have")]
    NoSelinux(&'static str),
    #[error("cannot mount `{}` on `{target}`", path.display())]
    Source { path: PathBuf, target: String, source: std::io::Error },
    #[error("cannot make the id mapping of the mount on `{target}`")]
    IdMap { target: String, source: std::io::Error },
    #[error("cannot join the {kind} namespace `{}`", path.display())]
    Namespace { kind: LinuxNamespaceType, path: PathBuf, source: std::io::Error },
    #[error("the process {0} has ended")]
    Ended(i32),
    #[error("`{0}` contains a zero byte or is not text")]
    Text(String),
    #[error("failed to connect with seccomp agent at `{}` (`linux.seccomp.listenerPath`)", path.display())]
    Listener { path: PathBuf, source: std::io::Error },
    #[error("cannot compile the system call filter")]
    Seccomp(#[from] SeccompError),
}

/// Descriptors collected on the way.
#[derive(Debug, Default)]
struct Slots(Vec<OwnedFd>);

impl Slots {
    fn add(&mut self, descriptor: OwnedFd) -> Slot {
        self.0.push(descriptor);
        self.0.len() - 1
    }

    fn cgroup(&mut self, entry: cgroup::Entry) -> CgroupEntry {
        CgroupEntry {
            v2: entry.v2.map(|descriptor| self.add(descriptor)),
            v1: entry.v1.into_iter().map(|descriptor| self.add(descriptor)).collect(),
        }
    }
}

/// Lowers a container.
///
/// # Errors
/// Fields that cannot be honoured (nothing is ignored), host files and namespaces that cannot be opened.
pub fn lower(spec: &Spec, extras: Extras<'_>) -> Result<Lowered, LowerError> {
    unsupported::check(spec)?;
    if extras.lifecycle.is_none() && spec.hooks().is_some() {
        return Err(LowerError::Unsupported("hooks".to_owned()));
    }
    let process = spec.process().as_ref().ok_or(LowerError::Missing("process"))?;
    let linux = spec.linux().as_ref().ok_or(LowerError::Missing("linux"))?;
    let mut slots = Slots::default();
    let cgroup = slots.cgroup(extras.cgroup);
    let namespaces = namespaces(spec, extras.joined, &mut slots)?;
    let stdio = stdio(process, extras.stdin, extras.terminal);

    let mut steps = vec![Step::IsolateMounts { slave: mounts::needs_slave(spec) }];
    steps.extend(mounts::label(linux));
    let propagation = mounts::root_propagation(linux)?;
    root(extras.root.clone(), (propagation, lifecycle::looks_for_the_root(spec)), &mut slots, &mut steps)?;
    let late = mounts::mounts(spec, (&extras.root, extras.cgroup_v1), &mut slots, &mut steps)?;
    steps.extend(extras.shared_memory.and_then(|memory| mounts::shared_memory(spec, memory, &mut slots)));
    mounts::devices(spec, &mut steps)?;
    let described = extras.lifecycle.as_ref();
    let described = described.map(|it| Described { state: &it.state, status: "creating", pid: None });
    let filter =
        linux.seccomp().as_ref().map(|profile| restrict::filter(profile, described, &mut slots)).transpose()?;
    let gate = extras.lifecycle.map(|lifecycle| lifecycle.before_pivot(spec, &mut slots, &mut steps));
    steps.push(Step::PivotRoot);
    steps.extend(propagation.map(Step::RootPropagation));
    if let Stdio::Terminal { .. } = stdio {
        steps.push(Step::Console { bind_console: true });
    }
    steps.extend(spec.hostname().clone().map(Step::Hostname));
    steps.extend(spec.domainname().clone().map(Step::Domainname));
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    steps.extend(sysctls.into_iter().map(|(name, value)| Step::Sysctl { name: name.clone(), value: value.clone() }));
    let paths = linux.readonly_paths().iter().flatten();
    steps.extend(paths.map(|target| Step::ReadonlyPath { target: target.clone() }));
    let paths = linux.masked_paths().iter().flatten();
    steps.extend(paths.map(|target| Step::MaskPath { target: target.clone() }));
    // Made while the root can still be written to.
    steps.push(Step::WorkingDirectory { target: working_directory(process)?, create: true, last: false });
    steps.extend(late);
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        steps.push(Step::ReadonlyRoot);
    }
    steps.extend([Step::EveryCpu, session(stdio)]);
    steps.extend(linux.personality().as_ref().map(restrict::personality).transpose()?);
    let mut as_user = vec![Step::WorkingDirectory { target: working_directory(process)?, create: false, last: true }];
    if gate.is_some() {
        let (argv, env) = exec_arguments(process)?;
        as_user.push(Step::FindProgram { argv, env });
    }
    let filter = restrict::restrict(process, filter, as_user, &mut steps)?;
    let hooks = gate.and_then(|gate| gate.before_program(spec, &mut steps));
    steps.push(Step::CloseOnExec);
    steps.extend(filter);
    steps.extend(hooks);
    if extras.init {
        // As confined as the program: pid 1 must be no way up.
        steps.push(Step::Reaper);
    }
    steps.push(exec(process)?);
    let pipe_label = restrict::pipe_label(process, linux.mount_label().as_deref());
    Ok(Lowered { launch: Launch { namespaces, cgroup, stdio, pipe_label, steps }, descriptors: slots.0 })
}

fn root(
    root: Root,
    (propagation, in_place): (Option<Propagation>, bool),
    slots: &mut Slots,
    steps: &mut Vec<Step>,
) -> Result<(), LowerError> {
    match root {
        Root::Overlay { at, overlay, trees } => {
            steps.push(Step::RootOverlay { at, overlay });
            steps.extend(trees.into_iter().map(|(target, overlay)| Step::Overlay { target, overlay }));
        }
        Root::Bind(path) => steps.push(Step::RootBind {
            source: mounts::open_source(&path, "/", slots)?,
            in_place,
            propagation: match propagation {
                Some(Propagation { kind: PropagationKind::Slave, .. }) => PropagationKind::Slave,
                // Shared later, inside: never with the host.
                _ => PropagationKind::Private,
            },
        }),
    }
    Ok(())
}

fn namespaces(
    spec: &Spec,
    mut joined: Vec<(NamespaceKind, OwnedFd)>,
    slots: &mut Slots,
) -> Result<Vec<Namespace>, LowerError> {
    let mut namespaces = Vec::new();
    let wanted = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    for namespace in wanted.into_iter().flatten() {
        let kind = match namespace.typ() {
            LinuxNamespaceType::Mount => NamespaceKind::Mount,
            LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
            LinuxNamespaceType::Uts => NamespaceKind::Uts,
            LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
            LinuxNamespaceType::Pid => NamespaceKind::Pid,
            LinuxNamespaceType::Network => NamespaceKind::Net,
            LinuxNamespaceType::User => NamespaceKind::User,
            LinuxNamespaceType::Time => NamespaceKind::Time,
        };
        if joined.iter().any(|(other, _)| *other == kind) {
            continue;
        }
        namespaces.push(match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Namespace::Join(kind, slots.add(open_namespace(namespace.typ(), path)?)),
            None => Namespace::New(kind),
        });
    }
    for (kind, descriptor) in joined.drain(..) {
        namespaces.push(Namespace::Join(kind, slots.add(descriptor)));
    }
    if !namespaces.contains(&Namespace::New(NamespaceKind::Mount)) {
        return Err(LowerError::Unsupported("a container without a mount namespace of its own".to_owned()));
    }
    Ok(namespaces)
}

const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The namespace that a kernel parameter is one of; `None`: it is the whole host's.
pub fn namespace_of_sysctl(dotted: &str) -> Option<LinuxNamespaceType> {
    match dotted {
        name if name.starts_with("net.") => Some(LinuxNamespaceType::Network),
        name if name.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&name) => Some(LinuxNamespaceType::Ipc),
        "kernel.domainname" | "kernel.hostname" => Some(LinuxNamespaceType::Uts),
        _ => None,
    }
}

fn open_namespace(kind: LinuxNamespaceType, path: &Path) -> Result<OwnedFd, LowerError> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|error| LowerError::Namespace { kind, path: path.to_owned(), source: error.into() })
}

fn stdio(process: &Process, stdin: bool, terminal: Option<(u16, u16)>) -> Stdio {
    if process.terminal() != Some(true) {
        return Stdio::Pipes { stdin };
    }
    let size = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    let asked = process.console_size().map(|size_asked| (size(size_asked.height()), size(size_asked.width())));
    let (rows, columns) = terminal.or(asked).unwrap_or((24, 80));
    Stdio::Terminal { rows, columns }
}

fn session(stdio: Stdio) -> Step {
    match stdio {
        Stdio::Terminal { .. } => Step::TerminalSession,
        Stdio::Pipes { .. } => Step::NewSession,
    }
}

fn working_directory(process: &Process) -> Result<String, LowerError> {
    let path = process.cwd();
    let text = path.to_str().filter(|text| text.starts_with('/'));
    text.map(str::to_owned).ok_or_else(|| LowerError::Text(format!("process.cwd: {}", path.display())))
}

/// The program's arguments and its environment.
type Arguments = (Vec<CString>, Vec<CString>);

fn exec_arguments(process: &Process) -> Result<Arguments, LowerError> {
    let texts = |texts: &Option<Vec<String>>| -> Result<Vec<CString>, LowerError> {
        let texts = texts.iter().flatten();
        texts.map(|text| CString::new(text.as_str()).map_err(|_| LowerError::Text(text.clone()))).collect()
    };
    let argv = texts(process.args())?;
    if argv.is_empty() {
        return Err(LowerError::Missing("process.args"));
    }
    Ok((argv, texts(process.env())?))
}

fn exec(process: &Process) -> Result<Step, LowerError> {
    exec_arguments(process).map(|(argv, env)| Step::Exec { argv, env })
}

#[cfg(test)]
mod tests;
