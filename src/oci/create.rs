//! `create` and `run`.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use oci_spec::runtime::{Hook, Hooks, Spec};

use crate::engine::cgroup::{Cgroup, Entry, Hierarchies};
use crate::engine::lower::{self, Extras, Lifecycle, Root};
use crate::init::{self, Launch, Step};
use crate::oci::arguments::{CreateOptions, Global, Io};
use crate::oci::bundle::{self, Bundle};
use crate::oci::console::{self, Console};
use crate::oci::error::OciError;
use crate::oci::group;
use crate::oci::launch::{self, Inheritance, Progress, Starting};
use crate::oci::state::{Container, Record};
use crate::oci::systemd::{self, Unit};
use crate::oci::wait::Forwarded;
use crate::oci::{Outcome, delete};
use crate::sys::message::{self, Wait};
use crate::sys::process;

/// A container whose process waits for its start, or runs.
struct Made {
    container: Container,
    record: Record,
    spec: Spec,
    cgroup: Cgroup,
    starting: Starting,
    console: Option<Console>,
}

/// Sockets that were handed to this process (sd_listen_fds(3)), from descriptor 3 on: the container's program gets them.
#[derive(Clone, Copy)]
struct Listening(u32);

impl Listening {
    fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        let ours = number("LISTEN_PID") == Some(std::process::id());
        Self(number("LISTEN_FDS").filter(|_| ours).unwrap_or(0))
    }

    /// The program is process 1 of its pid namespace.
    fn tell(self, spec: &mut Spec) {
        if let (1.., Some(process)) = (self.0, spec.process_mut()) {
            let mut environment = process.env().clone().unwrap_or_default();
            environment.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
            environment.extend([format!("LISTEN_FDS={}", self.0), "LISTEN_PID=1".to_owned()]);
            process.set_env(Some(environment));
        }
    }
}

/// How many descriptors from 3 on are the container's.
pub(super) fn preserved(options: &CreateOptions) -> u32 {
    Listening::from_environment().0.saturating_add(options.io.preserve_fds)
}

/// What [`start`] has made.
type Started = (Starting, Cgroup, Option<Console>);

pub(super) fn create(global: &Global, options: &CreateOptions) -> Result<(), OciError> {
    make(global, options, true).map(drop)
}

/// Waits for the container's end unless it is detached; its exit status.
pub(super) fn run(global: &Global, options: &CreateOptions) -> Outcome {
    let signals = if options.detach { None } else { Some(Forwarded::block()?) };
    let made = make(global, options, false)?;
    poststart(&made.record, &made.spec)?;
    let Some(signals) = signals else { return Ok(0) };
    let pidfd = made.starting.pidfd.as_fd();
    let carried = made.console.map_or(Ok(()), |console| console.carry(pidfd));
    let code = carried.and_then(|()| signals.until_end(made.starting.pid, pidfd));
    if !options.keep {
        group::remove(&made.cgroup, made.record.unit.as_ref())?;
        delete::forget(&made.container, &made.record, &made.spec)?;
    }
    code
}

fn make(global: &Global, options: &CreateOptions, wait: bool) -> Result<Made, OciError> {
    let mut bundle = bundle::load(&options.bundle, options.config.as_deref())?;
    Listening::from_environment().tell(&mut bundle.spec);
    bundle.warnings.iter().for_each(|warning| super::log(global, "warning", warning));
    let container = Container::reserve(global, &options.id)?;
    let mut record = match record(global, &container, &bundle) {
        Ok(record) => record,
        Err(error) => {
            container.remove()?;
            return Err(error);
        }
    };
    let made = container
        .save_config(&bundle.config)
        .and_then(|()| start(&container, &mut record, &bundle.spec, options, wait));
    match made {
        Ok((starting, cgroup, console)) => Ok(Made { container, record, spec: bundle.spec, cgroup, starting, console }),
        Err(error) => {
            // The first error is the one to tell; hooks that undo what others did still run.
            let _ = delete::remove(&container, Some(&record));
            Err(error)
        }
    }
}

fn record(global: &Global, container: &Container, bundle: &Bundle) -> Result<Record, OciError> {
    let linux = bundle.spec.linux().as_ref();
    let wanted = linux.and_then(|linux| linux.cgroups_path().as_deref()).unwrap_or(Path::new(""));
    let (cgroup, unit) = if global.systemd_cgroup {
        (String::new(), Some(Unit::parse(&wanted.to_string_lossy(), &container.id)?))
    } else {
        (group::path(wanted, &container.id), None)
    };
    Ok(Record {
        oci_version: bundle.spec.version().clone(),
        id: container.id.clone(),
        bundle: bundle.path.clone(),
        rootfs: bundle.rootfs.clone(),
        annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        created: jiff::Timestamp::now().to_string(),
        cgroup,
        unit,
        pid: 0,
        start_time: 0,
    })
}

fn start(
    container: &Container,
    record: &mut Record,
    spec: &Spec,
    options: &CreateOptions,
    wait: bool,
) -> Result<Started, OciError> {
    let terminal = spec.process().as_ref().is_some_and(|process| process.terminal() == Some(true));
    let console = Console::open(terminal, options.io.console_socket.as_deref(), wait || options.detach)?;
    let mut placeholder = None;
    if let Some(unit) = &record.unit {
        let (path, keeps) = unit.start(&container.id)?;
        record.cgroup = path;
        placeholder = Some(keeps);
    }
    let hierarchies = record.hierarchies()?;
    let mut cgroup = group::make(&hierarchies, &record.cgroup, spec)?;
    if record.unit.is_none()
        && let Err(error) = group::check_unused(&cgroup, &record.cgroup)
    {
        // It is somebody else's: nothing in it may be ended.
        record.cgroup.clear();
        return Err(error);
    }
    if let Some(unit) = &record.unit {
        unit.tell_limits(&cgroup)?;
    }
    let gate = wait.then(|| container.make_gate()).transpose()?;
    let lowered = lower(record, spec, options, (&hierarchies, &cgroup), gate)?;
    let with = Inheritance { console: console.as_ref().map(Console::for_child), preserve_fds: preserved(options) };
    let mut starting = launch::begin(lowered, Some(spec), &with)?;
    let attached = attached_later(record).map_or(Ok(()), |unit| unit.attach(starting.pid));
    drop(placeholder);
    let done = attached.and_then(|()| group::restrict(&mut cgroup, &hierarchies, &record.cgroup, spec));
    let done = done.and_then(|()| follow(container, record, spec, &mut starting));
    let done = done.and_then(|()| tell(&options.io, starting.pid, starting.pidfd.as_fd()));
    match done {
        Ok(()) => Ok((starting, cgroup, console)),
        Err(error) => {
            starting.abandon();
            Err(error)
        }
    }
}

fn lower(
    record: &Record,
    spec: &Spec,
    options: &CreateOptions,
    (hierarchies, cgroup): (&Hierarchies, &Cgroup),
    gate: Option<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)>,
) -> Result<lower::Lowered, OciError> {
    let extras = Extras {
        root: Root::Bind(record.rootfs.clone()),
        joined: Vec::new(),
        cgroup: if attached_later(record).is_some() { Entry::default() } else { cgroup.entry()? },
        cgroup_v1: (!hierarchies.is_unified()).then(|| cgroup.v1_directories()),
        shared_memory: None,
        stdin: true,
        terminal: None,
        init: false,
        lifecycle: Some(Lifecycle { state: record.for_hooks(), gate }),
    };
    let mut lowered = lower::lower(&group::own_only(spec, hierarchies, cgroup), extras)?;
    if options.no_new_keyring {
        lowered.launch.steps.retain(|step| !matches!(step, Step::SessionKeyring));
    }
    keep_groups(spec, &mut lowered.launch);
    Ok(lowered)
}

/// podman's `--group-add keep-groups`: the processes have the caller's groups.
pub(super) fn keep_groups(spec: &Spec, launch: &mut Launch) {
    if spec.annotations().as_ref().is_some_and(|all| all.contains_key("run.oci.keep_original_groups")) {
        launch.steps.retain(|step| !matches!(step, Step::Groups(_)));
    }
}

/// The scope that the process is put into when it is there, and waits: an ordinary user cannot have it born there.
fn attached_later(record: &Record) -> Option<&Unit> {
    record.unit.as_ref().filter(|_| !systemd::is_system())
}

/// Lets the process run until it waits to be started, or runs its program.
fn follow(container: &Container, record: &mut Record, spec: &Spec, starting: &mut Starting) -> Result<(), OciError> {
    record.pid = starting.pid;
    record.start_time = process::start_time(starting.pid).unwrap_or(0);
    container.save(record)?;
    starting.go_on()?;
    while starting.progress()? == Progress::Mounted {
        #[allow(deprecated, reason = "callers still use it")]
        let prestart = Hooks::prestart;
        run_hooks(record, spec, ("prestart", prestart), "creating")?;
        run_hooks(record, spec, ("createRuntime", Hooks::create_runtime), "creating")?;
        starting.go_on()?;
    }
    Ok(())
}

/// Tells the caller which process it is: `--pidfd-socket` and `--pid-file`.
pub(super) fn tell(io: &Io, pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), OciError> {
    if let Some(path) = &io.pidfd_socket {
        // The receiver takes the bytes for the file's name.
        let sent = message::send(console::connect(path)?, b"pidfd", &[pidfd], Wait::Yes);
        sent.map_err(OciError::io("send the process to", path))?;
    }
    let Some(path) = &io.pid_file else { return Ok(()) };
    crate::base::disk::replace(path, pid.to_string().as_bytes(), crate::base::disk::Durability::Kill)
        .map_err(OciError::io("write", path))
}

/// One of the specification's lists.
type ListOfHooks = fn(&Hooks) -> &Option<Vec<Hook>>;

/// Hooks of one kind, in this process's namespaces; the first failure ends it.
fn run_hooks(
    record: &Record,
    spec: &Spec,
    (kind, list): (&'static str, ListOfHooks),
    status: &str,
) -> Result<(), OciError> {
    let Some(hooks) = spec.hooks().as_ref() else { return Ok(()) };
    let hooks = lower::hooks(list(hooks), &lower::own_environment());
    if hooks.is_empty() {
        return Ok(());
    }
    let pid = (status != "stopped").then_some(record.pid);
    let state = init::state_json(&record.for_hooks(), status, pid).map_err(OciError::io("write", "the state"))?;
    for (index, hook) in hooks.iter().enumerate() {
        init::run_hook(hook, &state).map_err(|source| OciError::Hook { kind, index, source })?;
    }
    Ok(())
}

/// The specification has their failures logged only, and the container go on.
pub(super) fn poststart(record: &Record, spec: &Spec) -> Result<(), OciError> {
    run_hooks(record, spec, ("poststart", Hooks::poststart), "running")
}

pub(super) fn poststop(record: &Record, spec: &Spec) -> Result<(), OciError> {
    run_hooks(record, spec, ("poststop", Hooks::poststop), "stopped")
}
