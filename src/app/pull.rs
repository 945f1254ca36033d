//! Images from registries: what a project needs, and what a person asks for.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::app::change::News;
use crate::app::options::PullOptions;
use crate::app::project::Loaded;
use crate::app::{App, AppError, now};
use crate::base::diagnostic::Diagnostic;
use crate::base::reason::without_number;
use crate::control::Reply;
use crate::image::{Digest, LayerStep, Platform, Reference, Store};
use crate::plan::{self, PullPolicy, WantedImage};
use crate::registry::{Registries, Step};
use crate::ui::human;

/// Images on their way at once; each has several layers on their way.
const IMAGES_AT_ONCE: usize = 2;
/// The progress of a layer is told this often.
const FRAME: Duration = Duration::from_millis(100);

/// Images that something needs before it starts.
pub type Images = Vec<WantedImage>;

impl App {
    /// Whether there is something to fetch.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn lacks_images(&self, wanted: &Images) -> Result<bool, AppError> {
        let store = Store::open(&self.roots.data)?;
        for image in wanted {
            if is_wanted(&store, image)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fetches what of the images is missing or asked for.
    ///
    /// # Errors
    /// [`AppError::Images`]: one diagnostic for each that cannot be had.
    pub fn fetch_images(&self, wanted: &Images, quiet: bool, news: News<'_>) -> Result<(), AppError> {
        self.provide(wanted, quiet, news)
    }

    /// The registries, as this process's environment says they are to be reached.
    ///
    /// # Errors
    /// A setting is not valid.
    pub fn registries(&self) -> Result<Registries, AppError> {
        Ok(Registries::from_environment(&self.environment)?)
    }

    /// Fetches the images of the project's services. Returns what should be said about the project.
    ///
    /// # Errors
    /// Wrong files, or an image that cannot be fetched.
    pub fn pull(&self, options: &PullOptions, news: News<'_>) -> Result<Vec<Diagnostic>, AppError> {
        let Loaded { mut project, warnings } = self.load(&options.services)?;
        if !options.services.is_empty() && !options.include_deps {
            project.services.retain(|name, _| options.services.contains(name));
        }
        let mut wanted = plan::images(&project);
        let mut skipped = |image: &WantedImage, why: &str| {
            let (id, status) = (image.service.clone(), "Skipped".to_owned());
            news(Reply::Progress { id, status, text: format!("- {why}") });
        };
        if options.ignore_buildable {
            wanted.iter().filter(|image| image.can_build).for_each(|image| skipped(image, "Image can be built"));
            wanted.retain(|image| !image.can_build);
        }
        for image in &mut wanted {
            image.policy = match (options.policy, image.policy) {
                (Some(policy), _) => policy,
                // To ask for it is a reason.
                (None, PullPolicy::Missing) => PullPolicy::Always,
                (None, policy) => policy,
            };
        }
        let store = Store::open(&self.roots.data)?;
        for image in wanted.iter().filter(|image| image.policy == PullPolicy::Missing) {
            if !is_wanted(&store, image)? {
                skipped(image, "Image is already present locally");
            }
        }
        match self.provide(&wanted, options.quiet, news) {
            Err(AppError::Images(_)) if options.ignore_failures => Ok(warnings),
            done => done.map(|()| warnings),
        }
    }

    /// Makes sure that the store has the images, as each one's policy says. What can be built instead may stay missing.
    ///
    /// # Errors
    /// [`AppError::Images`]: one diagnostic for each that cannot be had.
    pub(super) fn provide(&self, wanted: &[WantedImage], quiet: bool, news: News<'_>) -> Result<(), AppError> {
        let store = Store::open(&self.roots.data)?;
        let mut missing = Vec::new();
        for image in wanted {
            if is_wanted(&store, image)? {
                missing.push(image);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let registries = self.registries()?;
        let queue = Mutex::new(missing.iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            for _ in 0..IMAGES_AT_ONCE.min(missing.len()) {
                let tell = tell.clone();
                let (store, registries, next, failures) = (&store, &registries, &next, &failures);
                scope.spawn(move || {
                    while let Some(image) = next() {
                        if let Err(failure) = pull_one(store, registries, image, quiet, &tell) {
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        }
                    }
                });
            }
            drop(tell);
            told.into_iter().for_each(news);
        });
        let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        failures.sort_by(|a, b| a.place.cmp(&b.place));
        if failures.is_empty() { Ok(()) } else { Err(AppError::Images(failures)) }
    }
}

/// Images with the policy of the command line, where it has one.
pub(super) fn chosen(mut images: Vec<WantedImage>, policy: Option<PullPolicy>) -> Vec<WantedImage> {
    if let Some(policy) = policy {
        images.iter_mut().for_each(|image| image.policy = policy);
    }
    images
}

fn is_wanted(store: &Store, wanted: &WantedImage) -> Result<bool, AppError> {
    if matches!(wanted.policy, PullPolicy::Never | PullPolicy::Build) {
        return Ok(false);
    }
    let in_store = match store.resolve(&wanted.image) {
        // The host's own image is in no registry.
        Ok(image) if !image.binds.is_empty() => return Ok(false),
        Ok(_) => match Reference::parse(&wanted.image) {
            Some(name) => Some(store.named_at(&name)?),
            // An id is in no registry.
            None => return Ok(false),
        },
        Err(crate::image::Error::NotFound { .. }) => None,
        // The pull mends it.
        Err(crate::image::Error::DamagedLayer { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(wanted.policy.wants_pull(in_store, now() / 1_000_000_000))
}

/// Fetches one image; a failure is told in words about the project's file.
fn pull_one(
    store: &Store,
    registries: &Registries,
    wanted: &WantedImage,
    quiet: bool,
    tell: &Sender<Reply>,
) -> Result<(), Diagnostic> {
    let say = |id: &str, status: &str, text: &str| {
        // Whoever listens outlives this thread.
        let _ = tell.send(Reply::Progress { id: id.to_owned(), status: status.to_owned(), text: text.to_owned() });
    };
    say(&wanted.service, "Pulling", "");
    let layers = Layers::default();
    let told = |layer: &Digest, step: Step| {
        if let (false, Some((status, text))) = (quiet, layers.status(layer, step)) {
            say(layer.short(), status, &text);
        }
    };
    match fetch(store, registries, wanted, &told) {
        Ok(()) => {
            say(&wanted.service, "Pulled", "");
            Ok(())
        }
        Err(error) if wanted.can_build => {
            say(&wanted.service, "Warning", &chain(&error));
            Ok(())
        }
        Err(error) => {
            say(&wanted.service, "Error", &chain(&error));
            let (image, service) = (&wanted.image, &wanted.service);
            let message = format!("cannot pull image `{image}` for service `{service}`: {}", chain(&error));
            let diagnostic = Diagnostic::error("pull-failed", wanted.place.clone(), message);
            Err(match error.help() {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            })
        }
    }
}

fn fetch(
    store: &Store,
    registries: &Registries,
    wanted: &WantedImage,
    told: crate::registry::Told<'_>,
) -> Result<(), crate::registry::Error> {
    let bad = |text: &str| crate::image::Error::BadName { text: text.to_owned() };
    let name = Reference::parse(&wanted.image).ok_or_else(|| bad(&wanted.image))?;
    let platform = match &wanted.platform {
        Some(text) => Platform::parse(text).ok_or_else(|| bad(text))?,
        None => Platform::host(),
    };
    registries.pull(store, &name, &platform, told).map(drop)
}

/// Does `work`, telling what happens to layers.
pub(super) fn with_layers<T: Send>(
    quiet: bool,
    news: News<'_>,
    work: impl FnOnce(crate::registry::Told<'_>) -> T + Send,
) -> T {
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let working = scope.spawn(move || {
            let layers = Layers::default();
            work(&|layer, step| {
                if let (false, Some((status, text))) = (quiet, layers.status(layer, step)) {
                    // Whoever listens outlives this thread.
                    let id = layer.short().to_owned();
                    let _ = tell.send(Reply::Progress { id, status: status.to_owned(), text });
                }
            })
        });
        told.into_iter().for_each(news);
        working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What was told of each layer, and when.
#[derive(Default)]
struct Layers(Mutex<BTreeMap<Digest, Instant>>);

impl Layers {
    /// docker's words for a step; `None`: it is too soon to say so again.
    fn status(&self, layer: &Digest, step: Step) -> Option<(&'static str, String)> {
        Some(match step {
            Step::Layer(LayerStep::Begun) => ("Pulling fs layer", String::new()),
            Step::Layer(LayerStep::Found) => ("Already exists", String::new()),
            Step::Layer(LayerStep::Made) => ("Pull complete", String::new()),
            Step::Bytes(done, total) if done == total => ("Extracting", String::new()),
            Step::Bytes(done, total) => {
                let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if told.get(layer).is_some_and(|told| told.elapsed() < FRAME) {
                    return None;
                }
                told.insert(layer.clone(), Instant::now());
                ("Downloading", bar(done, total))
            }
        })
    }
}

/// `[====>    ]  1.2MB/3.4MB`
pub(super) fn bar(done: u64, total: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = usize::try_from(u128::from(done) * u128::from(WIDTH) / u128::from(total.max(1))).unwrap_or_default();
    let bar: String = (0..20)
        .map(|at| {
            if at < filled {
                '='
            } else if at == filled {
                '>'
            } else {
                ' '
            }
        })
        .collect();
    format!("[{bar}]  {}/{}", human::size(done), human::size(total))
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    without_number(&text)
}
