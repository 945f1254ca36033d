//! A look into an image without a container: its layers as one read-only tree that is mounted nowhere.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use crate::sys::overlay::{Changes, Overlay};

/// Opens the layers (topmost first) as one directory. The tree is gone with the descriptor.
///
/// # Errors
/// A layer that is missing, or what the kernel says to the mount.
pub fn open(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    if let [only] = layers {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(only, flags, Mode::empty())?);
    }
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    root_of(Overlay { lower: layers, changes: None, label: None }, read_only)
}

/// Opens the layers (topmost first) as one directory that takes changes: they land in `upper`, an overlay's directory,
/// with `work` beside it. The mount is gone with the descriptor, and nothing has been synced.
///
/// # Errors
/// As [`open`].
pub fn open_writable(layers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let changes = Some(Changes { upper, work, volatile: true });
    root_of(Overlay { lower: layers, changes, label: None }, MountAttrFlags::MOUNT_ATTR_NODEV)
}

fn root_of(overlay: Overlay<'_>, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let mount = overlay.detached(attributes)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&mount, ".", flags, Mode::empty())?)
}
