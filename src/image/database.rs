//! The table of images and names: one small file, read whole, replaced whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::base::disk::{self, Durability};

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Database {
    version: u32,
    pub(super) images: BTreeMap<Digest, Record>,
    /// Normalised name (`docker.io/library/redis:7`) to image id.
    pub(super) names: BTreeMap<String, Digest>,
    /// `repository@digest` of a manifest that a registry has, to image id.
    #[serde(default)]
    pub(super) digests: BTreeMap<String, Digest>,
    /// Name to when it was given last, in seconds since the epoch.
    #[serde(default)]
    pub(super) named_at: BTreeMap<String, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Lowest first.
    pub(super) layers: Vec<Digest>,
    /// Sum of the layers' sizes, unpacked, in bytes.
    pub(super) size: u64,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            version: VERSION,
            images: BTreeMap::new(),
            names: BTreeMap::new(),
            digests: BTreeMap::new(),
            named_at: BTreeMap::new(),
        }
    }
}

impl Database {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let database: Self = disk::read_json(path)?.unwrap_or_default();
        if database.version == VERSION {
            return Ok(database);
        }
        let message = format!("it has version {}, this program knows version {VERSION}", database.version);
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }

    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        disk::replace_json(path, self, Durability::PowerLoss)
    }

    /// Gives an image a name; `now` in seconds since the epoch.
    pub(super) fn name(&mut self, name: String, id: Digest, now: i64) {
        self.named_at.insert(name.clone(), now);
        self.names.insert(name, id);
    }

    pub(super) fn names_of(&self, id: &Digest) -> Vec<String> {
        self.names.iter().filter(|(_, named)| *named == id).map(|(name, _)| name.clone()).collect()
    }
}
