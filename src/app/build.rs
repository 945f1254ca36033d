//! Building the images of services.

mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::app::{App, AppError};
use crate::build::{BuildError, Cache, Event, Launchers, Outside, Shell, Site};
use crate::image::{Digest, Image, Platform, Reference, Store, Workshop};
use crate::model::Project;

use request::Planned;

/// What layers that only the build cache has may take, in bytes.
const CACHE_BUDGET: u64 = 10 << 30;

/// `build`, and what `up --build` builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// All that can be built when empty.
    pub services: Vec<String>,
    /// Also what these depend on.
    pub with_dependencies: bool,
    /// `NAME=VALUE`, or `NAME` for the value of ours.
    pub args: Vec<String>,
    pub no_cache: bool,
    /// `default`, or `ID=PATH`.
    pub ssh: Vec<String>,
}

/// Images to build, and the process that runs their steps. To be made before any thread is.
#[derive(Debug)]
pub struct Builds {
    launchers: Launchers,
    planned: Vec<Planned>,
    /// What should be said about it.
    pub warnings: Vec<String>,
}

/// What there is to do about images before something is started.
#[derive(Debug)]
pub struct Missing {
    pub builds: Option<Builds>,
    /// Images that are there and may be old.
    pub hints: Vec<String>,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub service: String,
    /// Its first name, short.
    pub name: String,
    pub id: Digest,
}

impl Builds {
    /// Names of the services whose images are built.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.planned.iter().map(|one| one.service.as_str())
    }
}

impl App {
    /// What `build` has to build.
    ///
    /// # Errors
    /// [`AppError::Input`], an unknown service, or what a service asks for and cannot have.
    pub fn prepare_build(&self, options: &BuildOptions) -> Result<Builds, AppError> {
        let loaded = self.load(&options.services)?;
        let project = loaded.project;
        let wanted =
            |name: &String| options.services.is_empty() || options.with_dependencies || options.services.contains(name);
        let services = project.services.iter().filter(|(name, service)| service.build.is_some() && wanted(name));
        let names: BTreeSet<String> = services.map(|(name, _)| name.clone()).collect();
        self.builds(&project, &names, options)
    }

    /// What of a project's images `up` has to build: all with `all` or when the policy says so, otherwise those that are
    /// missing.
    ///
    /// # Errors
    /// As [`App::prepare_build`].
    pub fn prepare_missing(&self, services: &[String], all: bool) -> Result<Missing, AppError> {
        let project = self.load(services)?.project;
        let store = Store::open(&self.roots.data)?;
        let mut names = BTreeSet::new();
        let mut hints = Vec::new();
        for (name, service) in &project.services {
            let Some(build) = &service.build else { continue };
            let asked = all || service.pull_policy.as_deref() == Some("build");
            match store.resolve(&request::image_name(&project, name)) {
                Ok(image) if !asked => {
                    let context = project.working_dir.join(&build.context);
                    let changed = crate::build::changed_files(&self.roots.data, &image.id, &context).unwrap_or(0);
                    if changed > 0 {
                        let files = if changed == 1 { "1 file".to_owned() } else { format!("{changed} files") };
                        hints.push(format!("{name}: context changed since the image was built ({files}); use --build"));
                    }
                }
                _ => drop(names.insert(name.clone())),
            }
        }
        let builds = match names.is_empty() {
            true => None,
            false => Some(self.builds(&project, &names, &BuildOptions::default())?),
        };
        Ok(Missing { builds, hints })
    }

    fn builds(&self, project: &Project, names: &BTreeSet<String>, options: &BuildOptions) -> Result<Builds, AppError> {
        let launchers = Launchers::fork(&self.roots.data).map_err(AppError::io("start the process for build steps"))?;
        let mut warnings = Vec::new();
        let mut planned: Vec<Planned> = Vec::new();
        let mut open: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = open.pop() {
            if planned.iter().any(|one| one.service == name) {
                continue;
            }
            // What is only built from is not among the services that were asked for.
            let others = if project.services.contains_key(&name) { None } else { Some(self.load(&[])?.project) };
            let project = others.as_ref().unwrap_or(project);
            let one = request::plan(project, &name, options, &self.environment, &mut warnings)?;
            // What others are built from must be built, too.
            open.extend(one.needs.iter().cloned());
            planned.push(one);
        }
        planned.sort_by(|a, b| a.service.cmp(&b.service));
        Ok(Builds { launchers, planned, warnings })
    }

    /// An image that a build begins with: of the store, or from its registry.
    fn base_image(&self, store: &Store, name: &str) -> Result<Image, BuildError> {
        let missing = match store.resolve(name) {
            Err(error @ crate::image::Error::NotFound { .. }) => error,
            found => return found.map_err(|error| BuildError::because(format!("cannot use `{name}`"), &error)),
        };
        let reference = Reference::parse(name).ok_or_else(|| BuildError::new(missing.to_string()))?;
        let pulling = |error: &dyn std::error::Error| BuildError::because(format!("cannot pull `{name}`"), error);
        let registries = self.registries().map_err(|error| pulling(&error))?;
        let pulled = registries.pull(store, &reference, &Platform::host(), &|_, _| {});
        pulled.map_err(|error| match error.help() {
            Some(help) => pulling(&error).help(help),
            None => pulling(&error),
        })?;
        store.resolve(name).map_err(|error| BuildError::because(format!("cannot use `{name}`"), &error))
    }

    /// Reads the Dockerfiles, and builds nothing. Returns what should be said about them.
    ///
    /// # Errors
    /// [`AppError::Build`]: the first that is wrong.
    pub fn check_builds(&self, builds: &Builds) -> Result<Vec<String>, AppError> {
        let mut warnings = Vec::new();
        for one in &builds.planned {
            let checked = crate::build::check(&one.request);
            let failed = |error| AppError::Build { service: one.service.clone(), error: Box::new(error) };
            warnings.extend(checked.map_err(failed)?);
        }
        Ok(warnings)
    }

    /// Builds the images, those that do not need each other at once. `shell` connects a person to a shell in what a failed
    /// step has left.
    ///
    /// # Errors
    /// [`AppError::Build`]: the first that failed. The others are built all the same.
    pub fn build(
        &self,
        builds: &Builds,
        tell: &(dyn Fn(Event) + Sync),
        shell: Option<&Shell<'_>>,
    ) -> Result<Vec<Built>, AppError> {
        let store = Store::open(&self.roots.data)?;
        let workshop = Workshop::new(&store)?;
        let cache = Cache::new(&workshop);
        let site = Site::new(&workshop, &cache, &builds.launchers, &self.roots.data);
        let image = |name: &str| self.base_image(&store, name);
        let outside = Outside { shell, image: &image, tell };
        let mut waiting: Vec<&Planned> = builds.planned.iter().collect();
        let mut done: BTreeMap<String, Result<Digest, BuildError>> = BTreeMap::new();
        while !waiting.is_empty() {
            let (ready, rest): (Vec<_>, Vec<_>) =
                waiting.into_iter().partition(|one| one.needs.iter().all(|need| done.contains_key(need)));
            if ready.is_empty() {
                let names: Vec<_> = rest.iter().map(|one| format!("`{}`", one.service)).collect();
                return Err(AppError::Usage(format!("the builds of {} need each other", names.join(" and "))));
            }
            let outcomes = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for one in &ready {
                    let (site, outside, outcomes, done) = (&site, &outside, &outcomes, &done);
                    scope.spawn(move || {
                        let broken = one.needs.iter().any(|need| matches!(done.get(need), Some(Err(_))));
                        let built = if broken {
                            Err(BuildError::cancelled())
                        } else {
                            crate::build::build(site, outside, &one.request)
                        };
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((one.service.clone(), built));
                    });
                }
            });
            done.extend(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner));
            waiting = rest;
        }
        store.prune_steps(CACHE_BUDGET)?;
        let failure = |cancelled: bool| {
            let failed = done.iter().filter_map(|(service, built)| Some((service, built.as_ref().err()?)));
            failed.into_iter().find(|(_, error)| error.cancelled == cancelled)
        };
        if let Some((service, error)) = failure(false).or_else(|| failure(true)) {
            return Err(AppError::Build { service: service.clone(), error: Box::new(error.clone()) });
        }
        let name = |service: &str| {
            let planned = builds.planned.iter().find(|one| one.service == service);
            planned.and_then(|one| one.request.names.first()).map(|name| name.familiar()).unwrap_or_default()
        };
        let built = done.into_iter().filter_map(|(service, id)| {
            Some(Built { name: name(&service).trim_end_matches(":latest").to_owned(), id: id.ok()?, service })
        });
        Ok(built.collect())
    }
}
