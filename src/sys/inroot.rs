//! Opening paths inside a directory tree that somebody else filled: `..` and symbolic links end at the tree's root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Opens `path` (relative to `root`, or absolute as seen from inside) as `chroot(root)` would, without magic links.
/// The last component is followed too unless `flags` says `NOFOLLOW`.
///
/// # Errors
/// What `openat2(2)` says.
pub fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        // EAGAIN: something was renamed on the system while `..` was being resolved, so the kernel could not be sure.
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => std::thread::yield_now(),
            opened => return Ok(opened?),
        }
    }
}

/// Opens a directory inside `root` for reading.
///
/// # Errors
/// As [`open`].
pub fn open_directory(root: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a file inside `root` for reading; the last component may not be a symbolic link, and a FIFO does not block.
///
/// # Errors
/// As [`open`].
pub fn open_file(root: impl AsFd, path: &[u8]) -> io::Result<File> {
    open(root, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK).map(File::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(folder.path().join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        symlink(folder.path(), root.join("absolute")).unwrap();
        symlink("../../../../..", root.join("etc/up")).unwrap();
        let root = File::open(root).unwrap();
        for path in ["../secret", "/secret", "etc/up/secret", "etc/../../secret"] {
            let mut text = String::new();
            open_file(&root, path.as_bytes()).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        assert_eq!(open_directory(&root, b"absolute").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
