//! From a name to an image in the store.

use std::io;

use super::blob::BlobReader;
use super::client::{Registries, tag_or_digest};
use super::endpoint::Endpoint;
use super::error::Error;
use crate::image::manifest::OciManifest;
use crate::image::{self, Descriptor, Digest, LayerStep, Manifest, Offer, Platform, Reference, Store, UnpackError};

/// Configurations are kept in memory.
const MAX_CONFIG: u64 = 8 * 1024 * 1024;
/// Progress of a blob is told after so many more bytes.
const STRIDE: u64 = 256 * 1024;

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    pub id: Digest,
    /// Of what the name leads to at the registry.
    pub digest: Digest,
    /// Whether the store did not have it before.
    pub is_new: bool,
}

/// What happens to a layer, which has the digest of its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Layer(LayerStep),
    /// So many bytes have come, of so many.
    Bytes(u64, u64),
}

/// Is told what happens; from several threads.
pub type Told<'a> = &'a (dyn Fn(&Digest, Step) + Sync);

impl Registries {
    /// Takes the image `name` for `platform` into the store. What the store has already is not fetched again.
    ///
    /// # Errors
    /// The registry refuses, lies, or cannot be reached; the image is refused; the store cannot be written.
    pub fn pull(&self, store: &Store, name: &Reference, platform: &Platform, told: Told<'_>) -> Result<Pulled, Error> {
        self.first(name, |endpoint| self.pull_from(endpoint, store, name, platform, told))
    }

    fn pull_from(
        &self,
        endpoint: &Endpoint,
        store: &Store,
        name: &Reference,
        platform: &Platform,
        told: Told<'_>,
    ) -> Result<Pulled, Error> {
        let fetched = self.manifest(endpoint, name, &tag_or_digest(name))?;
        let digest = fetched.digest;
        if let Some(id) = store.name_again(name, &digest, platform)? {
            return Ok(Pulled { id, digest, is_new: false });
        }
        let manifest = self.image_manifest(endpoint, name, fetched.manifest, platform)?;
        let config = self.document(endpoint, name, &manifest.config, MAX_CONFIG)?;
        let offer = Offer {
            name: name.clone(),
            manifest: digest.clone(),
            config: (manifest.config, config),
            layers: manifest.layers,
        };
        let fetch = |blob: &Descriptor| -> io::Result<Box<dyn io::Read + Send>> {
            let (known, size) = (blob.digest.clone(), blob.size);
            let last = std::cell::Cell::new(0);
            let count = move |position: u64| {
                if position == size || position - last.get() >= STRIDE {
                    last.set(position);
                    told(&known, Step::Bytes(position, size));
                }
            };
            let reader = BlobReader::open(&self.settings, endpoint, name.path(), blob, Box::new(count));
            Ok(Box::new(reader.map_err(io::Error::other)?))
        };
        let loaded = store.take(offer, &fetch, &|layer, step| told(layer, Step::Layer(step)));
        Ok(Pulled { id: loaded.map_err(unwrapped)?.id, digest, is_new: true })
    }

    /// The manifest of the one image that is meant.
    pub(super) fn image_manifest(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        found: Manifest,
        platform: &Platform,
    ) -> Result<OciManifest, Error> {
        let mut found = found;
        // An index may name indexes, but nobody nests them deeper.
        for _ in 0..4 {
            match found {
                Manifest::Image(manifest) => return Ok(manifest),
                Manifest::Index(index) => {
                    let chosen = index.choose(platform);
                    let chosen = chosen.map_err(|source| Error::Manifest { name: name.familiar(), source })?;
                    found = self.manifest(endpoint, name, &chosen.digest.to_string())?.manifest;
                }
            }
        }
        let reason = "its indexes are nested too deep".to_owned();
        Err(Error::Protocol { registry: endpoint.registry.clone(), reason })
    }

    /// A small blob, checked.
    pub(super) fn document(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        blob: &Descriptor,
        largest: u64,
    ) -> Result<Vec<u8>, Error> {
        let registry = || endpoint.registry.clone();
        if blob.size > largest {
            let what = blob.digest.to_string();
            return Err(Error::WrongSize { registry: registry(), what, expected: largest, found: blob.size });
        }
        let mut reader = BlobReader::open(&self.settings, endpoint, name.path(), blob, Box::new(|_| {}))?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut reader, &mut bytes).map_err(|error| {
            error.downcast().unwrap_or_else(|source| Error::Broken { registry: registry(), source })
        })?;
        match Digest::of(&bytes) {
            found if found == blob.digest => Ok(bytes),
            found => Err(Error::WrongDigest { registry: registry(), expected: blob.digest.clone(), found }),
        }
    }
}

/// A registry's failure that went through the store, as it was.
pub(super) fn unwrapped(error: image::Error) -> Error {
    match error {
        image::Error::Unpack { layer, source: UnpackError::Read(source) } => match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Store(image::Error::Unpack { layer, source: UnpackError::Read(source) }),
        },
        other => Error::Store(other),
    }
}
