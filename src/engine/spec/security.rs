//! `security_opt` and what follows from `privileged`.

use std::fs;

use oci_spec::runtime::LinuxSeccomp;

use crate::engine::apparmor;
use crate::engine::capabilities::CapabilitySet;
use crate::engine::seccomp;
use crate::engine::spec::Request;
use crate::engine::spec::SpecError;
use crate::spec::container::NamespaceMode;

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) struct Security {
    pub(super) seccomp: Option<LinuxSeccomp>,
    pub(super) no_new_privileges: bool,
    pub(super) masked_paths: Vec<String>,
    pub(super) readonly_paths: Vec<String>,
    pub(super) apparmor_profile: Option<String>,
    /// /sys/fs/cgroup may be written to.
    pub(super) writable_cgroups: bool,
}

pub(super) fn options(request: &Request<'_>, capabilities: CapabilitySet) -> Result<Security, SpecError> {
    let mut no_new_privileges = false;
    let mut profile = None;
    let mut paths_confined = !request.container.privileged;
    let (mut masked, mut unmasked) = (Vec::new(), Vec::new());
    let mut apparmor_profile = request.apparmor.filter(|_| !request.container.privileged).map(str::to_owned);
    let mut writable_cgroups = request.container.privileged;
    for option in &request.container.security_opt {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", value) if !value.is_empty() => profile = Some(value),
            // With a colon it is no option of Docker's.
            ("systempaths", "unconfined") if option.contains('=') => paths_confined = false,
            ("apparmor", "unconfined") => apparmor_profile = None,
            // Those are [`crate::engine::selinux::Labels`]; without SELinux they mean nothing, as in Docker.
            ("label", label) if !label.is_empty() => {}
            ("apparmor", profile) if apparmor::is_enabled() && !profile.is_empty() => {
                apparmor_profile = Some(profile.to_owned());
            }
            // As with labels: where there is no AppArmor it means nothing, as in Docker.
            ("apparmor", _) => {}
            // Podman's words for what Docker has no option for.
            ("mask", list) if list.starts_with('/') => masked.extend(list.split(':').map(str::to_owned)),
            ("unmask", list) if !list.is_empty() => unmasked.extend(list.split(':').map(str::to_owned)),
            ("writable-cgroups", "true") if may_own_cgroups(request) => writable_cgroups = true,
            ("writable-cgroups", "true") => return Err(SpecError::SharedCgroups),
            ("writable-cgroups", "false") => writable_cgroups = false,
            _ => return Err(SpecError::SecurityOption(option.clone())),
        }
    }
    let seccomp = match profile {
        Some("unconfined") => None,
        None if request.container.privileged => None,
        None | Some("builtin") => Some(seccomp::default_profile(capabilities)?),
        Some(inline) if inline.trim_start().starts_with('{') => Some(seccomp::parse(inline, capabilities)?),
        Some(file) => {
            let path = request.project_dir.join(file);
            let text = fs::read_to_string(&path).map_err(|source| SpecError::SeccompFile { path, source })?;
            Some(seccomp::parse(&text, capabilities)?)
        }
    };
    let shown = |path: &str| unmasked.iter().any(|shown| shown == "ALL" || shown == "all" || shown == path);
    let paths = |list: &[&str]| -> Vec<String> {
        let confined = list.iter().filter(|path| paths_confined && !shown(path));
        confined.map(|path| (*path).to_owned()).collect()
    };
    let mut masked_paths = paths(&MASKED);
    masked_paths.extend(masked);
    let readonly_paths = paths(&READ_ONLY);
    Ok(Security { seccomp, no_new_privileges, masked_paths, readonly_paths, apparmor_profile, writable_cgroups })
}

/// With version 2 and a cgroup namespace of its own, a container sees nobody's groups but its own.
fn may_own_cgroups(request: &Request<'_>) -> bool {
    request.unified_cgroups && request.container.cgroup != Some(NamespaceMode::Host)
}
