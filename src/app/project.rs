//! Which project a verb is about.

use crate::app::{App, AppError};
use crate::base::diagnostic::Diagnostic;
use crate::compose;
use crate::model::Project;
use crate::plan::{self, WantedImage};
use crate::spec::ProjectSpec;

/// A loaded project as the host is to have it.
#[derive(Debug)]
pub struct Decided {
    pub spec: ProjectSpec,
    pub images: Vec<WantedImage>,
    pub warnings: Vec<Diagnostic>,
}

/// A loaded project, and what should be said about it.
#[derive(Debug)]
pub struct Loaded {
    pub project: Project,
    pub warnings: Vec<Diagnostic>,
}

impl App {
    /// Loads the project with everything that `services` need.
    ///
    /// # Errors
    /// [`AppError::Input`].
    pub fn load(&self, services: &[String]) -> Result<Loaded, AppError> {
        let mut options = self.load.clone();
        options.services = services.to_vec();
        let loaded = compose::load(&options, &self.environment);
        match loaded.project {
            Some(project) => Ok(Loaded { project, warnings: loaded.diagnostics }),
            None => Err(AppError::Input(loaded.diagnostics)),
        }
    }

    /// Loads the project as the host is to have it.
    ///
    /// # Errors
    /// [`AppError::Input`], also for what is not supported yet.
    pub fn load_spec(&self, services: &[String]) -> Result<Decided, AppError> {
        lower(self.load(services)?)
    }

    /// The project's name, and its file's content. With `-p` and without `-f` a project is what exists of it, whatever file the
    /// current folder has; by `COMPOSE_PROJECT_NAME` it is where there is no file that can be loaded.
    ///
    /// # Errors
    /// [`AppError::Input`].
    pub fn locate(&self) -> Result<(String, Option<Project>), AppError> {
        let by_name = |name: &str| match compose::is_project_name(name) {
            true => Ok((name.to_owned(), None)),
            false => Err(AppError::Usage(format!(
                "invalid project name `{name}`: it must consist only of lower-case letters, digits, hyphens and \
                 underscores, and start with a letter or digit"
            ))),
        };
        if let (Some(name), true) = (&self.load.project_name, self.load.files.is_empty()) {
            return by_name(name);
        }
        match (self.load(&[]), self.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty())) {
            (Ok(Loaded { project, .. }), _) => Ok((project.name.clone(), Some(project))),
            (Err(AppError::Input(_)), Some(name)) => by_name(name),
            (Err(error), _) => Err(error),
        }
    }

    /// [`App::locate`], and a check that the project has the services.
    ///
    /// # Errors
    /// As there, and [`AppError::NoService`].
    pub fn locate_with(&self, services: &[String]) -> Result<String, AppError> {
        let (name, project) = self.locate()?;
        known(project.as_ref(), services)?;
        Ok(name)
    }
}

/// The project as the host is to have it.
pub(super) fn lower(Loaded { project, mut warnings }: Loaded) -> Result<Decided, AppError> {
    match plan::lower(&project) {
        Ok(spec) => Ok(Decided { spec, images: plan::images(&project), warnings }),
        Err(problems) => {
            warnings.extend(problems);
            Err(AppError::Input(warnings))
        }
    }
}

/// Refuses services that the project does not have; without a file any may exist.
pub(super) fn known(project: Option<&Project>, services: &[String]) -> Result<(), AppError> {
    let Some(project) = project else { return Ok(()) };
    let unknown = services
        .iter()
        .find(|service| !project.services.contains_key(*service) && !project.disabled_services.contains_key(*service));
    match unknown {
        Some(service) => Err(AppError::NoService { service: service.clone() }),
        None => Ok(()),
    }
}
