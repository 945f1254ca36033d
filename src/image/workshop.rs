//! Making images here: layers as overlayfs leaves them, and their images.
//!
//! A layer is a directory that something was written into (through an overlay or directly). It becomes a layer of the
//! store where it lies, without being copied. Until [`Workshop::store`] nothing is in the store; killed, all of it is swept.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::archive::archive;
use super::config::ImageDocument;
use super::database::Record;
use super::digest::Digest;
use super::error::{Error, cannot};
use super::intake::Intake;
use super::layer::Layer;
use super::reference::Reference;
use super::staging::Staging;
use super::store::Store;
use crate::base::disk::{self, Durability};

/// A place for making layers. What it uses of the store stays there while it lives.
pub struct Workshop<'a> {
    store: &'a Store,
    intake: Intake<'a>,
    /// Held while layers are moved into the store: the locks of layers are this process's, not a thread's.
    storing: Mutex<()>,
    next: AtomicU32,
}

/// A layer that is being made.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
}

/// A layer, wherever it lies at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeLayer {
    pub diff_id: Digest,
    /// Its directory for overlayfs.
    pub path: PathBuf,
    /// Sum of the sizes of its regular files, in bytes.
    pub size: u64,
}

impl Draft {
    /// The directory to write into, or the overlay's upper one.
    pub fn upper(&self) -> PathBuf {
        self.folder.join("fs")
    }

    /// The overlay's work directory.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// An empty directory that an overlay can be mounted on.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.join("root")
    }
}

impl<'a> Workshop<'a> {
    /// # Errors
    /// The store cannot be written.
    pub fn new(store: &'a Store) -> Result<Self, Error> {
        Ok(Self { store, intake: Intake::new(store)?, storing: Mutex::default(), next: AtomicU32::new(0) })
    }

    /// The store that things are made for.
    pub fn of(&self) -> &'a Store {
        self.store
    }

    pub(super) fn boot(&self) -> &str {
        self.intake.boot()
    }

    pub(super) fn staging(&self) -> &Staging {
        &self.intake.staging
    }

    /// Begins a layer.
    ///
    /// # Errors
    /// Its directories cannot be made.
    pub fn draft(&self) -> Result<Draft, Error> {
        let draft = Draft { folder: self.folder()? };
        for path in [draft.upper(), draft.work(), draft.mount_point()] {
            DirBuilder::new().mode(0o755).create(&path).map_err(cannot("create", &path))?;
        }
        Ok(draft)
    }

    /// A new directory for anything else; it goes with the workshop.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self) -> Result<PathBuf, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = self.intake.staging.path().join(format!("made-{number}"));
        DirBuilder::new().mode(0o755).create(&folder).map_err(cannot("create", &folder))?;
        Ok(folder)
    }

    /// Ends a layer: what was written is all there is to it. Times after `newest` (seconds since the epoch) become it.
    ///
    /// # Errors
    /// The tree cannot be read or the recipe not written.
    pub fn finish(&self, draft: Draft, newest: Option<i64>) -> Result<MadeLayer, Error> {
        let folder = draft.folder;
        for extra in ["work", "root"] {
            // What an overlay left there; in the store it would only lie about.
            let path = folder.join(extra);
            fs::remove_dir_all(&path).map_err(cannot("remove", &path))?;
        }
        let archived = archive(&folder, self.store.rights(), newest).map_err(cannot("archive", &folder))?;
        let layer = Layer {
            diff_id: archived.diff_id.clone(),
            size: archived.size,
            archive_size: archived.archive_size,
            boot: self.boot().to_owned(),
            displaced: Vec::new(),
        };
        let record = folder.join("layer.json");
        // Synced with all the rest before it is renamed into the store.
        disk::replace_json(&record, &layer, Durability::Kill).map_err(cannot("write", &record))?;
        Ok(MadeLayer { diff_id: layer.diff_id, path: folder.join("fs"), size: layer.size })
    }

    /// Says that these layers of the store are needed; `None` when one of them is not there.
    ///
    /// # Errors
    /// The locks cannot be taken.
    pub fn hold(&self, layers: &[Digest]) -> Result<Option<Vec<MadeLayer>>, Error> {
        // The locks are this process's: looking for a layer must not let go of what another thread of it is storing.
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            if !self.intake.hold(layer)? {
                return Ok(None);
            }
        }
        let held = layers.iter().map(|layer| {
            let record = self.store.layer(layer)?;
            let path = self.store.layer_path(layer).join("fs");
            Ok(MadeLayer { diff_id: record.diff_id, path, size: record.size })
        });
        held.collect::<Result<_, Error>>().map(Some)
    }

    /// Moves layers into the store, on disk first. Those that are there already stay as they are.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn store(&self, layers: &[MadeLayer]) -> Result<(), Error> {
        let made = |layer: &&MadeLayer| layer.path.starts_with(self.intake.staging.path());
        if !layers.iter().any(|layer| made(&layer)) {
            return Ok(());
        }
        let _storing = self.storing.lock().unwrap_or_else(PoisonError::into_inner);
        self.intake.staging.sync()?;
        for layer in layers.iter().filter(made) {
            let folder = layer.path.parent().unwrap_or(&layer.path);
            self.intake.layer(&layer.diff_id, || Ok(folder.to_owned()))?;
        }
        Ok(())
    }

    /// Writes an image down whose layers are in the store. Names that were another image's go over to it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn store_image(&self, document: &ImageDocument, names: &[Reference]) -> Result<Digest, Error> {
        let writing = || cannot("write", self.intake.staging.path());
        let config = serde_json::to_vec(document).map_err(io::Error::from).map_err(writing())?;
        let id = Digest::of(&config);
        let layers = document.rootfs.diff_ids.clone();
        let mut size = 0;
        for layer in &layers {
            size += self.store.layer(layer)?.size;
        }
        let now = jiff::Timestamp::now().as_second();
        self.store.change(|database| {
            let same = database.images.contains_key(&id);
            if !same {
                self.store.write_config(&id, &config)?;
            }
            for name in names {
                database.name(name.key(), id.clone(), now);
            }
            database.images.insert(id.clone(), Record { layers, size });
            Ok(())
        })?;
        Ok(id)
    }
}
