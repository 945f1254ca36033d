//! Images from Dockerfiles: the language, the stages, their steps in containers of our own engine, the cache of their layers.
//!
//! [`build`] is the way in. The text is taken apart by [`parse`], sorted into stages by [`graph`]; each stage is built in a
//! thread (`stage`), its instructions one after the other: the configuration in `state`, files in `add` and `copy`, programs in
//! `run`. A step's layer is an overlay's upper directory, which becomes a layer of the image store where it lies.

mod add;
mod archive;
pub mod args;
mod builder;
mod cache;
mod changes;
mod chmod;
mod collect;
mod context;
mod copy;
mod error;
pub mod graph;
mod ignore;
mod imports;
mod launcher;
mod lint;
mod mounts;
mod network;
pub mod parse;
mod pattern;
mod ports;
mod remote;
mod request;
mod run;
mod stage;
mod state;
mod tree;

pub use archive::unpack_context;
pub use builder::{Site, build, check};
pub use cache::Cache;
pub use changes::changed_files;
pub use collect::prune_mounts;
pub use error::{BuildError, Place};
pub use ignore::Ignore;
pub use launcher::{LAUNCHER_ROLE, Launchers, launcher_main};
pub use request::{
    BringLayer, CachePlace, Caches, Dockerfile, Event, FetchRemote, Fetched, FindImage, Network, OpenCache, Outside,
    Request, Say, Secret, Shell, Source, WriteCache,
};

/// This machine, as images name it.
pub fn platform() -> String {
    format!("linux/{}", crate::image::architecture())
}

/// Whether two platforms are the same: `amd64` is `linux/amd64`, and arm64 needs no variant.
pub fn same_platform(one: &str, other: &str) -> bool {
    let normal = |text: &str| {
        let text = text.to_ascii_lowercase();
        let text = if text.contains('/') { text } else { format!("linux/{text}") };
        let text = text.replace("x86_64", "amd64").replace("aarch64", "arm64");
        text.trim_end_matches("/v8").to_owned()
    };
    normal(one) == normal(other)
}
