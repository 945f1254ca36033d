//! Bringing images in: several layers at once, each verified before it counts.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::database::Record;
use super::digest::Digest;
use super::error::{Error, UnpackError, cannot};
use super::incoming::{self, Incoming, IncomingLayer};
use super::intake::Intake;
use super::layer::{self, Expected, Layer, Workplace};
use super::reference::Reference;
use super::source::Source;
use super::store::Store;

/// An image that was brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// The names it has got, short (`redis:7`).
    pub names: Vec<String>,
}

/// How far a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStep {
    /// It is looked for, or waited for while another process makes it.
    Begun,
    /// It is in the store already.
    Found,
    /// It is whole now, and in the store.
    Made,
}

/// Opens the bytes of a layer.
pub(super) type Open<'a> = &'a (dyn Fn(&IncomingLayer) -> Result<Box<dyn Read + Send + 'a>, Error> + Sync);

impl Store {
    /// Loads the images of an archive (`docker save` or OCI layout, plain, gzip or zstd), a layout directory, or a pipe
    /// such as `/dev/stdin`. Names that were another image's go over to the new one. Memory is bounded whatever the
    /// archive's size; killed at any moment, the store is as before or has the images.
    ///
    /// # Errors
    /// The archive is damaged, refused or unreadable, or the store cannot be written; nothing is changed then.
    pub fn load(&self, path: &Path) -> Result<Vec<Loaded>, Error> {
        let intake = Intake::new(self)?;
        let source = Source::open(path, &intake.staging)?;
        self.take_in(&source, &intake)
    }

    /// [`Self::load`] from a stream that can only be read once: its archive lies on disk meanwhile.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_stream(&self, input: &mut dyn Read) -> Result<Vec<Loaded>, Error> {
        let intake = Intake::new(self)?;
        let source = Source::spool(input, "standard input".to_owned(), &intake.staging)?;
        self.take_in(&source, &intake)
    }

    fn take_in(&self, source: &Source, intake: &Intake<'_>) -> Result<Vec<Loaded>, Error> {
        let images = incoming::read(source)?;
        let open = |layer: &IncomingLayer| -> Result<Box<dyn Read + Send>, Error> {
            Ok(Box::new(source.required(&layer.member)?))
        };
        let layers: Vec<_> = images.iter().flat_map(|image| &image.layers).collect();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let (made, outcome) = self.take_layers(intake, &layers, workers, &open, &|_, _| {});
        let loaded = outcome.and_then(|()| self.commit(intake, images));
        if loaded.is_err() {
            intake.discard(&made)?;
        }
        loaded
    }

    /// Makes sure that the store has `layers`, several at once, reading those that it lacks from what `open` opens. Returns
    /// also which ones were made here, in whatever order, up to a failure.
    pub(super) fn take_layers(
        &self,
        intake: &Intake<'_>,
        layers: &[&IncomingLayer],
        workers: usize,
        open: Open<'_>,
        told: &(dyn Fn(&IncomingLayer, LayerStep) + Sync),
    ) -> (Vec<Digest>, Result<(), Error>) {
        let stop = AtomicBool::new(false);
        let mut seen = BTreeSet::new();
        let layers: Vec<&IncomingLayer> = layers.iter().copied().filter(|layer| seen.insert(&layer.diff_id)).collect();
        let queue = Mutex::new(layers.iter());
        let failure = Mutex::new(None);
        let made = Mutex::new(Vec::new());
        // A function of its own, so that the queue is not locked while a layer is unpacked.
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(layer) = next() {
                told(layer, LayerStep::Begun);
                match self.take_layer(intake, layer, open, &stop) {
                    Ok(mine) => {
                        told(layer, if mine { LayerStep::Made } else { LayerStep::Found });
                        if mine {
                            made.lock().unwrap_or_else(PoisonError::into_inner).push(layer.diff_id.clone());
                        }
                    }
                    // The one that made the others stop tells why.
                    Err(Error::Unpack { source: UnpackError::Cancelled, .. }) => {}
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..workers.min(layers.len()) {
                scope.spawn(work);
            }
            work();
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        (made.into_inner().unwrap_or_else(PoisonError::into_inner), failure.map_or(Ok(()), Err))
    }

    fn take_layer(
        &self,
        intake: &Intake<'_>,
        layer: &IncomingLayer,
        open: Open<'_>,
        stop: &AtomicBool,
    ) -> Result<bool, Error> {
        let expected = Expected { blob: layer.blob.clone(), diff_id: Some(layer.diff_id.clone()) };
        let folder = intake.staging.path().join(layer.diff_id.hex());
        if stop.load(Ordering::Relaxed) {
            return Err(UnpackError::Cancelled.of_layer(layer.member.clone(), &folder));
        }
        intake.layer(&layer.diff_id, || {
            let at = Workplace { folder: &folder, rights: self.rights(), boot: intake.boot(), stop };
            layer::stage(open(layer)?, &layer.member, &expected, at)?;
            Ok(folder.clone())
        })
    }

    /// Writes the images down, after their layers are on the disk. The layers are in the store and stay there while
    /// `intake` lives.
    pub(super) fn commit(&self, intake: &Intake<'_>, images: Vec<Incoming>) -> Result<Vec<Loaded>, Error> {
        intake.sync(images.iter().flat_map(|image| &image.layers).map(|layer| &layer.diff_id))?;
        let now = jiff::Timestamp::now().as_second();
        self.change(|database| {
            for image in &images {
                let layers: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
                let mut size = 0;
                for layer in &layers {
                    size += self.layer(layer)?.size;
                }
                self.write_config(&image.id, &image.config)?;
                for name in &image.names {
                    database.name(name.key(), image.id.clone(), now);
                }
                if let Some(digest) = &image.digest {
                    database.digests.insert(digest.clone(), image.id.clone());
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
