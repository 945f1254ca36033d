//! Removing a tree in one rename now, and its files later.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

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
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut outcome = Ok(());
        for entry in entries {
            let entry = entry?;
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                Ok(_) => fs::remove_file(entry.path()),
                Err(error) => Err(error),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound && outcome.is_ok() => outcome = Err(error),
                _ => {}
            }
        }
        outcome
    }

    fn rename_in(&self, path: &Path) -> io::Result<()> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let target = self.folder.join(format!("{}-{number}", process::id()));
            // A leftover of an earlier process with our id may be there: never move into or over it.
            if fs::symlink_metadata(&target).is_err() {
                return fs::rename(path, target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn nothing_to_discard_or_to_empty_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let trash = Trash::new(root.path());
        trash.discard(&root.path().join("nothing")).unwrap();
        trash.empty().unwrap();
    }
}
