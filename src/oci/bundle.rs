//! The bundle: `config.json`, and the checks that the engine cannot make.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::oci::error::OciError;

#[derive(Debug)]
pub(super) struct Bundle {
    /// Absolute.
    pub(super) path: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) spec: Spec,
    /// The file as it is.
    pub(super) config: Vec<u8>,
}

pub(super) fn load(path: &Path) -> Result<Bundle, OciError> {
    let path = fs::canonicalize(path).map_err(OciError::io("find the bundle", path))?;
    let file = path.join("config.json");
    let config = fs::read(&file).map_err(OciError::io("read", &file))?;
    let mut spec: Spec = serde_json::from_slice(&config).map_err(|source| OciError::Json {
        what: "runtime specification",
        path: file,
        source,
    })?;
    check(&spec)?;
    let root = spec.root().as_ref().ok_or_else(|| OciError::Config("`root` is missing".to_owned()))?;
    let wanted = path.join(root.path());
    let rootfs = fs::canonicalize(&wanted).map_err(OciError::io("find the root", wanted))?;
    relative_sources(&mut spec, &path);
    Ok(Bundle { path, rootfs, spec, config })
}

fn check(spec: &Spec) -> Result<(), OciError> {
    let wrong = |what: String| Err(OciError::Config(what));
    let version = spec.version();
    if version.split('.').next() != Some("1") || version.split('.').count() < 3 {
        return wrong(format!("`ociVersion` {version:?} is not supported: 1.0.0 and what is compatible with it is"));
    }
    let Some(process) = spec.process() else { return wrong("`process` is missing".to_owned()) };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return wrong("`process.args` is missing".to_owned());
    }
    if !process.cwd().is_absolute() {
        return wrong(format!("`process.cwd` is not absolute: {:?}", process.cwd()));
    }
    let mut limits = std::collections::HashSet::new();
    for limit in process.rlimits().iter().flatten() {
        if !limits.insert(limit.typ().to_string()) {
            return wrong(format!("`process.rlimits` has {} twice", limit.typ()));
        }
    }
    for mount in spec.mounts().iter().flatten() {
        // Older versions of the specification let them be relative, to the root.
        if mount.destination().as_os_str().is_empty() {
            return wrong("`mounts.destination` is empty".to_owned());
        }
    }
    let linux = spec.linux().as_ref();
    let mut kinds = std::collections::HashSet::new();
    for namespace in linux.into_iter().flat_map(|linux| linux.namespaces().iter().flatten()) {
        if !kinds.insert(namespace.typ().to_string()) {
            return wrong(format!("`linux.namespaces` has {} twice", namespace.typ()));
        }
    }
    if spec.hostname().is_some() && !kinds.contains(&LinuxNamespaceType::Uts.to_string()) {
        return wrong("`hostname` needs a UTS namespace".to_owned());
    }
    Ok(())
}

/// Sources of bind mounts may be relative to the bundle, targets are seen from the root.
fn relative_sources(spec: &mut Spec, bundle: &Path) {
    let Some(mounts) = spec.mounts_mut() else { return };
    for mount in mounts {
        if !mount.destination().is_absolute() {
            let absolute = Path::new("/").join(mount.destination());
            mount.set_destination(absolute);
        }
        let bind = |option: &String| option == "bind" || option == "rbind";
        let is_bind = mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(bind);
        let relative = mount.source().clone().filter(|source| is_bind && source.is_relative());
        if let Some(source) = relative {
            mount.set_source(Some(bundle.join(source)));
        }
    }
}
