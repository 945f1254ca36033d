//! Named and anonymous volumes: directories with a record each.
//!
//! `<data_dir>/volumes/<name>/volume.json` is the record, written last, so that a directory without one is none;
//! `_data` is what containers see. `populating` is there between the copy of an image's files and their move into `_data`.

mod local;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use crate::base::disk::{self, Durability};
use crate::base::trash::Trash;
use crate::sys::{copy, inroot};

const VERSION: u32 = 1;

/// A failure of the volume store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "`{name}` is not a volume name: at least two of the characters [a-zA-Z0-9_.-], the first a letter or digit"
    )]
    BadName { name: String },
    #[error("volume `{name}` does not exist")]
    NotFound { name: String },
    #[error("volume `{name}` is in use by a container")]
    InUse { name: String },
    #[error("volume `{name}` exists with other driver options ({there}); remove it first, or use another name")]
    Different { name: String, there: String },
    #[error("volume `{name}` asks for driver `{driver}`; only `local` is supported")]
    Driver { name: String, driver: String },
    #[error("cannot mount `{device}` as volume `{name}`")]
    Mount { name: String, device: String, source: io::Error },
    #[error("the image's files at `{}` cannot be copied into volume `{name}`", path.display())]
    Populate { name: String, path: PathBuf, source: io::Error },
    #[error("no space left on the disk that holds `{}`", path.display())]
    DiskFull { path: PathBuf },
    #[error("no permission to {doing} `{}`; run as root, or choose another place with RCOMPOSE_ROOT", path.display())]
    NoPermission { doing: &'static str, path: PathBuf },
    #[error("cannot {doing} `{}`", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

fn cannot(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    move |source| {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull => Error::DiskFull { path },
            io::ErrorKind::PermissionDenied => Error::NoPermission { doing, path },
            _ => Error::Io { doing, path, source },
        }
    }
}

/// A volume that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Whether the name was made up.
    pub anonymous: bool,
    /// Options of the local driver: `type`, `o`, `device`. Of effect once [`Volumes::attach`] has been called.
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// RFC 3339.
    pub created: String,
    /// The directory that containers see.
    pub data: PathBuf,
    /// Its options do not allow to write to it.
    pub read_only: bool,
}

/// A volume to be made.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// `None` makes an anonymous one, with 64 random hexadecimal digits for a name.
    pub name: Option<String>,
    /// Empty or `local`.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

/// `volume.json`.
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    anonymous: bool,
    driver_opts: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    created: String,
}

/// The volumes of one data directory. Any number of processes may use it at once.
#[derive(Debug)]
pub struct Volumes {
    folder: PathBuf,
    trash: Trash,
}

impl Volumes {
    /// Opens the volumes below `data_dir`, and makes the place if there is none.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let folder = data_dir.join("volumes");
        // Closed to other users: containers leave set-id programs in volumes.
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(cannot("create", &folder))?;
        Ok(Self { folder, trash: Trash::new(data_dir) })
    }

    /// Makes a volume, or returns the one of that name when its driver options are the same.
    ///
    /// # Errors
    /// The name or driver is not possible, there is a different volume of that name, or the disk refuses.
    pub fn create(&self, new: NewVolume) -> Result<Volume, Error> {
        let anonymous = new.name.is_none();
        let name = new.name.map_or_else(random_name, Ok)?;
        check_name(&name)?;
        if !matches!(new.driver.as_str(), "" | "local") {
            return Err(Error::Driver { name, driver: new.driver });
        }
        let _lock = self.lock()?;
        if let Some(there) = self.find(&name)? {
            if there.driver_opts == new.driver_opts {
                return Ok(there);
            }
            return Err(Error::Different { name, there: describe(&there.driver_opts) });
        }
        let folder = self.folder.join(&name);
        let data = folder.join("_data");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(cannot("create", &folder))?;
        fs::create_dir_all(&data).map_err(cannot("create", &data))?;
        fs::set_permissions(&data, Permissions::from_mode(0o755)).map_err(cannot("open to all", &data))?;
        let record = Record {
            version: VERSION,
            anonymous,
            driver_opts: new.driver_opts,
            labels: new.labels,
            created: jiff::Timestamp::now().to_string(),
        };
        let path = folder.join("volume.json");
        disk::replace_json(&path, &record, Durability::PowerLoss).map_err(cannot("write", &path))?;
        Ok(volume(name, record, data))
    }

    /// # Errors
    /// There is no such volume, or its record cannot be read.
    pub fn get(&self, name: &str) -> Result<Volume, Error> {
        check_name(name)?;
        self.find(name)?.ok_or_else(|| Error::NotFound { name: name.to_owned() })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// The directory or a record cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, Error> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(cannot("read", &self.folder))? {
            let name = entry.map_err(cannot("read", &self.folder))?.file_name();
            if let Some(name) = name.to_str().filter(|name| check_name(name).is_ok()) {
                volumes.extend(self.find(name)?);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Takes a volume and its data away; the files lie in the trash afterwards. `in_use` are the names that containers
    /// have.
    ///
    /// # Errors
    /// There is no such volume, or a container uses it.
    pub fn remove(&self, name: &str, in_use: &BTreeSet<String>) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.get(name)?;
        if in_use.contains(name) {
            return Err(Error::InUse { name: name.to_owned() });
        }
        let folder = self.folder.join(name);
        // What is mounted there is somebody's data.
        let data = folder.join("_data");
        local::detach(&data).map_err(cannot("unmount", &data))?;
        self.trash.discard(&folder).map_err(cannot("discard", &folder))
    }

    /// Mounts what the volume's options say, unless it is mounted. To be called before a container starts that has it.
    ///
    /// # Errors
    /// What mount(2) says.
    pub fn attach(&self, volume: &Volume) -> Result<(), Error> {
        let Some(local) = local::Local::of(&volume.driver_opts) else { return Ok(()) };
        let _lock = self.lock()?;
        local.attach(&self.folder.join(&volume.name).join("_data")).map_err(|source| Error::Mount {
            name: volume.name.clone(),
            device: volume.driver_opts.get("device").cloned().unwrap_or_default(),
            source,
        })
    }

    /// Undoes [`Volumes::attach`] unless `in_use` says that a running container has the volume. One that is gone is none.
    ///
    /// # Errors
    /// What umount(2) says.
    pub fn detach(&self, name: &str, in_use: impl FnOnce() -> bool) -> Result<(), Error> {
        let _lock = self.lock()?;
        let Some(volume) = self.find(name)? else { return Ok(()) };
        if local::Local::of(&volume.driver_opts).is_none_or(|local| local.bound().is_some()) || in_use() {
            return Ok(());
        }
        let data = self.folder.join(name).join("_data");
        local::detach(&data).map_err(cannot("unmount", &data))
    }

    /// Whether an image's files belong into the volume before its first container starts: it is empty, or a copy was
    /// broken off.
    ///
    /// # Errors
    /// The volume cannot be read.
    pub fn needs_copy_up(&self, volume: &Volume) -> Result<bool, Error> {
        let staged = self.folder.join(&volume.name).join("populating");
        Ok(staged.exists() || is_empty(&volume.data).map_err(cannot("read", &volume.data))?)
    }

    /// Copies what the image has at `path` into an empty volume: files, and the directory's own owner and mode. `root`
    /// is the container's root as the container will see it (an overlay of the image's layers). Does nothing when the
    /// volume is not empty or the image has no directory there. Broken off at any point, the next call completes it;
    /// two calls at once do it once.
    ///
    /// # Errors
    /// The image's files cannot be read or copied.
    pub fn populate(&self, volume: &Volume, root: impl AsFd, path: &Path) -> Result<(), Error> {
        let folder = self.folder.join(&volume.name);
        let lock = File::open(&folder).map_err(cannot("open", &folder))?;
        lock.lock().map_err(cannot("lock", &folder))?;
        if !volume.driver_opts.is_empty() {
            return populate_elsewhere(volume, root, path).map_err(populate_error(volume, path));
        }
        let staged = folder.join("populating");
        if !staged.exists() {
            if !is_empty(&volume.data).map_err(cannot("read", &volume.data))? {
                return Ok(());
            }
            let source = match inroot::open_directory(root, path.as_os_str().as_bytes()) {
                Ok(source) => source,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(());
                }
                Err(source) => return Err(populate_error(volume, path)(source)),
            };
            let copying = folder.join("copying");
            self.trash.discard(&copying).map_err(cannot("discard", &copying))?;
            fs::create_dir(&copying).map_err(cannot("create", &copying))?;
            let copied = File::open(&copying).and_then(|target| copy::tree(&source, &target));
            if let Err(error) = copied {
                self.trash.discard(&copying).map_err(cannot("discard", &copying))?;
                return Err(populate_error(volume, path)(error));
            }
            fs::rename(&copying, &staged).map_err(cannot("rename", &copying))?;
        }
        move_in(&staged, &volume.data).map_err(populate_error(volume, path))?;
        self.trash.discard(&staged).map_err(cannot("discard", &staged))
    }

    fn find(&self, name: &str) -> Result<Option<Volume>, Error> {
        let folder = self.folder.join(name);
        let path = folder.join("volume.json");
        let record: Option<Record> = disk::read_json(&path).map_err(cannot("read", &path))?;
        match record {
            Some(record) if record.version != VERSION => {
                let message = format!("it has version {}, this program knows version {VERSION}", record.version);
                Err(cannot("read", &path)(io::Error::new(io::ErrorKind::InvalidData, message)))
            }
            record => Ok(record.map(|record| volume(name.to_owned(), record, folder.join("_data")))),
        }
    }

    /// Held until the file is dropped.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder.join(".lock");
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(cannot("open", &path))?;
        file.lock().map_err(cannot("lock", &path))?;
        Ok(file)
    }
}

fn volume(name: String, record: Record, data: PathBuf) -> Volume {
    let Record { version: _, anonymous, driver_opts, labels, created } = record;
    let bound = local::Local::of(&driver_opts).and_then(|local| local.bound());
    let (data, read_only) = bound.unwrap_or((data, false));
    Volume { name, anonymous, driver_opts, labels, created, data, read_only }
}

/// Into a file system that is not the store's: file by file.
fn populate_elsewhere(volume: &Volume, root: impl AsFd, path: &Path) -> io::Result<()> {
    if volume.read_only || !is_empty(&volume.data)? {
        return Ok(());
    }
    match inroot::open_directory(root, path.as_os_str().as_bytes()) {
        Ok(source) => copy::tree(&source, &File::open(&volume.data)?),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(error),
    }
}

fn populate_error(volume: &Volume, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let (name, path, data) = (volume.name.clone(), path.to_owned(), volume.data.clone());
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => Error::DiskFull { path: data },
        _ => Error::Populate { name, path, source },
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if valid && name.len() >= 2 && name.len() <= 255 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Error::BadName { name: name.to_owned() })
}

fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 32];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    // At most 256 bytes always come whole.
    got.map_err(io::Error::from).map_err(cannot("read random bytes for", "a volume's name"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn describe(options: &BTreeMap<String, String>) -> String {
    let options: Vec<_> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if options.is_empty() { "none".to_owned() } else { options.join(", ") }
}

fn is_empty(folder: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(folder)?.next().transpose()?.is_none())
}

/// Moves what is in `staged` into `data`, which keeps what it has; then `data` gets the owner and mode of `staged`.
fn move_in(staged: &Path, data: &Path) -> io::Result<()> {
    let (from, to) = (File::open(staged)?, File::open(data)?);
    for entry in fs::read_dir(staged)? {
        let name = entry?.file_name();
        match rustix::fs::renameat_with(&from, &name, &to, &name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    copy::attributes(&from, &to)
}
