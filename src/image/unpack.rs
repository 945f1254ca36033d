//! Unpacking a layer's tar stream into a directory that overlayfs can use, whatever the stream says.
//!
//! Every path is resolved by the kernel inside the layer's root; the last component is never followed. Whiteouts
//! (<https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>) become what overlayfs knows: `.wh.x` a
//! character device 0:0 named `x`, `.wh..wh..opq` the xattr `overlay.opaque` of its directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::attributes::{Attributes, BEYOND, attributes, both_times, finish_open, owner};
use super::entries::{Entries, Entry};
use super::error::UnpackError;
use super::recipe::{Displaced, RecipeHandle, Recorder};
use crate::sys::inroot;
use crate::sys::userns::Ids;

/// More than any real layer has, with the directories that no entry speaks of; bounds what is made, and what is remembered of directories.
const MAX_ENTRIES: u64 = 5_000_000;
const BUFFER: usize = 256 * 1024;
/// After so many bytes the room on the disk is looked at, of which so many are left alone.
const LOOK: u64 = 64 << 20;
const RESERVE: u64 = 256 << 20;

/// What the process may do to the files it unpacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Owners, device nodes and `trusted.` xattrs as the archive says.
    Root,
    /// Owners as the archive says, device nodes are left out, overlayfs reads `user.` xattrs: root of a user namespace.
    Mapped,
    /// Everything belongs to the caller, device nodes are left out, overlayfs reads `user.` xattrs.
    User,
}

impl Rights {
    pub(super) fn of_this_process() -> Self {
        match Ids::of_this_process() {
            Ids::Host if rustix::process::geteuid().is_root() => Self::Root,
            Ids::Mapped if rustix::process::geteuid().is_root() => Self::Mapped,
            _ => Self::User,
        }
    }

    /// Whether files can belong to others than the caller.
    pub(super) fn gives_files_away(self) -> bool {
        matches!(self, Self::Root | Self::Mapped)
    }

    pub(super) fn opaque_xattr(self) -> &'static str {
        match self {
            Self::Root => "trusted.overlay.opaque",
            Self::Mapped | Self::User => "user.overlay.opaque",
        }
    }
}

/// What came of a layer.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Sum of the sizes of its regular files, in bytes.
    pub(super) size: u64,
    pub(super) displaced: Vec<Displaced>,
}

/// Unpacks into `folder/fs`, which must be an empty directory, and writes `folder/recipe`. Reads `input` to its end.
pub(super) fn unpack(
    input: impl Read,
    folder: &Path,
    rights: Rights,
    stop: &AtomicBool,
) -> Result<Unpacked, UnpackError> {
    let recipe = File::create(folder.join("recipe")).map_err(UnpackError::Recipe)?;
    let (recorder, recipe) = Recorder::new(input, recipe).map_err(UnpackError::Recipe)?;
    let root = File::open(folder.join("fs")).map_err(|source| UnpackError::Create { entry: "/".into(), source })?;
    let mut unpacker = Unpacker {
        root,
        folder,
        rights,
        recipe: recipe.clone(),
        parent: None,
        directories: BTreeMap::new(),
        displaced: Vec::new(),
        made: 0,
        size: 0,
        buffer: vec![0; BUFFER],
        since_look: 0,
    };
    let mut entries = Entries::new(recorder);
    while let Some(mut entry) = entries.advance().map_err(UnpackError::Read)? {
        if stop.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled);
        }
        unpacker.made += 1;
        unpacker.entry(&mut entry, &mut entries)?;
        if unpacker.made > MAX_ENTRIES {
            return Err(UnpackError::TooManyEntries { limit: MAX_ENTRIES });
        }
    }
    entries.finish().map_err(UnpackError::Read)?;
    unpacker.finish_directories()?;
    recipe.finish().map_err(UnpackError::Recipe)?;
    Ok(Unpacked { size: unpacker.size, displaced: unpacker.displaced })
}

struct Unpacker<'a> {
    root: File,
    folder: &'a Path,
    rights: Rights,
    recipe: RecipeHandle,
    /// The directory of the last entry: most entries follow one of the same directory.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// By their paths. Modes and times are set when nothing more comes into the directories.
    directories: BTreeMap<Vec<u8>, Attributes>,
    displaced: Vec<Displaced>,
    /// Entries, and directories that none speaks of.
    made: u64,
    size: u64,
    buffer: Vec<u8>,
    /// Bytes written since the room on the disk was looked at.
    since_look: u64,
}

/// Where an entry goes: an open directory and a name in it.
struct Place<'a> {
    parent: Rc<OwnedFd>,
    name: &'a [u8],
    path: &'a [u8],
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &mut Entry, contents: &mut impl Read) -> Result<(), UnpackError> {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let refused = |reason| UnpackError::Refused { entry: shown.clone(), reason };
        let path = clean(&entry.path).map_err(refused)?;
        let outcome = self.place(entry, contents, &path);
        outcome.map_err(|failure| match failure {
            Failure::Refused(reason) => refused(reason),
            Failure::Read(error) => UnpackError::Read(error),
            Failure::Recipe(error) => UnpackError::Recipe(error),
            Failure::Create(source) => UnpackError::Create { entry: shown.clone(), source },
        })
    }

    fn place(&mut self, entry: &mut Entry, contents: &mut impl Read, path: &[u8]) -> Result<(), Failure> {
        let kind = entry.kind;
        if entry.extended.pax_sparse {
            return Err(Failure::Refused("sparse files in pax format are not supported"));
        }
        let attributes = attributes(entry)?;
        if path.is_empty() {
            return match kind {
                EntryType::Directory => {
                    self.directories.insert(Vec::new(), attributes);
                    Ok(())
                }
                _ => Err(Failure::Refused("the root must be a directory")),
            };
        }
        let (folder, name) = split(path);
        let parent = self.open_parent(folder)?;
        let place = Place { parent, name, path };
        match name.strip_prefix(b".wh.") {
            Some(b".wh..opq") => return self.set_opaque(&place.parent),
            // Bookkeeping of aufs, never part of the layer.
            Some(hidden) if hidden.starts_with(b".wh.") => return Ok(()),
            Some(b"" | b"." | b"..") => return Err(Failure::Refused("a whiteout of nothing")),
            Some(hidden) => return self.whiteout(&place, hidden),
            None => {}
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.regular(entry, contents, &place, &attributes)
            }
            EntryType::Directory => self.directory(&place, attributes),
            EntryType::Symlink => {
                let target = entry.link.as_deref().ok_or(Failure::Refused("a link without a target"))?;
                self.create(&place, || rustix::fs::symlinkat(target, &place.parent, name))?;
                self.size += target.len() as u64;
                self.finish_by_name(&place, &attributes)
            }
            EntryType::Link => self.hard_link(entry, &place),
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.node(entry, &place, kind, &attributes),
            _ => Err(Failure::Refused("its type is not one that a layer may have")),
        }
    }

    fn regular(
        &mut self,
        entry: &Entry,
        contents: &mut impl Read,
        place: &Place<'_>,
        attributes: &Attributes,
    ) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.create(place, || rustix::fs::openat(&place.parent, place.name, flags, mode))?;
        let mut file = File::from(file);
        if let Some((map, real_size)) = &entry.sparse {
            // The file's bytes are not those of the stream, so they stay in the recipe.
            for stretch in map {
                file.seek(SeekFrom::Start(stretch.offset))?;
                self.copy(contents, stretch.length, &mut file)?;
            }
            file.set_len(*real_size)?;
        } else {
            self.recipe.begin_content(entry.size, place.path).map_err(Failure::Recipe)?;
            self.copy(contents, entry.size, &mut file)?;
            self.recipe.end_content();
        }
        self.size += entry.size;
        finish_open(&file, attributes, self.rights)
    }

    fn copy(&mut self, contents: &mut impl Read, size: u64, file: &mut File) -> Result<(), Failure> {
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let buffer = self.buffer.get_mut(..length).unwrap_or_default();
            let read = contents.read(buffer).map_err(Failure::Read)?;
            if read == 0 {
                return Err(Failure::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            file.write_all(buffer.get(..read).unwrap_or_default())?;
            left -= read as u64;
            self.since_look += read as u64;
            if self.since_look >= LOOK {
                self.since_look = 0;
                self.check_room(file)?;
            }
        }
        Ok(())
    }

    /// A layer that grows without end must not take the last of the disk from everybody else.
    fn check_room(&self, file: &File) -> io::Result<()> {
        let room = rustix::fs::fstatvfs(file)?;
        let full = room.f_bavail.saturating_mul(room.f_frsize) < RESERVE;
        if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn directory(&mut self, place: &Place<'_>, attributes: Attributes) -> Result<(), Failure> {
        self.make_directory(&place.parent, place.name, place.path)?;
        self.directories.insert(place.path.to_owned(), attributes);
        Ok(())
    }

    /// A directory that is there stays; anything else makes way. One that comes after its own whiteout is new, so
    /// nothing of the lower layers may show in it.
    fn make_directory(&mut self, parent: &Rc<OwnedFd>, name: &[u8], path: &[u8]) -> Result<(), Failure> {
        let mode = Mode::RWXU;
        match rustix::fs::mkdirat(parent, name, mode) {
            Err(Errno::EXIST) => {}
            made => return Ok(made?),
        }
        let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Ok(());
        }
        self.displace(parent, name, path)?;
        rustix::fs::mkdirat(parent, name, mode)?;
        if is_whiteout(&there) {
            self.set_opaque(&inroot::open(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?)?;
        }
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), Failure> {
        let target = entry.link.as_deref().ok_or(Failure::Refused("a link without a target"))?;
        let target = clean(target).map_err(Failure::Refused)?;
        if target.is_empty() || target == place.path {
            return Err(Failure::Refused("a hard link to itself or to the root"));
        }
        let (folder, name) = split(&target);
        let from = inroot::open_directory(&self.root, folder)?;
        Ok(self.create(place, || rustix::fs::linkat(&from, name, &place.parent, place.name, AtFlags::empty()))?)
    }

    fn node(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        kind: EntryType,
        attributes: &Attributes,
    ) -> Result<(), Failure> {
        let (file_type, device) = match kind {
            EntryType::Fifo => (FileType::Fifo, 0),
            _ if self.rights != Rights::Root => return Ok(()),
            kind => {
                let header = &entry.header;
                let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default).map_err(Failure::Read);
                let device = rustix::fs::makedev(number(header.device_major())?, number(header.device_minor())?);
                let file_type = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                (file_type, device)
            }
        };
        let mode = Mode::empty();
        self.create(place, || rustix::fs::mknodat(&place.parent, place.name, file_type, mode, device))?;
        self.finish_by_name(place, attributes)?;
        // The name was made by the call above in a directory of ours, so it is no link to follow.
        Ok(rustix::fs::chmodat(&place.parent, place.name, attributes.mode, AtFlags::empty())?)
    }

    fn whiteout(&mut self, place: &Place<'_>, hidden: &[u8]) -> Result<(), Failure> {
        match rustix::fs::mknodat(&place.parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // Whiteouts speak of the layers below: what this layer has itself stays, and a directory of it is all there is.
            Err(Errno::EXIST) => {
                match inroot::open(&place.parent, hidden, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                    Ok(directory) => self.set_opaque(&directory),
                    Err(_not_a_directory) => Ok(()),
                }
            }
            made => Ok(made?),
        }
    }

    fn set_opaque(&self, directory: &OwnedFd) -> Result<(), Failure> {
        Ok(rustix::fs::fsetxattr(directory, self.rights.opaque_xattr(), b"y", XattrFlags::empty())?)
    }

    /// Makes something new; what has its name already is put aside.
    fn create<T>(&mut self, place: &Place<'_>, make: impl Fn() -> rustix::io::Result<T>) -> io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.displace(&place.parent, place.name, place.path)?;
                Ok(make()?)
            }
            made => Ok(made?),
        }
    }

    fn displace(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        let aside = self.folder.join("displaced");
        if self.displaced.is_empty() {
            fs::create_dir(&aside)?;
        }
        let aside = File::open(aside)?;
        rustix::fs::renameat(parent, name, aside, self.displaced.len().to_string())?;
        self.displaced.push(Displaced { path: path.to_owned(), before: self.recipe.contents() });
        self.directories.remove(path);
        // Those inside follow each other.
        let inside = [path, b"/"].concat();
        while let Some((found, _)) =
            self.directories.range(inside.clone()..).next().filter(|(found, _)| found.starts_with(&inside))
        {
            let found = found.clone();
            self.directories.remove(&found);
        }
        self.parent = None;
        Ok(())
    }

    fn open_parent(&mut self, folder: &[u8]) -> Result<Rc<OwnedFd>, Failure> {
        if let Some((path, directory)) = &self.parent
            && path == folder
        {
            return Ok(Rc::clone(directory));
        }
        let directory = match inroot::open_directory(&self.root, folder) {
            Ok(directory) => Rc::new(directory),
            Err(error)
                if matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOENT | Errno::NOTDIR)) =>
            {
                self.make_parents(folder)?
            }
            Err(error) => return Err(error.into()),
        };
        self.parent = Some((folder.to_owned(), Rc::clone(&directory)));
        Ok(directory)
    }

    /// Directories that no entry speaks of belong to root and are open to all.
    fn make_parents(&mut self, folder: &[u8]) -> Result<Rc<OwnedFd>, Failure> {
        let slashes = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
        let ends: Vec<usize> = slashes.chain([folder.len()]).collect();
        let path = |end: &usize| folder.get(..*end).unwrap_or_default();
        // To go down from the root for each of them would take the square of the depth.
        let there = ends.partition_point(|end| inroot::open_directory(&self.root, path(end)).is_ok());
        let (there, missing) = ends.split_at(there);
        let mut directory = Rc::new(inroot::open_directory(&self.root, there.last().map_or(&[][..], path))?);
        for path in missing.iter().map(path) {
            let (_, name) = split(path);
            let free = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => true,
                there => is_whiteout(&there?),
            };
            if !free {
                return Err(Failure::Refused("its parent is not a directory"));
            }
            self.made += 1;
            self.make_directory(&directory, name, path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let made = inroot::open(&directory, name, flags)?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            directory = Rc::new(made);
        }
        Ok(directory)
    }

    fn finish_by_name(&self, place: &Place<'_>, attributes: &Attributes) -> Result<(), Failure> {
        if self.rights.gives_files_away() {
            let (uid, gid) = owner(attributes);
            match rustix::fs::chownat(&place.parent, place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::INVAL) if self.rights == Rights::Mapped => return Err(Failure::Refused(BEYOND)),
                given => given?,
            }
        }
        let times = both_times(attributes.mtime);
        Ok(rustix::fs::utimensat(&place.parent, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn finish_directories(&mut self) -> Result<(), UnpackError> {
        // What is inside of another one comes first.
        for (path, attributes) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let opened = inroot::open(&self.root, path, flags).map_err(Failure::Create);
            let finished = opened.and_then(|opened| finish_open(&opened, attributes, self.rights));
            let entry = || String::from_utf8_lossy(path).into_owned();
            match finished {
                Err(Failure::Create(source)) => return Err(UnpackError::Create { entry: entry(), source }),
                Err(Failure::Refused(reason)) => return Err(UnpackError::Refused { entry: entry(), reason }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A failure without the entry's name.
pub(super) enum Failure {
    Refused(&'static str),
    Read(io::Error),
    Recipe(io::Error),
    Create(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Create(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Create(error.into())
    }
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The path without a leading `/`, empty and `.` components.
fn clean(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut cleaned: Vec<u8> = Vec::with_capacity(path.len());
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("it leads upwards with `..`"),
            _ if part.contains(&0) => return Err("its name has a NUL byte"),
            _ => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend_from_slice(part);
            }
        }
    }
    Ok(cleaned)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (path.get(..slash).unwrap_or_default(), path.get(slash + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}
