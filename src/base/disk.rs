//! Files that are either old or new, never half.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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

/// Replaces `path` with `bytes` in one step (`rename(2)` of a sibling temporary file).
///
/// # Errors
/// Whatever the file system says; `path` is then as it was.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        if durability == Durability::PowerLoss {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
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

/// [`replace`] with the value as JSON.
///
/// # Errors
/// As [`replace`].
pub fn replace_json<T: Serialize>(path: &Path, value: &T, durability: Durability) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?, durability)
}

/// Reads a JSON file; `None` when there is no such file.
///
/// # Errors
/// The read error, or `InvalidData` when the text is not such a value.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
