//! Devices of the host given to a container.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oci_spec::runtime::LinuxDevice;
use oci_spec::runtime::LinuxDeviceBuilder;
use oci_spec::runtime::LinuxDeviceType;

use crate::engine::spec::SpecError;
use crate::spec::ContainerSpec;

/// Below /dev, these are the container's own, also when it is privileged.
const NOT_FROM_THE_HOST: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", "console"];

/// The devices to make, each with its permissions (some of `rwm`).
pub(super) fn devices(container: &ContainerSpec) -> Result<Vec<(LinuxDevice, String)>, SpecError> {
    let mut found = Vec::new();
    if container.privileged {
        let path = Path::new("/dev");
        collect(path, "/dev", "rwm", &mut found).map_err(|source| SpecError::Device { path: path.into(), source })?;
    }
    for wanted in &container.devices {
        let permissions = if wanted.permissions.is_empty() { "rwm" } else { &wanted.permissions };
        let before = found.len();
        collect(&wanted.host, &wanted.container, permissions, &mut found)
            .map_err(|source| SpecError::Device { path: wanted.host.clone(), source })?;
        if found.len() == before {
            return Err(SpecError::NotADevice(wanted.host.clone()));
        }
    }
    Ok(found)
}

/// A device, or all devices below a directory.
fn collect(host: &Path, target: &str, permissions: &str, found: &mut Vec<(LinuxDevice, String)>) -> io::Result<()> {
    let metadata = fs::metadata(host)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(host)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !NOT_FROM_THE_HOST.contains(name)) else { continue };
            // Links are made anew by whoever wants them; a device may go while we look.
            if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                match collect(&entry.path(), &format!("{}/{name}", target.trim_end_matches('/')), permissions, found) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        return Ok(());
    }
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return Ok(()),
    };
    let number = metadata.rdev();
    let device = LinuxDeviceBuilder::default()
        .path(target)
        .typ(kind)
        .major(i64::from(libc::major(number)))
        .minor(i64::from(libc::minor(number)))
        .file_mode(metadata.mode() & 0o7777)
        .uid(metadata.uid())
        .gid(metadata.gid())
        .build()
        .map_err(io::Error::other)?;
    found.push((device, permissions.to_owned()));
    Ok(())
}
