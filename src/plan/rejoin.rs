//! Containers in the namespaces of another one, which its policy has restarted: there it is not any more.

use super::relations::parents_of;
use crate::spec::ContainerState;
use crate::spec::Phase;

/// Running containers that are in namespaces which a service has left, and the service. Only where a policy has started that one
/// again: a command that does so takes them along, or was told not to.
pub fn left_behind<'a>(containers: &[&'a ContainerState]) -> Vec<(&'a ContainerState, &'a str)> {
    let left = |container: &ContainerState, parent: &str| {
        let Phase::Running { joined, paused: false, .. } = &container.phase else { return false };
        let runs = || running(containers, parent);
        !joined.is_empty() && runs().any(|(_, restarts)| restarts > 0) && runs().all(|(pid, _)| !joined.contains(&pid))
    };
    let meant = containers.iter().copied().filter(|one| one.number > 0 && !one.stopped_by_user);
    let found = meant.filter_map(|one| Some((one, parents_of(&one.service).find(|parent| left(one, parent))?)));
    found.collect()
}

/// Whether there are namespaces to join: without them it cannot be started.
pub fn can_join(container: &ContainerState, containers: &[&ContainerState]) -> bool {
    parents_of(&container.service).all(|parent| running(containers, parent).next().is_some())
}

/// Processes of a service's containers, and how often policies have started each.
fn running(containers: &[&ContainerState], service: &str) -> impl Iterator<Item = (i32, u32)> {
    let mine = containers.iter().filter(move |one| one.number > 0 && one.service.name == service);
    mine.filter_map(|one| match one.phase {
        Phase::Running { pid, .. } => Some((pid, one.restarts)),
        _ => None,
    })
}
