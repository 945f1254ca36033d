//! Images to registries.

use crate::app::change::News;
use crate::app::options::PushOptions;
use crate::app::project::Loaded;
use crate::app::pull::{bar, chain};
use crate::app::{App, AppError};
use crate::base::diagnostic::Diagnostic;
use crate::control::Reply;
use crate::image::{Digest, Reference, Store};
use crate::registry::PushStep;
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
            let tell = |news: News<'_>, status: &str, text: String| {
                news(Reply::Progress { id: name.clone(), status: status.to_owned(), text });
            };
            let image = service.image.as_deref().filter(|image| !image.is_empty());
            let (Some(image), Some(build)) = (image, &service.build) else {
                tell(news, "Skipped", String::new());
                continue;
            };
            tell(news, "Pushing", String::new());
            let names = std::iter::once(image).chain(build.tags.iter().map(String::as_str));
            let pushed = names.map(|image| self.push_image(&registries, &store, image, options.quiet, news));
            match pushed.collect::<Result<Vec<_>, _>>() {
                Ok(_) => tell(news, "Pushed", String::new()),
                Err(error) => {
                    tell(news, "Error", chain(&error));
                    let place = project.place(&format!("services.{name}.image"));
                    let message = format!("cannot push image `{image}` of service `{name}`: {}", chain(&error));
                    let failure = Diagnostic::error("push-failed", place, message);
                    failures.push(match error.help() {
                        Some(help) => failure.help(help),
                        None => failure,
                    });
                }
            }
        }
        if failures.is_empty() || options.ignore_failures { Ok(warnings) } else { Err(AppError::Images(failures)) }
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
        registries: &crate::registry::Registries,
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
