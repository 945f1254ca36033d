//! The end of this process, and what it takes along when the project is gone.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::engine::cgroup;
use crate::supervisor::failure::because;
use crate::supervisor::host::Host;

/// How long removed containers stay on the disk of a project that goes on.
const TRASH_STAYS: Duration = Duration::from_secs(1);

impl Host {
    /// Nothing is left to do: lets the keeper go, and removes what no container needs any more.
    pub(super) async fn leave(&self) {
        self.sweep_links().await;
        // One that is just being started must not be left behind.
        self.uplink_settled().await;
        self.end_uplink();
        if let Err(error) = self.link.finish() {
            self.warn(&because("the keeper cannot be told to end", &error).message);
        }
        let group = format!("{}/{}", self.roots.cgroup_name(), self.project);
        if let Err(error) = cgroup::remove_empty(&self.hierarchies, &group) {
            self.warn(&because("cannot remove the project's control group", &error).message);
        }
        self.remove_folders();
        let trash = self.trash.empty();
        if let Err(error) = trash {
            self.warn(&because("cannot empty the trash", &error).message);
        }
    }

    /// Deletes what containers have left, without being in the way of what follows their removal: others that start instead.
    pub(super) fn empty_trash_soon(&self) {
        if self.trash_waits.replace(true) {
            return;
        }
        let (trash, waits) = (self.trash.clone(), Rc::clone(&self.trash_waits));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(TRASH_STAYS).await;
            waits.set(false);
            // What cannot be deleted now is told when this process leaves, which tries it again.
            let _ = tokio::task::spawn_blocking(move || trash.empty()).await;
        });
    }

    /// The project's folders go with its last container, network and volume. Whoever is about to start a supervisor holds the
    /// lock: then they stay.
    fn remove_folders(&self) {
        let Ok(lock) = File::options().write(true).create(true).truncate(false).mode(0o600).open(self.dir.lock())
        else {
            return;
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Error(error)) => return self.warn(&because("cannot lock the project", &error).message),
        }
        let record = self.record.borrow();
        let containers = self.dir.load().map_or(true, |containers| !containers.is_empty());
        let volumes = record.volumes.values().any(|spec| self.volumes.get(&spec.name).is_ok());
        let empty = !containers && !volumes && !self.has_networks() && record.change.is_none();
        let data = if empty { fs::remove_dir_all(self.dir.data()) } else { Ok(()) };
        for error in [data, remove_run_folder(self.dir.run(), &self.dir.lock())].into_iter().filter_map(Result::err) {
            self.warn(&because("cannot remove the project's folder", &error).message);
        }
    }
}

/// Removes the folder, the lock in it last of all: from then on somebody else may start what uses the folder again.
fn remove_run_folder(folder: &Path, lock: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            _ if entry.path() == lock => {}
            kind if kind.is_dir() => fs::remove_dir_all(entry.path())?,
            _ => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_file(lock)?;
    match fs::remove_dir(folder) {
        // Somebody is about to.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}
