//! What has to be said to the kernel about user and time namespaces before anybody is in them.

use std::fs;
use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::engine::lower::mapping_lines;
use crate::init::{Launch, Namespace, NamespaceKind};
use crate::oci::error::OciError;
use crate::sys::process;

/// Has the next child of this process in a new time namespace with these offsets.
pub(super) fn prepare_time(launch: &Launch, spec: &Spec) -> Result<(), OciError> {
    let offsets = spec.linux().as_ref().and_then(|linux| linux.time_offsets().as_ref());
    let mut offsets: Vec<_> = offsets.into_iter().flatten().collect();
    offsets.sort_by_key(|(clock, _)| clock.as_str());
    if !launch.namespaces.contains(&Namespace::New(NamespaceKind::Time)) {
        return match offsets.first() {
            Some(_) => Err(OciError::Config("`linux.timeOffsets` needs a new time namespace".to_owned())),
            None => Ok(()),
        };
    }
    process::new_time_namespace().map_err(OciError::io("make", "a time namespace"))?;
    let lines = offsets
        .iter()
        .map(|(clock, offset)| format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0)));
    let lines: String = lines.collect();
    if lines.is_empty() {
        return Ok(());
    }
    let path = "/proc/self/timens_offsets";
    fs::write(path, lines).map_err(OciError::io("write", path))
}

/// Fills in the mappings of the new user namespace that process `pid` is in.
pub(super) fn map_users(launch: &Launch, spec: &Spec, pid: i32) -> Result<(), OciError> {
    let linux = spec.linux().as_ref();
    let users = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let groups = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
    if !launch.namespaces.contains(&Namespace::New(NamespaceKind::User)) {
        let joins =
            launch.namespaces.iter().any(|namespace| matches!(namespace, Namespace::Join(NamespaceKind::User, _)));
        // Callers repeat the mappings of a namespace that is joined.
        return if joins || (users.is_empty() && groups.is_empty()) {
            Ok(())
        } else {
            Err(OciError::Config("`linux.uidMappings` needs a new user namespace".to_owned()))
        };
    }
    if users.is_empty() || groups.is_empty() {
        return Err(OciError::Config(
            "a new user namespace needs `linux.uidMappings` and `linux.gidMappings`".to_owned(),
        ));
    }
    let write = |name: &str, text: &str| {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        fs::write(&path, text).map_err(OciError::io("write", path))
    };
    write("uid_map", &mapping_lines(users))?;
    if !rustix::process::geteuid().is_root() {
        // Without privileges over the groups they can only be mapped when nobody can drop one.
        write("setgroups", "deny")?;
    }
    write("gid_map", &mapping_lines(groups))
}
