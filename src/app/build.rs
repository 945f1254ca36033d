//! Building the images of services.

mod agent;
mod bake;
mod cache;
mod remote;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::app::{App, AppError};
use crate::build::{BuildError, Cache, CachePlace, Caches, Event, Launchers, Outside, Say, Shell, Site};
use crate::image::{Descriptor, Digest, Image, LayerStep, Platform, Reference, Store, Workshop};
use crate::model::Project;
use crate::registry::Step;
use crate::remote::Downloads;

use agent::Agent;
use request::Planned;

/// What layers that only the build cache has may take, in bytes.
const CACHE_BUDGET: u64 = 10 << 30;

/// What the caches that steps mount may take together, in bytes.
const MOUNTS_BUDGET: u64 = 10 << 30;

/// What is kept of downloaded files, in bytes.
const DOWNLOADS_BUDGET: u64 = 2 << 30;

/// An image that builds begin with, once it was found.
type Base = Arc<OnceLock<Result<Image, BuildError>>>;

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
    /// Ask registries for what the images begin with, also when it is here.
    pub pull: bool,
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

    /// Services whose images have a name of the file's own, and all their names.
    pub(super) fn to_push(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        let named = self.planned.iter().filter(|one| one.pushed);
        named.map(|one| (one.service.as_str(), one.request.names.iter().map(Reference::familiar).collect()))
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
        let launchers = Launchers::fork(&self.roots.data, &self.roots.cgroup_name())
            .map_err(AppError::io("start the process for build steps"))?;
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

    /// An image that a build begins with: of the store, or from its registry, which is asked in any case with `always`.
    fn base_image(&self, store: &Store, name: &str, always: bool, say: Say<'_>) -> Result<Image, BuildError> {
        let using = |error: &crate::image::Error| BuildError::because(format!("cannot use `{name}`"), error);
        let reference = match (store.resolve(name), Reference::parse(name)) {
            // An id is in no registry, and neither is the host's own image.
            (Ok(image), Some(_)) if !always || !image.binds.is_empty() => return Ok(image),
            (Ok(image), None) => return Ok(image),
            (Ok(_) | Err(crate::image::Error::NotFound { .. }), Some(reference)) => reference,
            (Err(error), _) => return Err(using(&error)),
        };
        let pulling = |error: &dyn std::error::Error| BuildError::because(format!("cannot pull `{name}`"), error);
        let registries = self.registries().map_err(|error| pulling(&error))?;
        say(format!("pulling {reference}"));
        let told = |layer: &Digest, step: Step| {
            let done = match step {
                Step::Layer(LayerStep::Begun) | Step::Bytes(..) => return,
                Step::Layer(LayerStep::Found) => "already exists",
                Step::Layer(LayerStep::Made) => "pull complete",
            };
            say(format!("{}: {done}", layer.short()));
        };
        let pulled = registries.pull(store, &reference, &Platform::host(), &told);
        pulled.map_err(|error| match error.help() {
            Some(help) => pulling(&error).help(help),
            None => pulling(&error),
        })?;
        store.resolve(name).map_err(|error| using(&error))
    }

    /// Reads the Dockerfiles, and builds nothing. Returns what should be said about them.
    ///
    /// # Errors
    /// [`AppError::Build`]: the first that is wrong.
    pub fn check_builds(&self, builds: &Builds) -> Result<Vec<String>, AppError> {
        let mut warnings = Vec::new();
        let store = Store::open(&self.roots.data)?;
        let workshop = Workshop::new(&store)?;
        for one in &builds.planned {
            let request = self.with_remotes(one, &workshop, &|_| {});
            let checked = request.and_then(|request| crate::build::check(&request, &store));
            warnings.extend(checked.map_err(|error| one.failure(error))?);
        }
        Ok(warnings)
    }

    fn build_one(&self, one: &Planned, site: &Site<'_>, outside: &Outside<'_>) -> Result<Digest, BuildError> {
        let mut request = self.with_remotes(one, site.workshop, outside.tell)?;
        let mut agents = Vec::new();
        for (id, keys) in &one.keys {
            let socket = site.workshop.folder()?.join("agent");
            agents.push(Agent::start(&socket, keys)?);
            request.to_mut().ssh.insert(id.clone(), socket);
        }
        crate::build::build(site, outside, &request)
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
        // Each is asked for once: all stages begin with the same image, also when a tag moves meanwhile.
        let bases: Mutex<BTreeMap<(String, bool), Base>> = Mutex::default();
        let base = |name: &str, pull: bool, say: Say<'_>| {
            if builds.planned.iter().any(|one| one.is_named(name)) {
                return self.base_image(&store, name, false, say);
            }
            let cell = {
                let mut bases = bases.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(bases.entry((name.to_owned(), pull)).or_default())
            };
            cell.get_or_init(|| self.base_image(&store, name, pull, say)).clone()
        };
        let base = &base;
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
                    let (site, outcomes, done) = (&site, &outcomes, &done);
                    scope.spawn(move || {
                        let image = |name: &str, say: Say<'_>| base(name, one.pull, say);
                        let fetch = |url: &str, folder: &Path, keep: bool| self.fetch(url, folder, keep);
                        let open = |place: &CachePlace| self.open_cache(site.workshop, place);
                        let bring = |place: &CachePlace, layer: &Digest, blob: &Descriptor| {
                            self.bring_layer(site.workshop, place, layer, blob)
                        };
                        let write = |place: &CachePlace, steps| self.write_cache(site.workshop, place, steps);
                        let caches = Caches { open: &open, bring: &bring, write: &write };
                        let outside = Outside { shell, image: &image, fetch: &fetch, caches, tell };
                        let broken = one.needs.iter().any(|need| matches!(done.get(need), Some(Err(_))));
                        let built =
                            if broken { Err(BuildError::cancelled()) } else { self.build_one(one, site, &outside) };
                        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((one.service.clone(), built));
                    });
                }
            });
            done.extend(outcomes.into_inner().unwrap_or_else(PoisonError::into_inner));
            waiting = rest;
        }
        store.prune_steps(CACHE_BUDGET)?;
        if site.has_used_mounts() {
            let pruned = crate::build::prune_mounts(&self.roots.data, MOUNTS_BUDGET);
            pruned.map_err(AppError::io("tidy the caches of build steps"))?;
        }
        let pruned = Downloads::new(&self.roots.data).prune(DOWNLOADS_BUDGET);
        pruned.map_err(AppError::io("tidy what builds have downloaded"))?;
        let failure = |cancelled: bool| {
            let failed = done.iter().filter_map(|(service, built)| Some((service, built.as_ref().err()?)));
            failed.into_iter().find(|(_, error)| error.cancelled == cancelled)
        };
        if let Some((service, error)) = failure(false).or_else(|| failure(true)) {
            let planned = builds.planned.iter().find(|one| one.service == *service);
            return Err(match planned {
                Some(one) => one.failure(error.clone()),
                None => AppError::Usage(error.to_string()),
            });
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
