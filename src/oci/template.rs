//! `spec`: a `config.json` to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use crate::engine::cgroup::Hierarchies;
use crate::oci::error::OciError;

/// Writes it into the bundle; what is there is not replaced.
pub(super) fn write(bundle: &Path, rootless: bool) -> Result<(), OciError> {
    let path = bundle.join("config.json");
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut spec = if rootless { Spec::rootless(uid, gid) } else { Spec::default() };
    let mut process: Process = spec.process().clone().unwrap_or_default();
    process.set_terminal(Some(true));
    if let Some(mut capabilities) = process.capabilities().clone() {
        // As runc's: what the program executes does not get them from it.
        capabilities.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(capabilities));
    }
    spec.set_process(Some(process));
    if Hierarchies::detect().is_ok_and(|hierarchies| !hierarchies.is_unified()) {
        // As runc's, too: version 1 of control groups is shown as it is.
        let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
        namespaces.into_iter().for_each(|all| all.retain(|one| one.typ() != LinuxNamespaceType::Cgroup));
    }
    let text = serde_json::to_string_pretty(&spec).map_err(|source| OciError::Json {
        what: "specification",
        path: path.clone(),
        source,
    })?;
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| writeln!(file, "{text}")).map_err(OciError::io("write", path))
}
