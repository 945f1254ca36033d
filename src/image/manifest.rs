//! Manifests and indexes: the JSON documents that tie an image's configuration and layers together, in OCI's words and in
//! Docker's older ones.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// More layers than overlayfs mounts.
pub(super) const MAX_LAYERS: usize = 500;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A layer that is not compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// <https://github.com/opencontainers/image-spec/blob/main/image-index.md>
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciIndex {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

/// <https://github.com/opencontainers/image-spec/blob/main/manifest.md>
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciManifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// <https://github.com/opencontainers/image-spec/blob/main/descriptor.md>
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// What `digest` names, with its size in bytes.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
    }

    /// Whether it is an image at all: attestations lie in the same index and are none.
    pub(super) fn is_image(&self) -> bool {
        let unknown = self.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        !unknown && !self.annotations.contains_key("vnd.docker.reference.type")
    }
}

/// What an image runs on, in the words of the Go language.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// `os/architecture[/variant]`; `None` for anything else. `amd64` and its like alone are Linux.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match *parts.as_slice() {
            [architecture @ ("amd64" | "arm64" | "386" | "arm" | "riscv64" | "ppc64le" | "s390x")] => {
                ("linux", architecture, None)
            }
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return None,
        };
        let word =
            |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if ![os, architecture, variant.unwrap_or("-")].into_iter().all(word) {
            return None;
        }
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Some(Self {
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            // The only variant that arm64 had for long; images say it or leave it out.
            variant: variant.filter(|variant| (architecture, *variant) != ("arm64", "v8")).map(str::to_owned),
        })
    }

    /// Whether an image of the platform `other` is what was asked for: where we have no variant, any will do.
    pub fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// A manifest of either kind.
#[derive(Clone, Debug)]
pub enum Manifest {
    /// One image for several platforms.
    Index(OciIndex),
    Image(OciManifest),
}

/// Why a manifest is not one that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(
        "it is in the old format `schema 1`, which registries have given up; push the image again with a newer client"
    )]
    Schema1,
    #[error("it is of the type `{0}`, which is no image")]
    NoImage(String),
    #[error("it is not valid")]
    Json(#[from] serde_json::Error),
    #[error("it has {0} layers, more than can be mounted ({MAX_LAYERS})")]
    TooManyLayers(usize),
    #[error("there is no image for `{wanted}` in it, only for {}", offered.join(", "))]
    NoPlatform { wanted: Platform, offered: Vec<String> },
}

impl Manifest {
    /// Reads a document of the type that its sender says, which may be empty.
    ///
    /// # Errors
    /// It is no such thing.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            schema_version: Option<u32>,
            #[serde(default)]
            media_type: String,
        }
        let kind: Kind = serde_json::from_slice(bytes)?;
        if kind.schema_version == Some(1) {
            return Err(ManifestError::Schema1);
        }
        // The document's own word counts: a header may be anything (`text/plain` from a plain file server).
        let media_type = if kind.media_type.is_empty() { media_type } else { &kind.media_type };
        if is_index(media_type, bytes) {
            return Ok(Self::Index(serde_json::from_slice(bytes)?));
        }
        let manifest: OciManifest = serde_json::from_slice(bytes)?;
        if !matches!(
            manifest.config.media_type.as_str(),
            "" | CONFIG | "application/vnd.docker.container.image.v1+json"
        ) {
            return Err(ManifestError::NoImage(manifest.config.media_type));
        }
        match manifest.layers.len() {
            count if count > MAX_LAYERS => Err(ManifestError::TooManyLayers(count)),
            _ => Ok(Self::Image(manifest)),
        }
    }
}

impl OciIndex {
    /// The image for a platform: the first that fits, one without a variant before all others.
    ///
    /// # Errors
    /// [`ManifestError::NoPlatform`].
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor, ManifestError> {
        let images = || self.manifests.iter().filter(|one| one.is_image());
        let fits = |one: &&Descriptor| one.platform.as_ref().is_some_and(|platform| wanted.accepts(platform));
        let exact = |one: &&Descriptor| one.platform.as_ref() == Some(wanted);
        let found = images().find(exact).or_else(|| images().find(fits));
        found.or_else(|| images().find(|one| one.platform.is_none())).ok_or_else(|| ManifestError::NoPlatform {
            wanted: wanted.clone(),
            offered: images().filter_map(|one| one.platform.as_ref().map(|platform| format!("`{platform}`"))).collect(),
        })
    }
}

/// Whether it is an index; what does not say its type is looked at.
pub(super) fn is_index(media_type: &str, bytes: &[u8]) -> bool {
    match media_type {
        INDEX | DOCKER_INDEX => true,
        MANIFEST | DOCKER_MANIFEST => false,
        _ => serde_json::from_slice::<OciIndex>(bytes).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> String {
        Digest::of(text.as_bytes()).to_string()
    }

    #[test]
    fn the_platform_asked_for_is_chosen() {
        let entry =
            |name: &str, platform: &str| format!(r#"{{"digest":"{}","size":1,"platform":{platform}}}"#, digest(name));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{}]}}"#,
            entry("v6", r#"{"os":"linux","architecture":"arm","variant":"v6"}"#),
            entry("v7", r#"{"os":"linux","architecture":"arm","variant":"v7"}"#),
            entry("amd", r#"{"os":"linux","architecture":"amd64"}"#),
            entry("attestation", r#"{"os":"unknown","architecture":"unknown"}"#),
        );
        let Manifest::Index(index) = Manifest::parse("", text.as_bytes()).unwrap() else { panic!("no index") };
        let chosen = |wanted: &str| index.choose(&Platform::parse(wanted).unwrap()).map(|one| one.digest.clone());
        assert_eq!(chosen("linux/amd64").unwrap(), Digest::of(b"amd"));
        assert_eq!(chosen("linux/arm/v7").unwrap(), Digest::of(b"v7"));
        assert_eq!(chosen("linux/arm").unwrap(), Digest::of(b"v6"));
        let error = chosen("linux/s390x").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no image for `linux/s390x` in it, only for `linux/arm/v6`, `linux/arm/v7`, `linux/amd64`"
        );
    }

    #[test]
    fn what_is_no_image_is_named() {
        let config = |media_type: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{media_type}","digest":"{}","size":1}},"layers":[]}}"#,
                digest("")
            )
        };
        assert!(matches!(Manifest::parse(MANIFEST, config(CONFIG).as_bytes()), Ok(Manifest::Image(_))));
        let helm = config("application/vnd.cncf.helm.config.v1+json");
        assert!(matches!(Manifest::parse(MANIFEST, helm.as_bytes()), Err(ManifestError::NoImage(_))));
        assert!(matches!(Manifest::parse("", br#"{"schemaVersion":1}"#), Err(ManifestError::Schema1)));
        assert!(matches!(Manifest::parse("", b"<html>"), Err(ManifestError::Json(_))));
    }

    #[test]
    fn platforms_are_read() {
        let shown = |text: &str| Platform::parse(text).map(|platform| platform.to_string());
        assert_eq!(shown("linux/arm64/v8").as_deref(), Some("linux/arm64"));
        assert_eq!(shown("amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(shown("linux/x86_64").as_deref(), Some("linux/amd64"));
        for bad in ["", "linux", "a/b/c/d", "linux/", "linux/a b"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
