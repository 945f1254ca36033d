//! One-off containers.

use crate::app::change::News;
use crate::app::exec::Running;
use crate::app::options::RunOptions;
use crate::app::{App, AppError, now};
use crate::base::diagnostic::Diagnostic;
use crate::control::{Reply, Request};
use crate::plan::{Change, ChangeKind};
use crate::spec::Phase;
use crate::spec::ProjectSpec;
use crate::spec::RestartPolicy;
use crate::spec::container::NetworkMode;

/// A `run`, ready to be made.
#[derive(Clone, Debug)]
pub struct OneOff {
    pub project: ProjectSpec,
    pub service: String,
    /// The container's name.
    pub name: String,
    no_deps: bool,
    pub warnings: Vec<Diagnostic>,
}

impl App {
    /// Loads the project and makes the service what the options say.
    ///
    /// # Errors
    /// Wrong files, no such service, options that are not supported yet.
    pub fn prepare_run(&self, options: &RunOptions) -> Result<OneOff, AppError> {
        for (what, given) in [("`run --volume`", &options.volumes), ("`run --publish`", &options.publish)] {
            if !given.is_empty() {
                return Err(AppError::NotYet { what: what.to_owned() });
            }
        }
        let (mut project, warnings) = self.load_spec(std::slice::from_ref(&options.service))?;
        self.find_external(&project)?;
        let environment = self.run_environment(options)?;
        let Some(service) = project.services.get_mut(&options.service) else {
            return Err(AppError::NoService { service: options.service.clone() });
        };
        service.restart = RestartPolicy::No;
        service.scale = 1;
        service.container_name = None;
        let container = &mut service.container;
        container.tty = options.terminal;
        container.stdin_open = options.stdin;
        if !options.service_ports {
            container.ports.clear();
        }
        if let (false, NetworkMode::Networks(attachments)) = (options.use_aliases, &mut container.network) {
            attachments.iter_mut().for_each(|attachment| attachment.aliases.clear());
        }
        if let Some(entrypoint) = &options.entrypoint {
            let words = entrypoint.split_whitespace().map(str::to_owned).collect();
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
        container.labels.insert("com.docker.compose.oneoff".to_owned(), "True".to_owned());
        for label in &options.labels {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            container.labels.insert(key.to_owned(), value.to_owned());
        }
        let name = match &options.name {
            Some(name) => name.clone(),
            None => format!("{}-{}-run-{}", project.name, options.service, slug()?),
        };
        Ok(OneOff { project, service: options.service.clone(), name, no_deps: options.no_deps, warnings })
    }

    /// Starts the container, after what it depends on.
    ///
    /// # Errors
    /// Whatever fails.
    pub fn run(&self, one: &OneOff, news: News<'_>) -> Result<(), AppError> {
        let kind = ChangeKind::Run {
            project: one.project.clone(),
            service: one.service.clone(),
            name: one.name.clone(),
            no_deps: one.no_deps,
        };
        self.make(&one.project.name, Change { requested_at: now(), kind }, None, news)
    }

    /// Connects to the container's terminal or input; `None` when it has ended already.
    ///
    /// # Errors
    /// When the supervisor cannot be reached.
    pub fn attach_to(&self, one: &OneOff) -> Result<Option<Running>, AppError> {
        let mut connection = self.session(&one.project.name).connect_or_start()?;
        let talking = || "attach to the container".to_owned();
        connection.send(&Request::Attach { container: one.name.clone() }).map_err(AppError::io(talking()))?;
        match connection.receive().map_err(AppError::io(talking()))? {
            Some(Reply::Started { descriptors }) => {
                let descriptors = connection.receive_descriptors(descriptors).map_err(AppError::io(talking()))?;
                Ok(Some(Running::new(connection, descriptors)))
            }
            _ => Ok(None),
        }
    }

    /// The exit status of a container that has ended.
    ///
    /// # Errors
    /// When the state cannot be read, or it has not ended.
    pub fn status_of(&self, one: &OneOff) -> Result<i32, AppError> {
        let observed = self.observe(&one.project.name, &[])?;
        match observed.containers.into_iter().find(|container| container.name == one.name).map(|found| found.phase) {
            Some(Phase::Exited(exit)) => Ok(exit.code),
            _ => Err(AppError::Usage(format!("container `{}` has not ended", one.name))),
        }
    }

    /// Removes the container, with its anonymous volumes.
    ///
    /// # Errors
    /// Whatever fails.
    pub fn discard(&self, one: &OneOff, news: News<'_>) -> Result<(), AppError> {
        self.change(&one.project.name, ChangeKind::Discard { container: one.name.clone() }, news)
    }

    /// Variables from files, then those given one by one.
    fn run_environment(&self, options: &RunOptions) -> Result<Vec<(String, Option<String>)>, AppError> {
        if !options.env_files.is_empty() {
            return Err(AppError::NotYet { what: "`run --env-from-file`".to_owned() });
        }
        let pairs = self.with_values(&options.environment).into_iter();
        Ok(pairs
            .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), Some(value.to_owned()))))
            .collect())
    }
}

/// Twelve random hexadecimal digits.
fn slug() -> Result<String, AppError> {
    let mut bytes = [0_u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| AppError::io("make a name")(error.into()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
