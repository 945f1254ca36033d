//! Keeping the program out of the reach of containers (CVE-2019-5736).
//!
//! A container's process is this program until it executes its own, and that may lead back here (`#!/proc/self/exe`). Whoever
//! then opens `/proc/PID/exe` holds a file of the host. So the program executes itself once more through a read-only mount
//! that is attached nowhere: such a descriptor cannot be opened for writing, by nobody.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys::mount::{MountAttributes, set_attributes};

/// Returns when this process runs from where nobody can write to. Before that it executes itself anew, so nothing but
/// looking at arguments may come before it.
pub(super) fn seal() -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    match execute_sealed() {
        Ok(never) => match never {},
        // Without the right to make mounts there is none to write to a file of root either.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_sealed() -> io::Result<bool> {
    let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fstatvfs(program)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn execute_sealed() -> io::Result<Infallible> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(rustix::fs::CWD, "/proc/self/exe", flags)?;
    let read_only = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    set_attributes(&clone, &read_only, false)?;
    let text = |value: std::ffi::OsString| CString::new(value.into_vec()).map_err(io::Error::from);
    let arguments = std::env::args_os().map(text).collect::<Result<Vec<_>, _>>()?;
    let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        text(pair)
    };
    let environment = std::env::vars_os().map(pair).collect::<Result<Vec<_>, _>>()?;
    Ok(nix::unistd::execveat(clone, c"", &arguments, &environment, nix::fcntl::AtFlags::AT_EMPTY_PATH)?)
}
