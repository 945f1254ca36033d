//! Which build step made which layer: one small file per step below `build/steps`, by the step's key. Losing one costs time only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{Error, cannot};
use super::store::Store;
use crate::base::disk::{self, Durability};

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub layer: Digest,
    /// RFC 3339.
    pub created: String,
}

impl Store {
    /// What the step made when it was last run; that counts as a use.
    pub fn step(&self, key: &Digest) -> Option<StepRecord> {
        let path = self.step_path(key);
        // A record that a power loss has damaged is as good as none.
        let record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        // The time of the last use; not knowing it harms nothing.
        let _ = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(record)
    }

    /// Writes down what a step has made. The layer is in the store, and stays until the record goes.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_step(&self, key: &Digest, record: &StepRecord) -> Result<(), Error> {
        let path = self.step_path(key);
        let folder = self.path("build/steps");
        fs::create_dir_all(&folder).map_err(cannot("create", &folder))?;
        disk::replace_json(&path, record, Durability::Kill).map_err(cannot("write", &path))
    }

    /// Forgets the steps that were not used for longest, until the layers that only steps have take at most `budget` bytes.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn prune_steps(&self, budget: u64) -> Result<(), Error> {
        let of_images = self.layers_of_images()?;
        let mut steps: Vec<(SystemTime, PathBuf, Digest)> = self.steps();
        steps.sort();
        let sizes: BTreeMap<Digest, u64> = steps
            .iter()
            .filter(|(.., layer)| !of_images.contains(layer))
            .map(|(.., layer)| (layer.clone(), self.layer(layer).map_or(0, |layer| layer.size)))
            .collect();
        let mut total: u64 = sizes.values().sum();
        if total <= budget {
            return Ok(());
        }
        let mut holders: BTreeMap<Digest, usize> = BTreeMap::new();
        for (.., layer) in &steps {
            *holders.entry(layer.clone()).or_default() += 1;
        }
        // To forget the steps of an image's layers would give nothing back.
        for (_, path, layer) in steps.into_iter().filter(|(.., layer)| sizes.contains_key(layer)) {
            if total <= budget {
                break;
            }
            fs::remove_file(&path).map_err(cannot("remove", &path))?;
            let left = holders.entry(layer.clone()).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                total = total.saturating_sub(sizes.get(&layer).copied().unwrap_or(0));
            }
        }
        self.discard_unused_layers()
    }

    /// Layers that steps have made.
    pub(super) fn layers_of_steps(&self) -> BTreeSet<Digest> {
        self.steps().into_iter().map(|(.., layer)| layer).collect()
    }

    /// Last use, file and layer of every step.
    fn steps(&self) -> Vec<(SystemTime, PathBuf, Digest)> {
        let Ok(entries) = fs::read_dir(self.path("build/steps")) else { return Vec::new() };
        let read = |path: PathBuf| {
            let used = fs::metadata(&path).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            let record: StepRecord = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
            Some((used, path, record.layer))
        };
        entries.filter_map(|entry| read(entry.ok()?.path())).collect()
    }

    fn step_path(&self, key: &Digest) -> PathBuf {
        self.path("build/steps").join(key.hex())
    }
}
