//! What build steps have made, as it travels from one machine to another: an image whose configuration names, besides its
//! layers, the steps that made them. It may be an image that somebody wants anyway, or one that is nothing but a cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::config::{ImageConfig, ImageDocument, RootFs};
use super::digest::Digest;
use super::error::{Error, cannot};
use super::incoming::{blob, blob_path};
use super::layer::{self, Expected, Workplace};
use super::manifest::{CONFIG, Descriptor, INDEX, MANIFEST, MAX_LAYERS, OciIndex, OciManifest, Platform, is_index};
use super::source::Source;
use super::store::Store;
use super::workshop::{MadeLayer, Workshop};
use crate::base::disk::{self, Durability};

/// What other builders' caches have in the configuration's type.
const FOREIGN_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A step and the layer that it has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedStep {
    /// What the step depends on.
    pub key: Digest,
    pub layer: Digest,
    /// RFC 3339.
    pub created: String,
}

/// A cache that lies elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheOffer {
    pub steps: Vec<CachedStep>,
    /// The blobs of the layers.
    pub blobs: BTreeMap<Digest, Descriptor>,
}

/// Why something is no cache for us.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCache {
    #[error("it was written by another builder (BuildKit), whose steps cannot be told to be ours")]
    Foreign,
    #[error("there is no record of build steps in it")]
    Nothing,
    #[error("it is damaged: its configuration and its manifest do not fit together")]
    Invalid,
}

/// What is looked at in a configuration of any origin.
#[derive(Deserialize)]
struct Known {
    #[serde(rename = "moby.buildkit.cache.v0")]
    foreign: Option<serde_json::Value>,
}

impl CacheOffer {
    /// Reads what an image with this configuration and these layers offers.
    ///
    /// # Errors
    /// It is no cache for us.
    pub fn read(config: &[u8], layers: Vec<Descriptor>) -> Result<Self, NoCache> {
        let known: Known = serde_json::from_slice(config).map_err(|_| NoCache::Invalid)?;
        let document: ImageDocument = serde_json::from_slice(config).map_err(|_| NoCache::Invalid)?;
        if document.build_cache.is_empty() {
            return Err(if known.foreign.is_some() { NoCache::Foreign } else { NoCache::Nothing });
        }
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(NoCache::Invalid);
        }
        Ok(Self { steps: document.build_cache, blobs: diff_ids.into_iter().zip(layers).collect() })
    }

    /// Whether a manifest is another builder's cache, by the types that it names.
    pub fn is_foreign<'a>(mut media_types: impl Iterator<Item = &'a str>) -> bool {
        media_types.any(|media_type| media_type == FOREIGN_CONFIG)
    }
}

/// An image that is nothing but a cache.
#[derive(Clone, Debug)]
pub struct CacheImage {
    pub config: Vec<u8>,
    pub layers: Vec<Digest>,
}

impl CacheImage {
    /// Of the steps; of more layers than an image may have, the rest is left out.
    ///
    /// # Errors
    /// Never, in fact: all of it can be written down.
    pub fn of(mut steps: Vec<CachedStep>) -> Result<Self, Error> {
        let mut layers: Vec<Digest> = steps.iter().map(|step| step.layer.clone()).collect();
        layers.sort();
        layers.dedup();
        layers.truncate(MAX_LAYERS);
        steps.retain(|step| layers.contains(&step.layer));
        let Platform { architecture, os, variant } = Platform::host();
        let document = ImageDocument {
            created: None,
            author: None,
            architecture,
            os,
            variant,
            config: ImageConfig::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.clone() },
            history: Vec::new(),
            build_cache: steps,
        };
        let config = serde_json::to_vec(&document).map_err(io::Error::from).map_err(Error::Write)?;
        Ok(Self { config, layers })
    }
}

impl Workshop<'_> {
    /// Makes a layer of a blob that is read from elsewhere; its digests are checked.
    ///
    /// # Errors
    /// It is not what it should be, or cannot be read or unpacked.
    pub fn bring(&self, layer: &Digest, blob: &Descriptor, input: impl Read + Send) -> Result<MadeLayer, Error> {
        let folder = self.folder()?.join("layer");
        let expected = Expected { blob: Some(blob.digest.clone()), diff_id: Some(layer.clone()) };
        let going_on = AtomicBool::new(false);
        let rights = self.of().rights();
        let at = Workplace { folder: &folder, rights, boot: self.boot(), stop: &going_on };
        let made = layer::stage(input, &blob.digest.to_string(), &expected, at)?;
        Ok(MadeLayer { diff_id: made.diff_id, path: folder.join("fs"), size: made.size })
    }

    /// The cache that an OCI layout has, without its layers.
    ///
    /// # Errors
    /// It is no layout, or damaged. What is there may be no cache for us.
    pub fn layout(&self, folder: &Path) -> Result<Result<CacheOffer, NoCache>, Error> {
        let source = Source::open(folder, self.staging())?;
        let index: OciIndex = source.json("index.json")?;
        let Some(first) = index.manifests.into_iter().next() else { return Ok(Err(NoCache::Nothing)) };
        let (path, bytes) = blob(&source, &first)?;
        if is_index(&first.media_type, &bytes) {
            let index: OciIndex = source.parse(&path, &bytes)?;
            let foreign = CacheOffer::is_foreign(index.manifests.iter().map(|one| one.media_type.as_str()));
            return Ok(Err(if foreign { NoCache::Foreign } else { NoCache::Nothing }));
        }
        let manifest: OciManifest = source.parse(&path, &bytes)?;
        if CacheOffer::is_foreign(std::iter::once(manifest.config.media_type.as_str())) {
            return Ok(Err(NoCache::Foreign));
        }
        let (_, config) = blob(&source, &manifest.config)?;
        Ok(CacheOffer::read(&config, manifest.layers))
    }

    /// [`Self::bring`] from an OCI layout.
    ///
    /// # Errors
    /// As there.
    pub fn bring_from(&self, folder: &Path, layer: &Digest, blob: &Descriptor) -> Result<MadeLayer, Error> {
        let source = Source::open(folder, self.staging())?;
        let path = blob_path(&blob.digest);
        let part = source.required(&path)?;
        if part.size().map_err(cannot("read", folder))? != blob.size {
            return Err(source.refused(&path, "its size is not the one that its manifest says"));
        }
        self.bring(layer, blob, part)
    }

    /// Writes an image as an OCI layout. Layers that are there already are left as they are.
    ///
    /// # Errors
    /// A layer is damaged, or the folder cannot be written.
    pub fn write_layout(&self, folder: &Path, image: &CacheImage) -> Result<(), Error> {
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(cannot("create", &blobs))?;
        let there = self.layout(folder).ok().and_then(Result::ok);
        let there = there.unwrap_or_default().blobs;
        let whole = |blob: &&Descriptor| {
            fs::metadata(folder.join(blob_path(&blob.digest))).is_ok_and(|found| found.len() == blob.size)
        };
        let mut layers = Vec::new();
        for layer in &image.layers {
            let blob = match there.get(layer).filter(whole) {
                Some(blob) => blob.clone(),
                None => put_layer(self.of(), &blobs, layer)?,
            };
            layers.push(blob);
        }
        let put = |media_type: &str, bytes: &[u8]| {
            let digest = Digest::of(bytes);
            let path = blobs.join(digest.hex());
            disk::replace(&path, bytes, Durability::Kill).map_err(cannot("write", &path))?;
            Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
        };
        let config = put(CONFIG, &image.config)?;
        let manifest = OciManifest { schema_version: 2, media_type: MANIFEST.to_owned(), config, layers };
        let manifest = serde_json::to_vec(&manifest).map_err(io::Error::from).map_err(Error::Write)?;
        let manifests = vec![put(MANIFEST, &manifest)?];
        let index = OciIndex { schema_version: 2, media_type: INDEX.to_owned(), manifests };
        let layout = BTreeMap::from([("imageLayoutVersion", "1.0.0")]);
        let path = folder.join("oci-layout");
        disk::replace_json(&path, &layout, Durability::Kill).map_err(cannot("write", &path))?;
        // Last, so that a kill leaves the old cache or the new one.
        let path = folder.join("index.json");
        disk::replace_json(&path, &index, Durability::Kill).map_err(cannot("write", &path))
    }
}

fn put_layer(store: &Store, blobs: &Path, layer: &Digest) -> Result<Descriptor, Error> {
    let (blob, mut file) = store.compressed(layer)?;
    let path = blobs.join(blob.digest.hex());
    let partial = blobs.join(format!(".{}-{}", blob.digest.hex(), std::process::id()));
    let copied = file.rewind().and_then(|()| io::copy(&mut file, &mut File::create(&partial)?));
    copied.and_then(|_| fs::rename(&partial, &path)).map_err(cannot("write", &path))?;
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_read_again_and_what_is_none_is_told_apart() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let step = CachedStep { key: digest("key"), layer: digest("layer"), created: "2001-09-09T01:46:40Z".into() };
        let image = CacheImage::of(vec![step.clone()]).unwrap();
        let layer = Descriptor::new(MANIFEST, digest("blob"), 1);
        let read = CacheOffer::read(&image.config, vec![layer.clone()]).unwrap();
        assert_eq!((read.steps, read.blobs), (vec![step], BTreeMap::from([(digest("layer"), layer)])));
        assert_eq!(CacheOffer::read(&image.config, Vec::new()), Err(NoCache::Invalid));
        let plain = r#"{"rootfs":{"diff_ids":[]}"#;
        let read = |text: String| CacheOffer::read(text.as_bytes(), Vec::new());
        assert_eq!(read(format!("{plain}}}")), Err(NoCache::Nothing));
        assert_eq!(read(format!(r#"{plain},"moby.buildkit.cache.v0":"e30="}}"#)), Err(NoCache::Foreign));
        assert_eq!(read("<html>".to_owned()), Err(NoCache::Invalid));
    }
}
