//! Caches of build steps at registries: images whose configuration has a record of them.

use std::io::Read;

use super::blob::BlobReader;
use super::client::{Registries, tag_or_digest};
use super::error::Error;
use crate::image::manifest::ManifestError;
use crate::image::{CacheOffer, Descriptor, Manifest, NoCache, Platform, Reference};

/// Configurations are kept in memory.
const MAX_CONFIG: u64 = 8 * 1024 * 1024;

impl Registries {
    /// The cache that a name leads to, without its layers.
    ///
    /// # Errors
    /// The registry refuses or cannot be reached. What is there may be no cache for us.
    pub fn cache(&self, name: &Reference) -> Result<Result<CacheOffer, NoCache>, Error> {
        self.first(name, |endpoint| {
            let found = match self.manifest(endpoint, name, &tag_or_digest(name)) {
                Err(Error::Manifest { source: ManifestError::NoImage(kind), .. })
                    if CacheOffer::is_foreign(std::iter::once(kind.as_str())) =>
                {
                    return Ok(Err(NoCache::Foreign));
                }
                found => found?.manifest,
            };
            if let Manifest::Index(index) = &found
                && CacheOffer::is_foreign(index.manifests.iter().map(|one| one.media_type.as_str()))
            {
                return Ok(Err(NoCache::Foreign));
            }
            let manifest = self.image_manifest(endpoint, name, found, &Platform::host())?;
            let config = self.document(endpoint, name, &manifest.config, MAX_CONFIG)?;
            Ok(CacheOffer::read(&config, manifest.layers))
        })
    }

    /// Reads a blob of the repository; whoever reads checks its digest.
    ///
    /// # Errors
    /// As [`Self::cache`], and those of `read`.
    pub fn read_blob<T>(
        &self,
        name: &Reference,
        blob: &Descriptor,
        read: impl Fn(&mut (dyn Read + Send)) -> Result<T, crate::image::Error>,
    ) -> Result<T, Error> {
        self.first(name, |endpoint| {
            let mut reader = BlobReader::open(&self.settings, endpoint, name.path(), blob, Box::new(|_| {}))?;
            read(&mut reader).map_err(super::pull::unwrapped)
        })
    }
}
