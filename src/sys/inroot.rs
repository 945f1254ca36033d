//! Opening paths inside a directory tree that somebody else filled: `..` and symbolic links end at the tree's root.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
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

/// Opens a regular file inside `root` for reading; the last component may not be a symbolic link.
///
/// # Errors
/// As [`open`] and [`regular`].
pub fn open_file(root: impl AsFd, path: &[u8]) -> io::Result<File> {
    regular(&open(root, path, OFlags::PATH | OFlags::NOFOLLOW)?)
}

/// Opens for reading what was found (`O_PATH`), if it is a regular file. Of anything else nothing is opened: a device node there
/// is one of the host's devices, some of which do something when they are opened.
///
/// # Errors
/// `InvalidInput` where it is something else; what `open(2)` says.
pub fn regular(found: &impl AsFd) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(found)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(Errno::LOOP.into()),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
    let path = format!("/proc/self/fd/{}", found.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
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

    #[test]
    fn nothing_but_files_is_opened() {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        use std::os::unix::fs::OpenOptionsExt;
        let folder = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("fifo", folder.path().join("link")).unwrap();
        let opened = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        opened.add_watch(&folder.path().join("fifo"), AddWatchFlags::IN_OPEN).unwrap();
        let root = File::open(folder.path()).unwrap();
        assert_eq!(open_file(&root, b"fifo").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(open_file(&root, b"link").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert!(opened.read_events().is_err(), "it was opened");
        let naive = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(folder.path().join("fifo"));
        assert!(naive.is_ok() && opened.read_events().is_ok());
    }
}
