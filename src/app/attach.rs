//! The streams and signals of containers that run, and waiting for their ends.

use std::collections::BTreeSet;

use crate::app::exec::Running;
use crate::app::options::AttachOptions;
use crate::app::{App, AppError};
use crate::control::{Event, Reply, Request};
use crate::spec::{ContainerState, Phase};
use crate::sys::process::start_time;

/// A container to attach to.
#[derive(Clone, Debug)]
pub struct Target {
    pub project: String,
    pub container: String,
    pub terminal: bool,
    pub stdin: bool,
}

/// A container that `wait` has seen the end of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    pub id: String,
    pub code: i32,
}

impl App {
    /// The running container that `attach` is about.
    ///
    /// # Errors
    /// No such service, or it does not run.
    pub fn attachable(&self, options: &AttachOptions) -> Result<Target, AppError> {
        let (project, found) = self.running(&options.service, options.index)?;
        let container = &found.service.container;
        Ok(Target { project, terminal: container.tty, stdin: container.stdin_open, container: found.name })
    }

    /// A running replica of a service, the first one or that of a number.
    pub(super) fn running(&self, service: &str, index: Option<u32>) -> Result<(String, ContainerState), AppError> {
        let project = self.locate_with(std::slice::from_ref(&service.to_owned()))?;
        let observed = self.observe(&project, &[])?;
        let mut running: Vec<_> = observed
            .containers
            .into_iter()
            .filter(|one| one.service.name == service && one.number > 0)
            .filter(|one| index.is_none_or(|index| index == one.number) && is_running(one))
            .collect();
        running.sort_by_key(|container| std::cmp::Reverse(container.number));
        match running.pop() {
            Some(container) => Ok((project, container)),
            None => Err(AppError::NotRunning { service: service.to_owned(), index }),
        }
    }

    /// Connects to a container's terminal or input; `None` when it has ended already.
    ///
    /// # Errors
    /// When the supervisor cannot be reached.
    pub fn attach_to(&self, project: &str, container: &str) -> Result<Option<Running>, AppError> {
        let mut connection = self.session(project).connect_or_start()?;
        let talking = || "attach to the container".to_owned();
        connection.send(&Request::Attach { container: container.to_owned() }).map_err(AppError::io(talking()))?;
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
    pub fn status_of(&self, project: &str, container: &str) -> Result<i32, AppError> {
        let observed = self.observe(project, &[])?;
        match observed.containers.into_iter().find(|found| found.name == container).map(|found| found.phase) {
            Some(Phase::Exited(exit)) => Ok(exit.code),
            _ => Err(AppError::Usage(format!("container `{container}` has not ended"))),
        }
    }

    /// Sends a signal to the first process of a container, if it runs.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn forward(&self, project: &str, container: &str, signal: nix::sys::signal::Signal) -> Result<(), AppError> {
        let records = self.roots.project(project).load().map_err(AppError::io("read the containers"))?;
        let run =
            records.into_iter().find(|record| record.config.name == container).and_then(|record| record.state.run);
        if let Some(run) = run.filter(|run| start_time(run.pid) == Some(run.start_time)) {
            // It may end just now.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.pid), signal);
        }
        Ok(())
    }

    /// Waits for the ends of the services' running containers. `ended` returns whether to go on.
    ///
    /// # Errors
    /// No such service, nothing that runs, no supervisor.
    pub fn wait(&self, services: &[String], ended: &mut dyn FnMut(Waited) -> bool) -> Result<(), AppError> {
        let project = self.locate_with(services)?;
        let mine = |one: &ContainerState| services.contains(&one.service.name);
        let mut open: BTreeSet<String> = {
            let running = self.observe(&project, &[])?.containers.into_iter();
            running.filter(|one| mine(one) && is_running(one)).map(|one| one.id.to_string()).collect()
        };
        if open.is_empty() {
            return Err(AppError::Usage(format!("no containers for project \"{project}\"")));
        }
        while !open.is_empty() {
            let mut connection = self.session(&project).connect_or_start()?;
            let talking = || "follow the containers".to_owned();
            connection.send(&Request::Events).map_err(AppError::io(talking()))?;
            // What ended before we were listening is looked for, once we are.
            let mut listening = true;
            while listening && !open.is_empty() {
                let found = self.observe(&project, &[])?.containers;
                for id in std::mem::take(&mut open) {
                    match found.iter().find(|one| one.id.as_str() == id).map(|one| &one.phase) {
                        Some(Phase::Running { .. }) => drop(open.insert(id)),
                        phase => {
                            let code = if let Some(Phase::Exited(exit)) = phase { exit.code } else { 0 };
                            if !ended(Waited { id, code }) {
                                return Ok(());
                            }
                        }
                    }
                }
                while listening && !open.is_empty() {
                    match connection.receive().map_err(AppError::io(talking()))? {
                        Some(Reply::Event(Event::Exited { .. } | Event::Removed { .. })) => break,
                        Some(_) => {}
                        // The supervisor is replaced.
                        None => listening = false,
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_running(container: &ContainerState) -> bool {
    matches!(container.phase, Phase::Running { .. })
}
