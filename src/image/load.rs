//! Bringing images in: several layers at once, each verified before it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::database::Record;
use super::digest::Digest;
use super::error::{Error, UnpackError, cannot};
use super::incoming::{self, Incoming, IncomingLayer};
use super::layer::{self, Expected, Layer};
use super::locks::LayerLocks;
use super::reference::Reference;
use super::source::Source;
use super::staging::Staging;
use super::store::Store;

/// An image that was brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// The names it has got, short (`redis:7`).
    pub names: Vec<String>,
}

impl Store {
    /// Loads the images of an archive (`docker save` or OCI layout, plain, gzip or zstd), a layout directory, or a pipe
    /// such as `/dev/stdin`. Names that were another image's go over to the new one. Memory is bounded whatever the
    /// archive's size; killed at any moment, the store is as before or has the images.
    ///
    /// # Errors
    /// The archive is damaged, refused or unreadable, or the store cannot be written; nothing is changed then.
    pub fn load(&self, path: &Path) -> Result<Vec<Loaded>, Error> {
        let staging = Staging::new(self)?;
        let source = Source::open(path, &staging)?;
        self.take_in(&source, &staging)
    }

    /// [`Self::load`] from a stream that can only be read once: its archive lies on disk meanwhile.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_stream(&self, input: &mut dyn Read) -> Result<Vec<Loaded>, Error> {
        let staging = Staging::new(self)?;
        let source = Source::spool(input, "standard input".to_owned(), &staging)?;
        self.take_in(&source, &staging)
    }

    fn take_in(&self, source: &Source, staging: &Staging) -> Result<Vec<Loaded>, Error> {
        let images = incoming::read(source)?;
        let layers: BTreeMap<_, _> = images.iter().flat_map(|image| &image.layers).map(|l| (&l.diff_id, l)).collect();
        let wanted: BTreeSet<Digest> = layers.keys().map(|diff_id| (*diff_id).clone()).collect();
        let (_locks, missing) = self.claim(&wanted)?;
        let missing: Vec<_> = missing.iter().filter_map(|diff_id| layers.get(diff_id).copied()).collect();
        self.unpack_all(source, &missing, staging)?;
        self.keep_layers(staging, missing.iter().map(|layer| &layer.diff_id))?;
        self.commit(images)
    }

    /// Says that `layers` are needed, until the locks are dropped, and which of them are now the caller's to make.
    pub(super) fn claim(&self, layers: &BTreeSet<Digest>) -> Result<(LayerLocks, BTreeSet<Digest>), Error> {
        let path = self.path("layers.lock");
        let locks = LayerLocks::new(&path).map_err(cannot("open", &path))?;
        let missing = locks.take(layers, |layer| self.layer_path(layer).exists()).map_err(cannot("lock", &path))?;
        Ok((locks, missing))
    }

    fn unpack_all(&self, source: &Source, layers: &[&IncomingLayer], staging: &Staging) -> Result<(), Error> {
        let stop = AtomicBool::new(false);
        let queue = Mutex::new(layers.iter());
        let failure = Mutex::new(None);
        // A function of its own, so that the queue is not locked while a layer is unpacked.
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(layer) = next() {
                match self.unpack_one(source, layer, staging.path(), &stop) {
                    // The one that made the others stop tells why.
                    Ok(()) | Err(Error::Unpack { source: UnpackError::Cancelled, .. }) => {}
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        let workers = thread::available_parallelism().map_or(1, usize::from).min(layers.len());
        thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn unpack_one(
        &self,
        source: &Source,
        layer: &IncomingLayer,
        staging: &Path,
        stop: &AtomicBool,
    ) -> Result<(), Error> {
        if stop.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled.of_layer(layer.member.clone(), staging));
        }
        let expected = Expected { blob: layer.blob.clone(), diff_id: Some(layer.diff_id.clone()) };
        let input = source.required(&layer.member)?;
        let folder = staging.join(layer.diff_id.hex());
        layer::stage(input, &layer.member, &expected, &folder, self.rights(), stop).map(drop)
    }

    /// Moves finished layers from the staging directory into the store, on disk first.
    pub(super) fn keep_layers<'a>(
        &self,
        staging: &Staging,
        layers: impl ExactSizeIterator<Item = &'a Digest>,
    ) -> Result<(), Error> {
        if layers.len() == 0 {
            return Ok(());
        }
        staging.sync()?;
        for layer in layers {
            let (from, to) = (staging.path().join(layer.hex()), self.layer_path(layer));
            std::fs::rename(&from, &to).map_err(cannot("move a layer to", &to))?;
        }
        Ok(())
    }

    /// Writes the images down. Their layers are in the store and locked.
    pub(super) fn commit(&self, images: Vec<Incoming>) -> Result<Vec<Loaded>, Error> {
        self.change(|database| {
            for image in &images {
                let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
                let mut size = 0;
                for layer in &layers {
                    size += self.layer(layer)?.size;
                }
                self.write_config(&image.id, &image.config)?;
                for name in &image.names {
                    database.names.insert(name.key(), image.id.clone());
                }
                database.images.insert(image.id.clone(), Record { layers, size });
            }
            Ok(())
        })?;
        let names = |names: &[Reference]| names.iter().map(Reference::familiar).collect();
        Ok(images.into_iter().map(|image| Loaded { names: names(&image.names), id: image.id }).collect())
    }

    pub(super) fn layer(&self, layer: &Digest) -> Result<Layer, Error> {
        let folder = self.layer_path(layer);
        let record = Layer::read(&folder).map_err(cannot("read", &folder))?;
        record.ok_or_else(|| Error::DamagedLayer { layer: layer.clone(), source: None })
    }
}
