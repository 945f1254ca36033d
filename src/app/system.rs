//! How much room everything takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::app::{App, AppError};
use crate::image::Store;
use crate::ui::usage::{UsageKind, UsageRow};
use crate::volume::Volumes;

/// Where the steps of image builds are kept, below the data directory.
const BUILD_CACHE: &str = "images/build";
/// What was pushed to this machine's own registry.
const REGISTRY: &str = "images/registry";
const TRASH: &str = "trash";

impl App {
    /// The room that images, containers, volumes and caches take, one row for each; and the bytes of all layers of images,
    /// each counted once.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn disk_usage(&self) -> Result<(Vec<UsageRow>, u64), AppError> {
        let (mut rows, layers) = self.image_usage()?;
        let mut used_volumes = BTreeMap::new();
        for project in self.roots.projects().map_err(AppError::io("list the projects"))? {
            let observed = self.observe(&project, &[])?;
            let running: BTreeSet<_> = observed
                .containers
                .iter()
                .filter(|one| matches!(one.phase, crate::spec::Phase::Running { .. }))
                .map(|one| &one.id)
                .collect();
            let dir = self.roots.project(&project);
            for record in dir.load().map_err(AppError::io(format!("read project `{project}`")))? {
                let folder = dir.container(&record.config.id);
                let size = tree_size(&folder).map_err(AppError::io(format!("measure `{}`", folder.display())))?;
                used_volumes.extend(record.config.volumes.values().map(|volume| (volume.clone(), project.clone())));
                rows.push(UsageRow {
                    kind: UsageKind::Container,
                    project: project.clone(),
                    name: record.config.name.clone(),
                    size,
                    shared: 0,
                    is_active: running.contains(&record.config.id),
                });
            }
        }
        for volume in Volumes::open(&self.roots.data)?.list()? {
            let size = tree_size(&volume.data).map_err(AppError::io(format!("measure volume `{}`", volume.name)))?;
            let project = used_volumes.get(&volume.name).cloned();
            let labelled = || volume.labels.get("com.docker.compose.project").cloned().unwrap_or_default();
            rows.push(UsageRow {
                kind: UsageKind::Volume,
                is_active: project.is_some(),
                project: project.unwrap_or_else(labelled),
                name: volume.name,
                size,
                shared: 0,
            });
        }
        for (name, folder) in [("build", BUILD_CACHE), ("registry", REGISTRY), ("trash", TRASH)] {
            let path = self.roots.data.join(folder);
            let size = tree_size(&path).map_err(AppError::io(format!("measure `{}`", path.display())))?;
            if size > 0 {
                let (name, project) = (name.to_owned(), String::new());
                rows.push(UsageRow { kind: UsageKind::Cache, project, name, size, shared: 0, is_active: false });
            }
        }
        Ok((rows, layers))
    }

    fn image_usage(&self) -> Result<(Vec<UsageRow>, u64), AppError> {
        let store = Store::open(&self.roots.data)?;
        let usage = store.usage()?;
        let in_use = self.images_in_use()?;
        let mut rows = Vec::new();
        for image in store.list()? {
            let (size, own) = usage.images.get(&image.id).copied().unwrap_or_default();
            let name = image.names.first().cloned().unwrap_or_else(|| image.id.short().to_owned());
            let (shared, is_active, project) = (size - own, in_use.contains(&image.id), String::new());
            rows.push(UsageRow { kind: UsageKind::Image, project, name, size, shared, is_active });
        }
        if usage.unused > 0 {
            let (name, project) = ("layers without an image".to_owned(), String::new());
            let size = usage.unused;
            rows.push(UsageRow { kind: UsageKind::Cache, project, name, size, shared: 0, is_active: false });
        }
        Ok((rows, usage.layers))
    }
}

/// Bytes that the files of a tree take on the disk; a file with several names counts once. 0: there is no such tree.
fn tree_size(root: &Path) -> io::Result<u64> {
    let mut seen = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    let mut size = 0;
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // It went while we looked, or was never there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
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
    fn files_with_two_names_and_holes_are_counted_for_what_they_take() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        assert_eq!(tree_size(&root).unwrap(), 0);
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::write(root.join("a"), vec![1; 8192]).unwrap();
        fs::hard_link(root.join("a"), root.join("deep/b")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", root.join("link")).unwrap();
        let size = tree_size(&root).unwrap();
        assert!((8192..64 * 1024).contains(&size), "{size}");
    }
}
