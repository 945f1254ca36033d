//! What the forked child of the keeper does before it becomes the container: a list of steps (data) and their interpreter.
//!
//! The engine lowers a runtime specification to a [`Launch`]; the keeper forks and the child runs the steps in order.
//! Order-critical code is therefore data that tests can read. File descriptors travel beside the launch and are named
//! by their index ([`Slot`]).

mod console;
mod exec;
mod fault;
mod hooks;
mod inroot;
mod mounts;
mod other;
mod pipes;
mod reaper;
mod restrict;
mod run;
mod spawn;

use std::ffi::CString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use hooks::{HookError, run_hook, state_json};
pub use other::other_runtime;
pub use pipes::Pipes;
pub use reaper::{PROGRAM, REAPER_ROLE, reaper_main};
pub(crate) use run::{ABOUT_TO_EXECUTE, FAILED, MOUNTED, MOVED, WAITING};
pub use run::{Inherited, Streams, prepare_binds};
pub use spawn::spawn;

pub use crate::sys::scheduling::Scheduling;

/// Index into the file descriptors sent along with a message.
pub type Slot = usize;

/// Everything the keeper needs to make one process: a container's pid 1, or a process inside a running container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub namespaces: Vec<Namespace>,
    pub cgroup: CgroupEntry,
    pub stdio: Stdio,
    /// The SELinux label of pipes that are made for it.
    pub pipe_label: Option<String>,
    /// Run by the child, in order; the last one is [`Step::Exec`], or [`Step::OtherRuntime`].
    pub steps: Vec<Step>,
}

/// One namespace of the new process. A kind that is not named is the keeper's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    New(NamespaceKind),
    Join(NamespaceKind, Slot),
}

impl Namespace {
    pub fn kind(self) -> NamespaceKind {
        match self {
            Self::New(kind) | Self::Join(kind, _) => kind,
        }
    }
}

/// Namespaces of namespaces(7), but for time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NamespaceKind {
    Pid,
    Net,
    Mount,
    Uts,
    Ipc,
    Cgroup,
    User,
    Time,
}

impl NamespaceKind {
    /// Its file below `/proc/PID/ns`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Net => "net",
            Self::Mount => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Time => "time",
        }
    }

    /// The `CLONE_NEW*` flag with which a child is made in a new one; none for those that are made otherwise: the child takes
    /// a cgroup namespace when it is in its cgroups, and a time namespace's offsets are set before anybody is in it.
    pub fn clone_flag(self) -> u64 {
        match self {
            Self::Cgroup | Self::Time => 0,
            kind => u64::from(kind.flag().unsigned_abs()),
        }
    }

    /// The `CLONE_NEW*` flag.
    pub fn flag(self) -> i32 {
        match self {
            Self::Pid => libc::CLONE_NEWPID,
            Self::Net => libc::CLONE_NEWNET,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::User => libc::CLONE_NEWUSER,
            Self::Time => libc::CLONE_NEWTIME,
        }
    }
}

/// How the process gets into its cgroups before it runs any step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CgroupEntry {
    /// A cgroup2 directory: the process is cloned into it.
    pub v2: Option<Slot>,
    /// `cgroup.procs` files of v1 hierarchies, opened for writing: the parent attaches the blocked child.
    pub v1: Vec<Slot>,
}

/// Standard streams of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Pipes for output and errors; one for input when `stdin` (else /dev/null).
    Pipes { stdin: bool },
    /// A pseudo-terminal from the container's own devpts, as controlling terminal. Needs [`Step::Console`].
    Terminal { rows: u16, columns: u16 },
}

/// One thing the child does. Paths named `target` are inside the container and are resolved with
/// `openat2(RESOLVE_IN_ROOT)` below the new root, missing parts being created, until [`Step::PivotRoot`] has run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Step {
    /// File systems that later steps mount show all their files with this SELinux label.
    MountLabel(String),
    /// Makes every mount of the new mount namespace private (or slave, when `slave`), recursively.
    IsolateMounts {
        slave: bool,
    },
    /// Mounts the container's root on `at` (a host path, empty directory) and makes it the root that targets refer to.
    RootOverlay {
        at: PathBuf,
        overlay: Overlay,
    },
    /// A host directory (an OCI bundle's rootfs) that the parent opened, as the root that targets refer to. It is attached
    /// over this namespace's own root, so no path of the host is walked; or where the directory itself lies, when
    /// `in_place`, for those who look for it there before [`Step::PivotRoot`].
    RootBind {
        source: Slot,
        in_place: bool,
        propagation: PropagationKind,
    },
    /// A further overlay inside the root, such as the host image's `/usr`.
    Overlay {
        target: String,
        overlay: Overlay,
    },
    /// `mount(2)` of a kernel file system.
    Mount {
        fstype: String,
        source: String,
        target: String,
        flags: MountFlags,
        data: String,
        /// It begins with a copy of what the target holds.
        copy_up: bool,
    },
    /// A bind mount.
    Bind {
        source: BindSource,
        target: String,
        recursive: bool,
        flags: MountFlags,
        clear: Cleared,
        /// For it and the mounts below.
        recursive_flags: RecursiveFlags,
        propagation: Option<Propagation>,
        id_map: Option<IdMap>,
    },
    /// What an image holds at `subpath` (all of it when that is empty), read-only. Layers are host paths, top-most first.
    Image {
        layers: Vec<PathBuf>,
        subpath: String,
        target: String,
    },
    /// A directory inside the root.
    Directory {
        target: String,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// A device node; falls back to binding the host's where nodes cannot be made (user namespaces).
    Device {
        target: String,
        kind: DeviceKind,
        major: u32,
        minor: u32,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Symlink {
        target: String,
        to: String,
    },
    /// Opens a pseudo-terminal in the container's devpts, hands the master to the parent, makes the slave
    /// stdin/stdout/stderr, and binds it on /dev/console when `bind_console`.
    Console {
        bind_console: bool,
    },
    /// `pivot_root(2)` into the root, old root detached; from here on targets are ordinary paths.
    PivotRoot,
    /// How mounts spread between the container's root and what it is a copy of, or others are copies of.
    RootPropagation(Propagation),
    /// Tells the parent that the mounts are made ([`MOUNTED`]) and waits for it to say go once more.
    Rendezvous,
    /// Runs programs of the host, before [`Step::PivotRoot`], or of the container, after it.
    Hooks {
        /// What the specification calls them.
        kind: String,
        hooks: Vec<Hook>,
        /// The state of the runtime specification as JSON; pid and status are filled in.
        state: String,
        status: String,
    },
    /// Fails unless the program to execute is there and may be executed.
    FindProgram {
        argv: Vec<CString>,
        env: Vec<CString>,
    },
    /// Tells the parent that all is ready ([`WAITING`]), waits for a byte from the FIFO `start`, and from then on reports
    /// to the FIFO `result` instead.
    AwaitStart {
        start: Slot,
        result: Slot,
    },
    /// Remounts the root read-only.
    ReadonlyRoot,
    /// Makes a mount of an earlier step read-only.
    ReadonlyMount {
        target: String,
    },
    /// Bind-remounts a path read-only; a missing path is not an error.
    ReadonlyPath {
        target: String,
    },
    /// Hides a path: /dev/null over a file, an empty read-only tmpfs over a directory; missing is not an error.
    MaskPath {
        target: String,
    },
    Hostname(String),
    Domainname(String),
    /// Written below /proc/sys; dots in the name are slashes in the path.
    Sysctl {
        name: String,
        value: String,
    },
    Rlimit {
        resource: Rlimit,
        soft: u64,
        hard: u64,
    },
    OomScoreAdj(i32),
    /// As `ioprio_set(2)` takes it: class in the upper bits, priority in the lower ones.
    IoPriority(u16),
    Scheduler(Scheduling),
    /// All CPUs of the control group, whatever whoever started this process was kept to.
    EveryCpu,
    /// The CPUs that the program may use, by number.
    Affinity(Vec<usize>),
    /// `personality(2)`.
    Personality(u32),
    /// The program shall run under this AppArmor profile.
    AppArmor(String),
    /// The program shall run with this SELinux label.
    ProcessLabel(String),
    /// A new session keyring, so that the keys of whoever started the container stay out of it.
    SessionKeyring,
    Umask(u32),
    /// New session; for processes without a terminal.
    NewSession,
    /// New session, with the terminal of [`Step::Console`] as the controlling one.
    TerminalSession,
    Groups(Vec<u32>),
    /// `setgid` and `setuid`, keeping capabilities for the [`Step::Capabilities`] that follows.
    Identity {
        uid: u32,
        gid: u32,
    },
    /// Bit masks by capability number. The bounding set is dropped to `bounding`.
    Capabilities {
        bounding: u64,
        permitted: u64,
        effective: u64,
        inheritable: u64,
        ambient: u64,
    },
    /// What is open closes when the program is executed; before a filter that may forbid it.
    CloseOnExec,
    /// All that are permitted become effective again: a change of user leaves none.
    RegainCapabilities,
    NoNewPrivileges,
    /// Compiled filters (arrays of `struct sock_filter`, native byte order), installed in order.
    Seccomp {
        filters: Vec<Vec<u8>>,
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
        /// Who decides about what the filter leaves open.
        listener: Option<Listener>,
    },
    /// Changes to the directory inside the container, making it when missing and `create`. One that this process may not
    /// enter is left to the `last` step of this kind, which is done as another user; it is enough that one of them may.
    WorkingDirectory {
        target: String,
        create: bool,
        last: bool,
    },
    /// Stays as pid 1 that reaps orphans and forwards signals; the next steps run in its child.
    Reaper,
    /// Goes on in a new process, a child of this one's parent, in the pid namespace that is joined: nobody there can look into
    /// it before it is as confined as its program, and has let go of all that is the host's. After it only a session, a filter
    /// and [`Step::Exec`].
    Rebirth,
    /// Another OCI runtime makes the container from `bundle`, with the root that is mounted by now. The last step, in place of
    /// [`Step::Exec`]: the container's process is another one, which is reported ([`MOVED`]).
    OtherRuntime {
        program: PathBuf,
        arguments: Vec<String>,
        bundle: PathBuf,
        id: String,
    },
    /// `execve(2)`. `argv[0]` without a slash is looked up in `PATH` of `env`.
    Exec {
        argv: Vec<CString>,
        env: Vec<CString>,
    },
}

/// An overlay mount. Layers are host paths, top-most first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overlay {
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// No syncing of the upper layer: it is worth nothing after a power loss.
    pub volatile: bool,
}

/// What a bind mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindSource {
    /// A host file or directory that the parent opened (`O_PATH`).
    Host(Slot),
    /// A mount that is attached nowhere yet.
    Detached(Slot),
    /// A path inside the root, with what earlier steps have mounted there.
    Root(String),
}

/// How a mount shows other owners of files than its file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// A user namespace with the mapping.
    pub namespace: Slot,
    /// The mounts below, too.
    pub recursive: bool,
}

/// Who gets the descriptor that a filter notifies, and the container process state of the runtime specification with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// A connection to it.
    pub socket: Slot,
    pub metadata: Option<String>,
    /// The state of the runtime specification as JSON; pid and status are filled in.
    pub state: String,
    pub status: String,
    /// `None`: this process's own.
    pub pid: Option<i32>,
}

/// A program that the runtime specification's `hooks` name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    /// The first one is the program's own name.
    pub args: Vec<String>,
    /// `NAME=value`; nothing else is in its environment.
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// `MS_*` flags that matter, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_dev: bool,
    pub no_exec: bool,
    pub no_atime: bool,
    pub rel_atime: bool,
    pub strict_atime: bool,
    pub no_dir_atime: bool,
    pub no_sym_follow: bool,
}

/// What a bind mount does not keep of its source's flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// `MOUNT_ATTR_*` bits that are named.
    pub asked: u64,
    /// Others, as far as that is allowed.
    pub rest: u64,
}

/// What changes for a mount and all below it, as `MOUNT_ATTR_*` bits of mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecursiveFlags {
    pub set: u64,
    pub clear: u64,
}

/// How mounts below a mount travel between mount namespaces (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    pub kind: PropagationKind,
    pub recursive: bool,
}

/// Kinds of propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropagationKind {
    Private,
    Shared,
    Slave,
    Unbindable,
}

/// Kinds of device nodes (mknod(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

/// Resource limits by their `RLIMIT_*` name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rlimit {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// How a launch failed: at which step, with which error of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchFailure {
    /// Index into [`Launch::steps`]; `None`: before the first one (clone, namespaces, cgroups).
    pub step: Option<usize>,
    pub errno: i32,
    /// What was being done, when the step does several things (such as a path).
    pub detail: String,
}
