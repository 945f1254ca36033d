//! `config --resolve-image-digests`: names of images become names of what they lead to now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::app::pull::chain;
use crate::base::diagnostic::Diagnostic;
use crate::image::Reference;
use crate::model::tree::{Map, Mark, Node, Sources, Value};
use crate::registry::Registries;

/// Questions on their way at once.
const AT_ONCE: usize = 8;

/// Which images `config` prints by their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digests {
    /// None: images as they are written.
    No,
    /// Those of the whole project.
    Resolve,
    /// As [`Self::Resolve`], and nothing else is printed: a file that pins a project.
    Lock,
}

/// Replaces the images of all services by names with digests, which their registries are asked for. The whole
/// name is written, as in `docker.io/library/redis:7@sha256:…`.
///
/// # Errors
/// One diagnostic for each image that has no digest, in the order of places.
pub(super) fn resolve(
    tree: &mut Node,
    sources: &Sources,
    environment: &BTreeMap<String, String>,
) -> Result<(), Vec<Diagnostic>> {
    let images: BTreeMap<Arc<str>, Mark> = images(tree).filter_map(|node| Some((text(node)?, node.mark))).collect();
    if images.is_empty() {
        return Ok(());
    }
    let registries = Registries::from_environment(environment)
        .map_err(|error| vec![Diagnostic::error("registry-setting", None, chain(&error))])?;
    let queue = Mutex::new(images.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let found = Mutex::new((BTreeMap::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(images.len()) {
            scope.spawn(|| {
                while let Some((image, mark)) = next() {
                    let answer = pinned(&registries, image);
                    let (names, failures) = &mut *found.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer {
                        Ok(name) => drop(names.insert(Arc::clone(image), Arc::from(name))),
                        Err((message, help)) => failures
                            .push(Diagnostic { help, ..Diagnostic::error("no-digest", sources.place(*mark), message) }),
                    }
                }
            });
        }
    });
    let (names, mut failures) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failures.is_empty() {
        failures.sort_by(|a, b| a.place.cmp(&b.place));
        return Err(failures);
    }
    for (_, service) in services(tree) {
        if let Some(image) = service.get_mut("image")
            && let Some(name) = image.as_str().and_then(|text| names.get(text))
        {
            image.value = Value::String(Arc::clone(name));
        }
    }
    Ok(())
}

/// Leaves nothing of a project but the images of its services.
pub(super) fn only_images(tree: &mut Node) {
    for (_, service) in services(tree) {
        if let Some(map) = service.as_map_mut() {
            map.retain(|key, _| key.as_ref() == "image");
        }
    }
    if let Some(map) = tree.as_map_mut() {
        map.retain(|key, _| key.as_ref() == "services");
    }
}

fn services(tree: &mut Node) -> impl Iterator<Item = &mut (Mark, Node)> {
    tree.get_mut("services").and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut)
}

fn images(tree: &Node) -> impl Iterator<Item = &Node> {
    let services = tree.get("services").and_then(Node::as_map).into_iter().flat_map(Map::values);
    services.filter_map(|(_, service)| service.get("image"))
}

fn text(node: &Node) -> Option<Arc<str>> {
    match &node.value {
        Value::String(text) if !text.is_empty() => Some(Arc::clone(text)),
        _ => None,
    }
}

/// An image's whole name with its digest, or what is wrong and what to do.
pub(super) fn pinned(registries: &Registries, image: &str) -> Result<String, (String, Option<String>)> {
    let Some(name) = Reference::parse(image) else {
        return Err((format!("`{image}` is not the name of an image"), None));
    };
    if let Some(digest) = name.digest() {
        return Ok(format!("{}@{digest}", name.repository()));
    }
    match registries.digest(&name) {
        Ok(digest) => Ok(format!("{name}@{digest}")),
        Err(error) => Err((format!("image `{image}` has no digest: {}", chain(&error)), error.help())),
    }
}
