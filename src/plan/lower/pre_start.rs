//! `pre_start`: programs that run in containers of their own before a service's containers.

use crate::model::{self, Service};
use crate::spec::container::{MountSource, MountsOf, NetworkMode, VolumesFrom};
use crate::spec::{PreStart, RestartPolicy, ServiceSpec};

/// `of`: the service itself, in whose likeness they are made.
pub(super) fn pre_start(service: &Service, of: &ServiceSpec) -> Vec<PreStart> {
    let hooks = service.pre_start.iter();
    hooks.map(|hook| PreStart { per_replica: hook.per_replica, service: hooked(hook, of) }).collect()
}

fn hooked(hook: &model::Hook, of: &ServiceSpec) -> ServiceSpec {
    let mut spec = of.clone();
    spec.scale = 1;
    spec.container_name = None;
    spec.depends_on.clear();
    spec.restart = RestartPolicy::No;
    spec.health = None;
    // So that the image's check is not taken either.
    spec.fields.insert("healthcheck".to_owned(), serde_json::Value::Null);
    spec.post_start.clear();
    spec.pre_stop.clear();
    let container = &mut spec.container;
    let own_image = hook.image.clone().filter(|image| !image.is_empty());
    let has_own_image = own_image.is_some();
    container.image = own_image.unwrap_or_else(|| container.image.clone());
    container.entrypoint = None;
    container.command = (!hook.command.is_empty()).then(|| hook.command.clone());
    let filled = |own: &Option<String>, of_service: Option<String>| {
        own.clone().filter(|own| !own.is_empty()).or(of_service.filter(|_| !has_own_image))
    };
    container.user = filled(&hook.user, container.user.take());
    container.working_dir = filled(&hook.working_dir, container.working_dir.take());
    container.privileged = hook.privileged;
    container.environment.extend(hook.environment.clone());
    container.tty = false;
    container.stdin_open = false;
    container.ports.clear();
    // The volumes are those of the service's first container (or of the one that is to be started), also where they have no name.
    container.mounts.retain(|mount| !matches!(mount.source, MountSource::Anonymous { .. }));
    container.volumes_from = vec![VolumesFrom { of: MountsOf::Service(of.name.clone()), read_only: None }];
    if let NetworkMode::Networks(attachments) = &mut container.network {
        for attachment in attachments {
            // What the service is known by is not there yet.
            attachment.aliases.clear();
            (attachment.ipv4, attachment.ipv6, attachment.mac) = (None, None, None);
            attachment.link_local.clear();
        }
    }
    spec
}
