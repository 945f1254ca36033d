//! One project's directories.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::base::disk;
use crate::base::disk::Durability;
use crate::base::ids::ContainerId;
use crate::state::ContainerConfig;
use crate::state::ContainerRecord;
use crate::state::ProjectRecord;
use crate::state::StateFile;

/// A project's directories, existing or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectDir {
    data: PathBuf,
    run: PathBuf,
}

impl ProjectDir {
    pub(super) fn new(data: PathBuf, run: PathBuf) -> Self {
        Self { data, run }
    }

    /// The folder that survives a reboot.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The folder of sockets and locks.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The supervisor's control socket.
    pub fn socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Says which program the supervisor is ([`crate::sys::process::program`]).
    pub fn program(&self) -> PathBuf {
        self.run.join("program")
    }

    /// The file whose lock says who starts a supervisor.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// The folder of the containers' records.
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// The folder of a container.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// Makes the folder of a new container, and the folder of them all.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn make_container(&self, id: &ContainerId) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o710);
        let containers = self.containers();
        if !containers.exists() {
            builder.recursive(true).create(&containers)?;
            disk::spread(&containers);
            builder.recursive(false);
        }
        builder.create(self.container(id))
    }

    /// What has happened to containers, a JSON object a line.
    pub fn events(&self) -> PathBuf {
        self.data.join("events.jsonl")
    }

    /// What came before [`ProjectDir::events`].
    pub fn older_events(&self) -> PathBuf {
        self.data.join("events.1.jsonl")
    }

    /// What the keeper writes when a container has ended.
    pub fn exit_file(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("exit.json")
    }

    /// The project's record; the default one when there is none.
    ///
    /// # Errors
    /// The read error, or `InvalidData` when the file is damaged.
    pub fn record(&self) -> io::Result<ProjectRecord> {
        Ok(disk::read_json(&self.data.join("project.json"))?.unwrap_or_default())
    }

    /// # Errors
    /// As [`disk::replace`].
    pub fn write_record(&self, record: &ProjectRecord) -> io::Result<()> {
        fs::create_dir_all(&self.data)?;
        disk::replace_json(&self.data.join("project.json"), record, Durability::Kill)
    }

    /// Every container that has a readable `config.json`, oldest first. A folder without one is a container that was
    /// never finished or is being removed: [`ProjectDir::unfinished`].
    ///
    /// # Errors
    /// Whatever the file system says but not-found.
    pub fn load(&self) -> io::Result<Vec<ContainerRecord>> {
        let mut records = Vec::new();
        for (id, _) in self.folders()? {
            records.extend(self.load_container(&id)?);
        }
        records.sort_by(|a, b| (a.config.created_at, &a.config.id).cmp(&(b.config.created_at, &b.config.id)));
        Ok(records)
    }

    /// One container; `None` when its folder holds no readable configuration.
    ///
    /// # Errors
    /// Whatever the file system says but not-found.
    pub fn load_container(&self, id: &ContainerId) -> io::Result<Option<ContainerRecord>> {
        let folder = self.container(id);
        let Some(config) = readable::<ContainerConfig>(&folder.join("config.json"))? else { return Ok(None) };
        let state = match readable(&folder.join("state.json"))? {
            Some(state) => state,
            // It was removed meanwhile, and not only created.
            None if !folder.exists() => return Ok(None),
            None => StateFile::default(),
        };
        let exit_file = readable(&folder.join("exit.json"))?;
        Ok(Some(ContainerRecord { config, state, exit_file }))
    }

    /// Container folders that hold no readable configuration.
    ///
    /// # Errors
    /// Whatever the file system says but not-found.
    pub fn unfinished(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for (id, folder) in self.folders()? {
            if self.load_container(&id)?.is_none() {
                folders.push(folder);
            }
        }
        Ok(folders)
    }

    /// # Errors
    /// As [`disk::replace`].
    pub fn write_config(&self, config: &ContainerConfig) -> io::Result<()> {
        disk::replace_json(&self.container(&config.id).join("config.json"), config, Durability::Kill)
    }

    /// # Errors
    /// As [`disk::replace`].
    pub fn write_state(&self, id: &ContainerId, state: &StateFile) -> io::Result<()> {
        disk::replace_json(&self.container(id).join("state.json"), state, Durability::Kill)
    }

    /// Of all containers, finished or not.
    ///
    /// # Errors
    /// Whatever the file system says but not-found.
    pub fn ids(&self) -> io::Result<Vec<ContainerId>> {
        Ok(self.folders()?.into_iter().map(|(id, _)| id).collect())
    }

    fn folders(&self) -> io::Result<Vec<(ContainerId, PathBuf)>> {
        let entries = match fs::read_dir(self.containers()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().and_then(ContainerId::parse) {
                folders.push((id, entry.path()));
            }
        }
        Ok(folders)
    }
}

/// A record, where a file that a crash of the machine left damaged counts as absent.
fn readable<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match disk::read_json(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => Ok(None),
        other => other,
    }
}
