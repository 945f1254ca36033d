//! A canonical tree as text, the way `config` prints it.

mod json;
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
    let mut result = Map::with_capacity(map.len());
    for attribute in members.attributes {
        match map.get(attribute.name) {
            Some((mark, value)) => {
                let empty = value.as_map().is_some_and(Map::is_empty);
                if !(empty && attribute.zero == Zero::JsonObject && form == Form::Yaml) {
                    result.insert(
                        Arc::from(attribute.name),
                        (*mark, shape_value(value, attribute.shape, form, depth + 1)),
                    );
                }
            }
            None if form == Form::Json => {
                let value = match attribute.zero {
                    Zero::JsonNull => Value::Null,
                    Zero::JsonObject => Value::Map(Map::new()),
                    Zero::Omit | Zero::Keep => continue,
                };
                result.insert(Arc::from(attribute.name), (Mark::default(), Node::new(value, Mark::default())));
            }
            None => {}
        }
    }
    for (key, entry) in map {
        let extension = members.attribute(key).is_none();
        // JSON has extensions at the top only.
        if extension && (form == Form::Yaml || depth == 0) {
            result.insert(Arc::clone(key), entry.clone());
        }
    }
    Node::new(Value::Map(result), node.mark)
}

fn shape_value(node: &Node, shape: &'static Shape, form: Form, depth: usize) -> Node {
    match (&node.value, shape.map, shape.list) {
        (Value::Map(_), Members::Struct(members), _) => shaped(node, members, form, depth),
        (Value::Map(map), Members::Named { value, .. }, _) => {
            let entries = map
                .iter()
                .map(|(key, (mark, node))| (Arc::clone(key), (*mark, shape_value(node, value, form, depth + 1))));
            Node::new(Value::Map(entries.collect()), node.mark)
        }
        (Value::List(list), _, Some(items)) => {
            let items = list.iter().map(|item| shape_value(item, items.shape, form, depth + 1));
            Node::new(Value::List(items.collect()), node.mark)
        }
        _ => node.clone(),
    }
}
