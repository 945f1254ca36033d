//! Which step made which layer: by a hash of all that the step depends on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::error::BuildError;
use crate::image::{Digest, MadeLayer, StepRecord, Workshop};

/// What a state of a stage depends on, hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Digest);

impl Key {
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(Digest::finish(hash))
    }

    pub fn digest(&self) -> &Digest {
        &self.0
    }

    /// 64 digits.
    pub fn hex(&self) -> &str {
        self.0.hex()
    }

    /// The key of what a step makes of this state.
    pub fn then(&self, kind: &str, parts: &[&[u8]]) -> Self {
        let mut all: Vec<&[u8]> = vec![self.0.hex().as_bytes(), kind.as_bytes()];
        all.extend(parts);
        Self::of(&all)
    }
}

/// A layer, and when it was made.
#[derive(Clone, Debug)]
pub struct Step {
    pub layer: MadeLayer,
    /// RFC 3339.
    pub created: String,
    pub cached: bool,
    /// It is written down in the store.
    kept: bool,
}

/// A step in the making: others that want the same one wait for it.
type Making = Arc<Mutex<Option<Step>>>;

/// The cache of one run of the builder.
pub struct Cache<'a> {
    workshop: &'a Workshop<'a>,
    making: Mutex<HashMap<Key, Making>>,
}

impl<'a> Cache<'a> {
    pub fn new(workshop: &'a Workshop<'a>) -> Self {
        Self { workshop, making: Mutex::default() }
    }

    /// The layer that the step makes: as an earlier build (unless `fresh`), a build elsewhere (`bring`) or another part of this
    /// one has made it, or made now.
    ///
    /// # Errors
    /// Those of `make`, and of the store.
    pub fn step(
        &self,
        key: &Key,
        fresh: bool,
        bring: impl FnOnce() -> Option<(MadeLayer, String)>,
        make: impl FnOnce() -> Result<(MadeLayer, String), BuildError>,
    ) -> Result<Step, BuildError> {
        let making = Arc::clone(lock(&self.making).entry(key.clone()).or_default());
        let mut making = lock(&making);
        if let Some(step) = &*making {
            return Ok(Step { cached: true, ..step.clone() });
        }
        let found = if fresh { None } else { self.find(key)? };
        let step = match found {
            Some(step) => step,
            None => {
                let brought = if fresh { None } else { bring() };
                let cached = brought.is_some();
                let (layer, created) = brought.map_or_else(make, Ok)?;
                Step { layer, created, cached, kept: false }
            }
        };
        *making = Some(step.clone());
        Ok(step)
    }

    fn find(&self, key: &Key) -> Result<Option<Step>, BuildError> {
        let Some(StepRecord { layer, created }) = self.workshop.of().step(&key.0) else { return Ok(None) };
        let held = self.workshop.hold(&[layer])?.and_then(|layers| layers.into_iter().next());
        let Some(layer) = held else { return Ok(None) };
        Ok(Some(Step { layer, created, cached: true, kept: true }))
    }

    /// Moves all layers that were made or brought into the store, and writes down what made them.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self) -> Result<(), BuildError> {
        let steps: BTreeMap<Key, Step> = lock(&self.making)
            .iter()
            .filter_map(|(key, making)| Some((key.clone(), making.try_lock().ok()?.clone()?)))
            .filter(|(_, step)| !step.kept)
            .collect();
        let layers: Vec<MadeLayer> = steps.values().map(|step| step.layer.clone()).collect();
        self.workshop.store(&layers)?;
        for (key, step) in steps {
            let record = StepRecord { layer: step.layer.diff_id, created: step.created };
            self.workshop.of().put_step(&key.0, &record)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
