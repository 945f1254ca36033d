//! A look into an image without a container: its layers as one read-only tree that is mounted nowhere.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::sys::userns::Ids;

/// Opens the layers (topmost first) as one directory. The tree is gone with the descriptor.
///
/// # Errors
/// A layer that is missing, or what the kernel says to the mount.
pub fn open(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    if let [only] = layers {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        return Ok(rustix::fs::open(only, flags, Mode::empty())?);
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    add_layers(&context, layers)?;
    if Ids::of_this_process() != Ids::Host {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, read_only)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&mount, ".", flags, Mode::empty())?)
}

/// Opens the layers (topmost first) as one directory that takes changes: they land in `upper`, an overlay's directory,
/// with `work` beside it. The mount is gone with the descriptor, and nothing has been synced.
///
/// # Errors
/// As [`open`].
pub fn open_writable(layers: &[PathBuf], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    add_layers(&context, layers)?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    for key in ["index", "xino", "metacopy"] {
        fsconfig_set_string(&context, key, "off")?;
    }
    if Ids::of_this_process() == Ids::Host {
        fsconfig_set_string(&context, "redirect_dir", "off")?;
    } else {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_set_flag(&context, "volatile")?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&mount, ".", flags, Mode::empty())?)
}

fn add_layers(context: &OwnedFd, layers: &[PathBuf]) -> io::Result<()> {
    let added = layers.iter().try_for_each(|layer| fsconfig_set_string(context, "lowerdir+", layer));
    if added.is_err() {
        // Before Linux 6.5 there is one option for all; `\` and `:` and `,` are what separates there.
        let list: Vec<String> = layers.iter().map(|layer| escape(&layer.to_string_lossy())).collect();
        fsconfig_set_string(context, "lowerdir", list.join(":"))?;
    }
    Ok(())
}

fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
}
