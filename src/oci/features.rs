//! `features` and `--version`.

use serde_json::json;

use crate::oci::error::OciError;

/// Newest version of the runtime specification that is followed.
const SPECIFICATION: &str = "1.2.1";

pub(super) fn version() -> String {
    format!("rcompose version {}\nspec: {SPECIFICATION}\n", env!("CARGO_PKG_VERSION"))
}

/// `features.md` of the runtime specification.
pub(super) fn json() -> Result<String, OciError> {
    let all = crate::engine::capabilities::CapabilitySet::all().to_oci();
    let mut capabilities: Vec<_> = all.iter().map(|capability| format!("CAP_{capability}")).collect();
    capabilities.sort();
    let architectures = match std::env::consts::ARCH {
        "aarch64" => vec!["SCMP_ARCH_AARCH64"],
        _ => vec!["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
    };
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPECIFICATION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": crate::engine::lower::MOUNT_OPTIONS.as_slice(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE",
                ],
                "archs": architectures,
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
                "supportedFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ],
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } },
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": ["run.oci.keep_original_groups"],
    });
    Ok(format!("{features:#}\n"))
}
