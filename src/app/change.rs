//! Verbs that change a project: through the supervisor, one change at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::image::{image_names, images_of};
use crate::app::options::{DownOptions, KillOptions, RestartOptions, RmOptions, StartOptions, StopOptions, UpOptions};
use crate::app::project::{Decided, known, lower};
use crate::app::pull::{Images, chosen};
use crate::app::{App, AppError, now};
use crate::base::diagnostic::Diagnostic;
use crate::control::{Reply, Request, Wait};
use crate::network::Networks;
use crate::plan;
use crate::plan::{Change, ChangeKind, Orphans, Plan, Recreate};
use crate::spec::ContainerState;
use crate::spec::Observed;
use crate::spec::Phase;
use crate::spec::ProjectSpec;
use crate::state::RunState;
use crate::sys::process::start_time;
use crate::sys::signals;
use crate::volume::Volumes;

/// What is told while a change is made.
pub type News<'a> = &'a mut dyn FnMut(Reply);

/// An `up`, ready to be made.
#[derive(Clone, Debug)]
pub struct Up {
    pub project: ProjectSpec,
    pub change: Change,
    pub wait: Option<Wait>,
    pub images: Images,
    pub quiet_pull: bool,
    pub warnings: Vec<Diagnostic>,
}

impl App {
    /// Loads the project for `up`. With `providers`, what provides its services is run, and heard there.
    ///
    /// # Errors
    /// [`AppError::Input`] for wrong files, [`AppError::Usage`] for wrong numbers.
    pub fn prepare_up(&self, options: &UpOptions, providers: Option<News<'_>>) -> Result<Up, AppError> {
        let mut loaded = self.load(&options.services)?;
        if loaded.project.services.is_empty() && !options.may_be_empty {
            return Err(AppError::Usage("no service selected".to_owned()));
        }
        if let Some(news) = providers {
            self.ask_providers(&mut loaded.project, news)?;
        }
        let Decided { spec: mut project, images, warnings } = lower(loaded)?;
        let images = chosen(images, options.pull);
        scale(&mut project, &options.scale)?;
        let attached = options.attach.iter().chain(&options.no_attach).chain(&options.exit_code_from);
        if let Some(other) = attached.clone().find(|name| !project.services.contains_key(*name)) {
            let message = format!("cannot attach to services not included in up: {other}");
            return Err(AppError::Usage(message));
        }
        self.find_external(&project)?;
        let recreate = match (options.force_recreate || options.renew_anonymous_volumes, options.no_recreate) {
            (true, _) => Recreate::Force,
            (_, true) => Recreate::Never,
            _ => Recreate::Changed,
        };
        let kind = ChangeKind::Up {
            project: project.clone(),
            // The loaded project has those that are provided left out, and nothing but what was asked for.
            services: options.services.iter().filter(|name| project.services.contains_key(*name)).cloned().collect(),
            options: plan::UpOptions {
                recreate,
                always_recreate_deps: options.always_recreate_deps,
                no_deps: options.no_deps,
                no_start: options.no_start,
                orphans: self.orphans(options.remove_orphans)?,
                renew_anonymous_volumes: options.renew_anonymous_volumes,
                timeout: options.timeout,
            },
        };
        let wait = options.wait.then_some(Wait { timeout: options.wait_timeout });
        Ok(Up {
            project,
            change: Change { requested_at: now(), kind },
            wait,
            images,
            quiet_pull: options.quiet_pull,
            warnings,
        })
    }

    /// Refuses a project whose external networks or volumes are not there, before anything is made.
    pub(super) fn find_external(&self, project: &ProjectSpec) -> Result<(), AppError> {
        let missing = |kind, name: &str| AppError::ExternalMissing { kind, name: name.to_owned() };
        let found = Networks::new(self.roots.data.join("networks")).list()?;
        let mut networks = project.networks.values().filter(|spec| spec.external);
        if let Some(spec) = networks.find(|spec| !found.iter().any(|one| one.ready && one.name == spec.name)) {
            return Err(missing("network", &spec.name));
        }
        for spec in project.volumes.values().filter(|spec| spec.external) {
            match Volumes::open(&self.roots.data)?.get(&spec.name) {
                Err(crate::volume::Error::NotFound { .. }) => return Err(missing("volume", &spec.name)),
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Makes a prepared `up`.
    ///
    /// # Errors
    /// Whatever fails, told so that a person can act on it.
    pub fn up(&self, up: &Up, news: News<'_>) -> Result<(), AppError> {
        self.provide(&up.images, up.quiet_pull, news)?;
        self.make(&up.project.name, up.change.clone(), up.wait, news)
    }

    /// What `up` would do.
    ///
    /// # Errors
    /// When the state cannot be read, or nothing can be planned.
    pub fn plan(&self, up: &Up) -> Result<Plan, AppError> {
        let observed = self.observe(&up.project.name, &up.change.kind.images())?;
        Ok(plan::plan(
            &Change { requested_at: up.change.requested_at.max(observed.latest()), ..up.change.clone() },
            &observed,
        )?)
    }

    /// # Errors
    /// Whatever fails.
    pub fn down(&self, options: DownOptions, news: News<'_>) -> Result<(), AppError> {
        let (name, project) = self.locate()?;
        if let (Some(project), false) = (&project, self.dry_run) {
            self.unprovide(project, &options.services, news)?;
        }
        let DownOptions { services, volumes, remove_orphans, timeout, images } = options;
        let of_services = match (&project, images) {
            (Some(project), Some(which)) => image_names(project, &services, which),
            (None, Some(which)) => images_of(&name, &self.observe(&name, &[])?, &services, which),
            (_, None) => Vec::new(),
        };
        let orphans = self.orphans(remove_orphans)?;
        let exists = self.exists(&name)?;
        if exists {
            // What the engine cannot do keeps nobody from taking down what is there: then it goes by what exists.
            let project = project.as_ref().map(plan::lower).transpose().ok().flatten();
            self.change(&name, ChangeKind::Down { services, volumes, orphans, timeout, project }, news)?;
        }
        let removed = self.remove_images(&of_services, news)?;
        if !exists && removed == 0 {
            news(Reply::Warning(format!("no resource found to remove for project `{name}`")));
        }
        Ok(())
    }

    /// # Errors
    /// Whatever fails.
    pub fn start(&self, options: StartOptions, news: News<'_>) -> Result<(), AppError> {
        let (name, project) = self.locate()?;
        let wait = options.wait.then_some(Wait { timeout: options.wait_timeout });
        let observed = self.observe(&name, &[])?;
        let wanted = match (options.services.is_empty(), project) {
            (true, Some(project)) => {
                let some = project.services.into_iter().filter(|(_, service)| service.replicas() > 0);
                some.map(|(name, _)| name).collect::<Vec<_>>()
            }
            (_, project) => {
                known(project.as_ref(), &options.services)?;
                options.services.clone()
            }
        };
        // Of what the project has, only some may have been made.
        let named = !options.services.is_empty() || !observed.containers.iter().any(|one| one.number > 0);
        if let Some(service) = wanted.iter().find(|service| named && !has(&observed, service)) {
            return Err(AppError::Usage(format!("service `{service}` has no container to start")));
        }
        if observed.containers.is_empty() {
            return Ok(());
        }
        let Some((name, services)) = self.meant(options.services)? else { return Ok(()) };
        let change = Change { requested_at: now(), kind: ChangeKind::Start { services } };
        self.make(&name, change, wait, news)
    }

    /// # Errors
    /// Whatever fails.
    pub fn stop(&self, options: StopOptions, news: News<'_>) -> Result<(), AppError> {
        let Some((name, services)) = self.meant(options.services)? else { return Ok(()) };
        self.change_running(&name, ChangeKind::Stop { services, timeout: options.timeout }, news)
    }

    /// # Errors
    /// Whatever fails.
    pub fn restart(&self, options: RestartOptions, news: News<'_>) -> Result<(), AppError> {
        let (name, project) = self.locate()?;
        known(project.as_ref(), &options.services)?;
        if self.observe(&name, &[])?.containers.is_empty() {
            return match project {
                Some(_) => Ok(()),
                None => Err(AppError::Usage(format!("project `{name}` has no container to restart"))),
            };
        }
        let RestartOptions { services, timeout, no_deps } = options;
        let Some((name, services)) = self.meant(services)? else { return Ok(()) };
        self.change(&name, ChangeKind::Restart { services, timeout, no_deps }, news)
    }

    /// # Errors
    /// Whatever fails.
    pub fn kill(&self, options: KillOptions, news: News<'_>) -> Result<(), AppError> {
        let KillOptions { services, signal, .. } = options;
        let meant = self.meant(services)?;
        if signals::number(&signal).is_none() {
            return Err(AppError::Usage(format!("invalid signal: {signal}")));
        }
        let Some((name, services)) = meant else { return Err(AppError::Nothing("no container to kill")) };
        let meant = |one: &ContainerState| services.is_empty() || services.contains(&one.service.name);
        let running = |one: &ContainerState| matches!(one.phase, Phase::Running { .. }) || one.comes_back();
        if !self.observe(&name, &[])?.containers.iter().any(|one| meant(one) && running(one)) {
            return Err(AppError::Nothing("no container to kill"));
        }
        self.change_running(&name, ChangeKind::Kill { services, signal }, news)
    }

    /// Freezes containers, or lets them go on.
    ///
    /// # Errors
    /// Those that are frozen already (or run), and whatever fails.
    pub fn pause(&self, services: Vec<String>, pause: bool, news: News<'_>) -> Result<(), AppError> {
        let Some((name, services)) = self.meant(services)? else { return Ok(()) };
        let observed = self.observe(&name, &[])?;
        let restarts = self.restarts(&name, &observed);
        let why_not = |container: &ContainerState| {
            let meant = services.is_empty() || services.contains(&container.service.name);
            let state = match container.phase {
                _ if !meant || container.number == 0 => return None,
                Phase::Running { paused, .. } if paused == pause && pause => "already paused",
                Phase::Running { paused, .. } if paused == pause => "not paused",
                Phase::Exited(_) if restarts && container.comes_back() && pause => {
                    "restarting, wait until the container is running"
                }
                Phase::Exited(_) if restarts && container.comes_back() => "not paused",
                _ => return None,
            };
            Some(format!("container `{}` is {state}", container.name))
        };
        let already: Vec<_> = observed.containers.iter().filter_map(why_not).collect();
        // The others all the same, as in Docker.
        self.change_running(&name, ChangeKind::Pause { services, pause }, news)?;
        if already.is_empty() { Ok(()) } else { Err(AppError::Usage(already.join("; "))) }
    }

    /// Containers that `rm` would remove: their names. Services that are none of its business are taken out of the options.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn removable(&self, options: &mut RmOptions) -> Result<(String, Vec<String>), AppError> {
        let Some((name, services)) = self.meant(std::mem::take(&mut options.services))? else {
            return Ok((String::new(), Vec::new()));
        };
        options.services = services;
        let observed = self.observe(&name, &[])?;
        let ours = observed.containers.into_iter().filter(|container| {
            container.number > 0
                && (options.services.is_empty() || options.services.contains(&container.service.name))
                && (options.stop || !matches!(container.phase, Phase::Running { .. }))
        });
        Ok((name, ours.map(|container| container.name).collect()))
    }

    /// # Errors
    /// Whatever fails.
    pub fn rm(&self, project: &str, options: RmOptions, news: News<'_>) -> Result<(), AppError> {
        let RmOptions { services, stop, volumes, .. } = options;
        self.change(project, ChangeKind::Remove { services, stop, volumes }, news)
    }

    /// The project, and the services that a command is about. Without names these are the ones whose profile is active,
    /// where there is a file; empty: all that there are. `None`: there is no container of one.
    fn meant(&self, services: Vec<String>) -> Result<Option<(String, Vec<String>)>, AppError> {
        let (name, project) = self.locate()?;
        known(project.as_ref(), &services)?;
        let Some(project) = project.filter(|_| services.is_empty()) else { return Ok(Some((name, services))) };
        let is_active = |service: &String| project.services.contains_key(service);
        let there: BTreeSet<String> =
            self.observe(&name, &[])?.containers.into_iter().map(|one| one.service.name).collect();
        if there.iter().all(is_active) {
            return Ok(Some((name, Vec::new())));
        }
        let active: Vec<String> = there.into_iter().filter(is_active).collect();
        Ok((!active.is_empty()).then_some((name, active)))
    }

    /// What `--remove-orphans` and `COMPOSE_IGNORE_ORPHANS` ask for.
    fn orphans(&self, remove: bool) -> Result<Orphans, AppError> {
        let ignore = self.environment.get("COMPOSE_IGNORE_ORPHANS").map(|value| value.to_lowercase());
        match (remove, matches!(ignore.as_deref(), Some("1" | "t" | "true" | "y" | "yes" | "on"))) {
            (true, true) => {
                Err(AppError::Usage("COMPOSE_IGNORE_ORPHANS and --remove-orphans cannot be combined".to_owned()))
            }
            (true, false) => Ok(Orphans::Remove),
            (false, true) => Ok(Orphans::Ignore),
            (false, false) => Ok(Orphans::Warn),
        }
    }

    /// Ends the change that is being made to the project, if there is one.
    ///
    /// # Errors
    /// Wrong files, or a supervisor that cannot be talked to.
    pub fn cancel(&self) -> Result<(), AppError> {
        let (project, _) = self.locate()?;
        match self.session(&project).connect()? {
            Some(_) => self.change(&project, ChangeKind::Cancel, &mut |_| {}),
            None => Ok(()),
        }
    }

    /// Stops everything that runs (Ctrl-C of an attached `up`).
    ///
    /// # Errors
    /// Whatever fails.
    pub fn stop_project(&self, project: &str, news: News<'_>) -> Result<(), AppError> {
        self.change_running(project, ChangeKind::Stop { services: Vec::new(), timeout: None }, news)
    }

    /// Kills everything that runs (the second Ctrl-C).
    ///
    /// # Errors
    /// Whatever fails.
    pub fn kill_project(&self, project: &str, news: News<'_>) -> Result<(), AppError> {
        let kind = ChangeKind::Kill { services: Vec::new(), signal: "SIGKILL".to_owned() };
        self.change_running(project, kind, news)
    }

    /// A change that does nothing where nothing runs.
    fn change_running(&self, project: &str, kind: ChangeKind, news: News<'_>) -> Result<(), AppError> {
        let runs = self.session(project).connect()?.is_some()
            || self.observe(project, &[])?.containers.iter().any(|one| matches!(one.phase, Phase::Running { .. }));
        if runs { self.change(project, kind, news) } else { Ok(()) }
    }

    pub(super) fn change(&self, project: &str, kind: ChangeKind, news: News<'_>) -> Result<(), AppError> {
        self.make(project, Change { requested_at: now(), kind }, None, news)
    }

    /// Has a change made, by this supervisor or its successor.
    pub(super) fn make(
        &self,
        project: &str,
        change: Change,
        wait: Option<Wait>,
        news: News<'_>,
    ) -> Result<(), AppError> {
        if self.dry_run {
            return self.rehearse(project, &change, news);
        }
        let request = Request::Change { change: Box::new(change), wait };
        self.session(project).request(&request, |reply, _| match reply {
            Reply::Done => Some(Ok(())),
            Reply::Failed { failures } => Some(Err(AppError::Failed(failures))),
            other => {
                news(other);
                None
            }
        })?
    }

    /// Tells what a change would do, in the words of one that does it.
    fn rehearse(&self, project: &str, change: &Change, news: News<'_>) -> Result<(), AppError> {
        let observed = self.observe(project, &change.kind.images())?;
        let plan = plan::plan(change, &observed)?;
        plan.warnings.into_iter().for_each(|warning| news(Reply::Warning(warning)));
        let mut tell = |id: &str, status: &str| {
            let id = format!("DRY-RUN MODE -  {id}");
            news(Reply::Progress { id, status: status.to_owned(), text: String::new() });
        };
        for name in plan.unchanged {
            tell(&format!("Container {name}"), "Running");
        }
        for (id, begins, done) in plan.steps.iter().map(|step| step.op.words()) {
            tell(&id, begins);
            tell(&id, done);
        }
        Ok(())
    }

    /// What of the project exists, by the state on disk.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn observe(&self, project: &str, images: &[String]) -> Result<Observed, AppError> {
        let dir = self.roots.project(project);
        let reading = || format!("read the state of project `{project}`");
        let records = dir.load().map_err(AppError::io(reading()))?;
        let record = dir.record().map_err(AppError::io(reading()))?;
        let boot_id = crate::base::boot::boot_id().map_err(AppError::io(reading()))?;
        let alive = |run: &RunState| run.boot_id == boot_id && start_time(run.pid) == Some(run.start_time);
        let mut found = BTreeMap::new();
        if !images.is_empty() {
            let store = crate::image::Store::open(&self.roots.data)?;
            found.extend(
                images.iter().filter_map(|name| Some((name.clone(), store.resolve(name).ok()?.id.to_string()))),
            );
        }
        let volumes = Volumes::open(&self.roots.data).ok();
        let exists = |name: &str| volumes.as_ref().is_some_and(|volumes| volumes.get(name).is_ok());
        Ok(Observed {
            containers: records.iter().map(|record| record.observe(alive)).collect(),
            networks: record.networks,
            volumes: record.volumes.into_iter().filter(|(_, spec)| exists(&spec.name)).collect(),
            images: found,
        })
    }

    /// Whether anything of the project exists.
    fn exists(&self, project: &str) -> Result<bool, AppError> {
        Ok(self.roots.project(project).data().exists() || self.session(project).connect()?.is_some())
    }
}

fn has(observed: &Observed, service: &str) -> bool {
    observed.containers.iter().any(|container| container.service.name == service)
}

fn scale(project: &mut ProjectSpec, wanted: &[(String, u32)]) -> Result<(), AppError> {
    for (service, count) in wanted {
        let Some(found) = project.services.get_mut(service) else {
            return Err(AppError::NoService { service: service.clone() });
        };
        found.scale = *count;
    }
    Ok(())
}
