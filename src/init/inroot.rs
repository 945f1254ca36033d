//! Paths inside the container: opened and made below the root's descriptor, so that no symbolic link of a hostile image
//! leads out of it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// How many symbolic links with missing targets may be followed one after the other, as the kernel's own limit.
const MAX_LINKS: u32 = 40;

/// Opens what is there.
pub(super) fn open(root: impl AsFd, target: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(root, target, flags, ResolveFlags::empty())
}

/// Opens what is there, refusing any symbolic link on the way with `ELOOP`.
pub(super) fn open_without_links(root: impl AsFd, target: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(root, target, flags, ResolveFlags::NO_SYMLINKS)
}

fn openat2(root: impl AsFd, target: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let path = if target.is_empty() { "." } else { target };
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename or mount elsewhere raced with a `..` (openat2(2)); EINTR as ever.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// A directory, made with all its parents where missing (0755, but the last one `mode`); and whether the last one was made.
pub(super) fn make_directory(root: impl AsFd, target: &str, mode: u32) -> Result<(OwnedFd, bool), Errno> {
    make_directory_within(root.as_fd(), target, mode, MAX_LINKS)
}

fn make_directory_within(
    root: rustix::fd::BorrowedFd<'_>,
    target: &str,
    mode: u32,
    links: u32,
) -> Result<(OwnedFd, bool), Errno> {
    match open(root, target, OFlags::PATH | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => {}
        result => return result.map(|directory| (directory, false)),
    }
    let links = links.checked_sub(1).ok_or(Errno::LOOP)?;
    let (above, name) = split(target);
    let (parent, _) = make_directory_within(root, above, 0o755, links)?;
    if name == ".." {
        return open(root, target, OFlags::PATH | OFlags::DIRECTORY).map(|directory| (directory, false));
    }
    match fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fs::openat(&parent, name, flags, Mode::empty()).map(|directory| (directory, true))
        }
        Err(Errno::EXIST) => {
            let next = link_target(&parent, above, name)?;
            make_directory_within(root, &next, mode, links)
        }
        Err(error) => Err(error),
    }
}

/// A file that is there (of any type but a directory), or an empty one made with its parents. `O_PATH`.
pub(super) fn make_file(root: impl AsFd, target: &str) -> Result<OwnedFd, Errno> {
    let root = root.as_fd();
    let mut target = target.to_owned();
    for _ in 0..MAX_LINKS {
        match open(root, &target, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (above, name) = split(&target);
        let (parent, _) = make_directory(root, above, 0o755)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
            Ok(_) => {
                return fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            }
            Err(Errno::EXIST) => target = link_target(&parent, above, name)?,
            Err(error) => return Err(error),
        }
    }
    Err(Errno::LOOP)
}

/// A file in a directory that is there, or an empty one made; no symbolic link is followed, to neither of them. `O_PATH`.
pub(super) fn make_file_without_links(root: impl AsFd, directory: &str, name: &str) -> Result<OwnedFd, Errno> {
    let directory = open_without_links(root, directory, OFlags::PATH | OFlags::DIRECTORY)?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(&directory, name, create, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => open_without_links(&directory, name, OFlags::PATH),
        Err(error) => Err(error),
    }
}

/// The directory above a path, made where missing, and the last name of the path.
pub(super) fn make_parent(root: impl AsFd, target: &str) -> Result<(OwnedFd, &str), Errno> {
    let (above, name) = split(target);
    if name.is_empty() || name == ".." {
        return Err(Errno::INVAL);
    }
    Ok((make_directory(root, above, 0o755)?.0, name))
}

/// Where the symbolic link `name` leads, as a path from the root; `EEXIST` when it is no link.
fn link_target(parent: &OwnedFd, above: &str, name: &str) -> Result<String, Errno> {
    let link = fs::readlinkat(parent, name, Vec::new()).map_err(|_| Errno::EXIST)?;
    let link = link.into_string().map_err(|_| Errno::ILSEQ)?;
    Ok(if link.starts_with('/') { link } else { format!("{above}/{link}") })
}

/// `/a/b/` is (`/a`, `b`); `.` parts at the end count for nothing.
fn split(target: &str) -> (&str, &str) {
    let mut rest = target.trim_end_matches('/');
    while let Some(shorter) = rest.strip_suffix("/.") {
        rest = shorter.trim_end_matches('/');
    }
    rest.rsplit_once('/').unwrap_or(("", rest))
}

pub(super) fn is_directory(file: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fs::fstat(file)?.st_mode) == FileType::Directory)
}

/// Whether two descriptors name the same file.
pub(super) fn same_file(one: impl AsFd, other: impl AsFd) -> Result<bool, Errno> {
    let (one, other) = (fs::fstat(one)?, fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Whether two descriptors name the same file of the same mount.
pub(super) fn same_mount(one: impl AsFd, other: impl AsFd) -> Result<bool, Errno> {
    let mount = |file| fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|status| status.stx_mnt_id);
    Ok(same_file(&one, &other)? && mount(one.as_fd())? == mount(other.as_fd())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        let fd = fs::open(folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (folder, fd)
    }

    #[test]
    fn directories_are_made_below_the_root_whatever_links_say() {
        let (folder, fd) = root();
        symlink("../../../../outside", folder.path().join("up")).unwrap();
        symlink("/absolute/place", folder.path().join("abs")).unwrap();
        let (_, made) = make_directory(&fd, "/up/x", 0o700).unwrap();
        assert!(made && folder.path().join("outside/x").is_dir());
        make_directory(&fd, "abs/y", 0o755).unwrap();
        assert!(folder.path().join("absolute/place/y").is_dir());
        assert!(!make_directory(&fd, "abs/y", 0o755).unwrap().1);
    }

    #[test]
    fn a_file_behind_a_dangling_link_is_made_inside() {
        let (folder, fd) = root();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        symlink("../run/resolv.conf", folder.path().join("etc/resolv.conf")).unwrap();
        make_file(&fd, "/etc/resolv.conf").unwrap();
        assert!(folder.path().join("run/resolv.conf").is_file());
    }

    #[test]
    fn a_circle_of_links_ends() {
        let (folder, fd) = root();
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        assert_eq!(make_directory(&fd, "a/x", 0o755).map(|_| ()), Err(Errno::LOOP));
        assert_eq!(make_file(&fd, "a").map(|_| ()), Err(Errno::LOOP));
    }

    #[test]
    fn the_last_name_of_a_path() {
        assert_eq!(split("/a/b/"), ("/a", "b"));
        assert_eq!(split("/a/b/./"), ("/a", "b"));
        assert_eq!(split("a"), ("", "a"));
        assert_eq!(split("/"), ("", ""));
    }
}
