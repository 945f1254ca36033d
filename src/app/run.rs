//! One-off containers.

use std::collections::BTreeMap;

use crate::app::change::News;
use crate::app::options::RunOptions;
use crate::app::project::Decided;
use crate::app::pull::{Images, chosen};
use crate::app::session::Session;
use crate::app::{App, AppError, now};
use crate::base::diagnostic::Diagnostic;
use crate::compose::{self, LoadOptions, VolumeSource};
use crate::control::{Connection, Reply, Request};
use crate::plan::{Change, ChangeKind, WantedImage};
use crate::spec::ContainerState;
use crate::spec::ProjectSpec;
use crate::spec::RestartPolicy;
use crate::spec::container::NetworkMode;
use crate::spec::logging::Keep;

/// A `run`, ready to be made.
#[derive(Clone, Debug)]
pub struct OneOff {
    pub project: ProjectSpec,
    pub service: String,
    /// The container's name.
    pub name: String,
    /// Nanoseconds since the epoch.
    requested_at: i64,
    no_deps: bool,
    pub images: Images,
    pub quiet_pull: bool,
    pub warnings: Vec<Diagnostic>,
}

impl App {
    /// Loads the project and makes the service what the options say.
    ///
    /// # Errors
    /// Wrong files, no such service, options that are not supported yet.
    pub fn prepare_run(&self, options: &RunOptions) -> Result<OneOff, AppError> {
        let Decided { spec: mut project, images, warnings } = self.load_run(options)?;
        let images = chosen(images, options.pull);
        self.find_external(&project)?;
        let environment = self.run_environment(options)?;
        let Some(service) = project.services.get_mut(&options.service) else {
            return Err(AppError::NoService { service: options.service.clone() });
        };
        service.restart = RestartPolicy::No;
        service.scale = 1;
        // Otherwise the one who waits for its end removes it.
        service.auto_remove = options.remove && options.detach;
        service.container_name.clone_from(&options.name);
        let container = &mut service.container;
        container.tty = options.terminal;
        container.stdin_open = options.stdin;
        if !options.detach {
            // Whoever stays with it gets all of it through the files, however slowly he takes it.
            container.logging.keep = Some(Keep { size: 0, files: 1 });
            container.logging.hidden = false;
        }
        if !options.service_ports && options.publish.is_empty() {
            container.ports.clear();
        }
        if let (false, NetworkMode::Networks(attachments)) = (options.use_aliases, &mut container.network) {
            attachments.iter_mut().for_each(|attachment| attachment.aliases.clear());
        }
        if let Some(entrypoint) = &options.entrypoint {
            let words = compose::split_command(entrypoint);
            let words = words.ok_or_else(|| AppError::Usage(format!("`{entrypoint}` has a quote without an end")))?;
            container.entrypoint = Some(words);
            container.command = Some(Vec::new());
        }
        if !options.command.is_empty() {
            container.command = Some(options.command.clone());
        }
        container.environment.extend(environment);
        container.user = options.user.clone().or(container.user.take());
        container.working_dir = options.working_dir.clone().or(container.working_dir.take());
        container.cap_add.extend(options.cap_add.iter().cloned());
        container.cap_drop.extend(options.cap_drop.iter().cloned());
        let slug = slug()?;
        container.labels.insert("com.docker.compose.oneoff".to_owned(), "True".to_owned());
        container.labels.insert("com.docker.compose.slug".to_owned(), slug.clone());
        for label in &options.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            container.labels.insert(key.to_owned(), value.to_owned());
        }
        let name = match &options.name {
            Some(name) => name.clone(),
            None => {
                let (between, short) = (project.separator, slug.get(..12).unwrap_or(&slug));
                format!("{}{between}{}{between}run{between}{short}", project.name, options.service)
            }
        };
        Ok(OneOff {
            project,
            service: options.service.clone(),
            name,
            requested_at: now(),
            no_deps: options.no_deps,
            images,
            quiet_pull: options.quiet_pull,
            warnings,
        })
    }

    /// Keeps the project's supervisor from ending, although nothing may run, for as long as the connection lives: there is
    /// something left to do after the container has ended.
    ///
    /// # Errors
    /// When the supervisor cannot be reached or started.
    pub fn stay(&self, one: &OneOff) -> Result<Connection, AppError> {
        stay(&self.session(&one.project.name))
    }

    /// The same until this process ends, with the connection that [`stay`](Self::stay) made. Where keeper and supervisor were both
    /// killed, they are started again: who else would tell us of the container's end?
    ///
    /// # Errors
    /// No thread.
    pub fn stay_on(&self, one: &OneOff, mut connection: Connection) -> Result<(), AppError> {
        let session = self.session(&one.project.name);
        let renew = move || {
            loop {
                // What happens to containers is told to others.
                while let Ok(Some(_)) = connection.receive::<Reply>() {}
                match stay(&session) {
                    Ok(next) => connection = next,
                    Err(_) => return,
                }
            }
        };
        let staying = std::thread::Builder::new().name("stay".to_owned()).spawn(renew);
        staying.map(drop).map_err(AppError::io("stay with the container"))
    }

    /// Starts the container, after what it depends on.
    ///
    /// # Errors
    /// Whatever fails.
    pub fn run(&self, one: &OneOff, news: News<'_>) -> Result<(), AppError> {
        let own = |image: &&WantedImage| !one.no_deps || image.service == one.service;
        let images: Vec<_> = one.images.iter().filter(own).cloned().collect();
        self.provide(&images, one.quiet_pull, news)?;
        let kind = ChangeKind::Run {
            project: one.project.clone(),
            service: one.service.clone(),
            name: one.name.clone(),
            no_deps: one.no_deps,
        };
        self.make(&one.project.name, Change { requested_at: one.requested_at, kind }, None, news)
    }

    /// The container's id.
    ///
    /// # Errors
    /// When the state cannot be read, or it is gone.
    pub fn id_of(&self, one: &OneOff) -> Result<String, AppError> {
        let found = self.observe(&one.project.name, &[])?.containers.into_iter().find(|found| found.name == one.name);
        found
            .map(|found| found.id.to_string())
            .ok_or_else(|| AppError::Usage(format!("container `{}` is gone", one.name)))
    }

    /// Removes the container, with its anonymous volumes; not one that had the name before.
    ///
    /// # Errors
    /// Whatever fails.
    pub fn discard(&self, one: &OneOff, news: News<'_>) -> Result<(), AppError> {
        let mine = |found: &ContainerState| found.name == one.name && found.created_at >= one.requested_at;
        if !self.observe(&one.project.name, &[])?.containers.iter().any(mine) {
            return Ok(());
        }
        self.change(&one.project.name, ChangeKind::Discard { container: one.name.clone() }, news)
    }

    /// Loads the project with what `--volume` and `--publish` add to the service.
    fn load_run(&self, options: &RunOptions) -> Result<Decided, AppError> {
        let services = std::slice::from_ref(&options.service);
        if options.volumes.is_empty() && options.publish.is_empty() {
            return self.load_spec(services);
        }
        let whole = Self { load: LoadOptions { all_resources: true, ..self.load.clone() }, ..self.clone() };
        let declared = whole.load(services)?.project.volumes;
        let mut added = BTreeMap::new();
        let mut mounts = Vec::new();
        for spec in &options.volumes {
            let source =
                compose::volume_source(spec).map_err(|wrong| AppError::Usage(format!("`--volume`: {wrong}")))?;
            mounts.push(match source {
                VolumeSource::Path(path) if path.starts_with('.') => {
                    let rest = spec.get(path.len()..).unwrap_or_default();
                    format!("{}{rest}", self.load.working_dir.join(&path).display())
                }
                VolumeSource::Named(name) if !declared.contains_key(&name) => {
                    // Not one of the project's: a volume of that very name.
                    added.insert(name.clone(), serde_json::json!({ "name": name }));
                    spec.clone()
                }
                _ => spec.clone(),
            });
        }
        let overlay = overlay(&options.service, &mounts, &options.publish, &added);
        let load = LoadOptions { overlay: Some(overlay), ..self.load.clone() };
        Self { load, ..self.clone() }.load_spec(services)
    }

    /// Variables from files, then those given one by one.
    fn run_environment(&self, options: &RunOptions) -> Result<Vec<(String, Option<String>)>, AppError> {
        let mut variables = Vec::new();
        for file in &options.env_files {
            let lookup = |name: &str| self.environment.get(name).cloned();
            let read = compose::env_file(&self.load.working_dir.join(file), &lookup);
            let read = read.map_err(|wrong| AppError::Input(vec![wrong]))?;
            variables.extend(read.into_iter().map(|(name, value)| (name, Some(value))));
        }
        let pairs = self.with_values(&options.environment).into_iter();
        variables
            .extend(pairs.filter_map(|pair| {
                pair.split_once('=').map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
            }));
        Ok(variables)
    }
}

/// A request that is answered until the client hangs up: who asks for nothing is not waited for.
fn stay(session: &Session) -> Result<Connection, AppError> {
    let mut connection = session.connect_or_start()?;
    connection.send(&Request::Events).map_err(AppError::io("stay with the containers"))?;
    Ok(connection)
}

/// The Compose file that the flags of `run` amount to. JSON is YAML; a `$` is no variable here.
fn overlay(
    service: &str,
    mounts: &[String],
    ports: &[String],
    volumes: &BTreeMap<String, serde_json::Value>,
) -> String {
    let text = |value: serde_json::Value| value.to_string().replace('$', "$$");
    let ports = match ports {
        [] => String::new(),
        ports => format!(", ports: !override {}", text(serde_json::json!(ports))),
    };
    let (service, mounts, volumes) =
        (text(serde_json::json!(service)), text(serde_json::json!(mounts)), text(serde_json::json!(volumes)));
    format!("services: {{{service}: {{volumes: {mounts}{ports}}}}}\nvolumes: {volumes}\n")
}

/// Random hexadecimal digits.
fn slug() -> Result<String, AppError> {
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| AppError::io("make a name")(error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
