//! Keeping the program out of the reach of containers (CVE-2019-5736).
//!
//! A container's process is this program until it executes its own, and that may lead back here (`#!/proc/self/exe`). Whoever
//! then opens `/proc/PID/exe` holds a file of the host. So the program runs through a read-only mount that is attached nowhere:
//! such a descriptor cannot be opened for writing, by nobody. It changes over while it runs; where the kernel does not allow
//! that, it executes itself once more.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::mount::{MountAttributes, set_attributes};
use crate::sys::process::SingleThreaded;
use crate::sys::program;

/// Returns when this process runs from where nobody can write to. It may execute itself anew before that, so nothing but
/// looking at arguments may come before it.
pub(super) fn seal() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let mount = match read_only_mount() {
        // Without the right to make mounts there is none to write to a file of root either.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Ok(()),
        mount => mount?,
    };
    if change_over(&mount).is_ok() && is_sealed()? {
        return Ok(());
    }
    match execute(mount)? {}
}

fn is_sealed() -> io::Result<bool> {
    let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fstatvfs(program)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// The program's file, as the root of a mount of its own.
fn read_only_mount() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
    let read_only = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    set_attributes(&clone, &read_only, false)?;
    Ok(clone)
}

fn change_over(mount: &OwnedFd) -> io::Result<()> {
    // A descriptor from open_tree(2) is not open for reading; through its link it can be opened.
    let link = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let file = rustix::fs::open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    program::run_from(SingleThreaded::check()?, file.as_fd())
}

fn execute(mount: OwnedFd) -> io::Result<Infallible> {
    let text = |value: std::ffi::OsString| CString::new(value.into_vec()).map_err(io::Error::from);
    let arguments = std::env::args_os().map(text).collect::<Result<Vec<_>, _>>()?;
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        text(pair)
    };
    let environment = std::env::vars_os().map(pair).collect::<Result<Vec<_>, _>>()?;
    Ok(nix::unistd::execveat(mount, c"", &arguments, &environment, nix::fcntl::AtFlags::AT_EMPTY_PATH)?)
}
