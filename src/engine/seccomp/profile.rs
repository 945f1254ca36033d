//! Profiles in Docker's file format: like the runtime specification's, with rules that depend on capabilities,
//! architecture and kernel version.

use oci_spec::runtime::LinuxSeccomp;
use oci_spec::runtime::LinuxSeccompAction;
use oci_spec::runtime::LinuxSeccompArg;
use oci_spec::runtime::LinuxSeccompFilterFlag;
use oci_spec::runtime::LinuxSyscall;
use serde::Deserialize;

use crate::engine::capabilities::CapabilitySet;
use crate::engine::seccomp::SeccompError;
use crate::engine::seccomp::native_architectures;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Resolves a profile file for a container with these capabilities on this machine.
///
/// # Errors
/// Text that is not such a profile, or asks for a listener.
pub fn parse(text: &str, capabilities: CapabilitySet) -> Result<LinuxSeccomp, SeccompError> {
    let file: File = serde_json::from_str(text).map_err(SeccompError::Syntax)?;
    if file.listener_path.is_some_and(|path| !path.is_empty()) {
        return Err(SeccompError::Unsupported("listenerPath".to_owned()));
    }
    let mut syscalls = Vec::new();
    for rule in file.syscalls {
        if rule.applies(capabilities)? {
            let mut syscall = LinuxSyscall::default();
            syscall.set_names(rule.names.into_iter().chain(rule.name).collect());
            syscall.set_action(rule.action);
            syscall.set_errno_ret(rule.errno_ret);
            syscall.set_args(rule.args.filter(|arguments| !arguments.is_empty()));
            syscalls.push(syscall);
        }
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(file.default_action);
    profile.set_default_errno_ret(file.default_errno_ret);
    profile.set_flags((!file.flags.is_empty()).then_some(file.flags));
    profile.set_architectures(Some(native_architectures()));
    profile.set_syscalls(Some(syscalls));
    Ok(profile)
}

impl Rule {
    fn applies(&self, capabilities: CapabilitySet) -> Result<bool, SeccompError> {
        let has = |name: &String| capabilities.has(name.trim_start_matches("CAP_"));
        let here = |name: &String| ARCHITECTURE_NAMES.contains(&name.as_str());
        let included = (self.includes.arches.is_empty() || self.includes.arches.iter().any(here))
            && self.includes.caps.iter().all(has)
            && self.includes.kernel_reached()?.unwrap_or(true);
        let excluded = self.excludes.arches.iter().any(here)
            || self.excludes.caps.iter().any(has)
            || self.excludes.kernel_reached()?.unwrap_or(false);
        Ok(included && !excluded)
    }
}

/// How profiles name this machine.
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE_NAMES: &[&str] = &["arm64", "aarch64", "arm"];
#[cfg(not(target_arch = "aarch64"))]
const ARCHITECTURE_NAMES: &[&str] = &["amd64", "x86_64", "x86", "x32"];

impl Filter {
    /// Whether the running kernel is at least `minKernel`; `None`: not asked.
    fn kernel_reached(&self) -> Result<Option<bool>, SeccompError> {
        let Some(wanted) = &self.min_kernel else { return Ok(None) };
        let wanted = version(wanted).ok_or_else(|| SeccompError::Unsupported(format!("minKernel: {wanted}")))?;
        let running = rustix::system::uname();
        let running = running.release().to_str().ok().and_then(version);
        Ok(Some(running.is_some_and(|running| running >= wanted)))
    }
}

/// Major and minor number of a kernel release such as `6.1.0-18-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
