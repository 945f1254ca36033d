//! How much room everything takes.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::remote::FETCHED;
use crate::app::{App, AppError};
use crate::base::disk::tree_size;
use crate::image::Store;
use crate::remote::DOWNLOADS;
use crate::ui::usage::{UsageKind, UsageRow};
use crate::volume::Volumes;

/// Where the steps of image builds are kept, below the data directory, and what they have downloaded.
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
        let measure = |folder: &str| {
            let path = self.roots.data.join(folder);
            tree_size(&path).map_err(AppError::io(format!("measure `{}`", path.display())))
        };
        let downloads = measure(DOWNLOADS)?;
        for (name, size) in [
            ("build steps", measure(BUILD_CACHE)?.saturating_sub(downloads)),
            ("downloads of builds", downloads),
            ("registry", measure(REGISTRY)?),
            ("projects from elsewhere", measure(FETCHED)?),
            ("trash", measure(TRASH)?),
        ] {
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
            // Who built it. An image from elsewhere is nobody's.
            let (_, document) = store.document(&image.id)?;
            let project = document.config.labels.get("com.docker.compose.project").cloned().unwrap_or_default();
            let (shared, is_active) = (size - own, in_use.contains(&image.id));
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
