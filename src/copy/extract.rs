//! A tar stream into a directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::sys::inroot;

/// Whose the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As the stream says.
    Kept,
    /// The caller's.
    Ours,
}

/// Links on the way to where an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// Followed inside the root, which is the container's own.
    InRoot,
    /// Refused below the folder: the stream itself may have made them.
    Refused,
}

struct Target {
    root: OwnedFd,
    base: PathBuf,
    folder: OwnedFd,
    symlinks: Symlinks,
}

/// Extracts a stream to the directory `folder` inside `root`.
///
/// # Errors
/// A stream that is damaged or leads out of the folder, or what the system says, with the entry's name.
pub fn extract(root: impl AsFd, folder: &str, stream: impl Read, owners: Owners, symlinks: Symlinks) -> io::Result<()> {
    let target = Target {
        folder: inroot::open_directory(&root, folder.as_bytes())?,
        root: root.as_fd().try_clone_to_owned()?,
        base: PathBuf::from(folder),
        symlinks,
    };
    let mut archive = Archive::new(stream);
    // Those that were made, each within the one before, so that few are open.
    let mut folders: Vec<(PathBuf, OwnedFd, u64)> = Vec::new();
    // What is put into them changes their times.
    let close = |(_, folder, mtime): (_, OwnedFd, u64)| set_time(&folder, mtime);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = clean(&entry.path()?)?;
        while let Some(folder) = folders.pop_if(|(folder, ..)| !path.starts_with(folder)) {
            close(folder)?;
        }
        let made = one(&target, &mut entry, &path, owners);
        let made = made.map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display())))?;
        folders.extend(made.map(|folder| (path, folder, entry.header().mtime().unwrap_or(0))));
    }
    folders.into_iter().rev().try_for_each(close)
}

/// Removes what `path` inside `root` is, if it is there; a link is not followed.
///
/// # Errors
/// What the system says.
pub fn remove(root: impl AsFd, path: &str) -> io::Result<()> {
    let path = Path::new(path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    match inroot::open_directory(&root, parent.as_os_str().as_bytes()) {
        Ok(parent) => remove_at(&parent, name),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A relative path without `.`; one that leads upwards is refused.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                let message = format!("`{}` leads out of the folder", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
    Ok(clean)
}

impl Target {
    /// The directory that an entry stands in, made where it is missing.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return self.folder.try_clone();
        };
        match self.open(parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = self.parent(parent)?;
                let name = parent.file_name().unwrap_or_default();
                match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) | Ok(()) => self.open(parent),
                    Err(error) => Err(error.into()),
                }
            }
            other => other,
        }
    }

    fn open(&self, folder: &Path) -> io::Result<OwnedFd> {
        match self.symlinks {
            Symlinks::InRoot => inroot::open_directory(&self.root, self.base.join(folder).as_os_str().as_bytes()),
            Symlinks::Refused => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                Ok(rustix::fs::openat2(&self.folder, folder, flags, Mode::empty(), resolve)?)
            }
        }
    }
}

/// Returns the directory that was made.
fn one(target: &Target, entry: &mut Entry<'_, impl Read>, path: &Path, owners: Owners) -> io::Result<Option<OwnedFd>> {
    let Some(name) = path.file_name() else { return Ok(None) };
    let kind = entry.header().entry_type();
    // On this machine a container's set-id program would be one of its own owner, whoever executes it.
    let kept = if (owners, target.symlinks) == (Owners::Ours, Symlinks::Refused) { 0o1777 } else { 0o7777 };
    let mode = Mode::from_raw_mode(entry.header().mode()? & kept);
    let parent = target.parent(path)?;
    match kind {
        EntryType::Directory => {
            match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
                // One that is there is kept with what it holds, and so is its mode.
                Err(Errno::EXIST) => return target.open(path).map(|_| None),
                other => other?,
            }
            // Not by its path, at which something else may lie by now.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            finish(&folder, entry, mode, owners)?;
            Ok(Some(folder))
        }
        EntryType::Symlink => {
            let to = entry.link_name_bytes().ok_or(io::ErrorKind::InvalidData)?.into_owned();
            unlink_at(&parent, name)?;
            rustix::fs::symlinkat(to.as_slice(), &parent, name)?;
            if owners == Owners::Kept {
                let (uid, gid) = owner(entry)?;
                rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Ok(None)
        }
        EntryType::Regular | EntryType::Continuous => {
            let mut file = File::from(create(&parent, name)?);
            io::copy(entry, &mut file)?;
            finish(&file, entry, mode, owners)?;
            set_time(&file, entry.header().mtime().unwrap_or(0))?;
            Ok(None)
        }
        EntryType::Link => {
            let to = clean(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
            let folder = target.parent(&to)?;
            let to = to.file_name().ok_or(io::ErrorKind::InvalidData)?;
            unlink_at(&parent, name)?;
            rustix::fs::linkat(&folder, to, &parent, name, AtFlags::empty())?;
            Ok(None)
        }
        // Devices and FIFOs.
        _ => Ok(None),
    }
}

/// A new file in place of what has the name.
fn create(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<OwnedFd> {
    unlink_at(parent, name)?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, new, Mode::from_raw_mode(0o600))?)
}

fn owner(entry: &Entry<'_, impl Read>) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(io::ErrorKind::InvalidData);
    Ok((Uid::from_raw(id(entry.header().uid()?)?), Gid::from_raw(id(entry.header().gid()?)?)))
}

/// Owner first: a change of owner clears the set-id bits.
fn finish(file: &impl AsFd, entry: &Entry<'_, impl Read>, mode: Mode, owners: Owners) -> io::Result<()> {
    if owners == Owners::Kept {
        let (uid, gid) = owner(entry)?;
        rustix::fs::fchown(file, Some(uid), Some(gid))?;
    }
    Ok(rustix::fs::fchmod(file, mode)?)
}

fn set_time(file: &impl AsFd, seconds: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?)
}

/// In the mount namespace of a container, which is not ours, the kernel takes a mount away with the name that it is on.
fn refuse_mounted(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(parent, name, flags, StatxFlags::empty()) {
        Ok(found) if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "something is mounted there"))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes room for something new; a directory does not give way.
fn unlink_at(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
    refuse_mounted(parent, name)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(io::Error::new(io::ErrorKind::IsADirectory, "there is a directory of that name")),
        Err(error) => Err(error.into()),
    }
}

fn remove_at(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
    refuse_mounted(parent, name)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // Linux says EISDIR, POSIX EPERM.
        Err(Errno::ISDIR | Errno::PERM) => remove_directory(parent, name),
        Err(error) => Err(error.into()),
    }
}

fn remove_directory(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<()> {
    refuse_mounted(parent, name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let inner = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if inner != "." && inner != ".." {
            if entry.file_type() == FileType::Directory {
                remove_directory(&folder, inner)?;
            } else {
                remove_at(&folder, inner)?;
            }
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}
