//! A file or directory as a tar stream.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use tar::{Builder, EntryType, Header};

use crate::sys::inroot;

/// Deeper than any tree that a person makes; each level holds a descriptor.
const MAX_DEPTH: usize = 200;

/// Writes what `path` inside `root` leads to, under `name`; with an empty name, what the directory holds. A link at
/// the end of the path is copied as a link unless `follow`.
///
/// # Errors
/// What is not there, cannot be read, or is nested too deeply; what `out` returns.
pub fn archive(root: impl AsFd, path: &str, name: &str, follow: bool, out: impl Write) -> io::Result<()> {
    let mut builder = Builder::new(out);
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let found = inroot::open(&root, path.as_bytes(), flags)?;
    let stat = rustix::fs::fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let folder = inroot::open_directory(&root, path.as_bytes())?;
            if !name.is_empty() {
                append(&mut builder, Path::new(name), &stat, EntryType::Directory, io::empty())?;
            }
            directory(&mut builder, &folder, Path::new(name), 0)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
            link(&mut builder, Path::new(name), &stat, target.as_bytes())?;
        }
        FileType::RegularFile => {
            append(&mut builder, Path::new(name), &stat, EntryType::Regular, inroot::regular(&found)?)?;
        }
        _ => return Err(io::Error::other("it is neither a file, nor a directory, nor a link")),
    }
    builder.into_inner()?.flush()
}

fn directory<W: Write>(builder: &mut Builder<W>, folder: &OwnedFd, name: &Path, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("`{}` is nested too deeply", name.display())));
    }
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let file_name = entry.file_name();
        if matches!(file_name.to_bytes(), b"." | b"..") {
            continue;
        }
        let name: PathBuf = name.join(std::ffi::OsStr::from_bytes(file_name.to_bytes()));
        match item(builder, folder.as_fd(), file_name, &name, depth) {
            // It was removed while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn item<W: Write>(
    builder: &mut Builder<W>,
    folder: BorrowedFd<'_>,
    file_name: &std::ffi::CStr,
    name: &Path,
    depth: usize,
) -> io::Result<()> {
    let stat = rustix::fs::statat(folder, file_name, AtFlags::SYMLINK_NOFOLLOW)?;
    let open = |flags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(folder, file_name, flags, Mode::empty())
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let inner = open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            append(builder, name, &stat, EntryType::Directory, io::empty())?;
            directory(builder, &inner, name, depth + 1)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(folder, file_name, Vec::new())?;
            link(builder, name, &stat, target.as_bytes())
        }
        FileType::RegularFile => {
            // What it is now, not what its name stood for a moment ago.
            let file = match inroot::regular(&open(OFlags::PATH)?) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
                other => other?,
            };
            append(builder, name, &rustix::fs::fstat(&file)?, EntryType::Regular, file)
        }
        _ => Ok(()),
    }
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// A file that grows or shrinks while it is read is cut or filled with zeros, so that the stream stays whole.
fn append<W: Write>(
    builder: &mut Builder<W>,
    name: &Path,
    stat: &Stat,
    kind: EntryType,
    content: impl io::Read,
) -> io::Result<()> {
    let mut header = header(stat, kind);
    let size = if kind == EntryType::Regular { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    header.set_size(size);
    let content = io::Read::take(io::Read::chain(content, io::repeat(0)), size);
    builder.append_data(&mut header, name, content)
}

fn link<W: Write>(builder: &mut Builder<W>, name: &Path, stat: &Stat, target: &[u8]) -> io::Result<()> {
    let mut header = header(stat, EntryType::Symlink);
    builder.append_link(&mut header, name, std::ffi::OsStr::from_bytes(target))
}
