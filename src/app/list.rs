//! `ps`, `ls`, `images`: what there is, from the disk. Of the project's processes only whether they are there is looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::options::{ImagesOptions, LsOptions, PortOptions, PsOptions, VolumesOptions};
use crate::app::{App, AppError};
use crate::image::Store;
use crate::plan;
use crate::spec::ContainerState;
use crate::spec::NetworkSpec;
use crate::spec::Observed;
use crate::spec::container::{MountSource, NetworkMode};
use crate::spec::observed::Published;
use crate::ui::tables::{self, ImageRow, LsRow, VolumeRow};
use crate::volume::Volumes;

/// A container and the command it runs.
#[derive(Clone, Debug)]
pub struct Listed {
    pub container: ContainerState,
    /// Entrypoint and arguments.
    pub command: Vec<String>,
    /// Names of its networks on the host.
    pub networks: Vec<String>,
    /// Names of its volumes, and paths of this machine.
    pub mounts: Vec<String>,
    /// How many of them are volumes.
    pub volumes: usize,
    /// Somebody is there to start it again.
    pub restarting: bool,
}

impl App {
    /// The project's name and the containers that `ps` shows.
    ///
    /// # Errors
    /// Wrong files or services, unreadable state.
    pub fn ps(&self, options: &PsOptions) -> Result<(String, Vec<Listed>), AppError> {
        let (project, file) = self.locate()?;
        let declared: Option<BTreeSet<String>> = file.map(|file| file.services.into_keys().collect());
        if let Some(declared) = &declared
            && let Some(service) = options.services.iter().find(|service| !declared.contains(*service))
        {
            return Err(AppError::NoService { service: service.clone() });
        }
        let observed = self.observe(&project, &[])?;
        let dir = self.roots.project(&project);
        let mut configs = BTreeMap::new();
        for record in dir.load().map_err(AppError::io("read the containers"))? {
            configs.insert(record.config.id.clone(), record.config);
        }
        let restarts = self.restarts(&project, &observed);
        let wanted = |container: &ContainerState| {
            let state = tables::state(&container.phase, restarts && container.comes_back());
            let shown = match options.status.is_empty() {
                true => options.all || (is_up(state) && container.number > 0),
                false => options.status.iter().any(|status| status == state),
            };
            let orphan = declared.as_ref().is_some_and(|declared| !declared.contains(&container.service.name));
            shown
                && !(options.no_orphans && orphan)
                && (options.services.is_empty() || options.services.contains(&container.service.name))
        };
        let containers = observed.containers.into_iter().filter(wanted);
        let with = |container: ContainerState| {
            let config = configs.remove(&container.id);
            let networks = networks_of(&container, &project, &observed.networks);
            let mut paths = BTreeSet::new();
            for mount in &container.service.container.mounts {
                if let MountSource::Bind { path, .. } = &mount.source {
                    paths.insert(path.display().to_string());
                }
            }
            let (command, volumes) = config.map(|config| (config.command, config.volumes)).unwrap_or_default();
            let names: BTreeSet<String> = volumes.into_values().collect();
            let volumes = names.len();
            let mounts = paths.into_iter().chain(names).collect();
            let restarting = restarts && container.comes_back();
            Listed { container, command, networks, mounts, volumes, restarting }
        };
        let mut listed: Vec<Listed> = containers.map(with).collect();
        listed.sort_by(|a, b| a.container.name.cmp(&b.container.name));
        Ok((project, listed))
    }

    /// Whether somebody is there who starts containers again that wait for it.
    pub(super) fn restarts(&self, project: &str, observed: &Observed) -> bool {
        observed.containers.iter().any(ContainerState::comes_back) && self.session(project).is_served()
    }

    /// Every project that has containers.
    ///
    /// # Errors
    /// Unreadable state.
    pub fn ls(&self, options: &LsOptions) -> Result<Vec<LsRow>, AppError> {
        let mut rows = Vec::new();
        let pattern = |text: &String| {
            regex::Regex::new(text)
                .map_err(|error| AppError::Usage(format!("`{text}` is no regular expression: {error}")))
        };
        let filters = options.name_filter.iter().map(pattern).collect::<Result<Vec<_>, _>>()?;
        for name in self.roots.projects().map_err(AppError::io("list the projects"))? {
            if !filters.is_empty() && !filters.iter().any(|filter| filter.is_match(&name)) {
                continue;
            }
            let observed = self.observe(&name, &[])?;
            let restarts = self.restarts(&name, &observed);
            let mut states = BTreeMap::new();
            for container in &observed.containers {
                let state = tables::state(&container.phase, restarts && container.comes_back());
                *states.entry(state.to_owned()).or_insert(0) += 1;
            }
            if states.is_empty() || (!options.all && !states.keys().any(|state| is_up(state))) {
                continue;
            }
            if !options.all {
                states.retain(|state, _| is_up(state));
            }
            let record = self.roots.project(&name).record().map_err(AppError::io("read the project's record"))?;
            let config_files = record.config_files.iter().map(|file| file.display().to_string()).collect();
            rows.push(LsRow { name, states, config_files });
        }
        Ok(rows)
    }

    /// The images of the project's containers.
    ///
    /// # Errors
    /// Unreadable state or store.
    pub fn images(&self, options: &ImagesOptions) -> Result<Vec<ImageRow>, AppError> {
        let project = self.locate_with(&options.services)?;
        let observed = self.observe(&project, &[])?;
        let store = Store::open(&self.roots.data)?;
        let mut rows = Vec::new();
        for container in observed.containers {
            if !options.services.is_empty() && !options.services.contains(&container.service.name) {
                continue;
            }
            let image = store.resolve(&container.image_id)?;
            rows.push(crate::app::image::row(&image, &container.service.container.image, container.name));
        }
        rows.sort_by(|a, b| a.container.cmp(&b.container));
        Ok(rows)
    }

    /// Where a port of a container is published: `ADDRESS:PORT`.
    ///
    /// # Errors
    /// No such service, or the port is not published.
    pub fn port(&self, options: &PortOptions) -> Result<String, AppError> {
        let (_, container) = self.running(&options.service, options.index)?;
        let wanted =
            |port: &&Published| port.container == options.port && port.protocol.to_string() == options.protocol;
        match container.ports.iter().find(wanted) {
            Some(port) => Ok(std::net::SocketAddr::new(port.host_ip, port.host).to_string()),
            None => {
                let published: BTreeSet<_> =
                    container.ports.iter().map(|port| format!("{}/{}", port.container, port.protocol)).collect();
                let published = published.into_iter().collect::<Vec<_>>().join(", ");
                let (port, protocol, name) = (options.port, &options.protocol, container.name);
                Err(AppError::Usage(format!("no port {port}/{protocol} for container {name}: {published}")))
            }
        }
    }

    /// The volumes of the project that exist.
    ///
    /// # Errors
    /// Unreadable state or store.
    pub fn volumes(&self, options: &VolumesOptions) -> Result<Vec<VolumeRow>, AppError> {
        let project = self.locate_with(&options.services)?;
        let observed = self.observe(&project, &[])?;
        let used: BTreeSet<&str> = observed
            .containers
            .iter()
            .filter(|one| options.services.contains(&one.service.name))
            .flat_map(|one| plan::volumes_of(&one.service))
            .collect();
        let store = Volumes::open(&self.roots.data)?;
        let mut rows = Vec::new();
        for (key, spec) in observed.volumes {
            if !options.services.is_empty() && !used.contains(key.as_str()) {
                continue;
            }
            let mut labels: BTreeMap<String, String> = spec.labels;
            labels.insert("com.docker.compose.project".to_owned(), project.clone());
            labels.insert("com.docker.compose.volume".to_owned(), key);
            let folder = store.get(&spec.name)?.data;
            rows.push(VolumeRow { name: spec.name, folder, labels });
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }
}

/// Names of the networks that a container is on.
fn networks_of(container: &ContainerState, project: &str, networks: &BTreeMap<String, NetworkSpec>) -> Vec<String> {
    let name = |key: &String| networks.get(key).map_or_else(|| format!("{project}_{key}"), |spec| spec.name.clone());
    match &container.service.container.network {
        NetworkMode::Networks(all) => all.iter().map(|one| name(&one.network)).collect(),
        NetworkMode::Host => vec!["host".to_owned()],
        _ => Vec::new(),
    }
}

fn is_up(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}
