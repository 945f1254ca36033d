//! `mount_setattr(2)`, which the safe wrappers lack, what the kernel says to a mount, and mounts of other mount namespaces.
#![allow(unsafe_code, reason = "system call without a safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::OFlags;
use rustix::mount::{OpenTreeFlags, open_tree};

/// `struct mount_attr` of `<linux/mount.h>`; `MOUNT_ATTR_*` bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttributes {
    pub set: u64,
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SHARED`, `MS_SLAVE` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    pub user_namespace: u64,
}

/// Changes the mount whose root `mount` is (with everything mounted below it when `recursive`).
///
/// # Errors
/// `EINVAL` when the descriptor is not the root of a mount, `EPERM` for locked flags.
pub fn set_attributes(mount: impl AsFd, attributes: &MountAttributes, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty string, `attributes` is a live repr(C) value of the size that is given, and the
    // kernel only reads both during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the file system had to say to a mount that failed, after `: `; empty when it said nothing.
pub fn kernel_message(context: &OwnedFd) -> String {
    let mut text = [0; 512];
    match rustix::io::read(context, &mut text) {
        Ok(length) => format!(": {}", String::from_utf8_lossy(text.get(2..length).unwrap_or_default()).trim_end()),
        Err(_) => String::new(),
    }
}

/// The directory at `path` in the mount namespace of the process `pid`, as a mount that is attached nowhere. Only from inside may one
/// be made; a thread of ours goes there. Where the process has changed its own root to counts for nothing.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `EPERM`, or no thread.
pub fn clone_of(pid: i32, path: &[u8]) -> io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    let clone = || -> io::Result<OwnedFd> {
        // The working directory, which other threads have, too, cannot go along.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        let root = File::open("/")?;
        let found = super::inroot::open(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(open_tree(found, "", flags)?)
    };
    apart(clone)?
}

/// Does something in a thread of its own, whose mount namespace and working directory may become others.
///
/// # Errors
/// No thread.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("mount".into()).stack_size(256 << 10).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
