//! The resolved Compose project as plain values. No I/O, no YAML.
//!
//! Every attribute of the format has a typed field. Short syntaxes are expanded, paths are absolute, defaults
//! that the format itself defines are filled in; what is left to the engine's choice is `None` or empty. Where a
//! value was written is kept beside: see [`Project::place`].

mod build;
mod decode;
mod deploy;
mod map;
mod resources;
mod service;
pub mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::diagnostic::Place;

pub use build::Build;
pub use decode::{DecodeError, decode};
pub use deploy::{
    Deploy, DeviceCount, DeviceRequest, DiscreteResource, GenericResource, Limits, Placement, PlacementPreference,
    Reservations, Resources, RestartCondition, RestartPolicy, UpdateConfig,
};
pub use resources::{FileObject, Ipam, IpamPool, Model, Network, Volume};
pub use service::{
    BindOptions, BlkioConfig, Condition, CredentialSpec, Dependency, Develop, Device, EnvFile, FileReference,
    Healthcheck, Hook, ImageOptions, Logging, Port, Provider, Service, ServiceModel, ServiceNetwork, ServiceVolume,
    ThrottleDevice, TmpfsOptions, Ulimit, VolumeKind, VolumeOptions, Watch, WatchAction, WeightDevice,
};

/// Keys that start with `x-`, as written.
pub type Extensions = BTreeMap<String, serde_json::Value>;

/// A whole project: the files merged, profiles applied, consistent.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// Between the parts of the names of containers and images: `-`, or `_` where that is asked for.
    pub separator: char,
    /// Absolute; relative paths of the files were resolved from here.
    pub working_dir: PathBuf,
    /// Absolute, in the order they were merged; `-` for standard input. Included files are not among them.
    pub compose_files: Vec<PathBuf>,
    /// What interpolation could see: the process environment over `.env` files.
    pub environment: BTreeMap<String, String>,
    /// Active profiles.
    pub profiles: Vec<String>,
    /// Active services by name.
    pub services: BTreeMap<String, Service>,
    /// Names of services that are declared but not active, with their profiles.
    pub disabled_services: BTreeMap<String, Vec<String>>,
    pub networks: BTreeMap<String, Network>,
    pub volumes: BTreeMap<String, Volume>,
    pub configs: BTreeMap<String, FileObject>,
    pub secrets: BTreeMap<String, FileObject>,
    pub models: BTreeMap<String, Model>,
    pub extensions: Extensions,
    /// The same as a tree of canonical values with their places; its layout is that of `config`.
    pub tree: tree::Node,
    /// The files that places of `tree` are in.
    pub sources: tree::Sources,
}

impl Project {
    /// What a service's image is called that has no name of its own.
    pub fn default_image(&self, service: &str) -> String {
        format!("{}{}{service}", self.name, self.separator)
    }

    /// Where the value at a dotted path (`services.web.ports.0`) was written. For a value that nobody wrote
    /// (a default), the place of the nearest enclosing one that somebody did.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            let found = self.tree.at(path).and_then(|node| self.sources.place(node.mark));
            if found.is_some() || path.is_empty() {
                return found;
            }
            path = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        }
    }

    /// The canonical values of one service, as `config --format json` prints them (a `$` is not doubled).
    /// Equal trees mean equal services; paths into it name fields.
    pub fn canonical(&self, service: &str) -> Option<serde_json::Value> {
        Some(self.tree.get("services")?.get(service)?.to_json())
    }
}
