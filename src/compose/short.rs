//! Short syntaxes and what they stand for. Nothing here reports: what does not fit is left as it is, or is an error
//! text for the caller to place.

use std::net::IpAddr;
use std::sync::Arc;

use super::scalar;
use crate::model::tree::{Map, Mark, Node, Tag, Value, known_key};

/// A mapping of the given members, all marked alike.
pub(super) fn mapping<const N: usize>(mark: Mark, members: [(&'static str, Value); N]) -> Node {
    let entries = members.into_iter().map(|(key, value)| (known_key(key), (mark, Node::new(value, mark))));
    Node::new(Value::from(entries.collect::<Map>()), mark)
}

fn text(value: &str) -> Value {
    Value::String(value.into())
}

/// `build: PATH`
pub(super) fn build(node: Node) -> Node {
    match &node.value {
        Value::String(_) => {
            let (mark, tag) = (node.mark, node.tag);
            let mut build = mapping(mark, [("context", node.value)]);
            build.tag = tag;
            build
        }
        _ => node,
    }
}

/// `depends_on: [A, B]`, and the defaults of the long form.
pub(super) fn depends_on(mut node: Node) -> Node {
    if let Some(map) = node.as_map_mut() {
        for (mark, dependency) in map.values_mut() {
            if let Some(members) = dependency.as_map_mut()
                && !members.contains_key("required")
            {
                members.insert(known_key("required"), (*mark, Node::new(Value::Bool(true), *mark)));
            }
        }
    }
    dependency_names(node)
}

/// `depends_on: [A, B]`; what the long form leaves out stays out, so that it changes nothing when files are merged.
pub(super) fn dependency_names(node: Node) -> Node {
    by_name(node, |mark| {
        let started = Value::String(known_key("service_started"));
        mapping(mark, [("condition", started), ("required", Value::Bool(true))])
    })
}

/// `networks: [A, B]`, `models: [A, B]`
pub(super) fn names(node: Node) -> Node {
    by_name(node, |mark| Node::new(Value::Null, mark))
}

fn by_name(node: Node, value: impl Fn(Mark) -> Node) -> Node {
    match node.value {
        Value::List(list) if list.iter().all(|item| item.as_str().is_some()) => {
            let entry = |item: &Node| Some((Arc::from(item.as_str()?), (item.mark, value(item.mark))));
            Node { value: Value::from(list.iter().filter_map(entry).collect::<Map>()), mark: node.mark, tag: node.tag }
        }
        _ => node,
    }
}

/// A list of `KEY=VALUE` as a mapping; a bare `KEY` has no value.
pub(super) fn key_values(node: Node) -> Node {
    match node.value {
        Value::List(list) => {
            let mut map = Map::with_capacity(list.len());
            for item in &list {
                if let Some(text) = scalar::text(&item.value) {
                    let (key, value) = match text.split_once('=') {
                        Some((key, value)) => (key, Value::String(value.into())),
                        None => (text.as_str(), Value::Null),
                    };
                    map.insert(Arc::from(key), (item.mark, Node::new(value, item.mark)));
                }
            }
            Node { value: Value::from(map), mark: node.mark, tag: node.tag }
        }
        _ => node,
    }
}

/// Extra hosts as a list of `HOST=ADDRESS`.
pub(super) fn extra_hosts(node: Node) -> Node {
    let Value::Map(map) = &node.value else { return node };
    let mut hosts = Vec::new();
    for (host, (mark, addresses)) in map.iter() {
        let single = std::slice::from_ref(addresses);
        for address in addresses.as_list().unwrap_or(single) {
            let address = scalar::text(&address.value).unwrap_or_default();
            hosts.push(Node::string(format!("{host}={address}"), *mark));
        }
    }
    Node { value: Value::List(hosts), mark: node.mark, tag: Tag::None }
}

/// What `SOURCE:TARGET:OPTIONS` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct VolumeSpec {
    source: String,
    target: String,
    read_only: bool,
    nocopy: bool,
    propagation: Option<String>,
    selinux: Option<String>,
}

/// What is mounted by a short volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    Anonymous,
    Path(String),
    Named(String),
}

/// The source of a short volume, as it is written.
///
/// # Errors
/// When it is none.
pub fn volume_source(spec: &str) -> Result<VolumeSource, String> {
    let source = parse_volume(spec)?.source;
    Ok(match source.as_str() {
        "" => VolumeSource::Anonymous,
        path if is_path(path) => VolumeSource::Path(source),
        _ => VolumeSource::Named(source),
    })
}

/// The container path of a short volume.
pub(super) fn volume_target(spec: &str) -> Option<String> {
    parse_volume(spec).ok().map(|volume| volume.target)
}

/// A short volume in long form.
pub(super) fn volume(spec: &str, mark: Mark) -> Result<Node, String> {
    let volume = parse_volume(spec)?;
    let bind = is_path(&volume.source);
    let mut node = mapping(mark, [("type", Value::String(known_key(if bind { "bind" } else { "volume" })))]);
    let mut add = |key: &'static str, value: Value| {
        if let Some(map) = node.as_map_mut() {
            map.insert(known_key(key), (mark, Node::new(value, mark)));
        }
    };
    if !volume.source.is_empty() {
        add("source", text(&volume.source));
    }
    add("target", text(&super::paths::clean(&volume.target)));
    if volume.read_only {
        add("read_only", Value::Bool(true));
    }
    let mut bind_options = Map::default();
    let mut option = |key: &'static str, value: Value| {
        bind_options.insert(known_key(key), (mark, Node::new(value, mark)));
    };
    if let Some(selinux) = &volume.selinux {
        option("selinux", text(selinux));
    }
    if let Some(propagation) = &volume.propagation {
        option("propagation", text(propagation));
    }
    if bind {
        option("create_host_path", Value::Bool(true));
    }
    if !bind_options.is_empty() {
        add("bind", Value::from(bind_options));
    }
    if volume.nocopy {
        add("volume", mapping(mark, [("nocopy", Value::Bool(true))]).value);
    } else if !bind && spec.chars().count() > 2 {
        add("volume", Value::from(Map::default()));
    }
    Ok(node)
}

fn is_path(source: &str) -> bool {
    let mut chars = source.chars();
    match chars.next() {
        Some('.' | '/' | '~' | '\\') => true,
        Some(first) => first.is_alphabetic() && chars.next() == Some(':'),
        None => false,
    }
}

fn parse_volume(spec: &str) -> Result<VolumeSpec, String> {
    let mut volume = VolumeSpec::default();
    if spec.is_empty() {
        return Err("a volume may not be empty".to_owned());
    }
    if spec.len() <= 2 {
        volume.target = spec.to_owned();
        return Ok(volume);
    }
    let sections = volume_sections(spec);
    let last = sections.len().saturating_sub(1);
    for (index, section) in sections.iter().enumerate() {
        let wrong = |what: &str| Err(format!("`{spec}` is not a volume: {what}"));
        if section.is_empty() {
            return wrong("there is nothing between two colons");
        }
        if volume.source.is_empty() && index == last {
            volume.target.clone_from(section);
        } else if volume.source.is_empty() {
            volume.source.clone_from(section);
        } else if volume.target.is_empty() {
            volume.target.clone_from(section);
        } else if index < last {
            return wrong("it has too many colons");
        } else {
            volume_options(&mut volume, section);
        }
    }
    Ok(volume)
}

/// Splits at colons, but not after the letter of a Windows drive and not within `${...}`.
fn volume_sections(spec: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    let mut open = 0_usize;
    let mut chars = spec.chars().peekable();
    while let Some(char) = chars.next() {
        let Some(section) = sections.last_mut() else { break };
        if char == '$' && chars.peek() == Some(&'{') {
            open += 1;
        } else if char == '}' {
            open = open.saturating_sub(1);
        }
        let mut before = section.chars();
        let drive = before.next().is_some_and(char::is_alphabetic) && before.next().is_none();
        if char == ':' && open == 0 && !drive {
            sections.push(String::new());
        } else {
            section.push(char);
        }
    }
    sections
}

/// The options of a short volume that mean nothing. `cached` and its like are hints that Linux has no use for.
pub(super) fn unknown_volume_options(spec: &str) -> Vec<String> {
    const HINTS: [&str; 5] = ["ro", "rw", "cached", "delegated", "consistent"];
    let Some(options) = volume_sections(spec).into_iter().nth(2) else { return Vec::new() };
    let is_unknown = |option: &&str| {
        let mut volume = VolumeSpec::default();
        volume_options(&mut volume, option);
        volume == VolumeSpec::default() && !HINTS.contains(option) && !option.contains('$')
    };
    options.split(',').filter(is_unknown).map(str::to_owned).collect()
}

/// Words that are no option are ignored, as the reference does.
fn volume_options(volume: &mut VolumeSpec, options: &str) {
    for option in options.split(',') {
        match option {
            "ro" => volume.read_only = true,
            "rw" => volume.read_only = false,
            "nocopy" => volume.nocopy = true,
            "z" | "Z" => volume.selinux = Some(option.to_owned()),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                volume.propagation = Some(option.to_owned());
            }
            _ => {}
        }
    }
}

/// A short device in long form.
pub(super) fn device(spec: &str, mark: Mark) -> Result<Node, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (source, source, &"rwm"),
        [source, target] => (source, target, &"rwm"),
        [source, target, permissions] => (source, target, permissions),
        _ => return Err(format!("`{spec}` is not a device: it has too many colons, so use the long form")),
    };
    let target = if target.is_empty() { source } else { target };
    Ok(mapping(mark, [("source", text(source)), ("target", text(target)), ("permissions", text(permissions))]))
}

/// A short port, `[[IP:][HOST]:]CONTAINER[/PROTOCOL]` with ranges, in long form: one item per container port.
pub(super) fn ports(spec: &str, mark: Mark) -> Result<Vec<Node>, String> {
    let wrong = |what: &str| format!("`{spec}` is not a port: {what}");
    let parts: Vec<&str> = spec.split(':').collect();
    let (address, host, container) = match parts.as_slice() {
        [] => ("", "", spec),
        [container] => ("", "", *container),
        [host, container] => ("", *host, *container),
        [.., host, container] => {
            let end = spec.len() - host.len() - container.len() - 2;
            (spec.get(..end).unwrap_or_default(), *host, *container)
        }
    };
    // What stands after a second slash is ignored, as the reference does.
    let mut container_and_protocol = container.split('/');
    let container = container_and_protocol.next().unwrap_or_default();
    let protocol = container_and_protocol.next().unwrap_or_default();
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    if container.is_empty() {
        return Err(wrong("the container port is missing"));
    }
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong(&format!("`{protocol}` is not a protocol, which are `tcp`, `udp` and `sctp`")));
    }
    let address = host_address(address).ok_or_else(|| wrong(&format!("`{address}` is not an IP address")))?;
    let (first, last) = port_range(container)
        .ok_or_else(|| wrong(&format!("invalid container port `{container}`, which must be 0 to 65535")))?;
    if first == 0 {
        return Err(wrong("the container port may not be 0"));
    }
    let published = if host.is_empty() {
        None
    } else {
        let range = port_range(host);
        Some(range.ok_or_else(|| wrong(&format!("invalid host port `{host}`, which must be 0 to 65535")))?)
    };
    if let Some((start, end)) = published
        && first != last
        && end - start != last - first
    {
        return Err(wrong("the ranges of host and container ports differ in length"));
    }
    let mut numbers: Vec<(u16, u16)> = (first..=last).zip(0..).collect();
    numbers.sort_by_key(|(target, _)| target.to_string());
    let port = |(target, offset): (u16, u16)| {
        let mut node =
            mapping(mark, [("mode", Value::String(known_key("ingress"))), ("target", Value::Int(target.into()))]);
        if let Some(map) = node.as_map_mut() {
            let mut add = |key: &'static str, value: &str| {
                map.insert(known_key(key), (mark, Node::new(text(value), mark)));
            };
            if !address.is_empty() {
                add("host_ip", &address);
            }
            match published {
                Some((start, end)) if first == last && start != end => add("published", &format!("{start}-{end}")),
                Some((start, _)) => add("published", &(start + offset).to_string()),
                None => {}
            }
            add("protocol", &protocol);
        }
        node
    };
    Ok(numbers.into_iter().map(port).collect())
}

/// The address without brackets; an IPv6 one must have them.
fn host_address(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    let bare = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if text.contains(':') => return None,
        None => text,
    };
    bare.is_empty().then(String::new).or_else(|| bare.parse::<IpAddr>().ok().map(|_| bare.to_owned()))
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_in_every_form() {
        let cases = [
            ("3000", json!([{"mode": "ingress", "target": 3000, "protocol": "tcp"}])),
            ("8000:80/udp", json!([{"mode": "ingress", "target": 80, "published": "8000", "protocol": "udp"}])),
            (
                "[::1]:6001:6001",
                json!([{"mode": "ingress", "target": 6001, "host_ip": "::1", "published": "6001", "protocol": "tcp"}]),
            ),
            ("127.0.0.1::80", json!([{"mode": "ingress", "target": 80, "host_ip": "127.0.0.1", "protocol": "tcp"}])),
            ("8000-8002:80", json!([{"mode": "ingress", "target": 80, "published": "8000-8002", "protocol": "tcp"}])),
            (
                "9090-9091:8080-8081",
                json!([
                    {"mode": "ingress", "target": 8080, "published": "9090", "protocol": "tcp"},
                    {"mode": "ingress", "target": 8081, "published": "9091", "protocol": "tcp"},
                ]),
            ),
        ];
        for (spec, expected) in cases {
            let nodes = ports(spec, Mark::default()).unwrap();
            assert_eq!(nodes.iter().map(Node::to_json).collect::<serde_json::Value>(), expected, "{spec}");
        }
        for wrong in ["", "70000:80", "::1:6000:6000", "80/xyz", "a", "1-3:1-2", "5-1", "999.1.1.1:1:1", "80:"] {
            assert!(ports(wrong, Mark::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn volumes_in_every_form() {
        let cases = [
            (
                "/a:/b:ro,z",
                json!({"type": "bind", "source": "/a", "target": "/b", "read_only": true,
                "bind": {"selinux": "z", "create_host_path": true}}),
            ),
            ("data:/d", json!({"type": "volume", "source": "data", "target": "/d", "volume": {}})),
            ("/anon/", json!({"type": "volume", "target": "/anon", "volume": {}})),
            ("v:/u", json!({"type": "volume", "target": "v:/u", "volume": {}})),
            (
                "n:x:/t:nocopy",
                json!({"type": "bind", "source": "n:x", "target": "/t",
                "bind": {"create_host_path": true}, "volume": {"nocopy": true}}),
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(volume(spec, Mark::default()).unwrap().to_json(), expected, "{spec}");
        }
        for wrong in ["", ":foo", "/a:/b:/c:/d", "/foo::ro"] {
            assert!(volume(wrong, Mark::default()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(spec in "[a-z0-9:./\\[\\]${}~-]{0,30}|\\PC{0,20}") {
            let _ = ports(&spec, Mark::default());
            let _ = volume(&spec, Mark::default());
            let _ = device(&spec, Mark::default());
        }
    }
}
