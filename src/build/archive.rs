//! Unpacking a tar archive of `ADD` into a directory of the image: an ordinary archive, without the marks that layers have.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tar::EntryType;

use super::copy::make_directory;
use super::tree::{self, Found};
use crate::image::entries::{Entries, Entry};
use crate::sys::inroot;

/// More than any real archive has.
const MAX_ENTRIES: u64 = 5_000_000;
const BLOCK: usize = 512;

/// Unpacks a context into a folder; `false`: the file is no archive.
///
/// # Errors
/// The archive is damaged, or the disk's own.
pub fn unpack_context(file: &Path, into: &Path) -> io::Result<bool> {
    let Some(archive) = open_file(File::open(file)?)? else { return Ok(false) };
    let root: OwnedFd = File::open(into)?.into();
    // Whose the files are means nothing in a context.
    unpack(archive, &root, Some((0, 0)))?;
    Ok(true)
}

/// Opens a source as an archive: plain, gzip, bzip2, xz or zstd; `None` when it is none.
///
/// # Errors
/// Reading fails.
pub(super) fn open(found: &Found) -> io::Result<Option<Box<dyn Read>>> {
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    open_file(tree::reopen(&found.file)?)
}

fn open_file(mut file: File) -> io::Result<Option<Box<dyn Read>>> {
    let mut block = Vec::with_capacity(BLOCK);
    // What cannot be decompressed to a header is an ordinary file.
    let read = decoder(file.try_clone()?).and_then(|decoder| decoder.take(BLOCK as u64).read_to_end(&mut block));
    if read.is_err() || !is_header(&block) {
        return Ok(None);
    }
    file.rewind()?;
    decoder(file).map(Some)
}

fn decoder(file: File) -> io::Result<Box<dyn Read>> {
    let mut input = BufReader::with_capacity(256 * 1024, file);
    let start = input.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(lzma_rust2::XzReader::new(input, true)),
        _ => Box::new(input),
    })
}

/// Whether a block is the header of an entry: its checksum says so.
fn is_header(block: &[u8]) -> bool {
    let Ok(bytes) = <&[u8; BLOCK]>::try_from(block) else { return false };
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(bytes);
    let sum: u32 =
        bytes.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    header.cksum().is_ok_and(|expected| expected == sum) && bytes.first().is_some_and(|first| *first != 0)
}

/// Unpacks into `target`, which is the archive's root: nothing gets out of it.
///
/// # Errors
/// The archive is damaged, or the disk's own.
pub(super) fn unpack(input: Box<dyn Read>, target: &OwnedFd, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut entries = Entries::new(input);
    let mut directories = Vec::new();
    let mut number = 0;
    while let Some(entry) = entries.advance()? {
        number += 1;
        if number > MAX_ENTRIES {
            return Err(io::Error::other("the archive has too many entries"));
        }
        let path = String::from_utf8(entry.path.clone()).map_err(|_| io::Error::other("a name is not UTF-8"))?;
        let path = tree::clean(&path).join("/");
        let placed = place(&entry, &mut entries, target, &path, owner);
        placed.map_err(|error| io::Error::other(format!("entry `{path}`: {error}")))?;
        if entry.kind == EntryType::Directory {
            directories.push((path, entry));
        }
    }
    // Times of directories, when nothing more comes into them.
    for (path, entry) in directories.iter().rev() {
        if let Ok(directory) = inroot::open_directory(target, path.as_bytes()) {
            rustix::fs::futimens(&directory, &times(entry)?)?;
        }
    }
    Ok(())
}

fn place(
    entry: &Entry,
    content: &mut impl Read,
    target: &OwnedFd,
    path: &str,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let header = &entry.header;
    let id = |extended: Option<u64>, plain: io::Result<u64>| -> io::Result<u32> {
        u32::try_from(extended.map_or(plain, Ok)?).map_err(io::Error::other)
    };
    let (uid, gid) = match owner {
        Some(owner) => owner,
        None => (id(entry.extended.uid, header.uid())?, id(entry.extended.gid, header.gid())?),
    };
    let ids = (Some(Uid::from_raw_unchecked(uid)), Some(Gid::from_raw_unchecked(gid)));
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    if entry.kind == EntryType::Directory {
        let directory = make_directory(target, path, (0, 0))?;
        if !path.is_empty() {
            rustix::fs::fchown(&directory, ids.0, ids.1)?;
            rustix::fs::fchmod(&directory, mode)?;
        }
        return Ok(());
    }
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() {
        return Err(io::Error::other("it has no name"));
    }
    let parent = make_directory(target, above, (0, 0))?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(Errno::ISDIR) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
        Err(error) => return Err(error.into()),
    }
    let link = || entry.link.as_deref().ok_or_else(|| io::Error::other("a link without a target"));
    match entry.kind {
        EntryType::Regular | EntryType::Continuous => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut content.take(entry.size), &mut file)?;
            rustix::fs::fchown(&file, ids.0, ids.1)?;
            rustix::fs::fchmod(&file, mode)?;
            for (key, value) in entry.extended.xattrs.iter().filter(|(key, _)| key == "security.capability") {
                rustix::fs::fsetxattr(&file, key.as_str(), value, rustix::fs::XattrFlags::empty())?;
            }
            return Ok(rustix::fs::futimens(&file, &times(entry)?)?);
        }
        EntryType::Symlink => rustix::fs::symlinkat(link()?, &parent, name)?,
        EntryType::Link => {
            let first = String::from_utf8(link()?.to_vec()).map_err(|_| io::Error::other("a name is not UTF-8"))?;
            let first = tree::clean(&first).join("/");
            let (above, first) = first.rsplit_once('/').unwrap_or(("", &first));
            let from = inroot::open_directory(target, above.as_bytes())?;
            return Ok(rustix::fs::linkat(&from, first, &parent, name, AtFlags::empty())?);
        }
        EntryType::Fifo => rustix::fs::mknodat(&parent, name, FileType::Fifo, mode, 0)?,
        EntryType::Char | EntryType::Block => {
            let number = |part: io::Result<Option<u32>>| part.map(Option::unwrap_or_default);
            let device = rustix::fs::makedev(number(header.device_major())?, number(header.device_minor())?);
            let kind = if entry.kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
            rustix::fs::mknodat(&parent, name, kind, mode, device)?;
        }
        _ => return Err(io::Error::other("its type is not supported")),
    }
    rustix::fs::chownat(&parent, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(&parent, name, &times(entry)?, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(entry: &Entry) -> io::Result<rustix::fs::Timestamps> {
    let time = match entry.extended.mtime {
        Some(time) => time,
        None => {
            let seconds = i64::try_from(entry.header.mtime()?).unwrap_or_default();
            rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 }
        }
    };
    Ok(rustix::fs::Timestamps { last_access: time, last_modification: time })
}
