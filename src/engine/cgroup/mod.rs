//! Control groups: one per container below one per project, in v1, v2 and hybrid set-ups.
//!
//! On a machine with both, a controller is used where it is. Freezing, killing and device rules take cgroup2 as soon as it
//! is mounted, even without controllers: entering it costs microseconds, attaching to v1 groups milliseconds.
//! v1 groups are therefore made only for limits that are asked for.
//!
//! Groups lie at the top of each hierarchy (`/sys/fs/cgroup/PARENT/PROJECT/CONTAINER`). Where systemd manages the tree,
//! this is a subtree that it did not make and leaves alone, as those of Docker's `cgroupfs` driver.

mod devices;
mod hierarchy;
mod limits;
mod usage;

use std::cell::RefCell;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use oci_spec::runtime::LinuxResources;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::process::Pid;
use rustix::process::Signal;

use crate::engine::cgroup::hierarchy::V2;
use crate::engine::cgroup::limits::Limits;
use crate::engine::processes;
use crate::sys::bpf;
use crate::sys::bpf::Instruction;
use crate::sys::userns::Ids;

pub use hierarchy::Hierarchies;
pub use usage::Usage;

/// How long [`Cgroup::remove`] waits for the last process to be gone.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup hierarchy is mounted; mount cgroup2 on `/sys/fs/cgroup`")]
    NotMounted,
    #[error(
        "`{attribute}` needs the cgroup controller `{controller}`, which this kernel does not offer; enable it (see `cgroup_enable=` of the kernel's command line) or take the limit out"
    )]
    NoController { attribute: &'static str, controller: &'static str },
    #[error("`{0}` needs version 1 of control groups, which this host does not use; take it out")]
    OnlyV1(&'static str),
    #[error(
        "`{attribute}` needs a control group, and this user has been given none; log in through systemd, or run as root (see `rcompose doctor`)"
    )]
    NotDelegated { attribute: &'static str },
    #[error("the kernel refuses `{value}` for `{}` (attribute `{attribute}`)", path.display())]
    Refused { attribute: &'static str, path: PathBuf, value: String, source: io::Error },
    #[error("cannot {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("processes are still running in cgroup `{}`", .0.display())]
    Busy(PathBuf),
    #[error("`{0}` is not a cgroup path: it must be relative and without `.` and `..`")]
    BadPath(String),
}

impl CgroupError {
    fn read(path: &Path, source: io::Error) -> Self {
        Self::Io { doing: "read", path: path.to_owned(), source }
    }

    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Descriptors with which a new process enters its group: see `init::CgroupEntry`.
#[derive(Debug, Default)]
pub struct Entry {
    /// The cgroup2 directory.
    pub v2: Option<OwnedFd>,
    /// `cgroup.procs` files of v1 groups, open for writing.
    pub v1: Vec<OwnedFd>,
}

/// A container's or project's group, in all hierarchies where it exists.
#[derive(Clone, Debug)]
pub struct Cgroup {
    v2: Option<PathBuf>,
    /// Controller and directory.
    v1: Vec<(String, PathBuf)>,
    /// The first process of what is looked at and has no group.
    ungrouped: Option<i32>,
}

thread_local! {
    /// The device program that was loaded last. Most containers have the same one, and the kernel's check of it takes longer
    /// than making the group.
    static LOADED: RefCell<Option<(Vec<Instruction>, OwnedFd)>> = const { RefCell::new(None) };
}

fn with_loaded<T>(program: Vec<Instruction>, action: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
    LOADED.with_borrow_mut(|last| {
        let loaded = match last.take() {
            Some((known, loaded)) if known == program => loaded,
            _ => bpf::load_device_program(&program)?,
        };
        action(last.insert((program, loaded)).1.as_fd())
    })
}

impl Cgroup {
    /// Makes the group `path` (such as `rcompose/project/container`) with these limits.
    /// The strings say what was asked for, could not be had, and is left out as Docker does.
    ///
    /// # Errors
    /// A controller that the kernel lacks, a value it refuses. What was made is removed again.
    pub fn create(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(Self, Vec<String>), CgroupError> {
        Self::create_with(hierarchies, path, resources, false)
    }

    /// [`Cgroup::create`], also in v1 hierarchies where no limit is asked for: for callers that name a group and look for it.
    ///
    /// # Errors
    /// As there.
    pub fn create_everywhere(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(Self, Vec<String>), CgroupError> {
        Self::create_with(hierarchies, path, resources, true)
    }

    fn create_with(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
        everywhere: bool,
    ) -> Result<(Self, Vec<String>), CgroupError> {
        check(path)?;
        let mut group = Self { v2: None, v1: Vec::new(), ungrouped: None };
        let mut made = group.make(hierarchies, path, resources);
        if everywhere && made.is_ok() {
            let all =
                hierarchies.v1.iter().map(|(controller, mount)| group.v1_directory(controller, mount, path).map(drop));
            made = all.collect::<Result<(), _>>().and(made);
        }
        match made {
            Ok(left_out) => Ok((group, left_out)),
            Err(error) => {
                // Nothing has entered it; if it cannot be removed, the first error is still the one to tell.
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// The group of that path as far as it exists.
    ///
    /// # Errors
    /// A path that leaves the hierarchy.
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self, CgroupError> {
        check(path)?;
        let v2 = hierarchies.v2.as_ref().map(|v2| v2.mount.join(path)).filter(|path| path.is_dir());
        let v1 = hierarchies.v1.iter().map(|(controller, mount)| (controller.clone(), mount.join(path)));
        Ok(Self { v2, v1: v1.filter(|(_, path)| path.is_dir()).collect(), ungrouped: None })
    }

    /// The group of that path that the process is in, to look at: who asks need not be the user or in the session that it was given
    /// to. Where there is none, the processes of the same pid namespace stand for it.
    ///
    /// # Errors
    /// A path that is none.
    pub fn around(hierarchies: &Hierarchies, path: &str, pid: i32) -> Result<Self, CgroupError> {
        let mut group = Self::open(hierarchies, path)?;
        if group.v2.is_none() {
            group.v2 = hierarchies.group_of(pid, path).filter(|path| path.is_dir());
        }
        group.ungrouped = (group.v2.is_none() && group.v1.is_empty()).then_some(pid);
        Ok(group)
    }

    /// Changes limits of the group, which is at `path`.
    ///
    /// # Errors
    /// A controller that the kernel lacks, a value it refuses; what came before it stays changed.
    pub fn update(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<Vec<String>, CgroupError> {
        let mut left_out = Vec::new();
        for limits in &limits::of_update(resources) {
            self.apply(hierarchies, path, limits, &mut left_out)?;
        }
        Ok(left_out)
    }

    fn make(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<Vec<String>, CgroupError> {
        let asked = limits::of(resources);
        let mut left_out = Vec::new();
        if let Some(v2) = &hierarchies.v2 {
            let here = asked.iter().map(|limits| limits.controller).filter(|name| v2.controllers.contains(*name));
            self.v2 = Some(make_v2(v2, path, &here.collect::<Vec<_>>())?);
        }
        for limits in &asked {
            self.apply(hierarchies, path, limits, &mut left_out)?;
        }
        self.restrict_devices(hierarchies, path, resources)?;
        if let (None, Some(mount)) = (&self.v2, hierarchies.v1.get("freezer")) {
            self.v1_directory("freezer", mount, path)?;
        }
        if let (Some(unified), Some(group)) = (resources.unified(), &self.v2) {
            for (file, value) in unified.iter().filter(|(file, _)| !file.contains('/')) {
                write("unified", &group.join(file), value)?;
            }
        }
        Ok(left_out)
    }

    fn apply(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        limits: &Limits,
        left_out: &mut Vec<String>,
    ) -> Result<(), CgroupError> {
        let in_v2 = hierarchies.v2.as_ref().is_some_and(|v2| v2.controllers.contains(limits.controller));
        let (directory, writes) = match (&self.v2, hierarchies.v1.get(limits::v1_name(limits.controller))) {
            (Some(directory), _) if in_v2 => {
                if let Some(attribute) = limits.v1_required {
                    return Err(CgroupError::OnlyV1(attribute));
                }
                left_out.extend(limits.v1_only.iter().map(|name| format!("`{name}` has no effect with cgroup v2")));
                (directory.clone(), &limits.v2)
            }
            (_, Some(mount)) => (self.v1_directory(limits::v1_name(limits.controller), mount, path)?, &limits.v1),
            _ if hierarchies.partial => {
                if !limits.v2.is_empty() {
                    left_out.push(format!(
                        "`{}` is not applied: the control group controller `{}` has not been given to this user (see `rcompose doctor`)",
                        limits.attribute, limits.controller
                    ));
                }
                return Ok(());
            }
            _ => {
                return Err(CgroupError::NoController { attribute: limits.attribute, controller: limits.controller });
            }
        };
        for wanted in writes {
            let (mut file, mut value) = (directory.join(&wanted.file), &wanted.value);
            if let Some((otherwise, other)) = wanted.otherwise.as_ref().filter(|_| !file.exists()) {
                (file, value) = (directory.join(otherwise), other);
            }
            if wanted.optional && !file.exists() {
                left_out.push(format!("`{}` is not offered by this kernel; the limit is left out", wanted.file));
                continue;
            }
            if wanted.file == limits::RT_RUNTIME {
                allow_realtime(&directory, &wanted.value)?;
            }
            match write(limits.attribute, &file, value) {
                Err(CgroupError::Refused { source, .. }) if wanted.optional && is_unsupported(&source) => {
                    left_out.push(format!("`{}` is not offered by this device; the limit is left out", wanted.file));
                }
                written => written?,
            }
        }
        Ok(())
    }

    /// What [`Cgroup::create`] does about `resources.devices`, for callers that left it out there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn restrict_devices(
        &mut self,
        hierarchies: &Hierarchies,
        path: &str,
        resources: &LinuxResources,
    ) -> Result<(), CgroupError> {
        let rules = resources.devices().as_deref().unwrap_or_default();
        // In a user namespace there is no way to make a device node, and no way to load the program.
        if rules.is_empty() || Ids::of_this_process() != Ids::Host {
            return Ok(());
        }
        let Some(rules) = devices::effective(rules) else { return Ok(()) };
        if let Some(group) = &self.v2 {
            let directory = open_directory(group)?;
            let attached =
                with_loaded(devices::program(&rules), |program| bpf::attach_device_program(directory.as_fd(), program));
            return attached.map_err(CgroupError::io("attach the device program to", group));
        }
        let Some(mount) = hierarchies.v1.get("devices") else {
            return Err(CgroupError::NoController { attribute: "devices", controller: "devices" });
        };
        let directory = self.v1_directory("devices", mount, path)?;
        for (file, line) in rules.iter().map(devices::line) {
            write("devices", &directory.join(file), &line)?;
        }
        Ok(())
    }

    /// The group in a v1 hierarchy, made when it is not there.
    fn v1_directory(&mut self, controller: &str, mount: &Path, path: &str) -> Result<PathBuf, CgroupError> {
        let directory = mount.join(path);
        if !self.v1.iter().any(|(name, _)| name == controller) {
            make_all(&directory)?;
            self.v1.push((controller.to_owned(), directory.clone()));
            if controller == "cpuset" {
                inherit_cpuset(mount, path)?;
            }
        }
        Ok(directory)
    }

    /// Opens what a new process needs to enter the group.
    ///
    /// # Errors
    /// The group is gone.
    pub fn entry(&self) -> Result<Entry, CgroupError> {
        let v2 = self.v2.as_deref().map(open_directory).transpose()?;
        // Controllers that are mounted together have one group.
        let mut directories: Vec<_> = self.v1.iter().map(|(_, directory)| directory).collect();
        directories.dedup();
        let v1 = directories.into_iter().map(|directory| {
            let path = directory.join("cgroup.procs");
            let file = OpenOptions::new().write(true).open(&path).map_err(CgroupError::io("open", &path))?;
            Ok(file.into())
        });
        Ok(Entry { v2, v1: v1.collect::<Result<_, CgroupError>>()? })
    }

    /// v1 controllers and directories of this group, for the read-only view inside the container.
    pub fn v1_directories(&self) -> &[(String, PathBuf)] {
        &self.v1
    }

    /// The cgroup2 directory, if there is one.
    pub fn v2_directory(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// File whose `oom_kill` counter says whether the kernel killed in the group; `None` without a memory limit on v1.
    pub fn oom_counter(&self) -> Option<PathBuf> {
        let v2 = self.v2.as_ref().map(|group| group.join("memory.events")).filter(|path| path.exists());
        let v1 = || self.v1.iter().find(|(controller, _)| controller == "memory");
        v2.or_else(|| v1().map(|(_, directory)| directory.join("memory.oom_control")))
    }

    /// Processes in the group and the groups below it.
    ///
    /// # Errors
    /// Unreadable group.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let Some(top) = self.v2.as_ref().or(self.v1.first().map(|(_, directory)| directory)) else {
            return Ok(self.ungrouped.map(processes::of_namespace).unwrap_or_default());
        };
        let mut pids = Vec::new();
        for directory in with_descendants(top)? {
            let path = directory.join("cgroup.procs");
            match fs::read_to_string(&path) {
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                Err(error) if is_gone(&error) => {}
                Err(source) => return Err(CgroupError::read(&path, source)),
            }
        }
        Ok(pids)
    }

    /// Sends SIGKILL to everything in the group. Does not wait for it.
    ///
    /// # Errors
    /// What the kernel says; a group that is gone is none.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if self.v2.is_none() && self.v1.is_empty() {
            return Ok(());
        }
        if let Some(group) = &self.v2 {
            match fs::write(group.join("cgroup.kill"), "1") {
                Ok(()) => return Ok(()),
                Err(error) if is_gone(&error) && !group.is_dir() => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError::Io { doing: "kill", path: group.clone(), source }),
            }
        }
        // Frozen, nothing can fork away and no pid comes to mean another process.
        self.freeze()?;
        let killed = self.processes().map(|pids| {
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                // It can have ended meanwhile.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        });
        self.thaw()?;
        killed
    }

    /// Stops everything in the group from running.
    ///
    /// # Errors
    /// No freezer, or what the kernel says.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        self.set_frozen("1", "FROZEN")
    }

    /// Undoes [`Cgroup::freeze`].
    ///
    /// # Errors
    /// As there.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        self.set_frozen("0", "THAWED")
    }

    /// Whether [`Cgroup::freeze`] is in force.
    pub fn is_frozen(&self) -> bool {
        let says = |file: PathBuf, word: &[u8]| fs::read(file).is_ok_and(|text| text.starts_with(word));
        let freezer = self.v1.iter().find(|(controller, _)| controller == "freezer");
        // On a machine with both, others may have used either.
        self.v2.as_ref().is_some_and(|group| says(group.join("cgroup.freeze"), b"1"))
            || freezer.is_some_and(|(_, group)| says(group.join("freezer.state"), b"FR"))
    }

    fn set_frozen(&self, v2: &str, v1: &str) -> Result<(), CgroupError> {
        if let Some(group) = &self.v2 {
            return write("pause", &group.join("cgroup.freeze"), v2);
        }
        match self.v1.iter().find(|(controller, _)| controller == "freezer") {
            Some((_, directory)) => write("pause", &directory.join("freezer.state"), v1),
            None if Ids::of_this_process() != Ids::Host => Err(CgroupError::NotDelegated { attribute: "pause" }),
            None => Err(CgroupError::NoController { attribute: "pause", controller: "freezer" }),
        }
    }

    /// Removes the group where nothing is in it and nothing below it; whether it is gone everywhere.
    pub fn remove_if_unused(&self) -> bool {
        let removed = |group: &PathBuf| fs::remove_dir(group).map_or_else(|error| is_gone(&error), |()| true);
        self.v2.iter().chain(self.v1.iter().map(|(_, directory)| directory)).all(removed)
    }

    /// Removes the group and all below it, in every hierarchy; waits a little for processes that are just ending.
    /// Blocks: not for an async task.
    ///
    /// # Errors
    /// Processes that do not go.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + REMOVE_WITHIN;
        let groups = self.v2.iter().chain(self.v1.iter().map(|(_, directory)| directory));
        for group in groups {
            for directory in with_descendants(group)?.iter().rev() {
                remove_one(directory, deadline)?;
            }
        }
        Ok(())
    }
}

/// Removes the group `path` as far as it is empty, and then its parents as far as they are: for a project's end.
///
/// # Errors
/// What the kernel says, other than that a group is in use.
pub fn remove_empty(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    check(path)?;
    remove_upwards(hierarchies.v2.iter().map(|v2| &v2.mount).chain(hierarchies.v1.values()), path)
}

/// The same in hierarchies without a controller, where other runtimes make groups (systemd's, on a machine with v1).
///
/// # Errors
/// As there.
pub fn remove_named(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    check(path)?;
    remove_upwards(hierarchies.named.iter(), path)
}

fn remove_upwards<'a>(mounts: impl Iterator<Item = &'a PathBuf>, path: &str) -> Result<(), CgroupError> {
    for mount in mounts {
        for ancestor in Path::new(path).ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            let directory = mount.join(ancestor);
            match fs::remove_dir(&directory) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) if is_busy(&error) => break,
                Err(source) => return Err(CgroupError::Io { doing: "remove", path: directory, source }),
            }
        }
    }
    Ok(())
}

fn check(path: &str) -> Result<(), CgroupError> {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.split('/').all(good) { Ok(()) } else { Err(CgroupError::BadPath(path.to_owned())) }
}

/// Makes a cgroup2 group, with the controllers enabled for it all the way down.
fn make_v2(v2: &V2, path: &str, needed: &[&str]) -> Result<PathBuf, CgroupError> {
    let directory = v2.mount.join(path);
    make_all(&directory)?;
    let enable: Vec<_> = ["cpu", "memory", "pids"]
        .iter()
        .chain(needed)
        .filter(|name| v2.controllers.contains(**name))
        .map(|name| format!("+{name}"))
        .collect();
    if enable.is_empty() {
        return Ok(directory);
    }
    let mut ancestors: Vec<_> = Path::new(path).ancestors().skip(1).map(|above| v2.mount.join(above)).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let file = ancestor.join("cgroup.subtree_control");
        let text = fs::read_to_string(&file).map_err(|error| CgroupError::read(&file, error))?;
        let missing = |name: &&String| !text.split_whitespace().any(|on| name.strip_prefix('+') == Some(on));
        let missing: Vec<_> = enable.iter().filter(missing).map(String::as_str).collect();
        if !missing.is_empty() {
            write("cgroup controllers", &file, &missing.join(" "))?;
        }
    }
    Ok(directory)
}

/// `mkdir -p`; another project may remove an empty parent at the same moment, hence more than one try.
fn make_all(directory: &Path) -> Result<(), CgroupError> {
    let mut made = fs::create_dir_all(directory);
    for _ in 0..3 {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => made = fs::create_dir_all(directory),
            _ => break,
        }
    }
    made.map_err(CgroupError::io("make", directory))
}

/// A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes: those of its parent.
fn inherit_cpuset(mount: &Path, path: &str) -> Result<(), CgroupError> {
    let mut levels: Vec<_> = Path::new(path).ancestors().map(|level| mount.join(level)).collect();
    levels.reverse();
    for pair in levels.windows(2) {
        let [above, below] = pair else { continue };
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let read = |path: PathBuf| fs::read_to_string(&path).map_err(|error| CgroupError::read(&path, error));
            if read(below.join(name))?.trim().is_empty() {
                write("cpuset", &below.join(name), read(above.join(name))?.trim())?;
            }
        }
    }
    Ok(())
}

/// A group can give its children real-time microseconds only that it has itself: the groups above get so many more, but for
/// the topmost one, which has what the kernel allows.
fn allow_realtime(directory: &Path, wanted: &str) -> Result<(), CgroupError> {
    let file = directory.join(limits::RT_RUNTIME);
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    let tried = OpenOptions::new().write(true).open(&file).and_then(|mut file| file.write_all(wanted.as_bytes()));
    if !tried.is_err_and(|error| refused(&error)) {
        // It fits, or the next write says what is wrong.
        return Ok(());
    }
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
    let above = directory
        .ancestors()
        .skip(1)
        .take_while(|above| above.parent().is_some_and(|parent| parent.join(limits::RT_RUNTIME).exists()));
    let mut above: Vec<&Path> = above.collect();
    above.reverse();
    for group in above {
        let file = group.join(limits::RT_RUNTIME);
        let has = fs::read_to_string(&file).map_err(|error| CgroupError::read(&file, error))?;
        write("cpu_rt_runtime", &file, &(number(&has) + number(wanted)).to_string())?;
    }
    Ok(())
}

fn write(attribute: &'static str, path: &Path, value: &str) -> Result<(), CgroupError> {
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| CgroupError::Refused { attribute, path: path.to_owned(), value: value.to_owned(), source })
}

fn open_directory(path: &Path) -> Result<OwnedFd, CgroupError> {
    let opened = rustix::fs::open(
        path,
        rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    opened.map_err(|error| CgroupError::Io { doing: "open", path: path.to_owned(), source: error.into() })
}

/// The directory and all below it, parents first. Containers can make groups where theirs is writable.
fn with_descendants(top: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(source) => return Err(CgroupError::read(&directory, source)),
        };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(folders.map(|entry| entry.path()));
    }
    Ok(found)
}

fn remove_one(directory: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let mut pause = Duration::from_millis(1);
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) if is_busy(&error) => {}
            Err(source) => return Err(CgroupError::Io { doing: "remove", path: directory.to_owned(), source }),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CgroupError::Busy(directory.to_owned()));
        }
        wait_for_change(directory, pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(64));
    }
}

/// Waits for news from the group: cgroup2 tells when its last process is gone, v1 does not and is asked again.
fn wait_for_change(directory: &Path, pause: Duration) {
    let Ok(mut events) = File::open(directory.join("cgroup.events")) else {
        std::thread::sleep(pause);
        return;
    };
    // Reading arms the notification.
    let populated = io::read_to_string(&mut events).is_ok_and(|text| text.contains("populated 1"));
    if populated {
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        // Whatever it says, the caller looks again.
        let _ = rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout));
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

#[cfg(test)]
mod tests;
