//! The last step to canonical values: every one of its type, as it is printed, in the order of the format.

use std::sync::Arc;

use super::path::Path;
use super::report::Reports;
use super::scalar;
use super::schema::{Attribute, Cast, Members, PROJECT, SERVICE, Shape, Struct, Zero};
use super::short;
use super::{interpolate, shell};
use crate::base::diagnostic::Diagnostic;
use crate::base::units;
use crate::model::tree::{Map, Mark, Node, Tag, Value};

/// Gives a normalised tree its final form, whose services have it.
pub(super) fn project(tree: Node, reports: &mut Reports) -> Node {
    Finisher { reports }.structure(tree, &PROJECT, &Path::ROOT)
}

/// Gives a normalised service its final form.
pub(super) fn service(name: &str, service: Node, reports: &mut Reports) -> Node {
    Finisher { reports }.structure(service, &SERVICE, &Path::ROOT.key("services").key(name))
}

/// 2 to the power of 63: whole numbers have 64 bits with a sign.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

struct Finisher<'a> {
    reports: &'a mut Reports,
}

impl Finisher<'_> {
    fn structure(&mut self, node: Node, members: &'static Struct, path: &Path<'_>) -> Node {
        let Node { value: Value::Map(map), mark, tag } = node else { return node };
        let mut known = Vec::with_capacity(map.len());
        let mut rest = Vec::new();
        for (key, entry) in *map {
            match members.position(&key) {
                Some(position) => known.push((position, key, entry)),
                None if members.forgetful => {}
                None => rest.push((key, entry)),
            }
        }
        if members.complete {
            add_missing(&mut known, members, mark);
        }
        known.sort_by_key(|(position, ..)| *position);
        rest.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut finished = Map::with_capacity(known.len() + rest.len());
        for (position, key, (key_mark, value)) in known {
            let Some(attribute) = members.attributes.get(position) else { continue };
            match self.attribute(value, attribute, &path.key(attribute.name)) {
                Some(value) => drop(finished.insert(key, (key_mark, value))),
                // A size that is dropped is none.
                None if members.complete => drop(finished.insert(key, (key_mark, zero(attribute, key_mark)))),
                None => {}
            }
        }
        finished.extend(rest.into_iter().map(|(key, (mark, node))| (key, (mark, sorted(node)))));
        Node { value: Value::from(finished), mark, tag }
    }

    /// `None` for what is as good as not written.
    fn attribute(&mut self, mut node: Node, attribute: &'static Attribute, path: &Path<'_>) -> Option<Node> {
        if attribute.name == "services"
            && let Some(services) = node.as_map_mut()
        {
            services.sort_keys();
            return Some(node);
        }
        let node = match attribute.name {
            "command" | "entrypoint" => self.command(node, path),
            "test" => healthcheck_test(node),
            "extra_hosts" => self.extra_hosts(node, path),
            "options" => provider_options(node, attribute.shape),
            "networks" => without_extensions(node, path),
            "ulimits" => ulimits(node),
            _ => node,
        };
        let node = self.value(node, attribute.shape, path);
        let zero = match &node.value {
            Value::Null => return None,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Float(value) => *value == 0.0,
            Value::String(text) => text.is_empty() || zero_text(text, attribute.shape.cast),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
        };
        match attribute.zero {
            Zero::Never => None,
            Zero::Omit if zero => None,
            _ => Some(node),
        }
    }

    fn value(&mut self, node: Node, shape: &'static Shape, path: &Path<'_>) -> Node {
        match (node.value, shape.map, shape.list) {
            (Value::Map(map), Members::Struct(members), _) => {
                self.structure(Node { value: Value::Map(map), mark: node.mark, tag: node.tag }, members, path)
            }
            (Value::Map(map), Members::Named { value, .. }, _) => {
                let mut entries: Vec<_> = map.into_iter().collect();
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                let finished = entries.into_iter().map(|(key, (mark, member))| {
                    let member = self.value(member, value, &path.key(&key));
                    (key, (mark, member))
                });
                Node { value: Value::from(finished.collect::<Map>()), mark: node.mark, tag: Tag::None }
            }
            (Value::List(list), _, Some(items)) => {
                let finished = list.into_iter().enumerate();
                let finished = finished.map(|(index, item)| self.value(item, items.shape, &path.index(index)));
                Node { value: Value::List(finished.collect()), mark: node.mark, tag: Tag::None }
            }
            (value, ..) => self.scalar(Node { value, mark: node.mark, tag: node.tag }, shape.cast, path),
        }
    }

    fn scalar(&mut self, node: Node, cast: Cast, path: &Path<'_>) -> Node {
        let mark = node.mark;
        let value = match (cast, node.value) {
            (Cast::Text, value) => match scalar::text(&value) {
                Some(text) => Value::String(text.into()),
                None => value,
            },
            (_, Value::Null) => Value::Null,
            (Cast::TextOrNull, value) => match scalar::text(&value) {
                Some(text) => Value::String(text.into()),
                None => value,
            },
            (Cast::Int | Cast::Unsigned, Value::Float(value)) if value.abs() >= TOO_LARGE => {
                return self.wrong(mark, path, &value.to_string(), "a whole number of 64 bits");
            }
            // A fraction is cut off.
            (Cast::Int | Cast::Unsigned, Value::Float(value)) if cast == Cast::Int || value >= 0.0 => {
                Value::Int(value as i64)
            }
            (Cast::Float, Value::Int(value)) => Value::Float(value as f64),
            (Cast::Float, Value::Float(value)) => Value::Float(narrow(value)),
            (Cast::Float, Value::String(text)) => match text.parse() {
                Ok(value) => Value::Float(narrow(value)),
                Err(_) => return self.wrong(mark, path, &text, "a number"),
            },
            (Cast::Int, Value::String(text)) => match interpolate::whole(&text) {
                Some(value) => Value::Int(value),
                None => return self.wrong(mark, path, &text, "a whole number"),
            },
            (Cast::Unsigned, Value::Int(value)) if value < 0 => {
                return self.wrong(mark, path, &value.to_string(), "a whole number that is not negative");
            }
            (Cast::Unsigned, Value::Float(value)) => {
                return self.wrong(mark, path, &value.to_string(), "a whole number that is not negative");
            }
            (Cast::Bytes, Value::Int(value)) => Value::String(value.to_string().into()),
            (Cast::Bytes, Value::Float(_)) => {
                let message = format!("the number of `{path}` has a fraction or exponent, so it is ignored");
                let diagnostic = Diagnostic::warning("dropped-size", self.reports.place(mark), message)
                    .help("write it as text with a unit, such as `512m` or `\"1.5g\"`");
                self.reports.push(diagnostic);
                Value::Null
            }
            (Cast::Bytes, Value::String(text)) => match units::parse_bytes(&text).filter(|bytes| *bytes >= 0) {
                Some(value) => Value::String(value.to_string().into()),
                None => return self.wrong(mark, path, &text, "a size, such as `64m`"),
            },
            (Cast::Duration, Value::String(text)) => match units::parse_duration(&text) {
                Some(span) => Value::String(units::format_duration(span).into()),
                None => return self.wrong(mark, path, &text, "a duration, such as `1m30s`"),
            },
            (Cast::Mode, Value::Int(mode)) if mode < 0 => Value::String(format!("0-{:o}", mode.unsigned_abs()).into()),
            (Cast::Mode, Value::Float(mode)) => {
                return self.wrong(mark, path, &mode.to_string(), "an octal mode, such as `0440`");
            }
            (Cast::Count, Value::Float(count)) => {
                return self.wrong(mark, path, &count.to_string(), "`all` or a number");
            }
            (Cast::Mode, Value::Int(mode)) => Value::String(format!("0{mode:o}").into()),
            (Cast::Mode, Value::String(text)) => match i64::from_str_radix(&text, 8) {
                Ok(mode) => Value::String(format!("0{mode:o}").into()),
                Err(_) => return self.wrong(mark, path, &text, "an octal mode, such as `0440`"),
            },
            (Cast::Count, Value::String(text)) if text.as_ref() == "all" => Value::Int(-1),
            (Cast::Count, Value::String(text)) => match interpolate::whole(&text) {
                Some(count) => Value::Int(count),
                None => return self.wrong(mark, path, &text, "`all` or a number"),
            },
            (_, value) => value,
        };
        Node { value, mark, tag: node.tag }
    }

    fn wrong(&mut self, mark: Mark, path: &Path<'_>, given: &str, wanted: &str) -> Node {
        self.reports.error("invalid-value", mark, format!("`{path}` must be {wanted}, but it is `{given}`"));
        Node::new(Value::Null, mark)
    }

    /// A command of one text is split into words.
    fn command(&mut self, node: Node, path: &Path<'_>) -> Node {
        let Some(line) = node.as_str() else { return node };
        let Some(words) = shell::split(line) else {
            self.reports.error_with_help(
                "invalid-command",
                node.mark,
                format!("`{path}` is no command line: a quote or parenthesis is not closed"),
                "write it as a list of words",
            );
            return Node::new(Value::Null, node.mark);
        };
        let words = words.into_iter().map(|word| Node::string(word, node.mark)).collect();
        Node::new(Value::List(words), node.mark)
    }

    /// Sorted `HOST=ADDRESS`, addresses without brackets.
    fn extra_hosts(&mut self, node: Node, path: &Path<'_>) -> Node {
        let mut node = short::extra_hosts(node);
        let Some(list) = node.as_list_mut() else { return node };
        let mut hosts = Vec::with_capacity(list.len());
        for item in list.iter() {
            let text = item.as_str().unwrap_or_default();
            let Some((host, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                let message = format!("`{text}` of `{path}` has no address: write `HOST=ADDRESS`");
                self.reports.error("invalid-value", item.mark, message);
                continue;
            };
            if host.is_empty() || host.contains(['=', ':']) {
                let message = format!("`{host}` of `{path}` is not a host name");
                self.reports.error("invalid-value", item.mark, message);
            }
            for address in addresses.split(',') {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let address = bare.filter(|bare| !bare.is_empty()).unwrap_or(address);
                hosts.push(Node::string(format!("{host}={address}"), item.mark));
            }
        }
        hosts.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        *list = hosts;
        node
    }
}

/// Gives every attribute an empty value that has none.
fn add_missing(known: &mut Vec<(usize, Arc<str>, (Mark, Node))>, members: &Struct, mark: Mark) {
    for (position, attribute) in members.attributes.iter().enumerate() {
        if !known.iter().any(|(other, ..)| *other == position) {
            let node = Node::new(empty(attribute.shape.cast), mark);
            known.push((position, Arc::from(attribute.name), (mark, node)));
        }
    }
}

fn empty(cast: Cast) -> Value {
    match cast {
        Cast::Text => Value::String("".into()),
        _ => Value::Int(0),
    }
}

fn zero(attribute: &Attribute, mark: Mark) -> Node {
    match attribute.shape.cast {
        Cast::Bytes => Node::string("0", mark),
        cast => Node::new(empty(cast), mark),
    }
}

/// Sizes and durations of zero.
fn zero_text(text: &str, cast: Cast) -> bool {
    matches!((cast, text), (Cast::Bytes, "0") | (Cast::Duration, "0s"))
}

/// What is left of a number in 32 bits, which is what the reference keeps.
fn narrow(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

fn healthcheck_test(node: Node) -> Node {
    let Some(_) = node.as_str() else { return node };
    let mark = node.mark;
    Node::new(Value::List(vec![Node::string("CMD-SHELL", mark), node]), mark)
}

/// A provider's options are lists of text.
fn provider_options(mut node: Node, shape: &'static Shape) -> Node {
    let Members::Named { value, .. } = shape.map else { return node };
    if value.list.is_none() {
        return node;
    }
    let Some(map) = node.as_map_mut() else { return node };
    map.retain(|_, (_, option)| option.as_list().is_none_or(|list| !list.is_empty()));
    for (_, option) in map.values_mut() {
        if option.as_list().is_none() {
            let mark = option.mark;
            *option = Node::new(Value::List(vec![std::mem::take(option)]), mark);
        }
    }
    node
}

/// A limit of zero is a pair of zeros: a single number counts as not set.
fn ulimits(mut node: Node) -> Node {
    for (mark, limit) in node.as_map_mut().into_iter().flat_map(|map| map.values_mut()) {
        if matches!(limit.value, Value::Int(0)) {
            *limit = short::mapping(*mark, [("soft", Value::Int(0)), ("hard", Value::Int(0))]);
        }
    }
    node
}

/// The name that networks of a service get together when theirs begin with `x-`.
pub(super) const EXTENSIONS: &str = "#extensions";

/// Networks whose names begin with `x-` count as extensions. The reference then has an unnamed one in a service.
fn without_extensions(mut node: Node, path: &Path<'_>) -> Node {
    let Some(map) = node.as_map_mut() else { return node };
    let before = map.len();
    map.retain(|name, _| !name.starts_with("x-"));
    if map.len() < before && !path.is_top_level() {
        let mark = node.mark;
        if let Some(map) = node.as_map_mut() {
            map.insert(Arc::from(EXTENSIONS), (mark, Node::new(Value::from(Map::default()), mark)));
        }
    }
    node
}

/// Extensions keep what they hold; mappings are printed in the order of their keys.
fn sorted(mut node: Node) -> Node {
    node.tag = Tag::None;
    node.value = match node.value {
        Value::List(list) => Value::List(list.into_iter().map(sorted).collect()),
        Value::Map(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::from(entries.into_iter().map(|(key, (mark, node))| (key, (mark, sorted(node)))).collect::<Map>())
        }
        value => value,
    };
    node
}
