//! `publish`: a project as an artifact of a registry, as docker compose makes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::app::change::News;
use crate::app::options::PushOptions;
use crate::app::{App, AppError, digests};
use crate::compose::{self, NamedFile, NamedFor};
use crate::control::Reply;
use crate::image::{Digest, Reference, Store};
use crate::model::{Project, VolumeKind};
use crate::registry::{ArtifactFile, COMPOSE_ENV_FILE, COMPOSE_FILE};

/// A file of variables is a few lines.
const LARGEST: u64 = 16 << 20;
/// `extends` through so many files.
const DEEPEST: usize = 64;

/// `publish`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// `REPOSITORY[:TAG]`.
    pub name: String,
    /// What services have in `environment` and `env_file` may go along.
    pub with_env: bool,
    pub resolve_image_digests: bool,
}

/// What is to be published.
#[derive(Debug)]
pub struct Publication {
    name: Reference,
    files: Vec<ArtifactFile>,
    /// Folders of this machine that services mount: `service: source`.
    pub binds: Vec<String>,
}

impl Publication {
    /// What the files are called.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| file.annotations.values().next_back().map(String::as_str))
    }

    pub fn name(&self) -> String {
        self.name.familiar()
    }
}

impl App {
    /// What of the project is to be published.
    ///
    /// # Errors
    /// Wrong files, or what a published project cannot have.
    pub fn prepare_publish(&self, options: &PublishOptions) -> Result<Publication, AppError> {
        let name = Reference::parse(&options.name).filter(|name| name.digest().is_none());
        let name = name.ok_or_else(|| AppError::Usage(format!("`{}` is no REPOSITORY[:TAG]", options.name)))?;
        let project = self.load(&[])?.project;
        let mut collected = Collected { files: Vec::new(), variables: false };
        for path in &project.compose_files {
            collected.compose_file(path, &project.working_dir, None, 0)?;
        }
        check(&project, options.with_env, collected.variables)?;
        if options.resolve_image_digests {
            collected.files.push(self.digests(&project)?);
        }
        let binds = project.services.iter().flat_map(|(service, one)| {
            let binds = one.volumes.iter().filter(|volume| volume.kind == VolumeKind::Bind);
            binds.map(move |volume| format!("{service}: {}", volume.source.as_deref().unwrap_or_default()))
        });
        Ok(Publication { name, binds: binds.collect(), files: collected.files })
    }

    /// The images by their digests, as one more Compose file.
    fn digests(&self, project: &Project) -> Result<ArtifactFile, AppError> {
        let registries = self.registries()?;
        let mut services = serde_json::Map::new();
        for (name, service) in &project.services {
            let Some(image) = service.image.as_deref().filter(|image| !image.is_empty()) else { continue };
            let pinned = digests::pinned(&registries, image).map_err(|(message, _)| AppError::Usage(message))?;
            services.insert(name.clone(), serde_json::json!({ "image": pinned }));
        }
        // JSON is YAML.
        let content = serde_json::json!({ "services": services }).to_string().into_bytes();
        Ok(artifact_file(COMPOSE_FILE, "image-digests.yaml", false, content))
    }

    /// Pushes the images that services build, as far as they are there, and then the project.
    ///
    /// # Errors
    /// Whatever the registry says to the project.
    pub fn publish(&self, publication: Publication, news: News<'_>) -> Result<Digest, AppError> {
        let options = PushOptions { ignore_failures: true, ..PushOptions::default() };
        self.push(&options, news)?;
        let id = publication.name.familiar();
        let mut tell = |status: &str| {
            news(Reply::Progress { id: id.clone(), status: status.to_owned(), text: String::new() });
        };
        tell("publishing");
        let store = Store::open(&self.roots.data)?;
        let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let digest = self.registries()?.push_project(&store, &publication.name, &publication.files, &created)?;
        tell("published");
        Ok(digest)
    }
}

fn check(project: &Project, with_env: bool, variables: bool) -> Result<(), AppError> {
    let built = |(_, service): &(&String, &crate::model::Service)| {
        service.build.is_some() && service.image.as_deref().is_none_or(str::is_empty)
    };
    let built: Vec<_> = project.services.iter().filter(built).map(|(name, _)| format!("`{name}`")).collect();
    if !built.is_empty() {
        return Err(AppError::Usage(format!(
            "a project whose images nobody can fetch cannot be published: {} only `build` them; name them with `image`",
            built.join(", ")
        )));
    }
    let with = |(_, service): &(&String, &crate::model::Service)| !service.environment.is_empty();
    let mut with: Vec<_> = project.services.iter().filter(with).map(|(name, _)| format!("service `{name}`")).collect();
    if with.is_empty() && variables {
        with.push("a service".to_owned());
    }
    if !with.is_empty() && !with_env {
        return Err(AppError::Usage(format!(
            "{} has environment variables or an `env_file`, which may be secret: take them out of the files, or publish \
             them with `--with-env`",
            with.join(", ")
        )));
    }
    Ok(())
}

struct Collected {
    files: Vec<ArtifactFile>,
    /// There is an `env_file`.
    variables: bool,
}

impl Collected {
    /// Takes a Compose file, and those that it names; `name` is what one that is extended is called.
    fn compose_file(&mut self, path: &Path, base: &Path, name: Option<String>, depth: usize) -> Result<(), AppError> {
        let refused = |why: &str| AppError::Usage(format!("`{}` cannot be published: {why}", path.display()));
        if depth > DEEPEST {
            return Err(refused("`extends` goes through too many files"));
        }
        let text = fs::read_to_string(path)
            .map_err(|error| refused(&format!("it cannot be read again as a file: {error}")))?;
        let naming = compose::named_files(&text).map_err(AppError::Input)?;
        if naming.includes {
            return Err(refused("it has `include`, and what is included does not go along"));
        }
        let mut renamed: Vec<(NamedFile, String)> = Vec::new();
        let mut extended: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut variables: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for file in naming.files {
            if file.path.contains('$') || compose::is_remote(&file.path) {
                return Err(refused(&format!("it names the file `{}`, which is another one elsewhere", file.path)));
            }
            let found = base.join(&file.path);
            if file.optional && !found.exists() {
                continue;
            }
            let content = read(&found)?;
            let hash = Digest::of(&content);
            let new = match file.used {
                NamedFor::Extends => format!("{}.yaml", hash.hex()),
                NamedFor::Variables => format!("{}.env", hash.hex()),
            };
            match file.used {
                NamedFor::Extends => drop(extended.insert(new.clone(), found)),
                NamedFor::Variables => drop(variables.insert(new.clone(), content)),
            }
            renamed.push((file, new));
        }
        let text = compose::rename_files(&text, &renamed).map_err(|line| {
            refused(&format!("the path in line {line} must be written on that line, plain or in quotes"))
        })?;
        let shown = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let extends = name.is_some();
        self.files.push(artifact_file(COMPOSE_FILE, &name.unwrap_or(shown), extends, text.into_bytes()));
        for (name, path) in extended {
            if !self.has(&name) {
                let base = path.parent().unwrap_or(base).to_owned();
                self.compose_file(&path, &base, Some(name), depth + 1)?;
            }
        }
        for (name, content) in variables {
            self.variables = true;
            if !self.has(&name) {
                self.files.push(artifact_file(COMPOSE_ENV_FILE, &name, false, content));
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file.annotations.values().any(|value| value == name))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AppError> {
    let reading = || format!("read `{}`", path.display());
    let found = fs::metadata(path).map_err(AppError::io(reading()))?;
    if !found.is_file() || found.len() > LARGEST {
        return Err(AppError::Usage(format!("`{}` is no file of at most {} MiB", path.display(), LARGEST >> 20)));
    }
    fs::read(path).map_err(AppError::io(reading()))
}

fn artifact_file(media_type: &str, name: &str, extends: bool, content: Vec<u8>) -> ArtifactFile {
    let key = if media_type == COMPOSE_FILE { "com.docker.compose.file" } else { "com.docker.compose.envfile" };
    let mut annotations = BTreeMap::from([(key.to_owned(), name.to_owned())]);
    if extends {
        annotations.insert("com.docker.compose.extends".to_owned(), "true".to_owned());
    }
    ArtifactFile { media_type: media_type.to_owned(), annotations, content }
}
