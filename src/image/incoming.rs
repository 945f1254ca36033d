//! What images an archive says it holds: Docker's `manifest.json`, or the OCI layout's `index.json`.

use serde::{Deserialize, Serialize};

use super::config::ImageDocument;
use super::digest::Digest;
use super::error::Error;
use super::host;
use super::manifest::{self, Descriptor, MAX_LAYERS, OciIndex, OciManifest, Platform};
use super::reference::Reference;
use super::source::Source;

/// An index may name indexes, but nobody nests them deeper.
const MAX_NESTING: usize = 4;

const DOCKER_MANIFEST: &str = "manifest.json";
const OCI_INDEX: &str = "index.json";

/// An image that an archive offers.
pub(super) struct Incoming {
    pub(super) id: Digest,
    /// The configuration, byte for byte.
    pub(super) config: Vec<u8>,
    pub(super) names: Vec<Reference>,
    /// `repository@digest` of its manifest, where a registry has it.
    pub(super) digest: Option<String>,
    /// Lowest first.
    pub(super) layers: Vec<IncomingLayer>,
}

/// A layer and where it lies.
#[derive(Clone)]
pub(super) struct IncomingLayer {
    pub(super) diff_id: Digest,
    pub(super) member: String,
    /// The digest of the member, where the archive gives one.
    pub(super) blob: Option<Digest>,
}

/// One image of Docker's `manifest.json`.
/// <https://github.com/moby/moby/blob/master/image/spec/v1.2.md#combined-image-json--filesystem-changeset-format>
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerManifest {
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// The images of `source`. Docker's own manifest comes first, because it has the names as the user gave them.
pub(super) fn read(source: &Source) -> Result<Vec<Incoming>, Error> {
    let images = if source.member(DOCKER_MANIFEST)?.is_some() {
        docker(source)?
    } else if source.member(OCI_INDEX)?.is_some() {
        let mut found = Vec::new();
        oci(source, OCI_INDEX, source.json(OCI_INDEX)?, None, MAX_NESTING, &mut found)?;
        found
    } else {
        let reason =
            "it has neither `manifest.json` nor `index.json` (for a root file system, use `rcompose image import`)";
        return Err(Error::NotAnImage { archive: source.name().to_owned(), reason });
    };
    if images.is_empty() {
        let reason = "it holds no image for this machine";
        return Err(Error::NotAnImage { archive: source.name().to_owned(), reason });
    }
    Ok(images)
}

fn docker(source: &Source) -> Result<Vec<Incoming>, Error> {
    let manifests: Vec<DockerManifest> = source.json(DOCKER_MANIFEST)?;
    let image = |manifest: DockerManifest| {
        let config = source.bytes(&manifest.config)?;
        let id = Digest::of(&config);
        // The file is named by its digest, in the old layout and in the new one.
        let named = manifest.config.rsplit('/').next().unwrap_or_default();
        if let Some(expected) =
            Digest::from_hex(named.strip_suffix(".json").unwrap_or(named)).filter(|named| *named != id)
        {
            return Err(Error::WrongDigest { member: manifest.config, expected, found: id });
        }
        let names = manifest.repo_tags.iter().flatten().map(|name| parse_name(source, DOCKER_MANIFEST, name));
        let layers = manifest.layers.into_iter().map(|member| (member, None)).collect();
        incoming(source, &manifest.config, id, config, names.collect::<Result<_, _>>()?, layers)
    };
    manifests.into_iter().map(image).collect()
}

fn oci(
    source: &Source,
    member: &str,
    index: OciIndex,
    name: Option<&Reference>,
    nesting: usize,
    found: &mut Vec<Incoming>,
) -> Result<(), Error> {
    for descriptor in for_this_machine(index.manifests, name.is_some()) {
        let name = match (name, name_of(&descriptor)) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(name)) => Some(parse_name(source, member, &name)?),
            (None, None) => None,
        };
        let (path, bytes) = blob(source, &descriptor)?;
        if manifest::is_index(&descriptor.media_type, &bytes) {
            let nesting = nesting.checked_sub(1).ok_or_else(|| source.refused(&path, "indexes are nested too deep"))?;
            oci(source, &path, source.parse(&path, &bytes)?, name.as_ref(), nesting, found)?;
            continue;
        }
        let manifest: OciManifest = source.parse(&path, &bytes)?;
        let (config_path, config) = blob(source, &manifest.config)?;
        let layer = |layer: Descriptor| {
            let path = blob_path(&layer.digest);
            let size = source.required(&path)?.size().map_err(super::error::cannot("read", source.name()))?;
            if size == layer.size {
                Ok((path, Some(layer.digest)))
            } else {
                Err(source.refused(&path, format!("it has {size} bytes, its manifest says {}", layer.size)))
            }
        };
        let layers = manifest.layers.into_iter().map(layer).collect::<Result<_, _>>()?;
        let names = name.into_iter().collect();
        let image = incoming(source, &config_path, manifest.config.digest, config, names, layers)?;
        match found.iter_mut().find(|there| there.id == image.id) {
            Some(there) => there.names.extend(image.names),
            None => found.push(image),
        }
    }
    Ok(())
}

fn incoming(
    source: &Source,
    member: &str,
    id: Digest,
    config: Vec<u8>,
    names: Vec<Reference>,
    layers: Vec<(String, Option<Digest>)>,
) -> Result<Incoming, Error> {
    let document: ImageDocument = source.parse(member, &config)?;
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        let reason = format!("it names {} layers, the manifest {}", diff_ids.len(), layers.len());
        return Err(source.refused(member, reason));
    }
    if layers.len() > MAX_LAYERS {
        return Err(source.refused(member, format!("it has more than {MAX_LAYERS} layers")));
    }
    let layers = diff_ids.into_iter().zip(layers);
    let layers = layers.map(|(diff_id, (member, blob))| IncomingLayer { diff_id, member, blob }).collect();
    Ok(Incoming { id, config, names, digest: None, layers })
}

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A small blob of a layout, checked.
pub(super) fn blob(source: &Source, descriptor: &Descriptor) -> Result<(String, Vec<u8>), Error> {
    let path = blob_path(&descriptor.digest);
    let bytes = source.bytes(&path)?;
    let found = Digest::of(&bytes);
    if found == descriptor.digest {
        return Ok((path, bytes));
    }
    Err(Error::WrongDigest { member: path, expected: descriptor.digest.clone(), found })
}

/// Leaves out what is no image (attestations), and other machines' variants of the same image.
fn for_this_machine(mut manifests: Vec<Descriptor>, one_image: bool) -> Vec<Descriptor> {
    manifests.retain(Descriptor::is_image);
    let host = Platform::host();
    let is_ours = |descriptor: &Descriptor| descriptor.platform.as_ref().is_some_and(|platform| host.accepts(platform));
    let kept = manifests.clone();
    manifests.retain(|descriptor| {
        let same = |other: &&Descriptor| one_image || name_of(other) == name_of(descriptor);
        is_ours(descriptor) || descriptor.platform.is_none() || !kept.iter().filter(same).any(is_ours)
    });
    manifests
}

/// This machine in the words of image configurations (those of the Go language).
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// The full name that Docker and containerd write, or the one that skopeo writes. A bare word there is only a tag.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotation = |key| descriptor.annotations.get(key);
    let short = || annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    annotation("io.containerd.image.name").or_else(short).cloned()
}

fn parse_name(source: &Source, member: &str, name: &str) -> Result<Reference, Error> {
    if host::is_host(name) {
        return Err(source.refused(member, format!("the name `{name}` is this machine's own")));
    }
    let reference = Reference::parse(name).filter(|reference| reference.digest().is_none());
    reference.ok_or_else(|| source.refused(member, format!("`{name}` is not an image name")))
}
