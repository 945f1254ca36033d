//! Writing into the root of a stage: files that are copied, and directories on the way.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::chmod::Chmod;
use super::ignore::Ignore;
use super::tree::{self, Found, LeftOut, Tree};
use crate::sys::inroot;

/// How many symbolic links may be followed one after the other where directories are made.
const MAX_LINKS: u32 = 40;

/// Copies into one root.
pub(super) struct Copier<'a> {
    root: &'a OwnedFd,
    /// `--chown`.
    owner: Option<(u32, u32)>,
    /// `--chmod`.
    mode: Option<Chmod>,
    exclude: &'a Ignore,
    /// Files with several names: device and inode to where the first one went.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(root: &'a OwnedFd, owner: Option<(u32, u32)>, mode: Option<Chmod>, exclude: &'a Ignore) -> Self {
        Self { root, owner, mode, exclude, links: HashMap::new() }
    }

    /// Copies a source to `destination` (absolute; a `/` at its end makes it a directory). `into`: the source goes into
    /// that directory under its own name; of a directory always the contents go.
    ///
    /// # Errors
    /// A file where a directory is needed or the other way round, or the disk's own.
    pub(super) fn copy(&mut self, tree: &Tree, found: &Found, destination: &str) -> io::Result<()> {
        let path = tree::clean(destination).join("/");
        let is_folder = destination.ends_with('/') || destination.ends_with("/.") || path.is_empty();
        if found.is_directory() {
            let existed = inroot::open(self.root, path.as_bytes(), OFlags::PATH).is_ok();
            let target = self.directory(&path)?;
            if !existed {
                self.finish(&target, &found.stat, tree.owner(&found.stat))?;
                if let Some(chmod) = &self.mode {
                    // `--chmod` counts for it as for a directory that is made, with the umask, and for all in it exactly.
                    let mode = chmod.apply(found.stat.st_mode & 0o7777, true) & 0o755;
                    rustix::fs::fchmod(&target, Mode::from_raw_mode(mode))?;
                }
            }
            let source = inroot::open_directory(&found.file, b".")?;
            return self.contents(tree, &source, &found.path, "", &target, path.into_bytes(), 0).and_then(|()| {
                // What was written into it has changed its time.
                if existed { Ok(()) } else { Ok(rustix::fs::futimens(&target, &times(&found.stat))?) }
            });
        }
        let there = inroot::open(self.root, path.as_bytes(), OFlags::PATH | OFlags::DIRECTORY).is_ok();
        let path = if is_folder || there { tree::join(&path, found.base_name()) } else { path };
        let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let parent = self.directory(above)?;
        let kind = FileType::from_raw_mode(found.stat.st_mode);
        let source = if kind == FileType::RegularFile { Some(tree::reopen(&found.file)?) } else { None };
        let owner = tree.owner(&found.stat);
        self.file(source, None, &found.stat, owner, &parent, name.as_bytes(), path.as_bytes())
    }

    /// Writes a file with this content to `destination`, as [`Self::copy`] would.
    ///
    /// # Errors
    /// As there.
    pub(super) fn write(
        &mut self,
        name: &str,
        content: &mut dyn io::Read,
        mode: u32,
        mtime: Option<i64>,
        destination: &str,
    ) -> io::Result<()> {
        let path = tree::clean(destination).join("/");
        let there = inroot::open(self.root, path.as_bytes(), OFlags::PATH | OFlags::DIRECTORY).is_ok();
        let into = destination.ends_with('/') || there;
        let path = if into { tree::join(&path, name) } else { path };
        let (above, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let parent = self.directory(above)?;
        let mut file = make_file(&parent, name.as_bytes())?;
        io::copy(content, &mut file)?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        rustix::fs::fchown(&file, Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)))?;
        let mode = self.mode.as_ref().map_or(mode, |chmod| chmod.apply(mode, false));
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        if let Some(seconds) = mtime {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        }
        Ok(())
    }

    /// A directory, made with all above it where missing: mode 0755, owned by `--chown`.
    pub(super) fn directory(&self, path: &str) -> io::Result<OwnedFd> {
        make_directory(self.root, path, self.owner.unwrap_or((0, 0)))
    }

    /// The contents of a directory. `path` is from the tree's root, `below` from the source, `to` from the target's root.
    #[expect(clippy::too_many_arguments, reason = "three ways to say where it is, all of which differ")]
    fn contents(
        &mut self,
        tree: &Tree,
        source: &OwnedFd,
        path: &str,
        below: &str,
        target: &OwnedFd,
        to: Vec<u8>,
        depth: usize,
    ) -> io::Result<()> {
        if depth > tree::MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deep"));
        }
        for entry in tree::list(source)? {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let (path, below) = (tree::join(path, &name), tree::join(below, &name));
            let kind = FileType::from_raw_mode(entry.stat.st_mode);
            let left_out = tree.left_out(&path, kind == FileType::Directory);
            if left_out == LeftOut::All || self.exclude.excludes(&below) {
                continue;
            }
            let mut to = to.clone();
            if !to.is_empty() {
                to.push(b'/');
            }
            to.extend_from_slice(&entry.name);
            let owner = tree.owner(&entry.stat);
            if kind == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                let inner = inroot::open(source, &entry.name, flags)?;
                if left_out == LeftOut::Itself && !self.holds_something(tree, &inner, &path, depth)? {
                    continue;
                }
                let made = self.subdirectory(target, &entry.name)?;
                self.contents(tree, &inner, &path, &below, &made, to, depth + 1)?;
                self.finish(&made, &entry.stat, owner)?;
            } else {
                let content = (kind == FileType::RegularFile).then(|| inroot::open_file(source, &entry.name));
                let link = (kind == FileType::Symlink)
                    .then(|| rustix::fs::readlinkat(source, &entry.name, Vec::new()))
                    .transpose()?;
                let link = link.as_ref().map(|link| link.as_bytes());
                self.file(content.transpose()?, link, &entry.stat, owner, target, &entry.name, &to)?;
            }
        }
        Ok(())
    }

    /// Whether something in a folder that is left out is not.
    fn holds_something(&self, tree: &Tree, directory: &OwnedFd, path: &str, depth: usize) -> io::Result<bool> {
        for entry in tree::list(directory)? {
            let path = tree::join(path, &String::from_utf8_lossy(&entry.name));
            let is_directory = FileType::from_raw_mode(entry.stat.st_mode) == FileType::Directory;
            match tree.left_out(&path, is_directory) {
                LeftOut::No => return Ok(true),
                LeftOut::Itself if depth < tree::MAX_DEPTH => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    let inner = inroot::open(directory, &entry.name, flags)?;
                    if self.holds_something(tree, &inner, &path, depth + 1)? {
                        return Ok(true);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }

    fn subdirectory(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        inroot::open(parent, name, flags).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => {
                io::Error::other(format!("`{}` is there and no directory", String::from_utf8_lossy(name)))
            }
            _ => error,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "what a file is made of")]
    fn file(
        &mut self,
        content: Option<File>,
        link: Option<&[u8]>,
        stat: &Stat,
        owner: (u32, u32),
        parent: &OwnedFd,
        name: &[u8],
        to: &[u8],
    ) -> io::Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        if stat.st_nlink > 1 && kind == FileType::RegularFile {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let place = first.iter().rposition(|byte| *byte == b'/');
                let folder = place.and_then(|place| first.get(..place)).unwrap_or_default();
                let first_name = place.map_or(&first[..], |place| first.get(place + 1..).unwrap_or_default());
                let from = inroot::open_directory(self.root, folder)?;
                remove(parent, name)?;
                return Ok(rustix::fs::linkat(&from, first_name, parent, name, AtFlags::empty())?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), to.to_owned());
        }
        match (kind, content, link) {
            (FileType::RegularFile, Some(mut content), _) => {
                let mut file = make_file(parent, name)?;
                io::copy(&mut content, &mut file)?;
                copy_capability(&content, &file)?;
                return self.finish(&file, stat, owner);
            }
            (FileType::Symlink, _, Some(target)) => {
                remove(parent, name)?;
                rustix::fs::symlinkat(target, parent, name)?;
            }
            (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice, ..) => {
                remove(parent, name)?;
                rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            }
            // A socket is nothing without who listens.
            _ => return Ok(()),
        }
        let (uid, gid) = self.owner.unwrap_or(owner);
        let ids = (Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)));
        rustix::fs::chownat(parent, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rustix::fs::utimensat(parent, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Owner first: a change of owner clears the set-id bits.
    fn finish(&self, file: &impl std::os::fd::AsFd, stat: &Stat, owner: (u32, u32)) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or(owner);
        rustix::fs::fchown(file, Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)))?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mode = stat.st_mode & 0o7777;
        let mode = self.mode.as_ref().map_or(mode, |chmod| chmod.apply(mode, directory));
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        Ok(rustix::fs::futimens(file, &times(stat))?)
    }
}

fn times(stat: &Stat) -> Timestamps {
    let nanoseconds = stat.st_mtime_nsec.try_into().unwrap_or_default();
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn copy_capability(from: &File, to: &File) -> io::Result<()> {
    const NAME: &str = "security.capability";
    let mut value = [0; 64];
    match rustix::fs::fgetxattr(from, NAME, &mut value[..]) {
        Ok(length) => {
            let value = value.get(..length).unwrap_or_default();
            Ok(rustix::fs::fsetxattr(to, NAME, value, XattrFlags::empty())?)
        }
        Err(_there_is_none) => Ok(()),
    }
}

/// A new file in place of what has its name.
fn make_file(parent: &OwnedFd, name: &[u8]) -> io::Result<File> {
    remove(parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// A file makes way, a directory does not.
fn remove(parent: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            let name = String::from_utf8_lossy(name);
            Err(io::Error::other(format!("`{name}` is there and a directory, so no file can take its place")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory and what is missing above it inside `root`; links lead on inside. Mode 0755.
pub(super) fn make_directory(root: &OwnedFd, path: &str, owner: (u32, u32)) -> io::Result<OwnedFd> {
    make_within(root, path.trim_matches('/'), owner, MAX_LINKS)?;
    inroot::open_directory(root, path.as_bytes())
}

fn make_within(root: &OwnedFd, path: &str, owner: (u32, u32), links: u32) -> io::Result<OwnedFd> {
    let path_only = OFlags::PATH | OFlags::DIRECTORY;
    match inroot::open(root, path.as_bytes(), path_only) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(io::Error::other(format!("`/{path}` is or goes through a file that is no directory")));
        }
        opened => return opened,
    }
    let links = links.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(libc::ELOOP))?;
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name == ".." || name.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // The depth of the path is bounded by its length, that of links by their number.
    let parent = make_within(root, above, owner, MAX_LINKS.min(links + 1))?;
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw_unchecked(owner.0), Gid::from_raw_unchecked(owner.1));
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            inroot::open(&parent, name.as_bytes(), path_only | OFlags::NOFOLLOW)
        }
        Err(Errno::EXIST) => {
            let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
            let target = target.to_str().map_err(io::Error::other)?;
            let next = match target.strip_prefix('/') {
                Some(absolute) => tree::clean(absolute).join("/"),
                // `..` of the link counts from where the link really is.
                None => {
                    let real = std::fs::read_link(format!("/proc/self/fd/{}", parent.as_raw_fd()))?;
                    let top = std::fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
                    let real =
                        real.strip_prefix(&top).unwrap_or(std::path::Path::new(above)).to_string_lossy().into_owned();
                    tree::clean(&format!("{real}/{target}")).join("/")
                }
            };
            make_within(root, &next, owner, links)
        }
        Err(error) => Err(error.into()),
    }
}
