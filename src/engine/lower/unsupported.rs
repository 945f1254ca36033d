//! Fields of the specification that cannot be honoured are errors, never ignored.

use oci_spec::runtime::Linux;
use oci_spec::runtime::Process;
use oci_spec::runtime::Spec;

use crate::engine::lower::LowerError;

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
    let set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    first(&[
        ("process.commandLine", process.command_line().is_some()),
        ("process.selinuxLabel", set(process.selinux_label())),
    ])
}

fn linux(linux: &Linux) -> Result<(), LowerError> {
    let resources = linux.resources().as_ref();
    let network = resources.and_then(|resources| resources.network().as_ref());
    first(&[
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.resources.rdma", resources.is_some_and(|resources| resources.rdma().is_some())),
        ("linux.resources.network", network.is_some_and(|n| n.class_id().is_some() || n.priorities().is_some())),
    ])
}

fn first(fields: &[(&str, bool)]) -> Result<(), LowerError> {
    match fields.iter().find(|(_, present)| *present) {
        Some((name, _)) => Err(LowerError::Unsupported((*name).to_owned())),
        None => Ok(()),
    }
}
