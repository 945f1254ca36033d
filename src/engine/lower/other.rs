//! A container that another OCI runtime makes: we mount its root where nobody else sees it, and hand over a bundle.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};

use crate::engine::cgroup;
use crate::engine::lower::mounts::{self, is_image};
use crate::engine::lower::{LowerError, Lowered, Root, Slots, restrict, root, stdio};
use crate::engine::runtimes::OtherRuntime;
use crate::init::{
    BindSource, Cleared, Launch, MountFlags, Namespace, NamespaceKind, Propagation, PropagationKind, RecursiveFlags,
    Step,
};

/// What others must know: nothing that we ask for is newer but words that older ones may pass over.
const VERSION: &str = "1.0.2";

/// What a launch by another runtime needs besides the specification.
#[derive(Debug)]
pub struct Handover<'a> {
    pub runtime: &'a OtherRuntime,
    pub id: &'a str,
    pub root: Root,
    /// A folder for the bundle and for what the runtime writes down.
    pub bundle: &'a Path,
    /// What the runtime is called in; the container stays there, or below it.
    pub cgroup: cgroup::Entry,
    /// Shared memory of the container whose `ipc` namespace is joined, as a mount to be attached, and the folder for that: only
    /// where the runtime is called does a path lead there.
    pub shared_memory: Option<(OwnedFd, &'a Path)>,
    pub stdin: bool,
}

const SHM: &str = "/dev/shm";
const SHARED: [&str; 2] = ["shared", "rshared"];
const SLAVE: [&str; 2] = ["slave", "rslave"];

fn spreads(mount: &Mount, options: [&str; 2]) -> bool {
    mount.options().iter().flatten().any(|option| options.contains(&option.as_str()))
}

fn share_memory((memory, at): (OwnedFd, &Path), slots: &mut Slots) -> Result<Step, LowerError> {
    Ok(mounts::attach(memory, mounts::text(at)?, slots))
}

/// In the namespace that the runtime is called in nothing spreads to the host. The host's mount is put over its copy there.
fn stay_shared(mount: &Mount, slots: &mut Slots) -> Result<Step, LowerError> {
    let source = mount.source().as_ref().ok_or(LowerError::Missing("mounts.source"))?;
    let target = mount.destination().display().to_string();
    Ok(Step::Bind {
        source: BindSource::Host(mounts::open_source(source, &target, slots)?),
        target: mounts::text(source)?,
        recursive: spreads(mount, ["rbind", "rbind"]),
        flags: MountFlags::default(),
        clear: Cleared::default(),
        recursive_flags: RecursiveFlags::default(),
        propagation: Some(Propagation { kind: PropagationKind::Shared, recursive: true }),
        id_map: None,
    })
}

/// The launch. [`bundle`] says what must lie in the folder by then.
///
/// # Errors
/// Mounts of images that cannot be had.
pub fn lower_other(spec: &Spec, handover: Handover<'_>) -> Result<Lowered, LowerError> {
    let process = spec.process().as_ref().ok_or(LowerError::Missing("process"))?;
    let mut slots = Slots::default();
    let cgroup = slots.cgroup(handover.cgroup);
    let mut steps = vec![Step::IsolateMounts { slave: true }];
    for mount in spec.mounts().iter().flatten().filter(|mount| spreads(mount, SHARED)) {
        steps.push(stay_shared(mount, &mut slots)?);
    }
    if let Some(memory) = handover.shared_memory {
        steps.push(share_memory(memory, &mut slots)?);
    }
    steps.extend(spec.linux().as_ref().and_then(mounts::label));
    root(handover.root, (None, false), &mut slots, &mut steps)?;
    steps.extend(mounts::images(spec)?);
    let mount_label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let OtherRuntime { program, arguments } = handover.runtime.clone();
    let (bundle, id) = (handover.bundle.to_owned(), handover.id.to_owned());
    steps.push(Step::OtherRuntime { program, arguments, bundle, id });
    let launch = Launch {
        namespaces: vec![Namespace::New(NamespaceKind::Mount)],
        cgroup,
        stdio: stdio(process, handover.stdin, None),
        pipe_label: restrict::pipe_label(process, mount_label),
        steps,
    };
    Ok(Lowered { launch, descriptors: slots.0 })
}

/// The specification as the other runtime gets it: only words of the standard, and paths that it can follow. `memory`: where
/// [`lower_other`] attaches the memory that is shared.
///
/// # Errors
/// What it could not do from where it runs.
pub fn bundle(
    spec: &Spec,
    root: &Root,
    network: Option<PathBuf>,
    group: PathBuf,
    memory: Option<&Path>,
) -> Result<Spec, LowerError> {
    let mut spec = spec.clone();
    spec.set_version(VERSION.to_owned());
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|mount| !is_image(mount));
    // As Docker does: with private mounts around them runtimes would cut off what they bind.
    let around = [(SHARED, "shared"), (SLAVE, "rslave")];
    let around = around.iter().find(|(options, _)| mounts.iter().any(|mount| spreads(mount, *options)));
    if let (Some((_, propagation)), Some(linux)) = (around, spec.linux_mut()) {
        linux.set_rootfs_propagation(Some((*propagation).to_owned()));
    }
    if let Some(memory) = memory.filter(|_| !mounts.iter().any(|mount| mount.destination() == Path::new(SHM))) {
        let mut shared = Mount::default();
        shared.set_destination(PathBuf::from(SHM));
        shared.set_typ(Some("bind".to_owned()));
        shared.set_source(Some(memory.to_owned()));
        shared.set_options(Some(["bind", "rprivate"].map(str::to_owned).to_vec()));
        mounts.push(shared);
    }
    spec.set_mounts(Some(mounts));
    if let (Root::Overlay { at, .. } | Root::Bind(at), Some(wanted)) = (root, spec.root_mut()) {
        wanted.set_path(at.clone());
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(group));
    }
    let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten().filter(|it| it.typ() == LinuxNamespaceType::Network) {
        if namespace.path().is_none() {
            namespace.set_path(network.clone());
        }
    }
    Ok(spec)
}
