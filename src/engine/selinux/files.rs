//! Labels of files on the host.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

const ATTRIBUTE: &str = "security.selinux";
/// What no `z` and no `Z` may take from the host: what Docker refuses, and where distributions keep the same today.
const NEVER: [&str; 30] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/system",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/sbin",
    "/var",
    "/var/home",
    "/var/lib",
    "/var/log",
];
/// Their folders are people's homes.
const HOMES: [&str; 2] = ["/home", "/var/home"];

/// Why a file does not get its label.
#[derive(Debug, thiserror::Error)]
pub enum RelabelError {
    #[error("`{}` belongs to the whole host, and other programs need its SELinux labels: take `z` or `Z` out", .0.display())]
    OfTheHost(PathBuf),
    #[error("cannot give `{}` the SELinux label `{label}`", path.display())]
    File { path: PathBuf, label: String, source: io::Error },
}

/// Gives a file, or a folder and all that is in it, a label. What is elsewhere (links) keeps its own, and so does what lies on
/// a file system without labels.
///
/// # Errors
/// The path is one that the whole host needs; a label that cannot be given.
pub fn relabel(path: &Path, label: &str) -> Result<(), RelabelError> {
    let failed = |source: Errno| {
        let source = source.into();
        RelabelError::File { path: path.to_owned(), label: label.to_owned(), source }
    };
    let file = open(path).map_err(failed)?;
    // Where it really is.
    let place = rustix::fs::readlink(link(file.as_fd()), Vec::new()).map_err(failed)?;
    let place = PathBuf::from(OsString::from_vec(place.into_bytes()));
    if is_of_the_host(&place) {
        return Err(RelabelError::OfTheHost(place));
    }
    walk(file, label).map_err(failed)
}

/// The label of a file as the kernel sees it.
pub(super) fn label_of(path: &Path) -> Option<String> {
    let label = open(path).and_then(|file| get(file.as_fd())).ok()?;
    String::from_utf8(label).ok().filter(|label| !label.is_empty())
}

/// Whether a file has the label, and with it all that is in it.
pub fn is_labelled(path: &Path, label: &str) -> bool {
    label_of(path).is_some_and(|found| found == label)
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn is_of_the_host(place: &Path) -> bool {
    let is_home = place.parent().is_some_and(|parent| HOMES.iter().any(|homes| parent == Path::new(homes)));
    is_home || NEVER.iter().any(|never| place == Path::new(never))
}

/// One descriptor for each level of folders.
fn walk(file: OwnedFd, label: &str) -> Result<(), Errno> {
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::Directory {
        return set(&file, label);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = Dir::new(rustix::fs::openat(&file, ".", flags, Mode::empty())?)?;
    drop(file);
    while let Some(entry) = folder.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(folder.fd()?, name, flags, Mode::empty()) {
            Ok(inside) => walk(inside, label)?,
            // It has been removed meanwhile.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    // Last, as it says that the rest has been done.
    set(folder.fd()?, label)
}

fn set(file: impl AsFd, label: &str) -> Result<(), Errno> {
    let file = file.as_fd();
    if get(file)? == label.as_bytes() {
        return Ok(());
    }
    match rustix::fs::setxattr(link(file), ATTRIBUTE, label.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        set => set,
    }
}

/// Nothing where there are no labels. The kernel ends it with a zero byte, as it may be stored.
fn get(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut value = [0; 512];
    match rustix::fs::getxattr(link(file), ATTRIBUTE, &mut value[..]) {
        Ok(length) => Ok(value.iter().take(length).copied().take_while(|byte| *byte != 0).collect()),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A descriptor's file by a path that leads there and no further, also for a link.
fn link(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_needs_is_never_relabelled() {
        for path in ["/", "/etc", "/usr", "/home", "/proc/self/root", "/usr/../etc"] {
            let refused = relabel(Path::new(path), "system_u:object_r:container_file_t:s0");
            assert!(matches!(refused, Err(RelabelError::OfTheHost(_))), "{path}: {refused:?}");
        }
        for (path, refused) in
            [("/home/ann", true), ("/home/ann/site", false), ("/var/home/ann", true), ("/srv/site", false)]
        {
            assert_eq!(is_of_the_host(Path::new(path)), refused, "{path}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
        let refused = relabel(&folder.path().join("link"), "system_u:object_r:container_file_t:s0");
        assert!(matches!(refused, Err(RelabelError::OfTheHost(path)) if path == Path::new("/etc")));
    }

    #[test]
    fn a_tree_gets_a_label_and_links_lead_nowhere() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        // Stored without SELinux too, by whoever may.
        let trial = rustix::fs::setxattr(outside.path(), ATTRIBUTE, b"a:b:c:s0", XattrFlags::empty());
        if super::super::is_enabled() || trial.is_err() {
            println!("skipped: labels that mean nothing cannot be stored here");
            return;
        }
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        std::fs::write(outside.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.join("a/out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("file"), tree.join("file")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, tree.join("a/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .unwrap();
        relabel(&tree, label).unwrap();
        let of = |path: &Path| {
            let mut value = [0; 128];
            let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut value[..]).unwrap_or(0);
            String::from_utf8(value[..length].to_vec()).unwrap()
        };
        for inside in ["", "a", "a/b", "a/b/file", "a/out", "file", "a/fifo"] {
            assert_eq!(of(&tree.join(inside)), label, "{inside}");
        }
        assert_eq!(of(outside.path()), "a:b:c:s0");
        assert_eq!(of(&outside.path().join("file")), "");
        assert!(is_labelled(&tree, label) && !is_labelled(outside.path(), label));
    }
}
