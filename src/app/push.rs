//! Images to registries.

use crate::app::build::Builds;
use crate::app::change::News;
use crate::app::options::PushOptions;
use crate::app::project::Loaded;
use crate::app::pull::{bar, chain};
use crate::app::{App, AppError};
use crate::base::diagnostic::{Diagnostic, Place};
use crate::control::Reply;
use crate::image::{Digest, Reference, Store};
use crate::registry::{PushStep, Registries};
use std::sync::{Mutex, mpsc};

impl App {
    /// Pushes the images that services build, under their names and `build.tags`. Returns what should be said about the
    /// project.
    ///
    /// # Errors
    /// Wrong files, or an image that cannot be pushed.
    pub fn push(&self, options: &PushOptions, news: News<'_>) -> Result<Vec<Diagnostic>, AppError> {
        let Loaded { project, warnings } = self.load(&options.services)?;
        let registries = self.registries()?;
        let store = Store::open(&self.roots.data)?;
        let mut failures = Vec::new();
        for (name, service) in &project.services {
            if !(options.services.is_empty() || options.include_deps || options.services.contains(name)) {
                continue;
            }
            let image = service.image.as_deref().filter(|image| !image.is_empty());
            let (Some(image), Some(build)) = (image, &service.build) else {
                news(Reply::Progress { id: name.clone(), status: "Skipped".to_owned(), text: String::new() });
                continue;
            };
            let names: Vec<&str> = std::iter::once(image).chain(build.tags.iter().map(String::as_str)).collect();
            let place = project.place(&format!("services.{name}.image"));
            failures.extend(self.push_service(&registries, &store, (name, &names, place), options.quiet, news).err());
        }
        if failures.is_empty() || options.ignore_failures { Ok(warnings) } else { Err(AppError::Images(failures)) }
    }

    /// Pushes what was built, as far as the file names it.
    ///
    /// # Errors
    /// [`AppError::Images`]: those that cannot be pushed.
    pub fn push_built(&self, builds: &Builds, news: News<'_>) -> Result<(), AppError> {
        let project = self.load(&[])?.project;
        let registries = self.registries()?;
        let store = Store::open(&self.roots.data)?;
        let mut failures = Vec::new();
        for (service, names) in builds.to_push() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let place = project.place(&format!("services.{service}.image"));
            failures.extend(self.push_service(&registries, &store, (service, &names, place), false, news).err());
        }
        if failures.is_empty() { Ok(()) } else { Err(AppError::Images(failures)) }
    }

    /// Pushes a service's image under all its names. `place` is where the file names it.
    fn push_service(
        &self,
        registries: &Registries,
        store: &Store,
        (name, images, place): (&str, &[&str], Option<Place>),
        quiet: bool,
        news: News<'_>,
    ) -> Result<(), Diagnostic> {
        let tell = |news: News<'_>, status: &str, text: String| {
            news(Reply::Progress { id: name.to_owned(), status: status.to_owned(), text });
        };
        tell(news, "Pushing", String::new());
        for image in images {
            if let Err(error) = self.push_image(registries, store, image, quiet, news) {
                tell(news, "Error", chain(&error));
                let message = format!("cannot push image `{image}` of service `{name}`: {}", chain(&error));
                let failure = Diagnostic::error("push-failed", place, message);
                return Err(match error.help() {
                    Some(help) => failure.help(help),
                    None => failure,
                });
            }
        }
        tell(news, "Pushed", String::new());
        Ok(())
    }

    /// Pushes one image by its name; returns the digest of its manifest.
    ///
    /// # Errors
    /// There is no such image, or whatever the registry says.
    pub fn image_push(&self, image: &str, quiet: bool, news: News<'_>) -> Result<Digest, AppError> {
        let store = Store::open(&self.roots.data)?;
        Ok(self.push_image(&self.registries()?, &store, image, quiet, news)?)
    }

    fn push_image(
        &self,
        registries: &Registries,
        store: &Store,
        image: &str,
        quiet: bool,
        news: News<'_>,
    ) -> Result<Digest, crate::registry::Error> {
        let bad = || crate::image::Error::BadName { text: image.to_owned() };
        let name = Reference::parse(image).filter(|name| name.digest().is_none()).ok_or_else(bad)?;
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            let pushing = scope.spawn(move || {
                let last = Mutex::new(std::collections::BTreeMap::new());
                let push = |layer: &Digest, step: PushStep| {
                    let (status, text) = match step {
                        PushStep::Preparing => ("Preparing", String::new()),
                        PushStep::Bytes(done, total) => {
                            let mut last = last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            let tenth = done * 20 / total.max(1);
                            if last.insert(layer.clone(), tenth) == Some(tenth) {
                                return;
                            }
                            ("Uploading", bar(done, total))
                        }
                        PushStep::Exists => ("Layer already exists", String::new()),
                        PushStep::Mounted => ("Mounted", String::new()),
                        PushStep::Pushed => ("Pushed", String::new()),
                    };
                    if !quiet {
                        let (id, status) = (layer.short().to_owned(), status.to_owned());
                        // Whoever listens outlives this thread.
                        let _ = tell.send(Reply::Progress { id, status, text });
                    }
                };
                registries.push(store, &name, &push)
            });
            told.into_iter().for_each(&mut *news);
            let outcome = pushing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome.map(|(digest, _)| digest)
        })
    }
}
