//! Images of the store as a registry shows them: their layers as plain archives, written again when they are asked for.

use std::fs::File;
use std::io::{self, Write};

use super::digest::Digest;
use super::error::{Error, cannot};
use super::host;
use super::manifest::{CONFIG, Descriptor, LAYER, MANIFEST, OciManifest};
use super::reference::Reference;
use super::save;
use super::shelf::{Kept, Repository};
use super::store::Store;

/// A blob of a shared image.
#[derive(Debug)]
pub enum Shared {
    /// A configuration.
    Document(Vec<u8>),
    /// A layer, with the size of its archive in bytes; see [`Store::write_layer`].
    Layer(u64),
}

impl Store {
    /// Tags under which images of the store are seen in a repository: the store's `docker.io/me/app:1` is `me/app:1`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn shared_tags(&self, repository: &Repository) -> Result<Vec<String>, Error> {
        let database = self.database()?;
        let names = database.names.keys().filter_map(|name| Reference::parse(name));
        let ours = names.filter(|name| is_in(name, repository));
        Ok(ours.filter_map(|name| name.tag().map(str::to_owned)).collect())
    }

    /// The manifest of the image that is `repository:tag` in the store.
    ///
    /// # Errors
    /// The image is damaged, or the store cannot be read.
    pub fn shared_manifest(&self, repository: &Repository, tag: &str) -> Result<Option<Kept>, Error> {
        let name = format!("{}:{tag}", repository.name());
        let local = Reference::parse(&name).filter(|name| is_in(name, repository));
        if local.is_none() || host::is_host(&name) {
            return Ok(None);
        }
        let image = match self.resolve(&name) {
            Err(Error::NotFound { .. } | Error::BadName { .. }) => return Ok(None),
            image => image?,
        };
        let (config, document) = self.document(&image.id)?;
        let mut layers = Vec::new();
        for layer in document.rootfs.diff_ids {
            let size = self.layer(&layer)?.archive_size;
            layers.push(Descriptor::new(LAYER, layer, size));
        }
        let config = Descriptor::new(CONFIG, image.id, config.len() as u64);
        let manifest = OciManifest { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers };
        let bytes = serde_json::to_vec(&manifest).map_err(io::Error::from).map_err(cannot("write", self.path("")))?;
        Ok(Some(Kept { digest: Digest::of(&bytes), media_type: MANIFEST.to_owned(), bytes }))
    }

    /// A blob of an image that is in the repository.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn shared_blob(&self, repository: &Repository, blob: &Digest) -> Result<Option<Shared>, Error> {
        let database = self.database()?;
        let ours = |name: &&String| Reference::parse(name).is_some_and(|name| is_in(&name, repository));
        for id in database.names.iter().filter(|(name, _)| ours(name)).map(|(_, id)| id) {
            if id == blob {
                return Ok(Some(Shared::Document(self.document(id)?.0)));
            }
            if database.images.get(id).is_some_and(|record| record.layers.contains(blob)) {
                return Ok(Some(Shared::Layer(self.layer(blob)?.archive_size)));
            }
        }
        Ok(None)
    }

    /// Writes a layer's archive, byte for byte as it came.
    ///
    /// # Errors
    /// The layer is damaged, or `output` cannot be written.
    pub fn write_layer(&self, layer: &Digest, output: &mut dyn Write) -> Result<(), Error> {
        save::replay(self, layer, output)?.map_err(Error::Write)
    }

    /// A file without a name, for bytes that have to wait.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<File, Error> {
        let path = self.path("tmp");
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        Ok(File::from(file.map_err(io::Error::from).map_err(cannot("create a file in", &path))?))
    }
}

/// Docker Hub's names and those without a registry are seen without it; `library/redis` is `redis`, too.
fn is_in(name: &Reference, repository: &Repository) -> bool {
    name.registry() == "docker.io"
        && (name.path() == repository.name() || name.familiar_repository() == repository.name())
}
