//! From a service's `build` to what the builder is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::app::AppError;
use crate::app::build::BuildOptions;
use crate::app::build::cache::Entry;
use crate::build::{BuildError, CachePlace, Dockerfile, Network, Request, Secret, Source, platform};
use crate::image::Reference;
use crate::model::{Build, Project};
use crate::remote::Address;
use crate::spec::container::Ulimit;

/// Files with keys, by the id of the agent that is to have them.
pub(super) type Keys = BTreeMap<String, Vec<PathBuf>>;

/// One image to build.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) service: String,
    /// Services whose images must be there first.
    pub(super) needs: Vec<String>,
    /// Registries are asked for what it begins with, also when that is here.
    pub(super) pull: bool,
    /// The file names the image, so it can be pushed.
    pub(super) pushed: bool,
    /// Where the file asks for it: `compose.yaml:3:5`.
    place: Option<String>,
    /// Addresses of contexts that are to be fetched, and are not in `request`.
    pub(super) remote_context: Option<String>,
    pub(super) remote_contexts: BTreeMap<String, String>,
    pub(super) keys: Keys,
    pub(super) request: Request,
}

impl Planned {
    /// Whether `name` is one of the image's names.
    pub(super) fn is_named(&self, name: &str) -> bool {
        Reference::parse(name).is_some_and(|name| self.request.names.contains(&name))
    }

    pub(super) fn failure(&self, error: BuildError) -> AppError {
        AppError::Build { service: self.service.clone(), place: self.place.clone(), error: Box::new(error) }
    }
}

/// What the service's image is called.
pub(super) fn image_name(project: &Project, service: &str) -> String {
    let named = project.services.get(service).and_then(|service| service.image.clone());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| project.default_image(service))
}

pub(super) fn plan(
    project: &Project,
    name: &str,
    options: &BuildOptions,
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Result<Planned, AppError> {
    let service = project.services.get(name);
    let Some(build) = service.and_then(|service| service.build.as_ref()) else {
        return Err(AppError::Usage(format!("service `{name}` has no `build`")));
    };
    let planner = Planner { project, name, build, options, environment };
    planner.unsupported(service.and_then(|service| service.platform.as_deref()), warnings)?;
    let mut needs = Vec::new();
    let remote_context = Some(build.context.clone()).filter(|context| Address::is_one(context));
    let context = if remote_context.is_some() { Source::Nothing } else { planner.source(&build.context) };
    let (mut contexts, mut remote_contexts) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in &build.additional_contexts {
        let source = match value.strip_prefix("service:") {
            Some(other) => {
                needs.push(other.to_owned());
                Source::Image(image_name(project, other))
            }
            // What the graph goes by is the name, so it holds the place.
            None if Address::is_one(value) => {
                remote_contexts.insert(key.clone(), value.clone());
                Source::Nothing
            }
            None => planner.source(value),
        };
        contexts.insert(key.clone(), source);
    }
    let mut labels = build.labels.clone();
    for (key, value) in [("project", project.name.as_str()), ("service", name), ("version", env!("CARGO_PKG_VERSION"))]
    {
        labels.insert(format!("com.docker.compose.{key}"), value.to_owned());
    }
    let mut allowed: BTreeSet<String> = build.entitlements.iter().cloned().collect();
    if build.privileged {
        allowed.insert("security.insecure".to_owned());
    }
    let epoch = environment.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty());
    let epoch = epoch.map(|text| text.parse::<i64>().map_err(|_| planner.wrong("SOURCE_DATE_EPOCH", text)));
    let ulimits = build.ulimits.iter();
    let (agents, keys) = planner.agents()?;
    let (cache_from, _) = planner.caches("cache_from", &build.cache_from, "src", warnings)?;
    let (cache_to, inline_cache) = planner.caches("cache_to", &build.cache_to, "dest", warnings)?;
    let request = Request {
        name: name.to_owned(),
        dockerfile: planner.dockerfile(&context),
        context,
        args: planner.args(),
        target: build.target.clone(),
        labels,
        names: planner.names()?,
        no_cache: build.no_cache || options.no_cache,
        no_cache_stages: build.no_cache_filter.clone(),
        contexts,
        secrets: planner.secrets()?,
        ssh: agents,
        extra_hosts: planner.hosts()?,
        network: planner.network()?,
        shm_size: build.shm_size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
        ulimits: ulimits.map(|(key, limit)| (key.clone(), Ulimit { soft: limit.soft, hard: limit.hard })).collect(),
        allowed,
        platform: platform(),
        source_date_epoch: epoch.transpose()?,
        cache_from,
        cache_to,
        inline_cache,
    };
    let pull = build.pull || options.pull;
    let pushed = service.is_some_and(|service| service.image.as_deref().is_some_and(|image| !image.is_empty()));
    let place = project.place(&format!("services.{name}.build")).map(|place| place.to_string());
    Ok(Planned { service: name.to_owned(), needs, pull, pushed, place, remote_context, remote_contexts, keys, request })
}

struct Planner<'a> {
    project: &'a Project,
    name: &'a str,
    build: &'a Build,
    options: &'a BuildOptions,
    environment: &'a BTreeMap<String, String>,
}

impl Planner<'_> {
    fn error(&self, attribute: &str, message: &str) -> AppError {
        let place = self.project.place(&format!("services.{}.build.{attribute}", self.name));
        let place = place.map(|place| format!("{place}: ")).unwrap_or_default();
        AppError::Usage(format!("{place}`services.{}.build.{attribute}`: {message}", self.name))
    }

    fn wrong(&self, attribute: &str, value: &str) -> AppError {
        self.error(attribute, &format!("`{value}` makes no sense here"))
    }

    /// What is refused, and what has no effect.
    fn unsupported(&self, service_platform: Option<&str>, warnings: &mut Vec<String>) -> Result<(), AppError> {
        let build = self.build;
        let ours = platform();
        for wanted in build.platforms.iter().map(String::as_str).chain(service_platform) {
            if !crate::build::same_platform(wanted, &ours) {
                let message = format!("images for `{wanted}` cannot be built on this machine, which is `{ours}`");
                return Err(self.error("platforms", &message));
            }
        }
        if build.isolation.as_deref().is_some_and(|isolation| !matches!(isolation, "" | "default")) {
            return Err(self.error("isolation", "it exists on Windows only"));
        }
        let known = |name: &&String| !matches!(name.as_str(), "network.host" | "security.insecure");
        if let Some(name) = build.entitlements.iter().find(known) {
            return Err(self.error("entitlements", &format!("`{name}` is not known")));
        }
        let on = |value: &Option<String>| value.as_deref().is_some_and(|value| !matches!(value, "" | "false"));
        for (attribute, given, why) in [
            ("provenance", on(&build.provenance), "attestations are not made"),
            ("sbom", on(&build.sbom), "attestations are not made"),
        ] {
            if given {
                warnings.push(format!("`services.{}.build.{attribute}` has no effect: {why}", self.name));
            }
        }
        Ok(())
    }

    /// Where other caches are, and whether one of them is the image itself.
    fn caches(
        &self,
        attribute: &str,
        texts: &[String],
        path_key: &str,
        warnings: &mut Vec<String>,
    ) -> Result<(Vec<CachePlace>, bool), AppError> {
        let (mut places, mut inline) = (Vec::new(), false);
        for text in texts {
            let entry = Entry::parse(text, &self.project.working_dir, path_key);
            match entry.map_err(|message| self.error(attribute, &message))? {
                Entry::Place(place) => places.push(place),
                Entry::Inline => inline = true,
                Entry::Unknown(kind) => {
                    let name = self.name;
                    warnings.push(format!(
                        "`services.{name}.build.{attribute}`: `type={kind}` has no effect; there are `registry`, `local` and `inline`"
                    ));
                }
            }
        }
        Ok((places, inline))
    }

    fn source(&self, text: &str) -> Source {
        match text.strip_prefix("docker-image://") {
            Some(image) => Source::Image(image.to_owned()),
            None => Source::Folder(self.project.working_dir.join(text)),
        }
    }

    fn dockerfile(&self, context: &Source) -> Dockerfile {
        if let Some(text) = &self.build.dockerfile_inline {
            return Dockerfile::Text(text.clone());
        }
        let name = self.build.dockerfile.as_deref().filter(|name| !name.is_empty()).unwrap_or("Dockerfile");
        let outside = Path::new(name).is_absolute() || Path::new(name).starts_with("..");
        match context {
            Source::Folder(folder) if outside => Dockerfile::File(folder.join(name)),
            _ => Dockerfile::InContext(name.to_owned()),
        }
    }

    /// A bare name takes the environment's value, or is left out.
    fn args(&self) -> BTreeMap<String, String> {
        let of_file = self.build.args.iter().map(|(name, value)| (name.clone(), value.clone()));
        let given = self.options.args.iter().map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.clone(), None),
        });
        let mut args = BTreeMap::new();
        for (name, value) in of_file.chain(given) {
            if let Some(value) = value.or_else(|| self.project.environment.get(&name).cloned()) {
                args.insert(name, value);
            }
        }
        args
    }

    fn names(&self) -> Result<Vec<Reference>, AppError> {
        let first = image_name(self.project, self.name);
        let mut names = Vec::new();
        for text in std::iter::once(&first).chain(&self.build.tags) {
            let name = Reference::parse(text).filter(|name| name.digest().is_none());
            let name = name.ok_or_else(|| self.error("tags", &format!("`{text}` is not a name for an image")))?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn secrets(&self) -> Result<BTreeMap<String, Secret>, AppError> {
        let mut secrets = BTreeMap::new();
        for reference in &self.build.secrets {
            let source = &reference.source;
            let object = self.project.secrets.get(source);
            let object = object.ok_or_else(|| self.error("secrets", &format!("there is no secret `{source}`")))?;
            let secret = match (&object.file, &object.environment, &object.content) {
                (Some(file), ..) => Secret::File(PathBuf::from(file)),
                (_, Some(variable), _) => {
                    Secret::Value(self.project.environment.get(variable).cloned().unwrap_or_default())
                }
                (.., Some(content)) => Secret::Value(content.clone()),
                _ => {
                    return Err(self
                        .error("secrets", &format!("`{source}` comes neither from a file nor from the environment")));
                }
            };
            secrets.insert(reference.target.clone().unwrap_or_else(|| source.clone()), secret);
        }
        Ok(secrets)
    }

    /// Sockets of agents; and files with keys, which get an agent of their own.
    fn agents(&self) -> Result<(BTreeMap<String, PathBuf>, Keys), AppError> {
        let of_file = self.build.ssh.iter().map(|(id, path)| (id.clone(), path.clone()));
        let given = self.options.ssh.iter().map(|text| match text.split_once('=') {
            Some((id, path)) => (id.to_owned(), Some(path.to_owned())),
            None => (text.clone(), None),
        });
        let (mut agents, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for (id, path) in of_file.chain(given) {
            let path = path.filter(|path| !path.is_empty()).or_else(|| self.environment.get("SSH_AUTH_SOCK").cloned());
            let Some(path) = path else {
                let message =
                    format!("`{id}` means the agent at SSH_AUTH_SOCK, which is not set; start one with ssh-agent");
                return Err(self.error("ssh", &message));
            };
            use std::os::unix::fs::FileTypeExt;
            let paths: Vec<_> = path.split(',').map(|path| self.project.working_dir.join(path)).collect();
            let kind = |path: &PathBuf| std::fs::metadata(path).map(|found| found.file_type());
            match paths.as_slice() {
                [one] if kind(one).is_ok_and(|kind| kind.is_socket()) => drop(agents.insert(id, one.clone())),
                _ => match paths.iter().find(|path| !kind(path).is_ok_and(|kind| kind.is_file())) {
                    None => drop(keys.insert(id, paths)),
                    Some(other) => {
                        let message = format!("`{}` is neither a key nor the socket of an agent", other.display());
                        return Err(self.error("ssh", &message));
                    }
                },
            }
        }
        Ok((agents, keys))
    }

    fn hosts(&self) -> Result<Vec<(String, String)>, AppError> {
        let hosts =
            self.build.extra_hosts.iter().map(|text| match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((host, address)) if address != "host-gateway" => Ok((host.to_owned(), address.to_owned())),
                Some((host, _)) => Ok((host.to_owned(), "127.0.0.1".to_owned())),
                None => Err(self.error("extra_hosts", &format!("`{text}` is not `HOST=ADDRESS`"))),
            });
        hosts.collect()
    }

    fn network(&self) -> Result<Network, AppError> {
        match self.build.network.as_deref() {
            None | Some("" | "default") => Ok(Network::Default),
            Some("host") => Ok(Network::Host),
            Some("none") => Ok(Network::None),
            Some(other) => {
                Err(self
                    .error("network", &format!("`{other}`: steps are connected with `default`, `host` or `none` only")))
            }
        }
    }
}
