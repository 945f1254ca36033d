//! Text to `model`: spanned tree, interpolation, include, extends, merge, validation, normalisation. Pure but for reading files.
//!
//! ```text
//! locate  files, folder, variables (-f, COMPOSE_FILE, search upwards, .env)
//! load    per file: yaml → interpolate → extends → include → merge → validate → canonical
//! normalize → finish (types, order) → select (profiles) → checks → environment → model::decode
//! ```
//! `schema` is the one table of attributes that interpolation, merging, validation, finishing and rendering read.

mod canonical;
mod checks;
mod defaults;
mod dotenv;
mod environment;

pub mod explain;
mod extends;
mod fast;
mod files;
mod finish;
mod include;
mod interpolate;
pub mod lint;
mod load;
mod locate;
mod merge;
mod name;
mod named;
mod normalize;
mod padding;
mod path;
mod paths;
mod record;
mod remote;
pub mod render;
mod report;
mod scalar;
mod schema;
mod select;
mod shell;
mod short;
mod template;
mod validate;
mod variables;
mod yaml;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Sources, Value};
use crate::model::{self, Project};

use load::{Last, Loader, Model, Scope};
use locate::Location;
use report::Reports;
use select::Disabled;

pub use environment::env_file;
pub use name::is_project_name;
pub use named::{NamedFile, NamedFor, Naming, named_files, rename_files};
pub use remote::{Remotes, Unfetched, is_remote};
pub use shell::split as split_command;
pub use short::{VolumeSource, volume_source};
pub use variables::Variable;

/// What to load and how.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where the command was given; absolute.
    pub working_dir: PathBuf,
    /// `-f`, in order; `-` is standard input. Empty: `COMPOSE_FILE`, else searched for upwards.
    pub files: Vec<String>,
    pub project_directory: Option<PathBuf>,
    pub project_name: Option<String>,
    /// Active profiles; empty: `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    pub env_files: Vec<PathBuf>,
    /// The text of one more Compose file, merged over the others: what flags of a command add.
    pub overlay: Option<String>,
    /// Services named on the command line; empty means all. Their profiles become active; services that they do
    /// not need are dropped.
    pub services: Vec<String>,
    /// Keep networks, volumes, configs and secrets that no active service uses.
    pub all_resources: bool,
    pub no_interpolate: bool,
    pub no_normalize: bool,
    /// Names of containers and images have `_` between their parts, as those of docker-compose 1 had.
    pub compatibility: bool,
    pub no_path_resolution: bool,
    pub no_consistency: bool,
    /// Who fetches files that lie elsewhere; without one they are refused.
    pub remotes: Option<Remotes>,
}

/// What came of it: no project when there is an error among the diagnostics.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    pub project: Option<Project>,
    pub diagnostics: Vec<Diagnostic>,
}

/// A project as a tree of canonical values only, for `config`.
#[derive(Clone, Debug, Default)]
pub struct LoadedTree {
    pub tree: Option<Node>,
    /// What variables of the files could be replaced by.
    pub environment: BTreeMap<String, String>,
    /// Declared services that are not active, with their profiles.
    pub disabled_services: BTreeMap<String, Vec<String>>,
    /// The files that the marks of the tree point into.
    pub sources: Sources,
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads the project that `options` name, as seen with the variables of `environment`.
pub fn load(options: &LoadOptions, environment: &BTreeMap<String, String>) -> Loaded {
    let mut reports = Reports::default();
    let resolved = finished(options, environment, &mut reports);
    let resolved = resolved.and_then(|merged| resolve(options, merged, &mut reports));
    let separator = if options.compatibility { '_' } else { '-' };
    let project = resolved.and_then(|resolved| typed(resolved, separator, &mut reports));
    Loaded { project: project.filter(|_| reports.errors() == 0), diagnostics: reports.sorted() }
}

/// Loads the project as [`load_tree`] does, but without replacing variables; keys are sorted.
pub fn load_uninterpolated(options: &LoadOptions, environment: &BTreeMap<String, String>) -> LoadedTree {
    let options = LoadOptions { no_interpolate: true, ..options.clone() };
    let mut reports = Reports::default();
    let tree = merged(&options, environment, &|_, _, _| {}, &mut reports).map(|merged| {
        let mut tree = merged.tree;
        sort(&mut tree);
        tree
    });
    let tree = tree.filter(|_| reports.errors() == 0);
    LoadedTree { tree, diagnostics: reports.sorted(), sources: reports.sources, ..LoadedTree::default() }
}

/// Loads the project as [`load`] does, up to the tree that `config` prints: a few values that no engine could take,
/// such as the port 99999, are let through, as in the reference.
pub fn load_tree(options: &LoadOptions, environment: &BTreeMap<String, String>) -> LoadedTree {
    let mut reports = Reports::default();
    let resolved = finished(options, environment, &mut reports);
    let resolved = resolved.and_then(|merged| resolve(options, merged, &mut reports));
    let resolved = resolved.filter(|_| reports.errors() == 0);
    let diagnostics = reports.sorted();
    let sources = reports.sources;
    match resolved {
        Some(Resolved { tree, location, disabled, .. }) => LoadedTree {
            tree: Some(tree),
            environment: location.environment,
            disabled_services: select::disabled_profiles(&disabled),
            sources,
            diagnostics,
        },
        None => LoadedTree { sources, diagnostics, ..LoadedTree::default() },
    }
}

/// The JSON Schema of a Compose file, made from the loader's own table of attributes.
pub fn json_schema() -> serde_json::Value {
    schema::document()
}

/// The variables that a tree of [`load_uninterpolated`] names, by name.
pub fn variables(tree: &Node) -> Vec<Variable> {
    variables::of(tree)
}

fn sort(node: &mut Node) {
    if let Some(list) = node.as_list_mut() {
        list.iter_mut().for_each(sort);
    }
    if let Some(map) = node.as_map_mut() {
        map.sort_keys();
        map.values_mut().for_each(|(_, node)| sort(node));
    }
}

/// A normalised tree and what it took to get there.
struct Merged {
    tree: Node,
    name: String,
    location: Location,
    /// There was no error: it is good for more than for finding further ones.
    sound: bool,
}

fn merged(
    options: &LoadOptions,
    process: &BTreeMap<String, String>,
    last: Last<'_>,
    reports: &mut Reports,
) -> Option<Merged> {
    let mut location = locate::locate(options, process, reports)?;
    let home = location.environment.get("HOME").cloned();
    let mut loader = Loader { options, home, reports, reads: 0, inherited: 0 };
    let mut inputs = loader.read_all(&location.files, Mark::default());
    if inputs.complete && inputs.files.iter().all(|input| input.documents.is_empty()) {
        let shown = location.files.iter().map(|file| format!("`{}`", file.display())).collect::<Vec<_>>().join(", ");
        let message = format!("empty compose file: {shown}");
        loader.reports.error_with_help("empty-file", Mark::default(), message, "it needs at least `services:`");
        return None;
    }
    if let Some(text) = &options.overlay {
        inputs.files.push(loader.overlay(text)?);
    }
    let folder = location.working_dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let interpolate = !options.no_interpolate;
    let explicit = options.project_name.as_deref();
    let name = name::project(explicit, &inputs, &folder, &location.environment, interpolate, loader.reports)?;
    location.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let shown = if options.no_path_resolution { PathBuf::new() } else { location.folder.clone() };
    let scope = Scope::new(location.folder.clone(), shown, location.environment.clone());
    // As in the reference, nothing takes its value from the environment when variables are to stay.
    let known = if options.no_interpolate { BTreeMap::new() } else { location.environment.clone() };
    let last: Last<'_> = &|name, service, reports| {
        if !options.no_normalize
            && let Some(service) = service.as_map_mut()
        {
            normalize::service(service, &known);
        }
        last(name, service, reports);
    };
    let Model { mut tree, sound } = loader.model(inputs, &scope, last)?;
    if tree.as_map().is_none_or(Map::is_empty) {
        loader.reports.error("empty-file", Mark::default(), "empty compose file: it has no keys");
        return None;
    }
    if options.no_normalize {
        let map = tree.as_map_mut()?;
        map.insert("name".into(), (Mark::default(), Node::string(name.as_str(), Mark::default())));
        normalize::empty_resources(&mut tree);
    } else {
        normalize::project(&mut tree, &name);
    }
    Some(Merged { tree, name, location, sound })
}

/// The active part of a project, every value of its type.
struct Resolved {
    tree: Node,
    name: String,
    location: Location,
    profiles: Vec<String>,
    disabled: Disabled,
}

/// The whole project, every value of its type, whether its services are active or not.
fn finished(options: &LoadOptions, process: &BTreeMap<String, String>, reports: &mut Reports) -> Option<Merged> {
    // Services are finished one by one, together with what comes before: a large project does not fit into a cache.
    let last: Last<'_> = &|name, service, reports| {
        let (before, sound) = (reports.diagnostics.len(), reports.errors() == 0);
        *service = finish::service(name, std::mem::take(service), reports);
        if !sound {
            reports.keep_certain(before);
        }
    };
    let Merged { mut tree, name, location, sound } = merged(options, process, last, reports)?;
    let before = reports.diagnostics.len();
    if let Some(map) = tree.as_map_mut() {
        let none = || (Mark::default(), Node::new(Value::from(Map::default()), Mark::default()));
        map.get_or_insert_with("services".into(), none);
    }
    let tree = finish::project(tree, reports);
    reports.ignore(&lint::ignored(&tree));
    let merged = Merged { tree, name, location, sound: reports.errors() == 0 };
    if merged.sound {
        return Some(merged);
    }
    if !sound {
        reports.keep_certain(before);
    }
    references(options, merged, reports);
    None
}

/// Adds to the errors of a project those of references that are wrong whatever the mending of the others brings.
fn references(options: &LoadOptions, merged: Merged, reports: &mut Reports) {
    if options.no_consistency {
        return;
    }
    let before = reports.diagnostics.len();
    let Merged { mut tree, location, .. } = merged;
    let disabled = select::apply_profiles(&mut tree, &active_profiles(options, &location.environment));
    checks::consistency(&checks::Scene { tree: &tree, disabled: &select::disabled_profiles(&disabled) }, reports);
    reports.keep_certain(before);
}

fn resolve(options: &LoadOptions, merged: Merged, reports: &mut Reports) -> Option<Resolved> {
    let Merged { mut tree, name, location, .. } = merged;
    let mut profiles = active_profiles(options, &location.environment);
    let mut disabled = select::apply_profiles(&mut tree, &profiles);
    if !options.no_consistency {
        let scene = checks::Scene { tree: &tree, disabled: &select::disabled_profiles(&disabled) };
        checks::consistency(&scene, reports);
        normalize::scales(&mut tree);
    }
    select::enable(&mut tree, &mut disabled, &options.services, &mut profiles);
    environment::services(&mut tree, &location.environment, &options.working_dir, reports);
    if !options.services.is_empty() {
        select::services(&mut tree, &options.services, &mut disabled, reports)?;
    }
    if !options.all_resources {
        select::drop_unused(&mut tree);
    }
    (reports.errors() == 0).then_some(Resolved { tree, name, location, profiles, disabled })
}

fn active_profiles(options: &LoadOptions, environment: &BTreeMap<String, String>) -> Vec<String> {
    if !options.profiles.is_empty() {
        return options.profiles.clone();
    }
    let named = environment.get("COMPOSE_PROFILES").map(String::as_str).unwrap_or_default();
    named.split(',').map(str::trim).filter(|profile| !profile.is_empty()).map(str::to_owned).collect()
}

/// The typed project of a finished tree.
fn typed(resolved: Resolved, separator: char, reports: &mut Reports) -> Option<Project> {
    let Resolved { tree, name, location, profiles, disabled } = resolved;
    checks::port_numbers(&tree, reports);
    let mut services: BTreeMap<String, model::Service> = entries(&tree, "services", reports)?;
    for (name, service) in &mut services {
        service.name.clone_from(name);
    }
    let extensions = tree.as_map().into_iter().flatten().filter(|(key, _)| key.starts_with("x-"));
    let extensions = extensions.map(|(key, (_, node))| (key.to_string(), node.to_json())).collect();
    Some(Project {
        name,
        separator,
        working_dir: location.folder,
        compose_files: location.files,
        environment: location.environment,
        profiles,
        services,
        disabled_services: select::disabled_profiles(&disabled),
        networks: entries(&tree, "networks", reports)?,
        volumes: entries(&tree, "volumes", reports)?,
        configs: entries(&tree, "configs", reports)?,
        secrets: entries(&tree, "secrets", reports)?,
        models: entries(&tree, "models", reports)?,
        extensions,
        tree,
        sources: reports.sources.clone(),
    })
}

fn entries<T: for<'de> serde::Deserialize<'de>>(
    tree: &Node,
    kind: &str,
    reports: &mut Reports,
) -> Option<BTreeMap<String, T>> {
    let empty = Map::default();
    let resources = tree.get(kind).and_then(Node::as_map).unwrap_or(&empty);
    let mut typed = BTreeMap::new();
    for (name, (_, node)) in resources {
        match model::decode(node) {
            Ok(value) => {
                typed.insert(name.to_string(), value);
            }
            Err(error) => {
                reports.error("invalid-value", error.mark, format!("`{kind}.{name}`: {error}"));
            }
        }
    }
    (reports.errors() == 0).then_some(typed)
}
