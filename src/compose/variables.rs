//! The variables that a project asks for.

use std::collections::BTreeMap;

use super::template;
use crate::model::tree::{Node, Value};

/// A variable and how it is used; where it is used several times, as it is used last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    /// It has no default, and the project cannot be loaded without it.
    pub required: bool,
    /// Used where it is not set.
    pub default: String,
    /// Used where it is set.
    pub alternate: String,
}

pub(super) fn of(tree: &Node) -> Vec<Variable> {
    let mut found = BTreeMap::new();
    collect(tree, &mut found);
    found.into_values().collect()
}

fn collect(node: &Node, found: &mut BTreeMap<String, Variable>) {
    match &node.value {
        Value::String(text) => {
            for variable in template::variables(text) {
                let template::Variable { name, default, presence, required } = variable;
                found.insert(name.clone(), Variable { name, required, default, alternate: presence });
            }
        }
        Value::List(list) => list.iter().for_each(|item| collect(item, found)),
        Value::Map(map) => map.values().for_each(|(_, node)| collect(node, found)),
        _ => {}
    }
}
