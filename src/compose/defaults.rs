//! Values that the format itself defines for what is left out of a long form.

use crate::model::tree::{Map, Mark, Node, Value, known_key};

fn absent(map: &mut Map, key: &'static str, value: impl FnOnce() -> Value) {
    if !map.contains_key(key) {
        map.insert(known_key(key), (Mark::default(), Node::new(value(), Mark::default())));
    }
}

/// Sets defaults in a canonical tree.
pub(super) fn set(tree: &mut Node) {
    let Some(services) = tree.get_mut("services").and_then(Node::as_map_mut) else { return };
    for (_, service) in services.values_mut() {
        if let Some(map) = service.as_map_mut() {
            set_service(map);
        }
    }
}

fn items<'a>(map: &'a mut Map, key: &str) -> impl Iterator<Item = &'a mut Map> {
    map.get_mut(key).and_then(|(_, node)| node.as_list_mut()).into_iter().flatten().filter_map(Node::as_map_mut)
}

fn set_service(service: &mut Map) {
    if let Some(build) = service.get_mut("build").and_then(|(_, node)| node.as_map_mut()) {
        absent(build, "context", || Value::String(known_key(".")));
    }
    for secret in items(service, "secrets") {
        let source = secret.get("source").and_then(|(_, node)| node.as_str()).unwrap_or_default().to_owned();
        absent(secret, "target", || Value::String(format!("/run/secrets/{source}").into()));
    }
    for port in items(service, "ports") {
        absent(port, "protocol", || Value::String(known_key("tcp")));
        absent(port, "mode", || Value::String(known_key("ingress")));
    }
    items(service, "gpus").for_each(device_request);
    let reservations = service
        .get_mut("deploy")
        .and_then(|(_, deploy)| deploy.get_mut("resources"))
        .and_then(|resources| resources.get_mut("reservations"));
    if let Some(reservations) = reservations.and_then(Node::as_map_mut) {
        items(reservations, "devices").for_each(device_request);
    }
}

fn device_request(request: &mut Map) {
    if !request.contains_key("device_ids") {
        absent(request, "count", || Value::String(known_key("all")));
    }
}
