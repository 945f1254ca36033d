//! Services that a program outside provides: it is run, and says which variables their dependents get.
//!
//! The protocol is docker compose's: `PROGRAM compose --project-name=NAME up|down --OPTION=VALUE… SERVICE` prints one JSON
//! object a line, `{"type": "info" | "error" | "setenv" | "debug", "message": …}`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::app::change::News;
use crate::app::{App, AppError};
use crate::control::Reply;
use crate::model::{Project, Provider};
use crate::sys::path;

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

impl App {
    /// Runs the providers of a project, those they depend on first, and gives their dependents the variables.
    ///
    /// # Errors
    /// A program that is not there, or that fails.
    pub(super) fn ask_providers(&self, project: &mut Project, news: News<'_>) -> Result<(), AppError> {
        let mut left: Vec<(String, Provider)> =
            providers(project).map(|(name, provider)| (name.clone(), provider.clone())).collect();
        while let Some(at) =
            left.iter().position(|(name, _)| !left.iter().any(|(other, _)| depends(project, name, other)))
        {
            let (name, provider) = left.remove(at);
            let variables = self.run_provider(&project.name, &name, &provider, "up", news)?;
            let prefix = name.to_uppercase();
            let dependents = project.services.values_mut().filter(|service| service.depends_on.contains_key(&name));
            for dependent in dependents {
                let own = variables.iter().map(|(key, value)| (format!("{prefix}_{key}"), Some(value.clone())));
                dependent.environment.extend(own);
            }
        }
        Ok(())
    }

    /// Tells the providers of a project that it goes.
    ///
    /// # Errors
    /// As [`App::provide`].
    pub(super) fn unprovide(&self, project: &Project, services: &[String], news: News<'_>) -> Result<(), AppError> {
        for (name, provider) in providers(project).filter(|(name, _)| services.is_empty() || services.contains(name)) {
            self.run_provider(&project.name, name, provider, "down", news)?;
        }
        Ok(())
    }

    fn run_provider(
        &self,
        project: &str,
        service: &str,
        provider: &Provider,
        verb: &str,
        news: News<'_>,
    ) -> Result<BTreeMap<String, String>, AppError> {
        let failed = |what: String| AppError::Usage(format!("the provider of service `{service}` {what}"));
        let program = self.provider_program(&provider.kind).ok_or_else(|| {
            failed(format!("is not there: neither `docker-{0}` nor `{0}` is in the PATH", provider.kind))
        })?;
        let mut say = |status: &str| {
            news(Reply::Progress { id: format!("Service {service}"), status: status.to_owned(), text: String::new() });
        };
        let (begins, ends) = if verb == "up" { ("Creating", "Created") } else { ("Removing", "Removed") };
        say(begins);
        let options =
            provider.options.iter().flat_map(|(key, values)| values.iter().map(move |v| format!("--{key}={v}")));
        let mut command = Command::new(&program);
        command.arg("compose").arg(format!("--project-name={project}")).arg(verb).args(options).arg(service);
        command.env_clear().envs(&self.environment).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(format!("cannot be run: {error}")))?;
        let mut variables = BTreeMap::new();
        let mut problem = None;
        for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let line = line.map_err(|error| failed(format!("cannot be heard: {error}")))?;
            if line.trim().is_empty() {
                continue;
            }
            let Ok(message) = serde_json::from_str::<Message>(&line) else {
                problem.get_or_insert(format!("answers with what is no message: {line}"));
                continue;
            };
            match (message.kind.as_str(), message.message.split_once('=')) {
                ("setenv", Some((key, value))) => drop(variables.insert(key.to_owned(), value.to_owned())),
                ("setenv", None) => drop(problem.get_or_insert(format!("sets no variable with `{}`", message.message))),
                ("info", _) => say(&message.message),
                ("error", _) => problem = Some(format!("has failed: {}", message.message)),
                ("debug", _) => {}
                (other, _) => drop(problem.get_or_insert(format!("answers with the unknown type `{other}`"))),
            }
        }
        let status = child.wait().map_err(|error| failed(format!("cannot be waited for: {error}")))?;
        match problem {
            Some(problem) => Err(failed(problem)),
            None if !status.success() => Err(failed(format!("has failed ({status})"))),
            None => {
                say(ends);
                Ok(variables)
            }
        }
    }

    /// `docker-NAME` or `NAME` in the PATH.
    fn provider_program(&self, name: &str) -> Option<PathBuf> {
        let path = OsStr::new(self.environment.get("PATH")?);
        path::find(path, &format!("docker-{name}")).or_else(|| path::find(path, name))
    }
}

fn providers(project: &Project) -> impl Iterator<Item = (&String, &Provider)> {
    project.services.iter().filter_map(|(name, service)| Some((name, service.provider.as_ref()?)))
}

fn depends(project: &Project, name: &str, on: &str) -> bool {
    project.services.get(name).is_some_and(|service| service.depends_on.contains_key(on))
}
