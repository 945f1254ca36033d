//! Rules that tie values to each other.

use std::collections::{BTreeMap, HashMap};

use super::finish::EXTENSIONS;
use super::report::Reports;
use super::validate::nearest;
use crate::base::diagnostic::Diagnostic;
use crate::base::units;
use crate::model::tree::{Map, Mark, Node, Value};

fn map(node: Option<&Node>) -> impl Iterator<Item = (&str, Mark, &Node)> {
    let entries = node.and_then(Node::as_map).into_iter().flatten();
    entries.map(|(key, (mark, node))| (key.as_ref(), *mark, node))
}

fn list(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    node.and_then(Node::as_list).into_iter().flatten()
}

/// Rules within one value, checked in every file.
pub(super) fn resources(tree: &Node, reports: &mut Reports) {
    for (name, _, volume) in map(tree.get("volumes")) {
        external_alone(name, volume, reports);
    }
    for (name, mark, config) in map(tree.get("configs")) {
        one_source(&format!("configs.{name}"), mark, config, &["file", "environment", "content"], reports);
    }
    for (name, mark, secret) in map(tree.get("secrets")) {
        one_source(&format!("secrets.{name}"), mark, secret, &["file", "environment"], reports);
    }
    for (name, _, service) in map(tree.get("services")) {
        let devices = service.below(&["deploy", "resources", "reservations", "devices"]);
        for request in list(devices).chain(list(service.get("gpus"))) {
            let given = |key: &str| request.as_map().and_then(|map| map.get(key));
            if let (Some((count, _)), Some((ids, _))) = (given("count"), given("device_ids")) {
                let message = format!(
                    "a device request of `services.{name}` has `count` and `device_ids`, which exclude each other"
                );
                exclusive(message, *count, *ids, reports);
            }
        }
        for port in list(service.get("ports")) {
            if let Some(address) = port.get("host_ip")
                && let Some(text) = address.as_str()
                && !text.contains('$')
                && text.parse::<std::net::IpAddr>().is_err()
            {
                let message = format!("`{text}` of `services.{name}.ports` is not an IP address");
                reports.error("invalid-port", address.mark, message);
            }
        }
        for watch in list(service.below(&["develop", "watch"])) {
            if let Some(path) = watch.get("path")
                && path.as_str() == Some("")
            {
                reports.error("missing-value", path.mark, "the `path` of a watch may not be blank");
            }
        }
    }
}

/// A bind mount has a source.
pub(super) fn bind_sources(tree: &Node, reports: &mut Reports) {
    for (name, _, service) in map(tree.get("services")) {
        for volume in list(service.get("volumes")) {
            if volume.get("type").and_then(Node::as_str) == Some("bind") && volume.get("source").is_none() {
                let message = format!("a bind mount of `services.{name}` has no `source`");
                reports.error("missing-key", volume.mark, message);
            }
        }
    }
}

fn external_alone(name: &str, volume: &Node, reports: &mut Reports) {
    if volume.get("external").and_then(Node::as_bool) != Some(true) {
        return;
    }
    for (key, mark, _) in map(Some(volume)) {
        if !matches!(key, "name" | "external") && !key.starts_with("x-") {
            let message = format!("`volumes.{name}` is external, so it may not have `{key}`");
            reports.error("exclusive-keys", mark, message);
        }
    }
}

fn one_source(path: &str, mark: Mark, resource: &Node, keys: &[&str], reports: &mut Reports) {
    let given = keys.iter().filter_map(|key| resource.as_map()?.get(key));
    let given: Vec<Mark> = given.map(|(mark, _)| *mark).collect();
    let all = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    if let [first, second, ..] = given.as_slice() {
        exclusive(format!("`{path}` may have only one of {all}"), *first, *second, reports);
    }
    if given.is_empty() && resource.get("driver").is_none() && resource.get("external").is_none() {
        reports.error("missing-key", mark, format!("`{path}` must have one of {all}"));
    }
}

/// Two keys of which one has to go: the error is at the later one, whichever that is.
fn exclusive(message: String, a: Mark, b: Mark, reports: &mut Reports) {
    let (first, second) = if (a.line, a.column) < (b.line, b.column) { (a, b) } else { (b, a) };
    let mut diagnostic = Diagnostic::error("exclusive-keys", reports.place(second), message).help("remove one of them");
    if let Some(place) = reports.place(first) {
        diagnostic = diagnostic.related(place, "the other one is here");
    }
    reports.push(diagnostic);
}

/// Ports that exist.
pub(super) fn port_numbers(tree: &Node, reports: &mut Reports) {
    for (name, _, service) in map(tree.get("services")) {
        for port in list(service.get("ports")) {
            if let Some(Node { value: Value::Int(target), mark, .. }) = port.get("target")
                && !(1..=65535).contains(target)
            {
                let message = format!("a port of service `{name}` must be 1 to 65535, but it is {target}");
                reports.error("out-of-range", *mark, message);
            }
        }
    }
}

/// What consistency is checked against.
pub(super) struct Scene<'a> {
    pub(super) tree: &'a Node,
    /// Services that exist but are not active, with their profiles.
    pub(super) disabled: &'a BTreeMap<String, Vec<String>>,
}

/// Rules between the active services and resources of a finished tree.
pub(super) fn consistency(scene: &Scene<'_>, reports: &mut Reports) {
    container_names(scene.tree, reports);
    for (name, mark, service) in map(scene.tree.get("services")) {
        let mut check = Check { scene, name, mark, service, reports };
        check.sources();
        check.references();
        check.dependencies();
        check.limits();
        check.scale();
        check.watches();
        check.mounts();
    }
    for (name, mark, secret) in map(scene.tree.get("secrets")) {
        let external = secret.get("external").and_then(Node::as_bool) == Some(true);
        if !external && secret.get("file").is_none() && secret.get("environment").is_none() {
            let message = format!("secret `{name}` must declare either `file` or `environment`");
            reports.error("missing-key", mark, message);
        }
    }
    cycles(scene.tree, reports);
}

fn container_names(tree: &Node, reports: &mut Reports) {
    let mut taken: HashMap<&str, (&str, Mark)> = HashMap::new();
    for (service, _, node) in map(tree.get("services")) {
        let Some(name) = node.get("container_name") else { continue };
        let Some(text) = name.as_str() else { continue };
        if let Some((other, first)) = taken.insert(text, (service, name.mark)) {
            let message = format!("services.{service}: container name `{text}` is already in use by service `{other}`");
            let mut diagnostic = Diagnostic::error("conflict", reports.place(name.mark), message);
            if let Some(place) = reports.place(first) {
                diagnostic = diagnostic.related(place, "used here first");
            }
            reports.push(diagnostic);
        }
    }
}

struct Check<'a, 'r> {
    scene: &'a Scene<'a>,
    name: &'a str,
    mark: Mark,
    service: &'a Node,
    reports: &'r mut Reports,
}

impl<'a> Check<'a, '_> {
    fn text(&self, keys: &[&str]) -> Option<&'a str> {
        self.service.below(keys).and_then(Node::as_str)
    }

    fn error(&mut self, code: &'static str, mark: Mark, message: String) {
        let mark = if mark.line == 0 { self.mark } else { mark };
        self.reports.error(code, mark, message);
    }

    fn sources(&mut self) {
        let name = self.name;
        if ["image", "build", "provider"].iter().all(|key| self.service.get(key).is_none()) {
            let message = format!("service `{name}` has neither an image nor a build context specified");
            self.reports.error_with_help("no-image", self.mark, message, "add `image:` or `build:`");
        }
        if let (Some(_), Some(node)) =
            (self.text(&["build", "dockerfile"]), self.service.below(&["build", "dockerfile_inline"]))
        {
            let message = format!("service `{name}` declares mutually exclusive `dockerfile` and `dockerfile_inline`");
            self.error("exclusive-keys", node.mark, message);
        }
        for (context, mark, node) in map(self.service.below(&["build", "additional_contexts"])) {
            let Some(target) = node.as_str().and_then(|text| text.strip_prefix("service:")) else { continue };
            match self.scene.tree.get("services").and_then(|services| services.get(target)) {
                None => {
                    let message = format!(
                        "service `{name}` declares unknown service `{target}` as additional context `{context}`"
                    );
                    self.error("unknown-service", mark, message);
                }
                Some(other) if other.get("build").is_none() => {
                    let message = format!(
                        "service `{name}` declares non-buildable service `{target}` as additional context `{context}`"
                    );
                    self.error("not-buildable", mark, message);
                }
                Some(_) => {}
            }
        }
        let platforms = self.service.below(&["build", "platforms"]).and_then(Node::as_list).unwrap_or_default();
        if let Some(platform) = self.text(&["platform"])
            && !platforms.is_empty()
            && !platforms.iter().any(|item| item.as_str() == Some(platform))
        {
            let mark = self.service.get("platform").map(|node| node.mark).unwrap_or_default();
            let message = format!("the `build.platforms` of service `{name}` must include its platform `{platform}`");
            self.error("missing-platform", mark, message);
        }
        if let Some(test) = self.service.below(&["healthcheck", "test"])
            && let Some(first) = list(Some(test)).next()
            && !matches!(first.as_str(), Some("CMD" | "CMD-SHELL" | "NONE"))
        {
            let message =
                format!("the `healthcheck.test` of service `{name}` must start with `CMD`, `CMD-SHELL` or `NONE`");
            self.error("invalid-value", first.mark, message);
        }
    }

    fn references(&mut self) {
        if let Some(mode) = self.service.get("network_mode")
            && let Some(networks) = self.service.get("networks").filter(|networks| map(Some(networks)).next().is_some())
        {
            let message = format!("service `{}` declares mutually exclusive `network_mode` and `networks`", self.name);
            let mut diagnostic =
                Diagnostic::error("exclusive-keys", self.reports.place(mode.mark), message).help("remove one of them");
            if let Some(place) = self.reports.place(networks.mark) {
                diagnostic = diagnostic.related(place, "the networks are here");
            }
            self.reports.push(diagnostic);
        }
        for (network, mark, _) in map(self.service.get("networks")) {
            if network == EXTENSIONS {
                let message = format!("a network of service `{}` starts with `x-`, which is for extensions", self.name);
                self.error("invalid-name", mark, message);
                continue;
            }
            self.defined("networks", "network", network, mark);
        }
        for (model, mark, _) in map(self.service.get("models")) {
            self.defined("models", "model", model, mark);
        }
        for volume in list(self.service.get("volumes")) {
            let source = volume.get("source").and_then(Node::as_str).unwrap_or_default();
            if volume.get("type").and_then(Node::as_str) == Some("volume") && !source.is_empty() {
                let mark = volume.get("source").map_or(volume.mark, |source| source.mark);
                self.defined("volumes", "volume", source, mark);
            }
        }
        for (path, kind, word) in [
            (&["build", "secrets"][..], "secrets", "build secret"),
            (&["configs"], "configs", "config"),
            (&["secrets"], "secrets", "secret"),
        ] {
            for reference in list(self.service.below(path)) {
                let source = reference.get("source").and_then(Node::as_str).unwrap_or_default();
                let mark = reference.get("source").map_or(reference.mark, |source| source.mark);
                self.defined(kind, word, source, mark);
            }
        }
    }

    fn defined(&mut self, kind: &str, word: &str, name: &str, mark: Mark) {
        let declared = self.scene.tree.get(kind);
        if declared.is_some_and(|resources| resources.get(name).is_some()) {
            return;
        }
        let message = format!("service `{}` refers to undefined {word} `{name}`", self.name);
        let nearest = nearest(name, map(declared).map(|(key, _, _)| key));
        let help = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None if kind == "volumes" && name.contains('/') => {
                format!("a path starts with `./` or `/`: write `./{name}`")
            }
            None => format!("declare it under the top-level `{kind}:`"),
        };
        let mark = if mark.line == 0 { self.mark } else { mark };
        self.reports.error_with_help("undefined-reference", mark, message, help);
    }

    fn dependencies(&mut self) {
        let services = self.scene.tree.get("services");
        for (dependency, mark, node) in map(self.service.get("depends_on")) {
            if services.is_some_and(|services| services.get(dependency).is_some()) {
                continue;
            }
            let disabled = self.scene.disabled.get(dependency);
            let required = node.get("required").and_then(Node::as_bool) != Some(false);
            if disabled.is_some() && !required {
                continue;
            }
            let message = format!("service `{}` depends on undefined service `{dependency}`", self.name);
            let help = match (disabled, nearest(dependency, map(services).map(|(key, _, _)| key))) {
                (Some(profiles), _) => {
                    let profile = profiles.first().map(String::as_str).unwrap_or_default();
                    format!("it is in a profile that is not active: add `--profile {profile}`, or `required: false`")
                }
                (None, Some(nearest)) => format!("did you mean `{nearest}`?"),
                (None, None) => "declare it under `services:`, or remove the dependency".to_owned(),
            };
            let mark = if mark.line == 0 { self.mark } else { mark };
            self.reports.error_with_help("undefined-service", mark, message, help);
        }
    }

    /// The old way and that of `deploy` may not differ.
    fn limits(&mut self) {
        let pairs = [
            ("cpus", "limits", "cpus"),
            ("mem_limit", "limits", "memory"),
            ("mem_reservation", "reservations", "memory"),
            ("pids_limit", "limits", "pids"),
        ];
        for (key, section, member) in pairs {
            let Some(old) = self.service.get(key) else { continue };
            let Some(limits) = self.service.below(&["deploy", "resources", section]) else { continue };
            let zero = Node::new(Value::Int(0), Mark::default());
            let new = limits.get(member).unwrap_or(&zero);
            if quantity(old) != quantity(new) {
                let message = format!(
                    "services.{}: can't set distinct values on `{key}` and `deploy.resources.{section}.{member}`",
                    self.name
                );
                let place = self.reports.place(old.mark);
                let mut diagnostic = Diagnostic::error("conflict", place, message).help("keep one of them");
                if let Some(place) = self.reports.place(if new.mark.line > 0 { new.mark } else { limits.mark }) {
                    diagnostic = diagnostic.related(place, "the other value is here");
                }
                self.reports.push(diagnostic);
            }
        }
    }

    fn scale(&mut self) {
        let number = |keys: &[&str]| match self.service.below(keys) {
            Some(Node { value: Value::Int(number), mark, .. }) => Some((*number, *mark)),
            _ => None,
        };
        let (scale, replicas) = (number(&["scale"]), number(&["deploy", "replicas"]));
        if let (Some((scale, mark)), Some((replicas, _))) = (scale, replicas)
            && scale != replicas
        {
            let message = format!("services.{}: can't set distinct values on `scale` and `deploy.replicas`", self.name);
            self.error("conflict", mark, message);
        }
        if let Some((count, mark)) = scale.or(replicas) {
            if count < 0 {
                self.error("out-of-range", mark, format!("services.{}: the scale may not be negative", self.name));
            }
            if count > 1 && self.service.get("container_name").is_some() {
                let key = if scale.is_some() { "scale" } else { "deploy.replicas" };
                let message = format!(
                    "services.{}: can't set `container_name` and `{key}`, as a container name must be unique",
                    self.name
                );
                self.error("conflict", mark, message);
            }
        }
    }

    fn watches(&mut self) {
        for watch in list(self.service.below(&["develop", "watch"])) {
            let action = watch.get("action").and_then(Node::as_str);
            if watch.get("target").is_none() && !matches!(action, Some("rebuild" | "restart")) {
                let message =
                    format!("services.{}.develop.watch: `target` is required for non-rebuild actions", self.name);
                self.error("missing-key", watch.mark, message);
            }
        }
    }

    fn mounts(&mut self) {
        let mut taken: HashMap<&str, Mark> = HashMap::new();
        let tmpfs =
            list(self.service.get("tmpfs")).filter_map(|node| Some((node.as_str()?.split(':').next()?, node.mark)));
        let volumes = list(self.service.get("volumes"))
            .filter_map(|node| Some((node.get("target").and_then(Node::as_str)?, node.mark)));
        for (target, mark) in tmpfs.chain(volumes) {
            if let Some(first) = taken.insert(target, mark) {
                let message = format!("services.{}: target `{target}` is already mounted", self.name);
                let mut diagnostic = Diagnostic::error("duplicate-mount", self.reports.place(mark), message);
                if let Some(place) = self.reports.place(first) {
                    diagnostic = diagnostic.related(place, "mounted here first");
                }
                self.reports.push(diagnostic);
            }
        }
    }
}

/// A number that can be compared, whether it is printed as one or as quoted bytes.
fn quantity(node: &Node) -> f64 {
    match &node.value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::String(text) => units::parse_bytes(text).map_or(f64::NAN, |bytes| bytes as f64),
        _ => 0.0,
    }
}

/// Dependencies may not go round in a circle.
fn cycles(tree: &Node, reports: &mut Reports) {
    let Some(services) = tree.get("services").and_then(Node::as_map) else { return };
    let mut done: HashMap<&str, bool> = HashMap::new();
    for (start, _) in services {
        if !done.contains_key(start.as_ref()) && visit(start, services, &mut done, reports) {
            return;
        }
    }
}

/// Walks the dependencies of one service, without recursion: chains may be long. True when a cycle was reported.
fn visit<'a>(start: &'a str, services: &'a Map, done: &mut HashMap<&'a str, bool>, reports: &mut Reports) -> bool {
    let dependencies = |name: &str| -> Vec<(&'a str, Mark)> {
        let node = services.get(name).and_then(|(_, service)| service.get("depends_on"));
        map(node).map(|(key, mark, _)| (key, mark)).collect()
    };
    let mut way: Vec<(&str, Vec<(&str, Mark)>)> = vec![(start, dependencies(start))];
    done.insert(start, false);
    while let Some((name, rest)) = way.last_mut() {
        let Some((next, mark)) = rest.pop() else {
            done.insert(name, true);
            way.pop();
            continue;
        };
        match done.get(next) {
            Some(true) => {}
            Some(false) => {
                let cycle = way.iter().map(|(name, _)| *name).skip_while(|name| *name != next);
                let text = cycle.chain([next]).collect::<Vec<_>>().join(" -> ");
                reports.error_with_help(
                    "dependency-cycle",
                    mark,
                    format!("dependency cycle detected: {text}"),
                    "remove one of these dependencies",
                );
                return true;
            }
            None if services.contains_key(next) => {
                done.insert(next, false);
                way.push((next, dependencies(next)));
            }
            None => {}
        }
    }
    false
}
