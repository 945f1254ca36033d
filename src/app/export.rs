//! `export`: the files of a container as an archive.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::app::{App, AppError};
use crate::engine::view;
use crate::image::{Digest, Store};
use crate::spec::ContainerState;
use crate::state::ContainerRecord;

/// A container as the disk has it.
pub(super) struct Kept {
    pub(super) container: ContainerState,
    pub(super) record: ContainerRecord,
    /// What it has changed of its image; `None`: it was never started.
    pub(super) upper: Option<PathBuf>,
    pub(super) image: Digest,
}

/// A file for an archive, which may hold secrets: for its owner alone, as docker makes it.
pub(super) fn create(path: &Path) -> Result<File, AppError> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.map_err(AppError::io(format!("create `{}`", path.display())))
}

impl App {
    /// Writes the files of a service's container out: its image's with its own changes, nothing of volumes. It may run or not.
    /// Returns the container's name. `None`: standard output.
    ///
    /// # Errors
    /// No such container, its image is gone or the host's own, or the output cannot be written.
    pub fn export(&self, service: &str, index: Option<u32>, output: Option<&Path>) -> Result<String, AppError> {
        let store = Store::open(&self.roots.data)?;
        let kept = self.kept(service, index)?;
        let image = store.resolve(&kept.image.to_string())?;
        if !image.binds.is_empty() {
            let name = kept.container.service.container.image.clone();
            return Err(crate::image::Error::HostImage { name }.into());
        }
        let layers: Vec<_> = kept.upper.into_iter().chain(image.layers).collect();
        let name = kept.container.name;
        let root = view::open(&layers).map_err(AppError::io(format!("look into container {name}")))?;
        let Some(path) = output else {
            let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
            store.export(&root, &mut out).map_err(AppError::io("write the archive"))?;
            return Ok(name);
        };
        let file = create(path)?;
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let written = store.export(&root, &mut out).and_then(|()| out.flush());
        if written.is_err() {
            // Half an archive is of no use.
            let _ = std::fs::remove_file(path);
        }
        written.map_err(AppError::io(format!("write `{}`", path.display())))?;
        Ok(name)
    }

    /// A service's container by its number, or the first one.
    pub(super) fn kept(&self, service: &str, index: Option<u32>) -> Result<Kept, AppError> {
        let (project, mut found) = self.containers_of(service, index, false)?;
        let container = found.remove(0);
        let project = self.roots.project(&project);
        let record = project.load_container(&container.id).map_err(AppError::io("read the container"))?;
        let gone = || AppError::Usage(format!("container {} has just been removed", container.name));
        let record = record.ok_or_else(gone)?;
        let image = Digest::parse(&record.config.image_id).ok_or_else(gone)?;
        let upper = Some(project.container(&container.id).join("upper")).filter(|path| path.is_dir());
        Ok(Kept { container, record, upper, image })
    }
}
