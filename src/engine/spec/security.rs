//! `security_opt` and what follows from `privileged`.

use std::fs;
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

use crate::engine::capabilities::CapabilitySet;
use crate::engine::seccomp;
use crate::engine::spec::Request;
use crate::engine::spec::SpecError;

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
}

pub(super) fn options(request: &Request<'_>, capabilities: CapabilitySet) -> Result<Security, SpecError> {
    let mut no_new_privileges = false;
    let mut profile = None;
    let mut paths_confined = !request.container.privileged;
    for option in &request.container.security_opt {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", value) if !value.is_empty() => profile = Some(value),
            ("systempaths", "unconfined") => paths_confined = false,
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor", profile) if !profile.is_empty() => return Err(lsm(option, "AppArmor", "apparmor")),
            ("label", label) if !label.is_empty() => return Err(lsm(option, "SELinux", "selinux")),
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
    let paths =
        |list: &[&str]| if paths_confined { list.iter().map(|path| (*path).to_owned()).collect() } else { vec![] };
    Ok(Security { seccomp, no_new_privileges, masked_paths: paths(&MASKED), readonly_paths: paths(&READ_ONLY) })
}

fn lsm(option: &str, lsm: &'static str, module: &str) -> SpecError {
    let there = match module {
        "apparmor" => fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")),
        _ => Path::new("/sys/fs/selinux/enforce").exists(),
    };
    let state = if there { "has but rcompose cannot use yet" } else { "does not have" };
    SpecError::NoSecurityModule { option: option.to_owned(), lsm, state }
}
