//! A container as decided by the plan, merged with its image's configuration, as an OCI runtime specification.
//!
//! All defaults are Docker 28's. The result says everything but what the specification has no words for: where the root
//! comes from, descriptors, the init process; those are [`crate::engine::lower::Extras`].

mod devices;
mod mounts;
mod process;
mod resources;
mod security;

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

use oci_spec::runtime::Linux;
use oci_spec::runtime::LinuxNamespace;
use oci_spec::runtime::LinuxNamespaceType;
use oci_spec::runtime::Root;
use oci_spec::runtime::Spec;

use crate::engine::capabilities::CapabilitySet;
use crate::engine::capabilities::UnknownCapability;
use crate::engine::cdi;
use crate::engine::cdi::CdiError;
use crate::engine::seccomp::SeccompError;
use crate::engine::users::UserDatabase;
use crate::engine::users::UserError;
use crate::spec::ContainerSpec;
use crate::spec::container::NamespaceMode;
use crate::spec::container::NetworkMode;

pub use mounts::{IMAGE, IMAGE_LAYER, add_init, contents};
pub use process::ExecOptions;
pub use process::exec_process;

/// What an image says about the containers made from it.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
}

/// A host file or directory shown in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMount {
    pub source: PathBuf,
    /// Absolute path inside.
    pub target: String,
    pub read_only: bool,
}

/// An image's files shown in the container, read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// Layers on the host, top-most first.
    pub layers: Vec<PathBuf>,
    /// What of it; empty: all.
    pub subpath: String,
    /// Absolute path inside.
    pub target: String,
}

/// Generated files, which lie in the container's own directory on the host.
#[derive(Clone, Debug, Default)]
pub struct EtcFiles {
    pub hosts: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
}

/// Everything [`build`] looks at.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub container: &'a ContainerSpec,
    pub image: &'a ImageConfig,
    pub users: &'a UserDatabase,
    /// The container's host name, or the host's own with `uts: host`.
    pub hostname: &'a str,
    pub etc: &'a EtcFiles,
    /// Volumes (named, anonymous, of the image) by their directories, and what [`contents`] has written.
    pub volumes: &'a [HostMount],
    pub images: &'a [ImageMount],
    /// Namespaces to join instead of making new ones; a path may be `/proc/PID/ns/…`, a bound file or `/proc/self/fd/…`.
    pub joined: &'a [(LinuxNamespaceType, PathBuf)],
    /// Relative paths of `security_opt` files start here.
    pub project_dir: &'a Path,
    /// The AppArmor profile of a container that asks for none ([`crate::engine::apparmor`]).
    pub apparmor: Option<&'a str>,
    /// Cgroup of the container, below the hierarchies' roots.
    pub cgroup_path: &'a str,
    /// Only cgroup v2: the container gets a cgroup namespace.
    pub unified_cgroups: bool,
}

/// Why a service cannot be run as it asks to be.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("there is no command to run: the image has none; set `command` or `entrypoint`")]
    NoCommand,
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Capability(#[from] UnknownCapability),
    #[error(
        "`security_opt: {0}` is not known; known are `seccomp`, `no-new-privileges`, `apparmor`, `label`, `systempaths=unconfined`, `mask`, `unmask` and `writable-cgroups`"
    )]
    SecurityOption(String),
    #[error("`security_opt: writable-cgroups` needs version 2 of control groups and `cgroup: private`")]
    SharedCgroups,
    #[error("cannot read the seccomp profile `{}` of `security_opt`", path.display())]
    SeccompFile { path: PathBuf, source: std::io::Error },
    #[error("cannot use the seccomp profile of `security_opt`")]
    Seccomp(#[from] SeccompError),
    #[error("`sysctls: {name}` {problem}")]
    Sysctl { name: String, problem: &'static str },
    #[error("`ulimits: {0}` is not a resource limit; names are those of setrlimit(2) in lower case, such as `nofile`")]
    Ulimit(String),
    #[error("`devices: {}` cannot be used on this host", path.display())]
    Device { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Cdi(#[from] CdiError),
    #[error("`blkio_config: {}` is not a block device of this host", path.display())]
    NotABlockDevice { path: PathBuf, source: std::io::Error },
    #[error("`devices: {}` is no device and holds none", .0.display())]
    NotADevice(PathBuf),
    #[error("`device_cgroup_rules: {0}` is not a rule such as `c 1:3 rwm`")]
    DeviceRule(String),
    #[error("the container at `{0}` has no {1} namespace to join")]
    NoNamespace(&'static str, LinuxNamespaceType),
    #[error("`volumes: {target}`: `{propagation}` is not a propagation mode such as `rprivate` or `rslave`")]
    Propagation { target: String, propagation: String },
    #[error("cannot write `{}`", path.display())]
    Content { path: PathBuf, source: std::io::Error },
    #[error("the runtime specification cannot be put together")]
    Builder(#[from] oci_spec::OciSpecError),
}

/// Puts the specification together.
///
/// # Errors
/// What the host or the image cannot do, named by the service attribute that asks for it.
pub fn build(request: &Request<'_>) -> Result<Spec, SpecError> {
    let container = request.container;
    let capabilities = CapabilitySet::of_container(container.privileged, &container.cap_add, &container.cap_drop)?;
    let security = security::options(request, capabilities)?;
    let namespaces = namespaces(request)?;
    let own = |kind| namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none());
    let own_uts = own(LinuxNamespaceType::Uts);
    let devices = devices::devices(container)?;

    let mut linux = Linux::default();
    linux.set_sysctl(Some(process::sysctls(container, &namespaces)?));
    linux.set_resources(Some(resources::resources(container, &devices)?));
    linux.set_devices(Some(devices.into_iter().map(|(device, _)| device).collect()));
    linux.set_seccomp(security.seccomp);
    linux.set_cgroups_path(Some(Path::new("/").join(request.cgroup_path)));
    linux.set_masked_paths(Some(security.masked_paths));
    linux.set_readonly_paths(Some(security.readonly_paths));
    linux.set_namespaces(Some(namespaces));

    let mut root = Root::default();
    root.set_path("rootfs".into());
    root.set_readonly(Some(container.read_only));

    let mut spec = Spec::default();
    spec.set_version("1.2.1".to_owned());
    spec.set_root(Some(root));
    let mut process = process::process(request, capabilities, security.no_new_privileges)?;
    process.set_apparmor_profile(security.apparmor_profile);
    spec.set_process(Some(process));
    spec.set_mounts(Some(mounts::mounts(request, security.writable_cgroups)?));
    spec.set_hostname(own_uts.then(|| request.hostname.to_owned()));
    spec.set_domainname(container.domainname.clone().filter(|_| own_uts));
    let annotations: HashMap<_, _> = container.annotations.clone().into_iter().collect();
    spec.set_annotations((!annotations.is_empty()).then_some(annotations));
    spec.set_linux(Some(linux));
    cdi::inject(&mut spec, &container.cdi)?;
    Ok(spec)
}

fn namespaces(request: &Request<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    let container = request.container;
    let network = match &container.network {
        NetworkMode::Host => NamespaceMode::Host,
        NetworkMode::Service(name) => NamespaceMode::Service(name.clone()),
        NetworkMode::Container(name) => NamespaceMode::Container(name.clone()),
        NetworkMode::Networks(_) | NetworkMode::None => NamespaceMode::Private,
    };
    // v1 shows a container its groups by their host paths unless it is to be otherwise, as Docker does there.
    let cgroup = match &container.cgroup {
        Some(mode) => mode,
        None if request.unified_cgroups && !container.privileged => &NamespaceMode::Private,
        None => &NamespaceMode::Host,
    };
    let wanted = [
        ("volumes", LinuxNamespaceType::Mount, &NamespaceMode::Private),
        ("network_mode", LinuxNamespaceType::Network, &network),
        ("uts", LinuxNamespaceType::Uts, &container.uts),
        ("pid", LinuxNamespaceType::Pid, &container.pid),
        ("ipc", LinuxNamespaceType::Ipc, &container.ipc),
        ("cgroup", LinuxNamespaceType::Cgroup, cgroup),
    ];
    let mut namespaces = Vec::new();
    for (attribute, kind, mode) in wanted {
        let path = request.joined.iter().find(|(joined, _)| *joined == kind).map(|(_, path)| path.clone());
        let must_join = matches!(mode, NamespaceMode::Service(_) | NamespaceMode::Container(_));
        if must_join && path.is_none() {
            return Err(SpecError::NoNamespace(attribute, kind));
        }
        if *mode != NamespaceMode::Host {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace.set_path(path);
            namespaces.push(namespace);
        }
    }
    Ok(namespaces)
}

#[cfg(test)]
mod tests;
