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
mod make;
mod members;
mod remove;
mod usage;

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use hierarchy::Hierarchies;
pub use remove::{remove_empty, remove_named};
pub use usage::Usage;

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
    #[error("bad --cgroup: {0} is not a sub cgroup path")]
    NotBelow(String),
    #[error("unknown controller `{0}`: the container has no group of it")]
    NoSuchController(String),
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

impl Cgroup {
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

    /// Goes to the group at `path` below this one: in the hierarchies of these v1 controllers, or in all when none is named.
    ///
    /// # Errors
    /// There is none, or no such controller; a path that leaves this group.
    pub fn descend(&mut self, controllers: &[String], path: &str) -> Result<(), CgroupError> {
        if let Some(name) = controllers.iter().find(|name| !self.v1.iter().any(|(known, _)| known == *name)) {
            return Err(CgroupError::NoSuchController(name.clone()));
        }
        if path.is_empty() {
            return Ok(());
        }
        check(path).map_err(|_| CgroupError::NotBelow(path.to_owned()))?;
        // Beside v1 controllers there is nothing in version 2 that a caller could mean.
        let only_v2 = self.v1.is_empty();
        let v2 = self.v2.iter_mut().filter(|_| only_v2);
        let v1 = self.v1.iter_mut().filter(|(name, _)| controllers.is_empty() || controllers.contains(name));
        for directory in v2.chain(v1.map(|(_, directory)| directory)) {
            directory.push(path);
            if !directory.is_dir() {
                return Err(CgroupError::io("enter", directory)(io::Error::from_raw_os_error(libc::ENOENT)));
            }
        }
        Ok(())
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
}

fn check(path: &str) -> Result<(), CgroupError> {
    let good = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.split('/').all(good) { Ok(()) } else { Err(CgroupError::BadPath(path.to_owned())) }
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

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests;
