//! What of the store nobody needs, and how much room it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::database::Database;
use super::digest::Digest;
use super::error::{Error, cannot};
use super::locks::LayerLocks;
use super::store::{Removed, Store, familiar};

/// The room that the store takes, in bytes; unpacked, as the files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreUse {
    /// Image id to the sizes of all of its layers and of those that no other image has.
    pub images: BTreeMap<Digest, (u64, u64)>,
    /// All layers of images, each once.
    pub layers: u64,
    /// Layers that no image has: left by a pull that was broken off.
    pub unused: u64,
}

impl Store {
    /// Removes images that have no name, and with `all` those that no container was made from; and the layers that nobody
    /// has or works with. Returns what went and how many bytes that was.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn prune(&self, all: bool, in_use: &BTreeSet<Digest>) -> Result<(Removed, u64), Error> {
        let _lock = self.lock_database()?;
        let mut database = self.database()?;
        let named: BTreeSet<Digest> = database.names.values().cloned().collect();
        let goes = |id: &Digest| !in_use.contains(id) && (all || !named.contains(id));
        let deleted: Vec<Digest> = database.images.keys().filter(|id| goes(id)).cloned().collect();
        let gone: BTreeSet<&Digest> = deleted.iter().collect();
        let untagged =
            database.names.iter().filter(|(_, id)| gone.contains(id)).map(|(name, _)| familiar(name)).collect();
        database.names.retain(|_, id| !gone.contains(id));
        let names = &database.names;
        database.named_at.retain(|name, _| names.contains_key(name));
        database.digests.retain(|_, id| !gone.contains(id));
        database.images.retain(|id, _| !gone.contains(id));
        // First the table, so that a kill leaves too much and never too little.
        self.write_database(&database)?;
        for id in &deleted {
            self.discard_config(id)?;
        }
        let freed = self.discard_layers(&database)?;
        Ok((Removed { untagged, deleted }, freed))
    }

    /// Discards every layer that no image and no build step has and nobody works with; how many bytes that were.
    pub(super) fn discard_layers(&self, database: &Database) -> Result<u64, Error> {
        let mut freed = 0;
        for layer in self.layers_without_image(database)? {
            let path = self.path("layers.lock");
            let locks = LayerLocks::new(&path).map_err(cannot("open", &path))?;
            if locks.try_exclusive(&layer).map_err(cannot("lock", &path))? {
                freed += self.layer(&layer).map_or(0, |layer| layer.size);
                let folder = self.layer_path(&layer);
                self.trash().discard(&folder).map_err(cannot("discard", folder))?;
            }
        }
        Ok(freed)
    }

    fn layers_without_image(&self, database: &Database) -> Result<Vec<Digest>, Error> {
        let mut used = self.layers_of_steps();
        used.extend(database.images.values().flat_map(|record| record.layers.iter().cloned()));
        let folder = self.path("layers");
        let mut left = Vec::new();
        for entry in fs::read_dir(&folder).map_err(cannot("read", &folder))? {
            let entry = entry.map_err(cannot("read", &folder))?;
            let layer = entry.file_name().to_str().and_then(Digest::from_hex);
            left.extend(layer.filter(|layer| !used.contains(layer)));
        }
        Ok(left)
    }

    /// The room that images take.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self) -> Result<StoreUse, Error> {
        let database = self.database()?;
        let mut sizes: BTreeMap<&Digest, (u64, usize)> = BTreeMap::new();
        for record in database.images.values() {
            for layer in record.layers.iter().collect::<BTreeSet<_>>() {
                match sizes.get_mut(layer) {
                    Some((_, owners)) => *owners += 1,
                    None => drop(sizes.insert(layer, (self.layer(layer)?.size, 1))),
                }
            }
        }
        let images = database.images.iter().map(|(id, record)| {
            let layers = record.layers.iter().collect::<BTreeSet<_>>();
            let sizes: Vec<_> = layers.into_iter().filter_map(|layer| sizes.get(layer)).collect();
            let all = sizes.iter().map(|(size, _)| size).sum();
            (id.clone(), (all, sizes.iter().filter(|(_, owners)| *owners == 1).map(|(size, _)| size).sum()))
        });
        let unused = self.layers_without_image(&database)?;
        let unused = unused.iter().filter_map(|layer| self.layer(layer).ok()).map(|layer| layer.size).sum();
        Ok(StoreUse { images: images.collect(), layers: sizes.values().map(|(size, _)| size).sum(), unused })
    }

    /// `repository@digest` of an image at registries, sorted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn registry_digests(&self, id: &Digest) -> Result<Vec<String>, Error> {
        let database = self.database()?;
        let ours = database.digests.iter().filter(|(_, named)| *named == id);
        Ok(ours.map(|(name, _)| familiar(name)).collect())
    }

    /// Sizes of an image's layers, unpacked, lowest first, in bytes.
    ///
    /// # Errors
    /// A layer is damaged.
    pub fn layer_sizes(&self, id: &Digest) -> Result<Vec<u64>, Error> {
        let (_, document) = self.document(id)?;
        document.rootfs.diff_ids.iter().map(|layer| Ok(self.layer(layer)?.size)).collect()
    }
}
