//! One way of writing per attribute: short forms of a merged file become long ones.

use super::path::Path;
use super::report::Reports;
use super::short::{self, mapping};
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Map, Mark, Node, Value, known_key};

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Everything that has a long form.
    Full,
    /// Variables are still in the text, so what cannot be read is left as it is, and so are lists of `KEY=VALUE`.
    Uninterpolated,
}

struct Canonical<'a> {
    depth: Depth,
    reports: &'a mut Reports,
}

/// Expands every short form of a file.
pub(super) fn file(root: &mut Node, depth: Depth, reports: &mut Reports) {
    let mut canonical = Canonical { depth, reports };
    if let Some(services) = root.get_mut("services").and_then(Node::as_map_mut) {
        for (name, (_, service)) in services.iter_mut() {
            let root = Path::ROOT.key("services");
            canonical.service(service, &root.key(name));
        }
    }
    for kind in ["networks", "volumes", "secrets", "configs"] {
        if let Some(resources) = root.get_mut(kind).and_then(Node::as_map_mut) {
            for (name, (_, resource)) in resources.iter_mut() {
                canonical.external(resource, &Path::ROOT.key(kind).key(name));
                if let Some(map) = resource.as_map_mut() {
                    canonical.pairs(map, "labels");
                }
            }
        }
    }
}

/// Replaces the value of `key`, when there is one.
fn replace(map: &mut Map, key: &str, change: impl FnOnce(Node) -> Node) {
    if let Some((_, node)) = map.get_mut(key) {
        *node = change(std::mem::take(node));
    }
}

/// One text as a list of it.
fn listed(node: Node) -> Node {
    match node.value {
        Value::String(_) => {
            let mark = node.mark;
            Node::new(Value::List(vec![node]), mark)
        }
        _ => node,
    }
}

impl Canonical<'_> {
    fn wrong(&mut self, code: &'static str, mark: Mark, message: String) {
        if self.depth == Depth::Full {
            self.reports.error(code, mark, message);
        }
    }

    fn pairs(&mut self, map: &mut Map, key: &str) {
        if self.depth == Depth::Full {
            replace(map, key, short::key_values);
        }
    }

    fn service(&mut self, service: &mut Node, path: &Path<'_>) {
        let Some(map) = service.as_map_mut() else { return };
        replace(map, "build", short::build);
        if let Some(build) = map.get_mut("build").and_then(|(_, node)| node.as_map_mut()) {
            self.build(build, &path.key("build"));
        }
        replace(map, "depends_on", short::depends_on);
        replace(map, "networks", short::names);
        replace(map, "models", short::names);
        for key in ["annotations", "labels", "sysctls"] {
            self.pairs(map, key);
        }
        self.variables(map, "environment", path);
        for key in ["dns", "dns_search", "tmpfs", "label_file"] {
            let raw = self.depth == Depth::Uninterpolated && key != "dns" && key != "label_file";
            if !raw {
                replace(map, key, listed);
            }
        }
        if let Some(list) = map.get_mut("dns").and_then(|(_, node)| node.as_list_mut()) {
            list.retain(|item| item.as_str() != Some(""));
        }
        replace(map, "env_file", |node| env_files(listed(node)));
        replace(map, "extends", |node| match node.value {
            Value::String(_) => mapping(node.mark, [("service", node.value)]),
            _ => node,
        });
        replace(map, "gpus", |node| match node.as_str() {
            Some("all") => {
                let all = mapping(node.mark, [("count", Value::String("all".into()))]);
                Node::new(Value::List(vec![all]), node.mark)
            }
            _ => node,
        });
        self.items(map, "gpus", |this, request| {
            if let Some(map) = request.as_map_mut() {
                this.pairs(map, "options");
            }
        });
        self.items(map, "volumes", Self::volume);
        self.items(map, "devices", Self::device);
        for key in ["secrets", "configs"] {
            self.items(map, key, Self::file_reference);
        }
        self.ports(map, &path.key("ports"));
        self.ulimits(map, &path.key("ulimits"));
        for key in ["pre_start", "post_start", "pre_stop"] {
            self.items(map, key, |this, hook| {
                if let Some(map) = hook.as_map_mut() {
                    this.pairs(map, "environment");
                }
            });
        }
        if let Some(deploy) = map.get_mut("deploy").and_then(|(_, node)| node.as_map_mut()) {
            self.deploy(deploy);
        }
        if let Some(develop) = map.get_mut("develop").and_then(|(_, node)| node.as_map_mut()) {
            self.items(develop, "watch", |this, watch| {
                let Some(map) = watch.as_map_mut() else { return };
                replace(map, "ignore", listed);
                replace(map, "include", listed);
                if let Some(exec) = map.get_mut("exec").and_then(|(_, node)| node.as_map_mut()) {
                    this.pairs(exec, "environment");
                }
            });
        }
    }

    fn items(&mut self, map: &mut Map, key: &str, mut change: impl FnMut(&mut Self, &mut Node)) {
        if let Some(list) = map.get_mut(key).and_then(|(_, node)| node.as_list_mut()) {
            list.iter_mut().for_each(|item| change(self, item));
        }
    }

    fn build(&mut self, build: &mut Map, path: &Path<'_>) {
        for item in build.get("additional_contexts").and_then(|(_, node)| node.as_list()).unwrap_or_default() {
            if let Some(text) = item.as_str().filter(|text| !text.contains('=')) {
                let message = format!("`{text}` of `{}` is not `NAME=CONTEXT`", path.key("additional_contexts"));
                self.wrong("invalid-value", item.mark, message);
            }
        }
        replace(build, "additional_contexts", short::key_values);
        self.variables(build, "args", path);
        self.pairs(build, "labels");
        replace(build, "no_cache_filter", listed);
        for key in ["provenance", "sbom"] {
            replace(build, key, |node| match node.value {
                Value::Bool(value) => Node::string(value.to_string(), node.mark),
                _ => node,
            });
        }
        self.items(build, "secrets", Self::file_reference);
        self.ulimits(build, &path.key("ulimits"));
        if let Some((_, ssh)) = build.get_mut("ssh") {
            self.ssh(ssh);
        }
    }

    fn ssh(&mut self, ssh: &mut Node) {
        for item in ssh.as_list().unwrap_or_default() {
            let text = item.as_str().unwrap_or_default();
            if !text.contains('=') && text != "default" {
                let message = format!("`{text}` is not an SSH key: write `default` or `ID=PATH`");
                self.wrong("invalid-value", item.mark, message);
            }
        }
        *ssh = short::key_values(std::mem::take(ssh));
    }

    fn deploy(&mut self, deploy: &mut Map) {
        self.pairs(deploy, "labels");
        let reservations = deploy.get_mut("resources").and_then(|(_, node)| node.get_mut("reservations"));
        if let Some(map) = reservations.and_then(Node::as_map_mut) {
            self.items(map, "devices", |this, request| {
                if let Some(map) = request.as_map_mut() {
                    this.pairs(map, "options");
                }
            });
        }
    }

    /// Variables whose names must not end in a blank, which `KEY =VALUE` would make them.
    fn variables(&mut self, map: &mut Map, key: &str, path: &Path<'_>) {
        self.pairs(map, key);
        let Some(variables) = map.get(key).and_then(|(_, node)| node.as_map()) else { return };
        for (name, (mark, _)) in variables {
            if name.ends_with([' ', '\t']) {
                let message = format!("the name `{name}` in `{}` ends with a blank", path.key(key));
                self.reports.error_with_help("trailing-blank", *mark, message, "write `=` right after the name");
            }
        }
    }

    fn volume(&mut self, item: &mut Node) {
        if let Some(spec) = item.as_str() {
            match short::volume(spec, item.mark) {
                Ok(node) => *item = node,
                Err(message) => self.wrong("invalid-volume", item.mark, message),
            }
            return;
        }
        if let Some(options) = item.get_mut("volume").and_then(Node::as_map_mut) {
            self.pairs(options, "labels");
        }
    }

    fn device(&mut self, item: &mut Node) {
        if let Some(spec) = item.as_str() {
            match short::device(spec, item.mark) {
                Ok(node) => *item = node,
                Err(message) => self.wrong("invalid-device", item.mark, message),
            }
        }
    }

    fn file_reference(&mut self, item: &mut Node) {
        if item.as_str().is_some() {
            let node = std::mem::take(item);
            *item = mapping(node.mark, [("source", node.value)]);
        }
    }

    /// One item may become several.
    fn ports(&mut self, map: &mut Map, path: &Path<'_>) {
        let Some(list) = map.get_mut("ports").and_then(|(_, node)| node.as_list_mut()) else { return };
        if self.depth == Depth::Uninterpolated && !list.iter().all(readable_port) {
            return;
        }
        let mut ports = Vec::with_capacity(list.len());
        for (index, item) in std::mem::take(list).into_iter().enumerate() {
            let text = match &item.value {
                Value::String(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                Value::Map(_) => {
                    if let Some(published) = item.get("published").filter(|node| matches!(node.value, Value::Float(_)))
                    {
                        let message = format!("`{}.published` is not a port", path.index(index));
                        self.wrong("invalid-port", published.mark, message);
                    }
                    ports.push(item);
                    continue;
                }
                _ => {
                    let message = format!("`{}` is not a port", path.index(index));
                    self.wrong("invalid-port", item.mark, message);
                    continue;
                }
            };
            match short::ports(&text, item.mark) {
                Ok(nodes) => ports.extend(nodes),
                Err(message) => {
                    self.wrong("invalid-port", item.mark, message);
                    ports.push(item);
                }
            }
        }
        *list = ports;
    }

    fn ulimits(&mut self, map: &mut Map, path: &Path<'_>) {
        let Some(limits) = map.get("ulimits").and_then(|(_, node)| node.as_map()) else { return };
        for (name, (_, limit)) in limits {
            let of_pair = ["soft", "hard"].iter().filter_map(|key| limit.get(key));
            let float = |limit: &&Node| matches!(limit.value, Value::Float(_));
            if let Some(wrong) = std::iter::once(limit).chain(of_pair).find(float).or(limit.as_str().and(Some(limit))) {
                let message = format!("`{}` must be a whole number", path.key(name));
                self.reports.error("wrong-type", wrong.mark, message);
            }
        }
    }

    /// `external: {name: N}` becomes `external: true` with a name.
    fn external(&mut self, resource: &mut Node, path: &Path<'_>) {
        let Some(map) = resource.as_map_mut() else { return };
        let Some((mark, external)) = map.get("external") else { return };
        if external.as_map().is_none() {
            return;
        }
        let mark = *mark;
        let old_name = external.get("name").cloned();
        map.insert(known_key("external"), (mark, Node::new(Value::Bool(true), mark)));
        let Some(old_name) = old_name else { return };
        match map.get("name") {
            Some((_, name)) if *name != old_name => {
                let message = format!("`{path}` has a `name` and another `external.name`");
                let mut diagnostic = Diagnostic::error("name-conflict", self.reports.place(old_name.mark), message)
                    .help("keep `name` only, with `external: true`");
                if let Some(place) = self.reports.place(name.mark) {
                    diagnostic = diagnostic.related(place, "the name is given here");
                }
                self.reports.push(diagnostic);
            }
            Some(_) => {}
            None => {
                self.reports.warning("deprecated", mark, format!("`{path}.external.name` is deprecated: use `name`"));
                map.insert(known_key("name"), (old_name.mark, old_name));
            }
        }
    }
}

/// A port in long form, or one whose text can be read with its variables in it.
fn readable_port(item: &Node) -> bool {
    item.as_str().is_none_or(|text| short::ports(text, item.mark).is_ok())
}

fn env_files(mut node: Node) -> Node {
    for item in node.as_list_mut().into_iter().flatten() {
        if item.as_str().is_some() {
            let path = std::mem::take(item);
            *item = mapping(path.mark, [("path", path.value), ("required", Value::Bool(true))]);
        } else if let Some(map) = item.as_map_mut()
            && !map.contains_key("required")
        {
            map.insert(known_key("required"), (Mark::default(), Node::new(Value::Bool(true), Mark::default())));
        }
    }
    node
}
