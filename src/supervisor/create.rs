//! Making and removing a container's record and directories. Nothing runs here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::ids::ContainerId;
use crate::image::Healthcheck;
use crate::image::Image;
use crate::runtime::NewContainer;
use crate::runtime::RuntimeError;
use crate::spec::ContainerSpec;
use crate::spec::ContainerState;
use crate::spec::HealthSpec;
use crate::spec::HealthTimes;
use crate::spec::ServiceSpec;
use crate::spec::container::{Mount, MountSource, MountsOf};
use crate::state::ContainerConfig;
use crate::supervisor::failure::{because, failure};
use crate::supervisor::host::Host;
use crate::volume::NewVolume;
use crate::volume::Volume;

/// Label of an anonymous volume, as Docker has it.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

impl Host {
    /// Writes the container's configuration; from then on it exists. Volumes are named here and made when it starts,
    /// so that whatever is made is named somewhere first.
    pub(super) fn create(&self, new: NewContainer) -> Result<ContainerState, RuntimeError> {
        let NewContainer { name, number, mut service, replaces } = new;
        let image = self.image(&service.container.image)?;
        let id = self.new_id()?;
        let left = self.left_volumes(&name, replaces.as_ref())?;
        let lent = self.take_over_mounts(&mut service.container)?;
        let volumes = self.name_volumes(&service.container.mounts, &image, &left, lent)?;
        let labels = &mut service.container.labels;
        if number > 0 {
            labels.insert("com.docker.compose.container-number".to_owned(), number.to_string());
        }
        let one_off = if number == 0 { "True" } else { "False" };
        labels.insert("com.docker.compose.oneoff".to_owned(), one_off.to_owned());
        labels.insert("com.docker.compose.image".to_owned(), image.id.to_string());
        inherit(&mut service, &image);
        let command = command(&service.container, &image);
        let config = ContainerConfig {
            id: id.clone(),
            command,
            name,
            number,
            service,
            image_id: image.id.to_string(),
            created_at: self.now(),
            volumes,
        };
        let folder = self.dir.container(&id);
        let made = self.dir.make_container(&id);
        made.and_then(|()| self.dir.write_config(&config))
            .map_err(|error| because(format!("cannot create `{}`", folder.display()), &error))?;
        self.note("create", &config, &[]);
        self.observe_one(&id)
    }

    /// Every target that gets a volume, and the volume's host name.
    fn name_volumes(
        &self,
        mounts: &[Mount],
        image: &Image,
        left: &BTreeMap<String, String>,
        lent: BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, RuntimeError> {
        let kept = |target: &str| left.get(target).cloned();
        let mut volumes = lent;
        for mount in mounts {
            if volumes.contains_key(&mount.target) {
                continue;
            }
            let name = match &mount.source {
                MountSource::Volume { key, .. } => self.volume_name(key)?,
                MountSource::Anonymous { .. } => kept(&mount.target).map_or_else(random_name, Ok)?,
                _ => continue,
            };
            volumes.insert(mount.target.clone(), name);
        }
        for target in &image.document.config.volumes {
            let target = clean(target);
            if !mounts.iter().any(|mount| mount.target == target) {
                let name = kept(&target).map_or_else(random_name, Ok)?;
                volumes.insert(target, name);
            }
        }
        Ok(volumes)
    }

    /// `volumes_from`: adds the binds and volumes of other containers, but for targets that are taken; returns the
    /// volumes' names by target.
    fn take_over_mounts(&self, container: &mut ContainerSpec) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut volumes = BTreeMap::new();
        for from in container.volumes_from.clone() {
            let lender = self.lender(&from.of)?;
            let unnamed = lender.volumes.keys().map(|target| Mount {
                target: target.clone(),
                read_only: false,
                source: MountSource::Anonymous { labels: BTreeMap::new(), no_copy: false },
            });
            let mounts = lender.service.container.mounts.iter().cloned().chain(unnamed);
            for mut mount in mounts {
                // What is lent keeps the label that the lender gave it.
                if let MountSource::Bind { relabel, .. } | MountSource::Volume { relabel, .. } = &mut mount.source {
                    *relabel = None;
                }
                let lent = match &mount.source {
                    MountSource::Bind { .. } => None,
                    MountSource::Volume { .. } | MountSource::Anonymous { .. } => lender.volumes.get(&mount.target),
                    MountSource::Tmpfs { .. } | MountSource::Image { .. } | MountSource::Content { .. } => continue,
                };
                if container.mounts.iter().any(|known| known.target == mount.target) {
                    continue;
                }
                volumes.extend(lent.map(|name| (mount.target.clone(), name.clone())));
                mount.read_only |= from.read_only == Some(true);
                container.mounts.push(mount);
            }
        }
        Ok(volumes)
    }

    /// The container whose mounts another one takes over.
    fn lender(&self, of: &MountsOf) -> Result<ContainerConfig, RuntimeError> {
        let read = |project: &str| {
            let records = self.roots.project(project).load();
            records.map_err(|error| because(format!("cannot read project `{project}`"), &error))
        };
        let (projects, what) = match of {
            MountsOf::Service(name) => (vec![self.project.clone()], format!("service `{name}` has no container")),
            MountsOf::Container(name) => {
                let projects = self.roots.projects().map_err(|error| because("cannot list the projects", &error))?;
                (projects, format!("there is no container `{name}`"))
            }
        };
        let mut found = Vec::new();
        for project in projects {
            found.extend(read(&project)?.into_iter().map(|record| record.config).filter(|config| match of {
                MountsOf::Service(name) => config.service.name == *name && config.number > 0,
                MountsOf::Container(name) => config.name == *name || config.id.as_str().starts_with(name.as_str()),
            }));
        }
        let first = found.into_iter().min_by_key(|config| config.number);
        first.ok_or_else(|| failure(format!("{what} whose volumes could be taken over (`volumes_from`)")))
    }

    /// What the container that this one replaces had: it has been removed already, or is still there.
    fn left_volumes(
        &self,
        name: &str,
        replaces: Option<&ContainerId>,
    ) -> Result<BTreeMap<String, String>, RuntimeError> {
        let mut left = BTreeMap::new();
        if self.record.borrow().left_volumes.contains_key(name) {
            self.change_record(|record| left = record.left_volumes.remove(name).unwrap_or_default())?;
        }
        let Some(replaced) = replaces else { return Ok(BTreeMap::new()) };
        match self.dir.load_container(replaced) {
            Ok(Some(record)) => Ok(record.config.volumes),
            Ok(None) => Ok(left),
            Err(error) => Err(because("cannot read the container that is replaced", &error)),
        }
    }

    /// The host name of a volume that the project created.
    fn volume_name(&self, key: &str) -> Result<String, RuntimeError> {
        let record = self.record.borrow();
        let spec = record.volumes.get(key);
        spec.map(|spec| spec.name.clone()).ok_or_else(|| failure(format!("volume `{key}` has not been created")))
    }

    /// The volume behind a name in a container's configuration, made when it is an anonymous one that is not there yet.
    pub(super) fn open_volume(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Volume, RuntimeError> {
        match self.volumes.get(name) {
            Err(crate::volume::Error::NotFound { .. }) if is_made_up(name) => {
                let mut labels = labels.clone();
                labels.insert(ANONYMOUS.to_owned(), String::new());
                let new = NewVolume {
                    name: Some(name.to_owned()),
                    driver: String::new(),
                    driver_opts: BTreeMap::new(),
                    labels,
                };
                self.volumes.create(new)
            }
            other => other,
        }
        .map_err(|error| because("cannot use the volume", &error))
    }

    /// Takes an ended container away, with its anonymous volumes when asked.
    pub(super) fn remove(&self, id: &ContainerId, volumes: bool) -> Result<(), RuntimeError> {
        let folder = self.dir.container(id);
        let record = self.dir.load_container(id).map_err(|error| because("cannot read the container", &error))?;
        self.forget(id);
        if let Some(record) = record.as_ref().filter(|record| !volumes && !record.config.volumes.is_empty()) {
            self.change_record(|known| {
                known.left_volumes.insert(record.config.name.clone(), record.config.volumes.clone());
            })?;
        }
        self.trash
            .discard(&folder)
            .map_err(|error| because(format!("cannot remove `{}`", folder.display()), &error))?;
        self.empty_trash_soon();
        if let Some(record) = &record {
            self.note("destroy", &record.config, &[]);
        }
        if let Some(record) = record.filter(|_| volumes) {
            let in_use = self.volumes_in_use()?;
            for name in record.config.volumes.values().filter(|name| is_made_up(name) && !in_use.contains(*name)) {
                match self.volumes.remove(name, &in_use) {
                    Ok(()) | Err(crate::volume::Error::NotFound { .. }) => {}
                    Err(error) => return Err(because("cannot remove the volume", &error)),
                }
            }
        }
        Ok(())
    }

    /// Names of the volumes that containers of any project have.
    pub(super) fn volumes_in_use(&self) -> Result<BTreeSet<String>, RuntimeError> {
        let mut names = BTreeSet::new();
        let projects = self.roots.projects().map_err(|error| because("cannot list the projects", &error))?;
        for project in projects {
            let records = self.roots.project(&project).load();
            let records = records.map_err(|error| because(format!("cannot read project `{project}`"), &error))?;
            names.extend(records.into_iter().flat_map(|record| record.config.volumes.into_values()));
        }
        Ok(names)
    }
}

/// What the container will run.
fn command(container: &ContainerSpec, image: &Image) -> Vec<String> {
    let image = &image.document.config;
    let mut words = container.entrypoint.clone().or_else(|| image.entrypoint.clone()).unwrap_or_default();
    let own = container.command.clone();
    let arguments = own.or_else(|| image.cmd.clone().filter(|_| container.entrypoint.is_none()));
    words.extend(arguments.unwrap_or_default());
    words
}

/// What the file leaves to the image.
fn inherit(service: &mut ServiceSpec, image: &Image) {
    let image = &image.document.config;
    if service.stop_signal.is_none() {
        service.stop_signal.clone_from(&image.stop_signal);
    }
    for (name, value) in &image.labels {
        service.container.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let of_image = image.healthcheck.as_ref().and_then(health);
    match &mut service.health {
        // `healthcheck: {disable: true}` is a choice, too.
        None if service.fields.contains_key("healthcheck") => {}
        None => service.health = of_image,
        Some(own) => {
            if let Some(of_image) = of_image {
                let HealthTimes { interval, timeout, retries, start_period, start_interval } = service.health_times;
                let command = if own.command.is_empty() { of_image.command } else { own.command.clone() };
                *own = HealthSpec {
                    command,
                    interval: interval.unwrap_or(of_image.interval),
                    timeout: timeout.unwrap_or(of_image.timeout),
                    retries: retries.unwrap_or(of_image.retries),
                    start_period: start_period.unwrap_or(of_image.start_period),
                    start_interval: start_interval.unwrap_or(of_image.start_interval),
                };
            }
            // Times without a test, and none in the image: there is nothing to check.
            service.health.take_if(|health| health.command.is_empty());
        }
    }
}

fn health(check: &Healthcheck) -> Option<HealthSpec> {
    let command = match check.test.split_first()? {
        (kind, words) if kind == "CMD" => words.to_vec(),
        (kind, words) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), words.join(" ")],
        _ => return None,
    };
    let time = |nanoseconds: i64, default: u64| match u64::try_from(nanoseconds) {
        Ok(0) | Err(_) => Duration::from_secs(default),
        Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
    };
    Some(HealthSpec {
        command,
        interval: time(check.interval, 30),
        timeout: time(check.timeout, 30),
        retries: u32::try_from(check.retries).ok().filter(|retries| *retries > 0).unwrap_or(3),
        start_period: time(check.start_period, 0),
        start_interval: time(check.start_interval, 5),
    })
}

pub(super) fn random_bytes() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes)
}

fn random_name() -> Result<String, RuntimeError> {
    let bytes = random_bytes().map_err(|error| because("cannot make a name", &error))?;
    Ok(ContainerId::from_bytes(bytes).to_string())
}

/// Whether a volume's name is one of [`random_name`].
fn is_made_up(name: &str) -> bool {
    ContainerId::parse(name).is_some()
}

/// A path of an image's `VOLUME`, as mount targets are written.
fn clean(path: &str) -> String {
    let mut clean = String::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        clean.push('/');
        clean.push_str(part);
    }
    clean
}
