//! Unfinished work: a directory per process and piece of work, swept up by the next one when its maker died.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Error, cannot};
use super::store::Store;
use crate::base::disk;
use crate::base::trash::Trash;

/// A directory of one's own below `images/tmp`, locked while its owner lives.
pub(super) struct Staging {
    path: PathBuf,
    lock: File,
}

impl Staging {
    pub(super) fn new(store: &Store) -> Result<Self, Error> {
        let folder = store.path("tmp");
        // Under the database lock nobody else makes or sweeps a directory between the steps.
        let _lock = store.lock_database()?;
        sweep(&folder, store.trash()).map_err(cannot("sweep", &folder))?;
        disk::spread(&folder);
        let name = (0_u32..).map(|n| folder.join(format!("{}-{n}", std::process::id()))).find(|path| !path.exists());
        let path = name.unwrap_or_else(|| folder.clone());
        let lock = fs::create_dir(&path).and_then(|()| File::open(&path)).map_err(cannot("create", &path))?;
        lock.lock().map_err(cannot("lock", &path))?;
        Ok(Self { path, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until everything written to this file system is on the disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.lock).map_err(io::Error::from).map_err(cannot("sync", &self.path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // At once, because what failed may have filled the disk. Where this fails, the next one sweeps.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn sweep(folder: &Path, trash: &Trash) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let directory = match File::open(&path) {
            // Its owner has just finished.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        match directory.try_lock() {
            Ok(()) => trash.discard(&path)?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(())
}
