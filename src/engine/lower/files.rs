//! The files of a container without a program: its root and what is mounted there of the host and of volumes.

use oci_spec::runtime::{Mount, Spec};

use crate::engine::cgroup;
use crate::engine::lower::mounts::{self, is_image};
use crate::engine::lower::{LowerError, Lowered, Root, Slots, root};
use crate::init::{Launch, Namespace, NamespaceKind, Stdio, Step};

/// What is there only while a container runs.
const OF_A_RUN: [&str; 3] = ["/dev", "/proc", "/sys"];

/// As Docker has it: no file systems of the container's own, such as a tmpfs.
fn stays(mount: &Mount) -> bool {
    let is_bind = mount.typ().as_deref() == Some("bind") || is_image(mount);
    is_bind && !OF_A_RUN.iter().any(|folder| mount.destination().starts_with(folder))
}

/// A launch that makes the mounts and goes no further: its process waits at [`Step::Rendezvous`], with the container's root as its
/// own.
///
/// # Errors
/// Mounts that cannot be had.
pub fn lower_files(spec: &Spec, at: Root) -> Result<Lowered, LowerError> {
    let mut spec = spec.clone();
    let kept = spec.mounts().iter().flatten().filter(|mount| stays(mount)).cloned().collect();
    spec.set_mounts(Some(kept));
    let mut slots = Slots::default();
    let cgroup = slots.cgroup(cgroup::Entry::default());
    let mut steps = vec![Step::IsolateMounts { slave: mounts::needs_slave(&spec) }];
    steps.extend(spec.linux().as_ref().and_then(mounts::label));
    root(at.clone(), (None, false), &mut slots, &mut steps)?;
    let late = mounts::mounts(&spec, (&at, None), &mut slots, &mut steps)?;
    steps.push(Step::PivotRoot);
    steps.extend(late);
    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        steps.push(Step::ReadonlyRoot);
    }
    steps.push(Step::Rendezvous);
    let launch = Launch {
        namespaces: vec![Namespace::New(NamespaceKind::Mount)],
        cgroup,
        stdio: Stdio::Pipes { stdin: false },
        pipe_label: None,
        steps,
    };
    Ok(Lowered { launch, descriptors: slots.0 })
}
