//! Files that were downloaded before: the server is asked whether they have changed, and not for what has not.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::address::without_password;
use super::http::{self, Version};
use super::{Error, Limits};
use crate::base::disk::{self, Durability};
use crate::base::trash::Trash;
use crate::registry::Settings;

/// The downloads of a data directory: a folder for each URL, with the file and what is known of it.
#[derive(Debug)]
pub struct Downloads {
    folder: PathBuf,
    trash: Trash,
}

/// Where they lie, below the data directory.
pub const DOWNLOADS: &str = "images/build/downloads";

/// `record.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: Version,
    /// Of the file beside it. Each version has another one.
    file: String,
    size: u64,
}

impl Downloads {
    /// `data` is the data directory.
    pub fn new(data: &Path) -> Self {
        Self { folder: data.join(DOWNLOADS), trash: Trash::new(data) }
    }

    /// Fetches a file into an empty folder. Returns its path and its name, the last part of the URL's path. It has mode 0600 and
    /// the time that the server says, or else the epoch.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, or the disk's own.
    pub fn fetch(&self, settings: &Settings, url: &str, into: &Path) -> Result<(PathBuf, String), Error> {
        let name = http::name(url);
        let (path, named) = (into.join("download"), into.join(&name));
        let kept = self.kept(url);
        // A link of our own: the kept one may go at any time.
        let known = kept.as_ref().and_then(|(record, file)| fs::hard_link(file, &path).ok().map(|()| &record.version));
        let new = into.join("new");
        let fetched = http::download(settings, url, &new, known, Limits::default())?;
        let failed = |source| Error::Io { url: without_password(url), source };
        let source = if fetched.is_some() { &new } else { &path };
        fs::rename(source, &named).map_err(failed)?;
        match &fetched {
            // What cannot be kept is fetched again next time.
            Some(version) if version.can_be_asked() => drop(self.keep(url, version, &named)),
            Some(_) => drop(self.trash.discard(&self.place(url))),
            None => drop(
                File::open(self.place(url).join("record.json"))
                    .and_then(|record| record.set_modified(SystemTime::now())),
            ),
        }
        Ok((named, name))
    }

    fn place(&self, url: &str) -> PathBuf {
        let hash = Sha256::digest(url);
        self.folder.join(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// What there is of the URL, if it is whole.
    fn kept(&self, url: &str) -> Option<(Record, PathBuf)> {
        let place = self.place(url);
        let record: Record = disk::read_json(&place.join("record.json")).ok()??;
        let file = place.join(&record.file);
        let plain = Path::new(&record.file).components().count() == 1;
        let whole = fs::metadata(&file).is_ok_and(|found| found.is_file() && found.len() == record.size);
        (plain && whole).then_some((record, file))
    }

    fn keep(&self, url: &str, version: &Version, path: &Path) -> io::Result<()> {
        let place = self.place(url);
        fs::create_dir_all(&place)?;
        let file = File::open(path)?;
        file.sync_all()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}", now.as_nanos(), std::process::id());
        fs::hard_link(path, place.join(&name))?;
        let record = Record { version: version.clone(), file: name, size: file.metadata()?.len() };
        disk::replace_json(&place.join("record.json"), &record, Durability::PowerLoss)?;
        // Also what a kill has left here.
        for entry in fs::read_dir(&place)? {
            let entry = entry?;
            if entry.file_name() != record.file.as_str() && entry.file_name() != "record.json" {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the files that were not asked for for longest, until all of them take at most `budget` bytes.
    ///
    /// # Errors
    /// They cannot be read or moved away.
    pub fn prune(&self, budget: u64) -> io::Result<()> {
        let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let used = fs::metadata(path.join("record.json")).and_then(|record| record.modified());
            found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), path.clone(), disk::tree_size(&path)?));
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(.., size)| size).sum();
        for (_, path, size) in found {
            if total <= budget {
                break;
            }
            self.trash.discard(&path)?;
            total -= size;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_asked_for_longest_ago_goes_first_and_half_files_do_not_count() {
        let data = tempfile::tempdir().unwrap();
        let downloads = Downloads::new(data.path());
        let file = data.path().join("file");
        for (age, url) in [(30, "old"), (20, "middle"), (10, "new")] {
            fs::write(&file, vec![1; 100_000]).unwrap();
            downloads.keep(url, &Version::default(), &file).unwrap();
            fs::remove_file(&file).unwrap();
            let record = File::open(downloads.place(url).join("record.json")).unwrap();
            record.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let there = || ["old", "middle", "new"].map(|url| downloads.kept(url).is_some());
        downloads.prune(1 << 30).unwrap();
        assert_eq!(there(), [true; 3]);
        downloads.prune(250_000).unwrap();
        assert_eq!(there(), [false, true, true]);
        let (_, path) = downloads.kept("new").unwrap();
        File::options().write(true).open(path).unwrap().set_len(5).unwrap();
        assert_eq!(there(), [false, true, false]);
    }
}
