//! A canonical tree as text, the way `config` prints it.

mod json;
mod order;
mod yaml;

use std::sync::Arc;

use super::schema::{Members, PROJECT, Shape, Struct, Zero};
use crate::model::tree::{Map, Mark, Node, Value};

pub use json::json_text;
pub use yaml::yaml_text;

/// The tree of a project as `config --format yaml` prints it.
pub fn yaml(tree: &Node) -> String {
    yaml_text(&shaped(tree, &PROJECT, Form::Yaml, 0))
}

/// The tree of a project as `config --format json` prints it.
pub fn json(tree: &Node) -> String {
    let mut node = shaped(tree, &PROJECT, Form::Json, 0);
    if let Some(map) = node.as_map_mut() {
        map.shift_remove("models");
        map.sort_keys();
    }
    json_text(&node)
}

/// What the reference hashes of each service to tell whether its containers must be replaced: JSON in one line,
/// without what makes no difference to a container.
pub fn hashed_services(tree: &Node) -> Vec<(String, String)> {
    let mut project = shaped(tree, &PROJECT, Form::Json, 0);
    let services = project.get_mut("services").and_then(Node::as_map_mut).map(std::mem::take).unwrap_or_default();
    let text = |(name, (_, mut service)): (Arc<str>, (Mark, Node))| {
        if let Some(members) = service.as_map_mut() {
            for key in ["build", "pull_policy", "scale", "depends_on", "profiles"] {
                members.shift_remove(key);
            }
        }
        if let Some(deploy) = service.get_mut("deploy").and_then(Node::as_map_mut) {
            deploy.shift_remove("replicas");
        }
        (name.to_string(), json::compact(&service))
    };
    services.into_iter().map(text).collect()
}

/// A tree without known order, such as one whose variables are not replaced, as YAML.
pub fn plain_yaml(mut tree: Node) -> String {
    in_yaml_order(&mut tree);
    yaml_text(&tree)
}

/// `$` doubled, so that the text can be read as a Compose file again.
pub fn escape_dollars(text: &str) -> String {
    text.replace('$', "$$")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Yaml,
    Json,
}

/// Adds and leaves out what the two forms have differently.
fn shaped(node: &Node, members: &'static Struct, form: Form, depth: usize) -> Node {
    let Some(map) = node.as_map() else { return node.clone() };
    let mut result = Map::with_capacity_and_hasher(map.len(), Default::default());
    for attribute in members.attributes {
        match map.get(attribute.name) {
            Some((mark, value)) => {
                let empty = value.as_map().is_some_and(Map::is_empty);
                let left_out = match form {
                    Form::Yaml => empty && attribute.zero == Zero::JsonObject,
                    Form::Json => matches!(value.value, Value::Int(0)) && attribute.zero == Zero::Yaml,
                };
                if !left_out {
                    let name = if members.capital && form == Form::Json {
                        capital(attribute.name)
                    } else {
                        attribute.name.into()
                    };
                    let value = if attribute.name == "ssh" { ssh_keys(value) } else { value.clone() };
                    result.insert(name, (*mark, shape_value(&value, attribute.shape, form, depth + 1)));
                }
            }
            None if form == Form::Json => {
                let value = match attribute.zero {
                    Zero::JsonNull => Value::Null,
                    Zero::JsonObject => Value::from(Map::default()),
                    Zero::Omit | Zero::Keep | Zero::Yaml | Zero::Never => continue,
                };
                let node = shape_value(&Node::new(value, Mark::default()), attribute.shape, form, depth + 1);
                result.insert(Arc::from(attribute.name), (Mark::default(), node));
            }
            None => {}
        }
    }
    let known = result.len();
    for (key, entry) in map {
        let extension = members.attribute(key).is_none();
        // JSON has extensions at the top only.
        if extension && form == Form::Yaml {
            let mut entry = entry.clone();
            in_yaml_order(&mut entry.1);
            result.insert(Arc::clone(key), entry);
        } else if extension && depth == 0 {
            let mut entry = entry.clone();
            empty_lists_are_null(&mut entry.1);
            result.insert(Arc::clone(key), entry);
        }
    }
    if form == Form::Yaml && result.len() > known + 1 {
        let mut extensions = result.split_off(known);
        extensions.sort_by(|a, _, b, _| order::natural(a, b));
        result.extend(extensions);
    }
    Node::new(Value::from(result), node.mark)
}

/// Every mapping below `node` in the order that YAML has.
fn in_yaml_order(node: &mut Node) {
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(in_yaml_order),
        Value::Map(map) => {
            map.sort_by(|a, _, b, _| order::natural(a, b));
            map.values_mut().for_each(|(_, node)| in_yaml_order(node));
        }
        _ => {}
    }
}

/// `ID` or `ID: PATH`, as a list of texts.
fn ssh_keys(node: &Node) -> Node {
    let key = |(id, (mark, path)): (&Arc<str>, &(Mark, Node))| match path.as_str().unwrap_or_default() {
        "" => Node::string(Arc::clone(id), *mark),
        path => Node::string(format!("{id}: {path}"), *mark),
    };
    let keys = node.as_map().into_iter().flatten().map(key);
    Node::new(Value::List(keys.collect()), node.mark)
}

fn capital(name: &str) -> Arc<str> {
    let mut chars = name.chars();
    chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect::<String>().into()
}

/// So they are in the extensions of the reference.
fn empty_lists_are_null(node: &mut Node) {
    match &mut node.value {
        Value::List(list) if list.is_empty() => node.value = Value::Null,
        Value::List(list) => list.iter_mut().for_each(empty_lists_are_null),
        Value::Map(map) => map.values_mut().for_each(|(_, node)| empty_lists_are_null(node)),
        _ => {}
    }
}

fn shape_value(node: &Node, shape: &'static Shape, form: Form, depth: usize) -> Node {
    match (&node.value, shape.map, shape.list) {
        (Value::Map(_), Members::Struct(members), _) => shaped(node, members, form, depth),
        (Value::Map(map), Members::Named { value, .. }, _) => {
            let entries = map
                .iter()
                .map(|(key, (mark, node))| (Arc::clone(key), (*mark, shape_value(node, value, form, depth + 1))));
            let mut entries: Map = entries.collect();
            if form == Form::Yaml {
                entries.sort_by(|a, _, b, _| order::natural(a, b));
            }
            Node::new(Value::from(entries), node.mark)
        }
        (Value::List(list), _, Some(items)) => {
            let items = list.iter().map(|item| shape_value(item, items.shape, form, depth + 1));
            Node::new(Value::List(items.collect()), node.mark)
        }
        _ => node.clone(),
    }
}
