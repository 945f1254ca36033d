//! Bringing layers in: each is made once, whoever wants it, and counts as soon as it is whole.
//!
//! A layer is renamed into the store when it is verified, before the disk has it: a kill cannot harm it. What a power loss
//! can harm is told by `layer.json`, which names the boot it was made in: of an earlier boot, only layers that an image
//! has are taken as good, and images are written down after their layers are on the disk.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::error::{Error, cannot};
use super::layer::Layer;
use super::locks::LayerLocks;
use super::staging::Staging;
use super::store::Store;
use crate::base::boot::boot_id;

/// A piece of work that needs layers. They stay in the store until it is dropped.
pub(super) struct Intake<'a> {
    store: &'a Store,
    pub(super) staging: Staging,
    locks: LayerLocks,
    /// Layers of images: they are on the disk.
    durable: BTreeSet<Digest>,
    boot: String,
}

impl<'a> Intake<'a> {
    pub(super) fn new(store: &'a Store) -> Result<Self, Error> {
        let path = store.path("layers.lock");
        let locks = LayerLocks::new(&path).map_err(cannot("open", &path))?;
        let boot = boot_id().map_err(cannot("read", "/proc/sys/kernel/random/boot_id"))?;
        let staging = Staging::new(store)?;
        Ok(Self { store, staging, locks, durable: store.layers_of_images()?, boot })
    }

    /// The name of this boot, for the layers' records.
    pub(super) fn boot(&self) -> &str {
        &self.boot
    }

    /// Makes sure that the store has the layer. Where nobody has made it yet, `make` does, in the directory that it
    /// returns. Waits while another process is making it. Whether it was made here.
    pub(super) fn layer(&self, layer: &Digest, make: impl FnOnce() -> Result<PathBuf, Error>) -> Result<bool, Error> {
        let path = self.store.path("layers.lock");
        let is_mine = self.locks.take(layer, || self.is_whole(layer)).map_err(cannot("lock", &path))?;
        if !is_mine {
            return Ok(false);
        }
        let made = make().and_then(|folder| self.keep(layer, &folder));
        self.locks.settle(layer, made.is_ok()).map_err(cannot("unlock", &path))?;
        made.map(|()| true)
    }

    /// Says that a layer of the store is needed; `false` when it is not there.
    pub(super) fn hold(&self, layer: &Digest) -> Result<bool, Error> {
        let path = self.store.path("layers.lock");
        let there = || self.store.layer_path(layer).exists();
        let missing = self.locks.take(layer, there).map_err(cannot("lock", &path))?;
        if missing {
            self.locks.settle(layer, false).map_err(cannot("unlock", &path))?;
        }
        Ok(!missing)
    }

    fn keep(&self, layer: &Digest, folder: &Path) -> Result<(), Error> {
        let target = self.store.layer_path(layer);
        // What is there was not whole.
        self.store.trash().discard(&target).map_err(cannot("discard", &target))?;
        fs::rename(folder, &target).map_err(cannot("move a layer to", &target))
    }

    fn is_whole(&self, layer: &Digest) -> bool {
        let folder = self.store.layer_path(layer);
        match Layer::read(&folder) {
            Ok(Some(record)) => self.durable.contains(layer) || record.boot == self.boot,
            Ok(None) | Err(_) => false,
        }
    }

    /// Waits until `layers` are on the disk; those of other images are.
    pub(super) fn sync<'b>(&self, mut layers: impl Iterator<Item = &'b Digest>) -> Result<(), Error> {
        if layers.all(|layer| self.durable.contains(layer)) { Ok(()) } else { self.staging.sync() }
    }

    /// Discards the layers that this work made and nobody else wants: after a failure that will not be tried again.
    pub(super) fn discard(&self, layers: &[Digest]) -> Result<(), Error> {
        for layer in layers {
            let path = self.store.layer_path(layer);
            if self.locks.try_exclusive(layer).map_err(cannot("lock", &path))? {
                self.store.trash().discard(&path).map_err(cannot("discard", &path))?;
            }
        }
        Ok(())
    }
}
