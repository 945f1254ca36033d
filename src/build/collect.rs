//! What the caches of `RUN --mount=type=cache` may take together.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::base::disk::tree_size;
use crate::base::trash::Trash;

/// Removes the cache mounts that were not used for longest, until all of them take at most `budget` bytes. Those that a build
/// uses stay. `data` is the data directory.
///
/// # Errors
/// They cannot be read or moved away.
pub fn prune_mounts(data: &Path, budget: u64) -> io::Result<()> {
    let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    let entries = match fs::read_dir(mounts(data)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let used = fs::metadata(path.join("lock")).and_then(|lock| lock.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let size = tree_size(&path)?;
        found.push((used, path, size));
    }
    found.sort();
    let mut total: u64 = found.iter().map(|(.., size)| size).sum();
    let trash = Trash::new(data);
    for (_, path, size) in found {
        if total <= budget {
            break;
        }
        // Held until it is away: whoever opens it now sees that it went (`mounts::open_cache`).
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock"))?;
        if lock.try_lock().is_ok() {
            trash.discard(&path)?;
            total -= size;
        }
    }
    Ok(())
}

/// Where cache mounts lie.
pub(super) fn mounts(data: &Path) -> PathBuf {
    data.join("images/build/mounts")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_go_first_and_what_is_used_stays() {
        let data = tempfile::tempdir().unwrap();
        let path = |name: &str| mounts(data.path()).join(name);
        for (number, name) in ["used", "old", "middle", "new"].into_iter().enumerate() {
            fs::create_dir_all(path(name).join("data")).unwrap();
            fs::write(path(name).join("data/file"), vec![1; 100_000]).unwrap();
            let lock = File::create(path(name).join("lock")).unwrap();
            lock.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64)).unwrap();
        }
        let held = File::open(path("used").join("lock")).unwrap();
        held.lock_shared().unwrap();
        let there = || ["used", "old", "middle", "new"].map(|name| path(name).exists());
        prune_mounts(data.path(), 1 << 30).unwrap();
        assert_eq!(there(), [true; 4]);
        prune_mounts(data.path(), 250_000).unwrap();
        assert_eq!(there(), [true, false, false, true]);
        prune_mounts(data.path(), 0).unwrap();
        assert_eq!(there(), [true, false, false, false]);
        assert_eq!(fs::read_dir(data.path().join("trash")).unwrap().count(), 3);
        prune_mounts(&data.path().join("nowhere"), 0).unwrap();
    }
}
