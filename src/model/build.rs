//! How an image is built.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::decode;
use super::service::{FileReference, Ulimit};

/// `services.*.build`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Build {
    /// Absolute path, or a URL.
    pub context: String,
    /// Relative to the context.
    pub dockerfile: Option<String>,
    pub dockerfile_inline: Option<String>,
    pub additional_contexts: BTreeMap<String, String>,
    /// `None`: a bare name that no environment gave a value.
    pub args: BTreeMap<String, Option<String>>,
    /// Id to socket or key path; `default` may have no path.
    pub ssh: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "decode::text_map")]
    pub labels: BTreeMap<String, String>,
    pub cache_from: Vec<String>,
    pub cache_to: Vec<String>,
    pub no_cache: bool,
    pub no_cache_filter: Vec<String>,
    pub entitlements: Vec<String>,
    /// Name to addresses.
    pub extra_hosts: Vec<String>,
    pub isolation: Option<String>,
    pub network: Option<String>,
    pub platforms: Vec<String>,
    pub privileged: bool,
    pub provenance: Option<String>,
    pub sbom: Option<String>,
    pub pull: bool,
    pub secrets: Vec<FileReference>,
    /// Bytes.
    #[serde(deserialize_with = "decode::bytes")]
    pub shm_size: Option<i64>,
    pub tags: Vec<String>,
    pub target: Option<String>,
    pub ulimits: BTreeMap<String, Ulimit>,
}
