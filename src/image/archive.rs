//! A directory in overlayfs's form as a layer's tar archive: its digest, and the recipe to write it again. The contents are
//! read once and copied nowhere. The archive depends on the tree only: entries are sorted, times are whole seconds.
//! A tree that may be changed meanwhile can be written out as an archive, too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags, Stat, Timestamps};
use tar::{EntryType, Header};

use super::digest::Digest;
use super::recipe::Writer;
use super::unpack::Rights;
use crate::sys::inroot;

const BUFFER: usize = 256 * 1024;
/// Nobody nests directories deeper; bounds the recursion.
const MAX_DEPTH: usize = 1024;

/// What an archive turned out to be.
pub(super) struct Archived {
    pub(super) diff_id: Digest,
    /// Sum of the sizes of the regular files and links, in bytes.
    pub(super) size: u64,
    /// In bytes.
    pub(super) archive_size: u64,
}

/// Describes `folder/fs` as an archive and writes `folder/recipe`. Times after `newest` (seconds since the epoch) become
/// it, in the tree as well.
pub(super) fn archive(folder: &Path, rights: Rights, newest: Option<i64>) -> io::Result<Archived> {
    let root: OwnedFd = File::open(folder.join("fs"))?.into();
    let writer = Writer::new(File::create(folder.join("recipe"))?)?;
    let mut archiver = Archiver::new(writer, rights, &[]);
    archiver.newest = newest;
    archiver.directory(&root, &mut Vec::new(), 0)?;
    archiver.writer.bytes(&[0; 1024])?;
    let (diff_id, archive_size) = archiver.writer.finish()?;
    Ok(Archived { diff_id, size: archiver.size, archive_size })
}

/// Writes a tree out as an archive, but for the files `skip`. What is being changed comes out as it was at some moment: a file
/// that becomes shorter ends with zeros, one that goes is left out.
///
/// # Errors
/// The tree cannot be read, or what `output` returns.
pub(super) fn write(root: &OwnedFd, rights: Rights, skip: &[&[u8]], output: &mut dyn Write) -> io::Result<()> {
    let mut archiver = Archiver::new(Stream(output), rights, skip);
    archiver.directory(root, &mut Vec::new(), 0)?;
    archiver.writer.bytes(&[0; 1024])?;
    archiver.writer.0.flush()
}

/// Where an archive goes.
trait Sink {
    /// What is read may change meanwhile.
    const LIVE: bool;
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// `size` bytes of [`Self::content`] follow, which `path` holds.
    fn begin_content(&mut self, size: u64, path: &[u8]) -> io::Result<()>;
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Sink for Writer {
    const LIVE: bool = false;

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::bytes(self, bytes)
    }

    fn begin_content(&mut self, size: u64, path: &[u8]) -> io::Result<()> {
        Self::begin_content(self, size, path)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        Self::content(self, bytes);
        Ok(())
    }
}

/// The archive itself.
struct Stream<'a>(&'a mut dyn Write);

impl Sink for Stream<'_> {
    const LIVE: bool = true;

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn begin_content(&mut self, _size: u64, _path: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}

struct Archiver<'a, S> {
    writer: S,
    rights: Rights,
    /// Paths that are left out.
    skip: &'a [&'a [u8]],
    newest: Option<i64>,
    /// Files with several names: device and inode to the first name.
    links: HashMap<(u64, u64), Vec<u8>>,
    size: u64,
    buffer: Vec<u8>,
}

impl<'a, S: Sink> Archiver<'a, S> {
    fn new(writer: S, rights: Rights, skip: &'a [&'a [u8]]) -> Self {
        Self { writer, rights, skip, newest: None, links: HashMap::new(), size: 0, buffer: vec![0; BUFFER] }
    }

    fn directory(&mut self, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deep"));
        }
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let done = match self.skip.contains(&path.as_slice()) {
                true => Ok(()),
                false => self.entry(directory, &name, path, depth),
            };
            path.truncate(length);
            match done {
                Err(error) if S::LIVE && error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &[u8], path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let length = path.len() - name.len();
            let hidden = [path.get(..length).unwrap_or_default(), b".wh.", name].concat();
            return self.header(&hidden, EntryType::Regular, None, &Attributes::whiteout(), 0);
        }
        let attributes = self.attributes(parent, name, &stat)?;
        match kind {
            FileType::Directory => {
                let opened = inroot::open(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
                let xattrs = xattrs(&opened)?;
                self.header(
                    &[path.as_slice(), b"/"].concat(),
                    EntryType::Directory,
                    None,
                    &attributes.with(&xattrs),
                    0,
                )?;
                if xattrs.iter().any(|(key, value)| key == self.rights.opaque_xattr() && value == b"y") {
                    let marker = [path.as_slice(), b"/.wh..wh..opq"].concat();
                    self.header(&marker, EntryType::Regular, None, &Attributes::whiteout(), 0)?;
                }
                self.directory(&opened, path, depth + 1)?;
            }
            FileType::RegularFile => self.regular(parent, name, path, &stat, &attributes)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                self.header(path, EntryType::Symlink, Some(target.as_bytes()), &attributes, 0)?;
                self.size += target.as_bytes().len() as u64;
            }
            FileType::Fifo => self.node(path, EntryType::Fifo, &stat, &attributes)?,
            FileType::CharacterDevice => self.node(path, EntryType::Char, &stat, &attributes)?,
            FileType::BlockDevice => self.node(path, EntryType::Block, &stat, &attributes)?,
            // A socket is nothing without who listens.
            _ => return Ok(()),
        }
        Ok(())
    }

    fn regular(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        attributes: &Attributes,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)).cloned() {
                return self.header(path, EntryType::Link, Some(&first), attributes, 0);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        let mut file = inroot::open_file(parent, name)?;
        let xattrs = xattrs(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.header(path, EntryType::Regular, None, &attributes.with(&xattrs), size)?;
        if size == 0 {
            return Ok(());
        }
        self.writer.begin_content(size, path)?;
        let mut left = size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = file.read(self.buffer.get_mut(..length).unwrap_or_default())?;
            let read = match read {
                0 if S::LIVE => {
                    self.buffer.fill(0);
                    length
                }
                0 => return Err(io::Error::other("a file became shorter while it was read")),
                read => read,
            };
            self.writer.content(self.buffer.get(..read).unwrap_or_default())?;
            left -= read as u64;
        }
        self.size += size;
        let padding = usize::try_from(size.wrapping_neg() % 512).unwrap_or_default();
        self.writer.bytes([0; 512].get(..padding).unwrap_or_default())
    }

    fn node(&mut self, path: &[u8], kind: EntryType, stat: &Stat, attributes: &Attributes) -> io::Result<()> {
        let mut attributes = attributes.clone();
        if kind != EntryType::Fifo {
            attributes.device = Some((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)));
        }
        self.header(path, kind, None, &attributes, 0)
    }

    fn attributes(&self, parent: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<Attributes> {
        let mut mtime = stat.st_mtime;
        if let Some(newest) = self.newest.filter(|newest| mtime > *newest) {
            mtime = newest;
            let time = rustix::fs::Timespec { tv_sec: newest, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime,
            device: None,
            records: Vec::new(),
        })
    }

    /// Writes a header, with an extended one before it where the fields are too small.
    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        link: Option<&[u8]>,
        attributes: &Attributes,
        size: u64,
    ) -> io::Result<()> {
        let mut records = attributes.records.clone();
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(attributes.mode);
        set_text(&mut header.as_mut_bytes()[..100], path, "path", &mut records);
        if let Some(link) = link {
            set_text(&mut header.as_mut_bytes()[157..257], link, "linkpath", &mut records);
        }
        const LARGEST_ID: u32 = 0o7_777_777;
        for (key, id, set) in [
            ("uid", attributes.uid, Header::set_uid as fn(&mut Header, u64)),
            ("gid", attributes.gid, Header::set_gid as fn(&mut Header, u64)),
        ] {
            if id > LARGEST_ID {
                record(&mut records, key, id.to_string().as_bytes());
            }
            set(&mut header, u64::from(id.min(LARGEST_ID)));
        }
        const LARGEST: u64 = 0o77_777_777_777;
        if size > LARGEST {
            record(&mut records, "size", size.to_string().as_bytes());
        }
        header.set_size(size.min(LARGEST));
        match u64::try_from(attributes.mtime) {
            Ok(mtime) if mtime <= LARGEST => header.set_mtime(mtime),
            _ => {
                record(&mut records, "mtime", attributes.mtime.to_string().as_bytes());
                header.set_mtime(0);
            }
        }
        if let Some((major, minor)) = attributes.device {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            set_text(&mut extended.as_mut_bytes()[..100], b"PaxHeaders.0", "path", &mut Vec::new());
            extended.set_size(records.len() as u64);
            extended.set_cksum();
            let padding = records.len().wrapping_neg() % 512;
            records.resize(records.len() + padding, 0);
            self.writer.bytes(extended.as_bytes())?;
            self.writer.bytes(&records)?;
        }
        header.set_cksum();
        self.writer.bytes(header.as_bytes())
    }
}

#[derive(Clone)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since the epoch.
    mtime: i64,
    device: Option<(u32, u32)>,
    /// pax records.
    records: Vec<u8>,
}

impl Attributes {
    fn whiteout() -> Self {
        Self { mode: 0, uid: 0, gid: 0, mtime: 0, device: None, records: Vec::new() }
    }

    /// With those extended attributes that are the image's business.
    fn with(&self, xattrs: &[(String, Vec<u8>)]) -> Self {
        let mut with = self.clone();
        for (key, value) in xattrs.iter().filter(|(key, _)| super::attributes::is_allowed_xattr(key)) {
            record(&mut with.records, &format!("SCHILY.xattr.{key}"), value);
        }
        with
    }
}

/// Puts text into a field of the header, or into a record when it does not fit.
fn set_text(field: &mut [u8], text: &[u8], key: &str, records: &mut Vec<u8>) {
    let fits = text.len() <= field.len() && text.is_ascii();
    if !fits {
        record(records, key, text);
    }
    for (place, byte) in field.iter_mut().zip(text) {
        *place = if byte.is_ascii() { *byte } else { b'_' };
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// All extended attributes of an open file, sorted; none where the file system has none.
fn xattrs(file: &impl AsFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    use rustix::io::Errno;
    let names = match with_room(|buffer| rustix::fs::flistxattr(file, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = str::from_utf8(name) else { continue };
        match with_room(|buffer| rustix::fs::fgetxattr(file, name, buffer)) {
            // Gone meanwhile, or not ours to read.
            Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
            value => found.push((name.to_owned(), value?)),
        }
    }
    found.sort();
    Ok(found)
}

/// Reads into a small buffer, and into one of the kernel's own limit where that is too small.
fn with_room(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    const LARGEST: usize = 64 * 1024;
    let mut buffer = vec![0; 256];
    let length = match read(&mut buffer) {
        Err(rustix::io::Errno::RANGE) => {
            buffer.resize(LARGEST, 0);
            read(&mut buffer)?
        }
        length => length?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{XattrFlags, setxattr};

    use super::*;
    use crate::image::recipe::replay;

    #[test]
    fn extended_attributes_are_part_of_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("fs");
        fs::create_dir_all(root.join("opaque")).unwrap();
        fs::write(root.join("opaque/file"), "content").unwrap();
        let set = |path: &str, name: &str, value: &[u8]| setxattr(root.join(path), name, value, XattrFlags::empty());
        if set("opaque", "user.overlay.opaque", b"y").is_err() {
            return println!("skipped: no extended attributes here");
        }
        set("opaque/file", "user.large", &[b'v'; 1000]).unwrap();
        let archived = archive(folder.path(), Rights::User, Some(1)).unwrap();
        let mut bytes = Vec::new();
        let digest = replay(folder.path(), &[], &mut bytes).unwrap_or_else(|_| panic!("the archive is written again"));
        assert_eq!((digest, bytes.len() as u64), (archived.diff_id, archived.archive_size));
        let text = String::from_utf8_lossy(&bytes);
        for part in ["opaque/.wh..wh..opq", "SCHILY.xattr.user.large=vvvv", "content"] {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("SCHILY.xattr.user.overlay"));
    }
}
