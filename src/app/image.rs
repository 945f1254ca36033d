//! The image store from the command line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::app::change::News;
use crate::app::export::create;
use crate::app::options::{ImageFilter, RemoveImages};
use crate::app::pull::with_layers;
use crate::app::{App, AppError};
use crate::control::Reply;
use crate::image::{Compression, Digest, Format, Image, Loaded, Platform, Reference, Removed, Store};
use crate::model::Project;
use crate::spec::Observed;
use crate::sys::process::{self, SingleThreaded};
use crate::sys::userns;
use crate::ui::tables::{HistoryRow, ImageRow};
use regex::Regex;
use rustix::process::{Pid, WaitOptions};
use serde_json::{Value, json};

impl App {
    /// Loads an archive or layout; `None` is standard input.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_load(&self, input: Option<&Path>) -> Result<Vec<Loaded>, AppError> {
        let store = Store::open(&self.roots.data)?;
        Ok(match input {
            Some(path) => store.load(path)?,
            None => store.load_stream(&mut io::stdin().lock())?,
        })
    }

    /// Makes an image of a root file system; `-` is standard input. Returns its id.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_import(
        &self,
        file: &Path,
        name: Option<&str>,
        changes: &[String],
        message: &str,
    ) -> Result<Digest, AppError> {
        let store = Store::open(&self.roots.data)?;
        let mut stdin;
        let mut opened;
        let input: &mut (dyn io::Read + Send) = if file == Path::new("-") {
            stdin = io::stdin();
            &mut stdin
        } else {
            opened = File::open(file).map_err(AppError::io(format!("open `{}`", file.display())))?;
            &mut opened
        };
        Ok(store.import(input, name, changes, message)?.id)
    }

    /// All images that meet the filter, one row per name, the newest first.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_list(&self, filter: &ImageFilter) -> Result<Vec<ImageRow>, AppError> {
        let mut rows = Vec::new();
        let store = Store::open(&self.roots.data)?;
        let patterns = filter.names.iter().map(|name| pattern(name)).collect::<Result<Vec<_>, _>>()?;
        let named = |row: &ImageRow| {
            let with_tag = format!("{}:{}", row.repository, row.tag);
            patterns.is_empty() || patterns.iter().any(|one| one.is_match(&row.repository) || one.is_match(&with_tag))
        };
        for image in store.list()? {
            let labels = &image.document.config.labels;
            let has = |label: &String| match label.split_once('=') {
                Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
                None => labels.contains_key(label),
            };
            if !filter.labels.iter().all(has) || filter.dangling.is_some_and(|wanted| wanted != image.names.is_empty())
            {
                continue;
            }
            if image.names.is_empty() && patterns.is_empty() {
                rows.push(row(&image, "<none>", String::new()));
            }
            let digests = store.registry_digests(&image.id)?;
            let digest = |repository: &str| {
                let of_repository = |name: &String| Some(name.strip_prefix(repository)?.strip_prefix('@')?.to_owned());
                digests.iter().find_map(of_repository)
            };
            let mine = image.names.iter().map(|name| row(&image, name, String::new())).filter(named);
            rows.extend(mine.map(|row| ImageRow { digest: digest(&row.repository), ..row }));
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.created));
        Ok(rows)
    }

    /// Takes a name, or an image no container was made from, away.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_remove(&self, reference: &str, force: bool) -> Result<Removed, AppError> {
        let in_use = if force { BTreeSet::new() } else { self.images_in_use()? };
        Ok(Store::open(&self.roots.data)?.remove(reference, &in_use)?)
    }

    /// # Errors
    /// What the store says.
    pub fn image_tag(&self, source: &str, target: &str) -> Result<(), AppError> {
        Ok(Store::open(&self.roots.data)?.tag(source, target)?)
    }

    /// Writes an archive of images: docker's, or an OCI layout alone.
    ///
    /// # Errors
    /// What the store or the output says.
    pub fn image_save(
        &self,
        references: &[String],
        output: Option<&Path>,
        format: Format,
        compression: Compression,
    ) -> Result<(), AppError> {
        let store = Store::open(&self.roots.data)?;
        match output {
            Some(path) => {
                // Names that lead nowhere leave a file that is there as it is.
                references.iter().try_for_each(|name| store.resolve(name).map(drop))?;
                let mut file = create(path)?;
                store.save(references, format, compression, &mut file)?;
                file.flush().map_err(AppError::io(format!("write `{}`", path.display())))
            }
            None => Ok(store.save(references, format, compression, &mut io::stdout().lock())?),
        }
    }

    /// Fetches one image by its name. Returns the digest that it has at the registry, and whether it is new here.
    ///
    /// # Errors
    /// It is no name, or whatever the registry says.
    pub fn image_pull(
        &self,
        image: &str,
        platform: Option<&str>,
        quiet: bool,
        news: News<'_>,
    ) -> Result<(String, crate::registry::Pulled), AppError> {
        let bad = |text: &str| crate::image::Error::BadName { text: text.to_owned() };
        let name = Reference::parse(image).ok_or_else(|| bad(image))?;
        let platform = match platform {
            Some(text) => Platform::parse(text).ok_or_else(|| bad(text))?,
            None => Platform::host(),
        };
        let (store, registries) = (Store::open(&self.roots.data)?, self.registries()?);
        let pulled = with_layers(quiet, news, |told| registries.pull(&store, &name, &platform, told))?;
        Ok((name.to_string(), pulled))
    }

    /// What is known of an image, as `docker image inspect` writes it.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_inspect(&self, reference: &str) -> Result<Value, AppError> {
        let store = Store::open(&self.roots.data)?;
        let image = store.resolve(reference)?;
        if !image.binds.is_empty() {
            return Err(crate::image::Error::HostImage { name: reference.to_owned() }.into());
        }
        let (bytes, document) = store.document(&image.id)?;
        let own: Value =
            serde_json::from_slice(&bytes).map_err(|error| AppError::io("read the configuration")(error.into()))?;
        let text = |name: &str| own.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let named = Reference::parse(image.names.first().map_or(reference, String::as_str));
        let named_at = named.map(|name| store.named_at(&name)).transpose()?.flatten();
        let named_at = named_at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        let comment = document.history.last().and_then(|last| last.comment.clone()).unwrap_or_default();
        // What templates ask for is there, if only as nothing.
        let mut config = json!({"User": "", "ExposedPorts": null, "Env": null, "Cmd": null, "Healthcheck": null,
            "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null, "StopSignal": "",
            "Shell": null});
        if let (Some(all), Some(Value::Object(own))) = (config.as_object_mut(), own.get("config")) {
            all.extend(own.clone());
        }
        Ok(json!({
            "Id": image.id.to_string(),
            "RepoTags": image.names,
            "RepoDigests": store.registry_digests(&image.id)?,
            "Comment": comment,
            "Created": document.created,
            "Author": text("author"),
            "Architecture": document.architecture,
            "Variant": text("variant"),
            "Os": document.os,
            "Size": image.size,
            "GraphDriver": {"Name": "overlay2", "Data": {"Layers": image.layers}},
            "RootFS": {"Type": "layers", "Layers": document.rootfs.diff_ids},
            "Metadata": {"LastTagTime": named_at.map(|time| time.to_string())},
            "Config": config,
        }))
    }

    /// How an image came about, the newest step first.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_history(&self, reference: &str) -> Result<Vec<HistoryRow>, AppError> {
        let store = Store::open(&self.roots.data)?;
        let image = store.resolve(reference)?;
        let mut sizes = match image.binds.is_empty() {
            true => store.layer_sizes(&image.id)?.into_iter(),
            false => Vec::new().into_iter(),
        };
        let mut rows: Vec<HistoryRow> = Vec::new();
        for step in &image.document.history {
            let size = if step.empty_layer { 0 } else { sizes.next().unwrap_or_default() };
            rows.push(HistoryRow {
                id: String::new(),
                created: nanoseconds(step.created.as_deref()),
                created_by: step.created_by.clone().unwrap_or_default(),
                size,
                comment: step.comment.clone().unwrap_or_default(),
            });
        }
        // Layers that nobody wrote down.
        rows.extend(sizes.map(|size| HistoryRow { size, ..HistoryRow::default() }));
        rows.reverse();
        if let Some(first) = rows.first_mut() {
            first.id = image.id.to_string();
        }
        Ok(rows)
    }

    /// Removes images that have no name, or with `all` those that no container was made from. Returns what went and how
    /// many bytes that was.
    ///
    /// # Errors
    /// What the store says.
    pub fn image_prune(&self, all: bool) -> Result<(Removed, u64), AppError> {
        Ok(Store::open(&self.roots.data)?.prune(all, &self.images_in_use()?)?)
    }

    /// Removes images by their names, as far as they are there and no container was made from them. Returns how many.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn remove_images(&self, names: &[String], news: News<'_>) -> Result<usize, AppError> {
        if names.is_empty() {
            return Ok(0);
        }
        let (store, in_use) = (Store::open(&self.roots.data)?, self.images_in_use()?);
        let mut removed = 0;
        for name in names {
            let mut tell = |status: &str| {
                let (id, status) = (format!("Image {name}"), status.to_owned());
                news(Reply::Progress { id, status, text: String::new() });
            };
            let gone = match self.dry_run {
                true => store.resolve(name).map(drop),
                false => store.remove(name, &in_use).map(drop),
            };
            match gone {
                Ok(()) => {
                    tell("Removing");
                    tell("Removed");
                    removed += 1;
                }
                Err(crate::image::Error::NotFound { .. } | crate::image::Error::HostImage { .. }) => {}
                Err(crate::image::Error::InUse { .. }) => tell("Resource is still in use"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
    }

    /// Ids of the images that containers of any project were made from.
    pub(super) fn images_in_use(&self) -> Result<BTreeSet<Digest>, AppError> {
        let mut ids = BTreeSet::new();
        for project in self.roots.projects().map_err(AppError::io("list the projects"))? {
            let records = self.roots.project(&project).load();
            let records = records.map_err(AppError::io(format!("read project `{project}`")))?;
            ids.extend(records.iter().filter_map(|record| Digest::parse(&record.config.image_id)));
        }
        Ok(ids)
    }
}

/// The images of services that `down` may remove; of all services when none is named.
pub(super) fn image_names(project: &Project, services: &[String], which: RemoveImages) -> Vec<String> {
    let wanted = project.services.iter().filter(|(name, _)| services.is_empty() || services.contains(name));
    let names = wanted.filter_map(|(name, service)| match service.image.as_deref().filter(|image| !image.is_empty()) {
        // What is built here is local, whatever its name.
        Some(image) => (which == RemoveImages::All || service.build.is_some()).then(|| image.to_owned()),
        None => service.build.is_some().then(|| project.default_image(name)),
    });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The same of a project that is what exists of it.
pub(super) fn images_of(project: &str, there: &Observed, services: &[String], which: RemoveImages) -> Vec<String> {
    let wanted = there.containers.iter().map(|container| &container.service);
    let wanted = wanted.filter(|service| services.is_empty() || services.contains(&service.name));
    let names = wanted.filter_map(|service| {
        let image = &service.container.image;
        let built = service.builds || *image == format!("{project}-{}", service.name);
        (built || which == RemoveImages::All).then(|| image.clone())
    });
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// An image's name in which `*` and `?` stand for anything but a `/`.
fn pattern(name: &str) -> Result<Regex, AppError> {
    let text = regex::escape(name).replace("\\*", "[^/]*").replace("\\?", "[^/]");
    Regex::new(&format!("^{text}$")).map_err(|error| AppError::Usage(format!("`{name}` is no image name: {error}")))
}

fn nanoseconds(text: Option<&str>) -> Option<i64> {
    let time = text?.parse::<jiff::Timestamp>().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

/// An image as a row of a table, under the name it is asked for by.
pub(super) fn row(image: &Image, name: &str, container: String) -> ImageRow {
    let reference = Reference::parse(name);
    ImageRow {
        container,
        repository: reference.as_ref().map_or_else(|| name.to_owned(), Reference::familiar_repository),
        tag: reference.as_ref().and_then(Reference::tag).unwrap_or("<none>").to_owned(),
        platform: format!("{}/{}", image.document.os, image.document.architecture),
        id: image.id.to_string(),
        size: image.size,
        created: nanoseconds(image.document.created.as_deref()),
        digest: None,
    }
}

/// For work on the files of layers, which may belong to any of the ids that this user has: from then on this process is root
/// of a user namespace and has its own mounts, unless it is root anyway. While there is one thread.
///
/// # Errors
/// A host that does not let users make namespaces.
pub fn own_layers() -> Result<(), AppError> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let entered = SingleThreaded::check().and_then(userns::become_root).and_then(|()| userns::new_mounts());
    entered.map_err(AppError::io("make a user namespace (`rcompose doctor` says what is missing)"))
}

/// Does work that needs [`own_layers`] and leaves this process what it is: an ordinary user's is done by a child. `work` is told
/// whether that could be had, and returns an exit status, which comes back. While there is one thread.
///
/// # Errors
/// There can be no child.
pub fn as_owner_of_layers(work: impl FnOnce(Result<(), AppError>) -> u8) -> Result<u8, AppError> {
    if rustix::process::geteuid().is_root() {
        return Ok(work(Ok(())));
    }
    let forked = SingleThreaded::check().and_then(process::fork);
    let Some(child) = forked.map_err(AppError::io("make a process for layers"))? else {
        let status = work(own_layers());
        // Nobody reads it any more, if that fails.
        let _ = io::stdout().flush();
        process::exit_now(i32::from(status));
    };
    let waited = rustix::process::waitpid(Pid::from_raw(child), WaitOptions::empty());
    let ended = waited.map_err(io::Error::from).map_err(AppError::io("wait for the process for layers"))?;
    // Killed: as a shell has it.
    let killed = || ended.and_then(|(_, status)| status.terminating_signal()).map_or(1, |signal| 128 + signal);
    let status = ended.and_then(|(_, status)| status.exit_status()).unwrap_or_else(killed);
    Ok(u8::try_from(status).unwrap_or(1))
}
