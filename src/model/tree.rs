//! The project as a tree of values, each of which knows where it was written.

use std::path::PathBuf;
use std::sync::Arc;

use crate::base::diagnostic::Place;

pub use super::map::{Entry, Map, known_key};

/// Position of a value. `file` indexes [`Sources`]; line and column count from 1, a line of 0 means "nowhere"
/// (a value that no file wrote, such as a default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    pub file: u16,
    /// Characters of that line which belong to the value.
    pub length: u16,
    pub line: u32,
    pub column: u32,
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(Box::new(map))
    }
}

/// A value and where it is from.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub value: Value,
    pub mark: Mark,
    pub tag: Tag,
}

/// What a YAML tag asks of the loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    #[default]
    None,
    /// `!reset`: forget what earlier files say here.
    Reset,
    /// `!override`: replace what earlier files say here.
    Override,
    /// An unquoted date, which the format accepts nowhere but in extensions.
    Date,
}

/// What a node holds. Dates are strings, as in YAML's core schema.
#[derive(Clone, Debug, Default)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(Arc<str>),
    List(Vec<Node>),
    /// Boxed: scalars are many, and a map is large.
    Map(Box<Map>),
}

/// The files that marks point into, as the user named them or as they were found.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<Arc<PathBuf>>);

impl Sources {
    /// The place of a mark; `None` when no file wrote the value.
    pub fn place(&self, mark: Mark) -> Option<Place> {
        let file = self.0.get(usize::from(mark.file))?;
        (mark.line > 0).then(|| Place {
            file: Arc::clone(file),
            line: mark.line,
            column: mark.column,
            length: mark.length.into(),
        })
    }
}

impl Node {
    /// A value with the place where it stands.
    pub fn new(value: Value, mark: Mark) -> Self {
        Self { value, mark, tag: Tag::None }
    }

    /// A string with the place where it stands.
    pub fn string(text: impl Into<Arc<str>>, mark: Mark) -> Self {
        Self::new(Value::String(text.into()), mark)
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self.value { Some(value) } else { None }
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map.as_ref()) } else { None }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value { Some(map.as_mut()) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        if let Value::List(list) = &self.value { Some(list) } else { None }
    }

    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Self>> {
        if let Value::List(list) = &mut self.value { Some(list) } else { None }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The value below `key`, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_map()?.get(key).map(|(_, node)| node)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.as_map_mut()?.get_mut(key).map(|(_, node)| node)
    }

    /// The value that these keys lead to, one below the other.
    pub fn below(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The node at a dotted path such as `services.web.ports.0`. A key may hold dots itself: the longest
    /// key that fits wins.
    pub fn at(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        match &self.value {
            Value::List(list) => {
                let (index, rest) = path.split_once('.').unwrap_or((path, ""));
                list.get(index.parse::<usize>().ok()?)?.at(rest)
            }
            Value::Map(map) => {
                let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
                ends.rev().find_map(|end| {
                    let (_, node) = map.get(path.get(..end)?)?;
                    node.at(path.get(end + 1..).unwrap_or_default())
                })
            }
            _ => None,
        }
    }

    /// How many values this is, itself included; a long text counts as several.
    pub fn size(&self) -> usize {
        1 + match &self.value {
            Value::String(text) => text.len() / 256,
            Value::List(list) => list.iter().map(Self::size).sum(),
            Value::Map(map) => map.values().map(|(_, node)| node.size()).sum(),
            _ => 0,
        }
    }

    /// The plain value, without places.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => serde_json::Number::from_f64(*value).map_or(Json::Null, Json::Number),
            Value::String(text) => Json::String(text.to_string()),
            Value::List(list) => Json::Array(list.iter().map(Self::to_json).collect()),
            Value::Map(map) => {
                Json::Object(map.iter().map(|(key, (_, node))| (key.to_string(), node.to_json())).collect())
            }
        }
    }
}

/// Equal values; where they were written does not count, and neither does the order of a mapping.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::String(a), Value::String(b)) => a == b,
            (Value::List(a), Value::List(b)) => a == b,
            (Value::Map(a), Value::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, (_, node))| b.get(key).is_some_and(|(_, x)| x == node))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_reach_keys_with_dots() {
        let leaf = Node::string("x", Mark::default());
        let item = Node::new(Value::List(vec![leaf]), Mark::default());
        let map = Map::from_iter([(Arc::from("a.b"), (Mark::default(), item))]);
        let tree = Node::new(Value::Map(Box::new(map)), Mark::default());
        assert_eq!(tree.at("a.b.0").and_then(Node::as_str), Some("x"));
        assert!(tree.at("a.b.1").is_none());
        assert!(tree.at("a").is_none());
    }
}
