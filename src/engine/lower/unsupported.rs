//! Fields of the specification that cannot be honoured are errors, never ignored.

use oci_spec::runtime::Linux;
use oci_spec::runtime::Process;
use oci_spec::runtime::Spec;

use crate::engine::lower::LowerError;
use crate::engine::selinux;

pub(super) fn check(spec: &Spec) -> Result<(), LowerError> {
    let fields = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
        ("uidMappings", spec.uid_mappings().is_some()),
        ("gidMappings", spec.gid_mappings().is_some()),
    ];
    first(&fields)?;
    spec.process().as_ref().map_or(Ok(()), process)?;
    spec.linux().as_ref().map_or(Ok(()), linux)
}

/// Also for a process that is started inside a running container.
pub(super) fn process(process: &Process) -> Result<(), LowerError> {
    first(&[("process.commandLine", process.command_line().is_some())])?;
    labelled("process.selinuxLabel", process.selinux_label().as_deref())
}

fn linux(linux: &Linux) -> Result<(), LowerError> {
    let resources = linux.resources().as_ref();
    let network = resources.and_then(|resources| resources.network().as_ref());
    first(&[
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.resources.rdma", resources.is_some_and(|resources| resources.rdma().is_some())),
        ("linux.resources.network", network.is_some_and(|n| n.class_id().is_some() || n.priorities().is_some())),
    ])?;
    labelled("linux.mountLabel", linux.mount_label().as_deref())
}

fn labelled(field: &'static str, label: Option<&str>) -> Result<(), LowerError> {
    match label {
        Some(label) if !label.is_empty() && !selinux::is_enabled() => Err(LowerError::NoSelinux(field)),
        _ => Ok(()),
    }
}

fn first(fields: &[(&str, bool)]) -> Result<(), LowerError> {
    match fields.iter().find(|(_, present)| *present) {
        Some((name, _)) => Err(LowerError::Unsupported((*name).to_owned())),
        None => Ok(()),
    }
}
