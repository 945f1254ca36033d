//! Artifacts: manifests whose layers are not those of an image. Here: the files of a Compose project.
//! <https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage>

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::client::Registries;
use super::endpoint::Endpoint;
use super::error::Error;
use crate::image::manifest::MANIFEST;
use crate::image::{Descriptor, Digest, Reference, Store};

/// What a registry calls a Compose project.
const COMPOSE_PROJECT: &str = "application/vnd.docker.compose.project";
/// A Compose file of it.
pub const COMPOSE_FILE: &str = "application/vnd.docker.compose.file+yaml";
/// A file of variables of it.
pub const COMPOSE_ENV_FILE: &str = "application/vnd.docker.compose.envfile";
/// What artifacts have that need no configuration, and its content.
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");
/// The configuration of the first ones, which had no type of their own.
const COMPOSE_CONFIG: &str = "application/vnd.docker.compose.config.empty.v1+json";
/// No project has more files, and none a larger one.
const MOST_FILES: usize = 1000;
const LARGEST: u64 = 16 << 20;
/// All of them together.
const LARGEST_TOTAL: u64 = 64 << 20;

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactFile {
    pub media_type: String,
    pub annotations: BTreeMap<String, String>,
    pub content: Vec<u8>,
}

/// A manifest as it is written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    annotations: BTreeMap<&'a str, &'a str>,
}

/// A manifest or an index, as far as artifacts need it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    artifact_type: String,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    digest: Digest,
    #[serde(default)]
    artifact_type: String,
}

impl Registries {
    /// The files of the Compose project of that name, whose manifest has the digest: in order, as they are in the registry.
    ///
    /// # Errors
    /// It is something else, or what the registry says.
    pub fn compose_project(&self, name: &Reference, digest: &Digest) -> Result<Vec<ArtifactFile>, Error> {
        self.first(name, |endpoint| self.project_from(endpoint, name, digest))
    }

    /// Pushes a Compose project. Returns the digest of its manifest. `created`: RFC 3339.
    ///
    /// # Errors
    /// What the registry says.
    pub fn push_project(
        &self,
        store: &Store,
        name: &Reference,
        files: &[ArtifactFile],
        created: &str,
    ) -> Result<Digest, Error> {
        let config = self.push_bytes(store, name, EMPTY.0, EMPTY.1)?;
        let mut layers = Vec::new();
        for file in files {
            let blob = self.push_bytes(store, name, &file.media_type, &file.content)?;
            layers.push(Descriptor { annotations: file.annotations.clone(), ..blob });
        }
        let manifest = Written {
            schema_version: 2,
            media_type: MANIFEST,
            artifact_type: COMPOSE_PROJECT,
            config,
            layers,
            annotations: BTreeMap::from([("org.opencontainers.image.created", created)]),
        };
        self.push_manifest(store, name, &serde_json::to_vec(&manifest).unwrap_or_default())
    }

    fn project_from(&self, endpoint: &Endpoint, name: &Reference, digest: &Digest) -> Result<Vec<ArtifactFile>, Error> {
        let read = |which: &str| -> Result<Document, Error> {
            let sent = self.manifest_bytes(endpoint, name, which)?;
            serde_json::from_slice(&sent.bytes).map_err(|_| other(name, "a document that is no manifest"))
        };
        let mut document = read(&digest.to_string())?;
        if !document.manifests.is_empty() {
            // With the images of its services it is published as an index.
            let project = document.manifests.iter().find(|listed| listed.artifact_type == COMPOSE_PROJECT);
            let project = project.ok_or_else(|| other(name, "an index without one"))?;
            document = read(&project.digest.to_string())?;
        }
        let config = document.config.as_ref().map_or("", |config| config.media_type.as_str());
        match document.artifact_type.as_str() {
            COMPOSE_PROJECT => {}
            "" if config == COMPOSE_CONFIG => {}
            "" => return Err(other(name, "an image")),
            kind => return Err(other(name, &format!("`{kind}`"))),
        }
        let total = document.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        if document.layers.len() > MOST_FILES || total > LARGEST_TOTAL {
            return Err(other(name, "more than a project has"));
        }
        let file = |layer: Descriptor| {
            let content = self.document(endpoint, name, &layer, LARGEST)?;
            Ok(ArtifactFile { media_type: layer.media_type, annotations: layer.annotations, content })
        };
        document.layers.into_iter().map(file).collect()
    }
}

fn other(name: &Reference, what: &str) -> Error {
    Error::NoProject { name: name.familiar(), what: what.to_owned() }
}
