//! A program inside a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::app::options::ExecOptions;
use crate::app::{App, AppError};
use crate::control::{Connection, Exec, Reply, Request};

/// A process that the supervisor has started for us.
#[derive(Debug)]
pub struct Running {
    connection: Connection,
    /// Our ends: the terminal's master, or (stdin,) stdout and stderr.
    pub descriptors: Vec<OwnedFd>,
}

impl Running {
    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn wait(&mut self) -> Result<i32, AppError> {
        loop {
            match self.connection.receive().map_err(AppError::io("learn how the program ended"))? {
                Some(Reply::Exited { code }) => return Ok(code),
                Some(_) => {}
                None => return Err(AppError::Usage("the supervisor ended before the program did".to_owned())),
            }
        }
    }

    /// Readable once the process has ended.
    pub fn connection(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    pub(super) fn new(connection: Connection, descriptors: Vec<OwnedFd>) -> Self {
        Self { connection, descriptors }
    }
}

impl App {
    /// Starts a program inside a service's container. `terminal`: its rows and columns.
    ///
    /// # Errors
    /// No such container; a program that cannot be run ([`AppError::Program`]).
    pub fn exec(&self, options: &ExecOptions, terminal: Option<(u16, u16)>) -> Result<Running, AppError> {
        let (project, container) = self.running(&options.service, options.index)?;
        let request = Request::Exec(Box::new(Exec {
            container: container.name,
            command: options.command.clone(),
            env: self.with_values(&options.environment),
            user: options.user.clone(),
            working_dir: options.working_dir.clone(),
            privileged: options.privileged,
            terminal,
            stdin: options.stdin,
            detach: options.detach,
        }));
        let mut connection = self.session(&project).connect_or_start()?;
        let talking = || "start the program".to_owned();
        connection.send(&request).map_err(AppError::io(talking()))?;
        match connection.receive().map_err(AppError::io(talking()))? {
            Some(Reply::Started { descriptors }) => {
                let descriptors = connection.receive_descriptors(descriptors).map_err(AppError::io(talking()))?;
                Ok(Running::new(connection, descriptors))
            }
            Some(Reply::Failed { failures }) => {
                let status = match connection.receive() {
                    Ok(Some(Reply::Exited { code })) => u8::try_from(code).unwrap_or(1),
                    _ => 1,
                };
                match failures.into_iter().next() {
                    Some(failed) => Err(AppError::Program { failed, status }),
                    None => Err(AppError::Failed(Vec::new())),
                }
            }
            _ => Err(AppError::Usage("the supervisor ended before the program was started".to_owned())),
        }
    }

    /// `NAME` becomes `NAME=VALUE` with our value of it, or goes when we have none.
    pub(super) fn with_values(&self, variables: &[String]) -> Vec<String> {
        let value = |variable: &String| match variable.contains('=') {
            true => Some(variable.clone()),
            false => self.environment.get(variable).map(|value| format!("{variable}={value}")),
        };
        variables.iter().filter_map(value).collect()
    }
}
