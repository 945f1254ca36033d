//! Copying a tree between two open directories, with everything that belongs to its files.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// Each level holds two descriptors open.
const MAX_DEPTH: usize = 256;

/// Copies the contents and the attributes of directory `from` into `to`. Symbolic links are copied, never followed.
///
/// # Errors
/// What cannot be read or written; directories that are nested too deep.
pub fn tree(from: &OwnedFd, to: &File) -> io::Result<()> {
    contents(from, to)?;
    attributes(from, to)
}

/// Copies only what is in the directory.
///
/// # Errors
/// As [`tree`].
pub fn contents(from: &OwnedFd, to: &File) -> io::Result<()> {
    Copy { root: to, path: Vec::new(), links: HashMap::new() }.directory(from, to, 0)
}

struct Copy<'a> {
    root: &'a File,
    /// Where the copy is, from `root`.
    path: Vec<u8>,
    /// The first copy of each file that has several names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Copy<'_> {
    fn directory(&mut self, from: &impl AsFd, to: &impl AsFd, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("its directories are nested too deep"));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.entry(from, to, name, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, from: &impl AsFd, to: &impl AsFd, name: &CStr, depth: usize) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let (folder, first) = self.copied(first)?;
                return Ok(rustix::fs::linkat(folder, first, to, name, AtFlags::empty())?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), self.path.clone());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let target = rustix::fs::openat(to, name, flags, Mode::empty())?;
                self.directory(&source, &target, depth + 1)?;
                attributes(&source, &target)
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut target = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
                io::copy(&mut source, &mut target)?;
                attributes(&source, &target)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, name)?;
                by_name(to, name, &stat)
            }
            // A layer's whiteout, where a root is one bare layer: there is nothing.
            FileType::CharacterDevice if stat.st_rdev == 0 => Ok(()),
            _ => {
                rustix::fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev)?;
                by_name(to, name, &stat)?;
                let node =
                    rustix::fs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                // Of a link, which whoever has the target may have put there, the kernel changes no mode.
                let node = format!("/proc/self/fd/{}", node.as_raw_fd());
                Ok(rustix::fs::chmod(node, Mode::from_raw_mode(stat.st_mode))?)
            }
        }
    }

    /// The folder of a copy and its name there: no link leads to it, as whoever has the target may be putting links there.
    fn copied<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p [u8])> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let folder = path.strip_suffix(name).filter(|folder| !folder.is_empty()).unwrap_or(b".");
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((rustix::fs::openat2(self.root, folder, flags, Mode::empty(), resolve)?, name))
    }
}

/// Gives `to` the owner, xattrs, mode and times of `from`. Owner first, because a change of it clears the set-id bits.
///
/// # Errors
/// What the system says.
pub fn attributes(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    if let Some((uid, gid)) = owner(&stat) {
        rustix::fs::fchown(to, Some(uid), Some(gid))?;
    }
    xattrs(from, to)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    Ok(rustix::fs::futimens(to, &times(&stat))?)
}

fn by_name(folder: &impl AsFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    if let Some((uid, gid)) = owner(stat) {
        rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(rustix::fs::utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Only root gives files away; an ordinary user's are all the user's own.
fn owner(stat: &Stat) -> Option<(Uid, Gid)> {
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::process::geteuid().is_root().then_some(owner)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds.cast_signed() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn xattrs(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let mut names = Vec::with_capacity(64 * 1024);
    match rustix::fs::flistxattr(from, rustix::buffer::spare_capacity(&mut names)) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        listed => listed?,
    };
    let mut value = Vec::with_capacity(64 * 1024);
    for name in names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
        let text = name.to_bytes();
        let user = text.starts_with(b"user.") && !text.starts_with(b"user.overlay.");
        if !user && text != b"security.capability" && !text.starts_with(b"system.posix_acl_") {
            continue;
        }
        value.clear();
        rustix::fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value))?;
        match rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty()) {
            // A file system without them, or a user who may not set them: the file works without.
            Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            set => set?,
        }
    }
    Ok(())
}
