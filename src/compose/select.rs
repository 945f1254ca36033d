//! Which services are active, and what they need.

use std::collections::{BTreeMap, BTreeSet};

use super::report::Reports;
use super::validate::nearest;
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Node};

/// Services that no active profile names, taken out of the tree.
pub(super) type Disabled = Map;

/// The profiles of every service that has some.
pub(super) fn profiles(service: &Node) -> Vec<String> {
    let list = service.get("profiles").and_then(Node::as_list).unwrap_or_default();
    list.iter().filter_map(Node::as_str).map(str::to_owned).collect()
}

/// Takes services out of the tree that are in none of the active profiles.
pub(super) fn apply_profiles(tree: &mut Node, active: &[String]) -> Disabled {
    let mut disabled = Map::default();
    let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) else { return disabled };
    let is_active = |service: &Node| {
        let profiles = profiles(service);
        // The list of no active profile is the list of an unnamed one, as in the reference.
        let unnamed = active.is_empty() && profiles.iter().any(String::is_empty);
        profiles.is_empty() || unnamed || active.iter().any(|profile| profile == "*" || profiles.contains(profile))
    };
    if services.values().any(|(_, service)| !is_active(service)) {
        let (active, rest) = std::mem::take(services).into_iter().partition(|(_, (_, service))| is_active(service));
        (*services, disabled) = (active, rest);
    }
    disabled
}

/// Activates the profiles of services that were asked for by name.
pub(super) fn enable(tree: &mut Node, disabled: &mut Disabled, names: &[String], active: &mut Vec<String>) {
    let wanted: Vec<String> =
        names.iter().filter_map(|name| disabled.get(name.as_str())).flat_map(|(_, node)| profiles(node)).collect();
    if wanted.is_empty() {
        return;
    }
    active.extend(wanted);
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        services.extend(std::mem::take(disabled));
        services.sort_keys();
    }
    *disabled = apply_profiles(tree, active);
}

/// Keeps the services of the given names and those that they depend on; the others are as those of other profiles.
/// `None` when one is not there.
pub(super) fn services(
    tree: &mut Node,
    names: &[String],
    disabled: &mut Disabled,
    reports: &mut Reports,
) -> Option<()> {
    let services = tree.get_mut("services").and_then(Node::as_map_mut)?;
    let mut kept: BTreeSet<String> = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = names.iter().map(|name| (name.clone(), true)).collect();
    while let Some((name, required)) = waiting.pop() {
        let Some((_, service)) = services.get(name.as_str()) else {
            if required {
                no_such_service(&name, services, disabled, reports);
                return None;
            }
            continue;
        };
        if kept.insert(name) {
            for (dependency, (_, node)) in service.get("depends_on").and_then(Node::as_map).into_iter().flatten() {
                let required = node.get("required").and_then(Node::as_bool) != Some(false);
                waiting.push((dependency.to_string(), required));
            }
        }
    }
    let (keep, rest) = std::mem::take(services).into_iter().partition(|(name, _)| kept.contains(name.as_ref()));
    *services = keep;
    disabled.extend::<Map>(rest);
    for (_, (_, service)) in services.iter_mut() {
        if let Some(dependencies) = service.get_mut("depends_on").and_then(Node::as_map_mut) {
            dependencies.retain(|name, _| kept.contains(name.as_ref()));
            if dependencies.is_empty()
                && let Some(members) = service.as_map_mut()
            {
                members.remove("depends_on");
            }
        }
    }
    Some(())
}

fn no_such_service(name: &str, services: &Map, disabled: &Disabled, reports: &mut Reports) {
    let mut diagnostic = Diagnostic::error("unknown-service", None, format!("no such service: `{name}`"));
    let candidates = services.keys().map(AsRef::as_ref);
    if let Some((mark, service)) = disabled.get(name) {
        let profile = profiles(service).into_iter().next().unwrap_or_default();
        diagnostic.place = reports.place(*mark);
        diagnostic = diagnostic.help(format!("it is in a profile that is not active: add `--profile {profile}`"));
    } else if let Some(nearest) = nearest(name, candidates) {
        diagnostic = diagnostic.help(format!("did you mean `{nearest}`?"));
    }
    reports.push(diagnostic);
}

/// Drops networks, volumes, secrets, configs and models that no service of the tree uses.
pub(super) fn drop_unused(tree: &mut Node) {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let Some(services) = tree.get("services").and_then(Node::as_map) else { return };
    let mut note = |kind: &'static str, name: &str| {
        used.entry(kind).or_default().insert(name.to_owned());
    };
    for (_, service) in services.values() {
        for kind in ["networks", "models"] {
            for name in service.get(kind).and_then(Node::as_map).into_iter().flat_map(Map::keys) {
                note(kind, name);
            }
        }
        let sources = |keys: &[&str]| {
            let list = service.below(keys).and_then(Node::as_list).unwrap_or_default();
            list.iter().filter_map(|item| item.get("source").and_then(Node::as_str))
        };
        sources(&["configs"]).for_each(|name| note("configs", name));
        sources(&["secrets"]).chain(sources(&["build", "secrets"])).for_each(|name| note("secrets", name));
        for volume in service.get("volumes").and_then(Node::as_list).unwrap_or_default() {
            if volume.get("type").and_then(Node::as_str) == Some("volume")
                && let Some(name) = volume.get("source").and_then(Node::as_str)
            {
                note("volumes", name);
            }
        }
    }
    let Some(map) = tree.as_map_mut() else { return };
    for kind in ["networks", "volumes", "secrets", "configs", "models"] {
        let Some((_, resources)) = map.get_mut(kind) else { continue };
        let Some(resources) = resources.as_map_mut() else { continue };
        resources.retain(|name, _| used.get(kind).is_some_and(|names| names.contains(name.as_ref())));
        if resources.is_empty() {
            map.remove(kind);
        }
    }
}

/// A map of disabled services to their profiles.
pub(super) fn disabled_profiles(disabled: &Disabled) -> BTreeMap<String, Vec<String>> {
    disabled.iter().map(|(name, (_, node))| (name.to_string(), profiles(node))).collect()
}
