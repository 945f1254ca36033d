//! Files that are either old or new, never half; and how much room trees take.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, IFlags, RenameFlags, ioctl_getflags, ioctl_setflags, renameat_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a replaced file must outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Any process being killed: the kernel has the data, so write and rename do.
    Kill,
    /// A power loss: the file and its folder are synced as well. For what is worth something after a reboot.
    PowerLoss,
}

/// The least that a kernel has for a page.
const PAGE: usize = 4096;

/// Files that this process has replaced.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Replaces `path` with `bytes` in one step (`rename(2)` of a sibling temporary file).
///
/// # Errors
/// Whatever the file system says; `path` is then as it was.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    // Several threads may write the same file.
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let temporary = folder.join(format!(".{name}.{}-{number}.new", std::process::id()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        match durability {
            Durability::Kill => swap(&temporary, path),
            Durability::PowerLoss => file.sync_all().and_then(|()| fs::rename(&temporary, path)),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    if durability == Durability::PowerLoss {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Has ext4 spread what is made in a folder over the disk (`chattr +T`). A new file lies near its folder, and ext4 gives an inode
/// no new file within a minute of its old one's deletion: where much has been deleted it looks at all of those, for each new
/// file, which was a third of the time that an `up` of many services took, and nearly all of making the host image where others
/// had just been removed. Other file systems refuse; they do without.
pub fn spread(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = ioctl_getflags(&folder).and_then(|flags| ioctl_setflags(&folder, flags | IFlags::TOPDIR));
    }
}

/// Puts `new` in the place of `path` without waiting for the disk: ext4 writes the data of a file out when it is renamed over
/// another one, half a millisecond, but not when the two change places.
fn swap(new: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_file(new),
        // There is no `path` yet, or the file system cannot do it.
        Err(_) => fs::rename(new, path),
    }
}

/// [`replace`] with the value as JSON. On a full disk a small file that is there is written over: what ends must be written down,
/// or nothing could be ended to make room.
///
/// # Errors
/// As [`replace`].
pub fn replace_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    match replace(path, &text, durability) {
        Err(error)
            if durability == Durability::Kill
                && matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            overwrite(path, text).map_err(|_| error)
        }
        other => other,
    }
}

/// Writes over a file without needing room. One page at the most, of which no kill leaves half; what was longer before ends with
/// spaces.
fn overwrite(path: &Path, mut text: Vec<u8>) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).max(text.len());
    if size > PAGE {
        return Err(io::ErrorKind::StorageFull.into());
    }
    text.resize(size, b' ');
    file.write_all_at(&text, 0)
}

/// Reads a JSON file; `None` when there is no such file, or an empty one: a power loss leaves those of what was written without
/// [`Durability::PowerLoss`].
///
/// # Errors
/// The read error, or `InvalidData` when the text is not such a value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) if bytes.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bytes that the files of a tree take on the disk; a file with several names counts once, and what is nested deeper than a path can
/// be long does not. 0: there is no such tree.
///
/// # Errors
/// A folder cannot be read.
pub fn tree_size(root: &Path) -> io::Result<u64> {
    let mut seen = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    let mut size = 0;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // It went while we looked, or was never there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => continue,
            entries => entries?,
        };
        for entry in entries {
            let metadata = match entry.as_ref().map(fs::DirEntry::metadata) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
                Ok(metadata) => metadata?,
                Err(_) => return Err(io::ErrorKind::Other.into()),
            };
            if metadata.is_dir() {
                folders.push(entry?.path());
            } else if metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino())) {
                size += metadata.blocks() * 512;
            }
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_in_one_step_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        for durability in [Durability::Kill, Durability::PowerLoss] {
            for value in ["one", "two"] {
                replace_json(&path, &value, durability).unwrap();
                assert_eq!(read_json::<String>(&path).unwrap().as_deref(), Some(value));
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_written_over_is_read_as_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        for value in ["long, then short", "short", "longer than before and than that"] {
            let text = serde_json::to_vec(value).unwrap();
            fs::write(&path, if path.exists() { fs::read(&path).unwrap() } else { text.clone() }).unwrap();
            overwrite(&path, text).unwrap();
            assert_eq!(read_json::<String>(&path).unwrap().as_deref(), Some(value));
        }
        assert!(overwrite(&path, vec![b' '; PAGE + 1]).is_err());
    }

    #[test]
    fn an_empty_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        assert_eq!(read_json::<String>(&path).unwrap(), None);
        fs::write(&path, "").unwrap();
        assert_eq!(read_json::<String>(&path).unwrap(), None);
    }

    #[test]
    fn files_with_two_names_and_holes_are_counted_for_what_they_take() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        assert_eq!(tree_size(&root).unwrap(), 0);
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::write(root.join("a"), vec![1; 8192]).unwrap();
        fs::hard_link(root.join("a"), root.join("deep/b")).unwrap();
        File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", root.join("link")).unwrap();
        let size = tree_size(&root).unwrap();
        assert!((8192..64 * 1024).contains(&size), "{size}");
    }
}
