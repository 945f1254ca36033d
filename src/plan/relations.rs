//! What a service refers to by name, and what its containers are called.

use crate::spec::ProjectSpec;
use crate::spec::ServiceSpec;
use crate::spec::container::{MountSource, NamespaceMode, NetworkMode};

pub(super) fn container_name(project: &ProjectSpec, service: &ServiceSpec, number: u32) -> String {
    match &service.container_name {
        Some(name) => name.clone(),
        None => {
            let between = project.separator;
            format!("{}{between}{}{between}{number}", project.name, service.name)
        }
    }
}

pub(super) fn networks_of(service: &ServiceSpec) -> impl Iterator<Item = &str> {
    let attachments = match &service.container.network {
        NetworkMode::Networks(attachments) => attachments.as_slice(),
        _ => &[],
    };
    attachments.iter().map(|attachment| attachment.network.as_str())
}

/// Keys of the volumes that a service mounts.
pub fn volumes_of(service: &ServiceSpec) -> impl Iterator<Item = &str> {
    service.container.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume { key, .. } => Some(key.as_str()),
        _ => None,
    })
}

/// Services whose namespaces this one lives in.
pub(super) fn parents_of(service: &ServiceSpec) -> impl Iterator<Item = &str> {
    let network = match &service.container.network {
        NetworkMode::Service(name) => Some(name.as_str()),
        _ => None,
    };
    let container = &service.container;
    let namespaces = [&container.pid, &container.ipc, &container.uts];
    let joined = namespaces.into_iter().filter_map(|mode| match mode {
        NamespaceMode::Service(name) => Some(name.as_str()),
        _ => None,
    });
    network.into_iter().chain(joined)
}
