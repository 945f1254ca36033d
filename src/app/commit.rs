//! `commit`: an image of what a container has become.

use crate::app::change::News;
use crate::app::export::Kept;
use crate::app::options::CommitOptions;
use crate::app::{App, AppError};
use crate::control::Reply;
use crate::image::{Commit, Digest, Healthcheck, ImageConfig, Store};
use crate::spec::container::NetworkMode;
use crate::spec::{Phase, ServiceSpec};

impl App {
    /// Makes an image of a service's container, which may run or not: its image's layers, and one of what it has changed.
    /// Containers of the image do what this one does, unless `changes` say otherwise. Volumes are no part of it.
    ///
    /// # Errors
    /// No such container, its image is gone or the host's own, a change or the name is not valid.
    pub fn commit(&self, options: &CommitOptions, news: News<'_>) -> Result<Digest, AppError> {
        let store = Store::open(&self.roots.data)?;
        let kept = self.kept(&options.service, options.index)?;
        let base = store.resolve(&kept.image.to_string())?;
        if !base.binds.is_empty() {
            let name = kept.container.service.container.image.clone();
            return Err(crate::image::Error::HostImage { name }.into());
        }
        let name = kept.container.name.clone();
        let tell = |news: News<'_>, status: &str| {
            let id = format!("{name} Commit {name}");
            news(Reply::Progress { id, status: status.to_owned(), text: String::new() });
        };
        tell(news, "Committing");
        if self.dry_run {
            tell(news, "Committed");
            return Ok(base.id);
        }
        let services = || vec![options.service.clone()];
        let freeze = options.pause && matches!(kept.container.phase, Phase::Running { paused: false, .. });
        if freeze {
            match self.pause(services(), true, &mut |_| {}) {
                // Another replica is frozen already.
                Ok(()) | Err(AppError::Usage(_)) => {}
                // An ordinary user may have no control groups to freeze with. Docker goes on, too, and does not say so.
                Err(error) => news(Reply::Warning(format!(
                    "`{name}` goes on while it is copied; what it writes meanwhile may be in the image in part: {error}"
                ))),
            }
        }
        let made = store.commit_container(commit(&kept, base.document.config, options));
        if freeze {
            // It may have been let go meanwhile, or have been removed.
            let _ = self.pause(services(), false, &mut |_| {});
        }
        let id = made?;
        tell(news, &format!("Committed as {id}"));
        Ok(id)
    }
}

fn commit<'a>(kept: &'a Kept, base: ImageConfig, options: &'a CommitOptions) -> Commit<'a> {
    Commit {
        base: &kept.image,
        upper: kept.upper.as_deref(),
        config: configuration(&kept.record.config.service, base),
        changes: &options.changes,
        name: options.name.as_deref(),
        author: options.author.clone(),
        message: options.message.clone(),
        created_by: kept.record.config.command.join(" "),
    }
}

/// The image's configuration with what the service says otherwise.
fn configuration(service: &ServiceSpec, mut config: ImageConfig) -> ImageConfig {
    let container = &service.container;
    for (name, value) in &container.environment {
        config.env.retain(|line| line.split('=').next() != Some(name));
        config.env.extend(value.as_ref().map(|value| format!("{name}={value}")));
    }
    if let Some(entrypoint) = &container.entrypoint {
        config.entrypoint = Some(entrypoint.clone());
        config.cmd = None;
    }
    config.cmd = container.command.clone().or(config.cmd);
    if let Some(user) = &container.user {
        config.user.clone_from(user);
    }
    if let Some(folder) = &container.working_dir {
        config.working_dir.clone_from(folder);
    }
    config.stop_signal = service.stop_signal.clone().or(config.stop_signal);
    config.labels.extend(container.labels.clone());
    if !matches!(container.network, NetworkMode::Host | NetworkMode::None) {
        let ports = container.ports.iter().map(|port| format!("{}/{}", port.container, port.protocol));
        config.exposed_ports.extend(ports);
    }
    if let Some(health) = &service.health {
        let nanoseconds = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let times = &service.health_times;
        config.healthcheck = Some(Healthcheck {
            test: std::iter::once("CMD".to_owned()).chain(health.command.iter().cloned()).collect(),
            interval: times.interval.map_or(0, nanoseconds),
            timeout: times.timeout.map_or(0, nanoseconds),
            start_period: times.start_period.map_or(0, nanoseconds),
            start_interval: times.start_interval.map_or(0, nanoseconds),
            retries: times.retries.map_or(0, i64::from),
        });
    }
    config
}
