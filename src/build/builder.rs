//! One image: its stages in threads, each waiting for what it needs of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::cache::{Cache, Key, Step};
use super::changes;
use super::context::{self, Opened};
use super::error::{BuildError, SourceText};
use super::graph::{Graph, Inputs, Origin, graph};
use super::ignore::Ignore;
use super::imports::Imports;
use super::launcher::Launchers;
use super::lint::{self, Finding};
use super::network::StepNetwork;
use super::parse::parse;
use super::remote::Remotes;
use super::request::{Dockerfile, Event, Outside, Request, Source};
use super::stage::StageBuilder;
use super::state::State;
use super::tree::Tree;
use crate::engine::cgroup::Hierarchies;
use crate::engine::view;
use crate::image::{CachedStep, Digest, Image, Store, Workshop};

/// What all builds of one run share.
pub struct Site<'a> {
    pub workshop: &'a Workshop<'a>,
    pub cache: &'a Cache<'a>,
    pub launchers: &'a Launchers,
    /// The data directory.
    data: &'a Path,
    pub(super) network: StepNetwork,
    /// Numbers the steps.
    steps: AtomicU32,
    mounted: AtomicBool,
    /// It was said that steps have the host's network.
    pub(super) shared_network: OnceLock<()>,
    hierarchies: OnceLock<Hierarchies>,
}

impl<'a> Site<'a> {
    /// `data` is the data directory.
    pub fn new(workshop: &'a Workshop<'a>, cache: &'a Cache<'a>, launchers: &'a Launchers, data: &'a Path) -> Self {
        let network = StepNetwork::new(networks(data));
        let (steps, mounted, hierarchies) = (AtomicU32::new(0), AtomicBool::new(false), OnceLock::new());
        Self { workshop, cache, launchers, data, network, steps, mounted, shared_network: OnceLock::new(), hierarchies }
    }

    /// Tells that a step begins.
    pub(super) fn begin(&self, outside: &Outside<'_>, title: String) -> u32 {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        (outside.tell)(Event::Begin { step, title });
        step
    }

    /// Where cache mounts lie, for a step that has one.
    pub(super) fn mounts(&self) -> PathBuf {
        self.mounted.store(true, Ordering::Relaxed);
        super::collect::mounts(self.data)
    }

    /// Whether a step has used a cache mount, so that they may have grown.
    pub fn has_used_mounts(&self) -> bool {
        self.mounted.load(Ordering::Relaxed)
    }

    /// The machine's control groups, looked at when the first program is run.
    pub(super) fn hierarchies(&self) -> Result<&Hierarchies, BuildError> {
        if let Some(found) = self.hierarchies.get() {
            return Ok(found);
        }
        let found = Hierarchies::detect().map_err(|error| BuildError::because("cannot use control groups", &error))?;
        Ok(self.hierarchies.get_or_init(|| found))
    }
}

/// Where networks are recorded.
pub(super) fn networks(data: &Path) -> PathBuf {
    data.join("networks")
}

pub(super) struct Builder<'a> {
    pub(super) site: &'a Site<'a>,
    pub(super) workshop: &'a Workshop<'a>,
    pub(super) cache: &'a Cache<'a>,
    pub(super) outside: &'a Outside<'a>,
    pub(super) request: &'a Request,
    pub(super) source: SourceText,
    pub(super) escape: char,
    pub(super) graph: Graph,
    pub(super) inputs: Inputs,
    context: &'a Opened,
    stages: Vec<Outcome>,
    failed: AtomicBool,
    context_tree: OnceLock<Arc<Tree>>,
    /// What was copied from the context.
    used: Mutex<BTreeSet<String>>,
    pub(super) remotes: Remotes,
    pub(super) imports: Imports<'a>,
    /// What the steps have made.
    steps: Mutex<BTreeMap<Key, CachedStep>>,
}

/// A stage's end, for those who wait for it.
#[derive(Default)]
struct Outcome {
    state: Mutex<Option<Result<Arc<State>, BuildError>>>,
    there: Condvar,
}

/// What is to be built, read and taken apart.
struct Definition {
    context: Opened,
    source: SourceText,
    escape: char,
    graph: Graph,
    inputs: Inputs,
    warnings: Vec<String>,
    /// The file itself wants no build with these warnings.
    violation: Option<BuildError>,
}

fn define(request: &Request, store: &Store) -> Result<Definition, BuildError> {
    let context = Opened::open(request)?;
    let source = context::dockerfile(&context, request)?;
    let parsed = parse(&source.text).map_err(|error| BuildError::of_parse(error, &source))?;
    let inputs = Inputs {
        args: request.args.clone(),
        target: request.target.clone(),
        contexts: request.contexts.keys().cloned().collect(),
        platform: request.platform.clone(),
    };
    let escape = parsed.escape;
    let graph = graph(parsed.clone(), &inputs).map_err(|error| BuildError::of_parse(error, &source))?;
    let directive = parsed.directives.iter().find(|(name, _)| name == "check").map(|(_, value)| value);
    let options = request.args.get("BUILDKIT_DOCKERFILE_CHECK").or(directive).map_or("", String::as_str);
    let options = lint::Options::parse(options).map_err(|message| BuildError::new(format!("`# check`: {message}")))?;
    let ignore = match options.wants("CopyIgnoredFile") {
        true => Ignore::parse(&context.ignore(&request.dockerfile)?),
        false => Ignore::default(),
    };
    let environment = |name: &str| {
        let name = match request.contexts.get(name) {
            Some(Source::Image(image)) => image,
            _ => name,
        };
        store.resolve(name).ok().map(|image| image.document.config.env)
    };
    let subject =
        lint::Subject { parsed: &parsed, graph: &graph, inputs: &inputs, ignore: &ignore, environment: &environment };
    let found = lint::lint(&subject, &options);
    let warning = |one: &Finding| format!("{}:{}: {}: {}", source.name, one.line, one.rule, one.message);
    let warnings = found.iter().map(warning).collect();
    let violation = (options.error && !found.is_empty()).then(|| {
        let rules: BTreeSet<&str> = found.iter().map(|one| one.rule).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        BuildError::new(format!("`# check=error=true`: {} breaks the rules {rules}", source.name))
    });
    Ok(Definition { context, source, escape, graph, inputs, warnings, violation })
}

/// Reads the Dockerfile as [`build`] would, and builds nothing. Returns what should be said about it.
///
/// # Errors
/// What is wrong with it.
pub fn check(request: &Request, store: &Store) -> Result<Vec<String>, BuildError> {
    let Definition { warnings, violation, .. } = define(request, store)?;
    match violation {
        Some(violation) => Err(BuildError { output: warnings, ..violation }),
        None => Ok(warnings),
    }
}

/// Builds an image and gives it its names. Returns its id.
///
/// # Errors
/// What is wrong with the Dockerfile, or what failed.
pub fn build(site: &Site<'_>, outside: &Outside<'_>, request: &Request) -> Result<Digest, BuildError> {
    let step = site.begin(outside, format!("[{}internal] load build definition and context", request.prefix()));
    let Definition { context, source, escape, graph, inputs, warnings, violation } =
        define(request, site.workshop.of())?;
    warnings.into_iter().for_each(|warning| (outside.tell)(Event::Warning(warning)));
    (outside.tell)(Event::Done { step });
    if let Some(violation) = violation {
        return Err(violation);
    }
    let stages = graph.stages.iter().map(|_| Outcome::default()).collect();
    let imports = Imports::open(site, outside, request);
    let builder = Builder {
        site,
        workshop: site.workshop,
        cache: site.cache,
        outside,
        request,
        source,
        escape,
        graph,
        inputs,
        context: &context,
        stages,
        failed: AtomicBool::new(false),
        context_tree: OnceLock::new(),
        used: Mutex::default(),
        remotes: Remotes::default(),
        imports,
        steps: Mutex::default(),
    };
    let built = builder.all();
    // Also after a failure: what was made need not be made again.
    let kept = site.cache.keep();
    let state = built?;
    kept?;
    let id = builder.export(&state)?;
    builder.export_cache()?;
    Ok(id)
}

impl Builder<'_> {
    fn all(&self) -> Result<Arc<State>, BuildError> {
        let work = |number: usize| {
            let built = StageBuilder::build(self, number).map(Arc::new);
            if built.is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
            if let Some(outcome) = self.stages.get(number) {
                *lock(&outcome.state) = Some(built);
                outcome.there.notify_all();
            }
        };
        let work = &work;
        std::thread::scope(|scope| {
            for number in self.graph.needed.iter().filter(|number| **number != self.graph.target) {
                scope.spawn(|| work(*number));
            }
            work(self.graph.target);
        });
        // The failure that made the others stop comes first.
        let mut cancelled = None;
        for number in &self.graph.needed {
            match self.stage(*number) {
                Err(error) if error.cancelled => cancelled = Some(error),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        cancelled.map_or_else(|| self.stage(self.graph.target), Err)
    }

    /// Waits for the end of a stage.
    pub(super) fn stage(&self, number: usize) -> Result<Arc<State>, BuildError> {
        let Some(outcome) = self.stages.get(number) else { return Err(BuildError::new("no such stage")) };
        let mut state = lock(&outcome.state);
        if !self.graph.needed.contains(&number) {
            // Only an `ONBUILD` of a base image wants it, which was not known before that was here: who comes first builds it,
            // and others wait for the lock. Stages need earlier ones only, so nobody waits in a circle.
            return state.get_or_insert_with(|| StageBuilder::build(self, number).map(Arc::new)).clone();
        }
        let state = outcome.there.wait_while(state, |state| state.is_none()).unwrap_or_else(PoisonError::into_inner);
        state.clone().unwrap_or_else(|| Err(BuildError::cancelled()))
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self, title: String) -> u32 {
        self.site.begin(self.outside, title)
    }

    pub(super) fn note_step(&self, key: &Key, made: &Step) {
        let step =
            CachedStep { key: key.digest().clone(), layer: made.layer.diff_id.clone(), created: made.created.clone() };
        lock(&self.steps).insert(key.clone(), step);
    }

    /// The time that new layers get, RFC 3339.
    pub(super) fn now(&self) -> String {
        let epoch = self.request.source_date_epoch.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        epoch.unwrap_or_else(jiff::Timestamp::now).to_string()
    }

    /// A stage's beginning from an image.
    pub(super) fn image(&self, name: &str) -> Result<State, BuildError> {
        let image = self.find_image(name)?;
        if !image.binds.is_empty() {
            let message = format!("`{name}` is this machine's own file system, which no image can be built on");
            return Err(BuildError::new(message).help("begin with an image, or with `FROM scratch`"));
        }
        let mut document = image.document;
        // That was about the other image.
        document.build_cache.clear();
        let platform = format!("{}/{}", document.os, document.architecture);
        if !document.architecture.is_empty() && !super::same_platform(&platform, &self.request.platform) {
            let message = format!("`{name}` is an image for `{platform}`, which cannot be built on here");
            return Err(BuildError::new(message).help(format!("this machine is `{}`", self.request.platform)));
        }
        let layers = self.workshop.hold(&document.rootfs.diff_ids)?;
        let gone = || BuildError::new(format!("a layer of `{name}` is not in the store any more"));
        Ok(State::new(layers.ok_or_else(gone)?, Key::of(&[b"image", image.id.hex().as_bytes()]), document))
    }

    /// An image by name; that it has to be brought is a step of its own.
    fn find_image(&self, name: &str) -> Result<Image, BuildError> {
        let (begun, tell) = (OnceLock::new(), self.outside.tell);
        let say = |text: String| {
            let step = *begun.get_or_init(|| self.begin(format!("[{}internal] pull {name}", self.request.prefix())));
            tell(Event::Line { step, text });
        };
        let found = (self.outside.image)(name, &say);
        if let Some(step) = begun.get().copied() {
            tell(match &found {
                Ok(_) => Event::Done { step },
                Err(error) => Event::Failed { step, message: error.message.clone() },
            });
        }
        found
    }

    /// A stage's beginning from an additional context.
    pub(super) fn context_as_base(&self, name: &str) -> Result<State, BuildError> {
        match self.request.contexts.get(name) {
            Some(Source::Image(image)) => self.image(image),
            _ => Err(BuildError::new(format!("the context `{name}` is a folder, which `FROM` cannot begin with"))
                .help(format!("begin with `FROM scratch` and `COPY --from={name} / /`"))),
        }
    }

    /// Notes that something of the main context is part of the image.
    pub(super) fn use_of_context(&self, path: &str) {
        lock(&self.used).insert(path.to_owned());
    }

    /// The main context.
    pub(super) fn context(&self) -> Result<Arc<Tree>, BuildError> {
        if let Some(tree) = self.context_tree.get() {
            return Ok(Arc::clone(tree));
        }
        let tree = Arc::new(self.context.tree(&self.request.dockerfile)?);
        Ok(Arc::clone(self.context_tree.get_or_init(|| tree)))
    }

    /// What `--from=NAME` names, as a tree to copy from.
    pub(super) fn tree(&self, name: &str, stage: usize) -> Result<Arc<Tree>, BuildError> {
        let opening = |error: &std::io::Error| BuildError::because(format!("cannot open `{name}`"), error);
        let of_state = |state: &State| -> Result<Arc<Tree>, BuildError> {
            let mut paths = state.paths();
            if paths.is_empty() {
                paths.push(self.workshop.folder()?);
            }
            Ok(Arc::new(Tree::of_image(view::open(&paths).map_err(|error| opening(&error))?)))
        };
        match self.graph.origin(name, stage, &self.inputs) {
            Origin::Stage(number) => of_state(self.stage(number)?.as_ref()),
            Origin::Image(name) => of_state(&self.image(&name)?),
            Origin::Scratch => of_state(&State::scratch(&self.request.platform)),
            Origin::Context(name) => match self.request.contexts.get(&name) {
                Some(Source::Image(image)) => of_state(&self.image(image)?),
                Some(Source::Folder(path) | Source::Fetched(path)) => Ok(Arc::new(context::folder_tree(path)?)),
                _ => Err(BuildError::new(format!("there is no context `{name}`"))),
            },
        }
    }

    fn export(&self, state: &State) -> Result<Digest, BuildError> {
        let step = self.begin(format!("[{}internal] export the image", self.request.prefix()));
        let mut document = state.document.clone();
        document.config.labels.extend(self.request.labels.clone());
        document.rootfs.kind = "layers".to_owned();
        document.rootfs.diff_ids = state.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        if document.created.is_none() {
            document.created = Some(self.now());
        }
        if self.request.inline_cache {
            let steps = lock(&self.steps);
            let in_image = |step: &&CachedStep| document.rootfs.diff_ids.contains(&step.layer);
            document.build_cache = steps.values().filter(in_image).cloned().collect();
        }
        // The cache leaves out a step that another build of this run is just asking it for.
        self.workshop.store(&state.layers)?;
        let id = self.workshop.store_image(&document, &self.request.names)?;
        let tell = self.outside.tell;
        tell(Event::Line { step, text: format!("writing image {id}") });
        if let Err(error) = self.note_context(&id) {
            tell(Event::Warning(format!("cannot note what the image was built from: {error}")));
        }
        for name in &self.request.names {
            tell(Event::Line { step, text: format!("naming to {}", name.familiar()) });
        }
        tell(Event::Done { step });
        Ok(id)
    }
}

impl Builder<'_> {
    fn export_cache(&self) -> Result<(), BuildError> {
        let steps: Vec<CachedStep> = lock(&self.steps).values().cloned().collect();
        for place in &self.request.cache_to {
            let step = self.begin(format!("[{}internal] export the cache to {place}", self.request.prefix()));
            let exported = (self.outside.caches.write)(place, steps.clone());
            (self.outside.tell)(match &exported {
                Ok(()) => Event::Done { step },
                Err(error) => Event::Failed { step, message: error.message.clone() },
            });
            exported?;
        }
        Ok(())
    }

    /// For the hint that the context has changed.
    fn note_context(&self, image: &Digest) -> Result<(), BuildError> {
        let Source::Folder(path) = &self.request.context else { return Ok(()) };
        let mut used = lock(&self.used).clone();
        if let Dockerfile::InContext(path) = &self.request.dockerfile {
            used.insert(path.clone());
        }
        let ignore = self.context.ignore(&self.request.dockerfile)?;
        changes::note(&self.site.data.join("images/build/contexts"), image, path, ignore, used)
            .map_err(|error| BuildError::because(format!("cannot look at `{}`", path.display()), &error))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
