//! The image store: blobs by digest, unpacked layers, names, load and import, and the host image.
//!
//! [`Store`] is the way in. Archives are hostile: what they say is checked against digests, and their paths are resolved
//! by the kernel inside the layer's own root. The store knows no registry and no container.

mod archive;
mod attributes;
mod blobs;
mod cached;
mod changes;
mod commit;
mod compression;
mod config;
mod database;
mod digest;
pub(crate) mod entries;
mod error;
mod host;
mod import;
mod incoming;
mod intake;
mod layer;
mod load;
mod locks;
pub mod manifest;
mod prune;
mod pull;
mod recipe;
mod reference;
mod save;
mod share;
mod shelf;
mod source;
mod staging;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod unpack;
mod workshop;

pub use cached::{CacheImage, CacheOffer, CachedStep, NoCache};
pub use commit::Commit;
pub use compression::Compression;
pub use config::{Healthcheck, History, ImageConfig, ImageDocument, RootFs};
pub use digest::Digest;
pub use error::{Error, UnpackError};
pub use host::NAME as HOST_IMAGE;
pub use incoming::architecture;
pub use load::{LayerStep, Loaded};
pub use manifest::{Descriptor, Manifest, Platform};
pub use prune::StoreUse;
pub use pull::{Fetch, Offer};
pub use reference::Reference;
pub use save::Format;
pub use share::Shared;
pub use shelf::{Kept, Repository, Shelf, ShelfError, Upload, Which};
pub use steps::StepRecord;
pub use store::{HostTree, Image, Removed, Store};
pub use workshop::{Draft, MadeLayer, Workshop};
