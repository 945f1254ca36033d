//! Files into and out of a directory tree that somebody else fills, as tar streams.
//!
//! Everything is opened by descriptors below the tree's root; what a container holds never leads out of it, and what a
//! stream holds never leads out of the folder it is extracted to. Directories, regular files and symbolic links are
//! copied; sockets, devices and FIFOs are left out.

mod archive;
mod extract;

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{FileType, OFlags};

use crate::sys::inroot;

pub use archive::archive;
pub use extract::{Owners, Symlinks, extract, remove};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    Other,
}

/// What `path` inside `root` is, its last component followed when that is a link; `None` when it is not there.
///
/// # Errors
/// What the system says but not-found.
pub fn kind(root: impl AsFd, path: &str) -> io::Result<Option<Kind>> {
    let opened = match inroot::open(&root, path.as_bytes(), OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let directory = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) == FileType::Directory;
    Ok(Some(if directory { Kind::Directory } else { Kind::Other }))
}

#[cfg(test)]
mod tests;
