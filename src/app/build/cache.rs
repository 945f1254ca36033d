//! Caches of build steps at registries and in folders: `cache_from` and `cache_to`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::app::App;
use crate::app::pull::chain;
use crate::build::{BuildError, CachePlace};
use crate::image::{CacheImage, CacheOffer, CachedStep, Descriptor, Digest, MadeLayer, NoCache, Reference, Workshop};
use crate::registry::{self, Registries};

/// An entry of `cache_from` or `cache_to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Place(CachePlace),
    /// In the image itself.
    Inline,
    /// A kind of cache that is not there, such as `gha`.
    Unknown(String),
}

impl Entry {
    /// Reads `NAME`, or `type=TYPE,KEY=VALUE…`; what else a kind of cache has (`mode`, compression) decides nothing here.
    ///
    /// # Errors
    /// What is missing in it.
    pub(super) fn parse(text: &str, folder: &Path, path_key: &str) -> Result<Self, String> {
        let name = |text: &str| {
            let name = Reference::parse(text).map(|name| Self::Place(CachePlace::Name(name)));
            name.ok_or_else(|| format!("`{text}` is not a name for an image"))
        };
        if !text.contains('=') {
            return name(text);
        }
        let pairs: BTreeMap<&str, &str> = text.split(',').filter_map(|pair| pair.trim().split_once('=')).collect();
        let lacks = |key: &str| format!("`{text}` lacks `{key}=`");
        match pairs.get("type").copied().unwrap_or("registry") {
            "registry" => name(pairs.get("ref").ok_or_else(|| lacks("ref"))?),
            "local" => {
                let path = pairs.get(path_key).ok_or_else(|| lacks(path_key))?;
                Ok(Self::Place(CachePlace::Folder(folder.join(path))))
            }
            "inline" => Ok(Self::Inline),
            other => Ok(Self::Unknown(other.to_owned())),
        }
    }
}

fn of_registry(error: &registry::Error) -> BuildError {
    let message = chain(error);
    error.help().map_or_else(|| BuildError::new(&message), |help| BuildError::new(&message).help(help))
}

fn usable(found: Result<CacheOffer, NoCache>) -> Result<CacheOffer, BuildError> {
    found.map_err(|none| BuildError::new(none.to_string()))
}

impl App {
    /// What a cache elsewhere has.
    pub(super) fn open_cache(&self, workshop: &Workshop<'_>, place: &CachePlace) -> Result<CacheOffer, BuildError> {
        match place {
            CachePlace::Folder(folder) if !folder.join("index.json").exists() => {
                Err(BuildError::new("no cache lies there"))
            }
            CachePlace::Folder(folder) => usable(workshop.layout(folder)?),
            CachePlace::Name(name) => {
                // An image that is here anyway; as in Docker, it comes before the registry's.
                let here = workshop.of().resolve(&name.familiar()).ok().map(|image| image.document.build_cache);
                match here.filter(|steps| !steps.is_empty()) {
                    Some(steps) => Ok(CacheOffer { steps, blobs: BTreeMap::new() }),
                    None => usable(self.asked()?.cache(name).map_err(|error| of_registry(&error))?),
                }
            }
        }
    }

    pub(super) fn bring_layer(
        &self,
        workshop: &Workshop<'_>,
        place: &CachePlace,
        layer: &Digest,
        blob: &Descriptor,
    ) -> Result<MadeLayer, BuildError> {
        match place {
            CachePlace::Folder(folder) => Ok(workshop.bring_from(folder, layer, blob)?),
            CachePlace::Name(name) => {
                let read = |input: &mut (dyn Read + Send)| workshop.bring(layer, blob, input);
                self.asked()?.read_blob(name, blob, read).map_err(|error| of_registry(&error))
            }
        }
    }

    /// Writes a cache for elsewhere.
    pub(super) fn write_cache(
        &self,
        workshop: &Workshop<'_>,
        place: &CachePlace,
        steps: Vec<CachedStep>,
    ) -> Result<(), BuildError> {
        let image = CacheImage::of(steps)?;
        match place {
            CachePlace::Folder(folder) => Ok(workshop.write_layout(folder, &image)?),
            CachePlace::Name(name) => {
                let pushed = self.asked()?.push_parts(workshop.of(), name, &image.config, &image.layers, &|_, _| {});
                pushed.map(drop).map_err(|error| of_registry(&error))
            }
        }
    }

    fn asked(&self) -> Result<Registries, BuildError> {
        self.registries().map_err(|error| BuildError::because("cannot ask registries", &error))
    }
}
