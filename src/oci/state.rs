//! What is kept of a container between two calls: a directory below `--root`, named after it.
//!
//! | file | is |
//! |---|---|
//! | `record.json` | a [`Record`]; renamed into place |
//! | `config.json` | the specification as it was when the container was made |
//! | `start` | FIFO: the container's process waits for a byte from it; nobody reads it once it was started |
//! | `result` | FIFO: what became of the start |
//!
//! Whether a container is created, running or stopped is not written down: the process and the FIFO tell.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::base::disk::{self, Durability};
use crate::engine::cgroup::{Cgroup, Hierarchies};
use crate::oci::arguments::Global;
use crate::oci::bundle;
use crate::oci::error::OciError;
use crate::oci::systemd::{self, Unit};
use crate::sys::process;

const RECORD: &str = "record.json";
const CONFIG: &str = "config.json";

/// What was decided when the container was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) oci_version: String,
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) annotations: HashMap<String, String>,
    /// RFC 3339.
    pub(super) created: String,
    /// Path in every hierarchy; empty when the container has no group of its own.
    pub(super) cgroup: String,
    /// With `--systemd-cgroup`: what the group belongs to.
    #[serde(default)]
    pub(super) unit: Option<Unit>,
    /// 0 until there is a process.
    pub(super) pid: i32,
    /// Of the process, in clock ticks since boot.
    pub(super) start_time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's directory.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    directory: PathBuf,
}

/// Where containers are recorded.
pub(super) fn root(global: &Global) -> PathBuf {
    if let Some(root) = &global.root {
        return root.clone();
    }
    if let Some(root) = std::env::var_os("RCOMPOSE_ROOT") {
        return Path::new(&root).join("oci");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(own) if !systemd::is_system() => Path::new(&own).join("rcompose/oci"),
        _ => PathBuf::from("/run/rcompose/oci"),
    }
}

fn check(id: &str) -> Result<(), OciError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.bytes().all(known) {
        return Err(OciError::BadId(id.to_owned()));
    }
    Ok(())
}

impl Container {
    /// Makes the directory: of two calls for the same id one fails here.
    pub(super) fn reserve(global: &Global, id: &str) -> Result<Self, OciError> {
        check(id)?;
        let root = root(global);
        let directory = root.join(id);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let made = match builder.create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).recursive(true).create(&root).map_err(OciError::io("make", &root))?;
                builder.create(&directory)
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(OciError::Exists(id.to_owned())),
            made => made
                .map(|()| Self { id: id.to_owned(), directory: directory.clone() })
                .map_err(OciError::io("make", directory)),
        }
    }

    pub(super) fn open(global: &Global, id: &str) -> Result<Self, OciError> {
        check(id)?;
        let directory = root(global).join(id);
        if !directory.is_dir() {
            return Err(OciError::NotFound(id.to_owned()));
        }
        Ok(Self { id: id.to_owned(), directory })
    }

    /// All of them, by name.
    pub(super) fn all(global: &Global) -> Result<Vec<Self>, OciError> {
        let root = root(global);
        let entries = match fs::read_dir(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(OciError::io("read", &root))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<_> = names.filter_map(|id| Self::open(global, &id).ok()).collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(all)
    }

    pub(super) fn save(&self, record: &Record) -> Result<(), OciError> {
        let path = self.directory.join(RECORD);
        disk::replace_json(&path, record, Durability::Kill).map_err(OciError::io("write", path))
    }

    pub(super) fn save_config(&self, config: &[u8]) -> Result<(), OciError> {
        let path = self.directory.join(CONFIG);
        fs::write(&path, config).map_err(OciError::io("write", path))
    }

    /// `None` while it is being made, and when that was interrupted early.
    pub(super) fn record(&self) -> Result<Option<Record>, OciError> {
        let path = self.directory.join(RECORD);
        disk::read_json(&path).map_err(OciError::io("read", path))
    }

    /// The record of a container that has been made.
    pub(super) fn made(&self) -> Result<Record, OciError> {
        self.record()?.ok_or_else(|| OciError::WrongStatus {
            id: self.id.clone(),
            status: Status::Creating.name(),
            wanted: "created",
        })
    }

    pub(super) fn config(&self) -> Result<Spec, OciError> {
        let path = self.directory.join(CONFIG);
        let bytes = fs::read(&path).map_err(OciError::io("read", &path))?;
        let parsed = bundle::parse(&bytes).map_err(|source| OciError::Json { what: "config.json", path, source });
        parsed.map(|(spec, _)| spec)
    }

    pub(super) fn status(&self, record: &Record) -> Status {
        if record.pid == 0 {
            return Status::Creating;
        }
        if !record.is_alive() {
            return Status::Stopped;
        }
        if self.open_start().is_ok() {
            return Status::Created;
        }
        let frozen = record.group().is_ok_and(|group| group.is_frozen());
        if frozen { Status::Paused } else { Status::Running }
    }

    /// Makes the FIFOs and opens the container's ends. Each is open for both directions, so that it never ends by itself.
    pub(super) fn make_gate(&self) -> Result<(OwnedFd, OwnedFd), OciError> {
        let make = |name: &str| {
            let path = self.directory.join(name);
            let made =
                rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0);
            made.map_err(OciError::io("make", &path))?;
            let opened = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            opened.map_err(OciError::io("open", path))
        };
        let start = make("start")?;
        let result = make("result")?;
        Ok((start, result))
    }

    /// The FIFO that starts the container; an error when nobody waits for it any more.
    pub(super) fn open_start(&self) -> Result<File, Errno> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.directory.join("start"), flags, Mode::empty()).map(File::from)
    }

    /// The FIFO that tells how the start went; to be opened before the start.
    pub(super) fn open_result(&self) -> Result<File, OciError> {
        let path = self.directory.join("result");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map(File::from).map_err(OciError::io("open", path))
    }

    /// Held by a call that starts or deletes the container.
    pub(super) fn lock(&self) -> Result<OwnedFd, OciError> {
        let path = self.directory.join(CONFIG);
        let file = File::open(&path).map_err(OciError::io("open", &path))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(OciError::io("lock", path))?;
        Ok(file.into())
    }

    pub(super) fn remove(&self) -> Result<(), OciError> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(OciError::io("remove", &self.directory)),
        }
    }
}

impl Record {
    /// Whether its process is there, and still the same, and has not ended.
    fn is_alive(&self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
            && process::zombie_code(self.pid, self.start_time).is_none()
    }

    /// A descriptor of the container's first process; `None` when it has ended.
    pub(super) fn process(&self) -> Result<Option<OwnedFd>, OciError> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            // The number is free, or that of somebody's thread, or of what is being reaped.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            pidfd => pidfd.map_err(OciError::io("open", format!("process {}", self.pid)))?,
        };
        // Looked at after opening: the descriptor cannot come to mean another process.
        Ok(self.is_alive().then_some(pidfd))
    }

    pub(super) fn group(&self) -> Result<Cgroup, OciError> {
        Ok(Cgroup::open(&self.hierarchies()?, &self.cgroup)?)
    }

    /// The hierarchies that the container's group is in.
    pub(super) fn hierarchies(&self) -> Result<Hierarchies, OciError> {
        Ok(match self.unit {
            Some(_) => Hierarchies::around(&self.cgroup)?,
            None => Hierarchies::detect()?,
        })
    }

    /// The state of the runtime specification, for hooks: pid and status are filled in later.
    pub(super) fn for_hooks(&self) -> String {
        serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_inside_the_root() {
        for good in ["a", "0f3", "a_b+c-d.e"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a\n"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let global = Global { root: Some(folder.path().join("below")), ..Global::default() };
        Container::reserve(&global, "one").unwrap();
        assert!(matches!(Container::reserve(&global, "one"), Err(OciError::Exists(_))));
        assert!(matches!(Container::open(&global, "two"), Err(OciError::NotFound(_))));
    }
}
