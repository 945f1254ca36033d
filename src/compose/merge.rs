//! How a later file changes an earlier one, attribute by attribute.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::canonical::Depth;
use super::path::Path;
use super::report::Reports;
use super::scalar;
use super::schema::{Attribute, Members, Merge, PROJECT, SERVICE, Shape, Struct, Unique};
use super::short;
use crate::base::diagnostic::Diagnostic;
use crate::model::tree::{Mark, Node, Tag, Value};

/// Pairs of IPAM pools that are compared.
const MAX_POOLS: usize = 250_000;

/// Merges a later file over an earlier one. `!reset` and `!override` stay, to be obeyed by further merges, until
/// [`strip_tags`].
pub(super) fn files(base: Node, overlay: Node, depth: Depth, reports: &mut Reports) -> Node {
    Merger { depth, reports }.structure(base, overlay, &PROJECT, &Path::ROOT)
}

/// Merges a service over the one that it extends. Its own `!reset` and `!override` stay, as they apply to
/// earlier files as well.
pub(super) fn services(base: Node, overlay: Node, name: &str, depth: Depth, reports: &mut Reports) -> Node {
    Merger { depth, reports }.structure(base, overlay, &SERVICE, &Path::ROOT.key("services").key(name))
}

/// Drops `!reset` values and forgets tags.
pub(super) fn strip_tags(node: &mut Node) {
    if node.tag != Tag::Date {
        node.tag = Tag::None;
    }
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(strip_tags),
        Value::Map(map) => {
            map.retain(|_, (_, node)| node.tag != Tag::Reset);
            map.values_mut().for_each(|(_, node)| strip_tags(node));
        }
        _ => {}
    }
}

struct Merger<'a> {
    depth: Depth,
    reports: &'a mut Reports,
}

impl Merger<'_> {
    fn structure(&mut self, base: Node, overlay: Node, members: &'static Struct, path: &Path<'_>) -> Node {
        self.mappings(base, overlay, path, |key| match members.attribute(key) {
            Some(Attribute { shape, merge, .. }) => (Some(shape), *merge),
            None => (None, Merge::Deep),
        })
    }

    /// Merges by key. What is no mapping (an error that validation reports) is replaced.
    fn mappings(
        &mut self,
        mut base: Node,
        overlay: Node,
        path: &Path<'_>,
        rule: impl Fn(&str) -> (Option<&'static Shape>, Merge),
    ) -> Node {
        let Value::Map(map) = &mut base.value else { return overlay };
        let Value::Map(changes) = overlay.value else { return base };
        for (key, (key_mark, node)) in *changes {
            let replace = matches!(node.tag, Tag::Reset | Tag::Override);
            if let Some(record) = &mut self.reports.record
                && let Some((_, before)) = map.get(&key)
            {
                record.overridden(path.key(&key).to_string(), node.mark, before.mark);
            }
            match map.get_mut(&key) {
                Some((mark, before)) if !replace && before.tag != Tag::Reset => {
                    let (shape, merge) = rule(&key);
                    let before = std::mem::take(before);
                    *mark = key_mark;
                    let merged = self.value(before, node, shape, merge, &path.key(&key));
                    map.insert(key, (key_mark, merged));
                }
                _ => {
                    map.insert(key, (key_mark, node));
                }
            }
        }
        base
    }

    fn value(
        &mut self,
        base: Node,
        overlay: Node,
        shape: Option<&'static Shape>,
        merge: Merge,
        path: &Path<'_>,
    ) -> Node {
        match merge {
            Merge::Replace => overlay,
            // Without variables there are no keys yet: items of one key are sorted out as in a list.
            Merge::KeyValue if self.depth == Depth::Uninterpolated => append(texts(base), texts(overlay)),
            Merge::KeyValue => self.key_values(base, overlay, path),
            Merge::Append => append(texts(base), texts(overlay)),
            Merge::ExtraHosts => {
                let (mut hosts, more) = (short::extra_hosts(base), short::extra_hosts(overlay));
                if let (Some(list), Value::List(more)) = (hosts.as_list_mut(), more.value) {
                    let mut known: HashSet<Option<String>> =
                        list.iter().map(|item| scalar::text(&item.value)).collect();
                    list.extend(more.into_iter().filter(|item| known.insert(scalar::text(&item.value))));
                }
                hosts
            }
            Merge::Build => self.deep(short::build(base), short::build(overlay), shape, path),
            Merge::DependsOn => self.deep(short::dependency_names(base), short::dependency_names(overlay), shape, path),
            Merge::Names => self.deep(short::names(base), short::names(overlay), shape, path),
            Merge::Logging => {
                let driver = |node: &Node| node.get("driver").and_then(Node::as_str).map(str::to_owned);
                match (driver(&base), driver(&overlay)) {
                    (Some(before), Some(after)) if before != after => overlay,
                    _ => self.deep(base, overlay, shape, path),
                }
            }
            Merge::Ulimits => self.ulimits(base, overlay, path),
            Merge::IpamPools => self.ipam_pools(base, overlay, shape, path),
            Merge::Deep => self.deep(base, overlay, shape, path),
        }
    }

    fn deep(&mut self, base: Node, overlay: Node, shape: Option<&'static Shape>, path: &Path<'_>) -> Node {
        match (&base.value, &overlay.value) {
            (Value::Null, _) => overlay,
            (_, Value::Null) => base,
            (Value::Map(_), Value::Map(_)) => match shape.map(|shape| shape.map) {
                Some(Members::Struct(members)) => self.structure(base, overlay, members, path),
                Some(Members::Named { value, .. }) => {
                    self.mappings(base, overlay, path, |_| (Some(value), Merge::Deep))
                }
                Some(Members::No) | None => self.mappings(base, overlay, path, |_| (None, Merge::Deep)),
            },
            (Value::List(_), Value::List(_)) => append(base, overlay),
            (Value::Map(_) | Value::List(_), _) => {
                let message = format!("cannot override `{path}`: the value before is of another kind");
                let mut diagnostic = Diagnostic::error("cannot-override", self.reports.place(overlay.mark), message)
                    .help("write it the way it was written before, or put `!override` in front of it");
                if let Some(place) = self.reports.place(base.mark) {
                    diagnostic = diagnostic.related(place, "overrides this value");
                }
                self.reports.push(diagnostic);
                base
            }
            _ => overlay,
        }
    }

    fn key_values(&mut self, base: Node, overlay: Node, path: &Path<'_>) -> Node {
        let (mut base, overlay) = (self.pairs(base, path), self.pairs(overlay, path));
        let mark = overlay.mark;
        match (&mut base.value, overlay.value) {
            (Value::Map(map), Value::Map(changes)) => {
                if let Some(record) = &mut self.reports.record {
                    for (key, (_, node)) in changes.iter() {
                        if let Some((_, before)) = map.get(key) {
                            record.overridden(path.key(key).to_string(), node.mark, before.mark);
                        }
                    }
                }
                map.extend(*changes);
                base
            }
            (_, Value::Null) => base,
            (_, value) => Node { value, mark, tag: overlay.tag },
        }
    }

    /// A list of `KEY=VALUE` as a mapping; anything else as it is.
    fn pairs(&mut self, node: Node, path: &Path<'_>) -> Node {
        if let Value::List(list) = &node.value
            && let Some(wrong) = list.iter().find(|item| scalar::text(&item.value).is_none())
        {
            let message = format!("the items of `{path}` must be text such as `KEY=VALUE`");
            self.reports.error("wrong-type", wrong.mark, message);
        }
        short::key_values(node)
    }

    fn ulimits(&mut self, mut base: Node, overlay: Node, path: &Path<'_>) -> Node {
        let (Value::Map(map), Value::Map(changes)) = (&mut base.value, &overlay.value) else {
            return if overlay.is_null() { base } else { overlay };
        };
        for (key, (mark, node)) in changes.iter() {
            let before = map.get(key).map(|(_, before)| before.clone());
            let merged = match before {
                Some(before) if before.as_map().is_some() && node.as_map().is_some() => {
                    self.deep(before, node.clone(), None, &path.key(key))
                }
                _ => node.clone(),
            };
            map.insert(Arc::clone(key), (*mark, merged));
        }
        base
    }

    /// Pools of the same subnet are merged. A pool of the earlier file that the later one does not name is lost
    /// when the later file names any pool before it: that is how the reference does it.
    fn ipam_pools(&mut self, base: Node, overlay: Node, shape: Option<&'static Shape>, path: &Path<'_>) -> Node {
        let (Value::List(originals), Value::List(overrides)) = (&base.value, &overlay.value) else {
            return self.deep(base, overlay, shape, path);
        };
        if originals.len().saturating_mul(overrides.len()) > MAX_POOLS {
            let message = format!("`{path}` has too many pools to be merged");
            self.reports.error("too-large", overlay.mark, message);
            return base;
        }
        let subnet = |node: &Node| node.get("subnet").and_then(Node::as_str).map(str::to_owned);
        let pool_shape = shape.and_then(|shape| shape.list).map(|items| items.shape);
        let mut pools: Vec<Node> = Vec::new();
        for original in originals {
            for change in overrides {
                let known = |pools: &[Node], wanted: &Option<String>| pools.iter().position(|p| subnet(p) == *wanted);
                let wanted = subnet(change);
                if wanted != subnet(original) {
                    if known(&pools, &wanted).is_none() {
                        pools.push(change.clone());
                    }
                    continue;
                }
                let merged = self.deep(original.clone(), change.clone(), pool_shape, path);
                match known(&pools, &wanted).and_then(|index| pools.get_mut(index)) {
                    Some(slot) => *slot = merged,
                    None => pools.push(merged),
                }
            }
        }
        Node::new(Value::List(pools), overlay.mark)
    }
}

fn append(mut base: Node, overlay: Node) -> Node {
    match (base.as_list_mut(), overlay.value) {
        (Some(list), Value::List(more)) => {
            list.extend(more);
            base
        }
        (None, Value::List(more)) => Node::new(Value::List(more), overlay.mark),
        _ => base,
    }
}

/// One text as a list of it, a mapping as a list of `KEY=VALUE`.
fn texts(node: Node) -> Node {
    let mark = node.mark;
    match node.value {
        Value::String(_) => Node::new(Value::List(vec![node]), mark),
        Value::Map(map) => {
            let pair = |(key, (_, value)): (Arc<str>, (Mark, Node))| match scalar::text(&value.value) {
                Some(text) if !value.is_null() => Node::string(format!("{key}={text}"), value.mark),
                _ => Node::string(key, value.mark),
            };
            let mut list: Vec<Node> = map.into_iter().map(pair).collect();
            list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            Node::new(Value::List(list), mark)
        }
        _ => node,
    }
}

/// Where items of a list are the same by their key, the later one takes the place of the earlier.
pub(super) fn enforce_unique(root: &mut Node, reports: &mut Reports) {
    unique_structure(root, &PROJECT, &Path::ROOT, reports);
}

fn unique_structure(node: &mut Node, members: &'static Struct, path: &Path<'_>, reports: &mut Reports) {
    let Some(map) = node.as_map_mut() else { return };
    for (key, (_, child)) in map.iter_mut() {
        if let Some(attribute) = members.attribute(key) {
            let path = path.key(key);
            if attribute.unique != Unique::No {
                unique_items(child, attribute.unique, &path, reports);
            }
            unique_children(child, attribute.shape, &path, reports);
        }
    }
}

fn unique_children(node: &mut Node, shape: &'static Shape, path: &Path<'_>, reports: &mut Reports) {
    match shape.map {
        Members::Struct(members) => unique_structure(node, members, path, reports),
        Members::Named { value, .. } if !matches!(value.map, Members::No) => {
            let Some(map) = node.as_map_mut() else { return };
            for (key, (_, child)) in map.iter_mut() {
                unique_children(child, value, &path.key(key), reports);
            }
        }
        _ => {}
    }
}

fn unique_items(node: &mut Node, unique: Unique, path: &Path<'_>, reports: &mut Reports) {
    let Value::List(list) = &mut node.value else { return };
    if let ([_], Unique::Key | Unique::EnvFile) = (list.as_slice(), unique) {
        return;
    }
    let mut index_of: HashMap<String, usize> = HashMap::with_capacity(list.len());
    let mut kept: Vec<Node> = Vec::with_capacity(list.len());
    for (index, item) in std::mem::take(list).into_iter().enumerate() {
        let Some(key) = unique_key(&item, unique, &path.index(index), reports) else {
            kept.push(item);
            continue;
        };
        match index_of.get(&key).and_then(|index| kept.get_mut(*index)) {
            Some(slot) => {
                if let Some(record) = &mut reports.record {
                    record.overridden(path.to_string(), item.mark, slot.mark);
                }
                *slot = item;
            }
            None => {
                index_of.insert(key, kept.len());
                kept.push(item);
            }
        }
    }
    *list = kept;
}

fn unique_key(item: &Node, unique: Unique, path: &Path<'_>, reports: &mut Reports) -> Option<String> {
    let member = |key: &str| item.get(key).and_then(|node| scalar::text(&node.value));
    let is_map = item.as_map().is_some();
    match unique {
        Unique::No => None,
        Unique::Key | Unique::Expose | Unique::EnvFile if is_map => member("path"),
        Unique::Key => item.as_str().map(|text| text.split('=').next().unwrap_or(text).to_owned()),
        Unique::Expose if matches!(item.value, Value::Float(_)) => {
            reports.error("invalid-port", item.mark, format!("`{path}` is not a port: it has a fraction or exponent"));
            None
        }
        Unique::Expose | Unique::EnvFile => scalar::text(&item.value),
        Unique::Port if is_map => {
            let Some(target) = member("target") else {
                missing(item, path, "a target port", reports);
                return None;
            };
            let host = member("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = member("protocol").unwrap_or_else(|| "tcp".to_owned());
            // A number and the same digits as text are not the same here, which is how the reference has it.
            let published = match item.get("published").map(|node| &node.value) {
                Some(Value::Int(number)) => format!("#{number}"),
                _ => member("published").unwrap_or_default(),
            };
            Some(format!("{host}:{published}:{target}/{protocol}"))
        }
        Unique::Port => scalar::text(&item.value),
        Unique::VolumeTarget if is_map => {
            let target = member("target");
            if target.is_none() {
                missing(item, path, "a mount target", reports);
            }
            target
        }
        Unique::VolumeTarget => short::volume_target(item.as_str()?),
        Unique::DeviceTarget if is_map => {
            let target = member("target");
            if target.is_none() {
                missing(item, path, "a target", reports);
            }
            target
        }
        Unique::DeviceTarget => {
            let text = item.as_str()?;
            let mut parts = text.split(':');
            let source = parts.next()?;
            Some(parts.next().unwrap_or(source).to_owned())
        }
        Unique::ConfigTarget => mount_target(item, ""),
        Unique::SecretTarget => mount_target(item, "/run/secrets"),
    }
}

fn mount_target(item: &Node, folder: &str) -> Option<String> {
    let member = |key: &str| item.get(key).and_then(Node::as_str);
    let source = item.as_str().or_else(|| member("source"))?;
    Some(member("target").map_or_else(|| format!("{folder}/{source}"), str::to_owned))
}

fn missing(item: &Node, path: &Path<'_>, what: &str, reports: &mut Reports) {
    reports.error("missing-key", item.mark, format!("`{path}` is missing {what}"));
}
