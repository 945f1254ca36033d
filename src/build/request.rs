//! What is to be built: everything that the caller decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::error::BuildError;
use crate::image::{CacheOffer, CachedStep, Descriptor, Digest, Image, MadeLayer, Reference};
use crate::spec::container::Ulimit;

/// One image to build.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Stands before the steps in what is told; empty: nothing does.
    pub name: String,
    pub context: Source,
    pub dockerfile: Dockerfile,
    pub args: BTreeMap<String, String>,
    pub target: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub names: Vec<Reference>,
    pub no_cache: bool,
    /// Stages (by name) that are built anew.
    pub no_cache_stages: Vec<String>,
    /// Additional contexts by name.
    pub contexts: BTreeMap<String, Source>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Names and addresses.
    pub extra_hosts: Vec<(String, String)>,
    pub network: Network,
    /// Bytes.
    pub shm_size: Option<u64>,
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Entitlements such as `security.insecure`.
    pub allowed: BTreeSet<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// Nothing in the image is younger: seconds since the epoch.
    pub source_date_epoch: Option<i64>,
    /// Where steps are looked for that were made elsewhere.
    pub cache_from: Vec<CachePlace>,
    /// Where all steps are written to, for elsewhere.
    pub cache_to: Vec<CachePlace>,
    /// The image says which steps have made its layers.
    pub inline_cache: bool,
}

impl Request {
    /// What stands before the names of steps.
    pub(super) fn prefix(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!("{} ", self.name) }
    }
}

/// A cache of steps beside this machine's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// At a registry.
    Name(Reference),
    /// An OCI layout.
    Folder(PathBuf),
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&name.familiar()),
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

/// Opens a cache elsewhere, without its layers.
pub type OpenCache<'a> = dyn Fn(&CachePlace) -> Result<CacheOffer, BuildError> + Sync + 'a;

/// Brings a layer that a cache elsewhere has as this blob.
pub type BringLayer<'a> = dyn Fn(&CachePlace, &Digest, &Descriptor) -> Result<MadeLayer, BuildError> + Sync + 'a;

/// Writes steps to a cache elsewhere; their layers are in the store.
pub type WriteCache<'a> = dyn Fn(&CachePlace, Vec<CachedStep>) -> Result<(), BuildError> + Sync + 'a;

/// How the builder reaches caches elsewhere.
pub struct Caches<'a> {
    pub open: &'a OpenCache<'a>,
    pub bring: &'a BringLayer<'a>,
    pub write: &'a WriteCache<'a>,
}

/// A context.
#[derive(Clone, Debug, Default)]
pub enum Source {
    #[default]
    Nothing,
    Folder(PathBuf),
    /// A folder that was fetched for this build, and goes with it.
    Fetched(PathBuf),
    /// An image of the store, by name or id.
    Image(String),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub enum Dockerfile {
    /// From the context's root.
    InContext(String),
    /// Anywhere on the host.
    File(PathBuf),
    Text(String),
}

impl Default for Dockerfile {
    fn default() -> Self {
        Self::InContext("Dockerfile".to_owned())
    }
}

/// Where a build secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    File(PathBuf),
    Value(String),
}

/// What `RUN` is connected to unless it says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Default,
    Host,
    None,
}

/// What is told while an image is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step begins. Numbers are the build's own and say nothing but which step it is.
    Begin {
        step: u32,
        title: String,
    },
    /// It has printed a line.
    Line {
        step: u32,
        text: String,
    },
    Cached {
        step: u32,
    },
    Done {
        step: u32,
    },
    Failed {
        step: u32,
        message: String,
    },
    Warning(String),
}

/// Connects a person to a terminal (its master) until the descriptor becomes readable.
pub type Shell<'a> = dyn Fn(OwnedFd, BorrowedFd<'_>) + Sync + 'a;

/// Is told what happens while an image is brought.
pub type Say<'a> = &'a (dyn Fn(String) + Sync);

/// Finds an image by name, and brings it when that is the policy.
pub type FindImage<'a> = dyn Fn(&str, Say<'_>) -> Result<Image, BuildError> + Sync + 'a;

/// What a URL has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A file, and what it is called.
    File { path: PathBuf, name: String },
    /// A repository's folder, and its commit.
    Repository { folder: PathBuf, commit: String },
}

/// Fetches a URL into an empty folder; with `true`, a repository keeps its `.git`.
pub type FetchRemote<'a> = dyn Fn(&str, &Path, bool) -> Result<Fetched, BuildError> + Sync + 'a;

/// How the builder reaches what is not its own.
pub struct Outside<'a> {
    /// For a look at what a failed step left.
    pub shell: Option<&'a Shell<'a>>,
    pub image: &'a FindImage<'a>,
    pub fetch: &'a FetchRemote<'a>,
    pub caches: Caches<'a>,
    pub tell: &'a (dyn Fn(Event) + Sync),
}
