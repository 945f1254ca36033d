//! Removing a tree in one rename now, and its files later.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

/// What lies this many folders deep in a tree becomes a tree of its own: on the way down each folder takes a descriptor and stack,
/// and a container may nest folders without end.
const DEPTH: u32 = 32;

/// The folder `<data_dir>/trash`: what lies there is dead, and any process may delete it at any time.
#[derive(Clone, Debug)]
pub struct Trash {
    folder: PathBuf,
}

impl Trash {
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("trash") }
    }

    /// Moves `path` (a file or a tree on the same file system) away. A path that is not there is no error.
    ///
    /// # Errors
    /// Whatever `rename(2)` says; `path` is then still in place.
    pub fn discard(&self, path: &Path) -> io::Result<()> {
        match self.rename_in(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok() => {
                fs::create_dir_all(&self.folder)?;
                self.rename_in(path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        }
    }

    /// Deletes everything in the trash.
    ///
    /// # Errors
    /// The first failure that is not "gone already"; the rest is deleted all the same.
    pub fn empty(&self) -> io::Result<()> {
        let folder = match File::open(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            folder => folder?,
        };
        let mut emptying = Emptying { trash: folder.as_fd(), brought_up: true, outcome: Ok(()) };
        while std::mem::take(&mut emptying.brought_up) {
            emptying.contents(Dir::read_from(&folder)?, 0)?;
        }
        emptying.outcome
    }

    fn rename_in(&self, path: &Path) -> io::Result<()> {
        loop {
            let target = self.folder.join(new_name());
            // A leftover of an earlier process with our id may be there: never move into or over it.
            if fs::symlink_metadata(&target).is_err() {
                return fs::rename(path, target);
            }
        }
    }
}

/// Not in use by this process.
fn new_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

struct Emptying<'a> {
    trash: BorrowedFd<'a>,
    /// Trees have come to the trash that lay deep in others.
    brought_up: bool,
    /// With the first failure.
    outcome: io::Result<()>,
}

impl Emptying<'_> {
    fn contents(&mut self, mut folder: Dir, depth: u32) -> rustix::io::Result<()> {
        while let Some(entry) = folder.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match self.remove(folder.fd()?, name, depth) {
                Err(error) if error != Errno::NOENT && self.outcome.is_ok() => self.outcome = Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn remove(&mut self, folder: BorrowedFd<'_>, name: &CStr, depth: u32) -> rustix::io::Result<()> {
        match unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            removed => return removed,
        }
        if depth == DEPTH {
            return self.bring_up(folder, name);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.contents(Dir::new(openat(folder, name, flags, Mode::empty())?)?, depth + 1)?;
        unlinkat(folder, name, AtFlags::REMOVEDIR)
    }

    fn bring_up(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        loop {
            match renameat_with(folder, name, self.trash, new_name(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                renamed => {
                    self.brought_up |= renamed.is_ok();
                    return renamed;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::disk;

    #[test]
    fn discarded_trees_are_gone_at_once_and_deleted_later() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::new(root.path());
        let outside = root.path().join("outside");
        fs::write(&outside, "stays").unwrap();
        for name in ["a", "b"] {
            let tree = root.path().join(name);
            fs::create_dir_all(tree.join("deep")).unwrap();
            std::os::unix::fs::symlink(&outside, tree.join("deep/link")).unwrap();
            trash.discard(&tree).unwrap();
            assert!(!tree.exists());
        }
        assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 2);
        trash.empty().unwrap();
        assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(outside).unwrap(), "stays");
    }

    #[test]
    fn a_tree_of_any_depth_is_deleted() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::new(root.path());
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut folder: std::os::fd::OwnedFd = File::open(&tree).unwrap().into();
        // More than there are descriptors, and longer than a path may be.
        for _ in 0..3000 {
            for name in ["a", "b"] {
                rustix::fs::mkdirat(&folder, name, Mode::RWXU).unwrap();
            }
            folder = openat(&folder, "a", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        assert!(disk::tree_size(&tree).is_ok());
        trash.discard(&tree).unwrap();
        trash.empty().unwrap();
        assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
    }

    #[test]
    fn nothing_to_discard_or_to_empty_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::new(root.path());
        trash.discard(&root.path().join("nothing")).unwrap();
        trash.empty().unwrap();
    }
}
