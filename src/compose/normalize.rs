//! What every project has although nobody writes it: the default network, implied dependencies, names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::paths;
use super::short::mapping;
use crate::model::tree::{Map, Mark, Node, Value, known_key};

fn text(value: impl Into<Arc<str>>) -> Value {
    Value::String(value.into())
}

fn insert(map: &mut Map, key: &'static str, value: Value) {
    map.insert(known_key(key), (Mark::default(), Node::new(value, Mark::default())));
}

/// Normalises a merged tree of the project called `name`, whose services are normalised.
pub(super) fn project(tree: &mut Node, name: &str) {
    let Some(map) = tree.as_map_mut() else { return };
    insert(map, "name", text(name));
    networks(tree);
    empty_resources(tree);
    for kind in RESOURCES {
        if let Some(resources) = tree.get_mut(kind).and_then(Node::as_map_mut) {
            resource_names(resources, name);
        }
    }
}

const RESOURCES: [&str; 4] = ["networks", "volumes", "configs", "secrets"];

/// Of a resource, a name alone says that there is one.
pub(super) fn empty_resources(tree: &mut Node) {
    for kind in RESOURCES {
        for (mark, resource) in tree.get_mut(kind).and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut) {
            if resource.is_null() {
                *resource = Node::new(Value::from(Map::default()), *mark);
            }
        }
    }
}

/// The default network exists when somebody is in it.
fn networks(tree: &mut Node) {
    let mut used = false;
    if let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) {
        let mut own = services.values().filter(|(_, service)| service.as_map().is_some_and(has_own_networks));
        used = own.any(|(_, service)| service.below(&["networks", "default"]).is_some());
    }
    let Some(map) = tree.as_map_mut() else { return };
    let empty = || (Mark::default(), Node::new(Value::from(Map::default()), Mark::default()));
    if used {
        let (_, networks) = map.get_or_insert_with(known_key("networks"), empty);
        if networks.is_null() {
            networks.value = Value::from(Map::default());
        }
        if let Some(networks) = networks.as_map_mut()
            && !networks.contains_key("default")
        {
            insert(networks, "default", Value::Null);
        }
    }
}

fn has_own_networks(service: &Map) -> bool {
    !service.contains_key("provider") && !service.contains_key("network_mode")
}

/// Normalises the attributes of a service. One that names no network is in the default one.
pub(super) fn service(service: &mut Map, environment: &BTreeMap<String, String>) {
    if let Some((_, policy)) = service.get_mut("pull_policy")
        && policy.as_str() == Some("if_not_present")
    {
        policy.value = text("missing");
    }
    if let Some(build) = service.get_mut("build").and_then(|(_, node)| node.as_map_mut()) {
        let has = |key: &str| build.get(key).is_some_and(|(_, node)| !node.is_null());
        if !has("dockerfile") && !has("dockerfile_inline") {
            insert(build, "dockerfile", text("Dockerfile"));
        }
        if let Some((_, args)) = build.get_mut("args") {
            resolve(args, environment, false);
        }
    }
    if let Some((_, variables)) = service.get_mut("environment") {
        resolve(variables, environment, true);
    }
    for volume in service.get_mut("volumes").and_then(|(_, node)| node.as_list_mut()).into_iter().flatten() {
        if let Some(target) = volume.get_mut("target")
            && let Some(path) = target.as_str()
        {
            let path = if path.is_empty() { ".".to_owned() } else { paths::clean(path) };
            target.value = text(path);
        }
    }
    let named = service.get("networks").and_then(|(_, node)| node.as_map());
    if has_own_networks(service) && named.is_none_or(Map::is_empty) {
        insert(service, "networks", mapping(Mark::default(), [("default", Value::Null)]).value);
    }
    implied_dependencies(service);
}

/// Gives bare names the value that the environment has; those without one stay or go.
fn resolve(node: &mut Node, environment: &BTreeMap<String, String>, keep: bool) {
    match &mut node.value {
        Value::Map(map) => {
            for (name, (_, value)) in map.iter_mut().filter(|(_, (_, value))| value.is_null()) {
                if let Some(found) = environment.get(name.as_ref()) {
                    value.value = text(found.as_str());
                }
            }
            if !keep {
                map.retain(|_, (_, value)| !value.is_null());
            }
        }
        Value::List(list) => {
            for item in list.iter_mut() {
                if let Some(name) = item.as_str().filter(|item| !item.contains('='))
                    && let Some(found) = environment.get(name)
                {
                    item.value = text(format!("{name}={found}"));
                }
            }
            if !keep {
                list.retain(|item| item.as_str().is_none_or(|item| item.contains('=')));
            }
        }
        _ => {}
    }
}

/// Links, shared namespaces and `volumes_from` make one service depend on another.
fn implied_dependencies(service: &mut Map) {
    let mut implied: Vec<(String, Mark, bool)> = Vec::new();
    let list = |key: &str| service.get(key).and_then(|(_, node)| node.as_list()).unwrap_or_default();
    for link in list("links") {
        if let Some(text) = link.as_str() {
            let name = match text.split_once(':') {
                Some((name, alias)) if !alias.contains(':') => name,
                _ => text,
            };
            implied.push((name.to_owned(), link.mark, true));
        }
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some((_, node)) = service.get(key)
            && let Some(name) = node.as_str().and_then(|mode| mode.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), node.mark, true));
        }
    }
    for source in list("volumes_from") {
        if let Some(text) = source.as_str().filter(|text| !text.starts_with("container:")) {
            let name = text.split(':').next().unwrap_or(text);
            implied.push((name.to_owned(), source.mark, false));
        }
    }
    if implied.is_empty() {
        return;
    }
    let empty = || (Mark::default(), Node::new(Value::from(Map::default()), Mark::default()));
    let (_, dependencies) = service.get_or_insert_with(known_key("depends_on"), empty);
    let Some(dependencies) = dependencies.as_map_mut() else { return };
    for (name, mark, restart) in implied {
        dependencies.get_or_insert_with(Arc::from(name), || {
            let members = [
                ("condition", text("service_started")),
                ("restart", Value::Bool(restart)),
                ("required", Value::Bool(true)),
            ];
            (mark, mapping(mark, members))
        });
    }
}

/// Where `deploy` is written, it has the number of `scale` as well.
pub(super) fn scales(tree: &mut Node) {
    for (_, service) in tree.get_mut("services").and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(scale) = service.get("scale").filter(|scale| !scale.is_null()).cloned()
            && let Some(deploy) = service.get_mut("deploy").and_then(Node::as_map_mut)
        {
            deploy.insert(known_key("replicas"), (scale.mark, scale));
        }
    }
}

fn resource_names(resources: &mut Map, project: &str) {
    for (key, (_, resource)) in resources.iter_mut() {
        let Some(map) = resource.as_map_mut() else { continue };
        if map.get("name").is_some_and(|(_, name)| !name.is_null()) {
            continue;
        }
        let external = map.get("external").is_some_and(|(_, node)| node.as_bool() == Some(true));
        let name = if external { key.to_string() } else { format!("{project}_{key}") };
        insert(map, "name", text(name));
    }
}
