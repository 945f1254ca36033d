//! Which step made which layer: by a hash of all that the step depends on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::error::BuildError;
use crate::image::{Digest, MadeLayer, StepRecord, Workshop};

/// What a state of a stage depends on, hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Of the instructions and what they say. Builds elsewhere have the same.
    digest: Digest,
    /// Of the layers below that were brought from elsewhere, if any were: that they are what the instructions make is somebody
    /// else's word, on which no build of this machine stands that has not named him (`cache_from`).
    brought: Option<Digest>,
}

impl Key {
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self { digest: Digest::finish(hash), brought: None }
    }

    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// 64 digits.
    pub fn hex(&self) -> &str {
        self.digest.hex()
    }

    /// What the step is written down by on this machine, when it was made here, or brought from a place.
    fn record(&self, from: Option<&str>) -> Digest {
        if from.is_none() && self.brought.is_none() {
            return self.digest.clone();
        }
        let brought = self.brought.as_ref().map_or("", Digest::hex);
        self.then("brought", &[brought.as_bytes(), from.unwrap_or_default().as_bytes()]).digest
    }

    /// Of the state that the step has led to.
    pub fn after(self, step: &Step) -> Self {
        let below = self.brought.as_ref().map_or("", Digest::hex).to_owned();
        let layers = || Self::of(&[below.as_bytes(), step.layer.diff_id.hex().as_bytes()]).digest;
        let brought = if step.from.is_some() { Some(layers()) } else { self.brought };
        Self { brought, ..self }
    }

    /// The key of what a step makes of this state.
    pub fn then(&self, kind: &str, parts: &[&[u8]]) -> Self {
        let mut all: Vec<&[u8]> = vec![self.digest.hex().as_bytes(), kind.as_bytes()];
        all.extend(parts);
        Self { brought: self.brought.clone(), ..Self::of(&all) }
    }
}

/// A layer, and when it was made.
#[derive(Clone, Debug)]
pub struct Step {
    pub layer: MadeLayer,
    /// RFC 3339.
    pub created: String,
    pub cached: bool,
    /// Where it was brought from; `None`: this machine has made it.
    from: Option<String>,
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

    /// The layer that the step makes: as an earlier build (unless `fresh`), a build elsewhere (`bring`, now or before from one of the
    /// `places`) or another part of this one has made it, or made now.
    ///
    /// # Errors
    /// Those of `make`, and of the store.
    pub fn step(
        &self,
        key: &Key,
        fresh: bool,
        places: &[String],
        bring: impl FnOnce() -> Option<(MadeLayer, String, String)>,
        make: impl FnOnce() -> Result<(MadeLayer, String), BuildError>,
    ) -> Result<Step, BuildError> {
        let making = Arc::clone(lock(&self.making).entry(key.clone()).or_default());
        let mut making = lock(&making);
        let is_ours = |step: &&Step| step.from.as_ref().is_none_or(|from| places.contains(from));
        if let Some(step) = making.as_ref().filter(is_ours) {
            return Ok(Step { cached: true, ..step.clone() });
        }
        let step = match if fresh { None } else { self.find(key, places)? } {
            Some(step) => step,
            None => match if fresh { None } else { bring() } {
                Some((layer, created, from)) => Step { layer, created, cached: true, from: Some(from), kept: false },
                None => {
                    let (layer, created) = make()?;
                    Step { layer, created, cached: false, from: None, kept: false }
                }
            },
        };
        *making = Some(step.clone());
        Ok(step)
    }

    fn find(&self, key: &Key, places: &[String]) -> Result<Option<Step>, BuildError> {
        for from in std::iter::once(None).chain(places.iter().map(Some)) {
            let record = self.workshop.of().step(&key.record(from.map(String::as_str)));
            let Some(StepRecord { layer, created }) = record else { continue };
            let held = self.workshop.hold(&[layer])?.and_then(|layers| layers.into_iter().next());
            let Some(layer) = held else { continue };
            return Ok(Some(Step { layer, created, cached: true, from: from.cloned(), kept: true }));
        }
        Ok(None)
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
            self.workshop.of().put_step(&key.record(step.from.as_deref()), &record)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
