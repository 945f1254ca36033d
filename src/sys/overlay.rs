//! Overlay mounts (Documentation/filesystems/overlayfs.rst), with the options of Linux 6.5 and, before that, with the older ones.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};

use super::mount::{MountAttributes, apart, kernel_message, set_attributes};
use super::userns::Ids;

/// What is to be mounted. Paths are the host's.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// Topmost first.
    pub lower: &'a [PathBuf],
    /// Where changes go; read-only without.
    pub changes: Option<Changes<'a>>,
    /// The SELinux label that all its files show.
    pub label: Option<&'a str>,
}

/// Directories of one file system.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    pub upper: &'a Path,
    /// Empty; the kernel's own.
    pub work: &'a Path,
    /// No syncing: what has changed is worth nothing after a power loss.
    pub volatile: bool,
}

/// What the kernel said, and to what.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    pub what: String,
    pub source: io::Error,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.source.kind(), error)
    }
}

trait At<T> {
    fn at(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|error| Error { what: what.into(), source: error.into() })
    }
}

impl Overlay<'_> {
    /// Mounts it on `directory`.
    ///
    /// # Errors
    /// A directory that is missing, or what the kernel says to the mount.
    pub fn mount_on(&self, directory: impl AsFd) -> Result<(), Error> {
        match self.new_options(MountAttrFlags::empty()) {
            Ok(new) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                mount::move_mount(&new, "", directory, "", flags).at("attaching the overlay")
            }
            Err(error) if wants_older_options(&error) => self.older_options(directory.as_fd()),
            Err(error) => Err(error),
        }
    }

    /// Makes the mount, attached nowhere: it is gone with the descriptor.
    ///
    /// # Errors
    /// As [`Overlay::mount_on`]; where there are only the older options, also what a mount namespace of a thread's own wants.
    pub fn detached(&self, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
        match self.new_options(attributes) {
            Err(error) if wants_older_options(&error) => self.detached_by_older_options(attributes),
            other => other,
        }
    }

    fn new_options(&self, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
        let context = mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at("overlay")?;
        for layer in self.lower {
            mount::fsconfig_set_string(&context, "lowerdir+", layer.as_path()).at(layer.to_string_lossy())?;
        }
        for (name, value) in self.directories() {
            let value = value.to_str().ok_or(io::ErrorKind::InvalidFilename).at(value.to_string_lossy())?;
            mount::fsconfig_set_string(&context, name, value.replace('\\', "\\\\")).at(value)?;
        }
        for (name, value) in self.switches() {
            match value {
                Some(value) => mount::fsconfig_set_string(&context, name, value).at(name)?,
                None => mount::fsconfig_set_flag(&context, name).at(name)?,
            }
        }
        if let Some(label) = self.label {
            mount::fsconfig_set_string(&context, "context", label).at(format!("SELinux label `{label}`"))?;
        }
        mount::fsconfig_create(&context)
            .map_err(|error| Error { what: format!("overlay{}", kernel_message(&context)), source: error.into() })?;
        mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at("overlay")
    }

    /// The options of mount(2) hold a page at most, so directories go by the numbers of their descriptors, which
    /// need no escaping either.
    fn older_options(&self, directory: BorrowedFd<'_>) -> Result<(), Error> {
        let lower = self.lower.iter().map(|layer| open(layer)).collect::<Result<Vec<_>, _>>()?;
        let numbers: Vec<_> = lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let mut options = format!("lowerdir={}", numbers.join(":"));
        let changes = self.directories().map(|(name, path)| Ok((name, open(path)?))).collect::<Result<Vec<_>, _>>()?;
        for (name, directory) in &changes {
            options.push_str(&format!(",{name}={}", directory.as_raw_fd()));
        }
        for (name, value) in self.switches() {
            options.push_str(&value.map_or_else(|| format!(",{name}"), |value| format!(",{name}={value}")));
        }
        if let Some(label) = self.label {
            options.push_str(&format!(",context=\"{label}\""));
        }
        let data = CString::new(options).map_err(io::Error::from).at("overlay")?;
        let back = open(Path::new("."))?;
        rustix::process::chdir("/proc/self/fd").at("/proc/self/fd")?;
        let target = directory.as_raw_fd().to_string();
        let mounted = mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(data.as_c_str()));
        rustix::process::fchdir(back).at("the working directory")?;
        mounted.at(data.to_string_lossy())
    }

    /// mount(2) wants a place, which a thread has to itself in a mount namespace of its own.
    fn detached_by_older_options(&self, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
        let Some(top) = self.lower.first() else { return Err(io::ErrorKind::NotFound).at("an image without layers") };
        let mounted = || -> Result<OwnedFd, Error> {
            own_mounts().at("a mount namespace for the overlay")?;
            self.older_options(open(top)?.as_fd())?;
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let clone = mount::open_tree(open(top)?, "", flags).at("overlay")?;
            let set = MountAttributes { set: attributes.bits().into(), ..MountAttributes::default() };
            set_attributes(&clone, &set, false).at("overlay")?;
            Ok(clone)
        };
        apart(mounted).at("overlay")?
    }

    fn directories(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.changes.iter().flat_map(|changes| [("upperdir", changes.upper), ("workdir", changes.work)])
    }

    /// Nothing that ties an upper layer to this mount, or hides from other programs what is in it.
    fn switches(&self) -> Vec<(&'static str, Option<&'static str>)> {
        // Its own marks in attributes that no privilege is needed for (Linux 5.11); then there are no redirects.
        let unprivileged = (Ids::of_this_process() != Ids::Host).then_some(("userxattr", None));
        let Some(changes) = &self.changes else { return unprivileged.into_iter().collect() };
        let mut switches: Vec<_> = ["index", "xino", "metacopy"].map(|name| (name, Some("off"))).into();
        switches.push(unprivileged.unwrap_or(("redirect_dir", Some("off"))));
        switches.extend(changes.volatile.then_some(("volatile", None)));
        switches
    }
}

/// Kernels before 6.5 have no `lowerdir+`, and a value of fsconfig(2) holds 255 bytes at most.
fn wants_older_options(error: &Error) -> bool {
    error.source.raw_os_error() == Some(libc::EINVAL)
}

fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at(path.to_string_lossy())
}

/// Gives this thread a mount namespace of its own, from which no mount gets out.
fn own_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    // In a chroot `/` is no mount. Entering the namespace leads to its root, and the way back is kept.
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    setns(File::open("/proc/thread-self/ns/mnt")?, CloneFlags::CLONE_NEWNS)?;
    mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    rustix::process::fchdir(root)?;
    Ok(rustix::process::chroot(".")?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Layers whose names together are longer than a page, with all that separates options in them.
    fn layers(folder: &Path, count: usize) -> Vec<PathBuf> {
        let layer = |number: usize| {
            let layer = folder.join(format!("{} a,b:c\\d {number}", "long".repeat(30)));
            fs::create_dir_all(&layer).unwrap();
            fs::write(layer.join(number.to_string()), "").unwrap();
            layer
        };
        (0..count).map(layer).collect()
    }

    fn names(mount: &OwnedFd) -> usize {
        let directory = rustix::fs::openat(mount, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let entries = rustix::fs::Dir::read_from(directory).unwrap();
        entries.filter(|entry| !entry.as_ref().unwrap().file_name().to_bytes().starts_with(b".")).count()
    }

    #[test]
    fn many_layers_are_one_tree_on_old_and_new_kernels() {
        let folder = tempfile::tempdir().unwrap();
        let lower = layers(folder.path(), 120);
        let overlay = Overlay { lower: &lower, changes: None, label: None };
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
        let older = match overlay.detached_by_older_options(read_only) {
            Err(Error { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                println!("skipped: nothing may be mounted here");
                return;
            }
            older => older.unwrap(),
        };
        assert_eq!(names(&older), 120);
        assert_eq!(names(&overlay.detached(read_only).unwrap()), 120);
        let write =
            |mount: &OwnedFd| rustix::fs::openat(mount, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).map(drop);
        assert_eq!(write(&older), Err(rustix::io::Errno::ROFS));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&folder.path().display().to_string()), "seen by others: {mounts}");

        let (upper, work) = (folder.path().join("upper,:\\"), folder.path().join("work"));
        fs::create_dir(&upper).and_then(|()| fs::create_dir(&work)).unwrap();
        let changes = Some(Changes { upper: &upper, work: &work, volatile: false });
        let overlay = Overlay { changes, ..overlay };
        for make in [Overlay::detached_by_older_options, Overlay::detached] {
            let mount = make(&overlay, MountAttrFlags::empty()).unwrap();
            write(&mount).unwrap();
            assert_eq!(names(&mount), 121);
            assert!(upper.join("new").exists());
            fs::remove_file(upper.join("new")).unwrap();
        }
    }
}
