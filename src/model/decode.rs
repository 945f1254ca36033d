//! From the tree of values to the typed model.

use std::fmt;
use std::time::Duration;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, Visitor};

use super::tree::{Map, Mark, Node, Value};
use crate::base::units;

/// A value that does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The innermost value that is known to be at fault.
    pub mark: Mark,
    pub message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { mark: Mark::default(), message: message.to_string() }
    }
}

/// Reads `T` out of a canonical tree.
///
/// # Errors
/// When a value does not fit, with its mark.
pub fn decode<T: for<'de> Deserialize<'de>>(node: &Node) -> Result<T, DecodeError> {
    T::deserialize(node)
}

impl<'de> IntoDeserializer<'de, DecodeError> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let visited = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(list) => visitor.visit_seq(SeqDeserializer::new(list.iter())),
            Value::Map(map) => {
                visitor.visit_map(MapDeserializer::new(map.iter().map(|(key, (_, node))| (key.as_ref(), node))))
            }
        };
        visited.map_err(|mut error| {
            if error.mark.line == 0 {
                error.mark = self.mark;
            }
            error
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.as_str() {
            Some(text) => visitor.visit_enum(text.into_deserializer()),
            None => Err(DecodeError { mark: self.mark, message: "a word is needed here".to_owned() }),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        Ok(from_json(&json))
    }
}

fn from_json(json: &serde_json::Value) -> Node {
    let value = match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(text.as_str().into()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(from_json).collect()),
        serde_json::Value::Object(members) => {
            let entries = members.iter().map(|(key, json)| (key.as_str().into(), (Mark::default(), from_json(json))));
            Value::from(entries.collect::<Map>())
        }
    };
    Node::new(value, Mark::default())
}

/// Go's duration text, as canonical values have it.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    match units::parse_duration(&text) {
        Some(span) => Ok(Some(span.to_duration())),
        None => Err(D::Error::custom(format!("`{text}` is not a duration"))),
    }
}

/// A number of bytes, written as a number or as quoted digits.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Number(number) => Ok(number.as_i64()),
        serde_json::Value::String(text) => match units::parse_bytes(&text) {
            Some(value) => Ok(Some(value)),
            None => Err(D::Error::custom(format!("`{text}` is not a size"))),
        },
        _ => Err(D::Error::custom("a size is needed here")),
    }
}

/// Permission bits written as octal text (`"0440"`) or as a number already decoded.
pub(super) fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Number(number) => Ok(number.as_u64().and_then(|value| u32::try_from(value).ok())),
        serde_json::Value::String(text) => match u32::from_str_radix(&text, 8) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(D::Error::custom(format!("`{text}` is not an octal mode"))),
        },
        _ => Err(D::Error::custom("a mode is needed here")),
    }
}

/// Text that may have been written as another scalar.
pub(super) fn text_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<std::collections::BTreeMap<String, String>, D::Error> {
    let map = std::collections::BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    Ok(map.into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// A number that may have been written as text (`"0.5"`).
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::Number(number) => Ok(number.as_f64()),
        serde_json::Value::String(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(D::Error::custom(format!("`{text}` is not a number"))),
        },
        _ => Err(D::Error::custom("a number is needed here")),
    }
}
